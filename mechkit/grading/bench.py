"""How fast is a class graded, beside nbgrader's autograde of the same notebooks on the same machine?"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mechkit.course.workspace import chapters_folder
from mechkit.grading.classroom import Wishes, grade_class
from mechkit.grading.collect import collect
from mechkit.grading.handout import lay_out

NAME = "04_logit_lens"


def grading_ratios(root: Path, *, notebooks: int = 3, jobs: int = 1) -> dict[str, float]:
    """How many times longer nbgrader takes for solved notebooks of chapter 04; seconds a notebook of both.

    Args:
        root: A checkout of the course, for the solutions.
        notebooks: How many are graded by each.
        jobs: How many of ours run at a time; nbgrader runs one.
    """
    with tempfile.TemporaryDirectory(prefix="mechkit-bench-", ignore_cleanup_errors=True) as folder:
        course = Path(folder) / "course"
        lay_out(course, root, [NAME])
        for number in range(notebooks):
            target = course / "submitted" / f"learner{number}" / NAME / f"{NAME}.ipynb"
            target.parent.mkdir(parents=True)
            shutil.copyfile(root / "solutions" / f"{NAME}.ipynb", target)
        ours = _ours(course, Path(folder), jobs)
        _nbgrader(course, ["generate_assignment", NAME])
        start = time.perf_counter()
        _nbgrader(course, ["autograde", NAME])
        theirs = time.perf_counter() - start
    return {
        "nbgrader / mechkit": theirs / ours,
        "seconds a notebook, mechkit": ours / notebooks,
        "seconds a notebook, nbgrader": theirs / notebooks,
    }


def _ours(course: Path, folder: Path, jobs: int) -> float:
    handed = collect([course / "submitted"], folder / "unpacked")
    template = chapters_folder() / f"{NAME}.ipynb"
    start = time.perf_counter()
    records = grade_class(handed, template, folder / "out", Wishes(jobs=jobs, seed=1))
    taken = time.perf_counter() - start
    assert all(record["points"] == record["max_points"] for record in records), records
    return taken


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
