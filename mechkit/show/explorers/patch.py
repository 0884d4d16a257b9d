"""Chapter 07: choose a layer and a position, and read what the model says with that one state put back.

Everything is computed beforehand: choosing a cell only redraws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from mechkit.show.captions import Table, Twin, number, percent, signed, table_html, table_text, visible
from mechkit.show.style import show_live

LIKELIEST = 5
SHADES = 10  # of each sign: cells share their colours, so that a grid of hundreds stays light
CSS = """<style>
.mk-patch table{border-collapse:collapse;font:13px/20px var(--jp-ui-font-family,sans-serif);
  color:var(--jp-ui-font-color1,inherit)}
.mk-patch [role=status]{line-height:1.45}
.mk-patch tbody tr{background:none!important}
.mk-patch td,.mk-patch th{padding:1px 18px 1px 0;text-align:left!important;white-space:nowrap}
.mk-patch .mk-cells{overflow-x:auto}
.mk-patch button{padding:0;margin:0;line-height:17px;font-size:11px;color:black}
.mk-patch button.mk-here{outline:3px solid black!important;outline-offset:-2px;font-weight:bold}
.mk-patch .widget-label{font-size:11px;line-height:17px;height:17px;margin:0;overflow:visible}
</style>"""


@dataclass(frozen=True)
class PatchReading:
    """What a model says after each patch of one prompt's stream, beside what it says without any.

    Args:
        labels: The tokens of the run that is patched.
        layers: A name for each layer.
        first: The first position at which the two runs differ; before it a patch changes nothing.
        tokens: The likeliest tokens after each patch, best first: [layer][pos][k].
        probabilities: Theirs.
        differences: The logit difference after each patch.
        ends: The name of each unpatched run, "corrupted" first, to its likeliest tokens with their probabilities.
        end_differences: The logit difference of each unpatched run.
    """

    labels: Sequence[str]
    layers: Sequence[str]
    first: int
    tokens: Sequence[Sequence[Sequence[str]]]
    probabilities: Float[Tensor, "layer pos k"]
    differences: Float[Tensor, "layer pos"]
    ends: dict[str, list[tuple[str, float]]]
    end_differences: dict[str, float]

    @property
    def recovery(self) -> Float[Tensor, "layer pos"]:
        """How much of the way from the corrupted to the clean run each patch goes."""
        low, high = (self.end_differences[name] for name in ("corrupted", "clean"))
        return (self.differences - low) / ((high - low) or 1.0)


def patch_reading(
    logits: Float[Tensor, "layer pos d_vocab"],
    ends: dict[str, Float[Tensor, " d_vocab"]],
    labels: Sequence[str],
    *,
    first: int,
    answers: tuple[int, int],
    name: Callable[[Tensor], Sequence[str]],
) -> PatchReading:
    """The likeliest tokens after each patch, and the logit difference.

    Args:
        logits: As `patched_logits` gives them.
        ends: The logits of the unpatched runs: "corrupted" and "clean".
        first: The first position at which the two prompts differ.
        answers: The right token and the wrong one.
        name: Turns token ids [id] into strings: `lm.labels`.
    """
    best = logits.topk(LIKELIEST, dim=-1)
    names = iter(name(best.indices.flatten()))
    tokens = [[[next(names) for _ in range(LIKELIEST)] for _ in labels] for _ in range(len(logits))]
    unpatched = {}
    for end, row in ends.items():
        top = row.softmax(-1).topk(LIKELIEST)
        unpatched[end] = list(zip(name(top.indices), top.values.tolist(), strict=True))
    right, wrong = answers
    return PatchReading(
        list(labels),
        [str(layer) for layer in range(len(logits))],
        first,
        tokens,
        (best.values - logits.logsumexp(-1, keepdim=True)).exp(),
        logits[..., right] - logits[..., wrong],
        unpatched,
        {end: float(row[right] - row[wrong]) for end, row in ends.items()},
    )


def patch_table(reading: PatchReading) -> Twin:
    """The reading as a still table: each cell's recovery and likeliest token."""
    table = _rows(reading)
    return Twin(table_html(table), table_text(table))


