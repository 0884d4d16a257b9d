"""How good is a dictionary? What it explains, what it costs the model to believe it, and what chance would do.

Few features and a good sum pull against each other, so a number for one means nothing without the other. Every number
here is beside its baselines: main components, random directions, the mean, zeros.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.methods.metrics import loss
from mechkit.methods.sae import SAE
from mechkit.methods.sae_activations import activations_at, ordinary_tokens
from mechkit.methods.toy import random_directions
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel

ROWS = 2048  # activations at once
DENSE = 0.1  # a feature that is on for more than this share of tokens

Rebuild = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SAEMetrics:
    """What an SAE does on activations.

    Args:
        l0: How many features are on for a token, on average.
        variance_explained: 1 less the squared error as a share of the squared distance from the mean.
        dead: How many features are on for none of these tokens.
        dense: How many are on for more than a tenth of them.
        n: How many tokens.
        density: For each feature, the share of tokens for which it is on.
    """

    l0: float
    variance_explained: float
    dead: int
    dense: int
    n: int
    density: Float[Tensor, " d_sae"]


@torch.no_grad()
def sae_metrics(
    sae: SAE, x: Float[Tensor, "token d_in"], target: Float[Tensor, "token d_out"] | None = None
) -> SAEMetrics:
    """L0, variance explained, dead and dense features.

    Args:
        target: What is to be rebuilt, for a transcoder.
    Chapter: 08.
    """
    target = x if target is None else target
    fired, wrong = torch.zeros(sae.d_sae, dtype=torch.float64), 0.0
    for rows, wanted in zip(x.split(ROWS), target.split(ROWS), strict=True):
        hidden = sae.encode(rows)
        fired += (hidden > 0).sum(0)
        wrong += float((wanted - sae.decode(hidden)).square().sum())
    explained = 1 - wrong / float((target - target.mean(0)).square().sum())
    density = fired / len(x)
    numbers = (float(density.sum()), explained, int((fired == 0).sum()), int((density > DENSE).sum()), len(x))
    return SAEMetrics(*numbers, density.float())


def variance_explained(x: Float[Tensor, "token d"], rebuilt: Float[Tensor, "token d"]) -> float:
    """`1 - |x - x'|^2 / |x - mean|^2`, summed over tokens: 1 for a copy, 0 for the mean, below for worse than that.

    Chapter: 08.
    """
    return 1 - float((x - rebuilt).square().sum() / (x - x.mean(0)).square().sum())


@dataclass(frozen=True)
class Dictionary:
    """Directions that were not learned as an SAE's are: a baseline.

    Args:
        mean: What is subtracted before, and added after.
        directions: Of length 1.
    """

    mean: Float[Tensor, " d"]
    directions: Float[Tensor, "n d"]

    @torch.no_grad()
    def rebuild(self, x: Float[Tensor, "*batch d"], l0: int) -> Float[Tensor, "*batch d"]:
        """The best sum of `l0` directions, those that x is most along: least squares, signs as they come.

        More than an SAE is allowed, whose coefficients are one product away and never negative.
        """
        flat = x.reshape(-1, x.shape[-1]) - self.mean
        parts = [self._sums(rows, min(l0, len(self.directions))) for rows in flat.split(256)]
        return torch.cat(parts).reshape(x.shape) + self.mean

    def _sums(self, rows: Float[Tensor, "row d"], l0: int) -> Float[Tensor, "row d"]:
        along = rows @ self.directions.T
        chosen = along.abs().topk(l0, sorted=False).indices
        used = self.directions[chosen]  # [row l0 d]
        gram = used @ used.mT + 1e-6 * torch.eye(l0)
        weights = torch.linalg.solve(gram, along.gather(1, chosen)[..., None])
        return (weights * used).sum(1)


def pca_dictionary(x: Float[Tensor, "token d"], k: int | None = None) -> Dictionary:
    """The main directions of activations: the first k, or all.

    With the first k and `l0=k` this is PCA; with all of them and `l0=k`, each token has k components of its own.

    Chapter: 08.
    """
    mean = x.mean(0)
    centred = x - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # rising eigenvalues
    return Dictionary(mean, vectors.flip(1).T[:k].contiguous())


def random_dictionary(sae: SAE, mean: Float[Tensor, " d"], *, seed: int = 0) -> Dictionary:
    """As many random directions as the SAE has features: what size alone does.

    Chapter: 08.
    """
    return Dictionary(mean, random_directions(sae.d_sae, sae.d_out, seed=seed))


def splice(rebuild: Rebuild, site: str | tuple[str, str], layer: int) -> tuple[Edit, ...]:
    """Edits that put what is rebuilt in the place of what was there; position 0 and massive tokens stay.

    Args:
        rebuild: An SAE, a transcoder, or any function from activations to activations.
        site: Of two sites, the first is read and the second replaced.
    Chapter: 08.
    """
    if isinstance(site, str):
        return (Edit(site, layer, lambda old: _but_for_massive(old, rebuild(old), old)),)
    read: dict[str, Tensor] = {}

    def keep(old: Tensor) -> Tensor:
        read["x"] = old
        return old

    def replace(old: Tensor) -> Tensor:
        return _but_for_massive(old, rebuild(read["x"]), read["x"])

    return Edit(site[0], layer, keep), Edit(site[1], layer, replace)


@dataclass(frozen=True)
class LossRecovered:
    """The model's loss on texts, in nats: as it is, with a reconstruction in its place, and with nothing there.

    Args:
        clean: The model's own.
        spliced: With the reconstruction.
        mean: With the mean over these texts at every ordinary token.
        zero: With zeros there.
    """

    clean: float
    spliced: float
    mean: float
    zero: float

    @property
    def against_mean(self) -> float:
        """The share of the loss between mean ablation and the model that the reconstruction recovers."""
        return (self.mean - self.spliced) / (self.mean - self.clean)

    @property
    def against_zero(self) -> float:
        """The same with zeros, which flatter: they are further from anything that the model has met."""
        return (self.zero - self.spliced) / (self.zero - self.clean)


def loss_recovered(
    lm: LanguageModel, rebuild: Rebuild, texts: Sequence[str], site: str | tuple[str, str], layer: int
) -> LossRecovered:
    """What it costs the model to go on from the reconstruction, beside two knock-outs of the same activations.

    Args:
        rebuild, site: As for `splice`.
    Raises: ValueError without a text.
    Chapter: 08.
    """
    mean, zero = knock_outs(lm, texts, site, layer)
    return LossRecovered(*spliced_losses(lm, (None, rebuild, mean, zero), texts, site, layer))


def knock_outs(
    lm: LanguageModel, texts: Sequence[str], site: str | tuple[str, str], layer: int
) -> tuple[Rebuild, Rebuild]:
    """Two reconstructions that know nothing of the token: the mean over these texts, and zeros."""
    if not len(texts):
        raise ValueError("wanted at least one text to measure the loss on; came none")
    mean = _mean(
        lm, [lm.tokens(text)[:, : lm.n_ctx] for text in texts], site if isinstance(site, str) else site[1], layer
    )
    return (lambda x: mean.expand(*x.shape[:-1], len(mean))), (lambda x: torch.zeros(*x.shape[:-1], len(mean)))


@torch.no_grad()
def spliced_losses(
    lm: LanguageModel, ways: Sequence[Rebuild | None], texts: Sequence[str], site: str | tuple[str, str], layer: int
) -> list[float]:
    """The mean loss a token, in nats, with each of several reconstructions in the place of the activation.

    Args:
        ways: None for the model as it is.
    """
    total, count = torch.zeros(len(ways), dtype=torch.float64), 0
    for text in tqdm(texts, desc="measuring the loss", unit="text", leave=False):
        ids = lm.tokens(text)[:, : lm.n_ctx]
        count += ids.shape[1] - 1
        for number, way in enumerate(ways):
            with edit(lm, *(() if way is None else splice(way, site, layer))):
                total[number] += float(loss(lm.hf(ids).logits, ids)) * (ids.shape[1] - 1)
    return (total / count).tolist()


def _mean(lm: LanguageModel, rows: Sequence[Tensor], site: str, layer: int) -> Float[Tensor, " d"]:
    sums, count = 0.0, 0
    for ids in rows:
        x = activations_at(lm, ids, {site}, layer)[site][0, 1:]
        fine = x[ordinary_tokens(x)]
        sums, count = sums + fine.sum(0), count + len(fine)
    return sums / count


def _but_for_massive(
    old: Float[Tensor, "batch pos d_out"], new: Float[Tensor, "batch pos d_out"], read: Float[Tensor, "batch pos d_in"]
) -> Float[Tensor, "batch pos d_out"]:
    fine = torch.stack([ordinary_tokens(each) for each in read]) & torch.stack([ordinary_tokens(e) for e in old])
    fine[:, 0] = False
    return torch.where(fine[..., None], new, old)
