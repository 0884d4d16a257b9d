"""The tables say what is true of the models, in our words and in TransformerLens' names."""

import warnings

import pytest
import torch

from mechkit.network.cache import run
from mechkit.network.sites import (
    ATTENTION_SITES,
    AXES,
    FAMILIES,
    SITES,
    TRANSFORMER_LENS,
    WITHOUT_LAYER,
    family_of,
    site_table,
    transformer_lens_name,
)

PROMPT = "The capital of France is"


def test_every_site_has_axes_a_place_and_a_name_elsewhere():
    assert set(SITES) == set(AXES) == set(TRANSFORMER_LENS)
    for family in FAMILIES.values():
        assert set(family.places) | set(ATTENTION_SITES) == set(SITES)


def test_every_place_exists(tiny):
    layers = range(tiny.n_layers)
    for site, place in tiny.family.places.items():
        assert all(tiny.module(place.path, None if site in WITHOUT_LAYER else layer) is not None for layer in layers)
    assert all(tiny.module(tiny.family.attention, layer) is not None for layer in layers)


def test_values_have_the_axes_that_the_table_names(tiny):
    ids = tiny.tokens([PROMPT, "The country of Italy is"])
    sizes = {
        "batch": 2,
        "pos": ids.shape[1],
        "query": ids.shape[1],
        "key": ids.shape[1],
        "head": tiny.n_heads,
        "kv_head": tiny.n_kv_heads,
    } | {name: getattr(tiny, name) for name in ("d_model", "d_head", "d_mlp", "d_vocab")}
    _, cache = run(tiny, ids)
    for key in cache:
        site = key if isinstance(key, str) else key[0]
        assert cache[key].shape == tuple(sizes[axis] for axis in AXES[site].split()), key


def test_an_unknown_family_is_told_which_exist():
    with pytest.raises(ValueError, match="'bert': use one of gemma2, gpt2, gpt_neox, llama, mistral, qwen2, qwen3"):
        family_of("bert")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_printed_table_has_every_site_beside_its_name_elsewhere(family):
    rows = [line.split() for line in site_table(family).splitlines()[1:]]
    assert [row[0] for row in rows] == list(SITES)
    assert [row[-1] for row in rows] == [transformer_lens_name(site, FAMILIES[family]) for site in SITES]


# TransformerLens takes seconds to import, so only the slow tests below do.


def settings(lm):
    """What its own code needs to know to build the same model."""
    config = lm.hf.config
    common = {
        "n_layers": lm.n_layers,
        "n_heads": lm.n_heads,
        "d_model": lm.d_model,
        "d_head": lm.d_head,
        "d_mlp": lm.d_mlp,
        "d_vocab": lm.d_vocab,
        "n_ctx": lm.n_ctx,
        "device": "cpu",
        "init_weights": False,
    }
    rotary = {"positional_embedding_type": "rotary", "rotary_adjacent_pairs": False}
    own = {
        "gpt2": lambda: {"act_fn": "gelu_new", "normalization_type": "LN", "eps": config.layer_norm_epsilon},
        "gpt_neox": lambda: {
            "act_fn": "gelu",
            "normalization_type": "LN",
            "eps": config.layer_norm_eps,
            "rotary_dim": int(lm.d_head * config.rope_parameters["partial_rotary_factor"]),
            "parallel_attn_mlp": True,
            **rotary,
        },
        "llama": lambda: {
            "act_fn": "silu",
            "normalization_type": "RMS",
            "final_rms": True,
            "gated_mlp": True,
            "eps": config.rms_norm_eps,
            "rotary_dim": lm.d_head,
            "rotary_base": int(config.rope_parameters["rope_theta"]),
            "n_key_value_heads": lm.n_kv_heads,
            **rotary,
        },
    }
    return common | own[config.model_type]()


def hooked_transformer(lm):
    """The same model in TransformerLens' own code, which shares nothing with Hugging Face's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
        from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
        from transformer_lens.pretrained.weight_conversions.neox import convert_neox_weights

        convert = {"gpt2": convert_gpt2_weights, "gpt_neox": convert_neox_weights, "llama": convert_llama_weights}
        config = HookedTransformerConfig(**settings(lm))
        model = HookedTransformer(config)
        missing, unexpected = model.load_state_dict(convert[lm.hf.config.model_type](lm.hf, config), strict=False)
    assert not unexpected
    # what it makes itself, and a bias that GPT-2 lacks
    assert {name.rpartition(".")[2] for name in missing} <= {"mask", "IGNORE", "rotary_sin", "rotary_cos", "b_U"}
    return model.eval()


def bridge(lm, folder):
    """The same model as TransformerLens 3 wraps it."""
    lm.hf.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(str(folder))


def their_name(site, lm, layer):
    return transformer_lens_name(site, lm.family).format(layer=layer)


def assert_same(lm, cache, theirs, sites):
    for site in sites:
        for layer in [None] if site in WITHOUT_LAYER else range(lm.n_layers):
            ours, other = cache[site if layer is None else (site, layer)], theirs[their_name(site, lm, layer)]
            if site == "attn_scores":  # they mask with minus infinity
                ours, other = ours.tril(), other.tril()
            assert torch.allclose(ours, other, atol=2e-5), (site, layer)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_activations_are_those_of_transformer_lens(family, tiny_models):
    lm = tiny_models[family]
    logits, cache = run(lm, PROMPT)
    with torch.no_grad():
        their_logits, theirs = hooked_transformer(lm).run_with_cache(lm.tokens(PROMPT))
    torch.testing.assert_close(logits, their_logits, atol=2e-5, rtol=1e-5)
    assert_same(lm, cache, theirs, [site for site in lm.sites if site != "mlp_in"])  # it has no such hook


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_activations_are_those_of_transformer_lens_bridge(family, tiny_models, tmp_path):
    lm = tiny_models[family]
    _, cache = run(lm, PROMPT)
    with torch.no_grad():
        _, theirs = bridge(lm, tmp_path).run_with_cache(lm.tokens(PROMPT))
    lacking = {"q", "k"} if family == "gpt_neox" else set()  # after the rotation, the bridge hooks Llama only
    assert_same(lm, cache, theirs, [site for site in lm.sites if site not in lacking])
