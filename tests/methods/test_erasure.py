"""Erasure against the concept-erasure package and against what it promises; edits against a plain run."""

import pytest
import torch
from concept_erasure import LeaceFitter

from mechkit.methods.erasure import add_direction, fit_leace, mean_difference, project_out, random_like
from mechkit.methods.probes import accuracy, fit_logistic
from mechkit.network.cache import run
from mechkit.network.hooks import edit
from mechkit.network.tiny import tiny_model


def data(count=300, size=8, *, classes=2, seed=0):
    """Correlated coordinates, with the classes apart along two of them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.randn(count, size, generator=generator) @ torch.randn(size, size, generator=generator) + 4
    x[:, 0] += 3 * y
    x[:, 1] -= 2 * (y == 1)
    return x, y


@pytest.mark.parametrize("classes", [2, 3])
def test_leace_is_the_packages(classes):
    x, y = data(classes=classes)
    one_hot = torch.nn.functional.one_hot(y).double()
    oracle = LeaceFitter.fit(x.double(), one_hot, method="leace", shrinkage=False).eraser(x.double())
    torch.testing.assert_close(fit_leace(x, y)(x).double(), oracle, atol=1e-3, rtol=1e-3)


def test_after_leace_the_means_agree_and_no_linear_probe_beats_chance():
    x, y = data()
    erased = fit_leace(x, y)(x)
    assert accuracy(fit_logistic(x, y, strength=10.0), x, y) > 0.85
    assert mean_difference(erased, y).norm() < 1e-4
    assert abs(accuracy(fit_logistic(erased, y, strength=10.0), erased, y) - 0.5) < 0.05
    torch.testing.assert_close(fit_leace(x, y)(erased), erased, atol=1e-3, rtol=1e-3)


def test_leace_changes_less_than_projecting_out_the_mean_difference():
    """In its own measure, that of whitened distances, it is the least change of all that erase."""
    x, y = data()
    spread = torch.linalg.inv(torch.cov(x.T))

    def change(erased):
        gap = erased - x
        return (gap @ spread * gap).sum(-1).mean()

    projected = project_out(x, mean_difference(x, y), around=x.mean(0))
    assert change(fit_leace(x, y)(x)) < change(projected)


def test_leace_with_more_dimensions_than_examples():
    x, y = data(count=20, size=50)
    erased = fit_leace(x, y)(x)
    assert mean_difference(erased, y).norm() < 1e-3


@pytest.mark.parametrize("shrinkage", [0.1, 0.9, 1.0])
def test_whatever_the_shrinkage_the_means_agree(shrinkage):
    x, y = data(count=40, size=50)
    assert mean_difference(fit_leace(x, y, shrinkage=shrinkage)(x), y).norm() < 1e-3


def test_full_shrinkage_projects_the_mean_difference_out():
    x, y = data()
    projected = project_out(x, mean_difference(x, y), around=x.mean(0))
    torch.testing.assert_close(fit_leace(x, y, shrinkage=1.0)(x), projected, atol=1e-3, rtol=1e-3)


def test_projecting_out_leaves_nothing_along_and_everything_across():
    x, _ = data()
    direction = torch.randn(8, generator=torch.Generator().manual_seed(1))
    gone = project_out(x, 3 * direction)
    assert (gone @ direction).abs().max() < 1e-4
    torch.testing.assert_close(project_out(gone, direction), gone, atol=1e-5, rtol=1e-5)
    centred = project_out(x, direction, around=x.mean(0))
    torch.testing.assert_close(centred.mean(0), x.mean(0), atol=1e-4, rtol=1e-4)
    loop = torch.stack([row - (row @ direction) / (direction @ direction) * direction for row in x])
    torch.testing.assert_close(gone, loop, atol=1e-4, rtol=1e-4)


def test_the_mean_difference_leads_from_class_0_to_class_1():
    x, y = torch.tensor([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0]]), torch.tensor([0, 0, 1])
    assert mean_difference(x, y).tolist() == [4.0, 4.0]


def test_a_random_direction_has_the_same_length_and_a_seed():
    direction = torch.full((100,), 0.3)
    assert random_like(direction, seed=1).norm() == pytest.approx(3.0)
    assert torch.equal(random_like(direction, seed=1), random_like(direction, seed=1))
    assert abs(float(random_like(direction, seed=1) @ direction)) < 3


def test_an_edit_adds_or_erases_there_and_nowhere_else():
    lm = tiny_model()
    ids = torch.tensor([[0, 9, 20, 31, 7]])
    _, before = run(lm, ids, sites="resid_post")
    direction = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    eraser = fit_leace(torch.randn(60, lm.d_model, generator=torch.Generator().manual_seed(2)), torch.arange(60) % 2)
    old = before["resid_post", 1]
    for place, wanted in (
        (add_direction(direction, 1, strength=2.0, position=-1), old[:, -1] + 2 * direction),
        (eraser.edit(1, position=-1), eraser(old[:, -1])),
    ):
        with edit(lm, place):
            _, after = run(lm, ids, sites="resid_post")
        torch.testing.assert_close(after["resid_post", 1][:, -1], wanted)
        assert torch.equal(after["resid_post", 1][:, :-1], old[:, :-1])
        assert torch.equal(after["resid_post", 0], before["resid_post", 0])


def test_a_direction_of_length_zero_is_said():
    nothing, x = torch.zeros(8), torch.ones(3, 8)
    for use in (lambda: add_direction(nothing, 0), lambda: random_like(nothing), lambda: project_out(x, nothing)):
        with pytest.raises(ValueError, match="wanted a direction; came a vector of length zero: are the two means"):
            use()


def test_a_layer_that_does_not_exist_is_said():
    lm = tiny_model()
    with (
        pytest.raises(ValueError, match=r"layer"),
        edit(lm, add_direction(torch.ones(lm.d_model), lm.n_layers)),
    ):
        pass


def test_double_precision_is_kept_or_fitted_to_what_is_edited():
    x, y = data()
    wide, direction = x.double(), mean_difference(x, y)
    for erased, single in (
        (project_out(wide, direction, around=x.mean(0)), project_out(x, direction, around=x.mean(0))),
        (fit_leace(wide, y)(wide), fit_leace(x, y)(x)),
    ):
        assert erased.dtype == torch.float64
        torch.testing.assert_close(erased.float(), single, atol=1e-3, rtol=1e-3)
    lm = tiny_model()
    push = torch.ones(lm.d_model, dtype=torch.float64)
    with edit(lm, add_direction(push, 1)):
        _, seen = run(lm, torch.tensor([[0, 9]]), sites="resid_post")
    assert seen["resid_post", 2].dtype == torch.float32


def test_one_class_and_constant_features_are_said():
    x, y = data(20)
    for use in (mean_difference, fit_leace):
        with pytest.raises(ValueError, match="at least two classes; came class 0 only"):
            use(x, torch.zeros(20, dtype=torch.long))
    with pytest.raises(ValueError, match="wanted features that differ between examples"):
        fit_leace(torch.ones(20, 8), y)
