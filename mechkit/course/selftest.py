"""What may I skip? The five questions that open chapter 00."""

from mechkit.course import cards
from mechkit.course.cards import Card
from mechkit.course.exercises.ch00 import SELF_TEST, Question

LETTERS = "abc"


def self_test(answers: object = "") -> None:
    """Show the questions or, given five letters such as "abcab", what to skip. Nothing is recorded.

    Args:
        answers: `...` means not answered yet.
    Chapter: 00.
    """
    if answers is ...:
        return cards.show(Card("quiet", "Self-test: no answers yet", ("Or go on: nothing depends on it.",)))
    if answers == "":
        lines = tuple(_asked(number, question) for number, question in enumerate(SELF_TEST, 1))
        return cards.show(Card("quiet", "Self-test: five questions, answered by five letters", lines))
    letters = [letter for letter in str(answers).lower() if letter.isalpha()]
    if len(letters) != len(SELF_TEST) or not set(letters) <= set(LETTERS):
        line = f'Wanted {len(SELF_TEST)} letters from a to c, such as "abcab"; came {answers!r}.'
        return cards.show(Card("wrong", "Self-test", (line,)))
    pairs = list(zip(SELF_TEST, letters, strict=True))
    lines = tuple(_advice(number, *pair) for number, pair in enumerate(pairs, 1))
    right = sum(question.right == letter for question, letter in pairs)
    return cards.show(Card("quiet", f"Self-test: {right} of {len(SELF_TEST)}", lines))


def _asked(number: int, question: Question) -> str:
    options = " · ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, question.options, strict=True))
    return f"{number}. {question.ask} {options}"


def _advice(number: int, question: Question, letter: str) -> str:
    if letter == question.right:
        return f"{number}. Right: you may {question.skip}."
    wanted = question.options[LETTERS.index(question.right)]
    return f"{number}. Not quite: ({question.right}) {wanted}. {question.read}"
