"""A work folder is brought up to date and nothing in it is lost."""

import errno
import json
import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from mechkit.course.workspace import Copied, chapters_folder, copy_chapters, open_lab, wait_for


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "chapters"
    folder.mkdir()
    (folder / "00_start_here.ipynb").write_text("zero")
    (folder / "04_logit_lens.ipynb").write_text("four")
    (folder / "notes.txt").write_text("not a chapter")
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "work"


def files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def test_chapters_are_copied(source, target):
    assert copy_chapters(target, source) == Copied(added=("00_start_here.ipynb", "04_logit_lens.ipynb"))
    assert files(target) == {"00_start_here.ipynb": "zero", "04_logit_lens.ipynb": "four"}
    assert copy_chapters(target, source) == Copied()


def test_a_new_chapter_is_added_and_a_deleted_one_comes_back(source, target):
    copy_chapters(target, source)
    (source / "05_induction_heads.ipynb").write_text("five")
    (target / "00_start_here.ipynb").unlink()
    assert copy_chapters(target, source) == Copied(added=("00_start_here.ipynb", "05_induction_heads.ipynb"))


def test_an_untouched_chapter_follows_the_course(source, target):
    copy_chapters(target, source)
    (source / "04_logit_lens.ipynb").write_text("four, better")
    assert copy_chapters(target, source) == Copied(updated=("04_logit_lens.ipynb",))
    assert files(target)["04_logit_lens.ipynb"] == "four, better"


def test_what_was_done_is_said_in_sentences():
    copied = Copied(("05_induction_heads.ipynb",), ("00_start_here.ipynb", "03_probes.ipynb"))
    assert str(copied) == (
        "New: 05_induction_heads.ipynb.\nUpdated, as you had not changed them: 00_start_here.ipynb, 03_probes.ipynb."
    )
    assert str(Copied()) == ""


def test_a_changed_chapter_is_never_overwritten(source, target):
    copy_chapters(target, source)
    (target / "04_logit_lens.ipynb").write_text("my work")
    assert copy_chapters(target, source) == Copied()
    (source / "04_logit_lens.ipynb").write_text("four, better")
    copied = copy_chapters(target, source)
    assert copied == Copied(kept=(("04_logit_lens.ipynb", "04_logit_lens.new.ipynb"),))
    assert str(copied) == (
        "You changed 04_logit_lens.ipynb, so it stays as it is; the course's new version is beside it, "
        "04_logit_lens.new.ipynb."
    )
    assert copy_chapters(target, source) == Copied()
    assert files(target)["04_logit_lens.ipynb"] == "my work"
    assert files(target)["04_logit_lens.new.ipynb"] == "four, better"


def test_an_offer_is_replaced_unless_it_was_worked_on(source, target):
    copy_chapters(target, source)
    (target / "04_logit_lens.ipynb").write_text("my work")
    for edition in ("second", "third"):
        (source / "04_logit_lens.ipynb").write_text(edition)
        copy_chapters(target, source)
    assert files(target)["04_logit_lens.new.ipynb"] == "third"
    (target / "04_logit_lens.new.ipynb").write_text("my other work")
    (source / "04_logit_lens.ipynb").write_text("fourth")
    copy_chapters(target, source)
    assert files(target)["04_logit_lens.new.ipynb"] == "my other work"
    assert files(target)["04_logit_lens.new2.ipynb"] == "fourth"


def test_the_pages_that_chapters_link_to_come_along_and_are_not_overwritten_either(source, target):
    (source / "glossary.md").write_text("words")
    assert copy_chapters(target, source).added[-1] == "glossary.md"
    (target / "glossary.md").write_text("my words")
    (source / "glossary.md").write_text("more words")
    assert copy_chapters(target, source) == Copied(kept=(("glossary.md", "glossary.new.md"),))
    assert files(target)["glossary.md"] == "my words"
    assert files(target)["glossary.new.md"] == "more words"


def test_a_deleted_offer_is_not_made_again(source, target):
    copy_chapters(target, source)
    (target / "04_logit_lens.ipynb").write_text("my work")
    (source / "04_logit_lens.ipynb").write_text("second")
    copy_chapters(target, source)
    (target / "04_logit_lens.new.ipynb").unlink()
    assert copy_chapters(target, source) == Copied()


@pytest.mark.parametrize("record", [None, "{broken", "[]", '{"04_logit_lens.ipynb": 3}'])
def test_without_its_record_nothing_is_overwritten(source, target, record):
    copy_chapters(target, source)
    (target / "04_logit_lens.ipynb").write_text("my work")
    if record is None:
        (target / ".mechkit.json").unlink()
    else:
        (target / ".mechkit.json").write_text(record)
    copy_chapters(target, source)
    assert files(target)["04_logit_lens.ipynb"] == "my work"
    assert set(json.loads((target / ".mechkit.json").read_text())) == {"00_start_here.ipynb", "04_logit_lens.ipynb"}


def test_nobody_works_in_the_courses_own_chapters(source):
    with pytest.raises(ValueError, match="holds the course's own chapters: name another folder"):
        copy_chapters(source, source)


