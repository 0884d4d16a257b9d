"""Attribution patching against the truth: exact where the model is linear, close where the step is small."""

import pytest
import torch

from mechkit.methods.gradients import attribution_patch
from mechkit.methods.patching import Pair, patch_sweep
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import tiny_model


def gap(logits):
    return logits[:, -1, 3] - logits[:, -1, 4]


def prompts():
    clean = torch.randint(5, 20, (2, 6), generator=torch.Generator().manual_seed(0))
    corrupted = clean.clone()
    corrupted[:, 2] += 1
    return clean, corrupted


@pytest.fixture
def pair(tiny):
    return Pair(tiny, *prompts())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_step_is_all_but_linear(family):
    lm = tiny_model(family)
    weight = lm.hf.get_input_embeddings().weight
    weight.copy_(weight[7] + 1e-2 * (weight - weight[7]))  # the two prompts are now nearly the same
    pair = Pair(lm, *prompts())
    truth = patch_sweep(pair, gap, site="z", over=("layer", "head")).change
    estimate = attribution_patch(pair, gap).change
    torch.testing.assert_close(estimate, truth, rtol=0.2, atol=0.05 * truth.abs().max().item())


@pytest.mark.parametrize("over", [("layer", "position"), ("layer", "head"), ("layer", "head", "position")])
def test_the_cells_of_a_sum_add_up(pair, over):
    """The estimate is linear, so positions and heads add up to their layer."""
    whole = attribution_patch(pair, gap, over=("layer",)).change
    parts = attribution_patch(pair, gap, over=over).change
    torch.testing.assert_close(parts.flatten(1).sum(1), whole, rtol=1e-4, atol=1e-5)


def test_integrated_over_the_embedding_it_sums_to_the_whole_change(pair):
    """Integrated gradients of the input are complete: the stream before layer 0 carries all of it."""
    swept = attribution_patch(pair, gap, site="resid_pre", over=("layer",), steps=256)
    torch.testing.assert_close(swept.change[0], swept.source.mean() - swept.base.mean(), rtol=0.05, atol=1e-3)


def test_the_runs_are_those_of_the_sweep_and_no_gradient_is_left(pair):
    estimate, truth = attribution_patch(pair, gap), patch_sweep(pair, gap, site="z", over=("layer", "head"))
    torch.testing.assert_close(estimate.base, truth.base)
    torch.testing.assert_close(estimate.source, truth.source)
    assert not estimate.values.requires_grad
    assert all(weight.grad is None for weight in pair.lm.hf.parameters())


def test_no_steps_are_refused():
    pair = Pair(tiny_model(), "a b", "a c")
    with pytest.raises(ValueError, match="wanted at least one step between the two runs; came 0"):
        attribution_patch(pair, gap, steps=0)
