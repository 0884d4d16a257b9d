"""A circuit as a graph: heads as nodes by layer, their roles by colour and shape, what they write as lines.

It draws what was measured elsewhere: names, roles and lines come in, nothing is computed. Rows read downwards, as in
every figure of the course: the first layer on top, the logits at the bottom.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from mechkit.show import style
from mechkit.show.captions import signed
from mechkit.show.style import describe, drawable, new_axes, styled

Head = tuple[int, int]
LOGITS = "logits"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", ">", "<", "p", "h")
COLORS = (*style.PALETTE, "#882255", "#8C8C8C", "#7A5C00", "#332288", "#8FBC5A")
ACROSS, DOWN = 4.5, 0.44  # inches, about: of the unit of x, and of a row
TAKEN = [(0.0, 0.0), (0.03, 0.28), (0.07, 0.28), (0.11, 0.28)]  # by a head and its name, seen from the head: x, rows
CLEAR = 0.17  # inches to keep between a line and what it passes
BAR = 0.8  # the logits' width, as a share of the heads'


LOOKS = {
    "raises": {"color": style.POSITIVE, "linestyle": "-"},
    "lowers": {"color": style.NEGATIVE, "linestyle": (0, (4, 2))},
}


def role_looks(roles: Mapping[str, Sequence[Head]]) -> dict[str, tuple[str, str]]:
    """Each role's colour and marker: no two of a dozen roles share either."""
    return {role: (COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]) for index, role in enumerate(roles)}


def circuit_layout(roles: Mapping[str, Sequence[Head]]) -> dict[Head, tuple[float, int]]:
    """Where each head stands: x from -0.5 to 0.5 within its layer's row, and the row, first layer first.

    Raises: ValueError if there is no head, or a head has two roles.
    """
    heads = [tuple(map(int, head)) for heads in roles.values() for head in heads]
    if not heads or len(set(heads)) < len(heads):
        twice = sorted({head for head in heads if heads.count(head) > 1})
        came = f"two roles for L{twice[0][0]}H{twice[0][1]}" if twice else "no head at all"
        raise ValueError(f"wanted a circuit of heads with one role each; came {came}")
    layers = sorted({layer for layer, _ in heads})
    found = {}
    for row, layer in enumerate(layers):
        here = [head for head in heads if head[0] == layer]  # in the order of the roles, so that like stand together
        for place, head in enumerate(here):
            found[head] = ((place - (len(here) - 1) / 2) / len(here), row)
    return found


