"""What is gathered is what a plain run caches, without position 0 and without the massive."""

import pytest
import torch

from mechkit.methods.sae_activations import (
    activations_at,
    checked_activations,
    gather,
    middle_layer,
    ordinary_tokens,
)
from mechkit.network import hooks
from mechkit.network.cache import run

TEXTS = [
    "the store gave a book to Mary",
    "Alice and Emma went to Paris in France and Tom went to Rome",
    "the king of Spain",
    "a ring was a gift",
]


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_it_is_what_a_run_caches(tiny, place):
    layer = {"first": 0, "middle": middle_layer(tiny), "last": tiny.n_layers - 1}[place]
    found = gather(tiny, TEXTS, "resid_post", layer)
    for number, text in enumerate(TEXTS):
        _, cache = run(tiny, text)
        rows = found.passage == number
        torch.testing.assert_close(found.x[rows], cache["resid_post", layer][0, 1:], atol=1e-4, rtol=1e-4)
        assert torch.equal(found.tokens[rows], tiny.tokens(text)[0, 1:])
        assert torch.equal(found.position[rows], 1 + torch.arange(int(rows.sum())))
    assert found.target is found.x
    assert found.dropped == 0


def test_a_transcoder_gets_what_goes_in_and_what_comes_out(tiny):
    layer = middle_layer(tiny)
    found = gather(tiny, TEXTS, ("mlp_in", "mlp_out"))
    _, cache = run(tiny, TEXTS[1])
    rows = found.passage == 1
    torch.testing.assert_close(found.x[rows], cache["mlp_in", layer][0, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.target[rows], cache["mlp_out", layer][0, 1:], atol=1e-4, rtol=1e-4)


def test_layers_above_are_not_run_and_no_hook_stays(tiny):
    ran = []
    block = tiny.module(tiny.family.places["resid_post"].path, 2)
    handle = block.register_forward_hook(lambda *_: ran.append(1))
    activations_at(tiny, tiny.tokens(TEXTS[0]), {"resid_post"}, 1)
    assert not ran
    handle.remove()
    for module in tiny.hf.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_middle_is_the_middle(tiny_models):
    assert middle_layer(tiny_models["llama"]) == 1


def test_a_limit_is_kept(tiny_models):
    found = gather(tiny_models["llama"], TEXTS * 10, limit=50)
    assert len(found) == 50
    assert found.passage.max() < 40


def test_massive_tokens_are_left_out_and_counted(tiny_models):
    """As the course's model has at a few tokens, one is made a thousand times as long here."""
    lm = tiny_models["llama"]

    def blow_up(old):
        new = old.clone()
        new[0, 3] *= 1000
        return new

    with hooks.edit(lm, hooks.Edit("resid_post", 1, blow_up)):
        found = gather(lm, TEXTS)
    plain = gather(lm, TEXTS)
    assert found.dropped == 1
    assert len(found) == len(plain) - 1
    assert not ((found.passage == 0) & (found.position == 3)).any()
    assert "1 massive tokens and position 0 left out" in repr(found)


def test_ordinary_is_within_twenty_medians_of_those_that_are_not_zero():
    x = torch.eye(4)[[0] * 5] * torch.tensor([1.0, 1.0, 1.0, 19.0, 21.0])[:, None]
    assert ordinary_tokens(torch.cat([x, torch.zeros(20, 4)])).tolist() == [True] * 4 + [False] + [True] * 20


def test_a_split_is_by_text_and_seeded(tiny_models):
    found = gather(tiny_models["llama"], TEXTS * 5)
    train, held = found.split(0.25, seed=1)
    assert len(train) + len(held) == len(found)
    assert not set(train.passage.tolist()) & set(held.passage.tolist())
    assert len(held.passage.unique()) == 5
    assert torch.equal(held.passage, found.split(0.25, seed=1)[1].passage)
    assert not torch.equal(held.passage.unique(), found.split(0.25, seed=2)[1].passage.unique())


def test_what_is_fine_passes_unchanged():
    x = torch.randn(30, 4)
    assert checked_activations(x) is x


def test_what_is_missing_is_said(tiny_models):
    with pytest.raises(ValueError, match="wanted at least one text; came none"):
        gather(tiny_models["llama"], [])
    with pytest.raises(ValueError, match="wanted a site; came 'thoughts'"):
        gather(tiny_models["llama"], TEXTS, "thoughts")
    with pytest.raises(ValueError, match="wanted a layer of tiny llama, 0 to 2; came 3"):
        gather(tiny_models["llama"], TEXTS, "resid_post", 3)
