"""Pairs: enough of them, well formed, each word known to GloVe."""

import pytest

from mechkit.data.words import OCCUPATIONS, WORD_PAIRS, analogy_questions
from mechkit.methods.words import load_words

LEAST = {"capital": 40, "nationality": 25, "past tense": 30, "comparative": 30, "plural": 30, "gender": 20}


def test_there_are_enough_pairs_and_none_twice():
    assert WORD_PAIRS.keys() == LEAST.keys()
    for kind, pairs in WORD_PAIRS.items():
        assert len(pairs) >= LEAST[kind]
        firsts, seconds = zip(*pairs, strict=True)
        assert len(set(firsts)) == len(set(seconds)) == len(pairs)
        assert not set(firsts) & set(seconds)
    assert len(set(OCCUPATIONS)) == len(OCCUPATIONS) >= 60


def test_glove_knows_every_word():
    glove = load_words()
    unknown = [word for pairs in WORD_PAIRS.values() for pair in pairs for word in pair if word not in glove]
    assert unknown == []
    assert [word for word in OCCUPATIONS if word not in glove] == []


def test_questions_join_two_pairs_of_one_relation():
    pairs = WORD_PAIRS["gender"]
    questions = analogy_questions(pairs, 50, seed=1)
    assert len(set(questions)) == 50
    for a, b, c, d in questions:
        assert (a, b) in pairs
        assert (c, d) in pairs
        assert len({a, b, c, d}) == 4
    assert questions == analogy_questions(pairs, 50, seed=1)
    assert questions != analogy_questions(pairs, 50, seed=2)


def test_a_few_pairs_give_all_the_questions_there_are():
    assert set(analogy_questions([("a", "b"), ("c", "d")], 9)) == {("a", "b", "c", "d"), ("c", "d", "a", "b")}
    with pytest.raises(ValueError, match="wanted at least two pairs, since a question needs two; came 1"):
        analogy_questions([("a", "b")], 9)
