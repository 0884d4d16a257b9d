"""What each activation is called, and where each architecture keeps it.

A *site* is a place in the forward pass where a tensor can be read or edited. An architecture is one row of
`FAMILIES`: paths into the Hugging Face model, with `{layer}` where the layer number goes. Support for a new
architecture is a new row. The limit: one row describes one wiring, so a model that wires its blocks
differently from the rows below is refused, never guessed at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# `head` counts query heads, `kv_head` key/value heads. q and k are as they enter the scores; the scores as they enter
# the softmax, so those of tokens that may not be seen are enormous and negative. attn_out and mlp_out are what is
# added to the stream. mlp_in follows the norm, mlp_pre comes before the activation function (in a gated MLP it is
# the gate), mlp_post enters the MLP's last matrix.
AXES: Mapping[str, str] = MappingProxyType(
    {
        "embed": "batch pos d_model",
        "resid_pre": "batch pos d_model",
        "q": "batch pos head d_head",
        "k": "batch pos kv_head d_head",
        "v": "batch pos kv_head d_head",
        "attn_scores": "batch head query key",
        "pattern": "batch head query key",
        "z": "batch pos head d_head",
        "attn_out": "batch pos d_model",
        "resid_mid": "batch pos d_model",
        "mlp_in": "batch pos d_model",
        "mlp_pre": "batch pos d_mlp",
        "mlp_post": "batch pos d_mlp",
        "mlp_out": "batch pos d_model",
        "resid_post": "batch pos d_model",
        "logits": "batch pos d_vocab",
    }
)
SITES: tuple[str, ...] = tuple(AXES)
WITHOUT_LAYER = ("embed", "logits")
ATTENTION_SITES = ("q", "k", "v", "attn_scores", "pattern", "z")

# The same places in TransformerLens 3. Where positions are rotary, q and k are read after the rotation.
TRANSFORMER_LENS: Mapping[str, str] = MappingProxyType(
    {
        "embed": "hook_embed",
        "resid_pre": "blocks.{layer}.hook_resid_pre",
        "q": "blocks.{layer}.attn.hook_rot_q",
        "k": "blocks.{layer}.attn.hook_rot_k",
        "v": "blocks.{layer}.attn.hook_v",
        "attn_scores": "blocks.{layer}.attn.hook_attn_scores",
        "pattern": "blocks.{layer}.attn.hook_pattern",
        "z": "blocks.{layer}.attn.hook_z",
        "attn_out": "blocks.{layer}.hook_attn_out",
        "resid_mid": "blocks.{layer}.hook_resid_mid",
        "mlp_in": "blocks.{layer}.mlp.hook_in",
        "mlp_pre": "blocks.{layer}.mlp.hook_pre",
        "mlp_post": "blocks.{layer}.mlp.hook_post",
        "mlp_out": "blocks.{layer}.hook_mlp_out",
        "resid_post": "blocks.{layer}.hook_resid_post",
        "logits": "unembed.hook_out",
    }
)


@dataclass(frozen=True)
class Place:
    """Where a site is: what goes into a module, or what comes out of it."""

    path: str
    side: Literal["input", "output"]


@dataclass(frozen=True)
class Family:
    """One architecture.

    Args:
        places: Site to place, for every site that a module's input or output holds.
        attention: The attention module, whose inside holds `ATTENTION_SITES`.
        projections: The modules in it that make q, k and v, and the one that reads z.
        packing: How the columns of the q, k and v weights are laid out, outermost axis first.
        final_norm: The norm before the unembedding.
        post_attention_norm: A norm between the heads' sum and the residual stream, where there is one.
        rotary: Whether q and k are rotated by position.
    """

    places: Mapping[str, Place]
    attention: str
    projections: tuple[str, str, str, str]
    packing: Literal["head d_head", "qkv head d_head", "head qkv d_head"]
    final_norm: str
    post_attention_norm: str | None = None
    rotary: bool = True


def _llama_like(**moved: tuple[str, Literal["input", "output"]]) -> Mapping[str, Place]:
    """Llama's places, but for those that a relative has moved."""
    block = "model.layers.{layer}"
    rows = {
        "embed": ("model.embed_tokens", "output"),
        "resid_pre": (block, "input"),
        "attn_out": (f"{block}.self_attn.o_proj", "output"),
        "resid_mid": (f"{block}.post_attention_layernorm", "input"),
        "mlp_in": (f"{block}.mlp", "input"),
        "mlp_pre": (f"{block}.mlp.gate_proj", "output"),
        "mlp_post": (f"{block}.mlp.down_proj", "input"),
        "mlp_out": (f"{block}.mlp", "output"),
        "resid_post": (block, "output"),
        "logits": ("", "output"),
    }
    return {site: Place(*row) for site, row in (rows | moved).items()}


