"""The toy model against closed forms: pairs, pentagons, and the best that a linear map can do."""

import math

import pytest
import torch

from mechkit.methods.toy import (
    Toy,
    anticorrelated,
    correlated,
    dimensionality,
    independent,
    interference,
    is_represented,
    near_orthogonal,
    random_directions,
    train_toys,
)

IMPORTANCE = 0.9 ** torch.arange(5.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def polygon(corners):
    angles = 2 * math.pi * torch.arange(float(corners)) / corners
    return torch.stack([angles.cos(), angles.sin()], -1)


@pytest.fixture(scope="module")
def trained():
    return train_toys(Toy(IMPORTANCE), [0.0, 0.8, 0.98], copies=4, steps=1200, progress=False)


def test_features_are_on_as_often_as_sparsity_says_and_uniform_when_on():
    x = independent((40_000, 3), torch.tensor([0.0, 0.9]), generator())
    assert x.shape == (2, 40_000, 3)
    assert (x > 0).float().mean((1, 2)).tolist() == pytest.approx([1.0, 0.1], abs=0.01)
    assert float(x[1][x[1] > 0].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(x[1][x[1] > 0].var()) == pytest.approx(1 / 12, abs=0.01)


@pytest.mark.parametrize(("sampler", "together"), [(independent, 0.04), (correlated, 0.2), (anticorrelated, 0.0)])
def test_pairs_are_on_together_as_often_as_their_kind_says(sampler, together):
    on = sampler((60_000, 4), torch.tensor([0.8]), generator())[0] > 0
    assert on.float().mean(0).tolist() == pytest.approx([0.2] * 4, abs=0.01)
    assert float((on[:, 0] & on[:, 1]).float().mean()) == pytest.approx(together, abs=0.01)
    assert float((on[:, 1] & on[:, 2]).float().mean()) == pytest.approx(0.04, abs=0.01)


def test_a_reconstruction_is_the_loop_of_the_paper():
    toy, W, b = Toy(IMPORTANCE), torch.randn(5, 2, generator=generator()), torch.randn(5, generator=generator(1))
    x = torch.rand(6, 5, generator=generator(2))
    expected = []
    for row in x.tolist():
        hidden = [sum(row[i] * float(W[i, k]) for i in range(5)) for k in range(2)]
        back = [sum(hidden[k] * float(W[i, k]) for k in range(2)) + float(b[i]) for i in range(5)]
        expected.append([max(0.0, value) for value in back])
    torch.testing.assert_close(toy.reconstruct(x, W, b), torch.tensor(expected))


def test_the_loss_weighs_errors_by_importance():
    toy = Toy(torch.tensor([1.0, 0.5, 0.25]))
    x, output = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 4.0]])
    assert float(toy.loss(x, output)) == pytest.approx((1 + 0.5 * 4 + 0.25 * 16) / 6)


def test_dense_features_get_an_orthogonal_pair_and_sparse_ones_a_pentagon(trained):
    assert is_represented(trained.best).sum(-1).tolist() == [2, 4, 5]
    dense, _, sparse = trained.best
    assert dimensionality(dense).tolist() == pytest.approx([1, 1, 0, 0, 0], abs=0.06)
    assert abs(float(torch.cosine_similarity(dense[0], dense[1], dim=0))) < 0.05
    assert dimensionality(sparse).tolist() == pytest.approx([0.4] * 5, abs=0.02)
    unit = sparse / sparse.norm(dim=-1, keepdim=True)
    cosines = (unit @ unit.T).sort(descending=True).values
    assert cosines[:, 1:3].flatten().tolist() == pytest.approx([0.309] * 10, abs=0.03)
    assert cosines[:, 3:].flatten().tolist() == pytest.approx([-0.809] * 10, abs=0.03)


def test_between_them_stand_two_opposite_pairs(trained):
    shares = dimensionality(trained.best[1])
    assert sorted(shares.tolist()) == pytest.approx([0, 0.5, 0.5, 0.5, 0.5], abs=0.03)


def test_without_a_relu_the_most_important_features_win_at_every_sparsity():
    models = train_toys(Toy(0.7 ** torch.arange(5.0), kind="linear"), [0.0, 0.98], copies=2, steps=800, progress=False)
    assert is_represented(models.W).tolist() == [[[True, True, False, False, False]] * 2] * 2
    # the loss of keeping two of five: the others' variances, weighted
    off = models.sparsity
    variance = (1 - off) / 3 - ((1 - off) / 2) ** 2
    expected = variance * (0.7 ** torch.arange(2.0, 5)).sum() / 5
    torch.testing.assert_close(models.loss, expected[:, None].expand(2, 2), rtol=0.1, atol=0)


