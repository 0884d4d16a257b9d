"""Which token looks at which, in several heads of one text: the heads side by side, and each as a table to open.

The view is a figure and folded tables, without a script: it draws where no kernel runs, in a notebook that is not
trusted and on GitHub, takes some kilobytes, is read by a screen reader and opens with the keyboard. CircuitsVis
(PyPI, 1.43.3), which draws the same thing in a browser, was tried and set aside: each display first asks the network
whether it is there, its script of 1.3 MB would have to be stored in every notebook, nothing in it can be reached
without a mouse, its canvases have no description, and in a dark theme its labels are grey on black.
"""

from collections.abc import Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from mechkit.show import style
from mechkit.show.captions import Twin, caption_attention, percent, scrolling, visible
from mechkit.show.style import alt_text, describe, figure_html, name_ticks, styled

LONGEST, MOST = 32, 12  # tokens and heads that a page has room for
TINT = "#7e57c2"  # the violet of style.PROBABILITY, readable under black and under white letters
FAINT, WRITTEN = 0.005, 0.095  # shares: below the first a cell is empty, from the second on it says its number
PANELS, SIDE = 5, 1.7  # in a row; inches
NAME = 9  # characters of a column's name
NAMED, ROOM = 8, 0.8  # so few keys are named under each map too, which takes so many inches


def show_attention(pattern: Float[Tensor, "head query key"], tokens: Sequence[str], heads: Sequence[str]) -> Twin:
    """Several heads on one text: small maps side by side, and below them a table of each, to open.

    Args:
        pattern: Their attention; keys after the query are left empty.
        tokens: The text's tokens, the prefix included.
        heads: A name for each head: "L5H1".
    Raises: ValueError for more tokens or heads than a page has room for, or not one name for each.
    Chapter: 05.
    """
    figure = attention_panels(pattern, tokens, heads).figure
    picture, said = figure_html(figure, tables=False), alt_text(figure)
    plt.close(figure)
    tables = "".join(
        f"<details><summary>{escape(f'{head}: {_end(each, tokens)}')}</summary>"
        f"{scrolling(attention_table(each, tokens), name=head)}</details>"
        for head, each in zip(heads, pattern, strict=True)
    )
    return Twin(f'<div class="mechkit-attention">{picture}{tables}</div>', said)


@styled
def attention_panels(pattern: Float[Tensor, "head query key"], tokens: Sequence[str], heads: Sequence[str]) -> Axes:
    """The heads' maps on one scale, a panel each; the first of a row names the tokens.

    Where they are few, the last of a column names them as well.

    Returns: The first Axes.
    """
    count, length = len(heads), len(tokens)
    if pattern.shape != (count, length, length) or not 0 < count <= MOST or not 0 < length <= LONGEST:
        raise ValueError(
            f"wanted the attention of 1 to {MOST} named heads over 1 to {LONGEST} tokens; came {list(pattern.shape)} "
            f"for {count} heads and {length} tokens: choose fewer, or shorten the text"
        )
    across, down = min(PANELS, count), -(-count // PANELS)
    size = (min(9.5, 1.6 + SIDE * across), 0.6 + down * SIDE + ROOM * (length <= NAMED))
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharex=True, sharey=True)
    hidden = np.triu(np.ones((length, length), dtype=bool), 1)
    for ax, head, each in zip(axes.flat, heads, pattern.detach().numpy(), strict=False):
        image = ax.imshow(np.ma.masked_array(each, hidden), cmap=style.PROBABILITY, clim=(0, 1), aspect="equal")
        ax.set_title(head)
        describe(ax, *caption_attention(each, tokens))
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    name_ticks(axes[0, 0].set_yticks, tokens, most=10)
    axes[0, 0].set(xticks=[], ylabel="looking (query)", xlabel="looked at (key)")
    if length <= NAMED:
        name_ticks(axes[0, 0].set_xticks, tokens)
    for ax in axes.flat:
        ax.tick_params(length=0)
        ax.tick_params(axis="x", labelrotation=90)
    bar = figure.colorbar(image, ax=axes, label="attention", aspect=24, shrink=0.9)
    bar.outline.set(edgecolor="#bbbbbb", linewidth=0.6)
    return axes[0, 0]


def attention_table(pattern: Float[Tensor, "query key"], tokens: Sequence[str]) -> str:
    """One head's attention as an HTML table: a row for each token that looks, a column for each looked at.

    Its look is in its cells, which every notebook viewer keeps.
    """
    names = [escape(visible(token)) for token in tokens]
    top = "".join(f'<th scope="col">{escape(_short(token))}</th>' for token in tokens)
    body = ""
    for query, (name, row) in enumerate(zip(names, pattern.tolist(), strict=True)):
        cells = "".join(map(_cell, row[: query + 1])) + "<td></td>" * (len(names) - query - 1)
        body += f'<tr><th scope="row">{name}</th>{cells}</tr>'
    columns = f'<col style="width:8.5em"><col span="{len(names)}" style="width:4.6em">'
    look = f"table-layout:fixed;width:{8.5 + 4.6 * len(names):.1f}em;font-size:11px;text-align:center"
    return (
        f'<table style="{look}"><colgroup>{columns}</colgroup><thead><tr>'
        f'<th scope="col">looks ↓ at →</th>{top}</tr></thead><tbody>{body}</tbody></table>'
    )


def _short(token: str) -> str:
    name = visible(token)
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _end(pattern: Float[Tensor, "query key"], tokens: Sequence[str]) -> str:
    key = int(pattern[-1].argmax())
    return f"at the end {visible(tokens[-1])} looks most at {visible(tokens[key])}, {percent(pattern[-1, key])}"


def _cell(share: float) -> str:
    if share < FAINT:
        return "<td></td>"
    tint, said = f"{TINT}{round(191 * share):02x}", percent(share)
    words = f">{said}" if share >= WRITTEN else f' title="{said}">'
    return f'<td style="background:{tint}"{words}</td>'
