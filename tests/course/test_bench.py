"""What seconds are worth on this machine, and what is over its bar."""

import pytest

from mechkit.course import bench


def test_what_is_over_its_bar_is_said():
    small, large = (
        {"chapter": name, "peak_mb": mb, "cpu_seconds": 1700.0} for name, mb in (("04", 1638), ("08", 1700))
    )
    assert bench.over_bars([small, small]) == []
    assert bench.over_bars([small, large]) == ["08 takes 1700 MB at its peak; the bar is 1638 MB."]
    assert bench.over_bars([small, small, small]) == ["The course takes 5100 CPU-seconds; the bar is 3600."]


@pytest.mark.slow
def test_a_slow_machine_gets_more_time_and_a_fast_one_no_less(monkeypatch):
    monkeypatch.setattr(bench, "TEXT", (1, 8))
    monkeypatch.setattr(bench, "PASS", 1e-6)
    assert bench.slowness() > 1
    monkeypatch.setattr(bench, "PASS", 1e6)
    assert bench.slowness() == 1
