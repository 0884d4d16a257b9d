"""What is wrong with this solution notebook, and does its chapter give an answer away?

Every problem is one sentence that names the notebook and the cell. The search for leaks assumes nothing
about how the chapter was made: it looks for each line of each answer in everything that the chapter holds.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator

from nbformat import NotebookNode

from mechkit.course.regions import MARKER_LIKE, Region, find_regions, outside

CHECK = "_check"
# grade, solution, locked: nbgrader's table for schema 3
KINDS = {
    (False, True, False): "answer",
    (True, False, True): "check",
    (True, True, False): "written answer",
    (False, False, True): "read-only",
}
KEYS = {"schema_version", "grade", "solution", "locked", "task", "grade_id", "points"}
FLAGS = ("grade", "solution", "locked")
GRADE_ID = re.compile(r"[a-zA-Z0-9_-]+")
LINE_THAT_TELLS = 12
BARE_RETURN = re.compile(r"return [\w.]+")


def kind_of(cell: NotebookNode) -> str:
    """What a cell is to nbgrader: answer, check, written answer, read-only, or "" for none of these."""
    meta = nbgrader(cell)
    return KINDS.get(tuple(bool(meta.get(flag)) for flag in FLAGS), "")


def nbgrader(cell: NotebookNode) -> dict:
    """A cell's nbgrader metadata; empty if it has none that can be read."""
    meta = cell.metadata.get("nbgrader")
    return meta if isinstance(meta, dict) else {}


def faults(notebook: NotebookNode, name: str) -> list[str]:
    """Why no chapter can be made from a solution; empty if one can.

    Args:
        name: How the sentences call the notebook, such as `solutions/04_logit_lens.ipynb`.
    """
    ids = Counter(cell.id for cell in notebook.cells)
    grade_ids = Counter(nbgrader(cell).get("grade_id") for cell in notebook.cells)
    answers = {nbgrader(cell).get("grade_id") for cell in notebook.cells if nbgrader(cell).get("solution")}
    found = [] if notebook.cells else [f"{name} has no cells."]
    for place, cell in zip(places(notebook, name), notebook.cells, strict=True):
        grade_id = nbgrader(cell).get("grade_id")
        sentences = [*_region_faults(cell), *_metadata_faults(cell)]
        if ids[cell.id] > 1:
            sentences.append("shares its id with another cell; give one of them a new id")
        if grade_id and grade_ids[grade_id] > 1:
            sentences.append(f"has the grade_id {grade_id!r}, which another cell has too")
        if _needs_check(cell) and f"{grade_id}{CHECK}" not in grade_ids:
            sentences.append(f"is an answer without a check: no cell has the grade_id '{grade_id}{CHECK}'")
        if kind_of(cell) == "check" and (checked := str(grade_id).removesuffix(CHECK)) not in answers:
            sentences.append(f"is a check without an answer: no answer has the grade_id {checked!r}")
        found += [f"{place} {sentence}." for sentence in sentences]
    return found


def stale_outputs(notebook: NotebookNode, name: str) -> list[str]:
    """Why a solution's stored outputs are not those of one run from top to end."""
    cells = [(place, cell) for place, cell in zip(places(notebook, name), notebook.cells, strict=True)]
    code = [(place, cell) for place, cell in cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for _, cell in code]
    if counts != list(range(1, len(code) + 1)):
        return [f"{name} was not run from top to end; run `mechkit build --execute`."]
    failed = [place for place, cell in code if "raises-exception" not in tags(cell) and _has_error(cell)]
    return [f"{place} stores an error; mend it and run `mechkit build --execute`." for place in failed]


