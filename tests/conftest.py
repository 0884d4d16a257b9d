"""Models for every test. Shapes are checked at run time throughout: see `--jaxtyping-packages` in pyproject.toml."""

import os
import signal

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a processor; torch looks when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from mechkit.network import assets
from mechkit.network.loading import load_model
from mechkit.network.sites import FAMILIES
from mechkit.network.tiny import tiny_model


@pytest.fixture(autouse=True)
def own_folders(request, tmp_path, monkeypatch):
    """A learner's progress is never touched, and only slow tests see the real weights."""
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path / "home"))
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("MECHKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def threads(request):
    """Tiny models are quickest on one thread, above all on a machine that has other work to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if request.node.get_closest_marker("slow") else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_models():
    return {name: tiny_model(name) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def tiny(request, tiny_models):
    """A tiny random model of each family in turn."""
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def default_model():
    """The course's model with its real weights; for tests marked slow."""
    return load_model(assets.default_model())


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Ctrl-C raises, also in what a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
