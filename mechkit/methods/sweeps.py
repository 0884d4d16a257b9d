"""What does the output become when one place is given another value? Every place in turn, exactly and quickly.

A *cell* is one place: a layer, with a head or a position or both. A changed run differs from the kept one only
above its cell and from its position on, so nothing else is computed again; cells run many at once; a cell
whose value is the one that stands there already is not run at all. The limit: the kept run's states, and one
value for every place, are held in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.network.hooks import Edit
from mechkit.network.model import LanguageModel
from mechkit.network.replay import Replay

Metric = Callable[[Tensor], Tensor]
SITES = ("resid_pre", "resid_mid", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern")
WITH_HEADS = ("z", "q", "k", "v", "pattern")
AXES = ("layer", "head", "position")
ROWS = 72  # runs at once: more is hardly faster, and takes memory


@dataclass(frozen=True)
class Sweep:
    """What the metric became in each changed run.

    Args:
        values: One for each cell and prompt; NaN where the sweep was interrupted before.
        base: The metric of the run that was changed.
        axes: What the cells count: layer, head, position.
        source: The metric of the run that the values came from; None where they came from no run.
    """

    values: Float[Tensor, "*cells batch"]
    base: Float[Tensor, " batch"]
    axes: tuple[str, ...]
    source: Float[Tensor, " batch"] | None = None

    @property
    def change(self) -> Float[Tensor, "*cells"]:
        """How much each cell changes the metric, in the metric's own unit: a mean over prompts."""
        return self.values.mean(-1) - self.base.mean()

    @property
    def recovery(self) -> Float[Tensor, "*cells"]:
        """How much of the way from the changed run to its source each cell goes: 0 nothing, 1 all of it.

        Raises: ValueError if there is no source, or no way to go because both runs give the same.
        """
        if self.source is None:
            raise ValueError("wanted a sweep with a source run; an ablation has none: use its `change`")
        way = self.source.mean() - self.base.mean()
        if way.abs() < 1e-6:
            raise ValueError(
                f"wanted two runs whose metric differs; both give {self.base.mean():.3g}: there is nothing to recover, "
                "choose a corruption that changes the answer"
            )
        return self.change / way


def sweep(
    base: Replay, values: Mapping[int, Tensor], metric: Metric, *, site: str, over: Sequence[str], rows: int = ROWS
) -> Sweep:
    """The metric of `base` with `values` put in, cell by cell. Interrupting it keeps what was done.

    Args:
        base: The run that is changed.
        values: Layer to the site's values, one for each prompt of `base`.
        metric: From the logits after the last token, [batch 1 d_vocab], to one number a prompt.
        site: What is changed. For k and v, heads are key/value heads; for pattern, positions are the queries'.
        over: The axes of the result: "layer", and "head" or "position" or both.
        rows: How many runs at once; it bounds the memory.
    Raises: ValueError for a site or axes that cannot be swept, or a metric without a finite number for each prompt.
    """
    plan = _Plan(base, values, site, checked_axes(site, over))
    unchanged = logits_of(base.lm, base.final[:, -1])
    scored = score(metric, unchanged)
    result = scored.expand(plan.rows.shape).clone()
    result[plan.rows.any(-1)] = torch.nan
    try:
        for cells in tqdm(plan.batches(rows), desc=f"changing {site}", leave=False):
            for cell, prompts, logits in plan.run(cells, rows):
                result[cell] = score(metric, unchanged.index_copy(0, prompts, logits))
    except KeyboardInterrupt:
        done = ~result.isnan().any(-1)
        print(f"Interrupted: {int(done.sum())} of {done.numel()} cells are done, the others are NaN.")
    return Sweep(result, scored, plan.axes)


def logits_of(lm: LanguageModel, stream: Float[Tensor, "row d_model"]) -> Float[Tensor, "row 1 d_vocab"]:
    """The model's logits from its last stream at one position."""
    with torch.no_grad():
        return lm.unembed(lm.final_norm(stream))[:, None]


def score(metric: Metric, logits: Float[Tensor, "batch 1 d_vocab"]) -> Float[Tensor, " batch"]:
    """What a metric makes of the logits, once it is sure to be one finite number a prompt.

    Raises: ValueError if it is not.
    """
    scored = metric(logits)
    if not isinstance(scored, Tensor) or scored.shape != logits.shape[:1]:
        came = list(scored.shape) if isinstance(scored, Tensor) else f"a {type(scored).__name__}"
        raise ValueError(
            f"wanted a metric from logits [batch 1 d_vocab] to one number a prompt, shape {list(logits.shape[:1])}; "
            f"came {came}: return a tensor and take no mean over prompts"
        )
    if not scored.isfinite().all():
        raise ValueError(f"wanted a finite metric; came {scored[~scored.isfinite()][0].item()}: look for a log of zero")
    return scored


