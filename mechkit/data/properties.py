"""Sentences whose last token may or may not reveal a property: what the probes of chapter 03 are trained on.

Every property has sentences *inside* its training distribution and *outside* of it: other words in other
sentences. Prompts end where they are to be read. Classes are balanced, each has at least 100 words, and every
word stands in several sentences, so that a control task (a random label for each word) can be learned at all.
The limit: templates are not language; a probe that passes here has passed here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from mechkit.data import lexicon


@dataclass(frozen=True)
class Sentences:
    """Prompts that are read at their last token, each with its class and the word that a probe might memorise.

    Args:
        labels: Index of the class, 0, 1 ...
        words: The head noun, the verb, the city ...: what a control task gives a random label.
    """

    prompts: tuple[str, ...]
    labels: tuple[int, ...]
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Property:
    """One property, inside and outside of the distribution that probes are trained on.

    Args:
        name: "number", "truth" ...
        read_at: What the last token is.
        classes: Names of the classes, by label.
        changed: What is different outside, besides the words.
    """

    name: str
    read_at: str
    classes: tuple[str, ...]
    changed: str
    inside: Sentences
    outside: Sentences


Row = tuple[str, int, str]


def _sentences(rows: Iterable[Row]) -> Sentences:
    prompts, labels, words = zip(*rows, strict=True)
    return Sentences(prompts, labels, words)


def _number(template: str, nouns: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> Iterable[Row]:
    """The head noun's number, read at a later noun that is singular and plural equally often."""
    for place, forms in enumerate(nouns):
        for label, other in product((0, 1), (0, 1)):
            distractor = others[(place + 7 * label) % len(others)][other]
            yield template.format(forms[label], ("near", "behind")[(place + other) % 2], distractor), label, forms[0]


def _tense(templates: Sequence[str], verbs: Sequence[tuple[str, str]], people: Sequence[str]) -> Iterable[Row]:
    for (place, forms), (turn, template) in product(enumerate(verbs), enumerate(templates)):
        for label in (0, 1):
            yield template.format(people[(place + turn + label) % len(people)], forms[label]), label, forms[0]


def _sentiment(template: str, sides: Sequence[Sequence[str]], things: Sequence[str]) -> Iterable[Row]:
    for label, words in enumerate(sides):
        for place, word in enumerate(words):
            for turn in range(3):
                yield template.format(things[(place + turn) % len(things)], word), label, word


def _part_of_speech(frames: Sequence[Sequence[str]], words: Sequence[str]) -> Iterable[Row]:
    for word, (label, side) in product(words, enumerate(frames)):
        for frame in side:
            yield frame.format(word), label, word


def _language(template: str, lists: Mapping[str, str]) -> Iterable[Row]:
    """Three words of one language; the last counts as the word that might be memorised."""
    for label, text in enumerate(lists.values()):
        words = text.split()
        for place, word in enumerate(words):
            for step in (5, 7):
                others = (words[(place + step) % len(words)], words[(place + 2 * step + 1) % len(words)])
                yield template.format(*others, word), label, word


def _truth(templates: Sequence[str], cities: Mapping[str, str], *, negated: bool) -> Iterable[Row]:
    """Every city with its own country and with another's; each country is named as often rightly as wrongly."""
    pairs = [(city, country) for country, names in cities.items() for city in names.split()]
    shift = max(len(names.split()) for names in cities.values())
    for place, (city, country) in enumerate(pairs):
        wrong = pairs[(place + shift) % len(pairs)][1]
        for template, (named, true) in product(templates, ((wrong, 0), (country, 1))):
            yield template.format(city, _article(named)), true ^ negated, city


def _article(country: str) -> str:
    return f"the {country}" if country == "Netherlands" else country


def _make_number() -> Property:
    return Property(
        "number",
        "the later noun: The dog near the trees",
        ("singular", "plural"),
        "another opening and longer phrases",
        _sentences(_number("The {} {} the {}", lexicon.NOUNS, lexicon.DISTRACTORS)),
        _sentences(_number("We know that the {} right {} the {}", lexicon.NEW_NOUNS, lexicon.NEW_DISTRACTORS)),
    )


def _make_tense() -> Property:
    templates = ("The {} {} a lot and", "My {} {} once more and")
    return Property(
        "tense",
        "“and” after the verb: The teacher walked a lot and",
        ("present", "past"),
        "irregular verbs, another sentence",
        _sentences(_tense(templates, lexicon.VERBS, lexicon.PEOPLE)),
        _sentences(_tense(("Our young {} {} too often, so",), lexicon.NEW_VERBS, lexicon.NEW_PEOPLE)),
    )


def _make_sentiment() -> Property:
    return Property(
        "sentiment",
        "the full stop: I thought the film was dull.",
        ("negative", "positive"),
        "another sentence",
        _sentences(_sentiment("I thought the {} was {}.", (lexicon.BAD, lexicon.GOOD), lexicon.THINGS)),
        _sentences(
            _sentiment(
                "To be honest, her {} seemed really {}.", (lexicon.NEW_BAD, lexicon.NEW_GOOD), lexicon.NEW_THINGS
            )
        ),
    )


def _make_part_of_speech() -> Property:
    inside = (("She enjoyed the {}", "They talked about a {}"), ("She wanted to {}", "They will never {}"))
    outside = (("Everyone remembers that {}", "It was his first {}"), ("Nobody could {}", "Please do not {}"))
    return Property(
        "part of speech",
        "the word itself: She enjoyed the walk",
        ("noun", "verb"),
        "other frames",
        _sentences(_part_of_speech(inside, lexicon.BOTH)),
        _sentences(_part_of_speech(outside, lexicon.NEW_BOTH)),
    )


def _make_language() -> Property:
    return Property(
        "language",
        "the last comma: house, water, night,",
        tuple(lexicon.LANGUAGES),
        "a numbered list",
        _sentences(_language("{}, {}, {},", lexicon.LANGUAGES)),
        _sentences(_language("1. {} 2. {} 3. {} 4.", lexicon.NEW_LANGUAGES)),
    )


def _make_truth() -> Property:
    templates = ("The city of {} is in {}.", "{} is a city in {}.")
    return Property(
        "truth",
        "the full stop: The city of Paris is in France.",
        ("false", "true"),
        "negated: The city of Nice is not in France.",
        _sentences(_truth(templates, lexicon.CITIES, negated=False)),
        _sentences(_truth(("The city of {} is not in {}.",), lexicon.NEW_CITIES, negated=True)),
    )


_MAKERS: dict[str, Callable[[], Property]] = {
    "number": _make_number,
    "tense": _make_tense,
    "sentiment": _make_sentiment,
    "part of speech": _make_part_of_speech,
    "language": _make_language,
    "truth": _make_truth,
}
PROPERTIES = tuple(_MAKERS)


@cache
def load_property(name: str) -> Property:
    """A property by its name, one of `PROPERTIES`.

    Raises: ValueError if there is none of that name; it lists those that there are.
    Chapter: 03.
    """
    if name not in _MAKERS:
        raise ValueError(f"wanted one of the properties {', '.join(PROPERTIES)}; came {name!r}")
    return _MAKERS[name]()
