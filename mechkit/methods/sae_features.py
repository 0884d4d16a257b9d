"""What does a feature stand for? Where it is on, what it says, and how well a label foretells it.

The setting: a feature is a number in a list, and its meaning is a guess of ours. The key move: make the guess a rule
that says where the feature is on, and score the rule on text that it was not made from. The limit: a rule can be right
about where a feature is on and wrong about what the model does with it; for that, change the feature.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mechkit.methods.attribution import norm_gain
from mechkit.methods.sae import SAE
from mechkit.methods.sae_activations import Activations
from mechkit.methods.sae_metrics import splice
from mechkit.network.hooks import Edit
from mechkit.network.model import LanguageModel

CLEAR = 0.3  # of a feature's largest activation: below it, most of what TopK lets through is hard to tell from chance
OFTEN = 0.2  # a token belongs to a label if the feature is clearly on for at least this share of its occurrences
LISTED = 6  # tokens that a label spells out


@dataclass(frozen=True)
class Example:
    """One passage where a feature is on.

    Args:
        tokens: Ids; those left out when the activations were gathered are not among them.
        values: How much the feature is on at each.
        passage: Which of the texts.
        peak: Where in `tokens` it is on most.
    """

    tokens: Int[Tensor, " pos"]
    values: Float[Tensor, " pos"]
    passage: int
    peak: int


def feature_examples(
    hidden: Float[Tensor, "token d_sae"], activations: Activations, feature: int, *, n: int = 8, width: int = 24
) -> list[Example]:
    """The passages where a feature is on most, at most one for each text, strongest first.

    Args:
        hidden: What `sae.encode(activations.x)` gives.
        n: How many at most; passages where it is off are not among them.
        width: Tokens on each side of the peak.
    Chapter: 08.
    """
    values = hidden[:, feature]
    found: list[Example] = []
    seen: set[int] = set()
    for row in values.argsort(descending=True, stable=True).tolist():
        passage = int(activations.passage[row])
        if len(found) == n or values[row] <= 0:
            break
        if passage in seen:
            continue
        seen.add(passage)
        rows = (activations.passage == passage).nonzero()[:, 0]
        at = int((rows == row).nonzero()[0])
        first = max(0, at - width)
        rows = rows[first : at + width + 1]
        found.append(Example(activations.tokens[rows], values[rows], passage, at - first))
    return found


@dataclass(frozen=True)
class TokenStatistics:
    """How a feature treats each token of a text, those that it is most on for in all first.

    Args:
        tokens: Ids, each once.
        count: How often each occurred.
        on: For what share of these the feature was on.
        mass: What share of all that the feature was on fell on this token.
    """

    tokens: Int[Tensor, " token"]
    count: Int[Tensor, " token"]
    on: Float[Tensor, " token"]
    mass: Float[Tensor, " token"]


def clearly_on(
    values: Float[Tensor, " token"], *, share: float = CLEAR, largest: float | None = None
) -> Bool[Tensor, " token"]:
    """Where a feature is on by more than a share of its largest activation; with share 0, wherever it is on.

    Args:
        values: One feature's activations.
        largest: Its largest activation, if it is to be that of other text; by default the largest here.
    Chapter: 08.
    """
    most = values.max() if largest is None else largest
    return (values > 0) & (values > share * most)


def token_statistics(
    hidden: Float[Tensor, "token d_sae"], activations: Activations, feature: int, *, back: int = 0, share: float = 0.0
) -> TokenStatistics:
    """What one feature does for each token.

    Args:
        hidden: What `sae.encode(activations.x)` gives.
        back: 0 for the token at which the feature is read, 1 for the one before.
        share: What counts as on, as for `clearly_on`.
    Chapter: 08.
    """
    values, tokens = hidden[:, feature].double(), tokens_before(activations, back)
    each, place = tokens.unique(return_inverse=True)
    count = place.bincount(minlength=len(each))
    on = place.bincount(clearly_on(values.float(), share=share).double(), minlength=len(each)) / count
    mass = place.bincount(values, minlength=len(each)) / values.sum().clamp(min=1e-30)
    order = mass.argsort(descending=True, stable=True)
    return TokenStatistics(each[order], count[order], on[order].float(), mass[order].float())


def tokens_before(activations: Activations, back: int) -> Int[Tensor, " token"]:
    """The token so many before each, in its own passage; -1 where there is none that was gathered."""
    if not back:
        return activations.tokens
    moved = torch.full_like(activations.tokens, -1)
    same = activations.passage[back:] == activations.passage[:-back]
    near = activations.position[back:] - activations.position[:-back] == back
    moved[back:] = torch.where(same & near, activations.tokens[:-back], -1)
    return moved


@dataclass(frozen=True)
class Label:
    """A rule for where a feature is clearly on: at some tokens, or right after them.

    Args:
        tokens: Ids.
        back: 0 if the feature is on at these tokens, 1 if at the token after.
        limit: The activation from which it counts as on, in other text too.
        text: The rule in words.
    """

    tokens: tuple[int, ...]
    back: int
    limit: float
    text: str

    def predict(self, activations: Activations) -> Bool[Tensor, " token"]:
        """Where the feature should be on."""
        return torch.isin(tokens_before(activations, self.back), torch.tensor(self.tokens, dtype=torch.long))


def label_from_tokens(
    hidden: Float[Tensor, "token d_sae"], activations: Activations, feature: int, lm: LanguageModel
) -> Label:
    """The label that token counts alone suggest: no reader, no second model, the same every time.

    The rule names those tokens for at least a fifth of whose occurrences the feature is clearly on, or those after
    which it is, whichever has the higher detection score on these activations. It is the baseline that a label by hand
    should beat, and it knows nothing of meaning. To score it on other text, count the feature as on above its `limit`.

    Raises: ValueError if the feature is on nowhere here.
    Chapter: 08.
    """
    values = hidden[:, feature]
    truth, limit = clearly_on(values), CLEAR * float(values.max())
    if not truth.any():
        raise ValueError(f"wanted a feature that is on somewhere in this text; feature {feature} is dead here")
    best: tuple[float, Label] | None = None
    for back in (0, 1):
        found = token_statistics(hidden, activations, feature, back=back, share=CLEAR)
        often = found.on * found.count / (found.count + 1)  # as if each had been met once more, without it
        chosen = found.tokens[(often >= OFTEN) & (found.tokens >= 0)]
        label = Label(tuple(chosen.tolist()), back, limit, _in_words(chosen, back, lm))
        score = detection_score(label.predict(activations), truth)
        if best is None or score > best[0]:
            best = score, label
    return best[1]


def detection_score(predicted: Bool[Tensor, " token"], truth: Bool[Tensor, " token"]) -> float:
    """How well a label foretells where a feature is on: the mean of two shares, right where on and right where off.

    0.5 is what a coin gives, and what "never" gives, however rare the feature; 1 is perfect.

    Raises: ValueError if the feature is on everywhere or nowhere in what is asked about.
    Source: "detection" of Paulo et al. (2024), "Automatically Interpreting Millions of Features", token by token.
    Chapter: 08.
    """
    if truth.all() or not truth.any():
        raise ValueError(
            f"wanted tokens where the feature is on and tokens where it is off; it is {'on' if truth.any() else 'off'} "
            f"at all {len(truth)}: choose others, or another feature"
        )
    return (float(predicted[truth].float().mean()) + float((~predicted[~truth]).float().mean())) / 2


@dataclass(frozen=True)
class Promoted:
    """What a feature's direction says through the unembedding, in logits for each unit that it is on.

    Args:
        up, down: Token ids, most moved first.
        up_logits, down_logits: How far each is moved, next to the average token.
    """

    up: Int[Tensor, " k"]
    up_logits: Float[Tensor, " k"]
    down: Int[Tensor, " k"]
    down_logits: Float[Tensor, " k"]


def promoted(sae: SAE, lm: LanguageModel, feature: int, k: int = 10) -> Promoted:
    """The tokens whose logits a feature raises and lowers most, directly: the logit lens on its row of W_dec.

    The final norm's scale is left out, which is one number for all tokens. A feature of a middle layer may well say
    nothing here: later layers read it first.

    Chapter: 08.
    """
    direction = sae.W_dec[feature].detach()
    if isinstance(lm.final_norm, nn.LayerNorm):
        direction = direction - direction.mean()
    logits = (direction * norm_gain(lm.final_norm, direction[None])) @ lm.W_U
    logits = logits - logits.mean()
    up, down = logits.topk(k), logits.topk(k, largest=False)
    return Promoted(up.indices, up.values, down.indices, down.values)


def change_features(
    sae: SAE, change: Callable[[Tensor], Tensor], *, site: str | None = None, layer: int | None = None
) -> tuple[Edit, ...]:
    """Edits that change features and nothing else: what the SAE does not explain stays.

    `x + (change(hidden) - hidden) W_dec`, at every position but 0 and at massive tokens.

    Args:
        change: From the features' activations to new ones, [... d_sae]; it must not change its argument.
        site, layer: Where; the SAE's own if not given.
    Raises: ValueError for a transcoder, which rebuilds another activation than it reads, or without a place.
    Chapter: 08.
    """
    site, layer = site or sae.site, sae.layer if layer is None else layer
    if sae.is_transcoder or not isinstance(site, str) or layer is None:
        raise ValueError(
            f"wanted an SAE of one site, and its layer; came {sae!r} with site {site!r} and layer {layer}: "
            "name both, or use splice for a transcoder"
        )

    def moved(x: Tensor) -> Tensor:
        hidden = sae.encode(x)
        return x + (change(hidden) - hidden) @ sae.W_dec

    return splice(moved, site, layer)


def _in_words(tokens: Int[Tensor, " token"], back: int, lm: LanguageModel) -> str:
    if not len(tokens):
        return "no token foretells it"
    names: Sequence[str] = [repr(name) for name in lm.labels(tokens[:LISTED])]
    more = f" and {len(tokens) - LISTED} more" if len(tokens) > LISTED else ""
    return f"{'right after' if back else 'at'} {', '.join(names)}{more}"
