"""Chapter 04, the logit lens: what would the model say if it stopped here?"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import count, pairwise, product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.corpus import load_corpus
from mechkit.data.prompts import HIDDEN_FACTS, VISIBLE_FACTS, contrast
from mechkit.methods import lens, metrics
from mechkit.methods.affine import affine_lens
from mechkit.methods.attribution import logit_direction
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

NEAR_TOP = 10


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _prompts(seed: int, *kinds: str) -> list[str]:
    """Facts of these kinds, one each: the chapter's own for seed 0, a draw from the hidden ones for the rest."""
    facts = HIDDEN_FACTS if seed else VISIBLE_FACTS
    shuffled = random.Random(seed).sample(facts, len(facts)) if seed else facts
    one_each = {fact.kind: fact.prompt for fact in shuffled}
    return [one_each[kind] for kind in kinds]


@lru_cache(maxsize=64)
def _last_streams(lm: LanguageModel, prompt: str) -> Float[Tensor, "layer d_model"]:
    _, cache = run(lm, prompt, sites="resid_post")
    return cache.stack("resid_post")[:, 0, -1]


def _read(lm: LanguageModel, streams: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
    return lm.unembed(lm.final_norm(streams))


# rank_of ------------------------------------------------------------------------------------------------------


def rank_of(logits: Float[Tensor, " d_vocab"], token: int) -> int:
    rank = 0
    for logit in logits.tolist():
        if logit > logits[token].item():
            rank += 1
    return rank


def _with_ties(seed: int, tokens: Sequence[int]) -> Float[Tensor, " d_vocab"]:
    logits = torch.randn(200, generator=_generator(seed + 1))
    logits[list(tokens)] = logits[tokens[0]].item()
    return logits


RANK_OF = Exercise(
    id="04_rank_of",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=rank_of,
    library=lambda logits, token: int(metrics.rank_of(logits, token)),
    cases=lambda seed: [
        (torch.randn(50, generator=_generator(seed)), 7),
        *((_with_ties(seed, tokens=(17, 60, 150)), token) for token in (17, 60, 150)),
        (torch.arange(10.0), 9),
    ],
    mistakes=(
        Mistake(
            "counts_from_one",
            "Yours counts from 1, so the top token gets rank 1. Its rank is 0: the number of tokens strictly above it.",
            lambda logits, token: int((logits > logits[token]).sum()) + 1,
        ),
        Mistake(
            "counts_equals",
            "Yours counts the token itself, so the top token gets rank 1. Count only the tokens strictly above it: "
            "the top token has rank 0.",
            lambda logits, token: int((logits >= logits[token]).sum()),
        ),
        Mistake(
            "place_in_sorted_list",
            "Yours is the token's place in the sorted list, which is another number for each of several tokens with "
            "equal logits. Count the tokens with a strictly larger logit: equals then share a rank.",
            lambda logits, token: logits.argsort(descending=True).tolist().index(token),
        ),
        Mistake(
            "counts_below",
            "Yours counts the tokens *below*: a likely token would get a large rank. Count those with a larger logit.",
            lambda logits, token: int((logits < logits[token]).sum()),
        ),
        Mistake(
            "token_at_that_place",
            "Yours looks up which token stands at place number `token` of the sorted list. Asked is the other way "
            "round: at which place the token stands.",
            lambda logits, token: int(logits.argsort(descending=True)[token]),
        ),
    ),
    hints=(
        "A rank is a count. Of what?",
        "`logits > logits[token]` is a tensor of True and False; True counts as 1.",
        "Return `int((logits > logits[token]).sum())`.",
    ),
    discussion="A rank does not change when all logits are shifted or scaled, so it can be compared between layers "
    "whose logits live on different scales. It says nothing about *how far* behind a token is.",
)


# logit_lens ---------------------------------------------------------------------------------------------------


def logit_lens(resid: Float[Tensor, "layer pos d_model"], lm: LanguageModel) -> Float[Tensor, "layer pos d_vocab"]:
    layers = []
    for layer in resid:
        layers.append(torch.stack([lm.unembed(lm.final_norm(vector)) for vector in layer]))
    return torch.stack(layers)


def _streams(seed: int, lm: Tiny) -> tuple:
    return (3 * torch.randn(3, 4, lm.d_model, generator=_generator(seed)) + 0.5, lm)


LOGIT_LENS = Exercise(
    id="04_logit_lens",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=logit_lens,
    library=lens.logit_lens,
    cases=lambda seed: [_streams(seed, Tiny(seed)), _streams(seed, Tiny(seed, "gpt2"))],
    mistakes=(
        Mistake(
            "no_norm",
            "Yours goes straight to the unembedding. The unembedding has only ever seen normalised vectors: apply "
            "`lm.final_norm` first.",
            lambda resid, lm: lm.unembed(resid),
        ),
        Mistake(
            "unit_length",
            "Yours scales each vector to unit length. The model's final norm does more: it also has a learned gain for "
            "every coordinate (and in some families takes off the mean). Use `lm.final_norm`.",
            lambda resid, lm: lm.unembed(resid / resid.norm(dim=-1, keepdim=True)),
        ),
        Mistake(
            "probabilities",
            "Yours are probabilities. Return the logits, before the softmax: the next exercises need them.",
            lambda resid, lm: lm.unembed(lm.final_norm(resid)).softmax(-1),
        ),
    ),
    hints=(
        "What does the model itself do with the *last* residual stream? Do the same with every one.",
        "Two steps: `lm.final_norm(...)`, then `lm.unembed(...)`. Both work on any leading axes.",
        "Return `lm.unembed(lm.final_norm(resid))`.",
    ),
    discussion="At the last layer the lens is the model's own output: an identity, and the first thing to test in any "
    "lens that you meet. At every other layer it is a question that the model was never trained to answer.",
    teaches=("logit_lens", "AffineLens"),
)


# kl_by_layer --------------------------------------------------------------------------------------------------


def kl_by_layer(
    lens: Float[Tensor, "layer pos d_vocab"], final: Float[Tensor, "pos d_vocab"]
) -> Float[Tensor, " layer"]:
    means = []
    for layer in lens.double():
        total = 0.0
        for position, logits in enumerate(layer):
            p = torch.exp(final[position].double() - torch.logsumexp(final[position].double(), 0))
            q = torch.exp(logits - torch.logsumexp(logits, 0))
            total += sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True) if a > 0)
        means.append(total / len(layer))
    return torch.stack(means)


