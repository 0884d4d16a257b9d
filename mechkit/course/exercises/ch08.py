"""Chapter 08, sparse autoencoders: which features does the model itself use?"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import combinations, count
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.prompts import FACTS
from mechkit.methods.toy import random_directions
from mechkit.network.cache import run
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import WORDS

Reconstruction = Float[Tensor, "token d_model"]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def _sparse(seed: int, tokens: int, features: int, share: float = 0.3) -> Float[Tensor, "token feature"]:
    """Activations that are zero for most tokens; some are on for two tokens at least."""
    g = _generator(seed)
    on = torch.rand(tokens, features, generator=g) < share
    on[:2] = True
    return on * (0.2 + 2 * torch.rand(tokens, features, generator=g))


# encode -------------------------------------------------------------------------------------------------------


def encode(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
) -> Float[Tensor, "token d_sae"]:
    rows = []
    for each in x:
        readings = [(each - b_dec) @ W_enc[:, i] + b_enc[i] for i in range(len(b_enc))]
        rows.append(torch.stack([torch.relu(reading) for reading in readings]))
    return torch.stack(rows)


def _encoder(seed: int, tokens: int, d: int, features: int) -> tuple:
    g = _generator(seed)
    return (
        torch.randn(tokens, d, generator=g),
        torch.randn(d, features, generator=g),
        0.5 * torch.randn(features, generator=g),
        0.5 * torch.randn(d, generator=g),
    )


ENCODE = Exercise(
    id="08_encode",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=encode,
    cases=lambda seed: [_encoder(seed, 6, 3, 5), _encoder(seed + 100, 4, 5, 9)],
    mistakes=(
        Mistake(
            "not_centred",
            "Yours reads `x` itself. What is subtracted first is `b_dec`: the decoder adds it back at the end, so the "
            "features only account for what differs from it.",
            lambda x, W_enc, b_enc, b_dec: (x @ W_enc + b_enc).relu(),
        ),
        Mistake(
            "added",
            "Yours *adds* `b_dec` before reading. Subtract it: the decoder is who adds it.",
            lambda x, W_enc, b_enc, b_dec: ((x + b_dec) @ W_enc + b_enc).relu(),
        ),
        Mistake(
            "no_bias",
            "Yours leaves out `b_enc`, by which each feature ignores small readings (or is on without one).",
            lambda x, W_enc, b_enc, b_dec: ((x - b_dec) @ W_enc).relu(),
        ),
        Mistake(
            "no_relu",
            "Yours leaves out the ReLU: it has features that are on by a negative amount. A feature is there, more or "
            "less, or it is not there.",
            lambda x, W_enc, b_enc, b_dec: (x - b_dec) @ W_enc + b_enc,
        ),
        Mistake(
            "bias_after",
            "Yours adds `b_enc` *after* the ReLU, where it switches features on instead of silencing noise.",
            lambda x, W_enc, b_enc, b_dec: ((x - b_dec) @ W_enc).relu() + b_enc,
        ),
    ),
    hints=(
        "Subtract, multiply, add, cut at zero: in this order.",
        "`(x - b_dec) @ W_enc` is [token d_sae]: what each feature reads.",
        "Return `((x - b_dec) @ W_enc + b_enc).relu()`.",
    ),
    properties=(Property("After a ReLU nothing is negative; yours is.", lambda result, *_: bool((result >= 0).all())),),
    discussion="Each feature has two vectors: a column of `W_enc`, by which it is noticed, and a row of `W_dec`, which "
    "it stands for. They need not be the same: a reader may lean away from its neighbours.",
)


# sae_loss -----------------------------------------------------------------------------------------------------


def sae_loss(
    x: Float[Tensor, "token d_in"],
    reconstruction: Float[Tensor, "token d_in"],
    hidden: Float[Tensor, "token d_sae"],
    penalty: float,
) -> float:
    total = 0.0
    for i in range(len(x)):
        error = sum((float(a) - float(b)) ** 2 for a, b in zip(x[i], reconstruction[i], strict=True))
        total += error + penalty * sum(abs(float(a)) for a in hidden[i])
    return total / len(x)


def _priced(seed: int, tokens: int) -> tuple:
    x = torch.randn(tokens, 4, generator=_generator(seed))
    return (x, x + 0.5 * torch.randn(tokens, 4, generator=_generator(seed + 1)), _sparse(seed + 2, tokens, 7), 0.3)


def _error(x: Tensor, reconstruction: Tensor) -> Float[Tensor, " token"]:
    return (x - reconstruction).square().sum(-1)


SAE_LOSS = Exercise(
    id="08_sae_loss",
    kind="code",
    level=1,
    points=1,
    minutes=6,
    reference=sae_loss,
    cases=lambda seed: [_priced(seed, 6), _priced(seed + 100, 9)],
    mistakes=(
        Mistake(
            "error_averaged",
            "Yours takes the mean of the squared errors over the *dimensions* too. Here |x − x̂|² is their sum: with "
            "the mean, one and the same λ would weigh `d_in` times as much.",
            lambda x, reconstruction, hidden, penalty: float(
                (x - reconstruction).square().mean() + penalty * hidden.abs().sum(-1).mean()
            ),
        ),
        Mistake(
            "penalty_averaged",
            "Yours takes the mean of the activations over the *features*. |hidden|₁ is their sum: a feature must not "
            "get cheaper because there are more of them.",
            lambda x, reconstruction, hidden, penalty: float(
                _error(x, reconstruction).mean() + penalty * hidden.abs().mean()
            ),
        ),
        Mistake(
            "both_averaged",
            "Yours takes means over dimensions and features. Both are sums here; only over the tokens it is a mean.",
            lambda x, reconstruction, hidden, penalty: float(
                (x - reconstruction).square().mean() + penalty * hidden.abs().mean()
            ),
        ),
        Mistake(
            "squares",
            "Yours prices the *squares* of the activations. That makes many small ones cheap, and nothing sparse: "
            "the sum of their sizes, |hidden|₁, is asked.",
            lambda x, reconstruction, hidden, penalty: float(
                (_error(x, reconstruction) + penalty * hidden.square().sum(-1)).mean()
            ),
        ),
        Mistake(
            "counted",
            "Yours prices how *many* features are on, L0. That is what we want, but it has no slope to learn from; "
            "asked is how much they are on, L1.",
            lambda x, reconstruction, hidden, penalty: float(
                (_error(x, reconstruction) + penalty * (hidden > 0).sum(-1)).mean()
            ),
        ),
        Mistake(
            "no_penalty",
            "Yours is the error alone. Without a price on the activations nothing makes them sparse.",
            lambda x, reconstruction, hidden, penalty: float(_error(x, reconstruction).mean()),
        ),
        Mistake(
            "length",
            "Yours has the *length* of the error. Asked is its square.",
            lambda x, reconstruction, hidden, penalty: float(
                (_error(x, reconstruction).sqrt() + penalty * hidden.abs().sum(-1)).mean()
            ),
        ),
        Mistake(
            "summed",
            "Yours adds up over the tokens. Take the mean over them, so that batches of any size compare.",
            lambda x, reconstruction, hidden, penalty: float(
                (_error(x, reconstruction) + penalty * hidden.abs().sum(-1)).sum()
            ),
        ),
    ),
    hints=(
        "Two numbers a token: the squared length of the error, and the sum of the activations' sizes.",
        "`(x - reconstruction).square().sum(-1)` and `hidden.abs().sum(-1)` are both [token].",
        "Return `float((error + penalty * size).mean())`.",
    ),
    discussion="Unit-norm rows belong to this loss. If a row could grow, its activation could shrink by as much at the "
    "same reconstruction, and the price would be evaded.",
)


# recovered ----------------------------------------------------------------------------------------------------


def recovered(truth: Float[Tensor, "feature d"], W_dec: Float[Tensor, "d_sae d"], bar: float) -> int:
    found = 0
    for feature in truth:
        cosines = [float(feature @ row / feature.norm() / row.norm()) for row in W_dec]
        found += max(cosines) >= bar
    return found


@lru_cache(maxsize=256)
def _found(seed: int, features: int, d: int) -> tuple:
    """A dictionary that has some features twice, one turned round, and misses some."""
    for attempt in count():
        rng, g = random.Random(seed + 1000 * attempt), _generator(seed + 1000 * attempt)
        truth = torch.randn(features, d, generator=g)
        truth = _unit(truth) * torch.linspace(0.5, 1.5, features)[torch.randperm(features, generator=g), None]
        order = rng.sample(range(features), features)
        kept = order[: features - 3]
        rows = [_unit(truth[i]) + 0.02 * torch.randn(d, generator=g) for i in kept]
        rows += [_unit(truth[i]) + 0.02 * torch.randn(d, generator=g) for i in kept[:2]]
        rows += [-_unit(truth[order[-1]]), *torch.randn(2, d, generator=g)]
        W_dec = _unit(torch.stack(rows))
        case = (truth, W_dec, 0.95)
        answers = [recovered(*case), *(slip(*case) for slip in CONFUSED_RECOVERY.values())]
        if len(set(map(float, answers))) == len(answers):
            return case
    raise AssertionError("an endless count has an end")


def _cosines(truth: Tensor, W_dec: Tensor) -> Float[Tensor, "feature d_sae"]:
    return _unit(truth) @ _unit(W_dec).T


CONFUSED_RECOVERY: dict[str, Callable[..., Any]] = {
    "rows": lambda truth, W_dec, bar: int((_cosines(truth, W_dec).amax(0) >= bar).sum()),
    "either_sign": lambda truth, W_dec, bar: int((_cosines(truth, W_dec).abs().amax(1) >= bar).sum()),
    "not_unit": lambda truth, W_dec, bar: int(((truth @ W_dec.T).amax(1) >= bar).sum()),
    "mean": lambda truth, W_dec, bar: float(_cosines(truth, W_dec).amax(1).mean()),
    "share": lambda truth, W_dec, bar: float((_cosines(truth, W_dec).amax(1) >= bar).float().mean()),
    "missed": lambda truth, W_dec, bar: int((_cosines(truth, W_dec).amax(1) < bar).sum()),
}

RECOVERED = Exercise(
    id="08_recovered",
    kind="finding",
    level=2,
    points=2,
    minutes=8,
    reference=recovered,
    cases=lambda seed: [_found(seed, 9, 6), _found(seed + 100, 11, 8)],
    mistakes=(
        Mistake(
            "rows",
            "Yours counts the dictionary's rows that match a feature. Two rows may match the same one: count "
            "*features* that have a row.",
            CONFUSED_RECOVERY["rows"],
        ),
        Mistake(
            "either_sign",
            "Yours lets a row that points the *opposite* way count. An activation is never negative, so a feature and "
            "its opposite are two features: keep the cosine's sign.",
            CONFUSED_RECOVERY["either_sign"],
        ),
        Mistake(
            "not_unit",
            "Yours takes dot products. A true feature's vector need not have length 1: divide by it.",
            CONFUSED_RECOVERY["not_unit"],
        ),
        Mistake("mean", "Yours is a mean cosine. Asked is how many features reach the bar.", CONFUSED_RECOVERY["mean"]),
        Mistake("share", "Yours is a share. Asked is the number of features.", CONFUSED_RECOVERY["share"]),
        Mistake("missed", "Yours counts those that are *missed*.", CONFUSED_RECOVERY["missed"]),
    ),
    hints=(
        "With every vector at length 1, one matrix product gives all cosines: [feature d_sae].",
        "The best row of each feature is a maximum over the second axis.",
        "Return `int(((unit(truth) @ unit(W_dec).T).amax(1) >= bar).sum())`, with "
        "`unit = lambda v: v / v.norm(dim=-1, keepdim=True)`.",
    ),
    discussion="Only in a toy can this be asked: there is a truth to compare with. On a real model nobody hands you "
    "one, and every score of the coming sections stands in for it.",
)


# relative_bias ------------------------------------------------------------------------------------------------


def relative_bias(
    x: Float[Tensor, "token d"], reconstruction: Float[Tensor, "token d"], b_dec: Float[Tensor, " d"]
) -> float:
    own, shared = 0.0, 0.0
    for each, rebuilt in zip(x, reconstruction, strict=True):
        own += float((rebuilt - b_dec) @ (rebuilt - b_dec))
        shared += float((rebuilt - b_dec) @ (each - b_dec))
    return own / shared


def _shrunk(seed: int, tokens: int, d: int) -> tuple:
    g = _generator(seed)
    b_dec = torch.randn(d, generator=g)
    x = b_dec + torch.randn(tokens, d, generator=g)
    kept = random.Random(seed).uniform(0.5, 0.8)
    return (x, b_dec + kept * (x - b_dec) + 0.2 * torch.randn(tokens, d, generator=g), b_dec)


RELATIVE_BIAS = Exercise(
    id="08_relative_bias",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=relative_bias,
    cases=lambda seed: [_shrunk(seed, 30, 4), _shrunk(seed + 100, 20, 6)],
    mistakes=(
        Mistake(
            "by_the_input",
            "Yours divides by the *input's* squared length, x · x. Then whatever the dictionary leaves out looks like "
            "shrinkage too. Below the line stands x̂ · x.",
            lambda x, reconstruction, b_dec: float(
                ((reconstruction - b_dec) * (x - b_dec)).sum() / (x - b_dec).square().sum()
            ),
        ),
        Mistake(
            "inverted",
            "Yours is upside down: it says by what to *multiply* x̂. Return how much of its due length x̂ has.",
            lambda x, reconstruction, b_dec: 1 / relative_bias(x, reconstruction, b_dec),
        ),
        Mistake(
            "not_centred",
            "Yours measures from the origin. What the features write starts at `b_dec`: subtract it from both.",
            lambda x, reconstruction, b_dec: float(reconstruction.square().sum() / (reconstruction * x).sum()),
        ),
        Mistake(
            "lengths",
            "Yours is a ratio of lengths, |x̂| to |x|. What the dictionary leaves out makes x̂ shorter, too, without "
            "any shrinkage. Compare x̂ · x̂ with x̂ · x.",
            lambda x, reconstruction, b_dec: float(
                ((reconstruction - b_dec).square().sum() / (x - b_dec).square().sum()).sqrt()
            ),
        ),
        Mistake(
            "mean_of_ratios",
            "Yours takes the ratio token by token and averages: a token with x̂ · x near zero then decides. Add up "
            "over all tokens first, above and below.",
            lambda x, reconstruction, b_dec: float(
                ((reconstruction - b_dec).square().sum(-1) / ((reconstruction - b_dec) * (x - b_dec)).sum(-1)).mean()
            ),
        ),
        Mistake(
            "missing_part",
            "Yours is the part that is *missing*. Return what is there: 1 for no shrinkage.",
            lambda x, reconstruction, b_dec: 1 - relative_bias(x, reconstruction, b_dec),
        ),
    ),
    hints=(
        "Subtract `b_dec` from both. Then two sums over all tokens and dimensions.",
        "Above the line x̂ · x̂, below it x̂ · x.",
        "`out, true = reconstruction - b_dec, x - b_dec`, then `float((out * out).sum() / (out * true).sum())`.",
    ),
    discussion="A dictionary that leaves something out need not be biased; one that turns everything down is. The L1 "
    "penalty is paid on every activation, so each settles a little below the value that would fit best.",
)


# top_k --------------------------------------------------------------------------------------------------------


def top_k(readings: Float[Tensor, "token d_sae"], k: int) -> Float[Tensor, "token d_sae"]:
    rows = []
    for row in readings.tolist():
        best = sorted(range(len(row)), key=lambda i: row[i], reverse=True)[:k]
        rows.append([max(row[i], 0.0) if i in best else 0.0 for i in range(len(row))])
    return torch.tensor(rows)


def _keep(values: Tensor, chosen_by: Tensor, k: int) -> Tensor:
    best = chosen_by.topk(k).indices
    return torch.zeros_like(values).scatter(-1, best, values.gather(-1, best))


def _over_the_batch(readings: Tensor, k: int) -> Tensor:
    flat = readings.relu().flatten()
    return _keep(flat, flat, k * len(readings)).reshape(readings.shape)


def _readings(seed: int, tokens: int, features: int) -> Tensor:
    """Readings of tokens of different loudness, one of which has fewer features above zero than are kept."""
    readings = torch.randn(tokens, features, generator=_generator(seed))
    readings *= torch.linspace(0.3, 3, tokens)[:, None]
    readings[0] -= readings[0].topk(2).values[1] + 0.01  # one is left above zero
    return readings


TOP_K = Exercise(
    id="08_top_k",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=top_k,
    cases=lambda seed: [(_readings(seed, 7, 8), 3), (_readings(seed + 100, 9, 12), 4)],
    mistakes=(
        Mistake(
            "no_relu",
            "Yours keeps the largest readings even where they are negative. Where fewer than k are above zero, fewer "
            "are on: ReLU as well.",
            lambda readings, k: _keep(readings, readings, k),
        ),
        Mistake(
            "by_size",
            "Yours keeps those of the largest *size*, very negative readings among them. A feature that reads far "
            "below zero is not there: take the ReLU first.",
            lambda readings, k: _keep(readings, readings.abs(), k),
        ),
        Mistake(
            "by_size_then_relu",
            "Yours chooses by *size* and then drops what is negative, so that fewer than k stay. Take the ReLU first, "
            "then choose.",
            lambda readings, k: _keep(readings, readings.abs(), k).relu(),
        ),
        Mistake(
            "over_the_batch",
            "Yours keeps the largest of the whole batch, so loud tokens get more features than quiet ones (that is "
            "BatchTopK). Asked are k for each token.",
            _over_the_batch,
        ),
        Mistake(
            "over_tokens",
            "Yours keeps, for each *feature*, its k best tokens. Asked are, for each token, its k best features: the "
            "last axis.",
            lambda readings, k: _keep(readings.relu().T, readings.relu().T, k).T,
        ),
        Mistake(
            "ones",
            "Yours marks which features are on. Return by how much: their readings.",
            lambda readings, k: (top_k(readings, k) > 0).float(),
        ),
        Mistake(
            "values_only",
            "Yours returns the k values without their places. Keep the shape: [token d_sae], zero where a feature is "
            "off.",
            lambda readings, k: readings.relu().topk(k).values,
        ),
        Mistake(
            "only_relu", "Yours is a plain ReLU: all that read above zero stay on.", lambda readings, k: readings.relu()
        ),
    ),
    hints=(
        "`readings.relu().topk(k)` has the k largest of each token: `.values` and `.indices`.",
        "Put them back in their places: `torch.zeros_like(readings).scatter(-1, best.indices, best.values)`.",
    ),
    properties=(
        Property(
            "At most k features of a token are on; yours has more.",
            lambda result, readings, k: bool(((result != 0).sum(-1) <= k).all()),
        ),
    ),
    discussion="L0 is now chosen and not found by trial, and nothing pulls the activations down. The price: every "
    "token gets k features, a full stop as many as a name.",
    teaches=("TopK",),
)


# inflation ----------------------------------------------------------------------------------------------------


def inflation(lm: LanguageModel, data: Mapping[str, Any]) -> float:
    layer = lm.n_layers // 2
    rows = {"all": [], "rest": []}
    for text in data["texts"]:
        _, cache = run(lm, text, sites="resid_post", layers=layer)
        for position, row in enumerate(cache["resid_post", layer][0].double()):
            rows["all"].append(row)
            if position:
                rows["rest"].append(row)
    mean = {name: sum(each) / len(each) for name, each in rows.items()}
    spread = {name: sum(float((row - mean[name]) @ (row - mean[name])) for row in each) for name, each in rows.items()}
    return (spread["all"] / len(rows["all"])) / (spread["rest"] / len(rows["rest"]))


def _streams(lm: LanguageModel, data: Mapping[str, Any], layer: int | None = None) -> list[Tensor]:
    layer = lm.n_layers // 2 if layer is None else layer
    return [
        run(lm, text, sites="resid_post", layers=layer)[1]["resid_post", layer][0].double() for text in data["texts"]
    ]


def _variance(rows: Tensor) -> float:
    return float((rows - rows.mean(0)).square().sum(-1).mean())


def _inflated(
    lm: LanguageModel,
    data: Mapping[str, Any],
    *,
    layer: Callable[[LanguageModel], int] = lambda lm: lm.n_layers // 2,
    spread: Callable[[Tensor], float] = _variance,
    out: int = 0,
) -> float:
    streams = _streams(lm, data, layer(lm))
    rest = [torch.cat([each[:out], each[out + 1 :]]) if out >= 0 else each[:-1] for each in streams]
    return spread(torch.cat(streams)) / spread(torch.cat(rest))


def _texts(seed: int, *, real: bool) -> dict[str, Any]:
    rng = random.Random(seed)
    if real:
        return {"texts": [fact.prompt for fact in rng.sample(FACTS, 3 + seed % 3)]}
    return {"texts": [" " + " ".join(rng.sample(WORDS, 5 + number)) for number in range(3)]}


INFLATION = Exercise(
    id="08_inflation",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=inflation,
    library=_inflated,
    cases=lambda seed: [(MODEL, _texts(seed, real=True)), (Tiny(seed), _texts(seed, real=False))],
    mistakes=(
        Mistake(
            "inverted",
            "Yours is upside down: the variance of all positions stands above the line.",
            lambda lm, data: 1 / _inflated(lm, data),
        ),
        Mistake(
            "squared_length",
            "Yours compares mean squared *lengths*. Variance is the mean squared distance from the mean.",
            partial(_inflated, spread=lambda rows: float(rows.square().sum(-1).mean())),
        ),
        Mistake(
            "summed",
            "Yours compares sums, and one side has more tokens. Take the mean over the tokens.",
            partial(_inflated, spread=lambda rows: _variance(rows) * len(rows)),
        ),
        Mistake(
            "deviation",
            "Yours compares standard deviations. A variance is the square of that.",
            lambda lm, data: _inflated(lm, data) ** 0.5,
        ),
        Mistake(
            "each_text",
            "Yours takes a ratio for each text and averages. Put the tokens of all texts together, for one ratio.",
            lambda lm, data: sum(_inflated(lm, {"texts": [text]}) for text in data["texts"]) / len(data["texts"]),
        ),
        Mistake(
            "another_left_out",
            "Yours leaves out another position, say the last or the first word. The sink is position 0.",
            partial(_inflated, out=-1),
        ),
        Mistake(
            "last_layer",
            "Yours reads the last layer. Asked is the middle one: `lm.n_layers // 2`.",
            partial(_inflated, layer=lambda lm: lm.n_layers - 1),
        ),
        Mistake(
            "first_layer",
            "Yours reads layer 0. Asked is the middle one: `lm.n_layers // 2`.",
            partial(_inflated, layer=lambda lm: 0),
        ),
        Mistake(
            "first_text",
            "Yours looks at the first text only. Put the tokens of all texts together.",
            lambda lm, data: _inflated(lm, {"texts": data["texts"][:1]}),
        ),
    ),
    hints=(
        'For each text: `_, cache = mk.run(lm, text, sites="resid_post", layers=layer)`, then '
        '`cache["resid_post", layer][0]` is [pos d_model].',
        "Collect the streams of all texts, once with position 0 and once from position 1 on, and join each with "
        "`torch.cat`.",
        "`spread = lambda rows: (rows - rows.mean(0)).square().sum(-1).mean()`; return "
        "`float(spread(torch.cat(streams)) / spread(torch.cat([each[1:] for each in streams])))`.",
    ),
    discussion="Almost all of the variance is one position that says nothing about the text. A dictionary trained on "
    "that spends itself on it, and its variance explained looks splendid. So position 0 stays out, and a few other "
    "massive tokens with it; `mk.gather` counts what it leaves out.",
    tolerance=0.02,
    allowance="the variance of a few dozen tokens, divided by their number or by one less",
)


# fair_variance: repair ----------------------------------------------------------------------------------------


def fair_variance(
    x: Float[Tensor, "token d_model"],
    reconstruction: Float[Tensor, "token d_model"],
    position: Int[Tensor, " token"],
    trained: Bool[Tensor, " token"],
) -> float:
    kept = [i for i in range(len(x)) if position[i] > 0 and not trained[i]]
    mean = sum(x[i] for i in kept) / len(kept)
    left = sum(float((x[i] - reconstruction[i]) @ (x[i] - reconstruction[i])) for i in kept)
    whole = sum(float((x[i] - mean) @ (x[i] - mean)) for i in kept)
    return 1 - left / whole


FLAWS = {
    "sink": "it counts position 0, which holds most of the variance and is no feature's merit",
    "trained": "it counts the tokens that the dictionary was trained on: keep those that are not `trained`",
    "origin": "it measures the variance from the origin instead of from the mean, so that saying the mean every time "
    "already explains something",
}


def _explained(
    x: Tensor,
    reconstruction: Tensor,
    position: Tensor,
    trained: Tensor,
    *,
    flaws: Sequence[str] = (),
    by: str = "tokens",
    mean_of: str = "kept",
) -> float:
    kept = torch.ones(len(x), dtype=torch.bool)
    kept &= (position > 0) | ("sink" in flaws)
    kept &= ~trained | ("trained" in flaws)
    means = {"kept": x[kept].mean(0), "all": x.mean(0), "numbers": x[kept].mean().expand(x.shape[1])}
    centre = torch.zeros_like(x[0]) if "origin" in flaws else means[mean_of]
    left, whole = (x - reconstruction)[kept].square(), (x[kept] - centre).square()
    if by == "each_token":
        return float(1 - (left.sum(-1) / whole.sum(-1)).mean())
    if by == "each_dimension":
        return float(1 - (left.sum(0) / whole.sum(0)).mean())
    return float(1 - left.sum() / whole.sum())


def _flawed(flaws: Sequence[str]) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    return Mistake(
        "_".join(flaws),
        f"{'One flaw is' if len(flaws) == 1 else f'{len(flaws)} flaws are'} left: {found}.",
        partial(_explained, flaws=flaws),
    )


def _judged(seed: int, tokens: int, d: int) -> tuple:
    g = _generator(seed)
    position = torch.arange(tokens) % 6
    trained = torch.rand(tokens, generator=g) < 0.5
    trained[:12] = torch.arange(12) < 6  # some of every kind
    x = 1.0 + torch.randn(tokens, d, generator=g) * torch.linspace(0.5, 1.5, d)
    x[position == 0] += 30 * _unit(torch.randn(1, d, generator=g))
    noise = torch.where(trained, 0.3, 0.7)[:, None] * torch.randn(tokens, d, generator=g)
    return (x, x + noise, position, trained)


FAIR_VARIANCE = Exercise(
    id="08_fair_variance",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_variance,
    library=_explained,
    teaches=("variance_explained",),
    cases=lambda seed: [_judged(seed, 60, 5), _judged(seed + 100, 48, 8)],
    mistakes=(
        *(_flawed(flaws) for size in (1, 2, 3) for flaws in combinations(FLAWS, size)),
        Mistake(
            "only_trained",
            "Yours keeps the tokens that the dictionary *was* trained on, and drops the others. It is the other way "
            "round: `~trained`.",
            lambda x, reconstruction, position, trained: _explained(x, reconstruction, position, ~trained),
        ),
        Mistake(
            "one_number",
            "The flaws are mended, but yours takes off one number, the mean over tokens and dimensions alike. The mean "
            "is a vector: `x[kept].mean(0)`.",
            partial(_explained, mean_of="numbers"),
        ),
        Mistake(
            "each_token",
            "The flaws are mended, but yours takes a ratio for each token and averages. A token near the mean then "
            "counts as much as any: add up over the tokens first, above and below.",
            partial(_explained, by="each_token"),
        ),
        Mistake(
            "each_dimension",
            "The flaws are mended, but yours takes a ratio for each dimension and averages, so that dimensions in "
            "which little happens count as much as any. Add up over everything first.",
            partial(_explained, by="each_dimension"),
        ),
        Mistake(
            "mean_of_all",
            "Nearly: your mean is that of all tokens, the sink among them. Take the mean of the tokens that are kept.",
            partial(_explained, mean_of="all"),
        ),
        Mistake(
            "unexplained",
            "The flaws are mended, but yours is what is *left*. Return 1 minus that.",
            lambda x, reconstruction, position, trained: 1 - _explained(x, reconstruction, position, trained),
        ),
    ),
    hints=(
        "Three questions: which tokens may count, on which of those was it trained, and compared with what baseline?",
        "`kept = (position > 0) & ~trained`; use `x[kept]` and `reconstruction[kept]` from there on.",
        "`1 - (x - reconstruction).square().sum() / (x - x.mean(0)).square().sum()`, of the kept ones.",
    ),
    discussion="Each flaw flatters the dictionary, and each has been published. The honest number is lower; it still "
    "says nothing on whether the features mean anything: a good compression would get it as well.",
)


# detection_score ----------------------------------------------------------------------------------------------


def detection_score(predicted: Bool[Tensor, " place"], truth: Bool[Tensor, " place"]) -> float:
    right = {True: [], False: []}
    for said, is_on in zip(predicted.tolist(), truth.tolist(), strict=True):
        right[bool(is_on)].append(bool(said) == bool(is_on))
    return (sum(right[True]) / len(right[True]) + sum(right[False]) / len(right[False])) / 2


def _rates(predicted: Tensor, truth: Tensor) -> tuple[float, float, float]:
    """Which share of the on are said to be on, of the off to be off, and of those said to be on are."""
    hit, clear = predicted[truth].double().mean(), (~predicted[~truth]).double().mean()
    return float(hit), float(clear), float((predicted & truth).sum() / predicted.sum().clamp(min=1))


@lru_cache(maxsize=256)
def _said(seed: int, places: int) -> tuple:
    """Guesses about a feature that is seldom on, some right and some wrong of both kinds."""
    for attempt in count():
        g = _generator(seed + 1000 * attempt)
        truth = torch.rand(places, generator=g) < 0.25
        predicted = torch.where(torch.rand(places, generator=g) < 0.25, ~truth, truth)
        hit, clear, precise = _rates(predicted, truth)
        numbers = {round(each, 4) for each in (hit, clear, precise, (hit + clear) / 2)}
        if truth.sum() >= 3 and predicted.any() and len(numbers) == 4 and hit + clear > 1.1:
            return predicted, truth
    raise AssertionError("an endless count has an end")


DETECTION_SCORE = Exercise(
    id="08_detection_score",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=detection_score,
    cases=lambda seed: [_said(seed, 24), _said(seed + 100, 40)],
    mistakes=(
        Mistake(
            "accuracy",
            "Yours is plain accuracy. Most places are off, so *never* would score high without knowing anything. "
            "Take the share that is right among the on and among the off, and then their mean.",
            lambda predicted, truth: float((predicted == truth).double().mean()),
        ),
        Mistake(
            "hits_only",
            "Yours is the share of the on places that were found. *Always* would score 1: the off ones count too.",
            lambda predicted, truth: _rates(predicted, truth)[0],
        ),
        Mistake(
            "off_only",
            "Yours looks at the off places only. *Never* would score 1: the on ones count too.",
            lambda predicted, truth: _rates(predicted, truth)[1],
        ),
        Mistake(
            "precision",
            "Yours is the share of your alarms that are right. One safe guess would score 1: misses count too.",
            lambda predicted, truth: _rates(predicted, truth)[2],
        ),
        Mistake(
            "f1",
            "Yours is F1. It is a fair score, too, but what a coin gets depends on how often the feature is on; here a "
            "guess that knows nothing gets one half.",
            lambda predicted, truth: (
                2 / (1 / max(_rates(predicted, truth)[0], 1e-9) + 1 / max(_rates(predicted, truth)[2], 1e-9))
            ),
        ),
        Mistake(
            "precision_and_hits",
            "Yours is the mean of hits and of how many alarms were right: the off places do not enter it. Take the "
            "share that is right among the on and among the off.",
            lambda predicted, truth: (_rates(predicted, truth)[0] + _rates(predicted, truth)[2]) / 2,
        ),
        Mistake(
            "youden",
            "Yours is 0 for a guess that knows nothing: the sum of both shares less 1. Return their mean.",
            lambda predicted, truth: sum(_rates(predicted, truth)[:2]) - 1,
        ),
        Mistake(
            "summed",
            "Yours adds the two shares. Take their mean.",
            lambda predicted, truth: sum(_rates(predicted, truth)[:2]),
        ),
    ),
    hints=(
        "Part the places by the truth first: those in which the feature is on, and those in which it is off.",
        "Among the on: `predicted[truth].float().mean()`. Among the off: `(~predicted[~truth]).float().mean()`.",
        "Return the mean of the two.",
    ),
    properties=(Property("A score lies between 0 and 1; yours does not.", lambda result, *_: 0 <= float(result) <= 1),),
    discussion="*Always*, *never* and a coin all get one half, whatever the feature. So a score means something before "
    "any control is run; the controls then ask what *else* would get it.",
    teaches=("detection_score",),
)


# matched_direction: control -----------------------------------------------------------------------------------


def matched_direction(
    x: Float[Tensor, "token d_model"], direction: Float[Tensor, " d_model"], density: float
) -> Float[Tensor, " token"]:
    n = round(density * len(x))
    shadows = [float(row @ direction) / float(direction.norm()) for row in x]
    threshold = sorted(shadows, reverse=True)[n]
    return torch.tensor([max(shadow - threshold, 0.0) for shadow in shadows])


def _as_feature(
    x: Tensor,
    direction: Tensor,
    density: float,
    *,
    unit: bool = True,
    sign: int = 1,
    size: bool = False,
    shift: int = 0,
    whole: bool = False,
) -> Tensor:
    shadows = sign * x @ (direction / direction.norm() if unit else direction)
    shadows = shadows.abs() if size else shadows
    threshold = shadows.sort(descending=True).values[round(density * len(x)) + shift]
    return torch.where(shadows > threshold, shadows, 0.0) if whole else (shadows - threshold).relu()


def _cloud(seed: int, tokens: int, d: int) -> tuple:
    g = _generator(seed)
    return (2 + torch.randn(tokens, d, generator=g), 2.5 * torch.randn(d, generator=g), 5 / tokens)


MATCHED_DIRECTION = Exercise(
    id="08_matched_direction",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=matched_direction,
    library=_as_feature,
    cases=lambda seed: [_cloud(seed, 40, 4), _cloud(seed + 100, 60, 7)],
    mistakes=(
        Mistake(
            "above_zero",
            "Yours is on wherever the projection is positive, for about half of all tokens. A label of what is nearly "
            "always on is another game: put the threshold so that the share `density` is on.",
            lambda x, direction, density: (x @ (direction / direction.norm())).relu(),
        ),
        Mistake(
            "both_ends",
            "Yours is on at both ends of the direction. A feature has one end.",
            partial(_as_feature, size=True),
        ),
        Mistake("other_end", "Yours is on at the *other* end of the direction.", partial(_as_feature, sign=-1)),
        Mistake(
            "not_unit",
            "Yours does not divide by the direction's length, so its activations are in no known unit.",
            partial(_as_feature, unit=False),
        ),
        Mistake(
            "one_too_few",
            "Yours is on for one token too few: the threshold is the largest projection that is *off*, number n when "
            "counted from 0.",
            partial(_as_feature, shift=-1),
        ),
        Mistake(
            "one_too_many",
            "Yours is on for one token too many: the threshold is number n when counted from 0.",
            partial(_as_feature, shift=1),
        ),
        Mistake(
            "whole_projection",
            "Yours is on for the right tokens, but by the whole projection. A feature's activation starts at zero, at "
            "its threshold: subtract it.",
            partial(_as_feature, whole=True),
        ),
    ),
    hints=(
        "One number a token: `shadows = x @ direction / direction.norm()`.",
        "With `n = round(density * len(x))` the threshold is `shadows.sort(descending=True).values[n]`.",
        "Return `(shadows - threshold).relu()`.",
    ),
    properties=(
        Property(
            "As many tokens as `density` says are on, and nothing is negative; not in yours.",
            lambda result, x, direction, density: (
                bool((result >= 0).all()) and int((result > 0).sum()) == round(density * len(x))
            ),
        ),
    ),
    discussion="Same space, same text, on just as often, and found by nobody. Whatever a label can do for *this* is "
    "no merit of a dictionary. Mind that random directions do have top passages that look alike: the stream is full of "
    "structure, and the eye is kind.",
    control=True,
)


# label_control: design ----------------------------------------------------------------------------------------


def label_control(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"choice": "random_directions", "score": _mean_score(data["controls"]["random_directions"])}


def _mean_score(control: Mapping[str, Bool[Tensor, "feature place"]]) -> float:
    pairs = list(zip(control["predicted"], control["truth"], strict=True))
    return sum(detection_score(predicted, truth) for predicted, truth in pairs) / len(pairs)


CONTROLS = ("random_directions", "seen_text", "always", "mixed_places")


def _labelled(seed: int) -> dict[str, Any]:
    g, features, places = _generator(seed), 4, 30
    truth = torch.rand(len(CONTROLS), features, places, generator=g) < 0.3
    truth[..., :2], truth[..., 2:4] = True, False  # both kinds in each
    wrong = torch.tensor([0.4, 0.05, 0.0, 0.5])[:, None, None]
    predicted = truth ^ (torch.rand(truth.shape, generator=g) < wrong)
    predicted[CONTROLS.index("always")] = True
    tables = zip(CONTROLS, predicted, truth, strict=True)
    return {"controls": {name: {"predicted": said, "truth": on} for name, said, on in tables}}


def _other_control(name: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda data: {"choice": name, "score": _mean_score(data["controls"][name])}


def _scored(score: Callable[[Mapping[str, Tensor]], float]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda data: {"choice": "random_directions", "score": score(data["controls"]["random_directions"])}


LABEL_CONTROL = Exercise(
    id="08_label_control",
    kind="code",
    level=3,
    points=4,
    minutes=15,
    reference=label_control,
    cases=lambda seed: [(_labelled(seed),), (_labelled(seed + 100),)],
    mistakes=(
        Mistake(
            "seen_text",
            "On the text from which it was written a label scores well in any case. This cannot come out badly for "
            "the claim, so it cannot refute it.",
            _other_control("seen_text"),
        ),
        Mistake(
            "always",
            "*Always on* scores one half by the way in which the score is made. It tests the score, not the claim.",
            _other_control("always"),
        ),
        Mistake(
            "mixed_places",
            "With the places mixed up nothing foretells anything: one half, up to luck, whether the claim is true or "
            "not. It would find a leak in the code, not a fault in the claim.",
            _other_control("mixed_places"),
        ),
        Mistake(
            "accuracy",
            "The right control, but the number is a plain accuracy, which *never* would top. Use `detection_score`.",
            _scored(lambda control: float((control["predicted"] == control["truth"]).double().mean())),
        ),
        Mistake(
            "all_together",
            "The right control, but yours throws the places of all directions together. Score each direction by "
            "itself, then take the mean.",
            _scored(lambda control: detection_score(control["predicted"].flatten(), control["truth"].flatten())),
        ),
        Mistake(
            "first_only",
            "The right control, but yours is the score of the first direction only. Take the mean over all.",
            _scored(lambda control: detection_score(control["predicted"][0], control["truth"][0])),
        ),
    ),
    hints=(
        "The claim is about *features*. Its rival: any direction whatever would get such labels. In which control is "
        "the rival alive?",
        "Ask of each control: is there a world in which it comes out as high as the features do?",
        'One `detection_score(predicted, truth)` for each pair of `zip(control["predicted"], control["truth"])`, then '
        "the mean.",
    ),
    discussion="Same labeller, same unseen text, directions that nobody trained. Some do better than one half, since "
    "like tokens may lie far out along any direction; what counts is how much higher the features come out.",
    control=True,
    choice=True,
)


# without_feature ----------------------------------------------------------------------------------------------


def without_feature(
    x: Float[Tensor, "token d_model"],
    hidden: Float[Tensor, "token d_sae"],
    W_dec: Float[Tensor, "d_sae d_model"],
    b_dec: Float[Tensor, " d_model"],
    feature: int,
) -> Float[Tensor, "token d_model"]:
    rows = []
    for stream, activations in zip(x, hidden, strict=True):
        rebuilt = b_dec + sum(activations[i] * W_dec[i] for i in range(len(W_dec)))
        less = b_dec + sum(activations[i] * W_dec[i] for i in range(len(W_dec)) if i != feature)
        rows.append(less + (stream - rebuilt))  # the error stays
    return torch.stack(rows)


def _silenced(hidden: Tensor, feature: int) -> Tensor:
    return torch.cat([hidden[:, :feature], torch.zeros_like(hidden[:, :1]), hidden[:, feature + 1 :]], 1)


def _dictionary(seed: int, tokens: int, d: int, features: int) -> tuple:
    g = _generator(seed)
    W_dec = random_directions(features, d, seed=seed)
    b_dec, hidden = torch.randn(d, generator=g), _sparse(seed, tokens, features)
    x = hidden @ W_dec + b_dec + 0.5 * torch.randn(tokens, d, generator=g)
    return (x, hidden, W_dec, b_dec, 1 + random.Random(seed).randrange(features - 2))


WITHOUT_FEATURE = Exercise(
    id="08_without_feature",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=without_feature,
    library=lambda x, hidden, W_dec, b_dec, feature: x - hidden[:, feature, None] * W_dec[feature],
    cases=lambda seed: [_dictionary(seed, 7, 4, 6), _dictionary(seed + 100, 5, 6, 9)],
    mistakes=(
        Mistake(
            "error_lost",
            "Yours is the *reconstruction* without the feature. What the dictionary fails to rebuild is gone as well, "
            "and the damage would be that of the whole dictionary: subtract only this feature's part from `x`.",
            lambda x, hidden, W_dec, b_dec, feature: _silenced(hidden, feature) @ W_dec + b_dec,
        ),
        Mistake(
            "projected_out",
            "Yours projects the whole direction out of the stream, with what other features and the bias write along "
            "it, also where the feature is off. Subtract what *this feature* wrote: its activation times its row.",
            lambda x, hidden, W_dec, b_dec, feature: x - (x @ W_dec[feature])[:, None] * W_dec[feature],
        ),
        Mistake(
            "whole_row",
            "Yours subtracts the row itself, on every token alike. Multiply it by the feature's activation on each.",
            lambda x, hidden, W_dec, b_dec, feature: x - W_dec[feature],
        ),
        Mistake(
            "added",
            "Yours *adds* the feature's part once more. Subtract it.",
            lambda x, hidden, W_dec, b_dec, feature: x + hidden[:, feature, None] * W_dec[feature],
        ),
        Mistake(
            "alone",
            "Yours takes out everything *but* this feature.",
            lambda x, hidden, W_dec, b_dec, feature: hidden[:, feature, None] * W_dec[feature] + b_dec,
        ),
        Mistake(
            "others_out",
            "Yours takes out all the *other* features, and leaves this one.",
            lambda x, hidden, W_dec, b_dec, feature: x - _silenced(hidden, feature) @ W_dec,
        ),
        Mistake("unchanged", "Yours is the stream as it was.", lambda x, hidden, W_dec, b_dec, feature: x),
    ),
    hints=(
        "The stream is reconstruction plus error, and the reconstruction is a sum with one term a feature.",
        "The feature's term on every token: `hidden[:, feature, None] * W_dec[feature]`, [token d_model].",
        "Return `x` less that term; neither `b_dec` nor the other features are needed.",
    ),
    discussion="The error stays in. Else every ablation would carry the dictionary's own cost, and each "
    "feature would look important.",
)


# children -----------------------------------------------------------------------------------------------------


def children(
    small: Float[Tensor, "parent d_model"], large: Float[Tensor, "child d_model"], parent: int, bar: float
) -> list[int]:
    found = []
    for child, row in enumerate(large):
        cosines = [float(row @ each / row.norm() / each.norm()) for each in small]
        if max(range(len(small)), key=cosines.__getitem__) == parent and cosines[parent] >= bar:
            found.append((-cosines[parent], child))
    return [child for _, child in sorted(found)]


def _family(
    small: Tensor,
    large: Tensor,
    parent: int,
    bar: float,
    *,
    nearest: bool = True,
    unit: bool = True,
    size: bool = False,
    order: str = "closest",
) -> list[int]:
    table = _unit(large) @ _unit(small).T if unit else large @ small.T
    table = table.abs() if size else table
    kept = table[:, parent] >= bar
    kept &= (table.argmax(1) == parent) | (not nearest)
    found = sorted(kept.nonzero()[:, 0].tolist(), key=lambda child: -float(table[child, parent]))
    return {"closest": found, "farthest": found[::-1], "numbered": sorted(found)}[order]


CONFUSED_FAMILIES: dict[str, Callable[..., Any]] = {
    "of_another": partial(_family, nearest=False),
    "no_bar": lambda small, large, parent, bar: _family(small, large, parent, -1.0),
    "not_unit": partial(_family, unit=False),
    "either_sign": partial(_family, size=True),
    "numbered": partial(_family, order="numbered"),
    "farthest": partial(_family, order="farthest"),
    "only_one": lambda small, large, parent, bar: _family(small, large, parent, bar)[:1],
}


@lru_cache(maxsize=256)
def _grown(seed: int, d: int) -> tuple:
    """A small dictionary and a larger one whose rows scatter around the small one's rows, on which every slip shows."""
    for attempt in count():
        g = _generator(seed + 1000 * attempt)
        small = random_directions(4, d, seed=seed + 1000 * attempt)
        small[1] = small[0] + 0.9 * small[1]  # two parents that are close
        spread = torch.linspace(0.1, 1.2, 5).repeat(4)[:, None] / d**0.5
        large = small.repeat_interleave(5, 0) + spread * torch.randn(20, d, generator=g)
        large = torch.cat([_unit(large), -_unit(small)]) * (0.6 + torch.rand(24, 1, generator=g))
        large = large[torch.randperm(24, generator=g)]
        case = (small * torch.tensor([1.3, 0.8, 1.0, 1.1])[:, None], large, 0, 0.6)
        answers = [children(*case), *(slip(*case) for slip in CONFUSED_FAMILIES.values())]
        if len({str(each) for each in answers}) == len(answers) and len(answers[0]) >= 3:
            return case
    raise AssertionError("an endless count has an end")


