"""A twin says what its model says, with its heads elsewhere."""

import pytest
import torch

from mechkit.grading.inside.twin import permute_heads
from mechkit.network.cache import run
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_stay_and_every_head_moves(family):
    lm, twin = tiny_model(family, seed=3), tiny_model(family, seed=3)
    order = permute_heads(twin, seed=7)
    logits, cache = run(lm, "The king of France is in")
    same, moved = run(twin, "The king of France is in")
    assert torch.allclose(logits, same, atol=1e-4)
    for layer in range(lm.n_layers):
        assert torch.allclose(cache["resid_post", layer], moved["resid_post", layer], atol=1e-4)
        assert torch.allclose(cache["z", layer][:, :, order[layer]], moved["z", layer], atol=1e-4)
        assert (order[layer] != torch.arange(lm.n_heads)).all()


def test_a_seed_gives_one_order():
    first, again, other = (permute_heads(tiny_model(), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
