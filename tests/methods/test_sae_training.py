"""Known features come back, dead ones are given work, and what breaks off goes on as if it had not."""

import _thread
import json
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechkit.methods import sae_steps
from mechkit.methods.sae import SAE, JumpReLU, ReLU, TopK, sae_loss
from mechkit.methods.sae_metrics import sae_metrics
from mechkit.methods.sae_steps import STATE_FILE
from mechkit.methods.sae_training import train_sae
from mechkit.methods.toy import Toy, independent, random_directions, train_toys

FEATURES, D = 20, 10


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy_data(n=12_000, seed=0):
    """Sparse features along known directions, as in methods/toy: the directions, the features, and their sums."""
    directions = random_directions(FEATURES, D, seed=11)
    on = independent((n, FEATURES), torch.tensor([0.96]), generator(seed))[0]
    return directions, on, on @ directions


def matched(directions, sae):
    """For each true feature the cosine of the closest row, and which row."""
    return (directions @ sae.W_dec.T).max(1)


@pytest.fixture(scope="module")
def toy():
    directions, on, x = toy_data()
    sae = SAE(D, 2 * FEATURES, TopK(2))
    return directions, on, x, train_sae(sae, x, steps=1000, batch=256, rate=3e-3, progress=False)


def test_every_true_feature_is_recovered(toy):
    directions, _, x, training = toy
    assert matched(directions, training.sae).values.min() > 0.95
    assert sae_metrics(training.sae, x).variance_explained > 0.9
    assert training.done == training.planned == 1000


def test_the_pentagon_of_chapter_01_is_taken_apart():
    """Five features in two dimensions, as a trained toy model holds them: each is a row again, at its own length."""
    models = train_toys(Toy(0.9 ** torch.arange(5.0)), [0.95], copies=3, steps=1000, progress=False)
    W, on = models.best[0], models.draw(10_000, seed=3)[0]
    x = on @ W
    sae = SAE(2, 10, TopK(1))
    train_sae(sae, x, steps=1000, batch=256, rate=3e-3, progress=False)
    assert matched(torch.nn.functional.normalize(W, dim=1), sae).values.min() > 0.95
    alone = ((on > 0).sum(1) == 1) & (on.amax(1) > 0.5)
    assert float((sae(x[alone]).norm(dim=1) / x[alone].norm(dim=1)).median()) == pytest.approx(1, abs=0.03)


def test_the_curve_falls_and_counts(toy):
    curve = toy[3]
    assert curve.steps[0] == 0
    assert curve.steps[-1] == 999
    assert curve.loss[-1] < curve.loss[0] / 5
    assert curve.variance_explained[-1] > 0.9 > curve.variance_explained[0]
    assert (curve.l0 <= 2).all()


def test_an_l1_penalty_shrinks_what_it_recovers_and_topk_does_not(toy):
    """One feature alone of size a is rebuilt as `a - λ/2`, the closed form of the penalty; TopK gives a."""
    directions, on, x, training = toy
    shrunk = SAE(D, 2 * FEATURES, ReLU())
    penalty = 1.5
    train_sae(shrunk, x, penalty=penalty, steps=1200, batch=256, rate=3e-3, progress=False)
    match = matched(directions, shrunk)
    assert match.values.median() > 0.95
    alone = (on > 0).sum(1) == 1
    large = alone & (on.amax(1) > 0.6)
    sizes = on[large].amax(1)

    def size(sae):
        return (sae(x[large]) * directions[on[large].argmax(1)]).sum(1)

    scale = (D / x.square().sum(1).mean()) ** 0.5
    lost = float((sizes - size(shrunk)).median())
    assert lost == pytest.approx(float(penalty / 2 / scale), rel=0.5)
    assert abs(float((sizes - size(training.sae)).median())) < lost / 4


def test_jumprelu_learns_thresholds_and_few_features_are_on():
    directions, _, x = toy_data()
    sae = SAE(D, 2 * FEATURES, JumpReLU())
    train_sae(sae, x, penalty=1.0, steps=1000, batch=256, rate=3e-3, progress=False)
    assert sae.threshold.unique().numel() > FEATURES
    assert (sae.threshold >= 0).all()
    assert matched(directions, sae).values.median() > 0.9
    assert sae_metrics(sae, x).l0 < 3


def test_dead_features_come_back_to_life():
    """A dictionary of which most rows can never win: without revival they stay dead."""
    _, _, x = toy_data()
    dead = []
    for revive in (None, 50):
        sae = SAE(D, 2 * FEATURES, TopK(2))
        with torch.no_grad():
            sae.b_enc[5:] = -1e3
        training = train_sae(sae, x, steps=400, batch=256, rate=3e-3, revive=revive, progress=False)
        dead.append(sae_metrics(sae, x).dead)
        assert training.dead[0] >= 35
    assert dead[0] >= 35
    assert dead[1] <= 10


