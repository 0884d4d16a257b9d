"""No known mistake scores and no right answer is refused, in the course's own exercises."""

import ast
import inspect
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

from mechkit.course import authoring, exercises
from mechkit.course.answer import run_answer
from mechkit.grading.grade import Grader
from mechkit.grading.judge import Answered, Judge, Models, needs_model
from mechkit.grading.sandbox import Limits
from tests.course.exercises.test_exercises import RIGHT

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


@pytest.fixture(scope="module", params=NUMBERS)
def graded(request):
    """A chapter's name and exercises, and a function that grades a notebook of it."""
    chapter = exercises.find_chapter(request.param)
    path = next((ROOT / "chapters").glob(f"{request.param}_*.ipynb"))
    with Grader(path, Limits(), seed=9) as grader:
        yield SimpleNamespace(name=path.name, exercises=chapter.exercises, grade=grader.grade)


@pytest.mark.slow
def test_a_solution_scores_all(graded):
    solved = graded.grade(ROOT / "solutions" / graded.name)
    assert solved["points"] == solved["max_points"] > 0


@pytest.mark.slow
def test_an_untouched_chapter_scores_nothing(graded):
    untouched = graded.grade(ROOT / "chapters" / graded.name)
    assert untouched["points"] == 0
    assert {row["status"] for row in untouched["exercises"]} == {"not attempted"}


@pytest.mark.slow
def test_every_right_answer_is_accepted(graded, tmp_path):
    """Each exercise's first, then each one's second ..., in the chapter's own notebook."""
    found = []
    for turn in range(max(len(RIGHT[each.id]) for each in graded.exercises)):
        chosen = [each for each in graded.exercises if turn < len(RIGHT[each.id])]
        right = {each.id: source_of(RIGHT[each.id][turn], each.name) for each in chosen}
        made = authoring.read(ROOT / "chapters" / graded.name)
        for cell in made.cells:
            cell.source = right.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
        (tmp_path / "right.ipynb").write_text(authoring.to_text(made), encoding="utf-8")
        rows = {row["id"]: row for row in graded.grade(tmp_path / "right.ipynb")["exercises"]}
        found += [(name, rows[name]["message"]) for name in right if rows[name]["status"] != "passed"]
    # what one of a test file's answers calls may be what the exercise teaches
    assert [each for each in found if "this is what you are asked to write" not in each[1]] == []


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
        question = judge.question(exercise)
        for mistake in exercise.mistakes:
            outcomes = [run_answer(mistake.answer, case) for case in question.filled]
            verdict = judge.judge(exercise, Answered(outcomes, complete=True))
            assert verdict.status == "failed"
            assert verdict.mistake == mistake.name or any(outcome.trouble for outcome in outcomes)