def _kl(final: Tensor, lens: Tensor) -> Tensor:
    p, q = final.log_softmax(-1), lens.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _kl_of_shares(final: Tensor, lens: Tensor) -> Tensor:
    p, q = final.softmax(-1), lens.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


def _logits(seed: int, *, spread: float) -> tuple[Tensor, Tensor]:
    """A lens's logits, this far spread, and the model's."""
    lens = spread * torch.randn(4, 5, 30, generator=_generator(seed))
    return lens, 2 * torch.randn(5, 30, generator=_generator(seed + 1))


UNDERFLOW = (
    "Yours takes the softmax first and its logarithm afterwards. Where logits lie more than about 100 apart, as in a "
    "real lens, the smaller probability rounds to 0 and its logarithm to −∞. Take the logarithm in one step: "
    "`log_softmax`."
)


KL_BY_LAYER = Exercise(
    id="04_kl_by_layer",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=kl_by_layer,
    library=lambda lens, final: metrics.kl_divergence(final.expand_as(lens), lens).mean(-1),
    cases=lambda seed: [_logits(seed, spread=2), _logits(seed + 10, spread=80)],
    mistakes=(
        Mistake(
            "reversed",
            "Yours is KL(lens ‖ final): the average is taken over what the lens believes. Asked is KL(final ‖ lens): "
            "weigh by the model's final probabilities, since they are the truth that the lens tries to predict.",
            lambda lens, final: _kl(lens, final.expand_as(lens)).mean(-1),
        ),
        Mistake("underflow", UNDERFLOW, lambda lens, final: _kl_of_shares(final, lens).mean(-1)),
        Mistake(
            "cross_entropy",
            "Yours is the cross-entropy, Σ p · (−ln q). Take off what the model's own uncertainty costs: inside the "
            "sum belongs p · (ln p − ln q), which is 0 where they agree.",
            lambda lens, final: -(final.softmax(-1) * lens.log_softmax(-1)).sum(-1).mean(-1),
        ),
        Mistake(
            "last_position",
            "Yours is the last position's KL alone. Take the mean over all positions: `.mean(-1)`.",
            lambda lens, final: _kl(final, lens)[:, -1],
        ),
        Mistake(
            "bits",
            "Yours is in bits (log to base 2). The course measures in nats: use the natural logarithm.",
            lambda lens, final: _kl(final, lens).mean(-1) / torch.log(torch.tensor(2.0)),
        ),
        Mistake(
            "mean_over_vocabulary",
            "Yours takes the mean over the vocabulary. A KL divergence is a sum over it: `.sum(-1)`, and only then the "
            "mean over positions.",
            lambda lens, final: _kl(final, lens).mean(-1) / lens.shape[-1],
        ),
        Mistake(
            "raw_logits",
            "Yours subtracts logits. Logits may be shifted by any constant, so take `log_softmax` of both first.",
            lambda lens, final: (final.softmax(-1) * (final - lens)).sum(-1).mean(-1),
        ),
        Mistake(
            "sum_over_positions",
            "Yours adds up the positions, so a longer text looks worse. Take their mean.",
            lambda lens, final: _kl(final, lens).sum(-1),
        ),
    ),
    hints=(
        "Turn both into log-probabilities with `.log_softmax(-1)`; call them p (final) and q (lens).",
        "KL(p ‖ q) = Σ exp(p) · (p − q) over the vocabulary, with p and q as logs.",
        "`(p.exp() * (p - q)).sum(-1).mean(-1)`; broadcasting lines up the positions.",
    ),
    properties=(
        Property("A KL divergence is never negative; yours is.", lambda result, *_: bool((result > -1e-6).all())),
    ),
    discussion="KL is 0 only where the lens says exactly what the model will say. Read it as the price, in nats a "
    "token, of betting on the lens instead of the model.",
    teaches=("kl_divergence",),
)


# lock_in ------------------------------------------------------------------------------------------------------


def lock_in(lm: LanguageModel, prompts: Sequence[str]) -> list[int]:
    layers = []
    for prompt in prompts:
        top = _read(lm, _last_streams(lm, prompt)).argmax(-1).tolist()
        layer = lm.n_layers - 1
        while layer > 0 and top[layer - 1] == top[-1]:
            layer -= 1
        layers.append(layer)
    return layers


def _answer_ranks(lm: LanguageModel, prompt: str) -> Int[Tensor, " layer"]:
    logits = _read(lm, _last_streams(lm, prompt))
    return (logits > logits[:, logits[-1].argmax(), None]).sum(-1)


def _from_then_on(yes: Sequence[bool]) -> int:
    return max((layer + 1 for layer, each in enumerate(yes) if not each), default=0)


