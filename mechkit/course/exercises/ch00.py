"""Chapter 00, start here: what does it mean to understand a network?"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.prompts import HIDDEN_FACTS, VISIBLE_FACTS
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

COUNTRY = -2  # where the country stands in "The capital of … is", counted from the end
WATCHERS = 4
PROMPTS = 4
# for the tiny models: each pair has equally many tokens and differs from early on
PAIRS = (
    ("The king of France is in", "The queen of Spain is in"),
    (" John gave a book to Mary", " Tom gave a ring to Alice"),
    (" Henry went to the city of", " Lucy went to the store of"),
)


# these, and the words around them, are single tokens of a tiny model
COUNTRIES = ("France", "Italy", "Spain", "Germany", "England", "Japan")
CITIES = (" Paris", " Rome", " Madrid", " Berlin", " London", " Tokyo")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed))


def _capitals(seed: int) -> dict[str, Any]:
    """Prompts of one form, their answers, and each one's neighbour's answer as the wrong one."""
    facts = VISIBLE_FACTS if seed == 0 else HIDDEN_FACTS
    facts = [fact for fact in facts if fact.kind == "capital" and " " not in fact.subject]
    facts = facts[:PROMPTS] if seed == 0 else random.Random(seed).sample(facts, PROMPTS)
    answers = [fact.answer for fact in facts]
    prompts = [fact.prompt for fact in facts]
    return {"prompts": prompts, "answers": answers, "others": answers[1:] + answers[:1], "country": COUNTRY}


def _tiny_capitals(seed: int) -> dict[str, Any]:
    """The same for a tiny model of random weights, on which only what is computed can be right."""
    chosen = random.Random(seed).sample(range(len(COUNTRIES)), PROMPTS)
    answers = [CITIES[i] for i in chosen]
    prompts = [f" the capital of {COUNTRIES[i]} is" for i in chosen]
    return {"prompts": prompts, "answers": answers, "others": answers[1:] + answers[:1], "country": COUNTRY}


# probabilities ----------------------------------------------------------------------------------------------


def probabilities(logits: Float[Tensor, "... d_vocab"]) -> Float[Tensor, "... d_vocab"]:
    rows = []
    for row in logits.reshape(-1, logits.shape[-1]).tolist():
        largest = max(row)
        weights = [math.exp(logit - largest) for logit in row]
        total = sum(weights)
        rows.append([weight / total for weight in weights])
    return torch.tensor(rows).reshape(logits.shape)


PROBABILITIES = Exercise(
    id="00_probabilities",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=probabilities,
    cases=lambda seed: [(2 * _normal(seed, 6),), (3 * _normal(seed + 100, 4, 9) + 1,)],
    mistakes=(
        Mistake(
            "no_exponential",
            "Yours divides the logits by their sum. Logits may be negative, and then so are these shares: "
            "first make every one positive with `exp`.",
            lambda logits: logits / logits.sum(-1, keepdim=True),
        ),
        Mistake(
            "not_normalised",
            "Yours stops after `exp`: positive, but they do not sum to 1. Divide by their sum.",
            lambda logits: logits.exp(),
        ),
        Mistake(
            "one_sum_for_all",
            "Yours divides by the sum over *all* rows. Each row is a distribution of its own: sum over the "
            "last axis, and keep it (`keepdim=True`) so that the division lines up.",
            lambda logits: logits.exp() / logits.exp().sum(),
        ),
        Mistake(
            "down_the_columns",
            "Yours sums down the columns, over the first axis. Each *row* is a distribution: sum over the last axis, "
            "`.sum(-1, keepdim=True)`.",
            lambda logits: logits.exp() / logits.exp().sum(0),
        ),
        Mistake(
            "base_two",
            "Yours raises 2 to the logits. The natural exponential belongs here: `logits.exp()`.",
            lambda logits: (2**logits) / (2**logits).sum(-1, keepdim=True),
        ),
        Mistake(
            "logarithms",
            "Yours are the logarithms of the probabilities. Asked are the probabilities themselves.",
            lambda logits: logits.log_softmax(-1),
        ),
    ),
    hints=(
        "Two steps: make every number positive without changing the order, then make each row sum to 1.",
        "`exp` does the first. For the second, divide by the row's sum: `.sum(-1, keepdim=True)`.",
        "`weights = logits.exp()`, then return `weights / weights.sum(-1, keepdim=True)`.",
    ),
    properties=(
        Property(
            "Each row of probabilities must sum to 1; yours does not.",
            lambda result, *_: bool((torch.as_tensor(result).sum(-1) - 1).abs().max() < 1e-3),
        ),
    ),
    discussion="This function is called *softmax*. Adding the same number to every logit changes nothing, "
    "so only differences between logits carry meaning. (Real code first takes off the largest logit, so "
    "that `exp` cannot overflow.)",
    teaches=("softmax", "log_softmax"),
)


# logit_difference -------------------------------------------------------------------------------------------


def logit_difference(logits: Float[Tensor, "pos d_vocab"], right: int, wrong: int) -> float:
    last = logits[-1].double().tolist()
    odds = math.exp(last[right]) / math.exp(last[wrong])
    return math.log(odds)


def _gap_case(seed: int, positions: int, tokens: int, sign: int) -> tuple:
    """Logits and two tokens, of which the model prefers the first (sign 1) or the second (sign -1)."""
    logits = 4 * _normal(seed, positions, tokens)
    low, high = sorted(random.Random(seed).sample(range(tokens), 2), key=lambda token: float(logits[-1, token]))
    return (logits, high, low) if sign > 0 else (logits, low, high)


LOGIT_DIFFERENCE = Exercise(
    id="00_logit_difference",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=logit_difference,
    cases=lambda seed: [_gap_case(seed, 5, 20, 1), _gap_case(seed + 100, 2, 8, -1)],
    mistakes=(
        Mistake(
            "reversed",
            "Yours is wrong minus right: positive would mean that the model prefers the *wrong* token. Turn it round.",
            lambda logits, right, wrong: logits[-1, wrong] - logits[-1, right],
        ),
        Mistake(
            "unsigned",
            "Yours has lost the sign. Where the model prefers the *wrong* token the difference is negative, and that "
            "is what you want to know: no `abs`.",
            lambda logits, right, wrong: (logits[-1, right] - logits[-1, wrong]).abs(),
        ),
        Mistake(
            "first_position",
            "Yours reads position 0, the prefix token. The model's answer stands at the *last* position: `logits[-1]`.",
            lambda logits, right, wrong: logits[0, right] - logits[0, wrong],
        ),
        Mistake(
            "probabilities",
            "Yours subtracts probabilities. Once one token is nearly certain, these hardly move any more: "
            "subtract the logits.",
            lambda logits, right, wrong: logits[-1].softmax(-1)[right] - logits[-1].softmax(-1)[wrong],
        ),
        Mistake(
            "no_contrast",
            "Yours is the right token's logit alone. All logits may shift together: compare it with the wrong one's.",
            lambda logits, right, wrong: logits[-1, right],
        ),
        Mistake(
            "every_position",
            "Yours averages over the positions. Only the last one has read the whole prompt: `logits[-1]`.",
            lambda logits, right, wrong: (logits[:, right] - logits[:, wrong]).mean(),
        ),
    ),
    hints=(
        "`logits[-1]` holds one number for each token of the vocabulary, after the last word of the prompt.",
        "Index it by the two ids and subtract: `logits[-1, right] - logits[-1, wrong]`.",
    ),
    discussion="It equals the logarithm of the *odds*, ln(P(right) / P(wrong)), in nats: +1 means 2.7 "
    "times likelier. It grows evenly where probabilities are squeezed against 0 or 1, so most of this "
    "course is measured in it.",
    teaches=("logit_difference",),
)


# cosine -----------------------------------------------------------------------------------------------------


def cosine(a: Float[Tensor, " d"], b: Float[Tensor, " d"]) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    lengths = [math.sqrt(sum(x * x for x in vector.tolist())) for vector in (a, b)]
    return dot / (lengths[0] * lengths[1])


def _obtuse(seed: int) -> tuple[Tensor, Tensor]:
    """Two vectors that point away from each other."""
    a, b = 2 * _normal(seed, 12), 3 * _normal(seed + 100, 12)
    return a, b - (1.2 * (a @ b) / (a @ a) + 0.5) * a


COSINE = Exercise(
    id="00_cosine",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=cosine,
    cases=lambda seed: [_obtuse(seed), (torch.tensor([3.0, 4.0]), torch.tensor([8.0, 6.0]))],
    mistakes=(
        Mistake(
            "dot_product",
            "Yours is the dot product: it grows with the lengths. Divide by both of them.",
            lambda a, b: a @ b,
        ),
        Mistake(
            "one_length",
            "Yours divides by one length only. A cosine must not change when either vector is made longer.",
            lambda a, b: a @ b / a.norm(),
        ),
        Mistake(
            "squared_lengths",
            "Yours divides by *squared* lengths. A length is the root of the sum of squares: `a.norm()`.",
            lambda a, b: a @ b / (a.square().sum() * b.square().sum()),
        ),
        Mistake(
            "angle",
            "Yours is the angle. Asked is its cosine, which needs no `acos`.",
            lambda a, b: torch.acos(a @ b / (a.norm() * b.norm())),
        ),
        Mistake(
            "unsigned",
            "Yours has lost the sign. Two vectors that point away from each other have a negative cosine: no `abs`.",
            lambda a, b: (a @ b / (a.norm() * b.norm())).abs(),
        ),
    ),
    hints=(
        "The dot product `a @ b` is cosine × length of a × length of b.",
        "Return `a @ b / (a.norm() * b.norm())`.",
    ),
    properties=(
        Property("A cosine lies between −1 and 1; yours does not.", lambda result, *_: abs(float(result)) <= 1 + 1e-4),
    ),
    discussion="1 means the same direction, 0 a right angle, −1 opposite directions. In hundreds of "
    "dimensions two *random* vectors are nearly at right angles, but a model's vectors are not random: ask "
    "what two unrelated words give before you call a cosine large.",
    teaches=("cosine_similarity", "CosineSimilarity"),
)


# shadow -----------------------------------------------------------------------------------------------------


def shadow(vectors: Float[Tensor, "n d"], direction: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    length = math.sqrt(sum(x * x for x in direction.tolist()))
    unit = [x / length for x in direction.tolist()]
    return torch.tensor([sum(x * u for x, u in zip(row, unit, strict=True)) for row in vectors.tolist()])


SHADOW = Exercise(
    id="00_shadow",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=shadow,
    cases=lambda seed: [
        (_normal(seed, 5, 12), 3 * _normal(seed + 100, 12)),
        (torch.tensor([[2.0, 1.0], [-1.0, -2.0], [0.0, 5.0]]), torch.tensor([0.0, 4.0])),
    ],
    mistakes=(
        Mistake(
            "undivided",
            "Yours is the dot product with `direction` as it is: twice as long a direction would cast "
            "twice the shadow. Divide by its length.",
            lambda vectors, direction: vectors @ direction,
        ),
        Mistake(
            "divided_twice",
            "Yours divides by the *squared* length: that says how many times `direction` fits into the "
            "shadow. Asked is the shadow's own length; divide once.",
            lambda vectors, direction: vectors @ direction / direction.square().sum(),
        ),
        Mistake(
            "cosine",
            "Yours divides by the length of the vectors too: that is the cosine. A longer vector casts a "
            "longer shadow.",
            lambda vectors, direction: vectors @ direction / (vectors.norm(dim=-1) * direction.norm()),
        ),
        Mistake(
            "unsigned",
            "Yours has lost the sign. A vector that points against `direction` has a negative shadow.",
            lambda vectors, direction: (vectors @ direction / direction.norm()).abs(),
        ),
    ),
    hints=(
        "Make `direction` one unit long first. The shadow of x on a unit vector is their dot product.",
        "`vectors @ direction` gives all the dot products at once.",
        "Return `vectors @ direction / direction.norm()`.",
    ),
    discussion="This is the (scalar) *projection*. Shadows add up: the shadow of a sum is the sum of the "
    "shadows. That is why one direction at a time can be followed through a network that mostly adds.",
)


# attention_head ---------------------------------------------------------------------------------------------


def attention_head(
    q: Float[Tensor, "pos d_head"], k: Float[Tensor, "pos d_head"], v: Float[Tensor, "pos d_head"]
) -> tuple[Float[Tensor, "pos pos"], Float[Tensor, "pos d_head"]]:
    count, size = q.shape
    pattern, z = torch.zeros(count, count), torch.zeros(count, size)
    for query in range(count):
        weights = []
        for key in range(query + 1):
            score = sum(float(q[query, i]) * float(k[key, i]) for i in range(size)) / math.sqrt(size)
            weights.append(math.exp(score))
        for key, weight in enumerate(weights):
            pattern[query, key] = weight / sum(weights)
            z[query] += pattern[query, key] * v[key]
    return pattern, z


def _attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, mask: str = "future", axis: int = -1
) -> tuple[Tensor, Tensor]:
    scores = q @ k.T * (q.shape[1] ** -0.5 if scale is None else scale)
    everywhere = torch.ones_like(scores, dtype=torch.bool)
    future = everywhere.triu(1)
    hidden = {"future": future, "diagonal": everywhere.triu(0), "past": future.T, "past and diagonal": ~future}
    if mask in hidden:
        scores = scores.masked_fill(hidden[mask], -torch.inf)
    elif mask == "zeros":
        scores = scores.masked_fill(future, 0.0)
    pattern = scores.softmax(axis)
    if mask == "afterwards":
        pattern = pattern.masked_fill(future, 0.0)
    return pattern, pattern @ v


ATTENTION_HEAD = Exercise(
    id="00_attention_head",
    kind="code",
    level=2,
    points=2,
    minutes=15,
    reference=attention_head,
    cases=lambda seed: [
        tuple(1.5 * _normal(seed + shift, 6, 4) for shift in (0, 100, 200)),
        tuple(_normal(seed + shift, 3, 9) for shift in (300, 400, 500)),
    ],
    mistakes=(
        Mistake(
            "no_mask",
            "Yours lets a token look at later ones. Set the scores above the diagonal to −∞ before the softmax.",
            partial(_attend, mask="none"),
        ),
        Mistake(
            "diagonal_masked",
            "Yours hides each token from *itself* too. The first token then has nothing to look at, and its row is "
            "NaN. Hide what lies strictly above the diagonal: `triu(1)`.",
            partial(_attend, mask="diagonal"),
        ),
        Mistake(
            "past_masked",
            "Yours hides the wrong triangle: tokens look at themselves and *later* ones. Rows are the tokens that "
            "look, so the future lies above the diagonal: `triu(1)`.",
            partial(_attend, mask="past"),
        ),
        Mistake(
            "past_and_diagonal_masked",
            "Yours hides the wrong triangle: tokens look at *later* ones only, and the last has nothing to look at, "
            "so its row is NaN. The future lies above the diagonal: `triu(1)`.",
            partial(_attend, mask="past and diagonal"),
        ),
        Mistake(
            "mix_only",
            "Yours returns the mix of values alone. Return both, the pattern first: `return pattern, z`.",
            lambda q, k, v: _attend(q, k, v)[1],
        ),
        Mistake(
            "masked_with_zero",
            "Yours sets the scores of later tokens to 0, and `exp(0)` is 1: they still get attention. Use −∞.",
            partial(_attend, mask="zeros"),
        ),
        Mistake(
            "masked_afterwards",
            "Yours takes the future out *after* the softmax, so rows no longer sum to 1. Mask the scores, "
            "then softmax.",
            partial(_attend, mask="afterwards"),
        ),
        Mistake(
            "no_scale",
            "Yours does not divide the scores by √d_head. Without it the softmax is much too sharp.",
            partial(_attend, scale=1.0),
        ),
        Mistake(
            "scale_not_rooted",
            "Yours divides by d_head. It is its square root.",
            lambda q, k, v: _attend(q, k, v, scale=1 / q.shape[1]),
        ),
        Mistake(
            "softmax_over_queries",
            "Yours lets the *queries* share out each key (columns sum to 1). Each query shares out its "
            "attention over the keys: softmax along the last axis.",
            partial(_attend, axis=0),
        ),
        Mistake(
            "queries_and_keys_swapped",
            "Yours has queries and keys the wrong way round: rows are the tokens that look, so scores are `q @ k.T`.",
            lambda q, k, v: _attend(k, q, v),
        ),
    ),
    hints=(
        "All scores at once: `q @ k.T / q.shape[1] ** 0.5`, one row for each looking token.",
        "`torch.ones_like(scores, dtype=torch.bool).triu(1)` marks the future; `scores.masked_fill(future, "
        "-torch.inf)` hides it.",
        "Then `pattern = scores.softmax(-1)` and return `pattern, pattern @ v`.",
    ),
    properties=(
        Property(
            "Each row of the pattern must sum to 1: a token shares out exactly all of its attention.",
            lambda result, *_: bool((torch.as_tensor(result[0]).sum(-1) - 1).abs().max() < 1e-3),
        ),
    ),
    discussion="That is all a head computes, before its result is written back through W_O. What makes "
    "heads differ is how q, k and v are made. The rows sum to 1, so a head can never look at *nothing*: "
    "remember this when you see them all rest on the first token.",
    teaches=("scaled_dot_product_attention", "MultiheadAttention", "multi_head_attention_forward"),
)


# writes -----------------------------------------------------------------------------------------------------


def writes(lm: LanguageModel, prompt: str) -> Float[Tensor, "part d_model"]:
    _, cache = run(lm, prompt, sites=("resid_pre", "resid_mid", "resid_post"))
    parts = [cache["resid_pre", 0][0, -1]]
    for layer in range(lm.n_layers):
        before, middle, after = (cache[f"resid_{place}", layer][0, -1] for place in ("pre", "mid", "post"))
        parts += [middle - before, after - middle]
    return torch.stack(parts)


def _parts(lm: LanguageModel, prompt: str, sites: Sequence[str], *, start: str, position: int = -1) -> Tensor:
    _, cache = run(lm, prompt)
    first = {"resid_pre": ("resid_pre", 0), "embed": "embed"}.get(start)
    rows = [cache[first][0, position]] if first else []
    rows += [cache[site, layer][0, position] for layer in range(lm.n_layers) for site in sites]
    return torch.stack(rows)


def _grouped(lm: LanguageModel, prompt: str) -> Tensor:
    rows = _parts(lm, prompt, ("attn_out", "mlp_out"), start="resid_pre")
    return torch.cat([rows[:1], rows[1::2], rows[2::2]])


WRITES = Exercise(
    id="00_writes",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=writes,
    cases=lambda seed: [(Tiny(seed), PAIRS[seed % 3][0]), (Tiny(seed, "gpt2"), PAIRS[seed % 3][1])],
    mistakes=(
        Mistake(
            "no_start",
            "Yours leaves out what stands in the stream before block 0: start with `resid_pre` of layer 0.",
            partial(_parts, sites=("attn_out", "mlp_out"), start=""),
        ),
        Mistake(
            "embed_only",
            "Yours starts with the token embedding. Some models (GPT-2) also add a position's embedding "
            "before block 0: `resid_pre` of layer 0 holds all of it.",
            partial(_parts, sites=("attn_out", "mlp_out"), start="embed"),
        ),
        Mistake(
            "states",
            "Yours are *states* of the stream (what has been added up so far). Asked is what each part "
            "adds: `attn_out` and `mlp_out`.",
            partial(_parts, sites=("resid_mid", "resid_post"), start="resid_pre"),
        ),
        Mistake(
            "first_position",
            "Yours reads position 0, the prefix token. Asked is the last position: `[0, -1]`.",
            partial(_parts, sites=("attn_out", "mlp_out"), start="resid_pre", position=0),
        ),
        Mistake(
            "grouped",
            "Yours has all attention writes first, then all MLPs. Keep the order in which they happen: "
            "attention 0, MLP 0, attention 1, MLP 1 …",
            _grouped,
        ),
        Mistake(
            "mlp_first",
            "Yours has each block's MLP before its attention. Attention writes first: `attn_out`, then `mlp_out`.",
            partial(_parts, sites=("mlp_out", "attn_out"), start="resid_pre"),
        ),
        Mistake(
            "attention_only",
            "Yours has only the attention layers. Every block writes twice: `attn_out`, then `mlp_out`.",
            partial(_parts, sites=("attn_out",), start="resid_pre"),
        ),
    ),
    hints=(
        '`_, cache = mk.run(lm, prompt)` keeps every activation. `cache["attn_out", layer]` is [batch, pos, d_model].',
        'Start a list with `cache["resid_pre", 0][0, -1]`. Then, layer by layer, add `attn_out` and '
        "`mlp_out` at `[0, -1]`.",
        '`for layer in range(lm.n_layers): parts += [cache["attn_out", layer][0, -1], cache["mlp_out", '
        "layer][0, -1]]`, then `torch.stack(parts)`.",
    ),
    discussion="The sum of the rows is the last residual stream, exactly. Nothing is overwritten: whoever "
    "wants to be read later only has to write where nobody else does. So a residual stream can be taken "
    "apart, write by write.",
)


# swap -------------------------------------------------------------------------------------------------------


def swap(lm: LanguageModel, prompt: str, donor: str, layer: int, position: int) -> Float[Tensor, " d_vocab"]:
    _, cache = run(lm, donor, sites="resid_post")
    new = cache["resid_post", layer][0, position].tolist()

    def change(stream: Tensor) -> Tensor:
        stream = stream.clone()
        for coordinate, value in enumerate(new):
            stream[0, position, coordinate] = value
        return stream

    with edit(lm, Edit("resid_post", layer, change)):
        logits, _ = run(lm, prompt, sites=())
    return logits[0, -1]


def _copied(
    lm: LanguageModel,
    prompt: str,
    donor: str,
    layer: int,
    position: int | None,
    *,
    site: str = "resid_post",
    added: bool = False,
    donated: int | None = None,
) -> Tensor:
    _, cache = run(lm, donor, sites=site)
    taken = position if donated is None else donated
    new = cache[site, layer] if taken is None else cache[site, layer][:, taken]
    with edit(lm, Edit(site, layer, lambda old: old + new if added else new, position=position)):
        return run(lm, prompt, sites=())[0][0]


def _swap_case(seed: int, family: str, layer: int, position: int) -> tuple:
    prompt, donor = random.Random(seed).choice(PAIRS)
    # never in the last of the three layers: there only the last position matters
    return (Tiny(seed, family), prompt, donor, layer, position)


SWAP = Exercise(
    id="00_swap",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=swap,
    cases=lambda seed: [_swap_case(seed, "llama", 1, -2), _swap_case(seed + 1, "gpt2", 0, -1)],
    mistakes=(
        Mistake(
            "no_edit",
            "Yours gives the logits of the unedited run. Does `mk.run` stand *inside* the `with mk.edit(...)` block?",
            lambda lm, prompt, donor, layer, position: run(lm, prompt, sites=())[0][0, -1],
        ),
        Mistake(
            "backwards",
            "Yours copies from `prompt` into the run of `donor`. It is the other way round: read from "
            "`donor`, run `prompt`.",
            lambda lm, prompt, donor, layer, position: _copied(lm, donor, prompt, layer, position)[-1],
        ),
        Mistake(
            "every_position",
            "Yours copies the whole layer, so the result is simply the donor's run. Give the edit its `position`.",
            lambda lm, prompt, donor, layer, position: _copied(lm, prompt, donor, layer, None)[-1],
        ),
        Mistake(
            "added",
            "Yours adds the donor's state to what is there. Put it in the *place* of what is there: return "
            "the new state.",
            lambda lm, prompt, donor, layer, position: _copied(lm, prompt, donor, layer, position, added=True)[-1],
        ),
        Mistake(
            "one_block_early",
            "Yours edits `resid_pre`, the stream before the block. Asked is `resid_post`, after it.",
            lambda lm, prompt, donor, layer, position: _copied(lm, prompt, donor, layer, position, site="resid_pre")[
                -1
            ],
        ),
        Mistake(
            "donors_last",
            "Yours takes the donor's *last* state, whatever the position. Take the one in the same place: "
            '`cache["resid_post", layer][:, position]`.',
            lambda lm, prompt, donor, layer, position: _copied(lm, prompt, donor, layer, position, donated=-1)[-1],
        ),
        Mistake(
            "last_position",
            "Yours swaps the last state, whatever the position. Read and edit at `position`.",
            lambda lm, prompt, donor, layer, position: _copied(lm, prompt, donor, layer, -1)[-1],
        ),
        Mistake(
            "all_logits",
            "Yours returns the logits of every position. Return the last one's: `logits[0, -1]`.",
            lambda lm, prompt, donor, layer, position: _copied(lm, prompt, donor, layer, position),
        ),
    ),
    hints=(
        'First read: `_, cache = mk.run(lm, donor, sites="resid_post")`, and take `cache["resid_post", '
        "layer][:, position]`.",
        'Then edit: `mk.Edit("resid_post", layer, change, position=position)`, where `change` takes the '
        "old state and returns the donor's.",
        '`with mk.edit(lm, mk.Edit("resid_post", layer, lambda old: new, position=position)):` and inside '
        "it `logits, _ = mk.run(lm, prompt, sites=())`. Return `logits[0, -1]`.",
    ),
    discussion="This experiment is called *activation patching*, and chapter 07 is about nothing else. "
    "Since everything but one state is held fixed, a changed answer can only have come through that state.",
)


# fair_control: design ---------------------------------------------------------------------------------------


def fair_control(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    return _control("random", lm, data)


def _control(choice: str, lm: LanguageModel, data: dict[str, Any], *, position: int | None = COUNTRY) -> dict[str, Any]:
    before = logit_difference(run(lm, data["prompt"], sites=())[0][0], data["right"], data["wrong"])
    push = data["pushes"][choice]
    with edit(lm, Edit("resid_post", data["layer"], lambda old: old + push, position=position)):
        after = logit_difference(run(lm, data["prompt"], sites=())[0][0], data["right"], data["wrong"])
    return {"choice": choice, "shift": after - before}


def _after_only(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    before = logit_difference(run(lm, data["prompt"], sites=())[0][0], data["right"], data["wrong"])
    found = _control("random", lm, data)
    return {"choice": found["choice"], "shift": found["shift"] + before}


def _backwards(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    found = _control("random", lm, data)
    return {"choice": found["choice"], "shift": -found["shift"]}


def _control_case(seed: int) -> tuple:
    tiny = Tiny(seed)
    direction, noise, other = (_normal(seed + shift, tiny.d_model) for shift in (0, 100, 200))
    pushes = {
        "nothing": 0 * direction,
        "opposite": -direction,
        "unit": other / other.norm(),
        "random": noise / noise.norm() * direction.norm(),
        "half": direction / 2,
    }
    return (
        tiny,
        {
            "prompt": "The capital of France is",
            "right": seed % 50,
            "wrong": 60 + seed % 50,
            "layer": 1,
            "country": COUNTRY,
            "direction": direction,
            "pushes": pushes,
        },
    )


FAIR_CONTROL = Exercise(
    id="00_fair_control",
    kind="finding",
    level=3,
    points=4,
    minutes=12,
    reference=fair_control,
    cases=lambda seed: [_control_case(seed)],
    mistakes=(
        Mistake(
            "nothing",
            "Adding nothing shows that the run repeats itself. No push was made, so it cannot tell whether "
            "*any* push would have done.",
            lambda lm, data: _control("nothing", lm, data),
        ),
        Mistake(
            "opposite",
            "The opposite push lies on the same line: if it moves the answer too, both explanations are "
            "content. A control must be able to embarrass the claim.",
            lambda lm, data: _control("opposite", lm, data),
        ),
        Mistake(
            "unit",
            "This one is random, but many times shorter than the direction. If it does nothing, that may "
            "be because it is *short*: keep everything alike but the one thing in question.",
            lambda lm, data: _control("unit", lm, data),
        ),
        Mistake(
            "half",
            "Half the push asks how the effect grows with its strength: worth knowing, but any push would grow.",
            lambda lm, data: _control("half", lm, data),
        ),
        Mistake(
            "every_position",
            'The right control, but pushed in at every position. The claim\'s push went in at `data["country"]` only.',
            lambda lm, data: _control("random", lm, data, position=None),
        ),
        Mistake(
            "reversed",
            "The right control; your shift is before minus after. Return after minus before.",
            _backwards,
        ),
        Mistake(
            "after_only",
            "The right control; yours is the logit difference *after* the push. Asked is the change: take off what it "
            "was before.",
            _after_only,
        ),
    ),
    hints=(
        "The rival says: *any* push of this size, at this place, upsets the answer. Which push would show "
        "the rival right?",
        "It should differ from the claim's push in one thing only: where it points.",
        'Measure `logit_difference(logits[0], data["right"], data["wrong"])` without an edit and with '
        '`mk.Edit("resid_post", data["layer"], lambda old: old + push, position=data["country"])`; return '
        '`{"choice": ..., "shift": after - before}`.',
    ),
    discussion="Same size, same place, another direction: whatever the random push does, the claim's push "
    "must beat by far. (This little model has random weights, so here nothing is special about any "
    "direction. The next cell asks the real one, with several random pushes, since one could be a fluke.)",
    tolerance=1e-3,
    control=True,
    choice=True,
)


# watchers ---------------------------------------------------------------------------------------------------


def watchers(lm: LanguageModel, data: dict[str, Any]) -> list[tuple[int, int]]:
    looks = {}
    cache = _patterns(lm, tuple(data["prompts"]))
    for layer in range(lm.n_layers):
        for head in range(lm.n_heads):
            shares = [float(row[head, -1, data["country"]]) for row in cache["pattern", layer]]
            looks[layer, head] = sum(shares) / len(shares)
    return sorted(looks, key=looks.get, reverse=True)[:WATCHERS]


@lru_cache(maxsize=2)
def _patterns(lm: LanguageModel, prompts: tuple[str, ...]) -> Any:
    return run(lm, list(prompts), sites="pattern")[1]


def _top(looks: Float[Tensor, "layer head"]) -> list[tuple[int, int]]:
    order = looks.flatten().argsort(descending=True, stable=True)[:WATCHERS]
    return [divmod(int(each), looks.shape[1]) for each in order]


def _looks(lm: LanguageModel, data: dict[str, Any]) -> Float[Tensor, "layer batch head query key"]:
    return _patterns(lm, tuple(data["prompts"])).stack("pattern")


def _topk(looks: Float[Tensor, "layer head"]) -> list[tuple[int, int]]:
    return [divmod(int(each), looks.shape[1]) for each in looks.flatten().topk(WATCHERS).indices]


def _swapped(lm: LanguageModel, data: dict[str, Any]) -> Float[Tensor, "layer head"]:
    return _looks(lm, data)[:, :, :, data["country"], -1].mean(1)


@lru_cache(maxsize=64)
def _tiny_watched(seed: int) -> dict[str, Any]:
    """Prompts on which the tiny model's heads have another order than on the first prompt alone."""
    lm = tiny_model(seed=seed)
    drawn = (_tiny_capitals(seed + 1000 * attempt) for attempt in count())
    return next(data for data in drawn if watchers(lm, data) != watchers(lm, _first_prompt(data)))


