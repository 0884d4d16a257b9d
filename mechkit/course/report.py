"""The report card: for every finding of the course, what was published, what this model shows, and what you found.

What this model shows is measured when the card is made, by each exercise's own reference on its visible data;
what was published is quoted in `data/published.py`, mostly for other models, so the two need not agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from numbers import Real
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from mechkit.course.checks import fill
from mechkit.course.exercise import MODEL, Exercise
from mechkit.course.exercises import NUMBERS, find_chapter
from mechkit.course.progress import Progress
from mechkit.data.published import PUBLISHED, Published
from mechkit.network.loading import load_model
from mechkit.show.captions import number, table_html, table_text

NOTHING = "–"
COLUMNS = ("finding", "published", "here", "yours", "tolerance")
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color-scheme:light dark}"
    "table{border-collapse:collapse}td,th{padding:.3em 1em .3em 0;text-align:left;vertical-align:top}"
)


@dataclass(frozen=True)
class Row:
    """One finding. `yours` is empty until its check has passed."""

    chapter: str
    finding: str
    published: str
    here: str
    yours: str
    tolerance: str


def report_rows(chapters: Sequence[str] = NUMBERS) -> list[Row]:
    """Every finding of these chapters, measured now on the course's model, or on the one MECHKIT_MODEL names.

    Raises: ValueError for a chapter that does not exist.
    """
    findings = [each for name in chapters for each in find_chapter(name).exercises if each.kind == "finding"]
    passed = Progress().read()["exercises"]
    needs_model = any(argument is MODEL for each in findings for argument in each.cases(0)[0])
    lm = load_model() if needs_model else None
    return [_row(each, lm, passed.get(each.id, {})) for each in tqdm(findings, desc="Measuring", leave=False)]


def report_text(rows: Sequence[Row]) -> str:
    """The card as plain text, one table a chapter."""
    tables = [f"{title}\n{table_text(table)}" for title, table in _tables(rows)]
    return "\n\n".join([*tables, *_others(rows)])


def report_html(rows: Sequence[Row]) -> str:
    """The card as a page of its own, which loads nothing."""
    tables = "".join(f"<h2>{escape(title)}</h2>{table_html(table)}" for title, table in _tables(rows))
    others = "".join(f"<p>{escape(line)}</p>" for line in _others(rows))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Report card</title>'
        f"<style>{STYLE}</style></head><body><main><h1>Report card</h1>{tables}"
        f"<h2>Published, and not a finding of the course</h2>{others}</main></body></html>\n"
    )


def report_json(rows: Sequence[Row]) -> dict[str, Any]:
    """The card for a program to read."""
    return {"findings": [asdict(row) for row in rows]}


def _row(exercise: Exercise, lm: Any, entry: Mapping[str, Any]) -> Row:
    here = exercise.reference(*fill(exercise.cases(0)[0], lm))
    quoted = [_quote(row) for row in PUBLISHED if row.finding == exercise.id]
    yours = said(entry["found"]) if "found" in entry else NOTHING
    return Row(exercise.chapter, exercise.name, "; ".join(quoted) or NOTHING, said(here), yours, _tolerance(exercise))


def _quote(row: Published) -> str:
    return f"{row.what}: {row.value} ({row.model}; {row.source})"


def _tolerance(exercise: Exercise) -> str:
    if exercise.allowance:
        return f"{exercise.tolerance:.0%}: {exercise.allowance}"
    return "names, places and counts exactly; numbers but for rounding"


def _tables(rows: Sequence[Row]) -> Iterator[tuple[str, list[list[str]]]]:
    for name in dict.fromkeys(row.chapter for row in rows):
        lines = [[getattr(row, column) for column in COLUMNS] for row in rows if row.chapter == name]
        yield f"Chapter {name}, {find_chapter(name).title}", [list(COLUMNS), *lines]


def _others(rows: Sequence[Row]) -> list[str]:
    chapters = {row.chapter for row in rows}
    return [f"{row.chapter}. {_quote(row)}" for row in PUBLISHED if row.chapter in chapters and not row.finding]


def said(value: Any) -> str:
    """A finding in few words: numbers with two significant digits."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"({said(part)})" if isinstance(part, list | tuple) else said(part) for part in value)
    if isinstance(value, Real) and not isinstance(value, bool | int):
        return number(float(value))
    return str(value)
