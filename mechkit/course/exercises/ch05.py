"""Chapter 05, induction heads: how does in-context copying work?"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import combinations, count, product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.methods import heads as library
from mechkit.methods.ablation import mean, zero
from mechkit.methods.heads import repeated_tokens, without_sender
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

STRONGEST = 4  # how many heads a finding lists
Head = tuple[int, int]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _swap(pairs: Sequence[Head]) -> list[Head]:
    return [pair[::-1] for pair in pairs]


# copy_losses --------------------------------------------------------------------------------------------------


def copy_losses(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"], period: int
) -> tuple[float, float]:
    first, second = [], []
    for text, said in zip(tokens.tolist(), logits.double(), strict=True):
        for place in range(1, len(text)):
            odds = said[place - 1].exp()
            surprise = -math.log(float(odds[text[place]] / odds.sum()))
            if place <= period:
                first.append(surprise)
            elif place >= period + 2:  # nothing foretells that the text starts again
                second.append(surprise)
    return sum(first) / len(first), sum(second) / len(second)


def _surprise(logits: Tensor, tokens: Tensor, *, shift: int = 1) -> Float[Tensor, "batch predicted"]:
    """Entry i is about the token at place i + 1."""
    kept = logits[:, : logits.shape[1] - 1] if shift else logits[:, 1:]
    return -kept.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


def _both(surprise: Tensor, period: int, *, skip: int = 1) -> tuple[float, float]:
    return float(surprise[:, :period].mean()), float(surprise[:, period + skip :].mean())


def _said_twice(seed: int, period: int) -> tuple:
    """Logits that are right about some tokens, and a text of the prefix and two copies."""
    once = torch.randint(1, 30, (2, period), generator=_generator(seed))
    tokens = torch.cat([torch.zeros(2, 1, dtype=torch.long), once, once], 1)
    logits = torch.randn(2, 1 + 2 * period, 30, generator=_generator(seed + 1))
    right = torch.nn.functional.one_hot(tokens[:, 1:], 30)
    logits[:, period + 1 : -1] += 3 * right[:, period + 1 :]
    return logits, tokens, period


COPY_LOSSES = Exercise(
    id="05_copy_losses",
    kind="code",
    level=1,
    points=1,
    minutes=8,
    reference=copy_losses,
    cases=lambda seed: [_said_twice(seed, 6), _said_twice(seed + 100, 4)],
    mistakes=(
        Mistake(
            "not_shifted",
            "Yours scores each position's logits on the token that stands *there*. They are a forecast of the next "
            "token: compare `logits[:, :-1]` with `tokens[:, 1:]`.",
            lambda logits, tokens, period: _both(_surprise(logits, tokens, shift=0), period),
        ),
        Mistake(
            "from_its_first_token",
            "Yours counts the first token of the second copy. Nothing foretells that the text starts again: begin with "
            "its second token.",
            lambda logits, tokens, period: _both(_surprise(logits, tokens), period, skip=0),
        ),
        Mistake(
            "swapped",
            "The right numbers, in the wrong order: the first copy comes first.",
            lambda logits, tokens, period: _both(_surprise(logits, tokens), period)[::-1],
        ),
        Mistake(
            "bits",
            "Yours is in bits. The course measures in nats: use the natural logarithm.",
            lambda logits, tokens, period: tuple(
                each / math.log(2) for each in _both(_surprise(logits, tokens), period)
            ),
        ),
        Mistake(
            "probabilities",
            "Yours are mean probabilities. A loss is the mean of −ln p: take the logarithm before the mean.",
            lambda logits, tokens, period: _both((-_surprise(logits, tokens)).exp(), period),
        ),
        Mistake(
            "sign",
            "Yours has the sign of a log-probability. A loss is *minus* that, and never negative.",
            lambda logits, tokens, period: _both(-_surprise(logits, tokens), period),
        ),
        Mistake(
            "summed",
            "Yours adds the tokens up. Take the mean over them, so that copies of any length compare.",
            lambda logits, tokens, period: (
                float(_surprise(logits, tokens)[:, :period].sum()),
                float(_surprise(logits, tokens)[:, period + 1 :].sum()),
            ),
        ),
    ),
    hints=(
        "`logits[:, :-1].log_softmax(-1)` holds the forecasts; `.gather(-1, tokens[:, 1:, None])` picks what came.",
        "Call minus that `surprise`: entry i is about token i + 1. The first copy's tokens are 1 to `period`, so its "
        "entries are `surprise[:, :period]`.",
        "The second copy without its first token: `surprise[:, period + 1:]`. Return both means.",
    ),
    properties=(
        Property("A loss is never negative; yours is.", lambda result, *_: all(float(each) >= 0 for each in result)),
    ),
    discussion="The tokens are drawn at random, so nothing but the first copy can help with the second. The difference "
    "of the two is copying *from the context*, and nothing else: no grammar, no facts.",
)


# previous_token_score -----------------------------------------------------------------------------------------


def previous_token_score(pattern: Float[Tensor, "batch head query key"]) -> Float[Tensor, " head"]:
    batch, heads, length, _ = pattern.shape
    scores = []
    for head in range(heads):
        looks = [float(pattern[text, head, query, query - 1]) for text in range(batch) for query in range(2, length)]
        scores.append(sum(looks) / len(looks))
    return torch.tensor(scores)


def _along(pattern: Tensor, offset: int, queries: Sequence[int]) -> Float[Tensor, "batch head"]:
    """Each head's mean attention from these queries to the key `offset` before."""
    return torch.stack([pattern[:, :, query, query - offset] for query in queries]).mean(0)


def _patterns(seed: int, length: int, *, heads: int = 3, batch: int = 2) -> Float[Tensor, "batch head query key"]:
    """Patterns of a causal model whose idle heads rest on position 0."""
    scores = 1.5 * torch.randn(batch, heads, length, length, generator=_generator(seed))
    scores[..., 0] += 2
    return scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def _length(pattern: Tensor) -> int:
    return pattern.shape[-1]


