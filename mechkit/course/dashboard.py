"""How far am I, and how well did I guess? The learner's whole record on one page.

Nothing here judges: it counts what the checks and the predictions have written down.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from statistics import median
from typing import Any

from mechkit.course.exercise import Chapter
from mechkit.course.exercises import NUMBERS, find_chapter
from mechkit.course.progress import Progress
from mechkit.show.captions import Twin, number, percent, scrolling, table_html, table_text

COLUMNS = ("chapter", "exercise", "status", "points", "of", "tries", "hints", "solution seen")


@dataclass(frozen=True)
class Standing:
    """How far one chapter is.

    Args:
        state: "done" if every exercise has passed, "begun" if anything was tried, else "".
        passed: How many of its exercises.
        points: Earned, of `worth`.
        right: Predictions that were right, of the `seen` ones, whose outcome is known.
        claim: "supported", "not supported", or "" for a claim card not filled in.
    """

    chapter: Chapter
    state: str
    passed: int
    points: float
    worth: float
    right: int
    seen: int
    claim: str


def dashboard() -> Twin:
    """Chapters, exercises, points, predictions and claims, as far as you are: a table, and what it comes to."""
    record = Progress().read()
    here = [standing(find_chapter(name), record) for name in NUMBERS]
    rows = [("chapter", "so far", "exercises", "points", "predictions right", "claim"), *map(_row, here), _total(here)]
    told = calibration(record)
    table = scrolling(table_html(rows, caption="Your course"), name="Your course")
    page = f"{table}<p>{told}</p>"
    return Twin(page, f"{table_text(rows)}\n\n{told}")


def standing(chapter: Chapter, record: Mapping[str, Any]) -> Standing:
    """How far a chapter is in a learner's record."""
    entries = [record["exercises"].get(each.id, {}) for each in chapter.exercises]
    passed = [entry for entry in entries if entry.get("status") == "passed"]
    seen = [entry for name, entry in _outcomes(record) if name.startswith(f"{chapter.number}_")]
    claim = record["claims"].get(chapter.number, {}).get("right")
    return Standing(
        chapter,
        state="done" if len(passed) == len(entries) else "begun" if _is_begun(chapter, record) else "",
        passed=len(passed),
        points=sum(entry.get("points", 0.0) for entry in passed),
        worth=sum(each.points for each in chapter.exercises),
        right=sum(entry["right"] for entry in seen),
        seen=len(seen),
        claim={True: "supported", False: "not supported"}.get(claim, ""),
    )


def calibration(record: Mapping[str, Any]) -> str:
    """How good the predictions were: the share that was right, and how far the middle number was off."""
    seen = [entry for _, entry in _outcomes(record)]
    if not seen:
        return "No prediction has met its outcome yet."
    right = sum(entry["right"] for entry in seen)
    told = f"{right} of {len(seen)} predictions were right ({percent(right / len(seen))})."
    if factors := [factor for entry in seen for factor in _factors(entry)]:
        told += f" Of {len(factors)} numbers that you guessed, the middle one was off by a factor of "
        told += f"{number(median(factors))} (1 is exact)."
    return told


def table_csv() -> str:
    """Every exercise of the course with what was done of it, as CSV."""
    record, text = Progress().read()["exercises"], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in NUMBERS:
        for each in find_chapter(name).exercises:
            entry = record.get(each.id, {})
            counts = (entry.get(field, 0) for field in ("tries", "hints"))
            earned, status = entry.get("points", 0.0), entry.get("status", "not attempted")
            writer.writerow([name, each.name, status, earned, each.points, *counts, bool(entry.get("seen"))])
    return text.getvalue()


def reset(exercise: str) -> None:
    """Forget what was done of an exercise; `undo` brings it back.

    Args:
        exercise: Its id, "05_induction_score".
    Raises: ValueError if nothing was done of it.
    """

    def edit(record: dict) -> None:
        if exercise not in record["exercises"]:
            done = ", ".join(sorted(record["exercises"])) or "none"
            raise ValueError(f"nothing was done of {exercise!r}; exercises with a record: {done}")
        record.setdefault("reset", []).append([exercise, record["exercises"].pop(exercise)])

    Progress().change(edit)


def undo() -> str:
    """Bring back the exercise that was reset last, and return its id.

    What was done of it since then is set aside in its turn, so that nothing is ever lost.
    Raises: ValueError if nothing was reset.
    """
    back: list[str] = []

    def edit(record: dict) -> None:
        if not record.get("reset"):
            raise ValueError("nothing was reset, so there is nothing to bring back")
        exercise, entry = record["reset"].pop()
        if exercise in record["exercises"]:
            record["reset"].insert(0, [exercise, record["exercises"][exercise]])
        record["exercises"][exercise] = entry
        back.append(exercise)

    Progress().change(edit)
    return back[0]


def _is_begun(chapter: Chapter, record: Mapping[str, Any]) -> bool:
    """Whether anything was tried, guessed or claimed; a check of an untouched stub is no try."""
    entries = (record["exercises"].get(each.id, {}) for each in chapter.exercises)
    tried = any(entry.get("hints") or entry.get("status", "not attempted") != "not attempted" for entry in entries)
    return tried or chapter.number in {name[:2] for part in ("predictions", "claims") for name in record[part]}


def _row(here: Standing) -> tuple[str, ...]:
    return (
        f"{here.chapter.number} {here.chapter.title}",
        here.state,
        f"{here.passed} of {len(here.chapter.exercises)}",
        f"{here.points:g} of {here.worth:g}",
        f"{here.right} of {here.seen}" if here.seen else "",
        here.claim,
    )


def _total(here: list[Standing]) -> tuple[str, ...]:
    exercises = sum(len(each.chapter.exercises) for each in here)
    return (
        "in all",
        f"{sum(each.state == 'done' for each in here)} of {len(here)} done",
        f"{sum(each.passed for each in here)} of {exercises}",
        f"{sum(each.points for each in here):g} of {sum(each.worth for each in here):g}",
        f"{sum(each.right for each in here)} of {sum(each.seen for each in here)}",
        f"{sum(each.claim == 'supported' for each in here)} supported",
    )


def _outcomes(record: Mapping[str, Any]) -> Iterator[tuple[str, dict]]:
    """The predictions whose outcome has been seen."""
    return ((name, entry) for name, entry in record["predictions"].items() if "outcome" in entry and "right" in entry)


def _factors(entry: Mapping[str, Any]) -> Iterator[float]:
    """By which factor each guessed number of a prediction was off: 1 is exact; only for numbers above zero."""
    for part, truth in entry["outcome"].items():
        pair = (entry["guess"].get(part), truth)
        if all(isinstance(each, Real) and not isinstance(each, bool) and each > 0 for each in pair):
            yield max(pair) / min(pair)
