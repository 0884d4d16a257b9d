"""The look, the HTML of a figure, and what a real notebook shows."""

import base64
import io
import re
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from mechkit.show import style
from mechkit.show.captions import Twin


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def described(alt='A <b>bold</b> & "quoted" sentence', table=(("<x>", "y"), ("1", "2"))):
    ax = style.new_axes(4, 3)
    return style.describe(ax, alt, table)


@pytest.mark.slow
def test_importing_draws_and_changes_nothing():
    code = (
        "import matplotlib as mpl; before = dict(mpl.rcParams); import mechkit.show.explorers;"
        "print(dict(mpl.rcParams) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_the_context_gives_the_old_look_back():
    before = mpl.rcParams["axes.titlelocation"]
    with style.context():
        assert mpl.rcParams["axes.titlelocation"] == "left"
    assert mpl.rcParams["axes.titlelocation"] == before


def test_the_scales_are_blue_above_zero_and_white_where_nothing_is():
    red, _, blue, _ = style.SIGNED(1.0)
    assert blue > red
    red, _, blue, _ = style.SIGNED(0.0)
    assert red > blue
    assert style.PROBABILITY(0.0)[:3] == (1, 1, 1)


def test_the_first_lines_differ_in_colour_dash_and_marker():
    looks = [style.line_look(index) for index in range(4)]
    for part in ("color", "linestyle", "marker"):
        assert len({look[part] for look in looks}) == 4


def test_tokens_that_matplotlib_cannot_draw_are_made_drawable():
    assert style.drawable("$x$") == r"\$x\$"
    assert style.drawable("日本") == "□□"
    assert style.drawable("a" * 30, length=5) == "aaaa…"


def test_awkward_tokens_are_drawn_without_a_warning():
    ax = style.new_axes(3, 2)
    style.name_ticks(ax.set_xticks, ["$", "$x$", "日本", "\u200d", "_^{", "\x00"])
    assert style.figure_html(ax.figure)


def test_a_figure_is_one_element_with_alt_text_and_a_table():
    html = style.figure_html(described().figure)
    assert html.count("<img") == html.count("<figure") == html.count("<details>") == html.count("<table>") == 1
    assert 'alt="A &lt;b&gt;bold&lt;/b&gt; &amp; &quot;quoted&quot; sentence"' in html
    assert "&lt;x&gt;" in html
    assert "<script" not in html
    assert "http" not in html


def test_the_picture_is_sharp_small_and_the_same_each_time():
    first, second = (style.figure_html(described().figure) for _ in range(2))
    assert first == second
    data = base64.b64decode(re.search('base64,([^"]+)', first)[1])
    assert len(data) < 60_000
    assert Image.open(io.BytesIO(data)).width == 600
    assert 'width="400"' in first


def test_panels_say_their_titles_and_have_a_table_each():
    with style.context():
        figure, (left, right) = plt.subplots(1, 2)
    left.set_title("clean")
    style.describe(left, "One.", [["a"], ["1"]])
    style.describe(right, "Two.", [["b"], ["2"]])
    assert style.alt_text(figure) == "clean: One. Two."
    assert style.figure_html(figure).count("<table>") == 2


def test_a_figure_that_nobody_described_says_its_words():
    figure, ax = plt.subplots()
    ax.set(xlabel="layer", ylabel="loss")
    assert style.alt_text(figure) == "Figure without a description; layer; loss."
    assert "<details>" not in style.figure_html(figure)


def test_a_twin_is_its_text_where_there_is_no_notebook():
    assert repr(Twin("<b>x</b>", "x")) == "x"
    assert Twin("<b>x</b>", "x")._repr_mimebundle_() == {"text/html": "<b>x</b>", "text/plain": "x"}


SETUP = "import torch\nfrom mechkit.show import explorers, plots, style\nstyle.apply()\nstyle.apply()"
BARS = "plots.contribution_bars(torch.tensor([1., -2.]), ['<a>', 'b'])"


@pytest.fixture(scope="module")
def outputs():
    """What each of these cells shows in a real kernel."""
    steering = "explorers.Steering([-1., 0., 1.], ['a', 'b'], torch.rand(3, 2), torch.rand(3, 2))"
    cells = {
        "setup": SETUP,
        "axes last": BARS,
        "axes kept": f"ax = {BARS}",
        "figure last": f"{BARS}.figure",
        "own figure": "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.set_title('mine')\nfig",
        "two figures": f"{BARS}\nax = {BARS}",
        "after magic": f"%matplotlib inline\n{BARS}",
        "explorer": f"explorers.SteerExplorer({steering})",
    }
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells.values()])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return {name: cell.outputs for name, cell in zip(cells, notebook.cells, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["axes last", "axes kept", "figure last", "own figure", "after magic"])
def test_a_notebook_shows_a_figure_exactly_once(outputs, cell):
    [shown] = outputs[cell]
    assert set(shown["data"]) == {"text/html", "text/plain"}
    assert shown["data"]["text/html"].count("<img alt=") == 1
    assert " at 0x" not in shown["data"]["text/plain"]


@pytest.mark.slow
def test_a_notebook_shows_each_of_two_figures(outputs):
    assert [set(shown["data"]) for shown in outputs["two figures"]] == [{"text/html", "text/plain"}] * 2
    assert outputs["setup"] == []


@pytest.mark.slow
def test_the_plain_text_of_a_figure_is_its_sentence(outputs):
    [shown] = outputs["axes last"]
    assert shown["data"]["text/plain"] == ("2 parts of contribution, in all -1.0, largest first: b -2.0, <a> +1.0.")


@pytest.mark.slow
def test_an_explorer_leaves_a_twin_beside_its_widget(outputs):
    live, still = outputs["explorer"]
    assert "application/vnd.jupyter.widget-view+json" in live["data"]
    assert live["data"]["text/plain"] == "Steering explorer: run this cell in JupyterLab to use it."
    assert set(still["data"]) == {"text/html", "text/plain"}
    assert still["data"]["text/html"].startswith('<details class="mechkit-still">')
