"""A class of any size is graded in the memory that its first tenth took."""

import sys
from pathlib import Path

import pytest

from mechkit.grading.bench import grading_memory

ROOT = Path(__file__).parents[2]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what other processes use")
def test_memory_stays_flat_over_a_class():
    found = grading_memory(ROOT, notebooks=30)
    assert found["ratio"] < 1.03, found