def _first_prompt(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value[:1] if isinstance(value, list) else value for key, value in data.items()}


WATCHERS_EXERCISE = Exercise(
    id="00_watchers",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=watchers,
    cases=lambda seed: [(MODEL, _capitals(seed)), (Tiny(seed), _tiny_watched(seed))],
    mistakes=(
        Mistake(
            "first_key",
            "Yours are the heads that look at position 0, the prefix token, on which idle heads rest. Read "
            'the key at `data["country"]`.',
            lambda lm, data: _top(_looks(lm, data)[:, :, :, -1, 0].mean(1)),
        ),
        Mistake(
            "every_query",
            "Yours averages over the looking tokens. Only the last one gives the answer: query −1.",
            lambda lm, data: _top(_looks(lm, data)[..., data["country"]].mean(-1).mean(1)),
        ),
        Mistake(
            "itself",
            'Yours are the heads by which the last token looks at *itself*. Read the key at `data["country"]`.',
            lambda lm, data: _top(_looks(lm, data)[:, :, :, -1, -1].mean(1)),
        ),
        Mistake(
            "first_prompt",
            'Yours looks at the first prompt only. Average over all of `data["prompts"]`.',
            lambda lm, data: watchers(lm, _first_prompt(data)),
        ),
        Mistake(
            "reversed",
            "The right heads, in the wrong order: the hardest-looking comes first.",
            lambda lm, data: watchers(lm, data)[::-1],
        ),
        *(
            Mistake(
                name,
                "Yours has the country look at the last token: nothing can look ahead, so every head gives 0. The "
                'pattern is [..., query, key]: query −1, key `data["country"]`.',
                answer,
            )
            for name, answer in (
                ("query_and_key", lambda lm, data: _top(_swapped(lm, data))),
                ("query_and_key_by_topk", lambda lm, data: _topk(_swapped(lm, data))),  # ties have another order
            )
        ),
        Mistake(
            "weakest",
            "Yours are the four heads that look *least*: sorting goes upwards. Take the other end.",
            lambda lm, data: _top(-_looks(lm, data)[:, :, :, -1, data["country"]].mean(1)),
        ),
        Mistake(
            "head_first",
            "The right heads, but written (head, layer). Return (layer, head).",
            lambda lm, data: [(head, layer) for layer, head in watchers(lm, data)],
        ),
        Mistake(
            "flat",
            "The right heads, but as positions in the flattened table. `divmod(i, lm.n_heads)` gives (layer, head).",
            lambda lm, data: [layer * lm.n_heads + head for layer, head in watchers(lm, data)],
        ),
    ),
    hints=(
        '`_, cache = mk.run(lm, data["prompts"], sites="pattern")`; `cache.stack("pattern")` is [layer, '
        "batch, head, query, key].",
        'Take query −1 and key `data["country"]`, then the mean over the batch axis: a table [layer, head].',
        '`looks = cache.stack("pattern")[:, :, :, -1, data["country"]].mean(1)`, then `[divmod(int(i), '
        "lm.n_heads) for i in looks.flatten().topk(4).indices]`.",
    ),
    properties=(
        Property(
            "Every entry is a pair (layer, head) of the model it is given. (The check also gives it a tiny one: "
            "compute them from `lm` and `data`.)",
            lambda result, lm, data: all(0 <= layer < lm.n_layers and 0 <= head < lm.n_heads for layer, head in result),
        ),
    ),
    discussion="These are the heads that look hardest at the country. A map of attention ends here, and "
    "so do many explanations. But so far you have a list of suspects: no experiment has been made.",
)


