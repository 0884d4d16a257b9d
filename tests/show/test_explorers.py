"""Explorers: what moves when a control moves, and what stays when nothing can."""

import re

import matplotlib.pyplot as plt
import pytest
import torch

from mechkit.show import style
from mechkit.show.explorers import (
    AnalogyExplorer,
    AnalogyReading,
    Gallery,
    LensExplorer,
    LensReading,
    SteerExplorer,
    Steering,
    SuperpositionExplorer,
    analogy_table,
    dimensionality_strip,
    feature_panels,
    gallery_table,
    lens_reading,
    lens_table,
    steer_lines,
    steer_table,
)

VOCABULARY = [" Paris", " <script>", "\n", '"', " the", "&", "é", " 日本"]
LAYERS = ["embed", 0, 1]


def names(ids):
    return [VOCABULARY[index] for index in ids.tolist()]


def reading(prompt="a b", seed=0):
    labels = ["<|endoftext|>", *prompt.split()]
    logits = torch.randn(3, len(labels), len(VOCABULARY), generator=torch.Generator().manual_seed(seed))
    return lens_reading(logits, labels, LAYERS, name=names)


class Compute:
    """Two lenses; says how often it was asked."""

    def __init__(self):
        self.prompts = []

    def __call__(self, prompt):
        self.prompts.append(prompt)
        if not prompt.strip():
            raise ValueError("The prompt is <empty>: type a word.")
        if prompt == "broken":
            raise RuntimeError("out of memory")
        return {"plain": reading(prompt), "affine": reading(prompt, seed=1)}


def steering():
    pulls = torch.linspace(-2, 2, 5)[:, None] * torch.tensor([3.0, 0.0, -3.0])
    control = torch.full((5, 3), 1 / 3)
    return Steering([-2, -1.75, 0, 1, 2], [" Paris", "<b>", " $x$"], pulls.softmax(-1), control)


def polygon(corners, features):
    """The first few features in a regular polygon, the others not represented."""
    turns = 2 * torch.pi * torch.arange(float(corners)) / corners
    vectors = torch.zeros(features, 2)
    vectors[:corners] = torch.stack([turns.cos(), turns.sin()], -1)
    return vectors


def gallery():
    return Gallery([0.0, 0.95], {n: torch.stack([polygon(2, n), polygon(n, n)]) for n in (4, 5)})


def answer(a, b, c, method, exclude):
    """Knows four words; the best answer is c where it may be."""
    for word in (a, b, c):
        if word not in ("man", "king", "woman", "<b>"):
            raise ValueError(f"came {word!r}, which is not among them: did you mean king?")
    if method == "broken":
        raise RuntimeError("out of memory")
    best = [(c, 0.9), ("queen", 0.8), ("<i>", -0.1)]
    return AnalogyReading((a, b, c), best[1:] if exclude else best)


def unknown(*question):
    raise ValueError("no such word")


def plain(html):
    return re.sub(r"<style>.*?</style>|<[^>]+>", "", html, flags=re.DOTALL)


def test_a_reading_holds_the_likeliest_tokens_and_the_final_ones_rank():
    logits = torch.tensor([[[0.0, 1.0, 3.0]], [[5.0, 1.0, 0.0]]])
    result = lens_reading(logits, ["x"], ["0", "1"], name=names, k=2)
    assert isinstance(result, LensReading)
    assert result.tokens == [[["\n", " <script>"]], [[" Paris", " <script>"]]]
    assert result.top == [["\n"], [" Paris"]]
    assert torch.allclose(result.probabilities, logits.softmax(-1).topk(2).values)
    assert result.ranks.tolist() == [[2], [0]]


def test_a_reading_of_logits_that_carry_a_gradient_can_be_drawn():
    logits = torch.randn(3, 2, 8, requires_grad=True)
    assert lens_table(lens_reading(logits, ["a", "b"], LAYERS, name=names)).text


def test_the_lens_table_says_every_cell_twice_and_safely():
    twin = lens_table(reading())
    assert twin.html.count("<td") == 9
    assert twin.html.count("title=") == 9
    assert "<script" not in twin.html
    assert "http" not in twin.html
    assert " id=" not in twin.html
    assert len(twin.text.splitlines()) == 4
    assert "&lt;|endoftext|&gt;" in twin.html


def test_moving_layer_position_and_lens_changes_the_answer_without_computing():
    compute = Compute()
    explorer = LensExplorer(compute, "a b")
    seen = {explorer.message.value}
    table = explorer.table.value
    explorer.layer.value = 0
    assert explorer.message.value not in seen
    assert plain(explorer.message.value).startswith("Layer embed, after b;")
    assert explorer.table.value == table
    explorer.position.value = 0
    assert "after &lt;|endoftext|&gt;" in explorer.message.value
    explorer.lens.value = "affine"
    assert explorer.table.value != table
    assert compute.prompts == ["a b"]


