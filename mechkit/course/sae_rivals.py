"""How fast are SAEs trained, beside SAELens and dictionary_learning?

All train the same architecture on the same batches on the same machine, in turn in one run, each by its own trainer's
step: forward, backward, Adam, and what it does about dead features and rows' lengths. dictionary_learning wants
another nnsight than the rest of the course, so it takes part where it can be imported and is left out where it cannot.
"""

import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from statistics import median

import torch
from jaxtyping import Float
from sae_lens import (
    LoggingConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from mechkit.methods.sae import SAE, ReLU, TopK
from mechkit.methods.sae_steps import Run, Settings

D_IN, D_SAE, K, BATCH, RATE, PENALTY = 576, 2304, 32, 1024, 1e-3, 2.0
STEPS = 5  # in each turn
MANY = 1_000_000  # of a schedule that is not to end

Step = Callable[[int], None]


def training_throughput(*, rounds: int = 5, d_in: int = D_IN, d_sae: int = D_SAE, batch: int = BATCH) -> dict:
    """Tokens a second of each trainer, and how many times faster ours is.

    Args:
        rounds: In each, every trainer makes `STEPS` steps; medians over rounds are given.
    Returns: `tokens_per_second` of each, `ratios` of ours to theirs for each architecture, and who was `left_out`.
    """
    x = torch.randn(8 * batch, d_in, generator=torch.Generator().manual_seed(0))
    trainers = {"topk": _topk_trainers(x, d_sae, batch), "relu": _relu_trainers(x, d_sae, batch)}
    speeds, ratios = {}, {}
    for kind, steps in trainers.items():
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(rounds + 1):
            for name, step in steps.items():
                seconds[name].append(_timed(step, number * STEPS))
        taken = {name: values[1:] for name, values in seconds.items()}  # the first round warms up
        for name, values in taken.items():
            speeds[f"{kind} {name}"] = STEPS * batch / median(values)
            if name != "ours":
                pairs = zip(values, taken["ours"], strict=True)
                ratios[f"{kind}_vs_{name}"] = median(theirs / ours for theirs, ours in pairs)
    left_out = [] if _dictionary_learning() else ["dictionary_learning: it cannot be imported here"]
    return {"ratios": ratios, "tokens_per_second": speeds, "left_out": left_out}


def _topk_trainers(x: Float[Tensor, "token d_in"], d_sae: int, batch: int) -> dict[str, Step]:
    found = {
        "ours": _ours(SAE(x.shape[1], d_sae, TopK(K)), x, batch, 0.0),
        "sae_lens": _lens(_topk_lens(x.shape[1], d_sae, sparse=False), x, batch),
        "sae_lens_sparse": _lens(_topk_lens(x.shape[1], d_sae, sparse=True), x, batch),
    }
    if theirs := _dictionary_learning():
        found["dictionary_learning"] = _of_dictionary_learning(theirs, x, d_sae, batch)
    return found


def _relu_trainers(x: Float[Tensor, "token d_in"], d_sae: int, batch: int) -> dict[str, Step]:
    config = StandardTrainingSAEConfig(d_in=x.shape[1], d_sae=d_sae, l1_coefficient=PENALTY)
    return {
        "ours": _ours(SAE(x.shape[1], d_sae, ReLU()), x, batch, PENALTY),
        "sae_lens": _lens(StandardTrainingSAE(config), x, batch),
    }


def _ours(sae: SAE, x: Float[Tensor, "token d_in"], batch: int, penalty: float) -> Step:
    run = Run(sae, x, x, Settings(MANY, batch, RATE, 0, 200, penalty))
    return lambda _: run.advance()


def _topk_lens(d_in: int, d_sae: int, *, sparse: bool) -> TopKTrainingSAE:
    # its backward pass through sparse activations does not run on a CPU with norms rescaled
    return TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=d_in, d_sae=d_sae, k=K, use_sparse_activations=sparse, rescale_acts_by_decoder_norm=not sparse
        )
    )


def _lens(sae: TopKTrainingSAE | StandardTrainingSAE, x: Float[Tensor, "token d_in"], batch: int) -> Step:
    config = SAETrainerConfig(
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, total_training_samples=MANY * batch,
        device="cpu", autocast=False, lr=RATE, lr_end=RATE, lr_scheduler_name="constant", lr_warm_up_steps=0,
        adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=0, n_restart_cycles=1, train_batch_size_samples=batch,
        dead_feature_window=1000, feature_sampling_window=2000, logger=LoggingConfig(log_to_wandb=False),
    )  # fmt: skip
    batches = x.split(batch)
    trainer = SAETrainer(config, sae, iter(()))

    def step(number: int) -> None:
        trainer.step(batches[number % len(batches)])
        trainer.n_training_steps += 1

    return step


def _dictionary_learning() -> type | None:
    """Its TopK trainer, where it can be imported."""
    if find_spec("dictionary_learning") is None:
        return None
    try:
        return import_module("dictionary_learning.trainers.top_k").TopKTrainer
    except ImportError:
        return None


def _of_dictionary_learning(trainer: type, x: Float[Tensor, "token d_in"], d_sae: int, batch: int) -> Step:
    made = trainer(
        steps=MANY, activation_dim=x.shape[1], dict_size=d_sae, k=K, layer=0, lm_name="none", lr=RATE, device="cpu"
    )
    batches = x.split(batch)
    return lambda number: made.update(number, batches[number % len(batches)])


def _timed(step: Step, first: int) -> float:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rivals' own
        for number in range(first, first + STEPS):
            step(number)
    return time.perf_counter() - start
