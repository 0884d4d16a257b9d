"""What is read afterwards holds no script, no hidden case, and no formula."""

import csv
import io

import pytest

from mechkit.grading.reports import cell_text, feedback_html, feedback_markdown, gradebook, summary_html
from tests.grading.conftest import graded_record as record
from tests.grading.conftest import graded_row as row

SCRIPT = "<script>alert(1)</script>"


HOSTILE = [SCRIPT, "![x](http://a/b.png)", "a\x00\x1b[31m\ud800\u202eb", "[click](javascript:alert(1))", "`" + SCRIPT]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_learner_writes_is_only_text(text):
    made = record(text, problem=text, note=text, exercises=[row(message=text, warning=text)])
    page, markdown = feedback_html(made), feedback_markdown(made)
    for shown in (page, summary_html([made | {"exercises": [row(message=text, mistake="known")]}])):
        assert "<script" not in shown
        assert "Content-Security-Policy" in shown
        assert not set("\x00\x1b\u202e") & set(shown)
        shown.encode()
    assert "![" not in markdown
    assert "](" not in markdown
    markdown.encode()


def test_feedback_says_what_was_reached_and_what_to_do():
    page = feedback_html(record())
    assert "ann: <b>2 of 4 points</b>" in page
    assert "✗ spread · 0 of 2" in page
    assert "✓ double · 2 of 2" in page
    assert "## ✗ spread · 0 of 2\n\nWrong." in feedback_markdown(record())


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\uff1d1+1"])
def test_a_spreadsheet_computes_nothing(text):
    assert cell_text(text).startswith(("'", "\ufffd"))
    (head, line) = csv.reader(io.StringIO(gradebook([record(text)])))
    assert head[:4] == ["learner", "points", "max_points", "status"]
    assert line[0][0] not in "=+-@\t\r\n"


def test_a_gradebook_keeps_odd_names_apart():
    names = ['a,b"c', "a\nb", "Ωμέγα"]
    lines = list(csv.reader(io.StringIO(gradebook([record(name) for name in names]))))
    assert [line[0] for line in lines[1:]] == names
    assert gradebook([]).startswith("learner,points")


def test_the_summary_counts_mistakes():
    wrong = record(
        exercises=[row(mistake="no_mean", message="Forgot the mean."), row("double", status="not attempted")]
    )
    page = summary_html([record(), wrong, wrong])
    assert "3 learners" in page
    assert "2 × Forgot the mean." in page
    assert 'aria-label="33%"' in page
    assert "No submissions" in summary_html([])
