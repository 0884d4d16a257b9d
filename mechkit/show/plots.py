"""One function, one picture: numbers and labels in, the Axes out.

Signed numbers are red below and blue above zero, on symmetric limits; probabilities are violet, on one scale
from 0 to 1. Rows read downwards: the first layer is on top, and at the bottom the last, which the model says
aloud. Every Axes carries its caption. Nothing is shown here: the notebook does that.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from mechkit.show import captions, style
from mechkit.show.captions import Labels, number, percent, signed
from mechkit.show.style import describe, drawable, name_lines, name_ticks, new_axes, styled


@styled
def signed_map(
    values: Float[Tensor, "row column"],
    labels: Labels,
    *,
    unit: str = "value",
    limit: float | int | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Signed numbers as a map: blue above zero, red below, white at zero.

    Args:
        labels: Both axes with a label for each row and column, rows first: `{"layer": [...], "head": [...]}`.
        unit: What the numbers are: "logit difference".
        limit: Largest magnitude on the scale; give every panel that is compared the same one.
    """
    array = _matrix("signed_map", values, labels)
    limit = limit or _largest(array)
    ax = _draw_map(array, labels, style.SIGNED, (-limit, limit), ax)
    _finish_map(ax, unit, title)
    return describe(ax, *captions.caption_map(array, labels, unit))


