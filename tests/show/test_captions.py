"""Numbers, tokens, sentences and tables, as they are read."""

import numpy as np
import pytest

from mechkit.show import captions
from mechkit.show.captions import number, percent, scrolling, signed, table_html, table_text, visible


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        (" Paris", "␣Paris"),
        ("a b ", "a b␣"),
        ("  ", "␣␣"),
        ("\n\t", "↵⇥"),
        ("\u200b", "\\u200b"),
        ("", '""'),
        (7, "7"),
    ],
)
def test_a_token_is_visible_without_its_quotes(token, seen):
    assert visible(token) == seen


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1.234, "1.2"),
        (57.4, "57"),
        (24013.2, "24000"),
        (-0.0345, "-0.035"),
        (4e-5, "4.0e-05"),
    ],
)
def test_numbers_have_two_significant_digits(value, written):
    assert number(value) == written


def test_a_number_that_is_none_is_said():
    assert [number(float("nan")), number(float("inf"))] == ["nan", "inf"]
    assert [signed(1.5), signed(-2), signed(0)] == ["+1.5", "-2.0", "0"]


def test_percentages_are_as_exact_as_they_are_small():
    shares = [1, 0.573, 0.0231, 0.0004, 3e-6, 0, float("nan")]
    assert [percent(p) for p in shares] == ["100%", "57%", "2.3%", "0.04%", "<0.01%", "0%", "nan"]


def test_tables_escape_what_they_hold():
    html = table_html([["<a>", "b&"], ["c", '"d']], caption="<script>")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert '<th scope="col">&lt;a&gt;</th><th scope="col">b&amp;</th>' in html
    assert '<th scope="row">c</th><td>&quot;d</td>' in html


def test_a_text_table_is_aligned():
    assert table_text([["layer", "a"], ["0", "long"]]) == "layer  a\n0      long"


def test_a_map_says_where_it_is_largest_and_what_is_missing():
    array = np.array([[1.0, np.nan], [-3.0, 2.0]])
    alt, table = captions.caption_map(array, {"layer": [0, 1], "head": ["a", "b"]}, "logits")
    assert alt == (
        "Map of logits by layer (2) and head (2); largest 2.0 at layer 1, head b; "
        "smallest -3.0 at layer 1, head a; 1 entries are not numbers."
    )
    assert table == [["layer \\ head", "a", "b"], ["0", "1.0", "nan"], ["1", "-3.0", "2.0"]]


def test_a_large_map_lists_its_largest_entries():
    array = np.zeros((50, 50))
    array[7, 9] = -5
    _, table = captions.caption_map(array, {"layer": range(50), "token": range(50)}, "logits")
    assert len(table) == 1 + captions.TABLE_LARGEST
    assert table[1] == ["7", "9", "-5.0"]


def test_the_lens_says_from_where_on_all_layers_agree():
    tokens = [["x", " a"], ["y", " b"], ["z", " b"]]
    alt, table = captions.caption_lens(tokens, np.full((3, 2), 0.5), {"layer": "012", "token": ["The", " c"]})
    assert alt.endswith("After ␣c the last row says ␣b with 50%; all rows from layer 1 on agree.")
    assert table[1] == ["0", "x 50%", "␣a 50%"]


def test_the_keyboard_reaches_what_scrolls_and_moves_in_it():
    box = scrolling("<table></table>", name='a "table"', height="24em")
    assert 'tabindex="0" role="region" aria-label="a &quot;table&quot;"' in box
    assert "data-lm-suppress-shortcuts" in box
    assert 'style="overflow:auto;max-height:24em"><table></table></div>' in box
    assert "max-height" not in scrolling("", name="")
