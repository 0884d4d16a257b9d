"""Published values: quoted with their source, and met where the course measures the same."""

import pytest

from mechkit.course.exercises import NUMBERS, find_chapter
from mechkit.data.published import PUBLISHED, published


def test_each_row_names_its_model_and_source():
    assert all(row.what and row.model and row.value and row.source for row in PUBLISHED)


def test_a_row_that_names_a_finding_names_one_that_exists():
    for row in PUBLISHED:
        if row.finding and row.chapter in NUMBERS:
            assert row.finding in [exercise.id for exercise in find_chapter(row.chapter).exercises]


def test_a_chapter_without_published_values_says_so():
    assert {row.chapter for row in published("05")} == {"05"}
    with pytest.raises(ValueError, match="wanted a chapter with published values, 01, 02"):
        published("77")