CHILDREN = Exercise(
    id="08_children",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=children,
    library=_family,
    cases=lambda seed: [_grown(seed, 8), _grown(seed + 100, 12)],
    mistakes=(
        Mistake(
            "of_another",
            "Yours counts features that lie even nearer to *another* feature of the small dictionary: they are that "
            "one's children. Keep those whose nearest is `parent`.",
            CONFUSED_FAMILIES["of_another"],
        ),
        Mistake(
            "no_bar",
            "Yours counts every feature whose nearest is `parent`, however far. Everything has a nearest: the cosine "
            "must also reach the bar.",
            CONFUSED_FAMILIES["no_bar"],
        ),
        Mistake("not_unit", "Yours compares dot products. Divide by both lengths.", CONFUSED_FAMILIES["not_unit"]),
        Mistake(
            "either_sign",
            "Yours lets opposite directions count. An activation is never negative: the opposite is another feature.",
            CONFUSED_FAMILIES["either_sign"],
        ),
        Mistake(
            "numbered",
            "The right features, in order of their numbers: the closest comes first.",
            CONFUSED_FAMILIES["numbered"],
        ),
        Mistake(
            "farthest",
            "The right features, in the wrong order: the closest comes first.",
            CONFUSED_FAMILIES["farthest"],
        ),
        Mistake("only_one", "Yours is the closest one only. Asked are all children.", CONFUSED_FAMILIES["only_one"]),
    ),
    hints=(
        "All cosines at once, [child parent], from rows of length 1.",
        "Two conditions: `cosines.argmax(1) == parent` and `cosines[:, parent] >= bar`.",
        "Collect the numbers with `.nonzero()[:, 0].tolist()` and sort them by `-cosines[child, parent]`.",
    ),
    discussion="More room, finer features: what one direction stood for is now told apart. So there is no single true "
    "list of features to be found; a dictionary is a choice of grain.",
)


