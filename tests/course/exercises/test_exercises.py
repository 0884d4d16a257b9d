"""Every exercise judges well: right answers pass however written, and each known mistake is caught and named."""

import ast
import dataclasses
import functools
import importlib
import pkgutil
from pathlib import Path

import pytest

from mechkit.course import authoring, exercises
from mechkit.course.checks import Question, Surroundings, ask
from mechkit.course.exercise import MODEL
from mechkit.course.scope import imports_of

ROOT = Path(__file__).parents[3]
CHAPTERS = [exercises.find_chapter(number) for number in exercises.NUMBERS]
EXERCISES = [exercise for chapter in CHAPTERS for exercise in chapter.exercises]
RIGHT = {
    name: answers
    for module in pkgutil.iter_modules([str(Path(__file__).parent)])
    if module.name.startswith("test_ch")
    for name, answers in importlib.import_module(f"tests.course.exercises.{module.name}").RIGHT.items()
}


@functools.cache
def needs_model(exercise):
    return any(argument is MODEL for case in exercise.cases(0) for argument in case)


def by_speed(pairs):
    """Pairs of an exercise and something of it; those that need the real weights are slow."""
    return [
        pytest.param(exercise, each, id=f"{exercise.id}-{label}", marks=[pytest.mark.slow] * needs_model(exercise))
        for exercise, label, each in pairs
    ]


@pytest.fixture(scope="session")
def questions():
    """Every question asked so far, with what its reference and its mistakes say: they do not change."""
    return {}


@pytest.fixture
def judge(request, questions):
    def run(exercise, answer, seed=0, imports=()):
        model = request.getfixturevalue("default_model") if needs_model(exercise) else None
        if (exercise.id, seed) not in questions:
            # the answers of a test file share one "cell", so what one of them may call another may not
            untaught = dataclasses.replace(exercise, teaches=())
            questions[exercise.id, seed] = Question(untaught, exercise.cases(seed), model)
        earlier = exercises.find_chapter(exercise.chapter).before(exercise)
        around = Surroundings(
            imports=dict(imports),
            answers={each.name: each.ours for each in earlier},
            notebook={},
            seconds=300,  # a crowded machine is not a wrong answer
        )
        return ask(questions[exercise.id, seed], answer, around)

    return run


RIGHTS = [(each, f"{i}", answer) for each in EXERCISES for i, answer in enumerate(RIGHT.get(each.id, []))]
MISTAKES = [(each, mistake.name, mistake) for each in EXERCISES for mistake in each.mistakes]


def test_every_chapter_is_listed():
    modules = {module.name for module in pkgutil.iter_modules(exercises.__path__)}
    assert modules == {f"ch{number}" for number in exercises.NUMBERS}
    assert [chapter.number for chapter in CHAPTERS] == list(exercises.NUMBERS)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda each: each.id)
def test_an_exercise_is_complete(exercise):
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(names) >= 2
    assert len(set(names)) == len(names)
    assert len(exercise.hints) >= 2
    assert len(exercise.cases(1)) >= 1
    assert exercise.level in (1, 2, 3)
    assert exercise.points > 0
    assert exercise.minutes > 0
    assert exercise.discussion
    assert exercise.id == f"{exercise.chapter}_{exercise.name}"
    assert len(RIGHT.get(exercise.id, [])) >= 2, "wanted two differently written right answers"


@pytest.mark.parametrize(("exercise", "answer"), by_speed(RIGHTS))
def test_a_right_answer_passes_however_it_is_written(exercise, answer, judge):
    for seed in (0, 1, 2):  # what the notebook shows, and two hidden draws
        verdict = judge(exercise, answer, seed)
        assert verdict.passed, f"seed {seed}: {verdict}"


@functools.cache
def setup_imports(number):
    """The import statements of a chapter's setup cell, which is its first cell of code."""
    [path] = authoring.solution_paths(ROOT, [number])
    setup = next(cell.source for cell in authoring.read(path).cells if cell.cell_type == "code")
    assert "lesson = mk.lesson(" in setup
    return "\n".join(
        ast.unparse(each) for each in ast.parse(setup).body if isinstance(each, ast.Import | ast.ImportFrom)
    )


@pytest.mark.parametrize(("exercise", "reference"), by_speed((each, "reference", each.reference) for each in EXERCISES))
def test_what_lesson_use_and_lesson_reveal_hand_out_passes(exercise, reference, judge, notebook):
    """What is revealed is pasted into a cell: it has the setup cell's imports and, of earlier answers, ours."""
    setup = notebook.run(setup_imports(exercise.chapter))
    notebook.run(exercises.worked_solution(exercise.id))
    for answer in {reference, exercise.ours, notebook[exercise.name]}:
        verdict = judge(exercise, answer, seed=1, imports=imports_of(setup, notebook))
        assert verdict.passed, f"{verdict}"
    # with the real weights, the visible cases are those of the solved notebook, which tests/browser runs
    if not needs_model(exercise):
        verdict = judge(exercise, notebook[exercise.name], seed=0, imports=imports_of(setup, notebook))
        assert verdict.passed, f"seed 0: {verdict}"


def test_an_exercise_without_a_worked_solution_is_named():
    sentence = "wanted a worked solution of 99_twice; ch99_solutions.json has none: run `mechkit build`"
    with pytest.raises(LookupError, match=sentence):
        exercises.worked_solution("99_twice")


@pytest.mark.parametrize(("exercise", "mistake"), by_speed(MISTAKES))
def test_a_known_mistake_is_caught_and_named(exercise, mistake, judge):
    verdict = judge(exercise, mistake.answer)
    assert verdict.status == "failed"
    assert (verdict.mistake, verdict.message) == (mistake.name, mistake.sentence)


@pytest.mark.parametrize(("exercise", "literal"), by_speed((each, "literal", None) for each in EXERCISES))
def test_the_visible_answer_typed_in_fails_on_hidden_cases(exercise, literal, judge):
    seen = judge(exercise, exercise.reference).results
    assert not all(judge(exercise, lambda *_, seen=seen: seen[0], seed).passed for seed in range(1, 6))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda each: each.number)
def test_a_chapter_has_what_the_design_asks_of_it(chapter):
    levels = [exercise.level for exercise in chapter.exercises]
    assert levels[:2] == [1, 1]
    assert levels.count(3) >= 2
    assert any(exercise.control for exercise in chapter.exercises)
    assert any(exercise.choice for exercise in chapter.exercises)
    for options in (chapter.claim.statements, chapter.claim.evidence, chapter.claim.refuted_by):
        assert sum(option.right for option in options.values()) == 1


def test_an_unknown_chapter_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match="there is no chapter '99'; the chapters are"):
        exercises.find_chapter("99")
