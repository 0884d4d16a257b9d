"""Who wrote the answer? The logit as a sum of what each part of the model wrote.

The last residual stream is a sum of writes, and with the final norm's scale frozen a logit is linear in it,
so every head and every MLP has its own share. Its limit: a share is what a part writes *directly*; what it
does through later parts is counted as theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mechkit.network.cache import Cache, run
from mechkit.network.model import LanguageModel

SITES = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z")
ROWS = 16  # prompts at once: all their logits are held


@dataclass(frozen=True)
class Attribution:
    """The shares of one logit, or of one logit difference, in nats.

    Args:
        embed: What stood in the stream before the first layer.
        heads: What each head wrote.
        attn_bias: What each layer's attention output bias wrote (zero where a family has none).
        mlps: What each MLP wrote.
        constant: The biases of the final norm and of the unembedding.
    """

    embed: Float[Tensor, " batch"]
    heads: Float[Tensor, "layer head batch"]
    attn_bias: Float[Tensor, "layer batch"]
    mlps: Float[Tensor, "layer batch"]
    constant: Float[Tensor, " batch"]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """The sum of all shares: the logit (difference) itself, before any soft cap."""
        return self.embed + self.heads.sum((0, 1)) + self.attn_bias.sum(0) + self.mlps.sum(0) + self.constant

    def named(self) -> dict[str, float]:
        """Every head's and MLP's mean share by name (`L5H1`, `MLP 5`), with the embedding and the rest."""
        heads = {f"L{i}H{j}": share for i, layer in enumerate(self.heads.mean(-1)) for j, share in enumerate(layer)}
        mlps = {f"MLP {i}": share for i, share in enumerate(self.mlps.mean(-1))}
        rest = {"embed": self.embed.mean(), "biases": (self.attn_bias.sum(0) + self.constant).mean()}
        return {name: float(share) for name, share in (heads | mlps | rest).items()}


def direct_logit_attribution(
    lm: LanguageModel,
    prompts: Sequence[str | Tensor],
    towards: Sequence[int],
    against: Sequence[int] | None = None,
    *,
    position: int = -1,
) -> Attribution:
    """Share out a logit, or a logit difference, among the parts of the model that wrote it.

    `logit = sum over writes of write @ direction`, with `direction` from `logit_direction`. The shares sum to
    the logit (tests/methods/test_attribution.py).

    Args:
        prompts: Texts or token ids, of any lengths; those of one length run together.
        towards: One token id a prompt, whose logit is shared out.
        against: If given, the difference `towards - against` is shared out.
        position: Where the logit is read.
    Raises: ValueError if there are not as many tokens as prompts.
    Source: Wang et al. (2022), "Interpretability in the Wild"; Elhage et al. (2021), "A Mathematical Framework".
    Chapter: 04.
    """
    if not len(prompts) == len(towards) == len(towards if against is None else against):
        raise ValueError(
            f"wanted one token for each of {len(prompts)} prompts; came {len(towards)}: pass a list of ids"
        )
    ids = [lm.tokens(prompt)[0] for prompt in prompts]
    batches = _batches([len(row) for row in ids])
    each = []
    for rows in batches:
        others = None if against is None else [against[row] for row in rows]
        each.append(
            _shares(lm, torch.stack([ids[row] for row in rows]), [towards[row] for row in rows], others, position)
        )
    back = torch.tensor([row for rows in batches for row in rows]).argsort()
    return Attribution(
        *(torch.cat([getattr(one, part.name) for one in each], -1)[..., back] for part in fields(Attribution))
    )


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of equal lengths together, a few at a time."""
    found: list[list[int]] = []
    for length in sorted(set(lengths)):
        places = [place for place, each in enumerate(lengths) if each == length]
        found += [places[start : start + ROWS] for start in range(0, len(places), ROWS)]
    return found


