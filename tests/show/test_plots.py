"""Each picture: what is on its axes, what it says in words, and what it refuses."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import ConnectionPatch

from mechkit.show import plots, style

GENERATOR = torch.Generator().manual_seed(0)
GRID = {"layer": ["embed", "0", "1"], "token": ["<|endoftext|>", " <b>", " $x$", " is"]}
VALUES = torch.randn(3, 4, generator=GENERATOR)
SHARES = torch.rand(3, 4, generator=GENERATOR)
WORDS = [[f" w{row}{column}" for column in range(4)] for row in range(3)]

PICTURES = {
    "signed_map": lambda **kw: plots.signed_map(VALUES, GRID, unit="logits", **kw),
    "probability_map": lambda **kw: plots.probability_map(SHARES, GRID, **kw),
    "attention_map": lambda **kw: plots.attention_map(torch.eye(4), GRID["token"], **kw),
    "lens_map": lambda **kw: plots.lens_map(WORDS, SHARES, labels=GRID, **kw),
    "layer_lines": lambda **kw: plots.layer_lines({"a": SHARES[0], "b <i>": SHARES}, ylabel="nats", **kw),
    "contribution_bars": lambda **kw: plots.contribution_bars(VALUES[0], GRID["token"], **kw),
    "probability_bars": lambda **kw: plots.probability_bars(SHARES[0], GRID["token"], **kw),
    "vectors_2d": lambda **kw: plots.vectors_2d(VALUES[:, :2], GRID["layer"], **kw),
}


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_returns_its_axes_named_described_and_small(name):
    ax = PICTURES[name](title="Seen")
    assert isinstance(ax, plt.Axes)
    assert ax.get_title("left") == "Seen"
    assert ax.get_xlabel()
    html = style.figure_html(ax.figure)
    assert len(html) < 80_000
    assert "<table>" in html
    assert "<b>" not in html
    assert "http" not in html
    assert len(style.alt_text(ax.figure)) < 400


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_draws_on_the_axes_it_is_given(name):
    _, ax = plt.subplots()
    assert PICTURES[name](ax=ax) is ax
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_leaves_its_numbers_and_the_look_alone(name):
    before, look = (VALUES.clone(), SHARES.clone()), dict(plt.rcParams)
    PICTURES[name]()
    assert torch.equal(VALUES, before[0])
    assert torch.equal(SHARES, before[1])
    assert dict(plt.rcParams) == look


def test_every_public_picture_is_tested():
    own = (value for value in vars(plots).values() if getattr(value, "__module__", "") == plots.__name__)
    drawn = {value.__name__ for value in own if not value.__name__.startswith("_")}
    assert drawn == set(PICTURES)


def test_signed_limits_are_symmetric_and_can_be_shared():
    own = plots.signed_map(torch.tensor([[1.0, -4.0]]), {"layer": [0], "head": [0, 1]})
    assert own.images[0].get_clim() == (-4, 4)
    shared = [plots.signed_map(VALUES * scale, GRID, limit=2.0).images[0].get_clim() for scale in (1, 5)]
    assert shared == [(-2, 2), (-2, 2)]


def test_a_map_of_zeros_or_nothing_still_shows():
    ax = plots.signed_map(torch.zeros(3, 4), GRID)
    assert ax.images[0].get_clim() == (-1, 1)
    ax = plots.signed_map(torch.full((3, 4), float("nan")), GRID)
    assert style.alt_text(ax.figure).endswith("12 entries are not numbers.")
    assert style.figure_html(ax.figure)


@pytest.mark.parametrize("name", ["probability_map", "attention_map", "lens_map"])
def test_probabilities_share_one_scale(name):
    assert PICTURES[name]().images[0].get_clim() == (0, 1)


def test_attention_hides_the_future_only_where_it_is_empty():
    causal = plots.attention_map(torch.eye(4), GRID["token"]).images[0].get_array()
    assert causal.mask.sum() == 6
    both_ways = plots.attention_map(torch.full((4, 4), 0.25), GRID["token"]).images[0].get_array()
    assert not both_ways.mask.any()


def test_attention_says_where_tokens_look():
    alt = style.alt_text(plots.attention_map(torch.eye(4).roll(1, 0), list("abcd")).figure)
    assert "b looks most at a; c looks most at b" in alt


def test_the_lens_writes_every_layer_and_token():
    layers = ["embed", *map(str, range(30))]
    words = [[f"{layer}:{column}" for column in range(8)] for layer in layers]
    ax = plots.lens_map(words, torch.rand(31, 8), labels={"layer": layers, "token": list("abcdefgh")})
    assert [text.get_text() for text in ax.texts] == [word for row in words for word in row]
    assert [label.get_text() for label in ax.get_yticklabels()] == layers


def test_lines_are_named_apart_where_they_end_together():
    ends = {name: torch.tensor([value, 0.0]) for name, value in zip("abc", (1.0, 2.0, 3.0), strict=True)}
    ax = plots.layer_lines(ends, ylabel="rank", log=True)
    heights = sorted(text.xyann[1] for text in ax.texts)
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]
    assert all(above - below > 0.05 for below, above in pairwise(heights))
    assert ax.get_yscale() == "symlog"
    assert plots.layer_lines({"kl": torch.tensor([1.0, 9.0])}, ylabel="nats", log=True).get_yscale() == "log"


def test_samples_become_a_median_and_a_band():
    samples = torch.tensor([[0.0, 1.0], [2.0, 3.0], [10.0, float("inf")]])
    ax = plots.layer_lines({"kl": samples}, ["embed", "0"], ylabel="nats")
    assert ax.lines[0].get_ydata().tolist() == [2, 3]
    assert len(ax.collections) == 1
    assert ax.get_ylabel() == "nats\nline: median, band: middle half"
    assert plots.layer_lines({"kl": samples[0]}, ylabel="nats").get_ylabel() == "nats"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["embed", "0"]


def test_leaders_do_not_look_like_the_lines_that_they_lead_from():
    ax = plots.layer_lines({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([2.0, 1.0])}, ylabel="nats")
    leaders = [patch for patch in ax.get_children() if isinstance(patch, ConnectionPatch)]
    assert [patch.get_edgecolor() for patch in leaders] == [to_rgba(style.LEADER)] * 2
    ax.figure.canvas.draw()
    ends = [ax.transData.transform((1, line.get_ydata()[-1])) for line in ax.lines]
    starts = [ax.transAxes.transform(patch.xy1) for patch in leaders]
    assert all(abs(start - end).max() < 2 for start, end in zip(starts, ends, strict=True))  # pixels
    samples = [text.arrow_patch for text in ax.texts]
    assert [sample.get_edgecolor() for sample in samples] == [to_rgba(line.get_color()) for line in ax.lines]


@pytest.mark.parametrize("layers", [1, 2, 12, 13, 24, 30, 31, 48])
def test_the_first_and_the_last_layer_are_ticked(layers):
    ticks = plots.layer_lines({"a": torch.ones(layers)}, ylabel="nats").get_xticks().tolist()
    assert (ticks[0], ticks[-1]) == (0, layers - 1)
    assert ticks == sorted(set(ticks))
    steps = [after - before for before, after in pairwise(ticks)]
    assert all(step >= max(steps) / 2 for step in steps)
    assert len(ticks) <= 13


def test_bars_are_sorted_coloured_by_sign_and_add_up():
    values = torch.tensor([0.5, -3.0, 1.0, 0.25, 0.25])
    ax = plots.contribution_bars(values, list("abcde"), top=3)
    assert [bar.get_width() for bar in ax.patches] == [-3, 1, 0.5, 0.5]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a", "all 2 others"]
    assert ax.patches[0].get_facecolor() == plt.matplotlib.colors.to_rgba(style.NEGATIVE)
    assert ax.patches[1].get_facecolor() == plt.matplotlib.colors.to_rgba(style.POSITIVE)
    assert sum(bar.get_width() for bar in ax.patches) == values.sum()
    assert len(ax.mechkit_caption[1]) == 6


def test_vectors_keep_their_angles():
    ax = plots.vectors_2d(torch.eye(2), ["x", "y"])
    assert ax.get_aspect() == 1
    assert ax.get_xlim() == ax.get_ylim()


def test_a_dashed_line_drops_a_vector_onto_its_shadow():
    vectors = torch.tensor([[1.0, 2.0], [3.0, 0.0], [1.0, 0.0]])
    ax = plots.vectors_2d(vectors, ["x", "direction", "shadow"], dashed=[(0, 2)])
    drop = ax.lines[-1]
    assert drop.is_dashed()
    assert drop.get_xydata().tolist() == [[1, 2], [1, 0]]
    assert len(plots.vectors_2d(vectors, ["x", "direction", "shadow"]).lines) == len(ax.lines) - 1


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: plots.signed_map(torch.zeros(2, 4), GRID),
            r"signed_map wanted .*\(2, 4\), 3 layer labels and 4 token",
        ),
        (lambda: plots.signed_map(torch.zeros(3, 0), {"a": "123", "b": ""}), "each row and column named"),
        (lambda: plots.lens_map(WORDS[:2], SHARES, labels=GRID), "3 rows of 4 tokens"),
        (
            lambda: plots.layer_lines({"a": torch.ones(3)}, [1, 2], ylabel="y"),
            "each of 2 layers; got {'a': 3}",
        ),
        (lambda: plots.layer_lines({}, ylabel="y"), "one or more lines.*got none"),
        (
            lambda: plots.contribution_bars(torch.ones(3), "ab"),
            r"contribution_bars got .*\(3,\) and 2 labels",
        ),
        (lambda: plots.vectors_2d(torch.ones(3, 2), "ab"), "2 vectors"),
    ],
)
def test_what_does_not_fit_is_named(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


def test_lines_over_something_else_than_layers_say_so():
    ax = plots.layer_lines({"kept": torch.tensor([2.0, 5.0])}, ["0", "0.9"], ylabel="features", along="sparsity")
    assert ax.get_xlabel() == "sparsity"
    assert "features by sparsity. kept: 2.0 to 5.0, highest 5.0 at sparsity 0.9" in style.alt_text(ax.figure)
    plt.close("all")


def test_a_map_without_negative_numbers_shows_the_upper_half_of_its_scale():
    labels = {"input": range(2), "feature": range(2)}
    for lowest, bottom in ((0.0, 0.0), (-0.5, -2.0)):
        ax = plots.signed_map(torch.tensor([[lowest, 1.0], [0.5, 0.2]]), labels, limit=2.0)
        bar = ax.figure.axes[1]
        assert bar.get_ylim() == (bottom, 2.0)
        assert ax.images[0].get_clim() == (-2.0, 2.0)  # a colour means the same in every panel


def test_a_map_names_its_rows_by_whole_sentences():
    sentence = "She baked a cake with butter and sugar."
    ax = plots.signed_map(torch.ones(1, 2), {"sentence": [sentence], "neuron": ["L17 N690", "L19 N844"]})
    assert [label.get_text() for label in ax.get_yticklabels()] == [sentence]
    assert (
        ax.figure.get_figwidth() > plots.signed_map(torch.ones(1, 2), {"a": ["b"], "c": range(2)}).figure.get_figwidth()
    )