# head_effect: repair ----------------------------------------------------------------------------------------


def head_effect(lm: LanguageModel, prompt: str, layer: int, head: int, right: int, wrong: int) -> float:
    clean, _ = run(lm, lm.tokens(prompt), sites=())

    def silence(z: Tensor) -> Tensor:
        heads = [torch.zeros_like(z[:, :, i]) if i == head else z[:, :, i] for i in range(lm.n_heads)]
        return torch.stack(heads, dim=2)

    with edit(lm, Edit("z", layer, silence)):
        silenced, _ = run(lm, lm.tokens(prompt), sites=())
    return logit_difference(clean[0], right, wrong) - logit_difference(silenced[0], right, wrong)


def _effect(
    lm: LanguageModel, prompt: str, layer: int, head: int, right: int, wrong: int, *, flaws: Sequence[str] = ()
) -> float:
    tokens = lm.tokens(prompt, prefix=None) if "prefix" in flaws else lm.tokens(prompt)
    clean, _ = run(lm, tokens, sites=())
    everywhere, everything = "last_position" not in flaws, "whole_layer" in flaws
    place = Edit("z", layer, torch.zeros_like, head=None if everything else head, position=None if everywhere else -1)
    with edit(lm, place):
        silenced, _ = run(lm, tokens, sites=())
        if "inside" in flaws:
            clean, _ = run(lm, tokens, sites=())
    change = clean[0, -1] - silenced[0, -1]
    effect = float(change[right]) if "contrast" in flaws else float(change[right] - change[wrong])
    return -effect if "reversed" in flaws else effect


