"""Chapter 04: type a prompt and see what every layer would say at every position.

The explorer gets a function from a prompt to readings, one for each lens, so that it needs no model itself.
Each prompt is computed once; moving the lens, the layer or the position only redraws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from uuid import uuid4

import ipywidgets as widgets
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.show.captions import Table, Twin, caption_lens, percent, scrolling, table_text, visible
from mechkit.show.style import show_live

TINT = "126,87,194"  # the violet of style.PROBABILITY, readable under black and under white letters
CSS = """<style>
.mk-lens table{table-layout:fixed;border-collapse:separate;border-spacing:1px;
  color:var(--jp-ui-font-color1,inherit);font:11px/15px var(--jp-code-font-family,monospace)}
.mk-lens td,.mk-lens th{padding:0 3px;overflow:hidden;text-overflow:ellipsis;
  white-space:nowrap;text-align:center!important;font-weight:normal}
.mk-lens tbody tr{background:none!important}
.mk-lens thead th{position:sticky;top:0;z-index:1;font-weight:bold}
.mk-lens tr th:first-child{position:sticky;left:0;text-align:right}
.mk-lens th{background:var(--jp-layout-color0,white)}
.mk-lens .widget-radio{display:flex;flex-direction:row;align-items:baseline}
.mk-lens .widget-radio .widget-label{text-align:right}
.mk-lens [role=status]{line-height:1.45}
.mk-lens ol{margin:2px 0 0;padding:0;list-style:none}
.mk-lens li{display:inline-block;margin-right:1.2em}
.mk-lens .mk-error{color:var(--jp-error-color0,#b2182b);font-weight:bold}
</style>"""


@dataclass(frozen=True)
class LensReading:
    """What every layer would say at every position of one prompt.

    Args:
        labels: The prompt's tokens, the prefix included.
        layers: A name for each layer: "embed", "0", "1" …
        tokens: The likeliest tokens, best first: [layer][pos][k].
        probabilities: Theirs.
        ranks: Rank of the token that the last layer puts first at this position; 0 is the top.
    """

    labels: Sequence[str]
    layers: Sequence[str]
    tokens: Sequence[Sequence[Sequence[str]]]
    probabilities: Float[Tensor, "layer pos k"]
    ranks: Int[Tensor, "layer pos"]

    @property
    def top(self) -> list[list[str]]:
        """The likeliest token of each layer at each position."""
        return [[choices[0] for choices in row] for row in self.tokens]


def lens_reading(
    logits: Float[Tensor, "layer pos d_vocab"],
    labels: Sequence[str],
    layers: Sequence[object],
    *,
    name: Callable[[Tensor], Sequence[str]],
    k: int = 5,
) -> LensReading:
    """The `k` likeliest tokens of each layer at each position, and the rank of the last layer's choice.

    Args:
        name: Turns token ids [id] into strings: `lm.labels`.
    """
    best = logits.topk(k, dim=-1)
    probabilities = (best.values - logits.logsumexp(-1, keepdim=True)).exp()
    final = logits[-1].argmax(-1).expand(logits.shape[:2])
    ranks = (logits > logits.gather(-1, final.unsqueeze(-1))).sum(-1)
    names = iter(name(best.indices.flatten()))
    tokens = [[[next(names) for _ in range(k)] for _ in labels] for _ in layers]
    return LensReading(list(labels), [str(layer) for layer in layers], tokens, probabilities.detach(), ranks)


def lens_table(reading: LensReading) -> Twin:
    """The reading as a still table: each layer's likeliest token at each position, on its probability."""
    _, table = _caption(reading)
    return Twin(f'{CSS}<div class="mk-lens">{scrolling(_table(reading), name="Lens table")}</div>', table_text(table))


def _caption(reading: LensReading) -> tuple[str, Table]:
    labels = {"layer": reading.layers, "token": reading.labels}
    return caption_lens(reading.top, reading.probabilities[..., 0].numpy(), labels)


def _table(reading: LensReading) -> str:
    head = "".join(f'<th scope="col">{escape(visible(label))}</th>' for label in reading.labels)
    body = "".join(
        f'<tr><th scope="row">{escape(layer)}</th>{"".join(map(_cell, choices, shares))}</tr>'
        for layer, choices, shares in zip(reading.layers, reading.tokens, reading.probabilities.tolist(), strict=True)
    )
    columns = f'<col style="width:4em"><col span="{len(reading.labels)}" style="width:6.8em">'
    return (
        f'<table style="width:{4 + 6.8 * len(reading.labels):.1f}em"><colgroup>{columns}</colgroup>'
        f'<thead><tr><th scope="col">layer</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _cell(tokens: Sequence[str], probabilities: Sequence[float]) -> str:
    listed = "\n".join(f"{percent(p)} {visible(token)}" for token, p in zip(tokens, probabilities, strict=True))
    tint = f"background:rgba({TINT},{0.75 * probabilities[0]:.2f})"
    return f'<td style="{tint}" title="{escape(listed)}">{escape(visible(tokens[0]))}</td>'


class LensExplorer:
    """A prompt, a lens, and one cell to read, over the table of what every layer would say.

    Args:
        compute: From a prompt to its readings by the lens's name: `{"plain": ..., "affine": ...}`. What it
            raises (an empty prompt, one that is too long) is shown as a sentence, and the last table stays.
        prompt: The first prompt.
    """

    def __init__(self, compute: Callable[[str], Mapping[str, LensReading]], prompt: str) -> None:
        self._compute, self._known, self._readings = compute, {}, {}
        self._scope = f"mk-{uuid4().hex}"
        self._make_controls(prompt)
        self.read()
        self.prompt.observe(lambda _: self.read(), "value")
        self.run.on_click(lambda _: self.read())
        self.lens.observe(lambda _: self._draw(), "value")
        for control in (self.layer, self.position):
            control.observe(lambda _: self._tell(), "value")

    def _make_controls(self, prompt: str) -> None:
        style = {"description_width": "5.5em"}
        wide = widgets.Layout(width="min(100%, 36em)")
        self.prompt = widgets.Text(
            prompt,
            description="Prompt",
            continuous_update=False,
            style=style,
            layout=wide,
            tooltip="Type a prompt and press Enter",
        )
        self.run = widgets.Button(description="Read", tooltip="Read this prompt at every layer")
        self.lens = widgets.RadioButtons(options=[], description="Lens", orientation="horizontal", style=style)
        self.layer = widgets.SelectionSlider(
            options=[("", 0)], description="Layer", style=style, layout=wide, tooltip="The row to read"
        )
        self.position = widgets.Dropdown(options=[], description="After", style=style, tooltip="The column to read")
        self.message = widgets.HTML(layout=widgets.Layout(height="6em", overflow="auto"), tabbable=True)
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        self._mark = widgets.HTML(layout=widgets.Layout(display="none"))
        rows = ([self.prompt, self.run], [self.lens], [self.layer, self.position])
        boxes = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) for row in rows]
        self.box = widgets.VBox([*boxes, self.message, self.table, self._mark])
        self.box.add_class("mk-lens").add_class(self._scope)

    def read(self) -> None:
        """Read the prompt in the text box, or say in the message why that cannot be done."""
        prompt = self.prompt.value
        try:
            if prompt not in self._known:
                self._known[prompt] = dict(self._compute(prompt))
        except Exception as error:  # a traceback would vanish unseen in the page's log
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self._say(f'<span class="mk-error">{escape(f"{name}{error}")}</span>')
            return
        self._readings = {}  # moves of the controls are ignored while their options change
        readings = self._known[prompt]
        reading = next(iter(readings.values()))
        chosen_lens, chosen_layer = self.lens.value, self.layer.value if self.table.value else None
        self.lens.options = list(readings)
        self.lens.value = chosen_lens if chosen_lens in readings else next(iter(readings))
        self.layer.options = [(name, row) for row, name in enumerate(reading.layers)]
        self.layer.value = len(reading.layers) - 1 if chosen_layer is None else chosen_layer
        self.position.options = [(f"{i}: {visible(label)}", i) for i, label in enumerate(reading.labels)]
        self.position.value = len(reading.labels) - 1
        self.table.layout.height = f"{min(16 * len(reading.layers) + 46, 620)}px"
        self._readings = readings
        self._draw()

    def _draw(self) -> None:
        if self._readings:
            self.table.value = _table(self._readings[self.lens.value])
            self._tell()

    def _tell(self) -> None:
        """Say the chosen cell's likeliest tokens, and outline the cell."""
        if not self._readings:
            return
        reading, row, column = self._readings[self.lens.value], self.layer.value, self.position.value
        listed = zip(reading.tokens[row][column], reading.probabilities[row, column].tolist(), strict=True)
        items = "".join(f"<li><b>{escape(visible(token))}</b> {percent(p)}</li>" for token, p in listed)
        final, rank = visible(reading.top[-1][column]), int(reading.ranks[row, column])
        where = f"Layer {reading.layers[row]}, after {visible(reading.labels[column])}"
        ranked = f"the last layer’s {final} has rank {rank} here (0 is the top)."
        self._say(f"{escape(where)}; {escape(ranked)}<ol>{items}</ol>")
        cell = f".{self._scope} tbody tr:nth-child({row + 1}) td:nth-child({column + 2})"
        self._mark.value = f"{CSS}<style>{cell}{{outline:2px solid var(--jp-ui-font-color1,black)}}</style>"

    def _say(self, html: str) -> None:
        self.message.value = f'<div role="status" aria-live="polite">{html}</div>'

    def _ipython_display_(self) -> None:
        html = [f"<p>{escape(name)} lens</p>{lens_table(each).html}" for name, each in self._readings.items()]
        text = [f"{name} lens: {_caption(each)[0]}" for name, each in self._readings.items()]
        show_live(self.box, "Lens explorer", Twin("".join(html), "\n".join(text)))
