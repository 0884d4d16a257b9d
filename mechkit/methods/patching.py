"""Which activation matters? Swap it between two runs, one place at a time, and watch a metric.

*Denoising* puts clean values into the corrupted run and asks what is enough to bring the answer back;
*noising* puts corrupted values into the clean run and asks what is needed. The limit: what a patch shows
depends on what it is swapped for, so the choice of the corrupted prompt is part of the result.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.methods.sweeps import ROWS, Metric, Sweep, logits_of, score, sweep
from mechkit.network.hooks import Edit, read
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
        metric: From the logits after the last token, [batch 1 d_vocab], to one number a prompt.
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


def patched_logits(pair: Pair, *, prompt: int = 0, noising: bool = False) -> Float[Tensor, "layer pos d_vocab"]:
    """What the model would say after one prompt, for each layer and position whose stream is patched.

    The logits after the last token; of one prompt alone, since those of many would fill the memory.

    Args:
        prompt: Which of the pair's prompts.
        noising: As for `patch_sweep`.
    Chapter: 07.
    """
    base, source = (pair.clean, pair.corrupted) if noising else (pair.corrupted, pair.clean)
    places = (base.tokens[prompt] != source.tokens[prompt]).nonzero()
    first = int(places[0]) if len(places) else base.tokens.shape[1]
    unchanged = logits_of(pair.lm, base.final[[prompt], -1])
    result = unchanged.expand(pair.lm.n_layers, base.tokens.shape[1], -1).clone()
    row = torch.arange(base.tokens.shape[1] - first)
    for layer in range(pair.lm.n_layers if len(row) else 0):
        stream = base.resid_pre(layer)[prompt, first:].repeat(len(row), 1, 1)
        stream[row, row] = source.resid_pre(layer)[prompt, first:]
        final = base.rest(layer, stream, torch.full_like(row, prompt))
        result[layer, first:] = logits_of(pair.lm, final[:, -1])[:, 0]
    return result


def path_patch(
    pair: Pair,
    metric: Metric,
    *,
    senders: Sequence[tuple[int, int]],
    receivers: Sequence[tuple[str, int, int]] = (),
    through_mlps: bool = False,
    noising: bool = False,
) -> Sweep:
    """Patch what one head sends to another along the residual stream, and nothing else that it does.

    Two runs a sender. In the first its z is the source's while every other head's is held; what the receivers
    then read is put into the second, in which everything else goes on by itself.

    Args:
        metric: From the logits after the last token, [batch 1 d_vocab], to one number a prompt.
        senders: Heads, (layer, head): one at a time.
        receivers: Inputs of heads, such as ("q", 23, 0), all at once; heads of k and v are key/value heads. None
            given: the logits.
        through_mlps: Whether the MLPs on the way react (as in the paper) or are held too: the direct path only.
        noising: As for `patch_sweep`.
    Returns: One cell for each sender.
    Raises: ValueError for heads that do not exist, or a receiver that does not stand above every sender.
    Source: Wang et al. (2022), "Interpretability in the Wild"; Goldowsky-Dill et al. (2023), "Localizing Model
        Behavior with Path Patching".
    Chapter: 07.
    """
    base, source = (pair.clean, pair.corrupted) if noising else (pair.corrupted, pair.clean)
    path = _Path(base, source.values("z"), tuple(receivers), through_mlps)
    unchanged = score(metric, logits_of(pair.lm, base.final[:, -1]))
    values = torch.stack([score(metric, logits_of(pair.lm, path.send(*sender)[:, -1])) for sender in senders])
    return Sweep(values, unchanged, ("sender",), score(metric, logits_of(pair.lm, source.final[:, -1])))


class _Path:
    """What path patching holds while it sends."""

    def __init__(
        self,
        base: Replay,
        sent: dict[int, Tensor],
        receivers: tuple[tuple[str, int, int], ...],
        through_mlps: bool,
    ):
        self._base, self._sent, self._receivers = base, sent, receivers
        self._held = {("z", layer): value for layer, value in base.values("z").items()}
        if not through_mlps:
            self._held |= {("mlp_out", layer): value for layer, value in base.values("mlp_out").items()}
        self._all = torch.arange(len(base.tokens))

    def send(self, layer: int, head: int) -> Float[Tensor, "batch pos d_model"]:
        """The last stream when this head's z is the source's on the paths to the receivers."""
        below = [receiver for receiver in self._receivers if receiver[1] <= layer]
        if below:
            raise ValueError(
                f"wanted receivers above the sender L{layer}H{head}; came {below[0]}: nothing flows down or sideways"
            )
        hold = [
            Edit(site, number, lambda _, value=value: value)
            for (site, number), value in self._held.items()
            if number > layer or (number == layer and site == "mlp_out")
        ]
        swap = Edit("z", layer, lambda _: self._sent[layer][:, :, head], head=head)
        with read(self._base.lm, {site for site, _, _ in self._receivers}) as seen:
            final = self._base.rest(layer, self._base.resid_pre(layer), self._all, swap, *hold)
        return self._receive(seen) if self._receivers else final

    def _receive(self, seen: dict) -> Float[Tensor, "batch pos d_model"]:
        lowest = min(layer for _, layer, _ in self._receivers)
        edits = [
            Edit(site, layer, lambda _, value=seen[site, layer][:, :, head]: value, head=head)
            for site, layer, head in self._receivers
        ]
        return self._base.rest(lowest, self._base.resid_pre(lowest), self._all, *edits)