# feature_attribution ------------------------------------------------------------------------------------------


def feature_attribution(
    hidden: Float[Tensor, "token d_sae"],
    W_dec: Float[Tensor, "d_sae d_model"],
    direction: Float[Tensor, "token d_model"],
) -> Float[Tensor, "token d_sae"]:
    rows = []
    for activations, along in zip(hidden, direction, strict=True):
        rows.append(torch.stack([activations[i] * (W_dec[i] @ along) for i in range(len(W_dec))]))
    return torch.stack(rows)


def _directed(seed: int, tokens: int, d: int, features: int) -> tuple:
    g = _generator(seed)
    return (
        _sparse(seed, tokens, features),
        random_directions(features, d, seed=seed),
        torch.randn(tokens, d, generator=g),
    )


FEATURE_ATTRIBUTION = Exercise(
    id="08_feature_attribution",
    kind="code",
    level=2,
    points=2,
    minutes=6,
    reference=feature_attribution,
    library=lambda hidden, W_dec, direction: hidden * (direction @ W_dec.T),
    cases=lambda seed: [_directed(seed, 3, 4, 6), _directed(seed + 100, 2, 5, 8)],
    mistakes=(
        Mistake(
            "weights_only",
            "Yours says what each feature *would* write if it were on by 1. Multiply by how much it is on: most are "
            "not on at all.",
            lambda hidden, W_dec, direction: direction @ W_dec.T,
        ),
        Mistake(
            "unit_direction",
            "Yours scales the direction to length 1. Its length is part of the unit: leave it, and the parts add up in "
            "logits.",
            lambda hidden, W_dec, direction: hidden * (_unit(direction) @ W_dec.T),
        ),
        Mistake(
            "first_direction",
            "Yours uses the first token's direction for all. Each token has its own.",
            lambda hidden, W_dec, direction: hidden * (W_dec @ direction[0]),
        ),
        Mistake(
            "mean_direction",
            "Yours uses the mean of the directions for all. Each token has its own.",
            lambda hidden, W_dec, direction: hidden * (W_dec @ direction.mean(0)),
        ),
        Mistake(
            "sizes",
            "Yours has no signs. A feature may speak against the token: keep them.",
            lambda hidden, W_dec, direction: (hidden * (direction @ W_dec.T)).abs(),
        ),
        Mistake(
            "added_up",
            "Yours is the sum over the features. Keep them apart: [token d_sae].",
            lambda hidden, W_dec, direction: (hidden * (direction @ W_dec.T)).sum(-1),
        ),
    ),
    hints=(
        "A feature writes `hidden[token, i] * W_dec[i]`; how much of it points along `direction[token]`?",
        "`direction @ W_dec.T` is [token d_sae].",
        "Return `hidden * (direction @ W_dec.T)`.",
    ),
    discussion="A sum of parts again, as in chapter 04, with features in place of heads and layers; the bias and the "
    "error are parts, too. It is the *direct* effect: what later layers make of a feature is not in it.",
)


