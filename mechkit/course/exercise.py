"""What an exercise is: a reference, cases drawn from a seed, known mistakes, hints.

An exercise is data. It holds the *independent* truth (a slow obvious loop or an identity, never the
solution notebook) and the wrong answers that learners are known to give, so that a check can say not
only "wrong" but which mistake it met.
"""

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
        reference: The truth: a slow obvious loop or an identity.
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

    def worth(self, wrong_tries: int) -> float:
        """Points for passing after some wrong tries."""
        return self.points / 2**wrong_tries if self.choice else self.points


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
