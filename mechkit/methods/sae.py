"""Which sparse directions rebuild it? One class for sparse autoencoders and transcoders, its activation an argument.

The setting: an activation has d numbers, and we think that it is a sum of a few out of many more features, each a
direction. The key move: learn a dictionary of directions, and an encoder that says which few are on; what is wanted
is a good sum from few. The limit: the training rewards sparse sums, not true features. What it finds is a
dictionary that works; whether the model uses those directions is a question for an intervention.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechkit.methods.toy import random_directions


@dataclass(frozen=True)
class ReLU:
    """A feature is on by as much as its reading is above zero; only a penalty makes few of them on.

    Chapter: 08.
    """

    def __call__(
        self, pre: Float[Tensor, "*batch d_sae"], threshold: Tensor | None = None
    ) -> Float[Tensor, "*batch d_sae"]:
        return pre.relu()


@dataclass(frozen=True)
class TopK:
    """The k features that read most are on, if they read above zero; no penalty is needed, and none shrinks them.

    Source: Gao et al. (2024), "Scaling and evaluating sparse autoencoders".
    Chapter: 08.
    """

    k: int

    def __call__(
        self, pre: Float[Tensor, "*batch d_sae"], threshold: Tensor | None = None
    ) -> Float[Tensor, "*batch d_sae"]:
        best = pre.relu().topk(self.k, sorted=False)
        return torch.zeros_like(pre).scatter(-1, best.indices, best.values)


@dataclass(frozen=True)
class JumpReLU:
    """A feature is on, by all that it reads, where it reads above a threshold of its own, which is learned.

    The step has no slope, so the threshold learns from the readings within `bandwidth` of it; the penalty is on how
    many features are on, not on how much.

    Source: Rajamanoharan et al. (2024), "Jumping Ahead".
    Chapter: 08.
    """

    bandwidth: float = 0.5

    def __call__(
        self, pre: Float[Tensor, "*batch d_sae"], threshold: Tensor | None = None
    ) -> Float[Tensor, "*batch d_sae"]:
        return _Jump.apply(pre, threshold, self.bandwidth)

    def count(
        self, pre: Float[Tensor, "*batch d_sae"], threshold: Float[Tensor, " d_sae"]
    ) -> Float[Tensor, "*batch d_sae"]:
        """1 where a feature is on, else 0, with the slope that the threshold learns from."""
        return _Step.apply(pre, threshold, self.bandwidth)


Activation = ReLU | TopK | JumpReLU


class SAE(nn.Module):
    """A sparse autoencoder: `hidden = act((x - b_dec) W_enc + b_enc)`, `x' = hidden W_dec + b_dec`.

    Rows of W_dec have length 1 and are the features' directions, so a feature's activation is how far it moves the
    reconstruction, in the model's own units. With `d_out` it is a transcoder: it reads one activation (an MLP's
    input) and rebuilds another (its output), and nothing is subtracted from what it reads.

    Args:
        d_in: Size of what is read.
        d_sae: How many features.
        activation: `ReLU()`, `TopK(k)` or `JumpReLU()`.
        d_out: Size of what is rebuilt, for a transcoder.
        seed: Of the first weights.
    Raises: ValueError if there are fewer features than dimensions, or k is not from 1 to d_sae.
    Source: Bricken et al. (2023), "Towards Monosemanticity"; Dunefsky et al. (2024), "Transcoders Find Interpretable
        LLM Feature Circuits". Names and axes are SAELens'.
    Chapter: 08.
    """

    def __init__(self, d_in: int, d_sae: int, activation: Activation, *, d_out: int | None = None, seed: int = 0):
        super().__init__()
        _check_sizes(d_in, d_sae, activation)
        self.d_in, self.d_sae, self.d_out = d_in, d_sae, d_out or d_in
        self.activation, self.is_transcoder = activation, d_out is not None
        self.site: str | tuple[str, str] | None = None
        self.layer: int | None = None
        self.model_name: str | None = None
        decoder = random_directions(d_sae, self.d_out, seed=seed)
        reading = random_directions(d_sae, d_in, seed=seed + 1) if self.is_transcoder else decoder
        self.W_enc = nn.Parameter(reading.T.clone(memory_format=torch.contiguous_format))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(decoder)
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))
        jumps = isinstance(activation, JumpReLU)
        self.threshold = nn.Parameter(torch.full((d_sae,), activation.bandwidth)) if jumps else None

    def __repr__(self) -> str:
        kind = "transcoder" if self.is_transcoder else "SAE"
        site = " to ".join(self.site) if isinstance(self.site, tuple) else self.site
        place = f" of {site} at layer {self.layer}" if site else ""
        return f"{kind}({self.d_in} to {self.d_sae} features to {self.d_out}, {self.activation}){place}"

    def readings(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """What each feature reads, before the activation decides which are on."""
        if self.is_transcoder:
            return x @ self.W_enc + self.b_enc
        # (x - b_dec) W_enc, so written that the gradient of b_dec costs a vector's product and not the batch's
        return x @ self.W_enc + (self.b_enc - self.b_dec @ self.W_enc)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """How much each feature is on: zero for most.

        Chapter: 08.
        """
        return self.activation(self.readings(x), self.threshold)

    def decode(self, hidden: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_out"]:
        """The sum of the features' directions, each as much as it is on, and the bias.

        Chapter: 08.
        """
        return hidden @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """What is rebuilt from the few features that are on."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Make every row of W_dec length 1, in place; without this an L1 penalty is escaped by longer rows."""
        self.W_dec.div_(self.W_dec.norm(dim=-1, keepdim=True).clamp(min=1e-8))


