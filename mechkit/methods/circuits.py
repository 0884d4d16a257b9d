"""Is this set of heads the circuit? Keep it and knock out the rest; knock it out and keep the rest.

A head that is knocked out gives its mean over reference prompts at each position: what it says of sentences of this
form, and nothing of this one. *Faithful* is a circuit that does the whole model's work alone, *complete* one that
leaves no spare part outside, *minimal* one of which every head is needed. The limit: all three hold for these
prompts, this reference and this metric; MLPs always stay, and many a large set of heads is faithful, so compare
with other sets of the same size.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechkit.methods.sweeps import Metric, logits_of, score
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel
from mechkit.network.replay import Replay

Head = tuple[int, int]
Part = tuple[int, ...]  # a head (layer, head), or a head at one position (layer, head, position)


@dataclass(frozen=True)
class Circuit:
    """Heads with a name for what they do.

    Args:
        roles: From a role's name to its heads, each (layer, head), or (layer, head, position) for one position only.
    Chapter: 06.
    """

    roles: Mapping[str, Sequence[Part]]

    @property
    def heads(self) -> tuple[Part, ...]:
        """Every head, lowest layer first."""
        return tuple(sorted({tuple(map(int, head)) for heads in self.roles.values() for head in heads}))

    def role(self, head: Part) -> str:
        """The role that a head has: the first, if it has several.

        Raises: ValueError if it has none.
        """
        for name, heads in self.roles.items():
            if tuple(head) in {tuple(map(int, each)) for each in heads}:
                return name
        raise ValueError(f"wanted a head of the circuit, {', '.join(map(head_name, self.heads))}; came {tuple(head)}")


class Trial:
    """Prompts on which any set of heads can be kept or knocked out. What was asked once is remembered.

    Args:
        lm: The model.
        prompts: Texts or token ids, all of one length.
        reference: Other prompts of the same form and length, whose mean takes the place of what is knocked out.
        metric: From the logits after the last token, [batch 1 d_vocab], to one number a prompt.
    Raises: ValueError if prompts and reference are not of one length.
    Source: Wang et al. (2022), "Interpretability in the Wild", sections 3 and 4.
    Chapter: 06.
    """

    def __init__(
        self, lm: LanguageModel, prompts: Sequence[str] | Tensor, reference: Sequence[str] | Tensor, metric: Metric
    ):
        self.lm, self.metric = lm, metric
        tokens, others = lm.tokens(prompts), lm.tokens(reference)
        if tokens.shape[1] != others.shape[1]:
            raise ValueError(
                f"wanted reference prompts of {tokens.shape[1]} tokens, as the prompts have; came {others.shape[1]}: "
                "use prompts of one form"
            )
        self._means = {layer: value.mean(0) for layer, value in Replay(lm, others).values("z").items()}
        self._all = torch.arange(len(tokens))
        self._whole = Replay(lm, tokens)
        nothing = torch.zeros(lm.n_layers, lm.n_heads, tokens.shape[1], dtype=torch.bool)
        with edit(lm, *self._edits(nothing)):
            self._bare = Replay(lm, tokens)
        self._known: dict[tuple[bool, frozenset[Part]], Tensor] = {}

    def keep(self, heads: Iterable[Part] = ()) -> Float[Tensor, " batch"]:
        """The metric with only these heads at work, every other one knocked out.

        Raises: ValueError for a head that the model lacks, or a position that the prompts lack.
        """
        return self._measured(self._bare, self._mask(heads), True)

    def without(self, heads: Iterable[Part] = ()) -> Float[Tensor, " batch"]:
        """The metric with these heads knocked out, every other one at work.

        Raises: ValueError for a head that the model lacks, or a position that the prompts lack.
        """
        return self._measured(self._whole, self._mask(heads), False)

    def _mask(self, heads: Iterable[Part]) -> Bool[Tensor, "layer head pos"]:
        mask = torch.zeros(self.lm.n_layers, self.lm.n_heads, self._whole.tokens.shape[1], dtype=torch.bool)
        for head in heads:
            mask[checked_part(self.lm, head, mask.shape[2])] = True
        return mask

    def _measured(self, base: Replay, chosen: Bool[Tensor, "layer head pos"], kept: bool) -> Float[Tensor, " batch"]:
        """What the chosen heads' being kept, or not, makes of a run that has none of them kept, or all."""
        key = kept, frozenset(map(tuple, chosen.nonzero().tolist()))
        if key not in self._known:
            final = base.final
            if chosen.any():
                lowest = int(chosen.any(2).any(1).nonzero()[0])
                edits = [each for each in self._edits(chosen if kept else ~chosen) if each.layer >= lowest]
                final = base.rest(lowest, base.resid_pre(lowest), self._all, *edits)
            self._known[key] = score(self.metric, logits_of(self.lm, final[:, -1]))
        return self._known[key]

    def _edits(self, working: Bool[Tensor, "layer head pos"]) -> list[Edit]:
        """For each layer, the mean in place of every head and position that is not at work."""
        return [
            Edit("z", layer, lambda old, on=on, mean=self._means[layer]: torch.where(on.T[None, :, :, None], old, mean))
            for layer, on in enumerate(working)
            if not on.all()
        ]


