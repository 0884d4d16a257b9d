"""A solved chapter, start to end: at most 90 s and 1.6 GB, of which 0.9 GB anonymous."""

import json
import sys
import time
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from mechkit.course import authoring

SOLUTIONS = sorted((Path(__file__).parents[2] / "solutions").glob("*.ipynb"))
SECONDS = 90
GIGABYTES = {"all": 1.6, "anonymous": 0.9}

# Linux keeps the peak of all memory (VmHWM) but not of its anonymous part, so a thread looks at that often.
WATCH = """
import threading, time

def _memory():
    lines = [line.split() for line in open("/proc/self/status")]
    return {words[0]: int(words[1]) for words in lines if words[0] in ("VmHWM:", "RssAnon:")}

def _watch():
    while True:
        _peak["anonymous"] = max(_peak["anonymous"], _memory()["RssAnon:"])
        time.sleep(0.02)

_peak = {"anonymous": 0}
threading.Thread(target=_watch, daemon=True).start()
"""
REPORT = 'import json\nprint(json.dumps(_peak | {"all": _memory()["VmHWM:"]}))'


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("path", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])
def test_a_solved_chapter_is_within_its_budgets(path, tmp_path, monkeypatch):
    monkeypatch.delenv("MECHKIT_MODEL", raising=False)
    notebook = authoring.read(path)
    notebook.cells = [new_code_cell(WATCH, id="watch"), *notebook.cells, new_code_cell(REPORT, id="report")]
    start = time.perf_counter()
    done = authoring.run(notebook, {"MECHKIT_HOME": str(tmp_path)})
    seconds = time.perf_counter() - start
    peak = {name: kilobytes / 2**20 for name, kilobytes in json.loads(done.cells[-1].outputs[0].text).items()}
    print(f"{path.stem}: {seconds:.0f} s, {peak['all']:.2f} GB in all, {peak['anonymous']:.2f} GB anonymous")
    assert seconds <= SECONDS
    assert all(peak[name] <= bar for name, bar in GIGABYTES.items()), peak
