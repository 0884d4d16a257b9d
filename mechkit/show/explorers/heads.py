"""Chapter 05: type a text that repeats itself, choose a head, and see where each token looks.

The explorer gets a function from a text to every head's pattern, so that it needs no model itself. Each text is
computed once; moving the layer, the head or the token only redraws.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from uuid import uuid4

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from mechkit.show.captions import Twin, caption_attention, percent, scrolling, table_text, visible
from mechkit.show.style import show_live

LONGEST = 32  # tokens that a table can show
TINT = "126,87,194"  # the violet of style.PROBABILITY, readable under black letters
CSS = """<style>
.mk-heads table{table-layout:fixed;border-collapse:separate;border-spacing:1px;
  color:var(--jp-ui-font-color1,inherit);font:11px/16px var(--jp-code-font-family,monospace)}
.mk-heads td,.mk-heads th{padding:0 3px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
  text-align:center!important;font-weight:normal}
.mk-heads tbody tr{background:none!important}
.mk-heads tr th:first-child{position:sticky;left:0;text-align:right!important}
.mk-heads th{background:var(--jp-layout-color0,white)}
.mk-heads [role=status]{line-height:1.45}
.mk-heads ol{margin:2px 0 0;padding:0;list-style:none}
.mk-heads li{display:inline-block;margin-right:1.2em}
.mk-heads .mk-error{color:var(--jp-error-color0,#b2182b);font-weight:bold}
</style>"""


@dataclass(frozen=True)
class HeadReading:
    """Where every head looks in one text.

    Args:
        labels: The text's tokens, the prefix included.
        pattern: Every head's attention.
    Raises: ValueError for more tokens than a table can show, or not one label a token.
    """

    labels: list[str]
    pattern: Float[Tensor, "layer head query key"]

    def __post_init__(self) -> None:
        length = self.pattern.shape[-1]
        if length > LONGEST:
            raise ValueError(f"wanted at most {LONGEST} tokens, to fit a table; came {length}: shorten the text")
        if len(self.labels) != length:
            raise ValueError(f"wanted a label for each of {length} tokens; came {len(self.labels)} labels")


def head_table(reading: HeadReading, layer: int, head: int) -> Twin:
    """One head's pattern as a still table: a row for each token that looks, a column for each looked at."""
    sentence, table = caption_attention(reading.pattern[layer, head].numpy(), reading.labels)
    html = f'{CSS}<div class="mk-heads">{scrolling(_table(reading, layer, head), name="Attention pattern")}</div>'
    return Twin(f"<p>L{layer}H{head}. {escape(sentence)}</p>{html}", table_text(table))


class HeadExplorer:
    """A text, a head and a token that looks, over the table of where each token looks.

    Args:
        compute: From a text to its reading. What it raises (an empty text, one that is too long) is shown as a
            sentence, and the last table stays.
        text: The first text.
        scores: What is known of every head, by the score's name.
        start: The head that is shown first, (layer, head).
    """

    def __init__(
        self,
        compute: Callable[[str], HeadReading],
        text: str,
        *,
        scores: Mapping[str, Float[Tensor, "layer head"]],
        start: tuple[int, int] = (0, 0),
    ) -> None:
        self._compute, self._known, self._reading = compute, {}, None
        self.scores = dict(scores)
        self._scope = f"mk-{uuid4().hex}"
        self._make_controls(text)
        self.read()
        if self._reading:
            self.layer.value, self.head.value = start
        self.text.observe(lambda _: self.read(), "value")
        self.run.on_click(lambda _: self.read())
        for control in (self.layer, self.head):
            control.observe(lambda _: self._draw(), "value")
        self.token.observe(lambda _: self._tell(), "value")
        self._draw()

    def _make_controls(self, text: str) -> None:
        style, wide = {"description_width": "5.5em"}, widgets.Layout(width="min(100%, 36em)")
        self.text = widgets.Text(
            text,
            description="Text",
            continuous_update=False,
            style=style,
            layout=wide,
            tooltip="Type a text that repeats itself and press Enter",
        )
        self.run = widgets.Button(description="Read", tooltip="Read this text with every head")
        self.layer, self.head = (
            widgets.IntSlider(
                0, 0, 0, description=name, style=style, layout=wide, tooltip=f"{name}; arrow keys move it"
            )
            for name in ("Layer", "Head")
        )
        self.token = widgets.Dropdown(options=[], description="From", style=style, tooltip="The token that looks")
        self.message = widgets.HTML(layout=widgets.Layout(height="6em", overflow="auto"), tabbable=True)
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        self._mark = widgets.HTML(layout=widgets.Layout(display="none"))
        top = widgets.HBox([self.text, self.run], layout=widgets.Layout(flex_flow="row wrap"))
        self.box = widgets.VBox([top, self.layer, self.head, self.token, self.message, self.table, self._mark])
        self.box.add_class("mk-heads").add_class(self._scope)

    def read(self) -> None:
        """Read the text in the text box, or say in the message why that cannot be done."""
        text = self.text.value
        try:
            if text not in self._known:
                self._known[text] = self._compute(text)
        except Exception as error:  # a traceback would vanish unseen in the page's log
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self._say(f'<span class="mk-error">{escape(f"{name}{error}")}</span>')
            return
        self._reading = None  # moves of the controls are ignored while their options change
        reading = self._known[text]
        layers, heads, length, _ = reading.pattern.shape
        self.layer.max, self.head.max = layers - 1, heads - 1
        self.token.options = [(f"{i}: {visible(label)}", i) for i, label in enumerate(reading.labels)]
        self.token.value = length - 1
        self.table.layout.height = f"{18 * length + 40}px"
        self._reading = reading
        self._draw()

    def _draw(self) -> None:
        if self._reading:
            self.table.value = CSS + _table(self._reading, self.layer.value, self.head.value)
            self._tell()

    def _tell(self) -> None:
        """Say where the chosen token looks most, and outline its row."""
        if not self._reading:
            return
        reading, layer, head, query = self._reading, self.layer.value, self.head.value, self.token.value
        known = ", ".join(f"{name} {float(table[layer, head]):.2f}" for name, table in self.scores.items())
        row = reading.pattern[layer, head, query, : query + 1]
        best = row.topk(min(3, len(row)))
        items = "".join(
            f"<li><b>{int(key)}: {escape(visible(reading.labels[key]))}</b> {percent(share)}</li>"
            for share, key in zip(best.values, best.indices, strict=True)
        )
        looks = f"{query}: {visible(reading.labels[query])} looks at"
        self._say(f"L{layer}H{head}{f' ({known})' if known else ''}. {escape(looks)}<ol>{items}</ol>")
        place = f".{self._scope} tbody tr:nth-child({query + 1})"
        self._mark.value = f"{CSS}<style>{place}{{outline:2px solid var(--jp-ui-font-color1,black)}}</style>"

    def _say(self, html: str) -> None:
        self.message.value = f'<div role="status" aria-live="polite">{html}</div>'

    def _ipython_display_(self) -> None:
        if self._reading is None:
            show_live(self.box, "Head explorer", Twin("<p>No text was read.</p>", "No text was read."))
            return
        layer, head = self.layer.value, self.head.value
        sentence, _ = caption_attention(self._reading.pattern[layer, head].numpy(), self._reading.labels)
        twin = head_table(self._reading, layer, head)
        show_live(self.box, "Head explorer", Twin(twin.html, f"L{layer}H{head}. {sentence}"))


def _table(reading: HeadReading, layer: int, head: int) -> str:
    names = [visible(label) for label in reading.labels]
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = ""
    for query, (name, row) in enumerate(zip(names, reading.pattern[layer, head].tolist(), strict=True)):
        cells = "".join(map(_cell, row[: query + 1])) + "<td></td>" * (len(names) - query - 1)
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    columns = f'<col style="width:7em"><col span="{len(names)}" style="width:4.6em">'
    return (
        f'<table style="width:{7 + 4.6 * len(names):.1f}em"><colgroup>{columns}</colgroup><thead><tr>'
        f'<th scope="col">looks ↓ at →</th>{top}</tr></thead><tbody>{body}</tbody></table>'
    )


def _cell(share: float) -> str:
    said = percent(share) if share >= 0.095 else ""
    return f'<td style="background:rgba({TINT},{0.75 * share:.2f})" title="{percent(share)}">{said}</td>'
