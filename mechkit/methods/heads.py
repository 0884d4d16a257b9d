"""What does each attention head do? By where it looks, by what it copies, and by whom it listens to.

Where a head looks is read from its pattern, on random tokens said twice, where nothing but position and
repetition can guide it. What it copies is read from its weights. Whom it listens to is tested by taking one
sender's write out of what it reads. The limit: a score describes a head on these inputs; whether the model
uses the head for it is another question, for an ablation.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel

SPECIAL = 300  # ids below it are markers, single characters and the like in most vocabularies


def repeated_tokens(lm: LanguageModel, *, batch: int = 8, period: int = 50, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """The prefix, `period` random tokens, and the same tokens again: only copying can predict the second half.

    Raises: ValueError if two periods are more than the context holds.
    Source: Olsson et al. (2022), "In-context Learning and Induction Heads".
    Chapter: 05.
    """
    prefix = lm.tokens("a")[:, :-1].expand(batch, -1)
    if prefix.shape[1] + 2 * period > lm.n_ctx:
        raise ValueError(f"wanted two periods within the context of {lm.n_ctx} tokens; came a period of {period}")
    low = SPECIAL if lm.d_vocab > 2 * SPECIAL else 0
    once = torch.randint(low, lm.d_vocab, (batch, period), generator=torch.Generator().manual_seed(seed))
    return torch.cat([prefix, once, once], dim=1)


def offset_score(pattern: Float[Tensor, "batch head query key"], offset: int, first: int) -> Float[Tensor, " head"]:
    """The mean attention that each head pays to the key `offset` before the query, over queries from `first` on."""
    diagonal = pattern.diagonal(-offset, dim1=-2, dim2=-1)  # entry i belongs to query i + offset
    return diagonal[..., first - offset :].mean((0, -1))


def previous_token_score(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, " head"]:
    """Attention to the token before, from the third token on: what stands before the second is a sink.

    Chapter: 05.
    """
    return offset_score(pattern, 1, 2)


def duplicate_token_score(pattern: Float[Tensor, "batch head query key"], period: int) -> Float[Tensor, " head"]:
    """Attention from the second copy of a token to the first, in tokens said twice.

    Chapter: 05.
    """
    return offset_score(pattern, period, pattern.shape[-1] - period)


def induction_score(pattern: Float[Tensor, "batch head query key"], period: int) -> Float[Tensor, " head"]:
    """Attention from the second copy of a token to what followed the first, in tokens said twice.

    Chapter: 05.
    """
    return offset_score(pattern, period - 1, pattern.shape[-1] - period)


def head_scores(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"], period: int
) -> dict[Literal["previous", "duplicate", "induction"], Float[Tensor, "layer head"]]:
    """All three scores of every head, on tokens said twice.

    Chapter: 05.
    """
    _, cache = run(lm, tokens, sites="pattern")
    patterns = [cache["pattern", layer] for layer in range(lm.n_layers)]
    return {
        "previous": torch.stack([previous_token_score(each) for each in patterns]),
        "duplicate": torch.stack([duplicate_token_score(each, period) for each in patterns]),
        "induction": torch.stack([induction_score(each, period) for each in patterns]),
    }


def ov_logits(lm: LanguageModel, layer: int, tokens: Int[Tensor, " token"]) -> Float[Tensor, "token head d_vocab"]:
    """What each head of a layer would write about a token if it attended to nothing else, as logits.

    The token stands after the prefix, and its stream after block 0 is what the head reads: in many models the
    first MLP, not the embedding matrix, makes the representation that later layers use.

    Source: Wang et al. (2022), "Interpretability in the Wild", appendix on copy scores.
    Chapter: 05.
    """
    ids = torch.cat([lm.tokens("a")[:, :-1].expand(len(tokens), -1), tokens[:, None]], dim=1)
    _, cache = run(lm, ids, sites="resid_post", layers=0)
    with edit(lm, Edit("resid_pre", layer, lambda _: cache["resid_post", 0])):
        _, read = run(lm, ids, sites="v", layers=layer)
    values = read["v", layer][:, -1].repeat_interleave(lm.n_heads // lm.n_kv_heads, dim=1)
    writes = torch.einsum("thd,hdm->thm", values, lm.W_O(layer))
    return lm.unembed(lm.final_norm(writes))


def copying_scores(
    lm: LanguageModel, layer: int, tokens: Int[Tensor, " token"], *, among: int = 5
) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:
    """How often a head writes a token up when it reads it, and how often down: shares of the tokens, 0 to 1.

    Args:
        among: How near the top, or the bottom, of the vocabulary the token must come.
    Returns: The copying score and the anti-copying score of each head.
    Chapter: 06.
    """
    logits = ov_logits(lm, layer, tokens)
    own = logits.gather(-1, tokens[:, None, None].expand(-1, lm.n_heads, 1))
    above, below = (logits > own).sum(-1), (logits < own).sum(-1)
    return (above < among).float().mean(0), (below < among).float().mean(0)


def without_sender(
    lm: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    *,
    sender: tuple[int, int],
    receiver: tuple[int, int],
    through: Literal["q", "k", "v"],
) -> Edit:
    """What a head's query, key or value would be without one sender's write: an edit to run these tokens with.

    The sender's mean write stays, so that only what it says about *these* positions goes. What lies between the
    two is as it was: this is the direct path. Keys and values are shared by the heads of a group.

    Args:
        sender, receiver: Heads, (layer, head).
        through: Q-, K- or V-composition.
    Raises: ValueError if the receiver does not stand above the sender, or a norm stands between heads and stream.
    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", on composition.
    Chapter: 05.
    """
    (low, writer), (high, reader) = sender, receiver
    if low >= high:
        raise ValueError(f"wanted a receiver above the sender; came L{low}H{writer} to L{high}H{reader}")
    if lm.post_attention_norm(low) is not None:
        raise ValueError(f"{lm.name} norms what its heads write together, so one head's write is no part of a sum")
    _, cache = run(lm, tokens, sites=("z", "resid_pre"), layers=(low, high))
    write = cache["z", low][:, :, writer] @ lm.W_O(low)[writer]
    said = write - write[:, 1:].mean((0, 1))  # position 0 is a sink, unlike all others
    with edit(lm, Edit("resid_pre", high, lambda stream: stream - said)):
        _, heard = run(lm, tokens, sites=through, layers=high)
    shared = reader if through == "q" else reader // (lm.n_heads // lm.n_kv_heads)
    return Edit(through, high, lambda _: heard[through, high][:, :, shared], head=shared)