FLAWS = {
    "prefix": "the prompt is run without its prefix token, which is not how this model is used",
    "contrast": "it follows one logit alone, which may move together with all the others",
    "reversed": "it is silenced minus clean, so a head that helps gets a negative effect",
    "whole_layer": "it silences all the heads of the layer (give the edit its `head`)",
    "last_position": "it silences the head at the last position only (leave `position` out)",
}


def _flawed(*flaws: str) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    count = "One flaw is" if len(flaws) == 1 else f"{len(flaws)} flaws are"
    return Mistake("_".join(flaws), f"{count} left: {found}.", partial(_effect, flaws=flaws))


def _effect_case(seed: int, family: str) -> tuple:
    rng = random.Random(seed)
    prompt = rng.choice(rng.choice(PAIRS))
    right, wrong = rng.sample(range(100), 2)
    # never in the last of the three layers: there only the last position matters
    return (Tiny(seed, family), prompt, rng.randrange(2), rng.randrange(4), right, wrong)


HEAD_EFFECT = Exercise(
    id="00_head_effect",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=head_effect,
    cases=lambda seed: [_effect_case(seed, "llama"), _effect_case(seed + 1, "gpt2")],
    mistakes=(
        Mistake(
            "inside",
            "The gravest flaw is left: the *clean* run stands inside the `with` block, so it is edited "
            "too, and the difference is always 0. Take it before the block.",
            partial(_effect, flaws=("inside",)),
        ),
        _flawed("prefix"),
        _flawed("contrast"),
        _flawed("reversed"),
        _flawed("whole_layer"),
        _flawed("last_position"),
        _flawed("prefix", "contrast"),
        _flawed("prefix", "reversed"),
    ),
    hints=(
        "An effect of exactly zero, for *every* head, is itself a clue. In which two runs could nothing differ?",
        "An edit reaches every run inside its `with` block. And compare `lm.tokens(prompt)` with "
        "`lm.tokens(prompt, prefix=None)`.",
        "Three repairs: run clean *before* the block, use `lm.tokens(prompt)`, and subtract two calls of "
        "`logit_difference(logits[0], right, wrong)`: clean minus silenced.",
    ),
    discussion="A result of exactly zero is as suspicious as a result that is too good. Before believing "
    "any experiment, run it once where you know what must come out: silence something that cannot be "
    "spared.",
    tolerance=1e-3,
)


