"""Labels written beforehand: for every feature and for random directions, and the same after a trip through a file."""

import pytest
import torch

from mechkit.data import labels as home
from mechkit.data.labels import DIRECTIONS, SEED, load_labels, make_labels, save_labels
from mechkit.methods.sae import SAE, TopK
from mechkit.methods.sae_activations import gather
from mechkit.methods.sae_features import label_from_tokens
from mechkit.methods.toy import random_directions
from mechkit.network.tiny import tiny_model


@pytest.fixture(scope="module")
def written():
    lm = tiny_model()
    sae = SAE(lm.d_model, 64, TopK(4)).requires_grad_(False)
    acts = gather(lm, [f"Mary gave {name} a book in Paris" for name in ("John", "Tom", "Alice", "Emma")])
    return lm, sae, acts, make_labels(lm, sae, acts, progress=False)


def test_every_feature_that_is_on_somewhere_has_the_label_of_its_own_activations(written, monkeypatch):
    lm, sae, acts, labels = written
    hidden = sae.encode(acts.x)
    assert len(labels.features) == 64
    assert labels.tokens == len(acts)
    for feature, label in enumerate(labels.features):
        assert (label is not None) == bool((hidden[:, feature] > 0).any())
        assert label is None or label == label_from_tokens(hidden, acts, feature, lm)
    monkeypatch.setattr(home, "COLUMNS", 7)  # some at a time gives the same
    assert make_labels(lm, sae, acts, progress=False).features == labels.features


def test_random_directions_are_on_as_often_as_the_median_feature(written):
    _, sae, acts, labels = written
    assert labels.density == pytest.approx(float((sae.encode(acts.x) > 0).float().mean(0).median()))
    assert len(labels.directions) == DIRECTIONS
    shadows = acts.x @ random_directions(DIRECTIONS, sae.d_in, seed=SEED).T
    n = round(labels.density * len(acts))
    threshold = shadows.sort(0, descending=True).values[n]
    for i, label in enumerate(labels.directions):
        largest = float((shadows[:, i] - threshold[i]).max())
        assert label is None or label.limit == pytest.approx(0.3 * largest, rel=1e-4)


def test_a_file_gives_back_what_was_written_and_is_the_same_each_time(written, tmp_path):
    *_, labels = written
    for name in ("one", "two"):
        save_labels(labels, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = load_labels(tmp_path / "one")
    assert (read.tokens, read.density) == (labels.tokens, labels.density)
    for mine, theirs in zip([*read.features, *read.directions], [*labels.features, *labels.directions], strict=True):
        assert (mine is None) == (theirs is None)
        if mine:
            assert (mine.tokens, mine.back, mine.text) == (theirs.tokens, theirs.back, theirs.text)
            assert mine.limit == pytest.approx(theirs.limit, rel=1e-4)


@pytest.mark.slow
def test_the_shipped_labels_are_those_of_the_shipped_features_and_beat_random_directions(default_model):
    labels, sae = load_labels(), home.load_features("sae", default_model)
    assert len(labels.features) == sae.d_sae
    acts = gather(default_model, home.sae_texts(12, held_out=True), "resid_post", sae.layer)
    hidden = sae.encode(acts.x)
    threshold = labels.density
    shadows = acts.x @ random_directions(DIRECTIONS, sae.d_in, seed=SEED).T
    anything = (shadows - shadows.sort(0, descending=True).values[round(threshold * len(acts))]).relu()
    assert _mean(labels.features[:300], hidden, acts) > _mean(labels.directions, anything, acts) + 0.05


def _mean(labels, values, acts):
    scores = []
    for feature, label in enumerate(labels):
        truth = values[:, feature] > label.limit if label else torch.zeros(len(acts), dtype=torch.bool)
        if truth.any():
            scores.append(score(label.predict(acts), truth))
    return sum(scores) / len(scores)


def score(predicted, truth):
    return (float(predicted[truth].float().mean()) + float((~predicted[~truth]).float().mean())) / 2
