"""Pictures of words: what is drawn, what the caption says, and what cannot be drawn."""

import matplotlib.pyplot as plt
import pytest
import torch

from mechkit.show import style
from mechkit.show.words import share_dots, word_line, word_map

PAIRS = [("France", "Paris"), ("Italy", "Rome"), ("$x$", "<b>")]
POINTS = torch.tensor([[[0.0, 1.0], [0.1, -1.0]], [[2.0, 1.0], [2.0, -1.0]], [[-2.0, 0.0], [0.0, 0.1]]])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(ax):
    return [each.get_text() for each in ax.texts if each.get_text()]


def test_a_map_names_both_words_of_each_pair_and_counts_parallel_arrows():
    ax = word_map(POINTS, PAIRS, shares=torch.tensor([0.3, 0.1]), title="capitals")
    assert sorted(texts(ax)) == sorted(["France", "Paris", "Italy", "Rome", r"\$x\$", "<b>"])
    assert ax.get_xlabel() == "first component (30% of the variance)"
    alt = style.alt_text(ax.figure)
    assert alt.startswith("capitals: 3 pairs of words in the plane that keeps 40% of their variance")
    assert alt.endswith("and 2 of 3 arrows lie within 45° of it.")
    assert "France → Paris" in style.figure_html(ax.figure)
    assert "<b>" not in style.figure_html(ax.figure)


def test_labels_of_close_points_move_apart():
    points = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[0.01, 0.001], [1.0, 1.0]], [[1.0, 0.0], [0.5, 1.0]]])
    ax = word_map(points, PAIRS, shares=torch.ones(2) / 2)
    heights = {each.get_text(): each.xyann[1] for each in ax.texts if each.get_text() in ("France", "Italy", r"\$x\$")}
    assert heights[r"\$x\$"] == -9
    assert abs(heights["France"] - heights["Italy"]) > 10


def test_a_line_shows_the_furthest_of_both_sides_and_tables_them_all():
    words = [f"w{i}" for i in range(30)]
    ax = word_line(torch.linspace(-1, 1, 30), words, xlabel="cosine", top=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["w0", "w1", "w2", "w27", "w28", "w29"]
    assert "30 words by cosine; lowest w0 -1.0" in style.alt_text(ax.figure)
    assert "highest w29 +1.0" in style.alt_text(ax.figure)
    assert style.figure_html(ax.figure).count("<tr>") == 31
    assert len(word_line(torch.tensor([0.5, -0.5]), ["a", "b"], xlabel="cosine").patches) == 2


def test_dots_have_a_row_each_and_a_legend():
    ax = share_dots({"rule": [0.5, 1.0], "no rule": [0.25, 0.75]}, ["capital", "plural"], xlabel="share")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["capital", "plural"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["rule", "no rule"]
    assert style.alt_text(ax.figure) == "share, in 2 rows; on average rule 75%; no rule 50%."


def test_numbers_that_do_not_fit_their_labels_are_told():
    with pytest.raises(ValueError, match=r"word_map wanted two points for each of 2 pairs; got \(3, 2, 2\)"):
        word_map(POINTS, PAIRS[:2], shares=torch.ones(2))
    with pytest.raises(ValueError, match=r"word_line got numbers of shape .* and 2 words: give each one word"):
        word_line(torch.ones(3), ["a", "b"], xlabel="x")
    with pytest.raises(ValueError, match=r"share_dots wanted 2 shares under each name, one a row; got \{'a': 1\}"):
        share_dots({"a": [0.1]}, ["x", "y"], xlabel="share")
    with pytest.raises(ValueError, match="got no names"):
        share_dots({}, ["x"], xlabel="share")
