"""How is a dictionary learned? Adam on shuffled activations, unit rows, and new work for features that died.

The setting: some hundred thousand activations, already gathered, and an `SAE` to fit to them. The key move is in
`sae_steps`, where TopK pays only for what is on. The limit: sums are taken in one order on one machine, so a run is
the same to the last bit there only.
"""

import hashlib
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.methods.sae import SAE, TopK
from mechkit.methods.sae_activations import checked_activations
from mechkit.methods.sae_steps import STATE_FILE, Run, Settings

STEPS, BATCH, RATE, REVIVE = 1000, 1024, 1e-3, 200
SAVE_EVERY = 60.0  # seconds


@dataclass(frozen=True)
class SAETraining:
    """How an SAE learned, batch by batch.

    Args:
        sae: As it is after the last step.
        steps: Where the curve was measured.
        loss: `|x - x'|^2` and the penalty, of activations scaled to a mean squared norm of d_in.
        l0: How many features were on for an activation, on average.
        variance_explained: 1 for a perfect copy, 0 for the mean.
        dead: How many features had been off for `revive` steps, or since the beginning.
        done: Steps made.
        planned: Steps asked for; more than `done` if the training was interrupted.
    """

    sae: SAE
    steps: Int[Tensor, " point"]
    loss: Float[Tensor, " point"]
    l0: Float[Tensor, " point"]
    variance_explained: Float[Tensor, " point"]
    dead: Int[Tensor, " point"]
    done: int
    planned: int


def train_sae(
    sae: SAE,
    x: Float[Tensor, "token d_in"],
    *,
    target: Float[Tensor, "token d_out"] | None = None,
    penalty: float = 0.0,
    steps: int = STEPS,
    batch: int = BATCH,
    rate: float = RATE,
    seed: int = 0,
    revive: int | None = REVIVE,
    folder: Path | None = None,
    progress: bool = True,
) -> SAETraining:
    """Fit an SAE to activations, in place; the same seed gives the same SAE.

    Activations are scaled by one number to a mean squared norm of d_in, so that rates and penalties mean the same
    everywhere; at the end the weights are scaled back and ask for no more gradients. An interrupt ends the training
    after the step it is in: the SAE is then as the last step left it.

    Args:
        target: What is to be rebuilt, for a transcoder.
        penalty: λ of the scaled activations; ReLU and JumpReLU need one, TopK does not.
        revive: A feature that was off for so many steps gets a new direction, that of an error; None for never.
        folder: Where the state is kept, every minute and at the end; the same call goes on from there, and gives
            what an uninterrupted run gives.
    Raises: ValueError for activations with NaN or massive outliers, of another size than the SAE's, a penalty of
        zero where nothing else makes features sparse, or a folder with the state of another training.
    Chapter: 08.
    """
    x, target = _checked_data(sae, x, target)
    if not isinstance(sae.activation, TopK) and penalty <= 0:
        raise ValueError(
            f"wanted a penalty above zero for {sae.activation}; came {penalty}: without one nothing makes its features "
            "sparse. Try 0.1, look at L0, and go on from there; or use TopK(k)"
        )
    about = (repr(sae.activation), (sae.d_in, sae.d_sae, sae.d_out), _fingerprint(x, target))
    settings = Settings(steps, min(batch, len(x)), rate, seed, revive, penalty, *about)
    run = Run(sae, x, target, settings)
    if folder is not None:
        run.go_on(folder / STATE_FILE)
    with run.in_scaled_units(), _interrupts_held() as asked:
        saved = time.monotonic()
        look = {"desc": "training", "mininterval": 0.5, "leave": False, "disable": not progress}
        bar = tqdm(total=steps, initial=run.step, **look)
        while run.step < steps and not asked:
            run.advance()
            bar.update()
            if folder is not None and time.monotonic() - saved > SAVE_EVERY:
                run.keep(folder / STATE_FILE)
                saved = time.monotonic()
        bar.close()
        if folder is not None:
            run.keep(folder / STATE_FILE)
    if run.step < steps:
        print(f"Interrupted: {run.step} of {steps} steps are done, and the SAE is as the last one left it.")
    steps_seen, losses, l0, explained, dead = torch.tensor(run.curve, dtype=torch.float64).reshape(-1, 5).T
    curve = (steps_seen.long(), losses.float(), l0.float(), explained.float(), dead.long())
    return SAETraining(sae, *curve, run.step, steps)


def _checked_data(sae: SAE, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    if sae.is_transcoder and target is None:
        raise ValueError("wanted what the transcoder is to rebuild; came no target: pass target=")
    target = x if target is None else target
    if (x.shape[1], target.shape[1]) != (sae.d_in, sae.d_out) or len(x) != len(target):
        raise ValueError(
            f"wanted activations of size {sae.d_in}, and a target of size {sae.d_out} for each; came {tuple(x.shape)} "
            f"and {tuple(target.shape)}"
        )
    return checked_activations(x), target if target is x else checked_activations(target)


def _fingerprint(*tensors: Tensor) -> str:
    """Names data by its size and a few hundred of its rows."""
    digest = hashlib.sha256()
    for each in tensors:
        digest.update(repr(tuple(each.shape)).encode())
        digest.update(each[:: max(1, len(each) // 256)].contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


@contextmanager
def _interrupts_held() -> Iterator[list[int]]:
    """Inside, an interrupt is put on a list and breaks nothing off; only the main thread can do this."""
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    except ValueError:  # not the main thread, which interrupts do not reach
        yield asked
        return
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