def sae_loss(
    sae: SAE,
    x: Float[Tensor, "batch d_in"],
    *,
    target: Float[Tensor, "batch d_out"] | None = None,
    penalty: float = 0.0,
) -> Float[Tensor, ""]:
    """`|target - x'|^2 + penalty |hidden|_1`, sums over coordinates and features, and the mean over the batch.

    For JumpReLU the penalty is on the number of features that are on.

    Args:
        target: What is to be rebuilt; x itself if not given.
        penalty: λ, in the unit of the activations for ReLU and in its square for JumpReLU.
    Source: Bricken et al. (2023), "Towards Monosemanticity".
    Chapter: 08.
    """
    readings = sae.readings(x)
    hidden = sae.activation(readings, sae.threshold)
    error = ((x if target is None else target) - sae.decode(hidden)).square().sum(-1)
    if isinstance(sae.activation, JumpReLU):
        return (error + penalty * sae.activation.count(readings, sae.threshold).sum(-1)).mean()
    return (error + penalty * hidden.abs().sum(-1)).mean()


class _Jump(torch.autograd.Function):
    """`ReLU(z)` where `z > threshold`, else 0; the threshold's slope is estimated from the readings near it."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre.relu() * (pre > threshold)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2) / ctx.bandwidth
        return slope * (pre > threshold.clamp(min=0)), _over_batch(-threshold * near * slope), None


class _Step(torch.autograd.Function):
    """1 where `z > threshold`, else 0; only the threshold learns from it."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2) / ctx.bandwidth
        return None, _over_batch(-near * slope), None


def _over_batch(slopes: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, " d_sae"]:
    return slopes.flatten(0, -2).sum(0)


def _check_sizes(d_in: int, d_sae: int, activation: Activation) -> None:
    if not isinstance(activation, Activation):
        raise ValueError(f"wanted an activation, ReLU(), TopK(k) or JumpReLU(); came {activation!r}")
    if d_sae < d_in:
        raise ValueError(
            f"wanted at least as many features as dimensions; came d_sae = {d_sae} for d_in = {d_in}: a dictionary "
            "smaller than its space cannot rebuild it, so use several times d_in"
        )
    if isinstance(activation, TopK) and not 1 <= activation.k <= d_sae:
        raise ValueError(
            f"wanted k from 1 to d_sae, which is {d_sae}; came k = {activation.k}: at most all features can be on"
        )
