"""Is this answer right? Asked where no line of a learner's runs.

The judge keeps the references, the known mistakes and the hidden cases, computes each expected value once for a
whole class, and compares it with what came out of the sandbox. Findings are asked of a twin of the model.
"""

import builtins
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mechkit.course.answer import Outcome
from mechkit.course.checks import Question, Verdict, fill, wrong_because
from mechkit.course.compare import Difference, compare
from mechkit.course.exercise import MODEL, Exercise
from mechkit.data.corpus import load_corpus
from mechkit.grading.inside.twin import permute_heads
from mechkit.methods.affine import affine_lens, keep_affine_lens, save_affine_lens
from mechkit.network.assets import default_model
from mechkit.network.loading import load_model
from mechkit.network.model import LanguageModel

TYPED = (
    "Yours is what the notebook's model shows, but not what this one does: the grader asks on a twin of the model, "
    "with the same output and its heads in another order, and on other prompts. Compute it from the arguments "
    "instead of typing it in."
)
ELSEWHERE = "It is not right on an example that the notebook does not show."
STAGES = {
    "type": "On an example that the notebook does not show it returns something of another type than was asked for.",
    "shape": "On an example that the notebook does not show its shape is not what was asked for.",
}


class Models:
    """The model that findings are about, and its twin, loaded when first asked for.

    Args:
        name: As for `load_model`.
        seed: Of the twin's heads.
    """

    def __init__(self, name: str | None = None, seed: int = 1):
        self.name, self.seed = name, seed

    @cached_property
    def path(self) -> str:
        """What a sandbox loads."""
        name = self.name or os.environ.get("MECHKIT_MODEL")
        if name and Path(name).expanduser().is_dir():
            return str(Path(name).expanduser().absolute())
        return name or str(default_model())

    @cached_property
    def original(self) -> LanguageModel:
        return load_model(self.path)

    @cached_property
    def twin(self) -> LanguageModel:
        made = load_model(self.path)
        permute_heads(made, self.seed)
        return made

    def fit_lens(self, path: Path) -> None:
        """Give the twin the affine lens of the original, which has the same streams, and write it to a file."""
        texts = load_corpus()
        lens = affine_lens(self.original, texts)
        keep_affine_lens(self.twin, texts, lens)
        save_affine_lens(lens, path)


@dataclass(frozen=True)
class Answered:
    """What a sandbox reported on one answer.

    Args:
        outcomes: One for each case, up to the first trouble.
        trouble: Why there is no outcome at all, in a sentence.
        borrowed: Names that the exercise teaches and the answer takes from elsewhere.
        complete: Whether every case was answered.
    """

    outcomes: Sequence[Outcome] = ()
    trouble: str = ""
    borrowed: Sequence[str] = ()
    complete: bool = False


class Judge:
    """Judges answers to exercises, for a class that shares hidden cases.

    Args:
        seed: Of the hidden cases; not 0.
        models: For the cases that ask about a real model.
    """

    def __init__(self, seed: int, models: Models):
        self.seed, self.models = seed, models
        self._asked: dict[str, _Asked] = {}
        self._lock = threading.RLock()  # torch's settings and random numbers are everybody's

    def question(self, exercise: Exercise) -> Question:
        """The exercise with its cases, visible ones first: these are sent with stand-ins for models."""
        return self._ask(exercise).question

    def form(self, exercise: Exercise) -> Any:
        """What results of this exercise look like, with zeros in place of numbers."""
        with self._lock:
            return _blank(self.question(exercise).expected(0))

    def judge(self, exercise: Exercise, answered: Answered) -> Verdict:
        """The verdict; its message tells nothing of hidden cases and no expected value."""
        if answered.borrowed:
            return Verdict(
                "failed", "running", f"It calls `{answered.borrowed[0]}`: this is what you are asked to write."
            )
        if answered.trouble and not answered.outcomes:
            return Verdict("failed", "running", answered.trouble)
        with self._lock:
            return self._ask(exercise).judge(answered)

    def _ask(self, exercise: Exercise) -> "_Asked":
        with self._lock:
            if exercise.id not in self._asked:
                self._asked[exercise.id] = _Asked(exercise, self.seed, self.models)
            return self._asked[exercise.id]


class _Asked:
    """One exercise with its visible and hidden cases, and what is computed of them once for a whole class."""

    def __init__(self, exercise: Exercise, seed: int, models: Models):
        self.exercise, self._models = exercise, models
        self.model = models.twin if needs_model(exercise) else None
        visible = exercise.cases(0)
        self.visible = len(visible)
        self.question = Question(exercise, [*visible, *exercise.cases(seed)], self.model)
        self._original: dict[int, Any] = {}

    def judge(self, answered: Answered) -> Verdict:
        outcomes, count = list(answered.outcomes), len(self.question.cases)
        if not outcomes[-1].attempted:
            return Verdict("not attempted")
        if outcomes[-1].trouble:
            return Verdict("failed", "running", self._trouble(outcomes[-1].trouble, len(outcomes)))
        if not answered.complete or len(outcomes) < count:
            return Verdict("failed", "running", answered.trouble)
        results = [outcome.result for outcome in outcomes[:count]]
        parting = self.question.parting(results)
        if parting is None:
            return Verdict("passed", message=self.exercise.discussion)
        (wrong, difference), mistake = parting, self.question.diagnose(results)
        if mistake:
            return Verdict("failed", difference.stage, mistake.sentence, mistake.name)
        message = TYPED if self._is_typed(results) else self._sentence(wrong, difference, outcomes[wrong])
        return Verdict("failed", difference.stage, message)

    def _is_typed(self, results: Sequence[Any]) -> bool:
        """Whether a finding says everywhere what is right on the notebook's own model and prompts."""
        if self.exercise.kind != "finding" or self.model is None:
            return False
        return all(self._is_as_seen(number, result) for number, result in enumerate(results))

    def _is_as_seen(self, number: int, result: Any) -> bool:
        seen = number % self.visible
        if seen not in self._original:
            case = fill(self.question.cases[seen], self._models.original)
            with torch.no_grad():
                self._original[seen] = self.exercise.reference(*case)
        return compare(result, self._original[seen], self.exercise.tolerance) is None

    def _sentence(self, number: int, difference: Difference, outcome: Outcome) -> str:
        if number >= self.visible:
            return STAGES.get(difference.stage, ELSEWHERE)
        if difference.stage == "values":
            return "It runs, and its values are not right, not even on the notebook's own example."
        return wrong_because(self.question, number, difference, outcome)

    def _trouble(self, sentence: str, count: int) -> str:
        if count <= self.visible:
            return sentence
        name = sentence.partition("it raised ")[2].split(":")[0]
        kind = getattr(builtins, name, None)
        known = isinstance(kind, type) and issubclass(kind, BaseException)
        return f"On an example that the notebook does not show it raised {name if known else 'an exception'}."


def needs_model(exercise: Exercise) -> bool:
    """Whether it asks about the real model."""
    return _names_model(exercise.cases(0))


def _names_model(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_names_model, value.values()))
    return any(map(_names_model, value)) if isinstance(value, list | tuple) else value is MODEL


def _blank(value: Any) -> Any:
    """The same form without what it says."""
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    if isinstance(value, dict):
        return {key: _blank(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_blank(part) for part in value)
    return type(value)() if isinstance(value, bool | int | float | str) else value
