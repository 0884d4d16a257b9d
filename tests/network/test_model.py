"""Tokens with an explicit prefix, readable labels, and weights that are what the forward pass uses."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from mechkit.network.cache import run
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

PROMPTS = ["The capital of France is", "The country of Italy is"]


@pytest.fixture
def lm(tiny_models):
    return tiny_models["llama"]


@pytest.fixture
def sentencepiece(tiny_models):
    """A model whose tokenizer marks spaces in Llama 2's way and puts one before every text."""
    pieces = ["<unk>", "<s>", "▁", "<0x0A>", "<0xE2>", "▁Paris", "Paris", "P", "a", "r", "i", "s"]
    merges = [("P", "a"), ("Pa", "r"), ("Par", "i"), ("Pari", "s"), ("▁", "Paris")]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "Pa", "Par", "Pari"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")
    return LanguageModel(tiny_models["llama"].hf, fast, "spaced")


def test_the_sizes_are_those_of_the_model():
    lm = tiny_model("gemma2")
    sizes = (lm.n_layers, lm.n_heads, lm.n_kv_heads, lm.d_model, lm.d_head, lm.d_mlp, lm.d_vocab, lm.n_ctx)
    assert sizes == (3, 4, 2, 32, 12, 48, len(lm.tokenizer), 128)
    assert repr(lm).startswith("LanguageModel('tiny gemma2': 3 layers, 4 heads, 2 key/value heads")


def test_a_model_is_ready_to_be_read():
    lm = tiny_model("gpt2", attn_pdrop=0.5, resid_pdrop=0.5)
    assert not any(module.training for module in lm.hf.modules())
    assert not any(weight.requires_grad for weight in lm.hf.parameters())


# tokens -----------------------------------------------------------------------------------------------------


def test_the_prefix_is_put_in_front_and_can_be_left_out(lm):
    with_prefix, without = lm.tokens(PROMPTS[0]), lm.tokens(PROMPTS[0], prefix=None)
    assert lm.prefix == "<|endoftext|>"
    assert with_prefix[0, 0] == lm.token_id("<|endoftext|>")
    assert torch.equal(with_prefix[:, 1:], without)


def test_several_texts_make_a_batch(lm):
    ids = lm.tokens(PROMPTS)
    assert ids.shape[0] == 2
    assert lm.text(ids[1]) == "<|endoftext|>The country of Italy is"


def test_ids_pass_through_as_they_are(lm):
    ids = lm.tokens(PROMPTS)
    assert torch.equal(lm.tokens(ids), ids)
    assert torch.equal(lm.tokens(ids[0].int()), ids[:1])


def test_the_prefix_is_the_bos_token_where_there_is_no_end_of_text(sentencepiece):
    assert sentencepiece.prefix == "<s>"
    assert sentencepiece.tokens("Paris").tolist() == [[1, 5]]


def test_no_special_tokens_come_but_the_prefix(lm):
    assert lm.tokens("is", prefix=None).tolist() == [lm.tokenizer("is")["input_ids"]]


@pytest.mark.parametrize("prompt", ["", [], ["The", ""], torch.empty(0, dtype=torch.long)])
def test_an_empty_prompt_is_refused(prompt, lm):
    with pytest.raises(ValueError, match="came an empty prompt: write something"):
        lm.tokens(prompt)


def test_unequal_lengths_are_refused(lm):
    with pytest.raises(ValueError, match=r"equally many tokens; came \[1, 2\]: reword them, or run them one at a time"):
        lm.tokens([" of", " of of"])


def test_a_prompt_longer_than_the_context_is_refused(lm):
    assert lm.tokens(" of" * 127).shape == (1, 128)
    for prompt in (" of" * 128, torch.ones(1, 129, dtype=torch.long)):
        with pytest.raises(ValueError, match="at most 128 tokens, the context of tiny llama; came 129: shorten"):
            lm.tokens(prompt)


def test_a_prefix_that_is_no_token_is_refused(lm):
    for prefix in ("<bos>", "", " of"):
        with pytest.raises(ValueError, match=r"prefix that is one token of tiny llama; .* use '<\|endoftext\|>'"):
            lm.tokens("The", prefix=prefix)


def test_an_unknown_prefix_is_not_taken_for_the_unknown_token(sentencepiece):
    with pytest.raises(ValueError, match="came '<bos>': use '<s>', or None"):
        sentencepiece.tokens("Paris", prefix="<bos>")


def test_ids_that_are_no_ids_are_refused(lm):
    with pytest.raises(ValueError, match=r"whole numbers of shape .* came torch\.float32"):
        lm.tokens(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"came torch.int64 of shape \(1, 1, 1\)"):
        lm.tokens(torch.ones(1, 1, 1, dtype=torch.long))
    for wrong in (-1, lm.d_vocab):
        with pytest.raises(ValueError, match=f"wanted ids from 0 to {lm.d_vocab - 1}, .* came"):
            lm.tokens(torch.tensor([wrong, 0]))


# labels, text and single tokens -----------------------------------------------------------------------------


def test_labels_are_readable(lm):
    ids = lm.tokens(" Paris\nis", prefix="<|endoftext|>")[0]
    assert lm.labels(ids) == ["<|endoftext|>", " Paris", "⏎", "i", "s"]