@styled
def circuit_graph(
    roles: Mapping[str, Sequence[Head]],
    lines: Sequence[tuple[Head | str, Head | str, float]] = (),
    *,
    unit: str = "effect",
    between: str = "",
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Heads by layer, their roles by colour and shape, and who acts on whom.

    Args:
        roles: From a role's name to its heads, (layer, head).
        lines: (from, to, how much); `from` is a head, or a role for what its heads do together: one line, from a
            bracket. `to` is a head or "logits". Blue where positive, dashed red where negative.
        unit: What the lines' numbers are.
        between: What those between heads are, where that is something else: these then have a scale of their own.
    Raises: ValueError if there is no head, a head has two roles, or a line ends nowhere.
    Chapter: 06.
    """
    places, looks = circuit_layout(roles), role_looks(roles)
    rows = sorted({row for _, row in places.values()})
    layers = sorted({layer for layer, _ in places})
    spots: dict[Head | str, tuple[float, float]] = {**places, LOGITS: (0.0, len(rows))}
    joint = {role: [places[tuple(map(int, head))] for head in heads] for role, heads in roles.items() if heads}
    for start, end, _ in lines:
        for each, known in ((start, {**spots, **joint}), (end, spots)):
            if each not in known:
                raise ValueError(
                    f"wanted lines between heads of the circuit, from a role, or to 'logits'; came {each!r}"
                )
    ax = ax or new_axes(8.6, 0.9 + DOWN * (len(rows) + 1))
    ends = [(BAR * x, len(rows)) for x in (-0.5, 0.5)]
    ax.plot(*zip(*ends, strict=True), color="#666666", lw=5, alpha=0.35, solid_capstyle="round", zorder=1)
    for start, end, size in lines:
        if start in joint:
            spots[start] = _bracket(ax, joint[start], looks[start][0])
        scale = [abs(each) for _, to, each in lines if not between or (to == LOGITS) == (end == LOGITS)]
        begin, goal = spots[start], spots[end]
        goal = (BAR * begin[0], goal[1]) if end == LOGITS else goal
        own = joint.get(start, ())
        passed = [spot for head, spot in places.items() if head not in (start, end) and spot not in own]
        bend = _bend(begin, goal, passed)
        ax.add_patch(_line(begin, goal, size / (max(scale) or 1.0), bend, shrink=0 if start in joint else 7))
    for role, heads in roles.items():
        color, marker = looks[role]
        at = [places[tuple(map(int, head))] for head in heads]
        size = 210 if marker == "*" else 120
        ax.scatter(
            [x for x, _ in at], [row for _, row in at], s=size, color=color, marker=marker, edgecolor="white", zorder=3
        )
    halo = [withStroke(linewidth=4, foreground="white")]
    for (layer, head), spot in places.items():
        name = f"L{layer}H{head}"
        ax.annotate(name, spot, (7, -9), textcoords="offset points", va="center", size=8, zorder=4, path_effects=halo)
    box = {"boxstyle": "round", "fc": "white", "ec": "#666666"}
    ax.annotate(LOGITS, spots[LOGITS], ha="center", va="center", size=9, weight="bold", zorder=4, bbox=box)
    ax.set_yticks([*rows, len(rows)], [*(f"layer {layer}" for layer in layers), ""])
    ax.set(xlim=(-0.6, 0.68), ylim=(len(rows) + 0.5, -0.6), xticks=[])
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    keys = [
        Line2D([], [], color=looks[role][0], marker=looks[role][1], lw=0, markersize=8, label=drawable(role, length=30))
        for role, heads in roles.items()
        if heads
    ]
    keys += [Line2D([], [], **LOOKS[sign], lw=1.8, label=f"{sign} it") for sign in LOOKS] if lines else []
    units = [f"to the logits: {unit}", f"between heads: {between}"] if between else []
    keys += [Line2D([], [], lw=0, label=each) for each in units]
    ax.legend(handles=keys, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8.5)
    ax.set_title(title)
    return describe(ax, *_caption(roles, lines, unit, between or unit))


def _bracket(ax: Axes, spots: Sequence[tuple[float, float]], color: str) -> tuple[float, float]:
    """A bracket below the heads that do something together, and the place where their line begins."""
    low = max(row for _, row in spots) + 0.46
    left, right = min(x for x, _ in spots), max(x for x, _ in spots)
    ax.plot([left, left, right, right], [low - 0.1, low, low, low - 0.1], color=color, lw=1.6, zorder=2)
    return (left + right) / 2, low


def _bend(start: tuple[float, float], end: tuple[float, float], passed: Sequence[tuple[float, float]]) -> float:
    """How to bend a line so that it runs through no other head and no name: the slightest bend that is clear."""
    size = np.array([ACROSS, -DOWN])
    near = (np.array(passed).reshape(-1, 1, 2) + TAKEN).reshape(-1, 2) * size
    begin, goal = np.array([start, end]) * size
    along = np.linspace(0.05, 0.95, 40)[:, None]

    def room(bend: float) -> float:
        middle = (begin + goal) / 2 + bend * (goal - begin)[::-1] * (1, -1)  # as matplotlib's arc3 has it
        curve = (1 - along) ** 2 * begin + 2 * along * (1 - along) * middle + along**2 * goal
        return min(CLEAR, np.linalg.norm(curve[:, None] - near, axis=-1).min(initial=CLEAR))

    usual = 0.06 if start[0] <= end[0] else -0.06
    return max((usual * times for times in (1, -1, 2, -2, 4, -4, 6, -6)), key=room)


def _line(
    start: tuple[float, float], end: tuple[float, float], share: float, bend: float, *, shrink: float
) -> FancyArrowPatch:
    """From one place to another, as thick as its share of the largest, and `shrink` points clear of where it starts."""
    look = LOOKS["raises" if share >= 0 else "lowers"]
    return FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=9,
        shrinkA=shrink,
        shrinkB=9,
        lw=0.6 + 2.4 * abs(share),
        alpha=0.65,
        connectionstyle=f"arc3,rad={bend}",
        zorder=1,
        **look,
    )


def _caption(
    roles: Mapping[str, Sequence[Head]], lines: Sequence[tuple[Head | str, Head | str, float]], unit: str, between: str
) -> tuple[str, list[list[str]]]:
    named = {
        role: ", ".join(f"L{layer}H{head}" for layer, head in sorted(heads)) for role, heads in roles.items() if heads
    }
    out: dict[Head, list[str]] = {}
    for start, end, size in lines:
        to, what = (LOGITS, unit) if end == LOGITS else ("L{}H{}".format(*end), between)
        said = f"{to} {signed(size)}" + (f" ({what})" if between != unit else "")
        for head in roles.get(start, [start]):
            together = f", all of role {start} together" if start in roles else ""
            out.setdefault(tuple(map(int, head)), []).append(said + together)
    rows = [
        [f"L{layer}H{head}", role, "; ".join(out.get((layer, head), [])) or "none"]
        for role, heads in roles.items()
        for layer, head in sorted(heads)
    ]
    count = sum(len(heads) for heads in roles.values())
    alt = f"Circuit of {count} heads: {'; '.join(f'{role} {heads}' for role, heads in named.items())}"
    return f"{alt}. {len(lines)} lines.", [
        ["head", "role", "acts on" if between != unit else f"acts on ({unit})"],
        *sorted(rows, key=lambda row: [int(n) for n in row[0][1:].split("H")]),
    ]
