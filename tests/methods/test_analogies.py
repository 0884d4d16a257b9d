"""Analogies against plain loops over the words, and principal components against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from mechkit.data.words import WORD_PAIRS, analogy_questions
from mechkit.methods import analogies
from mechkit.methods.analogies import (
    METHODS,
    Solved,
    analogy,
    left_out_cosines,
    pair_offsets,
    principal_components,
    random_offsets,
    solve_analogies,
    solve_offsets,
)
from mechkit.methods.words import UnknownWord, WordVectors, load_words

WORDS = [f"w{i}" for i in range(40)]
QUESTIONS = [("w0", "w1", "w2", "w3"), ("w5", "w7", "w11", "w13"), ("w3", "w2", "w1", "w0")]


@pytest.fixture
def vectors():
    return WordVectors(WORDS, torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), name="forty")


def cosine(x, y):
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def by_loop(vectors, question, method):
    """Words by score, best first, one word at a time."""
    a, b, c = (vectors[word].double().numpy() for word in question[:3])
    scores = {}
    for word in vectors.words:
        x = vectors[word].double().numpy()
        to_a, to_b, to_c = (cosine(x, y) for y in (a, b, c))
        if method == "3CosAdd":
            scores[word] = to_b - to_a + to_c
        elif method == "3CosMul":
            scores[word] = ((to_b + 1) / 2) * ((to_c + 1) / 2) / ((to_a + 1) / 2 + 0.001)
        else:
            scores[word] = to_c
    return sorted(scores.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_best_words_are_those_of_a_plain_loop(vectors, method, monkeypatch):
    monkeypatch.setattr(analogies, "TOGETHER", 21)  # blocks of seven words, the last a short one
    solved = solve_analogies(vectors, QUESTIONS, method=method)
    for question, best, scores in zip(QUESTIONS, solved.best, solved.scores.tolist(), strict=True):
        slow = by_loop(vectors, question, method)[:4]
        assert best == [word for word, _ in slow]
        assert scores == pytest.approx([score for _, score in slow], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("exclude", [True, False])
def test_one_question_agrees_with_the_loop_too(vectors, method, exclude):
    slow = [
        (word, score)
        for word, score in by_loop(vectors, QUESTIONS[0], method)
        if not exclude or word not in QUESTIONS[0][:3]
    ]
    found = analogy(vectors, *QUESTIONS[0][:3], k=5, method=method, exclude=exclude)
    assert [word for word, _ in found] == [word for word, _ in slow[:5]]
    assert [score for _, score in found] == pytest.approx([score for _, score in slow[:5]], rel=1e-4)


def test_the_famous_analogy_needs_the_exclusion():
    glove = load_words()
    assert analogy(glove, "man", "king", "woman", k=1)[0][0] == "queen"
    assert analogy(glove, "man", "king", "woman", k=2, exclude=False)[0][0] == "king"
    raw = glove.nearest(glove["king"] - glove["man"] + glove["woman"], 3)
    assert [word for word, _ in raw] == ["king", "queen", "daughter"]
    assert [value for _, value in raw] == pytest.approx([0.886, 0.861, 0.768], abs=1e-3)


def test_answers_leave_out_the_words_of_the_question_and_nothing_else():
    question = ("a", "b", "c", "d")
    solved = Solved([question, question], [["c", "b", "a", "d"], ["e", "c", "d", "b"]], torch.zeros(2, 4))
    assert solved.answers() == ["d", "e"]
    assert solved.answers(exclude=False) == ["c", "e"]
    assert (solved.accuracy(), solved.accuracy(exclude=False)) == (0.5, 0.0)
    assert Solved([], [], torch.zeros(0, 4)).accuracy() == 0.0


def test_questions_are_spelled_as_the_vectors_spell_them():
    solved = solve_analogies(load_words(20_000), [("France", "Paris", "Italy", "Rome")])
    assert solved.questions == [("france", "paris", "italy", "rome")]
    assert solved.answers() == ["rome"]


def test_the_true_offset_is_the_same_as_3cosadd(vectors):
    add, offset = (
        solve_analogies(vectors, QUESTIONS),
        solve_offsets(vectors, QUESTIONS, pair_offsets(vectors, QUESTIONS)),
    )
    assert offset.best == add.best


def test_exclusion_and_a_random_offset_on_glove():
    glove = load_words(50_000)
    questions = analogy_questions(WORD_PAIRS["capital"], 60, seed=3)
    solved = solve_analogies(glove, questions)
    control = solve_offsets(glove, questions, random_offsets(pair_offsets(glove, questions), seed=0))
    assert solved.accuracy() >= solved.accuracy(exclude=False)
    assert solved.accuracy() > control.accuracy() + 0.4


def test_no_questions_have_no_answers(vectors):
    assert solve_analogies(vectors, []).best == []


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (("w1", "w1", "w2"), {}, "wanted three different words; 'w1' stands there twice"),
        (("w1", "w2", "w1"), {}, "wanted three different words; 'w1' stands there twice"),
        (
            ("w1", "W2", "w3"),
            {"method": "4Cos"},
            "wanted one of the methods 3CosAdd, 3CosMul, nearest to c; came '4Cos'",
        ),
        (("w1", "w2", "w3"), {"k": 38}, "wanted k from 1 to 37, the words there are; came 38"),
        (("w1", "w2", "w3"), {"k": 41, "exclude": False}, "wanted k from 1 to 40"),
    ],
)
def test_a_question_that_cannot_be_asked_is_told(vectors, arguments, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        analogy(vectors, *arguments, **settings)


def test_unknown_words_and_methods_are_told_for_many_questions_too(vectors):
    with pytest.raises(UnknownWord, match="came 'w99'"):
        solve_analogies(vectors, [("w1", "w2", "w3", "w99")])
    with pytest.raises(ValueError, match="wanted one of the methods"):
        solve_analogies(vectors, QUESTIONS, method="add")
    with pytest.raises(ValueError, match="a vector of zero length"):
        solve_offsets(vectors, QUESTIONS, -vectors.units([c for _, _, c, _ in QUESTIONS]))


def test_random_offsets_have_the_lengths_and_not_the_directions(vectors):
    offsets = pair_offsets(vectors, [("w1", "w2"), ("w3", "w4")])
    noise = random_offsets(offsets, seed=0)
    assert torch.allclose(noise.norm(dim=-1), offsets.norm(dim=-1))
    assert torch.equal(noise, random_offsets(offsets, seed=0))
    assert not torch.equal(noise, random_offsets(offsets, seed=1))
    many = random_offsets(torch.ones(200, 300), seed=0)
    assert torch.nn.functional.cosine_similarity(many, torch.ones(200, 300)).abs().mean() < 0.1


def test_a_left_out_cosine_is_that_with_the_mean_of_the_others():
    offsets = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for i, found in enumerate(left_out_cosines(offsets).tolist()):
        others = np.delete(offsets.numpy(), i, axis=0).mean(0)
        assert found == pytest.approx(cosine(offsets[i].numpy(), others), abs=1e-5)
    with pytest.raises(ValueError, match="wanted at least two offsets, one to test on the others; came 1"):
        left_out_cosines(offsets[:1])


def test_principal_components_are_those_of_scikit_learn():
    points = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 9) + 5
    found, shares = principal_components(points, 3)
    oracle = PCA(3).fit(points.numpy())
    expected = oracle.transform(points.numpy())
    assert shares.tolist() == pytest.approx(oracle.explained_variance_ratio_, rel=1e-4)
    for axis in range(3):
        sign = np.sign(expected[np.abs(expected[:, axis]).argmax(), axis])
        assert np.allclose(found[:, axis].numpy(), sign * expected[:, axis], atol=1e-3)


def test_components_that_cannot_be_are_told():
    with pytest.raises(ValueError, match=r"wanted k from 1 to 2 for points of shape \(2, 5\); came 3"):
        principal_components(torch.randn(2, 5), 3)
    with pytest.raises(ValueError, match="wanted points that differ; all are the same"):
        principal_components(torch.ones(4, 5))
