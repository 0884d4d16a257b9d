"""Where do a grader's working files lie, and who clears them away if it is killed? The next one that starts.

Each folder holds a file that its owner keeps locked as long as it lives; where the lock is free, the owner is gone.
The limit: on Windows, which locks otherwise, clearing away is left to the system.
"""

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

if sys.platform != "win32":
    import fcntl

KINDS = ("sandbox", "grader", "unpacked", "replies", "bench")
LOCK = "owner.lock"
FORGOTTEN = 7 * 24 * 3600  # seconds after which a folder without a lock is nobody's


class WorkFolder:
    """A new folder among the system's temporary ones; close it after use.

    Args:
        kind: What it is for, one of `KINDS`.
    """

    def __init__(self, kind: str):
        assert kind in KINDS
        self.path = Path(tempfile.mkdtemp(prefix=f"mechkit-{kind}-"))
        self._lock = _lock_up(self.path)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        shutil.rmtree(self.path, ignore_errors=True)  # Windows removes no file that is open

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep() -> None:
    """Remove the folders of graders that were killed."""
    for kind in KINDS:
        for path in Path(tempfile.gettempdir()).glob(f"mechkit-{kind}-*"):
            if sys.platform != "win32" and _is_ours(path) and _is_left(path):
                shutil.rmtree(path, ignore_errors=True)


def _lock_up(folder: Path) -> int | None:
    """An open, locked file in a folder; it gets its name once it is locked, so that no sweep comes between."""
    if sys.platform == "win32":
        return None
    new = folder / "owner.new"
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(new, folder / LOCK)
    return descriptor


def _is_ours(path: Path) -> bool:
    """Whether it is a folder of this user's, and no link: everybody may write among temporary files."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _is_left(path: Path) -> bool:
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:  # being made, or its owner was killed while it was
        return path.lstat().st_mtime < time.time() - FORGOTTEN
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
