"""Chapter 02, word analogies: is meaning a direction?"""

import math
import random
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Words
from mechkit.data.words import OCCUPATIONS, WORD_PAIRS, Pair, Quad, analogy_questions
from mechkit.methods.analogies import pair_offsets, solve_analogies, solve_offsets
from mechkit.methods.words import WordVectors, token_words
from mechkit.network.model import LanguageModel

COMMON = Words(30_000)  # every word of the pairs is among these, so that a check is quick
EPSILON = 1e-3
POLE = 3
KEPT = 4  # the three words of a question may stand before its answer


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _questions(seed: int, count: int, *kinds: str) -> list[Quad]:
    """So many questions of each kind."""
    return [each for kind in kinds for each in analogy_questions(WORD_PAIRS[kind], count, seed=seed)]


@lru_cache(maxsize=2)
def _table(words: WordVectors) -> Float[Tensor, "word d"]:
    """Every word's vector, one unit long."""
    vectors = words.vectors(words.words)
    return vectors / vectors.square().sum(-1, keepdim=True).sqrt()


def _unit(words: WordVectors, word: str) -> Float[Tensor, " d"]:
    return words[word] / words[word].square().sum().sqrt()


def _first(words: WordVectors, target: Float[Tensor, " d"], count: int = KEPT) -> list[str]:
    """The words with the largest cosine, one target at a time."""
    return [words.words[i] for i in (_table(words) @ target).topk(count).indices.tolist()]


def _target(words: WordVectors, question: Quad) -> Float[Tensor, " d"]:
    a, b, c, _ = question
    return _unit(words, b) - _unit(words, a) + _unit(words, c)


def _answer(ranking: Sequence[str], question: Quad, words: WordVectors) -> str:
    """The first word that is not in the question."""
    asked = {words.spelled(word) for word in question[:3]}
    return next(word for word in ranking if word not in asked)


def _share(yes: Sequence[bool]) -> float:
    return sum(yes) / max(len(yes), 1)


# nearest ------------------------------------------------------------------------------------------------------


def nearest(vectors: Float[Tensor, "word d"], target: Float[Tensor, " d"], k: int) -> list[int]:
    cosines = []
    for row in vectors.tolist():
        dot = sum(x * y for x, y in zip(row, target.tolist(), strict=True))
        lengths = math.sqrt(sum(x * x for x in row)) * math.sqrt(sum(y * y for y in target.tolist()))
        cosines.append(dot / lengths)
    return sorted(range(len(cosines)), key=lambda place: -cosines[place])[:k]


def _cosines(vectors: Tensor, target: Tensor) -> Tensor:
    return vectors @ target / (vectors.norm(dim=-1) * target.norm())


def _cloud(seed: int, count: int, size: int) -> Tensor:
    """Points of very different lengths, all on one side of the origin, as word vectors are."""
    return (_normal(seed, count, size) + 0.4) * _normal(seed + 100, count, 1).exp()


NEAREST = Exercise(
    id="02_nearest",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=nearest,
    library=lambda vectors, target, k: _cosines(vectors, target).topk(k).indices.tolist(),
    cases=lambda seed: [
        (_cloud(seed, 40, 6), _normal(seed + 50, 6), 5),
        (_cloud(seed + 1, 25, 3), _normal(seed + 51, 3), 8),
    ],
    mistakes=(
        Mistake(
            "dot_product",
            "Yours ranks by the dot product, so long vectors win (common words have long ones). Divide by each row's "
            "length: `vectors.norm(dim=-1)`.",
            lambda vectors, target, k: (vectors @ target).topk(k).indices,
        ),
        Mistake(
            "distance",
            "Yours ranks by distance. Two vectors of one direction and different length are far apart, yet their "
            "cosine is 1: rank by the cosine.",
            lambda vectors, target, k: (-(vectors - target).norm(dim=-1)).topk(k).indices,
        ),
        Mistake(
            "farthest",
            "Yours are the words with the *smallest* cosine: the order is turned round.",
            lambda vectors, target, k: (-_cosines(vectors, target)).topk(k).indices,
        ),
        Mistake(
            "unsigned",
            "Yours lost the sign: a vector that points the opposite way has cosine −1 and is not near.",
            lambda vectors, target, k: _cosines(vectors, target).abs().topk(k).indices,
        ),
        Mistake(
            "in_order_of_rows",
            "The right words, in the order of their rows. Return the best first.",
            lambda vectors, target, k: _cosines(vectors, target).topk(k).indices.sort().values,
        ),
        Mistake(
            "best_last",
            "The right words, worst of them first: `argsort` sorts upwards. Return the best first.",
            lambda vectors, target, k: _cosines(vectors, target).argsort()[-k:],
        ),
        Mistake(
            "without_the_first",
            "Yours leaves out the very best, as one does when the target is itself among the words. Here it need not "
            "be: return the first k.",
            lambda vectors, target, k: _cosines(vectors, target).topk(k + 1).indices[1:],
        ),
    ),
    hints=(
        "A cosine is a dot product of two vectors that are one unit long. Which lengths change the order?",
        "`vectors @ target / vectors.norm(dim=-1)` has the same order as the cosine: the target's own length divides "
        "every one alike.",
        "Return `(vectors @ target / vectors.norm(dim=-1)).topk(k).indices`.",
    ),
    discussion="The target's length does not matter, the words' lengths do. With dot products the longest vectors win "
    "many questions that they have nothing to do with.",
    teaches=("cosine_similarity", "nearest"),
)


# three_cos_add ------------------------------------------------------------------------------------------------


def three_cos_add(vectors: Float[Tensor, "word d"], a: int, b: int, c: int) -> Float[Tensor, " word"]:
    scores = []
    for row in vectors.double():
        to_a, to_b, to_c = (
            float(row @ other / (row.norm() * other.norm())) for other in vectors[[a, b, c]].double().unbind()
        )
        scores.append(to_b - to_a + to_c)
    return torch.tensor(scores)


