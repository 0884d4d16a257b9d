"""The same model with its heads in another order: what was read off the original is wrong here.

Within each layer, groups of heads that share keys and values change places, and so do the heads within a group.
Every residual stream, and so every logit, stays what it was (but for rounding). The limit: layers, positions
and neurons keep their numbers, so those findings need other prompts.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from mechkit.network.model import LanguageModel


def permute_heads(lm: LanguageModel, seed: int) -> Int[Tensor, "layer head"]:
    """Put each layer's heads in another order, in place.

    Returns: Which old head each new one is: `new[layer, h] = old[layer, order[layer, h]]`.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [_order(lm, generator) for _ in range(lm.n_layers)]
    with torch.no_grad():
        for layer, order in enumerate(orders):
            _permute_layer(lm, layer, order)
    return torch.stack(orders)


def _order(lm: LanguageModel, generator: torch.Generator) -> Int[Tensor, " head"]:
    """A random order that is never the old one, if there is another."""
    shared = lm.n_heads // lm.n_kv_heads
    heads = torch.arange(lm.n_heads).reshape(lm.n_kv_heads, shared)
    for _ in range(100):
        groups = heads[torch.randperm(lm.n_kv_heads, generator=generator)]
        order = torch.cat([group[torch.randperm(shared, generator=generator)] for group in groups])
        if (order != heads.flatten()).all() or lm.n_heads == 1:
            break
    return order


def _permute_layer(lm: LanguageModel, layer: int, order: Int[Tensor, " head"]) -> None:
    shared = lm.n_heads // lm.n_kv_heads
    groups = order[::shared] // shared
    for which, (matrix, part) in enumerate(((lm.W_Q, order), (lm.W_K, groups), (lm.W_V, groups))):
        view = matrix(layer)
        view.copy_(view[part].clone())
        bias = _bias(lm, layer, which)
        if bias is not None:
            bias.copy_(bias[part].clone())
    out = lm.W_O(layer)
    out.copy_(out[order].clone())


def _bias(lm: LanguageModel, layer: int, which: int) -> Tensor | None:
    """The bias of q, k or v as a view with axes (head, d_head); None where the family has none."""
    family = lm.family
    bias = lm.module(f"{family.attention}.{family.projections[which]}", layer).bias
    if bias is None:
        return None
    axes = family.packing.split()
    sizes = {"qkv": 3, "head": lm.n_heads if which == 0 else lm.n_kv_heads, "d_head": lm.d_head}
    split = bias.unflatten(0, [sizes[axis] for axis in axes])
    return split.select(axes.index("qkv"), which) if "qkv" in axes else split
