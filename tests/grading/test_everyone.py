"""A class with everybody in it that a grader must survive, a healthy learner before and after each.

The class is graded once for all these tests, those who take long in a class of their own; each then looks at one
record and its neighbours'.
"""

import codecs
import json
import os
import sys
import time

import pytest
import torch

from mechkit.grading.classroom import Wishes, grade_class
from mechkit.grading.collect import collect
from mechkit.grading.grade import Grader
from mechkit.grading.judge import Judge
from mechkit.grading.submission import LARGEST
from tests.grading.answers import BROKEN, HOSTILE, LONG, RIGHT, bad
from tests.grading.conftest import ANSWERS, LIMITS, cell, cells, mark, needs_namespaces, stubs, text

# what hostile code can do is tested where it can be kept from doing it
pytestmark = needs_namespaces
ASKED = ("spread", "double")
FULL = 4.0


def asked(**answers):
    """The cells of a chapter of two exercises."""
    return [each for each in cells(**answers) if each["id"] == "setup" or each["id"].split("-")[0] in ASKED]


def notebook(made):
    return text(made).encode()


def changed(name, **fields):
    return [each | fields if each["id"] == name else each for each in asked()]


def without(*names):
    return [each for each in asked() if each["id"] not in names]


def of_format_3():
    old = [{"cell_type": "code", "input": each["source"], "metadata": each["metadata"]} for each in asked()]
    return json.dumps({"nbformat": 3, "worksheets": [{"cells": old}]}).encode()


def split():
    head, tail = ANSWERS["spread"].split("\n")
    first, *rest = without("spread")
    parts = [cell(part, id=name, metadata=mark("99_spread")) for part, name in ((head, "a"), (tail, "b"))]
    return [first, *parts, *rest]


def with_script():
    script = "<script>alert(1)</script>"
    shown = {"output_type": "display_data", "data": {"text/html": script}, "metadata": {}}
    made = [cell(script, "markdown"), *asked(spread=bad(f"raise ValueError({script!r})"))]
    return [each | {"outputs": [shown]} if each["cell_type"] == "code" else each for each in made]


def forged():
    mine = mark("99_spread_check", grade=True, solution=False, points=1000.0)
    return [cell("1000.0", metadata=mine), *changed("double", metadata=mark("99_double", points=-5.0))]


BOOMS = "raise SystemExit('this must never be run')"
TRUNCATED = notebook(asked())[:-30]
# what is handed in, as files or as one notebook's bytes; the record's status and points; words of the record
NOTEBOOKS = {
    "correct": (notebook(asked()), "graded", FULL, ""),
    "untouched": (notebook(asked(**{name: stubs()[name] for name in ASKED})), "graded", 0.0, "not attempted"),
    "half right": (notebook(asked(double=stubs()["double"])), "graded", 2.0, "not attempted"),
    "reordered": (notebook(asked()[::-1]), "graded", FULL, ""),
    "deleted": (notebook(without("spread", "spread-check")), "graded", 2.0, "No cell answers it"),
    "duplicated": (notebook([*changed("spread", source="def spread(): pass"), *asked()]), "graded", FULL, "last one"),
    "split": (notebook(split()), "graded", FULL, "put together"),
    "retyped": (notebook(changed("spread", cell_type="raw")), "graded", FULL, "stands in a raw cell"),
    "forged points": (notebook(forged()), "graded", FULL, ""),
    "no marks": (notebook([each | {"metadata": {}} for each in asked()]), "graded", FULL, "lost its grade_id"),
    "bad cell ids": (notebook([each | {"id": [1, None]} for each in asked()]), "graded", FULL, ""),
    "not JSON": (b"%PDF-1.4", "unreadable", 0.0, "not JSON"),
    "empty": (b"", "unreadable", 0.0, "is empty"),
    "truncated": (TRUNCATED, "unreadable", 0.0, "cut off"),
    "BOM": (codecs.BOM_UTF8 + notebook(asked()), "graded", FULL, ""),
    "UTF-16": (text(asked()).encode("utf-16"), "graded", FULL, ""),
    "format 3": (of_format_3(), "graded", FULL, ""),
    "format 5": (notebook(asked()).replace(b'"nbformat": 4', b'"nbformat": 5'), "graded", FULL, ""),
    "deep JSON": (b"[" * 500_000, "unreadable", 0.0, "not JSON"),
    "crowded JSON": (b'{"cells": [' + b"{}," * 1_000_001 + b"{}]}", "unreadable", 0.0, "parts"),
    "100,000 cells": (notebook([cell("x")] * 100_000), "unreadable", 0.0, "cells; at most"),
    "500 MB": (None, "unreadable", 0.0, "clear its outputs"),
    "unknown kernel": (notebook(asked()).replace(b'"metadata": {}, "nbformat"', b'"metadata": {"kernelspec": '
                       b'{"name": "cobol", "language": "cobol"}}, "nbformat"'), "graded", FULL, ""),
    "script": (notebook(with_script()), "graded", 2.0, "ValueError"),
    "another chapter's": (notebook([cell("def rank_of(): pass", metadata=mark("04_rank_of"))]), "graded", 0.0, "No"),
    "two notebooks": ({"a.ipynb": notebook(asked()), "b.ipynb": notebook([cell("x")])}, "graded", FULL, "'a.ipynb'"),
    "no notebook": ({"notes.txt": b"sorry"}, "nothing handed in", 0.0, "No notebook"),
    "odd file name": ({"Lösung (final) v2 .ipynb": notebook(asked())}, "graded", FULL, ""),
    "a local torch.py": (
        {"a.ipynb": notebook(asked()), "torch.py": BOOMS.encode(), "sitecustomize.py": BOOMS.encode(),
         "x.pth": f"import os; {BOOMS}".encode(), "conftest.py": BOOMS.encode()}, "graded", FULL, ""),
    "=1+1, \"quoted\"": (notebook(asked()), "graded", FULL, ""),
    "ⅷ Ωμέγα \u202e": (notebook(asked()), "graded", FULL, ""),
    "detects grading": (
        notebook(asked(spread=bad(f"import os\nassert not [n for n in os.environ if 'GRAD' in n]\nreturn {RIGHT}"))),
        "graded", FULL, ""),
}  # fmt: skip
ANSWERED = {name: (notebook([*asked(spread=bad(body)), cell("elsewhere = 1")]), "graded", 2.0, words)
            for name, (body, words) in HOSTILE.items()}  # fmt: skip
