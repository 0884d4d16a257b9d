"""What is this submission worth? From one file to one record, whatever the file holds.

Nothing that a learner did raises here, and one bad answer never touches another: each has a process, a verdict
and a row of its own, and what cannot be judged is worth nothing.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechkit.course.answer import Outcome
from mechkit.course.checks import Verdict
from mechkit.course.exercise import Exercise
from mechkit.course.regions import cut
from mechkit.grading.folders import WorkFolder, sweep
from mechkit.grading.inside.wire import WireError
from mechkit.grading.judge import Answered, Judge, Models, needs_model
from mechkit.grading.replies import Replies
from mechkit.grading.sandbox import NAMESPACES, IsolationError, Lent, Limits, Sandbox, SandboxError
from mechkit.grading.setting import Setting, digest_of, row_of
from mechkit.grading.submission import (
    Cell,
    Found,
    SubmissionError,
    cells_of,
    find_answers,
    read_bytes,
    read_template,
)

MESSAGES = 2000  # that one answer may send
SHOWN = 500


def grade_one(submission: Path, template: Path, limits: Limits | None = None, *, seed: int = 1) -> dict[str, Any]:
    """The record of one submission, ready for JSON; for many, share a `Grader`.

    Args:
        submission: The learner's notebook.
        template: Our notebook of the chapter, released or solved.
        seed: From which hidden cases and the twin of the model are drawn.
    Raises: ValueError if the template is not ours; never for the submission.
    """
    with Grader(template, limits or Limits(), seed=seed) as grader:
        return grader.grade(submission)


class Grader:
    """Grades submissions to one chapter, one at a time; close it after use.

    Args:
        template: Our notebook of the chapter, released or solved.
        limits: What one answer may take.
        seed: From which hidden cases and the twin of the model are drawn.
        hidden: Folders that no answer may see.
        strongest: Take no stronger isolation than this.
        required: Refuse to grade at a lower level than the best.
        judge: Share another grader's, so that expected values are computed once.
    Raises: ValueError if the template is not ours, IsolationError if the required isolation is not to be had.
    """

    def __init__(
        self,
        template: Path,
        limits: Limits,
        *,
        seed: int = 1,
        hidden: Sequence[Path] = (),
        strongest: str = NAMESPACES,
        required: bool = False,
        judge: Judge | None = None,
    ):
        self.template, self.limits = read_template(template), limits
        self.judge = judge or Judge(_draw(seed, "cases"), Models(seed=_draw(seed, "twin")))
        sweep()
        self._files = WorkFolder("grader")
        lent = self._lent()
        self._box = Sandbox(lent, limits, hidden=hidden, strongest=strongest)
        self._replies = Replies(self.template.chapter.number, lent, limits)
        self.setting = Setting(self.template, limits, seed, self._box.level)
        if required and self.level != NAMESPACES:
            self.close()
            raise IsolationError(
                f"wanted the isolation {NAMESPACES!r}; this system gives {self.level!r}: allow user namespaces, or "
                "leave out --require-isolation"
            )

    @property
    def level(self) -> str:
        """The isolation that answers run in."""
        return self._box.level

    def grade(self, path: Path) -> dict[str, Any]:
        """The record of one notebook."""
        started, data = time.monotonic(), None
        try:
            data = read_bytes(path)  # once: a file may change while it is graded
            rows = self._rows(cells_of(data))
        except SubmissionError as error:
            record = self.setting.nothing("unreadable", f"The notebook {error}.")
        else:
            record = self.setting.record("graded", "", rows)
        digest = digest_of(path) if data is None else hashlib.sha256(data).hexdigest()
        return record | {"sha256": digest, "seconds": round(time.monotonic() - started, 2)}

    def close(self) -> None:
        self._box.close()
        self._replies.close()
        self._files.close()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, cells: Sequence[Cell]) -> list[dict]:
        rows, passed = [], {}
        found = find_answers(cells, self.template)
        for exercise in self.template.exercises:
            mine = found[exercise.id]
            try:
                verdict = self._verdict(exercise, mine, passed, cells)
            except SandboxError:
                raise  # nobody's answer is to blame
            except Exception as error:  # what no one foresaw, of one answer
                verdict = Verdict("failed", "grading", f"It could not be judged ({type(error).__name__}).")
            if verdict.passed:
                passed[exercise.name] = mine.source
            rows.append(row_of(exercise, verdict, mine.warning))
        return rows

    def _verdict(self, exercise: Exercise, found: Found, passed: dict[str, str], cells: Sequence[Cell]) -> Verdict:
        if not found.source.strip() or _squeezed(found.source) == _squeezed(self._stub(exercise)):
            return Verdict("not attempted")
        answered = self._ask(exercise, self._task(exercise, found.source, passed))
        verdict = self.judge.judge(exercise, answered)
        return Verdict(verdict.status, verdict.stage, _explained(verdict.message, found, cells), verdict.mistake)

    def _stub(self, exercise: Exercise) -> str:
        return cut(next(cell.source for cell in self.template.cells if cell.grade_id == exercise.id))

    def _task(self, exercise: Exercise, source: str, passed: dict[str, str]) -> dict[str, Any]:
        before = self.template.chapter.before
        known = {each.name: each for each in before(exercise)}
        calls = {name: _called(own, before(known[name])) for name, own in passed.items() if name in known}
        calls[exercise.name] = _called(source, before(exercise))
        needed = _reached(exercise.name, calls)
        earlier = [
            {"name": name, "source": passed[name], "uses": calls[name], "form": self.judge.form(known[name])}
            for name in known
            if name in needed and name in passed
        ]
        return {
            "name": exercise.name,
            "source": source,
            "imports": self.template.imports,
            "earlier": earlier,
            "ours": [name for name in needed if name not in passed],
            "uses": calls[exercise.name],
            "teaches": list(exercise.teaches),
            "cases": self.judge.question(exercise).cases,
            "seconds": self.limits.seconds,
        }

    def _ask(self, exercise: Exercise, task: dict[str, Any]) -> Answered:
        """What came of running an answer in the sandbox."""
        heard = _Heard(exercise)
        if task["ours"]:
            self._replies.prepare()
        with self._box.run() as run:
            try:
                run.channel.send(task)
                for _ in range(MESSAGES):
                    message = run.channel.receive()
                    if message["kind"] == "call":
                        run.channel.send(self._reply(exercise, message))
                    elif heard.take(message):
                        break
            except WireError as error:
                heard.trouble = heard.trouble or f"What it returns cannot be read: {error}."
            except (EOFError, OSError):
                pass
            except (KeyError, TypeError, AttributeError):  # a message of its own making
                heard.trouble = heard.trouble or "What it returns cannot be read."
        return heard.answered(run.ending)

    def _reply(self, exercise: Exercise, message: dict[str, Any]) -> dict[str, Any]:
        """An earlier answer of ours, called."""
        known = {each.name: each for each in self.template.chapter.before(exercise)}
        name = str(message["name"])
        if name not in known:
            return {"result": None, "trouble": "no such earlier answer"}
        return self._replies.call(name, list(message["args"]), dict(message["kwargs"]))

    def _lent(self) -> Lent:
        if not any(needs_model(exercise) for exercise in self.template.exercises):
            return Lent()
        models, lens = self.judge.models, None
        hints = [hint for exercise in self.template.exercises for hint in exercise.hints]
        if any("affine_lens" in text for text in [*hints, *(cell.source for cell in self.template.cells)]):
            lens = str(self._files.path / "lens.safetensors")
            models.fit_lens(Path(lens))
        return Lent(models.path, models.seed, lens)


class _Heard:
    """What an answer's process has said so far; each part is only taken as text, yes or no, or a value."""

    def __init__(self, exercise: Exercise):
        self._exercise = exercise
        self._outcomes: list[Outcome] = []
        self._borrowed: set[str] = set()
        self._complete = False
        self.trouble = ""

    def take(self, message: dict[str, Any]) -> bool:
        """Note a message; True if it was the last one."""
        kind = message["kind"]
        if kind == "borrowed":
            self._borrowed |= set(map(_text, message["names"])) & set(self._exercise.teaches)
        elif kind == "outcome":
            said = _text(message["trouble"]), message["attempted"] is not False, _text(message["printed"])
            self._outcomes.append(Outcome(message["result"], *said))
        elif kind == "uncallable":
            wanted = f"Wanted the function `{self._exercise.name}`"
            self.trouble = f"{wanted}; came an object of type {_text(message['type'])}."
        elif kind == "trouble":
            self.trouble = _text(message["message"])
        elif kind == "done":
            self._complete = True
        return kind in ("uncallable", "trouble", "done")

    def answered(self, ending: str) -> Answered:
        trouble = self.trouble or ("" if self._complete else ending)
        return Answered(self._outcomes, trouble, sorted(self._borrowed), self._complete)


