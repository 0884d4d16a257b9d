"""What an exercise is: a reference, cases drawn from a seed, known mistakes, hints.

An exercise is data. It holds the *independent* truth (a slow obvious loop or an identity, never the
solution notebook) and the wrong answers that learners are known to give, so that a check can say not
only "wrong" but which mistake it met.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["code", "finding"]


class _Model:
    """Stands for the lesson's model among a case's arguments."""

    def __repr__(self) -> str:
        return "lm"


MODEL = _Model()


@dataclass(frozen=True)
class Tiny:
    """Stands for a tiny model of random weights among a case's arguments."""

    seed: int = 0
    family: str = "llama"
    d_model: int = 32

    def __repr__(self) -> str:
        return f"a tiny random {self.family} (seed {self.seed})"


@dataclass(frozen=True)
class Words:
    """Stands for GloVe's commonest words among a case's arguments."""

    limit: int | None = None

    def __repr__(self) -> str:
        return "words"


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that learners give, and the sentence that names it.

    Args:
        name: A short slug, unique within the exercise.
        sentence: What the learner should read: what they did, and why it is not what was asked.
        answer: The mistake itself, with the signature of a right answer.
    """

    name: str
    sentence: str
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Property:
    """Something that every right result has, whatever its values: rows that sum to one, a layer that exists."""

    sentence: str
    holds: Callable[..., bool]


@dataclass(frozen=True)
class Exercise:
    """One exercise, complete.

    Args:
        id: Stable, `NN_name`; `name` is also the function that the learner writes.
        kind: "code" is a function of its arguments; "finding" is read off the model.
        reference: The truth: a slow obvious loop or an identity. Also shown by `lesson.reveal`.
        cases: From a seed to argument tuples. Seed 0 is what the notebook shows; others are hidden.
        mistakes: At least two.
        hints: At least two; the last is nearly the answer.
        discussion: Said when the check passes.
        tolerance: Relative to the largest expected value.
        allowance: Why a finding is allowed more than rounding; for the report card.
        properties: Checked before values; `holds(result, *arguments)`.
        teaches: Public names of mechkit that the answer may not call, since they are the answer.
        library: What `lesson.use` hands out until the learner's answer passes (the reference if None).
        control: Whether the exercise is a negative control.
        choice: Whether the answer picks among few options, so that each wrong try halves its points.
    """

    id: str
    kind: Kind
    level: int
    points: float
    minutes: int
    reference: Callable[..., Any]
    cases: Callable[[int], list[tuple]]
    mistakes: Sequence[Mistake]
    hints: Sequence[str]
    discussion: str
    tolerance: float = 1e-4
    allowance: str = ""
    properties: Sequence[Property] = ()
    teaches: Sequence[str] = ()
    library: Callable[..., Any] | None = None
    control: bool = False
    choice: bool = False

    @property
    def chapter(self) -> str:
        return self.id[:2]

    @property
    def name(self) -> str:
        return self.id[3:]

    @property
    def ours(self) -> Callable[..., Any]:
        return self.library or self.reference

    def worked_solution(self) -> str:
        """The reference as a learner may paste it: without annotations, with its imports and private helpers."""
        found, waiting, known = {}, [inspect.unwrap(self.reference)], set()
        while waiting:
            function = waiting.pop(0)
            found[function] = tree = _bare(function)
            for name in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}):
                value = inspect.unwrap(function.__globals__.get(name))
                if inspect.isfunction(value) and value.__module__ == function.__module__:
                    waiting += [value] if value not in (*found, *waiting) else []
                elif value is not None:
                    known |= _line_for(name, value)
        lines = "\n".join(sorted(known, key=lambda line: (" = " in line, line)))
        functions = [ast.unparse(each) for each in reversed(found.values())]  # what is called stands first
        return "\n\n\n".join([lines] * bool(known) + functions)

    def worth(self, wrong_tries: int) -> float:
        """Points for passing after some wrong tries."""
        return self.points / 2**wrong_tries if self.choice else self.points


def _line_for(name: str, value: Any) -> set[str]:
    """The line that makes a global of a reference known, where one line can."""
    if inspect.ismodule(value):
        return {f"import {value.__name__}" + (f" as {name}" if value.__name__ != name else "")}
    if inspect.isroutine(value) or inspect.isclass(value):
        return {f"from {value.__module__} import {name}"}
    return {f"{name} = {value!r}"} if isinstance(value, int | float | str | tuple | list | dict) else set()


def _bare(function: Callable[..., Any]) -> ast.Module:
    """A function's syntax without decorators and annotations, which would need more imports than it has lines."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list, node.returns = [], None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


@dataclass(frozen=True)
class Option:
    """One possible part of a claim, and what to say to a learner who picks it."""

    text: str
    right: bool
    reply: str


@dataclass(frozen=True)
class Claim:
    """The card that closes a chapter: what was shown, by which evidence, and what would refute it."""

    statements: dict[str, Option]
    evidence: dict[str, Option]
    refuted_by: dict[str, Option]


@dataclass(frozen=True)
class Chapter:
    """A chapter's exercises in the order in which they are met, its claim card, and its place in the course.

    Args:
        notebook: The name of its file, "04_logit_lens".
        minutes: About how long it takes.
        needs: The numbers of the chapters that it builds on.
    """

    number: str
    title: str
    exercises: Sequence[Exercise]
    claim: Claim
    notebook: str = ""
    question: str = ""
    minutes: int = 0
    needs: Sequence[str] = ()

    def before(self, exercise: Exercise) -> Sequence[Exercise]:
        """The exercises that are met before this one, whose answers its answer may call."""
        return self.exercises[: [each.id for each in self.exercises].index(exercise.id)]
