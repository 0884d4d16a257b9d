"""Can you tell where a feature is on? Pieces of text to be judged by eye, half with the feature and half without.

A label is a claim about text that nobody has looked at yet. So the pieces come from text that the label was not written
from, in an order that says nothing, and the feature's activations are left out. The limit: few pieces, and chosen half
and half, while most features are on for one token in hundreds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechkit.methods.sae_activations import Activations


@dataclass(frozen=True)
class Quiz:
    """Pieces of text in which a feature is on, or not.

    Args:
        pieces: Token ids of each.
        asked: Which of a piece's tokens is asked about: the middle one, unless the passage begins or ends nearby.
        truth: In which the feature is on there.
    """

    pieces: list[Int[Tensor, " _"]]
    asked: list[int]
    truth: Bool[Tensor, " piece"]

    def said(self, numbers: list[int]) -> Bool[Tensor, " piece"]:
        """The pieces with these numbers, as a guess about all: True where it is said that the feature is on."""
        return torch.isin(torch.arange(len(self.pieces)), torch.tensor(numbers, dtype=torch.long))


def feature_quiz(
    hidden: Float[Tensor, "token d_sae"],
    activations: Activations,
    feature: int,
    *,
    n: int = 5,
    width: int = 8,
    seed: int = 0,
) -> Quiz:
    """Pieces of `2 * width + 1` tokens: up to n with the feature on in their middle, and as many in which it is off.

    Each is of another passage as far as there are enough.

    Args:
        hidden: What `sae.encode(activations.x)` gives.
    Raises: ValueError if the feature is on nowhere in these activations, or off nowhere.
    Chapter: 08.
    """
    on = hidden[:, feature] > 0
    order = torch.randperm(len(on), generator=torch.Generator().manual_seed(seed))
    near = _near(on, activations, width)
    with_it, without = (_one_a_passage(order[each[order]], activations, n) for each in (on, ~near))
    count = min(len(with_it), len(without))
    if not count:
        raise ValueError(
            f"wanted places where the feature is on and places where it is off; feature {feature} is "
            f"{'on' if on.any() else 'off'} everywhere in these {len(on)} tokens: choose another feature"
        )
    rows = torch.cat([with_it[:count], without[:count]])
    mixed = torch.randperm(2 * count, generator=torch.Generator().manual_seed(seed + 1))
    pieces, asked = zip(*(_piece(int(rows[i]), activations, width) for i in mixed), strict=True)
    return Quiz(list(pieces), list(asked), mixed < count)


def _near(on: Bool[Tensor, " token"], activations: Activations, width: int) -> Bool[Tensor, " token"]:
    """Which tokens have the feature on within `width` tokens, in their own passage."""
    near = on.clone()
    for shift in range(1, width + 1):
        same = activations.passage[shift:] == activations.passage[:-shift]
        near[shift:] |= on[:-shift] & same
        near[:-shift] |= on[shift:] & same
    return near


def _one_a_passage(rows: Int[Tensor, " row"], activations: Activations, n: int) -> Int[Tensor, " kept"]:
    """The first n rows, new passages before passages that were met already."""
    seen: set[int] = set()
    fresh, again = [], []
    for row in rows.tolist():
        passage = int(activations.passage[row])
        (again if passage in seen else fresh).append(row)
        seen.add(passage)
    return torch.tensor([*fresh, *again][:n], dtype=torch.long)


def _piece(row: int, activations: Activations, width: int) -> tuple[Int[Tensor, " pos"], int]:
    """The tokens around a row in its own passage, and which of them it is."""
    first, last = max(0, row - width), row + width + 1
    same = activations.passage[first:last] == activations.passage[row]
    return activations.tokens[first:last][same], int(same[: row - first].sum())
