"""What tests share: the default model, and a progress file that is nobody's own."""

import pytest

from mechkit.network import assets
from mechkit.network.loading import load_model


@pytest.fixture(autouse=True)
def nobodys_progress(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path_factory.mktemp("progress")))
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)


@pytest.fixture(scope="session")
def default_model():
    """The real weights, fetched and converted on first use; only slow tests ask for them."""
    return load_model(assets.default_model())