LOCK_IN = Exercise(
    id="04_lock_in",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=lock_in,
    cases=lambda seed: [(MODEL, _prompts(seed, "capital", "landmark", "person", "opposite", "sequence", "daily life"))],
    mistakes=(
        Mistake(
            "last_wrong_layer",
            "Yours is the last layer at which the lens still says something else. The answer is locked in from the "
            "next layer on: one more.",
            lambda lm, prompts: [layer - 1 for layer in lock_in(lm, prompts)],
        ),
        Mistake(
            "near_the_top",
            "Yours asks for the answer to be near the top. Asked is that it is the lens's first choice, and stays it.",
            lambda lm, prompts: [_from_then_on((_answer_ranks(lm, each) < NEAR_TOP).tolist()) for each in prompts],
        ),
        Mistake(
            "first_time_on_top",
            "Yours is the first layer at which the answer is on top. It may be overtaken again: ask for the first "
            "layer from which it *stays* on top to the end.",
            lambda lm, prompts: [(_answer_ranks(lm, each) == 0).tolist().index(True) for each in prompts],
        ),
    ),
    hints=(
        "For one prompt: `top = logit_lens(...)[:, -1].argmax(-1)` is the lens's first choice at each layer.",
        "`top == top[-1]` says where the lens agrees with the model's own answer. You want the start of the last "
        "unbroken run of True.",
        "Walk down from the last layer while the one below agrees: "
        "`while layer > 0 and agrees[layer - 1]: layer -= 1`.",
    ),
    properties=(
        Property(
            "Every entry is a layer of this model, 0 for the first.",
            lambda result, lm, prompts: all(0 <= layer < lm.n_layers for layer in result),
        ),
    ),
    discussion="In the plain lens the answer appears only in the last layers, on every one of these prompts. Two "
    "explanations fit: the model decides late, or it decides early in a language that this lens cannot read. The "
    "lens alone cannot tell them apart.",
)


# fair_kl: repair ----------------------------------------------------------------------------------------------


def fair_kl(lm: LanguageModel, text: str) -> Float[Tensor, " layer"]:
    logits, cache = run(lm, lm.tokens(text), sites="resid_post")
    rows = []
    for layer in range(lm.n_layers):
        lens = _read(lm, cache["resid_post", layer][0])
        rows.append(sum(_kl(logits[0, i], lens[i]) for i in range(1, len(lens))) / (len(lens) - 1))
    return torch.stack(rows)


