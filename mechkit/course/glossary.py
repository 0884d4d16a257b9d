"""What does this word mean, and where is it met? The glossary, kept as one page that learners can also read.

`solutions/glossary.md` is the source, of which `chapters/glossary.md` is a copy: a heading a term, its sentence, then
its chapter and terms to see also. Links to a term go to its heading, as JupyterLab and the site name it.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from mechkit.course.cards import Card
from mechkit.course.workspace import chapters_folder

PAGE = "glossary.md"
ENTRY = re.compile(
    r"^## (?P<name>.+)\n\n(?P<meaning>.+)\n\n"
    r"\[Chapter (?P<chapter>\d\d)\]\(\S+\.ipynb\)\.(?: See also (?P<also>.+)\.)?$",
    re.MULTILINE,
)
LINKED = re.compile(r"\[(.+?)\]\(#\S+\)")
NEAR = 3


@dataclass(frozen=True)
class Term:
    """One entry of the glossary.

    Args:
        meaning: One sentence.
        chapter: Number of the chapter where it is met first.
        also: Names of terms that stand near it.
    """

    name: str
    meaning: str
    chapter: str
    also: tuple[str, ...] = ()


def glossary(term: str = "") -> Card:
    """What a term of the field means, in one sentence, and the chapter where it is met first.

    A term that is not there is answered with those spelled like it; no term at all, with the list of all.
    """
    if not term.strip():
        return _everything()
    found = next((each for each in terms() if _plain(each.name) == _plain(term)), None)
    if found is None:
        return Card("quiet", f"{term.strip()} · not in the glossary", (_advice(term, [each.name for each in terms()]),))
    also = f"See also {', '.join(found.also)}." if found.also else ""
    return Card("quiet", f"{found.name} · first met in chapter {found.chapter}", (found.meaning, also))


@cache
def terms() -> tuple[Term, ...]:
    """Every term of the glossary that came with this mechkit, in the order of the alphabet.

    Raises: ValueError if the glossary did not come with it.
    """
    page = chapters_folder() / PAGE
    if not page.is_file():
        raise ValueError(
            f"wanted the glossary, {page}; it is not there: install mechkit-course again, or run `mechkit build`"
        )
    return read_terms(page.read_text(encoding="utf-8"))


def read_terms(page: str) -> tuple[Term, ...]:
    """The terms of a glossary's page.

    Raises: ValueError if an entry is not in the form that all have; it names the entry.
    """
    found = tuple(
        Term(entry["name"], entry["meaning"], entry["chapter"], tuple(LINKED.findall(entry["also"] or "")))
        for entry in ENTRY.finditer(page)
    )
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    if odd := [name for name in headings if name not in {each.name for each in found}]:
        raise ValueError(
            f"wanted of each term a sentence and a line with its chapter; came otherwise: {', '.join(odd)}"
        )
    return found


def anchor(name: str) -> str:
    """What a heading is called in a link, in JupyterLab and on the site alike."""
    return name.replace(" ", "-")


def terms_met(number: str, known: Sequence[Term]) -> str:
    """The source of the cell with which a chapter names its terms, each linked to the glossary."""
    links = [f"[{each.name}]({PAGE}#{anchor(each.name)})" for each in known if each.chapter == number]
    return f"**Terms met here** (each in a sentence in the [glossary]({PAGE})): {', '.join(links)}."


def _everything() -> Card:
    chapters = sorted({each.chapter for each in terms()})
    lines = (f"{number}: {', '.join(each.name for each in terms() if each.chapter == number)}" for number in chapters)
    return Card("quiet", f"Glossary · {len(terms())} terms", tuple(lines))


def _plain(term: str) -> str:
    """A term without capitals, hyphens and a plural's s, by which two spellings are the same."""
    return " ".join(term.casefold().replace("-", " ").split()).removesuffix("s")


def _advice(term: str, known: Sequence[str]) -> str:
    holding = [name for name in known if _plain(term) in _plain(name)]
    spelled = {_plain(name): name for name in known}
    near = [spelled[each] for each in difflib.get_close_matches(_plain(term), spelled, NEAR)]
    suggestions = list(dict.fromkeys([*holding, *near]))[:NEAR]
    if not suggestions:
        return "Nothing in it is spelled like that; `mk.glossary()` lists what there is."
    return f"Did you mean {', '.join(suggestions)}? `mk.glossary()` lists all."
