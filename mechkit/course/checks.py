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

import torch
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


class Question:
    """An exercise asked with some cases, and what is known of them: each thing computed once, when first needed.

    Args:
        cases: Arguments with stand-ins, as `exercise.cases` gives them.
        model: What stands in for `MODEL`.
    """

    def __init__(self, exercise: Exercise, cases: Sequence[tuple], model: Any = None):
        self.exercise, self.cases = exercise, cases
        self._model = model
        self._expected: dict[int, Any] = {}
        self._mistaken: dict[tuple[str, int], Outcome] = {}

    @functools.cached_property
    def filled(self) -> list[tuple]:
        """The cases with real models and words."""
        return [fill(case, self._model) for case in self.cases]

    def expected(self, number: int) -> Any:
        """What the reference says to case `number`."""
        if number not in self._expected:
            with torch.no_grad():
                self._expected[number] = self.exercise.reference(*self.filled[number])
        return self._expected[number]

    def mistaken(self, mistake: Mistake, number: int) -> Outcome:
        """What a known mistake makes of case `number`."""
        key = mistake.name, number
        if key not in self._mistaken:
            self._mistaken[key] = run_answer(mistake.answer, self.filled[number])
        return self._mistaken[key]

    def diagnose(self, results: Sequence[Any]) -> Mistake | None:
        """The known mistake whose results agree with these on every case, if there is one."""
        for mistake in self.exercise.mistakes:
            if all(self._agrees(mistake, number, result) for number, result in enumerate(results)):
                return mistake
        return None

    def parting(self, results: Sequence[Any]) -> tuple[int, Difference] | None:
        """The first case at which results part from what was wanted, and how; None if they never do."""
        differences = ((number, self._difference(number, result)) for number, result in enumerate(results))
        return next(((number, each) for number, each in differences if each), None)

    def _difference(self, number: int, result: Any) -> Difference | None:
        expected = self.expected(number)
        difference = compare(result, expected, self.exercise.tolerance)
        if difference and difference.stage == "values":
            result = as_tensor(result) if isinstance(expected, Tensor) else result
            case = self.filled[number]
            broken = [each.sentence for each in self.exercise.properties if not _holds(each.holds, result, case)]
            if broken:
                return Difference("property", broken[0])
        return difference

    def _agrees(self, mistake: Mistake, number: int, result: Any) -> bool:
        theirs = self.mistaken(mistake, number)
        if theirs.trouble or theirs.result is None:
            return False
        return compare(result, theirs.result, self.exercise.tolerance) is None


def check(exercise: Exercise, function: Any, around: Surroundings, seed: int = 0) -> Verdict:
    """Judge an answer on the cases of a seed (0: those that the notebook shows)."""
    return ask(Question(exercise, exercise.cases(seed), around.model), function, around)


def ask(question: Question, function: Any, around: Surroundings) -> Verdict:
    """Judge an answer to a question."""
    exercise = question.exercise
    if not callable(function):
        came = "nothing: run its cell" if function is None else f"an object of type {type(function).__name__}"
        return Verdict("failed", "type", f"Wanted the function `{exercise.name}`; came {came}.")
    taught = sorted(borrowed(function, exercise.teaches))
    if taught:
        return Verdict("failed", "running", f"It calls `{taught[0]}`: this is what you are asked to write.")
    isolated = isolate(function, {**around.imports, **around.answers})
    outcomes = _run_all(isolated, question.filled, around.seconds)
    if not outcomes[-1].attempted:
        return Verdict("not attempted")
    if outcomes[-1].trouble:
        said = _explain(outcomes[-1].trouble, around)
        return Verdict("failed", "running", said, printed=outcomes[-1].printed)
    verdict = _judge(question, outcomes)
    return replace(verdict, usable=_usable(isolated, question.expected(0))) if verdict.passed else verdict


def _judge(question: Question, outcomes: Sequence[Outcome]) -> Verdict:
    """The verdict on what came of running an answer on every case, none of which met trouble."""
    results = tuple(outcome.result for outcome in outcomes)
    parting = question.parting(results)
    if parting is None:
        return Verdict("passed", message=question.exercise.discussion, results=results)
    (number, difference), mistake = parting, question.diagnose(results)
    message = mistake.sentence if mistake else wrong_because(question, number, difference, outcomes[number])
    name = mistake.name if mistake else ""
    return Verdict("failed", difference.stage, message, name, results, outcomes[number].printed)


def _usable(function: Callable[..., Any], expected: Any) -> Callable[..., Any]:
    return functools.wraps(function)(lambda *args, **kwargs: alike(function(*args, **kwargs), expected))


def _holds(holds: Callable[..., bool], result: Any, case: tuple) -> bool:
    try:
        return bool(holds(result, *case))
    except Exception:  # a property that cannot even be computed does not hold
        return False


def wrong_because(question: Question, number: int, difference: Difference, outcome: Outcome) -> str:
    """What to tell of a wrong result that agrees with no known mistake."""
    exercise = question.exercise
    if outcome.result is None and outcome.printed:
        return "It prints its result instead of returning it: end with `return`."
    if (exercise.kind == "finding" or exercise.choice) and difference.stage == "values":
        # what was wanted is not said: it is what the learner is to find, or to choose
        models = [each.name for each in question.filled[number] if isinstance(each, LanguageModel)]
        shown = f"what {models[0]} shows" if models else "what these data give"
        shown += ", a small random model on which your function has to work as well" * shown.startswith("what tiny ")
        first = f" It first differs at {difference.place}." if difference.place else ""
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
        value = value.tolist() if isinstance(value, Tensor) and value.ndim < 2 else value
        text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    except Exception:  # an object of the learner's own making
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
