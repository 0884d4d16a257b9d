"""Tiny models: the same for the same seed, quick, and with nothing zero by accident."""

import time

import pytest
import torch

from mechkit.network.cache import run
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import WORDS, tiny_model

SECONDS = 0.2


def weights(lm):
    return dict(lm.hf.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_one_model(family):
    once, again, other = (weights(tiny_model(family, seed)) for seed in (0, 0, 1))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not any(torch.equal(once[name], other[name]) for name in once)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_made_in_no_time(family):
    def seconds():
        start = time.perf_counter()
        tiny_model(family)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) <= SECONDS


def test_torchs_own_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tiny_model("gpt2")
    assert torch.equal(torch.rand(1), expected)


def test_every_weight_is_random(tiny):
    for name, weight in weights(tiny).items():
        assert weight.std() > 0.05, name
        assert (weight != 0).all(), name


def test_attention_is_neither_even_nor_certain(tiny):
    _, cache = run(tiny, "The capital of France is", "pattern")
    last = cache.stack("pattern")[..., -1, :].max(-1).values
    assert 0.2 < last.mean() < 0.9


def test_words_are_single_tokens_and_any_text_is_readable(tiny):
    assert len({tiny.token_id(f" {word}") for word in WORDS}) == len(WORDS)
    for text in ("Zürich, 東京 🙂\n\ttab", " the the theatre", ""):
        ids = tiny.tokenizer(text)["input_ids"]
        assert tiny.text(ids) == text


def test_an_unknown_family_is_told_which_exist():
    with pytest.raises(ValueError, match="came one of type 'mamba': use one of gemma2, gpt2"):
        tiny_model("mamba")


def test_settings_reach_the_configuration():
    assert tiny_model("gpt_neox", layers=1, use_parallel_residual=False).hf.config.use_parallel_residual is False
    assert tiny_model(layers=1).n_layers == 1
