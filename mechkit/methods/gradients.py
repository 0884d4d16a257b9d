"""Which activation would matter, to first order? Every place at once, from one forward and one backward pass.

Attribution patching replaces each patched run by its linear estimate, `(source - base) . gradient`. The limit:
it is blind to what goes through a softmax that has saturated, so compare it with the truth of a sweep before
you believe it; a mean over gradients on the way from one run to the other (integrated gradients) sees more.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.methods.patching import Pair
from mechkit.methods.sweeps import Metric, Sweep, by_cell, by_position, checked_axes, logits_of, score
from mechkit.network.hooks import Edit, edit, read
from mechkit.network.replay import Replay


def attribution_patch(
    pair: Pair,
    metric: Metric,
    *,
    site: str = "z",
    over: Sequence[str] = ("layer", "head"),
    steps: int | None = None,
    noising: bool = False,
) -> Sweep:
    """What `patch_sweep` would give if the model were linear between the two runs.

    Args:
        metric: From the logits after the last token, [batch 1 d_vocab], to one number a prompt; differentiable.
        site, over, noising: As for `patch_sweep`.
        steps: None for the gradient at the run that is patched; else the mean gradient at so many points between
            the two runs' embeddings.
    Raises: ValueError as `patch_sweep` does, or if `steps` is not positive.
    Source: Nanda (2023), "Attribution Patching"; Hanna et al. (2024), "Have Faith in Faithfulness", for the
        integrated form.
    Chapter: 07.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"wanted at least one step between the two runs; came {steps}")
    axes = checked_axes(site, over)
    base, source = (pair.clean, pair.corrupted) if noising else (pair.corrupted, pair.clean)
    weights = [0.0] if steps is None else [(step + 0.5) / steps for step in range(steps)]
    gradients = torch.stack([_gradient(base, source, metric, site, weight) for weight in weights]).mean(0)
    old, new = base.values(site), source.values(site)
    change = torch.stack([by_position(new[layer] - old[layer], site) for layer in old])
    estimate = by_cell((change * gradients).sum(-1), axes)
    scored = score(metric, logits_of(pair.lm, base.final[:, -1]))
    return Sweep(scored + estimate, scored, axes, score(metric, logits_of(pair.lm, source.final[:, -1])))


def _gradient(
    base: Replay, source: Replay, metric: Metric, site: str, weight: float
) -> Float[Tensor, "layer batch pos ..."]:
    """How the metric changes with each value of the site, part of the way from one run to the other."""
    lm = base.lm
    ends = [lm.hf.get_input_embeddings()(replay.tokens) for replay in (base, source)]
    between = torch.lerp(*ends, weight).requires_grad_()
    with torch.enable_grad(), edit(lm, Edit("embed", None, lambda _: between)), read(lm, site) as seen:
        stream = lm.hf.base_model(input_ids=base.tokens, use_cache=False).last_hidden_state[:, -1:]
        scored = score(metric, lm.unembed(stream))
    values = [seen[site, layer] for layer in range(lm.n_layers)]
    found = torch.autograd.grad(scored.sum(), values, materialize_grads=True)
    return torch.stack([by_position(each, site) for each in found])