# drops ------------------------------------------------------------------------------------------------------


def drops(lm: LanguageModel, data: dict[str, Any]) -> Float[Tensor, " watcher"]:
    return torch.tensor([_mean_drop(lm, data, layer, head) for layer, head in watchers(lm, data)])


def _mean_drop(
    lm: LanguageModel, data: dict[str, Any], layer: int, head: int | None, *, contrast: bool = True
) -> float:
    prompts = tuple(data["prompts"])
    clean, silenced = _silenced(lm, prompts, None, None), _silenced(lm, prompts, layer, head)
    total = 0.0
    for row, (right, wrong) in enumerate(zip(data["answers"], data["others"], strict=True)):
        change = clean[row] - silenced[row]
        total += float(change[lm.token_id(right)] - (change[lm.token_id(wrong)] if contrast else 0.0))
    return total / len(data["prompts"])


@lru_cache(maxsize=48)
def _silenced(
    lm: LanguageModel, prompts: tuple[str, ...], layer: int | None, head: int | None
) -> Float[Tensor, "batch d_vocab"]:
    """The last position's logits with one head silenced (or a whole layer's heads), or none."""
    edits = [] if layer is None else [Edit("z", layer, torch.zeros_like, head=head)]
    with edit(lm, *edits):
        return run(lm, list(prompts), sites=())[0][:, -1].clone()


