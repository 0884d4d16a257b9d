"""A quiz asks about unseen places, half of them on, and says nothing by its order."""

import pytest
import torch

from mechkit.methods.sae_activations import Activations
from mechkit.methods.sae_quiz import feature_quiz


def text(passages=6, length=30, on=((3, 10), (1, 20), (4, 5))):
    """Tokens that count up, and a feature that is on at these places, (passage, position)."""
    rows = passages * length
    passage, position = torch.arange(rows) // length, torch.arange(rows) % length
    acts = Activations(torch.zeros(rows, 2), torch.zeros(rows, 2), torch.arange(rows), passage, position, 0)
    hidden = torch.zeros(rows, 2)
    for each in on:
        hidden[each[0] * length + each[1], 1] = 1.0
    return hidden, acts


def test_half_of_the_pieces_have_the_feature_on_in_their_middle_and_the_others_nowhere():
    hidden, acts = text()
    quiz = feature_quiz(hidden, acts, 1, n=5, width=4)
    assert quiz.truth.sum() == 3
    assert len(quiz.pieces) == 6
    places = set((hidden[:, 1] > 0).nonzero()[:, 0].tolist())
    for piece, at, is_on in zip(quiz.pieces, quiz.asked, quiz.truth.tolist(), strict=True):
        assert bool(places & set(piece.tolist())) == is_on
        assert len(set((piece // 30).tolist())) == 1  # never over the end of a passage
        assert (int(piece[at]) in places) == is_on
        assert at == 4 or len(piece) < 9


def test_the_token_asked_about_is_found_where_a_passage_begins():
    hidden, acts = text(on=((2, 1), (4, 28)))
    quiz = feature_quiz(hidden, acts, 1, width=4)
    on = {int(p[at]): at for p, at, yes in zip(quiz.pieces, quiz.asked, quiz.truth.tolist(), strict=True) if yes}
    assert on == {61: 1, 148: 4}


def test_pieces_are_of_different_passages_as_far_as_there_are_enough():
    hidden, acts = text(on=((0, 3), (0, 9), (0, 15), (2, 3)))
    quiz = feature_quiz(hidden, acts, 1, n=2, width=2)
    on = [int(piece[0]) // 30 for piece, is_on in zip(quiz.pieces, quiz.truth.tolist(), strict=True) if is_on]
    assert sorted(on) == [0, 2]


def test_the_same_seed_gives_the_same_quiz_and_another_another_order():
    hidden, acts = text()
    one, again, other = (feature_quiz(hidden, acts, 1, seed=seed) for seed in (0, 0, 5))
    assert all(a.equal(b) for a, b in zip(one.pieces, again.pieces, strict=True))
    assert [piece.tolist() for piece in one.pieces] != [piece.tolist() for piece in other.pieces]


def test_a_guess_by_numbers_is_a_guess_about_all():
    hidden, acts = text()
    quiz = feature_quiz(hidden, acts, 1)
    assert quiz.said([0, 5]).tolist() == [True, False, False, False, False, True]
    assert not quiz.said([]).any()


def test_a_feature_that_is_nowhere_on_cannot_be_asked_about():
    hidden, acts = text()
    with pytest.raises(ValueError, match="feature 0 is off everywhere in these 180 tokens: choose another feature"):
        feature_quiz(hidden, acts, 0)
    with pytest.raises(ValueError, match="feature 0 is on everywhere"):
        feature_quiz(hidden + 1, acts, 0)