PREVIOUS_TOKEN_SCORE = Exercise(
    id="05_previous_token_score",
    kind="code",
    level=1,
    points=1,
    minutes=6,
    reference=previous_token_score,
    library=library.previous_token_score,
    cases=lambda seed: [(_patterns(seed, 7),), (_patterns(seed + 100, 12, heads=4, batch=3),)],
    mistakes=(
        Mistake(
            "itself",
            "Yours is the attention of each token to *itself*, the main diagonal. The token before stands one column "
            "to the left: offset −1.",
            lambda pattern: _along(pattern, 0, range(2, _length(pattern))).mean(0),
        ),
        Mistake(
            "next_token",
            "Yours reads the diagonal *above* the main one: the token after, which no token can see, so it is 0. Below "
            "the main diagonal the offset is negative.",
            lambda pattern: _along(pattern.mT, 1, range(2, _length(pattern))).mean(0),
        ),
        Mistake(
            "two_back",
            "Yours reads the token two before. One before is the diagonal with offset −1.",
            lambda pattern: _along(pattern, 2, range(2, _length(pattern))).mean(0),
        ),
        Mistake(
            "with_the_sink",
            "Yours counts the second token too. What stands before it is position 0, an attention sink, on which idle "
            "heads rest: begin with query 2.",
            lambda pattern: _along(pattern, 1, range(1, _length(pattern))).mean(0),
        ),
        Mistake(
            "wrapped_round",
            "Yours also has position 0 look at key −1, which Python takes for the *last* token. Begin with query 2.",
            lambda pattern: _along(pattern, 1, range(_length(pattern))).mean(0),
        ),
        Mistake(
            "first_text",
            "Yours looks at the first text only. Take the mean over the batch, too.",
            lambda pattern: previous_token_score(pattern[:1]),
        ),
        Mistake(
            "heads_together",
            "Yours is one number for all heads. Keep the heads apart: one score a head.",
            lambda pattern: previous_token_score(pattern).mean(),
        ),
    ),
    hints=(
        "Where are the entries in which each query looks at the key just before it? Draw a 4 × 4 pattern.",
        "`pattern.diagonal(-1, dim1=-2, dim2=-1)` is [batch head pos]; its entry i belongs to query i + 1.",
        "Return `pattern.diagonal(-1, dim1=-2, dim2=-1)[..., 1:].mean((0, -1))`.",
    ),
    discussion="1 would be a head that always looks at the token before. It is a *description* of where a head looks "
    "on these texts. What it reads there, and whether anybody listens, is not in the pattern.",
    teaches=("offset_score",),
)


# induction_score ----------------------------------------------------------------------------------------------


def induction_score(pattern: Float[Tensor, "batch head query key"], period: int) -> Float[Tensor, " head"]:
    batch, heads, length, _ = pattern.shape
    scores = []
    for head in range(heads):
        looks = []
        for text in range(batch):
            for query in range(length - period, length):
                earlier = query - period  # where the same token stood before
                looks.append(float(pattern[text, head, query, earlier + 1]))
        scores.append(sum(looks) / len(looks))
    return torch.tensor(scores)


def _second_copy(pattern: Tensor, period: int) -> range:
    return range(_length(pattern) - period, _length(pattern))


def _at_offset(pattern: Tensor, period: int, *, beyond: int) -> Float[Tensor, " head"]:
    return _along(pattern, period + beyond, _second_copy(pattern, period)).mean(0)


INDUCTION_SCORE = Exercise(
    id="05_induction_score",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=induction_score,
    library=library.induction_score,
    cases=lambda seed: [(_patterns(seed, 11), 5), (_patterns(seed + 100, 9, heads=4, batch=3), 4)],
    mistakes=(
        Mistake(
            "duplicate",
            "Yours reads key i − period: that is the duplicate-token score. After an earlier copy of the current token "
            "comes the token to predict, at key i − period + 1.",
            partial(_at_offset, beyond=0),
        ),
        Mistake(
            "before_the_copy",
            "Yours reads the key *before* the earlier copy, i − period − 1. What is worth copying stands after it: key "
            "i − period + 1.",
            partial(_at_offset, beyond=1),
        ),
        Mistake(
            "two_after",
            "Yours reads key i − period + 2, one too far to the right. What followed the earlier copy stands at "
            "i − period + 1.",
            partial(_at_offset, beyond=-2),
        ),
        Mistake(
            "every_query",
            "Yours takes every query that has such a key, those of the first copy as well. There nothing has been said "
            "before: average over the second copy, the last `period` queries.",
            lambda pattern, period: _along(pattern, period - 1, range(period - 1, _length(pattern))).mean(0),
        ),
        Mistake(
            "one_short",
            "Yours leaves out the first token of the second copy. It, too, has been said before: average over the last "
            "`period` queries, all of them.",
            lambda pattern, period: _along(pattern, period - 1, _second_copy(pattern, period)[1:]).mean(0),
        ),
        Mistake(
            "last_query",
            "Yours looks at the last query only. Average over all queries of the second copy.",
            lambda pattern, period: _along(pattern, period - 1, _second_copy(pattern, period)[-1:]).mean(0),
        ),
        Mistake(
            "first_text",
            "Yours looks at the first text only. Take the mean over the batch, too.",
            lambda pattern, period: induction_score(pattern[:1], period),
        ),
        Mistake(
            "heads_together",
            "Yours is one number for all heads. Keep the heads apart: one score a head.",
            lambda pattern, period: induction_score(pattern, period).mean(),
        ),
    ),
    hints=(
        "The query at i has seen its own token at i − period. Which token does it want to know about?",
        "It is again one diagonal: offset −(period − 1). Its entry j belongs to query j + period − 1.",
        "`pattern.diagonal(1 - period, dim1=-2, dim2=-1)[..., -period:].mean((0, -1))`: the last `period` entries "
        "belong to the second copy.",
    ),
    discussion="One column to the right of the duplicate-token score, and a different mechanism. To look at *its own* "
    "earlier copy a head need only compare tokens. To look one further, the key there must say what stood before it: "
    "that takes another head.",
    teaches=("offset_score",),
)


# induction_heads ----------------------------------------------------------------------------------------------


def induction_heads(lm: LanguageModel, data: Mapping[str, int]) -> list[Head]:
    table = _looks(lm, **data)["induction"].mean(-1)
    heads = product(range(1, lm.n_layers), range(lm.n_heads))
    return sorted(heads, key=lambda head: float(table[head]), reverse=True)[:STRONGEST]


@lru_cache(maxsize=64)
def _looks(lm: LanguageModel, *, batch: int, period: int, seed: int) -> dict[str, Float[Tensor, "layer head text"]]:
    """Each head's mean attention on tokens said twice, text by text."""
    _, cache = run(lm, repeated_tokens(lm, batch=batch, period=period, seed=seed), sites="pattern")
    tables: dict[str, list] = {"previous": [], "duplicate": [], "induction": []}
    for layer in range(lm.n_layers):
        pattern = cache["pattern", layer]
        length = pattern.shape[-1]
        places = {
            "previous": [(i, i - 1) for i in range(2, length)],
            "duplicate": [(i, i - period) for i in range(length - period, length)],
            "induction": [(i, i - period + 1) for i in range(length - period, length)],
        }
        for name, pairs in places.items():
            tables[name].append(torch.stack([pattern[:, :, query, key] for query, key in pairs]).mean(0).T)
    return {name: torch.stack(rows) for name, rows in tables.items()}


def _ranked(
    table: Float[Tensor, "layer head"], *, low: int = 1, high: int | None = None, count: int = STRONGEST
) -> list[Head]:
    """The heads of the layers from `low` on, below `high`, with the highest scores."""
    end = len(table) if high is None else high
    order = table[low:end].flatten().argsort(descending=True, stable=True)[:count].tolist()
    return [(low + layer, head) for layer, head in (divmod(place, table.shape[1]) for place in order)]


def _strongest(lm: LanguageModel, data: Mapping[str, int], name: str = "induction") -> list[Head]:
    return _ranked(_looks(lm, **data)[name].mean(-1))


