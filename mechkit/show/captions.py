"""What a picture says to a reader who cannot see it: one sentence, and its numbers as a table.

Also the one way in which every figure and explorer writes a number, a probability and a token.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import SupportsFloat

import numpy as np

Labels = Mapping[str, Sequence[object]]
Table = list[list[str]]
TABLE_CELLS, TABLE_LARGEST = 1200, 40  # a larger map lists its largest entries instead


@dataclass(frozen=True)
class Twin:
    """One thing twice: as HTML for a notebook and as plain text for everything else."""

    html: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def visible(token: object) -> str:
    """The token with outer spaces and control characters made visible: " Paris" becomes "␣Paris"."""
    text = str(token).replace("\n", "↵").replace("\t", "⇥")
    start, end = len(text) - len(text.lstrip(" ")), len(text.rstrip(" "))
    text = "␣" * start + text[start:end] + "␣" * (len(text) - max(start, end))
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn")
    shown = (c if unicodedata.category(c) not in hidden else f"\\u{ord(c):04x}" for c in text)
    return "".join(shown) or '""'


def number(value: SupportsFloat) -> str:
    """Two significant digits: 0.034, 1.2, 57, 24000."""
    value = float(f"{float(value):.1e}")
    if not math.isfinite(value) or value == 0:
        return "0" if value == 0 else str(value)
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"


def signed(value: SupportsFloat) -> str:
    """`number` with its sign written: +1.2, -0.5, 0."""
    return f"{'+' if float(value) > 0 else ''}{number(value)}"


def percent(probability: SupportsFloat) -> str:
    """A probability as a reader says it: 57%, 2.3%, 0.04%, <0.01%."""
    share = 100 * float(probability)
    if not math.isfinite(share):
        return str(share)
    if share < 0.01:
        return "<0.01%" if share > 0 else "0%"
    return f"{share:.0f}%" if share >= 9.95 else f"{share:.1f}%" if share >= 0.995 else f"{share:.2f}%"


def table_html(rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """An HTML table: the first row and the first column are headings."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows[1:]
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def scrolling(html: str, *, name: str, height: str = "") -> str:
    """HTML in a box that scrolls where it is too large; the keyboard reaches the box, and moves in it, as well.

    Args:
        name: What a screen reader calls it.
        height: The most that it may take, as CSS says it: "24em".
    """
    most = f";max-height:{height}" if height else ""
    # the last attribute keeps JupyterLab from taking the arrow keys for itself
    box = f'tabindex="0" role="region" aria-label="{escape(name)}" data-lm-suppress-shortcuts="true"'
    return f'<div {box} style="overflow:auto{most}">{html}</div>'


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """The same table in plain text, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines)


def caption_map(array: np.ndarray, labels: Labels, unit: str) -> tuple[str, Table]:
    """Where a map is largest and smallest; and the map, or where it is too large its largest entries."""
    (down, rows), (across, columns) = labels.items()
    start = f"Map of {unit} by {down} ({len(rows)}) and {across} ({len(columns)})"
    finite = np.isfinite(array)
    if finite.any():
        high, low = (f"{number(array.flat[i])} at {_place(array, labels, i)}" for i in _extremes(array))
        start += f"; largest {high}; smallest {low}"
    missing = f"; {(~finite).sum()} entries are not numbers" if not finite.all() else ""
    return f"{start}{missing}.", _map_table(array, labels)


def caption_attention(array: np.ndarray, tokens: Sequence[str]) -> tuple[str, Table]:
    """Where each of the last tokens looks most."""
    looks = [
        f"{visible(a)} looks most at {visible(tokens[row.argmax()])}" for a, row in zip(tokens, array, strict=True)
    ]
    table = _map_table(array, {"query": tokens, "key": tokens})
    return f"Attention of {len(tokens)} tokens; {'; '.join(looks[-6:])}.", table


def caption_lens(tokens: Sequence[Sequence[str]], array: np.ndarray, labels: Labels) -> tuple[str, Table]:
    """What the last row says after the prompt, and from which row on all agree."""
    (down, layers), (across, prompt) = labels.items()
    final, first = tokens[-1][-1], len(layers) - 1
    while first and tokens[first - 1][-1] == final:
        first -= 1
    alt = (
        f"Likeliest token by {down} ({len(layers)}) and {across} ({len(prompt)}). "
        f"After {visible(prompt[-1])} the last row says {visible(final)} with {percent(array[-1, -1])}; "
        f"all rows from {down} {visible(layers[first])} on agree."
    )
    rows = [
        [visible(layer), *(f"{visible(t)} {percent(p)}" for t, p in zip(words, line, strict=True))]
        for layer, words, line in zip(layers, tokens, array, strict=True)
    ]
    return alt, [[f"{down} \\ {across}", *map(visible, prompt)], *rows]


def caption_lines(
    lines: Mapping[str, np.ndarray], layers: Sequence[object], unit: str, along: str = "layer"
) -> tuple[str, Table]:
    """Where each line starts and ends, and where it is highest and lowest."""
    parts = []
    for name, line in lines.items():
        high, low = (f"{number(line[i])} at {along} {visible(layers[i])}" for i in _extremes(line))
        parts.append(f"{name}: {number(line[0])} to {number(line[-1])}, highest {high}, lowest {low}")
    rows = [[visible(layer), *(number(line[i]) for line in lines.values())] for i, layer in enumerate(layers)]
    return f"{unit} by {along}. {'; '.join(parts)}.", [[along, *lines], *rows]


def caption_list(what: str, names: Sequence[object], values: Sequence[str], *, spoken: int) -> tuple[str, Table]:
    """A list of named values; the sentence says the first few."""
    rows = [[visible(name), value] for name, value in zip(names, values, strict=True)]
    more = f" and {len(rows) - spoken} more" if len(rows) > spoken else ""
    return f"{what}: {', '.join(' '.join(row) for row in rows[:spoken])}{more}.", [["name", "value"], *rows]


def _extremes(array: np.ndarray) -> tuple[int, int]:
    """Places of the largest and the smallest finite entry; the first ones where none is finite."""
    finite = np.isfinite(array)
    return int(np.where(finite, array, -np.inf).argmax()), int(np.where(finite, array, np.inf).argmin())


def _place(array: np.ndarray, labels: Labels, flat: int) -> str:
    (down, rows), (across, columns) = labels.items()
    row, column = np.unravel_index(flat, array.shape)
    return f"{down} {visible(rows[row])}, {across} {visible(columns[column])}"


def _map_table(array: np.ndarray, labels: Labels) -> Table:
    (down, rows), (across, columns) = labels.items()
    if array.size <= TABLE_CELLS:
        lines = [[visible(name), *map(number, line)] for name, line in zip(rows, array, strict=True)]
        return [[f"{down} \\ {across}", *map(visible, columns)], *lines]
    order = np.argsort(-np.abs(np.nan_to_num(array)), axis=None, kind="stable")[:TABLE_LARGEST]
    places = (np.unravel_index(flat, array.shape) for flat in order)
    largest = [[visible(rows[r]), visible(columns[c]), number(array[r, c])] for r, c in places]
    return [[down, across, f"value (largest {TABLE_LARGEST})"], *largest]
