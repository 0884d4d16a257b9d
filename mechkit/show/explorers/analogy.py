"""Chapter 02: type three words and see the fourth, with and without the rule that forbids the three.

The explorer gets functions from a question to its answers, one for each set of vectors, so that it needs none itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets

from mechkit.show.captions import Table, Twin, number, table_html, table_text
from mechkit.show.style import show_live

CSS = """<style>
.mk-analogy table{border-collapse:collapse;font:13px/20px var(--jp-ui-font-family,sans-serif);
  color:var(--jp-ui-font-color1,inherit)}
.mk-analogy [role=status]{line-height:1.45}
.mk-analogy th,.mk-analogy td{padding:1px 14px 1px 0;text-align:left!important;font-weight:normal;white-space:nowrap}
.mk-analogy thead th{font-weight:bold}
.mk-analogy tbody tr{background:none!important}
.mk-analogy tr.mk-asked th,.mk-analogy tr.mk-asked td{font-style:italic;color:var(--jp-ui-font-color2,#555)}
.mk-analogy .mk-bar{display:inline-block;width:12em;height:11px;margin-right:6px;vertical-align:-1px;
  background:var(--jp-layout-color2,#eee)}
.mk-analogy .mk-bar i{display:block;height:100%;background:#2f86c9}
.mk-analogy .mk-error{color:var(--jp-error-color0,#b2182b);font-weight:bold}
</style>"""
RULE = "the words of the question may not answer"
FREE = "every word may answer"


@dataclass(frozen=True)
class AnalogyReading:
    """The best answers to one question a : b :: c : ?.

    Args:
        asked: a, b and c as the vectors spell them.
        answers: Words with their scores, best first.
    """

    asked: tuple[str, str, str]
    answers: Sequence[tuple[str, float]]


# (a, b, c, method, exclude) → the best answers
Compute = Callable[[str, str, str, str, bool], AnalogyReading]


def analogy_table(readings: Mapping[str, AnalogyReading]) -> Twin:
    """Several readings of one question as a still table, a column each."""
    table = _rows(readings)
    return Twin(table_html(table), table_text(table))


def _rows(readings: Mapping[str, AnalogyReading]) -> Table:
    depth = min(len(reading.answers) for reading in readings.values())
    columns = [[f"{word} {number(score)}" for word, score in each.answers[:depth]] for each in readings.values()]
    return [["", *readings], *([str(i + 1), *(column[i] for column in columns)] for i in range(depth))]


class AnalogyExplorer:
    """Three words to type, a method and a rule to choose, over the table of the best answers.

    Args:
        compute: Name of the vectors → what answers a question with them. What it raises (an unknown word with its
            nearest spellings, the same word twice) is shown as a sentence, and the last table stays.
        words: The first a, b and c.
        methods: Names of the methods that `compute` takes.
    """

    def __init__(
        self,
        compute: Mapping[str, Compute],
        words: tuple[str, str, str] = ("man", "king", "woman"),
        *,
        methods: Sequence[str] = ("3CosAdd", "3CosMul", "nearest to c"),
    ) -> None:
        self._compute = dict(compute)
        self._make_controls(words, methods)
        self.answer()
        for control in (*self.words, self.method, self.vectors, self.exclude):
            control.observe(lambda _: self.answer(), "value")

    def _make_controls(self, words: tuple[str, str, str], methods: Sequence[str]) -> None:
        narrow, style = widgets.Layout(width="11em"), {"description_width": "2.2em"}
        labels = (("a", "is to"), ("b", "as"), ("c", "is to ?"))
        self.words = [
            widgets.Text(
                word,
                description=name,
                continuous_update=False,
                style=style,
                layout=narrow,
                tooltip=f"The word {name}: type it and press Enter",
            )
            for word, (name, _) in zip(words, labels, strict=True)
        ]
        # buttons, not radio buttons: JupyterLab takes the arrow keys for itself
        style = {"button_width": "auto"}
        self.method = widgets.ToggleButtons(options=list(methods), description="Method", style=style)
        self.vectors = widgets.ToggleButtons(options=list(self._compute), description="Vectors", style=style)
        self.exclude = widgets.Checkbox(True, description=RULE, indent=False, tooltip="The usual rule")
        self.message = widgets.HTML(layout=widgets.Layout(min_height="2.6em"))
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        typed = [each for word, (_, after) in zip(self.words, labels, strict=True) for each in (word, _label(after))]
        row = widgets.HBox(typed, layout=widgets.Layout(flex_flow="row wrap"))
        parts = [row, self.method, self.vectors, self.exclude, self.message, self.table]
        self.box = widgets.VBox(parts).add_class("mk-analogy")

    def answer(self) -> None:
        """Answer the question that stands there, or say in the message why that cannot be done."""
        try:
            reading = self._read(self.vectors.value, self.exclude.value)
        except Exception as error:  # a traceback would vanish unseen in the page's log
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self._say(f'<span class="mk-error">{escape(f"{name}{error}")}</span>')
            return
        self.table.value = CSS + _bars(reading)
        self._say(escape(_sentence(reading, FREE if not self.exclude.value else RULE)))

    def _read(self, vectors: str, exclude: bool) -> AnalogyReading:
        a, b, c = (word.value for word in self.words)
        return self._compute[vectors](a, b, c, self.method.value, exclude)

    def _say(self, html: str) -> None:
        self.message.value = f'<div role="status" aria-live="polite">{html}</div>'

    def _ipython_display_(self) -> None:
        html, text = [], []
        for name in self._compute:
            try:
                sides = {RULE: self._read(name, True), FREE: self._read(name, False)}
            except ValueError as error:  # these vectors may lack the words that are shown
                sides = {}
                text.append(f"{name}: {error}")
                html.append(f"<p>{escape(text[-1])}</p>")
            if sides:
                html.append(f"<p>{escape(f'{name}, {self.method.value}')}</p>{analogy_table(sides).html}")
                text += [f"{name}: {_sentence(reading, rule)}" for rule, reading in sides.items()]
        show_live(self.box, "Analogy explorer", Twin("".join(html), "\n".join(text)))


def _label(text: str) -> widgets.Label:
    return widgets.Label(text, layout=widgets.Layout(margin="0 1em 0 0.5em"))


def _sentence(reading: AnalogyReading, rule: str) -> str:
    a, b, c = reading.asked
    word, score = reading.answers[0]
    own = ", a word of the question itself" if word in reading.asked else ""
    return f"{a} : {b} :: {c} : {word}{own} (score {number(score)}; {rule})."


def _bars(reading: AnalogyReading) -> str:
    """One row an answer; a word of the question itself stands in italics."""
    largest = max(abs(score) for _, score in reading.answers) or 1.0
    body = ""
    for place, (word, score) in enumerate(reading.answers, 1):
        own = word in reading.asked
        width = max(0.0, 100 * score / largest)
        bar = f'<span class="mk-bar"><i style="width:{width:.1f}%"></i></span>{number(score)}'
        name = f"{escape(word)}{' (in the question)' if own else ''}"
        body += f'<tr{" class=mk-asked" if own else ""}><th scope="row">{place}. {name}</th><td>{bar}</td></tr>'
    head = '<th scope="col">answer</th><th scope="col">score</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
