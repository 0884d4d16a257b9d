"""Chapter 07, activation patching: which state causes the answer?"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count, product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.ioi import ioi_prompts
from mechkit.data.patching_results import load_patch_sweep
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

# single tokens of a tiny model
NAMES = ("Mary", "John", "Tom", "Alice", "Emma", "Paul", "Daniel", "Sarah", "Henry", "Lucy")
SENTENCE = " {A} and {B} went to the store and {S} gave a drink to"
TEMPLATES = 7
STEERED = 3  # heads that are asked for
LARGE = 0.1


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed))


def _sentences(rng: random.Random, count: int = 4) -> dict[str, Any]:
    """Sentences for a tiny model, with the other person acting in the corrupted ones; not counterbalanced."""
    drawn = [rng.sample(NAMES, 4) for _ in range(count)]
    rows = [(a, b, *((a, b) if rng.random() < 0.5 else (b, a)), c, d) for a, b, c, d in drawn]
    other = [SENTENCE.format(A=c, B=d, S=d if subject == b else c) for a, b, subject, _, c, d in rows]
    return {
        "clean": [SENTENCE.format(A=a, B=b, S=subject) for a, b, subject, *_ in rows],
        "corrupted": [SENTENCE.format(A=a, B=b, S=io) for a, b, _, io, *_ in rows],
        "other": other,
        "right": [" " + io for _, _, _, io, *_ in rows],
        "wrong": [" " + subject for _, _, subject, *_ in rows],
    }


def _ids(lm: LanguageModel, words: Sequence[str]) -> Tensor:
    return torch.tensor([lm.token_id(word) for word in words])


def _gaps(lm: LanguageModel, logits: Float[Tensor, "batch d_vocab"], data: dict[str, Any]) -> Float[Tensor, " batch"]:
    rows = torch.arange(len(logits))
    return logits[rows, _ids(lm, data["right"])] - logits[rows, _ids(lm, data["wrong"])]


def _last(lm: LanguageModel, prompt: Sequence[str] | Tensor, *edits: Edit) -> Float[Tensor, "batch d_vocab"]:
    with edit(lm, *edits):
        return run(lm, prompt, sites=())[0][:, -1]


def _first_difference(lm: LanguageModel, data: dict[str, Any]) -> int:
    differs = (lm.tokens(data["clean"]) != lm.tokens(data["corrupted"])).any(0)
    return differs.tolist().index(True)


@lru_cache(maxsize=64)
def _telling(seed: int, family: str = "llama") -> dict[str, Any]:
    """Sentences whose runs differ by enough that a share of the way between them is a number to trust."""
    lm = tiny_model(family, seed=seed)
    for attempt in count():
        data = _sentences(random.Random(seed + 1000 * attempt))
        ways = _gaps(lm, _last(lm, data["clean"]), data) - _gaps(lm, _last(lm, data["corrupted"]), data)
        if ways.mean().abs() > 0.2 and ways.abs().min() > 0.03:
            return data


# recovery -----------------------------------------------------------------------------------------------------


def recovery(
    patched: Float[Tensor, "layer pos batch"], clean: Float[Tensor, " batch"], corrupted: Float[Tensor, " batch"]
) -> Float[Tensor, "layer pos"]:
    prompts = len(clean)
    top, bottom = sum(clean.tolist()) / prompts, sum(corrupted.tolist()) / prompts
    rows = []
    for layer in patched.tolist():
        rows.append([(sum(cell) / prompts - bottom) / (top - bottom) for cell in layer])
    return torch.tensor(rows)


def _metrics(seed: int, *cells: int) -> tuple[Tensor, Tensor, Tensor]:
    clean, corrupted = 4 + _normal(seed, 6), -2 + _normal(seed + 100, 6)
    return 2 + 12 * _normal(seed + 200, *cells, 6), clean, corrupted


RECOVERY = Exercise(
    id="07_recovery",
    kind="code",
    level=1,
    points=1,
    minutes=6,
    reference=recovery,
    cases=lambda seed: [_metrics(seed, 3, 5), _metrics(seed + 1, 2, 2)],
    mistakes=(
        Mistake(
            "share_of_clean",
            "Yours divides by the clean value, as if the corrupted run stood at 0. It does not: measure from the "
            "corrupted run, and divide by the way from there to the clean one.",
            lambda patched, clean, corrupted: patched.mean(-1) / clean.mean(),
        ),
        Mistake(
            "gain_over_clean",
            "Yours divides the gain by the clean value. Divide by the whole way, clean minus corrupted: only then is "
            "the clean run itself at 1.",
            lambda patched, clean, corrupted: (patched.mean(-1) - corrupted.mean()) / clean.mean(),
        ),
        Mistake(
            "not_divided",
            "Yours is the gain in nats. Divide it by the way from the corrupted to the clean run, so that 1 means "
            "all of it.",
            lambda patched, clean, corrupted: patched.mean(-1) - corrupted.mean(),
        ),
        Mistake(
            "reversed",
            "Yours is 0 where the patch brings everything back and 1 where it does nothing. Turn it round: count from "
            "the corrupted run.",
            lambda patched, clean, corrupted: (patched.mean(-1) - clean.mean()) / (corrupted.mean() - clean.mean()),
        ),
        Mistake(
            "mean_of_ratios",
            "Yours takes a ratio for each prompt and averages the ratios: a prompt whose two runs hardly differ then "
            "outshouts all others. Average first, over prompts, and divide once.",
            lambda patched, clean, corrupted: ((patched - corrupted) / (clean - corrupted)).mean(-1),
        ),
        Mistake(
            "clipped",
            "Yours is cut to 0 … 1. A patch may overshoot the clean run, or push away from it: that is news, keep it.",
            lambda patched, clean, corrupted: recovery(patched, clean, corrupted).clamp(0, 1),
        ),
    ),
    hints=(
        "Three means over the prompts first: of the patched cells (their last axis), of clean, of corrupted.",
        "The corrupted run must come out as 0 and the clean one as 1: subtract what makes the first 0, divide by what "
        "makes the second 1.",
        "`(patched.mean(-1) - corrupted.mean()) / (clean.mean() - corrupted.mean())`.",
    ),
    discussion="0 is the run you changed, 1 the run the state came from. Nothing says that it must lie between them. "
    "And a small way between the two runs makes every recovery a wild number: print the way beside it.",
    teaches=("patch_sweep", "Sweep"),
)


# both_ways ----------------------------------------------------------------------------------------------------


def both_ways(table: Float[Tensor, "..."]) -> dict[str, list[int]]:
    parts = table.ndim
    clean = table[(1,) * parts]
    found: dict[str, list[int]] = {"sufficient": [], "necessary": []}
    for part in range(parts):
        only_this_clean = tuple(int(each == part) for each in range(parts))
        only_this_corrupted = tuple(int(each != part) for each in range(parts))
        if table[only_this_clean] == clean:
            found["sufficient"].append(part)
        if table[only_this_corrupted] != clean:
            found["necessary"].append(part)
    return found


def _gate(parts: int, rule: Callable[..., bool], order: Sequence[int]) -> Float[Tensor, "..."]:
    table = torch.zeros((2,) * parts)
    for states in product((0, 1), repeat=parts):
        table[states] = float(rule(*states))
    return table.permute(*order)


def _gates(seed: int) -> list[tuple]:
    """An OR and an AND with company, their parts in an order drawn from the seed (as they come, for seed 0)."""
    rules = (
        (3, lambda a, b, c: a or (b and c)),
        (3, lambda a, b, c: a and (b or c)),
        (4, lambda a, b, c, d: (a and b) or (a and c) or (a and d)),
        (4, lambda a, b, c, d: a or b or (c and d)),
    )
    rng = random.Random(seed)
    return [(_gate(n, rule, rng.sample(range(n), n) if seed else range(n)),) for n, rule in rules]


def _swapped_words(table: Tensor) -> dict[str, list[int]]:
    found = both_ways(table)
    return {"sufficient": found["necessary"], "necessary": found["sufficient"]}


BOTH_WAYS = Exercise(
    id="07_both_ways",
    kind="code",
    level=1,
    points=1,
    minutes=8,
    reference=both_ways,
    cases=_gates,
    mistakes=(
        Mistake(
            "words_swapped",
            "Yours has the two words the wrong way round. Enough by itself, in a corrupted run: sufficient. Missed "
            "when "
            "it alone is gone, in a clean run: necessary.",
            _swapped_words,
        ),
        Mistake(
            "complement",
            "Yours calls necessary whatever is not sufficient. They are two experiments: for `necessary`, start from "
            "the clean run and corrupt this part alone.",
            lambda table: {
                "sufficient": both_ways(table)["sufficient"],
                "necessary": [part for part in range(table.ndim) if part not in both_ways(table)["sufficient"]],
            },
        ),
        Mistake(
            "one_experiment",
            "Yours gives one answer for both words. Run both experiments: a part can be sufficient and not necessary "
            "(another does its work), or necessary and not sufficient (it needs another).",
            lambda table: dict.fromkeys(("sufficient", "necessary"), both_ways(table)["sufficient"]),
        ),
        Mistake(
            "counted_from_one",
            "Yours counts the parts from 1. They are the table's axes, from 0.",
            lambda table: {word: [part + 1 for part in parts] for word, parts in both_ways(table).items()},
        ),
    ),
    hints=(
        "`table` is indexed by one 0 or 1 for each part. The clean run is all ones, the corrupted one all zeros.",
        "For part i, two cells of the table matter: all zeros but a 1 at i (denoising), and all ones but a 0 at i "
        "(noising).",
        "Build an index as a tuple: `tuple(int(each == i) for each in range(table.ndim))` for denoising, with `!=` for "
        "noising. Sufficient: the first equals the clean output. Necessary: the second does not.",
    ),
    discussion="An OR hides its parts from noising: take one away and the other still does the work. An AND hides them "
    "from denoising: one alone is not enough. Models have both, so each direction alone is blind to half of them.",
)


# patch --------------------------------------------------------------------------------------------------------


Prompts = Sequence[str] | Int[Tensor, "batch pos"]


def patch(
    lm: LanguageModel, clean: Prompts, corrupted: Prompts, layer: int, position: int
) -> Float[Tensor, "batch d_vocab"]:
    _, cache = run(lm, clean, sites="resid_pre", layers=layer)
    state = cache["resid_pre", layer][:, position]
    with edit(lm, Edit("resid_pre", layer, lambda old: state, position=position)):
        logits, _ = run(lm, corrupted, sites=())
    return logits[:, -1]


def _swap(
    lm: LanguageModel, source: Sequence[str], into: Sequence[str], site: str, layer: int, position: int | None
) -> Float[Tensor, "batch d_vocab"]:
    _, cache = run(lm, source, sites=site, layers=layer)
    new = cache[site, layer] if position is None else cache[site, layer][:, position]
    return _last(lm, into, Edit(site, layer, lambda _: new, position=position))


def _added(
    lm: LanguageModel, clean: Sequence[str], corrupted: Sequence[str], layer: int, position: int
) -> Float[Tensor, "batch d_vocab"]:
    state = run(lm, clean, sites="resid_pre", layers=layer)[1]["resid_pre", layer][:, position]
    return _last(lm, corrupted, Edit("resid_pre", layer, lambda old: old + state, position=position))


def _read_late(
    lm: LanguageModel, clean: Sequence[str], corrupted: Sequence[str], layer: int, position: int
) -> Float[Tensor, "batch d_vocab"]:
    state = run(lm, clean, sites="resid_post", layers=layer)[1]["resid_post", layer][:, position]
    return _last(lm, corrupted, Edit("resid_pre", layer, lambda _: state, position=position))


def _patch_case(seed: int, family: str) -> tuple:
    lm, data = tiny_model(family, seed=seed), _telling(seed, family)
    return (Tiny(seed, family), data["clean"], data["corrupted"], 1, _first_difference(lm, data))


PATCH = Exercise(
    id="07_patch",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=patch,
    cases=lambda seed: [_patch_case(seed, "llama"), _patch_case(seed + 1, "gpt2")],
    mistakes=(
        Mistake(
            "noising",
            "Yours puts the corrupted state into the clean run: that is noising. Here it goes the other way: read from "
            "the clean run, edit the corrupted one.",
            lambda lm, clean, corrupted, layer, position: _swap(lm, corrupted, clean, "resid_pre", layer, position),
        ),
        Mistake(
            "a_layer_late",
            "Yours swaps resid_post, what comes *out of* the layer. Asked is what goes in: resid_pre.",
            lambda lm, clean, corrupted, layer, position: _swap(lm, clean, corrupted, "resid_post", layer, position),
        ),
        Mistake(
            "read_late",
            "Yours reads resid_post, what comes *out of* the layer, and puts it in *before* the layer, which then "
            "works on its own output. Read resid_pre.",
            _read_late,
        ),
        Mistake(
            "every_position",
            "Yours swaps the stream at every position, and that is simply the clean run. Give the edit its `position`.",
            lambda lm, clean, corrupted, layer, position: _swap(lm, clean, corrupted, "resid_pre", layer, None),
        ),
        Mistake(
            "added",
            "Yours *adds* the clean state to what stands there. Replace it: the change ignores the old value.",
            _added,
        ),
        Mistake(
            "not_edited",
            "Yours is the corrupted run as it was. Run the model inside the `with` block, and let the change return "
            "the "
            "clean state.",
            lambda lm, clean, corrupted, layer, position: _last(lm, corrupted),
        ),
    ),
    hints=(
        'Two runs. The first only reads: `mk.run(lm, clean, sites="resid_pre", layers=layer)`.',
        'The second runs `corrupted` inside `with mk.edit(lm, mk.Edit("resid_pre", layer, change, '
        "position=position)):`.",
        '`change` is `lambda old: cache["resid_pre", layer][:, position]`; return `logits[:, -1]`.',
    ),
    discussion="One edit, one question: is this state, of all states, enough? A sweep is this function in a loop, and "
    "every shortcut that makes a sweep fast must give the same numbers as this.",
    teaches=("patch_sweep", "Pair", "Replay"),
    tolerance=1e-3,
)


# moves --------------------------------------------------------------------------------------------------------


def moves(data: dict[str, Any]) -> list[int]:
    column = [float(row[data["END"]]) for row in data["recovery"]]
    gains = []
    for layer in range(len(column) - 1):
        gains.append((column[layer + 1] - column[layer], layer))
    return sorted(layer for _, layer in sorted(gains, reverse=True)[:2])


def _gains(column: Float[Tensor, " layer"]) -> list[int]:
    return sorted(column.diff().topk(2).indices.tolist())


def _shipped_map(seed: int) -> dict[str, Any]:
    sweep = load_patch_sweep(template=seed % TEMPLATES)
    return {"recovery": sweep.recovery, "S2": sweep.S2, "END": len(sweep.labels) - 1}


def _made_map(seed: int) -> dict[str, Any]:
    """Another model's map: what leaves S2 waits elsewhere for some layers, and comes to END in steps."""
    layers, rng = 14, random.Random(seed)
    first, second, third = sorted(rng.sample(range(3, layers - 2, 2), 3))
    small, middle, large = 0.12 + 0.04 * rng.random(), 0.3, 0.5
    sizes = dict(zip(rng.sample((first, second, third), 3), (small, middle, large), strict=True))
    end = torch.tensor([sum(size for at, size in sizes.items() if at < layer) for layer in range(layers)])
    leaves = rng.choice([layer for layer in range(1, layers - 1) if layer not in sizes])
    table = torch.zeros(layers, 7)
    table[:, 3] = torch.tensor([1.0 if layer <= leaves else 0.1 for layer in range(layers)])
    table[:, 6] = end
    return {"recovery": table + 0.01 * _normal(seed, layers, 7), "S2": 3, "END": 6}


