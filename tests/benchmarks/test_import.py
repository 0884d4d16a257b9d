"""`import mechkit` costs next to nothing: budget 0.3 s."""

import subprocess
import sys
import time

import pytest

BUDGET = 0.3


def seconds(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


@pytest.mark.alone
@pytest.mark.slow
def test_import_is_within_its_budget():
    """The best of seven, less what Python itself needs to start: other work on the machine only ever adds."""
    empty = min(seconds("pass") for _ in range(7))
    with_mechkit = min(seconds("import mechkit") for _ in range(7))
    assert with_mechkit - empty <= BUDGET, f"import mechkit takes {with_mechkit - empty:.2f} s"
