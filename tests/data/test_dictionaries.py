"""Any model gets dictionaries of the same kinds: shipped where it is the course's own, trained here otherwise."""

import pytest

from mechkit.data import dictionaries as home
from mechkit.data.dictionaries import dictionaries
from mechkit.data.sae import load_features
from mechkit.network.tiny import tiny_model


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(home, "MOST", 600)
    monkeypatch.setattr(home, "STEPS", 20)
    monkeypatch.setattr(home, "SWEEP_STEPS", 5)
    monkeypatch.setattr(home, "load_corpus", lambda: [f"Mary gave John {word} in Paris. " * 4 for word in "abcdefgh"])
    monkeypatch.setattr(home, "HELD", 3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_another_model_gets_small_dictionaries_of_its_own(quick, family):
    lm = tiny_model(family)
    found = dictionaries(lm)
    assert not found.shipped
    assert "trained here, on little text: an SAE of 128 features, a smaller one of 64 features" in repr(found)
    assert found.layer == found.transcoder.layer == lm.n_layers // 2
    assert found.sae.site == "resid_post"
    assert found.transcoder.site == ("mlp_in", "mlp_out")
    assert found.transcoder.is_transcoder
    assert len(found.unseen) == 3
    assert not set(found.seen) & set(found.unseen)
    assert {run.kind for run in found.sweep} == {"ReLU", "TopK"}
    assert all(run.l0 <= run.setting for run in found.sweep if run.kind == "TopK")


@pytest.mark.slow
def test_the_courses_own_model_gets_what_is_shipped(default_model):
    found = dictionaries(default_model)
    assert found.shipped
    assert "shipped with the course" in repr(found)
    assert found.sae.W_dec.equal(load_features("sae").W_dec)
    assert found.small.d_sae < found.sae.d_sae
    assert not set(found.seen) & set(found.unseen)
    assert {run.kind for run in found.sweep} == {"ReLU", "TopK"}
