"""Which code in this notebook is the answer to which exercise? Found by what is left of its marks; nothing is run.

An answer is looked for by its grade_id, then by its cell's id, then by the name it has to define. Whatever
else a notebook holds (checks, points, outputs, cells of others) is never read.
"""

import ast
import codecs
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mechkit.course.exercise import Chapter, Exercise
from mechkit.course.exercises import find_chapter

LARGEST = 64 * 2**20
MOST_CELLS = 20_000
MOST_PARTS = 1_000_000  # of its JSON: each takes a hundred times its size in memory
LONGEST = 200_000  # characters of one answer
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class SubmissionError(ValueError):
    """A file from which no answer can be read; its text completes a sentence about the notebook."""


@dataclass(frozen=True)
class Cell:
    """What the grader reads of a cell; "" for what is missing or broken."""

    kind: str
    source: str
    id: str
    grade_id: str


@dataclass(frozen=True)
class Template:
    """The instructor's side: where a chapter's answers stand, and what they may import.

    Args:
        chapter: Its exercises, which alone say what an answer is worth.
        cells: The chapter's notebook, as released or as solved.
    """

    chapter: Chapter
    cells: tuple[Cell, ...]

    @property
    def exercises(self) -> list[Exercise]:
        """Those that the notebook asks for, in order."""
        asked = {cell.grade_id for cell in self.cells}
        return [exercise for exercise in self.chapter.exercises if exercise.id in asked]

    @property
    def imports(self) -> str:
        """The import lines of the setup cell: the first code cell."""
        setup = next((cell.source for cell in self.cells if cell.kind == "code"), "")
        statements = ast.parse(setup).body
        return "\n".join(ast.unparse(each) for each in statements if isinstance(each, ast.Import | ast.ImportFrom))

    @property
    def digest(self) -> str:
        """What tells this version of the chapter from another."""
        sources = "\0".join(cell.source for cell in self.cells)
        return hashlib.sha256(sources.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def cell_id(self, exercise: Exercise) -> str:
        return next(cell.id for cell in self.cells if cell.grade_id == exercise.id)

    def is_ours(self, cell: Cell) -> bool:
        """Whether a cell is one of the chapter's own that asks for no answer."""
        return cell.source.strip() in self._ours

    @cached_property
    def _ours(self) -> set[str]:
        asked = {exercise.id for exercise in self.chapter.exercises}
        return {each.source.strip() for each in self.cells if each.grade_id not in asked}


@dataclass(frozen=True)
class Found:
    """An answer's code, and how it was found if not by its grade_id; "" where there is none."""

    source: str = ""
    warning: str = ""


def read_template(path: Path) -> Template:
    """A chapter as released or as solved; its exercises say which chapter it is.

    Raises: ValueError if it is no chapter of this version of the course.
    """
    try:
        cells = read_cells(path)
    except SubmissionError as error:
        raise ValueError(f"wanted a chapter's notebook as template; {path} {error}") from None
    number = next((cell.grade_id[:2] for cell in cells if re.match(r"\d\d_", cell.grade_id)), "")
    if not number:
        raise ValueError(f"wanted a chapter's notebook as template; {path} has no cell with a chapter's grade_id")
    template = Template(find_chapter(number), tuple(cells))
    if not template.exercises:
        raise ValueError(f"{path} has no exercise of chapter {number} as this version knows it: build it again")
    return template


def find_answers(cells: Sequence[Cell], template: Template) -> dict[str, Found]:
    """The answer to each of a template's exercises, by exercise id."""
    return {exercise.id: _find(cells, exercise, template) for exercise in template.exercises}


def _find(cells: Sequence[Cell], exercise: Exercise, template: Template) -> Found:
    marked = [cell for cell in cells if cell.grade_id == exercise.id]
    if found := _chosen(marked, exercise):
        return found
    asked = {each.id for each in template.exercises} - {exercise.id}
    others = [cell for cell in cells if cell.grade_id not in asked and not template.is_ours(cell)]
    by_id = [cell for cell in others if cell.id and cell.id == template.cell_id(exercise)]
    if found := _chosen(by_id, exercise):
        return _with(found, "Its cell had lost its grade_id and was found by its cell id.")
    by_name = [cell for cell in others if cell.kind == "code" and _defines(cell, exercise)]
    if found := _chosen(by_name, exercise):
        return _with(found, f"Its cell had lost its marks and was found by `{exercise.name}`, which it defines.")
    source = "\n\n".join(cell.source for cell in marked or by_id)
    return _limited(Found(source, "" if source.strip() else "No cell answers it."))


def _chosen(cells: Sequence[Cell], exercise: Exercise) -> Found | None:
    """The one cell that defines the answer, with pieces of the same mark; the last of several."""
    defining = [cell for cell in cells if _defines(cell, exercise)]
    if not defining:
        return None
    if len(defining) > 1:
        return _limited(Found(defining[-1].source, f"{len(defining)} cells answer it; the last one counts."))
    kind = defining[0].kind
    warning = "" if kind == "code" else f"It stands in a {kind} cell; change it back to a code cell."
    if len(cells) > 1:
        warning = warning or "It is split over several cells, which were put together."
    return _limited(Found("\n".join(cell.source for cell in cells), warning))


def _with(found: Found, warning: str) -> Found:
    return Found(found.source, " ".join(filter(None, (warning, found.warning))))


def _limited(found: Found) -> Found:
    if len(found.source) <= LONGEST:
        return found
    return Found("", f"It has {len(found.source):,} characters; at most {LONGEST:,} are read.")


def _defines(cell: Cell, exercise: Exercise) -> bool:
    name = re.escape(exercise.name)
    return bool(
        re.search(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]*)?=(?!=)", cell.source, re.M)
    )


