"""Chapter 00: move the strength of an edit and see the next-token probabilities follow, beside a control.

Everything is computed beforehand: moving the slider only redraws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.pyplot as plt
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from mechkit.show.captions import Table, Twin, percent, table_html, table_text, visible
from mechkit.show.explorers import panel
from mechkit.show.style import describe, line_look, name_lines, styled

EDIT, CONTROL = "your edit", "random direction"
COLORS = {EDIT: panel.SHARE, CONTROL: panel.CONTROL}
# Side by side where there is room, otherwise one below the other; as wide whatever the numbers are.
CSS = """
.mk-explorer .mk-sides{display:flex;flex-wrap:wrap;gap:6px 1.5em}
.mk-explorer .mk-sides table{min-width:23em}
.mk-explorer .mk-sides caption{font-weight:bold}
"""
TICK = "Line across a bar: unedited."


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
        strengths = [(name, i) for i, name in enumerate(steering.names)]
        tip = "How much of the direction is added"
        self.strength = panel.slider("Strength", strengths, tip, value=steering.unedited)
        self.panel = panel.Panel("Steering explorer", [[self.strength]], css=CSS)
        self.box, self.message, self.table = self.panel.box, self.panel.message, self.panel.view
        panel.watch(self._draw, self.strength)
        self._draw()

    def _draw(self) -> None:
        at, steering = self.strength.value, self.steering
        likeliest = {side: _likeliest(steering.tokens, rows[at]) for side, rows in steering.sides.items()}
        likeliest["unedited"] = _likeliest(steering.tokens, steering.probabilities[steering.unedited])
        said = "; ".join(f"{side} {token}" for side, token in likeliest.items())
        self.panel.say(f"Strength {steering.names[at]}. Likeliest of these tokens: {said}.")
        self.table.value = _bars(steering, at)

    def _ipython_display_(self) -> None:
        sentences = (f"{side}: {_sentence(self.steering, rows)}" for side, rows in self.steering.sides.items())
        twin = Twin(steer_table(self.steering).html, "\n".join(sentences))
        self.panel.show(twin)


def _rows(steering: Steering, probabilities: Float[Tensor, "strength token"]) -> Table:
    rows = zip(steering.names, probabilities, strict=True)
    return [["strength", *map(visible, steering.tokens)], *([name, *map(percent, row)] for name, row in rows)]


def _sentence(steering: Steering, probabilities: Float[Tensor, "strength token"]) -> str:
    places = (0, steering.unedited, -1)
    said = (f"{_likeliest(steering.tokens, probabilities[at])} at {steering.names[at]}" for at in places)
    return f"Likeliest of these tokens by strength of the edit: {', '.join(said)}."


def _likeliest(tokens: Sequence[str], probabilities: Float[Tensor, " token"]) -> str:
    best = int(probabilities.argmax())
    return f"{visible(tokens[best])} {percent(probabilities[best])}"


def _bars(steering: Steering, at: int) -> str:
    """A table for each side, one row a token; a line across each bar marks the unedited probability."""
    full = max(float(rows.max()) for rows in steering.sides.values())
    head = '<thead><tr><th scope="col">token</th><th scope="col">probability</th></tr></thead>'
    tables = ""
    for side, rows in steering.sides.items():
        body = ""
        for token, now, before in zip(steering.tokens, rows[at], rows[steering.unedited], strict=True):
            shown = panel.bar(float(now) / full, COLORS[side], mark=float(before) / full) + percent(now)
            body += f'<tr><th scope="row">{escape(visible(token))}</th><td>{shown}</td></tr>'
        tables += f"<table><caption>{side}</caption>{head}<tbody>{body}</tbody></table>"
    return f'<div class="mk-sides">{tables}</div><div>{TICK}</div>'