# seeds 0 and up are drawn as they come; the tiny models' are chosen, so that every slip gives another answer
CONFUSED_HEADS: dict[str, Callable[[LanguageModel, Mapping[str, int]], list]] = {
    "duplicate": lambda lm, data: _strongest(lm, data, "duplicate"),
    "previous": lambda lm, data: _strongest(lm, data, "previous"),
    "weakest": lambda lm, data: _ranked(-_looks(lm, **data)["induction"].mean(-1)),
    "layer_zero": lambda lm, data: _ranked(_looks(lm, **data)["induction"].mean(-1), low=0),
    "first_text": lambda lm, data: _ranked(_looks(lm, **data)["induction"][..., 0]),
    "reversed": lambda lm, data: _strongest(lm, data)[::-1],
    "head_first": lambda lm, data: _swap(_strongest(lm, data)),
    "one_a_layer": lambda lm, data: _one_a_layer(_looks(lm, **data)["induction"].mean(-1)),
}


def _one_a_layer(table: Float[Tensor, "layer head"]) -> list[Head]:
    best = [(layer, int(row.argmax())) for layer, row in enumerate(table) if layer]
    return sorted(best, key=lambda head: -float(table[head]))[:STRONGEST]


def _real(seed: int) -> dict[str, int]:
    return {"batch": 1, "period": 10, "seed": seed}


@lru_cache(maxsize=256)
def _telling(seed: int, finding: Callable, *slips: Callable) -> dict[str, int]:
    """Texts on which a tiny model gives each slip away: no two of them agree, nor with what is right."""
    lm = tiny_model(seed=seed)

    def tells(data: dict[str, int]) -> bool:
        answers = [str(answer(lm, data)) for answer in (finding, *slips)]
        return len(set(answers)) == len(answers)

    drawn = ({"batch": 2, "period": 5, "seed": seed + 1000 * attempt} for attempt in count())
    return next(filter(tells, drawn))


IS_A_HEAD = (
    "Every entry is a pair (layer, head) of the model it is given. (The check also gives it a tiny one: compute them "
    "from `lm` and `data`.)"
)


def _are_heads(result: Any, lm: LanguageModel) -> bool:
    return all(0 <= layer < lm.n_layers and 0 <= head < lm.n_heads for layer, head in result)


INDUCTION_HEADS = Exercise(
    id="05_induction_heads",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=induction_heads,
    cases=lambda seed: [
        (MODEL, _real(seed)),
        (Tiny(seed), _telling(seed, induction_heads, *CONFUSED_HEADS.values())),
    ],
    mistakes=(
        Mistake(
            "duplicate",
            "Yours are the heads that look at their own token's earlier copy. Asked are those that look at what came "
            "*after* it: the induction score.",
            CONFUSED_HEADS["duplicate"],
        ),
        Mistake(
            "previous",
            "Yours are the previous-token heads. Asked are those with the highest *induction* score.",
            CONFUSED_HEADS["previous"],
        ),
        Mistake(
            "weakest",
            "Yours have the *lowest* induction scores. Sort the other way.",
            CONFUSED_HEADS["weakest"],
        ),
        Mistake(
            "layer_zero",
            "Yours counts layer 0 in. Its heads read bare tokens, so none of them can know what stood before a key: "
            "take the layers from 1 on. (Mind the layer's number after cutting the table.)",
            CONFUSED_HEADS["layer_zero"],
        ),
        Mistake(
            "cut_and_not_counted",
            "Yours cuts layer 0 off and then counts the rest from 0: every layer is one too low. Add 1.",
            lambda lm, data: [(layer - 1, head) for layer, head in _strongest(lm, data)],
        ),
        Mistake(
            "first_text",
            "Yours looks at the first text only. Take the mean over the batch.",
            CONFUSED_HEADS["first_text"],
        ),
        Mistake(
            "reversed", "The right heads, in the wrong order: the strongest comes first.", CONFUSED_HEADS["reversed"]
        ),
        Mistake(
            "head_first",
            "The right heads, but written (head, layer). Return (layer, head).",
            CONFUSED_HEADS["head_first"],
        ),
        Mistake(
            "flat",
            "The right heads, but as places in the flattened table. `divmod(i, lm.n_heads)` gives (layer, head).",
            lambda lm, data: [layer * lm.n_heads + head for layer, head in _strongest(lm, data)],
        ),
        Mistake(
            "one_a_layer",
            "Yours takes the best head of each layer. Several may share a layer, and on this model they do: rank all "
            "heads together.",
            CONFUSED_HEADS["one_a_layer"],
        ),
    ),
    hints=(
        'Make the texts with `mk.repeated_tokens(lm, **data)` and run them with `sites="pattern"`.',
        'One row a layer: `induction_score(cache["pattern", layer], data["period"])`. Stack the rows.',
        "Set row 0 of the table to −1, then `[divmod(int(i), lm.n_heads) for i in table.flatten().topk(4).indices]`.",
    ),
    properties=(Property(IS_A_HEAD, lambda result, lm, data: _are_heads(result, lm)),),
    discussion="A few heads stand out, all above the middle of the model, and some side by side in one layer. So far "
    "they are suspects: they look at the right place. Whether they *copy*, and whether the model needs them, are two "
    "more questions.",
    teaches=("head_scores",),
)


# copying_share ------------------------------------------------------------------------------------------------


def copying_share(
    logits: Float[Tensor, "token head d_vocab"], tokens: Int[Tensor, " token"], among: int
) -> Float[Tensor, " head"]:
    shares = []
    for head in range(logits.shape[1]):
        hits = 0
        for row, token in zip(logits[:, head].tolist(), tokens.tolist(), strict=True):
            best = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:among]
            hits += token in best
        shares.append(hits / len(tokens))
    return torch.tensor(shares)


def _own_rank(logits: Tensor, tokens: Tensor, *, sign: int = 1) -> Int[Tensor, "token head"]:
    own = torch.stack([row[:, token] for row, token in zip(logits, tokens.tolist(), strict=True)])
    return (sign * logits > sign * own[..., None]).sum(-1)


def _written(seed: int, tokens: int, heads: int) -> tuple:
    """Logits in which each token's own is raised a little by some heads and lowered by others."""
    generator = _generator(seed)
    ids = torch.randperm(40, generator=generator)[:tokens]
    logits = torch.randn(tokens, heads, 40, generator=generator)
    raised = torch.linspace(-2.5, 2.5, heads)[torch.randperm(heads, generator=generator)]
    logits[range(tokens), :, ids] += raised
    return logits, ids, 4


