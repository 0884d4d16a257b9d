"""The learner's record on one page, and an exercise forgotten and brought back."""

import csv
import io

import pytest

from mechkit.course import progress
from mechkit.course.dashboard import calibration, dashboard, reset, standing, table_csv, undo
from mechkit.course.exercises import NUMBERS, catalogue, find_chapter
from mechkit.course.progress import Progress

DONE = {
    "exercises": {
        "04_rank_of": {"status": "passed", "points": 1.0, "tries": 2, "hints": 1, "seen": True},
        "04_lock_in": {"status": "failed", "tries": 3},
    },
    "predictions": {
        "04_one": {"guess": {"layer": 10}, "outcome": {"layer": 20}, "right": False},
        "04_two": {"guess": {"loss": 3.0}, "outcome": {"loss": 3.0}, "right": True},
        "05_three": {"guess": {"share": 4}, "outcome": {"share": 1}, "right": False},
        "05_unseen": {"guess": {"share": 4}},
        "05_words": {"guess": {"what": "late"}, "outcome": {"what": "late"}, "right": True},
        "05_sign": {"guess": {"shift": -1.0}, "outcome": {"shift": 1.0}, "right": False},
    },
    "claims": {"04": {"right": True}, "05": {"right": False}},
}


@pytest.fixture(autouse=True)
def _record(monkeypatch):
    monkeypatch.setattr(progress, "_MEMORY", {})
    Progress().change(lambda record: record.update(DONE))


def test_a_chapter_counts_what_was_written_down():
    here = standing(find_chapter("04"), DONE)
    assert (here.passed, here.points, here.right, here.seen, here.claim) == (1, 1.0, 1, 2, "supported")
    assert standing(find_chapter("05"), DONE).claim == "not supported"
    assert standing(find_chapter("03"), DONE).claim == ""


@pytest.mark.parametrize(
    ("part", "entry", "state"),
    [
        ("exercises", {"04_rank_of": {"status": "not attempted", "tries": 0}}, ""),
        ("exercises", {"04_rank_of": {"hints": 1}}, "begun"),
        ("exercises", {"04_rank_of": {"status": "failed", "tries": 1}}, "begun"),
        ("exercises", {each.id: {"status": "passed"} for each in find_chapter("04").exercises}, "done"),
        ("predictions", {"04_one": {"guess": {"layer": 10}}}, "begun"),
        ("claims", {"04": {"right": False}}, "begun"),
    ],
)
def test_a_chapter_is_begun_by_what_the_learner_did_not_by_running_it(part, entry, state):
    record = {"exercises": {}, "predictions": {}, "claims": {}} | {part: entry}
    assert standing(find_chapter("04"), record).state == state
    assert standing(find_chapter("03"), record).state == ""


def test_predictions_are_weighed_by_their_outcomes():
    assert calibration(DONE) == (
        "2 of 5 predictions were right (40%). Of 3 numbers that you guessed, the middle one was off by a factor of "
        "2.0 (1 is exact)."
    )
    assert calibration({"predictions": {}}) == "No prediction has met its outcome yet."


def test_the_page_has_every_chapter_and_the_sum():
    shown = dashboard()
    assert "04 the logit lens" in shown.text
    assert f"1 of {len(catalogue())}" in shown.text
    assert "2 of 5 predictions" in shown.text
    assert shown.html.count("<tr>") == len(NUMBERS) + 2
    assert "http" not in shown.html


def test_the_csv_has_a_row_for_every_exercise():
    rows = list(csv.DictReader(io.StringIO(table_csv())))
    assert [f"{row['chapter']}_{row['exercise']}" for row in rows] == [each["id"] for each in catalogue()]
    [one] = [row for row in rows if row["exercise"] == "rank_of"]
    assert (one["status"], one["points"], one["tries"], one["hints"], one["solution seen"]) == (
        *("passed", "1.0", "2", "1", "True"),
    )
    assert {row["status"] for row in rows} == {"passed", "failed", "not attempted"}


def test_an_exercise_is_forgotten_and_brought_back():
    reset("04_rank_of")
    assert "04_rank_of" not in Progress().read()["exercises"]
    assert undo() == "04_rank_of"
    assert Progress().read()["exercises"] == DONE["exercises"]


def test_the_last_one_comes_back_first():
    reset("04_rank_of")
    reset("04_lock_in")
    assert [undo(), undo()] == ["04_lock_in", "04_rank_of"]
    assert Progress().read()["exercises"] == DONE["exercises"]


def test_what_was_done_since_is_set_aside_not_lost():
    reset("04_rank_of")
    anew = {"status": "failed", "tries": 1}
    Progress().change(lambda record: record["exercises"].update({"04_rank_of": anew}))
    undo()
    assert Progress().read()["exercises"]["04_rank_of"] == DONE["exercises"]["04_rank_of"]
    undo()
    assert Progress().read()["exercises"]["04_rank_of"] == anew


def test_nothing_to_forget_and_nothing_to_bring_back_are_said():
    with pytest.raises(ValueError, match="nothing was done of '04_top_head'; exercises with a record: 04_lock_in, "):
        reset("04_top_head")
    with pytest.raises(ValueError, match="nothing was reset, so there is nothing to bring back"):
        undo()
    assert Progress().read()["exercises"] == DONE["exercises"]