MOVES = Exercise(
    id="07_moves",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=moves,
    cases=lambda seed: [(_shipped_map(seed),), (_made_map(seed),), (_made_map(seed + 1000),)],
    mistakes=(
        Mistake(
            "a_layer_late",
            "Yours are the rows in which END *has* gained. A row is the stream before its layer, so the gain was made "
            "by the layer before: one less.",
            lambda data: [layer + 1 for layer in moves(data)],
        ),
        Mistake(
            "a_layer_early",
            "Yours are one layer too low. Row l + 1 minus row l is what layer l did: `column.diff()[l]` belongs to l.",
            lambda data: [layer - 1 for layer in moves(data)],
        ),
        Mistake(
            "falls_at_S2",
            "Yours are the layers at which S2 loses most. What leaves S2 may wait elsewhere before it reaches END: "
            "read "
            "the gains of END.",
            lambda data: _gains(-data["recovery"][:, data["S2"]]),
        ),
        Mistake(
            "largest_values",
            "Yours are the rows in which END's recovery is largest. Asked is where it *grows* most, from one row to "
            "the next.",
            lambda data: sorted(data["recovery"][:, data["END"]].topk(2).indices.tolist()),
        ),
        Mistake(
            "largest_first",
            "Yours are the right layers, the larger gain first. Asked is the lower layer first.",
            lambda data: data["recovery"][:, data["END"]].diff().topk(2).indices.tolist(),
        ),
    ),
    hints=(
        'Take END\'s column, `data["recovery"][:, data["END"]]`, and look at its differences from row to row.',
        "`column.diff()[l]` is row l + 1 minus row l: what layer l gained.",
        "`sorted(column.diff().topk(2).indices.tolist())`.",
    ),
    properties=(
        Property(
            "Both are layers of the map in `data`, and another one follows each. (The check brings maps of other "
            "sentences and of another model: compute the layers, read none off the figure.)",
            lambda result, data: all(0 <= int(layer) < len(data["recovery"]) - 1 for layer in result),
        ),
    ),
    discussion="What S2 knows does not travel in one piece: END gains in several layers. The map says where it sits "
    "and when it moves; which parts carry it is the next question.",
)


