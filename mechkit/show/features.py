"""What a feature of a dictionary looks like: the text it is on for, how often, and what it says to the output.

A card holds plain words and numbers, so that it is drawn alike in a notebook, in an explorer and as text. A tint
shows how strongly a feature is on at each token; it lies under the letters, which keep the theme's own colour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from mechkit.methods.sae import SAE
from mechkit.methods.sae_activations import Activations
from mechkit.methods.sae_features import feature_examples, promoted
from mechkit.network.model import LanguageModel
from mechkit.show import style
from mechkit.show.captions import Table, Twin, caption_list, number, percent, signed, visible
from mechkit.show.style import describe, drawable, new_axes, styled

Words = Sequence[tuple[str, float]]
TINT = "126,87,194"  # the violet of style.PROBABILITY, readable under black letters and under white ones
AROUND = 12  # tokens shown on either side of an example's peak
WORDS = 6  # promoted and suppressed tokens that a card lists
CSS = """<style>
.mk-feature{line-height:1.5;color:var(--jp-ui-font-color1,inherit);font-size:13px;max-width:72em}
.mk-feature ol{margin:4px 0;padding:0;list-style:none}
.mk-feature li{margin:2px 0;padding:0 0 0 3.6em;text-indent:-3.6em;overflow-wrap:anywhere}
.mk-feature li b{display:inline-block;width:3.6em;text-indent:0;font-weight:normal;opacity:.8}
.mk-feature li span{text-indent:0;white-space:pre-wrap;border-radius:2px}
.mk-feature li span.mk-on{border-bottom:2px solid rgb(126,87,194)}
.mk-feature p{margin:2px 0}
</style>"""


@dataclass(frozen=True)
class FeatureCard:
    """Everything that a dashboard says about one feature.

    Args:
        number: Which feature.
        density: The share of tokens for which it is on.
        examples: The passages in which it is on most, strongest first: their tokens and its activation on each.
        promoted: The tokens whose logits it raises most, and by how much.
        suppressed: The tokens whose logits it lowers most, most first.
        label: What somebody or something says that it stands for.
    """

    number: int
    density: float
    examples: Sequence[tuple[Sequence[str], Sequence[float]]]
    promoted: Words = ()
    suppressed: Words = ()
    label: str = ""

    def __post_init__(self) -> None:
        for tokens, values in self.examples:
            if len(tokens) != len(values):
                raise ValueError(
                    f"wanted an activation for each of {len(tokens)} tokens; came {len(values)}: give both of one "
                    "passage"
                )


def feature_card(
    lm: LanguageModel,
    sae: SAE,
    hidden: Float[Tensor, "token d_sae"],
    activations: Activations,
    feature: int,
    *,
    label: str = "",
    n: int = 5,
) -> FeatureCard:
    """A feature's card from its activations on some text.

    Args:
        hidden: What `sae.encode(activations.x)` gives.
        n: How many passages at most.
    Chapter: 08.
    """
    found = feature_examples(hidden, activations, feature, n=n, width=AROUND + 1)
    said = promoted(sae, lm, feature, WORDS)
    up, down = (
        list(zip(lm.labels(ids), logits.tolist(), strict=True))
        for ids, logits in ((said.up, said.up_logits), (said.down, said.down_logits))
    )
    examples = [(lm.labels(each.tokens), each.values.tolist()) for each in found]
    return FeatureCard(feature, float((hidden[:, feature] > 0).float().mean()), examples, up, down, label)


def feature_dashboard(card: FeatureCard) -> Twin:
    """A feature's card: how often it is on, what it promotes, and where it is on most, token by token.

    Chapter: 08.
    """
    most = max((max(values, default=0.0) for _, values in card.examples), default=0.0) or 1.0
    shown = [_window(tokens, values) for tokens, values in card.examples]
    head, said = _head(card), [f"{name}: {_listed(words)}" for name, words in _sides(card)]
    items = "".join(f"<li>{_marked(tokens, values, most)}</li>" for tokens, values in shown)
    lines = "".join(f"<p>{escape(line)}</p>" for line in said)
    html = f'{CSS}<div class="mk-feature"><p><strong>{escape(head)}</strong></p>{lines}<ol>{items}</ol></div>'
    return Twin(html, "\n".join([head, *said, *(_spelled(tokens, values) for tokens, values in shown)]))


def _head(card: FeatureCard) -> str:
    label = f" · {card.label}" if card.label else ""
    return f"feature {card.number} · on for {percent(card.density)} of tokens{label}"


def _sides(card: FeatureCard) -> list[tuple[str, Words]]:
    return [(name, words) for name in ("promoted", "suppressed") if (words := getattr(card, name))]


def _listed(words: Words) -> str:
    return " · ".join(f"{visible(token)} {signed(value)}" for token, value in words)


def _window(tokens: Sequence[str], values: Sequence[float]) -> tuple[list[str], list[float]]:
    """The tokens around the peak; an ellipsis where the passage goes on."""
    peak = max(range(len(values)), key=lambda i: values[i], default=0)
    start, end = max(0, peak - AROUND), min(len(tokens), peak + AROUND + 1)
    before, after = ["… "] * (start > 0), [" …"] * (end < len(tokens))
    numbers = [0.0] * len(before) + [float(value) for value in values[start:end]] + [0.0] * len(after)
    return [*before, *tokens[start:end], *after], numbers


def _marked(tokens: Sequence[str], values: Sequence[float], most: float) -> str:
    parts = [f"<b>{number(max(values, default=0.0))}</b>"]
    for token, value in zip(tokens, values, strict=True):
        word = escape(_flat(token))
        if value > 0:
            look = f"background:rgba({TINT},{0.15 + 0.5 * value / most:.2f})"
            word = f'<span class="mk-on" style="{look}" title="{number(value)}">{word}</span>'
        else:
            word = f"<span>{word}</span>"
        parts.append(word)
    return "".join(parts)


def _spelled(tokens: Sequence[str], values: Sequence[float]) -> str:
    pairs = zip(map(_flat, tokens), values, strict=True)
    text = "".join(f"[{token} {number(value)}]" if value > 0 else token for token, value in pairs)
    return f"{number(max(values, default=0.0)):>6}  {text}"


def _flat(token: str) -> str:
    """The token on one line, its spaces as they are."""
    inner = token.strip(" ")
    start, end = len(token) - len(token.lstrip(" ")), len(token) - len(token.rstrip(" "))
    return token if not inner else " " * start + visible(inner) + " " * end


@styled
def tradeoff(
    runs: Mapping[str, Sequence[tuple[float, float]]],
    *,
    xlabel: str = "L0: features on per token",
    ylabel: str = "variance explained",
    names: Mapping[str, Sequence[str]] | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Price against gain: each run a marker, runs of one kind joined by a line, the price on a logarithmic scale.

    Args:
        runs: A kind of dictionary → its (price, gain) pairs; a price of 0 is left out.
        names: A word beside each run, such as its penalty, for the kinds that have them.
    Chapter: 08.
    """
    ax = ax or new_axes(6.6, 3.8)
    rows: Table = [["kind", xlabel, ylabel]]
    for index, (kind, pairs) in enumerate(runs.items()):
        look, words = style.line_look(index), dict(enumerate((names or {}).get(kind, ())))
        kept = [(pair, words.get(i, "")) for i, pair in enumerate(pairs) if pair[0] > 0]
        kept.sort()
        rows += [[f"{kind} {word}".rstrip(), number(x), number(y)] for (x, y), word in kept]
        if not kept:
            continue
        ax.plot(
            *zip(*(pair for pair, _ in kept), strict=True),
            **look,
            markersize=5,
            lw=1.4,
            label=drawable(kind, length=28),
        )
        for (x, y), word in kept:
            if word:
                place = {"xytext": (4, -11), "ha": "left"} if index % 2 == 0 else {"xytext": (-4, 6), "ha": "right"}
                ax.annotate(word, (x, y), textcoords="offset points", size=7.5, color=look["color"], **place)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(xlabel=f"{xlabel} (logarithmic)", ylabel=ylabel)
    ax.grid(color="#e3e3e3", lw=0.6)
    ax.margins(x=0.08, y=0.1)  # room for the words
    ax.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.01, 0.5))
    ax.set_title(title)
    said = "; ".join(f"{row[0]}: {row[2]} at {row[1]}" for row in rows[1:])
    return describe(ax, f"{ylabel} by {xlabel}. {said}.", rows)


