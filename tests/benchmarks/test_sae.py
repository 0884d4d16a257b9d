"""SAEs are trained at least as fast as by SAELens and by dictionary_learning, on the same machine in the same run."""

import importlib.util
import json
import subprocess
import sys

import pytest


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="SAELens is not installed to compare with")
def test_training_is_at_least_as_fast_as_the_rivals():
    # in a process of its own: run-time shape checks are on in this one, and would be what is measured
    start = "import sys; from mechkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "bench", "sae", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(found)
    assert {"topk_vs_sae_lens", "topk_vs_sae_lens_sparse", "relu_vs_sae_lens"} <= set(found["ratios"])
    assert {name: ratio for name, ratio in found["ratios"].items() if ratio < 1} == {}