def test_a_revived_feature_begins_afresh():
    """Its direction is an error's, and Adam remembers nothing of it."""
    _, _, x = toy_data(400)
    sae = SAE(D, 2 * FEATURES, TopK(2))
    run = sae_steps.Run(sae, x, x, sae_steps.Settings(100, 64, 1e-3, 0, 5, 0.0))
    with run.in_scaled_units():
        run.advance()
        run.silent[7] = 5
        error = torch.zeros(64, D)
        error[3, 0] = 2.0
        run._revive(x[:64], error)
        assert sae.W_dec[7].tolist() == pytest.approx([1.0, *[0.0] * (D - 1)], abs=1e-6)
        assert run.silent[7] == 0
        for parameter, row in ((sae.W_dec, sae.W_dec[7]), (sae.W_enc, sae.W_enc[:, 7])):
            moments = run.optimiser.state[parameter]["exp_avg"]
            assert not (moments[7] if parameter is sae.W_dec else moments[:, 7]).any()
            assert row.norm() > 0


def test_a_transcoder_rebuilds_another_activation():
    _, on, x = toy_data()
    target = on @ random_directions(FEATURES, 6, seed=5)
    sae = SAE(D, 2 * FEATURES, TopK(2), d_out=6)
    train_sae(sae, x, target=target, steps=1000, batch=256, rate=3e-3, progress=False)
    assert sae_metrics(sae, x, target).variance_explained > 0.9


def test_a_transcoder_starts_by_reading_what_foretells_its_output():
    """Where the output is a linear map of the input, a feature reads that map's row along its own direction."""
    _, _, x = toy_data(3000)
    true_map = torch.randn(D, 6, generator=generator(3))
    target = x @ true_map + 2
    sae = SAE(D, 40, TopK(2), d_out=6)
    run = sae_steps.Run(sae, x + 1, target, sae_steps.Settings(10, 64, 1e-3, 0, None, 0.0))
    torch.testing.assert_close(run._map, true_map, atol=0.05, rtol=0.05)
    with run.in_scaled_units():
        along = torch.nn.functional.normalize(true_map @ sae.W_dec.T, dim=0)
        assert torch.cosine_similarity(sae.W_enc, along, dim=0).min() > 0.99
        scaled = (x + 1) * run.scales[0]
        assert sae.readings(scaled).mean(0).abs().max() < 1e-3  # the mean is read as nothing
    torch.testing.assert_close(sae.b_dec, target.mean(0))


def test_training_is_in_the_models_own_units():
    """Activations a thousand times as large give the same SAE, a thousand times as large."""
    _, _, x = toy_data(2000)
    one, other = SAE(D, 40, TopK(2)), SAE(D, 40, TopK(2))
    train_sae(one, x, steps=50, batch=128, progress=False)
    train_sae(other, 1024 * x, steps=50, batch=128, progress=False)
    torch.testing.assert_close(1024 * one(x), other(1024 * x), rtol=1e-3, atol=1e-2)
    assert one.W_dec.norm(dim=-1).tolist() == pytest.approx([1.0] * 40, abs=1e-5)
    assert not any(parameter.requires_grad for parameter in one.parameters())


def test_the_same_seed_trains_the_same_sae():
    _, _, x = toy_data(1000)
    found = []
    for seed in (0, 0, 1):
        sae = SAE(D, 40, TopK(2))
        train_sae(sae, x, steps=30, batch=128, seed=seed, progress=False)
        found.append(sae.W_dec.clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(("activation", "penalty"), [(TopK(2), 0.0), (ReLU(), 0.5), (JumpReLU(), 0.5)])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, capsys, activation, penalty):
    _, _, x = toy_data(1000)
    settings = dict(penalty=penalty, steps=120, batch=128, revive=20, progress=False)
    whole, broken = SAE(D, 40, activation), SAE(D, 40, activation)
    straight = train_sae(whole, x, **settings)
    first = interrupted(broken, x, at=45, folder=tmp_path, **settings)
    assert 45 <= first.done < 120
    assert f"Interrupted: {first.done} of 120 steps are done" in capsys.readouterr().out
    assert sae_metrics(broken, x).n == 1000  # usable as it is
    again = SAE(D, 40, activation)  # in another process it would be a new one
    second = train_sae(again, x, folder=tmp_path, **settings)
    assert second.done == 120
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(straight.loss, second.loss)
    assert torch.equal(straight.dead, second.dead)


