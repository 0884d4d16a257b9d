"""How do I run only the rest of a forward pass? From a layer on, from a position on, many variants at once.

What happens below a change, and at the positions before it, is the same in every variant of a run. So a run
is kept once, and each variant starts from the kept stream at its layer, with the kept keys and values of the
positions before. The limit: the kept run and its variants have the same tokens at those positions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.network.attention import Tap, watched
from mechkit.network.hooks import Edit, block_calls, edit, read
from mechkit.network.model import LanguageModel

# The axis that counts positions in each argument of a block that has one; for the mask, its queries.
POSITION_AXIS = {"attention_mask": 2, "position_ids": 1, "position_embeddings": 1}


class Replay:
    """One forward pass, kept so that the rest of it can be run again.

    Args:
        lm: The model.
        tokens: Prompts of one length.
    Chapter: 07.
    """

    def __init__(self, lm: LanguageModel, tokens: Int[Tensor, "batch pos"]):
        self.lm = lm
        self.tokens = tokens
        with torch.no_grad(), block_calls(lm) as self._calls, read(lm, ("resid_pre", "k", "v", "resid_post")) as seen:
            lm.hf.base_model(input_ids=tokens, use_cache=False)  # no logits
        self.final: Float[Tensor, "batch pos d_model"] = seen["resid_post", lm.n_layers - 1]
        self._kept = {key: value for key, value in seen.items() if key[0] != "resid_post"}

    def resid_pre(self, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """The kept stream before a layer."""
        return self._kept["resid_pre", layer]

    def values(self, site: str) -> dict[int, Tensor]:
        """A site's values in the kept run, layer by layer."""
        if (site, 0) in self._kept:
            return {layer: self._kept[site, layer] for layer in range(self.lm.n_layers)}
        with torch.no_grad(), read(self.lm, site) as seen:
            self.lm.hf.base_model(input_ids=self.tokens, use_cache=False)
        return {layer: value for (_, layer), value in seen.items()}

    def rest(
        self,
        layer: int | Int[Tensor, " row"],
        resid: Float[Tensor, "row last d_model"],
        prompts: Int[Tensor, " row"],
        *edits: Edit,
    ) -> Float[Tensor, "row last d_model"]:
        """The last layer's resid_post, had the stream before `layer` been `resid` at the last positions.

        The positions before those are as in the kept run; their keys and values are reused, not computed.

        Args:
            layer: One for all rows, or one for each, never falling: a row joins the others at its layer.
            resid: One row for each variant.
            prompts: Which of the kept prompts each row is a variant of.
            edits: Changes on the way; their positions count from the end (-1 the last) or from `resid`'s first, and
                their rows are those that have joined by then.
        """
        begins = torch.as_tensor(layer).expand(len(resid))
        joined = [int((begins <= number).sum()) for number in range(self.lm.n_layers)]
        start = self.tokens.shape[1] - resid.shape[1]
        stream = resid[:0]
        with torch.no_grad(), edit(self.lm, *edits), self._with_past(start, prompts, joined):
            for number in range(int(begins[0]), self.lm.n_layers):
                stream = torch.cat([stream, resid[len(stream) : joined[number]]])
                block = self.lm.module(self.lm.family.places["resid_post"].path, number)
                stream = block(stream, **self._arguments(number, start, prompts[: len(stream)]))
        return stream

    @contextmanager
    def _with_past(self, start: int, prompts: Tensor, joined: Sequence[int]) -> Iterator[None]:
        """Put the kept keys and values of the positions before `start` in front of those that are computed."""
        taps = []
        for layer in range(self.lm.n_layers if start else 0):
            module = self.lm.module(self.lm.family.attention, layer)
            here = prompts[: joined[layer]]
            taps += [(module, site, self._in_front(self._kept[site, layer], start, here)) for site in ("k", "v")]
        with watched(self.lm.hf, taps):
            yield

    def _in_front(self, kept: Tensor, start: int, prompts: Tensor) -> Tap:
        return lambda computed: torch.cat([kept[prompts, :start], computed], dim=1)

    def _arguments(self, layer: int, start: int, prompts: Tensor) -> dict[str, object]:
        """The block's recorded arguments for these rows and positions, but for the first, which is the stream."""
        recorded = list(self._calls[layer].items())[1:]
        return {name: _cut(value, POSITION_AXIS.get(name), start, prompts) for name, value in recorded}


def _cut(value: object, axis: int | None, start: int, prompts: Tensor) -> object:
    if axis is None or value is None:
        return value
    if isinstance(value, Sequence):
        return tuple(_cut(part, axis, start, prompts) for part in value)
    rows = value if value.shape[0] == 1 else value[prompts]
    return rows.narrow(axis, start, value.shape[axis] - start)
