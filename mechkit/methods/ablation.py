"""Which activation matters? Knock it out, and see what the output loses.

`zero`, `mean` and `resample` make an `Edit` for `edit(lm, ...)`: to zeros, to the mean over reference prompts, or to
what other prompts have there. `ablate_sweep` does one of these to every place in turn. The limit: every
knock-out also feeds the rest of the model what it has rarely seen, zeros most of all; so compare with the same
knock-out of parts chosen at random.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.methods.sweeps import Metric, Sweep, sweep
from mechkit.network.cache import Cache
from mechkit.network.hooks import Edit, Index, chosen
from mechkit.network.replay import Replay
from mechkit.network.sites import AXES, WITHOUT_LAYER


def zero(site: str, layer: int | None, *, head: Index = None, position: Index = None) -> Edit:
    """Put zeros there.

    The surprise: zero is far from what many early heads always write, so zeros also flag parts that only add a
    constant. Zeros in attn_scores spread attention evenly, over later tokens too; zeros in the pattern let a
    head look nowhere.

    Chapter: 05.
    """
    return Edit(site, layer, torch.zeros_like, head=head, position=position)


def mean(
    site: str,
    layer: int | None,
    reference: Cache,
    *,
    head: Index = None,
    position: Index = None,
    per_position: bool = True,
) -> Edit:
    """Put the mean over the reference prompts there: what stands there on average, and nothing of this prompt.

    Args:
        reference: The cache of a run on other prompts.
        per_position: Each position's own mean, for prompts of one form and length; else one mean over all
            positions but the first, whose values (an attention sink) are unlike all others.
    Raises: KeyError if the reference lacks the site; ValueError if it lacks the head or the position or, on
        running, if its prompts are not as long as the one that is edited.
    Source: Wang et al. (2022), "Interpretability in the Wild", appendix on mean ablation.
    Chapter: 05.
    """
    values = _held(reference, site, layer).mean(0, keepdim=True)
    there = position
    if not per_position:
        if "pos" not in AXES[site].split():
            raise ValueError(f"wanted a site with one value a position; {site} has one a pair: use per_position=True")
        values = values[:, 1:].mean(1, keepdim=True)
        there = 0 if isinstance(position, int) else None
    average = chosen(Edit(site, layer, torch.zeros_like, head=head, position=there), values)
    return Edit(site, layer, lambda old: _fitted(average, old), head=head, position=position)


def resample(
    site: str, layer: int | None, reference: Cache, *, head: Index = None, position: Index = None, seed: int = 0
) -> Edit:
    """Put there what other prompts have: for each prompt, that of a reference prompt drawn at random.

    Unlike a mean, it is a value that the model has really met.

    Args:
        reference: The cache of a run on other prompts of the same length.
        seed: Every run with this edit draws the same prompts.
    Raises: As `mean`.
    Source: Chan et al. (2022), "Causal Scrubbing".
    Chapter: 05.
    """
    values = chosen(Edit(site, layer, torch.zeros_like, head=head, position=position), _held(reference, site, layer))

    def change(old: Tensor) -> Tensor:
        rows = torch.randint(len(values), (len(old),), generator=torch.Generator().manual_seed(seed))
        return _fitted(values[rows], old)

    return Edit(site, layer, change, head=head, position=position)


def ablate_sweep(
    base: Replay,
    metric: Metric,
    *,
    reference: Replay | None = None,
    site: str = "z",
    over: Sequence[str] = ("layer", "head"),
    seed: int | None = None,
    layers: Sequence[int] | None = None,
) -> Sweep:
    """Knock out every cell in turn: `change` of the result is what the metric gains (negative: loses).

    Args:
        base: The run that is ablated.
        metric: From the logits after the last token, [batch 1 d_vocab], to one number a prompt.
        reference: Other prompts of the same length, whose mean at each position is put in; None puts in zeros.
        site, over: As for `patch_sweep`.
        seed: Put in the values of one reference prompt drawn at random, not the mean.
        layers: Knock out in these only, which costs less; elsewhere the change is 0 since nothing is changed.
    Raises: ValueError as `patch_sweep` does, or if the reference prompts are not as long.
    Chapter: 05.
    """
    own = base.values(site)
    if reference is None:
        values = {layer: torch.zeros_like(value) for layer, value in own.items()}
    elif reference.tokens.shape[1] != base.tokens.shape[1]:
        raise ValueError(
            f"wanted reference prompts of {base.tokens.shape[1]} tokens, as the run has; came prompts of "
            f"{reference.tokens.shape[1]}: use prompts of one form"
        )
    else:
        values = {layer: _stand_ins(held, len(base.tokens), seed) for layer, held in reference.values(site).items()}
    if layers is not None:
        values = own | {layer: values[layer] for layer in layers}
    return sweep(base, values, metric, site=site, over=over)


def _stand_ins(
    held: Float[Tensor, "reference pos ..."], batch: int, seed: int | None
) -> Float[Tensor, "batch pos ..."]:
    """One value for each prompt of a run: the mean over the reference prompts, or that of one of them."""
    if seed is None:
        return held.mean(0, keepdim=True).expand(batch, *held.shape[1:])
    return held[torch.randint(len(held), (batch,), generator=torch.Generator().manual_seed(seed))]


def _held(reference: Cache, site: str, layer: int | None) -> Float[Tensor, "batch ..."]:
    return reference[site] if site in WITHOUT_LAYER else reference[site, layer]


def _fitted(values: Tensor, old: Tensor) -> Tensor:
    if any(size not in (1, wanted) for size, wanted in zip(values.shape, old.shape, strict=True)):
        raise ValueError(
            f"wanted reference values of shape {tuple(old.shape)}, as the prompt has; came {tuple(values.shape)}: "
            "use reference prompts of equally many tokens, or mean(..., per_position=False)"
        )
    return values.expand_as(old)
