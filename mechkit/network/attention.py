"""How to see q, k, v, the scores, the pattern and z in every family: one attention function for all of them.

transformers lets a model's attention be computed by a function registered under a name. Ours computes what
its `eager` attention computes, and passes each of the six tensors through the *taps* set on that attention
module. It is switched on inside `watched` only, so that a bare `lm.hf(...)` stays pure Hugging Face.
Its limit: it holds the whole score matrix, as `eager` does, so long texts cost memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

NAME, SHARED = "mechkit", "mechkit_shared"

Tap = Callable[[Tensor], Tensor]
_TAPS: "WeakKeyDictionary[nn.Module, list[tuple[str, Tap]]]" = WeakKeyDictionary()


def attend(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head computed d_head"],
    value: Float[Tensor, "batch kv_head computed d_head"],
    attention_mask: Float[Tensor, "#batch 1 query key"] | None,
    *,
    scaling: float,
    softcap: float | None = None,
    **_: object,
) -> tuple[Float[Tensor, "batch query head d_head"], Float[Tensor, "batch head query key"]]:
    """Attention as Hugging Face's `eager` computes it, every step tapped.

    `scores = cap(q @ k^T * scaling) + mask`, `pattern = softmax(scores)`, `z = pattern @ v`, where query head h
    reads key/value head `h // (heads / kv_heads)`. A sliding window is part of the mask. There is no dropout: a
    `LanguageModel` is in evaluation mode.

    Args:
        key: As many as were computed; a tap may put others in front.
        attention_mask: 0 where a query may look, the most negative float where it may not.
        softcap: Gemma 2's bound on the scores, `cap(x) = softcap * tanh(x / softcap)`.
    """
    taps = _TAPS.get(module, ())
    query = _through(taps, "q", query.transpose(1, 2)).transpose(1, 2)
    key = _through(taps, "k", key.transpose(1, 2)).transpose(1, 2)
    value = _through(taps, "v", value.transpose(1, 2)).transpose(1, 2)
    heads = query.shape[1]
    scores = query @ _per_head(key, heads).transpose(2, 3) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    scores = _through(taps, "attn_scores", scores)
    pattern = _through(taps, "pattern", scores.softmax(-1))
    z = (pattern @ _per_head(value, heads)).transpose(1, 2).contiguous()
    return _through(taps, "z", z), pattern


@contextmanager
def watched(hf: PreTrainedModel, taps: Sequence[tuple[nn.Module, str, Tap]]) -> Iterator[None]:
    """Inside, each tap is called with its tensor on every forward pass, and its answer takes the tensor's place.

    Taps on one module run in the order in which they were set. On leaving, also through an exception, the taps
    are gone and the model computes attention as it did before.

    Args:
        taps: Attention module, site and function; an empty list leaves the model alone.
    """
    if not taps:
        yield
        return
    _register()
    before = hf.config._attn_implementation
    added = [(module, (site, tap)) for module, site, tap in taps]
    try:
        hf.set_attn_implementation(NAME)
        for module, entry in added:
            _TAPS.setdefault(module, []).append(entry)
        yield
    finally:
        for module, entry in added:
            _remove(module, entry)
        hf.set_attn_implementation(before)


@contextmanager
def shared_attention(hf: PreTrainedModel) -> Iterator[None]:
    """Inside, query heads that share keys and values are multiplied with them together, which copies nothing.

    The same numbers up to rounding, several times faster where a long cache is read by one new token at a time.
    """
    AttentionInterface.register(SHARED, _attend_together)
    AttentionMaskInterface.register(SHARED, eager_mask)
    before = hf.config._attn_implementation
    try:
        hf.set_attn_implementation(SHARED)
        yield
    finally:
        hf.set_attn_implementation(before)


def _attend_together(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    attention_mask: Float[Tensor, "#batch 1 query _"] | None,
    *,
    scaling: float,
    softcap: float | None = None,
    **_: object,
) -> tuple[Float[Tensor, "batch query head d_head"], None]:
    batch, kv_heads, keys, _ = key.shape
    grouped = query.reshape(batch, kv_heads, -1, query.shape[-1])  # every query of every head of a group
    scores = (grouped @ key.transpose(2, 3)).mul_(scaling).view(*query.shape[:3], keys)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[..., :keys]
    pattern = scores.softmax(-1).view(batch, kv_heads, -1, keys)
    return (pattern @ value).view(query.shape).transpose(1, 2).contiguous(), None


def _per_head(shared: Float[Tensor, "batch kv_head key d_head"], heads: int) -> Float[Tensor, "batch head key d_head"]:
    """Each query head's own copy of the keys or values that its group shares."""
    batch, kv_heads, keys, d_head = shared.shape
    if kv_heads == heads:
        return shared
    grouped = shared[:, :, None].expand(batch, kv_heads, heads // kv_heads, keys, d_head)
    return grouped.reshape(batch, heads, keys, d_head)


def _through(taps: Sequence[tuple[str, Tap]], site: str, value: Tensor) -> Tensor:
    for tapped, tap in taps:
        if tapped == site:
            value = tap(value)
    return value


def _remove(module: nn.Module, entry: tuple[str, Tap]) -> None:
    left = [each for each in _TAPS.get(module, []) if each is not entry]
    if left:
        _TAPS[module] = left
    else:
        _TAPS.pop(module, None)


def _register() -> None:
    """Make the function known to transformers; harmless when repeated, and never done by an import."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
