"""Closed forms against scikit-learn, and identities of lenses that were fitted on nothing or on everything."""

import pytest
import torch
from sklearn.linear_model import Ridge

from mechkit.data.corpus import load_corpus
from mechkit.methods.affine import LeastSquares, affine_lens, fit_affine_lens, ordinary, tune_layer
from mechkit.methods.lens import logit_lens
from mechkit.network.cache import run
from mechkit.network.tiny import tiny_model

TEXT = "qwxz jkvb " * 11


def pairs(tokens=300, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 3 + torch.randn(tokens, size, generator=generator)
    return x, x @ torch.randn(size, size, generator=generator) - 5


def fitted(*batches, ridge):
    sums = LeastSquares(batches[0][0].shape[1])
    for x, y in batches:
        sums.add(x, y)
    return sums.solve(ridge)


def test_the_change_from_the_identity_is_scikit_learns_ridge():
    x, y = pairs()
    weight, bias = fitted((x, y), ridge=0.1)
    penalty = 0.1 * float(((x - x.mean(0)).double() ** 2).sum(0).mean())
    oracle = Ridge(alpha=penalty).fit(x.double().numpy(), (y - x).double().numpy())
    torch.testing.assert_close(weight.double() - torch.eye(6), torch.tensor(oracle.coef_.T), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias.double(), torch.tensor(oracle.intercept_), atol=1e-3, rtol=1e-4)


def test_batches_add_up():
    x, y = pairs()
    whole, parts = fitted((x, y), ridge=0.1), fitted((x[:100], y[:100]), (x[100:], y[100:]), ridge=0.1)
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=1e-4)


def test_a_strong_pull_gives_the_plain_lens():
    weight, _ = fitted(pairs(), ridge=1e9)
    torch.testing.assert_close(weight, torch.eye(6), atol=1e-4, rtol=0)


def test_nothing_to_fit_on_is_said():
    with pytest.raises(ValueError, match="wanted at least one token to fit on; came none"):
        LeastSquares(4).solve(0.1)


def test_massive_tokens_are_left_out():
    resid = torch.ones(2, 5, 4)
    resid[1, 3] *= 1000
    assert ordinary(resid).shape == (2, 4, 4)


def test_at_the_last_layer_the_affine_lens_is_the_logit_lens():
    lm = tiny_model()
    lens = fit_affine_lens(lm, [TEXT], tokens=50)
    _, cache = run(lm, torch.tensor([[5, 9, 20, 31, 7]]), sites="resid_post")
    resid = cache.stack("resid_post")
    torch.testing.assert_close(lens.read(resid, lm)[-1], logit_lens(resid[-1], lm), atol=1e-4, rtol=1e-4)


def test_a_fitted_lens_is_kept_on_disk_and_a_damaged_one_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHKIT_CACHE", str(tmp_path))
    first = affine_lens(tiny_model(), [TEXT])
    [file] = tmp_path.rglob("*.safetensors")
    torch.testing.assert_close(affine_lens(tiny_model(), [TEXT]).weight, first.weight)
    file.write_bytes(b"not a lens")
    torch.testing.assert_close(affine_lens(tiny_model(), [TEXT]).weight, first.weight)
    assert file.stat().st_size > 1000


@pytest.mark.slow
def test_the_affine_lens_beats_the_plain_one_and_a_shuffled_one_on_held_out_text(default_model):
    lm, corpus = default_model, load_corpus()
    lens, fake = affine_lens(lm, corpus), fit_affine_lens(lm, corpus, tokens=1500, shuffle=0)
    logits, cache = run(lm, " ".join(corpus[-1].split()[:16]), sites="resid_post")
    resid, final = cache.stack("resid_post")[:, 0, 1:], logits[0, 1:].log_softmax(-1)

    def kl(read):
        return (final.exp() * (final - read.log_softmax(-1))).sum(-1).mean(-1)

    affine = kl(lens.read(resid, lm))
    assert (affine <= kl(logit_lens(resid, lm)) + 1e-3).all()
    assert (affine < kl(fake.read(resid, lm)) + 1e-3).all()
    middle = lm.n_layers // 2
    tuned = tune_layer(lm, lens, middle, corpus[100:-1], steps=20)
    assert kl(tuned.read(resid[middle : middle + 1], lm)) < affine[middle]
