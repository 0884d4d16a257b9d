"""Chapter 06, indirect object identification: can we name the parts of a circuit?"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import count, pairwise, product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.ioi import IOI_NAMES, IOI_TEMPLATES, ioi_positions, ioi_prompts, ioi_reference
from mechkit.methods.attribution import logit_direction
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit, read
from mechkit.network.model import LanguageModel
from mechkit.network.replay import Replay
from mechkit.network.tiny import tiny_model

Head = tuple[int, int]
Data = Mapping[str, Any]

# single tokens of a tiny model
TINY_NAMES = ("Mary", "John", "Tom", "Alice", "Emma", "Paul", "Daniel", "Sarah", "Henry", "Lucy")
TINY_TEMPLATE = "When {A} and {B} went to the store {S} gave a drink to"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _sentences(
    seed: int, *, pairs: int = 1, template: str = IOI_TEMPLATES[0], names: Sequence[str] = IOI_NAMES
) -> dict:
    """Counterbalanced sentences, reference sentences of the same form, and how many heads to look at."""
    columns = ioi_prompts(pairs, templates=[template], names=names, seed=seed).columns
    return columns | {
        "fresh": ioi_reference(4, template=template, names=names, seed=seed),
        "names": list(dict.fromkeys([*columns["io"], *columns["other"], *(" " + name for name in names[:12])])),
        "lookers": 15,
        "movers": 4,
        "candidates": 3,
    }


def _real(seed: int, *, pairs: int = 1) -> tuple:
    """The chapter's own names and template for seed 0; others for the rest."""
    return (MODEL, _sentences(seed, pairs=pairs, template=IOI_TEMPLATES[seed % len(IOI_TEMPLATES)]))


def _small(seed: int) -> dict:
    return _sentences(seed, pairs=2, template=TINY_TEMPLATE, names=TINY_NAMES) | {
        "lookers": 7,
        "movers": 3,
        "candidates": 5,
    }


def _telling(
    seed: int, answers: Sequence[Callable[..., Any]], fits: Callable[[LanguageModel, Data], bool] = lambda *_: True
) -> list[tuple]:
    """Two cases on a tiny model on which these answers all differ, so that none is right, or named, by chance."""
    return _told_apart(seed, tuple(answers), fits)