def test_the_chosen_cell_is_outlined_in_this_explorer_only():
    one, two = LensExplorer(Compute(), "a b"), LensExplorer(Compute(), "a b")
    one.layer.value, one.position.value = 1, 2
    scope = re.search(r"\.(mk-[0-9a-f]{32}) tbody tr:nth-child\(2\) td:nth-child\(4\)", one._mark.value)[1]
    assert scope in one.box._dom_classes
    assert scope not in two._mark.value


def test_a_new_prompt_keeps_lens_and_layer_and_fits_the_positions():
    explorer = LensExplorer(Compute(), "a b c")
    explorer.lens.value, explorer.layer.value = "affine", 0
    explorer.prompt.value = "z"
    assert (explorer.lens.value, explorer.layer.value, explorer.position.value) == ("affine", 0, 1)
    assert explorer.position.options == (("0: <|endoftext|>", 0), ("1: z", 1))
    assert "after z" in explorer.message.value


def test_reading_again_computes_nothing():
    compute = Compute()
    explorer = LensExplorer(compute, "a b")
    explorer.run.click()
    explorer.prompt.value = "z"
    explorer.prompt.value = "a b"
    assert compute.prompts == ["a b", "z"]


def test_a_bad_prompt_gets_a_sentence_and_the_table_stays():
    explorer = LensExplorer(Compute(), "a b")
    table, height = explorer.table.value, explorer.table.layout.height
    explorer.prompt.value = " "
    assert plain(explorer.message.value) == "The prompt is &lt;empty&gt;: type a word."
    assert "mk-error" in explorer.message.value
    explorer.prompt.value = "broken"
    assert plain(explorer.message.value) == "RuntimeError: out of memory"
    assert (explorer.table.value, explorer.table.layout.height) == (table, height)
    explorer.layer.value = 0
    assert "mk-error" not in explorer.message.value


def test_an_explorer_that_starts_on_a_bad_prompt_recovers():
    explorer = LensExplorer(Compute(), "")
    assert "mk-error" in explorer.message.value
    explorer.layer.value = 0
    explorer.prompt.value = "a"
    assert explorer.layer.value == 2
    assert "Layer 1, after a" in explorer.message.value


def test_the_readouts_are_announced():
    singles = (LensExplorer(Compute(), "a"), SteerExplorer(steering()), SuperpositionExplorer(gallery()))
    for explorer in (AnalogyExplorer({"GloVe": answer}), *singles):
        assert 'role="status" aria-live="polite"' in explorer.message.value


def test_steering_redraws_both_sides_at_once():
    explorer = SteerExplorer(steering())
    assert explorer.strength.value == 2
    before = explorer.table.value
    assert plain(explorer.message.value).startswith("Strength 0. Likeliest of these tokens: your edit ␣Paris 33%")
    explorer.strength.value = 4
    assert explorer.table.value != before
    assert plain(explorer.message.value) == (
        "Strength +2. Likeliest of these tokens: your edit ␣Paris 100%; random direction ␣Paris 33%; "
        "unedited ␣Paris 33%."
    )
    assert re.findall("<caption>(.*?)</caption>", explorer.table.value) == ["your edit", "random direction"]
    assert explorer.table.value.count("<tr>") == 2 * 4
    assert plain(explorer.table.value).endswith("Line across a bar: unedited.")
    assert "<b>3" not in explorer.table.value
    assert "&lt;b&gt;" in explorer.table.value


def test_strengths_are_named_exactly():
    assert [label for label, _ in SteerExplorer(steering()).strength.options] == [
        "-2",
        "-1.75",
        "0",
        "+1",
        "+2",
    ]


def test_the_steering_twins_show_every_strength_on_one_scale():
    twin = steer_table(steering())
    assert twin.html.count("<tr>") == 12
    assert len(twin.text.splitlines()) == 15
    left = steer_lines(steering())
    assert [ax.get_ylim() for ax in left.figure.axes] == [(0, 1), (0, 1)]
    assert "your edit: Likeliest of these tokens by strength of the edit: ␣$x$ 100% at -2" in style.alt_text(
        left.figure
    )
    assert style.figure_html(left.figure).count("<table>") == 2
    plt.close("all")


def test_sparsity_and_number_of_features_redraw_vectors_and_overlaps():
    explorer = SuperpositionExplorer(gallery())
    assert explorer.table.value.count("<line") == 4
    assert "4 features, sparsity 0. 2 of 4 features represented" in explorer.message.value
    before = explorer.table.value
    explorer.sparsity.value = 1
    assert explorer.table.value != before
    explorer.features.value = 5
    assert plain(explorer.message.value) == (
        "5 features, sparsity 0.95. 5 of 5 features represented, nearest neighbours 72° apart on average, "
        "mean dimensionality 0.40."
    )
    assert explorer.table.value.count("<line") == 5
    assert explorer.table.value.count(">0.3</td>") == explorer.table.value.count(">-0.8</td>") == 10


