"""`mechkit grade`, as it is called: what is said before anything runs, what is printed, and the exit code."""

import json

import pytest

from mechkit import cli
from mechkit.grading import session
from tests.grading.conftest import cell, cells, graded_record, stubs, text


@pytest.fixture
def quick(monkeypatch, template):
    """Grading that only notes how it was asked."""
    asked = {}

    def grade_class(handed, path, out, wishes, *, told, open_grader):
        out.mkdir(exist_ok=True)
        asked.update(handed=handed, template=path, wishes=wishes)
        return [graded_record(each.learner) for each in handed]

    monkeypatch.setattr(session, "grade_class", grade_class)
    monkeypatch.setattr(session, "chapters_folder", lambda: template.parent)
    return asked


@pytest.fixture
def submitted(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for name in ("ann", "bob"):
        (root / f"{name}.ipynb").write_text(text(cells()))
    return root


def test_a_class_is_graded_by_the_chapter_that_its_notebooks_are_of(quick, submitted, tmp_path, template, capsys):
    assert cli.main(["grade", str(submitted), "--out", str(tmp_path / "out"), "--jobs", "3", "--seed", "5"]) == 0
    assert quick["template"] == template
    assert (quick["wishes"].jobs, quick["wishes"].seed, quick["wishes"].resume) == (3, 5, False)
    assert submitted in quick["wishes"].hidden
    said = capsys.readouterr().out
    assert "2 of 4  graded              ann" in said
    assert "2 graded (isolation: namespaces); gradebook" in said


def test_a_learners_name_gives_a_terminal_no_orders(quick, submitted, tmp_path, capsys):
    (submitted / "ann.ipynb").rename(submitted / "\x1b[2Jann.ipynb")
    assert cli.main(["grade", str(submitted), "--out", str(tmp_path / "out")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_json_is_all_that_is_printed(quick, submitted, tmp_path, capsys):
    assert cli.main(["grade", str(submitted), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert [each["learner"] for each in json.loads(capsys.readouterr().out)["records"]] == ["ann", "bob"]


def test_a_failure_of_the_grader_is_exit_code_1(quick, submitted, tmp_path, monkeypatch):
    failed = [graded_record("ann", status="error")]
    monkeypatch.setattr(session, "grade_class", lambda *args, **options: failed)
    assert cli.main(["grade", str(submitted), "--out", str(tmp_path / "out")]) == 1


WRONG = {
    "no such path": (["nowhere"], "there is no nowhere"),
    "no such chapter": (["IN", "--chapter", "42"], "wanted chapter '42' to grade by; there are 99_invented"),
    "a template that is none": (["IN", "--template", "OTHER"], "wanted a chapter's notebook as template"),
    "a roster that does not match": (["IN", "--fill", "SHEET", "--column", "x"], "has no row for 1 of 2 learners"),
    "an export that would be overwritten": (["IN", "--fill", "gradebook.csv"], "give the export another name"),
    "no job": (["IN", "--jobs", "0"], "at least one job"),
    "nothing for Gradescope": (["nowhere", "--gradescope", "results.json"], "there is no nowhere"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_said_before_anything_runs(quick, submitted, tmp_path, capsys, arguments, words):
    (tmp_path / "other.ipynb").write_text(text([cell("x")]))
    (tmp_path / "sheet.csv").write_text("Student,ID,x\nann,1,\n")
    names = {"IN": submitted, "OTHER": tmp_path / "other.ipynb", "SHEET": tmp_path / "sheet.csv"}
    arguments = [str(names.get(each, each)) for each in arguments]
    assert cli.main(["grade", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert quick == {}
    assert not (tmp_path / "out").exists()


def test_sheets_and_gradescopes_file_are_written(quick, submitted, tmp_path):
    (tmp_path / "sheet.csv").write_text("Student,ID,x\nann,1,\nbob,2,7\n")
    out = tmp_path / "out"
    filled = ["--fill", str(tmp_path / "sheet.csv"), "--column", "x"]
    assert cli.main(["grade", str(submitted), "--out", str(out), *filled]) == 0
    assert (out / "sheet.csv").read_text().splitlines() == ["Student,ID,x", "ann,1,2", "bob,2,2"]
    one = ["grade", str(submitted / "ann.ipynb"), "--out", str(out), "--gradescope", str(tmp_path / "results.json")]
    assert cli.main(one) == 0
    assert json.loads((tmp_path / "results.json").read_text())["score"] == 2.0


@pytest.mark.parametrize("notebooks", [0, 1, 2])
def test_for_gradescope_everything_is_one_learners(quick, tmp_path, notebooks):
    folder = tmp_path / "submission"
    folder.mkdir()
    for number in range(notebooks):
        (folder / f"{number}.ipynb").write_text(text(cells()))
    asked = ["grade", str(folder), "--chapter", "99", "--gradescope", str(tmp_path / "results.json")]
    assert cli.main([*asked, "--out", str(tmp_path / "out")]) == 0
    assert [len(each.notebooks) for each in quick["handed"]] == [notebooks]
    assert json.loads((tmp_path / "results.json").read_text())["stdout_visibility"] == "hidden"


@pytest.mark.slow
def test_the_command_grades_an_untouched_chapter(tmp_path, capsys):
    (tmp_path / "ann.ipynb").write_text(text(cells(**stubs())).replace("99_", "00_"))
    assert cli.main(["grade", str(tmp_path / "ann.ipynb"), "--out", str(tmp_path / "out")]) == 0
    assert "0 of 23  graded" in capsys.readouterr().out
