"""Patching sweeps are far faster than their rivals' on the same model and machine, and give the same."""

import json
import subprocess
import sys

import pytest

BARS = {
    "resid_vs_transformer_lens": 15,
    "resid_vs_nnsight": 15,
    "early_vs_transformer_lens": 4,
    "early_vs_nnsight": 4,
    "head_vs_transformer_lens": 5,
    "head_vs_nnsight": 5,
}


@pytest.mark.alone
@pytest.mark.slow
def test_sweeps_are_as_much_faster_as_their_budget_says():
    # in a process of its own: run-time shape checks are on in this one, and would be what is measured
    start = "import sys; from mechkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "bench", "patching", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(found)
    assert found["max_abs_difference"] < 1e-3
    assert 0 < found["share_of_limit"] <= 1
    assert {name: ratio for name, ratio in found["ratios"].items() if ratio < BARS[name]} == {}
