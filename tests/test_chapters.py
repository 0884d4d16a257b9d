"""Every chapter: generated from its solution, of one piece with the course, and solved on another model.

On the default model, `tests/browser` runs them as their learner does.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from mechkit.course import authoring
from mechkit.course.exercises import NUMBERS, find_chapter
from mechkit.network import assets

ROOT = Path(__file__).parents[1]
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])


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
    assert "[reading map](reading_map.md)" in cells[-2].source


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


@pytest.mark.slow
@each_solution
def test_the_solution_runs_to_its_end_on_a_tiny_random_gpt2(path, home, tiny_gpt2):
    authoring.run(authoring.read(path), {"MECHKIT_HOME": str(home), "MECHKIT_MODEL": str(tiny_gpt2)})
    assert recorded(home) == dict.fromkeys(exercise_ids(path), "passed")
