"""The head explorer: any text, any head, any token that looks, and a twin that stays."""

import re

import pytest
import torch

from mechkit.show import style
from mechkit.show.explorers import HeadExplorer, HeadReading, head_table

LABELS = ["<|end|>", " a", "<b>", " a"]


def reading(labels=LABELS, layers=2, heads=3):
    length = len(labels)
    scores = torch.randn(layers, heads, length, length, generator=torch.Generator().manual_seed(length))
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    return HeadReading(list(labels), scores.masked_fill(hidden, -torch.inf).softmax(-1))


def compute(text):
    if not text:
        raise ValueError("wanted at least one token of text; came an empty prompt: write something")
    return reading(["<|end|>", *text.split()])


def explorer(text="a b a", **settings):
    scores = {"induction": torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.4, 0.5]])}
    return HeadExplorer(compute, text, scores=scores, **settings)


def plain(html):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", html, flags=re.DOTALL)


def test_moving_the_head_redraws_its_pattern():
    shown = explorer(start=(1, 2))
    assert plain(shown.message.value).startswith("L1H2 (induction 0.50). 3: a looks at")
    before = shown.table.value
    shown.head.value = 0
    assert shown.table.value != before
    assert plain(shown.message.value).startswith("L1H0 (induction 0.30).")
    assert (len(shown.layer.options), len(shown.head.options)) == (2, 3)


def test_the_chosen_token_says_where_it_looks_and_never_ahead():
    shown = explorer()
    shown.token.value = 1
    row = compute("a b a").pattern[0, 0, 1, :2]
    assert plain(shown.message.value).startswith("L0H0 (induction 0). 1: a looks at")
    assert shown.message.value.count("<li>") == 2
    key = int(row.argmax())
    assert f"<b>{key}: {['&lt;|end|&gt;', 'a'][key]}</b> {100 * float(row.max()):.0f}%" in shown.message.value
    assert "tbody tr:nth-child(2)" in shown._mark.value


def test_another_text_is_read_once_and_keeps_the_head():
    asked = []

    def count(text):
        asked.append(text)
        return compute(text)

    shown = HeadExplorer(count, "a b", scores={}, start=(1, 1))
    shown.text.value = "a b a b"
    shown.text.value = "a b"
    assert asked == ["a b", "a b a b"]
    assert (shown.layer.value, shown.head.value) == (1, 1)
    assert len(shown.token.options) == 3
    assert plain(shown.message.value).startswith("L1H1. 2: b looks at")


def test_trouble_becomes_a_sentence_and_the_table_stays():
    shown = explorer()
    before = shown.table.value
    shown.text.value = ""
    assert "came an empty prompt: write something" in shown.message.value
    assert shown.table.value == before
    shown.text.value = "a " * 40
    assert "wanted at most 32 tokens, to fit a table; came 41: shorten the text" in shown.message.value
    shown.run.click()
    assert 'role="status" aria-live="polite"' in shown.message.value
    assert "No text was read" not in shown.message.value


def test_a_first_text_that_cannot_be_read_is_answered_too(monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    broken = explorer("")
    broken._ipython_display_()
    assert "empty prompt" in broken.message.value
    assert shown[1].text == "No text was read."
    broken.text.value = "a b"
    assert plain(broken.message.value).startswith("L0H0")


def test_the_still_table_has_a_row_for_each_token_and_no_markup_of_the_text():
    twin = head_table(reading(), 1, 0)
    assert twin.html.count("<tr>") == 5
    assert "<b>" not in twin.html
    assert "␣a" in twin.html
    assert "L1H0. Attention of 4 tokens;" in twin.html


def test_a_widget_and_its_twin_are_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    explorer(start=(1, 0))._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert still.text.startswith("L1H0. Attention of 4 tokens;")
    assert "http" not in still.html


@pytest.mark.parametrize(("labels", "words"), [(["a"], "wanted a label for each of 4 tokens; came 1 labels")])
def test_labels_and_patterns_belong_together(labels, words):
    with pytest.raises(ValueError, match=words):
        HeadReading(labels, reading().pattern)
