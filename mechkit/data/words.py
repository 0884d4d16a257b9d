"""Pairs of words that stand in one relation, and occupations: written for this course.

Names of places are capitalised, as a language model writes them; `WordVectors` finds the lower-case spelling
where there is no other. An analogy question takes two pairs of one relation: a : b :: c : d.
"""

import random
from collections.abc import Sequence

Pair = tuple[str, str]
Quad = tuple[str, str, str, str]


def _read(text: str) -> tuple[Pair, ...]:
    """Words "a b, c d" as pairs."""
    return tuple((first, second) for first, second in (pair.split() for pair in text.split(",")))


WORD_PAIRS: dict[str, tuple[Pair, ...]] = {
    "capital": _read(
        "France Paris, Germany Berlin, Italy Rome, Japan Tokyo, Russia Moscow, Greece Athens, Austria Vienna, "
        "Cuba Havana, Canada Ottawa, Spain Madrid, Portugal Lisbon, England London, Ireland Dublin, Norway Oslo, "
        "Sweden Stockholm, Finland Helsinki, Denmark Copenhagen, Poland Warsaw, Hungary Budapest, Romania Bucharest, "
        "Bulgaria Sofia, Serbia Belgrade, Croatia Zagreb, Ukraine Kiev, Turkey Ankara, Egypt Cairo, Iran Tehran, "
        "Iraq Baghdad, Syria Damascus, Lebanon Beirut, Afghanistan Kabul, Pakistan Islamabad, China Beijing, "
        "Thailand Bangkok, Vietnam Hanoi, Indonesia Jakarta, Philippines Manila, Kenya Nairobi, Peru Lima, "
        "Chile Santiago, Venezuela Caracas, Australia Canberra"
    ),
    "nationality": _read(
        "France French, Germany German, Italy Italian, Japan Japanese, Russia Russian, Greece Greek, "
        "Austria Austrian, Canada Canadian, Spain Spanish, Portugal Portuguese, England English, Ireland Irish, "
        "Norway Norwegian, Sweden Swedish, Finland Finnish, Denmark Danish, Poland Polish, Hungary Hungarian, "
        "Turkey Turkish, Egypt Egyptian, Iran Iranian, China Chinese, India Indian, Mexico Mexican, "
        "Brazil Brazilian, Israel Israeli, Australia Australian"
    ),
    "past tense": _read(
        "go went, take took, see saw, come came, give gave, find found, think thought, know knew, make made, say said, "
        "get got, tell told, become became, leave left, feel felt, bring brought, begin began, keep kept, hold held, "
        "write wrote, stand stood, hear heard, run ran, pay paid, meet met, sit sat, speak spoke, lead led, grow grew, "
        "lose lost, fall fell, send sent, build built, win won, teach taught, break broke"
    ),
    "comparative": _read(
        "big bigger, small smaller, large larger, high higher, low lower, long longer, short shorter, old older, "
        "young younger, strong stronger, weak weaker, fast faster, slow slower, cheap cheaper, hard harder, "
        "soft softer, bright brighter, dark darker, deep deeper, wide wider, warm warmer, cold colder, cool cooler, "
        "great greater, tall taller, thick thicker, rich richer, poor poorer, safe safer, quick quicker, "
        "simple simpler, loud louder"
    ),
    "plural": _read(
        "cat cats, dog dogs, car cars, house houses, tree trees, book books, hand hands, eye eyes, year years, "
        "day days, girl girls, boy boys, king kings, horse horses, bird birds, road roads, river rivers, city cities, "
        "country countries, child children, man men, woman women, mouse mice, ship ships, door doors, window windows, "
        "student students, teacher teachers, doctor doctors, letter letters, number numbers, animal animals"
    ),
    "gender": _read(
        "man woman, king queen, boy girl, father mother, brother sister, son daughter, husband wife, uncle aunt, "
        "he she, prince princess, actor actress, grandfather grandmother, grandson granddaughter, nephew niece, "
        "gentleman lady, male female, waiter waitress, duke duchess, hero heroine, his her, emperor empress"
    ),
}

OCCUPATIONS: tuple[str, ...] = tuple(
    (
        "accountant architect artist banker barber bartender boss builder butcher captain carpenter chef cleaner clerk "
        "coach composer cook dancer dentist designer detective director doctor driver economist editor electrician "
        "engineer farmer firefighter fisherman florist gardener guard hairdresser historian homemaker janitor "
        "journalist judge lawyer lecturer librarian manager mathematician mechanic midwife miner musician nanny nurse "
        "painter pharmacist philosopher photographer physicist pilot plumber poet politician professor programmer "
        "psychologist receptionist reporter sailor salesman scientist secretary singer soldier surgeon tailor teacher "
        "therapist translator typist veterinarian writer"
    ).split()
)


def analogy_questions(pairs: Sequence[Pair], count: int, *, seed: int = 0) -> list[Quad]:
    """Questions a : b :: c : d from two different pairs of one relation, drawn without repetition.

    Args:
        pairs: At least two pairs.
        count: How many; all that there are, in random order, if there are fewer.
    Raises: ValueError if there are fewer than two pairs.
    Chapter: 02.
    """
    if len(pairs) < 2:
        raise ValueError(f"wanted at least two pairs, since a question needs two; came {len(pairs)}: give more pairs")
    every = [(a, b, c, d) for a, b in pairs for c, d in pairs if (a, b) != (c, d)]
    return random.Random(seed).sample(every, min(count, len(every)))
