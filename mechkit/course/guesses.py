"""What did you expect, and what came? How a prediction is kept, compared and written."""

import re
from numbers import Number
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON holds it, so that what was guessed today compares with what is true tomorrow."""
    if hasattr(value, "tolist"):  # torch's and NumPy's numbers
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if isinstance(value, str | bool | int | float) else str(value)


def said(value: Any) -> str:
    """A guess or a truth as a card writes it."""
    return f"{value:.2g}" if isinstance(value, float) else f"{value}"


def is_near(guess: Any, truth: Any, within: float) -> bool:
    """Whether a guess counts as right: equal or, of numbers, no further off than `within`."""
    if isinstance(truth, Number) and isinstance(guess, Number):
        return abs(float(guess) - float(truth)) <= within
    return guess == truth


def is_another_kind(guess: Any, truth: Any) -> bool:
    """Whether words were guessed where the truth is a number."""
    return isinstance(truth, Number) and isinstance(guess, str)


def is_number_in_words(guess: Any) -> bool:
    """Whether a guess is a text that was meant as a number, such as "90%" or "0,9"."""
    return isinstance(guess, str) and re.fullmatch(r"\s*-?[\d.,]*\d\s*%?\s*", guess) is not None


def compare_guess(part: str, guess: Any, truth: Any, within: float) -> str:
    """The sentence that sets one part of a guess beside what came."""
    if guess is None:
        return f"{part} is {said(truth)}. You had not guessed."
    if is_another_kind(guess, truth):
        return f"{part} is {said(truth)}, a number; you said {guess!r}, which does not compare: it does not count."
    verdict = "Right." if is_near(guess, truth, within) else "Not this time: what made you expect otherwise?"
    return f"{part} is {said(truth)}; you said {said(guess)}. {verdict}"
