"""How do marks get to where a university keeps them? Into the files that Canvas, Moodle and Gradescope made.

A sheet is filled in, never made up: the instructor exports it, we write one column of it, and every other cell
stays as it is. Learners and rows are matched before anything is graded.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"\((\d+)\)$")
# what may name a learner in a row, best first
KEYS = ("ID", "Identifier", "SIS Login ID", "Username", "Email address", "SIS User ID", "Student", "Full name")
MOODLE_GRADE = "Grade"


@dataclass(frozen=True)
class Sheet:
    """A gradebook as exported, with the column that is to be filled in.

    Args:
        rows: All of it, the first row being the names of the columns.
        column: The number of the column.
        places: The number of each learner's row.
        encoding: Of the file.
    """

    rows: tuple[tuple[str, ...], ...]
    column: int
    places: dict[str, int]
    encoding: str

    def filled(self, records: Sequence[dict[str, Any]]) -> bytes:
        """The file with the points of these records."""
        rows = [list(row) for row in self.rows]
        for record in records:
            row = rows[self.places[record["learner"]]]
            row += [""] * (self.column + 1 - len(row))
            row[self.column] = f"{record['points']:g}"
        table = io.StringIO()
        csv.writer(table, lineterminator="\r\n").writerows(rows)
        return table.getvalue().encode(self.encoding)


def read_sheet(path: Path, learners: Sequence[str], column: str | None = None) -> Sheet:
    """A Canvas or Moodle export, matched with those who handed in.

    Args:
        column: The assignment's column, or what its name begins with; Moodle's is known.
    Raises: ValueError if it is no such file, has no such column, or lacks a learner; it lists what is missing.
    """
    data = path.read_bytes()
    encoding = "utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"
    try:
        rows = [tuple(row) for row in csv.reader(io.StringIO(data.decode(encoding), newline=""))]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"wanted a gradebook as Canvas or Moodle export it; {path} cannot be read ({error})") from None
    if not rows or not set(KEYS) & set(rows[0]):
        raise ValueError(f"wanted a gradebook as Canvas or Moodle export it; {path} has none of {', '.join(KEYS)}")
    places = {learner: place for learner in learners if (place := _place(learner, rows)) is not None}
    missing = [learner for learner in learners if learner not in places]
    if missing:
        listed = ", ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
        raise ValueError(f"{path} has no row for {len(missing)} of {len(learners)} learners: {listed}")
    return Sheet(tuple(rows), _column(rows[0], column, path), places, encoding)


def gradescope(record: dict[str, Any]) -> dict[str, Any]:
    """One record as Gradescope's results.json."""
    tests = []
    for number, row in enumerate(record["exercises"], 1):
        passed = row["status"] == "passed"
        tests.append(
            {
                "name": row["name"],
                "number": str(number),
                "score": row["points"],
                "max_score": row["max_points"],
                "status": "passed" if passed else "failed",
                "output": " ".join(filter(None, (row["message"] or row["status"], row["warning"]))),
                "output_format": "text",
                "visibility": "visible",
            }
        )
    said = " ".join(filter(None, (record["problem"], record.get("note", ""))))
    return {
        "score": record["points"],
        "execution_time": record["seconds"],
        "output": said or f"Chapter {record['chapter']}, {record['title']}",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {"isolation": record["isolation"], "seed": record["seed"]},
    }


def _column(header: Sequence[str], wanted: str | None, path: Path) -> int:
    wanted = wanted or (MOODLE_GRADE if MOODLE_GRADE in header else None)
    if wanted is None:
        raise ValueError(f"wanted the assignment's column of {path}: name it with --column, one of {', '.join(header)}")
    exact = [number for number, name in enumerate(header) if name == wanted]
    found = exact or [number for number, name in enumerate(header) if name.startswith(wanted)]
    if len(found) != 1:
        raise ValueError(
            f"wanted one column called {wanted!r} in {path}; there are {len(found)} of {', '.join(header)}"
        )
    return found[0]


def _place(learner: str, rows: Sequence[Sequence[str]]) -> int | None:
    """The row of a learner: by the number that the system put into the file's name, else by a name."""
    number = NUMBER.search(learner)
    for key in (key for key in KEYS if key in rows[0]):
        column = rows[0].index(key)
        for place, row in enumerate(rows[1:], 1):
            value = row[column].strip() if column < len(row) else ""
            if value and value in _spellings(learner, number[1] if number else None):
                return place
    return None


def _spellings(learner: str, number: str | None) -> set[str]:
    return {learner} if number is None else {number, f"Participant {number}"}
