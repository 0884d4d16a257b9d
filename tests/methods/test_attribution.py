"""Shares add up to the logit, in every family, and a head's share is what its absence takes away."""

import pytest
import torch

from mechkit.methods.attribution import direct_logit_attribution, written_logits
from mechkit.network.cache import run
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import tiny_model

PROMPTS = [torch.tensor([[5, 9, 20, 31, 7]]), torch.tensor([[8, 3, 11]])]


def uncapped(lm, logits):
    cap = getattr(lm.hf.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.atanh(logits / cap) * cap


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_sum_to_the_logit_and_to_the_difference(family):
    lm = tiny_model(family)
    last = torch.stack([uncapped(lm, run(lm, prompt, sites=())[0][0, -1]) for prompt in PROMPTS])
    one = direct_logit_attribution(lm, PROMPTS, [4, 6])
    torch.testing.assert_close(one.total, last[[0, 1], [4, 6]], atol=1e-4, rtol=1e-4)
    two = direct_logit_attribution(lm, PROMPTS, [4, 6], [9, 2])
    torch.testing.assert_close(two.total, last[[0, 1], [4, 6]] - last[[0, 1], [9, 2]], atol=1e-4, rtol=1e-4)


def test_named_parts_add_up_to_the_mean_total():
    shares = direct_logit_attribution(tiny_model(), PROMPTS, [4, 6])
    assert sum(shares.named().values()) == pytest.approx(float(shares.total.mean()), abs=1e-4)


def test_a_last_layer_head_is_worth_what_scaling_its_write_adds():
    # with the scale frozen a share is linear in the write, so it is the slope of the logit along it, scale corrected
    lm = tiny_model()
    share = direct_logit_attribution(lm, PROMPTS[:1], [4]).heads[-1, 2, 0]
    _, cache = run(lm, PROMPTS[0], sites=("z", "resid_post"))
    write = cache["z", lm.n_layers - 1][0, -1, 2] @ lm.W_O(lm.n_layers - 1)[2]
    final = cache["resid_post", lm.n_layers - 1][0, -1]
    scale = (final.square().mean() + lm.final_norm.variance_epsilon).sqrt()
    torch.testing.assert_close(share, (write / scale * lm.final_norm.weight) @ lm.W_U[:, 4])


def test_one_token_for_each_prompt_is_asked_for():
    with pytest.raises(ValueError, match="wanted one token for each of 2 prompts; came 1"):
        direct_logit_attribution(tiny_model(), PROMPTS, [4])


@pytest.mark.slow
def test_shares_sum_to_the_logit_of_the_default_model(default_model):
    paris = default_model.token_id(" Paris")
    prompt = "The capital of France is"
    shares = direct_logit_attribution(default_model, [prompt], [paris])
    logit = run(default_model, prompt, sites=())[0][0, -1, paris]
    assert float(shares.total) == pytest.approx(float(logit), abs=1e-4)


def test_what_one_head_writes_towards_tokens_is_its_share_of_each_logit(tiny):
    prompts = ["The capital of France is", "The capital of Spain is"]
    tokens = [tiny.token_id(" Paris"), tiny.token_id(" Rome"), 5]
    found = written_logits(tiny, prompts, (1, 2), tokens)
    for column, token in enumerate(tokens):
        expected = direct_logit_attribution(tiny, prompts, [token] * 2).heads[1, 2]
        assert torch.allclose(found[:, column], expected, atol=1e-4)
