"""Every exercise of the course, one module a chapter."""

from mechkit.course.exercise import Chapter, Exercise
from mechkit.course.exercises import ch00, ch03, ch04

CHAPTERS: dict[str, Chapter] = {each.CHAPTER.number: each.CHAPTER for each in (ch00, ch03, ch04)}


def find_chapter(number: str) -> Chapter:
    """A chapter by its number, "04".

    Raises: ValueError if there is none; it lists those that there are.
    """
    if number not in CHAPTERS:
        raise ValueError(f"there is no chapter {number!r}; the chapters are {', '.join(sorted(CHAPTERS))}")
    return CHAPTERS[number]


def catalogue() -> list[dict]:
    """Every exercise as a row of `mechkit exercises --json`."""
    return [_row(exercise) for chapter in CHAPTERS.values() for exercise in chapter.exercises]


def _row(exercise: Exercise) -> dict:
    shared = ("id", "chapter", "kind", "level", "points", "minutes", "control")
    return {name: getattr(exercise, name) for name in shared} | {
        "mistakes": len(exercise.mistakes),
        "hints": len(exercise.hints),
        "hidden_cases": len(exercise.cases(1)),
    }
