"""Rank-one edits do what their formula says, on every family, and nothing is left of them afterwards."""

import pytest
import torch

from mechkit.methods.editing import (
    PREFIXES,
    Request,
    Rewrite,
    key_covariance,
    rank_one_update,
    rewritten,
    subject_key,
)
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model

PROMPT = "the king of France is in the city of"
TEXTS = ["the queen gave Tom a drink and a book", "Mary and John went to the school in Rome", "London is the capital"]


def request_for(lm):
    """Something that this random model does not say."""
    top = int(run(lm, PROMPT, sites=())[0][0, -1].argmax())
    return Request(PROMPT, "king of France", " Rome" if top != lm.token_id(" Rome") else " Paris")


def covariance(seed=0, size=6):
    keys = torch.randn(50, size, generator=torch.Generator().manual_seed(seed))
    return keys.T @ keys / 50


def test_the_key_is_mapped_to_exactly_the_wanted_value():
    generator = torch.Generator().manual_seed(1)
    W, key, value = (torch.randn(*shape, generator=generator) for shape in ((6, 4), (6,), (4,)))
    changed = W + rank_one_update(W, key, value, covariance())
    torch.testing.assert_close(key @ changed, value)
    assert torch.linalg.matrix_rank(changed - W) == 1


def test_no_other_change_that_stores_the_value_disturbs_the_keys_of_text_less():
    generator = torch.Generator().manual_seed(2)
    W, key, value = (torch.randn(*shape, generator=generator) for shape in ((6, 4), (6,), (4,)))
    C, best = covariance(), rank_one_update(W, key, value, covariance())

    def disturbance(change):
        return torch.trace(change.T @ C @ change)

    for _ in range(20):
        other = torch.randn(6, 4, generator=generator)
        other -= torch.outer(key, key @ other) / (key @ key)  # leaves the key alone
        assert disturbance(best + 0.1 * other) > disturbance(best)


def test_the_covariance_is_that_of_a_loop(tiny):
    keys = [run(tiny, text, sites="mlp_post", layers=1)[1]["mlp_post", 1][0, 1:] for text in TEXTS]
    total = sum(torch.outer(key, key) for row in keys for key in row) / sum(len(row) for row in keys)
    wanted = total + 0.01 * total.diagonal().mean() * torch.eye(tiny.d_mlp)
    torch.testing.assert_close(key_covariance(tiny, 1, TEXTS), wanted, atol=1e-4, rtol=1e-3)


def test_the_subjects_key_is_a_mean_over_prefixes(tiny):
    request, rows = request_for(tiny), []
    for prefix in PREFIXES:
        labels = tiny.labels(tiny.tokens(prefix + PROMPT)[0])
        key = run(tiny, prefix + PROMPT, sites="mlp_post", layers=2)[1]["mlp_post", 2][0]
        rows.append(key[labels.index(" France")])
    torch.testing.assert_close(subject_key(tiny, request, 2), torch.stack(rows).mean(0), atol=1e-5, rtol=1e-4)


def test_inside_the_matrix_is_changed_and_outside_it_is_the_same_object(tiny):
    change = 0.1 * torch.randn(tiny.d_mlp, tiny.d_model, generator=torch.Generator().manual_seed(0))
    before, weight = tiny.W_out(1).clone(), tiny.W_out(1).data_ptr()
    plain = run(tiny, PROMPT, sites=())[0]
    with rewritten(tiny, Rewrite(1, change)):
        torch.testing.assert_close(tiny.W_out(1), before + change)
        inside = run(tiny, PROMPT, sites=())[0]
        with rewritten(tiny, Rewrite(1, change)):
            torch.testing.assert_close(tiny.W_out(1), before + 2 * change)
        torch.testing.assert_close(tiny.W_out(1), before + change)
    assert tiny.W_out(1).data_ptr() == weight
    assert torch.equal(tiny.W_out(1), before)
    assert torch.equal(run(tiny, PROMPT, sites=())[0], plain)
    assert not torch.equal(inside, plain)


def test_a_change_is_the_edit_of_what_the_mlp_gives():
    """`W' k = W k + v (u · k)`, read off mlp_post; families without a norm behind the MLP."""
    for family in ("gpt2", "gpt_neox", "llama", "qwen3"):
        lm = tiny_model(family)
        generator = torch.Generator().manual_seed(0)
        u, v = torch.randn(lm.d_mlp, generator=generator), torch.randn(lm.d_model, generator=generator)
        keys = run(lm, PROMPT, sites="mlp_post", layers=0)[1]["mlp_post", 0]
        with edit(lm, Edit("mlp_out", 0, lambda old, k=keys, u=u, v=v: old + (k @ u)[..., None] * v)):
            wanted = run(lm, PROMPT, sites=())[0]
        with rewritten(lm, Rewrite(0, torch.outer(u, v))):
            torch.testing.assert_close(run(lm, PROMPT, sites=())[0], wanted, atol=1e-4, rtol=1e-3)


def test_the_weights_are_back_after_an_error(tiny):
    before, change = tiny.W_out(0).clone(), torch.ones(tiny.d_mlp, tiny.d_model)
    with pytest.raises(RuntimeError, match="half way"), rewritten(tiny, Rewrite(0, change), Rewrite(2, change)):
        raise RuntimeError("half way")
    assert torch.equal(tiny.W_out(0), before)


def test_a_covariance_of_nothing_is_said():
    lm = tiny_model()
    with pytest.raises(ValueError, match="wanted some texts and a positive ridge; came 0 texts"):
        key_covariance(lm, 1, [])
    with pytest.raises(ValueError, match="wanted some texts and a positive ridge; came 3 texts and 0"):
        key_covariance(lm, 1, TEXTS, ridge=0.0)


def test_a_change_that_cannot_be_made_is_said():
    lm = tiny_model()
    with pytest.raises(ValueError, match="wanted a change of W_out, 48 × 32 finite numbers; came 2 × 2"):
        rewritten(lm, Rewrite(0, torch.zeros(2, 2))).__enter__()
    with pytest.raises(ValueError, match="came 48 × 32 with a NaN or an infinity among them"):
        rewritten(lm, Rewrite(0, torch.full((48, 32), torch.nan))).__enter__()
    with pytest.raises(ValueError, match="wanted a layer of tiny llama, 0 to 2; came 3"):
        rewritten(lm, Rewrite(3, torch.zeros(48, 32))).__enter__()