# reading ------------------------------------------------------------------------------------------------------


def read_cells(path: Path) -> list[Cell]:
    """A notebook's cells, whatever its format's version and however it is encoded.

    Raises: SubmissionError if it is too large, or not a notebook.
    """
    return cells_of(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """What is in a file.

    Raises: SubmissionError if it is too large, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise SubmissionError(f"has {size:,} bytes; at most {LARGEST:,} are read: clear its outputs")
        with path.open("rb") as file:
            return file.read(LARGEST)  # it may have grown by now
    except OSError as error:
        raise SubmissionError(f"cannot be read ({error.strerror})") from None


def cells_of(data: bytes) -> list[Cell]:
    """The cells of a notebook that has been read.

    Raises: SubmissionError if it is not a notebook.
    """
    if not data.strip():
        raise SubmissionError("is empty")
    parts = data.count(b"{") + data.count(b"[")
    if parts > MOST_PARTS:
        raise SubmissionError(f"has {parts:,} parts; at most {MOST_PARTS:,} are read: clear its outputs")
    try:
        notebook = json.loads(_decoded(data))
    except (ValueError, RecursionError):
        raise SubmissionError("is not a notebook: it is not JSON, or cut off") from None
    if not isinstance(notebook, dict):
        raise SubmissionError("is not a notebook: it is JSON of another kind")
    raw = _raw_cells(notebook)
    if len(raw) > MOST_CELLS:
        raise SubmissionError(f"has {len(raw):,} cells; at most {MOST_CELLS:,} are read")
    return [_cell(each) for each in raw if isinstance(each, dict)]


def _decoded(data: bytes) -> str:
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    return data.decode(encoding)


def _raw_cells(notebook: dict) -> list:
    if isinstance(notebook.get("cells"), list):
        return notebook["cells"]
    sheets = notebook.get("worksheets")  # before format 4
    if not isinstance(sheets, list):
        raise SubmissionError("is not a notebook: it has no cells")
    parts = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
    return [cell for part in parts if isinstance(part, list) for cell in part]


def _cell(raw: dict) -> Cell:
    metadata = raw.get("metadata")
    mark = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = mark.get("grade_id") if isinstance(mark, dict) else None
    kind = {"code": "code", "markdown": "Markdown"}.get(_text(raw.get("cell_type")), "raw")
    return Cell(kind, _text(raw.get("source", raw.get("input"))), _text(raw.get("id")), _text(grade_id))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""
