"""Grading past one machine: the same function, mapped over a Dask cluster.

Each worker keeps a grader with its own sandbox. Notebooks go out as bytes and records come back; a worker that is
lost takes nothing with it, since what it had begun is begun again elsewhere and a record is written once, here.
The limit: a cluster trusts its members, so the scheduler must not be open to others.
"""

import atexit
import threading
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mechkit.grading.grade import Grader
from mechkit.grading.judge import Judge
from mechkit.grading.process import GRACE, START
from mechkit.grading.sandbox import Limits
from mechkit.grading.setting import Setting
from mechkit.grading.submission import LARGEST, read_template

RETRIES = 3  # for a worker that is lost
_OF_THREAD = threading.local()
_JUDGES: dict[tuple, Judge] = {}
_LOCK = threading.Lock()


class Cluster:
    """A connection to a Dask scheduler; close it after use.

    Args:
        address: Of the scheduler, such as "tcp://10.0.0.5:8786".
    Raises: ValueError if Dask is not installed, the scheduler does not answer, or it has no workers.
    """

    def __init__(self, address: str):
        try:
            self.client = import_module("distributed").Client(address, timeout=20)
        except ImportError:
            raise ValueError("--scheduler needs Dask: pip install distributed") from None
        except OSError as error:
            raise ValueError(f"wanted a Dask scheduler at {address}; it does not answer ({error})") from None
        self.threads = sum(self.client.nthreads().values())
        if not self.threads:
            self.client.close()
            raise ValueError(f"wanted workers at {address}; the scheduler has none: start some with `dask worker`")

    def open_grader(
        self, template: Path, limits: Limits, *, seed: int, required: bool = False, **local: Any
    ) -> "FarGrader":
        """What a class is graded with here: it asks a worker. What is local (hidden folders, a judge) stays out."""
        return FarGrader(self.client, template, limits, seed=seed, required=required)

    def close(self) -> None:
        self.client.close()


class FarGrader:
    """Looks like a `Grader` and lets a worker of the cluster do the work."""

    judge = None

    def __init__(self, client: Any, template: Path, limits: Limits, *, seed: int, required: bool):
        self._client, self._order = client, (template.read_bytes(), limits, seed, required)
        # a scheduler that is lost answers nothing at all
        self._seconds = START + len(read_template(template).exercises) * (limits.whole + 3 * GRACE)
        level = self._ask(level_of)
        self.setting = Setting(read_template(template), limits, seed, level)

    def grade(self, path: Path) -> dict[str, Any]:
        """The record of one notebook."""
        with path.open("rb") as file:
            return self._ask(grade_far, file.read(LARGEST + 1))

    def _ask(self, function: Any, *arguments: Any) -> Any:
        asked = self._client.submit(function, *self._order, *arguments, pure=False, retries=RETRIES)
        return asked.result(timeout=self._seconds)

    def __enter__(self) -> "FarGrader":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def grade_far(template: bytes, limits: Limits, seed: int, required: bool, notebook: bytes) -> dict[str, Any]:
    """On a worker: the record of one notebook."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "notebook.ipynb"
        path.write_bytes(notebook)
        return _grader(template, limits, seed, required).grade(path)


def level_of(template: bytes, limits: Limits, seed: int, required: bool) -> str:
    """On a worker: the isolation that answers run in."""
    return _grader(template, limits, seed, required).level


def _grader(template: bytes, limits: Limits, seed: int, required: bool) -> Grader:
    """The grader of this thread, made anew for another chapter or run; one judge serves all threads."""
    key = (template, limits, seed, required)
    if getattr(_OF_THREAD, "key", None) == key:
        return _OF_THREAD.grader
    with _LOCK, TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "template.ipynb"
        path.write_bytes(template)
        made = Grader(path, limits, seed=seed, required=required, judge=_JUDGES.get(key))
        _JUDGES.clear()
        _JUDGES[key] = made.judge
    if hasattr(_OF_THREAD, "grader"):
        _OF_THREAD.grader.close()
    atexit.register(made.close)
    _OF_THREAD.key, _OF_THREAD.grader = key, made
    return made
