"""How does another system hand out and grade our chapters? As a course for nbgrader, or Gradescope's autograder.

Our solutions are nbgrader's sources as they are: its own markers and metadata. The limit: nbgrader runs the tests
in the learner's own kernel; `mechkit grade` reads its `submitted` folder and does not.
"""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mechkit.course.authoring import solution_paths
from mechkit.course.exercises import WORKED

CONFIG = '''"""nbgrader's settings for this course: `nbgrader generate_assignment NAME`, `nbgrader autograde NAME`."""

c = get_config()  # noqa: F821, nbgrader defines it
c.CourseDirectory.course_id = "mechkit"
c.ExecutePreprocessor.timeout = 600
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}
'''

# Gradescope's containers have 768 MB of memory by default: the guide says to raise that.
SETUP = """#!/bin/sh
set -e
apt-get update
apt-get install -y python3.11 python3.11-venv
python3.11 -m venv /autograder/venv
/autograder/venv/bin/pip install /autograder/source/course
# where the container gives no namespaces, answers run as nobody, who then finds no answers of ours
chmod -R go= /autograder/source /autograder/venv/lib/python3.11/site-packages/mechkit
MECHKIT_CACHE=/autograder/cache /autograder/venv/bin/mechkit fetch
"""
RUN = """#!/bin/sh
export MECHKIT_CACHE=/autograder/cache
cd /autograder
chmod -R go= submission results
venv/bin/mechkit grade submission --chapter {number} --out /tmp/graded --gradescope results/results.json
"""
PACKED = ("pyproject.toml", "README.md", "LICENSE", "mechkit", "chapters")


def lay_out(folder: Path, root: Path, names: Sequence[str] = ()) -> list[Path]:
    """Lay out a course for nbgrader: its settings, and each chapter as an assignment of its own.

    Args:
        folder: Made if it is not there; what is in it is never overwritten.
        root: A checkout of the course, which holds the solutions.
        names: Such as "04"; all if empty.
    Returns: The sources.
    Raises: ValueError if there are no such solutions, or one is in the folder already.
    """
    placed = {path: folder / "source" / path.stem / path.name for path in solution_paths(root, names)}
    taken = [target for target in placed.values() if target.exists()]
    if taken:
        raise ValueError(f"wanted to write {taken[0]}; it is there already: delete it, or name another folder")
    for path, target in placed.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        for page in (root / "solutions").glob("*.md"):  # what the chapter's links lead to
            shutil.copyfile(page, target.with_name(page.name))
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    return list(placed.values())


def pack_gradescope(path: Path, root: Path, name: str) -> Path:
    """Pack Gradescope's autograder for one chapter: the course from a checkout, `setup.sh` and `run_autograder`.

    The worked solutions stay at home.

    Args:
        path: The zip, which must not be there yet.
        name: The chapter, such as "04".
    Raises: ValueError if there is no such chapter, or the file is there already.
    """
    number = solution_paths(root, [name])[0].stem[:2]
    if path.exists():
        raise ValueError(f"wanted to write {path}; it is there already: delete it, or name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, text in {"setup.sh": SETUP, "run_autograder": RUN.format(number=number)}.items():
            entry = zipfile.ZipInfo(file)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
        files = sorted(file for packed in PACKED for file in _files(root / packed))
        for each in (file for file in files if not file.match(WORKED.format("*"))):  # no grader needs the answers
            archive.write(each, Path("course", each.relative_to(root)).as_posix())
    return path


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
