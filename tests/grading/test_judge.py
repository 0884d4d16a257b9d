"""No known mistake scores and no right answer is refused, in the course's own exercises."""

import ast
import inspect
import json
import types
from pathlib import Path

import pytest

from mechkit.course import exercises
from mechkit.course.answer import run_answer
from mechkit.course.checks import fill
from mechkit.grading.grade import Grader
from mechkit.grading.judge import Answered, Judge, Models, needs_model
from mechkit.grading.sandbox import Limits
from tests.course.exercises.test_exercises import RIGHT
from tests.grading.conftest import cell, mark

ROOT = Path(__file__).parents[2]
NUMBERS = exercises.NUMBERS
SEEDS = (1, 2, 12345)


def source_of(function, name):
    """A right answer of a test module as a learner would write it: its imports, its helpers, itself."""
    module = inspect.getmodule(function)
    imports = [ast.unparse(each) for each in ast.parse(inspect.getsource(module)).body if _is_import(each)]
    found, waiting = [], [function]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.append(each)
            named = (vars(module).get(word) for word in _names(each.__code__))
            waiting += [other for other in named if inspect.isfunction(other) and other.__module__ == each.__module__]
    functions = [inspect.getsource(each) for each in reversed(found)]
    return "\n".join([*imports, *functions, f"{name} = {function.__name__}"])


def _is_import(node):
    return isinstance(node, ast.Import | ast.ImportFrom) and "course" not in ast.unparse(node)


def _names(code):
    inner = [name for each in code.co_consts if isinstance(each, types.CodeType) for name in _names(each)]
    return [*code.co_names, *inner]


def notebook(path, chosen, answers):
    made = [cell("import torch\nimport mechkit as mk", id="setup")]
    for exercise in chosen:
        metadata = mark(exercise.id, schema_version=3)
        made.append(cell(answers.get(exercise.id, ""), id=exercise.name, metadata=metadata))
    path.write_text(json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    return path


def refused(number, tmp_path, *, real):
    """What the grader refuses of a chapter's right answers, each exercise's first, then each one's second ..."""
    chosen = [each for each in exercises.find_chapter(number).exercises if needs_model(each) == real]
    template = notebook(tmp_path / "template.ipynb", chosen, {})
    found = []
    with Grader(template, Limits(), seed=4) as grader:
        for turn in range(max((len(RIGHT[each.id]) for each in chosen), default=0)):
            right = {each.id: source_of(RIGHT[each.id][turn % len(RIGHT[each.id])], each.name) for each in chosen}
            record = grader.grade(notebook(tmp_path / "right.ipynb", chosen, right))
            found += [(row["id"], row["message"]) for row in record["exercises"] if row["status"] != "passed"]
    # what one of a test file's answers calls may be what the exercise teaches
    return [each for each in found if "this is what you are asked to write" not in each[1]]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_every_right_answer_is_accepted(number, tmp_path):
    assert refused(number, tmp_path, real=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_every_right_answer_about_the_real_model_is_accepted(number, tmp_path):
    assert refused(number, tmp_path, real=True) == []


def _exercises():
    for number in NUMBERS:
        for exercise in exercises.find_chapter(number).exercises:
            yield pytest.param(exercise, id=exercise.id, marks=[pytest.mark.slow] * needs_model(exercise))


@pytest.fixture(scope="module")
def real():
    return Models()


@pytest.mark.parametrize("exercise", list(_exercises()))
def test_every_known_mistake_is_refused_and_named_whatever_the_seed(exercise, real):
    for seed in SEEDS:
        judge = Judge(seed, real)
        model = real.twin if needs_model(exercise) else None
        cases = [fill(case, model) for case in judge.cases(exercise)]
        for mistake in exercise.mistakes:
            outcomes = [run_answer(mistake.answer, case) for case in cases]
            verdict = judge.judge(exercise, Answered(outcomes, complete=True))
            assert verdict.status == "failed"
            assert verdict.mistake == mistake.name or any(outcome.trouble for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_solution_scores_all_and_its_chapter_nothing(number):
    name = next((ROOT / "chapters").glob(f"{number}_*.ipynb")).name
    with Grader(ROOT / "chapters" / name, Limits(), seed=9) as grader:
        solved, untouched = (grader.grade(ROOT / folder / name) for folder in ("solutions", "chapters"))
    assert solved["points"] == solved["max_points"] > 0
    assert untouched["points"] == 0
    assert {row["status"] for row in untouched["exercises"]} == {"not attempted"}
