"""A work folder is brought up to date and nothing in it is lost."""

import json
import os
import sys
import webbrowser

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


def test_a_changed_chapter_is_never_overwritten(source, target):
    copy_chapters(target, source)
    (target / "04_logit_lens.ipynb").write_text("my work")
    assert copy_chapters(target, source) == Copied()
    (source / "04_logit_lens.ipynb").write_text("four, better")
    assert copy_chapters(target, source) == Copied(offered=("04_logit_lens.ipynb",))
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
    assert copy_chapters(target, source) == Copied(offered=("glossary.md",))
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


def test_a_folder_that_cannot_be_written_is_told(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"wanted to copy the chapters to .* name a folder that you can write to"):
        copy_chapters(tmp_path / "file" / "work", source)


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
    assert folder == target
    assert environment["JUPYTER_PREFER_ENV_PATH"] == "1"


def test_without_a_first_chapter_the_folder_is_opened(target):
    target.mkdir()
    seen = []
    open_lab(target, browser=False, run=lambda *call: seen.append(call) or 0)
    assert not any(".ipynb" in word for word in seen[0][0])


def test_without_a_browser_the_address_is_pointed_at(target, monkeypatch, capsys):
    def nothing(using=None):
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", nothing)
    target.mkdir()
    seen = []
    open_lab(target, run=lambda *call: seen.append(call) or 0)
    assert "--no-browser" in seen[0][0]
    assert "copy the address that JupyterLab prints below" in capsys.readouterr().err


def test_the_exit_code_of_a_command_comes_back(tmp_path):
    assert wait_for([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, os.environ) == 3