# control: design ----------------------------------------------------------------------------------------------


def control(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    return {"choice": "other_names", "recovery": _recovered(lm, data, "other_names")}


def _recovered(lm: LanguageModel, data: dict[str, Any], choice: str) -> float:
    texts, position = data["sources"][choice]
    ends = [_gaps(lm, _last(lm, data[name]), data).mean() for name in ("corrupted", "clean")]
    now = _gaps(lm, patch(lm, texts, data["corrupted"], data["layer"], position), data).mean()
    return float((now - ends[0]) / (ends[1] - ends[0]))


@lru_cache(maxsize=32)
def _control_data(seed: int, family: str) -> dict[str, Any]:
    lm, data = tiny_model(family, seed=seed), _telling(seed, family)
    place = _first_difference(lm, data)
    sources = {
        "itself": (data["corrupted"], place),
        "word_before": (data["clean"], place - 1),
        "clean_again": (data["clean"], place),
        "other_names": (data["other"], place),
    }
    return {name: data[name] for name in ("clean", "corrupted", "right", "wrong")} | {"layer": 1, "sources": sources}


def _chosen(choice: str) -> Callable[[LanguageModel, dict[str, Any]], dict[str, Any]]:
    return lambda lm, data: {"choice": choice, "recovery": _recovered(lm, data, choice)}


def _not(choice: str, sentence: str) -> Property:
    return Property(sentence, lambda result, lm, data: result["choice"] != choice)


def _measured_there(result: dict[str, Any], lm: LanguageModel, data: dict[str, Any]) -> bool:
    other = result["choice"] != "other_names"
    return other or abs(float(result["recovery"]) - _recovered(lm, data, "other_names")) < 1e-3


WRONG_CONTROLS = {
    "itself": "Putting a run's own state back changes nothing, whatever the state says: this recovery is 0 by "
    "construction. It tests your code, not the claim.",
    "word_before": "Before the first word that differs, both runs are equal: this recovery is 0 by construction, and "
    "no result could have surprised you.",
    "clean_again": "That is the experiment itself. A control changes the one thing that the claim says matters, here "
    "*which sentence* the state comes from.",
}


def _in_nats(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    texts, position = data["sources"]["other_names"]
    now = _gaps(lm, patch(lm, texts, data["corrupted"], data["layer"], position), data)
    return {"choice": "other_names", "recovery": float(now.mean())}


CONTROL = Exercise(
    id="07_control",
    kind="finding",
    level=3,
    points=4,
    minutes=18,
    reference=control,
    cases=lambda seed: [
        (Tiny(seed), _control_data(seed, "llama")),
        (Tiny(seed + 1, "gpt2"), _control_data(seed + 1, "gpt2")),
    ],
    mistakes=(
        *(Mistake(choice, sentence, _chosen(choice)) for choice, sentence in WRONG_CONTROLS.items()),
        Mistake(
            "in_nats",
            "The right control, and its logit difference in nats. Say it as a recovery, so that it stands beside the "
            "experiment's.",
            _in_nats,
        ),
        Mistake(
            "wrong_evidence",
            "The right control, with the recovery of the experiment itself as its evidence. Patch from the control's "
            "sentences.",
            lambda lm, data: {"choice": "other_names", "recovery": _recovered(lm, data, "clean_again")},
        ),
    ),
    properties=(
        Property(
            'The choice is one of the names in `data["sources"]`.',
            lambda result, lm, data: result["choice"] in data["sources"],
        ),
        # a wrong choice is named whatever number came with it
        *(_not(choice, sentence) for choice, sentence in WRONG_CONTROLS.items()),
        Property(
            "The right control; its recovery is another. (The check brings other sentences and a tiny model: measure "
            "it there, with the `lm` and the `data` that it gives you.)",
            _measured_there,
        ),
    ),
    hints=(
        "For each option, ask: could its result have come out otherwise? Two of them cannot.",
        "A patch does two things: it puts something in, and it throws something out. Which option throws out the same "
        "and puts in something that this sentence has nothing to do with?",
        '`texts, position = data["sources"]["other_names"]`, then `patch(lm, texts, data["corrupted"], data["layer"], '
        "position)`, then the mean logit difference, then `recovery`.",
    ),
    discussion="A patch always throws something out, too. With the swap the corrupted sentence argues for the wrong "
    "name, so any other state in that place is already a step back towards the answer. What the clean state adds "
    "beyond *this* number is what it says.",
    control=True,
    choice=True,
    tolerance=1e-3,
)


# key_heads ----------------------------------------------------------------------------------------------------


def key_heads(data: dict[str, Any]) -> list[tuple[int, int]]:
    sizes = []
    for layer, row in enumerate(data["recovery"].tolist()):
        for head, value in enumerate(row):
            sizes.append((abs(value), layer, head))
    return [(layer, head) for _, layer, head in sorted(sizes, reverse=True)[: data["count"]]]


def _heads_by(scores: Float[Tensor, "layer head"], number: int) -> list[tuple[int, int]]:
    return [divmod(place, scores.shape[1]) for place in scores.flatten().topk(number).indices.tolist()]


def _head_map(seed: int) -> Float[Tensor, "layer head"]:
    """A template's shipped sweep; for hidden cases the heads of each layer stand in another order."""
    table = load_patch_sweep("z", ("layer", "head"), template=seed % TEMPLATES).recovery
    order = torch.rand(table.shape, generator=_generator(seed)).argsort(-1) if seed else None
    return table if order is None else table.gather(-1, order)


def _right_order(reference: Callable[..., list[tuple[int, int]]]) -> Property:
    def holds(result: Sequence[Sequence[int]], *case: Any) -> bool:
        mine = [tuple(int(number) for number in place) for place in result]
        return mine == reference(*case) or sorted(mine) != sorted(reference(*case))

    return Property("These are the right heads in another order. Asked is the largest first.", holds)


KEY_HEADS = Exercise(
    id="07_key_heads",
    kind="finding",
    level=2,
    points=2,
    minutes=8,
    reference=key_heads,
    cases=lambda seed: [
        ({"recovery": _head_map(seed), "count": 5},),
        ({"recovery": 0.3 * _normal(seed, 6, 4), "count": 8},),
    ],
    mistakes=(
        Mistake(
            "helpful_only",
            "Yours are the heads that bring the answer back. A head that pushes it away matters as much: take the "
            "size, "
            "`.abs()`.",
            lambda data: _heads_by(data["recovery"], data["count"]),
        ),
        Mistake(
            "harmful_only",
            "Yours are the most negative ones. Asked are the largest in size, of either sign.",
            lambda data: _heads_by(-data["recovery"], data["count"]),
        ),
        Mistake(
            "smallest_first",
            "Yours are sorted upwards: the smallest come first. Take the largest.",
            lambda data: _heads_by(-data["recovery"].abs(), data["count"]),
        ),
        Mistake(
            "head_first",
            "Yours are (head, layer). Heads are named layer first, as in L5H1.",
            lambda data: [place[::-1] for place in key_heads(data)],
        ),
        Mistake(
            "divided_by_layers",
            "Yours splits the flat place by the number of *layers*. A row of the map is a layer and has as many "
            "entries "
            "as there are heads: `divmod(place, n_heads)`.",
            lambda data: [
                divmod(layer * data["recovery"].shape[1] + head, data["recovery"].shape[0])
                for layer, head in key_heads(data)
            ],
        ),
        Mistake(
            "counted_from_one",
            "Yours counts layers and heads from 1. Here both start at 0.",
            lambda data: [(layer + 1, head + 1) for layer, head in key_heads(data)],
        ),
    ),
    hints=(
        "Sort by size, whatever the sign.",
        "`places = recovery.abs().flatten().topk(count).indices` are places in the flattened map.",
        "`[divmod(int(place), recovery.shape[1]) for place in places]`.",
    ),
    properties=(_right_order(key_heads),),
    discussion="A handful of heads in hundreds, and some of them *negative*: restoring them makes the answer worse. A "
    "list of helpful heads alone would hide that the circuit brakes itself.",
)


# steered_heads ------------------------------------------------------------------------------------------------


def steered_heads(lm: LanguageModel, data: dict[str, Any]) -> list[tuple[int, int]]:
    clean, corrupted = (_preference(lm, data, name) for name in ("clean", "corrupted"))
    sizes = []
    for layer in range(lm.n_layers):
        for head in range(lm.n_heads):
            sizes.append((float(clean[layer, head] - corrupted[layer, head]), layer, head))
    return [(layer, head) for _, layer, head in sorted(sizes, reverse=True)[:STEERED]]


def _preference(
    lm: LanguageModel, data: dict[str, Any], name: str, *, against: bool = True
) -> Float[Tensor, "layer head"]:
    """How much more each head looks from END at IO than at S1, a mean over the prompts."""
    _, cache = run(lm, data[name], sites="pattern")
    last = cache.stack("pattern")[:, :, :, -1]
    each = [
        last[:, row, :, io] - last[:, row, :, s1] * against
        for row, (io, s1) in enumerate(zip(data["IO"], data["S1"], strict=True))
    ]
    return torch.stack(each).mean(0)


def _ioi_case(seed: int) -> tuple:
    """One pair of names of the default model's sentences; another for each hidden seed."""
    prompts = ioi_prompts(1, seed=seed or None)
    first = [len(prompt.template.split("{A}")[0].split()) + 1 for prompt in prompts.prompts]
    places = [
        (at, at + 2) if prompt.order == "ABBA" else (at + 2, at)
        for at, prompt in zip(first, prompts.prompts, strict=True)
    ]
    io, s1 = (list(column) for column in zip(*places, strict=True))
    return (MODEL, {"clean": prompts.texts, "corrupted": prompts.swapped, "IO": io, "S1": s1})


@lru_cache(maxsize=64)
def _tiny_looks(seed: int) -> dict[str, Any]:
    """Sentences on which a tiny model's heads are such that each known mistake points at others."""
    lm = tiny_model(seed=seed)

    def confused(data: dict[str, Any]) -> bool:
        heads = [tuple(found(lm, data)) for found in (steered_heads, *LOOKS.values())]
        return len(set(heads)) < len(heads)

    drawn = (_looking(random.Random(seed + 1000 * attempt)) for attempt in count())
    return next(data for data in drawn if not confused(data))


def _looking(rng: random.Random) -> dict[str, Any]:
    data = _sentences(rng)
    # the prefix, then the two names with " and" between them
    io = [1 if text.split()[0] == name.strip() else 3 for text, name in zip(data["clean"], data["right"], strict=True)]
    return {"clean": data["clean"], "corrupted": data["corrupted"], "IO": io, "S1": [4 - place for place in io]}


LOOKS: dict[str, Callable[[LanguageModel, dict[str, Any]], list[tuple[int, int]]]] = {
    "clean_only": lambda lm, data: _heads_by(_preference(lm, data, "clean"), STEERED),
    "io_only": lambda lm, data: _heads_by(
        _preference(lm, data, "clean", against=False) - _preference(lm, data, "corrupted", against=False), STEERED
    ),
    "reversed": lambda lm, data: _heads_by(
        _preference(lm, data, "corrupted") - _preference(lm, data, "clean"), STEERED
    ),
    "first_prompt": lambda lm, data: steered_heads(lm, {name: each[:1] for name, each in data.items()}),
}


STEERED_HEADS = Exercise(
    id="07_steered_heads",
    kind="finding",
    level=2,
    points=2,
    minutes=14,
    reference=steered_heads,
    cases=lambda seed: [_ioi_case(seed), (Tiny(seed), _tiny_looks(seed))],
    mistakes=(
        Mistake(
            "clean_only",
            "Yours looks at the clean run alone. A head that always prefers the first name would stand there too: take "
            "off what the same head does in the corrupted run.",
            LOOKS["clean_only"],
        ),
        Mistake(
            "io_only",
            "Yours follows the attention to IO alone. A head that looks more at *both* names is not steered between "
            "them: take IO minus S1 first.",
            LOOKS["io_only"],
        ),
        Mistake(
            "reversed",
            "Yours are the heads that the *corrupted* run turns towards IO. Take clean minus corrupted.",
            LOOKS["reversed"],
        ),
        Mistake(
            "first_prompt",
            "Yours looks at the first prompt only. Take the mean over all of them.",
            LOOKS["first_prompt"],
        ),
        Mistake(
            "head_first",
            "Yours are (head, layer). Heads are named layer first, as in L5H1.",
            lambda lm, data: [place[::-1] for place in steered_heads(lm, data)],
        ),
    ),
    hints=(
        '`mk.run(lm, data["clean"], sites="pattern")[1].stack("pattern")` is [layer batch head query key]; the last '
        "query is END.",
        'For prompt b: `pattern[:, b, :, -1, data["IO"][b]] - pattern[:, b, :, -1, data["S1"][b]]` is [layer head]. '
        "Average over b, for clean and for corrupted.",
        "Subtract corrupted from clean, then sort as in `key_heads`, but by the value, not its size.",
    ),
    properties=(
        Property(
            "Each is a (layer, head) of the model it is given. (The check also gives it a tiny one.)",
            lambda result, lm, data: all(0 <= i < lm.n_layers and 0 <= j < lm.n_heads for i, j in result),
        ),
        _right_order(steered_heads),
    ),
    discussion="Same words before the second name, same positions: only S2 tells these heads where to look. Yet an "
    "attention that changes is a correlate. Who changes it, and does it matter? For that we patch a path.",
)


# query_after: path patching -----------------------------------------------------------------------------------


def query_after(
    lm: LanguageModel,
    clean: Sequence[str],
    corrupted: Sequence[str],
    sender: tuple[int, int],
    receiver: tuple[int, int],
) -> Float[Tensor, "batch d_head"]:
    (low, writer), (high, reader) = sender, receiver
    _, kept = run(lm, clean, sites=("z", "mlp_out"))
    _, other = run(lm, corrupted, sites="z", layers=low)
    # everything between the two heads is held at its clean value, but for the sender
    holds = [Edit("mlp_out", layer, lambda _, at=layer: kept["mlp_out", at]) for layer in range(low, high)]
    holds += [Edit("z", layer, lambda _, at=layer: kept["z", at]) for layer in range(low, high)]
    swap = Edit("z", low, lambda _: other["z", low][:, -1, writer], head=writer, position=-1)
    with edit(lm, *holds, swap):
        _, cache = run(lm, clean, sites="q", layers=high)
    return cache["q", high][:, -1, reader]


def _query(lm: LanguageModel, prompts: Sequence[str], receiver: tuple[int, int], *edits: Edit) -> Tensor:
    with edit(lm, *edits):
        return run(lm, prompts, sites="q", layers=receiver[0])[1]["q", receiver[0]][:, -1, receiver[1]]


def _with_write(
    lm: LanguageModel,
    clean: Sequence[str],
    corrupted: Sequence[str],
    sender: tuple[int, int],
    receiver: tuple[int, int],
    *,
    plus: float = 1.0,
    minus: float = 1.0,
) -> Tensor:
    """The query when the sender's corrupted write is added `plus` times and its clean write taken off `minus` times."""
    low, writer = sender
    now, then = (run(lm, each, sites="z", layers=low)[1]["z", low][:, -1, writer] for each in (clean, corrupted))
    change = (plus * then - minus * now) @ lm.W_O(low)[writer]
    return _query(lm, clean, receiver, Edit("resid_pre", receiver[0], lambda old: old + change, position=-1))


def _all_paths(
    lm: LanguageModel,
    clean: Sequence[str],
    corrupted: Sequence[str],
    sender: tuple[int, int],
    receiver: tuple[int, int],
) -> Tensor:
    low, writer = sender
    then = run(lm, corrupted, sites="z", layers=low)[1]["z", low][:, -1, writer]
    return _query(lm, clean, receiver, Edit("z", low, lambda _: then, head=writer, position=-1))


def _path_case(seed: int, family: str) -> tuple:
    data, rng = _telling(seed, family), random.Random(seed)
    sender, receiver = (0, rng.randrange(4)), (2, rng.randrange(4))
    return (Tiny(seed, family), data["clean"], data["corrupted"], sender, receiver)


QUERY_AFTER = Exercise(
    id="07_query_after",
    kind="code",
    level=3,
    points=3,
    minutes=20,
    reference=query_after,
    cases=lambda seed: [_path_case(seed, "llama"), _path_case(seed + 1, "gpt2")],
    mistakes=(
        Mistake(
            "all_paths",
            "Yours lets everything between the two heads react to the sender: that is all paths at once. Asked is the "
            "direct one. Leave the run alone, and change only the stream that the receiver's layer reads.",
            _all_paths,
        ),
        Mistake(
            "whole_stream",
            "Yours puts the whole corrupted stream in front of the receiver: that is everyone's message. Change only "
            "what this one sender wrote.",
            lambda lm, clean, corrupted, sender, receiver: _query(lm, corrupted, receiver),
        ),
        Mistake(
            "not_taken_off",
            "Yours adds the corrupted write and leaves the clean one in place. The sender writes once: take the clean "
            "write off.",
            lambda *case: _with_write(*case, minus=0.0),
        ),
        Mistake(
            "removed",
            "Yours takes the sender's write away and puts nothing in its place. Put in what it writes in the corrupted "
            "run.",
            lambda *case: _with_write(*case, plus=0.0),
        ),
        Mistake(
            "reversed",
            "Yours adds clean minus corrupted. The run is clean already: add corrupted minus clean.",
            lambda *case: _with_write(*case, plus=-1.0, minus=-1.0),
        ),
        Mistake(
            "unchanged",
            "Yours is the query of the clean run as it was: the edit did not reach it. Run the model inside the `with` "
            "block.",
            lambda lm, clean, corrupted, sender, receiver: _query(lm, clean, receiver),
        ),
    ),
    hints=(
        "What a head writes at END is `z[:, -1, head] @ lm.W_O(layer)[head]`. Take it from both runs, and subtract.",
        'On a direct path the difference arrives unchanged: add it to `("resid_pre", receiver layer)` of the clean '
        "run, at position −1.",
        'Inside `mk.edit(lm, mk.Edit("resid_pre", high, lambda old: old + change, position=-1))` run `clean` with '
        '`sites="q", layers=high`, and return `cache["q", high][:, -1, reader]`.',
    ),
    discussion="The stream is a sum, so the direct path from one head to another is one subtraction. `mk.path_patch` "
    "does it for many senders, puts the receiver's new query back into the run, and reads what becomes of the answer.",
    teaches=("path_patch", "without_sender"),
    tolerance=1e-3,
)


# attribution --------------------------------------------------------------------------------------------------


def attribution(
    clean: Float[Tensor, "batch pos head d_head"],
    corrupted: Float[Tensor, "batch pos head d_head"],
    gradient: Float[Tensor, "batch pos head d_head"],
) -> Float[Tensor, " head"]:
    batch, _, heads, _ = clean.shape
    result = torch.zeros(heads, dtype=torch.float64)
    for prompt in range(batch):
        for head in range(heads):
            change = (clean[prompt, :, head] - corrupted[prompt, :, head]).double()
            result[head] += (change * gradient[prompt, :, head].double()).sum() / batch
    return result.float()


def _estimate(clean: Tensor, corrupted: Tensor, gradient: Tensor) -> Tensor:
    return ((clean - corrupted) * gradient).sum((1, 3)).mean(0)


ATTRIBUTION = Exercise(
    id="07_attribution",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=attribution,
    cases=lambda seed: [
        tuple(_normal(seed + shift, 3, 5, 4, 6) for shift in (0, 100, 200)),
        tuple(_normal(seed + shift, 2, 7, 3, 4) + 0.5 for shift in (300, 400, 500)),
    ],
    mistakes=(
        Mistake(
            "reversed",
            "Yours has corrupted minus clean. We denoise: the state moves from its corrupted value to its clean one.",
            lambda clean, corrupted, gradient: -_estimate(clean, corrupted, gradient),
        ),
        Mistake(
            "no_baseline",
            "Yours multiplies the clean state itself by the gradient. What is patched is a *change*: clean minus "
            "corrupted.",
            lambda clean, corrupted, gradient: (clean * gradient).sum((1, 3)).mean(0),
        ),
        Mistake(
            "magnitudes",
            "Yours takes magnitudes before the sum. Coordinates that pull against each other must be able to cancel: "
            "no "
            "`abs`.",
            lambda clean, corrupted, gradient: ((clean - corrupted) * gradient).abs().sum((1, 3)).mean(0),
        ),
        Mistake(
            "mean_of_everything",
            "Yours takes means over positions and coordinates. A first-order change is a *sum* over all that changes; "
            "only prompts are averaged.",
            lambda clean, corrupted, gradient: ((clean - corrupted) * gradient).mean((0, 1, 3)),
        ),
        Mistake(
            "product_of_means",
            "Yours averages the change and the gradient over prompts first, and multiplies the two means. Each prompt "
            "has its own gradient: multiply prompt by prompt, then average.",
            lambda clean, corrupted, gradient: ((clean - corrupted).mean(0) * gradient.mean(0)).sum((0, 2)),
        ),
        Mistake(
            "sum_over_prompts",
            "Yours adds the prompts up. Take their mean.",
            lambda clean, corrupted, gradient: ((clean - corrupted) * gradient).sum((0, 1, 3)),
        ),
        Mistake(
            "last_position",
            "Yours is the last position's share alone. The whole head is patched: sum over the positions.",
            lambda clean, corrupted, gradient: ((clean - corrupted) * gradient)[:, -1].sum(-1).mean(0),
        ),
    ),
    hints=(
        "First order: metric(new) ≈ metric(old) + gradient · (new − old).",
        "Multiply elementwise, sum over positions and coordinates (axes 1 and 3), average over prompts (axis 0).",
        "`((clean - corrupted) * gradient).sum((1, 3)).mean(0)`.",
    ),
    discussion="One forward and one backward pass price every head at once, where a sweep needs a run for each. The "
    "price is the word *linear*.",
    teaches=("attribution_patch",),
)


# missed_heads -------------------------------------------------------------------------------------------------


def missed_heads(data: dict[str, Any]) -> dict[str, Any]:
    truth, estimate = data["truth"].double(), data["estimate"].double()
    a, b = truth - truth.mean(), estimate - estimate.mean()
    missed = []
    for layer, row in enumerate(truth.tolist()):
        for head, value in enumerate(row):
            share = float(estimate[layer, head]) / value if value else 1.0
            if abs(value) >= data["large"] and share < 0.5:
                missed.append((layer, head))
    return {"correlation": float((a * b).sum() / (a.norm() * b.norm())), "missed": missed}


def _missed_if(data: dict[str, Any], test: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
    places = test(data["truth"], data["estimate"]).nonzero().tolist()
    return {"correlation": missed_heads(data)["correlation"], "missed": [tuple(place) for place in places]}


def _out_of_the_list(truth: Tensor, estimate: Tensor, large: float) -> Tensor:
    wanted = truth.abs() >= large
    bar = estimate.abs().flatten().topk(max(1, int(wanted.sum()))).values[-1]
    return wanted & (estimate.abs() < bar)


def _correlation_of_large(data: dict[str, Any]) -> dict[str, Any]:
    large = data["truth"].abs() >= data["large"]
    both = torch.stack([data["truth"][large], data["estimate"][large]]).double()
    return missed_heads(data) | {"correlation": float(torch.corrcoef(both)[0, 1])}


def _estimates(seed: int, truth: Float[Tensor, "layer head"]) -> dict[str, Any]:
    """A truth and an estimate of it: some large heads shrunk, one doubled, one shrunk but not out of the list."""
    rng, estimate = random.Random(seed), truth.clone()
    large = (truth.abs() >= LARGE).nonzero().tolist()
    by_size = sorted(large, key=lambda place: -abs(float(truth[tuple(place)])))
    against = [place for place in by_size[1:] if truth[tuple(place)] < 0]
    lost = [rng.choice(against), rng.choice([place for place in by_size[1:] if place not in against])]
    for place in lost:
        estimate[tuple(place)] *= 0.05 + 0.25 * rng.random()
    estimate[tuple(by_size[0])] *= 0.45
    kept = [place for place in by_size[1:] if place not in lost]
    for place in kept[:1]:
        estimate[tuple(place)] *= 1.8
    return {"truth": truth, "estimate": estimate + 0.005 * _normal(seed, *truth.shape), "large": LARGE}


def _made_truth(seed: int) -> Float[Tensor, "layer head"]:
    table = 0.01 * _normal(seed, 6, 4)
    places = torch.randperm(24, generator=_generator(seed))[:7]
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    table.view(-1)[places] = signs * torch.linspace(0.6, 0.15, 7)
    return table


MISSED_HEADS = Exercise(
    id="07_missed_heads",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=missed_heads,
    cases=lambda seed: [(_estimates(seed, _head_map(seed)),), (_estimates(seed + 1, _made_truth(seed)),)],
    mistakes=(
        Mistake(
            "every_head",
            "Yours lists small heads too, where half of next to nothing is lost in noise. Keep to those whose true "
            "recovery is at least `large` in size.",
            lambda data: _missed_if(data, lambda truth, estimate: estimate / truth < 0.5),
        ),
        Mistake(
            "far_off_either_way",
            "Yours also lists heads whose effect is *over*estimated by half. These are not missed: you would have "
            "looked at them.",
            lambda data: _missed_if(
                data,
                lambda truth, estimate: (truth.abs() >= data["large"]) & ((estimate / truth - 1).abs() > 0.5),
            ),
        ),
        Mistake(
            "signs_lost",
            "Yours forgets the negative heads: there the estimate is missed when it is *less negative* than half. "
            "Compare estimate / truth with 0.5.",
            lambda data: _missed_if(data, lambda truth, estimate: (truth >= data["large"]) & (estimate < 0.5 * truth)),
        ),
        Mistake(
            "out_of_the_list",
            "Yours are the heads that fall off the list of the largest. A head can stay on it with less than half of "
            "its effect: compare the two numbers of each head.",
            lambda data: _missed_if(data, lambda truth, estimate: _out_of_the_list(truth, estimate, data["large"])),
        ),
        Mistake(
            "correlation_of_large",
            "Your list is right; your correlation is over the large heads only. Asked is the one that papers report, "
            "over all heads.",
            _correlation_of_large,
        ),
    ),
    hints=(
        "The correlation: `torch.corrcoef(torch.stack([truth.flatten(), estimate.flatten()]))[0, 1]`.",
        '`large = truth.abs() >= data["large"]`; missed are those of them with `estimate / truth < 0.5`, which also '
        "does right by negative heads.",
        "`missed = [tuple(place) for place in (large & (estimate / truth < 0.5)).nonzero().tolist()]`; return "
        '`{"correlation": float(...), "missed": missed}`.',
    ),
    discussion="A correlation over hundreds of heads is made by a few large ones that are easy. It can be excellent "
    "while key heads are missing. Ask of an estimate what you will use it for: here, to find heads.",
    tolerance=1e-3,
)


# fair_recovery: repair ----------------------------------------------------------------------------------------


def fair_recovery(lm: LanguageModel, data: dict[str, Any], layer: int) -> float:
    return _measured(lm, data, layer, ())


def _measured(lm: LanguageModel, data: dict[str, Any], layer: int, flaws: Sequence[str]) -> float:
    prefix = {"prefix": None} if "prefix" in flaws else {}
    clean, corrupted = (lm.tokens(data[name], **prefix) for name in ("clean", "corrupted"))
    position = (clean != corrupted).any(0).tolist().index(True)
    site = "resid_post" if "layer" in flaws else "resid_pre"
    state = run(lm, clean, sites=site, layers=layer)[1][site, layer][:, position]
    now = _last(lm, corrupted, Edit("resid_pre", layer, lambda _: state, position=position))
    patched, high, low = (_gaps(lm, logits, data) for logits in (now, _last(lm, clean), _last(lm, corrupted)))
    if "ratios" in flaws:
        return float(((patched - low) / (high - low)).mean())
    return float((patched.mean() - low.mean()) / (high.mean() - low.mean()))


FLAWS = {
    "prefix": "it runs the model on texts without their prefix token, which is not how this model is used",
    "layer": "it reads the stream *after* the layer and puts it in *before* it, so the layer works on its own output "
    "and layer 0 does not recover everything",
    "ratios": "it averages one ratio a prompt, so a prompt whose two runs hardly differ outshouts the others",
}


def _flawed(flaws: Sequence[str]) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    return Mistake(
        "_".join(flaws),
        f"{'One flaw is' if len(flaws) == 1 else f'{len(flaws)} flaws are'} left: {found}.",
        lambda lm, data, layer: _measured(lm, data, layer, flaws),
    )


def _repair_case(seed: int, family: str) -> tuple:
    data = _telling(seed, family)
    return (Tiny(seed, family), {name: data[name] for name in ("clean", "corrupted", "right", "wrong")}, 1)


def _noised(lm: LanguageModel, data: dict[str, Any], layer: int) -> float:
    around = data | {"clean": data["corrupted"], "corrupted": data["clean"]}
    return fair_recovery(lm, around, layer)


FAIR_RECOVERY = Exercise(
    id="07_fair_recovery",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_recovery,
    cases=lambda seed: [_repair_case(seed, "llama"), _repair_case(seed + 1, "gpt2")],
    mistakes=(
        *(
            _flawed([flaw for flaw, present in zip(FLAWS, chosen, strict=True) if present])
            for chosen in product((False, True), repeat=3)
            if any(chosen)
        ),
        Mistake(
            "noising",
            "The flaws are mended, but the patch goes the other way: clean states belong into the corrupted run.",
            _noised,
        ),
    ),
    hints=(
        "At layer 0 the stream is the word itself. What must the recovery be there, when the one word that differs is "
        "put back?",
        "Compare the site that is read with the site that is edited; `lm.tokens(text)` with what the code calls; and "
        "where the mean is taken with your `recovery`.",
        'Three repairs: `lm.tokens(data[name])`, `"resid_pre"` in both places, and means over prompts before the '
        "division.",
    ),
    discussion="The curve looked plausible because recoveries usually do. One identity (layer 0 gives 1) and one look "
    "at the single prompts were enough to distrust it.",
    tolerance=1e-3,
)


CHAPTER = Chapter(
    number="07",
    title="activation patching",
    notebook="07_activation_patching",
    question="Which state causes the answer?",
    minutes=175,
    needs=("00", "06"),
    exercises=(
        RECOVERY,
        BOTH_WAYS,
        PATCH,
        MOVES,
        CONTROL,
        KEY_HEADS,
        STEERED_HEADS,
        QUERY_AFTER,
        FAIR_RECOVERY,
        ATTRIBUTION,
        MISSED_HEADS,
    ),
    claim=Claim(
        statements={
            "only_one": Option(
                "the answer is computed at the second mention of the subject and nowhere else",
                False,
                "Other positions are equal in both runs, so this corruption could not have shown anything there. A "
                "patch only sees what was corrupted.",
            ),
            "moved": Option(
                "what tells the two sentences apart is at the second mention until past the middle, then at the last "
                "word",
                True,
                "Below, the state at S2 alone brings the answer back; above, the state at END alone does.",
            ),
            "all_heads": Option(
                "the heads with the largest recovery are the circuit, and all of it",
                False,
                "They are those that *this* corruption in *this* direction shows. Fresh names showed others.",
            ),
        },
        evidence={
            "readable": Option("a reader finds it there", False, "Nothing was read out: states were put in."),
            "correlated": Option(
                "it goes along with the answer", False, "That is the word for attention that differs between two runs."
            ),
            "sufficient": Option(
                "put in, it brings the answer back", True, "Clean states into the corrupted run: denoising."
            ),
            "necessary": Option(
                "without it the answer is gone", False, "That is what noising shows, the other direction."
            ),
        },
        refuted_by={
            "other_names": Option(
                "a state of another sentence, at the same place, that brings back as much",
                True,
                "Then any state in that place would do, and what the clean one says would not matter.",
            ),
            "mirror": Option(
                "a noising sweep of the same sentences that draws another map",
                False,
                "With right and wrong exchanged, noising one sentence is denoising another: it cannot come out "
                "otherwise.",
            ),
            "zero_before": Option(
                "a recovery of 0 at every word before it",
                False,
                "There both runs are equal, so it is 0 by construction.",
            ),
            "one_head": Option(
                "a head in the middle with a recovery near 0",
                False,
                "Most heads do nothing here; the claim is about the stream.",
            ),
        },
    ),
)
