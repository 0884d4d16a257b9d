"""Where does a learner's code run? In a process that can neither see, reach nor keep anything.

The strongest isolation that the system offers is taken, and named:
- "namespaces" (Linux): own users, network, processes and files; only Python, its packages and the model are there.
- "process as nobody" (Linux without user namespaces, for root): as below, with the rights of the user "nobody".
- "process" (Linux without user namespaces): own session, folder and limits; what it leaves running is ended.
- "time only" (elsewhere): a fresh process with a time limit, and what limits the system knows.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import constants

from mechkit.grading.folders import WorkFolder
from mechkit.grading.inside.wire import Channel
from mechkit.grading.process import GRACE, START, last_word, start, stop

PACKAGE = Path(__file__).parents[1]
NAMESPACES, NOBODY, PROCESS, TIME_ONLY = "namespaces", "process as nobody", "process", "time only"
READY = {b"ready\n": False, b"ready as nobody\n": True}
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/localtime")
COURSE = ("__init__.py", "answer.py", "compare.py", "exercise.py", "scope.py")
BOOT = """
import json, sys
config = json.loads(sys.stdin.buffer.readline())
sys.path[:0] = [config["tree"]]
if config["jail"] is not None:
    from inside.jail import enter
    enter(**config["jail"])
from inside.server import main
main(config)
"""
ENDED = "It ended the process it ran in, or closed its way out: an answer returns."
ENDINGS = {
    0: ENDED,
    13: ENDED,
    10: "It was still running when its time was up and was stopped. A right answer needs less than two seconds.",
    11: "It took more memory than there is for one answer and was stopped.",
    12: "It started too many processes or threads and was stopped.",
}
CRASHED = "It crashed the process it ran in."
ONE_NOBODY = threading.Lock()  # whoever is "nobody" may end what else is


class IsolationError(ValueError):
    """The isolation that was asked for is not to be had on this system."""


class SandboxError(ValueError):
    """There is no process to run an answer in, which is no fault of the answer's."""


@dataclass(frozen=True)
class Limits:
    """What one answer may take.

    Args:
        seconds: For one call, after which it is interrupted.
        whole: For all calls together, after which their process is ended.
        memory: Bytes, beyond what the process starts with.
        files: Bytes that it may write.
        processes: How many it may have at a time.
    """

    seconds: float = 20.0
    whole: float = 50.0
    memory: int = 2 * 2**30
    files: int = 64 * 2**20
    processes: int = 32


@dataclass(frozen=True)
class Lent:
    """What a sandbox lends to answers: the model by name or folder (None for none), the seed of its twin, a lens."""

    model: str | None = None
    twin: int = 0
    lens: str | None = None


