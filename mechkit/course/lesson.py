"""The learner's companion in a chapter: checks, hints, predictions and the claim card.

`lesson = mk.lesson("04")` in a chapter's setup cell; nothing heavy happens until the model is asked for.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from mechkit.course import cards
from mechkit.course.absence import explained
from mechkit.course.cards import Card
from mechkit.course.checks import Surroundings, Verdict, check
from mechkit.course.exercise import MODEL, Chapter, Exercise, Option
from mechkit.course.exercises import find_chapter, worked_solution
from mechkit.course.guesses import compare_guess, is_another_kind, is_near, is_number_in_words, plain, said
from mechkit.course.progress import Progress
from mechkit.course.scope import imports_of
from mechkit.network.downloads import OneSentence
from mechkit.network.loading import load_model
from mechkit.network.model import LanguageModel
from mechkit.show import style


def lesson(number: str, model: str | None = None) -> "Lesson":
    """Open a chapter: call it in the chapter's setup cell, whose imports the answers may use.

    Args:
        number: "00", "04" …
        model: A hub name or a local folder; `MECHKIT_MODEL`, or the default, if not given.
    Raises: ValueError if there is no such chapter; it lists those that there are.
    """
    style.apply()
    caller = sys._getframe(1)
    opened = Lesson(find_chapter(number), caller.f_globals, setup=caller.f_code.co_filename, model_name=model)
    opened.welcome_back()
    return opened


class UnknownExercise(OneSentence, ValueError):
    """A name that no exercise of the chapter has; the message lists those that there are."""


class Lesson:
    """One chapter in progress.

    Args:
        chapter: Its exercises and claim card.
        notebook: The notebook's variables (its globals).
        setup: The file name of the setup cell, whose imports answers may use.
        model_name: As for `load_model`.
    """

    def __init__(
        self, chapter: Chapter, notebook: Mapping[str, Any], *, setup: str = "", model_name: str | None = None
    ):
        self.chapter = chapter
        self.progress = Progress(saved=not _is_graded())
        self._notebook = notebook
        self._setup = setup
        self._model_name = model_name
        self._passed: dict[str, Callable[..., Any]] = {}

    @cached_property
    def model(self) -> LanguageModel:
        """The model that the chapter takes apart, loaded when first asked for.

        Raises: AssetError or ModelError, one sentence, if it cannot be had; later cells then say so too.
        """
        with explained():
            return load_model(self._model_name)

    def welcome_back(self) -> None:
        """To whoever has passed an exercise of this chapter before: what is kept, and what a new kernel has lost."""
        if done := self._done():
            title = f"Chapter {self.chapter.number}, welcome back: {len(done)} of {len(self.chapter.exercises)} passed"
            line = "Your progress is kept. A new kernel knows none of your answers: run their cells and checks again, "
            self._show(Card("quiet", title, (f"{line}and later cells use them.",)))

    def check(self, answer: Any) -> float | None:
        """Judge an answer and show the verdict; under nbgrader, also return its points.

        Args:
            answer: The function that the exercise asks for, or its name.
        """
        exercise, function = self._asked(answer)
        if exercise is None:
            return 0.0 if _is_graded() else None
        try:
            with cards.nothing_on_stderr() if _is_graded() else contextlib.nullcontext():
                verdict = self._judge(exercise, function)
        except OneSentence as error:
            lines = (f"This check takes the model: {error}.", "Nothing was recorded.")
            self._show(Card("wrong", f"{self._label(exercise)} · no model", lines))
            return 0.0 if _is_graded() else None
        entry = self._record(exercise, verdict)
        if verdict.usable:
            self._passed[exercise.name] = verdict.usable
        self._show(self._card(exercise, verdict, entry))
        if _is_graded():
            return float(entry.get("points", 0.0)) if verdict.passed else 0.0
        return None

    def use(self, name: str) -> Callable[..., Any]:
        """The learner's own function once its check has passed, ours until then; says which."""
        exercise = self._exercise(name)
        whose = "your own" if exercise.name in self._passed else "ours, until yours passes"
        if exercise in self._done() and exercise.name not in self._passed:
            whose = "ours; yours passed in an earlier kernel: run its cell and its check again, to use it here"
        print(f"Using {exercise.name}: {whose}.")
        return self._passed.get(exercise.name, exercise.ours)

    def hint(self, name: str) -> None:
        """Show the next hint of an exercise."""
        exercise = self._find(name)
        if exercise is None:
            return
        shown = min(self._entry(exercise).get("hints", 0) + 1, len(exercise.hints))
        self._update(exercise, hints=shown)
        title = f"{self._label(exercise)} · hint {shown} of {len(exercise.hints)}"
        self._show(Card("quiet", title, (exercise.hints[shown - 1],)))

    def reveal(self, name: str) -> None:
        """Show a worked solution: to whoever has passed, else after every hint and one real attempt."""
        exercise = self._find(name)
        if exercise is None:
            return None
        entry = self._entry(exercise)
        left, passed = len(exercise.hints) - entry.get("hints", 0), entry.get("status") == "passed"
        if not passed and (left > 0 or not entry.get("tries", 0)):
            hints = f'{left} more hint{"s" * (left > 1)}, lesson.hint("{exercise.name}")'
            wanted = hints if left > 0 else "one real attempt, checked"
            return self._show(Card("quiet", f"{self._label(exercise)} · not yet", (f"First, {wanted}.",)))
        self._update(exercise, seen=True)
        title = f"{self._label(exercise)} · a worked solution"
        return self._show(Card("quiet", title, ("Seeing it costs no points.",), worked_solution(exercise.id)))

    def predict(self, name: str, **guess: Any) -> None:
        """Record a guess before the result is seen; `...` means not guessed yet."""
        if any(value is ... for value in guess.values()):
            return self._show(Card("quiet", f"Prediction {name}: no guess yet", ("A wrong guess teaches too.",)))
        entry: dict = {"guess": {part: plain(value) for part, value in guess.items()}}

        def record(progress: dict) -> None:
            before = progress["predictions"].setdefault(f"{self.chapter.number}_{name}", entry)
            before.update(entry if "outcome" not in before else {})
            entry.update(before)

        self.progress.change(record)
        guessed = ", ".join(f"{part} = {said(value)}" for part, value in entry["guess"].items())
        told = "Your first guess stays: you have seen the outcome." if "outcome" in entry else "Recorded. Now look."
        if any(map(is_number_in_words, entry["guess"].values())):
            told = "Recorded as words. If a number was asked for, write it without quotes, a share as 0.9: guess again."
        return self._show(Card("quiet", f"Prediction {name}: {guessed}", (told,)))

    def outcome(self, name: str, *, within: float = 0.0, **truth: Any) -> None:
        """Say what a prediction's truth turned out to be, and how far the guess was.

        Args:
            within: How far a number may be off and still count as right.
        """
        key = f"{self.chapter.number}_{name}"
        guess = self.progress.read()["predictions"].get(key, {}).get("guess", {})
        truth = {part: plain(value) for part, value in truth.items()}
        lines = [compare_guess(part, guess.get(part), value, within) for part, value in truth.items()]
        right = bool(guess) and all(is_near(guess.get(part), value, within) for part, value in truth.items())
        comparable = bool(guess) and not any(is_another_kind(guess.get(part), truth[part]) for part in truth)

        def record(progress: dict) -> None:
            if comparable:
                progress["predictions"].setdefault(key, {"guess": guess}).update(outcome=truth, right=right)

        self.progress.change(record)
        tone = "quiet" if not comparable else "right" if right else "wrong"
        self._show(Card(tone, f"Prediction {name}", tuple(lines)))

    def claim(self, statement: Any = ..., evidence: Any = ..., refuted_by: Any = ...) -> None:
        """Fill in the chapter's claim card: what was shown, by which evidence, and what would refute it."""
        card = self.chapter.claim
        parts = [
            ("statement", statement, card.statements),
            ("evidence", evidence, card.evidence),
            ("refuted_by", refuted_by, card.refuted_by),
        ]
        if any(choice is ... for _, choice, _ in parts):
            return self._show(Card("quiet", f"Claim {self.chapter.number} · not filled in yet", _offer(parts)))
        replies = [_reply(name, choice, options) for name, choice, options in parts]
        right = all(_is_one_of(options, choice) and options[choice].right for _, choice, options in parts)
        entry = {name: plain(choice) for name, choice, _ in parts} | {"right": right}
        self.progress.change(lambda progress: progress["claims"].update({self.chapter.number: entry}))
        title = f"Claim {self.chapter.number} · {'supported' if right else 'not what the chapter shows'}"
        return self._show(Card("right" if right else "wrong", title, tuple(replies)))

    def summary(self) -> None:
        """Say what is done in this chapter and what is still open; in JupyterLab, offer to shut the kernel down."""
        done = self._done()
        points = sum(self._entry(each).get("points", 0.0) for each in done)
        total = sum(each.points for each in self.chapter.exercises)
        rest = ", ".join(each.name for each in self.chapter.exercises if each not in done)
        lines = (f"{points:g} of {total:g} points.", f"Still open: {rest}." if rest else "Every exercise is solved.")
        title = f"Chapter {self.chapter.number}, {self.chapter.title}: {len(done)} of {len(self.chapter.exercises)}"
        self._show(Card("quiet" if rest else "right", title, lines))
        cards.offer_shutdown()

    def _done(self) -> list[Exercise]:
        record = self.progress.read()["exercises"]
        return [each for each in self.chapter.exercises if record.get(each.id, {}).get("status") == "passed"]

    def _judge(self, exercise: Exercise, function: Any) -> Verdict:
        earlier = self.chapter.before(exercise)
        answers = {each.name: self._passed.get(each.name, each.ours) for each in earlier}
        needs_model = any(argument is MODEL for case in exercise.cases(0) for argument in case)
        around = Surroundings(
            imports=imports_of(self._setup, self._notebook),
            answers=answers,
            notebook=self._notebook,
            model=self.model if needs_model else None,
        )
        return check(exercise, function, around)

    def _asked(self, answer: Any) -> tuple[Exercise | None, Any]:
        """The exercise that an answer is for, and the answer: what the notebook calls by the exercise's name."""
        for exercise in self.chapter.exercises:
            if self._notebook.get(exercise.name, self) is answer:
                return exercise, answer
        if not isinstance(answer, str):
            return self._find(getattr(answer, "__name__", repr(answer))), answer
        exercise = self._find(answer)
        return exercise, exercise and self._notebook.get(exercise.name)

    def _find(self, name: str) -> Exercise | None:
        """The exercise of this name; where there is none, a card says which there are."""
        try:
            return self._exercise(name)
        except UnknownExercise as error:
            return self._show(Card("wrong", "No such exercise", (f"{error}.",)))

    def _exercise(self, name: str) -> Exercise:
        for exercise in self.chapter.exercises:
            if name in (exercise.name, exercise.id):
                return exercise
        known = ", ".join(each.name for each in self.chapter.exercises)
        raise UnknownExercise(f"chapter {self.chapter.number} has no exercise {name!r}; its exercises are {known}")

    def _label(self, exercise: Exercise) -> str:
        place = [each.id for each in self.chapter.exercises].index(exercise.id) + 1
        return f"{self.chapter.number}.{place} {exercise.name}"

    def _entry(self, exercise: Exercise) -> dict:
        return self.progress.read()["exercises"].get(exercise.id, {})

    def _update(self, exercise: Exercise, **fields: Any) -> None:
        self.progress.change(lambda progress: progress["exercises"].setdefault(exercise.id, {}).update(fields))

    def _record(self, exercise: Exercise, verdict: Verdict) -> dict:
        recorded: dict = {}

        def edit(progress: dict) -> None:
            entry = progress["exercises"].setdefault(exercise.id, {"status": "not attempted", "tries": 0})
            if entry.get("status") != "passed":
                _add(entry, exercise, verdict)
            recorded.update(entry)

        self.progress.change(edit)
        return recorded

    def _card(self, exercise: Exercise, verdict: Verdict, entry: dict) -> Card:
        label = self._label(exercise)
        if verdict.status == "not attempted":
            return Card("quiet", f"{label} · not attempted yet")
        if verdict.passed:
            points = entry.get("points", 0.0)
            return Card("right", f"{label} · passed, {points:g} point{'s' * (points != 1)}", (verdict.message,))
        shown, all_hints = entry.get("hints", 0), len(exercise.hints)
        more = f'lesson.hint("{exercise.name}") ({shown + 1} of {all_hints})'
        step = more if shown < all_hints else f'lesson.reveal("{exercise.name}")'
        left = f"Each wrong choice halves the points: {exercise.worth(entry.get('tries', 0)):g} left."
        lines = (
            verdict.message,
            left if exercise.choice else "",
            f"Next: {step}",
            "It printed:" * bool(verdict.printed),
        )
        return Card("wrong", f"{label} · {verdict.stage}", lines, verdict.printed)

    def _show(self, card: Card) -> None:
        notice = self.progress.take_notice()
        if notice:
            cards.show(Card("quiet", "About your progress", (notice,)))
        cards.show(card)


