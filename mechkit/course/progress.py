"""What have I done? One small JSON file per user that is never lost.

Every change reads, changes and replaces the file under a lock, so two kernels add to each other. A file
that cannot be understood is kept aside; where nothing can be written, progress stays in memory and says so.
"""

import copy
import json
import os
import time
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import TypeVar

import platformdirs
from filelock import FileLock, Timeout

PARTS = ("exercises", "predictions", "claims")
FIELDS = {"status": str, "tries": int, "hints": int, "points": Real, "mistakes": list, "guess": dict, "outcome": dict}
LOCK_SECONDS = 5.0
# Windows refuses to replace, or to open, a file that another kernel has open at this moment
PAUSES = (0.01, 0.03, 0.1, 0.3) if os.name == "nt" else ()
# Where the disk refuses, the record lives here: it outlasts the lesson that began it
_MEMORY: dict[Path, dict] = {}

Result = TypeVar("Result")


def home() -> Path:
    """The folder that holds a learner's progress: `MECHKIT_HOME`, else the user's data folder."""
    return Path(os.environ.get("MECHKIT_HOME") or platformdirs.user_data_dir("mechkit", appauthor=False)).expanduser()


class Progress:
    """A learner's record, kept in `progress.json` or, where the disk refuses, in memory.

    Args:
        folder: Where the file lives; `home()` if not given.
        saved: False for a record of its own in memory, as a grader wants, who has 300 learners and one home.
    """

    def __init__(self, folder: Path | None = None, *, saved: bool = True):
        self.path = (folder or home()) / "progress.json"
        self._own = None if saved else _empty()
        self._notices: list[str] = []

    def read(self) -> dict:
        """The record as it is now: `{"version", "exercises", "predictions", "claims"}`, each a dict by id."""
        if (memory := self._memory()) is not None:
            return copy.deepcopy(memory)
        try:
            return self._load() or _empty()
        except OSError:
            return _empty()

    def change(self, edit: Callable[[dict], None]) -> None:
        """Apply an edit to the record, under the lock, and save it."""
        if self._memory() is None:
            try:
                return self._change_file(edit)
            except (OSError, Timeout, NotImplementedError) as error:  # the last: a file system without locks
                _MEMORY[self.path] = self.read()
                self._notices.append(
                    f"Progress cannot be saved in {self.path.parent} ({type(error).__name__}), so it lasts only as "
                    "long as this kernel. To keep it, set MECHKIT_HOME to a folder that you can write to."
                )
        edit(self._memory())

    def take_notice(self) -> str:
        """What the learner should know about the file, said once; "" if nothing."""
        text, self._notices = " ".join(self._notices), []
        return text

    def _memory(self) -> dict | None:
        return self._own if self._own is not None else _MEMORY.get(self.path)

    def _change_file(self, edit: Callable[[dict], None]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", timeout=LOCK_SECONDS):
            record = self._load()
            if record is None:
                record = _empty()
                self._keep_aside()
            edit(record)
            self._replace(record)

    def _load(self) -> dict | None:
        """The file's record, an empty one if there is no file, None if it is damaged."""
        try:
            record = json.loads(_patiently(lambda: self.path.read_text(encoding="utf-8-sig")))
        except FileNotFoundError:
            return _empty()
        except (ValueError, RecursionError):
            return None
        return _empty() | record if _is_record(record) else None

    def _keep_aside(self) -> None:
        aside = self.path.with_name(f"progress.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json")
        os.replace(self.path, aside)
        self._notices.append(f"Your progress file was damaged: it is kept as {aside}, and a new one is begun.")

    def _replace(self, record: dict) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            _patiently(lambda: os.replace(temporary, self.path))
        finally:
            temporary.unlink(missing_ok=True)


def summary(folder: Path | None = None) -> dict:
    """What a learner has done, for `mechkit progress`: the record and the totals that it adds up to."""
    record = Progress(folder).read()
    passed = [entry for entry in record["exercises"].values() if entry.get("status") == "passed"]
    return {
        "file": str((folder or home()) / "progress.json"),
        "passed": len(passed),
        "points": sum(entry.get("points", 0.0) for entry in passed),
        **{part: record[part] for part in PARTS},
    }


def _empty() -> dict:
    return {"version": 1, **{part: {} for part in PARTS}}


def _is_record(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    parts = [value.get(part, {}) for part in PARTS]
    return all(isinstance(part, dict) and all(map(_is_entry, part.values())) for part in parts)


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, FIELDS.get(name, object)) for name, each in value.items())


def _patiently(action: Callable[[], Result]) -> Result:
    for pause in PAUSES:
        try:
            return action()
        except PermissionError:
            time.sleep(pause)
    return action()
