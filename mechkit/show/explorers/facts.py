"""Chapter 09: write a fact, rewrite it, and ask around it.

The explorer gets a function that makes the edit and answers the questions, so that it needs no model itself. An
edit takes long, so it is made when the button is pressed; its progress bar stands beside the button, and the last
table stays, greyed, until there is another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from mechkit.methods.editing import Request
from mechkit.show.captions import Twin, percent, table_text, visible
from mechkit.show.explorers import panel

KINDS = ("edited", "paraphrase", "neighbour", "same subject")
CSS = """
.mk-facts th[scope=row]{font-weight:normal;max-width:26em}
.mk-facts th,.mk-facts td{padding:2px 10px 2px 0;text-align:left!important;vertical-align:top;
  white-space:normal!important}
.mk-facts small{opacity:.8}
.mk-facts .mk-moved{font-weight:bold!important}
.mk-past{opacity:.4}
"""

Answer = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class FactReading:
    """What a model says after some questions, before and after an edit.

    Args:
        questions: One of each of `KINDS`, in that order.
        before, after: The likeliest tokens and their probabilities, best first.
    """

    questions: Sequence[str]
    before: Sequence[Answer]
    after: Sequence[Answer]


def fact_reading(
    questions: Sequence[str],
    before: Float[Tensor, "question d_vocab"],
    after: Float[Tensor, "question d_vocab"],
    *,
    name: Callable[[Tensor], Sequence[str]],
    k: int = 3,
) -> FactReading:
    """The `k` likeliest tokens after each question, before and after an edit.

    Args:
        before, after: Logits after each question.
        name: Turns token ids [id] into strings: `lm.labels`.
    Raises: ValueError unless there is one question of each kind.
    """
    if not len(questions) == len(before) == len(after) == len(KINDS):
        raise ValueError(
            f"wanted one question of each kind, {', '.join(KINDS)}, and its logits before and after; came "
            f"{len(questions)}, {len(before)} and {len(after)}"
        )

    def likeliest(logits: Tensor) -> list[list[tuple[str, float]]]:
        best = logits.softmax(-1).topk(k, dim=-1)
        return [
            list(zip(name(ids), shares.tolist(), strict=True))
            for ids, shares in zip(best.indices, best.values, strict=True)
        ]

    return FactReading(list(questions), likeliest(before), likeliest(after))


def fact_table(reading: FactReading) -> Twin:
    """The questions as a still table, with the likeliest answers before and after."""
    rows = [["question", "kind", "before", "after"]]
    for kind, question, first, then in _rows(reading):
        rows.append([question, kind, _said(first), _said(then)])
    return Twin(f"<style>{CSS}</style>{_table(reading)}", table_text(rows))


def _rows(reading: FactReading) -> list[tuple[str, str, Answer, Answer]]:
    return list(zip(KINDS, reading.questions, reading.before, reading.after, strict=True))


def _said(answer: Answer) -> str:
    return ", ".join(f"{visible(token)}\N{NO-BREAK SPACE}{percent(share)}" for token, share in answer)


def _table(reading: FactReading) -> str:
    head = "".join(f'<th scope="col">{word}</th>' for word in ("question", "before", "after"))
    body = ""
    for kind, question, first, then in _rows(reading):
        moved = ' class="mk-moved"' if first[0][0] != then[0][0] else ""
        body += (
            f'<tr><th scope="row">{escape(question)} …<br><small>{kind}</small></th>'
            f"<td>{escape(_said(first))}</td><td{moved}>{escape(_said(then))}</td></tr>"
        )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="mk-facts">{table}</div>'


def _sentence(reading: FactReading) -> str:
    parts = [f"{kind}: {_fate(first[0], then[0])}" for kind, _, first, then in _rows(reading)]
    return f"{'; '.join(parts)}."


def _fate(first: tuple[str, float], then: tuple[str, float]) -> str:
    """What became of the likeliest token; one that stays on top may still have moved a good deal."""
    (old, before), (new, after) = ((visible(token), percent(share)) for token, share in (first, then))
    if old != new:
        return f"{old} became {new}"
    return f"{old} stayed" if before == after else f"{old} stayed, {before} to {after}"


Compute = Callable[[str, str, str, Sequence[str]], FactReading]


class FactExplorer:
    """A fact to write, three questions around it, and a button that makes the edit.

    Args:
        compute: From prompt, subject, target and questions to what is answered. What it raises (a subject that is not
            in the prompt, a target of two tokens, one that is the answer already) is shown as a sentence.
        request: The first fact.
        shown: What is known of it already.
    """

    def __init__(self, compute: Compute, request: Request, shown: FactReading) -> None:
        self._compute, self.reading = compute, shown
        self.prompt = panel.text("Prompt", request.prompt, "A sentence that leads up to the answer")
        self.subject = panel.text("Subject", request.subject, "What it is about, as it stands in the prompt")
        self.target = panel.text("New answer", request.target.strip(), "One word, one token for the model")
        tips = ("The same question in other words", "About another subject", "Something else about this subject")
        self.questions = [
            panel.text(kind.capitalize(), question, tip)
            for kind, question, tip in zip(KINDS[1:], shown.questions[1:], tips, strict=True)
        ]
        self.run = panel.button("Rewrite", "Make the edit, ask, and put the weights back", self.rewrite)
        self.steps = widgets.Output(layout=widgets.Layout(flex="1 1 auto"))
        rows = [[each] for each in (self.prompt, self.subject, self.target, *self.questions)]
        rows.append([self.run, self.steps])
        self.panel = panel.Panel("Fact explorer", rows, lines=3, height="230px", css=CSS)
        self.box, self.message, self.table = self.panel.box, self.panel.message, self.panel.view
        self._draw("This edit has been made already. Change a field, then press the button.")

    def rewrite(self) -> None:
        """Make the edit that stands in the fields, or say in the message why that cannot be done."""
        self.run.disabled = True
        self.table.add_class("mk-past")
        self.panel.say("Rewriting and asking, for about half a minute; the table is still the last edit's …")
        self.steps.clear_output()
        with self.steps:
            self._try()
        self.table.remove_class("mk-past")
        self.run.disabled = False

    def _try(self) -> None:
        target = f" {self.target.value.strip()}"  # answers open with their space
        asked = [self.prompt.value, *(field.value for field in self.questions)]
        try:
            self.reading = self._compute(self.prompt.value, self.subject.value, target, asked)
        except Exception as error:
            self.panel.trouble(error)
        else:
            self._draw(f"{_sentence(self.reading)} The weights are back as they were.")

    def _draw(self, sentence: str) -> None:
        self.table.value = _table(self.reading)
        self.panel.say(sentence)

    def _ipython_display_(self) -> None:
        twin = fact_table(self.reading)
        title = f"After the edit of “{self.prompt.value} …” to {visible(f' {self.target.value.strip()}')}"
        self.panel.show(Twin(f"<p>{escape(title)}</p>{twin.html}", f"{title}\n{_sentence(self.reading)}"))
