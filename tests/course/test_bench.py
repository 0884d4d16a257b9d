"""What seconds are worth on this machine."""

import pytest

from mechkit.course import bench


@pytest.mark.slow
def test_a_slow_machine_gets_more_time_and_a_fast_one_no_less(monkeypatch):
    monkeypatch.setattr(bench, "PASS", 1e-6)
    assert bench.slowness() > 1
    monkeypatch.setattr(bench, "PASS", 1e6)
    assert bench.slowness() == 1
