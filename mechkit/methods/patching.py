"""Which activation matters? Swap it between two runs, one place at a time, and watch a metric.

*Denoising* puts clean values into the corrupted run and asks what is enough to bring the answer back;
*noising* puts corrupted values into the clean run and asks what is needed. The limit: what a patch shows
depends on what it is swapped for, so the choice of the corrupted prompt is part of the result.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from mechkit.methods.sweeps import ROWS, Metric, Sweep, logits_of, score, sweep
from mechkit.network.model import LanguageModel
from mechkit.network.replay import Replay


class Pair:
    """A clean and a corrupted run over prompts that match position by position, kept for any number of sweeps.

    Args:
        lm: The model.
        clean: Texts or token ids, all of one length.
        corrupted: The same with what is to be located swapped.
    Raises: ValueError if the two differ in number or length, or are equal.
    Chapter: 07.
    """

    def __init__(self, lm: LanguageModel, clean: str | Sequence[str] | Tensor, corrupted: str | Sequence[str] | Tensor):
        self.lm = lm
        self.clean_tokens, self.corrupted_tokens = lm.tokens(clean), lm.tokens(corrupted)
        if self.clean_tokens.shape != self.corrupted_tokens.shape:
            raise ValueError(
                f"wanted clean and corrupted prompts of the same number and length in tokens; came "
                f"{list(self.clean_tokens.shape)} and {list(self.corrupted_tokens.shape)}: a patch needs the same "
                "positions in both, so reword them"
            )
        if torch.equal(self.clean_tokens, self.corrupted_tokens):
            raise ValueError("wanted two different runs; clean and corrupted are equal: there is nothing to recover")

    @cached_property
    def clean(self) -> Replay:
        """The kept clean run."""
        return Replay(self.lm, self.clean_tokens)

    @cached_property
    def corrupted(self) -> Replay:
        """The kept corrupted run."""
        return Replay(self.lm, self.corrupted_tokens)


def patch_sweep(
    pair: Pair,
    metric: Metric,
    *,
    site: str = "resid_pre",
    over: Sequence[str] = ("layer", "position"),
    noising: bool = False,
    rows: int = ROWS,
) -> Sweep:
    """Patch every cell in turn: a layer and position, a layer and head, or a layer, head and position.

    Exact: each value is what a run with that one patch gives (tests/methods/test_patching.py).

    Args:
        metric: From the logits after the last token, [batch d_vocab], to one number a prompt.
        site: What is patched. For k and v, heads are key/value heads; for pattern, positions are the queries'.
        over: The axes of the result: "layer", and "head" or "position" or both.
        noising: Put corrupted values into the clean run, instead of clean ones into the corrupted.
        rows: How many runs at once; it bounds the memory.
    Raises: ValueError for a site or axes that cannot be swept, or a metric without a finite number for each prompt.
    Source: Zhang and Nanda (2023), "Towards Best Practices of Activation Patching".
    Chapter: 07.
    """
    base, source = (pair.clean, pair.corrupted) if noising else (pair.corrupted, pair.clean)
    swept = sweep(base, source.values(site), metric, site=site, over=over, rows=rows)
    return replace(swept, source=score(metric, logits_of(pair.lm, source.final[:, -1])))