COPYING_SHARE = Exercise(
    id="05_copying_share",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=copying_share,
    library=lambda logits, tokens, among: (_own_rank(logits, tokens) < among).float().mean(0),
    cases=lambda seed: [_written(seed, 16, 5), _written(seed + 100, 12, 4)],
    mistakes=(
        Mistake(
            "at_the_bottom",
            "Yours counts how often the token is among the *lowest* logits: that is anti-copying.",
            lambda logits, tokens, among: (_own_rank(logits, tokens, sign=-1) < among).float().mean(0),
        ),
        Mistake(
            "on_top_only",
            "Yours asks for the very first place. Asked is a place among the first `among`.",
            lambda logits, tokens, among: (_own_rank(logits, tokens) < 1).float().mean(0),
        ),
        Mistake(
            "one_too_many",
            "Yours lets one place too many count: rank 0 is the top, so the first `among` have ranks *below* `among`.",
            lambda logits, tokens, among: (_own_rank(logits, tokens) <= among).float().mean(0),
        ),
        Mistake(
            "one_too_few",
            "Yours lets one place too few count: the first `among` have ranks 0 to `among` − 1.",
            lambda logits, tokens, among: (_own_rank(logits, tokens) < among - 1).float().mean(0),
        ),
        Mistake(
            "one_token_for_all",
            "Yours looks for the first token in every row. Row i is about `tokens[i]`.",
            lambda logits, tokens, among: copying_share(logits, tokens[:1].expand_as(tokens), among),
        ),
        Mistake(
            "probability",
            "Yours is the mean probability of the token. Asked is how often it is among the first: a share of the "
            "tokens.",
            lambda logits, tokens, among: torch.stack(
                [row[:, token] for row, token in zip(logits.softmax(-1), tokens.tolist(), strict=True)]
            ).mean(0),
        ),
        Mistake(
            "counted",
            "Yours is a count. Divide by the number of tokens.",
            lambda logits, tokens, among: (_own_rank(logits, tokens) < among).float().sum(0),
        ),
        Mistake(
            "heads_together",
            "Yours is one number for all heads. Keep the heads apart: one share a head.",
            lambda logits, tokens, among: copying_share(logits, tokens, among).mean(),
        ),
    ),
    hints=(
        "For one token and one head: how many tokens have a larger logit than the token itself?",
        "`own = logits[range(len(tokens)), :, tokens]` is [token head]. Ranks are `(logits > own[..., None]).sum(-1)`.",
        "Return `(ranks < among).float().mean(0)`.",
    ),
    properties=(
        Property(
            "A share lies between 0 and 1; yours does not.",
            lambda result, *_: bool(((torch.as_tensor(result) >= 0) & (torch.as_tensor(result) <= 1)).all()),
        ),
    ),
    discussion="A pattern says *where* a head looks, this says *what it does* with what it finds there: the QK and the "
    "OV half of a head. A copier has both halves right. One half does not tell you the other.",
    teaches=("copying_scores",),
)


# matched_heads: control ---------------------------------------------------------------------------------------


def matched_heads(chosen: Sequence[Head], order: Int[Tensor, "layer head"]) -> list[Head]:
    taken: list[Head] = []
    for layer, _ in chosen:
        for head in order[layer].tolist():
            if (layer, head) not in chosen and (layer, head) not in taken:
                taken.append((layer, head))
                break
    return sorted(taken)


def _drawn(chosen: Sequence[Head], order: Tensor, *, leave_out: bool = True, most: int | None = None) -> list[Head]:
    """As many of each layer as were chosen there, in the order of the layers and of the draw."""
    taken = []
    for layer in sorted({layer for layer, _ in chosen}):
        free = [(layer, head) for head in order[layer].tolist() if not leave_out or (layer, head) not in chosen]
        taken += free[: sum(each == layer for each, _ in chosen) if most is None else most]
    return taken


def _any_layer(chosen: Sequence[Head], order: Tensor) -> list[Head]:
    free = [(layer, head) for layer, row in enumerate(order.tolist()) for head in row if (layer, head) not in chosen]
    return sorted(free[: len(chosen)])


@lru_cache(maxsize=256)
def _chosen(seed: int, layers: int, heads: int) -> tuple:
    """Heads of which two share a layer, and orders that would hand out some of them again."""
    for attempt in count():
        rng = random.Random(seed + 1000 * attempt)
        every = [(layer, head) for layer in range(1, layers) for head in range(heads)]
        chosen = rng.sample(every, 4)
        order = torch.tensor([rng.sample(range(heads), heads) for _ in range(layers)])
        most = max(sum(each == layer for each, _ in chosen) for layer, _ in chosen)
        drawn = _drawn(chosen, order)
        if most == 2 and drawn != sorted(drawn) and set(_drawn(chosen, order, leave_out=False)) & set(chosen):
            return chosen, order
    raise AssertionError("an endless count has an end")


MATCHED_HEADS = Exercise(
    id="05_matched_heads",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=matched_heads,
    cases=lambda seed: [_chosen(seed, 6, 5), _chosen(seed + 100, 4, 8)],
    mistakes=(
        Mistake(
            "chosen_again",
            "Yours may draw the chosen heads themselves: then the control contains what it should be compared with. "
            "Leave them out. (If you think you did: an entry of `order` is a tensor, which is in no set of numbers. "
            "Take `order[layer].tolist()`.)",
            lambda chosen, order: sorted(_drawn(chosen, order, leave_out=False)),
        ),
        Mistake(
            "any_layer",
            "Yours draws from any layer. Heads of early layers do other things, and knocking them out does other harm: "
            "draw in each layer as many as were chosen *there*.",
            _any_layer,
        ),
        Mistake(
            "one_a_layer",
            "Yours draws one head a layer. Where two were chosen, two are needed: else the control is the smaller "
            "intervention, and harmless for that reason alone.",
            lambda chosen, order: sorted(_drawn(chosen, order, most=1)),
        ),
        Mistake(
            "all_others",
            "Yours takes *all* other heads of these layers: a much larger intervention. Take as many as were chosen.",
            lambda chosen, order: sorted(_drawn(chosen, order, most=order.shape[1])),
        ),
        Mistake("as_drawn", "The right heads; return them sorted.", _drawn),
        Mistake(
            "head_first",
            "The right heads, but written (head, layer). Return (layer, head).",
            lambda chosen, order: _swap(matched_heads(chosen, order)),
        ),
    ),
    hints=(
        "Layer by layer: how many were chosen there, and which heads of that layer are still free?",
        "`free = [h for h in order[layer].tolist() if (layer, h) not in chosen]`; take the first n of them, where n "
        "counts the layer among the chosen.",
        "`chosen` may hold lists or tuples: make them tuples first. Collect over `sorted({layer for layer, _ in "
        "chosen})` and return `sorted(...)`.",
    ),
    properties=(
        Property(
            "As many heads as were chosen, and in the same layers; yours are not.",
            lambda result, chosen, order: (
                sorted(int(layer) for layer, _ in result) == sorted(layer for layer, _ in chosen)
            ),
        ),
    ),
    discussion="Same number, same layers, same kind of knock-out: what differs is only *which* heads. Such a control "
    'answers the sentence "any heads would have done that".',
    control=True,
)


# fair_ablation: repair ----------------------------------------------------------------------------------------


def fair_ablation(lm: LanguageModel, tokens: Int[Tensor, "batch pos"], period: int, heads: Sequence[Head]) -> float:
    _, cache = run(lm, tokens, sites="z")
    edits = []
    for layer, head in heads:
        values = cache["z", layer][:, 1:, head]  # position 0 is a sink, unlike all others
        average = sum(row for text in values for row in text) / (values.shape[0] * values.shape[1])
        edits.append(Edit("z", layer, lambda old, average=average: average.expand_as(old), head=head))
    with edit(lm, *edits):
        logits, _ = run(lm, tokens, sites=())
    return copy_losses(logits, tokens, period)[1]


FLAWS = {
    "zeros": "it puts in zeros, which are far from what some heads always write; `mk.mean(...)` takes away only what "
    "a head says about this place",
    "alone": "each head is back before the next one goes, so that only the last is out: all edits belong into one "
    "`mk.edit(lm, *edits)`",
    "whole": "it measures the loss on the whole text, half of which nothing can foretell; the second copy's is "
    "`copy_losses(...)[1]`",
}