def test_a_label_for_bytes_that_are_no_character(lm):
    ids = lm.tokens(" €", prefix=None)[0]
    assert lm.labels(ids) == [" ", "\\xe2", "\\x82", "\\xac"]
    assert lm.text(ids) == " €"


def test_every_token_of_the_vocabulary_has_a_label(lm):
    labels = lm.labels(range(lm.d_vocab))
    assert all(labels)
    assert len(set(labels)) == len(labels)


def test_an_id_beyond_the_tokenizer_has_a_label_too(lm):
    assert lm.labels([lm.d_vocab + 5]) == [f"<{lm.d_vocab + 5}>"]


def test_labels_keep_the_space_that_sentencepiece_drops(sentencepiece):
    assert sentencepiece.labels([1, 5, 6, 3, 4]) == ["<s>", " Paris", "Paris", "⏎", "<0xE2>"]


def test_one_token_has_an_id(lm, sentencepiece):
    assert lm.labels([lm.token_id(" Paris")]) == [" Paris"]
    assert sentencepiece.token_id(" Paris") == 5


@pytest.mark.parametrize("text", ["Paris", " parisian", ""])
def test_what_is_not_one_token_is_shown_in_pieces(text, lm):
    with pytest.raises(
        ValueError, match=r"wanted one token; came .*, which tiny llama reads as \d+: \[.*check its leading"
    ):
        lm.token_id(text)


# weights ----------------------------------------------------------------------------------------------------


def test_weights_are_views(tiny):
    storages = {weight.untyped_storage().data_ptr() for weight in tiny.hf.parameters()}
    matrices = [tiny.W_E, tiny.W_U, *(each(1) for each in (tiny.W_Q, tiny.W_K, tiny.W_V, tiny.W_O))]
    assert all(matrix.untyped_storage().data_ptr() in storages for matrix in matrices)
    assert tiny.W_E.shape == (tiny.d_vocab, tiny.d_model)
    assert tiny.W_Q(1).shape == (tiny.n_heads, tiny.d_model, tiny.d_head)
    assert tiny.W_K(1).shape == tiny.W_V(1).shape == (tiny.n_kv_heads, tiny.d_model, tiny.d_head)
    assert tiny.W_O(1).shape == (tiny.n_heads, tiny.d_head, tiny.d_model)


def attention_input(lm, layer):
    """What the q, k and v projections read, by a hook of our own."""
    seen = []
    module = lm.module(f"{lm.family.attention}.{lm.family.projections[0]}", layer)
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, cache = run(lm, PROMPTS)
    handle.remove()
    return seen[0], cache


def bias(lm, layer, which):
    """The q, k or v bias as (heads, d_head), by the layout that each family documents."""
    module = lm.module(f"{lm.family.attention}.{lm.family.projections[which]}", layer)
    if module.bias is None:
        return 0
    if lm.hf.config.model_type == "gpt2":
        return module.bias.reshape(3, lm.n_heads, lm.d_head)[which]
    if lm.hf.config.model_type == "gpt_neox":
        return module.bias.reshape(lm.n_heads, 3, lm.d_head)[:, which]
    return module.bias.reshape(-1, lm.d_head)


def test_the_value_matrix_makes_the_values(tiny):
    read, cache = attention_input(tiny, 1)
    made = torch.einsum("bpm,hmd->bphd", read, tiny.W_V(1)) + bias(tiny, 1, 2)
    assert torch.allclose(made, cache["v", 1], atol=1e-5)


def test_query_and_key_matrices_make_queries_and_keys():
    lm = tiny_model("gpt2")  # no rotation comes between
    read, cache = attention_input(lm, 1)
    for site, matrix, which in (("q", lm.W_Q(1), 0), ("k", lm.W_K(1), 1)):
        made = torch.einsum("bpm,hmd->bphd", read, matrix) + bias(lm, 1, which)
        assert torch.allclose(made, cache[site, 1], atol=1e-5)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "mistral", "qwen2", "gemma2"])
def test_query_and_key_matrices_make_them_up_to_the_rotation(family, tiny_models):
    """At position 0 nothing is rotated."""
    lm = tiny_models[family]
    read, cache = attention_input(lm, 1)
    for site, matrix, which in (("q", lm.W_Q(1), 0), ("k", lm.W_K(1), 1)):
        made = torch.einsum("bm,hmd->bhd", read[:, 0], matrix) + bias(lm, 1, which)
        assert torch.allclose(made, cache[site, 1][:, 0], atol=1e-5)


def test_unembed_multiplies_by_the_unembedding(tiny):
    normed = torch.randn(2, 3, tiny.d_model, generator=torch.Generator().manual_seed(0))
    cap = getattr(tiny.hf.config, "final_logit_softcapping", None)
    logits = normed @ tiny.W_U
    assert torch.allclose(tiny.unembed(normed), logits if cap is None else cap * (logits / cap).tanh(), atol=1e-5)


def test_embed_looks_up_the_embedding(tiny):
    _, cache = run(tiny, PROMPTS, "embed")
    scale = tiny.d_model**0.5 if tiny.hf.config.model_type == "gemma2" else 1
    assert torch.allclose(cache["embed"], scale * tiny.W_E[tiny.tokens(PROMPTS)], atol=1e-5)
