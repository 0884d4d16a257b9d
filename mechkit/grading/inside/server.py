"""A process that loads the model once and lends it to one answer after another, each in a fork of its own.

The server never runs the model: a fork of a process that has would hang. It reads what it is to do from a
socket, one line of JSON with the answer's own socket attached, and says in one line how the answer's process ended.
"""

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mechkit.data.corpus import load_corpus
from mechkit.grading.inside import jail
from mechkit.grading.inside.child import answer
from mechkit.grading.inside.family import BROKEN, ENDED, TIME, descendants, end_all, exit_code, fork, wait, watch
from mechkit.grading.inside.twin import permute_heads
from mechkit.grading.inside.wire import Channel
from mechkit.methods.affine import AffineLens, keep_affine_lens
from mechkit.network.loading import load_model

if sys.platform != "win32":
    import resource

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
    nobody = not jailed and _may_be_nobody()
    own = functools.partial(_in_folder, nobody=nobody)
    with contextlib.suppress(ConnectionError):
        control.sendall(b"ready as nobody\n" if nobody else b"ready\n")
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
            if not message:
                return
            limits, end = json.loads(message), socket.socket(fileno=descriptors[0])
            gone = functools.partial(_is_gone, control)
            code = (_in_jail if jailed else own)(end, limits, model, gone)
            control.sendall(f"{code}\n".encode())


def answer_once(end: socket.socket, limits: dict, model: Any) -> None:
    """Without forks: this process is for one answer."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _answer(end, limits, model, folder)
        os.chdir(os.path.dirname(folder))


def _is_gone(control: socket.socket) -> bool:
    """Whether the grader has been killed: nobody holds the other end."""
    try:
        return not control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _in_jail(end: socket.socket, limits: dict, model: Any, gone: Callable[[], bool]) -> int:
    def first() -> int:
        jail.begin_job()
        return exit_code(fork(lambda: watched(), end))

    def watched() -> int:
        jail.prctl(jail.PDEATHSIG, signal.SIGKILL)
        jail.furnish(limits["files"] // 2**20)
        child = fork(lambda: confined(), end)
        return watch(
            child, lambda: [int(each) for each in os.listdir("/proc") if each.isdigit() and each != "1"], limits
        )

    def confined() -> int:
        jail.drop_rights()
        _answer(end, limits, model, jail.HOME)
        return ENDED

    outer = fork(first, None)
    end.close()
    code = wait(outer, limits["seconds"] + 10, gone)
    if code is None:  # it watches no longer; its end is the end of all that it started
        os.kill(outer, signal.SIGKILL)
        wait(outer, 10)
    return TIME if code is None else code


def _in_folder(end: socket.socket, limits: dict, model: Any, gone: Callable[[], bool], *, nobody: bool) -> int:
    folder = tempfile.mkdtemp(prefix="answer")
    if nobody:
        os.chown(folder, jail.NOBODY, jail.NOBODY)

    def confined() -> int:
        os.setsid()
        if nobody:
            jail.become_nobody()
        if sys.platform == "linux":
            jail.prctl(jail.NO_NEW_PRIVS, 1)
        _answer(end, limits, model, folder)
        return ENDED

    child = fork(confined, None)
    end.close()
    try:
        return watch(child, descendants, limits, gone)
    finally:
        end_all(child)
        shutil.rmtree(folder, ignore_errors=True)


def _may_be_nobody() -> bool:
    """Whether answers can be run with the rights of nobody: root may, where Python is everybody's to read."""
    if sys.platform != "linux" or os.getuid() != 0:
        return False
    os.chmod(os.environ["TMPDIR"], 0o711)  # to pass through, not to list
    folders = [path for path in sys.path if os.path.isdir(path)]

    def tried() -> int:
        jail.become_nobody()
        seen = [os.access(path, os.X_OK | os.R_OK) for path in folders]
        return ENDED if os.access(os.environ["TMPDIR"], os.X_OK) and all(seen) else BROKEN

    return wait(fork(tried, None), 10) == ENDED


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
    bound_memory(limits["memory"])
    seconds = int(limits["seconds"]) + 1
    wanted = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": limits["files"],
        "RLIMIT_NOFILE": 256,
        "RLIMIT_NPROC": resource.RLIM_INFINITY if os.getuid() == 0 else 4096,
        "RLIMIT_CORE": 0,
    }
    for name, value in wanted.items():
        _set_limit(name, value)


def bound_memory(extra: int) -> None:
    """Let this process have so many bytes beyond what it has now, where the system can say what that is."""
    with contextlib.suppress(OSError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        _set_limit("RLIMIT_AS", int(pages) * resource.getpagesize() + extra)


def _set_limit(name: str, value: int) -> None:
    with contextlib.suppress(ValueError, OSError, AttributeError):  # not on this system
        resource.setrlimit(getattr(resource, name), (value, value))