def _add(entry: dict, exercise: Exercise, verdict: Verdict) -> None:
    entry["status"] = verdict.status
    if verdict.passed:
        entry["points"] = exercise.worth(entry.get("tries", 0))
        if exercise.kind == "finding":
            entry["found"] = plain(verdict.results[0])  # for the report card
    elif verdict.status == "failed" and not (exercise.choice and verdict.stage in ("running", "type", "shape")):
        # a slip in the code of a choice is not a wrong choice
        entry["tries"] = entry.get("tries", 0) + 1
    if verdict.mistake:
        entry.setdefault("mistakes", []).append(verdict.mistake)


def _is_graded() -> bool:
    return "NBGRADER_EXECUTION" in os.environ


def _offer(parts: list[tuple[str, Any, dict[str, Option]]]) -> tuple[str, ...]:
    lines: list[str] = []
    for name, _, options in parts:
        lines += [f"{name}, one of:", *(f'· "{key}": {option.text}' for key, option in options.items())]
    return tuple(lines)


def _is_one_of(options: dict[str, Option], choice: Any) -> bool:
    return isinstance(choice, str) and choice in options


def _reply(name: str, choice: Any, options: dict[str, Option]) -> str:
    if not _is_one_of(options, choice):
        return f"✗ {name}: wanted one of {', '.join(map(repr, options))}; came {choice!r}."
    mark = "✓" if options[choice].right else "✗"
    return f"{mark} {name}: {options[choice].text}. {options[choice].reply}"
