"""Pictures of words: where they lie in a plane, how they lean along one direction, and who answers how many.

As in plots: one function, one picture; numbers and labels in, the Axes out, each with its caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from torch import Tensor

from mechkit.show import style
from mechkit.show.captions import number, percent, signed
from mechkit.show.style import describe, drawable, new_axes, styled

HALO = [withStroke(linewidth=2.5, foreground="white")]  # keeps a label legible over an arrow


@styled
def word_map(
    points: Float[Tensor, "pair 2 2"],
    pairs: Sequence[tuple[str, str]],
    *,
    shares: Float[Tensor, " 2"],
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Pairs of words in a plane, with an arrow from the first word of each pair to the second.

    Args:
        points: Two points a pair, two coordinates a point.
        shares: How much of the variance each axis keeps.
    """
    array = torch.as_tensor(points).detach().float().cpu().numpy()
    if array.shape != (len(pairs), 2, 2):
        raise ValueError(f"word_map wanted two points for each of {len(pairs)} pairs; got {array.shape}.")
    ax = ax or new_axes(8.2, 5.6)
    for side in (0, 1):
        ax.scatter(*array[:, side].T, color=style.PALETTE[side], marker=style.MARKERS[side], s=22, zorder=5)
    for ends in array:
        arrow = {"arrowstyle": "->", "color": "#999999", "lw": 0.9, "shrinkA": 3, "shrinkB": 3, "zorder": 1}
        ax.annotate("", ends[1], ends[0], arrowprops=arrow, zorder=1)
    span = np.ptp(array.reshape(-1, 2), axis=0) + 1e-9
    up = 1 if (array[:, 1] - array[:, 0])[:, 1].mean() >= 0 else -1
    for side, outwards in enumerate((-up, up)):  # labels stand beyond both ends of the arrows
        for words, place, lift in zip(
            pairs, array[:, side], _lifts(array[:, side] / span * (1, outwards)), strict=True
        ):
            look = {"ha": "center", "va": "center", "color": style.PALETTE[side], "size": 8.5, "path_effects": HALO}
            shift = {"xytext": (0, outwards * (9 + lift)), "textcoords": "offset points", "zorder": 4}
            ax.annotate(drawable(words[side]), place, **shift, **look)
    kept = [percent(share) for share in shares]
    ax.set(xlabel=f"first component ({kept[0]} of the variance)", ylabel=f"second component ({kept[1]})")
    ax.margins(0.08, 0.1)
    ax.set_title(title)
    shifts = array[:, 1] - array[:, 0]
    rows = [["pair", "from", "to"]]
    for words, ends in zip(pairs, array, strict=True):
        rows.append([" → ".join(words), *(f"({number(x)}, {number(y)})" for x, y in ends)])
    alt = (
        f"{len(pairs)} pairs of words in the plane that keeps {percent(sum(shares))} of their variance; "
        f"the mean arrow goes ({signed(shifts[:, 0].mean())}, {signed(shifts[:, 1].mean())}), and "
        f"{_agreeing(shifts)} of {len(pairs)} arrows lie within 45° of it."
    )
    return describe(ax, alt, rows)


@styled
def word_line(
    values: Float[Tensor, " word"],
    words: Sequence[str],
    *,
    xlabel: str,
    top: int = 12,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Words by their place along one direction: those furthest out on either side, red below and blue above zero.

    Args:
        top: How many of each side.
    """
    array = torch.as_tensor(values).detach().float().cpu().numpy()
    if array.shape != (len(words),):
        raise ValueError(f"word_line got numbers of shape {array.shape} and {len(words)} words: give each one word.")
    order = np.argsort(array, kind="stable")
    order = order if len(order) <= 2 * top else np.concatenate([order[:top], order[-top:]])
    ax = ax or new_axes(6.4, 0.9 + 0.2 * len(order))
    shown = array[order]
    colors = np.where(shown < 0, style.NEGATIVE, style.POSITIVE)
    bars = ax.barh(range(len(order)), shown, color=colors, height=0.7)
    ax.bar_label(bars, [signed(value) for value in shown], padding=3, size=8)
    ax.set_yticks(range(len(order)), [drawable(words[i], length=28) for i in order])
    ax.axvline(0, color="#666666", lw=0.8)
    ax.margins(x=0.14, y=0.01)
    ax.set_xlabel(xlabel)
    ax.set_title(title)
    ends = [f"{words[i]} {signed(array[i])}" for i in (*order[:3], *order[-3:])]
    alt = f"{len(words)} words by {xlabel}; lowest {', '.join(ends[:3])}; highest {', '.join(reversed(ends[3:]))}."
    return describe(ax, alt, [["word", xlabel], *([words[i], signed(array[i])] for i in np.argsort(array))])


@styled
def share_dots(
    values: Mapping[str, Sequence[float]],
    rows: Sequence[str],
    *,
    xlabel: str,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Shares from 0 to 1 as dots, a line of dots for each row, one colour and shape for each name.

    Args:
        values: Name → its share in each row.
    """
    wrong = {name: len(each) for name, each in values.items() if len(each) != len(rows)}
    if wrong or not values:
        raise ValueError(f"share_dots wanted {len(rows)} shares under each name, one a row; got {wrong or 'no names'}.")
    ax = ax or new_axes(7.6, 1.1 + 0.36 * len(rows))
    heights = np.arange(len(rows))
    ax.hlines(heights, 0, 1, color="#e3e3e3", lw=0.8, zorder=1)
    step = 0.5 / max(len(values), 1)
    for index, (name, shares) in enumerate(values.items()):
        look = style.line_look(index)
        shift = (index - (len(values) - 1) / 2) * step
        ax.scatter(shares, heights + shift, color=look["color"], marker=look["marker"], s=34, label=name, zorder=3)
    ax.set_yticks(heights, [drawable(row, length=22) for row in rows])
    ax.set(xlim=(-0.03, 1.03), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    ax.set_title(title)
    means = "; ".join(f"{name} {percent(np.mean(list(shares)))}" for name, shares in values.items())
    table = [["", *values]]
    table += [[row, *(percent(shares[i]) for shares in values.values())] for i, row in enumerate(rows)]
    return describe(ax, f"{xlabel}, in {len(rows)} rows; on average {means}.", table)


def _lifts(spots: np.ndarray) -> list[float]:
    """How much further out, in points, each label stands so that no two lie on one another."""
    labels, lifts = [], np.zeros(len(spots))
    for index in np.argsort(spots[:, 1], kind="stable"):
        x, y = spots[index]
        while any(abs(x - across) < 0.085 and abs(y - up) < 0.045 for across, up in labels):
            y += 0.005
        labels.append((x, y))
        lifts[index] = y - spots[index, 1]
    return (lifts * 270).tolist()


def _agreeing(shifts: np.ndarray) -> int:
    """How many arrows lie within 45° of their mean."""
    mean = shifts.mean(0)
    lengths = np.linalg.norm(shifts, axis=1) * np.linalg.norm(mean)
    return int((shifts @ mean > np.cos(np.pi / 4) * lengths).sum())
