"""The Binder configuration: pins agree with pyproject.toml, and repo2docker renders it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mechkit.course.workspace import FIRST

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()


def test_every_dependency_is_pinned_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {canonicalize_name(need.name): need for need in map(Requirement, project["dependencies"])}
    pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, (line for line in LINES if "==" in line))}
    assert pins.keys() == wanted.keys()
    for name, pin in pins.items():
        [exact] = pin.specifier
        assert wanted[name].specifier.contains(exact.version), f"{pin} is outside {wanted[name]}"


def test_torch_comes_without_cuda_and_the_course_from_the_checkout():
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in LINES
    assert any(re.fullmatch(r"torch==[\d.]+\+cpu", line) for line in LINES)
    assert LINES[-1] == "-e ."


def test_weights_are_fetched_while_the_image_is_built():
    script = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8").splitlines()
    assert script[0] == "#!/bin/bash"
    assert script.index("set -e") < script.index("mechkit fetch")


def test_the_readmes_badge_opens_the_first_chapter():
    [opened] = re.findall(r"mybinder\.org/v2/\S+urlpath=lab/tree/([^)\s]+)", (ROOT / "README.md").read_text("utf-8"))
    assert opened == f"chapters/{FIRST}"
    assert (ROOT / opened).is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="repo2docker does not install on Windows")
def test_repo2docker_renders_it():
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rendered = done.stdout + done.stderr
    assert "python=3.11" in rendered
    assert 'pip install --no-cache-dir -r "binder/requirements.txt"' in rendered
    assert "RUN ./binder/postBuild" in rendered