# upstream: transcoder -----------------------------------------------------------------------------------------


def upstream(
    hidden_in: Float[Tensor, "token up"],
    W_dec: Float[Tensor, "up d_model"],
    W_enc: Float[Tensor, "d_model down"],
    hidden_out: Float[Tensor, "token down"],
    feature: int,
) -> tuple[int, float]:
    on = [i for i in range(len(hidden_out)) if hidden_out[i, feature] > 0]
    best = (0, -float("inf"))
    for each in range(len(W_dec)):
        weight = float(W_dec[each] @ W_enc[:, feature])
        given = sum(float(hidden_in[i, each]) * weight for i in on) / len(on)
        if given > best[1]:
            best = (each, given)
    return best


def _given(
    hidden_in: Tensor,
    W_dec: Tensor,
    W_enc: Tensor,
    hidden_out: Tensor,
    feature: int,
    *,
    on: bool = True,
    rank: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda given, weights, active: given,
    value: Callable[[Tensor], Tensor] = lambda given: given,
    total: bool = False,
) -> tuple[int, float]:
    weights = W_dec @ W_enc[:, feature]
    kept = hidden_in[hidden_out[:, feature] > 0] if on else hidden_in
    given = kept.mean(0) * weights * (len(kept) if total else 1)
    best = int(rank(given, weights, kept.mean(0)).argmax())
    return best, float(value(given)[best])


