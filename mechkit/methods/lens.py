"""What would the model say here? Reading the residual stream before the model has finished.

The logit lens treats a middle layer's residual stream as if it were the last: final norm, then unembedding.
A patchscope puts it into another prompt and lets the model itself read it. The limit of both: they show what
can be *read*, not what the model goes on to use, and a reader that finds nothing may be the wrong reader.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.model import LanguageModel


def logit_lens(resid: Float[Tensor, "*batch d_model"], lm: LanguageModel) -> Float[Tensor, "*batch d_vocab"]:
    """Read a residual stream as if it were the last: `norm(resid) @ W_U`.

    At the last layer this is the model's own output, exactly.

    Args:
        resid: Any residual stream, before the final norm; usually `cache.stack("resid_post")`.
    Returns: Logits; differences are log-odds in nats.
    Raises: ValueError if d_model is not the model's.
    Source: nostalgebraist (2020), "interpreting GPT: the logit lens".
    Chapter: 04.
    """
    if resid.shape[-1] != lm.d_model:
        raise ValueError(f"wanted vectors of d_model = {lm.d_model}; came {resid.shape[-1]}: pass resid_post itself")
    with torch.no_grad():
        return lm.unembed(lm.final_norm(resid))


def patchscope(
    lm: LanguageModel,
    vector: Float[Tensor, " d_model"],
    prompt: str | Int[Tensor, "1 pos"],
    *,
    layer: int,
    position: int = -1,
) -> Float[Tensor, " d_vocab"]:
    """Put a residual stream into another prompt, and let the model itself say what it reads there.

    `vector` replaces `resid_post` of `layer` at `position` of the prompt; the layers above run as ever.

    Args:
        prompt: The reading frame, for instance one that asks for its last word to be repeated.
    Returns: The logits after the prompt's last token.
    Source: Ghandeharioun et al. (2024), "Patchscopes".
    Chapter: 04.
    """
    place = Edit("resid_post", layer, lambda value: vector.expand_as(value), position=position)
    with edit(lm, place):
        logits, _ = run(lm, prompt, sites="logits")
    return logits[0, -1]
