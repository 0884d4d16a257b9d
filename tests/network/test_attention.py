"""Watched attention is Hugging Face's attention, to the bit, and is gone afterwards."""

import subprocess
import sys

import pytest
import torch

from mechkit.network.attention import NAME, shared_attention
from mechkit.network.cache import run
from mechkit.network.hooks import read
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import tiny_model

PROMPTS = ["The capital of France is", "The country of Italy is"]
ATTENTION = ("q", "k", "v", "attn_scores", "pattern", "z")


def hf_logits(lm, implementation):
    lm.hf.set_attn_implementation(implementation)
    try:
        with torch.no_grad():
            return lm.hf(lm.tokens(PROMPTS)).logits
    finally:
        lm.hf.set_attn_implementation("eager")


def test_logits_are_those_of_eager_attention(tiny):
    logits, _ = run(tiny, PROMPTS)
    assert torch.equal(logits, hf_logits(tiny, "eager"))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gemma2"])
def test_logits_are_those_of_hugging_faces_default_attention(family, tiny_models):
    logits, _ = run(tiny_models[family], PROMPTS)
    assert torch.allclose(logits, hf_logits(tiny_models[family], "sdpa"), atol=2e-5)


def test_attention_that_copies_no_keys_gives_the_same_and_is_gone_afterwards(tiny):
    plain = hf_logits(tiny, "eager")
    with shared_attention(tiny.hf), torch.no_grad():
        assert torch.allclose(tiny.hf(tiny.tokens(PROMPTS)).logits, plain, atol=2e-5)
        step = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
        written = tiny.hf.generate(tiny.tokens(PROMPTS), **step)
    assert tiny.hf.config._attn_implementation == "eager"
    assert torch.equal(written, tiny.hf.generate(tiny.tokens(PROMPTS), **step))


def test_logits_do_not_depend_on_what_is_read(tiny):
    logits = [run(tiny, PROMPTS, sites)[0] for sites in (None, (), "resid_post", "pattern")]
    assert all(torch.equal(logits[0], each) for each in logits)


def test_the_steps_follow_from_one_another(tiny):
    _, cache = run(tiny, PROMPTS, ATTENTION)
    for layer in range(tiny.n_layers):
        pattern, v = cache["pattern", layer], cache["v", layer]
        v = v.repeat_interleave(tiny.n_heads // tiny.n_kv_heads, dim=2)
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-6)
        assert torch.allclose(cache["attn_scores", layer].softmax(-1), pattern, atol=1e-6)
        assert torch.allclose(torch.einsum("bhqk,bkhd->bqhd", pattern, v), cache["z", layer], atol=1e-5)
        assert torch.equal(pattern, pattern.tril())


def test_scores_are_scaled_products_of_queries_and_keys():
    lm = tiny_model("llama")
    _, cache = run(lm, PROMPTS, ["q", "k", "attn_scores"])
    k = cache["k", 1].repeat_interleave(lm.n_heads // lm.n_kv_heads, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", cache["q", 1], k) / lm.d_head**0.5
    assert torch.allclose(cache["attn_scores", 1].tril(), scores.tril(), atol=1e-5)


def test_gemma_bounds_its_scores():
    lm = tiny_model("gemma2")
    _, cache = run(lm, PROMPTS, ["attn_scores", "pattern"])
    scores = cache.stack("attn_scores")[cache.stack("pattern") > 0]
    cap = lm.hf.config.attn_logit_softcapping
    assert 0.9 * cap < scores.abs().max() <= cap


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_sliding_window_hides_what_is_further_back(family, tiny_models):
    lm = tiny_models[family]
    _, cache = run(lm, PROMPTS, "pattern")
    far = torch.ones(cache["pattern", 0].shape[-2:]).tril(-lm.hf.config.sliding_window).bool()
    assert far.any()
    assert (cache["pattern", 0][..., far] == 0).all()


def test_grouped_heads_share_keys_and_values():
    lm = tiny_model("llama")
    assert lm.n_kv_heads < lm.n_heads
    _, cache = run(lm, PROMPTS, ["q", "k"])
    assert cache["q", 0].shape[2] == lm.n_heads
    assert cache["k", 0].shape[2] == lm.n_kv_heads


def test_the_models_own_attention_is_back_after_an_exception(tiny):
    def interrupted():
        with read(tiny, "pattern"):
            assert tiny.hf.config._attn_implementation == NAME
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tiny.hf.config._attn_implementation == "eager"


def test_whatever_attention_was_set_is_put_back():
    lm = tiny_model("llama")
    lm.hf.set_attn_implementation("sdpa")
    run(lm, PROMPTS, "z")
    assert lm.hf.config._attn_implementation == "sdpa"


def test_sites_outside_attention_leave_it_alone():
    lm = tiny_model("llama")
    with read(lm, ["resid_post", "mlp_out"]):
        assert lm.hf.config._attn_implementation == "eager"


@pytest.mark.slow
def test_importing_registers_nothing():
    code = (
        "from transformers import AttentionInterface as A; import torch; "
        "import mechkit.network.cache, mechkit.methods.ablation; "
        f"print({NAME!r} in A(), torch.is_grad_enabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == "False True\n"
