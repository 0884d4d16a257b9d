"""Every exercise of the course, one module a chapter, loaded when the chapter is opened."""

from importlib import import_module

from mechkit.course.exercise import Chapter, Exercise

NUMBERS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09")


def find_chapter(number: str) -> Chapter:
    """A chapter by its number, "04".

    Raises: ValueError if there is none; it lists those that there are.
    """
    if number not in NUMBERS:
        raise ValueError(f"there is no chapter {number!r}; the chapters are {', '.join(NUMBERS)}")
    return import_module(f"{__name__}.ch{number}").CHAPTER


def catalogue() -> list[dict]:
    """Every exercise as a row of `mechkit exercises --json`."""
    return [_row(exercise) for number in NUMBERS for exercise in find_chapter(number).exercises]


def _row(exercise: Exercise) -> dict:
    shared = ("id", "chapter", "kind", "level", "points", "minutes", "control")
    return {name: getattr(exercise, name) for name in shared} | {
        "mistakes": len(exercise.mistakes),
        "hints": len(exercise.hints),
        "hidden_cases": len(exercise.cases(1)),
    }