def _given_where_both(
    hidden_in: Tensor, W_dec: Tensor, W_enc: Tensor, hidden_out: Tensor, feature: int
) -> tuple[int, float]:
    kept = hidden_in[hidden_out[:, feature] > 0]
    given = kept.sum(0) / (kept > 0).sum(0).clamp(min=1) * (W_dec @ W_enc[:, feature])
    return int(given.argmax()), float(given.max())


CONFUSED_SOURCES: dict[str, Callable[..., tuple[int, float]]] = {
    "weight_only": partial(_given, rank=lambda given, weights, active: weights),
    "activity_only": partial(_given, rank=lambda given, weights, active: active),
    "every_token": partial(_given, on=False),
    "by_size": partial(_given, rank=lambda given, weights, active: given.abs()),
}


@lru_cache(maxsize=256)
def _wired(seed: int, tokens: int, d: int) -> tuple:
    """Two dictionaries and their activations, on which each slip points to another feature."""
    for attempt in count():
        drawn = seed + 1000 * attempt
        g = _generator(drawn)
        up, down = 6, 5
        hidden_in = _sparse(drawn, tokens, up) * torch.linspace(0.3, 2.5, up)[torch.randperm(up, generator=g)]
        hidden_out = _sparse(drawn + 1, tokens, down, 0.2)
        feature = random.Random(drawn).randrange(down)
        case = (hidden_in, random_directions(up, d, seed=drawn), torch.randn(d, down, generator=g), hidden_out, feature)
        right, *wrong = [upstream(*case), *(slip(*case) for slip in CONFUSED_SOURCES.values())]
        if right[1] > 0.1 and right[0] not in {number for number, _ in wrong} and len(set(wrong)) == len(wrong):
            return case
    raise AssertionError("an endless count has an end")