@styled
def density_histogram(
    densities: Mapping[str, Float[Tensor, " feature"]], *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """How many features are on how often: a step line for each dictionary, by powers of ten; never is a bar apart.

    Args:
        densities: A dictionary's name → for each of its features the share of tokens for which it is on.
    Chapter: 08.
    """
    edges = [-4.0 + 0.5 * i for i in range(9)]
    counts = {name: _counts(shares, edges) for name, shares in densities.items()}
    ax = ax or new_axes(6.6, 3.2)
    width = 0.8 / len(counts)
    for index, (name, numbers) in enumerate(counts.items()):
        color = style.line_look(index)["color"]
        left = np.arange(len(numbers)) + index * width
        ax.bar(left, numbers, width=width, color=color, align="edge", label=drawable(name, length=28))
    labels = ["never", *(percent(10**edge) for edge in edges[:-1])]
    ax.set_xticks(np.arange(len(labels)) + 0.4, labels, fontsize=8)
    ax.set(xlabel="share of tokens for which a feature is on, from", ylabel="features")
    ax.legend(frameon=False, fontsize=8.5)
    ax.set_title(title)
    rows = [
        ["on for", *counts],
        *([label, *map(str, row)] for label, *row in zip(labels, *counts.values(), strict=True)),
    ]
    said = "; ".join(f"{name}: {line[0]} never on, {sum(line[1:])} on" for name, line in counts.items())
    return describe(ax, f"Features by how often they are on. {said}.", rows)


def _counts(shares: Tensor, edges: Sequence[float]) -> list[int]:
    """How many are never on, and how many lie in each half power of ten; the outermost take what lies beyond."""
    shares = torch.as_tensor(shares).double().flatten()
    on = shares[shares > 0].log10().clamp(edges[0], edges[-1] - 1e-9)
    held = torch.histc(on, bins=len(edges) - 1, min=edges[0], max=edges[-1])
    return [int((shares <= 0).sum()), *map(int, held.tolist())]


@styled
def label_scores(
    scores: Mapping[str, Sequence[float]], *, chance: float = 0.5, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Scores of many labels side by side: a dot each, a bar at each kind's median, and a dotted line at chance.

    Args:
        scores: A kind of label → one score a feature.
    Chapter: 08.
    """
    ax = ax or new_axes(6.4, 1.2 + 0.5 * len(scores))
    medians = {}
    for row, (kind, values) in enumerate(scores.items()):
        array = np.asarray([float(value) for value in values])
        medians[kind] = float(np.median(array)) if array.size else float("nan")
        shift = 0.14 * np.sin(2.4 * np.arange(array.size))  # apart, the same each time
        ax.plot(array, row + shift, "o", color=style.line_look(row)["color"], markersize=4, alpha=0.55, lw=0)
        ax.plot([medians[kind]] * 2, [row - 0.3, row + 0.3], color="black", lw=2)
    ax.axvline(chance, color="grey", linestyle=":")
    ax.set_yticks(range(len(scores)), [drawable(kind, length=34) for kind in scores])
    ax.invert_yaxis()
    ax.set(xlim=(-0.02, 1.02), xlabel="detection score on unseen text (dotted: chance; bar: median)")
    ax.set_title(title)
    named = [number(value) for value in medians.values()]
    alt, table = caption_list("Median detection score", list(scores), named, spoken=len(scores))
    return describe(ax, alt, table)
