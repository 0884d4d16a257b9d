"""Prompts whose next word is plain world knowledge, and which the default model answers.

Every fact below is the default model's own top-1 answer after its prefix token; tests/data/test_prompts.py
measures that and prints the probabilities, so no number is typed here. Other models know other facts: keep
those that yours answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """`answer` opens with its space (" Paris"), so that it is one token; `subject` is a piece of `prompt`."""

    prompt: str
    answer: str
    kind: str
    subject: str


def _read(table: dict[str, tuple[str, ...]]) -> tuple[Fact, ...]:
    """Sentences with the subject in brackets and the answer as last word, as facts."""
    facts = []
    for kind, sentences in table.items():
        for sentence in sentences:
            marked, answer = sentence.rsplit(" ", 1)
            subject = marked[marked.index("[") + 1 : marked.index("]")]
            facts.append(Fact(marked.replace("[", "").replace("]", ""), " " + answer, kind, subject))
    return tuple(facts)


VISIBLE_FACTS = _read(
    {
        "capital": (
            "The capital of [France] is Paris",
            "The capital of [Germany] is Berlin",
            "The capital of [Italy] is Rome",
            "The capital of [Japan] is Tokyo",
            "The capital of [Russia] is Moscow",
            "The capital of [Greece] is Athens",
            "The capital of [Austria] is Vienna",
            "The capital of [Cuba] is Havana",
            "The capital of [Canada] is Ottawa",
        ),
        "landmark": (
            "The [Eiffel Tower] is located in the city of Paris",
            "The [Colosseum] is located in the city of Rome",
            "The [Taj Mahal] is located in the country of India",
            "The [Great Wall] is located in the country of China",
            "[Mount Fuji] is located in the country of Japan",
            "The [Golden Gate Bridge] is located in the city of San Francisco",
        ),
        "language": (
            "The official language of [Mexico] is Spanish",
            "The people of [Italy] speak Italian",
        ),
        "continent": (
            "[Germany] is a country on the continent of Europe",
            "[Egypt] is a country on the continent of Africa",
        ),
        "person": (
            "The [theory of relativity] was developed by Albert Einstein",
            "[Romeo and Juliet] was written by William Shakespeare",
            "The [Mona Lisa] was painted by Leonardo da Vinci",
            "The [first man to walk on the Moon] was Neil Armstrong",
            "[Microsoft] was founded by Bill Gates",
        ),
        "opposite": (
            "The opposite of [hot] is cold",
            "The opposite of [black] is white",
            "The opposite of [day] is night",
            "The opposite of [good] is bad",
            "The opposite of [war] is peace",
            "The opposite of [success] is failure",
        ),
        "sequence": (
            "Monday, Tuesday, [Wednesday], Thursday",
            "January, February, [March], April",
            "one, two, three, [four], five",
            "small, [medium] and large",
            "morning, [afternoon] and evening",
        ),
        "nature": (
            "The [Earth] revolves around the Sun",
            "The [heart] pumps blood",
            "The largest [animal] on Earth is the blue whale",
            "[Plants] absorb carbon dioxide",
            "[Water] freezes into ice",
        ),
        "daily life": (
            "You cut [paper] with a pair of scissors",
            "There are [twelve months] in a year",
        ),
    }
)

HIDDEN_FACTS = _read(
    {
        "capital": (
            "The capital of [Spain] is Madrid",
            "The capital of [England] is London",
            "The capital of [China] is Beijing",
            "The capital of [Portugal] is Lisbon",
            "The capital of [Hungary] is Budapest",
            "The capital of [Sweden] is Stockholm",
            "The capital of [Kenya] is Nairobi",
            "The capital of [Norway] is Oslo",
            "The capital of [the Netherlands] is Amsterdam",
            "The capital of [Scotland] is Edinburgh",
        ),
        "landmark": (
            "The [Louvre] is located in the city of Paris",
            "[Machu Picchu] is located in the country of Peru",
            "The [Sydney Opera House] is located in the country of Australia",
            "The [Statue of Liberty] is located in New York",
            "The [Vatican] is located in the city of Rome",
        ),
        "language": (
            "The official language of [Argentina] is Spanish",
            "The official language of [Austria] is German",
        ),
        "continent": (
            "[Ghana] is a country on the continent of Africa",
            "[France] is a country in Europe",
        ),
        "person": (
            "The [law of gravity] was discovered by Sir Isaac Newton",
            "The [theory of evolution] was proposed by Charles Darwin",
            "The [telephone] was invented by Alexander Graham Bell",
            "[Apple] was founded by Steve Jobs",
            "The [Communist Manifesto] was written by Karl Marx",
        ),
        "opposite": (
            "The opposite of [up] is down",
            "The opposite of [left] is right",
            "The opposite of [rich] is poor",
            "The opposite of [life] is death",
            "The opposite of [fast] is slow",
            "The opposite of [north] is south",
        ),
        "sequence": (
            "July, August, [September], October",
            "first, second, [third], fourth",
            "breakfast, [lunch] and dinner",
            "past, [present] and future",
        ),
        "nature": (
            "The [Moon] orbits the Earth",
            "The organ that pumps [blood] is the heart",
            "A group of [wolves] is called a pack",
        ),
        "daily life": (
            "There are [sixty minutes] in an hour",
            "We [hear] with our ears",
            "A [triangle] has three sides",
        ),
    }
)

FACTS = VISIBLE_FACTS + HIDDEN_FACTS


def contrast(facts: Sequence[Fact]) -> dict[str, list[str]]:
    """Prompts, their answers, and for each the answer of its neighbour, which is of the same kind but wrong.

    Chapter: 04.
    """
    answers = [fact.answer for fact in facts]
    return {"prompts": [fact.prompt for fact in facts], "answers": answers, "others": answers[1:] + answers[:1]}