_LLAMA = Family(
    places=_llama_like(),
    attention="model.layers.{layer}.self_attn",
    projections=("q_proj", "k_proj", "v_proj", "o_proj"),
    packing="head d_head",
    final_norm="model.norm",
)

_GEMMA2 = Family(
    places=_llama_like(
        attn_out=("model.layers.{layer}.post_attention_layernorm", "output"),
        resid_mid=("model.layers.{layer}.pre_feedforward_layernorm", "input"),
        mlp_out=("model.layers.{layer}.post_feedforward_layernorm", "output"),
    ),
    attention="model.layers.{layer}.self_attn",
    projections=("q_proj", "k_proj", "v_proj", "o_proj"),
    packing="head d_head",
    final_norm="model.norm",
    post_attention_norm="model.layers.{layer}.post_attention_layernorm",
)

_GPT2 = Family(
    places={
        "embed": Place("transformer.wte", "output"),
        "resid_pre": Place("transformer.h.{layer}", "input"),
        "attn_out": Place("transformer.h.{layer}.attn.c_proj", "output"),
        "resid_mid": Place("transformer.h.{layer}.ln_2", "input"),
        "mlp_in": Place("transformer.h.{layer}.mlp", "input"),
        "mlp_pre": Place("transformer.h.{layer}.mlp.c_fc", "output"),
        "mlp_post": Place("transformer.h.{layer}.mlp.c_proj", "input"),
        "mlp_out": Place("transformer.h.{layer}.mlp", "output"),
        "resid_post": Place("transformer.h.{layer}", "output"),
        "logits": Place("", "output"),
    },
    attention="transformer.h.{layer}.attn",
    projections=("c_attn", "c_attn", "c_attn", "c_proj"),
    packing="qkv head d_head",
    final_norm="transformer.ln_f",
    rotary=False,
)

_GPT_NEOX = Family(
    places={
        "embed": Place("gpt_neox.embed_in", "output"),
        "resid_pre": Place("gpt_neox.layers.{layer}", "input"),
        "attn_out": Place("gpt_neox.layers.{layer}.attention.dense", "output"),
        "resid_mid": Place("gpt_neox.layers.{layer}.post_attention_layernorm", "input"),
        "mlp_in": Place("gpt_neox.layers.{layer}.mlp", "input"),
        "mlp_pre": Place("gpt_neox.layers.{layer}.mlp.dense_h_to_4h", "output"),
        "mlp_post": Place("gpt_neox.layers.{layer}.mlp.dense_4h_to_h", "input"),
        "mlp_out": Place("gpt_neox.layers.{layer}.mlp", "output"),
        "resid_post": Place("gpt_neox.layers.{layer}", "output"),
        "logits": Place("", "output"),
    },
    attention="gpt_neox.layers.{layer}.attention",
    projections=("query_key_value", "query_key_value", "query_key_value", "dense"),
    packing="head qkv d_head",
    final_norm="gpt_neox.final_layer_norm",
)

# Keyed by `config.model_type`. Pythia is gpt_neox; SmolLM2 and Llama 2 and 3 are llama.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "gpt2": _GPT2,
        "gpt_neox": _GPT_NEOX,
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "gemma2": _GEMMA2,
    }
)


def family_of(model_type: str) -> Family:
    """The row for a `config.model_type`.

    Raises: ValueError that lists the rows, if there is none.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"wanted a model of a known family; came one of type {model_type!r}: "
            f"use one of {', '.join(sorted(FAMILIES))} (mechkit/network/sites.py says how to add a row)"
        )
    return FAMILIES[model_type]


def transformer_lens_name(site: str, family: Family) -> str:
    """What TransformerLens calls this site in a model of this family, with `{layer}` to fill in."""
    name = TRANSFORMER_LENS[site]
    return name if family.rotary else name.replace("hook_rot_", "hook_")


def site_table(model_type: str = "llama") -> str:
    """Every site with its axes and its TransformerLens name, as text to print.

    Chapter: 00.
    """
    family = family_of(model_type)
    rows = [("site", "axes", "in TransformerLens")]
    rows += [(site, axes, transformer_lens_name(site, family)) for site, axes in AXES.items()]
    return "\n".join(f"{site:<12} {axes:<26} {name}".rstrip() for site, axes, name in rows)