def _units(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _three(vectors: Tensor, *places: int) -> list[Tensor]:
    return [_units(vectors) @ _units(vectors)[place] for place in places]


def _add(vectors: Tensor, a: int, b: int, c: int) -> Tensor:
    to_a, to_b, to_c = _three(vectors, a, b, c)
    return to_b - to_a + to_c


def _cloud_case(seed: int, count: int, size: int) -> tuple:
    a, b, c = random.Random(seed).sample(range(count), 3)
    return (_cloud(seed, count, size), a, b, c)


THREE_COS_ADD = Exercise(
    id="02_three_cos_add",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=three_cos_add,
    library=_add,
    cases=lambda seed: [_cloud_case(seed, 30, 6), _cloud_case(seed + 1, 12, 3)],
    mistakes=(
        Mistake(
            "swapped",
            "Yours takes b away and adds a: that is the way back. a : b :: c : ? starts at c and goes the way from a "
            "to b.",
            lambda vectors, a, b, c: _add(vectors, b, a, c),
        ),
        Mistake(
            "a_and_c_swapped",
            "Yours takes c away and adds a. In king − man + woman, man is a and woman is c.",
            lambda vectors, a, b, c: _add(vectors, c, b, a),
        ),
        Mistake(
            "without_c",
            "Yours leaves c out: it scores the offset b − a alone. Add the cosine with c.",
            lambda vectors, a, b, c: _three(vectors, b)[0] - _three(vectors, a)[0],
        ),
        Mistake(
            "dot_products",
            "Yours uses dot products, so the longest of the three vectors, and the longest words, weigh most. Make "
            "every vector one unit long first.",
            lambda vectors, a, b, c: vectors @ (vectors[b] - vectors[a] + vectors[c]),
        ),
        Mistake(
            "raw_offset",
            "Yours is the cosine with the *raw* sum b − a + c: the longest of the three has the most to say. Here each "
            "of the three cosines counts alike: make every vector one unit long first.",
            lambda vectors, a, b, c: _cosines(vectors, vectors[b] - vectors[a] + vectors[c]),
        ),
        Mistake(
            "one_cosine",
            "The right order, but you divided by the length of the sum as well. Asked are the three cosines, added "
            "and taken away.",
            lambda vectors, a, b, c: _cosines(vectors, _units(vectors)[[b, c]].sum(0) - _units(vectors)[a]),
        ),
    ),
    hints=(
        "Make every row one unit long: then a cosine is a dot product.",
        "`units = vectors / vectors.norm(dim=-1, keepdim=True)`; `units @ units[b]` holds every word's cosine with b.",
        "Return `units @ (units[b] - units[a] + units[c])`.",
    ),
    discussion="Three cosines added are one dot product with b − a + c. So 3CosAdd can be read in two ways: start at c "
    "and go the way from a to b; or look for a word that is like b, like c, and unlike a.",
    teaches=("three_cos_add", "solve_analogies", "analogy"),
)


# exclusion ----------------------------------------------------------------------------------------------------


def exclusion(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    excluded, free, returns_c = [], [], []
    for ranking, question in _rankings(words, tuple(questions)):
        c, d = question[2:]
        excluded.append(_answer(ranking, question, words) == d)
        free.append(ranking[0] == d)
        returns_c.append(ranking[0] == c)
    return {"excluded": _share(excluded), "free": _share(free), "returns_c": _share(returns_c)}


@lru_cache(maxsize=8)
def _rankings(words: WordVectors, questions: tuple[Quad, ...]) -> list[tuple[list[str], Quad]]:
    spelled = [tuple(words.spelled(word) for word in question) for question in questions]
    return [(_first(words, _target(words, question)), question) for question in spelled]


def _exclusion(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    solved = solve_analogies(words, questions)
    firsts = zip(solved.answers(exclude=False), solved.questions, strict=True)
    returned = [answer == asked[2] for answer, asked in firsts]
    return {
        "excluded": solved.accuracy(),
        "free": solved.accuracy(exclude=False),
        "returns_c": _share(returned),
    }


def _returns_any(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    firsts = [ranking[0] in question[:3] for ranking, question in _rankings(words, tuple(questions))]
    return exclusion(words, questions) | {"returns_c": _share(firsts)}


def _among_the_wrong(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    wrong = [(ranking, asked) for ranking, asked in _rankings(words, tuple(questions)) if ranking[0] != asked[3]]
    return exclusion(words, questions) | {"returns_c": _share([ranking[0] == asked[2] for ranking, asked in wrong])}


def _any_of_four(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    right = [asked[3] in ranking for ranking, asked in _rankings(words, tuple(questions))]
    return exclusion(words, questions) | {"free": _share(right)}


def _as_asked(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    """With the question's own spelling, where "Paris" is never "paris"."""
    firsts = [ranking[0] for ranking, _ in _rankings(words, tuple(questions))]
    returned = [first == question[2] for first, question in zip(firsts, questions, strict=True)]
    return exclusion(words, questions) | {"returns_c": _share(returned)}


def _exchanged(words: WordVectors, questions: Sequence[Quad]) -> dict[str, float]:
    found = exclusion(words, questions)
    return found | {"excluded": found["free"], "free": found["excluded"]}


EXCLUSION = Exercise(
    id="02_exclusion",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=exclusion,
    library=_exclusion,
    cases=lambda seed: [(COMMON, _questions(seed, 25, "capital", "comparative", "gender"))],
    mistakes=(
        Mistake(
            "exchanged",
            "The numbers are right and stand under each other's names: `free` leaves nothing out and is the lower one.",
            _exchanged,
        ),
        Mistake(
            "returns_any",
            "Your `returns_c` counts every question whose first word is a, b *or* c. Asked is c alone.",
            _returns_any,
        ),
        Mistake(
            "among_the_wrong",
            "Your `returns_c` is a share of the wrong answers. Asked is the share of all questions.",
            _among_the_wrong,
        ),
        Mistake(
            "capitals",
            "Your `returns_c` misses words with a capital: the question says Paris, GloVe's answer is paris. Compare "
            "with `solved.questions`, which are spelled as the vectors spell them.",
            _as_asked,
        ),
        Mistake(
            "any_of_four",
            "Your `free` counts a question as right if d is anywhere among the best four. Asked is the first.",
            _any_of_four,
        ),
    ),
    hints=(
        "`solved = mk.solve_analogies(words, questions)` ranks all words for each question; `solved.accuracy()` and "
        "`solved.accuracy(exclude=False)` are two of the three numbers.",
        "`solved.answers(exclude=False)` are the first words; `solved.questions` the questions as the vectors spell "
        "them. Compare each answer with its question's third word.",
        "`returns_c = sum(answer == asked[2] for answer, asked in zip(solved.answers(exclude=False), "
        "solved.questions)) / len(questions)`",
    ),
    discussion="Two accuracies of the same vectors on the same questions. How far apart they lie is what the rule "
    "does, and `returns_c` says how much of that is the walk's own start. Guess first; then look.",
    properties=(
        Property(
            "All three are shares, from 0 to 1.",
            lambda result, *_: all(0 <= float(share) <= 1 for share in result.values()),
        ),
    ),
)


# three_cos_mul ------------------------------------------------------------------------------------------------


def three_cos_mul(vectors: Float[Tensor, "word d"], a: int, b: int, c: int) -> Float[Tensor, " word"]:
    scores = []
    for row in vectors.double():
        to_a, to_b, to_c = (
            (float(row @ other / (row.norm() * other.norm())) + 1) / 2 for other in vectors[[a, b, c]].double().unbind()
        )
        scores.append(to_b * to_c / (to_a + EPSILON))
    return torch.tensor(scores)


def _multiply(
    vectors: Tensor, a: int, b: int, c: int, *, shift: float = 1.0, half: float = 2.0, epsilon: float = EPSILON
) -> Tensor:
    to_a, to_b, to_c = ((cosine + shift) / half for cosine in _three(vectors, a, b, c))
    return to_b * to_c / (to_a + epsilon)


def _multiply_dots(vectors: Tensor, a: int, b: int, c: int) -> Tensor:
    to_a, to_b, to_c = ((vectors @ vectors[place] + 1) / 2 for place in (a, b, c))
    return to_b * to_c / (to_a + EPSILON)


THREE_COS_MUL = Exercise(
    id="02_three_cos_mul",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=three_cos_mul,
    library=_multiply,
    cases=lambda seed: [_cloud_case(seed + 7, 30, 6), _cloud_case(seed + 8, 12, 4)],
    mistakes=(
        Mistake(
            "unshifted",
            "Yours multiplies the cosines as they are: two negative ones then make a large score. First move each to "
            "0 … 1 by (cos + 1) / 2.",
            partial(_multiply, shift=0.0, half=1.0),
        ),
        Mistake(
            "not_halved",
            "Yours moves the cosines to 0 … 2. Halve them: (cos + 1) / 2.",
            partial(_multiply, half=1.0),
        ),
        Mistake(
            "no_epsilon",
            "Yours divides by cos(x, a) alone, which may be 0: add 0.001 to it.",
            partial(_multiply, epsilon=0.0),
        ),
        Mistake(
            "epsilon_outside",
            "Yours adds 0.001 to the whole score: a bracket is missing. It belongs to the denominator.",
            lambda vectors, a, b, c: _multiply(vectors, a, b, c, epsilon=0.0) + EPSILON,
        ),
        Mistake(
            "dot_products",
            "Yours multiplies dot products. Asked are cosines: make every vector one unit long first.",
            _multiply_dots,
        ),
        Mistake(
            "divided_by_b",
            "Yours divides by the cosine with b. What the answer should *not* be like is a.",
            lambda vectors, a, b, c: _multiply(vectors, b, a, c),
        ),
        Mistake(
            "added",
            "Yours is 3CosAdd on moved cosines. Here they are multiplied and divided.",
            lambda vectors, a, b, c: (_add(vectors, a, b, c) + 1) / 2,
        ),
    ),
    hints=(
        "Start as in `three_cos_add`: all rows one unit long, three vectors of cosines.",
        "`to_a, to_b, to_c = ((units @ units[word] + 1) / 2 for word in (a, b, c))`",
        "Then return `to_b * to_c / (to_a + 0.001)`.",
    ),
    properties=(
        Property(
            "Moved to 0 … 1, cosines give no negative score; yours do.",
            lambda result, *_: bool((result > -1e-6).all()),
        ),
    ),
    discussion="In a sum one large cosine can outvote the other two: a word that is nearly c wins whatever b is. In a "
    "product every term has a veto. Whether that helps depends on the vectors: measure, as the next cell does.",
    teaches=("three_cos_mul", "solve_analogies", "analogy"),
)


# random_offset: control ---------------------------------------------------------------------------------------


def random_offset(words: WordVectors, questions: Sequence[Quad], noise: Float[Tensor, "question d"]) -> list[str]:
    answers = []
    for question, direction in zip(questions, noise, strict=True):
        a, b, c, _ = question
        length = (_unit(words, b) - _unit(words, a)).norm()
        target = _unit(words, c) + direction / direction.norm() * length
        answers.append(_answer(_first(words, target), question, words))
    return answers


def _offset(words: WordVectors, questions: Sequence[Quad], offsets: Tensor, *, exclude: bool = True) -> list[str]:
    answers = []
    for question, offset in zip(questions, offsets, strict=True):
        ranking = _first(words, _unit(words, question[2]) + offset)
        answers.append(_answer(ranking, question, words) if exclude else ranking[0])
    return answers


def _offset_lengths(words: WordVectors, questions: Sequence[Quad]) -> Tensor:
    return torch.stack([(_unit(words, b) - _unit(words, a)).norm() for a, b, _, _ in questions])[:, None]


def _scaled(words: WordVectors, questions: Sequence[Quad], noise: Tensor) -> Tensor:
    return noise / noise.norm(dim=-1, keepdim=True) * _offset_lengths(words, questions)


def _one_norm(
    words: WordVectors, questions: Sequence[Quad], noise_: Tensor, *, noise: bool = False, real: bool = False
) -> list[str]:
    """The lengths of the whole tables instead of their rows', for the noise, the real offsets, or both."""
    lengths = _offset_lengths(words, questions)
    of_noise = noise_.norm() if noise else noise_.norm(dim=-1, keepdim=True)
    return _offset(words, questions, noise_ / of_noise * (lengths.norm() if real else lengths))


def _random_offset(words: WordVectors, questions: Sequence[Quad], noise: Float[Tensor, "question d"]) -> list[str]:
    lengths = pair_offsets(words, questions).norm(dim=-1, keepdim=True)
    return solve_offsets(words, questions, noise / noise.norm(dim=-1, keepdim=True) * lengths).answers()


def _noise_case(seed: int) -> tuple:
    questions = _questions(seed, 12, "plural", "nationality")
    return (COMMON, questions, 2 * _normal(seed, len(questions), 50))


RANDOM_OFFSET = Exercise(
    id="02_random_offset",
    kind="code",
    level=2,
    points=3,
    minutes=12,
    reference=random_offset,
    library=_random_offset,
    cases=lambda seed: [_noise_case(seed)],
    mistakes=(
        Mistake(
            "unscaled",
            "Yours adds the noise as long as it came. A control is alike in all but one thing: give each direction the "
            "length of the offset that it replaces.",
            lambda words, questions, noise: _offset(words, questions, noise),
        ),
        Mistake(
            "unit_length",
            "Yours makes every random offset one unit long. Each must be as long as the offset it replaces, "
            "|b − a| of its own question.",
            lambda words, questions, noise: _offset(words, questions, noise / noise.norm(dim=-1, keepdim=True)),
        ),
        Mistake(
            "noise_keeps_its_length",
            "Yours multiplies the noise by the offset's length without making it one unit long first: it has both "
            "lengths now.",
            lambda words, questions, noise: _offset(words, questions, noise * _offset_lengths(words, questions)),
        ),
        Mistake(
            "mean_length",
            "Yours gives every random offset the *mean* length. Each has that of its own question's offset.",
            lambda words, questions, noise: _offset(
                words, questions, noise / noise.norm(dim=-1, keepdim=True) * _offset_lengths(words, questions).mean()
            ),
        ),
        *(
            Mistake(
                name,
                "Somewhere yours takes *one* length of a whole table: `norm()` alone is a single number. Each row has "
                "its own: `norm(dim=-1, keepdim=True)`, for the noise and for the real offsets.",
                answer,
            )
            for name, answer in (
                ("one_norm", partial(_one_norm, noise=True, real=True)),
                ("one_norm_of_the_noise", partial(_one_norm, noise=True)),
                ("one_norm_of_the_offsets", partial(_one_norm, real=True)),
            )
        ),
        Mistake(
            "raw_length",
            "Yours measures b − a between the raw vectors, which differ in length. The analogy walks between vectors "
            "one unit long: `mk.pair_offsets`.",
            lambda words, questions, noise: _offset(
                words,
                questions,
                noise
                / noise.norm(dim=-1, keepdim=True)
                * torch.stack([(words[b] - words[a]).norm() for a, b, _, _ in questions])[:, None],
            ),
        ),
        Mistake(
            "not_excluded",
            "Yours may answer with a word of the question. The claim's accuracy leaves those out, so the control must "
            "too.",
            lambda words, questions, noise: _offset(words, questions, _scaled(words, questions, noise), exclude=False),
        ),
        Mistake(
            "added_to_the_offset",
            "Yours adds the noise *to* b − a. The control goes a random way instead of that one.",
            lambda words, questions, noise: _offset(
                words,
                questions,
                _scaled(words, questions, noise)
                + torch.stack([_unit(words, b) - _unit(words, a) for a, b, _, _ in questions]),
            ),
        ),
        Mistake(
            "without_c",
            "Yours looks near the random offset alone, far from any word. Start at c, as the analogy does.",
            lambda words, questions, noise: [
                _answer(_first(words, direction), question, words)
                for question, direction in zip(questions, noise, strict=True)
            ],
        ),
    ),
    hints=(
        "`mk.pair_offsets(words, questions)` holds b − a of each question, [question d]. What of it should the control "
        "keep, and what not?",
        "Keep the length: `noise / noise.norm(dim=-1, keepdim=True)` is one unit long; multiply it by "
        "`offsets.norm(dim=-1, keepdim=True)`.",
        "`mk.solve_offsets(words, questions, scaled).answers()` starts at c, adds the offsets, and leaves the words of "
        "the question out.",
    ),
    discussion="A random step of the same length is a fair opponent: it has the same chance to get away from c. What "
    "it still finds is there without any relation, because d is simply near c.",
    teaches=("random_offsets",),
    control=True,
)


# pairing: design ----------------------------------------------------------------------------------------------


def pairing(words: WordVectors, data: dict[str, Any]) -> dict[str, Any]:
    right = []
    for question in data["mismatched"]:
        answer = _answer(_first(words, _target(words, question)), question, words)
        right.append(answer == words.spelled(question[3]))
    return {"choice": "mismatched", "accuracy": _share(right)}


def _pairing(choice: str, words: WordVectors, data: dict[str, Any]) -> dict[str, Any]:
    return pairing(words, {"mismatched": data[choice]}) | {"choice": choice}


def _free_pairing(words: WordVectors, data: dict[str, Any]) -> dict[str, Any]:
    firsts = [_first(words, _target(words, question))[0] for question in data["mismatched"]]
    asked = zip(firsts, data["mismatched"], strict=True)
    return {"choice": "mismatched", "accuracy": _share([first == words.spelled(d) for first, (*_, d) in asked])}


def _pairing_case(seed: int) -> tuple:
    chance, data = random.Random(seed), {name: [] for name in ("backwards", "mismatched", "other_pair", "turned")}
    for kind in ("capital", "nationality", "gender"):
        pairs = WORD_PAIRS[kind]
        for a, b, c, d in analogy_questions(pairs, 20, seed=seed):
            others = [pair for pair in pairs if pair not in ((a, b), (c, d))]
            data["backwards"].append((b, a, c, d))
            data["mismatched"].append((a, chance.choice(others)[1], c, d))
            data["other_pair"].append((*chance.choice(others), c, d))
            data["turned"].append((a, b, d, c))
    return (COMMON, data)


PAIRING = Exercise(
    id="02_pairing",
    kind="finding",
    level=3,
    points=4,
    minutes=15,
    reference=pairing,
    cases=lambda seed: [_pairing_case(seed)],
    mistakes=(
        Mistake(
            "backwards",
            "Backwards, the offset leads away from all capitals. It will fail whether the rival is right or not, so it "
            "cannot tell the two apart.",
            partial(_pairing, "backwards"),
        ),
        Mistake(
            "other_pair",
            "Another *right* pair is another try of the claim itself. The rival, too, expects it to do well.",
            partial(_pairing, "other_pair"),
        ),
        Mistake(
            "turned",
            "Turned round, it asks another question (from capital to country) of another neighbourhood. Neither the "
            "claim nor the rival says how that will go.",
            partial(_pairing, "turned"),
        ),
        Mistake(
            "not_excluded",
            "The right control, but words of the question may answer. Leave them out, as for the claim: "
            "`solved.accuracy()`.",
            _free_pairing,
        ),
    ),
    hints=(
        "Say the rival's sentence aloud: *any* step from a country to *some* capital would do. Which set of questions "
        "makes exactly that step?",
        "The control must keep what the rival relies on (countries on one side, capitals on the other) and break what "
        "the claim relies on (that they belong together).",
        '`{"choice": "mismatched", "accuracy": mk.solve_analogies(words, data["mismatched"]).accuracy()}`',
    ),
    discussion="A random direction refutes 'any step will do'; only mismatched pairs can refute 'any step towards a "
    "capital will do'. Name the rival first, then choose the control.",
    control=True,
    choice=True,
)


# fair_ranks: repair -------------------------------------------------------------------------------------------


def fair_ranks(words: WordVectors, pairs: Sequence[Pair]) -> list[int]:
    ranks = []
    for tested, (a, b) in enumerate(pairs):
        others = [pair for place, pair in enumerate(pairs) if place != tested]
        offset = sum(_unit(words, second) - _unit(words, first) for first, second in others) / len(others)
        scores = _table(words) @ (_unit(words, a) + offset)
        better = (scores > scores[words.place(b)]).nonzero().flatten().tolist()
        ranks.append(len([place for place in better if place != words.place(a)]))
    return ranks


def _fair_ranks(words: WordVectors, pairs: Sequence[Pair]) -> list[int]:
    offsets, starts, ranks = pair_offsets(words, pairs), words.units([a for a, _ in pairs]), []
    for i, (a, b) in enumerate(pairs):
        cosines = words.cosines((starts[i] + (offsets.sum(0) - offsets[i]) / (len(pairs) - 1))[None])[0]
        cosines[words.place(a)] = -torch.inf
        ranks.append(int((cosines > cosines[words.place(b)]).sum()))
    return ranks


FLAWS = {
    "leaked": "the pair that is tested helped to make the offset; leave it out of the mean",
    "shortlist": "the answer is looked for among the pairs' own second words only; it must beat every word there is",
    "counts_a": "a rank is one too large wherever the word a itself beats b: it is no rival (if every rank is one too "
    "large, the answer may be counting itself)",
}


def _flawed_ranks(flaws: Sequence[str], words: WordVectors, pairs: Sequence[Pair]) -> list[int]:
    offsets = torch.stack([_unit(words, b) - _unit(words, a) for a, b in pairs])
    ranks = []
    for tested, (a, b) in enumerate(pairs):
        others = [place for place in range(len(pairs)) if place != tested]
        offset = offsets.mean(0) if "leaked" in flaws else offsets[others].mean(0)
        scores = _table(words) @ (_unit(words, a) + offset)
        if "counts_a" not in flaws:
            scores[words.place(a)] = -torch.inf
        rivals = scores[[words.place(second) for _, second in pairs]] if "shortlist" in flaws else scores
        ranks.append(int((rivals > scores[words.place(b)]).sum()))
    return ranks


def _flawed(*flaws: str) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    count = "One flaw is" if len(flaws) == 1 else f"{len(flaws)} flaws are"
    return Mistake("_".join(flaws), f"{count} left: {found}.", partial(_flawed_ranks, flaws))


def _few_pairs(seed: int) -> list[Pair]:
    chance = random.Random(seed)
    return [pair for kind in ("past tense", "gender") for pair in chance.sample(WORD_PAIRS[kind], 5)]


FAIR_RANKS = Exercise(
    id="02_fair_ranks",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_ranks,
    library=_fair_ranks,
    cases=lambda seed: [(COMMON, _few_pairs(seed))],
    mistakes=(
        _flawed("leaked"),
        _flawed("shortlist"),
        _flawed("counts_a"),
        _flawed("leaked", "counts_a"),
    ),
    hints=(
        "Two questions to any accuracy: what did the method see before the test, and among how many answers could it "
        "choose?",
        "Left out of the mean: `(offsets.sum(0) - offsets[i]) / (len(pairs) - 1)`. Among all words: "
        "`words.cosines(target[None])[0]`.",
        "For pair i: `cosines = words.cosines((units_a[i] + offset)[None])[0]`, set `cosines[words.place(a)]` to −2 "
        "(below every cosine), and count `(cosines > cosines[words.place(b)]).sum()`.",
    ),
    discussion="Nothing in the broken code is a bug: it runs, and its number is true of what it measures. The pair in "
    "its own mean is a *leak*; the shortlist gives the method an answer key to choose from.",
)


# kept_variance ------------------------------------------------------------------------------------------------


def kept_variance(points: Float[Tensor, "point d"], k: int) -> Float[Tensor, " k"]:
    centred = points.double() - points.double().mean(0)
    total = sum(float(x) ** 2 for row in centred for x in row)
    covariance = centred.T @ centred
    largest = torch.linalg.eigvalsh(covariance).flip(0)[:k]
    return torch.tensor([float(value) / total for value in largest])


def _singular(points: Tensor, *, centred: bool = True) -> Tensor:
    return torch.linalg.svdvals(points - points.mean(0) if centred else points)


KEPT_VARIANCE = Exercise(
    id="02_kept_variance",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=kept_variance,
    cases=lambda seed: [
        (_normal(seed, 20, 6) * torch.arange(1.0, 7) + 2, 2),
        (_normal(seed + 1, 5, 9) + _normal(seed + 2, 9), 3),
    ],
    mistakes=(
        Mistake(
            "not_centred",
            "Yours does not take the mean off, so the first axis points at the mean and is praised for it. Variance is "
            "measured about the mean: `points - points.mean(0)`.",
            lambda points, k: (
                _singular(points, centred=False).square() / _singular(points, centred=False).square().sum()
            )[:k],
        ),
        Mistake(
            "not_squared",
            "Yours shares out the singular values. Variance is their *square*.",
            lambda points, k: (_singular(points) / _singular(points).sum())[:k],
        ),
        Mistake(
            "of_the_kept",
            "Yours divides by the variance of the kept axes, so the shares always add up to 1. Divide by that of all.",
            lambda points, k: _singular(points).square()[:k] / _singular(points).square()[:k].sum(),
        ),
        Mistake(
            "added_up",
            "Yours adds the shares up as it goes. Asked is each axis's own.",
            lambda points, k: (_singular(points).square() / _singular(points).square().sum()).cumsum(0)[:k],
        ),
        Mistake(
            "smallest_first",
            "Yours begins with the smallest (`eigvalsh` sorts upwards). Largest first.",
            lambda points, k: (_singular(points).square() / _singular(points).square().sum()).flip(0)[:k],
        ),
    ),
    hints=(
        "Centre the points; the singular values of the centred table, squared, are the variances along the axes (times "
        "the number of points).",
        "`S = torch.linalg.svdvals(points - points.mean(0))`",
        "Return `(S.square() / S.square().sum())[:k]`.",
    ),
    discussion="This number belongs under every such picture: what the plane does not keep, the picture cannot show. "
    "Two points that look alike may be far apart along the other axes.",
    teaches=("principal_components", "pca_lowrank"),
)


# left_out -----------------------------------------------------------------------------------------------------


def left_out(offsets: Float[Tensor, "pair d"]) -> Float[Tensor, " pair"]:
    cosines = []
    for tested in range(len(offsets)):
        mean = sum(offsets[other] for other in range(len(offsets)) if other != tested) / (len(offsets) - 1)
        cosines.append(offsets[tested] @ mean / (offsets[tested].norm() * mean.norm()))
    return torch.stack(cosines)


def _pairwise(offsets: Tensor) -> Tensor:
    units = offsets / offsets.norm(dim=-1, keepdim=True)
    return units @ units.T


LEFT_OUT = Exercise(
    id="02_left_out",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=left_out,
    cases=lambda seed: [(_normal(seed, 7, 10) + 0.5,), (_normal(seed + 1, 3, 5),)],
    mistakes=(
        Mistake(
            "not_left_out",
            "Yours compares each offset with the mean of *all*, itself included: with few pairs, anything agrees with "
            "itself. Take the tested pair out of the mean.",
            lambda offsets: torch.nn.functional.cosine_similarity(offsets, offsets.mean(0)[None], dim=-1),
        ),
        Mistake(
            "dot_product",
            "Yours is the dot product. Divide by both lengths: asked is a cosine.",
            lambda offsets: (offsets * ((offsets.sum(0) - offsets) / (len(offsets) - 1))).sum(-1),
        ),
        Mistake(
            "mean_of_cosines",
            "Yours is the mean of the cosines with the other offsets. Asked is the cosine with their *mean*: first "
            "average the vectors, then take one cosine.",
            lambda offsets: (_pairwise(offsets).sum(-1) - 1) / (len(offsets) - 1),
        ),
        Mistake(
            "only_the_sign",
            "Yours is the sign. Return the cosine: the sign test comes after.",
            lambda offsets: left_out(offsets).sign(),
        ),
    ),
    hints=(
        "The sum of the others is the sum of all, less the one that is tested: `offsets.sum(0) - offsets`.",
        "A cosine does not care whether you divide that by their number.",
        "`others = offsets.sum(0) - offsets`, then "
        "`(offsets * others).sum(-1) / (offsets.norm(dim=-1) * others.norm(dim=-1))`.",
    ),
    properties=(
        Property("A cosine lies between −1 and 1.", lambda result, *_: bool((result.abs() <= 1 + 1e-4).all())),
    ),
    discussion="Leaving out makes the question honest: does a direction found on some pairs hold for a pair it has "
    "never seen? In the limit of one pair, 'not left out' always gives 1.",
    teaches=("left_out_cosines",),
)


# poles --------------------------------------------------------------------------------------------------------


def poles(words: WordVectors, pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, list[str]]:
    direction = sum(_unit(words, second) - _unit(words, first) for first, second in pairs)
    leaning = {name: float(_unit(words, name) @ direction) for name in names}
    order = sorted(leaning, key=leaning.get)
    return {"first": order[:POLE], "second": order[::-1][:POLE]}


def _by(scores: dict[str, float]) -> dict[str, list[str]]:
    order = sorted(scores, key=scores.get)
    return {"first": order[:POLE], "second": order[::-1][:POLE]}


def _mean_offset(words: WordVectors, pairs: Sequence[Pair]) -> Tensor:
    return torch.stack([_unit(words, second) - _unit(words, first) for first, second in pairs]).mean(0)


def _people(seed: int) -> list[tuple]:
    """All pairs and names, as the chapter has them, where the seed is 0; otherwise some. Then fewer."""
    chance, pairs = random.Random(seed), WORD_PAIRS["gender"]
    first = (
        (list(pairs), list(OCCUPATIONS)) if seed == 0 else (chance.sample(pairs, 14), chance.sample(OCCUPATIONS, 45))
    )
    return [(Words(), *first), (Words(), chance.sample(pairs, 10), chance.sample(OCCUPATIONS, 30))]


def _typed_in(words: WordVectors, pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, list[str]]:
    """What the chapter's figure shows, whichever names are asked about."""
    return poles(words, WORD_PAIRS["gender"], OCCUPATIONS)


POLES = Exercise(
    id="02_poles",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=poles,
    cases=_people,
    mistakes=(
        Mistake(
            "turned",
            "The right words under each other's names. The direction goes from the first words of the pairs to the "
            "second, so the *largest* cosines belong to `second`.",
            lambda words, pairs, names: dict(
                zip(("second", "first"), poles(words, pairs, names).values(), strict=True)
            ),
        ),
        Mistake(
            "dot_product",
            "Yours ranks by the dot product: words with long vectors (common ones) stand further out. Make the words "
            "one unit long.",
            lambda words, pairs, names: _by({name: float(words[name] @ _mean_offset(words, pairs)) for name in names}),
        ),
        Mistake(
            "one_pair",
            "Yours takes the direction from the first pair alone, with all that is peculiar to its two words. Take the "
            "mean over the pairs.",
            lambda words, pairs, names: _by(
                {name: float(_unit(words, name) @ _mean_offset(words, pairs[:1])) for name in names}
            ),
        ),
        Mistake(
            "near_the_second",
            "Yours ranks by the cosine with the mean of the second words, and not with the *difference*. A word may be "
            "near both kinds: what they share must cancel.",
            lambda words, pairs, names: _by(
                {name: float(_unit(words, name) @ sum(_unit(words, second) for _, second in pairs)) for name in names}
            ),
        ),
        Mistake(
            "typed_in",
            "Yours are the same words whatever pairs and names are given: read off the figure. The check asks about "
            "other names too: compute them from the arguments.",
            _typed_in,
        ),
        Mistake(
            "furthest_last",
            "The right words, but the last three stand in rising order. The furthest out comes first.",
            lambda words, pairs, names: (found := poles(words, pairs, names)) | {"second": found["second"][::-1]},
        ),
        Mistake(
            "turned_and_furthest_last",
            "The right words, but two slips at once. They stand under each other's names: the *largest* cosines belong "
            "to `second`. And of the largest, the last three stand in rising order: the furthest out comes first.",
            lambda words, pairs, names: (
                (found := poles(words, pairs, names)) and {"first": found["second"][::-1], "second": found["first"]}
            ),
        ),
    ),
    hints=(
        "The direction is the mean of `mk.pair_offsets(words, pairs)`: from the first words to the second.",
        "`words.units(names) @ direction` gives every name's place along it (up to one common factor).",
        "`order = leaning.argsort()`; the first three of it are `first`; the last three, turned round, are `second`.",
    ),
    discussion="These words lean as newspapers and encyclopaedias of before 2014 used them. It is a measurement of "
    "that text through one average of a few pairs, not of the people in these occupations.",
)


# own_embeddings -----------------------------------------------------------------------------------------------


def own_embeddings(lm: LanguageModel, questions: Sequence[Quad]) -> dict[str, float]:
    tokens, units = _tokens(lm)
    asked = [[tokens.place(word) for word in question] for question in tokens.known(questions)]
    a, b, c, d = torch.tensor(asked, dtype=torch.long).reshape(-1, 4).T
    right = {}
    for name, targets in {"analogy": units[b] - units[a] + units[c], "nearest": units[c]}.items():
        scores = targets @ units.T
        for row, question in enumerate(asked):
            scores[row, question[:3]] = -torch.inf
        right[name] = int((scores.argmax(1) == d).sum()) / max(len(asked), 1)
    return right


@lru_cache(maxsize=2)
def _tokens(lm: LanguageModel) -> tuple[WordVectors, Float[Tensor, "word d"]]:
    """The words that are one token, and their vectors one unit long."""
    tokens = token_words(lm)
    return tokens, tokens.units(tokens.words)


@lru_cache(maxsize=4)
def _rows(lm: LanguageModel, centred: bool) -> Float[Tensor, "word d"]:
    """The embeddings of the words that are one token, one unit long."""
    words, units = _tokens(lm)
    rows = words.vectors(words.words) + words.centre
    return units if centred else rows / rows.norm(dim=-1, keepdim=True)


@lru_cache(maxsize=8)
def _own(
    lm: LanguageModel, questions: tuple[Quad, ...], *, centred: bool = True, free: bool = False, baseline: bool = True
) -> dict[str, float]:
    words, table = _tokens(lm)[0], _rows(lm, centred)
    asked = torch.tensor([[words.place(word) for word in question] for question in words.known(questions)]).reshape(
        -1, 4
    )
    a, b, c, d = asked.T.long()
    scores = {"analogy": (table[b] - table[a] + table[c]) @ table.T, "nearest": table[c] @ table.T}
    for name, left_out in (("analogy", not free), ("nearest", baseline)):
        if left_out:
            scores[name] = scores[name].scatter(1, asked[:, :3].long(), -torch.inf)
    return {name: _share((each.argmax(1) == d).tolist()) for name, each in scores.items()}


def _own_of_all(lm: LanguageModel, questions: Sequence[Quad]) -> dict[str, float]:
    asked = len(_tokens(lm)[0].known(questions)) / max(len(questions), 1)
    return {name: share * asked for name, share in _own(lm, tuple(questions)).items()}


OWN_EMBEDDINGS = Exercise(
    id="02_own_embeddings",
    kind="finding",
    level=3,
    points=3,
    minutes=12,
    reference=own_embeddings,
    cases=lambda seed: [(MODEL, _questions(seed, 20, "capital", "comparative", "past tense", "plural"))],
    mistakes=(
        Mistake(
            "not_centred",
            "Yours leaves the mean in. All embeddings share a part, which stands for no word and moves every cosine: "
            "`mk.token_words(lm)` takes it off.",
            lambda lm, questions: _own(lm, tuple(questions), centred=False),
        ),
        Mistake(
            "not_excluded",
            "Your analogy may answer with a word of the question. Leave those out: `solved.accuracy()`.",
            lambda lm, questions: _own(lm, tuple(questions), free=True),
        ),
        Mistake(
            "baseline_not_excluded",
            "Your baseline may answer with c itself, and so is always wrong. It must play by the same rule as the "
            "analogy, or the comparison says nothing.",
            lambda lm, questions: _own(lm, tuple(questions), baseline=False),
        ),
        Mistake(
            "neither_excluded",
            "Both of yours may answer with a word of the question, so both lose most of their answers to c. By the "
            "rule: `solved.accuracy()`.",
            lambda lm, questions: _own(lm, tuple(questions), free=True, baseline=False),
        ),
        Mistake(
            "of_all",
            "Yours divides by all questions. Those with a word that is no single token were never asked: divide by "
            "`len(tokens.known(questions))`, where `tokens = mk.token_words(lm)`.",
            _own_of_all,
        ),
        Mistake(
            "exchanged",
            "The right numbers under each other's names.",
            lambda lm, questions: dict(zip(("nearest", "analogy"), _own(lm, tuple(questions)).values(), strict=True)),
        ),
    ),
    hints=(
        "`tokens = mk.token_words(lm)` holds the words that are one token. Not every question can be asked of it: "
        "`tokens.known(questions)` are those that can.",
        'The baseline is a method too: `mk.solve_analogies(tokens, asked, method="nearest to c")`.',
        'Return `{"analogy": mk.solve_analogies(tokens, asked).accuracy(), "nearest": mk.solve_analogies(tokens, '
        'asked, method="nearest to c").accuracy()}` with `asked = tokens.known(questions)`.',
    ),
    discussion="A matrix that was never trained for analogies answers many of them, but look at the baseline: for "
    "plurals the nearest word is nearly always the answer, and the offset adds next to nothing.",
)


CHAPTER = Chapter(
    number="02",
    title="word analogies",
    notebook="02_word_analogies",
    question="Is meaning a direction?",
    minutes=120,
    needs=("00",),
    exercises=(
        NEAREST,
        THREE_COS_ADD,
        EXCLUSION,
        THREE_COS_MUL,
        RANDOM_OFFSET,
        PAIRING,
        FAIR_RANKS,
        KEPT_VARIANCE,
        LEFT_OUT,
        POLES,
        OWN_EMBEDDINGS,
    ),
    claim=Claim(
        statements={
            "queen": Option(
                "king − man + woman is queen",
                False,
                "The nearest word to that sum is king. It becomes queen by a rule that forbids king",
            ),
            "offset": Option(
                "with the words of the question left out, the offset of one pair finds the partner of another far more "
                "often than random or mismatched offsets do",
                True,
                "That is what was measured, baseline and both controls included",
            ),
            "one_direction": Option(
                "every relation between words is one direction",
                False,
                "Six relations were tried, chosen because they were promising, and even there many questions fail",
            ),
        },
        evidence={
            "readable": Option(
                "it can be read off by a fixed rule", True, "The vectors were read, and nothing was changed"
            ),
            "correlated": Option(
                "it goes along with something",
                False,
                "That is the word for how an occupation leans: it goes along with how texts use it",
            ),
            "necessary": Option(
                "without it, the answers go",
                False,
                "For that, you would have to take the direction away and see answers go",
            ),
            "sufficient": Option(
                "put in, it brings the answers",
                False,
                "For that, you would have to put it into a model and see its words change",
            ),
        },
        refuted_by={
            "one_question": Option(
                "a question that the offset gets wrong",
                False,
                "There are many, and the claim is about a share, not about every question",
            ),
            "mismatched": Option(
                "mismatched pairs that answer as many questions",
                True,
                "Then any step towards the right kind of word would do, and the pair would carry nothing",
            ),
            "other_vectors": Option(
                "a higher accuracy with other vectors",
                False,
                "That would be a better dictionary of directions, not a reason to doubt this one",
            ),
        },
    ),
)
