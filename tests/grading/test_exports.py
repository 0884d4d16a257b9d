"""Marks go into the files that other systems made, and nothing else in those changes."""

import csv
import io

import pytest

from mechkit.grading.exports import gradescope, read_sheet
from tests.grading.conftest import graded_record as record


def test_gradescope_gets_its_format():
    made = gradescope(record())
    assert made["score"] == 2.0
    assert {each["status"] for each in made["tests"]} == {"passed", "failed"}
    assert made["tests"][0]["output_format"] == "text"


CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Logit lens (77),Final\r\n"
    "    Points Possible,,,,,25,\r\n"
    '"Lee, Ann",12,s12,ann,One,,1\r\n"Ray, Bob",13,s13,bob,One,3,\r\n'
)
MOODLE = (
    "Identifier,Full name,Email address,Status,Grade,Maximum Grade\nParticipant 12,Ann Lee,a@x,,,25\n"
    "Participant 13,Bob Ray,b@x,,,25\n"
)


@pytest.mark.parametrize(
    ("sheet", "learners", "column", "line"),
    [
        (CANVAS, ["annlee (12)", "bobray (13)"], "Logit lens", ["Lee, Ann", "12", "s12", "ann", "One", "2", "1"]),
        (CANVAS, ["ann", "bob"], "Logit lens (77)", ["Lee, Ann", "12", "s12", "ann", "One", "2", "1"]),
        (MOODLE, ["Ann Lee (12)", "Bob Ray (13)"], None, ["Participant 12", "Ann Lee", "a@x", "", "2", "25"]),
        (MOODLE, ["a@x", "Bob Ray"], None, ["Participant 12", "Ann Lee", "a@x", "", "2", "25"]),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_sheet_is_filled_in_and_nothing_else_changes(tmp_path, sheet, learners, column, line, mark):
    path = tmp_path / "sheet.csv"
    path.write_bytes((mark + sheet).encode())
    filled = read_sheet(path, learners, column).filled([record(each) for each in learners]).decode("utf-8-sig")
    before, after = (list(csv.reader(io.StringIO(text, newline=""))) for text in (sheet, filled))
    assert line in after
    assert before[0] == after[0]
    assert sum(a != b for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True)) == 2


@pytest.mark.parametrize(
    ("sheet", "learners", "column", "words"),
    [
        (CANVAS, ["ann", "zoe"], "Logit lens", "has no row for 1 of 2 learners: 'zoe'"),
        (CANVAS, ["ann"], None, "name it with --column"),
        (CANVAS, ["ann"], "Probes", "there are 0"),
        ("a,b\n1,2\n", ["ann"], None, "has none of"),
        ("", ["ann"], None, "has none of"),
    ],
)
def test_a_sheet_that_does_not_fit_is_refused(tmp_path, sheet, learners, column, words):
    path = tmp_path / "sheet.csv"
    path.write_text(sheet)
    with pytest.raises(ValueError, match=words):
        read_sheet(path, learners, column)
