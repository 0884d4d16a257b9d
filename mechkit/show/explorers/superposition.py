"""Chapter 01: move sparsity and the number of features, and see their vectors share a plane.

Every model is trained beforehand: moving a slider only redraws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from torch import Tensor

from mechkit.methods.toy import dimensionality, is_represented
from mechkit.show import style
from mechkit.show.captions import Table, Twin, number, table_html, table_text
from mechkit.show.style import describe, new_axes, show_live, styled

REACH, SHORT = 1.5, 0.25  # trained vectors are shorter than the one, and none that count than the other
GUIDES = {
    "1": 1,
    "3/4": 3 / 4,
    "2/3": 2 / 3,
    "1/2": 1 / 2,
    "2/5": 2 / 5,
}  # alone, tetrahedron, triangle, pair, pentagon
NEAR = 0.03  # of a fraction: no value is near two of the guides
CSS = """<style>
.mk-superposition .mk-both{display:flex;flex-wrap:wrap;gap:24px;align-items:center}
.mk-superposition svg{width:250px;height:250px;flex:none;overflow:visible}
.mk-superposition text{font:0.16px var(--jp-ui-font-family,sans-serif);fill:var(--jp-ui-font-color1,black);
  text-anchor:middle;dominant-baseline:central}
.mk-superposition table{border-collapse:collapse;font:12px/20px var(--jp-ui-font-family,sans-serif)}
.mk-superposition caption{text-align:left;padding-bottom:4px}
.mk-superposition th{font-weight:normal;padding:0 6px;color:var(--jp-ui-font-color1,inherit)}
.mk-superposition td{width:3em;text-align:center;border:1px solid white;padding:0}
</style>"""


@dataclass(frozen=True)
class Gallery:
    """Trained vectors in a plane, by sparsity and number of features.

    Args:
        sparsity: In order.
        vectors: Number of features → their vectors at each sparsity.
    """

    sparsity: Sequence[float]
    vectors: Mapping[int, Float[Tensor, "sparsity feature 2"]]


@styled
def feature_panels(W: Float[Tensor, "panel feature 2"], titles: Sequence[str]) -> Axes:
    """Feature vectors as arrows in a plane, a panel each, and below them what each feature hears of each other.

    Returns: The first Axes; arrows come first in `figure.axes`, then the maps of W W^T.
    """
    panels = len(titles)
    if len(W) != panels:
        raise ValueError(f"feature_panels wanted one title a panel; got {len(W)} panels and {panels} titles.")
    _, axes = plt.subplots(2, panels, figsize=(min(9.5, 1.95 * panels + 0.6), 4.1), squeeze=False)
    for top, bottom, vectors, title in zip(*axes, W.detach(), titles, strict=True):
        _draw_arrows(top, vectors.numpy(), title)
        image = bottom.imshow((vectors @ vectors.T).numpy(), cmap=style.SIGNED, vmin=-REACH, vmax=REACH, aspect="equal")
        bottom.set(xticks=range(len(vectors)), yticks=range(len(vectors)), xlabel="written")
        bottom.tick_params(length=0)
        describe(top, _sentence(vectors), [["feature", "x", "y"], *_tips(vectors)])
    axes[1, 0].set_ylabel("read back")
    bar = axes[0, 0].figure.colorbar(image, ax=axes[1, -1], label="overlap", aspect=12)
    bar.outline.set_visible(False)
    return axes[0, 0]


@styled
def dimensionality_strip(
    shares: Float[Tensor, "sparsity feature"],
    sparsity: Sequence[float],
    *,
    even: float | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Every feature's dimensionality as a dot, over sparsity, with the simple fractions as guides.

    Args:
        even: What each feature would have if all shared alike, the dimensions by the features: a dashed line.
    """
    if len(shares) != len(sparsity):
        raise ValueError(
            f"dimensionality_strip wanted a row a sparsity; got {len(shares)} rows, {len(sparsity)} names."
        )
    ax = ax or new_axes(7.2, 3.8)
    for guide in GUIDES.values():
        ax.axhline(guide, color="#cfcfcf", lw=0.8, zorder=0)
    if even is not None:
        ax.axhline(even, color=style.PALETTE[1], lw=1.2, ls="--", zorder=0)
        ax.annotate(
            f"an even share, {number(even)}",
            (1, even),
            (-4, -11),
            ("axes fraction", "data"),
            ha="right",
            textcoords="offset points",
            size=8,
        )
    for place, row in enumerate(shares.detach().numpy()):
        ax.scatter(place + np.linspace(-0.28, 0.28, len(row)), np.sort(row), s=11, color=style.PALETTE[0], lw=0)
    ax.set_xticks(range(len(sparsity)), [f"{each:g}" for each in sparsity])
    ax.set(xlabel="sparsity (each dot is a feature)", ylabel="dimensionality", ylim=(-0.04, 1.06))
    right = ax.secondary_yaxis("right")
    right.set_yticks(list(GUIDES.values()), list(GUIDES))
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    ax.set_title(title)
    rows = [[f"{each:g}", *_counts(row)] for each, row in zip(sparsity, shares, strict=True)]
    head = ["none", *GUIDES, "elsewhere"]
    said = "; ".join(f"sparsity {row[0]}: {_said(head, row[1:])}" for row in rows)
    alt = f"How many of {shares.shape[1]} features have a dimensionality near each simple fraction. {said}."
    return describe(ax, alt, [["sparsity", *head], *rows])