def leaks(solution: NotebookNode, chapter: NotebookNode, name: str) -> list[str]:
    """Where a chapter holds text of an answer.

    A line of an answer may stand in a chapter only if an earlier code cell of the chapter taught it; all of
    an answer's telling lines in one cell are a leak even so.

    Args:
        name: How the sentences call the chapter.
    """
    parts = dict(zip(places(chapter, name), chapter.cells, strict=True))
    parts[f"{name}, metadata,"] = {key: value for key, value in chapter.items() if key != "cells"}
    texts = {place: _squeeze(_everything(part)) for place, part in parts.items()}
    found, taught = [], set()
    for cell in (cell for cell in solution.cells if cell.cell_type == "code"):
        for lines in map(telling_lines, find_regions(cell.source)):
            for place, text in texts.items():
                if line := _given_away(lines, taught, text):
                    found.append(f"{place} gives away a line of the answer in cell {cell.id!r}: {line!r}.")
        taught.update(_squeeze(line) for line in outside(cell.source))
    return found


def telling_lines(region: Region) -> list[str]:
    """The lines of a region that would help somebody who has not solved it, white space squeezed."""
    lines = (_squeeze(line.partition("  #")[0]) for line in region.lines)
    return [line for line in lines if len(line) > LINE_THAT_TELLS and not BARE_RETURN.fullmatch(line)]


def places(notebook: NotebookNode, name: str) -> list[str]:
    """How to call each cell: notebook, number from 1, id."""
    return [f"{name}, cell {number} ({cell.id!r})," for number, cell in enumerate(notebook.cells, 1)]


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def _region_faults(cell: NotebookNode) -> Iterator[str]:
    if cell.cell_type != "code":
        if MARKER_LIKE.search(cell.source):
            yield "has a region marker, but only a code cell may have one"
        return
    try:
        kinds = {region.kind for region in find_regions(cell.source)}
    except ValueError as error:
        yield str(error)
        return
    answer = kind_of(cell) in ("answer", "written answer")
    if "SOLUTION" in kinds and not answer:
        yield "has a SOLUTION region; its nbgrader metadata must say solution true, locked false"
    if "SOLUTION" not in kinds and answer:
        yield "is marked as an answer and has no SOLUTION region"
    if "HIDDEN TESTS" in kinds and kind_of(cell) != "check":
        yield "has HIDDEN TESTS; its nbgrader metadata must say grade true, solution false, locked true"


def _metadata_faults(cell: NotebookNode) -> Iterator[str]:
    if "nbgrader" not in cell.metadata:
        return
    meta = nbgrader(cell)
    if extra := sorted(set(meta) - KEYS):
        yield f"has nbgrader keys that do not belong in a source: {', '.join(extra)}"
    if meta.get("schema_version") != 3:
        yield f"has nbgrader schema_version {meta.get('schema_version')!r}; it must be 3"
    if not all(isinstance(meta.get(flag), bool) for flag in FLAGS) or not kind_of(cell):
        options = "; ".join(f"{kind} = {'/'.join(map(str, flags)).lower()}" for flags, kind in KINDS.items())
        yield f"has nbgrader metadata of no known kind (grade/solution/locked: {options})"
    if not GRADE_ID.fullmatch(str(meta.get("grade_id", ""))):
        yield f"has the grade_id {meta.get('grade_id')!r}; it must be letters, digits, - and _"
    points = meta.get("points")
    if meta.get("grade") and (isinstance(points, bool) or not isinstance(points, int | float) or points < 0):
        yield f"is graded and has points {points!r}; it needs a number"


def _needs_check(cell: NotebookNode) -> bool:
    """Functions are checked in a cell of their own; a guess or a claim is scored where it stands."""
    if kind_of(cell) != "answer" or cell.cell_type != "code":
        return False
    try:
        return any(region.in_function for region in find_regions(cell.source))
    except ValueError:
        return False


def _given_away(lines: list[str], taught: set[str], text: str) -> str:
    """The first line of an answer that a text should not hold; "" if it holds none."""
    shown = [line for line in lines if line in text]
    new = [line for line in shown if line not in taught]
    whole = shown if len(shown) == len(lines) else []
    return next(iter(new + whole), "")


def _has_error(cell: NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.outputs)


def _everything(value: object) -> str:
    """All strings of a JSON value, keys too, one a line."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "\n".join(_everything(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return "\n".join(_everything(part) for part in value)
    return json.dumps(value)


def _squeeze(text: str) -> str:
    return " ".join(text.split())
