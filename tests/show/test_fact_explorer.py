"""The explorer of chapter 09: an edit is made when asked for, and what cannot be done is said."""

import html
import re

import pytest
import torch

from mechkit.methods.editing import Request
from mechkit.show import style
from mechkit.show.explorers import FactExplorer, FactReading, fact_reading, fact_table

VOCABULARY = [" Paris", " <b>", "\n", " London"]
QUESTIONS = ["The tower is in", "The tower stands in", "The bridge is in", "The tower is <made> of"]
REQUEST = Request("The tower is in", "tower", " London")


def names(ids):
    return [VOCABULARY[index] for index in ids.tolist()]


def reading(questions=QUESTIONS, moved=3):
    before = torch.tensor([[3.0, 1.0, 0.0, -1.0]]).repeat(4, 1)
    after = before.clone()
    after[:2, moved] = 9.0
    return fact_reading(questions, before, after, name=names)


class Compute:
    """Remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt, subject, target, questions):
        self.asked.append((prompt, subject, target, list(questions)))
        if subject not in prompt:
            raise ValueError("no <subject> there")
        if target == " broken":
            raise RuntimeError("out of memory")
        return reading(questions, moved=1)


def plain(shown):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", shown, flags=re.DOTALL)


def test_a_reading_holds_the_likeliest_tokens_before_and_after():
    found = reading()
    assert isinstance(found, FactReading)
    assert [token for token, _ in found.before[0]] == [" Paris", " <b>", "\n"]
    assert found.after[0][0][0] == " London"
    assert found.after[2] == found.before[2]
    assert sum(share for _, share in found.before[0]) < 1


def test_the_table_names_every_question_and_marks_what_moved():
    twin = fact_table(reading())
    assert twin.html.count("<tr>") == 5
    assert twin.html.count('class="mk-moved"') == 2
    assert "&lt;made&gt;" in twin.html
    assert "<b>" not in twin.html
    assert "http" not in twin.html
    assert len(twin.text.splitlines()) == 5


def test_a_token_and_its_share_stand_on_one_line():
    cells = re.findall(r"<td.*?>(.*?)</td>", fact_table(reading()).html)
    assert len(cells) == 8
    assert all(re.fullmatch(r"[^ ]+\N{NO-BREAK SPACE}[\d.]+%", each) for cell in cells for each in cell.split(", "))


def test_nothing_is_computed_until_the_button_is_pressed():
    compute = Compute()
    explorer = FactExplorer(compute, REQUEST, reading())
    assert compute.asked == []
    assert "London" in explorer.table.value
    explorer.questions[1].value = "The dome is in"
    assert compute.asked == []
    explorer.run.click()
    assert compute.asked == [("The tower is in", "tower", " London", [*QUESTIONS[:2], "The dome is in", QUESTIONS[3]])]
    assert plain(explorer.message.value) == (
        "edited: ␣Paris became ␣&lt;b&gt;; paraphrase: ␣Paris became ␣&lt;b&gt;; neighbour: ␣Paris stayed; "
        "same subject: ␣Paris stayed. The weights are back as they were."
    )
    assert "The dome is in" in explorer.table.value


def test_the_new_answer_gets_its_space_and_loses_others():
    compute = Compute()
    explorer = FactExplorer(compute, REQUEST, reading())
    explorer.target.value = "Berlin "
    explorer.run.click()
    assert compute.asked[0][2] == " Berlin"


def test_progress_is_said_while_it_computes():
    seen = []

    def compute(*_):
        seen.append((plain(explorer.message.value), explorer.run.disabled, explorer.table._dom_classes))
        return reading()

    explorer = FactExplorer(compute, REQUEST, reading())
    explorer.run.click()
    said = "Rewriting and asking, for about half a minute; the table is still the last edit's …"
    assert seen == [(html.escape(said), True, ("mk-past",))]
    assert not explorer.run.disabled
    assert explorer.table._dom_classes == ()


def test_a_token_that_stays_on_top_may_have_moved():
    before = torch.tensor([[3.0, 1.0, 0.0, -1.0]]).repeat(4, 1)
    after = before.clone()
    after[2, 0] = 9.0
    explorer = FactExplorer(lambda *_: fact_reading(QUESTIONS, before, after, name=names), REQUEST, reading())
    explorer.run.click()
    assert "neighbour: ␣Paris stayed, 83% to 100%; same subject: ␣Paris stayed." in plain(explorer.message.value)


def test_what_cannot_be_done_is_said_and_the_table_stays():
    explorer = FactExplorer(Compute(), REQUEST, reading())
    table = explorer.table.value
    explorer.subject.value = "bridge"
    explorer.run.click()
    assert plain(explorer.message.value) == "no &lt;subject&gt; there"
    assert "mk-error" in explorer.message.value
    explorer.subject.value, explorer.target.value = "tower", "broken"
    explorer.run.click()
    assert plain(explorer.message.value) == "RuntimeError: out of memory"
    assert explorer.table.value == table
    assert not explorer.run.disabled
    assert 'role="status" aria-live="polite"' in explorer.message.value


def test_a_reading_needs_a_question_of_each_kind():
    with pytest.raises(ValueError, match=r"wanted one question of each kind, edited, paraphrase, .* came 3, 4 and 4"):
        reading(QUESTIONS[:3])


def test_it_shows_a_widget_and_a_twin_that_outlives_it(monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    FactExplorer(Compute(), REQUEST, reading())._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert live["text/plain"].endswith("run this cell in JupyterLab to use it.")
    assert "<details" in still.html
    assert "<table" in still.html
    assert len(still.text.splitlines()) == 2
