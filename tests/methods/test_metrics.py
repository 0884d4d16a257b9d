"""Metrics against torch's own, and where they must be zero."""

import math

import torch

from mechkit.methods.metrics import kl_divergence, logit_difference, loss, rank_of


def random_logits(*shape, seed=0):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_loss_is_torchs_cross_entropy_of_the_next_token():
    logits, tokens = random_logits(2, 5, 11), torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(1))
    wanted = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(loss(logits, tokens), wanted)


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary():
    assert math.isclose(loss(torch.zeros(1, 3, 7), torch.tensor([[0, 1, 2]])), math.log(7), rel_tol=1e-6)


def test_a_logit_difference_ignores_what_raises_every_logit():
    logits, right, wrong = random_logits(2, 3, 9), torch.tensor([1, 2]), torch.tensor([5, 0])
    wanted = torch.stack([logits[0, -1, 1] - logits[0, -1, 5], logits[1, -1, 2] - logits[1, -1, 0]])
    torch.testing.assert_close(logit_difference(logits, right, wrong), wanted)
    torch.testing.assert_close(logit_difference(logits + 4, right, wrong), wanted)


def test_kl_is_torchs_and_zero_only_between_equals():
    p, q = random_logits(4, 9), random_logits(4, 9, seed=1)
    oracle = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=each) for each in (p, q)))
    torch.testing.assert_close(kl_divergence(p, q), oracle)
    torch.testing.assert_close(kl_divergence(p, p + 2), torch.zeros(4), atol=1e-5, rtol=0)


def test_the_top_token_has_rank_zero():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 5.0]])
    assert rank_of(logits, 1).tolist() == [0, 2]
