"""How is a process of ours started, told what to do, and ended? With one socket, and with nothing in its arguments.

What it is told goes through its standard input, since every process of a system may read another's arguments.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import constants

START, GRACE = 180, 15  # seconds to be ready, seconds to come to an end
KEPT = ("PATH", "LANG", "SYSTEMROOT", "LD_LIBRARY_PATH")
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}


def start(boot: str, config: dict[str, Any], end: socket.socket, folder: Path) -> subprocess.Popen:
    """Start a Python that runs `boot`, in a session of its own.

    Args:
        boot: Source that reads the configuration, one line of JSON, from its standard input.
        config: It gets the number of the socket as "descriptor"; None on Windows, where the socket's bytes follow.
        end: The process's end of a pair of sockets.
        folder: Where it works; what it says is in `log` there.
    """
    shared = sys.platform == "win32"
    config = config | {"descriptor": None if shared else end.fileno()}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", boot],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=[] if shared else [end.fileno()],
            start_new_session=not shared,
        )
    with contextlib.suppress(OSError), process.stdin as pipe:
        pipe.write(json.dumps(config).encode() + b"\n" + (end.share(process.pid) if shared else b""))
    return process


def stop(process: subprocess.Popen) -> None:
    """End a process and, where it leads a session, all that is in it."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the system has it in its hands
        process.wait(GRACE)


def last_word(folder: Path) -> str:
    """What a process said last before it ended."""
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no word"


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | QUIET | {"HOME": str(folder), "TMPDIR": str(folder), "HF_HUB_CACHE": constants.HF_HUB_CACHE}