def _sentence(seed: int) -> str:
    """The first words of a passage that lenses are not fitted on."""
    texts = load_corpus()
    return " ".join(texts[-1 - seed % (len(texts) // 2)].split()[:10])


@lru_cache(maxsize=8)
def _kl_everywhere(lm: LanguageModel, text: str, *, prefix: bool, norm: bool) -> Float[Tensor, "layer pos"]:
    logits, cache = run(lm, lm.tokens(text) if prefix else lm.tokens(text, prefix=None), sites="resid_post")
    resid = cache.stack("resid_post")[:, 0]
    return torch.stack([_kl(logits[0], _read(lm, layer) if norm else lm.unembed(layer)) for layer in resid])


def _kl_each(lm: LanguageModel, text: str, kl: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, " layer"]:
    logits, cache = run(lm, text, sites="resid_post")
    return torch.stack([kl(logits[0], _read(lm, each))[1:].mean() for each in cache.stack("resid_post")[:, 0]])


def _kl_with_flaws(lm: LanguageModel, text: str, flaws: Sequence[str]) -> Float[Tensor, " layer"]:
    kl = _kl_everywhere(lm, text, prefix="prefix" not in flaws, norm="norm" not in flaws)
    return kl.mean(-1) if "sink" in flaws else kl[:, 1:].mean(-1)


FLAWS = {
    "prefix": "it runs the model on a text without its prefix token, which is not how this model is used",
    "norm": "it skips the final norm, so even the last layer differs from the model's own output",
    "sink": "it averages over position 0, the attention sink, which is like no other position",
}


def _flawed(flaws: Sequence[str]) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    return Mistake(
        "_".join(flaws),
        f"{'One flaw is' if len(flaws) == 1 else f'{len(flaws)} flaws are'} left: {found}.",
        lambda lm, text: _kl_with_flaws(lm, text, flaws),
    )


FAIR_KL = Exercise(
    id="04_fair_kl",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_kl,
    cases=lambda seed: [(MODEL, _sentence(seed))],
    mistakes=(
        *(
            _flawed([flaw for flaw, present in zip(FLAWS, chosen, strict=True) if present])
            for chosen in product((False, True), repeat=3)
            if any(chosen)
        ),
        Mistake("underflow", UNDERFLOW, lambda lm, text: _kl_each(lm, text, _kl_of_shares)),
        Mistake(
            "reversed",
            "The flaws are mended, but yours is KL(lens ‖ final). Asked is KL(final ‖ lens): weigh by the model's "
            "final probabilities.",
            lambda lm, text: _kl_each(lm, text, lambda final, lens: _kl(lens, final)),
        ),
    ),
    hints=(
        "What must the last value be, for any lens worth its name? Start from there.",
        "Compare `lm.tokens(text)` with `lm.tokens(text, prefix=None)`, and the norm of the residual stream at "
        "position 0 with that of the others.",
        "Three repairs: `lm.tokens(text)` with its prefix, `lm.final_norm` before `lm.unembed`, and positions `1:`.",
    ),
    properties=(
        Property(
            "At the last layer the lens is the model's own output, so the last value must be 0; yours is not.",
            lambda result, *_: abs(float(result[-1])) < 1e-3,
        ),
    ),
    discussion="Each flaw gives a smooth, plausible curve. Only an identity (zero at the last layer) and a look at the "
    "data (a position whose norm is hundreds of times the others') give them away.",
    tolerance=1e-3,
)


# fit_affine ---------------------------------------------------------------------------------------------------


def fit_affine(
    h: Float[Tensor, "token d_model"], target: Float[Tensor, "token d_model"], ridge: float
) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"]]:
    # ridge as data: extra rows that ask for W = I with weight sqrt(ridge), and say nothing of the bias
    h, target, size = h.double(), target.double(), h.shape[1]
    pull = ridge**0.5 * torch.eye(size, dtype=torch.float64)
    ones, zeros = torch.ones(len(h), 1, dtype=torch.float64), torch.zeros(size, 1, dtype=torch.float64)
    rows = torch.cat([torch.cat([h, ones], 1), torch.cat([pull, zeros], 1)])
    solution = torch.linalg.lstsq(rows, torch.cat([target, pull])).solution
    return solution[:-1].float(), solution[-1].float()


def _solve(h: Tensor, target: Tensor, ridge: float, *, centred: bool, towards: float) -> tuple[Tensor, Tensor]:
    h, target, size = h.double(), target.double(), h.shape[1]
    mean, goal = (h.mean(0), target.mean(0)) if centred else (torch.zeros(size), torch.zeros(size))
    eye = torch.eye(size, dtype=torch.float64)
    x, y = h - mean, target - goal
    weight = torch.linalg.solve(x.T @ x + ridge * eye, x.T @ y + towards * ridge * eye)
    return weight, goal - mean.to(weight.dtype) @ weight


def _transposed_throughout(h: Tensor, target: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    weight = fit_affine(h, target, ridge)[0].T
    return weight, target.mean(0) - h.mean(0) @ weight


def _penalised_bias(h: Tensor, target: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    x = torch.cat([h, torch.ones(len(h), 1)], 1).double()
    start = torch.eye(*(h.shape[1] + 1, h.shape[1]), dtype=torch.float64)
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    both = torch.linalg.solve(x.T @ x + ridge * eye, x.T @ target.double() + ridge * start)
    return both[:-1], both[-1]


def _pairs(seed: int, tokens: int = 60, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = _generator(seed)
    h = torch.randn(tokens, size, generator=generator) + torch.randn(size, generator=generator)
    mix = torch.randn(size, size, generator=generator)
    return h, h @ mix + 2.0 + 0.3 * torch.randn(tokens, size, generator=generator)


FIT_AFFINE = Exercise(
    id="04_fit_affine",
    kind="code",
    level=3,
    points=3,
    minutes=20,
    reference=fit_affine,
    cases=lambda seed: [(*_pairs(seed), 5.0), (*_pairs(seed + 1, tokens=6), 1.0)],
    mistakes=(
        Mistake(
            "towards_zero",
            "Yours pulls W towards zero, as ordinary ridge does. Here the pull is towards the identity: with no data, "
            "the lens should be the plain logit lens. Solve for the change W − I.",
            lambda h, target, ridge: _solve(h, target, ridge, centred=True, towards=0.0),
        ),
        Mistake(
            "no_bias",
            "Yours has no bias: it fits a line through the origin. Centre h and the target first; the bias is what is "
            "left of the means.",
            lambda h, target, ridge: _solve(h, target, ridge, centred=False, towards=1.0),
        ),
        Mistake(
            "penalised_bias",
            "Yours pulls the bias towards zero as well. The ridge is on W alone: the bias is free.",
            _penalised_bias,
        ),
        Mistake(
            "no_ridge",
            "Yours ignores `ridge`. With few tokens the fit then follows the noise.",
            lambda h, target, ridge: _solve(h, target, 1e-9, centred=True, towards=1.0),
        ),
        Mistake(
            "bias_of_target",
            "Your bias is the target's mean. That would be right if h were centred when the map is used; it is not, so "
            "take off what W makes of h's mean: `target.mean(0) - h.mean(0) @ W`.",
            lambda h, target, ridge: (fit_affine(h, target, ridge)[0], target.mean(0)),
        ),
        Mistake(
            "transposed_throughout",
            "Yours returns W transposed, and a bias that fits it. Here matrices multiply on the right, `h @ W + b`: "
            "solve with xᵀy on the right-hand side, not yᵀx, and return W as it comes.",
            _transposed_throughout,
        ),
        Mistake(
            "transposed",
            "Yours returns W transposed. Here matrices multiply on the right: `h @ W + b`.",
            lambda h, target, ridge: (fit_affine(h, target, ridge)[0].T, fit_affine(h, target, ridge)[1]),
        ),
    ),
    hints=(
        "Subtract the means of h and of the target: a free bias makes the fitted line pass through them.",
        "With x and y centred, setting the gradient to zero gives (xᵀx + ridge·I) W = xᵀy + ridge·I.",
        "`W = torch.linalg.solve(x.T @ x + ridge * I, x.T @ y + ridge * I)`, then "
        "`b = target.mean(0) - h.mean(0) @ W`.",
    ),
    discussion="A closed form needs no learning rate, no seed and no patience, and says exactly what it minimises: "
    "squared error in the residual stream. That is not what you care about in the end (the output distribution is), "
    "which is the gap that the tuned lens closes by gradient descent.",
    tolerance=1e-3,
    teaches=("LeastSquares", "fit_affine_lens"),
)


# arrival ------------------------------------------------------------------------------------------------------


def _ranks(lm: LanguageModel, prompts: Sequence[str], *, affine: bool) -> Float[Tensor, "prompt layer"]:
    return torch.stack([_affine_ranks(lm, each) if affine else _answer_ranks(lm, each) for each in prompts]).double()


@lru_cache(maxsize=64)
def _affine_ranks(lm: LanguageModel, prompt: str) -> Int[Tensor, " layer"]:
    streams = _last_streams(lm, prompt)
    logits = affine_lens(lm, load_corpus()).read(streams, lm)
    return (logits > logits[:, _read(lm, streams[-1]).argmax(), None]).sum(-1)


def _first(near: Sequence[bool]) -> int:
    return next((layer for layer, yes in enumerate(near) if yes), len(near) - 1)


def arrival(lm: LanguageModel, prompts: Sequence[str]) -> int:
    ranks = _ranks(lm, prompts, affine=True)
    for layer in range(lm.n_layers):
        if ranks[:, layer].quantile(0.5) < NEAR_TOP:
            return layer
    return lm.n_layers - 1


def _mean_arrival(lm: LanguageModel, prompts: Sequence[str]) -> int:
    return _first((_ranks(lm, prompts, affine=True).mean(0) < NEAR_TOP).tolist())


def _arrival_cases(seed: int) -> list[tuple]:
    """Twice three prompts: one whose answer arrives early, one late (the first in turn), and one between them.

    The facts are those which the default model finds so early or so late that first, last, mean and median differ.
    """
    rng, facts = random.Random(seed), {fact.subject: fact.prompt for fact in (HIDDEN_FACTS if seed else VISIBLE_FACTS)}
    if seed:
        early, late = rng.sample(("Moon", "France", "telephone"), 2), rng.choice(("Spain", "China", "Kenya", "Sweden"))
        between = rng.choice(("left", "law of gravity", "hear")), rng.choice(("life", "Louvre", "lunch", "present"))
        chosen = (late, early[0], between[0]), (early[1], "triangle", between[1])
    else:
        chosen = ("Japan", "Plants", "Great Wall"), ("paper", "Austria", "good")
    return [(MODEL, [facts[subject] for subject in subjects]) for subjects in chosen]


ARRIVAL = Exercise(
    id="04_arrival",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=arrival,
    cases=_arrival_cases,
    mistakes=(
        Mistake(
            "plain_lens",
            "Yours is where the answer arrives in the *plain* lens. Translate first: "
            "`mk.affine_lens(lm, mk.load_corpus()).read(...)`.",
            lambda lm, prompts: _first((_ranks(lm, prompts, affine=False).quantile(0.5, dim=0) < NEAR_TOP).tolist()),
        ),
        Mistake(
            "every_prompt",
            "Yours waits until the answer is near the top for *every* prompt. Asked is the median prompt: one stubborn "
            "fact should not decide.",
            lambda lm, prompts: _first((_ranks(lm, prompts, affine=True).amax(0) < NEAR_TOP).tolist()),
        ),
        Mistake(
            "any_prompt",
            "Yours is the first layer at which *some* prompt's answer is near the top. Asked is the median prompt.",
            lambda lm, prompts: _first((_ranks(lm, prompts, affine=True).amin(0) < NEAR_TOP).tolist()),
        ),
        Mistake(
            "mean",
            "Yours takes the *mean* rank over the prompts, which one stubborn fact with a rank in the thousands pulls "
            "up by itself. Asked is the median.",
            _mean_arrival,
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Asked is the median over all of them.",
            lambda lm, prompts: arrival(lm, prompts[:1]),
        ),
        Mistake(
            "a_layer_late",
            "Yours is one layer too late. Layers are counted from 0, and the first that fulfils the condition is the "
            "answer itself.",
            lambda lm, prompts: arrival(lm, prompts) + 1,
        ),
        Mistake(
            "a_layer_early",
            "Yours is one layer too early: the last at which the answer is *not yet* near the top. Asked is the next.",
            lambda lm, prompts: arrival(lm, prompts) - 1,
        ),
    ),
    hints=(
        "For each prompt: the streams at the last position, `mk.affine_lens(lm, mk.load_corpus()).read(streams, lm)`, "
        "and the rank of the model's own answer at each layer.",
        "Stack the ranks to [prompt, layer] and take the median over prompts.",
        f"The first layer whose median is below {NEAR_TOP}.",
    ),
    discussion="Translated, the answer shows up several layers before the plain lens sees it, and all at once: layers "
    "of almost nothing, then a jump. Chapter 07 will find what happens there: attention at the last token fetches it.",
)


# control: design ----------------------------------------------------------------------------------------------


def control(data: dict[str, Any], lm: LanguageModel) -> dict[str, Any]:
    return _control("shuffled", data, lm)


def _control(
    choice: str, data: dict[str, Any], lm: LanguageModel, *, tested: str = "", kl: Callable = _kl
) -> dict[str, Any]:
    weight, bias = fit_affine(*data["train"][choice], data["ridge"])
    h, target = data["test"][tested or choice]
    final = lm.unembed(lm.final_norm(target))
    lens = lm.unembed(lm.final_norm(h @ weight + bias))
    return {"choice": choice, "kl": float(kl(final, lens).mean())}


CONFUSED_CONTROLS: dict[str, Callable[[dict[str, Any], LanguageModel], dict[str, Any]]] = {
    "fitted_on_test": lambda data, lm: _control("shuffled", data | {"test": data["train"]}, lm),
    "tested_on_rotated": partial(_control, "shuffled", tested="rotated"),
    "tested_on_both_shuffled": partial(_control, "shuffled", tested="both_shuffled"),
    "tested_on_fewer": partial(_control, "shuffled", tested="fewer"),
    "reversed": partial(_control, "shuffled", kl=lambda final, lens: _kl(lens, final)),
}


@lru_cache(maxsize=64)
def _control_data(seed: int) -> dict[str, Any]:
    """Pairs on which no confusion gives the right number by chance."""
    lm = tiny_model(seed=seed)

    def telling(data: dict[str, Any]) -> bool:
        found = sorted(answer(data, lm)["kl"] for answer in (control, *CONFUSED_CONTROLS.values()))
        return all(above > 1.01 * below for below, above in pairwise(found))

    return next(filter(telling, (_control_pairs(seed + 1000 * attempt, lm.d_model) for attempt in count())))


def _control_pairs(seed: int, size: int) -> dict[str, Any]:
    generator = _generator(seed)
    pairs = _pairs(seed, tokens=440, size=size)
    (h, target), *held = zip(*(part.split([200, 60, 60, 60, 60]) for part in pairs), strict=True)
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
    order = torch.randperm(200, generator=generator)
    train = {
        "shuffled": (h[order], target),
        "rotated": (h @ rotation, target),
        "both_shuffled": (h[order], target[order]),
        "fewer": (h[:50], target[:50]),
    }
    test = dict(zip(train, held, strict=True))  # each control has held-out pairs of its own, never shuffled
    test["rotated"] = (test["rotated"][0] @ rotation, test["rotated"][1])
    return {"train": train, "test": test, "ridge": 5.0}


CONTROL = Exercise(
    id="04_control",
    kind="code",
    level=3,
    points=4,
    minutes=15,
    reference=control,
    cases=lambda seed: [(_control_data(seed), Tiny(seed))],
    mistakes=(
        Mistake(
            "rotated",
            "A rotation loses nothing: the fitted map simply turns it back. This could not refute the claim, since the "
            "information is all still there.",
            lambda data, lm: _control("rotated", data, lm),
        ),
        Mistake(
            "both_shuffled",
            "Shuffling both sides alike keeps every pair together: it is the same fit, in another order.",
            lambda data, lm: _control("both_shuffled", data, lm),
        ),
        Mistake(
            "fewer",
            "Fewer tokens make a worse lens, but one that still sees the stream it translates. If it did badly, that "
            "would say nothing about whether the map makes the answer up.",
            lambda data, lm: _control("fewer", data, lm),
        ),
        Mistake(
            "fitted_on_test",
            "Yours measures on the training pairs. What the map memorised would count as reading: use `data['test']`.",
            CONFUSED_CONTROLS["fitted_on_test"],
        ),
        *(
            Mistake(
                f"tested_on_{name}",
                f"The right control, but measured on another's test pairs. Use `data['test']['shuffled']`; yours are "
                f"those of `'{name}'`.",
                CONFUSED_CONTROLS[f"tested_on_{name}"],
            )
            for name in ("rotated", "both_shuffled", "fewer")
        ),
        Mistake(
            "reversed",
            "The right control, but yours is KL(lens ‖ final). Measure KL(final ‖ lens), as elsewhere.",
            CONFUSED_CONTROLS["reversed"],
        ),
    ),
    hints=(
        "The rival explanation: the map does not read the stream, it has learned what answers are likely *whatever it "
        "is given*. Which training set leaves a map nothing else to learn?",
        "A good control breaks exactly one thing: the link between a stream and what came of it.",
        "Fit on `data['train']['shuffled']`, measure the KL on `data['test']['shuffled']`, return both as a dict.",
    ),
    discussion="If the shuffled map had done as well as the real one, everything that the affine lens showed would "
    "have been the map's own doing. Keep in mind what it is *not*: a harder rival gives everybody the same good guess. "
    "The next cells meet both.",
    control=True,
    choice=True,
    tolerance=1e-3,
)


# head_attribution ---------------------------------------------------------------------------------------------


def head_attribution(
    z: Float[Tensor, "head d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    u: Float[Tensor, " d_model"],
    gain: Float[Tensor, " d_model"],
    scale: float,
) -> Float[Tensor, " head"]:
    shares = []
    for head in range(len(z)):
        share = 0.0
        for coordinate in range(len(u)):
            write = sum(z[head, i] * W_O[head, i, coordinate] for i in range(z.shape[1]))
            share += write / scale * gain[coordinate] * u[coordinate]
        shares.append(share)
    return torch.stack(shares)


def _writes(z: Tensor, W_O: Tensor) -> Tensor:
    return torch.einsum("hd,hdm->hm", z, W_O)


def _attribution_case(seed: int) -> tuple:
    generator = _generator(seed)
    z, W_O = torch.randn(4, 3, generator=generator), torch.randn(4, 3, 12, generator=generator)
    u, gain = torch.randn(12, generator=generator), 1 + torch.rand(12, generator=generator)
    return (z, W_O, u, gain, 2.5)


HEAD_ATTRIBUTION = Exercise(
    id="04_head_attribution",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=head_attribution,
    cases=lambda seed: [_attribution_case(seed)],
    mistakes=(
        Mistake(
            "no_scale",
            "Yours leaves out the final norm's scale. Shares then do not add up to the logit: divide by `scale`.",
            lambda z, W_O, u, gain, scale: (_writes(z, W_O) * gain) @ u,
        ),
        Mistake(
            "times_scale",
            "Yours multiplies by the scale. The norm *divides* by it.",
            lambda z, W_O, u, gain, scale: (_writes(z, W_O) * scale * gain) @ u,
        ),
        Mistake(
            "no_gain",
            "Yours leaves out the final norm's gain: each coordinate is multiplied by it before the unembedding "
            "reads it.",
            lambda z, W_O, u, gain, scale: _writes(z, W_O) @ u / scale,
        ),
        Mistake(
            "own_scale",
            "Yours normalises each head's write by its own size. There is one norm, at the end, over the sum of all "
            "writes: its scale is the same for every head, and is given.",
            lambda z, W_O, u, gain, scale: (
                (_writes(z, W_O) / _writes(z, W_O).square().mean(-1, keepdim=True).sqrt() * gain) @ u
            ),
        ),
        Mistake(
            "layer_total",
            "Yours is the whole layer's share. Keep the heads apart: one number a head.",
            lambda z, W_O, u, gain, scale: (_writes(z, W_O).sum(0) / scale * gain) @ u,
        ),
    ),
    hints=(
        "First what each head writes: `z[head] @ W_O[head]`, a vector of d_model.",
        "Then what the final norm makes of it with its scale held fixed: `write / scale * gain`.",
        "`(torch.einsum('hd,hdm->hm', z, W_O) / scale * gain) @ u`.",
    ),
    discussion="With the scale frozen the logit is linear in the writes, so the shares of all parts add up to it. "
    "What is frozen is a choice: a head that changes the *scale* is not credited for it.",
    teaches=("direct_logit_attribution", "logit_direction"),
)


# top_head -----------------------------------------------------------------------------------------------------


def top_head(lm: LanguageModel, data: dict[str, Any]) -> tuple[int, int]:
    return _argmax(_shares(lm, data).mean(0))


def _shares(lm: LanguageModel, data: dict[str, Any], *, against: bool = True) -> Float[Tensor, "prompt layer head"]:
    return _cached_shares(lm, *(tuple(data[key]) for key in ("prompts", "answers", "others")), against)


@lru_cache(maxsize=32)
def _cached_shares(
    lm: LanguageModel, prompts: tuple[str, ...], answers: tuple[str, ...], others: tuple[str, ...], against: bool
) -> Float[Tensor, "prompt layer head"]:
    shares = torch.zeros(len(prompts), lm.n_layers, lm.n_heads)
    for row, (prompt, *words) in zip(shares, zip(prompts, answers, others, strict=True), strict=True):
        answer, other = (lm.token_id(word) for word in words)
        _, cache = run(lm, prompt, sites=("z", "resid_post"))
        last = cache["resid_post", lm.n_layers - 1][:, -1]
        column = lm.W_U[:, answer] - lm.W_U[:, other] * against
        direction = logit_direction(lm.final_norm, last, column[None])[0]
        for layer, head in product(range(lm.n_layers), range(lm.n_heads)):
            write = cache["z", layer][0, -1, head] @ lm.W_O(layer)[head]
            row[layer, head] = write @ direction
    return shares


def _argmax(scores: Float[Tensor, "layer head"]) -> tuple[int, int]:
    return divmod(int(scores.argmax()), scores.shape[1])


def _capitals(seed: int) -> tuple:
    """Capital-city prompts with their answers, and each one's neighbour's answer as the contrast."""
    visible = [fact for fact in VISIBLE_FACTS if fact.kind == "capital"]
    hidden = [fact for fact in HIDDEN_FACTS if fact.kind == "capital"]
    facts = visible[:6] if seed == 0 else random.Random(seed).sample(hidden, min(6, len(hidden)))
    return (MODEL, contrast(facts))


@lru_cache(maxsize=64)
def _tiny_capitals(seed: int) -> dict[str, list[str]]:
    """Prompts on which a tiny model's heads are such that each known mistake points at another one."""
    lm = tiny_model(seed=seed)

    def confused(data: dict[str, list[str]]) -> bool:
        heads = [top_head(lm, data), *(found(lm, data) for found in CONFUSED.values())]
        return len(set(heads)) < len(heads)

    drawn = (_contrasted(random.Random(seed + 1000 * attempt).sample(CAPITALS, 4)) for attempt in count())
    return next(data for data in drawn if not confused(data))


def _contrasted(capitals: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    answers = [city for _, city in capitals]
    prompts = [f" the capital of{country} is in" for country, _ in capitals]
    return {"prompts": prompts, "answers": answers, "others": answers[1:] + answers[:1]}


# single tokens of a tiny model
CAPITALS = (
    (" France", " Paris"),
    (" Italy", " Rome"),
    (" Spain", " Madrid"),
    (" Germany", " Berlin"),
    (" England", " London"),
    (" Japan", " Tokyo"),
)
CONFUSED: dict[str, Callable[[LanguageModel, dict[str, Any]], tuple[int, int]]] = {
    "most_negative": lambda lm, data: _argmax(-_shares(lm, data).mean(0)),
    "first_prompt": lambda lm, data: _argmax(_shares(lm, data)[0]),
    "answer_alone": lambda lm, data: _argmax(_shares(lm, data, against=False).mean(0)),
    "magnitudes": lambda lm, data: _argmax(_shares(lm, data).abs().mean(0)),
}


TOP_HEAD = Exercise(
    id="04_top_head",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=top_head,
    cases=lambda seed: [_capitals(seed), (Tiny(seed), _tiny_capitals(seed))],
    mistakes=(
        Mistake(
            "most_negative",
            "Yours has the most *negative* share: it argues against the answer (or the two answers are swapped).",
            CONFUSED["most_negative"],
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Take the mean over the prompts, the last axis.",
            CONFUSED["first_prompt"],
        ),
        Mistake(
            "answer_alone",
            "Yours shares out the answer's logit alone. Much of that raises every capital alike: pass the other "
            "answers as well, and share out the difference.",
            CONFUSED["answer_alone"],
        ),
        Mistake(
            "magnitudes",
            "Yours takes magnitudes before the mean, so a head that helps on one prompt and hurts on the next looks "
            "large. Keep the signs.",
            CONFUSED["magnitudes"],
        ),
        Mistake(
            "counted_from_one",
            "Yours counts layers and heads from 1. Here both start at 0.",
            lambda lm, data: tuple(1 + number for number in top_head(lm, data)),
        ),
        Mistake(
            "head_first",
            "Yours is (head, layer). Heads are named layer first, as in L5H1.",
            lambda lm, data: top_head(lm, data)[::-1],
        ),
    ),
    hints=(
        "`mk.direct_logit_attribution(lm, prompts, answers, others).heads` has the shares of all heads: "
        "[layer head prompt].",
        "Average over the prompts (the last axis), then find the largest entry.",
        "`divmod(int(heads.argmax()), lm.n_heads)` turns the flat place into (layer, head).",
    ),
    properties=(
        Property(
            "It is a pair (layer, head) of the model it is given. (The check also gives it a tiny one: compute it from "
            "`lm` and `data`.)",
            lambda result, lm, data: 0 <= result[0] < lm.n_layers and 0 <= result[1] < lm.n_heads,
        ),
    ),
    discussion="One late head leads, with a few others behind it. The share is a *correlation* between what it wrote "
    "and the answer; whether the model needs it is the next question.",
)


# read_elsewhere -----------------------------------------------------------------------------------------------


def read_elsewhere(
    lm: LanguageModel, vector: Float[Tensor, " d_model"], prompt: str, layer: int
) -> Float[Tensor, " d_vocab"]:
    _, cache = run(lm, prompt, sites="resid_post", layers=layer)
    patched = cache["resid_post", layer].clone()
    patched[:, -1] = vector
    with edit(lm, Edit("resid_post", layer, lambda value: patched)):
        logits, _ = run(lm, prompt, sites=())
    return logits[0, -1]


def _with_edit(lm: LanguageModel, prompt: str | Tensor, place: Edit) -> Tensor:
    with edit(lm, place):
        return run(lm, prompt, sites=())[0][0, -1]


def _patch_case(seed: int, family: str) -> tuple:
    tiny, generator = Tiny(seed, family), _generator(seed)
    vector = 3 * torch.randn(tiny.d_model, generator=generator)
    country, city = random.Random(seed).choice(CAPITALS)
    return (tiny, vector, f"{city} is in{country} and", 1)


READ_ELSEWHERE = Exercise(
    id="04_read_elsewhere",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=read_elsewhere,
    cases=lambda seed: [_patch_case(seed, "llama"), _patch_case(seed + 1, "gpt2")],
    mistakes=(
        Mistake(
            "added",
            "Yours *adds* the vector to what stands there. Then two readings are mixed: replace it.",
            lambda lm, vector, prompt, layer: _with_edit(
                lm, prompt, Edit("resid_post", layer, lambda value: value + vector, position=-1)
            ),
        ),
        Mistake(
            "every_position",
            "Yours replaces the stream at every position, so the frame is gone. Give the edit `position=-1`.",
            lambda lm, vector, prompt, layer: _with_edit(
                lm, prompt, Edit("resid_post", layer, lambda value: vector.expand_as(value))
            ),
        ),
        Mistake(
            "a_layer_early",
            "Yours replaces what goes *into* the layer (resid_pre). Asked is what comes out of it: resid_post.",
            lambda lm, vector, prompt, layer: _with_edit(
                lm, prompt, Edit("resid_pre", layer, lambda value: vector.expand_as(value), position=-1)
            ),
        ),
        Mistake(
            "no_prefix",
            "Yours runs the prompt without its prefix token, which is not how this model is used. `mk.run(lm, prompt)` "
            "puts it first.",
            lambda lm, vector, prompt, layer: _with_edit(
                lm,
                lm.tokens(prompt, prefix=None),
                Edit("resid_post", layer, lambda value: vector.expand_as(value), position=-1),
            ),
        ),
        Mistake(
            "not_edited",
            "Yours gives what the model says without the vector: the edit did not reach the run. Call `mk.run` inside "
            "the `with` block, and return the new value from the change.",
            lambda lm, vector, prompt, layer: run(lm, prompt, sites=())[0][0, -1],
        ),
    ),
    hints=(
        "The change is a function of what stands at the place; yours ignores it and gives `vector`.",
        "What stands there has shape [batch, d_model]: `lambda value: vector.expand_as(value)`.",
        'Inside `with mk.edit(lm, mk.Edit("resid_post", layer, lambda value: vector.expand_as(value), position=-1)):` '
        "run the prompt, and return `logits[0, -1]`.",
    ),
    discussion="You have built the general tool of this field: run a model with one state taken from elsewhere. "
    "Activation patching (chapter 07) is the same edit, with another question.",
    teaches=("patchscope",),
    tolerance=1e-3,
)


CHAPTER = Chapter(
    number="04",
    title="the logit lens",
    notebook="04_logit_lens",
    question="What would the model say if it stopped here?",
    minutes=165,
    needs=("00",),
    exercises=(
        RANK_OF,
        LOGIT_LENS,
        KL_BY_LAYER,
        LOCK_IN,
        FAIR_KL,
        FIT_AFFINE,
        ARRIVAL,
        CONTROL,
        HEAD_ATTRIBUTION,
        TOP_HEAD,
        READ_ELSEWHERE,
    ),
    claim=Claim(
        statements={
            "unknown": Option(
                "the model does not know its answer before its last layers",
                False,
                "The plain lens suggested it; the affine lens and the patchscope, on the same streams, saw more. A "
                "reader that finds nothing shows that *it* finds nothing.",
            ),
            "readable_earlier": Option(
                "late in the model, but before the plain lens shows it, the answer can be read from the last position",
                True,
                "That is what the translated ranks showed, and maps fitted on shuffled pairs did not.",
            ),
            "stored": Option(
                "the head with the largest share is where the fact is stored",
                False,
                "A share says who wrote the answer at the last position, not where the fact came from; and taking the "
                "head away did not take away the whole difference.",
            ),
        },
        evidence={
            "readable": Option("a reader finds it", True, "A trained reader found it; nothing was changed."),
            "correlated": Option(
                "it goes along with the answer", False, "That is the word for the shares of section 6."
            ),
            "necessary": Option(
                "without it the answer is gone",
                False,
                "For that, you would have to take it away and see the answer go.",
            ),
            "sufficient": Option(
                "put in, it brings the answer",
                False,
                "For that, you would have to put it in and see the answer come.",
            ),
        },
        refuted_by={
            "late_prompt": Option(
                "another prompt whose answer arrives later",
                False,
                "The claim is about the typical prompt; one exception does not touch a median.",
            ),
            "blind_plain_lens": Option(
                "a plain lens that sees nothing at those layers",
                False,
                "It does see nothing, and that is part of the claim.",
            ),
            "shuffled": Option(
                "maps fitted on shuffled pairs that rank the answer as high",
                True,
                "Then the maps, not the streams, would know the answer.",
            ),
        },
    ),
)
