"""The lens is exact where an identity says so, and a patchscope reads what it was given."""

import pytest
import torch

from mechkit.methods.lens import logit_lens, patchscope
from mechkit.network.cache import run
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import tiny_model

PROMPT = torch.tensor([[5, 9, 20, 31, 7]])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lens_at_the_last_layer_is_the_models_output(family):
    lm = tiny_model(family)
    logits, cache = run(lm, PROMPT, sites="resid_post")
    torch.testing.assert_close(logit_lens(cache.stack("resid_post"), lm)[-1], logits)


def test_the_lens_before_the_last_layer_is_not_the_models_output():
    lm = tiny_model()
    logits, cache = run(lm, PROMPT, sites="resid_post")
    assert (logit_lens(cache["resid_post", 0], lm) - logits).abs().max() > 0.1


def test_the_lens_says_which_width_it_wants():
    with pytest.raises(ValueError, match=r"wanted vectors of d_model = 32; came 16: pass resid_post itself"):
        logit_lens(torch.zeros(2, 16), tiny_model())


def test_a_patchscope_of_a_prompts_own_stream_changes_nothing():
    lm = tiny_model()
    logits, cache = run(lm, PROMPT, sites="resid_post")
    own = cache["resid_post", 1][0, -1]
    torch.testing.assert_close(patchscope(lm, own, PROMPT, layer=1), logits[0, -1])


def test_a_patchscope_at_the_last_layer_is_the_lens():
    lm = tiny_model()
    vector = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    last = patchscope(lm, vector, PROMPT, layer=lm.n_layers - 1)
    torch.testing.assert_close(last, logit_lens(vector, lm))


@pytest.mark.slow
def test_the_default_model_says_paris_through_our_cache_and_lens(default_model):
    _, cache = run(default_model, "The capital of France is", sites="resid_post")
    last = logit_lens(cache.stack("resid_post")[-1, 0, -1], default_model)
    assert default_model.labels([int(last.argmax())]) == [" Paris"]
