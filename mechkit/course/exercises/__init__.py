"""Every exercise of the course, one module a chapter, loaded when the chapter is opened.

Beside each module stand the worked solutions of its exercises, which `mechkit build` writes: an installed course has
no `solutions/`.
"""

import json
from functools import cache
from importlib import import_module
from pathlib import Path

from mechkit.course.exercise import Chapter, Exercise

NUMBERS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09")
WORKED = "ch{}_solutions.json"


def find_chapter(number: str) -> Chapter:
    """A chapter by its number, "04".

    Raises: ValueError if there is none; it lists those that there are.
    """
    if number not in NUMBERS:
        raise ValueError(f"there is no chapter {number!r}; the chapters are {', '.join(NUMBERS)}")
    return import_module(f"{__name__}.ch{number}").CHAPTER


def worked_solution(exercise_id: str) -> str:
    """An exercise's answer cell as its solution notebook has it.

    Raises: LookupError if no such cell was shipped.
    """
    name = WORKED.format(exercise_id[:2])
    lines = _worked_solutions(name).get(exercise_id)
    if lines is None:
        raise LookupError(f"wanted a worked solution of {exercise_id}; {name} has none: run `mechkit build`")
    return "\n".join(lines)


def catalogue() -> list[dict]:
    """Every exercise as a row of `mechkit exercises --json`."""
    return [_row(exercise) for number in NUMBERS for exercise in find_chapter(number).exercises]


@cache
def _worked_solutions(name: str) -> dict[str, list[str]]:
    path = Path(__file__).with_name(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _row(exercise: Exercise) -> dict:
    shared = ("id", "chapter", "kind", "level", "points", "minutes", "control")
    return {name: getattr(exercise, name) for name in shared} | {
        "mistakes": len(exercise.mistakes),
        "hints": len(exercise.hints),
        "hidden_cases": len(exercise.cases(1)),
    }
