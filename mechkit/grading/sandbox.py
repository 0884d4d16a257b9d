"""Where does a learner's code run? In a process that can neither see, reach nor keep anything.

The strongest isolation that the system offers is taken, and named:
- "namespaces" (Linux): own users, network, processes and files; only Python, its packages and the model are there.
- "process" (Linux without user namespaces): own session, folder and limits; what it leaves running is ended.
- "time only" (elsewhere): a fresh process with a time limit, and what limits the system knows.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import constants

from mechkit.grading.inside.wire import Channel

PACKAGE = Path(__file__).parents[1]
NAMESPACES, PROCESS, TIME_ONLY = "namespaces", "process", "time only"
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/localtime")
COURSE = ("__init__.py", "answer.py", "compare.py", "exercise.py", "scope.py")
START, GRACE = 180, 15
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


class IsolationError(ValueError):
    """The isolation that was asked for is not to be had on this system."""


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
    Raises: ValueError if its server does not start.
    """

    def __init__(self, lent: Lent, limits: Limits, *, hidden: Sequence[Path] = (), strongest: str = NAMESPACES):
        self._lent, self.limits, self._hidden = lent, limits, [str(each.absolute()) for each in hidden]
        self._folder = Path(tempfile.mkdtemp(prefix="mechkit-sandbox-"))
        self._tree = _plant(self._folder / "tree")
        self._server: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._closed = False
        self.level = self._settle(strongest)

    @contextlib.contextmanager
    def run(self) -> Iterator["Run"]:
        """A process that waits for one task; it has ended when the block ends, which is when `ending` is known."""
        if self._closed:
            raise ValueError("wanted a process to run an answer in; the sandbox is closed")
        ours, theirs = socket.socketpair()
        run = Run(Channel(ours, self.limits.whole + GRACE))
        process = None
        try:
            if self.level == TIME_ONLY:
                process = self._start(theirs, None, once=True)
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
        shutil.rmtree(self._folder, ignore_errors=True)

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
                return level
        return TIME_ONLY

    def _serve(self) -> bool:
        ours, theirs = socket.socketpair()
        jail = self._jail() if self.level == NAMESPACES else None
        self._server, self._control = self._start(theirs, jail, once=False), ours
        theirs.close()
        ours.settimeout(START)
        with contextlib.suppress(OSError):
            if ours.recv(16) == b"ready\n":
                ours.settimeout(self.limits.whole + 2 * GRACE)
                return True
        said = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        self._stop()
        if self.level != NAMESPACES:
            raise ValueError(f"wanted a process to run answers in; it did not start: {said[-1] if said else 'no word'}")
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
        raise ValueError("wanted a process to run an answer in; the server does not take it")

    def _end_of(self, process: subprocess.Popen | None) -> int:
        if process is not None:
            try:
                return process.wait(GRACE)
            except subprocess.TimeoutExpired:
                return 10
            finally:
                _end(process)
        with contextlib.suppress(OSError, ValueError):
            return int(self._control.recv(16))
        self._stop()  # it hangs or is gone; the next answer gets a new one
        return 13

    def _start(self, end: socket.socket, jail: dict | None, *, once: bool) -> subprocess.Popen:
        shared = sys.platform == "win32"
        config = {"tree": str(self._tree), "jail": jail} | asdict(self._lent)
        config["once"] = asdict(self.limits) | {"seconds": self.limits.whole} if once else None
        config["descriptor"] = None if shared else end.fileno()
        with open(self._folder / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", BOOT],
                cwd=self._folder,
                env=_environment(self._folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[] if shared else [end.fileno()],
                start_new_session=not shared,
            )
        # not as an argument, which the answers' processes could read
        with contextlib.suppress(OSError), process.stdin as pipe:
            pipe.write(json.dumps(config).encode() + b"\n" + (end.share(process.pid) if shared else b""))
        return process

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
            _end(self._server)


class Run:
    """One process that answers: a channel to it and, once it has ended, how."""

    def __init__(self, channel: Channel):
        self.channel, self.code = channel, 0

    @property
    def ending(self) -> str:
        """Why no answer came, in a sentence."""
        return ENDINGS.get(self.code, CRASHED)


def _end(process: subprocess.Popen) -> None:
    """End a process and, where it leads a session, all that is in it."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
    return kept | quiet | {"HOME": str(folder), "TMPDIR": str(folder), "HF_HUB_CACHE": constants.HF_HUB_CACHE}


def _is_library(path: str) -> bool:
    """Whether an entry of sys.path is where packages are installed, not a checkout or a working folder."""
    return path.endswith(("site-packages", "dist-packages")) and os.path.isdir(path)


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
    return tree