def _first_only(lm: LanguageModel, data: dict[str, Any]) -> Tensor:
    one = _first_prompt(data)
    return torch.tensor([_mean_drop(lm, one, layer, head) for layer, head in watchers(lm, data)])


DROPS = Exercise(
    id="00_drops",
    kind="finding",
    level=3,
    points=3,
    minutes=15,
    reference=drops,
    cases=lambda seed: [(MODEL, _capitals(seed)), (Tiny(seed), _tiny_capitals(seed))],
    mistakes=(
        Mistake(
            "reversed",
            "Yours is silenced minus clean. A head that helps should get a *positive* drop: clean minus silenced.",
            lambda lm, data: -drops(lm, data),
        ),
        Mistake(
            "no_contrast",
            "Yours follows the right answer's logit alone. Use the logit difference with "
            '`data["others"]`: all logits may move together.',
            lambda lm, data: torch.tensor([_mean_drop(lm, data, *each, contrast=False) for each in watchers(lm, data)]),
        ),
        Mistake(
            "whole_layer",
            "Yours silences all the heads of each watcher's layer. Give the edit its `head`.",
            lambda lm, data: torch.tensor([_mean_drop(lm, data, layer, None) for layer, _ in watchers(lm, data)]),
        ),
        Mistake(
            "first_prompt",
            'Yours measures the first prompt only. Take the mean over all of `data["prompts"]`.',
            _first_only,
        ),
        Mistake(
            "all_zero",
            "Yours is 0 for every head. Either the clean run stands inside the `with` block, or two lists of ids as in "
            "`logits[:, -1, rights]` made a table, every answer for every prompt, whose mean is nothing: pair each row "
            "with its own answer, `logits[range(len(rights)), -1, rights]`.",
            lambda lm, data: torch.zeros(len(watchers(lm, data))),
        ),
        Mistake(
            "sum_over_prompts",
            "Yours adds up the prompts, so a longer list makes a bigger drop. Take their mean.",
            lambda lm, data: len(data["prompts"]) * drops(lm, data),
        ),
    ),
    hints=(
        "`mk.run` takes all the prompts at once: `logits` is [batch, pos, d_vocab]. One clean run serves "
        "for all four heads.",
        "Write a small helper in the same cell: the mean of `logit_difference(row, lm.token_id(right), "
        'lm.token_id(wrong))` over the rows of a batch and `zip(data["answers"], data["others"])`.',
        'For each `layer, head` of `watchers(lm, data)`: `with mk.edit(lm, mk.Edit("z", layer, '
        "torch.zeros_like, head=head)):` run again; the drop is the clean mean minus this one.",
    ),
    discussion="Attention says where a head *reads*. It does not say what it writes, nor whether anybody "
    "needs it. Silencing does: it asks whether the answer can do without this head. (Even that has a blind "
    "spot: where two heads do the same job, silencing one shows nothing. Chapter 06 meets such a pair.)",
    tolerance=1e-3,
)


