"""The report card: published beside measured beside the learner's own."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mechkit import cli
from mechkit.course import report
from mechkit.course.exercises import NUMBERS, find_chapter
from mechkit.course.progress import Progress
from mechkit.course.report import Row, report_html, report_rows, report_text, said
from mechkit.data.published import Published

ROW = Row("01", "angle", "<b>72</b> (toy model; somebody)", "71", "–", "exactly")


def test_each_finding_of_a_chapter_is_measured():
    rows = report_rows(("01",))
    findings = [each.name for each in find_chapter("01").exercises if each.kind == "finding"]
    assert [row.finding for row in rows] == findings
    assert all(row.here and row.tolerance for row in rows)
    assert {row.yours for row in rows} == {"–"}


@pytest.fixture
def represented(monkeypatch):
    """Chapter 01 with one finding."""
    chapter = find_chapter("01")
    [only] = [each for each in chapter.exercises if each.name == "represented"]
    monkeypatch.setattr(report, "find_chapter", lambda number: replace(chapter, exercises=(only,)))


def test_a_finding_that_passed_stands_in_its_column(represented):
    def passed(record):
        record["exercises"]["01_represented"] = {"status": "passed", "found": [2, 2.345, 4]}

    Progress().change(passed)
    [row] = report_rows(("01",))
    assert row.yours == "2, 2.3, 4"


def test_a_published_value_stands_beside_its_finding(represented, monkeypatch):
    quoted = Published("01", "angle of a pentagon", "toy model", "72°", "a paper", finding="01_represented")
    monkeypatch.setattr(report, "PUBLISHED", (quoted,))
    [row] = report_rows(("01",))
    assert row.published == "angle of a pentagon: 72° (toy model; a paper)"


def test_a_finding_that_is_allowed_more_than_rounding_says_why():
    wide = [each for name in NUMBERS for each in find_chapter(name).exercises if each.tolerance > 2e-3]
    assert [each.id for each in wide if each.kind == "finding" and not each.allowance] == []


def test_the_page_loads_nothing_and_escapes():
    page = report_html([ROW])
    assert "<b>72</b>" not in page
    assert "http" not in page
    assert "<script" not in page
    HTMLParser().feed(page)


def test_the_text_has_a_table_a_chapter():
    text = report_text([ROW])
    assert "Chapter 01" in text
    assert "angle" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.03456, "0.035"),
        ([(16, 0), (11, 1)], "(16, 0), (11, 1)"),
        ({"choice": "random", "shift": -0.13}, "choice random, shift -0.13"),
        (True, "True"),
        (29, "29"),
    ],
)
def test_values_are_said_in_few_digits(value, text):
    assert said(value) == text


def test_the_command_writes_all_three_forms(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(report, "report_rows", lambda chapters: [ROW])
    assert cli.main(["report", "01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["here"] == "71"
    assert cli.main(["report", "--html", str(tmp_path / "card.html")]) == 0
    assert (tmp_path / "card.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert cli.main(["report"]) == 0
    assert "Chapter 01" in capsys.readouterr().out
