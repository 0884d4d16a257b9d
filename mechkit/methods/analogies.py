"""a : b :: c : which word? Analogies between word vectors, and the directions behind them.

The key move: an answer is a *ranking* of all words, the words of the question included. Leaving those out, as
nearly every published accuracy does, is then one visible step, `Solved.answers(exclude=True)`. The limit: an
accuracy says nothing without its baselines (the word nearest to c; an offset that points anywhere).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.methods.words import WordVectors

Question = tuple[str, str, str, str]
Scores = Float[Tensor, "question word"]
EPSILON = 1e-3  # Levy and Goldberg's, so that no answer is divided by zero
TOGETHER = 400_000  # scores computed at a time: tables under 2 MB, which the heap keeps and uses again
KEPT = 4  # the three words of the question may stand before the answer


def three_cos_add(a: Scores, b: Scores, c: Scores) -> Scores:
    """3CosAdd from every word's cosines with a, b and c: `cos(x, b) − cos(x, a) + cos(x, c)`.

    The ranking is that of the cosine with `b − a + c`, the three made one unit long.

    Source: Mikolov et al. (2013); named so by Levy and Goldberg (2014).
    Chapter: 02.
    """
    return b - a + c


def three_cos_mul(a: Scores, b: Scores, c: Scores) -> Scores:
    """3CosMul: `cos(x, b) · cos(x, c) / (cos(x, a) + 0.001)`, each cosine first moved to 0 … 1 by `(cos + 1) / 2`.

    No term can outvote the other two, since they are multiplied.

    Source: Levy and Goldberg (2014).
    Chapter: 02.
    """
    a, b, c = ((cosine + 1) / 2 for cosine in (a, b, c))
    return b * c / (a + EPSILON)


def nearest_to_c(a: Scores, b: Scores, c: Scores) -> Scores:
    """The baseline that does not look at a and b: `cos(x, c)`.

    Chapter: 02.
    """
    return c


METHODS: dict[str, Callable[[Scores, Scores, Scores], Scores]] = {
    "3CosAdd": three_cos_add,
    "3CosMul": three_cos_mul,
    "nearest to c": nearest_to_c,
}


@dataclass(frozen=True)
class Solved:
    """Questions with the best words for each.

    Args:
        questions: a, b, c, d as the vectors spell them.
        best: The four best words of each question, best first, its own words included.
        scores: Theirs.
    """

    questions: Sequence[Question]
    best: Sequence[Sequence[str]]
    scores: Float[Tensor, "question 4"]

    def answers(self, *, exclude: bool = True) -> list[str]:
        """The best word of each question; with `exclude`, the best that is not itself in the question."""
        pairs = zip(self.questions, self.best, strict=True)
        return [next(word for word in words if not exclude or word not in asked[:3]) for asked, words in pairs]

    def accuracy(self, *, exclude: bool = True) -> float:
        """The share of questions whose answer is d; 0 if there are none."""
        answers = self.answers(exclude=exclude)
        return sum(answer == d for answer, (*_, d) in zip(answers, self.questions, strict=True)) / max(len(answers), 1)


def solve_analogies(vectors: WordVectors, questions: Sequence[Question], *, method: str = "3CosAdd") -> Solved:
    """The best words for each question a : b :: c : d, by one of `METHODS`.

    Raises: ValueError for an unknown method; UnknownWord for a word without a vector.
    Chapter: 02.
    """
    if method not in METHODS:
        raise ValueError(f"wanted one of the methods {', '.join(METHODS)}; came {method!r}")
    asked = _spelled(vectors, questions)
    words = sorted({word for question in asked for word in question[:3]})
    row = {word: i for i, word in enumerate(words)}
    places = torch.tensor([[row[word] for word in question[:3]] for question in asked], dtype=torch.long).reshape(-1, 3)
    units = vectors.units(words)

    def score(part: slice) -> Scores:
        cosines = vectors.cosines(units, part)
        return METHODS[method](*(cosines[column] for column in places.T))

    return Solved(asked, *_best(vectors, score, len(asked)))


def solve_offsets(vectors: WordVectors, questions: Sequence[Question], offsets: Float[Tensor, "question d"]) -> Solved:
    """The best words for `c + offset`, c made one unit long: 3CosAdd with any offset in place of `b − a`.

    Chapter: 02.
    """
    asked = _spelled(vectors, questions)
    targets = vectors.units([c for _, _, c, _ in asked]) + offsets
    return Solved(asked, *_best(vectors, lambda part: vectors.cosines(targets, part), len(asked)))


def analogy(
    vectors: WordVectors, a: str, b: str, c: str, *, k: int = 8, method: str = "3CosAdd", exclude: bool = True
) -> list[tuple[str, float]]:
    """The `k` best answers to a : b :: c : ?, best first, with their scores.

    Raises: ValueError for a repeated word, an unknown method, or more words than there are; UnknownWord with the
        nearest spellings.
    Chapter: 02.
    """
    if method not in METHODS:
        raise ValueError(f"wanted one of the methods {', '.join(METHODS)}; came {method!r}")
    words = [vectors.spelled(word) for word in (a, b, c)]
    if len(set(words)) < 3:
        twice = next(word for word in words if words.count(word) > 1)
        raise ValueError(f"wanted three different words; {twice!r} stands there twice: an offset needs two, change one")
    left = len(vectors) - 3 * exclude
    if not 1 <= k <= left:
        raise ValueError(f"wanted k from 1 to {left}, the words there are; came {k}")
    scores = METHODS[method](*(row[None] for row in vectors.cosines(vectors.units(words))))[0]
    if exclude:
        scores[[vectors.place(word) for word in words]] = -torch.inf
    best = scores.topk(k)
    return [(vectors.words[i], score) for i, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def pair_offsets(vectors: WordVectors, pairs: Sequence[tuple[str, ...]]) -> Float[Tensor, "pair d"]:
    """`b − a` for each pair, both made one unit long. The first two words of a question are such a pair.

    Chapter: 02.
    """
    return vectors.units([pair[1] for pair in pairs]) - vectors.units([pair[0] for pair in pairs])


def random_offsets(offsets: Float[Tensor, "pair d"], *, seed: int) -> Float[Tensor, "pair d"]:
    """Offsets of the same lengths that point anywhere: the control for a claim about a direction.

    Chapter: 02.
    """
    noise = torch.randn(offsets.shape, generator=torch.Generator().manual_seed(seed))
    lengths = torch.linalg.vector_norm(offsets, dim=-1, keepdim=True)
    return noise / torch.linalg.vector_norm(noise, dim=-1, keepdim=True) * lengths


def left_out_cosines(offsets: Float[Tensor, "pair d"]) -> Float[Tensor, " pair"]:
    """The cosine of each offset with the mean of the *others*: does a direction hold for pairs it was not made of?

    Raises: ValueError for fewer than two offsets.
    Chapter: 02.
    """
    if len(offsets) < 2:
        raise ValueError(f"wanted at least two offsets, one to test on the others; came {len(offsets)}: add pairs")
    others = (offsets.sum(0) - offsets) / (len(offsets) - 1)
    return torch.nn.functional.cosine_similarity(offsets, others, dim=-1)


def principal_components(
    points: Float[Tensor, "point d"], k: int = 2
) -> tuple[Float[Tensor, "point k"], Float[Tensor, " k"]]:
    """The points in the plane (or space) that keeps most of their variance, and each axis's share of it.

    The points are centred first. An axis's sign means nothing; here its largest coordinate is positive.

    Raises: ValueError if there are fewer than `k` axes, or if all points are the same.
    Chapter: 02.
    """
    if not 1 <= k <= min(points.shape):
        raise ValueError(f"wanted k from 1 to {min(points.shape)} for points of shape {tuple(points.shape)}; came {k}")
    U, S, _ = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    if not S[0] > 0:
        raise ValueError("wanted points that differ; all are the same, so there is no direction of most variance")
    coordinates = (U * S)[:, :k]
    largest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    return coordinates * largest.sign(), (S.square() / S.square().sum())[:k]


def _spelled(vectors: WordVectors, questions: Sequence[Question]) -> list[Question]:
    return [tuple(vectors.spelled(word) for word in question) for question in questions]


def _best(
    vectors: WordVectors, score: Callable[[slice], Scores], count: int
) -> tuple[list[list[str]], Float[Tensor, "question 4"]]:
    """The four best words by a score, a block of words at a time."""
    values, places = torch.zeros(count, 0), torch.zeros(count, 0, dtype=torch.long)
    for part in vectors.blocks(max(TOGETHER // max(count, 1), KEPT)):
        found = score(part).topk(min(KEPT, part.stop - part.start))
        values = torch.cat([values, found.values], 1)
        places = torch.cat([places, found.indices + part.start], 1)
    best = values.topk(KEPT)
    return [[vectors.words[i] for i in row] for row in places.gather(1, best.indices).tolist()], best.values