# the claim card ---------------------------------------------------------------------------------------------

CLAIM = Claim(
    statements={
        "state": Option(
            "the state at the country's token decides, up to a late layer, which capital the model names",
            True,
            "You copied that one state, and the answer followed it.",
        ),
        "looking": Option(
            "a head that looks hard at the country is a head that the answer needs",
            False,
            "Most of the watchers could be silenced at little cost: attention is a clue.",
        ),
        "understanding": Option(
            "the model understands what a capital is",
            False,
            "That is a word for behaviour that impresses us. No experiment here tests it, and it is hard "
            "to say which could.",
        ),
        "stored": Option(
            "the name of the capital is stored at the country's token",
            False,
            "Not shown. The state there may only say *which country*, and the capital be looked up later. "
            "The swap cannot tell the two apart.",
        ),
    },
    evidence={
        "readable": Option(
            "the capital can be read off the state", False, "Nothing was read off here: that is chapter 03."
        ),
        "correlated": Option(
            "the state differs where the answers differ",
            False,
            "True, and much weaker than what you did: you *set* the state and watched the answer.",
        ),
        "necessary": Option(
            "without it the answer is gone",
            False,
            "Nothing was taken away at the country's token: one state was put in the place of another. "
            "That shows more than absence would.",
        ),
        "sufficient": Option(
            "putting it in is enough to bring its answer with it",
            True,
            "The text still said one country; one state from another run was enough to bring that country's capital.",
        ),
    },
    refuted_by={
        "random": Option(
            "random states of the same length, swapped in, bringing the other answer as reliably",
            True,
            "Then the answer would be merely fragile, and the state from the other run nothing special.",
        ),
        "wrong_capital": Option(
            "the model naming a wrong capital for some other country",
            False,
            "That would be a fact about its knowledge. The claim is about where the answer comes from, right or wrong.",
        ),
        "no_attention": Option(
            "no head's map showing attention to the country",
            False,
            "Maps are clues. The information could travel by many small looks.",
        ),
        "repeat": Option(
            "the unedited model giving another answer when run again",
            False,
            "It has no randomness: the same prompt gives the same logits. Always check, but it refutes nothing here.",
        ),
    },
)


