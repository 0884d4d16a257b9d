"""A class with every odd learner in it: one record each, neighbours unharmed, and a killed run goes on."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mechkit.grading.classroom import Wishes, grade_class
from mechkit.grading.collect import collect
from mechkit.grading.grade import Grader
from mechkit.grading.judge import Judge
from tests.grading.conftest import LIMITS, cell, cells, mark, stubs, text

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
LOOP = "def spread(x, base):\n    while True: pass"


@pytest.fixture
def submitted(tmp_path):
    root = tmp_path / "submitted"
    root.mkdir()
    odd = {
        "ann": text(cells()).encode(),
        "ben=1+1": text(cells()).encode(),
        "cyn": text(cells(**stubs())).encode(),
        "dan": text(cells(spread=LOOP)).encode(),
        "eve": b"",
        "flo": text(cells()).encode("utf-16"),
        "gus": b"[" * 100_000,
        "zoe": text(cells()).encode(),
    }
    for name, data in odd.items():
        (root / f"{name}.ipynb").write_bytes(data)
    (root / "hal").mkdir()
    return root


POINTS = {"ann": 8, "ben=1+1": 8, "cyn": 0, "dan": 6, "eve": 0, "flo": 8, "gus": 0, "hal": 0, "zoe": 8}


@pytest.fixture
def run(template, models, submitted, tmp_path):
    def graded(out, told=lambda record: None, **wishes):
        judge = Judge(11, models)
        opened = functools.partial(_opened, judge)
        handed = collect([submitted], tmp_path / "unpacked")
        wishes = Wishes(**({"limits": LIMITS, "seed": 3} | wishes))
        return grade_class(handed, template, out, wishes, told=told, open_grader=opened)

    return graded


def _opened(shared, template, limits, *, judge=None, **options):
    return Grader(template, limits, judge=judge or shared, **options)


def test_everybody_has_a_record_and_nobody_harms_a_neighbour(run, tmp_path):
    told = []
    records = run(tmp_path / "out", told.append, jobs=2)
    assert {record["learner"]: record["points"] for record in records} == POINTS
    assert sorted(record["learner"] for record in told) == sorted(POINTS)
    assert {record["learner"] for record in records if record["status"] == "unreadable"} == {"eve", "gus"}
    files = {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"records", "feedback", "gradebook.csv", "summary.html", "run.json"}
    assert len(list((tmp_path / "out" / "feedback").iterdir())) == 2 * len(POINTS)


def test_the_gradebook_does_not_depend_on_how_many_work(run, tmp_path):
    for jobs in (1, 3):
        run(tmp_path / str(jobs), jobs=jobs)
    assert (tmp_path / "1" / "gradebook.csv").read_bytes() == (tmp_path / "3" / "gradebook.csv").read_bytes()
    assert "'=" not in (tmp_path / "1" / "gradebook.csv").read_text()


class Killed(Exception):
    pass


def test_a_run_that_was_killed_goes_on_to_the_same_gradebook(run, tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(whole)
    seen = []

    def kill(record):
        seen.append(record["learner"])
        if len(seen) == 3:
            raise Killed

    with pytest.raises(Killed):
        run(halves, kill)
    again = []
    run(halves, lambda record: again.append(record["learner"]), seed=None, resume=True)
    assert (halves / "gradebook.csv").read_bytes() == (whole / "gradebook.csv").read_bytes()
    assert sorted([*seen, *again]) == sorted(POINTS), "nobody is graded twice"


def test_stopping_by_hand_writes_no_record_of_what_was_under_way(run, tmp_path):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", lambda record: record["learner"] == "cyn" and timer.start())
    timer.join()
    again = run(tmp_path / "out", resume=True, seed=None)
    assert {record["learner"]: record["points"] for record in again} == POINTS


def test_going_on_grades_what_was_handed_in_again(run, submitted, tmp_path):
    run(tmp_path / "out")
    (submitted / "cyn.ipynb").write_text(text(cells()))
    again = []
    run(tmp_path / "out", again.append, resume=True)
    assert [(record["learner"], record["points"]) for record in again] == [("cyn", 8.0)]


def test_a_failure_of_the_grader_is_worth_nothing_and_is_tried_again(run, tmp_path, monkeypatch):
    def fail(self, path):
        raise MemoryError("too bad")

    with monkeypatch.context() as patch:
        patch.setattr(Grader, "grade", fail)
        records = run(tmp_path / "out")
    assert {record["status"] for record in records} == {"error", "nothing handed in"}
    assert "MemoryError: too bad" in records[0]["problem"]
    again = run(tmp_path / "out", resume=True)
    assert {record["learner"]: record["points"] for record in again} == POINTS


def test_a_folder_that_cannot_be_written_to_is_said_first(run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ValueError, match="wanted to write to"):
        run(tmp_path / "out")


def test_going_on_under_another_limit_begins_anew(run, submitted, tmp_path):
    for path in submitted.glob("[b-y]*.ipynb"):
        path.unlink()
    run(tmp_path / "out")
    again = []
    run(tmp_path / "out", again.append, resume=True)
    assert again == []
    run(tmp_path / "out", again.append, resume=True, limits=replace(LIMITS, seconds=2.0))
    assert sorted(record["learner"] for record in again) == ["ann", "hal", "zoe"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_the_command_killed_with_its_whole_family_again_and_again_comes_to_the_same_gradebook(tmp_path):
    (tmp_path / "in").mkdir()
    source = ["def cosine(a, b):\n    return a @ b / (a.norm() * b.norm())", "def cosine(a, b):\n    return a @ b"]
    for number in range(9):
        made = [cell("import torch", id="setup"), cell(source[number % 2], metadata=mark("00_cosine"))]
        (tmp_path / "in" / f"learner{number}.ipynb").write_text(text(made))
    (tmp_path / "t.ipynb").write_text(text([cell("import torch", id="setup"), cell("", metadata=mark("00_cosine"))]))
    command = [sys.executable, "-m", "mechkit.cli", "grade", str(tmp_path / "in"), "--seed", "7", "--resume"]
    command += ["--template", str(tmp_path / "t.ipynb"), "--out"]
    for moment in (1, 5):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], start_new_session=True, cwd=ROOT)
        until = time.monotonic() + 300
        while time.monotonic() < until and _statuses(tmp_path / "killed").count("graded") < moment:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for folder in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / folder)], capture_output=True, cwd=ROOT, check=True)
    killed, whole = ((tmp_path / folder / "gradebook.csv").read_bytes() for folder in ("killed", "whole"))
    assert killed == whole
    assert whole.count(b"graded") == 9
    assert not list((tmp_path / "killed").rglob(".*"))


def _statuses(out):
    return [json.loads(path.read_text())["status"] for path in out.glob("records/*.json")]
