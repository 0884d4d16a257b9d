"""Is my answer right, and if not, why?

A check runs an answer on the exercise's cases and compares with the independent reference, in the order
in which a person would look: attempted, type, shape, property, values. A wrong result is then compared
with what each known mistake gives on the same cases; if it agrees with one everywhere, that is the diagnosis.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from mechkit.course.answer import SECONDS, Outcome, run_answer
from mechkit.course.compare import Difference, alike, as_tensor, compare
from mechkit.course.exercise import MODEL, Exercise, Mistake, Tiny, Words
from mechkit.course.scope import borrowed, isolate
from mechkit.methods.words import load_words
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

Status = Literal["passed", "failed", "not attempted"]


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Args:
        stage: Where it stopped: running, type, shape, property or values; "" if it passed.
        message: The sentences to read.
        mistake: The name of the known mistake that was met, or "".
        results: What the answer returned, case by case, up to where it stopped.
        printed: What it wrote on the case at which it stopped.
        usable: A passed answer for later cells: with what it was given here, its results in the reference's form.
    """

    status: Status
    stage: str = ""
    message: str = ""
    mistake: str = ""
    results: tuple = ()
    printed: str = ""
    usable: Callable[..., Any] | None = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass(frozen=True)
class Surroundings:
    """What stands around an answer in its notebook.

    Args:
        imports: What the setup cell imports.
        answers: The answers to earlier exercises by name, each the learner's own or ours.
        notebook: All the notebook's variables, so that a name that is missing can be explained.
        model: What stands in for `MODEL` among a case's arguments.
        seconds: How long one call may take.
    """

    imports: Mapping[str, Any]
    answers: Mapping[str, Callable[..., Any]]
    notebook: Mapping[str, Any]
    model: Any = None
    seconds: float = SECONDS


def check(exercise: Exercise, function: Any, around: Surroundings, seed: int = 0) -> Verdict:
    """Judge an answer on the cases of a seed (0: those that the notebook shows)."""
    if not callable(function):
        came = "nothing: run its cell" if function is None else f"an object of type {type(function).__name__}"
        return Verdict("failed", "type", f"Wanted the function `{exercise.name}`; came {came}.")
    taught = sorted(borrowed(function, exercise.teaches))
    if taught:
        return Verdict("failed", "running", f"It calls `{taught[0]}`: this is what you are asked to write.")
    isolated = isolate(function, {**around.imports, **around.answers})
    cases = [fill(case, around.model) for case in exercise.cases(seed)]
    outcomes = _run_all(isolated, cases, around.seconds)
    if not outcomes[-1].attempted:
        return Verdict("not attempted")
    if outcomes[-1].trouble:
        said = _explain(outcomes[-1].trouble, around)
        return Verdict("failed", "running", said, printed=outcomes[-1].printed)
    verdict = judge_outcomes(exercise, cases, outcomes)
    return replace(verdict, usable=_usable(exercise, isolated, cases[0])) if verdict.passed else verdict


def diagnose(exercise: Exercise, cases: Sequence[tuple], results: Sequence[Any]) -> Mistake | None:
    """The known mistake whose results agree with these on every case, if there is one."""
    for mistake in exercise.mistakes:
        pairs = zip(cases, results, strict=True)
        if all(_agrees(mistake, case, result, exercise.tolerance) for case, result in pairs):
            return mistake
    return None


def _agrees(mistake: Mistake, case: tuple, result: Any, tolerance: float) -> bool:
    theirs = run_answer(mistake.answer, case)
    return not theirs.trouble and theirs.result is not None and compare(result, theirs.result, tolerance) is None


def judge_outcomes(exercise: Exercise, cases: Sequence[tuple], outcomes: Sequence[Outcome]) -> Verdict:
    """The verdict on what came of running an answer on some cases, none of which met trouble."""
    results = tuple(outcome.result for outcome in outcomes)
    for case, outcome in zip(cases, outcomes, strict=True):
        difference = _difference(exercise, case, outcome.result)
        if difference is None:
            continue
        mistake = diagnose(exercise, cases, results)
        message = mistake.sentence if mistake else _sentence(exercise, difference, outcome, case)
        name = mistake.name if mistake else ""
        return Verdict("failed", difference.stage, message, name, results, outcome.printed)
    return Verdict("passed", message=exercise.discussion, results=results)


def _usable(exercise: Exercise, function: Callable[..., Any], case: tuple) -> Callable[..., Any]:
    expected = exercise.reference(*case)
    return functools.wraps(function)(lambda *args, **kwargs: alike(function(*args, **kwargs), expected))


def _difference(exercise: Exercise, case: tuple, result: Any) -> Difference | None:
    expected = exercise.reference(*case)
    difference = compare(result, expected, exercise.tolerance)
    if difference and difference.stage == "values":
        result = as_tensor(result) if isinstance(expected, Tensor) else result
        broken = [each.sentence for each in exercise.properties if not _holds(each.holds, result, case)]
        if broken:
            return Difference("property", broken[0])
    return difference


def _holds(holds: Callable[..., bool], result: Any, case: tuple) -> bool:
    try:
        return bool(holds(result, *case))
    except Exception:  # a property that cannot even be computed does not hold
        return False


def _sentence(exercise: Exercise, difference: Difference, outcome: Outcome, case: tuple) -> str:
    if outcome.result is None and outcome.printed:
        return "It prints its result instead of returning it: end with `return`."
    if (exercise.kind == "finding" or exercise.choice) and difference.stage == "values":
        # what was wanted is not said: it is what the learner is to find, or to choose
        models = [argument.name for argument in case if isinstance(argument, LanguageModel)]
        shown = f"what {models[0]} shows" if models else "what these data give"
        first = f" It first parts at {difference.place}." if difference.place else ""
        return f"Yours is {_short(outcome.result)}: not {shown}.{first}"
    return difference.sentence


def _run_all(function: Callable[..., Any], cases: Sequence[tuple], seconds: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for case in cases:
        outcomes.append(run_answer(function, case, seconds))
        if outcomes[-1].trouble or not outcomes[-1].attempted:
            break
    return outcomes


def _explain(trouble: str, around: Surroundings) -> str:
    missing = [name for name in around.notebook if f"NameError: name '{name}' is not defined" in trouble]
    if not missing:
        return trouble
    if isinstance(around.notebook[missing[0]], ModuleType):
        return f"It uses `{missing[0]}`, which another cell imports: put that import into the answer's own cell."
    return (
        f"It leans on the notebook's variable `{missing[0]}`, which a grader does not have. Take it as an argument, "
        "or make it in the same cell: an answer sees its own cell, the setup cell's imports and earlier exercises."
    )


def fill(case: tuple, model: Any) -> tuple:
    """A case with real models and words for those that stand in: this model for `MODEL`."""
    return tuple(_stand_in(argument, model) for argument in case)


def _stand_in(argument: Any, model: Any) -> Any:
    if argument is MODEL:
        return model
    if isinstance(argument, Words):
        return load_words(argument.limit)
    return _tiny(argument) if isinstance(argument, Tiny) else argument


@functools.lru_cache(maxsize=4)
def _tiny(wanted: Tiny) -> Any:
    return tiny_model(wanted.family, seed=wanted.seed, d_model=wanted.d_model)


def _short(value: Any) -> str:
    try:
        text = repr(value.tolist() if isinstance(value, Tensor) and value.ndim < 2 else value)
    except Exception:  # an object of the learner's own making
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