def written_logits(
    lm: LanguageModel, prompts: Sequence[str] | Tensor, head: tuple[int, int], tokens: Sequence[int]
) -> Float[Tensor, "batch token"]:
    """How far one head moves the logit of each of these tokens directly, in nats, after the last token of a prompt.

    A head moves all names alike as well: compare with the mean over many.

    Args:
        prompts: Of one length.
        head: (layer, head).
        tokens: Ids.
    Raises: ValueError for a layer that the model lacks.
    Chapter: 06.
    """
    layer, number = head
    _, cache = run(lm, prompts, sites=SITES, layers=sorted({int(layer), lm.n_layers - 1}))
    write = _layer_writes(lm, cache, layer, -1)[0][:, number]
    final = cache["resid_post", lm.n_layers - 1][:, -1]
    columns = lm.W_U[:, list(tokens)].T
    return torch.stack(
        [_dot(write, logit_direction(lm.final_norm, final, each.expand_as(final))) for each in columns], 1
    )


def _shares(
    lm: LanguageModel,
    ids: Int[Tensor, "batch pos"],
    towards: Sequence[int],
    against: Sequence[int] | None,
    position: int,
) -> Attribution:
    _, cache = run(lm, ids, sites=SITES)
    final = cache["resid_post", lm.n_layers - 1][:, position]
    nothing = _nothing(lm)
    column, constant = lm.W_U[:, list(towards)].T, nothing[list(towards)]
    if against is not None:
        column, constant = column - lm.W_U[:, list(against)].T, constant - nothing[list(against)]
    direction = logit_direction(lm.final_norm, final, column)
    writes = [_layer_writes(lm, cache, layer, position) for layer in range(lm.n_layers)]
    return Attribution(
        embed=_dot(cache["resid_pre", 0][:, position], direction),
        heads=torch.stack([torch.einsum("bhd,bd->hb", heads, direction) for heads, _ in writes]),
        attn_bias=torch.stack([_dot(bias, direction) for _, bias in writes]),
        mlps=torch.stack([_dot(cache["mlp_out", i][:, position], direction) for i in range(lm.n_layers)]),
        constant=constant,
    )


def logit_direction(
    norm: nn.Module, resid: Float[Tensor, "batch d_model"], unembedding: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch d_model"]:
    """The direction in the residual stream along which a write raises the logit, the norm's scale held fixed.

    `direction = W_U[:, token] * gain / scale`; where the norm also takes off the mean, so does the direction.

    Args:
        resid: What the norm reads, which fixes its scale.
        unembedding: A column of W_U, or a difference of two.
    """
    direction = unembedding * norm_gain(norm, resid) / _scale(norm, resid)
    return direction - direction.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else direction


def _scale(norm: nn.Module, resid: Tensor) -> Tensor:
    if isinstance(norm, nn.LayerNorm):
        resid = resid - resid.mean(-1, keepdim=True)
    return (resid.square().mean(-1, keepdim=True) + _eps(norm)).sqrt()


def norm_gain(norm: nn.Module, like: Float[Tensor, "batch d_model"]) -> Float[Tensor, " d_model"]:
    """What a norm multiplies each coordinate by, its scale and bias aside."""
    if isinstance(norm, nn.LayerNorm):
        return norm.weight
    # families differ in whether the stored weight is the gain or the gain minus one, so ask the norm itself
    return norm(torch.ones_like(like[0])) * (1 + _eps(norm)) ** 0.5


def _eps(norm: nn.Module) -> float:
    return getattr(norm, "variance_epsilon", None) or norm.eps


def _layer_writes(
    lm: LanguageModel, cache: Cache, layer: int, position: int
) -> tuple[Float[Tensor, "batch head d_model"], Float[Tensor, "batch d_model"]]:
    """What each head wrote, and what the output bias wrote, as they entered the stream."""
    heads = torch.einsum("bhd,hdm->bhm", cache["z", layer][:, position], lm.W_O(layer))
    bias = lm.b_O(layer).expand(heads.shape[0], -1)
    after = lm.post_attention_norm(layer)
    if after is None:
        return heads, bias
    raw = heads.sum(1)
    gain = norm_gain(after, raw) / _scale(after, raw)
    return heads * gain[:, None], bias * gain


def _nothing(lm: LanguageModel) -> Float[Tensor, " d_vocab"]:
    """The logits of a stream of zeros, before any soft cap: what the biases give by themselves."""
    bias = getattr(lm.final_norm, "bias", None)
    return lm.hf.get_output_embeddings()(torch.zeros(lm.d_model) if bias is None else bias)


def _dot(write: Tensor, direction: Tensor) -> Tensor:
    return (write * direction).sum(-1)
