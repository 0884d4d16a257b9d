"""Every chapter: generated from its solution, solved, untouched, and on another model."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from mechkit.course import authoring
from mechkit.course.bench import PEAK_MB, slowness, watched_cost
from mechkit.course.exercises import NUMBERS, find_chapter
from mechkit.network import assets

ROOT = Path(__file__).parents[1]
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])

# Of a solved chapter, start to end: the weights stay on disk and are shared, the rest is anonymous. The seconds are
# those of two processors with nothing else to do.
BARS = {"peak_mb": PEAK_MB, "anonymous_mb": 0.9 * 1024}
SECONDS = 90

# A figure is not compared: its bytes differ between releases of matplotlib, and its table, digit for digit, between
# processors wherever the truth is 0. What its caption says is.
SANITIZE = r"""
[figures]
regex: data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+
replace: FIGURE
[tables]
regex: (?s)<details.*?</details>
replace: TABLE
[sizes]
regex: <Figure size [^>]*>
replace: <Figure>
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A progress folder of the test's own, on the default model."""
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def tiny_gpt2(tmp_path_factory):
    """A folder with a GPT-2 of random weights that reads SmolLM2's tokens."""
    folder = tmp_path_factory.mktemp("tiny_gpt2")
    tokenizer = AutoTokenizer.from_pretrained(assets.default_model())
    torch.manual_seed(0)
    sizes = {"n_layer": 4, "n_head": 4, "n_embd": 32, "n_positions": 256, "vocab_size": len(tokenizer)}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def recorded(home):
    """What the lessons recorded: exercise id to status."""
    record = json.loads((home / "progress.json").read_text(encoding="utf-8"))
    return {key: entry["status"] for key, entry in record["exercises"].items()}


def exercise_ids(path):
    return {exercise.id for exercise in find_chapter(path.stem[:2]).exercises}


@each_solution
def test_the_chapter_is_what_its_solution_generates(path):
    assert authoring.check(ROOT, [path.stem]) == []


def test_every_chapter_has_a_solution():
    assert authoring.check(ROOT) == []


@each_solution
def test_notebook_and_catalogue_agree_on_exercises_and_points(path):
    cells = authoring.read(path).cells
    graded = [cell.metadata.nbgrader for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    points = {meta.grade_id.removesuffix("_check"): meta.points for meta in graded}
    assert points == {exercise.id: exercise.points for exercise in find_chapter(path.stem[:2]).exercises}


@each_solution
def test_the_chapter_opens_with_its_question_and_ends_with_the_next_one(path):
    chapter, cells = find_chapter(path.stem[:2]), authoring.read(path).cells
    assert chapter.notebook == path.stem
    assert cells[0].source.startswith(f"# {chapter.number} · {capital(chapter.title)}\n\n**{chapter.question}**\n")
    assert cells[-1].source == "lesson.summary()"
    following = SOLUTIONS[(SOLUTIONS.index(path) + 1) % len(SOLUTIONS)].stem
    after = find_chapter(following[:2])
    assert f"[{after.number} · {capital(after.title)}]({following}.ipynb)" in cells[-2].source
    assert after.question in cells[-2].source or after.number == "00"
    assert "*Kernel ▸ Shut Down Kernel*" in cells[-2].source


def test_the_map_and_the_readme_name_every_chapter():
    [map_] = [cell.source for cell in authoring.read(SOLUTIONS[0]).cells if cell.id == "map"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for chapter in map(find_chapter, NUMBERS):
        facts = f" | {chapter.question} | {chapter.minutes} | "
        here = f"[{chapter.title}]({chapter.notebook}.ipynb)" if chapter.number != "00" else "Start here: you are here"
        assert f"| {chapter.number} | {here}{facts}{', '.join(chapter.needs)} |\n" in map_
        assert f"| {chapter.number} | {chapter.notebook[3:].replace('_', ' ')}{facts}" in readme
        assert all(needed < chapter.number for needed in chapter.needs)


def capital(title):
    return title[0].upper() + title[1:]


def solve(path, folder):
    """Run a solution in a folder of its own, hold it against its stored outputs, and return what it took."""
    folder.mkdir()
    (folder / "sanitize.cfg").write_text(SANITIZE, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # our settings are not for notebooks
    command = [sys.executable, "-m", "pytest", "-c", str(folder / "pytest.ini"), "-p", "no:cacheprovider"]
    command += ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "--color=no", "-q"]
    command += [f"--nbval-sanitize-with={folder / 'sanitize.cfg'}", f"--junitxml={folder / 'cells.xml'}"]
    environment = os.environ | {"MECHKIT_HOME": str(folder / "home")}
    with watched_cost() if sys.platform == "linux" else nullcontext({}) as cost:
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, env=environment)
    print(path.stem, cost)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    suite = ElementTree.parse(folder / "cells.xml").find("testsuite")
    assert int(suite.get("tests")) == sum(cell.cell_type == "code" for cell in authoring.read(path).cells)
    # a dead kernel turns the cells after it into xfails, which count as skipped
    assert int(suite.get("skipped")) == 0
    assert recorded(folder / "home") == dict.fromkeys(exercise_ids(path), "passed")
    assert {name: value for name, value in cost.items() if value > BARS.get(name, value)} == {}
    return cost.get("seconds", 0)


@pytest.mark.alone
@pytest.mark.slow
@each_solution
def test_the_solution_gives_its_stored_outputs_within_its_budget(path, tmp_path):
    """A slower machine is given more, as `slowness` counts; if still too long, a second run decides.

    Other work on the machine only ever adds.
    """
    if solve(path, tmp_path / "first") > SECONDS * slowness():
        assert solve(path, tmp_path / "second") <= SECONDS * slowness()


@pytest.mark.slow
@each_solution
def test_the_untouched_chapter_runs_to_its_end_and_passes_nothing(path, home):
    chapter = authoring.read(ROOT / "chapters" / path.name)
    authoring.run(chapter, {"MECHKIT_HOME": str(home)})
    assert recorded(home) == dict.fromkeys(exercise_ids(path), "not attempted")
    record = json.loads((home / "progress.json").read_text(encoding="utf-8"))
    assert record["predictions"] == record["claims"] == {}


@pytest.mark.slow
@each_solution
def test_the_solution_runs_to_its_end_on_a_tiny_random_gpt2(path, home, tiny_gpt2):
    authoring.run(authoring.read(path), {"MECHKIT_HOME": str(home), "MECHKIT_MODEL": str(tiny_gpt2)})
    assert recorded(home) == dict.fromkeys(exercise_ids(path), "passed")