@lru_cache(maxsize=256)
def _told_apart(seed: int, answers: tuple[Callable[..., Any], ...], fits: Callable[..., bool]) -> list[tuple]:
    kept: list[tuple] = []
    for attempt in count():
        model = seed + 100 * (attempt // 6)  # another model where this one has no such sentences
        lm, data = tiny_model(seed=model), _small(seed + 1000 * attempt)
        if not fits(lm, data):
            continue
        found = [repr(answer(lm, data)) for answer in answers]
        if found[0] in found[1:]:
            continue
        kept = [*kept[-5:], (Tiny(model), data, found)]
        for other in kept[:-1]:
            if len(set(zip(found, other[2], strict=True))) == len(answers):
                return [each[:2] for each in (other, kept[-1])]
    raise AssertionError


@lru_cache(maxsize=64)
def _places(lm: LanguageModel, prompts: tuple, io: tuple, subject: tuple) -> dict[str, Int[Tensor, " batch"]]:
    return ioi_positions(lm, {"prompts": prompts, "io": io, "subject": subject})


@lru_cache(maxsize=64)
def _seen(lm: LanguageModel, prompts: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _look(lm, prompts)


def _look(lm: LanguageModel, prompts: Sequence[str], *edits: Edit) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """After each prompt: logits, attention [batch layer head key], heads' z, and the last stream."""
    with edit(lm, *edits):
        logits, cache = run(lm, list(prompts), sites=("pattern", "z", "resid_post"))
    layers = range(lm.n_layers)
    attention = torch.stack([cache["pattern", layer][:, :, -1] for layer in layers], dim=1)
    z = torch.stack([cache["z", layer][:, -1] for layer in layers], dim=1)
    return logits[:, -1].clone(), attention.clone(), z, cache["resid_post", lm.n_layers - 1][:, -1].clone()


def _names(data: Data) -> tuple[tuple, tuple, tuple]:
    return tuple(data["prompts"]), tuple(data["io"]), tuple(data["subject"])


def _gaps(lm: LanguageModel, data: Data) -> Float[Tensor, " batch"]:
    """IO's logit less S's, prompt by prompt."""
    prompts, io, subject = _names(data)
    rows = zip(_seen(lm, prompts)[0], io, subject, strict=True)
    return torch.stack([row[lm.token_id(right)] - row[lm.token_id(wrong)] for row, right, wrong in rows])


def _attention(lm: LanguageModel, data: Data, *, first: bool = False) -> dict[str, Float[Tensor, "layer head"]]:
    """From END to each named place: the mean over the prompts, or the first prompt's."""
    prompts, io, subject = _names(data)
    rows, places = _seen(lm, prompts)[1], _places(lm, prompts, io, subject)
    each = {
        name: torch.stack([row[..., at] for row, at in zip(rows, where, strict=True)]) for name, where in places.items()
    }
    return {name: values[0] if first else values.mean(0) for name, values in each.items()}


@lru_cache(maxsize=64)
def _shares_of(lm: LanguageModel, prompts: tuple, io: tuple, subject: tuple) -> Float[Tensor, "batch layer head"]:
    return _share_out(lm, _seen(lm, prompts), io, subject)


def _share_out(lm: LanguageModel, seen: tuple, io: Sequence[str], subject: Sequence[str]) -> Tensor:
    _, _, z, last = seen
    shares = torch.zeros(z.shape[:3])
    for row, right, wrong in zip(range(len(z)), io, subject, strict=True):
        column = lm.W_U[:, lm.token_id(right)] - lm.W_U[:, lm.token_id(wrong)]
        direction = logit_direction(lm.final_norm, last[row][None], column[None])[0]
        for layer in range(lm.n_layers):
            pulled = lm.W_O(layer) @ direction  # head d_head
            for head in range(lm.n_heads):
                shares[row, layer, head] = z[row, layer, head] @ pulled[head]
    return shares


def _shares(lm: LanguageModel, data: Data, *, first: bool = False) -> Float[Tensor, "layer head"]:
    shares = _shares_of(lm, *_names(data))
    return shares[0] if first else shares.mean(0)


def _best(scores: Float[Tensor, "layer head"]) -> Head:
    return divmod(int(scores.argmax()), scores.shape[1])


def _ranked(scores: Float[Tensor, "layer head"], number: int) -> list[Head]:
    """The heads with the largest scores, largest first."""
    places = list(product(*map(range, scores.shape)))
    return sorted(places, key=lambda place: -scores[place].item())[:number]


def _is_head(result: Any, lm: LanguageModel) -> bool:
    return len(result) == 2 and 0 <= result[0] < lm.n_layers and 0 <= result[1] < lm.n_heads


A_HEAD = (
    "It is a pair (layer, head) of the model it is given. (The check also gives it a tiny one: compute it from `lm` "
    "and `data`.)"
)


# places -------------------------------------------------------------------------------------------------------


def places(ids: Int[Tensor, " pos"], io: int, subject: int) -> dict[str, int]:
    found = {}
    for position, token in enumerate(ids.tolist()):
        if token == io:
            found["IO"] = position
        if token == subject:
            found["S2" if "S1" in found else "S1"] = position
        found["END"] = position
    return found


def _rows(seed: int) -> list[tuple]:
    lm = tiny_model()
    columns = _small(seed)
    rows = zip(columns["prompts"], columns["io"], columns["subject"], strict=True)
    cases = [(lm.tokens(prompt)[0], lm.token_id(io), lm.token_id(subject)) for prompt, io, subject in rows]
    return cases[:2]


def _misplaced(**changed: Callable[[dict[str, int]], int]) -> Callable[..., dict[str, int]]:
    def answer(ids: Tensor, io: int, subject: int) -> dict[str, int]:
        right = places(ids, io, subject)
        return right | {name: change(right) for name, change in changed.items()}

    return answer


PLACES = Exercise(
    id="06_places",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=places,
    cases=_rows,
    mistakes=(
        Mistake(
            "first_again",
            "Your S2 is where the subject is said *first*. It is said twice: S1 is the first place, S2 the last.",
            _misplaced(S2=lambda right: right["S1"]),
        ),
        Mistake(
            "last_twice",
            "Your S1 is where the subject is said *last*. It is said twice: S1 is the first place, S2 the last.",
            _misplaced(S1=lambda right: right["S2"]),
        ),
        Mistake(
            "one_past_the_end",
            "Your END is the number of tokens, one past the last. Positions count from 0: END is that number less 1.",
            _misplaced(END=lambda right: right["END"] + 1),
        ),
        Mistake(
            "minus_one",
            "Your END is −1, Python's name for the last. Count it from the front like the other three: `len(ids) - 1`.",
            _misplaced(END=lambda right: -1),
        ),
        Mistake(
            "without_the_prefix",
            "Yours counts from the first word. The prefix token is position 0, so every place is one more.",
            _misplaced(
                **{name: lambda right, name=name: right[name] - 1 for name in ("IO", "S1", "S2", "END")},
            ),
        ),
        Mistake(
            "names_swapped",
            "Yours takes the two names for each other: `subject` is the one that is said twice.",
            _misplaced(IO=lambda right: right["S1"], S1=lambda right: right["IO"], S2=lambda right: right["IO"]),
        ),
    ),
    hints=(
        "`(ids == subject).nonzero()` lists every position at which the subject is said.",
        "`.flatten().tolist()` makes plain numbers of it: its first is S1, its last S2. END is `len(ids) - 1`.",
        "`said = (ids == subject).nonzero().flatten().tolist()`; return {'IO': int((ids == io).nonzero()), "
        "'S1': said[0], 'S2': said[-1], 'END': len(ids) - 1}.",
    ),
    discussion="Four places are all that this behaviour needs: who could be meant (IO, S1), who acts (S2), and where "
    "the answer must be given (END). From here on, where a head looks is a few numbers and not a picture.",
    teaches=("ioi_positions",),
)


# spread -------------------------------------------------------------------------------------------------------


def spread(differences: Float[Tensor, " prompt"]) -> dict[str, float]:
    number = len(differences)
    mean = sum(differences.tolist()) / number
    squares = sum((each - mean) ** 2 for each in differences.tolist())
    deviation = (squares / (number - 1)) ** 0.5
    return {"mean": mean, "sd": deviation, "standard_error": deviation / number**0.5}


def _spread_as(sd: Callable[[Tensor], Tensor], error: Callable[[Tensor, int], Tensor]) -> Callable[..., dict]:
    def answer(differences: Tensor) -> dict[str, float]:
        deviation = sd(differences)
        return {
            "mean": float(differences.mean()),
            "sd": float(deviation),
            "standard_error": float(error(deviation, len(differences))),
        }

    return answer


SPREAD = Exercise(
    id="06_spread",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=spread,
    cases=lambda seed: [(3 + 2 * torch.randn(size, generator=_generator(seed + size)),) for size in (8, 5)],
    mistakes=(
        Mistake(
            "divided_by_n",
            "Your standard deviation divides by n, which is right for a whole population. These prompts are a sample: "
            "divide by n − 1, as `tensor.std()` does.",
            _spread_as(lambda x: x.std(unbiased=False), lambda sd, n: sd / n**0.5),
        ),
        Mistake(
            "divided_by_n_minus_one_twice",
            "Your standard error divides by √(n − 1). The n − 1 is already in the standard deviation: divide by √n.",
            _spread_as(lambda x: x.std(), lambda sd, n: sd / (n - 1) ** 0.5),
        ),
        Mistake(
            "no_root_of_n",
            "Your standard error divides by n. The error of a mean shrinks with the *root* of n.",
            _spread_as(lambda x: x.std(), lambda sd, n: sd / n),
        ),
        Mistake(
            "sd_for_error",
            "Your standard error is the standard deviation: how far single prompts lie apart. Asked is how far the "
            "*mean* would move with other prompts: divide by √n.",
            _spread_as(lambda x: x.std(), lambda sd, n: sd),
        ),
        Mistake(
            "variance",
            "Your standard deviation is the variance. Take its root, which has the unit of the differences: nats.",
            _spread_as(lambda x: x.var(), lambda sd, n: (sd / n) ** 0.5),
        ),
    ),
    hints=(
        "`differences.mean()` and `differences.std()`; the latter divides by n − 1.",
        "The standard error of a mean of n independent numbers is their standard deviation divided by √n.",
        "Return {'mean': float(d.mean()), 'sd': float(d.std()), 'standard_error': float(d.std() / len(d) ** 0.5)}.",
    ),
    discussion="The standard deviation says how much the next prompt may differ, the standard error how much the next "
    "*study* of this size may differ. Prompts that share names and templates are not quite independent, so the true "
    "error is somewhat larger than this one.",
)


# recency ------------------------------------------------------------------------------------------------------


def recency(lm: LanguageModel, data: Data) -> float:
    gaps = {"ABBA": [], "BABA": []}
    for gap, order in zip(_gaps(lm, data).tolist(), data["order"], strict=True):
        gaps[order].append(gap)
    means = {order: sum(each) / len(each) for order, each in gaps.items()}
    return means["BABA"] - means["ABBA"]


RECENCY = Exercise(
    id="06_recency",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=recency,
    cases=lambda seed: [_real(seed, pairs=2)],
    mistakes=(
        Mistake(
            "other_way_round",
            "Yours is ABBA less BABA. Asked is by how much the model does better where IO is the name said *last*: "
            "BABA less ABBA.",
            lambda lm, data: -recency(lm, data),
        ),
        Mistake(
            "overall_mean",
            "Yours is the mean over all prompts, in which order cancels. Split the prompts by `data['order']` first.",
            lambda lm, data: float(_gaps(lm, data).mean()),
        ),
        Mistake(
            "half",
            "Yours is each order's distance from the mean, half of what was asked: take the difference of the two "
            "orders' means.",
            lambda lm, data: recency(lm, data) / 2,
        ),
        Mistake(
            "first_of_each",
            "Yours compares one prompt of each order. Single prompts lie nats apart: take both means.",
            lambda lm, data: float(
                _gaps(lm, data)[data["order"].index("BABA")] - _gaps(lm, data)[data["order"].index("ABBA")]
            ),
        ),
        Mistake(
            "probabilities",
            "Yours compares probabilities, which lie between 0 and 1. Asked are nats: take IO's *logit* less the "
            "subject's, without the softmax.",
            lambda lm, data: _by_order(data, _likelier(lm, data)),
        ),
        Mistake(
            "io_alone",
            "Yours compares IO's logit alone. A logit has no zero of its own: take IO's less the subject's.",
            lambda lm, data: _by_order(
                data, _seen(lm, tuple(data["prompts"]))[0].gather(1, _ids(lm, data["io"])[:, None])[:, 0]
            ),
        ),
    ),
    hints=(
        "Two steps: every prompt's own logit difference, then its mean over the prompts of each order. A mask of true "
        "and false picks the prompts of one.",
        "`logits, _ = mk.run(lm, data['prompts'], sites=())`, then `mk.logit_difference(logits, right, wrong)` with "
        "the ids of `data['io']` and `data['subject']` as tensors: `lm.token_id(name)` gives one.",
        "`baba = torch.tensor([order == 'BABA' for order in data['order']])` is the mask; return "
        "`float(gap[baba].mean() - gap[~baba].mean())`.",
    ),
    discussion="The model leans towards the name that it heard last, whoever it is. An unbalanced set would report "
    "this lean as skill, or hide skill behind it. In a counterbalanced one it cancels in the mean and shows in the "
    "spread.",
    tolerance=1e-3,
)


def _ids(lm: LanguageModel, names: Sequence[str]) -> Int[Tensor, " name"]:
    return torch.tensor([lm.token_id(name) for name in names])


def _by_order(data: Data, values: Tensor) -> float:
    last = torch.tensor([order == "BABA" for order in data["order"]])
    return float(values[last].mean() - values[~last].mean())


def _likelier(lm: LanguageModel, data: Data) -> Float[Tensor, " batch"]:
    """By how much IO is likelier than S, prompt by prompt: a difference of probabilities."""
    found, rows = _seen(lm, tuple(data["prompts"]))[0].softmax(-1), torch.arange(len(data["prompts"]))
    return found[rows, _ids(lm, data["io"])] - found[rows, _ids(lm, data["subject"])]


# dominant_head ------------------------------------------------------------------------------------------------

LOOKED_AT = ("IO", "S1", "S2", "END")


def dominant_head(lm: LanguageModel, data: Data) -> dict[str, Any]:
    return _dominant(lm, data, _best(_shares(lm, data)))


def _dominant(lm: LanguageModel, data: Data, head: Head, *, first: bool = False) -> dict[str, Any]:
    attention = _attention(lm, data, first=first)
    return {"head": head, "looks_at": max(LOOKED_AT, key=lambda name: attention[name][head].item())}


CONFUSED_DOMINANT: dict[str, Callable[[LanguageModel, Data], dict[str, Any]]] = {
    "most_negative": lambda lm, data: _dominant(lm, data, _best(-_shares(lm, data))),
    "first_prompt": lambda lm, data: _dominant(lm, data, _best(_shares(lm, data, first=True)), first=True),
    "looks_most_at_io": lambda lm, data: _dominant(lm, data, _best(_attention(lm, data)["IO"])),
    "magnitudes": lambda lm, data: _dominant(lm, data, _best(_shares_of(lm, *_names(data)).abs().mean(0))),
}


def _any_place(lm: LanguageModel, data: Data) -> dict[str, Any]:
    """The right head, and the first of *all* places that `ioi_positions` gives: it has a fifth."""
    right = dominant_head(lm, data)
    attention = _attention(lm, data)
    return right | {"looks_at": max(attention, key=lambda name: attention[name][right["head"]].item())}


def _largest_size(lm: LanguageModel, data: Data) -> dict[str, Any]:
    return _dominant(lm, data, _best(_shares(lm, data).abs()))


@lru_cache(maxsize=64)
def _tempting_case(seed: int) -> tuple:
    """A tiny model whose longest bar is a negative one, and whose right head looks at the fifth place most of all."""
    for attempt in count():
        model = seed + 100 * (attempt // 6)
        lm, data = tiny_model(seed=model), _small(seed + 1000 * attempt)
        shares = _shares(lm, data)
        if -shares.min() > shares.max() and _any_place(lm, data)["looks_at"] not in LOOKED_AT:
            return (Tiny(model), data)
    raise AssertionError


def _other_place(lm: LanguageModel, data: Data) -> dict[str, Any]:
    """The right head, with the place that it looks at least."""
    right = dominant_head(lm, data)
    attention = _attention(lm, data)
    return right | {"looks_at": min(LOOKED_AT, key=lambda name: attention[name][right["head"]].item())}


def _heads_apart(answers: Mapping[str, Callable[..., dict[str, Any]]]) -> list[Callable[..., Any]]:
    return [partial(_head_of, answer) for answer in answers.values()]


def _head_of(answer: Callable[..., dict[str, Any]], lm: LanguageModel, data: Data) -> Head:
    return answer(lm, data)["head"]


APART_DOMINANT = (
    partial(_head_of, dominant_head),
    lambda lm, data: _head_of(dominant_head, lm, data)[::-1],
    *_heads_apart(CONFUSED_DOMINANT),
)

DOMINANT_HEAD = Exercise(
    id="06_dominant_head",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=dominant_head,
    cases=lambda seed: [_real(seed), *_telling(seed, APART_DOMINANT), _tempting_case(seed)],
    mistakes=(
        Mistake(
            "most_negative",
            "Yours is the head with the most *negative* share: it argues for the subject (or IO and S are swapped).",
            CONFUSED_DOMINANT["most_negative"],
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Take means over all of them.",
            CONFUSED_DOMINANT["first_prompt"],
        ),
        Mistake(
            "looks_most_at_io",
            "Yours is the head that *looks* at IO most. Asked is the head that *writes* most towards IO and against S: "
            "the largest mean share.",
            CONFUSED_DOMINANT["looks_most_at_io"],
        ),
        Mistake(
            "magnitudes",
            "Yours takes magnitudes before the mean, so that a head which helps on one prompt and hurts on the next "
            "looks large. Keep the signs.",
            CONFUSED_DOMINANT["magnitudes"],
        ),
        Mistake(
            "largest_size",
            "Yours is the longest bar to *either* side (`.abs()`). Asked is the head that writes most *towards* IO: "
            "keep the signs, and take the largest share.",
            _largest_size,
        ),
        Mistake(
            "any_place",
            "The head is right. `mk.ioi_positions` knows a fifth place, 'S1+1', and yours counts it in: compare the "
            "four that are asked, 'IO', 'S1', 'S2' and 'END'.",
            _any_place,
        ),
        Mistake(
            "looks_least",
            "The head is right, but it looks *least* at the place you name. Compare its mean attention from END to the "
            "four places.",
            _other_place,
        ),
        Mistake(
            "counted_from_one",
            "Yours counts layers and heads from 1. Here both start at 0.",
            lambda lm, data: (
                dominant_head(lm, data) | {"head": tuple(1 + number for number in dominant_head(lm, data)["head"])}
            ),
        ),
        Mistake(
            "head_first",
            "Yours is (head, layer). Heads are named layer first, as in L5H1.",
            lambda lm, data: dominant_head(lm, data) | {"head": dominant_head(lm, data)["head"][::-1]},
        ),
    ),
    hints=(
        "`mk.direct_logit_attribution(lm, data['prompts'], right, wrong).heads` is [layer head prompt]; `right` and "
        "`wrong` are lists of ids.",
        "`mk.end_attention(lm, data['prompts'], mk.ioi_positions(lm, data))` gives [layer head] for each place. "
        "(`mk.ioi_positions` takes `data` itself.)",
        "The head is `divmod(int(heads.mean(-1).argmax()), lm.n_heads)`; "
        "`max(('IO', 'S1', 'S2', 'END'), key=lambda place: float(looks[place][head]))` is where it looks.",
    ),
    properties=(
        Property(A_HEAD, lambda result, lm, data: _is_head(result["head"], lm)),
        Property(
            "`looks_at` is one of 'IO', 'S1', 'S2', 'END'.", lambda result, lm, data: result["looks_at"] in LOOKED_AT
        ),
    ),
    discussion="On the default model the head that contributes most does not look at the answer at all. It looks at "
    "the subject's second mention. A head that raises IO − S can do it by raising IO, or by lowering S.",
)


# said_once: control -------------------------------------------------------------------------------------------


def said_once(lm: LanguageModel, data: Data) -> dict[str, float]:
    head = dominant_head(lm, data)["head"]
    return {
        "twice": _raised(lm, data["prompts"], data["subject"], data["names"], head),
        "once": _raised(lm, data["third"], data["other"], data["names"], head),
    }


def _raised(
    lm: LanguageModel,
    prompts: Sequence[str],
    said: Sequence[str],
    names: Sequence[str],
    head: Head,
    *,
    centred: bool = True,
    first: bool = False,
) -> float:
    """How far a head raises the name that acts, above the mean over the names: a mean over the prompts."""
    _, _, z, last = _seen(lm, tuple(prompts))
    layer, number = head
    total = []
    for row, name in enumerate(said):
        write, logits = z[row, layer, number] @ lm.W_O(layer)[number], {}
        for each in {*names, name}:
            direction = logit_direction(lm.final_norm, last[row][None], lm.W_U[:, lm.token_id(each)][None])[0]
            logits[each] = float(write @ direction)
        total.append(logits[name] - centred * sum(logits[each] for each in names) / len(names))
    return total[0] if first else sum(total) / len(total)


def _said_as(lm: LanguageModel, data: Data, *, other: str = "other", head: Callable = _best, **how: bool) -> dict:
    chosen = head(_shares(lm, data))
    return {
        "twice": _raised(lm, data["prompts"], data["subject"], data["names"], chosen, **how),
        "once": _raised(lm, data["third"], data[other], data["names"], chosen, **how),
    }


CONFUSED_SAID: dict[str, Callable[[LanguageModel, Data], dict[str, float]]] = {
    "not_centred": partial(_said_as, centred=False),
    # as well as IO in both: the third sentences of a quadruple are the same for either
    "old_name_in_both": partial(_said_as, other="subject"),
    "first_prompt": partial(_said_as, first=True),
    "wrong_head": partial(_said_as, head=lambda shares: _best(-shares)),
}

SAID_ONCE = Exercise(
    id="06_said_once",
    kind="finding",
    level=3,
    points=3,
    minutes=15,
    reference=said_once,
    cases=lambda seed: [_real(seed), *_telling(seed, (said_once, *CONFUSED_SAID.values()))],
    mistakes=(
        Mistake(
            "not_centred",
            "Yours is the name's logit alone. A head may lower every name alike: take off the mean over "
            "`data['names']`.",
            CONFUSED_SAID["not_centred"],
        ),
        Mistake(
            "old_name_in_both",
            "In the `third` prompts somebody else acts. Yours still measures one of the two old names there; the name "
            "at S2 is `data['other']`.",
            CONFUSED_SAID["old_name_in_both"],
        ),
        Mistake("first_prompt", "Yours is the first prompt's. Take the mean over all.", CONFUSED_SAID["first_prompt"]),
        Mistake(
            "wrong_head",
            "Yours measures the head with the most negative share. Ask about the dominant one, `dominant_head(lm, "
            "data)['head']`.",
            CONFUSED_SAID["wrong_head"],
        ),
        Mistake(
            "swapped",
            "Yours has the two the wrong way round: the subject of `data['prompts']` is the name said *twice*.",
            lambda lm, data: dict(zip(("once", "twice"), said_once(lm, data).values(), strict=True)),
        ),
        Mistake(
            "sign",
            "Yours has the wrong sign. A head that *lowers* the name gives a negative number.",
            lambda lm, data: {key: -value for key, value in said_once(lm, data).items()},
        ),
    ),
    hints=(
        "`mk.written_logits(lm, prompts, head, ids)` is [prompt name]: what the head writes towards each name. Call it "
        "for `data['prompts']` and for `data['third']`, with the ids of `data['names']`.",
        "For each prompt: the entry of the name at S2, less the mean of the row. `data['names'].index(name)` is its "
        "column; the name is in `data['subject']`, or in `data['other']` for `third`.",
        "`own = [data['names'].index(name) for name in said]`; `float((w[range(len(w)), own] - w.mean(1)).mean())`.",
    ),
    discussion="If this head were part of a machine that detects *repetition*, a name said once would leave it cold. "
    "On the default model it lowers that name nearly as far. So repetition is not what it goes by. What it *does* go "
    "by is still open: the name at S2 acts, and is also the name said last. Without this control you would have filed "
    "it under “duplicate detection”.",
    tolerance=1e-3,
    control=True,
)


# name_movers --------------------------------------------------------------------------------------------------


def name_movers(lm: LanguageModel, data: Data) -> list[Head]:
    shares = _shares(lm, data)
    lookers = _ranked(_attention(lm, data)["IO"], data["lookers"])
    return sorted(lookers, key=lambda head: -shares[head].item())[: data["movers"]]


def _movers_by(lm: LanguageModel, data: Data, look: Tensor, write: Tensor) -> list[Head]:
    return sorted(_ranked(look, data["lookers"]), key=lambda head: -write[head].item())[: data["movers"]]


CONFUSED_MOVERS: dict[str, Callable[[LanguageModel, Data], list[Head]]] = {
    "attention_alone": lambda lm, data: _ranked(_attention(lm, data)["IO"], data["movers"]),
    "shares_alone": lambda lm, data: _ranked(_shares(lm, data), data["movers"]),
    "too_few_lookers": lambda lm, data: sorted(
        _ranked(_attention(lm, data)["IO"], data["movers"]), key=lambda head: -_shares(lm, data)[head].item()
    ),
    "looks_at_the_subject": lambda lm, data: _movers_by(lm, data, _attention(lm, data)["S2"], _shares(lm, data)),
    "most_negative": lambda lm, data: _movers_by(lm, data, _attention(lm, data)["IO"], -_shares(lm, data)),
    "first_prompt": lambda lm, data: _movers_by(
        lm, data, _attention(lm, data, first=True)["IO"], _shares(lm, data, first=True)
    ),
    "smallest_first": lambda lm, data: name_movers(lm, data)[::-1],
    "in_order_of_layers": lambda lm, data: sorted(name_movers(lm, data)),
}


NAME_MOVERS = Exercise(
    id="06_name_movers",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=name_movers,
    cases=lambda seed: [_real(seed), *_telling(seed, (name_movers, *CONFUSED_MOVERS.values()))],
    mistakes=(
        Mistake(
            "attention_alone",
            "Yours are the heads that *look* at IO most. Several of them write nothing: among the lookers, take those "
            "with the largest shares.",
            CONFUSED_MOVERS["attention_alone"],
        ),
        Mistake(
            "shares_alone",
            "Yours are the heads with the largest shares, wherever they look. A name mover looks at IO: first take the "
            "`data['lookers']` heads that do so most.",
            CONFUSED_MOVERS["shares_alone"],
        ),
        Mistake(
            "too_few_lookers",
            "Yours takes the `data['movers']` heads that look most, and only sorts those by share. Choose among the "
            "`data['lookers']` that look most, which are more: sort all of them by share, then cut.",
            CONFUSED_MOVERS["too_few_lookers"],
        ),
        Mistake(
            "looks_at_the_subject",
            "Yours chooses among heads that look at S2. A name mover looks at IO, the name that it copies.",
            CONFUSED_MOVERS["looks_at_the_subject"],
        ),
        Mistake(
            "most_negative",
            "Yours are the lookers that write *against* IO. Take the largest shares, with their signs.",
            CONFUSED_MOVERS["most_negative"],
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Take means over all of them.",
            CONFUSED_MOVERS["first_prompt"],
        ),
        Mistake(
            "smallest_first",
            "The heads are right, and in reverse order: the largest share comes first.",
            CONFUSED_MOVERS["smallest_first"],
        ),
        Mistake(
            "in_order_of_layers",
            "The heads are right, but sorted by layer and number. Put the largest share first.",
            CONFUSED_MOVERS["in_order_of_layers"],
        ),
    ),
    hints=(
        "Two rankings: by attention from END to IO, then, among the first `data['lookers']` of those, by share.",
        "`looks.flatten().argsort(descending=True)[:n].tolist()` gives flat places; `divmod(place, lm.n_heads)` makes "
        "each a (layer, head).",
        "`sorted(lookers, key=lambda head: -float(shares[head]))[:data['movers']]`, where `shares` is the "
        "attribution's `.heads.mean(-1)`.",
    ),
    properties=(
        Property(
            "It is a list of `data['movers']` pairs (layer, head) of the model it is given.",
            lambda result, lm, data: len(result) == data["movers"] and all(_is_head(each, lm) for each in result),
        ),
    ),
    discussion="Looking and writing are two findings. On the default model about half of the heads that look hardest "
    "at IO write next to nothing along IO − S: attention alone would have given you a circuit twice too large.",
)


# copying ------------------------------------------------------------------------------------------------------


def copying(
    logits: Float[Tensor, "token head d_vocab"], tokens: Int[Tensor, " token"], among: int
) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:
    number, heads, _ = logits.shape
    up, down = torch.zeros(heads), torch.zeros(heads)
    for head in range(heads):
        for row, token in enumerate(tokens.tolist()):
            order = logits[row, head].argsort(descending=True).tolist()
            up[head] += (token in order[:among]) / number
            down[head] += (token in order[-among:]) / number
    return up, down


def _copy_case(seed: int) -> tuple:
    """Written logits of which some heads copy, some do the opposite, and some do neither, each to its own degree."""
    generator = _generator(seed)
    logits, tokens = torch.randn(12, 5, 40, generator=generator), torch.randperm(40, generator=generator)[:12]
    pull = torch.tensor([3.0, 1.5, 0.0, -1.5, -3.0])
    logits[torch.arange(12), :, tokens] += pull + 0.6 * torch.randn(12, 5, generator=generator)
    return (logits, tokens, 5)


def _copied(logits: Tensor, tokens: Tensor, among: int, *, above: int = 0) -> tuple[Tensor, Tensor]:
    own = logits.gather(-1, tokens[:, None, None].expand(-1, logits.shape[1], 1))
    up, down = (logits > own).sum(-1) + above, (logits < own).sum(-1) + above
    return (up < among).float().mean(0), (down < among).float().mean(0)


def _among_names(logits: Tensor, tokens: Tensor, among: int) -> tuple[Tensor, Tensor]:
    return _copied(logits[..., tokens], torch.arange(len(tokens)), among)


def _one_a_token(logits: Tensor, tokens: Tensor, among: int) -> tuple[Tensor, ...]:
    """The scores with the mean over the heads in place of the tokens."""
    each = [torch.stack(copying(row[None], token[None], among)) for row, token in zip(logits, tokens, strict=True)]
    return tuple(torch.stack(each, dim=1).mean(-1))


COPYING = Exercise(
    id="06_copying",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=copying,
    cases=lambda seed: [_copy_case(seed), _copy_case(seed + 20)],
    mistakes=(
        Mistake(
            "swapped",
            "Yours has the two the wrong way round: the first is for names that come out near the *top*.",
            lambda logits, tokens, among: copying(logits, tokens, among)[::-1],
        ),
        Mistake(
            "counted_from_one",
            "Yours counts ranks from 1 and then asks for less than `among`, so one place is lost. The top token has "
            "rank 0; it is among the first 5 if its rank is below 5.",
            lambda logits, tokens, among: _copied(logits, tokens, among, above=1),
        ),
        Mistake(
            "one_too_many",
            "Yours takes one place too many: with the top token at rank 0, the first 5 have ranks 0 to 4.",
            lambda logits, tokens, among: _copied(logits, tokens, among + 1),
        ),
        Mistake(
            "low_side_short",
            "Your first score is right; the second lost one place: the bottom token is number −1, so the last 5 are "
            "−5 to −1. Count how many come out *lower* than the name, and ask for less than `among`.",
            lambda logits, tokens, among: (
                _copied(logits, tokens, among)[0],
                _copied(logits, tokens, among, above=1)[1],
            ),
        ),
        Mistake(
            "low_side_long",
            "Your first score is right; the second takes one place too many. Count how many come out *lower* than the "
            "name, and ask for less than `among`.",
            lambda logits, tokens, among: (_copied(logits, tokens, among)[0], _copied(logits, tokens, among + 1)[1]),
        ),
        Mistake(
            "one_a_token",
            "Yours has one number a *token*. Asked is one a *head*: take the mean over the tokens, the first axis.",
            _one_a_token,
        ),
        Mistake(
            "best_only",
            "Yours counts only the very top and the very bottom. A name counts if it is among the `among` nearest.",
            lambda logits, tokens, among: _copied(logits, tokens, 1),
        ),
        Mistake(
            "among_the_names",
            "Yours ranks each name among the few names. Rank it in the whole vocabulary, the last axis.",
            _among_names,
        ),
        Mistake(
            "sign_alone",
            "Yours asks whether the name's logit is positive. All logits of a head may be shifted alike: ask for its "
            "rank.",
            lambda logits, tokens, among: tuple(
                (sign * logits.gather(-1, tokens[:, None, None].expand(-1, logits.shape[1], 1))[..., 0] > 0)
                .float()
                .mean(0)
                for sign in (1, -1)
            ),
        ),
    ),
    hints=(
        "For each name and head: how many tokens of the vocabulary come out higher than the name itself? Lower?",
        "`own = logits.gather(-1, tokens[:, None, None].expand(-1, logits.shape[1], 1))` is each name's own logit, "
        "[token head 1].",
        "`above = (logits > own).sum(-1)`, `below = (logits < own).sum(-1)`; return "
        "`(above < among).float().mean(0), (below < among).float().mean(0)`.",
    ),
    discussion="A copying score is read from weights: it says what a head would write about whatever it looked at. "
    "Where it looks, and whether anything comes of it, are two other questions.",
    teaches=("copying_scores",),
)


# negative_mover -----------------------------------------------------------------------------------------------


def negative_mover(lm: LanguageModel, data: Data) -> Head:
    shares = _shares(lm, data)
    return min(_ranked(_attention(lm, data)["IO"], data["lookers"]), key=lambda head: shares[head].item())


def _lookers_least(lm: LanguageModel, data: Data, place: str, *, first: bool = False) -> Head:
    shares = _shares(lm, data, first=first)
    lookers = _ranked(_attention(lm, data, first=first)[place], data["lookers"])
    return min(lookers, key=lambda head: shares[head].item())


CONFUSED_NEGATIVE: dict[str, Callable[[LanguageModel, Data], Head]] = {
    "anywhere": lambda lm, data: _best(-_shares(lm, data)),
    "largest": lambda lm, data: name_movers(lm, data)[0],
    "smallest_magnitude": lambda lm, data: min(
        _ranked(_attention(lm, data)["IO"], data["lookers"]), key=lambda head: abs(_shares(lm, data)[head].item())
    ),
    "looks_at_the_subject": lambda lm, data: _lookers_least(lm, data, "S2"),
    "first_prompt": lambda lm, data: _lookers_least(lm, data, "IO", first=True),
}


def _negative_turned(lm: LanguageModel, data: Data) -> Head:
    return negative_mover(lm, data)[::-1]


NEGATIVE_MOVER = Exercise(
    id="06_negative_mover",
    kind="finding",
    level=2,
    points=2,
    minutes=8,
    reference=negative_mover,
    cases=lambda seed: [_real(seed), *_telling(seed, (negative_mover, _negative_turned, *CONFUSED_NEGATIVE.values()))],
    mistakes=(
        Mistake(
            "anywhere",
            "Yours has the most negative share of all heads, wherever it looks. Ask only the `data['lookers']` heads "
            "that look at IO most.",
            CONFUSED_NEGATIVE["anywhere"],
        ),
        Mistake(
            "largest",
            "Yours writes IO *up*: that is a name mover. Take the most negative share.",
            CONFUSED_NEGATIVE["largest"],
        ),
        Mistake(
            "smallest_magnitude",
            "Yours has the share nearest to zero: it writes nothing. Take the most negative one.",
            CONFUSED_NEGATIVE["smallest_magnitude"],
        ),
        Mistake(
            "looks_at_the_subject",
            "Yours chooses among heads that look at S2. The negative name mover looks at IO, and writes it down.",
            CONFUSED_NEGATIVE["looks_at_the_subject"],
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Take means over all of them.",
            CONFUSED_NEGATIVE["first_prompt"],
        ),
        Mistake(
            "head_first",
            "Yours is (head, layer). Heads are named layer first, as in L5H1.",
            _negative_turned,
        ),
    ),
    hints=(
        "The lookers are those of `name_movers`; now the other end of the ranking by share.",
        "`min(lookers, key=lambda head: float(shares[head]))`.",
        "As in `name_movers`: `lookers = [divmod(i, lm.n_heads) for i in looks['IO'].flatten().argsort("
        "descending=True)[:data['lookers']].tolist()]`, then the `min` of hint 2.",
    ),
    properties=(Property(A_HEAD, lambda result, lm, data: _is_head(result, lm)),),
    discussion="It looks at the right name, and writes it down. GPT-2 has two such heads. Why would training make "
    "one? A later section catches it in the act: it acts on what the movers have already written, and holds it in "
    "check.",
)


# s_inhibition -------------------------------------------------------------------------------------------------


def s_inhibition(lm: LanguageModel, data: Data) -> list[Head]:
    high, mover = name_movers(lm, data)[0]
    candidates = _ranked(_attention(lm, data)["S2"][:high], data["candidates"])
    drops = {head: _drop(lm, data, head, (high, mover)) for head in candidates}
    return sorted(candidates, key=lambda head: -drops[head])[:2]


def _focus(looks: Float[Tensor, "batch key"], places: Mapping[str, Tensor]) -> float:
    """How much more one head looks at IO than at S1, from END."""
    rows = range(len(looks))
    return sum(float(looks[row, places["IO"][row]] - looks[row, places["S1"][row]]) for row in rows) / len(looks)


def _drop(
    lm: LanguageModel, data: Data, head: Head, mover: Head, *, zeros: bool = False, everywhere: bool = False
) -> float:
    return _dropped(lm, *_names(data), tuple(data["fresh"]), head, mover, zeros, everywhere)


@lru_cache(maxsize=512)
def _dropped(
    lm: LanguageModel,
    prompts: tuple,
    io: tuple,
    subject: tuple,
    fresh: tuple,
    head: Head,
    mover: Head,
    zeros: bool,
    everywhere: bool,
) -> float:
    where, kept = _places(lm, prompts, io, subject), _kept(lm, prompts)
    if everywhere:
        usual, position, stream = _usual(lm, fresh, head), None, kept.resid_pre(head[0])
    else:  # nothing changes before END, so nothing else is run again
        usual, position, stream = _seen(lm, fresh)[2].mean(0)[head], -1, kept.resid_pre(head[0])[:, -1:]
    usual = usual * (not zeros)
    place = Edit("z", head[0], lambda old: usual.expand_as(old), head=head[1], position=position)
    with read(lm, "pattern", mover[0]) as seen:
        kept.rest(head[0], stream, torch.arange(len(prompts)), place)
    after = seen["pattern", mover[0]][:, mover[1], -1]
    return _focus(_seen(lm, prompts)[1][:, mover[0], mover[1]], where) - _focus(after, where)


@lru_cache(maxsize=8)
def _kept(lm: LanguageModel, prompts: tuple) -> Replay:
    return Replay(lm, lm.tokens(list(prompts)))


def _usual(lm: LanguageModel, fresh: tuple, head: Head) -> Float[Tensor, "pos d_head"]:
    """What a head writes at each position, on average over the reference."""
    return run(lm, list(fresh), sites="z", layers=head[0])[1]["z", head[0]][:, :, head[1]].mean(0)


def _inhibit_by(lm: LanguageModel, data: Data, score: Callable[[Head, Head], float], place: str = "S2") -> list[Head]:
    high, mover = name_movers(lm, data)[0]
    candidates = _ranked(_attention(lm, data)[place][:high], data["candidates"])
    return sorted(candidates, key=lambda head: -score(head, (high, mover)))[:2]


def _of_shares(lm: LanguageModel, data: Data) -> list[Head]:
    return _inhibit_by(lm, data, lambda head, _: _shares(lm, data)[head].item())


CONFUSED_INHIBITION: dict[str, Callable[[LanguageModel, Data], list[Head]]] = {
    "attention_alone": lambda lm, data: _ranked(_attention(lm, data)["S2"][: name_movers(lm, data)[0][0]], 2),
    "smallest_drop": lambda lm, data: _inhibit_by(lm, data, lambda head, mover: -_drop(lm, data, head, mover)),
    "zeros": lambda lm, data: _inhibit_by(lm, data, lambda head, mover: _drop(lm, data, head, mover, zeros=True)),
    "by_share": _of_shares,
    "everywhere": lambda lm, data: _inhibit_by(
        lm, data, lambda head, mover: _drop(lm, data, head, mover, everywhere=True)
    ),
}


def _mover_on_top(lm: LanguageModel, data: Data) -> bool:
    """Whether there are heads below the strongest name mover to ask."""
    return name_movers(lm, data)[0][0] == lm.n_layers - 1


S_INHIBITION = Exercise(
    id="06_s_inhibition",
    kind="finding",
    level=3,
    points=3,
    minutes=20,
    reference=s_inhibition,
    cases=lambda seed: [
        _real(seed),
        *_telling(seed, (s_inhibition, *CONFUSED_INHIBITION.values()), _mover_on_top),
    ],
    mistakes=(
        Mistake(
            "attention_alone",
            "Yours are the heads that look at S2 most. Looking is not steering: knock each candidate out, and see whom "
            "the name mover misses.",
            CONFUSED_INHIBITION["attention_alone"],
        ),
        Mistake(
            "smallest_drop",
            "Yours are those whose absence changes the mover *least* (or the drop has the wrong sign). Attention "
            "before less attention after, largest first.",
            CONFUSED_INHIBITION["smallest_drop"],
        ),
        Mistake(
            "zeros",
            "Yours puts zeros in. Many heads always write something, and zeros take that away too: put in the mean "
            "over `data['fresh']`.",
            CONFUSED_INHIBITION["zeros"],
        ),
        Mistake(
            "by_share",
            "Yours ranks the candidates by their own share of the answer. These heads write for *other heads*: measure "
            "what the name mover looks at.",
            CONFUSED_INHIBITION["by_share"],
        ),
        Mistake(
            "everywhere",
            "Yours knocks each candidate out at *every* position. What it does at other words then goes as well. Asked "
            "is what it says at END: `mk.mean(..., position=-1)`.",
            CONFUSED_INHIBITION["everywhere"],
        ),
        Mistake(
            "reversed",
            "The heads are right, and in the wrong order: the largest drop comes first.",
            lambda lm, data: s_inhibition(lm, data)[::-1],
        ),
    ),
    hints=(
        "`high, mover = name_movers(lm, data)[0]`, and `looks = mk.end_attention(lm, data['prompts'], "
        "mk.ioi_positions(lm, data))`: the candidates are the `data['candidates']` largest of `looks['S2'][:high]`, "
        "the layers below.",
        "`_, usual = mk.run(lm, data['fresh'], sites='z')`; then for each candidate "
        "`with mk.edit(lm, mk.mean('z', layer, usual, head=head, position=-1)):` measure `mk.end_attention` again.",
        "A candidate's drop is the mover's (IO less S1) before, less the same after. Sort the candidates by it, "
        "largest first, and return the first two.",
    ),
    properties=(
        Property(
            "It is a list of pairs (layer, head) that stand below the strongest name mover.",
            lambda result, lm, data: all(each[0] < name_movers(lm, data)[0][0] for each in result),
        ),
    ),
    discussion="They look at the subject, and write something that makes the movers look away from it: taken out, the "
    "movers waver. That is a causal statement about *another head's attention*; how it travels (through the movers’ "
    "queries) is chapter 07.",
)


# fair_knock_out: repair ---------------------------------------------------------------------------------------


def fair_knock_out(lm: LanguageModel, data: Data, head: Head) -> float:
    return _knocked_out(lm, data, head, ())


FLAWS = {
    "same_prompts": "the mean is taken over the very prompts that are tested, so part of their answer is put back in "
    "(take it over `data['fresh']`)",
    "pooled": "one mean over all positions takes the place of every one, and the prefix's, which is like no other, is "
    "in it (keep each position's own mean)",
    "io_alone": "it reports IO's logit, which has no zero of its own (take IO's less the subject's)",
}


def _knocked_out(lm: LanguageModel, data: Data, head: Head, flaws: Sequence[str]) -> float:
    """The mean logit difference with one head at its mean, position by position, but for some flaws."""
    layer, number = head
    gaps = []
    _, seen = run(lm, data["prompts" if "same_prompts" in flaws else "fresh"], sites="z", layers=layer)
    usual = seen["z", layer][:, :, number].mean(0)
    usual = usual.mean(0).expand_as(usual) if "pooled" in flaws else usual
    for prompt, io, subject in zip(data["prompts"], data["io"], data["subject"], strict=True):
        with edit(lm, Edit("z", layer, lambda _: usual[None], head=number)):
            logits = run(lm, prompt, sites=())[0][0, -1]
        gaps.append(float(logits[lm.token_id(io)] - ("io_alone" not in flaws) * logits[lm.token_id(subject)]))
    return sum(gaps) / len(gaps)


def _flawed(flaws: Sequence[str]) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    return Mistake(
        "_and_".join(flaws),
        f"{'One flaw is' if len(flaws) == 1 else f'{len(flaws)} flaws are'} left: {found}.",
        lambda lm, data, head: _knocked_out(lm, data, head, flaws),
    )


def _zeroed(lm: LanguageModel, data: Data, head: Head) -> float:
    nothing = Edit("z", head[0], torch.zeros_like, head=head[1])
    logits = _look(lm, data["prompts"], nothing)[0]
    rows = torch.arange(len(logits))
    return float((logits[rows, _ids(lm, data["io"])] - logits[rows, _ids(lm, data["subject"])]).mean())


FAIR_KNOCK_OUT = Exercise(
    id="06_fair_knock_out",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_knock_out,
    cases=lambda seed: [
        (Tiny(seed), _small(seed), (1, 2)),
        (Tiny(seed + 1, "gpt2"), _small(seed + 1), (0, 3)),
    ],
    mistakes=(
        *(
            _flawed([flaw for flaw, present in zip(FLAWS, chosen, strict=True) if present])
            for chosen in product((False, True), repeat=3)
            if any(chosen)
        ),
        Mistake(
            "zeros",
            "Yours puts zeros in. That takes away what the head says of every sentence too: put in its mean over "
            "`data['fresh']`, position by position.",
            _zeroed,
        ),
        Mistake(
            "end_alone",
            "Yours knocks the head out at the last position only. What it says at the other words still goes on: leave "
            "`position` out.",
            lambda lm, data, head: _gap_with(lm, data, [head], position=-1),
        ),
        Mistake(
            "one_mean_for_all",
            "One flaw is left: `per_position=False` puts one mean over all words in place of every position's own (and "
            "over the prefix too). Leave it out.",
            lambda lm, data, head: _gap_with(lm, data, [head], per_position=False),
        ),
        Mistake(
            "not_knocked_out",
            "Yours is the intact model's difference: the edit did not reach the run. Call `mk.run` inside the `with` "
            "block.",
            lambda lm, data, head: float(_gaps(lm, data).mean()),
        ),
    ),
    hints=(
        "Three questions to the code: a mean over which prompts? Over which positions? Of what is the result a number?",
        "`_, usual = mk.run(lm, data['fresh'], sites='z')`, and `mk.mean('z', layer, usual, head=number)` keeps each "
        "position's own mean.",
        "Inside `with mk.edit(lm, mk.mean('z', layer, usual, head=number)):` run `data['prompts']`, and return "
        "`float(mk.logit_difference(logits, right, wrong).mean())`.",
    ),
    discussion="A knock-out must take away what the head says about *this* prompt and nothing else. Zeros take too "
    "much, a mean over the same prompts too little, a mean over all positions puts the prefix where words should be.",
    tolerance=1e-3,
)


# repairer -----------------------------------------------------------------------------------------------------


def repairer(lm: LanguageModel, data: Data) -> Head:
    return _repaired(lm, data)


def _repaired(
    lm: LanguageModel,
    data: Data,
    *,
    score: Callable[[Tensor, Tensor], Tensor] = lambda before, after: after - before,
    out: int | None = None,
    zeros: bool = False,
    first: bool = False,
) -> Head:
    movers = name_movers(lm, data)[:out]
    before = _shares_of(lm, *_names(data))
    after = _shares_without(lm, *_names(data), tuple(data["fresh"]), tuple(movers), zeros)
    scores = score(before[0], after[0]) if first else score(before.mean(0), after.mean(0))
    scores = scores.clone()
    for head in movers:
        scores[head] = -torch.inf
    return _best(scores)


@lru_cache(maxsize=64)
def _shares_without(
    lm: LanguageModel, prompts: tuple, io: tuple, subject: tuple, fresh: tuple, movers: tuple, zeros: bool
) -> Float[Tensor, "batch layer head"]:
    """Every head's share with the movers at their mean over the reference, position by position."""
    _, usual = run(lm, list(fresh), sites="z", layers=sorted({layer for layer, _ in movers}))
    edits = []
    for layer, head in movers:
        mean = usual["z", layer][:, :, head].mean(0) * (not zeros)
        edits.append(Edit("z", layer, lambda old, mean=mean: mean.expand_as(old), head=head))
    return _share_out(lm, _look(lm, prompts, *edits), io, subject)


CONFUSED_REPAIR: dict[str, Callable[[LanguageModel, Data], Head]] = {
    "largest_fall": partial(_repaired, score=lambda before, after: before - after),
    "largest_after": partial(_repaired, score=lambda before, after: after),
    "largest_before": partial(_repaired, score=lambda before, after: before),
    "first_prompt": partial(_repaired, first=True),
    "zeros": partial(_repaired, zeros=True),
}


def _without_one(lm: LanguageModel, data: Data) -> Head:
    return _repaired(lm, data, out=1)


def _mover_below(lm: LanguageModel, data: Data) -> bool:
    """Whether some head stands above a name mover and can make up for it, and one mover out is not all out."""
    below = min(name_movers(lm, data))[0] < lm.n_layers - 1
    return below and _without_one(lm, data) != repairer(lm, data)


def _repairer_turned(lm: LanguageModel, data: Data) -> Head:
    return repairer(lm, data)[::-1]


REPAIRER = Exercise(
    id="06_repairer",
    kind="finding",
    level=2,
    points=2,
    minutes=15,
    reference=repairer,
    cases=lambda seed: [
        _real(seed),
        *_telling(seed, (repairer, _repairer_turned, *CONFUSED_REPAIR.values()), _mover_below),
    ],
    mistakes=(
        Mistake(
            "largest_fall",
            "Yours is the head whose share *falls* most. Something that makes up for a loss rises: after less before.",
            CONFUSED_REPAIR["largest_fall"],
        ),
        Mistake(
            "largest_after",
            "Yours has the largest share *afterwards*, which it may have had all along. Asked is the largest change.",
            CONFUSED_REPAIR["largest_after"],
        ),
        Mistake(
            "largest_before",
            "Yours has the largest share in the intact model. Asked is whose share *rises* most when the movers are "
            "out.",
            CONFUSED_REPAIR["largest_before"],
        ),
        Mistake(
            "first_mover",
            "Yours knocks only the first mover out. Asked is what happens without all of `name_movers`: one edit each, "
            "in the same `with mk.edit(lm, *edits):`.",
            _without_one,
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Take means over all of them.",
            CONFUSED_REPAIR["first_prompt"],
        ),
        Mistake(
            "zeros",
            "Yours knocks the movers out with zeros. Put in their mean over `data['fresh']`.",
            CONFUSED_REPAIR["zeros"],
        ),
        Mistake(
            "head_first",
            "Yours is (head, layer). Heads are named layer first, as in L5H1.",
            _repairer_turned,
        ),
    ),
    hints=(
        "Attribution works inside `with mk.edit(lm, *edits):` as well: it shares out the edited model's answer.",
        "The edits: `[mk.mean('z', layer, usual, head=head) for layer, head in name_movers(lm, data)]`, with `usual` "
        "the cache of `mk.run(lm, data['fresh'], sites='z')`.",
        "`rise = after - before` (both `.heads.mean(-1)`); set `rise[head] = -torch.inf` for each mover, and take "
        "`divmod(int(rise.argmax()), lm.n_heads)`.",
    ),
    properties=(Property(A_HEAD, lambda result, lm, data: _is_head(result, lm)),),
    discussion="On GPT-2 *backup* name movers wake up when the movers are out. On the default model the negative name "
    "mover goes quiet, because what it used to suppress is no longer there. Mind that a share that rises need not be "
    "a head that changed: with the movers gone the last stream is shorter, and its norm scales every share up. The "
    "next cells take the two apart.",
)


# faithful_share -----------------------------------------------------------------------------------------------


def faithful_share(lm: LanguageModel, data: Data, circuit: Sequence[Head]) -> float:
    return _gap_with(lm, data, _outside(lm, circuit)) / _gap_with(lm, data, [])


def _outside(lm: LanguageModel, circuit: Sequence[Head]) -> list[Head]:
    inside = {tuple(head) for head in circuit}
    return [head for head in product(range(lm.n_layers), range(lm.n_heads)) if head not in inside]


def _gap_with(lm: LanguageModel, data: Data, out: Sequence[Head], **how: Any) -> float:
    """The mean logit difference with these heads at their mean over the reference."""
    return float(_gaps_with(lm, data, out, **how).mean())


def _gaps_with(
    lm: LanguageModel,
    data: Data,
    out: Sequence[Head],
    *,
    zeros: bool = False,
    position: int | None = None,
    per_position: bool = True,
    reference: str = "fresh",
) -> Float[Tensor, " batch"]:
    """Each prompt's logit difference with these heads at their mean over the reference, one edit a head."""
    _, usual = run(lm, list(data[reference]), sites="z")
    edits = []
    for layer, head in out:
        mean = usual["z", layer][:, :, head].mean(0) * (not zeros)
        mean = mean if per_position else mean[1:].mean(0).expand_as(mean)
        mean = mean if position is None else mean[position]
        edits.append(Edit("z", layer, lambda old, mean=mean: mean.expand_as(old), head=head, position=position))
    logits = _look(lm, data["prompts"], *edits)[0]
    rows = torch.arange(len(logits))
    return logits[rows, _ids(lm, data["io"])] - logits[rows, _ids(lm, data["subject"])]


def _share_of(lm: LanguageModel, data: Data, out: Sequence[Head], **how: Any) -> float:
    return _gap_with(lm, data, out, **how) / _gap_with(lm, data, [])


def _mean_of_ratios(lm: LanguageModel, data: Data, circuit: Sequence[Head]) -> float:
    return float((_gaps_with(lm, data, _outside(lm, circuit)) / _gaps_with(lm, data, [])).mean())


def _circuit_case(seed: int, family: str) -> tuple:
    """A tiny model, sentences on which it does something, and half a dozen of its heads."""
    lm, chance = tiny_model(family, seed=seed), random.Random(seed)
    heads = sorted(chance.sample(list(product(range(lm.n_layers), range(lm.n_heads))), 5))
    drawn = (_small(seed + 1000 * attempt) for attempt in count())
    data = next(each for each in drawn if abs(float(_gaps(lm, each).mean())) > 0.02)
    return (Tiny(seed, family), data, heads)


FAITHFUL_SHARE = Exercise(
    id="06_faithful_share",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=faithful_share,
    cases=lambda seed: [_circuit_case(seed, "llama"), _circuit_case(seed + 1, "gpt2")],
    mistakes=(
        Mistake(
            "knocks_the_circuit_out",
            "Yours knocks the circuit *out* and keeps the rest. Faithfulness keeps the circuit and knocks out every "
            "other head.",
            lambda lm, data, circuit: _share_of(lm, data, list(map(tuple, circuit))),
        ),
        Mistake(
            "zeros",
            "Yours puts zeros in place of the other heads. Put in their means over `data['fresh']`.",
            lambda lm, data, circuit: _share_of(lm, data, _outside(lm, circuit), zeros=True),
        ),
        Mistake(
            "end_alone",
            "Yours knocks the other heads out at the last position only. What they do at the names still comes "
            "through: knock them out everywhere.",
            lambda lm, data, circuit: _share_of(lm, data, _outside(lm, circuit), position=-1),
        ),
        Mistake(
            "same_prompts",
            "Yours takes the means over the very prompts that are tested, so part of their answer is put back in (the "
            "flaw of 06.10). Take them over `data['fresh']`.",
            lambda lm, data, circuit: _share_of(lm, data, _outside(lm, circuit), reference="prompts"),
        ),
        Mistake(
            "one_mean_for_all",
            "Yours puts one mean over all words in place of every position's own (`per_position=False`). Keep each "
            "position's own mean.",
            lambda lm, data, circuit: _share_of(lm, data, _outside(lm, circuit), per_position=False),
        ),
        Mistake(
            "mean_of_ratios",
            "Yours is the mean of the prompts' own shares, and a prompt with a small difference then counts most. "
            "Asked is the mean difference divided by the mean difference.",
            _mean_of_ratios,
        ),
        Mistake(
            "not_a_share",
            "Yours is the circuit's logit difference in nats. Asked is its share: divide by the intact model's.",
            lambda lm, data, circuit: _gap_with(lm, data, _outside(lm, circuit)),
        ),
        Mistake(
            "gap",
            "Yours is how much is *missing*. Asked is the share that is there: the circuit's difference divided by the "
            "model's.",
            lambda lm, data, circuit: 1 - faithful_share(lm, data, circuit),
        ),
    ),
    hints=(
        "Which heads are knocked out? All those of the model that are not in `circuit`: for each one edit "
        "`mk.mean('z', layer, usual, head=head)`.",
        "`edits = [mk.mean('z', layer, usual, head=head) for layer in range(lm.n_layers) for head in "
        "range(lm.n_heads) if (layer, head) not in circuit]`, with `usual` from `data['fresh']`.",
        "The mean of `mk.logit_difference` inside `with mk.edit(lm, *edits):`, divided by the same without edits.",
    ),
    discussion="Faithful means: alone, it does what the whole does, on these prompts and against this reference. It "
    "does not mean that nothing else could do it too (that is completeness), nor that every head in it is needed "
    "(minimality). And MLPs were never switched off.",
    tolerance=1e-3,
    teaches=("Trial", "faithfulness"),
)


# rival: design ------------------------------------------------------------------------------------------------


def rival(lm: LanguageModel, data: Data) -> dict[str, Any]:
    return _rival(lm, data, "same_layers")


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares)


def _rival(lm: LanguageModel, data: Data, choice: str, *, pick: Callable = _mean) -> dict[str, Any]:
    shares = [faithful_share(lm, data, circuit) for circuit in data["rivals"][choice]]
    return {"choice": choice, "faithful_share": pick(shares)}


def _kept_out(lm: LanguageModel, data: Data) -> dict[str, Any]:
    shares = [_share_of(lm, data, list(map(tuple, each))) for each in data["rivals"]["same_layers"]]
    return {"choice": "same_layers", "faithful_share": _mean(shares)}


CONFUSED_RIVALS: dict[str, Callable[[LanguageModel, Data], dict[str, Any]]] = {
    "first_one": partial(_rival, choice="same_layers", pick=lambda shares: shares[0]),
    "best_one": partial(_rival, choice="same_layers", pick=max),
    "knocked_out": _kept_out,
}


def _rivals(lm: LanguageModel, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    places = list(product(range(lm.n_layers), range(lm.n_heads)))
    circuit = [(layer, chance.randrange(lm.n_heads)) for layer in range(lm.n_layers)]
    others = [[head for head in range(lm.n_heads) if head != own] for _, own in circuit]
    rivals = {
        "same_layers": [[(layer, chance.choice(heads)) for layer, heads in enumerate(others)] for _ in range(3)],
        "any_layer": [sorted(chance.sample(places, len(circuit))) for _ in range(3)],
        "no_heads": [[]],
        "its_own": [[*circuit[:1], *circuit[2:]], circuit[1:], circuit[:2]],
    }
    return _small(seed) | {"circuit": circuit, "rivals": rivals}


@lru_cache(maxsize=64)
def _rival_case(seed: int) -> tuple:
    """Rivals on which no confusion gives the right number by chance."""
    lm = tiny_model(seed=seed)

    def telling(data: dict) -> bool:
        if abs(float(_gaps(lm, data).mean())) < 0.05:
            return False
        found = sorted(answer(lm, data)["faithful_share"] for answer in (rival, *CONFUSED_RIVALS.values()))
        return all(above - below > 0.01 * max(map(abs, found)) for below, above in pairwise(found))

    return (Tiny(seed), next(filter(telling, (_rivals(lm, seed + 1000 * attempt) for attempt in count()))))


RIVAL = Exercise(
    id="06_rival",
    kind="code",
    level=3,
    points=4,
    minutes=15,
    reference=rival,
    cases=lambda seed: [_rival_case(seed)],
    mistakes=(
        Mistake(
            "any_layer",
            "Heads drawn from anywhere lie mostly in early layers, far from the answer: this rival loses for a reason "
            "that has nothing to do with *these* heads. Match the layers.",
            lambda lm, data: _rival(lm, data, "any_layer"),
        ),
        Mistake(
            "no_heads",
            "With no head at all no name reaches the end: that is the floor. It says that *some* heads are needed, not "
            "that these are.",
            lambda lm, data: _rival(lm, data, "no_heads"),
        ),
        Mistake(
            "its_own",
            "Parts of the circuit itself ask whether all of it is needed (minimality). If they did as well, the "
            "circuit would be too large, not wrong.",
            lambda lm, data: _rival(lm, data, "its_own"),
        ),
        Mistake(
            "first_one",
            "The right rival, but yours is the first draw's share. Take the mean over the draws.",
            CONFUSED_RIVALS["first_one"],
        ),
        Mistake(
            "best_one",
            "The right rival, but yours is the best draw's share. Take the mean over the draws.",
            CONFUSED_RIVALS["best_one"],
        ),
        Mistake(
            "knocked_out",
            "The right rival, but yours knocks its heads out and keeps the rest. Keep them and knock out the others, "
            "as for the circuit.",
            CONFUSED_RIVALS["knocked_out"],
        ),
    ),
    hints=(
        "The rival explanation: *any* heads of that size and depth would have given as much.",
        "A fair rival shares everything with the circuit but its identity: how many heads, and in which layers.",
        "`shares = [faithful_share(lm, data, each) for each in data['rivals']['same_layers']]`; return "
        "{'choice': 'same_layers', 'faithful_share': sum(shares) / len(shares)}.",
    ),
    discussion="If matched random sets had done as well, “we found the circuit” would mean “any heads would do”. The "
    "next cells hold the real circuit against them.",
    tolerance=1e-3,
    control=True,
    choice=True,
)


CHAPTER = Chapter(
    number="06",
    title="indirect object identification",
    notebook="06_indirect_object_identification",
    question="Can we name the parts of a circuit?",
    minutes=160,
    needs=("04", "05"),
    exercises=(
        PLACES,
        SPREAD,
        RECENCY,
        DOMINANT_HEAD,
        SAID_ONCE,
        NAME_MOVERS,
        COPYING,
        NEGATIVE_MOVER,
        S_INHIBITION,
        FAIR_KNOCK_OUT,
        REPAIRER,
        FAITHFUL_SHARE,
        RIVAL,
    ),
    claim=Claim(
        statements={
            "whole_story": Option(
                "these heads are all that the model uses to find the indirect object",
                False,
                "Completeness says otherwise: if they were, each role would cost the circuit and the model alike. "
                "Some cost the whole model less (something outside stands in), some cost it more (something outside "
                "works with them). And the MLPs were never switched off.",
            ),
            "enough": Option(
                "on these sentences, these few heads alone give most of the answer, and random ones of the same layers "
                "do not",
                True,
                "That is what faithfulness and its matched control showed.",
            ),
            "attention": Option(
                "the heads that look at the indirect object are those that name it",
                False,
                "Many lookers write nothing, one writes the name down, and the dominant head looks at the subject.",
            ),
        },
        evidence={
            "readable": Option("a reader finds it", False, "No reader was trained; heads were kept and knocked out."),
            "correlated": Option(
                "it goes along with the answer", False, "That is the word for the shares of section 3."
            ),
            "necessary": Option(
                "without it the answer is gone",
                False,
                "Knocked out of the whole model, single roles cost a part of the answer, not all of it.",
            ),
            "sufficient": Option(
                "alone, it brings the answer",
                True,
                "Everything else was at its mean, and most of the answer was there. (Sufficient beside intact MLPs.)",
            ),
        },
        refuted_by={
            "one_prompt": Option(
                "a prompt on which the circuit prefers the subject",
                False,
                "The whole model has such prompts too; the claim is about the mean.",
            ),
            "matched_random": Option(
                "random heads of the same layers that keep as much of the answer",
                True,
                "Then it would be the number and depth of heads, not these heads.",
            ),
            "empty": Option(
                "a logit difference of zero with every head knocked out",
                False,
                "That is the floor, and with counterbalanced names it is zero by construction.",
            ),
        },
    ),
)