def _knocked_out(
    lm: LanguageModel,
    tokens: Tensor,
    period: int,
    heads: Sequence[Head],
    *,
    flaws: Sequence[str] = (),
    per_position: bool = False,
    sink: bool = False,
    which: int = 1,
) -> float:
    _, cache = run(lm, tokens, sites="z")

    def out(layer: int, head: int) -> Edit:
        if sink:
            average = cache["z", layer][:, :, head].mean((0, 1))
            return Edit("z", layer, lambda old: average.expand_as(old), head=head)
        return mean("z", layer, cache, head=head, per_position=per_position)

    edits = [zero("z", layer, head=head) if "zeros" in flaws else out(layer, head) for layer, head in heads]
    with edit(lm, *(edits[-1:] if "alone" in flaws else edits)):
        surprise = _surprise(run(lm, tokens, sites=())[0], tokens)
    return float(surprise.mean()) if "whole" in flaws else _both(surprise, period)[which]


def _flawed(flaws: Sequence[str]) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    return Mistake(
        "_".join(flaws),
        f"{'One flaw is' if len(flaws) == 1 else f'{len(flaws)} flaws are'} left: {found}.",
        lambda lm, tokens, period, heads: _knocked_out(lm, tokens, period, heads, flaws=flaws),
    )


def _to_knock_out(seed: int, family: str) -> tuple:
    tokens = repeated_tokens(tiny_model(family), batch=3, period=6, seed=seed)
    heads = random.Random(seed).sample(list(product(range(3), range(4))), 3)
    return (Tiny(seed, family), tokens, 6, heads)


FAIR_ABLATION = Exercise(
    id="05_fair_ablation",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_ablation,
    library=_knocked_out,
    cases=lambda seed: [_to_knock_out(seed, "llama"), _to_knock_out(seed + 100, "gpt2")],
    mistakes=(
        *(_flawed(flaws) for size in (1, 2, 3) for flaws in combinations(FLAWS, size)),
        Mistake(
            "per_position",
            "The flaws are mended, but yours takes each position's own mean. With so few texts a good part of that is "
            "the text itself: use `per_position=False`, one mean over all positions but the first.",
            partial(_knocked_out, per_position=True),
        ),
        Mistake(
            "with_the_sink",
            "The flaws are mended, but your mean counts position 0, the sink, which is unlike all others. Leave it "
            "out, as `mk.mean(..., per_position=False)` does.",
            partial(_knocked_out, sink=True),
        ),
        Mistake(
            "first_copy",
            "The flaws are mended, but yours is the loss on the *first* copy. `copy_losses` returns both: the second "
            "is at place 1.",
            partial(_knocked_out, which=0),
        ),
        Mistake(
            "not_edited",
            "Yours is the loss of the intact model: run it *inside* the `with` block.",
            lambda lm, tokens, period, heads: _knocked_out(lm, tokens, period, ()),
        ),
    ),
    hints=(
        "Three questions: what is put in, how many heads are out at the same time, and on which tokens is the loss?",
        '`_, cache = mk.run(lm, tokens, sites="z")`, then one `mk.mean("z", layer, cache, head=head, '
        "per_position=False)` a head, all in a list `edits`.",
        "Run the tokens inside `with mk.edit(lm, *edits):` and return `copy_losses(logits, tokens, period)[1]`.",
    ),
    discussion="Each flaw makes the heads look less (or more) important than they are, and the code runs without a "
    "murmur. Ask of every ablation: what stands there instead, what else is out, and what is measured?",
    tolerance=1e-3,
)


# suspects -----------------------------------------------------------------------------------------------------


def suspects(lm: LanguageModel, data: Mapping[str, int]) -> list[Head]:
    top, _ = induction_heads(lm, data)[0]
    table = _looks(lm, **data)["previous"].mean(-1)
    heads = product(range(top), range(lm.n_heads))
    return sorted(heads, key=lambda head: float(table[head]), reverse=True)[:STRONGEST]


def _before(lm: LanguageModel, data: Mapping[str, int], *, same: int = 0) -> list[Head]:
    return _ranked(_looks(lm, **data)["previous"].mean(-1), low=0, high=_strongest(lm, data)[0][0] + same)


CONFUSED_SUSPECTS: dict[str, Callable[[LanguageModel, Mapping[str, int]], list]] = {
    "any_layer": lambda lm, data: _ranked(_looks(lm, **data)["previous"].mean(-1), low=0),
    "reversed": lambda lm, data: _before(lm, data)[::-1],
    "head_first": lambda lm, data: _swap(_before(lm, data)),
    "duplicate": lambda lm, data: _ranked(
        _looks(lm, **data)["duplicate"].mean(-1), low=0, high=_strongest(lm, data)[0][0]
    ),
    "first_text": lambda lm, data: _ranked(
        _looks(lm, **data)["previous"][..., 0], low=0, high=_strongest(lm, data)[0][0]
    ),
}


@lru_cache(maxsize=256)
def _middle(seed: int, finding: Callable, *slips: Callable) -> dict[str, int]:
    """As `_telling`, on texts whose strongest induction head stands in layer 1, with a layer above and one below."""
    lm = tiny_model(seed=seed)

    def tells(data: dict[str, int]) -> bool:
        if _strongest(lm, data)[0][0] != 1:
            return False
        answers = [str(answer(lm, data)) for answer in (finding, *slips)]
        return len(set(answers)) == len(answers)

    drawn = ({"batch": 2, "period": 5, "seed": seed + 1000 * attempt} for attempt in count())
    return next(filter(tells, drawn))


SUSPECTS = Exercise(
    id="05_suspects",
    kind="finding",
    level=2,
    points=2,
    minutes=8,
    reference=suspects,
    cases=lambda seed: [
        (MODEL, _real(seed)),
        (Tiny(seed), _middle(seed, suspects, *CONFUSED_SUSPECTS.values(), partial(_before, same=1))),
    ],
    mistakes=(
        Mistake(
            "any_layer",
            "Yours takes heads of all layers. Information flows upwards: only heads in layers *below* the strongest "
            "induction head can have told it anything.",
            CONFUSED_SUSPECTS["any_layer"],
        ),
        Mistake(
            "same_layer",
            "Yours counts the induction head's own layer in. Heads of one layer read the same stream, before any of "
            "them has written: take the layers strictly below.",
            partial(_before, same=1),
        ),
        Mistake(
            "reversed",
            "The right heads, in the wrong order: the highest score comes first.",
            CONFUSED_SUSPECTS["reversed"],
        ),
        Mistake(
            "head_first",
            "The right heads, but written (head, layer). Return (layer, head).",
            CONFUSED_SUSPECTS["head_first"],
        ),
        Mistake(
            "duplicate",
            "Yours ranks by the duplicate-token score. Asked are heads that look at the token *before*.",
            CONFUSED_SUSPECTS["duplicate"],
        ),
        Mistake(
            "first_text",
            "Yours looks at the first text only. Take the mean over the batch.",
            CONFUSED_SUSPECTS["first_text"],
        ),
    ),
    hints=(
        "`layer, _ = induction_heads(lm, data)[0]` is where the strongest one stands.",
        'A table of `previous_token_score(cache["pattern", l])` for every `l` in `range(layer)`, then its four largest '
        "entries.",
        "`table = torch.stack([...])`, then `[divmod(int(i), lm.n_heads) for i in table.flatten().topk(4).indices]`.",
    ),
    properties=(Property(IS_A_HEAD, lambda result, lm, data: _are_heads(result, lm)),),
    discussion="Several heads look at the token before, and look much alike. If a score were a function, each of them "
    "would be part of the mechanism. The next exercise asks the model.",
    teaches=("head_scores",),
)


