"""What is an SAE trained on? One activation a token, without the few that would drown all others.

Position 0 is an attention sink, and a handful of other tokens are massive too: in the course's model a dozen in a
hundred thousand carry three quarters of all variance, and a dictionary fitted to them describes little else. They
are left out, counted, and said.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.methods.affine import MASSIVE
from mechkit.network.hooks import Edit, edit, read
from mechkit.network.model import LanguageModel

BATCH = 8  # texts at once


@dataclass(frozen=True)
class Activations:
    """Activations of one layer on texts, one row a token, massive tokens left out.

    Args:
        x: What is read.
        target: What a transcoder rebuilds; x itself for one site.
        tokens: The token at each row.
        passage: Which of the texts it is in.
        position: Where in it, the prefix being 0.
        dropped: How many tokens were left out for their norm; position 0 is always left out and not counted.
    """

    x: Float[Tensor, "token d_in"]
    target: Float[Tensor, "token d_out"]
    tokens: Int[Tensor, " token"]
    passage: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    dropped: int

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        texts = len(self.passage.unique())
        return (
            f"Activations({len(self)} tokens of {texts} texts, {self.x.shape[1]} numbers each; "
            f"{self.dropped} massive tokens and position 0 left out)"
        )

    def where(self, chosen: Bool[Tensor, " token"]) -> "Activations":
        """The chosen rows."""
        target = self.x[chosen] if self.target is self.x else self.target[chosen]
        x = target if self.target is self.x else self.x[chosen]
        return Activations(x, target, self.tokens[chosen], self.passage[chosen], self.position[chosen], self.dropped)

    def split(self, share: float = 0.1, *, seed: int = 0) -> tuple["Activations", "Activations"]:
        """Those to train on, and those of a share of the texts, drawn at random, to hold out.

        Tokens of one text are alike, so a split by token would hold out hardly anything.
        """
        texts = self.passage.unique()
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
        held = torch.isin(self.passage, texts[order[: max(1, round(share * len(texts)))]])
        return self.where(~held), self.where(held)


def gather(
    lm: LanguageModel,
    texts: Sequence[str],
    sites: str | tuple[str, str] = "resid_post",
    layer: int | None = None,
    *,
    limit: int | None = None,
) -> Activations:
    """One site's activations at every ordinary token of texts; of two sites, what is read and what is rebuilt.

    Args:
        sites: Such as "resid_post", or ("mlp_in", "mlp_out") for a transcoder.
        layer: The middle one if not given.
        limit: Stop after so many tokens.
    Raises: ValueError for a site or a layer that the model lacks, or without a text.
    Chapter: 08.
    """
    both = (sites, sites) if isinstance(sites, str) else tuple(sites)
    return gather_sites(lm, texts, set(both), layer, limit=limit).between(*both)


@dataclass(frozen=True)
class Gathered:
    """Every token but position 0, massive ones among them: values by site, and the rest as `Activations` has it."""

    sites: dict[str, Tensor]
    tokens: Int[Tensor, " token"]
    passage: Int[Tensor, " token"]
    position: Int[Tensor, " token"]

    def between(self, read: str, rebuilt: str) -> Activations:
        """The activations of one site, or of two, without what is massive in either."""
        x, target = self.sites[read], self.sites[rebuilt]
        fine = ordinary_tokens(x) & ordinary_tokens(target)
        found = Activations(x, target, self.tokens, self.passage, self.position, int((~fine).sum()))
        return found if fine.all() else found.where(fine)


def gather_sites(
    lm: LanguageModel, texts: Sequence[str], sites: set[str], layer: int | None = None, *, limit: int | None = None
) -> Gathered:
    """Several sites of a layer at once, as `gather` reads them."""
    layer = middle_layer(lm) if layer is None else layer
    kept: list[tuple[Tensor, ...]] = []
    count = 0
    with tqdm(total=limit or len(texts), desc="reading text", unit="token" if limit else "text", leave=False) as bar:
        for numbers, ids, lengths in _padded(lm, texts):
            seen = activations_at(lm, ids, sites, layer)
            there = torch.arange(ids.shape[1]) < lengths[:, None]
            there[:, 0] = False
            rows, positions = there.nonzero().T
            kept.append((ids[there], numbers[rows], positions, *(seen[site][there] for site in sorted(sites))))
            count += len(rows)
            bar.update(len(rows) if limit else len(ids))
            if limit and count >= limit:
                break
    if not kept:
        raise ValueError("wanted at least one text; came none")
    tokens, passage, position, *values = (torch.cat(parts)[:limit] for parts in zip(*kept, strict=True))
    return Gathered(dict(zip(sorted(sites), values, strict=True)), tokens, passage, position)


def middle_layer(lm: LanguageModel) -> int:
    """The layer in the middle, where features are neither words to read nor words to say."""
    return lm.n_layers // 2


def ordinary_tokens(x: Float[Tensor, "*batch token d"]) -> Bool[Tensor, "*batch token"]:
    """Which activations have an ordinary norm: at most 20 times the median of those that are not zero.

    Chapter: 08.
    """
    norms = x.norm(dim=-1)
    on = norms[norms > 0]
    return norms <= MASSIVE * (on.median() if len(on) else 0.0)


def checked_activations(x: Float[Tensor, "token d"]) -> Float[Tensor, "token d"]:
    """The same activations, if something can be learned from them.

    Raises: ValueError that says what is wrong: none at all, NaN or infinite, or massive tokens among them.
    """
    if not len(x):
        raise ValueError("wanted at least one activation; came none: gather some text")
    broken = ~x.isfinite().all(-1)
    if broken.any():
        raise ValueError(
            f"wanted finite activations; {int(broken.sum())} of {len(x)} have NaN or infinite numbers: "
            "look for what made them, or leave them out with x[x.isfinite().all(-1)]"
        )
    massive = ~ordinary_tokens(x)
    if massive.any():
        spread = (x - x.mean(0)).square().sum(-1)
        raise ValueError(
            f"wanted activations of ordinary size; {int(massive.sum())} of {len(x)} are more than {MASSIVE:.0f} times "
            f"as long as the median one and carry {spread[massive].sum() / spread.sum():.0%} of the variance: leave "
            "them out with x[ordinary_tokens(x)], as gather does (position 0 is one of them)"
        )
    return x


def activations_at(
    lm: LanguageModel, ids: Int[Tensor, "batch pos"], sites: set[str], layer: int
) -> dict[str, Float[Tensor, "batch pos d"]]:
    """What stands at some sites of a layer; the layers above are not run."""
    with torch.no_grad(), read(lm, sites, layer) as seen:
        if layer + 1 < lm.n_layers:
            with _ending_before(lm, layer + 1):
                lm.hf.base_model(input_ids=ids, use_cache=False)
        else:
            lm.hf.base_model(input_ids=ids, use_cache=False)
    return {site: seen[site, layer] for site in sites}


class _FarEnough(Exception):
    """What ends a forward pass whose rest nobody needs."""


@contextmanager
def _ending_before(lm: LanguageModel, layer: int) -> Iterator[None]:
    """Inside, a forward pass ends before a layer, quietly."""
    with suppress(_FarEnough), edit(lm, Edit("resid_pre", layer, _end)):
        yield


def _end(_: Tensor) -> Tensor:
    raise _FarEnough


def _padded(lm: LanguageModel, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Texts some at a time: their numbers, their ids filled up behind, where nothing looks, and their lengths."""
    for start in range(0, len(texts), BATCH):
        rows = [lm.tokens(text)[0][: lm.n_ctx] for text in texts[start : start + BATCH]]
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        yield torch.arange(start, start + len(rows)), ids, lengths
