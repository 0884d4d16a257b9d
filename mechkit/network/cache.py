"""What happened inside this forward pass? One run that returns the logits and what was read on the way.

A cache holds the model's own tensors, so reading costs next to nothing; what is kept costs memory, so long
texts ask for the sites they need. The limit: a cache is what happened once, and an edit does not reach back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.network.hooks import Key, read
from mechkit.network.model import LanguageModel
from mechkit.network.sites import SITES, WITHOUT_LAYER


class Cache:
    """Activations by name: `cache["resid_post", 5]`, and `cache["embed"]` for what has no layer.

    The axes of each site are in `mechkit.network.sites.AXES`. Treat the tensors as read-only: the same tensor
    can stand under two names, as resid_post of one layer and resid_pre of the next do.
    """

    def __init__(self, values: Mapping[Key, Tensor]):
        self._values = dict(values)

    def __getitem__(self, key: Key) -> Tensor:
        if key not in self._values:
            raise KeyError(f"wanted something in the cache; came {key!r}: it holds {self._contents()}")
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Cache({self._contents()})"

    def stack(self, site: str) -> Float[Tensor, "layer ..."]:
        """One site at every layer that was read, lowest first, on a new first axis.

        Raises: KeyError if the site was not read or has no layers.
        """
        layers = self._layers(site)
        if not layers:
            raise KeyError(f"wanted a site with layers; came {site!r}: the cache holds {self._contents()}")
        return torch.stack([self._values[site, layer] for layer in layers])

    def _layers(self, site: str) -> list[int]:
        return sorted(key[1] for key in self._values if isinstance(key, tuple) and key[0] == site)

    def _contents(self) -> str:
        bare = [repr(site) for site in WITHOUT_LAYER if site in self._values]
        layered = [f"({site!r}, {_span(layers)})" for site in SITES if (layers := self._layers(site))]
        return ", ".join(bare + layered) or "nothing"


def run(
    lm: LanguageModel,
    prompt: str | Sequence[str] | Tensor,
    sites: str | Iterable[str] | None = None,
    layers: int | Iterable[int] | None = None,
) -> tuple[Float[Tensor, "batch pos d_vocab"], Cache]:
    """The logits, and the activations that were asked for, without gradients.

    Inside `edit(...)` both are what the edited model gives.

    Args:
        prompt: Whatever `lm.tokens` takes; a text gets the model's prefix.
        sites: None for all that the model has.
        layers: None for all.
    Raises: ValueError for a site or a layer that the model lacks; it names what exists.
    Chapter: 00.
    """
    ids = lm.tokens(prompt)
    with torch.no_grad(), read(lm, sites, layers) as seen:
        logits = lm.hf(ids).logits
    return logits, Cache(seen)


def _span(layers: Sequence[int]) -> str:
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]} to {layers[-1]}"
    return " or ".join(str(layer) for layer in layers)