@styled
def probability_map(
    values: Float[Tensor, "row column"],
    labels: Labels,
    *,
    unit: str = "probability",
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Probabilities, or any share, as a map on the one scale from 0 to 1.

    Args:
        labels: Both axes with a label for each row and column, rows first, as for `signed_map`.
        unit: What the shares are, where they are no probabilities: "mean attention".
    """
    array = _matrix("probability_map", values, labels)
    ax = _draw_map(array, labels, style.PROBABILITY, (0, 1), ax)
    _finish_map(ax, unit, title)
    return describe(ax, *captions.caption_map(array, labels, unit))


@styled
def attention_map(
    pattern: Float[Tensor, "query key"], tokens: Sequence[str], *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """One head's attention: each row is a token that looks, each column one that is looked at.

    Keys after the query are grey where all are zero, as they are in a causal model.
    """
    labels = {"looking token (query)": tokens, "looked at (key)": tokens}
    array = _matrix("attention_map", pattern, labels)
    future = np.triu(np.ones_like(array, dtype=bool), 1)
    shown = np.ma.masked_array(array, future & (not array[future].any()))
    ax = ax or new_axes(min(2.4 + 0.42 * len(array), 8), min(1.5 + 0.36 * len(array), 7))
    _draw_map(shown, labels, style.PROBABILITY, (0, 1), ax)
    _finish_map(ax, "attention", title)
    return describe(ax, *captions.caption_attention(array, tokens))


@styled
def lens_map(
    tokens: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "layer pos"],
    *,
    labels: Labels,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """What each layer would say at each position: its likeliest token, coloured by that token's probability.

    Args:
        tokens: The likeliest token of each layer at each position.
        labels: `{"layer": [...], "token": [...]}`: the layers' names and the prompt's tokens.
    """
    array = _matrix("lens_map", probabilities, labels)
    rows, columns = array.shape
    if [len(row) for row in tokens] != [columns] * rows:
        raise ValueError(f"lens_map wanted {rows} rows of {columns} tokens, one for each probability.")
    ax = ax or new_axes(1.5 + 0.84 * columns, 1.1 + 0.205 * rows)
    _draw_map(array, labels, style.PROBABILITY, (0, 1), ax)
    size, length = (7.5, 11) if columns <= 9 else (6.5, max(4, 100 // columns))
    for row, column in np.ndindex(rows, columns):
        ink = "white" if array[row, column] > 0.6 else "black"
        word = drawable(tokens[row][column], length=length)
        ax.text(column, row, word, color=ink, size=size, ha="center", va="center")
    _finish_map(ax, "probability of the token shown", title)
    return describe(ax, *captions.caption_lens(tokens, array, labels))


@styled
def layer_lines(
    values: Mapping[str, Float[Tensor, " layer"] | Float[Tensor, "sample layer"]],
    layers: Sequence[object] | None = None,
    *,
    ylabel: str,
    along: str = "layer",
    log: bool = False,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Numbers over the layers, a line each, named where it ends.

    Samples [sample layer] become their median, in a band from the first to the third quartile; the label of the
    vertical axis then says so.

    Args:
        values: Name of the line → its numbers.
        layers: A name for each layer; 0, 1, 2 … when not given.
        along: What the places are, where they are not layers: "sparsity".
        log: Logarithmic scale; where there are zeros (ranks) it is linear up to 1.
    """
    samples = {name: np.atleast_2d(_array(line)) for name, line in values.items()}
    layers = _layer_names(samples, layers)
    lines = {name: np.median(each, axis=0) for name, each in samples.items()}
    ax = ax or new_axes(7.2, 3.6)
    if log:
        positive = all((each > 0).all() for each in samples.values())
        ax.set_yscale(**({"value": "log"} if positive else {"value": "symlog", "linthresh": 1}))
        ax.yaxis.set_major_formatter("{x:g}")
    for index, (name, each) in enumerate(samples.items()):
        look = style.line_look(index)
        every = (index % 3, 3) if len(layers) > 12 else 1
        ax.plot(lines[name], **look, markersize=4, lw=1.6, markevery=every)
        if len(each) > 1:
            band = np.quantile(each, [0.25, 0.75], axis=0, method="nearest")
            ax.fill_between(range(len(layers)), *band, color=look["color"], alpha=0.15, lw=0)
    sampled = any(len(each) > 1 for each in samples.values())
    ax.set(xlabel=along, ylabel=f"{ylabel}\nline: median, band: middle half" if sampled else ylabel)
    name_ticks(ax.set_xticks, layers, most=11)
    ax.grid(axis="y", color="#e3e3e3", lw=0.6)
    ax.set_title(title)
    name_lines(ax, lines, end=len(layers) - 1)
    return describe(ax, *captions.caption_lines(lines, layers, ylabel, along))


@styled
def contribution_bars(
    values: Float[Tensor, " part"],
    labels: Sequence[object],
    *,
    unit: str = "contribution",
    top: int = 15,
    total: bool = True,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """The parts of a sum, largest magnitude first: blue adds, red takes away.

    Parts beyond the first `top` share one bar, so that the bars still add up to the whole (`total`, if that is one).
    """
    array = _vector("contribution_bars", values, labels)
    order = np.argsort(-np.abs(array), kind="stable")
    names, lengths = [drawable(labels[i], length=26) for i in order[:top]], array[order[:top]]
    if len(order) > top:
        names.append(f"all {len(order) - top} others")
        lengths = np.append(lengths, array[order[top:]].sum())
    ax = ax or new_axes(6.4, 0.9 + 0.22 * len(names))
    colors = np.where(lengths < 0, style.NEGATIVE, style.POSITIVE)
    _draw_bars(ax, names, lengths, colors, [signed(x) for x in lengths])
    ax.axvline(0, color="#666666", lw=0.8)
    ax.margins(x=0.14)
    whole = f"{unit}, in all {signed(array.sum())}" if total else unit
    ax.set(xlabel=whole, title=title)
    what, parts = f"{len(array)} parts of {whole}, largest first", [labels[i] for i in order]
    return describe(ax, *captions.caption_list(what, parts, [signed(array[i]) for i in order], spoken=4))


@styled
def probability_bars(
    probabilities: Float[Tensor, " token"], tokens: Sequence[str], *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Probabilities of a few next tokens, in the order given, on the scale from 0 to 1."""
    array = _vector("probability_bars", probabilities, tokens)
    ax = ax or new_axes(6.4, 0.9 + 0.24 * len(array))
    shares = [percent(p) for p in array]
    _draw_bars(ax, [drawable(token) for token in tokens], array, style.PROBABILITY(0.75), shares)
    ax.set(xlim=(0, 1.09), xticks=[0, 0.25, 0.5, 0.75, 1], xlabel="probability of the next token")
    ax.set_title(title)
    return describe(ax, *captions.caption_list("Next-token probabilities", tokens, shares, spoken=5))


@styled
def vectors_2d(
    vectors: Float[Tensor, "vector 2"],
    labels: Sequence[object],
    *,
    dashed: Sequence[tuple[int, int]] = (),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Vectors of two numbers as arrows from the origin, on equal scales, so that angles are true.

    Args:
        dashed: Pairs of vectors whose tips a dashed line joins: `[(0, 2)]` drops the first onto its shadow.
    """
    array = _array(vectors)
    if array.shape != (len(labels), 2):
        raise ValueError(f"vectors_2d wanted {len(labels)} vectors [vector 2], one a label; got {array.shape}.")
    ax = ax or new_axes(4.6, 4.4)
    reach = 1.25 * _largest(array)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="first coordinate", ylabel="second coordinate")
    ax.set_aspect("equal")
    ax.axhline(0, color="#cccccc", lw=0.8)
    ax.axvline(0, color="#cccccc", lw=0.8)
    for pair in dashed:
        ax.plot(*array[list(pair)].T, color="#666666", lw=1.1, linestyle=(0, (4, 3)), zorder=1)
    for index, (tip, label) in enumerate(zip(array, labels, strict=True)):
        color, up = style.line_look(index)["color"], 1 if tip[1] >= 0 else -1
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.8, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", tip, (0, 0), arrowprops=arrow)
        place = {"ha": "center", "va": "bottom" if up > 0 else "top"}  # past the head, seen from the origin
        ax.annotate(drawable(label), tip, (0, 7 * up), textcoords="offset points", **place)
    ax.set_title(title)
    tips = [f"({number(x)}, {number(y)})" for x, y in array]
    return describe(ax, *captions.caption_list("Arrows from the origin", labels, tips, spoken=8))


def _array(values: Tensor) -> np.ndarray:
    return torch.as_tensor(values).detach().float().cpu().numpy()


def _vector(name: str, values: Tensor, labels: Sequence[object]) -> np.ndarray:
    array = _array(values)
    if array.shape != (len(labels),):
        raise ValueError(f"{name} got numbers of shape {array.shape} and {len(labels)} labels: give each one label.")
    return array


def _matrix(name: str, values: Tensor, labels: Labels) -> np.ndarray:
    array = _array(values)
    if array.shape != tuple(map(len, labels.values())) or array.ndim != 2 or not array.size:
        counts = " and ".join(f"{len(names)} {axis} labels" for axis, names in labels.items())
        raise ValueError(f"{name} wanted numbers [row column], each row and column named; got {array.shape}, {counts}.")
    return array


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) or 1.0


def _draw_map(array: np.ndarray, labels: Labels, colors: object, limits: tuple, ax: Axes | None) -> Axes:
    (down, row_names), (across, column_names) = labels.items()
    beyond = 0.055 * max(0, *(len(drawable(name, length=style.ROW_NAME)) - 14 for name in row_names))
    size = np.clip(2.4 + 0.4 * len(column_names), 3.8, 8) + beyond, np.clip(1.3 + 0.2 * len(array), 2.2, 7)
    ax = ax or new_axes(*map(float, size))
    ax.imshow(array, cmap=colors, clim=limits)
    name_ticks(ax.set_yticks, row_names, length=style.ROW_NAME)
    crowded = max(map(len, map(drawable, column_names))) * array.shape[1] > 9 * (ax.figure.get_figwidth() - beyond)
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    name_ticks(ax.set_xticks, column_names, **turned)
    ax.tick_params(length=0)
    ax.set(xlabel=across, ylabel=down)
    return ax


def _finish_map(ax: Axes, unit: str, title: str) -> None:
    bar = ax.figure.colorbar(ax.images[0], ax=ax, label=unit, pad=0.02, aspect=30)
    bar.outline.set(edgecolor="#bbbbbb", linewidth=0.6)
    bar.ax.set_ylim(bottom=bar.vmin if (ax.images[0].get_array() < 0).any() else 0)  # the part that is in use
    ax.set_title(title)


def _draw_bars(ax: Axes, names: list[str], lengths: np.ndarray, color: object, words: list[str]) -> None:
    bars = ax.barh(range(len(names)), lengths, color=color, height=0.72)
    ax.bar_label(bars, words, padding=3, size=8)
    ax.set_yticks(range(len(names)), names)
    ax.margins(y=0.01)
    ax.invert_yaxis()


def _layer_names(samples: Mapping[str, np.ndarray], layers: Sequence[object] | None) -> list[object]:
    counts = {name: each.shape[-1] for name, each in samples.items()}
    wanted = len(layers) if layers is not None else next(iter(counts.values()), 0)
    if set(counts.values()) != {wanted}:
        raise ValueError(f"layer_lines wanted one or more lines, each of {wanted} layers; got {counts or 'none'}.")
    return list(layers) if layers is not None else list(range(wanted))
