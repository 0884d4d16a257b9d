"""How fast is it, and how much does it need? Measured on this machine, on the default model.

Speed is a ratio to what it is built on, since seconds say as much about the machine. A chapter's cost is in
seconds and megabytes all the same: they are what a learner waits for and what a small machine has.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from nbformat.v4 import new_code_cell

from mechkit.course import authoring
from mechkit.network.assets import default_model
from mechkit.network.cache import run
from mechkit.network.loading import load_model

POSITIONS = 15
ROUNDS = 15

# Linux keeps the peak of all memory (VmHWM) but not of its anonymous part, so a thread looks at that often.
WATCH = """
import threading, time

def _memory():
    lines = [line.split() for line in open("/proc/self/status")]
    return {words[0]: int(words[1]) for words in lines if words[0] in ("VmHWM:", "RssAnon:")}

def _watch():
    while True:
        _peak["anonymous_mb"] = max(_peak["anonymous_mb"], _memory()["RssAnon:"])
        time.sleep(0.02)

_peak = {"anonymous_mb": 0}
threading.Thread(target=_watch, daemon=True).start()
"""
REPORT = """
import json
print(json.dumps({name: kb // 1024 for name, kb in (_peak | {"peak_mb": _memory()["VmHWM:"]}).items()}))
"""


def cache_ratio(*, prompts: int = 1, rounds: int = ROUNDS) -> float:
    """How much longer a run takes that caches every site, than Hugging Face's bare forward pass.

    The two are timed in turn, so that other work on the machine slows both, and the median of the pairs' ratios
    is taken. The bare pass uses the attention that Hugging Face itself prefers.

    Args:
        prompts: Size of the batch; each prompt has `POSITIONS` random tokens.
    """
    lm = load_model(default_model())
    ids = torch.randint(300, lm.d_vocab, (prompts, POSITIONS), generator=torch.Generator().manual_seed(0))

    def bare() -> None:
        with torch.no_grad():
            lm.hf(ids)

    def cached() -> None:
        run(lm, ids)

    ours = lm.hf.config._attn_implementation
    pairs = []
    for _ in range(rounds + 1):
        lm.hf.set_attn_implementation("sdpa")
        without = _seconds(bare)
        lm.hf.set_attn_implementation(ours)
        pairs.append(_seconds(cached) / without)
    return median(pairs[1:])  # the first round pays for reading the weights from disk


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def chapter_cost(solution: Path) -> dict[str, str | int | float]:
    """What a solved chapter takes from start to end: its name, seconds, and megabytes at their peak.

    Anonymous memory is the part that is nobody else's: the weights are mapped from disk and shared.

    Raises: OSError where there is no /proc to read memory from; ValueError if the chapter does not run.
    """
    if sys.platform != "linux":
        raise OSError(f"a chapter's memory is read from Linux's /proc; this is {sys.platform}")
    notebook = authoring.read(solution)
    notebook.cells = [new_code_cell(WATCH, id="watch"), *notebook.cells, new_code_cell(REPORT, id="report")]
    start = time.perf_counter()
    done = authoring.run(notebook)
    seconds = round(time.perf_counter() - start, 1)
    return {"chapter": solution.stem, "seconds": seconds, **json.loads(done.cells[-1].outputs[0].text)}