UPSTREAM = Exercise(
    id="08_upstream",
    kind="finding",
    level=3,
    points=4,
    minutes=20,
    reference=upstream,
    library=_given,
    cases=lambda seed: [_wired(seed, 24, 5), _wired(seed + 100, 30, 8)],
    mistakes=(
        Mistake(
            "weight_only",
            "Yours has the largest *weight*. A feature that is hardly ever on when this one is gives it nothing: "
            "multiply by its activation.",
            CONFUSED_SOURCES["weight_only"],
        ),
        Mistake(
            "activity_only",
            "Yours is the feature that is most *on* at the same time. To be there is not to contribute: multiply by "
            "the weight.",
            CONFUSED_SOURCES["activity_only"],
        ),
        Mistake(
            "every_token",
            "Yours takes the mean over every token. Asked is who switches the feature on: the tokens where it is on.",
            CONFUSED_SOURCES["every_token"],
        ),
        Mistake(
            "by_size",
            "Yours has the largest contribution in *size*, and it is negative: that feature holds this one down. "
            "Asked is who drives it.",
            CONFUSED_SOURCES["by_size"],
        ),
        Mistake(
            "where_both",
            "Yours takes the mean where *both* are on. A feature that is off contributes nothing there, and that "
            "counts: the mean is over all tokens where the later one is on.",
            _given_where_both,
        ),
        Mistake(
            "summed",
            "The right feature, but its contribution is summed over the tokens. Take the mean.",
            partial(_given, total=True),
        ),
        Mistake(
            "number_only",
            "The right feature; return its contribution as well: (number, mean contribution).",
            lambda *case: _given(*case)[0],
        ),
        Mistake(
            "weight_returned",
            "The right feature, but the number is the weight. Return the mean contribution: activation times weight.",
            lambda *case: (_given(*case)[0], float((case[1] @ case[2][:, case[4]])[_given(*case)[0]])),
        ),
    ),
    hints=(
        "How much of one feature's row does the other's encoder read? `weights = W_dec @ W_enc[:, feature]`, [up].",
        "`on = hidden_out[:, feature] > 0`, then `hidden_in[on].mean(0) * weights` is the mean contribution of each.",
        "`best = int(given.argmax())`; return `(best, float(given[best]))`.",
    ),
    discussion="What a transcoder's feature writes goes straight into the stream that the other feature reads: no norm "
    "and no attention lie between, so the product of the two vectors *is* the wire. Whether cutting it matters is the "
    "next experiment.",
)


