"""How is a process watched, and ended with all that it started? From outside, by what the system says of it."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mechkit.grading.inside import jail

ENDED, TIME, MEMORY, PROCESSES, BROKEN = 0, 10, 11, 12, 13
POLL = 0.02
THREADS = 256


def fork(run: Callable[[], int], end: socket.socket | None) -> int:
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


def watch(child: int, listed: Callable[[], list[int]], limits: dict, gone: Callable[[], bool] = lambda: False) -> int:
    """Wait for a process until it, with what it started, takes more than it may, or nobody waits for it any more."""
    until = time.monotonic() + limits["seconds"]
    start = measure([child])[0]
    while time.monotonic() < until and not gone():
        code = wait(child, POLL)
        if code is not None:
            return code
        processes = listed()
        memory, threads = measure(processes)
        if memory > limits["memory"] + start * max(1, len(processes)):
            return MEMORY
        if len(processes) > limits["processes"] or threads > THREADS:
            return PROCESSES
    return TIME


def measure(processes: list[int]) -> tuple[int, int]:
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


def wait(child: int, seconds: float, gone: Callable[[], bool] = lambda: False) -> int | None:
    """How a process ended; None if it is still running after that time, or when nobody waits for it any more."""
    until = time.monotonic() + seconds
    pause = 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _code(status)
        if time.monotonic() > until or gone():
            return None
        time.sleep(pause)
        pause = min(POLL, 2 * pause)


def exit_code(child: int) -> int:
    return _code(os.waitpid(child, 0)[1])


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 100 - code


def descendants() -> list[int]:
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


def end_all(child: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    for _ in range(200):
        left = descendants()
        for each in left:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.01)
