"""An analogy over 400,000 words answers at once."""

import subprocess
import sys

import pytest

BAR = 0.1
CODE = """
import time
from mechkit.methods.analogies import METHODS, analogy
from mechkit.methods.words import load_words
words, seconds = load_words(), []
for method in (*METHODS, *METHODS):
    start = time.perf_counter()
    analogy(words, "man", "king", "woman", method=method)
    seconds.append(time.perf_counter() - start)
print(max(seconds[len(METHODS):]))
"""


@pytest.mark.alone
@pytest.mark.slow
def test_an_analogy_is_within_its_budget():
    """The best of three, in a process of its own (shape checks are on in this one): other work only ever adds."""
    seconds = []
    while len(seconds) < 3 and (not seconds or min(seconds) > BAR):
        done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
    assert min(seconds) <= BAR, f"an analogy over 400,000 words takes {seconds} s"
