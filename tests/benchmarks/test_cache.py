"""A cached run costs hardly more than the bare forward pass."""

import json
import subprocess
import sys

import pytest

BAR = 1.15


def measured():
    # in a process of its own: run-time shape checks are on in this one, and would be what is measured
    command = [
        sys.executable,
        "-c",
        "import sys; from mechkit.cli import main; sys.exit(main())",
        "bench",
        "cache",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [ratio] = json.loads(done.stdout)["ratios"].values()
    return ratio


@pytest.mark.alone
@pytest.mark.slow
def test_a_cached_run_is_within_its_budget():
    """The best of three: other work on the machine only ever adds."""
    ratios = []
    while len(ratios) < 3 and (not ratios or min(ratios) > BAR):
        ratios.append(measured())
    assert min(ratios) <= BAR, f"a cached run takes {ratios} times the bare forward pass"