CHAPTER = Chapter(
    number="08",
    title="sparse autoencoders",
    notebook="08_sparse_autoencoders",
    question="Which features does the model itself use?",
    minutes=180,
    needs=("00", "01"),
    exercises=(
        ENCODE,
        SAE_LOSS,
        RECOVERED,
        RELATIVE_BIAS,
        TOP_K,
        INFLATION,
        FAIR_VARIANCE,
        DETECTION_SCORE,
        MATCHED_DIRECTION,
        LABEL_CONTROL,
        WITHOUT_FEATURE,
        CHILDREN,
        FEATURE_ATTRIBUTION,
        UPSTREAM,
    ),
    claim=Claim(
        statements={
            "true_features": Option(
                "the dictionary has found the features that the model truly uses",
                False,
                "On the toy that could be tested, and it held. Here two dictionaries of different size list different "
                "features, and nothing says which list is the model's own.",
            ),
            "foretold": Option(
                "many of its features can be foretold on unseen text from a short label",
                True,
                "Labels written from some passages foretell others, better than labels of directions that nobody "
                "trained.",
            ),
            "explained": Option(
                "the features explain nearly all of what the model does",
                False,
                "They rebuild most of one layer's variance. The loss still rises when the reconstruction is put in, "
                "and what a feature does was tested for a few.",
            ),
        },
        evidence={
            "readable": Option(
                "it can be read from the activations",
                False,
                "A dictionary is a reader, but the claim is about labels: they were scored on how they go along with "
                "activations.",
            ),
            "correlated": Option(
                "the label goes along with the activation, on text that it has not seen",
                True,
                "That is what a detection score measures, and all that it measures.",
            ),
            "necessary": Option(
                "without the features the model does worse",
                False,
                "That was shown for a few features, by taking them out. It is another claim than that their labels are "
                "right.",
            ),
            "sufficient": Option(
                "put in, a feature brings about what its label says",
                False,
                "Steering was tried on few features, and cost loss. The labels were not written from that.",
            ),
        },
        refuted_by={
            "random_as_good": Option(
                "labels of random directions, on as often, that foretell as well",
                True,
                "Then the labels would be no merit of the dictionary.",
            ),
            "seen": Option(
                "a higher score on the passages from which the labels were written",
                False,
                "That is to be expected of any label; the claim is about unseen text.",
            ),
            "variance": Option(
                "a low share of variance explained",
                False,
                "Few features could still be well labelled, and a perfect compression could have no label at all.",
            ),
            "other_size": Option(
                "a dictionary of another size with other features",
                False,
                "There is one, and its features can be labelled too. It refutes another statement: that this list is "
                "the only one.",
            ),
        },
    ),
)
