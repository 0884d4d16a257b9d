"""Where does a learner work? In copies of the chapters, so that no tracked file is ever edited.

A chapter that is missing is copied; one left untouched follows the course's updates; one that was changed is
never overwritten: its new version is put beside it, once, as `NN_name.new.ipynb`. What was copied is known by
its sha256, kept in `.mechkit.json` in the same folder.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FIRST = "00_start_here.ipynb"
RECORD = ".mechkit.json"
COPIED = ("[0-9][0-9]_*.ipynb", "*.md")  # chapters, and the pages that they link to
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Copied:
    """Names of the chapters that were added, updated or offered beside a changed one (`NN_name.new.ipynb`)."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()


def chapters_folder(package: Path = PACKAGE) -> Path:
    """The chapters that came with this mechkit: beside the package in a checkout, inside it in a wheel.

    Raises: ValueError if there are none.
    """
    for folder in (package.parent / "chapters", package / "chapters"):
        if any(folder.glob("[0-9][0-9]_*.ipynb")):
            return folder
    raise ValueError(
        f"wanted the course's chapters beside or inside {package}; there are none: install mechkit-course again, "
        "or run `mechkit build` in a checkout"
    )


def copy_chapters(target: Path, source: Path | None = None) -> Copied:
    """Bring a work folder up to date without losing anything in it.

    Raises: ValueError if there are no chapters, or the folder cannot be written to.
    """
    source = source or chapters_folder()
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"wanted a folder to work in; {target} holds the course's own chapters: name another folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        paths = sorted(path for pattern in COPIED for path in source.glob(pattern))
        return _copy(target, {path.name: path.read_bytes() for path in paths})
    except OSError as error:
        raise ValueError(
            f"wanted to copy the chapters to {target}; that failed ({error.strerror or error}): name a folder that you "
            "can write to, as in `mechkit lab my-folder`"
        ) from error


def open_lab(target: Path, *, browser: bool = True, run: Callable[..., int] | None = None) -> int:
    """Start JupyterLab in a work folder, at the first chapter, and wait until it ends; its exit code.

    Args:
        browser: Whether to open one; where there is none, a sentence says to use the address that is printed.
        run: Runs a command in a folder with an environment (default: `wait_for`).
    """
    options = [f"--LabApp.default_url=/lab/tree/{FIRST}"] if (target / FIRST).is_file() else []
    if browser and not _has_browser():
        print("No browser was found here: copy the address that JupyterLab prints below into one.", file=sys.stderr)
        browser = False
    if not browser:
        options.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")  # in a container everybody is root, and JupyterLab would refuse to start
    # The kernel must be this Python, whatever kernels the user's home folder offers under the same name.
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    return (run or wait_for)([sys.executable, "-m", "jupyterlab", *options], target, environment)


def wait_for(command: list[str], folder: Path, environment: Mapping[str, str]) -> int:
    """Exit code of a command; Ctrl-C is left to it, as JupyterLab asks before it ends."""
    with subprocess.Popen(command, cwd=folder, env=environment) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue


def _has_browser() -> bool:
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _copy(target: Path, chapters: dict[str, bytes]) -> Copied:
    record = _read_record(target)
    done: dict[str, list[str]] = {"added": [], "updated": [], "offered": []}
    for name, content in chapters.items():
        action, record[name] = _bring(target / name, content, record.get(name, {}))
        if action:
            done[action].append(name)
    _replace(target / RECORD, json.dumps(record, indent=1).encode())
    return Copied(**{action: tuple(names) for action, names in done.items()})


def _bring(path: Path, content: bytes, entry: dict[str, str]) -> tuple[str, dict[str, str]]:
    """What was done with one chapter ("" for nothing), and its new entry in the record.

    An entry holds the sha256 of what was `copied` and, beside a changed copy, of what was last `offered`.
    """
    theirs = _sha256(path.read_bytes()) if path.exists() else None
    new = _sha256(content)
    if theirs == new:
        return "", {"copied": new}
    if theirs is None or theirs == entry.get("copied"):
        _replace(path, content)
        return "updated" if theirs else "added", {"copied": new}
    if new in entry.values():
        return "", entry
    _replace(_place_beside(path, entry.get("offered")), content)
    return "offered", entry | {"offered": new}


def _place_beside(path: Path, offered: str | None) -> Path:
    """`NN_name.new.ipynb`, or with a number where that too was changed."""
    for number in itertools.count(1):
        beside = path.with_suffix(f".new{number if number > 1 else ''}{path.suffix}")
        if not beside.exists() or _sha256(beside.read_bytes()) == offered:
            return beside
    raise AssertionError("there is always a free number")


def _read_record(target: Path) -> dict[str, dict[str, str]]:
    """The record of an earlier copy; an empty one if it is missing or damaged (then nothing is overwritten)."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return (
        {name: entry for name, entry in record.items() if isinstance(entry, dict)} if isinstance(record, dict) else {}
    )


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
