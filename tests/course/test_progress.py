"""One small file per user that is never lost."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest

from mechkit.course import progress
from mechkit.course.progress import Progress, home, summary

EMPTY = {"version": 1, "exercises": {}, "predictions": {}, "claims": {}}
ROOT = Path(__file__).parents[2]


def add(name, **fields):
    return lambda record: record["exercises"].setdefault(name, {}).update(fields)


def entries(folder):
    return Progress(folder).read()["exercises"]


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    monkeypatch.setattr(progress, "_MEMORY", {})


def test_a_change_is_read_back(folder):
    first, second = Progress(folder), Progress(folder)
    assert first.read() == EMPTY
    first.change(add("04_a", tries=1))
    second.change(add("04_b", status="passed"))
    assert first.read() == second.read() == EMPTY | {"exercises": {"04_a": {"tries": 1}, "04_b": {"status": "passed"}}}


def test_what_is_read_is_a_copy(folder):
    mine = Progress(folder, saved=False)
    mine.read()["exercises"]["04_a"] = {}
    assert mine.read() == EMPTY


def test_the_file_is_json_and_nothing_else_is_left_but_its_lock(folder):
    Progress(folder).change(add("04_a", tries=1))
    assert json.loads((folder / "progress.json").read_text())["exercises"] == {"04_a": {"tries": 1}}
    assert {path.name for path in folder.iterdir()} <= {"progress.json", "progress.json.lock"}


def test_the_folder_is_the_users_own(monkeypatch):
    monkeypatch.setenv("MECHKIT_HOME", "~/course")
    assert home() == Path.home() / "course"
    monkeypatch.delenv("MECHKIT_HOME")
    assert home().is_absolute()
    assert "mechkit" in home().name


def test_a_change_that_fails_changes_nothing(folder):
    mine = Progress(folder)
    mine.change(add("04_a", tries=1))
    for edit in (lambda record: record.clear() or 1 / 0, lambda record: record["exercises"].update(x=object())):
        with pytest.raises((ZeroDivisionError, TypeError)):
            mine.change(edit)
    assert entries(folder) == {"04_a": {"tries": 1}}
    assert mine.take_notice() == ""


def test_what_a_newer_version_wrote_is_kept(folder):
    folder.mkdir()
    (folder / "progress.json").write_text(json.dumps(EMPTY | {"version": 2, "streaks": [1]}))
    Progress(folder).change(add("04_a", tries=1))
    record = Progress(folder).read()
    assert (record["version"], record["streaks"], record["exercises"]) == (2, [1], {"04_a": {"tries": 1}})


def test_an_editors_byte_order_mark_is_no_damage(folder):
    folder.mkdir()
    (folder / "progress.json").write_text(json.dumps(EMPTY | {"claims": {"04": {}}}), encoding="utf-8-sig")
    assert Progress(folder).read()["claims"] == {"04": {}}


# damage -------------------------------------------------------------------------------------------------------

DAMAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "half written": b'{"version": 1, "exercises": {"04_a": {"sta',
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "a number": b"7",
    "a part that is a list": b'{"exercises": []}',
    "an entry that is a word": b'{"exercises": {"04_a": "passed"}}',
    "tries that are words": b'{"exercises": {"04_a": {"tries": "many"}}}',
    "points that are words": b'{"exercises": {"04_a": {"points": "all"}}}',
    "mistakes that are a word": b'{"exercises": {"04_a": {"mistakes": "no"}}}',
    "a guess that is a number": b'{"predictions": {"04_p": {"guess": 3}}}',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_kept_aside_and_said_so_once(folder, damage):
    folder.mkdir()
    (folder / "progress.json").write_bytes(damage)
    mine = Progress(folder)
    assert mine.read() == EMPTY
    mine.change(add("04_a", tries=1))
    (aside,) = folder.glob("progress.damaged-*.json")
    assert aside.read_bytes() == damage
    notice = mine.take_notice()
    assert "damaged" in notice
    assert str(aside) in notice
    mine.change(add("04_a", hints=1))
    assert mine.take_notice() == ""
    assert entries(folder) == {"04_a": {"tries": 1, "hints": 1}}


# a disk that refuses ------------------------------------------------------------------------------------------


def refused(tmp_path):
    """Folders in which nothing can be written, also not by root."""
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "taken" / "progress.json").mkdir(parents=True)
    nowhere = Path("/proc/mechkit") if sys.platform == "linux" else tmp_path / "file" / "deeper"
    return {
        "a file": tmp_path / "file",
        "inside a file": tmp_path / "file" / "x",
        "taken": tmp_path / "taken",
        "/": nowhere,
    }


@pytest.mark.parametrize("place", ["a file", "inside a file", "taken", "/"])
def test_a_disk_that_refuses_leaves_progress_in_memory_and_says_so_once(tmp_path, place):
    folder = refused(tmp_path)[place]
    mine = Progress(folder)
    for number in range(3):
        mine.change(add("04_a", tries=number))
        mine.change(add(f"04_{number}", tries=1))
    assert mine.read()["exercises"] == {"04_a": {"tries": 2}} | {f"04_{number}": {"tries": 1} for number in range(3)}
    notice = mine.take_notice()
    assert notice.count("cannot be saved") == 1
    assert str(folder) in notice
    assert "MECHKIT_HOME" in notice
    again = Progress(folder)
    again.change(add("04_b", tries=1))
    assert (len(again.read()["exercises"]), again.take_notice()) == (5, "")


def test_what_was_saved_is_not_lost_when_the_disk_fills(folder, monkeypatch):
    mine = Progress(folder)
    mine.change(add("04_a", tries=1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.os, "fsync", full)
    mine.change(add("04_b", tries=1))
    assert mine.read()["exercises"].keys() == {"04_a", "04_b"}
    assert "OSError" in mine.take_notice()
    monkeypatch.setattr(progress, "_MEMORY", {})
    assert entries(folder) == {"04_a": {"tries": 1}}
    assert {path.name for path in folder.iterdir()} <= {"progress.json", "progress.json.lock"}


@pytest.mark.parametrize("trouble", [NotImplementedError("no flock"), PermissionError(13, "read only")], ids=repr)
def test_a_file_system_without_locks_leaves_progress_in_memory(folder, monkeypatch, trouble):
    def refuse(self, *_, **__):
        raise trouble

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    mine = Progress(folder)
    mine.change(add("04_a", tries=1))
    assert mine.read()["exercises"] == {"04_a": {"tries": 1}}
    assert type(trouble).__name__ in mine.take_notice()


def test_a_lock_that_is_never_given_back_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(progress, "LOCK_SECONDS", 0.02)
    folder.mkdir()
    mine = Progress(folder)
    with filelock.FileLock(folder / "progress.json.lock"):
        mine.change(add("04_a", tries=1))
    assert "Timeout" in mine.take_notice()
    assert mine.read()["exercises"] == {"04_a": {"tries": 1}}


@pytest.mark.parametrize("failures", [1, 3])
def test_a_file_that_windows_holds_for_a_moment_is_waited_for(folder, monkeypatch, failures):
    monkeypatch.setattr(progress, "PAUSES", (0.0, 0.0, 0.0, 0.0))
    replace, left = os.replace, [PermissionError(13, "in use")] * failures

    def in_use(source, target):
        if left:
            raise left.pop()
        replace(source, target)

    monkeypatch.setattr(progress.os, "replace", in_use)
    mine = Progress(folder)
    mine.change(add("04_a", tries=1))
    assert mine.take_notice() == ""
    assert entries(folder) == {"04_a": {"tries": 1}}


def test_a_graders_record_is_its_own_and_unsaved(folder):
    first, second = Progress(folder, saved=False), Progress(folder, saved=False)
    first.change(add("04_a", tries=1))
    assert first.read()["exercises"] == {"04_a": {"tries": 1}}
    assert second.read() == EMPTY
    assert not folder.exists()


# two kernels --------------------------------------------------------------------------------------------------

ADD = """
import sys
from pathlib import Path
from mechkit.course.progress import Progress
folder, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    Progress(folder).change(lambda record: record["exercises"].update({f"{who}_{number}": {"tries": number}}))
    print(number, flush=True)
