"""CCS finds a planted direction, and a perfect loss for any balanced split where there is room for it."""

import pytest
import torch

from mechkit.methods.ccs import ccs_loss, centred, fit_ccs


def pairs(count=60, size=6, *, gap=4.0, seed=0):
    """Pairs that differ along coordinate 0, one way where the statement is true and the other where it is false."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(count) % 2
    yes, no = (torch.randn(count, size, generator=generator) for _ in range(2))
    yes[:, 0] += gap * (2 * truth - 1)
    no[:, 0] -= gap * (2 * truth - 1)
    return yes, no, truth


def agreement(probe, yes, no, truth):
    share = ((probe.believes(yes, no) > 0.5).long() == truth).double().mean()
    return max(share, 1 - share)  # which side is truth, CCS cannot say


def test_the_loss_is_the_papers_formula_by_hand():
    assert float(ccs_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))) == 0
    assert float(ccs_loss(torch.tensor([0.5]), torch.tensor([0.5]))) == pytest.approx(0.25)
    p, q = torch.tensor([0.8, 0.3]), torch.tensor([0.4, 0.9])
    by_hand = ((0.8 - 0.6) ** 2 + 0.4**2 + (0.3 - 0.1) ** 2 + 0.3**2) / 2
    assert float(ccs_loss(p, q)) == pytest.approx(by_hand)


def test_a_planted_direction_is_found_where_pairs_outnumber_dimensions():
    yes, no, _ = pairs()
    probe = fit_ccs(yes, no)
    assert probe.loss < 0.05
    assert agreement(probe, *pairs(seed=1)) > 0.95


def test_with_more_dimensions_than_pairs_a_perfect_loss_means_nothing():
    yes, no, _ = pairs(size=300, gap=0.0)
    probe = fit_ccs(yes, no)
    assert probe.loss < 0.01
    assert agreement(probe, *pairs(size=300, gap=0.0, seed=1)) < 0.75


def test_the_search_is_seeded_and_more_starts_are_no_worse():
    yes, no, _ = pairs(gap=0.5)
    assert torch.equal(fit_ccs(yes, no, seed=1).weight, fit_ccs(yes, no, seed=1).weight)
    assert fit_ccs(yes, no, restarts=4).loss <= fit_ccs(yes, no, restarts=1).loss


def test_the_loss_can_be_measured_on_other_pairs():
    yes, no, _ = pairs(size=300, gap=0.0)
    probe = fit_ccs(yes, no)
    assert float(ccs_loss(*probe.probabilities(yes, no))) == pytest.approx(probe.loss, abs=1e-3)
    assert ccs_loss(*probe.probabilities(*pairs(size=300, gap=0.0, seed=1)[:2])) > 0.1  # what was fitted was noise


def test_pairs_of_double_precision_are_searched_too():
    yes, no, truth = pairs()
    assert agreement(fit_ccs(yes.double(), no.double()), yes.double(), no, truth) > 0.95


def test_each_half_is_centred_by_itself():
    yes, _, _ = pairs()
    assert centred(yes + 100).mean(0).abs().max() < 1e-4


def test_pairs_that_cannot_be_searched_are_said():
    yes, no, _ = pairs()
    with pytest.raises(ValueError, match="wanted at least two pairs; came 1"):
        fit_ccs(yes[:1], no[:1])
    with pytest.raises(ValueError, match="wanted pairs whose halves differ; came the same features twice"):
        fit_ccs(yes, yes)
