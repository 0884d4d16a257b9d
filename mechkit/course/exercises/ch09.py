"""Chapter 09, facts: where is a fact, and can it be rewritten?"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import combinations, count, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.fact_results import load_edits, load_traces
from mechkit.methods import editing
from mechkit.methods.editing import Rewrite, rewritten
from mechkit.methods.metrics import kl_divergence
from mechkit.methods.tracing import NoisyRuns, restore
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _apart(values: Sequence[float], by: float = 0.005) -> bool:
    """Whether no two of these lie close together, in shares of the larger one."""
    return all(above - below > by * max(abs(above), abs(below)) for below, above in pairwise(sorted(values)))


# recovered ----------------------------------------------------------------------------------------------------


def recovered(restored: Float[Tensor, "layer pos"], clean: float, noisy: float) -> Float[Tensor, "layer pos"]:
    shares = []
    for row in restored.tolist():
        shares.append([(value - noisy) / (clean - noisy) for value in row])
    return torch.tensor(shares)


def _restored(seed: int) -> tuple:
    table = torch.rand(3, 5, generator=_generator(seed))
    table[0, seed % 5], table[2, seed % 5] = 0.01, 0.97  # one below the noisy runs, one above the clean one
    return (table, 0.6 + 0.02 * (seed % 10), 0.05 + 0.01 * (seed % 7))


RECOVERED = Exercise(
    id="09_recovered",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=recovered,
    library=lambda restored, clean, noisy: (restored - noisy) / (clean - noisy),  # later answers give it one number
    cases=lambda seed: [_restored(seed), _restored(seed + 20)],
    mistakes=(
        Mistake(
            "share_of_clean",
            "Yours is the share of the clean probability. What the noise left over would count as recovered: take off "
            "`noisy`, above and below.",
            lambda restored, clean, noisy: restored / clean,
        ),
        Mistake(
            "no_baseline",
            "Yours divides by the right way, but starts from 0. The noisy runs still give the answer some probability: "
            "take `noisy` off what is restored, too.",
            lambda restored, clean, noisy: restored / (clean - noisy),
        ),
        Mistake(
            "not_divided",
            "Yours is the gain in probability. Divide it by what there was to gain, `clean - noisy`, so that facts of "
            "different certainty can be compared.",
            lambda restored, clean, noisy: restored - noisy,
        ),
        Mistake(
            "still_missing",
            "Yours is what is still missing: 0 where everything is back. Asked is what has come back.",
            lambda restored, clean, noisy: (clean - restored) / (clean - noisy),
        ),
        Mistake(
            "clipped",
            "Yours cuts at 0 and 1. A restored state may do harm, or more good than the clean run: keep what you find.",
            lambda restored, clean, noisy: ((restored - noisy) / (clean - noisy)).clamp(0, 1),
        ),
        Mistake(
            "no_harm",
            "Yours cuts at 0. A restored state may leave the answer less likely than the noise alone did: keep what "
            "you find.",
            lambda restored, clean, noisy: ((restored - noisy) / (clean - noisy)).clamp(min=0),
        ),
        Mistake(
            "no_more_than_all",
            "Yours cuts at 1. A restored state may do more good than the clean run: keep what you find.",
            lambda restored, clean, noisy: ((restored - noisy) / (clean - noisy)).clamp(max=1),
        ),
    ),
    hints=(
        "Two fixed points: a place that does nothing gives `noisy` and should score 0; one that does all gives `clean` "
        "and should score 1.",
        "It is a straight line through these two points.",
        "`(restored - noisy) / (clean - noisy)`.",
    ),
    discussion="The same scale as in chapter 07: 0 is the corrupted run, 1 the clean one. Values beyond 1 are no "
    "mistake: the rest of the noisy run may argue less against the answer than the clean one did.",
    teaches=("Trace",),
)


# blur ---------------------------------------------------------------------------------------------------------


def blur(
    embed: Float[Tensor, "draw pos d_model"], positions: Sequence[int], noise: Float[Tensor, "draw subject d_model"]
) -> Float[Tensor, "draw pos d_model"]:
    blurred = embed.clone()
    for draw in range(len(embed)):
        for i, position in enumerate(positions):
            blurred[draw, position] = embed[draw, position] + noise[draw, i]
    return blurred


def _blurred(embed: Tensor, where: Sequence[int], what: Tensor) -> Tensor:
    result = embed.clone()
    result[:, list(where)] = what
    return result


def _blur_case(seed: int) -> tuple:
    generator = _generator(seed)
    start = 1 + seed % 3
    embed = torch.randn(1, 7, 4, generator=generator).repeat(3, 1, 1)
    return (embed, [start, start + 1, start + 2], torch.randn(3, 3, 4, generator=generator))


BLUR = Exercise(
    id="09_blur",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=blur,
    cases=lambda seed: [_blur_case(seed), _blur_case(seed + 1)],
    mistakes=(
        Mistake(
            "replaced",
            "Yours puts the noise in the embedding's place. Add it: something of the token should remain.",
            lambda embed, positions, noise: _blurred(embed, positions, noise),
        ),
        Mistake(
            "last_token",
            "Yours blurs the subject's last token only. The others would still say who is meant: blur all of them.",
            lambda embed, positions, noise: _blurred(embed, positions[-1:], embed[:, positions[-1:]] + noise[:, -1:]),
        ),
        Mistake(
            "all_but_the_last",
            "Yours leaves the subject's last position without noise, as a slice leaves out its end. Blur all of "
            "`positions`.",
            lambda embed, positions, noise: _blurred(embed, positions[:-1], embed[:, positions[:-1]] + noise[:, :-1]),
        ),
        Mistake(
            "one_draw",
            "Yours uses the first draw of noise in every row. Each row gets its own, so that a mean over rows is a "
            "mean over noise.",
            lambda embed, positions, noise: _blurred(embed, positions, embed[:, positions] + noise[:1]),
        ),
        Mistake(
            "without_prefix",
            "Yours blurs one position too early. `positions` count the prefix token: use them as they are.",
            lambda embed, positions, noise: _blurred(
                embed, [each - 1 for each in positions], embed[:, [each - 1 for each in positions]] + noise
            ),
        ),
        Mistake(
            "one_noise_for_all",
            "Yours adds the first token's noise to every token of the subject. Each token gets its own: `noise[:, i]` "
            "at `positions[i]`.",
            lambda embed, positions, noise: _blurred(embed, positions, embed[:, positions] + noise[:, :1]),
        ),
    ),
    hints=(
        "Make a copy first (`embed.clone()`), then change the copy at `positions`.",
        "`copy[:, positions]` has shape [draw, subject, d_model]: the shape of the noise.",
        "`blurred = embed.clone()`, `blurred[:, positions] += noise`, return it.",
    ),
    discussion="The noise is a corruption that needs no second prompt. Its price: no text was ever embedded like this, "
    "so what the model then does, it does outside of anything that it has learned.",
    teaches=("NoisyRuns",),
)


# restore_state ------------------------------------------------------------------------------------------------


def restore_state(
    lm: LanguageModel,
    prompt: str,
    subject: Sequence[int],
    noise: Float[Tensor, "draw subject d_model"],
    place: tuple[int, int],
    token: int,
) -> float:
    layer, position = place
    _, cache = run(lm, prompt, sites="resid_post")
    clean = cache["resid_post", layer][0, position]
    found = []
    for each in noise:
        add = Edit("embed", None, lambda old, each=each: old + each, position=list(subject))
        put = Edit("resid_post", layer, lambda old: clean[None], position=position)
        with edit(lm, add, put):
            found.append(run(lm, prompt, sites=())[0][0, -1].softmax(-1)[token].item())
    return sum(found) / len(found)


def _noisy_logits(
    lm: LanguageModel, prompt: str, subject: Sequence[int], noise: Tensor, *edits: Edit
) -> Float[Tensor, "draw d_vocab"]:
    add = Edit("embed", None, lambda old: old + noise, position=list(subject))
    with edit(lm, add, *edits):
        return run(lm, lm.tokens(prompt).repeat(len(noise), 1), sites=())[0][:, -1]


def _put(lm: LanguageModel, prompt: str, site: str, layer: int, position: int | None, *, at: str = "") -> Edit:
    """Clean values of a site, at one position or at all; put in at another site if one is named."""
    value = run(lm, prompt, sites=site, layers=layer)[1][site, layer][0]
    there = value if position is None else value[position]
    return Edit(at or site, layer, lambda old: there.expand_as(old), position=position)


def _mean_probability(logits: Tensor, token: int) -> float:
    return logits.softmax(-1)[:, token].mean().item()


ROYAL = " the king of {country} is in the city of"  # each word one token of a tiny model


@lru_cache(maxsize=64)
def _state_case(seed: int, family: str) -> tuple:
    """A noisy prompt on which no confusion gives the right probability by chance."""
    lm = tiny_model(family, seed=seed)
    prompt = ROYAL.format(country=random.Random(seed).choice(("France", "Italy", "Spain", "Japan")))
    token = int(run(lm, prompt, sites=())[0][0, -1].argmax())
    for attempt in count():
        noise = 0.8 * torch.randn(3, 3, lm.d_model, generator=_generator(seed + 1000 * attempt))
        case = (prompt, [2, 3, 4], noise, (1, 4 - attempt % 3), token)
        if _apart([restore_state(lm, *case), *(found(lm, *case) for found in CONFUSED_STATES.values())]):
            return (Tiny(seed, family), *case)
    raise AssertionError("count() does not end")


CONFUSED_STATES: dict[str, Callable[..., float]] = {
    "not_restored": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise), token
    ),
    "every_position": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise, _put(lm, prompt, "resid_post", place[0], None)), token
    ),
    "a_layer_early": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise, _put(lm, prompt, "resid_pre", *place)), token
    ),
    "put_before_the_layer": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise, _put(lm, prompt, "resid_post", *place, at="resid_pre")), token
    ),
    "mlp_alone": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise, _put(lm, prompt, "mlp_out", *place)), token
    ),
    "mean_of_logits": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise, _put(lm, prompt, "resid_post", *place)).mean(0, keepdim=True), token
    ),
    "first_draw": lambda lm, prompt, subject, noise, place, token: _mean_probability(
        _noisy_logits(lm, prompt, subject, noise[:1], _put(lm, prompt, "resid_post", *place)), token
    ),
}


RESTORE_STATE = Exercise(
    id="09_restore_state",
    kind="code",
    level=2,
    points=3,
    minutes=15,
    reference=restore_state,
    cases=lambda seed: [_state_case(seed, "llama"), _state_case(seed + 1, "gpt2")],
    mistakes=(
        Mistake(
            "not_restored",
            "Yours is the noisy runs' probability: nothing was put back, or what was put back is noisy itself. Take "
            "the clean state from a run *outside* the edits.",
            CONFUSED_STATES["not_restored"],
        ),
        Mistake(
            "every_position",
            "Yours puts the whole layer back, at every position: then everything above is clean, whatever the layer. "
            "Give the edit `position=position`.",
            CONFUSED_STATES["every_position"],
        ),
        Mistake(
            "a_layer_early",
            "Yours puts back what goes *into* the layer (resid_pre). Asked is what comes out: resid_post.",
            CONFUSED_STATES["a_layer_early"],
        ),
        Mistake(
            "put_before_the_layer",
            "Yours takes the state after the layer and puts it *into* the layer (resid_pre), which then works on it "
            "twice. Put it where it came from: resid_post.",
            CONFUSED_STATES["put_before_the_layer"],
        ),
        Mistake(
            "mlp_alone",
            "Yours puts back the MLP's output alone. Asked is the whole state after the layer: resid_post.",
            CONFUSED_STATES["mlp_alone"],
        ),
        Mistake(
            "mean_of_logits",
            "Yours averages the logits over the draws and takes one softmax. Asked is the mean of the probabilities.",
            CONFUSED_STATES["mean_of_logits"],
        ),
        Mistake(
            "first_draw",
            "Yours uses the first draw of noise only. Run the prompt once for each: "
            "`lm.tokens(prompt).repeat(len(noise), 1)`.",
            CONFUSED_STATES["first_draw"],
        ),
    ),
    hints=(
        'First a clean run: `_, cache = mk.run(lm, prompt, sites="resid_post")`. Then one run with two edits.',
        'The first edit is on "embed" (layer None) at `position=subject` and adds the noise; the second on '
        '"resid_post" at `layer` and `position=position` returns the clean state, `clean.expand_as(old)`.',
        "Inside `with mk.edit(lm, add, put):` run `lm.tokens(prompt).repeat(len(noise), 1)`, and return "
        "`logits[:, -1].softmax(-1)[:, token].mean()`.",
    ),
    discussion="This is causal tracing: denoising with noise as the corruption. One number for each layer and position "
    "makes the map of the next section; `mk.trace` draws it faster, because it starts each run at the layer that "
    "is changed.",
    teaches=("NoisyRuns", "restore", "trace"),
    tolerance=1e-3,
)


# carrier ------------------------------------------------------------------------------------------------------


def carrier(lm: LanguageModel, data: dict[str, Any]) -> list[int]:
    found = []
    for prompt, subject, answer in zip(data["prompts"], data["subjects"], data["answers"], strict=True):
        runs, scores = NoisyRuns(lm, prompt, subject, draws=2), {}
        for position in runs.subject:
            restored = restore(runs, lm.token_id(answer), [("resid_post", lm.n_layers // 5, position)])
            scores[position] = restored.mean().item()
        found.append(max(scores, key=scores.get))
    return found


def _by_token(
    lm: LanguageModel, data: dict[str, Any], layer: int | None = None, *, beyond: bool = False
) -> list[dict[int, float]]:
    """For each fact, the probability with each of the subject's tokens restored; `beyond` it, with those behind too."""
    rows = zip(data["prompts"], data["subjects"], data["answers"], strict=True)
    return [_scores(lm, *row, lm.n_layers // 5 if layer is None else layer, beyond) for row in rows]


@lru_cache(maxsize=64)
def _scores(lm: LanguageModel, prompt: str, subject: str, answer: str, layer: int, beyond: bool) -> dict[int, float]:
    """The probability with each of some positions restored, by a whole run with a group of rows for each."""
    runs, token = _runs(lm, prompt, subject), lm.token_id(answer)
    positions = range(runs.subject[0], runs.tokens.shape[1]) if beyond else runs.subject
    groups = len(positions)
    noisy, clean = runs.noisy.resid_pre(0).repeat(groups, 1, 1), runs.values("resid_post")[layer]

    def put_back(old: Tensor) -> Tensor:
        for rows, position in zip(old.chunk(groups), positions, strict=True):
            rows[:, position] = clean[position]
        return old

    with edit(lm, Edit("resid_pre", 0, lambda _: noisy), Edit("resid_post", layer, put_back)):
        logits, _ = run(lm, runs.tokens.repeat(groups * runs.draws, 1), sites=())
    found = logits[:, -1].softmax(-1)[:, token].view(groups, runs.draws).mean(-1)
    return dict(zip(positions, found.tolist(), strict=True))


@lru_cache(maxsize=64)
def _runs(lm: LanguageModel, prompt: str, subject: str, draws: int = 2) -> NoisyRuns:
    return NoisyRuns(lm, prompt, subject, draws=draws)


def _best(scores: dict[int, float]) -> int:
    return max(scores, key=lambda position: scores[position])


def _best_of_layers(lm: LanguageModel, data: dict[str, Any]) -> list[int]:
    """The subject's position with the largest value in any of some layers: low, the one asked for, and high."""
    tables = zip(*(_by_token(lm, data, layer) for layer in (0, None, 4 * lm.n_layers // 5)), strict=True)
    return [_best({i: max(scores[i] for scores in table) for i in table[0]}) for table in tables]


def _facts(*rows: tuple[str, str, str]) -> dict[str, list[str]]:
    return dict(zip(("prompts", "subjects", "answers"), map(list, zip(*rows, strict=True)), strict=True))


EIFFEL = ("The Eiffel Tower is located in the city of", "Eiffel Tower", " Paris")
# Three kinds of fact, each of which tells another short cut from what is asked.
CARRIED = {
    # restored after layer 0, another of the subject's tokens brings back most
    "layer_zero": (
        ("The Mona Lisa was painted by", "Mona Lisa", " Leonardo"),
        ("The Golden Gate Bridge is located in the state of", "Golden Gate Bridge", " California"),
        ("The Forbidden City is located in the country of", "Forbidden City", " China"),
    ),
    # the token behind the subject, which is a part of a name, brings back more than the subject's own
    "beyond": (
        ("The Great Barrier Reef is located in the country of", "Great Barrier", " Australia"),
        ("The Merchant of Venice was written by William", "Merchant of", " Shakespeare"),
    ),
    # the subject ends the prompt, so high up its last token is the late site
    "best_of_layers": (
        ("The tragedy by Shakespeare is called Romeo and", "Romeo and", " Juliet"),
        ("The play by Shakespeare is called Romeo and", "Romeo and", " Juliet"),
    ),
}


def _carried(seed: int) -> tuple:
    if seed == 0:
        return (MODEL, _facts(EIFFEL, CARRIED["beyond"][0], CARRIED["best_of_layers"][0]))
    rng = random.Random(seed)
    return (MODEL, _facts(*rng.sample([rng.choice(rows) for rows in CARRIED.values()], len(CARRIED))))


CARRIER = Exercise(
    id="09_carrier",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=carrier,
    cases=lambda seed: [_carried(seed)],
    mistakes=(
        Mistake(
            "last_token",
            "Yours is the subject's last token each time. That is the rule of the paper, and a tendency: here some "
            "subjects break it. Compute it for each.",
            lambda lm, data: [max(scores) for scores in _by_token(lm, data)],
        ),
        Mistake(
            "first_token",
            "Yours is the subject's first token each time. Restore each token's state and compare.",
            lambda lm, data: [min(scores) for scores in _by_token(lm, data)],
        ),
        Mistake(
            "layer_zero",
            "Yours restores the states after layer 0, which are little more than the tokens themselves. Asked is layer "
            "`lm.n_layers // 5`.",
            lambda lm, data: [_best(scores) for scores in _by_token(lm, data, 0)],
        ),
        Mistake(
            "best_of_layers",
            "Yours takes each position's best of several layers, so that early and late sites compete. Asked is one "
            "layer, `lm.n_layers // 5`.",
            _best_of_layers,
        ),
        Mistake(
            "beyond",
            "Yours looks at positions behind the subject, too; what stands there may have taken over who is meant. "
            "Asked is the best among the subject's own, `runs.subject`.",
            lambda lm, data: [_best(scores) for scores in _by_token(lm, data, beyond=True)],
        ),
        Mistake(
            "place_in_subject",
            "Yours counts within the subject, from 0. Asked is the position in the whole prompt, the prefix token "
            "being 0: `runs.subject[i]`.",
            lambda lm, data: [_best(scores) - min(scores) for scores in _by_token(lm, data)],
        ),
        Mistake(
            "without_prefix",
            "Yours is one too small: positions count the prefix token, which stands at 0.",
            lambda lm, data: [_best(scores) - 1 for scores in _by_token(lm, data)],
        ),
    ),
    hints=(
        "For each fact: `runs = mk.NoisyRuns(lm, prompt, subject, draws=2)`; its `runs.subject` lists the positions.",
        '`mk.restore(runs, lm.token_id(answer), [("resid_post", lm.n_layers // 5, position)]).mean()` is one place.',
        "Take the position with the largest mean: `max(runs.subject, key=score)`.",
    ),
    properties=(
        Property(
            "Each entry is a position of the subject's tokens, the prefix token being position 0.",
            lambda result, lm, data: all(
                int(each) in scores for each, scores in zip(result, _by_token(lm, data), strict=True)
            ),
        ),
    ),
    discussion="The last subject token is where a reader of English knows who is meant. The model may know before, "
    "after the first rare piece of a name: a guess that these facts cannot test. The next cells count how often "
    "the rule holds, and whether there is a carrier at all.",
)


# late_site ----------------------------------------------------------------------------------------------------


def late_site(recovered: Float[Tensor, "fact layer"]) -> int:
    means = [sum(column) / len(column) for column in recovered.T.tolist()]
    layer = len(means)
    while layer > 0 and means[layer - 1] > 0.5:
        layer -= 1
    return layer


def _from_then_on(yes: Tensor) -> int:
    no = (~yes).nonzero().flatten().tolist()
    return no[-1] + 1 if no else 0


def _staged_traces(seed: int) -> tuple:
    """Recovered shares at the last position, on which every short cut stops at another layer."""
    start = 2 + seed % 4
    mean = torch.tensor([0.0] * start + [0.1, 0.6, 0.45, 0.62, 0.62, 0.8, 0.95, 1.05])
    spread = torch.tensor([0.02] * start + [0.05, 0.1, 0.25, -0.3, 0.35, 0.33, 0.05, 0.05])
    others = torch.tensor([-1.0, 0.5, 0.5, 0.5])[torch.randperm(4, generator=_generator(seed))]
    return (mean + torch.cat([torch.tensor([-0.5]), others])[:, None] * spread,)


def _never_late(seed: int) -> tuple:
    """The same, cut off where the mean is back below a half, with more facts than layers."""
    (table,) = _staged_traces(seed)
    return (table[:, :-5].repeat(2, 1),)


def _shipped_traces(seed: int) -> tuple:
    traces = load_traces()
    names = random.Random(seed).sample(sorted(traces), 6) if seed else list(traces)[:6]
    return (torch.stack([traces[name]["resid_post"].recovered[:, -1] for name in names]),)


LATE_SITE = Exercise(
    id="09_late_site",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=late_site,
    cases=lambda seed: [_shipped_traces(seed), _staged_traces(seed), _staged_traces(seed + 9), _never_late(seed)],
    mistakes=(
        Mistake(
            "first_time",
            "Yours is the first layer above a half. Asked is the first from which the mean *stays* above, to the end.",
            lambda recovered: int((recovered.mean(0) > 0.5).int().argmax()),
        ),
        Mistake(
            "best_layer",
            "Yours is the layer that recovers most: the top of the curve. Asked is where the site begins.",
            lambda recovered: int(recovered.mean(0).argmax()),
        ),
        Mistake(
            "every_fact",
            "Yours asks *every* fact to be above a half. Asked is the mean over facts.",
            lambda recovered: _from_then_on(recovered.amin(0) > 0.5),
        ),
        Mistake(
            "first_fact",
            "Yours looks at the first fact only. Take the mean over facts, axis 0.",
            lambda recovered: _from_then_on(recovered[0] > 0.5),
        ),
        Mistake(
            "majority",
            "Yours asks most facts to be above a half. Asked is the mean over facts: take it first, then compare.",
            lambda recovered: _from_then_on((recovered > 0.5).float().mean(0) > 0.5),
        ),
        Mistake(
            "minus_one_for_never",
            "Right wherever the site begins; but where the mean does not stay above a half, the number of layers is "
            "asked, `recovered.shape[1]`.",
            lambda recovered: late_site(recovered) if late_site(recovered) < recovered.shape[1] else -1,
        ),
        Mistake(
            "facts_for_never",
            "Right wherever the site begins; but for never, `len(recovered)` is the number of facts. Asked is the "
            "number of layers, `recovered.shape[1]`.",
            lambda recovered: late_site(recovered) if late_site(recovered) < recovered.shape[1] else len(recovered),
        ),
        Mistake(
            "a_layer_early",
            "Yours is one too small: the last layer at which the mean is *not* above a half. Asked is the next.",
            lambda recovered: late_site(recovered) - 1,
        ),
    ),
    hints=(
        "`mean = recovered.mean(0)` has one number a layer.",
        "`mean > 0.5` says where; you want the start of the last unbroken run of yes.",
        "Walk down from the end: `while layer > 0 and mean[layer - 1] > 0.5: layer -= 1`, from `layer = len(mean)`.",
    ),
    discussion="Before this layer the last position does not hold enough; from then on its own state is enough. "
    "Something brought it there from the subject's tokens; which kind of layer, the next figure asks. Chapter 04 saw "
    "the same jump from the other side: its affine lens could read the answer from about here on.",
)


# first_mlp: control -------------------------------------------------------------------------------------------


def first_mlp(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    first, later = [], []
    for prompt, subject, answer in zip(data["prompts"], data["subjects"], data["answers"], strict=True):
        runs, token = NoisyRuns(lm, prompt, subject, draws=2), lm.token_id(answer)
        clean, noisy = runs.probabilities(token)
        for layers, shares in ((range(1), first), (range(1, lm.n_layers // 3 + 1), later)):
            places = [("mlp_out", layer, position) for layer in layers for position in runs.subject]
            shares.append((restore(runs, token, places).mean().item() - noisy) / (clean - noisy))
    return {"first": sum(first) / len(first), "later": sum(later) / len(later)}


def _mean_share(lm: LanguageModel, data: dict[str, Any], layers: tuple[int, ...], **how: Any) -> float:
    rows = list(zip(data["prompts"], data["subjects"], data["answers"], strict=True))
    return sum(_mlp_share(lm, *row, layers, **how) for row in rows) / len(rows)


@lru_cache(maxsize=256)
def _mlp_share(
    lm: LanguageModel,
    prompt: str,
    subject: str,
    answer: str,
    layers: tuple[int, ...],
    *,
    last_token: bool = False,
    scale: str = "recovered",
    draws: int = 2,
) -> float:
    """What these layers' MLPs, all together, bring back at the subject's tokens, by whole runs."""
    runs, token = _runs(lm, prompt, subject, draws), lm.token_id(answer)
    clean, noisy = runs.probabilities(token)
    start, chosen = runs.noisy.resid_pre(0), runs.subject[-1:] if last_token else runs.subject
    edits = [Edit("resid_pre", 0, lambda _: start)]
    for layer in layers:
        value = runs.values("mlp_out")[layer][chosen]
        edits.append(Edit("mlp_out", layer, lambda old, value=value: value.expand_as(old), position=chosen))
    with edit(lm, *edits):
        logits, _ = run(lm, runs.tokens.repeat(runs.draws, 1), sites=())
    found = _mean_probability(logits[:, -1], token)
    return {"recovered": (found - noisy) / (clean - noisy), "raw": found, "of_clean": found / clean}[scale]


def _one_by_one(lm: LanguageModel, data: dict[str, Any]) -> float:
    layers = range(1, lm.n_layers // 3 + 1)
    return sum(_mean_share(lm, data, (layer,)) for layer in layers) / len(layers)


def _mlp_data(seed: int) -> tuple:
    """One subject of one token, and one of several whose answer the noise leaves likely: it must be taken off."""
    single = (
        ("The capital of France is", "France", " Paris"),
        ("The capital of Germany is", "Germany", " Berlin"),
        ("The capital of Japan is", "Japan", " Tokyo"),
        ("The capital of Italy is", "Italy", " Rome"),
    )
    several = (
        ("The Golden Gate Bridge is located in the state of", "Golden Gate Bridge", " California"),
        ("The Hollywood Sign is located in the state of", "Hollywood Sign", " California"),
        ("Silicon Valley is located in the state of", "Silicon Valley", " California"),
    )
    rng = random.Random(seed)
    rows = (rng.choice(single), rng.choice(several)) if seed else (single[0], several[0])
    return (MODEL, _facts(*rows))


def _mlp_mistake(first: Sequence[int] = (0,), later: Callable[[int], Sequence[int]] | None = None, **how: Any) -> Any:
    def answer(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
        layers = tuple(range(1, lm.n_layers // 3 + 1) if later is None else later(lm.n_layers))
        return {
            "first": _mean_share(lm, data, tuple(first), **how),
            "later": _mean_share(lm, data, layers, **how),
        }

    return answer


FIRST_MLP = Exercise(
    id="09_first_mlp",
    kind="finding",
    level=2,
    points=3,
    minutes=15,
    reference=first_mlp,
    cases=lambda seed: [_mlp_data(seed)],
    mistakes=(
        Mistake(
            "with_the_first",
            "Your `later` holds layer 0 as well. The control is to leave it out: layers 1 to `lm.n_layers // 3`.",
            _mlp_mistake(later=lambda n: range(n // 3 + 1)),
        ),
        Mistake(
            "last_token",
            "Yours restores the subject's last token only. Restore all of the subject's tokens, `runs.subject`.",
            _mlp_mistake(last_token=True),
        ),
        Mistake(
            "a_layer_short",
            "Your `later` ends one layer early: `range` leaves its end out. Asked are layers 1 to `lm.n_layers // 3`, "
            "that one too.",
            _mlp_mistake(later=lambda n: range(1, n // 3)),
        ),
        Mistake(
            "four_draws",
            "Right, but with the four draws that `mk.NoisyRuns` makes by itself. Asked are two: `draws=2`.",
            _mlp_mistake(draws=4),
        ),
        Mistake(
            "raw",
            "Yours are probabilities. Asked are shares of what the noise took: use `recovered`, with "
            "`runs.probabilities(token)`.",
            _mlp_mistake(scale="raw"),
        ),
        Mistake(
            "of_clean",
            "Yours are shares of the clean probability. What the noise left over counts as brought back: take it off, "
            "above and below, as `recovered` does.",
            _mlp_mistake(scale="of_clean"),
        ),
        Mistake(
            "swapped",
            "Yours has the two names exchanged: `first` is layer 0 alone.",
            lambda lm, data: dict(zip(("later", "first"), first_mlp(lm, data).values(), strict=True)),
        ),
        Mistake(
            "first_fact",
            "Yours looks at the first fact only. Take the mean over the facts.",
            lambda lm, data: first_mlp(lm, {key: values[:1] for key, values in data.items()}),
        ),
        Mistake(
            "one_by_one",
            "Your `later` restores one layer at a time and takes their mean. Asked is what they bring back *together*: "
            "one list of places, over all of them.",
            lambda lm, data: first_mlp(lm, data) | {"later": _one_by_one(lm, data)},
        ),
    ),
    hints=(
        '`mk.restore(runs, token, [("mlp_out", 0, position) for position in runs.subject]).mean()` restores the first '
        "MLP at all of the subject's tokens.",
        "For `later`, one list of places over `range(1, lm.n_layers // 3 + 1)` and `runs.subject`, restored together.",
        "Turn each into a share with `recovered(value, *runs.probabilities(token))`, and take the mean over facts.",
    ),
    discussion="What the first MLP writes depends on little but its token: it has hardly read who the subject is. "
    "It is the rest of the embedding, which the noise took away. A window that holds layer 0 gives the token back, and "
    "that looks like a memory. What the later ones do by themselves is what is left for a claim about storage.",
    control=True,
    tolerance=5e-3,
    allowance="probabilities of noisy runs are small, and their ratio feels rounding",
)


# fair_recovery: repair ----------------------------------------------------------------------------------------


def fair_recovery(lm: LanguageModel, data: dict[str, Any]) -> float:
    prompt, subject, noise, token = (data[key] for key in ("prompt", "subject", "noise", "token"))
    clean = run(lm, prompt, sites=())[0][0, -1].softmax(-1)[token].item()
    each = [[noise[i : i + 1], []] for i in range(len(noise))]
    noisy = sum(_mean_probability(_noisy_logits(lm, prompt, subject, one), token) for one, _ in each) / len(each)
    found = restore_state(lm, prompt, subject, noise, (data["layer"], subject[-1]), token)
    return (found - noisy) / (clean - noisy)


def _with_flaws(lm: LanguageModel, data: dict[str, Any], flaws: Sequence[str]) -> float:
    prompt, subject, noise, token = (data[key] for key in ("prompt", "subject", "noise", "token"))
    place = _put(lm, prompt, "resid_post", data["layer"], subject[-1])
    if "token" in flaws:
        subject, noise = subject[-1:], noise[:, -1:]
    noisy = _noisy_logits(lm, prompt, subject, noise)
    if "answer" in flaws:
        token = int(noisy.mean(0).argmax())
    clean = run(lm, prompt, sites=())[0][0, -1].softmax(-1)[token].item()
    found, base = (
        _mean_probability(logits, token) for logits in (_noisy_logits(lm, prompt, subject, noise, place), noisy)
    )
    return found / clean if "baseline" in flaws else (found - base) / (clean - base)


def _of_the_end(lm: LanguageModel, data: dict[str, Any]) -> float:
    return fair_recovery(lm, data | {"token": int(lm.tokens(data["prompt"])[0, -1])})


FLAWS = {
    "token": "it blurs the subject's last token only, so the others still say who is meant",
    "answer": "it follows the token that the *noisy* runs like best, not the clean run's answer",
    "baseline": "it divides by the clean probability, so what the noise left over counts as recovered",
}
FLAWED = [flaws for size in (1, 2, 3) for flaws in combinations(FLAWS, size)]


@lru_cache(maxsize=64)
def _recovery_case(seed: int, family: str) -> tuple:
    """A model and noise under which every set of flaws gives another number."""
    for attempt in count():
        tiny = Tiny(seed + 100 * attempt, family)
        lm = tiny_model(family, seed=tiny.seed)
        prompt = ROYAL.format(country=random.Random(seed).choice(("France", "Italy", "Spain", "Japan")))
        token = int(run(lm, prompt, sites=())[0][0, -1].argmax())
        noise = 1.5 * torch.randn(3, 3, lm.d_model, generator=_generator(seed))
        data = {"prompt": prompt, "subject": [2, 3, 4], "noise": noise, "token": token, "layer": seed % 2}
        values = [fair_recovery(lm, data), _of_the_end(lm, data)]
        values += [_with_flaws(lm, data, flaws) for flaws in FLAWED]
        noisy = [_noisy_logits(lm, prompt, where, blur) for where, blur in (([2, 3, 4], noise), ([4], noise[:, -1:]))]
        same = all(each.mean(0).argmax() == each.softmax(-1).mean(0).argmax() for each in noisy)  # either way a flaw
        if same and _apart(values) and all(abs(each) < 20 for each in values):
            return (tiny, data)
    raise AssertionError("count() does not end")


FAIR_RECOVERY = Exercise(
    id="09_fair_recovery",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_recovery,
    cases=lambda seed: [_recovery_case(seed, "llama"), _recovery_case(seed + 1, "gpt2")],
    mistakes=(
        *(
            Mistake(
                "_".join(flaws),
                f"{'One flaw is' if len(flaws) == 1 else f'{len(flaws)} flaws are'} left: "
                f"{'; '.join(FLAWS[flaw] for flaw in flaws)}.",
                lambda lm, data, flaws=flaws: _with_flaws(lm, data, flaws),
            )
            for flaws in FLAWED
        ),
        Mistake(
            "of_the_end",
            "Yours follows the token at the prompt's end. Followed is the answer, which comes after it: "
            '`data["token"]`.',
            _of_the_end,
        ),
    ),
    hints=(
        "Put `noise = 0` in your mind: what must come out of each line? And with everything restored?",
        "Three questions: which tokens are blurred, which token's probability is followed, and what is taken off.",
        'Blur at `position=data["subject"]` with all of the noise, follow `data["token"]`, and end with '
        "`recovered(found, clean, base)`.",
    ),
    discussion="None of the flaws shows in the shape of the curve. Two checks find them: a place that does nothing "
    "must score 0, and a place that does everything must score 1: the last layer's states, before the end and at it.",
    tolerance=1e-3,
)


# rank_one -----------------------------------------------------------------------------------------------------


def rank_one(
    W: Float[Tensor, "d_mlp d_model"],
    key: Float[Tensor, " d_mlp"],
    value: Float[Tensor, " d_model"],
    C: Float[Tensor, "d_mlp d_mlp"],
) -> Float[Tensor, "d_mlp d_model"]:
    # in coordinates where the keys of text are round, the smallest change along the turned key
    root = torch.linalg.cholesky(C.double())
    turned = torch.linalg.solve_triangular(root, key.double()[:, None], upper=False)
    missing = value.double() - key.double() @ W.double()
    smallest = torch.linalg.pinv(turned.T) @ missing[None]
    return torch.linalg.solve_triangular(root.T, smallest, upper=True).float()


def _edit_case(seed: int, size: int = 8) -> tuple:
    generator = _generator(seed)
    keys = torch.randn(60, size, generator=generator) * (0.3 + torch.rand(size, generator=generator))
    keys = keys + torch.randn(size, generator=generator)
    W, key, value = (torch.randn(*shape, generator=generator) for shape in ((size, 5), (size,), (5,)))
    return (W, key, value, keys.T @ keys / 60 + 0.05 * torch.eye(size))


def _change(direction: Tensor, key: Tensor, what: Tensor) -> Tensor:
    return torch.outer(direction / (key @ direction), what)


RANK_ONE = Exercise(
    id="09_rank_one",
    kind="code",
    level=3,
    points=3,
    minutes=20,
    reference=rank_one,
    library=editing.rank_one_update,
    cases=lambda seed: [_edit_case(seed), _edit_case(seed + 1, size=6)],
    mistakes=(
        Mistake(
            "no_covariance",
            "Yours stores the value along the key itself, as if keys of text lay evenly in all directions. Turn the "
            "key by C⁻¹ first: then the keys that text uses feel least of it.",
            lambda W, key, value, C: _change(key, key, value - key @ W),
        ),
        Mistake(
            "whole_value",
            "Yours adds the whole value on top of what the matrix gives already. Add what is missing: "
            "`value - key @ W`.",
            lambda W, key, value, C: _change(torch.linalg.solve(C, key), key, value),
        ),
        Mistake(
            "not_scaled",
            "Yours is not scaled: on the key, the change gives a multiple of what is missing. Divide by "
            "`key @ direction`.",
            lambda W, key, value, C: torch.outer(torch.linalg.solve(C, key), value - key @ W),
        ),
        Mistake(
            "unit_length",
            "Yours scales the direction to length 1. It must give 1 *on the key*: divide by `key @ direction`.",
            lambda W, key, value, C: torch.outer(
                torch.nn.functional.normalize(torch.linalg.solve(C, key), dim=0), value - key @ W
            ),
        ),
        Mistake(
            "not_inverted",
            "Yours multiplies by C. That prefers the directions that text uses *most*: use its inverse, "
            "`torch.linalg.solve(C, key)`.",
            lambda W, key, value, C: _change(C @ key, key, value - key @ W),
        ),
        Mistake(
            "whole_matrix",
            "Yours is the changed matrix. Asked is the change alone.",
            lambda W, key, value, C: W + rank_one(W, key, value, C),
        ),
    ),
    hints=(
        "Three parts: what is missing on the key, a direction in which to write it, and the scale that makes it exact.",
        "`missing = value - key @ W` and `direction = torch.linalg.solve(C, key)`.",
        "`torch.outer(direction / (key @ direction), missing)`.",
    ),
    properties=(
        Property(
            "With the change, the key must give exactly the value; yours does not.",
            lambda result, W, key, value, C: torch.allclose(
                key.double() @ (W + result).double(), value.double(), atol=1e-3
            ),
        ),
    ),
    discussion="Two demands fix it: the key gives the value (exactly), and the keys of text feel as little as possible "
    "(in the mean square). The second is why a covariance is needed, and why an edit can be precise without "
    "knowing any other fact.",
    tolerance=1e-3,
    teaches=("rank_one_update", "rome"),
)


# score_edit ---------------------------------------------------------------------------------------------------


def score_edit(
    before: Float[Tensor, "question d_vocab"], after: Float[Tensor, "question d_vocab"], old: int, new: int
) -> dict[str, float]:
    wins, kept, drift = 0.0, 0.0, 0.0
    for first, second in zip(before.double(), after.double(), strict=True):
        p, q = (torch.exp(each - torch.logsumexp(each, 0)) for each in (first, second))
        wins += float(q[new] > q[old])
        kept += float(max(range(len(p)), key=p.__getitem__) == max(range(len(q)), key=q.__getitem__))
        drift += float(sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True)))
    count = len(before)
    return {"wins": wins / count, "kept": kept / count, "drift": drift / count}


def _scores_of(before: Tensor, after: Tensor, old: int, new: int, **other: Tensor) -> dict[str, float]:
    parts = {
        "wins": (after[:, new] > after[:, old]).float(),
        "kept": (after.argmax(-1) == before.argmax(-1)).float(),
        "drift": kl_divergence(before, after),
    } | other
    return {name: part.mean().item() for name, part in parts.items()}


def _answers(seed: int) -> tuple:
    """Logits of questions: some where the new answer wins without being on top, some that keep another top token."""
    generator = _generator(seed)
    old, new, other = torch.randperm(12, generator=generator)[:3].tolist()
    before = torch.randn(8, 12, generator=generator)
    after = before + 0.3 * torch.randn(8, 12, generator=generator)
    before[:6, old] += 6
    before[6:, other] += 6
    after[:4, new] += 7
    after[2:4, other] += 14
    after[4:6, old] += 6
    after[6:, other] += 6
    pair = [old, new]
    before[4:6, pair], after[4:6, pair] = torch.tensor([6.0, 0.0]), torch.tensor([6.0, 2.5])  # gains, and still loses
    before[6:, pair] = after[6:, pair] = torch.tensor([1.0, 0.0])
    return (before, after, old, new)


SCORE_EDIT = Exercise(
    id="09_score_edit",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=score_edit,
    cases=lambda seed: [_answers(seed), _answers(seed + 1)],
    mistakes=(
        Mistake(
            "on_top",
            "Your `wins` asks the new answer to be the likeliest of all tokens. Asked is that it beats the old one.",
            lambda before, after, old, new: _scores_of(before, after, old, new, wins=(after.argmax(-1) == new).float()),
        ),
        Mistake(
            "still_old",
            "Your `kept` asks for the old answer. On a question about something else another token is on top: compare "
            "the top tokens before and after.",
            lambda before, after, old, new: _scores_of(before, after, old, new, kept=(after.argmax(-1) == old).float()),
        ),
        Mistake(
            "reversed",
            "Your `drift` is KL(after ‖ before). The price is for one who expects the edited model and meets the world "
            "as it was: KL(before ‖ after).",
            lambda before, after, old, new: _scores_of(before, after, old, new, drift=kl_divergence(after, before)),
        ),
        Mistake(
            "wins_before",
            "Your `wins` looks at the logits before the edit. Asked is what the edited model says: `after`.",
            lambda before, after, old, new: _scores_of(
                before, after, old, new, wins=(before[:, new] > before[:, old]).float()
            ),
        ),
        Mistake(
            "gained",
            "Your `wins` asks whether the new answer has risen more than the old one. Asked is that it *beats* it, "
            "after the edit.",
            lambda before, after, old, new: _scores_of(
                before, after, old, new, wins=((after - before)[:, new] > (after - before)[:, old]).float()
            ),
        ),
        Mistake(
            "mean_over_vocabulary",
            "Your `drift` takes the mean over the vocabulary, too. A KL divergence is a *sum* over tokens; the mean is "
            "over questions.",
            lambda before, after, old, new: _scores_of(
                before, after, old, new, drift=kl_divergence(before, after) / before.shape[-1]
            ),
        ),
        Mistake(
            "summed",
            "Your numbers are sums over the questions. Take means, so that sets of different size can be compared.",
            lambda before, after, old, new: {
                name: len(before) * value for name, value in _scores_of(before, after, old, new).items()
            },
        ),
    ),
    hints=(
        "`wins`: compare two columns of `after`. `kept`: compare two argmax over the vocabulary.",
        "`drift` is `mk.kl_divergence(before, after)`, one number a question.",
        "Take the mean of each: `(after[:, new] > after[:, old]).float().mean()`, "
        "`(before.argmax(-1) == after.argmax(-1)).float().mean()`, `mk.kl_divergence(before, after).mean()`.",
    ),
    discussion="The three are asked of different questions: `wins` of the prompt and its paraphrases, `kept` of what "
    "should stay, `drift` of both. `kept` is blunt, since a top token can hold out while everything below it moves; "
    "that is what drift is for.",
    teaches=("measure_edit",),
)


# edit_control: design -----------------------------------------------------------------------------------------


def edit_control(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    return _gain(lm, data, "silent_layer")


def _gain(lm: LanguageModel, data: dict[str, Any], choice: str, *, of: str = "", kind: str = "gain") -> dict[str, Any]:
    each = data[of or choice]
    before = run(lm, each["prompt"], sites=())[0][0, -1].log_softmax(-1)[each["token"]]
    with rewritten(lm, Rewrite(each["layer"], each["change"])):
        after = run(lm, each["prompt"], sites=())[0][0, -1].log_softmax(-1)[each["token"]]
    values = {"gain": after - before, "after": after, "probability": after.exp() - before.exp()}
    return {"choice": choice, "gain": values[kind].item()}


OPTIONS = ("silent_layer", "other_target", "more_steps", "paraphrase")
NO_CONTROL = {
    "other_target": "Another new answer at the same layer: if it works, the layer can be written to, which nobody "
    "doubts. The claim is that it works *because of where it is*.",
    "more_steps": "More steps at the same layer make the same edit stronger. Whatever comes out, the claim about the "
    "place stands as it did.",
    "paraphrase": "A paraphrase asks whether the edit is about the fact or about the words. A good question, but no "
    "answer to it bears on whether the place matters.",
}


@lru_cache(maxsize=64)
def _control_data(seed: int) -> dict[str, Any]:
    """Four edits of a tiny model on which no confusion gives the right gain by chance."""
    lm = tiny_model(seed=seed)
    for attempt in count():
        generator = _generator(seed + 1000 * attempt)
        tokens = torch.randperm(lm.d_vocab - 300, generator=generator)[:2] + 300
        data = {}
        for name in OPTIONS:
            data[name] = {
                "prompt": (" the king of Spain lived in" if name == "paraphrase" else ROYAL.format(country="Spain")),
                "token": int(tokens[1] if name == "other_target" else tokens[0]),
                "layer": 2 if name == "silent_layer" else 0,
                "change": 0.2 * torch.randn(lm.d_mlp, lm.d_model, generator=generator),
            }
        gains = [_gain(lm, data, name)["gain"] for name in OPTIONS]
        others = [_gain(lm, data, "silent_layer", kind=kind)["gain"] for kind in ("after", "probability")]
        if _apart([*gains, *others, 0.0, -gains[0]]):
            return data
    raise AssertionError("count() does not end")


EDIT_CONTROL = Exercise(
    id="09_edit_control",
    kind="code",
    level=3,
    points=4,
    minutes=15,
    reference=edit_control,
    cases=lambda seed: [(Tiny(seed), _control_data(seed))],
    mistakes=(
        *(Mistake(name, sentence, partial(_gain, choice=name)) for name, sentence in NO_CONTROL.items()),
        *(
            Mistake(
                f"measured_on_{name}",
                f"The right control, but measured with the edit of `{name}`. Use everything of `data['silent_layer']`.",
                partial(_gain, choice="silent_layer", of=name),
            )
            for name in OPTIONS[1:]
        ),
        Mistake(
            "not_a_gain",
            "The right control, but yours is the log-probability after the edit. Take off what it was before.",
            partial(_gain, choice="silent_layer", kind="after"),
        ),
        Mistake(
            "probabilities",
            "The right control, but yours is a difference of probabilities. Asked are nats: log-probabilities.",
            partial(_gain, choice="silent_layer", kind="probability"),
        ),
        Mistake(
            "not_edited",
            "The right control, but the edit did not reach the second run: call `mk.run` inside "
            "`with mk.rewritten(lm, ...)`.",
            lambda lm, data: {"choice": "silent_layer", "gain": 0.0},
        ),
        Mistake(
            "backwards",
            "The right control, but the wrong way round: a gain is after minus before.",
            lambda lm, data: {"choice": "silent_layer", "gain": -_gain(lm, data, "silent_layer")["gain"]},
        ),
    ),
    hints=(
        "The claim joins two things: the edit works, and it is made where tracing points. Which option keeps the first "
        "and breaks the second?",
        "If the edit works as well at a layer where tracing finds nothing, working is no evidence about the place.",
        'With `each = data["silent_layer"]`: `log_softmax` at `each["token"]` before, and inside '
        '`with mk.rewritten(lm, mk.Rewrite(each["layer"], each["change"])):` after.',
    ),
    properties=(
        Property(
            f"`choice` is one of the four names: {', '.join(OPTIONS)}.",
            lambda result, lm, data: result["choice"] in OPTIONS,
        ),
        *(
            Property(sentence, lambda result, lm, data, name=name: result["choice"] != name)
            for name, sentence in NO_CONTROL.items()
        ),
    ),
    discussion="A control must be able to come out against the claim. The rest of this section runs this one on two "
    "facts of the real model, layer by layer.",
    control=True,
    choice=True,
    tolerance=1e-3,
)


# works_anyway -------------------------------------------------------------------------------------------------


def works_anyway(
    layers: Sequence[int], recovered: Float[Tensor, " layer"], success: Float[Tensor, " layer"]
) -> list[int]:
    found = []
    for layer, share, worked in zip(layers, recovered.tolist(), success.tolist(), strict=True):
        if share < 0.1 and worked > 0.5:
            found.append(layer)
    return found


def _chosen(layers: Sequence[int], yes: Tensor) -> list[int]:
    return [layer for layer, each in zip(layers, yes.tolist(), strict=True) if each]


def sweep_over_layers(subject: str) -> tuple[list[int], Float[Tensor, " layer"], Float[Tensor, " layer"]]:
    """Shipped: layers, what tracing recovers there at the subject's token that carries most, and paraphrases won."""
    edits = sorted((each for each in load_edits() if each.subject == subject and each.method == "rome"), key=_layer)
    layers = [each.layer for each in edits]
    traced = load_traces()[subject]["mlp_out"]
    success = torch.tensor([each.scores["paraphrase"] for each in edits])
    return layers, traced.recovered[layers][:, traced.subject].amax(-1), success


def _layer(result: Any) -> int:
    return result.layer


def _staged_sweep(seed: int) -> tuple:
    """Every combination of both, in random order of layers that are not their own places."""
    generator = _generator(seed)
    recovered = torch.tensor([0.4, -0.02, 0.05, 0.3, -0.3, 0.01, 0.6, 0.03])
    success = torch.tensor([1.0, 0.75, 0.25, 0.0, 1.0, 0.5, 0.75, 0.0])
    order = torch.randperm(8, generator=generator)
    return ([2 + 3 * i + seed % 3 for i in range(8)], recovered[order], success[order])


WORKS_ANYWAY = Exercise(
    id="09_works_anyway",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=works_anyway,
    cases=lambda seed: [
        sweep_over_layers(("Colosseum", "France")[seed % 2]),
        _staged_sweep(seed),
        _staged_sweep(seed + 5),
    ],
    mistakes=(
        Mistake(
            "places",
            "Yours are places in the list. Asked are the layers themselves: `layers[i]`.",
            lambda layers, recovered, success: _chosen(range(len(layers)), (recovered < 0.1) & (success > 0.5)),
        ),
        Mistake(
            "all_that_work",
            "Yours are all layers where the edit works. Asked are those where it works *although* tracing recovers "
            "less than a tenth there.",
            lambda layers, recovered, success: _chosen(layers, success > 0.5),
        ),
        Mistake(
            "as_tracing_says",
            "Yours are the layers where both agree. Asked are those where the edit works and tracing finds nothing.",
            lambda layers, recovered, success: _chosen(layers, (recovered >= 0.1) & (success > 0.5)),
        ),
        Mistake(
            "silent_layers",
            "Yours are all layers where tracing finds nothing. Asked are those of them where the edit works.",
            lambda layers, recovered, success: _chosen(layers, recovered < 0.1),
        ),
        Mistake(
            "without_the_sign",
            "Yours drops the sign. A layer whose restoring does harm recovers less than a tenth, too: keep it.",
            lambda layers, recovered, success: _chosen(layers, (recovered.abs() < 0.1) & (success > 0.5)),
        ),
        Mistake(
            "half_is_enough",
            "Yours counts a layer that wins exactly half of the paraphrases. Asked is more than half.",
            lambda layers, recovered, success: _chosen(layers, (recovered < 0.1) & (success >= 0.5)),
        ),
        Mistake(
            "both_limits",
            "Two slips: yours drops the sign of what is recovered, and counts a layer that wins exactly half. A layer "
            "that does harm recovers less than a tenth, too; and asked is more than half.",
            lambda layers, recovered, success: _chosen(layers, (recovered.abs() < 0.1) & (success >= 0.5)),
        ),
    ),
    hints=(
        "Go through the three together: `zip(layers, recovered, success)`.",
        "Two conditions, joined by `and`: the share is below 0.1, the success above 0.5.",
        "`[layer for layer, share, won in zip(layers, recovered, success) if share < 0.1 and won > 0.5]`.",
    ),
    discussion="If tracing said where a fact can be rewritten, this list would be empty. Yet an edit that wins at "
    "every layer tried says little about any: look at a fact that varies, too. Hase et al. (2023) found the "
    "same over a whole data set: where tracing localises a fact hardly predicts where editing it works. The "
    "two ask different questions: which state carries the subject on, and which matrix can be made to answer.",
)


CHAPTER = Chapter(
    number="09",
    title="facts",
    notebook="09_facts",
    question="Where is a fact, and can it be rewritten?",
    minutes=170,
    needs=("00", "07"),
    exercises=(
        RECOVERED,
        BLUR,
        RESTORE_STATE,
        CARRIER,
        LATE_SITE,
        FIRST_MLP,
        FAIR_RECOVERY,
        RANK_ONE,
        SCORE_EDIT,
        EDIT_CONTROL,
        WORKS_ANYWAY,
    ),
    claim=Claim(
        statements={
            "stored": Option(
                "facts are stored in the early MLPs at the subject",
                False,
                "Restoring them without layer 0 brings back a part: enough to carry, not to show storage. And an edit "
                "worked where tracing found nothing.",
            ),
            "carried": Option(
                "who the subject is passes through the states at its tokens early on, and through the last position's "
                "late",
                True,
                "That is what the map of single states showed, with the exceptions that you found, and one subject "
                "that no state of its own carried.",
            ),
            "editable": Option(
                "where tracing recovers most is where an edit works best",
                False,
                "The sweep over layers and your control say no.",
            ),
        },
        evidence={
            "readable": Option("a reader finds it", False, "Nothing was read off here: states were put back."),
            "correlated": Option(
                "it goes along with the answer", False, "Each run was changed in one place: more than correlation."
            ),
            "necessary": Option(
                "without it the answer is gone",
                False,
                "For that, one state would have to be taken from the clean run, and the answer go.",
            ),
            "sufficient": Option(
                "put back, it brings the answer",
                True,
                "Sufficient, in the noisy run: the other states were as the noise had left them.",
            ),
        },
        refuted_by={
            "elsewhere": Option(
                "clean states between the subject and the end that bring the answer back just as well",
                True,
                "Then the subject's identity would have gone another way.",
            ),
            "edit_works": Option(
                "an edit that works at a middle layer",
                False,
                "That speaks about rewriting, not about which state carries the subject.",
            ),
            "answer_gone": Option(
                "noise that takes the answer away",
                False,
                "That is where the experiment begins.",
            ),
        },
    ),
)
