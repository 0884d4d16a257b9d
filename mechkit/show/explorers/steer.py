"""Chapter 00: move the strength of an edit and see the next-token probabilities follow, beside a control.

Everything is computed beforehand: moving the slider only redraws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from mechkit.show.captions import Table, Twin, percent, table_html, table_text, visible
from mechkit.show.style import describe, line_look, name_lines, show_live, styled

CSS = """<style>
.mk-steer table{border-collapse:collapse;width:clamp(26em,100%,48em);table-layout:fixed;
  font:13px/20px var(--jp-ui-font-family,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.mk-steer [role=status]{line-height:1.45}
.mk-steer th{padding:1px 8px 1px 0;font-weight:normal;text-align:right;overflow:hidden;text-overflow:ellipsis;
  white-space:nowrap;font-family:var(--jp-code-font-family,monospace)}
.mk-steer thead th{font-family:inherit;font-weight:bold;text-align:left}
.mk-steer th:first-child{width:8em}
.mk-steer td{padding:1px 8px 1px 0;white-space:nowrap}
.mk-steer .mk-bar{display:inline-block;position:relative;width:calc(100% - 4.5em);height:12px;
  margin-right:6px;vertical-align:-1px;background:var(--jp-layout-color2,#eee)}
.mk-steer .mk-bar i{position:absolute;left:0;height:100%}
.mk-steer .mk-bar b{position:absolute;top:-3px;width:2px;height:18px;
  background:var(--jp-ui-font-color1,black)}
</style>"""
EDIT, CONTROL = "your edit", "random direction"
COLORS = {EDIT: "#2f86c9", CONTROL: "#8c8c8c"}


@dataclass(frozen=True)
class Steering:
    """Next-token probabilities at several strengths of one edit and of its control.

    Args:
        strengths: In order, with 0 among them: -2 … 2.
        tokens: The few tokens that are watched.
        probabilities: Theirs under the edit.
        control: Theirs when a random direction of the same length is added instead.
    """

    strengths: Sequence[float | int]
    tokens: Sequence[str]
    probabilities: Float[Tensor, "strength token"]
    control: Float[Tensor, "strength token"]

    @property
    def names(self) -> list[str]:
        """The strengths as they are written: "-1.75", "0", "+2"."""
        return [f"{strength:+.3g}" if strength else "0" for strength in self.strengths]

    @property
    def sides(self) -> dict[str, Float[Tensor, "strength token"]]:
        """Both sets of probabilities by the name that is shown."""
        return {EDIT: self.probabilities, CONTROL: self.control}

    @property
    def unedited(self) -> int:
        """Index of the strength nearest to 0."""
        return min(range(len(self.strengths)), key=lambda i: abs(self.strengths[i]))


@styled
def steer_lines(steering: Steering) -> Axes:
    """The whole range at once: each token's probability over the strength, beside the control.

    Returns: The left Axes; the control is `figure.axes[1]`, on the same scale.
    """
    _, panels = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    for ax, (side, probabilities) in zip(panels, steering.sides.items(), strict=True):
        lines = {visible(t): line for t, line in zip(steering.tokens, probabilities.detach().T.numpy(), strict=True)}
        for index, line in enumerate(lines.values()):
            ax.plot(steering.strengths, line, **line_look(index), markersize=3.5, lw=1.5)
        ax.set(xlabel="strength of the edit", ylabel="probability", ylim=(0, 1))
        ax.label_outer()
        ax.grid(axis="y", color="#e3e3e3", lw=0.6)
        ax.set_title(side)
        name_lines(ax, lines, end=steering.strengths[-1])
        describe(ax, _sentence(steering, probabilities), _rows(steering, probabilities))
    return panels[0]


def steer_table(steering: Steering) -> Twin:
    """The same numbers as two still tables, a row for each strength."""
    tables = {side: _rows(steering, probabilities) for side, probabilities in steering.sides.items()}
    html = "".join(table_html(table, caption=side) for side, table in tables.items())
    return Twin(html, "\n\n".join(f"{side}\n{table_text(table)}" for side, table in tables.items()))


class SteerExplorer:
    """A slider for the strength of an edit, over the probabilities that follow, beside the control."""

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self.strength = widgets.SelectionSlider(
            options=[(name, i) for i, name in enumerate(steering.names)],
            value=steering.unedited,
            description="Strength",
            tooltip="How much of the direction is added",
            layout=widgets.Layout(width="min(100%, 36em)"),
        )
        self.message = widgets.HTML(layout=widgets.Layout(min_height="3em"))
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        self.box = widgets.VBox([self.strength, self.message, self.table]).add_class("mk-steer")
        self.strength.observe(lambda _: self._draw(), "value")
        self._draw()

    def _draw(self) -> None:
        at, steering = self.strength.value, self.steering
        likeliest = {side: _likeliest(steering.tokens, rows[at]) for side, rows in steering.sides.items()}
        likeliest["unedited"] = _likeliest(steering.tokens, steering.probabilities[steering.unedited])
        said = "; ".join(f"{side} {token}" for side, token in likeliest.items())
        self.message.value = (
            f'<div role="status" aria-live="polite">Strength {steering.names[at]}. Likeliest: {escape(said)}.</div>'
        )
        self.table.value = CSS + _bars(steering, at)

    def _ipython_display_(self) -> None:
        sentences = (f"{side}: {_sentence(self.steering, rows)}" for side, rows in self.steering.sides.items())
        twin = Twin(steer_table(self.steering).html, "\n".join(sentences))
        show_live(self.box, "Steering explorer", twin)


def _rows(steering: Steering, probabilities: Float[Tensor, "strength token"]) -> Table:
    rows = zip(steering.names, probabilities, strict=True)
    return [["strength", *map(visible, steering.tokens)], *([name, *map(percent, row)] for name, row in rows)]


def _sentence(steering: Steering, probabilities: Float[Tensor, "strength token"]) -> str:
    places = (0, steering.unedited, -1)
    said = (f"{_likeliest(steering.tokens, probabilities[at])} at {steering.names[at]}" for at in places)
    return f"Likeliest token by strength of the edit: {', '.join(said)}."


def _likeliest(tokens: Sequence[str], probabilities: Float[Tensor, " token"]) -> str:
    best = int(probabilities.argmax())
    return f"{visible(tokens[best])} {percent(probabilities[best])}"


def _bars(steering: Steering, at: int) -> str:
    """One row a token; a line across each bar marks the unedited probability."""
    head = "".join(f'<th scope="col">{side}</th>' for side in ("token", *steering.sides))
    full = max(float(rows.max()) for rows in steering.sides.values())
    body = ""
    for index, token in enumerate(steering.tokens):
        cells = (
            _bar(float(rows[at, index]), float(rows[steering.unedited, index]), full=full, color=COLORS[side])
            for side, rows in steering.sides.items()
        )
        body += f'<tr><th scope="row">{escape(visible(token))}</th>{"".join(cells)}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _bar(probability: float, unedited: float, *, full: float, color: str) -> str:
    track = f'<i style="width:{100 * probability / full:.1f}%;background:{color}"></i>'
    mark = f'<b style="left:{100 * unedited / full:.1f}%"></b>'
    return f'<td><span class="mk-bar">{track}{mark}</span>{percent(probability)}</td>'
