"""A browser and JupyterLab servers, which end with the tests of a module, whatever happens in them."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from mechkit.network import assets
from tests.browser.jupyter import Lab

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
OPTIONS += ["--disable-sync", "--no-first-run"]


@pytest.fixture(scope="module")
def browser():
    """The Chromium that the system has; without one, tests are skipped, or fail where MECHKIT_BROWSER=required."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        stop = pytest.fail if os.environ.get("MECHKIT_BROWSER") == "required" else pytest.skip
        stop("wanted Chromium on the PATH for the browser tests; install it, as in `apt-get install chromium`")
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield made
        made.close()


@pytest.fixture(scope="module")
def new_lab(tmp_path_factory):
    """Start a server, whose learner has done nothing yet."""
    assets.default_model()  # as `mechkit lab` does
    labs = []

    def start():
        labs.append(Lab(tmp_path_factory.mktemp("lab")))
        return labs[-1]

    yield start
    for lab in labs:
        lab.close()


@pytest.fixture(scope="module")
def lab(new_lab):
    return new_lab()


@pytest.fixture
def pictures(tmp_path):
    """Where screenshots go: the folder that MECHKIT_SCREENSHOTS names, else the test's own."""
    folder = Path(os.environ.get("MECHKIT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
