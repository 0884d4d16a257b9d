"""What a probe is tested on, and which labels mean nothing.

A test is as honest as its split. A probe that has met a test word in training may remember the word and know
nothing of the property: `split_by_word` rules that out. A control task turns it round and rewards nothing *but*
remembering words. The limit: words are what our templates vary; other things may leak too.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def split_by_word(
    words: Sequence[str], *, share: float = 0.3, seed: int = 0
) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """Train and test places such that no word stands in both.

    Args:
        share: How many of the *words* are for testing.
    Raises: ValueError if there are fewer than two words.
    Chapter: 03.
    """
    known = sorted(set(words))
    if len(known) < 2:
        raise ValueError(f"wanted at least two different words to split; came {len(known)}")
    held = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    held = {known[int(i)] for i in held[: min(max(1, round(share * len(known))), len(known) - 1)]}
    inside = torch.tensor([word in held for word in words])
    return (~inside).nonzero()[:, 0], inside.nonzero()[:, 0]


def split_by_example(
    count: int, *, share: float = 0.3, seed: int = 0
) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """Train and test places at random: a word may stand in both. What a control task needs, and an honest test not.

    Chapter: 03.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[round(share * count) :], order[: round(share * count)]


def control_labels(words: Sequence[str], *, seed: int = 0, classes: int = 2) -> Int[Tensor, " example"]:
    """A random label for each *word*, the same wherever it stands: a task with nothing in it but memory.

    As many words get each label as can be, so that chance is 1 / classes.

    Source: Hewitt and Liang (2019), "Designing and Interpreting Probes with Control Tasks"; they draw each label
        independently.
    Chapter: 03.
    """
    return _dealt(words, classes, seed)


def random_labels(y: Int[Tensor, " example"], *, seed: int = 0) -> Int[Tensor, " example"]:
    """The labels in another order: a task with nothing in it at all.

    Chapter: 03.
    """
    return y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]


def word_folds(words: Sequence[str], *, folds: int, seed: int = 0) -> Int[Tensor, " example"]:
    """The fold of each example, 0, 1 ..., such that all examples of a word share one.

    Raises: ValueError for fewer than two folds, or fewer words than folds.
    Chapter: 03.
    """
    known = len(set(words))
    if not 2 <= folds <= known:
        raise ValueError(
            f"wanted at least 2 folds and at most one for each of the {known} words; came {folds}: "
            "take fewer folds, or more examples"
        )
    return _dealt(words, folds, seed)


def check_labels(y: Shaped[Tensor, " example"]) -> None:
    """Refuse labels that no probe can be fitted to.

    Raises: ValueError if there are fewer than two classes.
    """
    classes = y.unique().tolist()
    if len(classes) < 2:
        only = f"class {classes[0]} only" if classes else "no labels"
        raise ValueError(f"wanted labels of at least two classes; came {only}: look at how they were split")


def _dealt(words: Sequence[str], hands: int, seed: int) -> Int[Tensor, " example"]:
    """Different words dealt out in random order like cards, and for each example the hand that its word is in."""
    known = sorted(set(words))
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
    hand = {known[place]: rank % hands for rank, place in enumerate(order)}
    return torch.tensor([hand[word] for word in words])
