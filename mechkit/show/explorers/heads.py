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

from mechkit.show.attention import LONGEST, attention_table
from mechkit.show.captions import Twin, caption_attention, number, percent, table_text, visible
from mechkit.show.explorers import panel

CSS = """
.mk-heads table{table-layout:fixed;border-collapse:separate!important;border-spacing:1px!important}
.mk-heads th,.mk-heads td{padding:0 3px!important;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;
  text-align:center!important;font:11px/16px var(--jp-code-font-family,monospace)!important}
.mk-heads tr th:first-child{position:sticky;left:0;text-align:right!important}
.mk-heads th{background:var(--jp-layout-color0,transparent)}
"""


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
    return Twin(f"<p>L{layer}H{head}. {escape(sentence)}</p>{_table(reading, layer, head)}", table_text(table))


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
        self._compute, self._known, self._reading, self._tallest = compute, {}, None, 0
        self.scores = dict(scores)
        self._scope = f"mk-{uuid4().hex}"
        self._make_controls(text)
        self.read()
        if self._reading:
            self.layer.value, self.head.value = start
        panel.watch(self.read, self.text)
        panel.watch(self._draw, self.layer, self.head)
        panel.watch(self._tell, self.token)
        self._draw()

    def _make_controls(self, text: str) -> None:
        self.text = panel.text("Text", text, "Type a text that repeats itself and press Enter")
        self.run = panel.button("Read", "Read this text with every head", self.read)
        self.layer = panel.slider("Layer", [("0", 0)], "The head's layer")
        self.head = panel.slider("Head", [("0", 0)], "The head's number in its layer")
        self.token = panel.slider("From", [("", 0)], "The token that looks")
        rows = [[self.text, self.run], [self.layer], [self.head], [self.token]]
        self._mark = widgets.HTML(layout=widgets.Layout(display="none"))
        self.panel = panel.Panel("Head explorer", rows, lines=3, css=CSS, below=[self._mark])
        self.box, self.message, self.table = self.panel.box, self.panel.message, self.panel.view
        self.box.add_class(self._scope)

    def read(self) -> None:
        """Read the text in the text box, or say in the message why that cannot be done."""
        text = self.text.value
        try:
            if text not in self._known:
                self.panel.say("Reading …")
                self._known[text] = self._compute(text)
        except Exception as error:
            return self.panel.trouble(error)
        self._reading = None  # moves of the controls are ignored while their options change
        reading = self._known[text]
        layers, heads, length, _ = reading.pattern.shape
        chosen = self.layer.value, self.head.value
        self.layer.options = [(str(i), i) for i in range(layers)]
        self.head.options = [(str(i), i) for i in range(heads)]
        self.layer.value, self.head.value = (
            min(at, most - 1) for at, most in zip(chosen, (layers, heads), strict=True)
        )
        self.token.options = [(f"{i}: {visible(label)}", i) for i, label in enumerate(reading.labels)]
        self.token.value = length - 1
        self._tallest = max(self._tallest, length)  # room once taken is kept
        self.table.layout.height = f"{18 * self._tallest + 40}px"
        self._reading = reading
        return self._draw()

    def _draw(self) -> None:
        if self._reading:
            self.table.value = _table(self._reading, self.layer.value, self.head.value)
            self._tell()

    def _tell(self) -> None:
        """Say where the chosen token looks most, and outline its row."""
        if not self._reading:
            return
        reading, layer, head, query = self._reading, self.layer.value, self.head.value, self.token.value
        known = ", ".join(f"{name} {number(table[layer, head])}" for name, table in self.scores.items())
        row = reading.pattern[layer, head, query, : query + 1]
        best = row.topk(min(3, len(row)))
        items = "".join(
            f"<li><b>{int(key)}: {escape(visible(reading.labels[key]))}</b> {percent(share)}</li>"
            for share, key in zip(best.values, best.indices, strict=True)
        )
        looks = f"{query}: {visible(reading.labels[query])} looks at"
        self.panel.say(f"L{layer}H{head}{f' ({known})' if known else ''}. {looks}", more=f"<ol>{items}</ol>")
        place = f".{self._scope} tbody tr:nth-child({query + 1})"
        self._mark.value = f"<style>{place}{{outline:2px solid var(--jp-ui-font-color1,black)}}</style>"

    def _ipython_display_(self) -> None:
        if self._reading is None:
            return self.panel.show(Twin("<p>No text was read.</p>", "No text was read."))
        layer, head = self.layer.value, self.head.value
        sentence, _ = caption_attention(self._reading.pattern[layer, head].numpy(), self._reading.labels)
        twin = head_table(self._reading, layer, head)
        return self.panel.show(Twin(twin.html, f"L{layer}H{head}. {sentence}"))


def _table(reading: HeadReading, layer: int, head: int) -> str:
    table = attention_table(reading.pattern[layer, head], reading.labels)
    return f'<div class="mk-heads">{table}</div>'
