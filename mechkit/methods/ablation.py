"""Which activation matters? Knock it out and see what the output loses.

Each function gives an `Edit` for `edit(lm, ...)`. Three kinds of "nothing" differ: zeros are a value that the
model never met, a mean is what this place usually says, a resampled value is what it said elsewhere. The limit:
what survives an ablation may be there because another part made up for it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.network.hooks import Edit, Index


def zero(site: str, layer: int | None, *, head: Index = None, position: Index = None) -> Edit:
    """Replace a value by zeros: simple, and often further from anything the model has met than it looks.

    Chapter: 00.
    """
    return Edit(site, layer, torch.zeros_like, head=head, position=position)


def mean(
    site: str,
    layer: int | None,
    values: Float[Tensor, "sample ..."],
    *,
    head: Index = None,
    position: Index = None,
) -> Edit:
    """Replace a value by its mean over samples: what this place usually says, whatever the prompt.

    Args:
        values: The same slice as it was on other prompts, a sample each on the first axis; each has the shape of
            one prompt's slice (`cache["z", 5][:, -1, 3]` for one head at the last position).
    Chapter: 00.
    """
    usual = values.mean(0)
    return Edit(site, layer, lambda value: _fit(usual, value, site), head=head, position=position)


def resample(
    site: str,
    layer: int | None,
    values: Float[Tensor, "sample ..."],
    *,
    seed: int,
    head: Index = None,
    position: Index = None,
) -> Edit:
    """Replace each prompt's value by one drawn from samples: a value that occurs, though not here.

    Args:
        values: As for `mean`.
    Chapter: 00.
    """

    def change(value: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(values), (len(value),), generator=generator)
        return _fit(values[drawn], value, site)

    return Edit(site, layer, change, head=head, position=position)


def _fit(new: Tensor, value: Tensor, site: str) -> Tensor:
    """The new value spread over the batch.

    Raises: ValueError if it has not the shape of one prompt's slice.
    """
    if new.shape[-(value.ndim - 1) :] != value.shape[1:]:
        raise ValueError(
            f"wanted samples of {site} of shape {tuple(value.shape[1:])}, one prompt's slice; came "
            f"{tuple(new.shape[-(value.ndim - 1) :])}: cut them with the same head and position"
        )
    return new.expand_as(value)
