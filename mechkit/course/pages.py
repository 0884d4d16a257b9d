"""Two pages beside the chapters: the glossary, and a map of what to read, made from each chapter's further reading.

The limit: a page is checked for agreeing with the chapters, not for being right about a paper.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from mechkit.course import authoring, glossary

FURTHER = "## Further reading\n"
READING_MAP = "reading_map.md"
FOLDERS = ("solutions", "chapters")
PAPER = re.compile(r"(?P<authors>.+?) \((?P<year>\d{4})\), \*(?P<title>[^*]+)\*\.? (?P<why>\S.*\.)")
OPENING = """# Reading map

The papers that each chapter builds on, and what to read each of them for.
"""


@dataclass(frozen=True)
class Paper:
    """A paper, and what a chapter says to read it for."""

    authors: str
    year: str
    title: str
    why: str

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}), *{self.title}*{'' if self.title.endswith('?') else '.'}"


def pages(root: Path) -> dict[str, str]:
    """The text of each page of a checkout, by its file's name; none for a checkout without a glossary.

    Raises: ValueError, a sentence, for a paper or a term that is not in the form that all have.
    """
    source = root / "solutions" / glossary.PAGE
    if not source.is_file():
        return {}
    return {glossary.PAGE: source.read_text(encoding="utf-8"), READING_MAP: reading_map(_solutions(root))}


def write(root: Path) -> list[Path]:
    """Write the pages beside the solutions, where the glossary's source is, and beside the chapters; their paths."""
    written = []
    for name, text in pages(root).items():
        for folder in FOLDERS:
            (root / folder / name).write_text(text, encoding="utf-8", newline="\n")
            written.append(root / folder / name)
    return written


def check(root: Path) -> list[str]:
    """Where pages and chapters disagree, a sentence each; empty if they do not."""
    made = pages(root)
    ours = {f"{folder}/{name}": text for name, text in made.items() for folder in FOLDERS}
    stale = [name for name, text in ours.items() if not _holds(root / name, text)]
    problems = [f"{name} is not what the solutions generate; run `mechkit build`." for name in stale]
    known = glossary.read_terms(made[glossary.PAGE]) if made else ()
    for name, notebook in _solutions(root).items() if made else ():
        wanted = glossary.terms_met(name[:2], known)
        if wanted not in [cell.source for cell in notebook.cells]:
            problems.append(f"solutions/{name} names other terms than the glossary; wanted this cell: {wanted}")
    return problems


def reading_map(notebooks: Mapping[str, NotebookNode]) -> str:
    """The page of every chapter's papers, by chapter; a paper of several chapters says so.

    Args:
        notebooks: Solved chapters by their file's name.
    """
    read = {name: papers(notebook, name) for name, notebook in notebooks.items()}
    parts = [OPENING]
    for name, found in read.items():
        lines = [f"- {paper} {paper.why}{_also(paper, name, read)}" for paper in found]
        parts.append(f"## [{_title(notebooks[name])}]({name})\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def papers(notebook: NotebookNode, name: str) -> list[Paper]:
    """The papers of a chapter's further reading.

    Raises: ValueError if it has none, or one is not written as all are.
    """
    cells = [cell.source for cell in notebook.cells if cell.source.startswith(FURTHER)]
    items = [" ".join(item.split()) for cell in cells for item in cell.removeprefix(FURTHER).split("\n- ")[1:]]
    form = "'- Authors (year), *Title*. What to read it for.'"
    if not items:
        raise ValueError(f"wanted papers under '## Further reading' in {name}, one a line: {form}; came none")
    found = [PAPER.fullmatch(item) for item in items]
    if odd := [item for item, paper in zip(items, found, strict=True) if paper is None]:
        raise ValueError(f"wanted {form} in the further reading of {name}; came {odd[0]!r}")
    return [Paper(**paper.groupdict()) for paper in found if paper]


def _also(paper: Paper, name: str, read: Mapping[str, list[Paper]]) -> str:
    others = [each for each, found in read.items() if each != name and str(paper) in map(str, found)]
    return f" (Also for chapter {', '.join(f'[{other[:2]}]({other})' for other in others)}.)" if others else ""


def _title(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.partition("\n")[0].removeprefix("# ")


def _solutions(root: Path) -> dict[str, NotebookNode]:
    return {path.name: authoring.read(path) for path in authoring.solution_paths(root)}


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
