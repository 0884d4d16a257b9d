"""How fast is it, beside what it is built on? Ratios measured on this machine, on the default model."""

import time
from collections.abc import Callable
from statistics import median

import torch

from mechkit.network.assets import default_model
from mechkit.network.cache import run
from mechkit.network.loading import load_model

POSITIONS = 15
ROUNDS = 15


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