def interrupted(sae, x, *, at, **settings):
    """Train, and press Ctrl-C in the middle of a step."""
    original = sae_steps.rebuild
    calls = []

    def rebuild(*arguments):
        calls.append(1)
        if len(calls) == at:
            _thread.interrupt_main()
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sae_steps, "rebuild", rebuild)
        return train_sae(sae, x, **settings)


def test_a_finished_training_is_read_and_not_made_again(tmp_path):
    _, _, x = toy_data(500)
    first, again = SAE(D, 40, TopK(2)), SAE(D, 40, TopK(2))
    train_sae(first, x, steps=20, batch=128, folder=tmp_path, progress=False)
    kept = (tmp_path / STATE_FILE).stat().st_mtime_ns
    training = train_sae(again, x, steps=20, batch=128, folder=tmp_path, progress=False)
    assert torch.equal(first.W_enc, again.W_enc)
    assert training.done == 20
    assert load_file(tmp_path / STATE_FILE)["silent"].shape == (40,)
    assert kept


def test_another_trainings_state_and_a_damaged_one_are_told(tmp_path):
    _, _, x = toy_data(500)
    train_sae(SAE(D, 40, TopK(2)), x, steps=5, batch=128, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"the state of this training; .* with other rate and seed: name another"):
        train_sae(SAE(D, 40, TopK(2)), x, steps=5, batch=128, rate=1.0, seed=3, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="with other data"):
        train_sae(SAE(D, 40, TopK(2)), x + 1, steps=5, batch=128, folder=tmp_path, progress=False)
    with pytest.raises(ValueError, match="with other sizes"):
        train_sae(SAE(D, 41, TopK(2)), x, steps=5, batch=128, folder=tmp_path, progress=False)
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:500])
    with pytest.raises(ValueError, match=r"is damaged .*: delete it and train again"):
        train_sae(SAE(D, 40, TopK(2)), x, steps=5, batch=128, folder=tmp_path, progress=False)
    save_file({"a": torch.zeros(2)}, tmp_path / STATE_FILE, metadata={"settings": json.dumps({})})
    with pytest.raises(ValueError, match="wanted the state of this training"):
        train_sae(SAE(D, 40, TopK(2)), x, steps=5, batch=128, folder=tmp_path, progress=False)


def test_it_trains_outside_the_main_thread_too():
    _, _, x = toy_data(500)
    done = []
    sae = SAE(D, 40, TopK(2))
    thread = threading.Thread(target=lambda: done.append(train_sae(sae, x, steps=5, batch=128, progress=False).done))
    thread.start()
    thread.join()
    assert done == [5]


def test_bad_activations_are_refused_in_a_sentence():
    _, _, x = toy_data(500)
    bad = x.clone()
    bad[[3, 7], 2] = torch.nan
    with pytest.raises(ValueError, match="wanted finite activations; 2 of 500 have NaN or infinite numbers"):
        train_sae(SAE(D, 40, TopK(2)), bad, progress=False)
    massive = x.clone()
    massive[0] = 1e4
    with pytest.raises(ValueError, match=r"1 of 500 are more than 20 times as long as .* carry 100% of the variance"):
        train_sae(SAE(D, 40, TopK(2)), massive, progress=False)
    with pytest.raises(ValueError, match="wanted at least one activation; came none"):
        train_sae(SAE(D, 40, TopK(2)), x[:0], progress=False)
    with pytest.raises(ValueError, match=r"wanted activations of size 10, .* came \(500, 4\)"):
        train_sae(SAE(D, 40, TopK(2)), x[:, :4], progress=False)


@pytest.mark.parametrize("activation", [ReLU(), JumpReLU()])
def test_without_a_penalty_only_topk_is_sparse(activation):
    _, _, x = toy_data(500)
    with pytest.raises(ValueError, match=r"wanted a penalty above zero for .*; came 0.0: without one nothing makes"):
        train_sae(SAE(D, 40, activation), x, progress=False)


def test_a_transcoder_needs_a_target():
    _, _, x = toy_data(500)
    with pytest.raises(ValueError, match="wanted what the transcoder is to rebuild; came no target"):
        train_sae(SAE(D, 40, TopK(2), d_out=3), x, progress=False)


def test_a_step_goes_downhill():
    _, _, x = toy_data(500)
    sae = SAE(D, 40, TopK(2))
    before = sae_loss(sae, x).item()
    train_sae(sae, x, steps=300, batch=128, progress=False)
    assert sae_loss(sae, x) < before / 2