ANSWERED |= {f"cell: {name}": (notebook(asked(spread=source)), "graded", 2.0, words)
             for name, (source, words) in BROKEN.items()}  # fmt: skip
CLASSES = {
    "quick": NOTEBOOKS | {name: each for name, each in ANSWERED.items() if name not in LONG},
    "long": {name: each for name, each in ANSWERED.items() if name in LONG},
}


class Graded:
    """A class that has been graded, and what was there before and after."""

    def __init__(self, kinds, template, models, folder):
        self.kinds, self.folder = list(kinds), folder
        for number, (kind, (handed, *_)) in enumerate(kinds.items()):
            self._hand_in(f"{number:03} {kind}", handed)
            self._hand_in(f"{number:03}.5 healthy", notebook(asked()))
        self._hand_in("! healthy", notebook(asked()))
        handed = collect([folder / "in"], folder / "unpacked")
        before, start = self.surroundings(), time.monotonic()
        self.records = grade_class(
            handed, template, folder / "out", Wishes(limits=LIMITS, seed=3, hidden=[folder]), told=self._note,
            open_grader=lambda *args, judge=None, **options: Grader(*args, judge=Judge(11, models), **options),
        )  # fmt: skip
        self.seconds, self.before, self.after = time.monotonic() - start, before, self.surroundings()

    def _hand_in(self, learner, handed):
        place = self.folder / "in" / learner
        place.mkdir(parents=True)
        files = handed if isinstance(handed, dict) else {"a.ipynb": handed}
        for name, data in files.items():
            with (place / name).open("wb") as file:
                file.truncate(500 * 2**20) if data is None else file.write(data)

    def _note(self, record):
        pass

    def surroundings(self):
        """What no answer may change: the environment, torch's settings, files around, processes."""
        lines = []
        for each in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{each}/cmdline", encoding="utf-8", errors="replace") as file:
                    lines.append(file.read())
            except OSError:
                continue
        return {
            "environment": dict(os.environ),
            "torch": [torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()],
            "path": list(sys.path),
            "files": sorted(path for path in self.folder.iterdir() if path.name != "out"),
            "left running": [line for line in lines if "time.sleep(77)" in line],
        }

    def of(self, kind):
        """A learner's record, with that of the neighbours before and after."""
        place = 1 + 2 * self.kinds.index(kind)
        return self.records[place], [self.records[place - 1], self.records[place + 1]]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "99_two.ipynb"
    path.write_text(text(asked(**{name: stubs()[name] for name in ASKED})))
    return path


@pytest.fixture(scope="module")
def classes(two, models, tmp_path_factory):
    graded = {}

    def find(name):
        if name not in graded:
            graded[name] = Graded(CLASSES[name], two, models, tmp_path_factory.mktemp(name))
        return graded[name]

    return find


EACH = [
    pytest.param(name, kind, id=kind.encode("ascii", "replace").decode(), marks=[pytest.mark.slow] * (name == "long"))
    for name, kinds in CLASSES.items()
    for kind in kinds
]


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_everybody_gets_what_is_due(classes, name, kind):
    record, neighbours = classes(name).of(kind)
    _, status, points, words = CLASSES[name][kind]
    assert record["learner"].endswith(kind)
    assert (record["status"], record["points"], record["max_points"]) == (status, points, FULL), record
    said = [record["problem"], record["note"]]
    for row in record["exercises"]:
        said += [row["message"], row["warning"], row["status"]]
    assert words in " ".join(said)
    assert [each["points"] for each in neighbours] == [FULL, FULL]


@pytest.mark.parametrize("name", ["quick", pytest.param("long", marks=pytest.mark.slow)])
def test_nothing_is_left_behind_and_everybody_has_one_record(classes, name):
    graded = classes(name)
    assert graded.before == graded.after
    out = graded.folder / "out"
    assert {path.name for path in out.iterdir()} == {"records", "feedback", "gradebook.csv", "summary.html", "run.json"}
    assert len(list((out / "records").iterdir())) == len(graded.records) == 2 * len(graded.kinds) + 1
    assert not [record for record in graded.records if record["status"] == "error"], "the batch's exit code is 0"
    assert graded.seconds < len(graded.kinds) * (LIMITS.whole + 12)
    assert LARGEST < 500 * 2**20
    for path in (out / "feedback").glob("*.html"):
        assert "<script" not in path.read_text()
