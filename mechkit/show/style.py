"""How every figure looks, and how a notebook shows it.

Each plot function leaves a caption on its Axes (see captions). In a notebook a figure appears once, as an
image with that sentence as its alt text and that table folded under it; as plain text it is the sentence.
The look holds while a figure is drawn, and in a whole notebook only after `apply`: importing changes nothing.
"""

import base64
import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import pairwise

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import display
from ipywidgets import Widget
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from PIL import Image

from mechkit.show.captions import Twin, scrolling, table_html, visible

# Okabe and Ito's palette without its yellow, which is too pale for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
POSITIVE, NEGATIVE = "#2166ac", "#b2182b"
LEADER, SAMPLE = "#9a9a9a", 0.5  # a colour; inches, where the panel is the figure
# few steps, so that 256 colours hold the map and its letters without loss
SIGNED = mpl.colormaps["RdBu"].resampled(51).with_extremes(bad="#d9d9d9")
PROBABILITY = LinearSegmentedColormap.from_list(
    "mechkit_probability", ["#ffffff", "#d9cdee", "#a98fd6", "#7e57c2", "#3f1d7a"], N=50
).with_extremes(bad="#e6e6e6")
FONT = "DejaVu Sans"  # comes with matplotlib: the same shapes on every system
RC = {
    "axes.edgecolor": "#666666",
    "axes.grid": False,
    "axes.labelsize": 9,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.family": FONT,
    "font.size": 9,
    "image.aspect": "auto",
    "image.interpolation": "nearest",
    "savefig.facecolor": "white",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
CSS_PIXELS_PER_INCH, SHARPNESS = 100, 1.5
ROW_NAME = 40  # characters of a row's name in a map: a short sentence


@contextmanager
def context() -> Iterator[None]:
    """The course's look for the figures made inside; what was set before comes back."""
    with mpl.rc_context(RC):
        yield


def styled(draw: Callable[..., Axes]) -> Callable[..., Axes]:
    """Decorate a plot function so that it draws in the course's look."""

    @functools.wraps(draw)
    def wrapper(*args: object, **kwargs: object) -> Axes:
        with context():
            return draw(*args, **kwargs)

    return wrapper


def line_look(index: int) -> dict[str, object]:
    """Colour, dash and marker of line `index`: each alone tells the first four lines apart."""
    choices = {"color": PALETTE, "linestyle": LINE_STYLES, "marker": MARKERS}
    return {name: values[index % len(values)] for name, values in choices.items()}


def new_axes(width: float | int, height: float | int) -> Axes:
    """The Axes of a new figure, in inches, no larger than a notebook's column."""
    return plt.subplots(figsize=(min(width, 9.5), min(height, 12)))[1]


def name_ticks(
    place: Callable[..., object], names: Sequence[object], *, most: int = 32, length: int = 14, **look: object
) -> None:
    """Name the ticks (`place` is `ax.set_xticks` or `ax.set_yticks`): about `most` of them, and always the last."""
    last, step = len(names) - 1, -(-len(names) // most)
    ticks = [*range(0, last - step // 2, step), last]
    place(ticks, [drawable(names[tick], length=length) for tick in ticks], **look)


def name_lines(ax: Axes, lines: Mapping[str, np.ndarray], *, end: float | int) -> None:
    """Write each line's name beside its last point, which is at x = `end`, pushed apart where ends meet.

    Before the name stands a sample of the line, and a thin grey leader joins it to the end: in the line's own look
    the line would seem to go on.
    """
    to_share = ax.transData + ax.transAxes.inverted()
    ends = [to_share.transform((end, line[-1])) for line in lines.values()]
    spots = np.nan_to_num(np.array(ends)[:, 1], nan=0.5, posinf=1, neginf=0)
    for below, above in pairwise(np.argsort(spots, kind="stable")):
        spots[above] = max(spots[above], spots[below] + 0.075)
    spots -= max(0.0, spots.max() - 1)
    for index, (name, point) in enumerate(zip(lines, ends, strict=True)):
        start = (1.03, spots[index])
        leader = {"color": LEADER, "lw": 0.7, "shrinkA": 4, "shrinkB": 1, "clip_on": False}
        ax.add_artist(ConnectionPatch(point, start, "axes fraction", **leader))
        look = line_look(index)
        sample = {"arrowstyle": "-", "color": look["color"], "linestyle": look["linestyle"], "lw": 1.6}
        place = {"xycoords": "axes fraction", "va": "center", "size": 8.5, "arrowprops": sample | {"relpos": (0, 0.5)}}
        ax.annotate(drawable(name, length=24), start, (start[0] + SAMPLE / ax.figure.get_figwidth(), start[1]), **place)


def drawable(token: object, *, length: int = 14) -> str:
    """`visible`, cut to `length`, for matplotlib: no formula, and a box for each character the font lacks."""
    text = visible(token)
    text = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(c if ord(c) in _characters() else "□" for c in text).replace("$", r"\$")


@functools.cache
def _characters() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def describe(ax: Axes, alt: str, table: Sequence[Sequence[str]]) -> Axes:
    """Leave on `ax` what it shows: one sentence, and a table whose first row is its header.

    Returns: The same Axes, so that a plot function can end with it.
    """
    ax.mechkit_caption = (alt, table)
    return ax


def _captioned(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if hasattr(ax, "mechkit_caption")]


def _title(ax: Axes) -> str:
    return ax.get_title("left") or ax.get_title("center")


def alt_text(figure: Figure) -> str:
    """The sentences of all panels; for a figure that nobody described, the words that stand on it."""
    titled = (filter(None, (_title(ax), ax.mechkit_caption[0])) for ax in _captioned(figure))
    if said := " ".join(": ".join(words) for words in titled):
        return said
    words = (text for ax in figure.axes for text in (_title(ax), ax.get_xlabel(), ax.get_ylabel()))
    return "; ".join(["Figure without a description", *filter(None, words)]) + "."


def figure_html(figure: Figure, *, tables: bool = True) -> str:
    """The figure as one HTML element: image, alt text, and its tables (unless something else says their numbers)
    folded away under it."""
    alt, width = escape(alt_text(figure)), round(figure.get_figwidth() * CSS_PIXELS_PER_INCH)
    listed = "".join(table_html(ax.mechkit_caption[1], caption=_title(ax)) for ax in _captioned(figure) if tables)
    box = scrolling(listed, name="The figure as a table", height="24em")
    folded = f"<details><summary>as a table</summary>{box}</details>"
    return (
        f'<figure class="mechkit-figure" style="margin:0"><img alt="{alt}" width="{width}" '
        'style="max-width:100%;height:auto;background:white" '
        f'src="data:image/png;base64,{_png(figure)}">{folded if listed else ""}</figure>'
    )


def _png(figure: Figure) -> str:
    """A sharp picture of at most 256 colours: a third of the bytes, and none that tell of time or machine."""
    drawn, small = io.BytesIO(), io.BytesIO()
    with context():
        figure.savefig(drawn, format="png", dpi=CSS_PIXELS_PER_INCH * SHARPNESS)
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def apply(shell: object = None) -> None:
    """Give a whole notebook the course's look, and its figures their alt text and table.

    A figure then appears exactly once: where it is displayed first, or at the end of the cell. An Axes as the
    last value of a cell prints nothing. Calling it again changes nothing.

    Args:
        shell: The IPython shell; by default the running one. Without any, only the look is set.
    """
    # Loading the inline backend clears all Figure formatters, so it has to come first.
    plt.switch_backend(mpl.get_backend())
    mpl.rcParams.update(RC)
    shell = shell or get_ipython()
    if shell is None:
        return
    formatters = shell.display_formatter.formatters
    for formatter in formatters.values():
        formatter.pop(Figure, None)
    formatters["text/html"].for_type(Figure, _show)
    formatters["text/plain"].for_type(Figure, lambda figure, printer, _: printer.text(alt_text(figure)))
    shell.display_formatter.ipython_display_formatter.for_type(Axes, lambda _: None)


def _show(figure: Figure) -> str:
    html = figure_html(figure)
    plt.close(figure)  # else the inline backend shows it once more at the end of the cell
    return html


def show_live(box: Widget, name: str, twin: Twin) -> None:
    """Display a widget and, folded under it, the twin that is left when its kernel is gone.

    They are two outputs because JupyterLab shows an error in place of a widget without a kernel, whatever
    else that output holds.
    """
    live = box._repr_mimebundle_() | {"text/plain": f"{name}: run this cell in JupyterLab to use it."}
    display(live, raw=True)
    hint = "standing still (no controls above? run the cell again)"
    box = scrolling(twin.html, name=f"{name}, standing still")
    still = f'<details class="mechkit-still"><summary>{escape(name)}, {hint}</summary>{box}</details>'
    display(Twin(still, twin.text))
