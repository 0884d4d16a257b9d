"""How fast is it, and how much does it need? Measured on this machine, on the default model.

Speed is a ratio to what it is built on, since seconds say as much about the machine. A chapter's cost is in
seconds and megabytes all the same: they are what a learner waits for and what a small machine has. `slowness`,
measured in the same run, says what the seconds are worth.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from mechkit.course import authoring
from mechkit.network.assets import default_model
from mechkit.network.cache import run
from mechkit.network.loading import load_model

POSITIONS = 15
ROUNDS = 15

TEXT = (8, 128)  # prompts and tokens of the pass that `slowness` times
PASS = 1.9  # its seconds on two processors with nothing else to do, where the budgets were set

# what Binder gives to a visitor: 2 GB, of which the system and JupyterLab take their part, and an hour of one processor
PEAK_MB, COURSE_CPU_SECONDS = 1.6 * 1024, 3600

LOOK = 0.02  # seconds between two looks at a process
MB = 2**20


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


def slowness() -> float:
    """How many times longer this machine takes now than the one that budgets in seconds were set on: at least 1.

    Other work on the machine counts, so a budget in seconds times this is a ratio. Timed is a bare forward pass
    of the default model over 8 × 128 tokens, three times; the middle one counts.
    """
    lm = load_model(default_model())
    ids = torch.randint(300, lm.d_vocab, TEXT, generator=torch.Generator().manual_seed(0))

    def stream() -> None:
        with torch.no_grad():
            lm.hf.base_model(input_ids=ids, use_cache=False)

    stream()  # reads the weights from disk
    return max(1.0, median(_seconds(stream) for _ in range(3)) / PASS)


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def course_costs(solutions: Sequence[Path]) -> dict[str, Any]:
    """What each of these chapters takes, what they take together, and a sentence for whatever is over its bar.

    Raises: OSError or ValueError as `chapter_cost`.
    """
    chapters = [chapter_cost(path) for path in solutions]
    total = sum(each["cpu_seconds"] for each in chapters)
    return {
        "slowness": slowness(),
        "chapters": chapters,
        "bars": {"peak_mb": PEAK_MB, "course_cpu_seconds": COURSE_CPU_SECONDS},
        "course_cpu_seconds": round(total, 1),
        "over": over_bars(chapters),
    }


def over_bars(chapters: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each chapter that takes too much memory, and for a course that takes too much time."""
    over = [
        f"{each['chapter']} takes {each['peak_mb']} MB at its peak; the bar is {PEAK_MB:.0f} MB."
        for each in chapters
        if each["peak_mb"] > PEAK_MB
    ]
    total = sum(each["cpu_seconds"] for each in chapters)
    if total > COURSE_CPU_SECONDS:
        over.append(f"The course takes {total:.0f} CPU-seconds; the bar is {COURSE_CPU_SECONDS}.")
    return over


def chapter_cost(solution: Path) -> dict[str, str | int | float]:
    """What a solved chapter takes from start to end: its name, seconds, and megabytes at their peak.

    Raises: OSError as `watched_cost`; ValueError if the chapter does not run.
    """
    with watched_cost() as cost:
        authoring.run(authoring.read(solution))
    return {"chapter": solution.stem, **cost}


@contextmanager
def watched_cost(parent: psutil.Process | None = None) -> Iterator[dict[str, int | float]]:
    """What the largest process takes that another has started: a notebook's kernel. Filled in at the end.

    `seconds` are what passed, `cpu_seconds` what the process worked, which other work on the machine does not change.
    `anonymous_mb` is the part of `peak_mb` that is nobody else's: the weights are mapped from disk and shared.

    Args:
        parent: Whose children, and theirs, are watched: by default this process's own.

    Raises: OSError where the system does not say how much memory is shared.
    """
    if sys.platform != "linux":
        raise OSError(f"wanted Linux, which says how much memory is shared; this is {sys.platform}")
    cost: dict[str, int | float] = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0, "anonymous_mb": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK):
            for process in (parent or psutil.Process()).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    memory, times = process.memory_info(), process.cpu_times()
                    now = {
                        "cpu_seconds": round(times.user + times.system, 1),
                        "peak_mb": memory.rss // MB,
                        "anonymous_mb": (memory.rss - memory.shared) // MB,
                    }
                    cost.update({name: max(value, cost[name]) for name, value in now.items()})

    watcher = threading.Thread(target=look, daemon=True)
    start = time.perf_counter()
    watcher.start()
    try:
        yield cost
    finally:
        ended.set()
        watcher.join()
        cost["seconds"] = round(time.perf_counter() - start, 1)
