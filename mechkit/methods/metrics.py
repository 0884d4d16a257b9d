"""How much did the output change? Numbers read off logits, in nats.

Each compares outputs and knows nothing of how they came about, so the same metric serves a lens, an ablation
and a patch. The limit: a metric looks at what it measures; state it, and its baseline, beside every result.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def loss(logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """The mean surprise at each next token: `-log p(token)`, in nats; a uniform guess costs `ln d_vocab`.

    Every position but the last predicts the next one, so the prefix token is never a target.

    Chapter: 00.
    """
    predicted = logits[:, :-1].log_softmax(-1)
    return -predicted.gather(-1, tokens[:, 1:, None]).mean()


def logit_difference(
    logits: Float[Tensor, "batch pos d_vocab"],
    right: Int[Tensor, " batch"],
    wrong: Int[Tensor, " batch"],
    *,
    position: int = -1,
) -> Float[Tensor, " batch"]:
    """The logit of one token less that of another: their log-odds, in nats.

    Unlike a probability it does not saturate, and what raises every logit alike cancels.

    Args:
        right, wrong: A token id for each prompt.
    Chapter: 00.
    """
    here = logits[:, position]
    rows = torch.arange(len(here))
    return here[rows, right] - here[rows, wrong]


def kl_divergence(
    final: Float[Tensor, "*batch d_vocab"], other: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(final || other) of two sets of logits, in nats: 0 where they agree, never negative.

    It is the price a token of betting on `other` when the truth is `final`, so the order matters.

    Chapter: 04.
    """
    p, q = final.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def rank_of(logits: Float[Tensor, "*batch d_vocab"], token: int) -> Int[Tensor, "*batch"]:
    """How many tokens have a larger logit: 0 for the top token.

    Chapter: 04.
    """
    return (logits > logits[..., token, None]).sum(-1)
