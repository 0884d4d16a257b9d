"""The package as it is installed and as the README describes it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import mechkit

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "matplotlib", "numpy", "IPython", "jupyterlab")


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_mechkit_is_this_repository():
    assert ROOT in Path(mechkit.__file__).parents


def test_importing_mechkit_loads_nothing_heavy_and_says_nothing():
    loaded = f"sorted(set({HEAVY}) & set(sys.modules))"
    assert python(f"import mechkit, sys; print({loaded})") == "[]\n"


def test_every_public_name_resolves():
    assert len(set(mechkit.__all__)) == len(mechkit.__all__)
    assert all(getattr(mechkit, name) is not None for name in mechkit.__all__)
    assert dir(mechkit) == sorted(mechkit.__all__)


def test_the_version_is_the_projects():
    assert mechkit.__version__ == project()["version"]


def test_the_readmes_badge_opens_the_repository_that_pyproject_names():
    [repository] = re.findall(r"https://github\.com/([\w-]+/[\w-]+)", project()["urls"]["Repository"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"mybinder\.org/v2/gh/([\w-]+/[\w-]+)/", readme) == [repository]
    assert f"{repository.split('/')[0]}/" in repository


def test_the_readme_names_every_top_level_entry():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    visible = {
        "pyproject.toml",
        "LICENSE",
        "CHANGELOG.md",
        "chapters",
        "mechkit",
        "solutions",
        "tests",
        "binder",
    }
    named = set(re.findall(r"^\| `([\w.]+)/?` \|", readme, re.MULTILINE))
    assert named == visible
    assert all((ROOT / name).exists() for name in visible)


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