@pytest.mark.parametrize("name", ["file", "file/work"])
def test_a_file_is_no_folder(name, source, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"that failed \(it is a file, or would lie in one\): name a folder"):
        copy_chapters(tmp_path / name, source)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written_is_told(source, target, monkeypatch):
    copy_chapters(target, source)
    before = files(target)

    def refuse(self, content):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)  # the chmod of a test that root runs would refuse nothing
    with pytest.raises(ValueError, match=r"failed \(Permission denied\): name a .* `mechkit lab ~/mechkit-work`"):
        copy_chapters(target, source)
    assert files(target) == before


def test_a_folder_of_something_else_is_left_alone(source, target):
    target.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "thesis.tex"):
        (target / name).write_text("")
    with pytest.raises(ValueError, match=r"holds other things \(a.txt, b.txt, c.txt, …\): name another, as in"):
        copy_chapters(target, source)
    assert len(files(target)) == 4


def test_a_work_folder_may_hold_the_learners_own_files(source, target):
    copy_chapters(target, source)
    (target / "notes.txt").write_text("mine")
    assert copy_chapters(target, source) == Copied()


def test_an_interrupted_copy_leaves_no_half_file_and_is_finished_later(source, target, monkeypatch):
    write, written = Path.write_bytes, []

    def interrupted(self, content):
        written.append(self.name)
        write(self, content[: len(content) // 2] if len(written) == 2 else content)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy_chapters(target, source)
    assert [path.name for path in target.iterdir()] == ["00_start_here.ipynb"]
    assert copy_chapters(target, source) == Copied(added=("04_logit_lens.ipynb",))


def test_what_a_killed_copy_left_is_swept_away_unless_it_still_runs(source, target):
    copy_chapters(target, source)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    theirs, half = f".00_start_here.ipynb.{os.getpid()}", f".04_logit_lens.new2.ipynb.{gone.pid}"
    for name in (theirs, half, ".mine.txt.1"):
        (target / name).write_text("ze")
    copy_chapters(target, source)
    assert {path.name for path in target.glob(".*")} == {".mechkit.json", theirs, ".mine.txt.1"}


def test_a_read_only_source_is_copied(source, target):
    os.chmod(source, 0o500)
    try:
        copy_chapters(target, source)
        (target / "04_logit_lens.ipynb").write_text("my work")
    finally:
        os.chmod(source, 0o700)


def test_chapters_are_found_in_a_checkout_and_in_a_wheel(source, tmp_path):
    package = tmp_path / "mechkit"
    assert chapters_folder(package) == source
    source.rename(tmp_path / "elsewhere")
    package.mkdir()
    (tmp_path / "elsewhere").rename(package / "chapters")
    assert chapters_folder(package) == package / "chapters"


def test_an_installation_without_chapters_is_told(tmp_path):
    with pytest.raises(ValueError, match="there are none: install mechkit-course again"):
        chapters_folder(tmp_path / "mechkit")


def test_jupyterlab_opens_at_the_first_chapter(source, target):
    copy_chapters(target, source)
    seen = []
    code = open_lab(target, browser=False, run=lambda *call: seen.append(call) or 7)
    [(command, folder, environment)] = seen
    assert code == 7
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert {"--no-browser", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"} <= set(command)
    assert {"--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"} <= set(command)
    assert folder == target
    assert environment["JUPYTER_PREFER_ENV_PATH"] == "1"


def test_without_a_first_chapter_the_folder_is_opened(target):
    target.mkdir()
    seen = []
    open_lab(target, browser=False, run=lambda *call: seen.append(call) or 0)
    assert not any(".ipynb" in word for word in seen[0][0])


HOW = "copy the address that JupyterLab prints below into a browser.\n"


@pytest.mark.parametrize(
    ("found", "wanted", "opens", "told"),
    [
        (True, True, True, f"If no page opens, {HOW}"),
        (True, False, False, f"To open it, {HOW}"),
        (False, True, False, f"No browser was found here: {HOW}"),
    ],
)
def test_the_address_is_pointed_at(found, wanted, opens, told, target, monkeypatch, capsys):
    def get(using=None):
        if not found:
            raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", get)
    target.mkdir()
    seen = []
    open_lab(target, browser=wanted, run=lambda *call: seen.append(call) or 0)
    assert ("--no-browser" not in seen[0][0]) == opens
    assert capsys.readouterr().out == told


@pytest.mark.slow
def test_two_labs_at_once_find_a_port_each_and_print_their_addresses(source, target, tmp_path):
    """JupyterLab itself, twice, without a browser; each says where it is in a line of its own."""
    copy_chapters(target, source)
    seen = []
    open_lab(target, browser=False, run=lambda *call: seen.append(call) or 0)
    [(command, _, environment)] = seen
    environment |= {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    pipe = {"stderr": subprocess.PIPE, "text": True, "env": environment, "cwd": target}
    with subprocess.Popen(command, **pipe) as first, subprocess.Popen(command, **pipe) as second:
        try:
            addresses = {next(line.strip() for line in lab.stderr if "http://" in line) for lab in (first, second)}
        finally:
            first.terminate(), second.terminate()
    assert len({address.split("/lab/tree/")[0] for address in addresses}) == 2
    assert all("/lab/tree/00_start_here.ipynb?token=" in address for address in addresses)


def test_the_exit_code_of_a_command_comes_back(tmp_path):
    assert wait_for([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, os.environ) == 3