"""


def adding(folder, who, count):
    command = [sys.executable, "-c", ADD, str(folder), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.slow
def test_two_kernels_lose_nothing_and_nobody_reads_half_a_file(folder):
    both = [adding(folder, who, 50) for who in "ab"]
    both[0].stdout.readline()
    while any(process.poll() is None for process in both):
        assert entries(folder)
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert entries(folder) == {f"{who}_{number}": {"tries": number} for who in "ab" for number in range(50)}


@pytest.mark.slow
def test_a_kernel_that_is_killed_half_way_leaves_a_readable_file(folder):
    said = set()
    for attempt in range(6):
        process = adding(folder, str(attempt), 10_000)
        process.stdout.readline()
        time.sleep(random.uniform(0.0, 0.1))
        process.kill()
        said |= {f"{attempt}_{number}" for number in ["0", *process.communicate()[0].split()]}
        assert json.loads((folder / "progress.json").read_text())["exercises"].keys() >= said
    mine = Progress(folder)
    mine.change(add("after", tries=1))
    assert mine.take_notice() == ""
    assert entries(folder).keys() >= said | {"after"}


# the command --------------------------------------------------------------------------------------------------


def test_a_summary_adds_up_what_passed(folder):
    mine = Progress(folder)
    mine.change(add("04_a", status="passed", points=1.0))
    mine.change(add("04_b", status="passed", points=0.5))
    mine.change(add("04_c", status="failed", tries=3))
    told = summary(folder)
    assert (told["passed"], told["points"], told["file"]) == (2, 1.5, str(folder / "progress.json"))
    assert told["exercises"].keys() == {"04_a", "04_b", "04_c"}
