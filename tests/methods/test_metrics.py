"""Metrics against slow loops and cases whose answer is known."""

import math

import pytest
import torch

from mechkit.methods.metrics import kl_divergence, logit_difference, loss, rank_of

SHAPE = (2, 5, 7)


@pytest.fixture
def logits():
    return 3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def test_loss_is_the_mean_surprise_at_the_next_token(logits):
    tokens = torch.randint(7, SHAPE[:2], generator=torch.Generator().manual_seed(1))
    surprises = []
    for row, text in zip(logits, tokens, strict=True):
        for position in range(len(text) - 1):
            weights = [math.exp(logit) for logit in row[position].tolist()]
            surprises.append(-math.log(weights[text[position + 1]] / sum(weights)))
    assert float(loss(logits, tokens)) == pytest.approx(sum(surprises) / len(surprises), abs=1e-5)


def test_a_uniform_guess_costs_the_log_of_the_vocabulary():
    tokens = torch.zeros(SHAPE[:2], dtype=torch.long)
    assert float(loss(torch.zeros(SHAPE), tokens)) == pytest.approx(math.log(7))


def test_loss_is_hugging_faces(tiny_models):
    lm = tiny_models["llama"]
    ids = lm.tokens(["The capital of France is", "The country of Italy is"])
    with torch.no_grad():
        output = lm.hf(ids, labels=ids)
    assert torch.allclose(loss(output.logits, ids), output.loss, atol=1e-5)


def test_logit_difference_takes_each_prompts_own_tokens(logits):
    right, wrong = torch.tensor([3, 0]), torch.tensor([1, 6])
    last = logit_difference(logits, right, wrong)
    assert torch.equal(last, torch.stack([logits[0, -1, 3] - logits[0, -1, 1], logits[1, -1, 0] - logits[1, -1, 6]]))
    assert torch.equal(logit_difference(logits, right, wrong, position=2)[1], logits[1, 2, 0] - logits[1, 2, 6])


def test_logit_difference_is_the_log_odds(logits):
    right, wrong = torch.tensor([3, 0]), torch.tensor([1, 6])
    probabilities = logits[:, -1].softmax(-1)
    odds = probabilities[[0, 1], right] / probabilities[[0, 1], wrong]
    assert torch.allclose(logit_difference(logits, right, wrong), odds.log(), atol=1e-5)


def test_kl_divergence_is_that_of_torch(logits):
    other = logits.flip(-1)
    expected = torch.nn.functional.kl_div(
        other.log_softmax(-1), logits.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    assert torch.allclose(kl_divergence(logits, other), expected, atol=1e-5)
    assert (kl_divergence(logits, other) > 0).all()
    assert torch.allclose(kl_divergence(logits, logits + 5), torch.zeros(SHAPE[:2]), atol=1e-5)


def test_rank_counts_the_tokens_above():
    logits = torch.tensor([[0.1, 0.5, 0.3], [2.0, 1.0, 1.0]])
    assert rank_of(logits, 2).tolist() == [1, 1]
    assert [int(rank_of(logits[0], token)) for token in range(3)] == [2, 0, 1]
