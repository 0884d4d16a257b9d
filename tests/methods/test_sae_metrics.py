"""Metrics against loops, splices against what they must leave alone, baselines against closed forms."""

import pytest
import torch

from mechkit.methods.metrics import loss
from mechkit.methods.sae import SAE, ReLU, TopK
from mechkit.methods.sae_metrics import (
    loss_recovered,
    pca_dictionary,
    random_dictionary,
    sae_metrics,
    splice,
    variance_explained,
)
from mechkit.network.cache import run
from mechkit.network.hooks import edit

TEXTS = ["the store gave a book to Mary", "Alice and Emma went to Paris in France and Tom went to Rome"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_metrics_are_counts_over_tokens():
    sae, x = SAE(4, 8, TopK(2)), torch.randn(5000, 4, generator=generator())
    with torch.no_grad():
        sae.b_enc[3], sae.b_enc[5] = -100.0, 100.0
    found = sae_metrics(sae, x)
    hidden = sae.encode(x)
    counts = [sum(1 for value in row if value > 0) for row in hidden.tolist()]
    assert found.l0 == pytest.approx(sum(counts) / 5000, rel=1e-4)
    assert found.n == 5000
    assert found.density[5] == 1
    assert found.density[3] == 0
    assert found.dead == int((hidden > 0).sum(0).eq(0).sum()) >= 1
    assert found.dense == sum(share > 0.1 for share in (hidden > 0).float().mean(0).tolist())
    expected = 1 - (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
    assert found.variance_explained == pytest.approx(expected.item(), rel=1e-4)


def test_the_mean_explains_nothing_and_a_copy_everything():
    x = torch.randn(50, 4, generator=generator()) + 3
    assert variance_explained(x, x) == 1
    assert variance_explained(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    assert variance_explained(x, torch.zeros_like(x)) < -1


def test_pca_is_sklearns():
    from sklearn.decomposition import PCA

    x = torch.randn(300, 6, generator=generator()) @ torch.randn(6, 6, generator=generator(1)) + 2
    expected = PCA(2).fit(x.numpy())
    found = pca_dictionary(x, 2)
    rebuilt = found.rebuild(x, 2)
    torch.testing.assert_close(rebuilt, torch.tensor(expected.inverse_transform(expected.transform(x.numpy()))))
    assert variance_explained(x, rebuilt) == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-4)


def test_all_components_rebuild_everything_and_the_best_few_of_all_beat_the_first_few():
    x = torch.randn(300, 6, generator=generator())
    every = pca_dictionary(x)
    torch.testing.assert_close(every.rebuild(x, 6), x, atol=1e-4, rtol=1e-4)
    first = variance_explained(x, pca_dictionary(x, 2).rebuild(x, 2))
    assert first < variance_explained(x, every.rebuild(x, 2)) < 1


def test_a_sum_of_chosen_directions_is_the_least_squares_one():
    sae, x = SAE(5, 12, TopK(3)), torch.randn(7, 5, generator=generator())
    dictionary = random_dictionary(sae, x.mean(0), seed=4)
    assert dictionary.directions.shape == (12, 5)
    assert dictionary.directions.norm(dim=-1).tolist() == pytest.approx([1.0] * 12)
    for row, rebuilt in zip(x, dictionary.rebuild(x, 3), strict=True):
        along = dictionary.directions @ (row - x.mean(0))
        used = dictionary.directions[along.abs().argsort(descending=True)[:3]]
        weights = torch.linalg.lstsq(used.T, (row - x.mean(0))[:, None]).solution
        torch.testing.assert_close(rebuilt, x.mean(0) + (weights * used).sum(0), atol=1e-4, rtol=1e-4)
    assert dictionary.rebuild(x[None], 3).shape == (1, 7, 5)


def test_a_copy_in_its_own_place_changes_nothing(tiny):
    ids = tiny.tokens(TEXTS[0])
    before = tiny.hf(ids).logits
    for site in ("resid_post", ("mlp_out", "mlp_out")):
        with edit(tiny, *splice(lambda x: x.clone(), site, 1)):
            torch.testing.assert_close(tiny.hf(ids).logits, before)


def test_position_0_and_massive_tokens_stay_as_they_were(tiny_models):
    lm = tiny_models["llama"]
    _, plain = run(lm, TEXTS[0], "resid_post", 1)
    with edit(lm, *splice(torch.zeros_like, "resid_post", 1)):
        _, spliced = run(lm, TEXTS[0], "resid_post", 1)
    assert torch.equal(spliced["resid_post", 1][0, 0], plain["resid_post", 1][0, 0])
    assert not spliced["resid_post", 1][0, 1:].any()


def test_a_transcoder_reads_one_site_and_replaces_another(tiny_models):
    lm = tiny_models["llama"]
    sae = SAE(32, 40, ReLU(), d_out=32)
    _, plain = run(lm, TEXTS[0], ["mlp_in", "mlp_out"], 1)
    with edit(lm, *splice(sae, ("mlp_in", "mlp_out"), 1)):
        _, spliced = run(lm, TEXTS[0], ["mlp_in", "mlp_out"], 1)
    assert torch.equal(spliced["mlp_in", 1], plain["mlp_in", 1])
    torch.testing.assert_close(spliced["mlp_out", 1][0, 1:], sae(plain["mlp_in", 1][0, 1:]))


def test_the_losses_are_those_of_edited_runs(tiny_models):
    lm, sae = tiny_models["llama"], SAE(32, 40, TopK(4))
    found = loss_recovered(lm, sae, TEXTS, "resid_post", 1)
    rows = [lm.tokens(text) for text in TEXTS]
    held = torch.cat([run(lm, ids, "resid_post", 1)[1]["resid_post", 1][0, 1:] for ids in rows])
    ways = {"clean": lambda x: x, "spliced": sae, "mean": lambda x: held.mean(0).expand_as(x), "zero": torch.zeros_like}
    for name, way in ways.items():

        def change(old, way=way):
            return torch.cat([old[:, :1], way(old[:, 1:])], 1)

        total = 0.0
        for ids in rows:
            with edit(lm, *splice_by_hand(change)):
                total += loss(lm.hf(ids).logits, ids).item() * (ids.shape[1] - 1)
        assert getattr(found, name) == pytest.approx(total / sum(ids.shape[1] - 1 for ids in rows), rel=1e-4)
    assert found.against_mean == pytest.approx((found.mean - found.spliced) / (found.mean - found.clean))
    assert found.against_zero == pytest.approx((found.zero - found.spliced) / (found.zero - found.clean))


def splice_by_hand(change):
    from mechkit.network.hooks import Edit

    return [Edit("resid_post", 1, change)]


def test_a_copy_recovers_all_and_the_mean_nothing(tiny_models):
    lm = tiny_models["llama"]
    assert loss_recovered(lm, lambda x: x, TEXTS, "resid_post", 1).against_mean == pytest.approx(1)
    with pytest.raises(ValueError, match="wanted at least one text to measure the loss on; came none"):
        loss_recovered(lm, lambda x: x, [], "resid_post", 1)
