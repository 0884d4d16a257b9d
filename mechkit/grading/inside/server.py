"""A process that loads the model once and lends it to one answer after another, each in a fork of its own.

The server never runs the model: a fork of a process that has would hang. It reads what it is to do from a
socket, one line of JSON with the answer's own socket attached, and says in one line how the answer's process ended.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mechkit.data.corpus import load_corpus
from mechkit.grading.inside import jail
from mechkit.grading.inside.child import answer
from mechkit.grading.inside.twin import permute_heads
from mechkit.grading.inside.wire import Channel
from mechkit.methods.affine import AffineLens, keep_affine_lens
from mechkit.network.loading import load_model

if sys.platform != "win32":
    import resource

ENDED, TIME, MEMORY, PROCESSES, BROKEN = 0, 10, 11, 12, 13
POLL = 0.02
THREADS = 256
KEPT = ("PATH", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH")


def main(config: dict) -> None:
    """Serve as the configuration says, or answer once where a process cannot be forked."""
    if config["descriptor"] is not None:
        end = socket.socket(fileno=config["descriptor"])
    else:
        end = socket.fromshare(sys.stdin.buffer.read())  # Windows hands a socket on as bytes
    model = prepare(config)
    if config["once"]:
        answer_once(end, config["once"], model)
    else:
        serve(end, model, jailed=config["jail"] is not None)


def prepare(config: dict) -> Any:
    """The twin of the model, with the affine lens that the judge fitted; None if no model is asked for."""
    torch.set_num_threads(1)
    if not config["model"]:
        return None
    twin = load_model(config["model"])
    permute_heads(twin, config.pop("twin"))
    if config["lens"]:
        keep_affine_lens(twin, load_corpus(), AffineLens(**load_file(config["lens"])))
    return twin


def serve(control: socket.socket, model: Any, *, jailed: bool) -> None:
    """Fork for each request until the other end is gone."""
    if sys.platform == "linux":
        jail.prctl(jail.SUBREAPER, 1)
    with contextlib.suppress(ConnectionError):
        control.sendall(b"ready\n")
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
            if not message:
                return
            limits, end = json.loads(message), socket.socket(fileno=descriptors[0])
            code = (_in_jail if jailed else _in_folder)(end, limits, model)
            control.sendall(f"{code}\n".encode())


def answer_once(end: socket.socket, limits: dict, model: Any) -> None:
    """Without forks: this process is for one answer."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _answer(end, limits, model, folder)
        os.chdir(os.path.dirname(folder))


def _in_jail(end: socket.socket, limits: dict, model: Any) -> int:
    def first() -> int:
        jail.begin_job()
        return _exit_code(_fork(lambda: watched(), end))

    def watched() -> int:
        jail.prctl(jail.PDEATHSIG, signal.SIGKILL)
        jail.furnish(limits["files"] // 2**20)
        child = _fork(lambda: confined(), end)
        return _watch(
            child, lambda: [int(each) for each in os.listdir("/proc") if each.isdigit() and each != "1"], limits
        )

    def confined() -> int:
        jail.drop_rights()
        _answer(end, limits, model, jail.HOME)
        return ENDED

    outer = _fork(first, None)
    end.close()
    code = _wait(outer, limits["seconds"] + 10)
    return TIME if code is None else code


def _in_folder(end: socket.socket, limits: dict, model: Any) -> int:
    folder = tempfile.mkdtemp(prefix="answer")

    def confined() -> int:
        os.setsid()
        _answer(end, limits, model, folder)
        return ENDED

    child = _fork(confined, None)
    end.close()
    try:
        return _watch(child, _descendants, limits)
    finally:
        _end_all(child)
        shutil.rmtree(folder, ignore_errors=True)


def _answer(end: socket.socket, limits: dict, model: Any, folder: str) -> None:
    """Become the process in which the answer runs, and answer."""
    os.chdir(folder)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    os.environ.clear()
    os.environ.update(kept | {"HOME": folder, "TMPDIR": folder, "MECHKIT_CACHE": folder, "MECHKIT_HOME": folder})
    os.environ.update({"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})
    tempfile.tempdir = None
    sys.argv, sys.stdin = [""], io.StringIO()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    if sys.platform != "win32":
        _close_others({0, 1, 2, end.fileno()})
        _limit(limits)
    torch.set_num_threads(1)
    answer(Channel(end), model)


def _close_others(kept: set[int]) -> None:
    for descriptor in range(256):  # one by one: an empty os.closerange(0, 0) closes everything
        if descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _limit(limits: dict) -> None:
    used = 0
    with contextlib.suppress(OSError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        used = int(pages) * resource.getpagesize()
    seconds = int(limits["seconds"]) + 1
    wanted = {
        "RLIMIT_AS": used + limits["memory"] if used else resource.RLIM_INFINITY,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": limits["files"],
        "RLIMIT_NOFILE": 256,
        "RLIMIT_NPROC": resource.RLIM_INFINITY if os.getuid() == 0 else 4096,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        with contextlib.suppress(ValueError, OSError, AttributeError):  # not on this system
            resource.setrlimit(getattr(resource, name), (value, value))


# processes ----------------------------------------------------------------------------------------------------


def _fork(run: Callable[[], int], end: socket.socket | None) -> int:
    """The id of a fork that runs `run`; our copy of its socket is closed."""
    child = os.fork()
    if child:
        if end is not None:
            end.close()
        return child
    code = BROKEN
    try:
        if sys.platform == "linux":
            jail.prctl(jail.PDEATHSIG, signal.SIGKILL)
        code = run()
    finally:
        os._exit(code)


def _watch(child: int, listed: Callable[[], list[int]], limits: dict) -> int:
    """Wait for a process, and end it once it, with what it started, takes more than it may."""
    until = time.monotonic() + limits["seconds"]
    start = _measure([child])[0]
    while time.monotonic() < until:
        code = _wait(child, POLL)
        if code is not None:
            return code
        processes = listed()
        memory, threads = _measure(processes)
        if memory > limits["memory"] + start * max(1, len(processes)):
            return MEMORY
        if len(processes) > limits["processes"] or threads > THREADS:
            return PROCESSES
    return TIME


def _measure(processes: list[int]) -> tuple[int, int]:
    """Bytes of memory that are these processes' own, and their threads."""
    memory = threads = 0
    for each in processes:
        with contextlib.suppress(OSError, ValueError):  # gone by now
            for line in Path(f"/proc/{each}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    memory += 1024 * int(line.split()[1])
                elif line.startswith("Threads:"):
                    threads += int(line.split()[1])
    return memory, threads


def _wait(child: int, seconds: float) -> int | None:
    """How a process ended; None if it is still running after that time."""
    until = time.monotonic() + seconds
    pause = 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _code(status)
        if time.monotonic() > until:
            return None
        time.sleep(pause)
        pause = min(POLL, 2 * pause)


def _exit_code(child: int) -> int:
    return _code(os.waitpid(child, 0)[1])


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 100 - code


def _descendants() -> list[int]:
    """Every process under the server, orphans included, since it is their reaper."""
    found, waiting = [], [os.getpid()]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{process}/task").glob("*/children"):
                children = [int(each) for each in file.read_text(encoding="ascii").split()]
                found += children
                waiting += children
    return found


def _end_all(child: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    for _ in range(200):
        left = _descendants()
        for each in left:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.01)
