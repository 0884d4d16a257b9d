"""A grader that is killed leaves nothing behind once the next has started, and nobody clears away what is in use."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mechkit.grading.folders import LOCK, WorkFolder, sweep
from tests.grading.conftest import cells, stubs, text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="clearing away is left to Windows")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_folder_is_gone_after_use(temporary):
    with WorkFolder("grader") as path:
        (path / "x").write_text("x")
        assert path.parent == temporary
    assert not list(temporary.iterdir())


def test_what_is_in_use_is_not_swept(temporary):
    with WorkFolder("sandbox") as path:
        sweep()
        assert path.exists()


def test_what_nobody_holds_is_swept(temporary):
    left = temporary / "mechkit-grader-left"
    left.mkdir()
    (left / LOCK).touch()
    sweep()
    assert not list(temporary.iterdir())


def test_a_folder_that_is_being_made_is_left_alone_for_a_while(temporary):
    young, old, other = (temporary / f"mechkit-{name}" for name in ("grader-young", "grader-old", "work"))
    for path in (young, old, other):
        path.mkdir()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    sweep()
    assert sorted(temporary.iterdir()) == [young, other]


def test_a_link_is_not_followed(temporary, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / LOCK).touch()
    (temporary / "mechkit-grader-link").symlink_to(tmp_path / "precious")
    sweep()
    assert (tmp_path / "precious" / LOCK).exists()


@pytest.mark.slow
def test_a_grader_that_was_killed_leaves_nothing_once_another_has_run(temporary, tmp_path):
    (tmp_path / "in").mkdir()
    answers = stubs() | {"spread": "def cosine(a, b):\n    while True: pass"}
    made = text(cells(**answers)).replace("99_spread", "00_cosine").replace("99_", "00_")
    (tmp_path / "in" / "ann.ipynb").write_text(made)
    command = [sys.executable, "-m", "mechkit.cli", "grade", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    command += ["--chapter", "00", "--seconds", "60"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: "waiting" in _records(tmp_path / "out"))
    time.sleep(1)  # into the loop
    assert list(temporary.iterdir())
    process.kill()
    process.wait()
    _until(lambda: not _users_of(temporary), seconds=40)
    (tmp_path / "in" / "ann.ipynb").write_text(made.replace("while True: pass", "return 1"))
    subprocess.run([*command, "--resume"], cwd=ROOT, check=True, capture_output=True)
    assert not list(temporary.iterdir())


def _until(holds, seconds=120):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)


def _records(out):
    return "".join(path.read_text() for path in out.glob("records/*.json"))


def _users_of(folder):
    """Processes that were started for a folder, by what they were told of it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [path] * (str(folder).encode() + b"/mechkit-" in path.read_bytes())
        except OSError:
            continue
    return found
