"""A cached run costs at most 1.15 times Hugging Face's bare forward pass."""

import pytest

from mechkit.course.bench import cache_ratio

BAR = 1.15


@pytest.mark.slow
def test_a_cached_run_is_within_its_budget():
    """The best of three: other work on the machine only ever adds."""
    ratios = []
    while len(ratios) < 3 and (not ratios or min(ratios) > BAR):
        ratios.append(cache_ratio())
    assert min(ratios) <= BAR, f"a cached run takes {ratios} times the bare forward pass"
