"""What a cache holds adds up to what the model did."""

import pytest
import torch

from mechkit.network.cache import Cache, run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model

PROMPTS = ["The capital of France is", "The country of Italy is"]


@pytest.fixture
def lm(tiny_models):
    return tiny_models["llama"]


def test_everything_is_there_by_default(tiny):
    logits, cache = run(tiny, PROMPTS)
    assert len(cache) == (len(tiny.sites) - 2) * tiny.n_layers + 2
    assert torch.equal(cache["logits"], logits)


def test_the_stream_is_a_sum_of_writes(tiny):
    _, cache = run(tiny, PROMPTS)
    for layer in range(tiny.n_layers):
        before, after = cache["resid_pre", layer], cache["resid_post", layer]
        attention, mlp = cache["attn_out", layer], cache["mlp_out", layer]
        assert torch.allclose(before + attention + mlp, after, atol=1e-5)
        if "resid_mid" in tiny.sites:
            assert torch.equal(before + attention, cache["resid_mid", layer])
            assert torch.equal(cache["resid_mid", layer] + mlp, after)
        if layer + 1 < tiny.n_layers:
            assert torch.equal(after, cache["resid_pre", layer + 1])


def test_heads_and_bias_are_what_attention_adds(tiny):
    _, cache = run(tiny, PROMPTS)
    for layer in range(tiny.n_layers):
        written = torch.einsum("bphd,hdm->bpm", cache["z", layer], tiny.W_O(layer)) + tiny.b_O(layer)
        norm = tiny.post_attention_norm(layer)  # Gemma 2 norms the sum before it is added
        added = written if norm is None else norm(written)
        assert torch.allclose(added, cache["attn_out", layer], atol=1e-5)


def test_final_norm_and_unembedding_give_the_logits(tiny):
    logits, cache = run(tiny, PROMPTS)
    last = cache["resid_post", tiny.n_layers - 1]
    assert torch.equal(tiny.unembed(tiny.final_norm(last)), logits)


def test_the_stream_begins_with_the_embedding(tiny):
    _, cache = run(tiny, PROMPTS)
    stream = cache["resid_pre", 0]
    if tiny.hf.config.model_type == "gpt2":
        stream = stream - tiny.hf.transformer.wpe.weight[: stream.shape[1]]
    assert torch.allclose(cache["embed"], stream, atol=1e-6)


def test_a_prompt_is_whatever_tokens_takes(lm):
    ids = lm.tokens(PROMPTS[0])
    logits = [run(lm, prompt, ())[0] for prompt in (PROMPTS[0], [PROMPTS[0]], ids, ids[0])]
    assert all(torch.equal(logits[0], each) for each in logits)


def test_one_site_and_one_layer_may_be_asked_for(lm):
    _, cache = run(lm, PROMPTS, "mlp_post", 1)
    assert list(cache) == [("mlp_post", 1)]
    assert ("mlp_post", 1) in cache
    assert ("mlp_post", 0) not in cache


def test_stack_puts_the_layers_in_order(lm):
    _, cache = run(lm, PROMPTS, "resid_post", [2, 0])
    stacked = cache.stack("resid_post")
    assert torch.equal(stacked[0], cache["resid_post", 0])
    assert torch.equal(stacked[1], cache["resid_post", 2])


def test_a_missing_key_is_told_what_is_there(lm):
    _, cache = run(lm, PROMPTS, ["embed", "z"])
    with pytest.raises(KeyError, match="came 'resid_post': it holds 'embed', \\('z', 0 to 2\\)"):
        cache["resid_post"]
    with pytest.raises(KeyError, match="came 'embed': the cache holds"):
        cache.stack("embed")
    assert "nothing" in repr(Cache({}))


def test_an_unknown_site_or_layer_is_told_which_exist(lm):
    with pytest.raises(ValueError, match="came 'resid': use one of embed, resid_pre, q, k, v"):
        run(lm, PROMPTS, "resid")
    for layer in (3, -1):
        with pytest.raises(ValueError, match=f"wanted a layer of tiny llama, 0 to 2; came {layer}"):
            run(lm, PROMPTS, "z", layer)


def test_a_parallel_model_has_no_resid_mid(tiny_models):
    with pytest.raises(ValueError, match="runs attention and MLP in parallel, so it has no resid_mid; use resid_pre"):
        run(tiny_models["gpt_neox"], PROMPTS, "resid_mid")


def test_a_sequential_pythia_has_resid_mid():
    lm = tiny_model("gpt_neox", use_parallel_residual=False)
    _, cache = run(lm, PROMPTS)
    assert torch.equal(cache["resid_pre", 1] + cache["attn_out", 1], cache["resid_mid", 1])
    assert torch.equal(cache["resid_mid", 1] + cache["mlp_out", 1], cache["resid_post", 1])


def test_running_leaves_gradients_as_they_were_and_makes_none(lm):
    assert torch.is_grad_enabled()
    logits, cache = run(lm, PROMPTS)
    assert torch.is_grad_enabled()
    assert not logits.requires_grad
    assert not cache["z", 0].requires_grad


def test_a_cache_inside_an_edit_holds_the_edited_values(lm):
    with edit(lm, Edit("mlp_out", 1, torch.zeros_like)):
        _, cache = run(lm, PROMPTS)
    assert (cache["mlp_out", 1] == 0).all()
    assert torch.equal(cache["resid_mid", 1], cache["resid_post", 1])
