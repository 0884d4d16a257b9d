"""What a learner and an instructor read: feedback, a gradebook, and what the class got wrong.

Pages hold no script, load nothing, and every word of a learner's in them is escaped.
"""

import csv
import html
import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mechkit.course.cards import Card

TONES = {"passed": "right", "failed": "wrong", "not attempted": "quiet"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em .2em 0;text-align:left;vertical-align:top}"
    "div[role]{margin:.8em 0}"
)
BAR, WIDTH = "#0072B2", 160
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the wide ones count too
Record = dict[str, Any]


def feedback_html(record: Record) -> str:
    """One learner's page."""
    title = f"Chapter {record['chapter']}, {record['title']}"
    cards = [_card(row)._repr_mimebundle_()["text/html"] for row in record["exercises"]]
    notes = "".join(f"<p>{_escaped(note)}</p>" for note in _notes(record))
    return _page(title, f"<p>{_escaped(record['learner'])}: <b>{_score(record)}</b></p>{notes}{''.join(cards)}")


def feedback_markdown(record: Record) -> str:
    """The same as Markdown."""
    lines = [f"# Chapter {record['chapter']}, {_plain(record['title'])}", ""]
    lines += [f"{_plain(record['learner'])}: **{_score(record)}**", ""]
    lines += [f"{_plain(note)}\n" for note in _notes(record)]
    for row in record["exercises"]:
        card = _card(row)
        lines += [f"## {_plain(str(card).splitlines()[0])}", "", *(f"{_plain(line)}\n" for line in card.lines if line)]
    return "\n".join(lines)


def gradebook(records: Sequence[Record]) -> str:
    """One line a learner, as CSV that no spreadsheet takes for formulas."""
    names = [row["name"] for row in records[0]["exercises"]] if records else []
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["learner", "points", "max_points", "status", *names, "notes"])
    for record in records:
        points = [f"{row['points']:g}" for row in record["exercises"]]
        notes = " ".join(_notes(record))
        totals = [f"{record['points']:g}", f"{record['max_points']:g}", record["status"]]
        writer.writerow([cell_text(record["learner"]), *totals, *points, cell_text(notes)])
    return table.getvalue()


def cell_text(text: str) -> str:
    """A text that a spreadsheet shows and does not compute."""
    text = printable(text)
    return f"'{text}" if text.startswith(FORMULA) else text


def summary_html(records: Sequence[Record]) -> str:
    """What the class solved, and its most frequent mistakes: what to teach next."""
    if not records:
        return _page("No submissions", "")
    graded = [record for record in records if record["status"] == "graded"]
    mean = sum(record["points"] for record in records) / len(records)
    head = f"<p>{len(records)} learners; {len(graded)} notebooks could be read; {mean:.3g} points on average of "
    head += f"{records[0]['max_points']:g}.</p>"
    rows = [_summary_row(number, records) for number in range(len(records[0]["exercises"]))]
    top = "<tr><th>exercise<th>solved<th>tried<th>most frequent mistakes</tr>"
    return _page(
        f"Chapter {records[0]['chapter']}, {records[0]['title']}: the class",
        f"{head}<table>{top}{''.join(rows)}</table>",
    )


def _summary_row(number: int, records: Sequence[Record]) -> str:
    rows = [record["exercises"][number] for record in records]
    solved = sum(row["status"] == "passed" for row in rows) / len(rows)
    tried = sum(row["status"] != "not attempted" for row in rows) / len(rows)
    known = Counter(row["message"] for row in rows if row["mistake"]).most_common(3)
    said = "<br>".join(f"{count} × {_escaped(message)}" for message, count in known)
    return f"<tr><td>{_escaped(rows[0]['name'])}<td>{_bar(solved)}<td>{_bar(tried)}<td>{said}</tr>"


def _bar(share: float) -> str:
    words = f"{share:.0%}"
    return (
        f'<svg role="img" aria-label="{words}" width="{WIDTH + 50}" height="18">'
        f'<rect width="{WIDTH}" height="14" y="2" fill="#ddd"/>'
        f'<rect width="{share * WIDTH:.1f}" height="14" y="2" fill="{BAR}"/>'
        f'<text x="{WIDTH + 6}" y="14" font-size="13">{words}</text></svg>'
    )


def _card(row: Record) -> Card:
    points = f"{row['points']:g} of {row['max_points']:g}"
    status = "not attempted" if row["status"] == "not attempted" else points
    lines = (printable(row["message"]), printable(row["warning"]))
    return Card(TONES.get(row["status"], "wrong"), f"{row['name']} · {status}", lines)


def _notes(record: Record) -> list[str]:
    return [note for note in (record.get("problem"), record.get("note")) if note]


def _score(record: Record) -> str:
    return f"{record['points']:g} of {record['max_points']:g} points"


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{_escaped(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{_escaped(title)}</h1>{body}</body></html>\n"
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, but for words between backticks; on one line."""
    parts = printable(text).replace("\n", " ").split("`")
    shown = [re.sub(r"([\\*_{}\[\]()#+!|<>~&])", r"\\\1", part) for part in parts[::2]]
    code = [f"`{part}`" for part in parts[1::2]]
    if len(parts) % 2 == 0:  # the last backtick has no partner
        code[-1] = re.sub(r"([\\*_{}\[\]()#+!|<>~&])", r"\\\1", parts[-1])
    return "".join(piece for pair in zip(shown, [*code, ""], strict=False) for piece in pair)


def printable(text: str) -> str:
    """A text without control characters, half characters and what turns the reading direction."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", "\ufffd", text)
