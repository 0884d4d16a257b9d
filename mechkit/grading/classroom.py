"""A whole class, overnight: one record each, whatever each handed in, and a run that was killed goes on.

Learners are graded side by side by as many workers as asked for; each has a sandbox of its own, and all share
one judge, so that expected values are computed once for the class.
"""

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mechkit.grading.collect import HandedIn, choose, safe_name
from mechkit.grading.grade import Grader
from mechkit.grading.records import FAILED, FINAL, Records, write_text
from mechkit.grading.reports import feedback_html, feedback_markdown, gradebook, summary_html
from mechkit.grading.sandbox import Limits
from mechkit.grading.setting import digest_of


@dataclass(frozen=True)
class Wishes:
    """How a class is to be graded.

    Args:
        jobs: Answers that run at a time.
        seed: Of hidden cases; None for the earlier run's when it goes on, else a random one.
        resume: Keep the records of the same notebooks that are there.
        required: Refuse to grade at a lower isolation than the best.
        hidden: Folders that no answer may see.
    """

    jobs: int = 1
    seed: int | None = None
    resume: bool = False
    required: bool = False
    limits: Limits = field(default_factory=Limits)
    hidden: Sequence[Path] = ()


def grade_class(
    handed: Sequence[HandedIn],
    template: Path,
    out: Path,
    wishes: Wishes,
    *,
    told: Callable[[dict[str, Any]], None] = lambda record: None,
    open_grader: Callable[..., Grader] = Grader,
) -> list[dict[str, Any]]:
    """Grade everybody and write records, feedback, gradebook and summary into a folder.

    Args:
        handed: Who handed in what.
        template: Our notebook of the chapter.
        out: The folder.
        told: Called with each record as it is done, in any order.
    Returns: The records, in the order of `handed`.
    Raises: ValueError, before anything is graded, if something about the run is not as it has to be.
    """
    records = Records(out)
    seed = _seed(records, wishes)
    run = _Run(records, told)
    options = {"seed": seed, "hidden": [*wishes.hidden, out], "required": wishes.required}
    with open_grader(template, wishes.limits, **options) as first:
        number, level = first.setting.template.chapter.number, first.setting.level
        records.keep_settings({"seed": seed, "chapter": number, "isolation": level})
        waiting = [each for each in handed if not (wishes.resume and run.is_done(each, first))]
        for each in waiting:
            run.note(each)
        run.grade(
            waiting, first, lambda: open_grader(template, wishes.limits, judge=first.judge, **options), wishes.jobs
        )
    final = records.all([each.learner for each in handed])
    report(final, out)
    return final


def report(records: Sequence[dict[str, Any]], out: Path) -> None:
    """Everything that is made from records: feedback, gradebook, summary."""
    for record in records:
        name = safe_name(record["learner"])
        write_text(out / "feedback" / f"{name}.html", feedback_html(record))
        write_text(out / "feedback" / f"{name}.md", feedback_markdown(record))
    write_text(out / "gradebook.csv", gradebook(records))
    write_text(out / "summary.html", summary_html(records))


def _seed(records: Records, wishes: Wishes) -> int:
    if wishes.seed is not None:
        return wishes.seed
    earlier = records.settings().get("seed") if wishes.resume else None
    return earlier if isinstance(earlier, int) else secrets.randbelow(2**31)


class _Run:
    """One run over a class."""

    def __init__(self, records: Records, told: Callable[[dict[str, Any]], None]):
        self._records, self._told = records, told
        self._waiting: queue.SimpleQueue[HandedIn] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._failures: list[Exception] = []

    def is_done(self, handed: HandedIn, grader: Grader) -> bool:
        """Whether a learner's record is of the same notebook, chapter and seed, and came about in the same way."""
        record = self._records.read(handed.learner)
        if not record or record.get("status") not in FINAL:
            return False
        path, note = choose(handed, grader.setting.template)
        setting = grader.setting
        now = {"sha256": digest_of(path), "seed": setting.seed, "template": setting.template.digest, "note": note}
        now |= {"isolation": setting.level, "limits": asdict(setting.limits)}
        return all(record.get(name) == value for name, value in now.items())

    def note(self, handed: HandedIn) -> None:
        """Write down that a learner waits, before anything of theirs is run."""
        self._records.write(handed.learner, {"status": "waiting"})
        self._waiting.put(handed)

    def grade(self, waiting: Sequence[HandedIn], first: Grader, another: Callable[[], Grader], jobs: int) -> None:
        """Grade all that wait, with so many workers; one uses the grader that there is already.

        This thread only waits, so that Ctrl-C stops the run and is never taken for an answer's own doing.
        """
        openers = [lambda: contextlib.nullcontext(first), *[another] * (min(jobs, len(waiting)) - 1)]
        threads = [threading.Thread(target=self._work_with, args=(opener,), daemon=True) for opener in openers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        finally:
            self._stopped.set()
        if self._failures:
            raise self._failures[0]

    def _work_with(self, opener: Callable[[], contextlib.AbstractContextManager[Grader]]) -> None:
        try:
            with opener() as grader:
                self._work(grader)
        except Exception as error:
            self._failures.append(error)

    def _work(self, grader: Grader) -> None:
        while not self._stopped.is_set():
            try:
                handed = self._waiting.get_nowait()
            except queue.Empty:
                return
            record = self._record(handed, grader)
            with self._lock:
                if self._stopped.is_set():  # its sandbox may have been closed under it
                    return
                self._records.write(handed.learner, record)
                self._told({"learner": handed.learner} | record)

    def _record(self, handed: HandedIn, grader: Grader) -> dict[str, Any]:
        path, note = choose(handed, grader.setting.template)
        if path is None:
            return grader.setting.nothing("nothing handed in") | {"note": note}
        try:
            return grader.grade(path) | {"note": note}
        except Exception as error:  # ours, not the learner's: said, worth nothing, and graded again on --resume
            return grader.setting.nothing(FAILED, f"The grader failed ({type(error).__name__}: {error}).") | {
                "note": note
            }