# needed_head --------------------------------------------------------------------------------------------------


def needed_head(lm: LanguageModel, data: Mapping[str, int]) -> Head:
    left = _left(lm, **data)
    return min(left, key=left.get)


@lru_cache(maxsize=512)
def _left(lm: LanguageModel, *, batch: int, period: int, seed: int, fill: str = "mean") -> dict[Head, float]:
    """The strongest induction head's score without each suspect, in one run: the texts once a suspect."""
    data = {"batch": batch, "period": period, "seed": seed}
    senders, (layer, head), tokens = suspects(lm, data), induction_heads(lm, data)[0], repeated_tokens(lm, **data)
    _, cache = run(lm, tokens, sites="z", layers=range(layer))
    edits = []
    for number, (low, writer) in enumerate(senders):
        z = cache["z", low][:, :, writer]
        usual = {"mean": z[:, 1:].mean((0, 1)), "zeros": torch.zeros_like(z), "per_position": z.mean(0)}[fill]
        edits.append(Edit("z", low, partial(_put, usual, slice(number * batch, (number + 1) * batch)), head=writer))
    with edit(lm, *edits):
        _, seen = run(lm, tokens.repeat(len(senders), 1), sites="pattern", layers=layer)
    patterns = seen["pattern", layer].split(batch)
    return {who: float(induction_score(each, period)[head]) for who, each in zip(senders, patterns, strict=True)}


def _put(usual: Tensor, rows: slice, value: Tensor) -> Tensor:
    value[rows] = usual  # an edit is given a copy
    return value


def _most_left(lm: LanguageModel, data: Mapping[str, int]) -> Head:
    left = _left(lm, **data)
    return max(left, key=left.get)


def _needed_with(lm: LanguageModel, data: Mapping[str, int], *, fill: str) -> Head:
    """The same with zeros, or with each position's own mean, in the suspect's place."""
    left = _left(lm, **data, fill=fill)
    return min(left, key=left.get)


OTHER_KNOCKS = {name: partial(_needed_with, fill=name) for name in ("zeros", "per_position")}
CONFUSED_NEED: dict[str, Callable[[LanguageModel, Mapping[str, int]], Any]] = {
    "highest_score": lambda lm, data: suspects(lm, data)[0],
    "least_needed": _most_left,
}


NEEDED_HEAD = Exercise(
    id="05_needed_head",
    kind="finding",
    level=3,
    points=3,
    minutes=15,
    reference=needed_head,
    cases=lambda seed: [
        (MODEL, _real(seed)),
        (Tiny(seed), _middle(seed, needed_head, *CONFUSED_NEED.values())),
        (Tiny(seed + 100), _middle(seed + 100, needed_head, *OTHER_KNOCKS.values())),
    ],
    mistakes=(
        Mistake(
            "highest_score",
            "Yours has the highest previous-token *score*. A score says where a head looks, not whether anybody needs "
            "it: knock each suspect out and see.",
            CONFUSED_NEED["highest_score"],
        ),
        Mistake(
            "least_needed",
            "Yours is the suspect without which the induction score stays *highest*. The one that is needed leaves the "
            "lowest behind.",
            CONFUSED_NEED["least_needed"],
        ),
        Mistake(
            "head_first",
            "The right head, but written (head, layer). Return (layer, head).",
            lambda lm, data: needed_head(lm, data)[::-1],
        ),
        Mistake(
            "zeros",
            "Yours puts in zeros, which are far from what some heads always write. Put in the head's mean: "
            "`mk.mean(..., per_position=False)`.",
            OTHER_KNOCKS["zeros"],
        ),
        Mistake(
            "per_position",
            "Yours puts in each position's own mean. With so few texts that is nearly what stands there, and nothing "
            "is knocked out: use `per_position=False`.",
            OTHER_KNOCKS["per_position"],
        ),
        Mistake(
            "the_receiver",
            "Yours is the induction head itself. Asked is the suspect, in a layer below, that it needs.",
            lambda lm, data: induction_heads(lm, data)[0],
        ),
        Mistake(
            "number_in_the_list",
            "Yours is the suspect's number in the list. Return the head itself, (layer, head).",
            lambda lm, data: suspects(lm, data).index(needed_head(lm, data)),
        ),
    ),
    hints=(
        'First a run for the means: `_, cache = mk.run(lm, tokens, sites="z")`. The receiver is '
        "`induction_heads(lm, data)[0]`.",
        'For each suspect: inside `with mk.edit(lm, mk.mean("z", layer, cache, head=head, per_position=False)):` run '
        "the tokens and read the receiver's pattern.",
        "Keep `induction_score(pattern, period)[receiver_head]` for each suspect, and return the suspect with the "
        "smallest.",
    ),
    properties=(
        Property(
            "It is a pair (layer, head) of the model it is given. (The check also gives it a tiny one: compute it from "
            "`lm` and `data`.)",
            lambda result, lm, data: _are_heads([result], lm),
        ),
    ),
    discussion="Of several heads that look alike, one carries the mechanism; without the others nothing happens to it, "
    "or the score even rises. Where a head looks is a description, what the rest of the model does without it is an "
    "experiment.",
    teaches=("head_scores",),
)


# key_without --------------------------------------------------------------------------------------------------


