"""A whole language model in milliseconds: random weights, a tokenizer of its own, the real code path.

For checks and tests. Every weight, norm and bias is random, so that no mistake hides behind a zero or a one.
The limit: it knows nothing.
"""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from mechkit.network.model import BYTE_OF, END_OF_TEXT, LanguageModel
from mechkit.network.sites import family_of

# Each is one token, with its leading space.
WORDS = (
    "the of and to in is was a at it that store gave drink book ring friends school went capital city country "
    "Paris France Rome Italy Madrid Spain Berlin Germany London England Tokyo Japan "
    "Mary John Tom Alice Emma Paul Daniel Sarah Henry Lucy king queen man woman"
).split()

_SHARED_KEYS = {"num_key_value_heads": 2}
# Small windows and caps, so that short prompts meet them; a head size of its own where the family has one.
_SHAPES = {
    "gpt2": {"n_inner": 48},
    "gpt_neox": {"intermediate_size": 48, "rope_parameters": {"partial_rotary_factor": 0.5}},
    "llama": {"intermediate_size": 48} | _SHARED_KEYS,
    "mistral": {"intermediate_size": 48, "sliding_window": 4} | _SHARED_KEYS,
    "qwen2": {"intermediate_size": 48} | _SHARED_KEYS,
    "qwen3": {"intermediate_size": 48, "head_dim": 12} | _SHARED_KEYS,
    "gemma2": {
        "intermediate_size": 48,
        "head_dim": 12,
        "query_pre_attn_scalar": 12,
        "sliding_window": 4,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
    }
    | _SHARED_KEYS,
}


def tiny_model(family: str = "llama", seed: int = 0, *, layers: int = 3, **settings: object) -> LanguageModel:
    """A small random model: 4 heads, of which two share keys and values where the family can, d_model 32.

    The same seed gives the same model, and torch's own random state is left alone. The vocabulary is the prefix
    token, the bytes, and `WORDS`.

    Args:
        family: A row of `sites.FAMILIES`.
        settings: Passed on to the family's Hugging Face configuration.
    Raises: ValueError for a family without a row.
    """
    family_of(family)
    tokenizer = tiny_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = AutoConfig.for_model(family, **(common | _SHAPES[family] | settings))
    with no_init_weights():
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _randomise(hf, torch.Generator().manual_seed(seed))
    return LanguageModel(hf, tokenizer, f"tiny {family}")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, so that it reads any text; each of `WORDS` is one token."""
    vocabulary = {END_OF_TEXT: 0} | {character: 1 + byte for character, byte in BYTE_OF.items()}
    merges = []
    for word in WORDS:
        piece = "\u0120"  # the space before it
        for character in word:
            if piece + character not in vocabulary:
                vocabulary[piece + character] = len(vocabulary)
                merges.append((piece, character))
            piece += character
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)


def _randomise(hf: torch.nn.Module, generator: torch.Generator) -> None:
    """Sizes at which attention is neither even nor certain, and no part drowns out another."""
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 2:
                weight.copy_(1.5 * noise / hf.config.hidden_size**0.5)
            else:
                weight.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
