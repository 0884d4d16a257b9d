"""Several heads at once: the picture, the tables that open, and what they weigh in a saved notebook."""

import re

import matplotlib.pyplot as plt
import pytest
import torch

from mechkit.show.attention import LONGEST, attention_panels, attention_table, show_attention
from mechkit.show.captions import percent

TOKENS = ["<|end|>", " a", "<b>", " a"]


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    assert not plt.get_fignums()
    plt.close("all")


def causal(heads=2, length=4, sharpness=1.0):
    scores = sharpness * torch.randn(heads, length, length, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def named(heads):
    return [f"L0H{head}" for head in range(heads)]


def test_every_head_has_a_panel_a_sentence_and_a_table_to_open():
    view = show_attention(causal(), TOKENS, ["L5H1", "<i>"])
    assert view.html.count("<img") == view.html.count(' alt="L5H1: Attention of 4 tokens;') == 1
    assert view.html.count("<details>") == view.html.count("<table") == 2
    assert view.text.count("Attention of 4 tokens") == 2
    assert "<b>" not in view.html
    assert "<i>" not in view.html
    key = int(causal()[1, -1].argmax())
    share = percent(causal()[1, -1, key])
    assert re.search(rf"<summary>&lt;i&gt;: at the end ␣a looks most at \S+, {share}</summary>", view.html)


def test_the_keys_of_a_short_text_are_named_under_the_last_maps_of_a_column():
    for length, shown in ((8, 8), (9, 0)):
        first = attention_panels(causal(2, length), [f"t{place}" for place in range(length)], named(2))
        for ax in first.figure.axes[:2]:
            assert [label.get_rotation() for label in ax.get_xticklabels()] == [90] * shown
        plt.close(first.figure)


def test_a_view_runs_no_script_and_asks_no_network():
    html = show_attention(causal(), TOKENS, named(2)).html
    assert not re.search(r"<script|<style|http|url\(| on\w+=", html)


def test_a_table_says_large_shares_hints_at_small_ones_and_leaves_out_the_rest():
    pattern = torch.tensor([[1.0, 0, 0], [0.95, 0.05, 0], [0.2, 0.799, 0.001]])
    html = attention_table(pattern, ["a", "b", "c"])
    assert re.findall(r">(\d\S*%)</td>", html) == ["100%", "95%", "20%", "80%"]
    assert re.findall(r'title="(.*?)"', html) == ["5.0%"]
    assert html.count("<td></td>") == 4
    assert html.count('<th scope="row">') == html.count('<th scope="col">') - 1 == 3


def test_ten_views_keep_a_notebook_small():
    tokens = [f" token{place}" for place in range(24)]
    html = show_attention(causal(2, 24, sharpness=0.1), tokens, named(2)).html  # all cells are filled
    assert 10 * 9 / 2 * len(html) < 3_000_000  # of nine heads each


def test_too_many_tokens_and_missing_names_are_said():
    with pytest.raises(ValueError, match=r"1 to 12 named heads over 1 to 32 tokens; came \[2, 4, 4\] for 3"):
        attention_panels(causal(), TOKENS, named(3))
    long = [" a"] * (LONGEST + 1)
    with pytest.raises(ValueError, match="choose fewer, or shorten the text"):
        show_attention(causal(1, len(long)), long, named(1))