def gallery_table(gallery: Gallery) -> Twin:
    """How many features are represented, and their mean dimensionality, for every model of the gallery."""
    head = ["features", *(f"sparsity {each:g}" for each in gallery.sparsity)]
    rows = [[str(n), *map(_cell, vectors)] for n, vectors in gallery.vectors.items()]
    caption = "features kept, and the mean dimensionality of those"
    return Twin(table_html([head, *rows], caption=caption), f"{caption}\n{table_text([head, *rows])}")


class SuperpositionExplorer:
    """Two sliders, sparsity and the number of features, over the vectors and their overlaps."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        wide = widgets.Layout(width="min(100%, 36em)")
        self.features = widgets.SelectionSlider(
            options=[(str(n), n) for n in gallery.vectors],
            description="Features",
            tooltip="How many features share the plane",
            layout=wide,
        )
        self.sparsity = widgets.SelectionSlider(
            options=[(f"{each:g}", i) for i, each in enumerate(gallery.sparsity)],
            description="Sparsity",
            tooltip="How often a feature is off",
            layout=wide,
        )
        self.message = widgets.HTML(layout=widgets.Layout(min_height="3em"))
        self.table = widgets.HTML(layout=widgets.Layout(overflow="auto"), tabbable=True)
        self.box = widgets.VBox([self.features, self.sparsity, self.message, self.table])
        self.box.add_class("mk-superposition")
        for control in (self.features, self.sparsity):
            control.observe(lambda _: self._draw(), "value")
        self._draw()

    def _draw(self) -> None:
        vectors = self.gallery.vectors[self.features.value][self.sparsity.value]
        said = f"{len(vectors)} features, sparsity {self.gallery.sparsity[self.sparsity.value]:g}. {_sentence(vectors)}"
        self.message.value = f'<div role="status" aria-live="polite">{said}</div>'
        self.table.value = f'{CSS}<div class="mk-both">{_arrows(vectors)}{_overlaps(vectors)}</div>'

    def _ipython_display_(self) -> None:
        show_live(self.box, "Superposition explorer", gallery_table(self.gallery))


def _draw_arrows(ax: Axes, vectors: np.ndarray, title: str) -> None:
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    ax.axhline(0, color="#dddddd", lw=0.8)
    ax.axvline(0, color="#dddddd", lw=0.8)
    for index, tip in enumerate(vectors):
        color = style.line_look(index)["color"]
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.7, "shrinkA": 0, "shrinkB": 0}
        if np.linalg.norm(tip) < SHORT:
            ax.plot(*tip, ".", color=color, markersize=5)
        else:
            ax.annotate("", tip, (0, 0), arrowprops=arrow)
    for name, tip in _names(vectors):
        away = 9 * tip / np.linalg.norm(tip)
        ax.annotate(name, tip, away, textcoords="offset points", ha="center", va="center")
    ax.set_title(title)


def _names(vectors: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """What to write at the tips of the long vectors; those that end in one place share one name: "0, 1"."""
    named: list[tuple[str, np.ndarray]] = []
    for index, tip in enumerate(vectors):
        near = next((i for i, (_, other) in enumerate(named) if np.linalg.norm(tip - other) < SHORT), None)
        if near is not None:
            named[near] = (f"{named[near][0]}, {index}", named[near][1])
        elif np.linalg.norm(tip) >= SHORT:
            named.append((str(index), tip))
    return named


def _tips(vectors: Tensor) -> Table:
    return [[str(index), *map(number, tip)] for index, tip in enumerate(vectors)]


def _kept(vectors: Tensor) -> tuple[int, Tensor]:
    """How many vectors are long enough to count, and the dimensionality of those."""
    kept = is_represented(vectors)
    return int(kept.sum()), dimensionality(vectors)[kept]


def _cell(vectors: Tensor) -> str:
    count, shares = _kept(vectors)
    return f"{count} · {number(shares.mean())}" if count else "0"


def _sentence(vectors: Tensor) -> str:
    count, shares = _kept(vectors)
    if count < 2:
        return f"{count} of {len(vectors)} features represented."
    unit = torch.nn.functional.normalize(vectors[is_represented(vectors)], dim=-1)
    nearest = (unit @ unit.T - 3 * torch.eye(count)).amax(-1).clamp(-1, 1)
    angle = float(nearest.arccos().rad2deg().mean())
    return (
        f"{count} of {len(vectors)} features represented, nearest neighbours {angle:.0f}° apart on average, "
        f"mean dimensionality {number(shares.mean())}."
    )


def _counts(row: Tensor) -> list[str]:
    """How many features lie near none of a dimension, near each guide, and elsewhere."""
    near = (row[:, None] - torch.tensor([0.0, *GUIDES.values()])).abs() < NEAR
    return [str(int(count)) for count in (*near.sum(0), (~near.any(1)).sum())]


def _said(head: Sequence[str], counts: Sequence[str]) -> str:
    return ", ".join(
        f"{count} at {name}" if name in GUIDES else f"{count} {name}"
        for name, count in zip(head, counts, strict=True)
        if count != "0"
    )


def _arrows(vectors: Tensor) -> str:
    """The vectors as a drawing; y points up."""
    lines = ""
    for index, (x, y) in enumerate(vectors.tolist()):
        color = style.line_look(index)["color"]
        lines += f'<line x2="{x:.3f}" y2="{-y:.3f}" stroke="{color}" stroke-width="0.04"/>'
        lines += f'<circle cx="{x:.3f}" cy="{-y:.3f}" r="0.05" fill="{color}"/>'
    for name, tip in _names(vectors.numpy()):
        x, y = (1 + 0.18 / np.linalg.norm(tip)) * tip
        lines += f'<text x="{x:.3f}" y="{-y:.3f}">{name}</text>'
    axes = '<path d="M-1.5 0H1.5M0 -1.5V1.5" stroke="#bbbbbb" stroke-width="0.012"/>'
    return f'<svg viewBox="-1.5 -1.5 3 3" role="img" aria-label="{_sentence(vectors)}">{axes}{lines}</svg>'


def _overlaps(vectors: Tensor) -> str:
    """What each feature (row) reads back of each other (column): W W^T."""
    overlaps = vectors @ vectors.T
    head = "".join(f'<th scope="col">{index}</th>' for index in range(len(vectors)))
    body = ""
    for index, row in enumerate(overlaps.tolist()):
        cells = "".join(_overlap(value) for value in row)
        body += f'<tr><th scope="row">{index}</th>{cells}</tr>'
    caption = "<caption>what each feature (row) hears of each other (column)</caption>"
    return f"<table>{caption}<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _overlap(value: float) -> str:
    color = to_hex(style.SIGNED((value / REACH + 1) / 2))
    ink = "white" if abs(value) > 0.7 * REACH else "black"
    text = f"{value:.1f}" if abs(value) >= 0.05 else "0"
    return f'<td style="background:{color};color:{ink}">{text}</td>'