class PatchExplorer:
    """A grid of layers and positions: click a cell, or move two sliders, and read the patched prediction."""

    def __init__(self, reading: PatchReading) -> None:
        self.reading = reading
        columns = range(reading.first, len(reading.labels))
        row, column = divmod(int(reading.recovery[:, columns.start :].argmax()), len(columns))
        self.layer = _slider("Layer", [(name, i) for i, name in enumerate(reading.layers)], row)
        names = [(f"{i}: {visible(reading.labels[i])}", i) for i in columns]
        self.position = _slider("Position", names, columns[column])
        self.message = widgets.HTML()
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        self.cells = _buttons(reading, columns)
        for place, button in self.cells.items():
            button.on_click(lambda _, place=place: self.choose(*place))
        heads = [widgets.Label(name) for name in ("layer", *(visible(reading.labels[i]) for i in columns))]
        grid = [*heads]
        for layer, name in enumerate(reading.layers):
            grid += [widgets.Label(name), *(self.cells[layer, position] for position in columns)]
        width = f"3em repeat({len(columns)}, 4.6em)"
        layout = widgets.Layout(grid_template_columns=width, grid_gap="1px 1px", width="max-content")
        cells = widgets.Box([widgets.GridBox(grid, layout=layout)]).add_class("mk-cells")
        self.box = widgets.VBox([self.layer, self.position, self.message, self.table, cells]).add_class("mk-patch")
        self._here = None
        for control in (self.layer, self.position):
            control.observe(lambda _: self._draw(), "value")
        self._draw()

    def choose(self, layer: int, position: int) -> None:
        """Go to a cell, as a click on it does."""
        self.layer.value, self.position.value = layer, position

    def _draw(self) -> None:
        place, reading = (self.layer.value, self.position.value), self.reading
        if self._here:
            self.cells[self._here].remove_class("mk-here")
        self._here = place
        self.cells[place].add_class("mk-here")
        self.message.value = f'<div role="status" aria-live="polite">{escape(_said(reading, *place))}</div>'
        columns = {
            "corrupted": reading.ends["corrupted"],
            "patched": list(
                zip(reading.tokens[place[0]][place[1]], reading.probabilities[place].tolist(), strict=True)
            ),
            "clean": reading.ends["clean"],
        }
        lines = zip(
            *([f"{visible(token)} {percent(p)}" for token, p in each] for each in columns.values()), strict=True
        )
        rows = [["likeliest", *columns], *([str(i + 1), *line] for i, line in enumerate(lines))]
        self.table.value = CSS + table_html(rows)

    def _ipython_display_(self) -> None:
        show_live(self.box, "Patch explorer", Twin(patch_table(self.reading).html, _summary(self.reading)))


def _slider(what: str, options: Sequence[tuple[str, int]], value: int) -> widgets.SelectionSlider:
    return widgets.SelectionSlider(
        options=options,
        value=value,
        description=what,
        style={"description_width": "5.5em"},
        tooltip="Arrow keys move it",
        layout=widgets.Layout(width="min(100%, 36em)"),
    )


def _buttons(reading: PatchReading, columns: Sequence[int]) -> dict[tuple[int, int], widgets.Button]:
    """A button for each cell that a patch can change, coloured and labelled by its recovery."""
    layout = widgets.Layout(width="4.6em", height="17px")
    shades = {i: widgets.ButtonStyle(button_color=_shade(i / SHADES)) for i in range(-SHADES, SHADES + 1)}
    found = {}
    for layer, position in product(range(len(reading.layers)), columns):
        value = float(reading.recovery[layer, position])
        where = f"layer {reading.layers[layer]}, {visible(reading.labels[position])}: recovery {value:.2f}"
        shade = shades[round(SHADES * max(-1.0, min(1.0, value)))]
        found[layer, position] = widgets.Button(
            description=f"{abs(value) if round(value, 2) == 0 else value:.2f}",
            tooltip=where,
            style=shade,
            layout=layout,
        )
    return found


def _shade(value: float) -> str:
    """White at 0, blue towards 1, red towards -1: light enough for black letters."""
    ends = {True: (103, 169, 207), False: (239, 138, 98)}[value >= 0]
    return "#" + "".join(f"{round(255 + abs(value) * (end - 255)):02x}" for end in ends)


def _said(reading: PatchReading, layer: int, position: int) -> str:
    """What is patched, and what becomes of the answer, in one sentence."""
    low, high = (f"{name} {signed(reading.end_differences[name])}" for name in ("corrupted", "clean"))
    return (
        f"Clean stream before layer {reading.layers[layer]} put back at {visible(reading.labels[position])} "
        f"(position {position}): logit difference {signed(reading.differences[layer, position])} ({low}, {high}), "
        f"recovery {reading.recovery[layer, position]:.2f}."
    )


def _rows(reading: PatchReading) -> Table:
    columns = range(reading.first, len(reading.labels))
    lines = [
        [
            name,
            *(f"{number(reading.recovery[row, i])} {visible(reading.tokens[row][i][0])}" for i in columns),
        ]
        for row, name in enumerate(reading.layers)
    ]
    return [["layer \\ patched at", *(visible(reading.labels[i]) for i in columns)], *lines]


def _summary(reading: PatchReading) -> str:
    """The largest recovery of each position that a patch can change."""
    columns = range(reading.first, len(reading.labels))
    said = []
    for i in columns:
        row = int(reading.recovery[:, i].argmax())
        said.append(f"{visible(reading.labels[i])} {reading.recovery[row, i]:.2f} at layer {reading.layers[row]}")
    return f"Recovery by layer ({len(reading.layers)}) and position; largest: {', '.join(said)}."
