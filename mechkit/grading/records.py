"""What stays of a graded class: one JSON file a learner, from which everything else is made.

A record is written before its grading starts and replaced at once when it is done, so that a grader that was
killed leaves either the old or the new, and the next knows where to go on.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechkit.grading.collect import safe_name

WRITING = ".writing-"  # begins the name of a file that is not complete yet
FAILED = "error"  # of ours: graded again by a run that goes on
FINAL = ("graded", "unreadable", "nothing handed in")


class Records:
    """The records of a class in a folder.

    Args:
        folder: Made if it is not there.
    Raises: ValueError if it cannot be written to.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            (folder / "records").mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder / "records").close()
            for left in [*folder.glob(f"{WRITING}*"), *folder.glob(f"*/{WRITING}*")]:  # by a run that was killed
                left.unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(
                f"wanted to write to {folder}; that failed ({error.strerror}): name another folder"
            ) from None

    def read(self, learner: str) -> dict[str, Any] | None:
        """A learner's record; None if there is none that can be read."""
        return _read(self._path(learner))

    def write(self, learner: str, record: dict[str, Any]) -> None:
        """Replace a learner's record."""
        write_json(self._path(learner), {"learner": learner} | record)

    def all(self, learners: Sequence[str]) -> list[dict[str, Any]]:
        """The records of these learners that are done, in this order; what the grader failed on among them."""
        found = [self.read(learner) for learner in learners]
        return [record for record in found if record and record.get("status") in (*FINAL, FAILED)]

    def settings(self) -> dict[str, Any]:
        """What an earlier run in this folder was asked for; empty if there was none."""
        return _read(self.folder / "run.json") or {}

    def keep_settings(self, settings: dict[str, Any]) -> None:
        write_json(self.folder / "run.json", settings)

    def _path(self, learner: str) -> Path:
        return self.folder / "records" / f"{safe_name(learner)}.json"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=WRITING, delete=False) as file:
        file.write(text.encode("utf-8", "replace"))
    try:
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)
        raise


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
