"""Ablations put exactly the value they name into the run, and nothing else changes."""

import pytest
import torch

from mechkit.methods.ablation import mean, resample, zero
from mechkit.network.cache import run
from mechkit.network.hooks import edit
from mechkit.network.tiny import tiny_model

TOKENS = torch.tensor([[5, 9, 20, 31], [7, 8, 40, 3], [11, 2, 6, 30]])


def z_after(*edits):
    lm = tiny_model()
    with edit(lm, *edits):
        return run(lm, TOKENS, sites="z")[1]["z", 1]


def clean():
    return run(tiny_model(), TOKENS, sites="z")[1]["z", 1]


def test_zero_is_zero_there_and_only_there():
    z = z_after(zero("z", 1, head=2, position=-1))
    assert (z[:, -1, 2] == 0).all()
    untouched = torch.ones(z.shape[:3], dtype=torch.bool)
    untouched[:, -1, 2] = False
    torch.testing.assert_close(z[untouched], clean()[untouched])


def test_mean_is_the_mean_of_the_samples_for_every_prompt():
    samples = clean()[:, -1, 2]
    z = z_after(mean("z", 1, samples, head=2, position=-1))
    torch.testing.assert_close(z[:, -1, 2], samples.mean(0).expand(3, -1))


def test_resample_draws_what_occurred_and_the_seed_decides():
    samples = clean()[:, -1, 2]
    first, again, other = (z_after(resample("z", 1, samples, seed=s, head=2, position=-1)) for s in (0, 0, 3))
    assert all(any(torch.equal(row, sample) for sample in samples) for row in first[:, -1, 2])
    torch.testing.assert_close(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("ablation", [mean, lambda *args, **where: resample(*args, seed=0, **where)])
def test_samples_of_another_shape_are_named(ablation):
    with pytest.raises(ValueError, match=r"wanted samples of z of shape \(8,\), one prompt's slice; came \(5,\)"):
        z_after(ablation("z", 1, torch.zeros(3, 5), head=2, position=-1))
