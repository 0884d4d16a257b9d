"""Probes find what was planted and nothing else; features are what a run of one prompt gives."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechkit.methods import probes
from mechkit.methods.probes import (
    LinearProbe,
    accuracy,
    at_layer,
    auc,
    cross_validate,
    features,
    fit_logistic,
    fit_mass_mean,
    fit_mlp,
    last_logits,
    layer_sweep,
)
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model

PROMPTS = ["the king", "Mary gave a book to John", "the queen", " Paris is in France", "a"]


def planted(count=200, size=12, *, gap=3.0, seed=0, nuisance=1.0):
    """Two classes, `gap` apart along coordinate 0; coordinate 1 varies by `nuisance` and tells nothing."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    x = torch.randn(count, size, generator=generator) + 5
    x[:, 0] += gap * y
    x[:, 1] *= nuisance
    return x, y


def xor(count=400, seed=0):
    """Two classes that no line tells apart."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return x, ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()


def test_features_are_those_of_each_prompt_by_itself(tiny, monkeypatch):
    monkeypatch.setattr(probes, "TOKENS", 5)
    found = features(tiny, PROMPTS)
    assert found.shape == (tiny.n_layers, len(PROMPTS), tiny.d_model)
    for place, prompt in enumerate(PROMPTS):
        _, cache = run(tiny, prompt, sites="resid_post")
        torch.testing.assert_close(found[:, place], cache.stack("resid_post")[:, 0, -1], atol=1e-4, rtol=1e-4)


def test_last_logits_are_those_of_each_prompt_by_itself_edited_or_not(tiny):
    push = Edit("resid_post", 1, lambda value: value + 1, position=-1)
    for edits in ([], [push]):
        with edit(tiny, *edits):
            found = last_logits(tiny, PROMPTS, [7, 3])
            rows = [run(tiny, prompt, sites=())[0][0, -1, [7, 3]] for prompt in PROMPTS]
            torch.testing.assert_close(found, torch.stack(rows), atol=1e-4, rtol=1e-4)
    assert last_logits(tiny, PROMPTS[:1]).shape == (1, tiny.d_vocab)


def test_last_logits_of_words_are_those_of_their_tokens(tiny):
    ids = [tiny.token_id(" is"), tiny.token_id(" was")]
    assert torch.equal(last_logits(tiny, PROMPTS, [" is", " was"]), last_logits(tiny, PROMPTS, ids))
    with pytest.raises(ValueError, match="token"):
        last_logits(tiny, PROMPTS, [" is not one"])


def test_a_few_prompts_leave_no_bar_behind(tiny, capsys):
    features(tiny, PROMPTS)
    assert capsys.readouterr().err == ""
    features(tiny, ["the king"] * (probes.FEW + 1))
    assert "reading prompts" in capsys.readouterr().err


@pytest.mark.parametrize("fit", [fit_logistic, fit_mass_mean, fit_mlp])
def test_single_and_double_precision_mix(fit):
    x, y = planted()
    for trained, tested in ((x.double(), x.double()), (x.double(), x), (x, x.double())):
        assert accuracy(fit(trained, y), tested, y) == pytest.approx(accuracy(fit(x, y), x, y), abs=0.02)


@pytest.mark.parametrize("read", [features, last_logits])
def test_no_prompt_is_said(read):
    with pytest.raises(ValueError, match="wanted at least one prompt; came none"):
        read(tiny_model(), [])


def test_a_layer_that_does_not_exist_is_said():
    found = torch.zeros(3, 4, 2)
    assert at_layer(found, -1) is not None
    for layer in (3, -4):
        with pytest.raises(ValueError, match=f"wanted a layer from 0 to 2; came {layer}"):
            at_layer(found, layer)


@pytest.mark.parametrize("classes", [2, 3])
def test_weights_in_the_features_coordinates_say_what_scikit_learn_says(classes):
    x, _ = planted()
    y = torch.arange(len(x)) % classes
    x[:, 2] += 2 * y
    probe = fit_logistic(x, y)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=probes.STRENGTH, max_iter=500)).fit(x.numpy(), y)
    torch.testing.assert_close(
        probe.scores(x).softmax(-1), torch.tensor(oracle.predict_proba(x.numpy())).float(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("fit", [fit_logistic, fit_mass_mean, fit_mlp])
def test_what_is_planted_is_found_on_new_data(fit):
    probe = fit(*planted(seed=0))
    assert accuracy(probe, *planted(seed=1)) > 0.85
    assert abs(accuracy(probe, *planted(gap=0.0, seed=1, count=1000)) - 0.5) < 0.1


def test_a_large_nuisance_drowns_the_mass_mean_and_not_the_logistic_probe():
    train, test = planted(nuisance=60.0), planted(nuisance=60.0, seed=1)
    assert accuracy(fit_logistic(*train), *test) > 0.85
    assert accuracy(fit_mass_mean(*train), *test) < 0.75


def test_the_mass_mean_is_the_nearer_mean():
    x, y = planted()
    means = torch.stack([x[y == 0].mean(0), x[y == 1].mean(0)])
    nearest = torch.cdist(x, means).argmin(-1)
    assert torch.equal(fit_mass_mean(x, y).scores(x).argmax(-1), nearest)
    torch.testing.assert_close(fit_mass_mean(x, y).direction, means[1] - means[0])


def test_only_the_mlp_sees_what_no_line_tells_apart():
    assert accuracy(fit_mlp(*xor()), *xor(seed=1)) > 0.85
    assert accuracy(fit_logistic(*xor()), *xor(seed=1)) < 0.65


def test_the_mlps_seed_decides_and_torchs_own_is_left_alone():
    x, y = planted(gap=0.5)
    state = torch.get_rng_state()
    scores = [fit_mlp(x, y, seed=seed).scores(x) for seed in (1, 1, 2)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_direction_leads_between_two_classes():
    with pytest.raises(ValueError, match="wanted a probe of two classes; came 3"):
        _ = LinearProbe(torch.ones(3, 4), torch.zeros(3)).direction


def test_auc_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    scores, y = torch.randn(60, generator=generator).round(decimals=1), torch.arange(60) % 2
    assert auc(scores, y) == pytest.approx(roc_auc_score(y, scores))
    assert auc(torch.zeros(60), y) == 0.5
    assert auc(y.float() - 100, y) == 1.0


def test_a_sweep_is_high_where_the_property_is():
    x, y = planted()
    noise, _ = planted(gap=0.0, seed=7)
    sweep = layer_sweep(torch.stack([noise, x]), y, torch.arange(140), torch.arange(140, 200))
    assert sweep[1] > 0.85 > 0.65 > sweep[0]


def test_cross_validation_never_tests_a_word_it_was_fitted_on():
    # every word has a coordinate of its own and a label of its own: memory helps, but not on new words
    words = [f"w{number}" for number in range(20) for _ in range(4)]
    x = torch.eye(20).repeat_interleave(4, 0) + 0.01 * torch.randn(80, 20, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(20) % 2).repeat_interleave(4)
    assert accuracy(fit_logistic(x, y, strength=10.0), x, y) == 1.0
    assert cross_validate(x, y, words, folds=5).mean() < 0.7
    x[:, :10] = 5.0 * y[:, None]
    assert cross_validate(x, y, words, folds=5).shape == (5,)
    assert cross_validate(x, y, words, folds=5, fit=fit_mass_mean).mean() > 0.9


@pytest.mark.parametrize("fit", [fit_logistic, fit_mass_mean, fit_mlp])
def test_what_cannot_be_fitted_is_said(fit):
    x, y = planted(20)
    with pytest.raises(ValueError, match="at least two classes; came class 1 only"):
        fit(x, torch.ones(20, dtype=torch.long))
    with pytest.raises(ValueError, match="wanted features that differ between examples; came the same vector"):
        fit(torch.ones(20, 3), y)
    with pytest.raises(ValueError, match="wanted finite features; came some that are infinite or not a number"):
        fit(x.masked_fill(x > 6, torch.nan), y)


def test_fewer_words_than_folds_is_said():
    x, y = planted(4)
    with pytest.raises(ValueError, match=r"one for each of the 4 words; came 5: take fewer folds, or more examples"):
        cross_validate(x, y, list("abcd"), folds=5)