class Sandbox:
    """A place to run answers in, one at a time; close it after use.

    Args:
        lent: The model that answers may run.
        limits: What one answer may take.
        hidden: Folders that no answer may see, such as the other submissions.
        strongest: Take no stronger isolation than this; for tests.
    Raises: SandboxError if its server does not start.
    """

    def __init__(self, lent: Lent, limits: Limits, *, hidden: Sequence[Path] = (), strongest: str = NAMESPACES):
        self._lent, self.limits, self._hidden = lent, limits, [str(each.absolute()) for each in hidden]
        self._work = WorkFolder("sandbox")
        self._folder = self._work.path
        self._tree = _plant(self._folder / "tree")
        self._server: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._closed = False
        self.level = self._settle(strongest)

    @contextlib.contextmanager
    def run(self) -> Iterator["Run"]:
        """A process that waits for one task; it has ended when the block ends, which is when `ending` is known.

        Raises: SandboxError if there is none to be had.
        """
        if self._closed:
            raise SandboxError("wanted a process to run an answer in; the sandbox is closed")
        with ONE_NOBODY if self.level == NOBODY else contextlib.nullcontext():
            yield from self._run()

    def _run(self) -> Iterator["Run"]:
        ours, theirs = socket.socketpair()
        run = Run(Channel(ours, self.limits.whole + GRACE))
        process = None
        try:
            if self.level == TIME_ONLY:
                once = asdict(self.limits) | {"seconds": self.limits.whole}
                process = start(BOOT, self._config() | {"once": once}, theirs, self._folder)
            else:
                self._lend(theirs)
            theirs.close()
            yield run
        finally:
            theirs.close()
            ours.close()
            run.code = self._end_of(process)

    def close(self) -> None:
        """End the server and remove its folder; what runs in it comes to nothing."""
        self._closed = True
        self._stop()
        self._work.close()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settle(self, strongest: str) -> str:
        """The strongest level at which the server starts."""
        levels = [NAMESPACES, PROCESS] if sys.platform == "linux" else []
        for level in levels[levels.index(strongest) if strongest in levels else len(levels) :]:
            self.level = level
            if self._serve():
                return self.level
        return TIME_ONLY

    def _serve(self) -> bool:
        ours, theirs = socket.socketpair()
        config = self._config() | {"jail": self._jail() if self.level == NAMESPACES else None}
        self._server, self._control = start(BOOT, config, theirs, self._folder), ours
        theirs.close()
        ours.settimeout(START)
        with contextlib.suppress(OSError):
            said = ours.recv(64)
            if said in READY:
                if self.level != NAMESPACES:
                    self.level = NOBODY if READY[said] else PROCESS
                ours.settimeout(self.limits.whole + 2 * GRACE)
                return True
        self._stop()
        if self.level != NAMESPACES:
            word = last_word(self._folder)
            raise SandboxError(f"wanted a process to run answers in; it did not start: {word}")
        return False

    def _lend(self, theirs: socket.socket) -> None:
        """Hand a socket to the server, or to a new one if that has died."""
        limits = asdict(self.limits) | {"seconds": self.limits.whole}
        for _ in range(2):
            if self._closed:
                break
            with contextlib.suppress(OSError):
                socket.send_fds(self._control, [json.dumps(limits).encode()], [theirs.fileno()])
                return
            self._stop()
            self._serve()
        raise SandboxError("wanted a process to run an answer in; the server does not take it")

    def _end_of(self, process: subprocess.Popen | None) -> int:
        if process is not None:
            try:
                return process.wait(GRACE)
            except subprocess.TimeoutExpired:
                return 10
            finally:
                stop(process)
        with contextlib.suppress(OSError, ValueError):
            return int(self._control.recv(16))
        self._stop()  # it hangs or is gone; the next answer gets a new one
        return 13

    def _config(self) -> dict:
        return {"tree": str(self._tree), "jail": None, "once": None} | asdict(self._lent)

    def _jail(self) -> dict:
        root = self._folder / "root"
        root.mkdir(exist_ok=True)
        lent = [each for each in (self._lent.model, self._lent.lens) if each and Path(each).exists()]
        if self._lent.model and self._lent.model not in lent:
            lent.append(constants.HF_HUB_CACHE)
        lent += [str(Path(each).resolve()) for each in lent]
        libraries = list(filter(_is_library, sys.path))
        visible = {*SYSTEM, sys.prefix, sys.base_prefix, *libraries, *lent, str(self._tree)}
        beside = [str(PACKAGE.parent / name) for name in ("solutions", "chapters", "tests")]
        installed = [f"{path}/mechkit" for path in libraries]  # an editable install leaves the chapters there
        return {
            "root": str(root),
            "visible": sorted(visible, key=lambda path: path.count("/")),
            "hidden": [str(PACKAGE), *beside, *installed, *self._hidden],
        }

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            stop(self._server)


class Run:
    """One process that answers: a channel to it and, once it has ended, how."""

    def __init__(self, channel: Channel):
        self.channel, self.code = channel, 0

    @property
    def ending(self) -> str:
        """Why no answer came, in a sentence."""
        return ENDINGS.get(self.code, CRASHED)


def _is_library(path: str) -> bool:
    """Whether an entry of sys.path is where packages are installed, not a checkout or a working folder."""
    return path.endswith(("site-packages", "dist-packages")) and Path(path).is_dir()


def _plant(tree: Path) -> Path:
    """A copy of mechkit without exercises, checks, lessons and grading; what answers run beside stands next to it."""
    left_out = shutil.ignore_patterns("__pycache__", "grading", "course", "chapters", "cli.py")
    shutil.copytree(PACKAGE, tree / "mechkit", ignore=left_out)
    course = tree / "mechkit" / "course"
    course.mkdir()
    for name in COURSE:
        shutil.copyfile(PACKAGE / "course" / name, course / name)
    (tree / "inside").mkdir()
    for path in (PACKAGE / "grading" / "inside").glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("mechkit.grading.inside", "inside")
        (tree / "inside" / path.name).write_text(text, encoding="utf-8")
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # whoever runs an answer, and whatever the umask, reads it
    return tree