def key_without(
    lm: LanguageModel, tokens: Int[Tensor, "batch pos"], sender: Head, receiver: Head
) -> Float[Tensor, "batch pos d_head"]:
    (low, writer), (high, reader) = sender, receiver
    _, cache = run(lm, tokens, sites=("z", "resid_pre"))
    batch, length = tokens.shape
    matrix = lm.W_O(low)[writer]
    said = torch.zeros(batch, length, lm.d_model)
    for text in range(batch):
        for place in range(length):
            said[text, place] = cache["z", low][text, place, writer] @ matrix
    usual = sum(said[text, place] for text in range(batch) for place in range(1, length)) / (batch * (length - 1))
    stream = cache["resid_pre", high] - (said - usual)
    with edit(lm, Edit("resid_pre", high, lambda _: stream)):
        _, heard = run(lm, tokens, sites="k", layers=high)
    return heard["k", high][:, :, reader // (lm.n_heads // lm.n_kv_heads)]


def _key_with(
    lm: LanguageModel,
    tokens: Tensor,
    sender: Head,
    receiver: Head,
    *,
    times: float = -1.0,
    centre: str = "rest",
    write: str = "head",
    site: str = "k",
    group: bool = True,
) -> Tensor:
    (low, writer), (high, reader) = sender, receiver
    _, cache = run(lm, tokens, sites=("z", "attn_out"), layers=low)
    z = cache["z", low][:, :, writer]
    said = {"head": lambda: z @ lm.W_O(low)[writer], "layer": lambda: cache["attn_out", low]}[write]()
    if centre != "none":
        said = said - (said[:, 1:] if centre == "rest" else said).mean((0, 1))
    with edit(lm, Edit("resid_pre", high, lambda old: old + times * said)):
        heard = run(lm, tokens, sites=site, layers=high)[1][site, high]
    shared = reader // (lm.n_heads // lm.n_kv_heads) if site != "q" else reader
    return heard[:, :, shared if group else reader % lm.n_kv_heads]


def _conversation(seed: int, family: str) -> tuple:
    rng = random.Random(seed)
    tokens = repeated_tokens(tiny_model(family), batch=2, period=5, seed=seed)
    # heads 1 and 2 are those whose group is not their number modulo the groups
    return (Tiny(seed, family), tokens, (rng.randrange(2), rng.randrange(4)), (2, rng.choice((1, 2))))


KEY_WITHOUT = Exercise(
    id="05_key_without",
    kind="code",
    level=3,
    points=4,
    minutes=20,
    reference=key_without,
    library=_key_with,
    cases=lambda seed: [_conversation(seed, "llama"), _conversation(seed + 100, "gpt2")],
    mistakes=(
        Mistake(
            "not_centred",
            "Yours takes out the whole write, its mean too. The head would then miss what is said at *every* position, "
            "which says nothing about this one: take off the mean first.",
            partial(_key_with, centre="none"),
        ),
        Mistake(
            "mean_with_the_sink",
            "Yours takes the mean over all positions. Position 0 is a sink, unlike all others: take it over `[:, 1:]`.",
            partial(_key_with, centre="all"),
        ),
        Mistake(
            "added",
            "Yours *adds* the write once more. Subtract it.",
            partial(_key_with, times=1.0),
        ),
        Mistake(
            "whole_layer",
            "Yours takes out what the whole layer's attention wrote. Asked is one head's write: `z[:, :, head] @ "
            "lm.W_O(layer)[head]`.",
            partial(_key_with, write="layer"),
        ),
        Mistake(
            "query",
            "Yours is the receiver's *query*. Asked is its key.",
            partial(_key_with, site="q"),
        ),
        Mistake(
            "unchanged",
            "Yours is the key as it is, with the sender's write. Subtract before the key is computed, and return what "
            "was read inside the `with` block.",
            partial(_key_with, times=0.0),
        ),
        Mistake(
            "wrong_group",
            "Yours reads another head's key. Neighbouring heads share keys: head h uses number "
            "`h // (lm.n_heads // lm.n_kv_heads)`.",
            partial(_key_with, group=False),
        ),
        Mistake(
            "not_centred_and_wrong_group",
            "Two slips: yours takes out the whole write, its mean too, and reads another head's key. Take off the mean "
            "over positions 1 and up first; head h uses key number `h // (lm.n_heads // lm.n_kv_heads)`.",
            partial(_key_with, centre="none", group=False),
        ),
    ),
    hints=(
        'What the sender writes: `cache["z", layer][:, :, head] @ lm.W_O(layer)[head]`, [batch pos d_model]. Take off '
        "its mean over texts and positions 1 and up.",
        'Edit "resid_pre" of the receiver\'s layer: `lambda stream: stream - said`. Inside, run the tokens and read '
        'the site "k" of that layer.',
        "Return the receiver's share of it: `k[:, :, receiver_head // (lm.n_heads // lm.n_kv_heads)]`.",
    ),
    discussion="You have cut one wire of the circuit: from one head to one input of another, and nothing else. The "
    "receiver's query and value still hear the sender, and so does everybody else. `mk.without_sender` does the same "
    "for q, k and v.",
    teaches=("without_sender",),
    tolerance=1e-3,
)


# composition_control: design ----------------------------------------------------------------------------------


def composition_control(lm: LanguageModel, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"choice": "queries", "score": _score_without(lm, data, data["controls"]["queries"])}


def _score_without(lm: LanguageModel, data: Mapping[str, Any], inputs: Sequence[str]) -> float:
    layer, head = data["receiver"]
    edits = [
        without_sender(lm, data["tokens"], sender=data["sender"], receiver=data["receiver"], through=each)
        for each in inputs
    ]
    with edit(lm, *edits):
        _, cache = run(lm, data["tokens"], sites="pattern", layers=layer)
    return float(induction_score(cache["pattern", layer], data["period"])[head])


CONTROLS = {"queries": ["q"], "values": ["v"], "all_three": ["q", "k", "v"], "nothing": []}


def _experiment(seed: int) -> dict[str, Any]:
    rng, period = random.Random(seed), 5
    return {
        "tokens": repeated_tokens(tiny_model(), batch=2, period=period, seed=seed),
        "period": period,
        "sender": (rng.randrange(2), rng.randrange(4)),
        "receiver": (2, rng.randrange(4)),
        "controls": CONTROLS,
    }


def _other_choice(name: str) -> Callable[[LanguageModel, Mapping[str, Any]], dict[str, Any]]:
    return lambda lm, data: {"choice": name, "score": _score_without(lm, data, data["controls"][name])}


def _right_choice(*inputs: str) -> Callable[[LanguageModel, Mapping[str, Any]], dict[str, Any]]:
    return lambda lm, data: {"choice": "queries", "score": _score_without(lm, data, inputs)}


COMPOSITION_CONTROL = Exercise(
    id="05_composition_control",
    kind="code",
    level=3,
    points=4,
    minutes=15,
    reference=composition_control,
    cases=lambda seed: [(Tiny(seed), _experiment(seed)), (Tiny(seed + 100), _experiment(seed + 100))],
    mistakes=(
        Mistake(
            "values",
            "The induction score is read off the pattern, which queries and keys make and values never touch: this "
            "control cannot fail, so it cannot refute anything.",
            _other_choice("values"),
        ),
        Mistake(
            "all_three",
            "This takes the write out of the keys as well. The score must fall if the claim is true, and may fall if "
            "it is false: it cannot tell the two apart.",
            _other_choice("all_three"),
        ),
        Mistake(
            "nothing",
            "Taking nothing out tests the code, not the claim: the score is what it was, whatever the mechanism.",
            _other_choice("nothing"),
        ),
        Mistake(
            "keys_measured",
            "The right control, but the score is that without the sender in the *keys*: the experiment itself. Measure "
            "with the control's own inputs, `data['controls'][choice]`.",
            _right_choice("k"),
        ),
        Mistake(
            "unchanged",
            "The right control, but the score is that of the intact head: run the tokens inside the `with` block.",
            _right_choice(),
        ),
    ),
    hints=(
        "The claim: the sender's write matters *as part of the keys*. The rival: without so large a part of its input, "
        "the head is upset, whichever input it is. Which control would fall if the rival were right?",
        "Ask of each control: is there a world in which its score falls although the claim is true, and one in which "
        "it stays?",
        "Build one `mk.without_sender(lm, tokens, sender=..., receiver=..., through=each)` for each input in "
        "`data['controls'][choice]`, run inside `mk.edit(lm, *edits)`, and return the dict.",
    ),
    discussion="Same write, same head, same positions, another input. If the queries had suffered as much, the fall "
    "would have shown only that the head was upset. Its partner is another sender, taken out of the same keys: the "
    "next cells run both.",
    control=True,
    choice=True,
    tolerance=1e-3,
)


# steepest_rise ------------------------------------------------------------------------------------------------


def steepest_rise(steps: Int[Tensor, " step"], scores: Float[Tensor, " step"], width: int) -> tuple[int, int, float]:
    best = (0, 0, -math.inf)
    for start in range(len(steps) - width):
        rise = float(scores[start + width]) - float(scores[start])
        if rise > best[2]:
            best = (int(steps[start]), int(steps[start + width]), rise)
    return best


def _rises(steps: Tensor, scores: Tensor, width: int, *, sign: int = 1, size: bool = False) -> tuple[int, int, float]:
    rise = scores[width:] - scores[:-width]
    rise = rise.abs() if size else rise
    start = int((sign * rise).argmax())
    return int(steps[start]), int(steps[start + width]), float(rise[start])


@lru_cache(maxsize=256)
def _curve(seed: int, points: int) -> tuple:
    """A score that stays low, rises within a few measurements, and creeps on; with one jerk and one larger fall."""
    for attempt in count():
        rng = random.Random(seed + 1000 * attempt)
        width, middle = rng.randint(4, 6), rng.uniform(0.4, 0.6) * points
        jerk, fall = round(0.15 * points), round(0.85 * points)
        noise = torch.randn(points, generator=_generator(seed + 1000 * attempt))
        at = torch.arange(float(points))
        scores = 0.05 + 0.5 * torch.sigmoid((at - middle) / 2) + 0.001 * at + 0.004 * noise
        scores[jerk] += 0.2
        scores[fall:] -= 0.5
        steps = (10 * torch.arange(points)) + 10 * rng.randint(0, 3)
        found = [
            _rises(steps, scores, width),
            _rises(steps, scores, 1),
            _rises(steps, scores, width, size=True),
            _rises(steps, scores, width, sign=-1),
            (int(steps[0]), int(steps[-1]), 0.0),
        ]
        if len(set(found)) == len(found):
            return steps, scores, width
    raise AssertionError("an endless count has an end")


def _late(seed: int, points: int) -> tuple:
    """A score that rises in the very last stretch only, so that every stretch has to be tried."""
    width = random.Random(seed).randint(4, 6)
    scores = 0.05 + 0.004 * torch.randn(points, generator=_generator(seed))
    scores[-width:] += torch.linspace(0.1, 0.5, width)
    return 10 * torch.arange(points), scores, width


STEEPEST_RISE = Exercise(
    id="05_steepest_rise",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=steepest_rise,
    cases=lambda seed: [_curve(seed, 60), _curve(seed + 100, 40), _late(seed + 200, 30)],
    mistakes=(
        Mistake(
            "one_measurement",
            "Yours is the largest rise from one measurement to the next, which may be noise: compare measurements that "
            "are `width` apart.",
            lambda steps, scores, width: _rises(steps, scores, 1),
        ),
        Mistake(
            "size",
            "Yours is the largest *change*, and it is a fall. Asked is a rise: keep the sign.",
            partial(_rises, size=True),
        ),
        Mistake("fall", "Yours is the steepest *fall*: the sign is turned round.", partial(_rises, sign=-1)),
        Mistake(
            "last_missed",
            "Yours never tries the last stretch, the one that ends with the last measurement. There are "
            "`len(scores) - width` of them.",
            lambda steps, scores, width: steepest_rise(steps[:-1], scores[:-1], width),
        ),
        Mistake(
            "places",
            "The right stretch, but in places of the list. Return the steps that stand there: `steps[i]`.",
            lambda steps, scores, width: (
                int((scores[width:] - scores[:-width]).argmax()),
                int((scores[width:] - scores[:-width]).argmax()) + width,
                float((scores[width:] - scores[:-width]).max()),
            ),
        ),
        Mistake(
            "whole_run",
            "Yours is the rise over the whole run. A slow creep would look the same: find the stretch of `width` "
            "measurements.",
            lambda steps, scores, width: (int(steps[0]), int(steps[-1]), float(scores[-1] - scores[0])),
        ),
        Mistake(
            "per_step",
            "Yours divides the rise by its length. Return the rise itself.",
            lambda steps, scores, width: (
                *_rises(steps, scores, width)[:2],
                _rises(steps, scores, width)[2] / width,
            ),
        ),
    ),
    hints=(
        "`scores[width:] - scores[:-width]` is the rise over every stretch of `width` measurements.",
        "`start = int(rise.argmax())` is where the steepest begins; it ends at `start + width`.",
        "Return `int(steps[start]), int(steps[start + width]), float(rise[start])`.",
    ),
    discussion='A number for "abrupt": how much of the whole rise happens within a small part of the run. For a curve '
    "that creeps evenly it is that part itself.",
)


CHAPTER = Chapter(
    number="05",
    title="induction heads",
    notebook="05_induction_heads",
    question="How does in-context copying work?",
    minutes=150,
    needs=("00",),
    exercises=(
        COPY_LOSSES,
        PREVIOUS_TOKEN_SCORE,
        INDUCTION_SCORE,
        INDUCTION_HEADS,
        COPYING_SHARE,
        MATCHED_HEADS,
        FAIR_ABLATION,
        SUSPECTS,
        NEEDED_HEAD,
        KEY_WITHOUT,
        COMPOSITION_CONTROL,
        STEEPEST_RISE,
    ),
    claim=Claim(
        statements={
            "score": Option(
                "a head with a high previous-token score is part of the copying",
                False,
                "The suspects' scores are alike, and all but one can be taken away at no cost to the induction head.",
            ),
            "composition": Option(
                "one head tells each position what stood before it, and induction heads find their place by that",
                True,
                "Taken out of the keys, its write takes the induction score with it; taken out of the queries, or "
                "another head's write taken out of the keys, nothing much happens.",
            ),
            "all_context": Option(
                "induction heads explain all that the model learns from its context",
                False,
                "The texts held nothing but repetition. What else a context teaches was never tested.",
            ),
        },
        evidence={
            "readable": Option(
                "it can be read from the activations", False, "No reader was trained; the patterns were only looked at."
            ),
            "correlated": Option(
                "it goes along with the copying", False, "That is the word for a score, before anything is changed."
            ),
            "necessary": Option(
                "without it the copying suffers",
                True,
                "Each link was cut, and the copying suffered; matched cuts elsewhere did little.",
            ),
            "sufficient": Option(
                "put in, it brings the copying",
                False,
                "For that you would have to put it into a model that does not copy, and see it copy. (The toy model "
                "comes near: it grew a copier when it got a second layer.)",
            ),
        },
        refuted_by={
            "other_sender": Option(
                "another previous-token head whose write, taken out of the same keys, costs as much",
                True,
                "Then any write would be missed in these keys, and not this head's word on what stood before.",
            ),
            "random_heads": Option(
                "as many random heads of the same layers whose absence costs as much",
                False,
                "That would refute another sentence: that the induction heads are needed for the copying (section 5). "
                "This one is about who tells them where to look.",
            ),
            "other_previous": Option(
                "another head that looks at the token before as much",
                False,
                "There is one, and it refutes nothing: the claim is about whom the induction heads listen to.",
            ),
            "loss_left": Option(
                "a second copy that is still predicted better than the first",
                False,
                "Other heads copy a little, too; the claim is not that nobody else does.",
            ),
        },
    ),
)
