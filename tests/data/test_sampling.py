"""Sampling is seeded, leaves out what it says, and every opening has its slots filled."""

import random

import pytest
import torch

from mechkit.data.corpus import Passage
from mechkit.data.openings import OPENINGS, SLOTS
from mechkit.data.sampling import continuations, flaw, left_padded, opening, repetition, sample, statistics
from mechkit.network.loading import tiny_model


def test_there_are_many_varied_openings():
    openings = [text for texts in OPENINGS.values() for text in texts]
    assert len(set(openings)) == len(openings) >= 60
    assert len(OPENINGS) >= 12


@pytest.mark.parametrize("kind", OPENINGS)
def test_slots_are_filled(kind):
    rng = random.Random(0)
    for text in {opening(kind, rng) for _ in range(200)}:
        assert not any("{" + slot + "}" in text for slot in SLOTS)
        assert text


def test_repetition_tells_a_loop_from_fresh_text():
    assert repetition(list(range(50))) == 0
    assert repetition([1, 2, 3] * 20) > 0.9
    assert repetition([1]) == 0


@pytest.mark.parametrize(
    ("ids", "text", "reason"),
    [
        (range(10), "few words", "short"),
        ([7] * 100, "again", "loop"),
        (range(100), "what the Fuck", "coarse"),
        (range(100), "Sussex is a county; a shitake is a mushroom", "coarse"),
        (range(100), "Sussex is a county", None),
    ],
)
def test_what_is_left_out(ids, text, reason):
    assert flaw(list(ids), text) == reason


def test_padding_is_on_the_left_and_hidden():
    lm = tiny_model()
    ids, mask = left_padded(lm, ["a", "abc"])
    assert ids.shape == mask.shape == (2, 4)
    assert mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert torch.equal(ids[0, 2:], lm.tokens("a")[0])


def test_continuations_keep_their_opening_and_are_seeded():
    lm = tiny_model()
    state = torch.get_rng_state()
    texts = ["Once upon a time", "A"]
    written = continuations(lm, texts, seed=3)
    assert written == continuations(lm, texts, seed=3) != continuations(lm, texts, seed=4)
    assert all(whole.startswith(text) for whole, text in zip(written, texts, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sample_has_the_size_and_the_kinds_asked_for():
    lm = tiny_model(max_position_embeddings=1024)
    passages, rejected = sample(lm, 500, batch=len(OPENINGS))
    assert sum(lm.tokens(passage.text, prefix=None).shape[1] for passage in passages) >= 500
    assert {passage.kind for passage in passages} <= set(OPENINGS)
    assert set(rejected) <= {"short", "loop", "coarse"}


def test_statistics_measure_the_loss_after_the_prefix():
    lm = tiny_model()
    found = statistics(lm, [Passage("story", "abc"), Passage("story", "abcd")])
    ids = [lm.tokens(text) for text in ("abc", "abcd")]
    losses = [lm.hf(each, labels=each).loss.item() * (each.shape[1] - 1) for each in ids]
    assert found == {"tokens": 7, "passages": 2, "mean_loss": round(sum(losses) / 7, 3), "kinds": {"story": 2}}