class _Plan:
    """Which runs a sweep needs, and how they go together.

    `rows` says which prompts each cell changes at all: [layer (head) (position) batch].
    """

    def __init__(self, base: Replay, values: Mapping[int, Tensor], site: str, axes: tuple[str, ...]):
        self.axes = axes
        self._base, self._site = base, site
        self._values = {layer: by_position(value, site) for layer, value in values.items()}
        old = base.values(site)
        differs = [(by_position(old[i], site) != self._values[i]).any(-1) for i in range(base.lm.n_layers)]
        places = torch.stack(differs)  # layer batch pos (head)
        reached = places.any(-1) if site in WITH_HEADS else places
        self._first = reached.any(1).int().argmax(-1).tolist()
        self.rows = by_cell(places, self.axes) > 0

    def batches(self, rows: int) -> list[list[tuple[int, ...]]]:
        """Cells that run together: changed from the same position on, of at most so many rows, upwards by layer."""
        found: list[list[tuple[int, ...]]] = []
        room = 0
        cells = map(tuple, self.rows.any(-1).nonzero().tolist())
        for cell in sorted(cells, key=lambda each: (self._start(each), each)):
            needed = int(self.rows[cell].sum())
            if found and needed <= room and self._start(cell) == self._start(found[-1][0]):
                found[-1].append(cell)
                room -= needed
            else:
                found.append([cell])
                room = rows - needed
        return found

    def run(self, cells: Sequence[tuple[int, ...]], rows: int) -> Iterator[tuple[tuple[int, ...], Tensor, Tensor]]:
        """Each cell, the prompts that it changes, and their logits after the last token."""
        which = torch.cat([torch.full((int(self.rows[cell].sum()),), i) for i, cell in enumerate(cells)])
        prompts = torch.cat([self.rows[cell].nonzero()[:, 0] for cell in cells])
        parts = zip(which.split(rows), prompts.split(rows), strict=True)
        last = torch.cat([self._final(torch.tensor(cells)[part], those) for part, those in parts])
        logits = logits_of(self._base.lm, last)
        for i, cell in enumerate(cells):
            yield cell, prompts[which == i], logits[which == i]

    def _start(self, cell: tuple[int, ...]) -> int:
        """The first position that a cell's change can reach."""
        return cell[-1] if "position" in self.axes else self._first[cell[0]]

    def _final(self, cells: Int[Tensor, "row axis"], prompts: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """The last stream after the last token, for one cell and prompt a row, upwards by layer."""
        layers, start = cells[:, 0], self._start(tuple(cells[0].tolist()))
        resid = torch.stack(
            [
                self._base.resid_pre(layer)[prompt, start:]
                for layer, prompt in zip(layers.tolist(), prompts, strict=True)
            ]
        )
        edits = [self._swap(layer, cells, prompts, start) for layer in layers.unique().tolist()]
        return self._base.rest(layers, resid, prompts, *edits)[:, -1]

    def _swap(self, layer: int, cells: Tensor, prompts: Tensor, start: int) -> Edit:
        """Put the new values into the rows whose cell is of this layer."""
        rows = (cells[:, 0] == layer).nonzero()[:, 0]
        where = {axis: cells[rows, i] for i, axis in enumerate(self.axes)}
        inner = (where["position"] - start if "position" in where else slice(None),)
        inner += (where["head"],) if "head" in where else ()
        new = self._values[layer][prompts[rows], start:][(torch.arange(len(rows)), *inner)]

        def change(old: Tensor) -> Tensor:
            by_position(old, self._site)[(rows, *inner)] = new
            return old

        return Edit(self._site, layer, change)


def by_cell(
    places: Shaped[Tensor, "layer batch pos *head"], axes: tuple[str, ...]
) -> Shaped[Tensor, "layer *cells batch"]:
    """What stands at each position (and head), summed to the cells of a sweep."""
    if places.ndim == 4 and "head" not in axes:
        places = places.sum(-1)
    if "position" not in axes:
        places = places.sum(2)
    cells = places.movedim(1, -1)
    return cells.transpose(1, 2) if len(axes) == 3 else cells  # positions came before heads


def by_position(value: Tensor, site: str) -> Float[Tensor, "batch pos ..."]:
    """A view with positions before heads, as every site but the pattern has them."""
    return value.transpose(1, 2) if site == "pattern" else value


def checked_axes(site: str, over: Sequence[str]) -> tuple[str, ...]:
    """The axes in the order of the result.

    Raises: ValueError for a site that cannot be swept, or axes that it does not have.
    """
    if site not in SITES:
        raise ValueError(f"wanted a site to sweep over; came {site!r}: use one of {', '.join(SITES)}")
    having = AXES if site in WITH_HEADS else ("layer", "position")
    if isinstance(over, str) or "layer" not in over or not set(over) <= set(having):
        raise ValueError(f'wanted axes of {site}: "layer", and any of {", ".join(having[1:])}; came {over!r}')
    return tuple(axis for axis in AXES if axis in over)
