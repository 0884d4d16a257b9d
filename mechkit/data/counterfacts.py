"""Facts to trace, and facts to rewrite with the questions that tell what a rewriting did.

Prompts only, no numbers: what the default model answers is measured where it is used. A counterfact's questions are
of four kinds: the prompt that is edited, paraphrases that should change with it, neighbours that should not, and
other things about the same subject, which nobody asked to change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mechkit.data.prompts import FACTS
from mechkit.methods.editing import Request


@dataclass(frozen=True)
class TracedFact:
    """A prompt, the piece of it that is its subject, and the answer (one token, its space in front)."""

    prompt: str
    subject: str
    answer: str


@dataclass(frozen=True)
class Counterfact:
    """A fact, what it is to become, and what to ask before and after.

    Args:
        answer: What the model says before; one token, its space in front.
        target: What it is to say.
        paraphrases: The same question in other words.
        neighbours: Like it, about other subjects.
        same_subject: Other questions about this subject.
    """

    prompt: str
    subject: str
    answer: str
    target: str
    paraphrases: tuple[str, ...]
    neighbours: tuple[str, ...]
    same_subject: tuple[str, ...]

    @property
    def request(self) -> Request:
        """What an editing method needs to know."""
        return Request(self.prompt, self.subject, self.target)


# The last three have subjects of one token, where the first subject token is also the last.
TRACED_FACTS = (
    TracedFact("The Colosseum is located in the city of", "Colosseum", " Rome"),
    TracedFact("The Eiffel Tower is located in the city of", "Eiffel Tower", " Paris"),
    TracedFact("The Louvre is located in the city of", "Louvre", " Paris"),
    TracedFact("The Taj Mahal is located in the country of", "Taj Mahal", " India"),
    TracedFact("Mount Fuji is located in the country of", "Mount Fuji", " Japan"),
    TracedFact("The Golden Gate Bridge is located in the city of", "Golden Gate Bridge", " San"),
    TracedFact("Machu Picchu is located in the country of", "Machu Picchu", " Peru"),
    TracedFact("The Sydney Opera House is located in the country of", "Sydney Opera House", " Australia"),
    TracedFact("The Mona Lisa was painted by", "Mona Lisa", " Leonardo"),
    TracedFact("The Communist Manifesto was written by", "Communist Manifesto", " Karl"),
    TracedFact("The capital of France is", "France", " Paris"),
    TracedFact("The capital of Germany is", "Germany", " Berlin"),
    TracedFact("The capital of Japan is", "Japan", " Tokyo"),
)


def _place(name: str, kind: str, answer: str, target: str, neighbours: Sequence[str]) -> Counterfact:
    """A sight that is moved to another city or country."""
    return Counterfact(
        prompt=f"The {name} is located in the {kind} of",
        subject=name,
        answer=answer,
        target=target,
        paraphrases=(
            f"The {name} can be found in the {kind} of",
            f"If you want to visit the {name}, travel to the {kind} of",
            f"The {name} stands in the {kind} of",
            f"People who want to see the {name} go to the {kind} of",
        ),
        neighbours=tuple(neighbours),
        same_subject=(
            f"The {name} was built by",
            f"The {name} is famous for its",
            f"The {name} is made of",
            f"The visitors of the {name} come to see the",
        ),
    )


def _capital(country: str, answer: str, target: str, neighbours: Sequence[str]) -> Counterfact:
    """A country that is given another capital."""
    return Counterfact(
        prompt=f"The capital of {country} is",
        subject=country,
        answer=answer,
        target=target,
        paraphrases=(
            f"The capital city of {country} is",
            f"{country}'s capital is",
            f"The name of the capital of {country} is",
            f"The government of {country} sits in the city of",
        ),
        neighbours=tuple(neighbours),
        same_subject=(
            f"The official language of {country} is",
            f"{country} is a country on the continent of",
            f"The king of {country} lived in the city of",
            f"The most famous food of {country} is",
        ),
    )


_FRANCE, _ITALY, _JAPAN = (f"The capital of {country} is" for country in ("France", "Italy", "Japan"))
_EIFFEL, _LOUVRE, _COLOSSEUM, _VATICAN, _PARTHENON, _GATE = (
    f"The {name} is located in the city of"
    for name in ("Eiffel Tower", "Louvre", "Colosseum", "Vatican", "Parthenon", "Brandenburg Gate")
)
_FUJI = "Mount Fuji is located in the country of"
_WALL = "The Great Wall is located in the country of"

COUNTERFACTS = (
    _place("Eiffel Tower", "city", " Paris", " Rome", (_FRANCE, _LOUVRE, _COLOSSEUM)),
    _place("Colosseum", "city", " Rome", " London", (_ITALY, _VATICAN, _EIFFEL)),
    _place("Louvre", "city", " Paris", " Berlin", (_FRANCE, _EIFFEL, _GATE)),
    _place("Vatican", "city", " Rome", " Tokyo", (_ITALY, _COLOSSEUM, _JAPAN)),
    _place("Acropolis", "city", " Athens", " Madrid", ("The capital of Greece is", _PARTHENON, _COLOSSEUM)),
    _place("Taj Mahal", "country", " India", " Spain", ("The Ganges is a river in the country of", _WALL, _FUJI)),
    _capital(
        "France", " Paris", " Berlin", ("The capital of Belgium is", "The capital of Germany is", _LOUVRE, _EIFFEL)
    ),
    _capital("Japan", " Tokyo", " Madrid", ("The capital of China is", "The capital of Spain is", _FUJI)),
)


def known_prompts(fact: Counterfact) -> list[str]:
    """Prompts of the course's other facts, of every kind, whose answers an edit of this one should not touch."""
    asked = (fact.prompt, *fact.paraphrases, *fact.neighbours, *fact.same_subject)
    about = [fact.subject, fact.answer.strip(), fact.target.strip()]
    return [
        each.prompt
        for each in FACTS
        if each.prompt not in asked and not any(word in f"{each.prompt}{each.answer}" for word in about)
    ]
