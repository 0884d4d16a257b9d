"""Chapter 02: type three words and see the fourth, with and without the rule that forbids the three.

The explorer gets functions from a question to its answers, one for each set of vectors, so that it needs none itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mechkit.show.captions import Table, Twin, table_html, table_text
from mechkit.show.explorers import panel

CSS = """
.mk-explorer tr.mk-asked th,.mk-explorer tr.mk-asked td{font-style:italic;color:var(--jp-ui-font-color2,#555)}
"""
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
    columns = [[f"{word} {score:.2f}" for word, score in each.answers[:depth]] for each in readings.values()]
    return [["", *readings], *([str(i + 1), *(column[i] for column in columns)] for i in range(depth))]


class AnalogyExplorer:
    """Three words to type, a method and a rule to choose, over the table of the best answers.

    Args:
        compute: Name of the vectors → what answers a question with them. What it raises (an unknown word with its
            nearest spellings, the same word twice) is shown as a sentence, in place of any answers.
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
        names, tip = ("a", "is to b", "as c"), "The word {}: type it and press Enter"
        self.words = [
            panel.text(name, word, tip.format(name[-1]), width="14em") for word, name in zip(words, names, strict=True)
        ]
        for each in self.words:  # each label nearer to its own box than to the one before
            each.style.description_width, each.layout.margin = "3.5em", "2px 2em 2px 2px"
        self.method = panel.choice("Method", list(methods), "How the answers are scored")
        self.vectors = panel.choice("Vectors", list(self._compute), "Where the words are looked up")
        self.exclude = panel.switch(RULE, "The usual rule")
        rows = [self.words, [self.method], [self.vectors], [self.exclude]]
        self.panel = panel.Panel("Analogy explorer", rows, height="164px", css=CSS)
        self.box, self.message, self.table = self.panel.box, self.panel.message, self.panel.view
        self.answer()
        panel.watch(self.answer, *self.words, self.method, self.vectors, self.exclude)

    def answer(self) -> None:
        """Answer the question that stands there, or say in the message why that cannot be done."""
        try:
            reading = self._read(self.vectors.value, self.exclude.value)
        except Exception as error:
            self.table.value = ""  # the answers to another question would seem to be this one's
            return self.panel.trouble(error)
        self.table.value = _bars(reading)
        return self.panel.say(_sentence(reading, RULE if self.exclude.value else FREE))

    def _read(self, vectors: str, exclude: bool) -> AnalogyReading:
        a, b, c = (word.value for word in self.words)
        return self._compute[vectors](a, b, c, self.method.value, exclude)

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
        self.panel.show(Twin("".join(html), "\n".join(text)))


def _sentence(reading: AnalogyReading, rule: str) -> str:
    a, b, c = reading.asked
    word, score = reading.answers[0]
    own = ", a word of the question itself" if word in reading.asked else ""
    return f"{a} : {b} :: {c} : {word}{own} (score {score:.2f}; {rule})."


def _bars(reading: AnalogyReading) -> str:
    """One row an answer; a word of the question itself stands in italics."""
    largest = max(abs(score) for _, score in reading.answers) or 1.0
    body = ""
    for place, (word, score) in enumerate(reading.answers, 1):
        own = word in reading.asked
        shown = panel.bar(abs(score) / largest, panel.ABOVE if score >= 0 else panel.BELOW) + f"{score:.2f}"
        name = f"{escape(word)}{' (in the question)' if own else ''}"
        body += f'<tr{" class=mk-asked" if own else ""}><th scope="row">{place}. {name}</th><td>{shown}</td></tr>'
    head = '<th scope="col">answer</th><th scope="col">score</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
