"""What does our answer give, when a learner's code calls an earlier one? Computed in a process of ours.

The arguments are the learner's, so the call may never end or take all the memory there is. That process can be
ended and begun anew, and its end is never the grader's.
"""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from mechkit.course.answer import run_answer
from mechkit.course.checks import fill
from mechkit.course.exercises import find_chapter
from mechkit.grading.folders import WorkFolder
from mechkit.grading.inside.server import bound_memory, prepare
from mechkit.grading.inside.wire import Channel, WireError
from mechkit.grading.process import GRACE, START, start, stop
from mechkit.grading.sandbox import Lent, Limits

NUMBERS, WORDS = 2**26, 20_000  # what an answer may ask of an earlier one of ours
BOOT = """
import json, sys
config = json.loads(sys.stdin.buffer.readline())
sys.path[:0] = config["path"]
from mechkit.grading.replies import main
main(config)
"""


class Replies:
    """Our answers to one chapter's exercises, ready to be called; close it after use.

    Args:
        chapter: Its number.
        lent: The model that a call may name, and its lens.
        limits: What one call may take.
    """

    def __init__(self, chapter: str, lent: Lent, limits: Limits):
        self._chapter, self._lent, self._limits = chapter, lent, limits
        self._process: subprocess.Popen | None = None
        self._work: WorkFolder | None = None
        self._end: socket.socket | None = None
        self._lock, self._closed = threading.Lock(), False  # one thread may close what another is starting

    def prepare(self) -> None:
        """Have the process ready, so that its start takes nobody's time."""
        if self._process is not None and self._process.poll() is None:
            return
        with self._lock:
            self._stop()
            end = None if self._closed else self._start()
        if end is not None:
            with contextlib.suppress(EOFError, OSError, WireError):  # a call will say so
                Channel(end, START).receive()

    def call(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """What our answer gives for these arguments, as a reply to who asked for it."""
        if _size((args, kwargs)) > NUMBERS:
            return _refusal(f"`{name}` was called with too much")
        self.prepare()
        end = self._end
        if end is None:
            return _refusal(f"`{name}` is not to be had any more")
        try:
            channel = Channel(end, self._limits.seconds + GRACE)
            channel.send({"name": name, "args": list(args), "kwargs": kwargs})
            return channel.receive()
        except (OSError, EOFError, WireError):
            with self._lock:
                self._stop()
            return _refusal(f"`{name}` does not come to an end with what it was called with")

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        with self._lock:
            self._stop()

    def _start(self) -> socket.socket:
        self._work = WorkFolder("replies")
        self._end, theirs = socket.socketpair()
        config = {"path": [str(Path(__file__).parents[2]), *sys.path], "chapter": self._chapter}
        config |= {"seconds": self._limits.seconds, "memory": self._limits.memory} | asdict(self._lent)
        with theirs:
            self._process = start(BOOT, config, theirs, self._work.path)
        return self._end

    def _stop(self) -> None:
        if self._end is not None:
            self._end.close()
        if self._process is not None:
            stop(self._process)
        if self._work is not None:
            self._work.close()
        self._end = self._process = self._work = None


def _refusal(sentence: str) -> dict[str, Any]:
    return {"result": None, "trouble": sentence}


def _size(value: Any) -> int:
    """How much there is to work through, roughly in numbers."""
    if isinstance(value, Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(_size(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(map(_size, value)) + len(value)
    return NUMBERS // WORDS * len(value) if isinstance(value, str) else 1


# in the process -----------------------------------------------------------------------------------------------


def main(config: dict[str, Any]) -> None:
    """Answer calls until nobody asks any more."""
    if config["descriptor"] is not None:
        end = socket.socket(fileno=config["descriptor"])
    else:
        end = socket.fromshare(sys.stdin.buffer.read())
    model = prepare(config)
    ours = {each.name: each.ours for each in find_chapter(config["chapter"]).exercises}
    bound_memory(config["memory"])
    with contextlib.suppress(EOFError, OSError):
        Channel(end).send("ready")
        while True:
            Channel(end).send(_reply(ours, model, config["seconds"], Channel(end).receive()))


def _reply(ours: dict[str, Any], model: Any, seconds: float, asked: dict[str, Any]) -> dict[str, Any]:
    function, names = ours[asked["name"]], list(asked["kwargs"])
    positional = len(asked["args"])
    arguments = fill((*asked["args"], *asked["kwargs"].values()), model)

    def call(*each: Any) -> Any:
        return function(*each[:positional], **dict(zip(names, each[positional:], strict=True)))

    outcome = run_answer(call, arguments, seconds)
    return {"result": outcome.result, "trouble": outcome.trouble}