def faithfulness(trial: Trial, circuit: Circuit) -> float:
    """The share of the whole model's metric that the circuit gives alone: 1 is all of it.

    `F(C) / F(M)`. Its floor is not 0: say also what no head at all gives, `trial.keep()`.

    Raises: ValueError if the whole model's metric is 0.
    Source: Wang et al. (2022), "Interpretability in the Wild", section 4.
    Chapter: 06.
    """
    whole = trial.without().mean()
    if whole.abs() < 1e-6:
        raise ValueError("wanted prompts on which the model does something; its metric is 0: there is nothing to share")
    return float(trial.keep(circuit.heads).mean() / whole)


def completeness(trial: Trial, circuit: Circuit) -> dict[str, tuple[float, float]]:
    """For each role, the circuit's metric without it and the whole model's without it.

    `F(C \\ K), F(M \\ K)`. Where the second is much larger, something outside the circuit stands in for the role.

    Source: Wang et al. (2022), "Interpretability in the Wild", section 4.
    Chapter: 06.
    """
    return {role: _both(trial, circuit, heads) for role, heads in circuit.roles.items()}


def minimality(trial: Trial, circuit: Circuit) -> dict[Part, tuple[float, float]]:
    """For each head, the circuit's metric without the rest of its role, and then without the head as well.

    `F(C \\ K), F(C \\ (K and v))`, where K is the rest of v's role: heads of one role can stand in for one another,
    so each is asked for when its like are gone. Equal numbers: the head is not needed.

    Source: Wang et al. (2022), "Interpretability in the Wild", section 4.
    Chapter: 06.
    """
    found = {}
    for head in circuit.heads:
        role = {tuple(map(int, each)) for each in circuit.roles[circuit.role(head)]}
        others = [each for each in circuit.heads if each not in role]
        found[head] = tuple(float(trial.keep(kept).mean()) for kept in ([*others, head], others))
    return found


def matched_circuits(lm: LanguageModel, circuit: Circuit, count: int, *, seed: int) -> list[tuple[Part, ...]]:
    """Random sets of heads with as many in each layer as the circuit has: the control for every claim about it.

    None is the circuit's own while a layer has enough others; then its own fill up. A head at one position becomes
    another head at that position.

    Chapter: 06.
    """
    chance = random.Random(seed)
    return [_matched(lm, circuit.heads, chance) for _ in range(count)]


def end_attention(
    lm: LanguageModel, prompts: Sequence[str] | Tensor, places: Mapping[str, Int[Tensor, " batch"]]
) -> dict[str, Float[Tensor, "layer head"]]:
    """How much each head attends from the last token to each of these places, 0 to 1: a mean over the prompts.

    Args:
        places: From a name to one position a prompt.
    Chapter: 06.
    """
    _, cache = run(lm, prompts, sites="pattern")
    rows = torch.arange(len(next(iter(places.values()))))
    last = [cache["pattern", layer][:, :, -1] for layer in range(lm.n_layers)]
    return {name: torch.stack([each[rows, :, at].mean(0) for each in last]) for name, at in places.items()}


def head_name(head: Part) -> str:
    """A head as it is written: L5H1, or L5H1@3 at one position."""
    layer, number, *position = head
    return f"L{layer}H{number}" + "".join(f"@{each}" for each in position)


def checked_part(lm: LanguageModel, part: Part, length: int) -> tuple[int, ...]:
    """A head, or a head at a position, once it is sure to exist.

    Raises: ValueError if it does not; it says which do.
    """
    sizes = (lm.n_layers, lm.n_heads, length)
    numbers = tuple(part) if isinstance(part, tuple | list | Tensor) else ()
    if len(numbers) not in (2, 3):
        raise ValueError(f"wanted a head as (layer, head), or (layer, head, position); came {part!r}")
    for number, size, word in zip(numbers, sizes, ("layer", "head", "position"), strict=False):
        if int(number) != number or not 0 <= number < size:
            raise ValueError(f"wanted a {word} of {lm.name}'s run, 0 to {size - 1}; came {number} in {part!r}")
    return tuple(map(int, numbers))


def _both(trial: Trial, circuit: Circuit, heads: Sequence[Part]) -> tuple[float, float]:
    out = {tuple(map(int, head)) for head in heads}
    inside = trial.keep([head for head in circuit.heads if head not in out])
    return float(inside.mean()), float(trial.without(heads).mean())


def _matched(lm: LanguageModel, heads: Sequence[Part], chance: random.Random) -> tuple[Part, ...]:
    found: list[Part] = []
    for layer in sorted({head[0] for head in heads}):
        own = sorted({head[1] for head in heads if head[0] == layer})
        others = sorted(set(range(lm.n_heads)) - set(own))
        drawn = chance.sample(others, len(others)) + chance.sample(own, len(own))
        stand_in = dict(zip(own, drawn, strict=False))
        found += [(layer, stand_in[head[1]], *head[2:]) for head in heads if head[0] == layer]
    return tuple(found)
