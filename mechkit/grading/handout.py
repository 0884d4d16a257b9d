"""How does a class get its chapters? As a course that nbgrader releases, collects and grades by itself.

Our solutions are nbgrader's sources as they are: its own markers and metadata. The limit: nbgrader runs the tests
in the learner's own kernel; `mechkit grade` reads its `submitted` folder and does not.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from mechkit.course.authoring import solution_paths

CONFIG = '''"""nbgrader's settings for this course: `nbgrader generate_assignment NAME`, `nbgrader autograde NAME`."""

c = get_config()  # noqa: F821, nbgrader defines it
c.CourseDirectory.course_id = "mechkit"
c.ExecutePreprocessor.timeout = 600
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}
'''


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
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    return list(placed.values())
