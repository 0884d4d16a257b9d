"""Is it used? Add a direction, or take everything linear about a property away, and watch the output.

What a probe reads need not be what the model acts on. `add_direction` writes along a direction, `project_out` removes
one, and LEACE removes exactly what any linear probe could read, changing as little as possible. The limit: an
edit that does nothing may have come too late, at the wrong place, or have been made good by later layers; so
compare with a random direction of the same length.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.methods.splits import check_labels
from mechkit.network.hooks import Edit, Index

RANK = 1e-6  # directions that hold less than this share of the largest variance count as empty


def mean_difference(x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"]) -> Float[Tensor, " d_model"]:
    """From the mean of class 0 to the mean of class 1: the mass-mean direction.

    Raises: ValueError if there is one class only.
    Source: Marks and Tegmark (2023), "The Geometry of Truth".
    Chapter: 03.
    """
    check_labels(y)
    return x[y == 1].mean(0) - x[y == 0].mean(0)


def random_like(direction: Float[Tensor, " d_model"], *, seed: int = 0) -> Float[Tensor, " d_model"]:
    """A random direction of the same length: the control for every claim about a direction.

    Raises: ValueError for a direction of length zero.
    Chapter: 03.
    """
    _checked(direction)
    other = torch.randn(direction.shape, generator=torch.Generator().manual_seed(seed))
    return other / other.norm() * direction.norm()


def add_direction(
    direction: Float[Tensor, " d_model"], layer: int, *, strength: float = 1.0, position: Index = None
) -> Edit:
    """An edit that adds `strength * direction` to `resid_post` of a layer.

    Raises: ValueError for a direction of length zero.
    Chapter: 03.
    """
    push = strength * _checked(direction)
    return Edit("resid_post", layer, lambda value: value + push.to(value.dtype), position=position)


def project_out(
    x: Float[Tensor, "*batch d_model"],
    direction: Float[Tensor, " d_model"],
    *,
    around: Float[Tensor, " d_model"] | None = None,
) -> Float[Tensor, "*batch d_model"]:
    """Remove what lies along a direction: `x - ((x - around) . u) u` with u of length 1.

    Args:
        around: A point that stays where it is, usually the mean; None for the origin.
    Raises: ValueError for a direction of length zero.
    Chapter: 03.
    """
    unit = (_checked(direction) / direction.norm()).to(x.dtype)
    offset = x if around is None else x - around.to(x.dtype)
    return x - (offset @ unit)[..., None] * unit


@dataclass(frozen=True)
class Eraser:
    """The least change after which no linear probe can tell the classes apart: `x - (x - mean) @ away`.

    Chapter: 03.
    """

    mean: Float[Tensor, " d_model"]
    away: Float[Tensor, "d_model d_model"]

    def __call__(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The activations with the property erased."""
        return x - (x - self.mean.to(x.dtype)) @ self.away.to(x.dtype)

    def edit(self, layer: int, *, position: Index = None) -> Edit:
        """An edit that erases at `resid_post` of a layer."""
        return Edit("resid_post", layer, self, position=position)


def fit_leace(x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"], *, shrinkage: float = 0.0) -> Eraser:
    """LEACE: erase classes in closed form, by whitening, projecting out, and colouring again.

    With S the covariance of x and C its covariance with the (one-hot) classes, the whitened directions that tell
    the classes apart are those of S^(-1/2) C; P projects on them, and away = (S^(1/2) P S^(-1/2))^T. Afterwards
    the classes have the same mean, which is exactly what keeps every linear probe at chance on these data.

    Args:
        shrinkage: From 0 to 1, how far S is pulled to a multiple of the identity. The means agree whatever it is;
            with fewer examples than dimensions some of it keeps the eraser from learning the examples by heart,
            and at 1 it projects the mean difference out.
    Raises: ValueError if there is one class only, or x does not vary.
    Source: Belrose et al. (2023), "LEACE: Perfect linear concept erasure in closed form".
    Chapter: 03.
    """
    check_labels(y)
    data, mean = x.double(), x.double().mean(0)
    covariance = (data - mean).T @ (data - mean) / len(x)
    identity = torch.eye(len(mean), dtype=torch.float64)
    covariance = (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().mean() * identity
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > RANK * values[-1].clamp(min=1e-30)
    if not kept.any():
        raise ValueError("wanted features that differ between examples; came the same vector every time")
    root, basis = values[kept].sqrt(), vectors[:, kept]
    classes = torch.nn.functional.one_hot(y).double()
    cross = (data - mean).T @ (classes - classes.mean(0)) / len(x)
    left, size, _ = torch.linalg.svd((basis.T @ cross) / root[:, None], full_matrices=False)
    told = left[:, size > RANK * size[0]]
    away = (basis / root) @ told @ told.T @ (basis * root).T
    return Eraser(mean.float(), away.float())


def _checked(direction: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    if not direction.norm() > 0:
        raise ValueError("wanted a direction; came a vector of length zero: are the two means the same?")
    return direction
