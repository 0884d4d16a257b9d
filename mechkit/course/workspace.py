"""Where does a learner work? In copies of the chapters, so that no tracked file is ever edited.

A chapter that is missing is copied; one left untouched follows the course's updates; one that was changed is
never overwritten: its new version is put beside it, once, as `NN_name.new.ipynb`. What was copied is known by
its sha256, kept in `.mechkit.json` in the same folder.
"""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

FIRST = "00_start_here.ipynb"
RECORD = ".mechkit.json"
COPIED = ("[0-9][0-9]_*.ipynb", "*.md")  # chapters, and the pages that they link to
PACKAGE = Path(__file__).parents[1]
HALF = re.compile(r"\.(?:\w+(?:\.new\d*)?\.(?:ipynb|md)|\.mechkit\.json)\.(?P<process>\d+)")
SETTINGS = (
    "--log-level=ERROR",  # what remains is the address
    # nobody is asked about news at the first start, and no request leaves the machine
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)


@dataclass(frozen=True)
class Copied:
    """What was done to a work folder: the names of the chapters that were added and updated.

    Args:
        kept: The chapters that the learner had changed and that were updated since, each with the name of the file
            beside it that holds the course's version (`NN_name.new.ipynb`).
    """

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """A sentence a line; "" if nothing was done."""
        done = {"New": self.added, "Updated, as you had not changed them": self.updated}
        lines = [f"{what}: {', '.join(names)}." for what, names in done.items() if names]
        beside = "You changed {}, so it stays as it is; the course's new version is beside it, {}."
        return "\n".join([*lines, *(beside.format(*pair) for pair in self.kept)])


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

    Each file is replaced in one step, so that a copy which is interrupted leaves no half of one; the next goes on.

    Raises: ValueError if there are no chapters, or the folder holds other things or cannot be written to.
    """
    source = source or chapters_folder()
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"wanted a folder to work in; {target} holds the course's own chapters: name another folder")
    paths = sorted(path for pattern in COPIED for path in source.glob(pattern))
    files = {path.name: path.read_bytes() for path in paths}
    try:
        target.mkdir(parents=True, exist_ok=True)
        if others := _other_things(target, files):
            raise ValueError(
                f"wanted a new or empty folder, or one of the course's; {target} holds other things ({others}): name "
                f"another, as in `mechkit lab {target / 'mechkit-work'}`"
            )
        return _copy(target, files)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "it is a file, or would lie in one"
        raise ValueError(
            f"wanted to copy the chapters to {target}; that failed ({reason}): name a folder that you can write to, as "
            "in `mechkit lab ~/mechkit-work`"
        ) from error


def _other_things(target: Path, chapters: Mapping[str, bytes]) -> str:
    """What a folder holds that is none of ours; "" if it is empty or a work folder, whatever else is in it."""
    names = sorted(path.name for path in target.iterdir() if not path.name.startswith("."))
    if (target / RECORD).exists() or any(name in chapters for name in names):
        return ""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def open_lab(target: Path, *, browser: bool = True, run: Callable[..., int] | None = None) -> int:
    """Start JupyterLab in a work folder, at the first chapter, and wait until it ends; its exit code.

    Args:
        browser: Whether to open one; a sentence says that the address is printed, too.
        run: Runs a command in a folder with an environment (default: `wait_for`).
    """
    options = [*SETTINGS, *([f"--LabApp.default_url=/lab/tree/{FIRST}"] if (target / FIRST).is_file() else [])]
    found = _has_browser()
    what_if = "No browser was found here: " if not found else "If no page opens, " if browser else "To open it, "
    print(f"{what_if}copy the address that JupyterLab prints below into a browser.", flush=True)
    if not (browser and found):
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
    done: dict[str, list] = {"added": [], "updated": [], "kept": []}
    _sweep(target)
    for name, content in chapters.items():
        action, what, record[name] = _bring(target / name, content, record.get(name, {}))
        if action:
            done[action].append(what)
    _replace(target / RECORD, json.dumps(record, indent=1).encode())
    return Copied(**{action: tuple(names) for action, names in done.items()})


def _sweep(target: Path) -> None:
    """Remove what a copy that was killed left half written."""
    for path in target.iterdir():
        half = HALF.fullmatch(path.name)
        if half and not psutil.pid_exists(int(half["process"])):
            path.unlink()


def _bring(path: Path, content: bytes, entry: dict[str, str]) -> tuple[str, str | tuple[str, str], dict[str, str]]:
    """What was done with one chapter ("" for nothing), how `Copied` names it, and its new entry in the record.

    An entry holds the sha256 of what was `copied` and, beside a changed copy, of what was last `offered`.
    """
    theirs = _sha256(path.read_bytes()) if path.exists() else None
    new = _sha256(content)
    if theirs == new:
        return "", "", {"copied": new}
    if theirs is None or theirs == entry.get("copied"):
        _replace(path, content)
        return "updated" if theirs else "added", path.name, {"copied": new}
    if new in entry.values():
        return "", "", entry
    beside = _place_beside(path, entry.get("offered"))
    _replace(beside, content)
    return "kept", (path.name, beside.name), entry | {"offered": new}


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
