"""A solved chapter, start to end: at most 90 s and 1.6 GB, of which 0.9 GB anonymous."""

import sys
from pathlib import Path

import pytest

from mechkit.course.bench import chapter_cost

SOLUTIONS = sorted((Path(__file__).parents[2] / "solutions").glob("*.ipynb"))
BARS = {"seconds": 90, "peak_mb": 1.6 * 1024, "anonymous_mb": 0.9 * 1024}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("path", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])
def test_a_solved_chapter_is_within_its_budgets(path, monkeypatch):
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)
    cost = chapter_cost(path)
    print(cost)
    assert all(cost[name] <= bar for name, bar in BARS.items()), cost