def _called(source: str, earlier: Sequence[Exercise]) -> list[str]:
    """The earlier exercises that an answer's source names."""
    return [each.name for each in earlier if re.search(rf"\b{each.name}\b", source)]


def _reached(name: str, calls: dict[str, list[str]]) -> set[str]:
    """The earlier answers that an answer calls, and those that they call in their turn."""
    found, waiting = set(), list(calls[name])
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += calls.get(each, [])
    return found


def _explained(message: str, found: Found, cells: Sequence[Cell]) -> str:
    """A missing name, said better if another cell of the notebook mentions it."""
    missing = re.search(r"NameError: name '(\w+)' is not defined", message)
    if not missing:
        return message
    others = [cell.source for cell in cells if cell.kind == "code" and cell.source not in found.source]
    if not any(re.search(rf"\b{missing[1]}\b", source) for source in others):
        return message
    return (
        f"It leans on the notebook's variable `{missing[1]}`, which a grader does not have. Take it as an argument, "
        "or define it in the same cell."
    )


def _text(value: Any) -> str:
    return str.__str__(value)[:SHOWN] if isinstance(value, str) else ""


def _squeezed(source: str) -> str:
    return " ".join(source.split())


def _draw(seed: int, purpose: str) -> int:
    """A number of its own for each purpose; never 0, which stands for the visible cases."""
    return 1 + int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:3])