def test_the_same_seed_trains_the_same_model():
    toy = Toy(IMPORTANCE)
    one, two, other = (train_toys(toy, [0.5], copies=2, steps=5, seed=seed, progress=False).W for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_the_best_copy_is_the_one_with_the_lowest_loss(trained):
    for row, (losses, W) in enumerate(zip(trained.loss, trained.W, strict=True)):
        assert torch.equal(trained.best[row], W[losses.tolist().index(losses.min())])


def test_fresh_inputs_have_the_models_sparsity(trained):
    x = trained.draw(5000, seed=3)
    assert (x > 0).float().mean((1, 2)).tolist() == pytest.approx([1, 0.2, 0.02], abs=0.02)
    assert torch.equal(x, trained.draw(5000, seed=3))


@pytest.mark.parametrize(("corners", "share"), [(3, 2 / 3), (4, 1 / 2), (5, 2 / 5), (8, 1 / 4)])
def test_a_polygon_shares_its_plane_evenly(corners, share):
    assert dimensionality(polygon(corners)).tolist() == pytest.approx([share] * corners)
    assert interference(polygon(corners)).tolist() == pytest.approx([corners / 2 - 1] * corners, abs=1e-6)


def test_dimensionality_is_the_papers_sum_and_ignores_the_length_of_all():
    W = torch.randn(3, 6, 4, generator=generator())
    for instance in W:
        for i, row in enumerate(instance):
            unit = row / row.norm()
            total = sum(float(unit @ other) ** 2 for other in instance)
            assert float(dimensionality(instance)[i]) == pytest.approx(float(row @ row) / total, rel=1e-4)
            assert float(interference(instance)[i]) == pytest.approx(total - float(row @ row), rel=1e-3, abs=1e-4)
    torch.testing.assert_close(dimensionality(5 * W), dimensionality(W))


def test_a_feature_of_length_zero_has_no_dimension_and_no_interference():
    W = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert dimensionality(W).tolist() == [1, 0]
    assert interference(W).tolist() == [0, 0]


def test_kept_vectors_are_nearly_orthogonal_and_no_other_could_join():
    vectors = random_directions(200, 12, seed=0)
    assert vectors.norm(dim=-1).tolist() == pytest.approx([1] * 200, abs=1e-5)
    kept = near_orthogonal(vectors, 0.4)
    cosines = (vectors @ vectors[kept].T).abs()
    assert float((cosines[kept] - torch.eye(len(kept))).max()) <= 0.4
    left_out = sorted(set(range(200)) - set(kept.tolist()))
    assert bool((cosines[left_out].max(-1).values > 0.4).all())


def test_exactly_orthogonal_vectors_are_as_many_as_dimensions():
    assert near_orthogonal(torch.cat([torch.eye(7), random_directions(50, 7, seed=0)]), 0.0).tolist() == [*range(7)]


def test_how_many_fit_grows_much_faster_than_the_dimension():
    small, large = (len(near_orthogonal(random_directions(2000, d, seed=0), 0.3)) for d in (16, 64))
    assert small < 2 * 16
    assert large > 3 * 64


@pytest.mark.parametrize(("d_hidden", "came"), [(5, "d_hidden = 5 for 5 features"), (0, "d_hidden = 0")])
def test_room_for_every_feature_is_refused(d_hidden, came):
    with pytest.raises(ValueError, match=f"wanted fewer hidden dimensions than features.*came {came}.*lower d_hidden"):
        Toy(IMPORTANCE, d_hidden)


def test_an_unknown_kind_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match="no toy model of kind 'tanh'; the kinds are relu, linear, neurons"):
        Toy(IMPORTANCE, kind="tanh")


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 1.5, math.nan])
def test_a_sparsity_at_which_nothing_can_be_learned_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"wanted a sparsity of at least 0 and below 1; came .*none is ever on"):
        train_toys(Toy(IMPORTANCE), [0.5, sparsity], steps=1, progress=False)


def test_features_that_never_meet_cannot_be_dense():
    with pytest.raises(ValueError, match=r"wanted a sparsity of at least 0\.5; came 0\.2: two features"):
        anticorrelated((10, 4), torch.tensor([0.2, 0.9]), generator())


@pytest.mark.parametrize("sampler", [correlated, anticorrelated])
def test_an_odd_number_of_features_has_no_pairs(sampler):
    with pytest.raises(ValueError, match="wanted an even number of features, to pair them up; came 5"):
        sampler((10, 5), torch.tensor([0.9]), generator())


def test_a_vector_without_a_direction_is_named():
    with pytest.raises(ValueError, match="vector 2 has length 0: leave it out"):
        near_orthogonal(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), 0.1)
