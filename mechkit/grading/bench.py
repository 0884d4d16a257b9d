"""How fast is a class graded, beside nbgrader on the same machine, and does its memory grow with the class?"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechkit.course.workspace import chapters_folder
from mechkit.grading.classroom import Wishes, grade_class
from mechkit.grading.collect import collect
from mechkit.grading.folders import WorkFolder
from mechkit.grading.handout import lay_out
from mechkit.grading.inside.family import descendants, measure

NAME = "04_logit_lens"
SMALL, ASKED = "00_start_here", ("00_cosine", "00_head_effect")  # one without the model, one on it


def grading_ratios(root: Path, *, notebooks: int = 3, jobs: int = 1) -> dict[str, float]:
    """How many times longer nbgrader takes for solved notebooks of chapter 04; seconds a notebook of both.

    Where other programs run, seconds of processors say more than those of the clock: both are given.

    Args:
        root: A checkout of the course, for the solutions.
        notebooks: How many are graded by each.
        jobs: How many of ours run at a time; nbgrader runs one.
    """
    with WorkFolder("bench") as folder:
        course = folder / "course"
        lay_out(course, root, [NAME])
        for number in range(notebooks):
            target = course / "submitted" / f"learner{number}" / NAME / f"{NAME}.ipynb"
            target.parent.mkdir(parents=True)
            shutil.copyfile(root / "solutions" / f"{NAME}.ipynb", target)
        ours, our_cpu = _taken(lambda: _ours(course, folder, jobs))
        _nbgrader(course, ["generate_assignment", NAME])
        theirs, their_cpu = _taken(lambda: _nbgrader(course, ["autograde", NAME]))
    return {
        "nbgrader / mechkit": theirs / ours,
        "seconds a notebook, mechkit": ours / notebooks,
        "seconds a notebook, nbgrader": theirs / notebooks,
        "nbgrader / mechkit, processors": their_cpu / our_cpu,
        "processor seconds a notebook, mechkit": our_cpu / notebooks,
        "processor seconds a notebook, nbgrader": their_cpu / notebooks,
    }


def grading_memory(root: Path, *, notebooks: int = 300) -> dict[str, float]:
    """Memory of the grader with all its processes after a tenth of a class, and after all of it.

    Each notebook answers two exercises, one of them about the real model. What counts is memory of the processes'
    own, in MB; the weights are the file's.
    Raises: ValueError where the system does not tell it.
    """
    if sys.platform != "linux":
        raise ValueError("wanted to measure the grader's processes; only Linux says what they use")
    seen: list[int] = []
    with WorkFolder("bench") as folder:
        template = folder / f"{SMALL}.ipynb"
        _write_small(root, template, "template")
        for number in range(notebooks):
            _write_small(root, folder / "in" / f"learner{number:04}.ipynb", f"learner {number}")
        handed = collect([folder / "in"], folder / "unpacked")
        start = time.perf_counter()
        sample = {"told": lambda record: seen.append(measure([os.getpid(), *descendants()])[0])}
        records = grade_class(handed, template, folder / "out", Wishes(seed=1), **sample)
        taken = time.perf_counter() - start
    assert all(record["points"] == record["max_points"] for record in records), records
    early, late = seen[max(0, notebooks // 10 - 1)] / 2**20, seen[-1] / 2**20
    return {"MB after a tenth": early, "MB after all": late, "ratio": late / early, "seconds": taken}


def _write_small(root: Path, path: Path, note: str) -> None:
    """A solved chapter of which only some exercises are left, each notebook's source its own."""
    notebook = json.loads((root / "solutions" / f"{SMALL}.ipynb").read_text(encoding="utf-8"))
    setup = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    kept = [cell for cell in notebook["cells"] if _grade_id(cell) in ASKED]
    for cell in kept:
        cell["source"] = ["".join(cell["source"]), f"\n# {note}"]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(notebook | {"cells": [setup, *kept]}), encoding="utf-8")


def _grade_id(cell: dict[str, Any]) -> str:
    return cell["metadata"].get("nbgrader", {}).get("grade_id", "")


def _taken(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock, and of processors: this process's and those of children that have ended."""
    start, spent = time.perf_counter(), sum(os.times()[:4])
    call()
    return time.perf_counter() - start, sum(os.times()[:4]) - spent


def _ours(course: Path, folder: Path, jobs: int) -> None:
    handed = collect([course / "submitted"], folder / "unpacked")
    template = chapters_folder() / f"{NAME}.ipynb"
    records = grade_class(handed, template, folder / "out", Wishes(jobs=jobs, seed=1))
    assert all(record["points"] == record["max_points"] for record in records), records


def _nbgrader(course: Path, arguments: Sequence[str]) -> None:
    # nbgrader calls alembic by name
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"wanted nbgrader to {arguments[0]}; it failed: {done.stderr.strip().splitlines()[-1]}")