def test_a_gallery_stands_still_as_a_table():
    twin = gallery_table(gallery())
    assert twin.text.splitlines()[1:] == [
        "features  sparsity 0  sparsity 0.95",
        "4         2 · 0.50    4 · 0.50",
        "5         2 · 0.50    5 · 0.40",
    ]
    assert twin.html.count("<tr>") == 3


def test_feature_panels_draw_what_is_long_and_name_it_once():
    merged = torch.tensor([[1.0, 0.0], [0.99, 0.01], [0.0, 1.0], [0.01, 0.0]])
    first = feature_panels(torch.stack([polygon(4, 4), merged]), ["a square", "merged"])
    square, with_merged = first.figure.axes[:2]
    assert [text.get_text() for text in square.texts if text.get_text()] == ["0", "1", "2", "3"]
    assert [text.get_text() for text in with_merged.texts if text.get_text()] == ["0, 1", "2"]
    assert "a square: 4 of 4 features represented" in style.alt_text(first.figure)
    with pytest.raises(ValueError, match="wanted one title a panel; got 2 panels and 1 titles"):
        feature_panels(torch.stack([merged, merged]), ["one"])
    plt.close("all")


def test_a_dimensionality_strip_has_a_dot_for_every_feature():
    ax = dimensionality_strip(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]]), [0.0, 0.8])
    assert [len(dots.get_offsets()) for dots in ax.collections] == [4, 4]
    said = style.alt_text(ax.figure)
    assert "sparsity 0: 2 none, 2 at 1; sparsity 0.8: 4 at 1/2." in said
    uneven = dimensionality_strip(torch.tensor([[0.6, 0.6, 1.0]]), [0.0], even=2 / 3)
    assert "sparsity 0: 1 at 1, 2 elsewhere." in style.alt_text(uneven.figure)
    assert "an even share, 0.67" in [text.get_text() for text in uneven.texts]
    with pytest.raises(ValueError, match="wanted a row a sparsity; got 1 rows, 2 names"):
        dimensionality_strip(torch.ones(1, 3), [0.0, 0.8])
    plt.close("all")


def test_an_analogy_follows_the_words_the_rule_and_the_method():
    explorer = AnalogyExplorer({"GloVe": answer}, methods=["3CosAdd", "broken"])
    assert plain(explorer.message.value) == (
        "man : king :: woman : queen (score 0.80; the words of the question may not answer)."
    )
    explorer.exclude.value = False
    assert "woman : woman, a word of the question itself (score 0.90; every word may answer)" in explorer.message.value
    assert "woman (in the question)" in explorer.table.value
    assert "<i>" not in explorer.table.value.replace("<i style", "")
    explorer.words[2].value = "<b>"
    assert "&lt;b&gt;" in explorer.message.value
    assert "<b>" not in explorer.table.value + explorer.message.value
    explorer.method.value = "broken"
    assert plain(explorer.message.value) == "RuntimeError: out of memory"
    assert explorer.table.value == ""


def test_an_unknown_word_gets_its_sentence_in_place_of_the_last_answers():
    explorer = AnalogyExplorer({"GloVe": answer, "other": unknown})
    table = explorer.table.value
    explorer.words[1].value = "kinng"
    assert plain(explorer.message.value) == "came &#x27;kinng&#x27;, which is not among them: did you mean king?"
    assert explorer.table.value == ""
    explorer.words[1].value = "king"
    assert "mk-error" not in explorer.message.value
    assert explorer.table.value == table
    explorer.vectors.value = "other"
    assert plain(explorer.message.value) == "no such word"


def test_the_analogy_twin_shows_the_answers_with_and_without_the_rule():
    twin = analogy_table(
        {"rule": answer("man", "king", "woman", "", True), "free": answer("man", "king", "woman", "", False)}
    )
    assert twin.text.splitlines()[0].split() == ["rule", "free"]
    assert "queen 0.80" in twin.text
    assert "woman 0.90" in twin.text
    assert len(twin.text.splitlines()) == 3
    assert "<i>" not in twin.html


def test_vectors_that_lack_a_word_say_so_in_the_twin(monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    AnalogyExplorer({"GloVe": answer, "other": unknown})._ipython_display_()
    assert shown[1].text.splitlines()[2] == "other: no such word"


@pytest.mark.parametrize(
    "explorer",
    [
        AnalogyExplorer({"GloVe": answer}),
        LensExplorer(Compute(), "a b"),
        SteerExplorer(steering()),
        SuperpositionExplorer(gallery()),
    ],
)
def test_an_explorer_shows_a_widget_and_a_twin_that_outlives_it(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr(style, "display", lambda thing, raw=False: shown.append(thing))
    explorer._ipython_display_()
    live, still = shown
    assert "application/vnd.jupyter.widget-view+json" in live
    assert live["text/plain"].endswith("run this cell in JupyterLab to use it.")
    assert "<details" in still.html
    assert "<table" in still.html
    assert "http" not in still.html
    assert 2 <= len(still.text.splitlines()) <= 4