# the self-test ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One question of the self-test.

    Args:
        options: From "a" on, in order.
        right: The letter of the right one.
        skip: What whoever knows this may skip.
        read: What the others will find, and where.
    """

    ask: str
    options: tuple[str, ...]
    right: str
    skip: str
    read: str


SELF_TEST = (
    Question(
        "The logits of two tokens are 5 and 3. You add 10 to every logit. What happens to the two probabilities?",
        ("both grow", "nothing", "their ratio grows"),
        "b",
        "skim section 2",
        "Section 2: only differences between logits matter.",
    ),
    Question(
        "Two vectors have cosine 0. You double one of them. What is their cosine now?",
        ("0", "0.5", "it depends on their lengths"),
        "a",
        "skim section 3",
        "Section 3: a cosine compares directions, not lengths.",
    ),
    Question(
        "In a causal attention head, what sums to 1?",
        ("each token's attention over itself and earlier tokens", "all attention that a token receives", "the scores"),
        "a",
        "skim section 4",
        "Section 4: a head, by loop and by matmul.",
    ),
    Question(
        "What does block 7 do to the residual stream?",
        ("replaces it", "multiplies it by its weights", "adds to it"),
        "c",
        "skim section 5",
        "Section 5: the stream is a sum of writes.",
    ),
    Question(
        "A head looks at the answer's source with nearly all of its attention. What does that show?",
        ("the answer needs it", "where it reads, no more", "that the model understands the question"),
        "b",
        "go through sections 6 and 7 at speed, but do their exercises",
        "Section 7: maps are clues, not confessions.",
    ),
)

CHAPTER = Chapter(
    number="00",
    title="Start here",
    notebook="00_start_here",
    question="What does it mean to understand a network?",
    minutes=150,
    exercises=(
        PROBABILITIES,
        LOGIT_DIFFERENCE,
        COSINE,
        SHADOW,
        ATTENTION_HEAD,
        WRITES,
        SWAP,
        FAIR_CONTROL,
        WATCHERS_EXERCISE,
        HEAD_EFFECT,
        DROPS,
    ),
    claim=CLAIM,
)
