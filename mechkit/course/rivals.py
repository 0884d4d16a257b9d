"""How fast are patching sweeps, beside the same sweeps in TransformerLens and nnsight?

All three change the same model in the same cells on the same prompts, in turn in one run. A sweep of a rival takes
minutes, so a few of its cells are run, drawn at random, and their time is scaled to all cells. Ours is run whole.
"""

import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import nnsight
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import patching as lens_patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

from mechkit.data.ioi import ioi_prompts
from mechkit.methods.metrics import logit_difference
from mechkit.methods.patching import Pair, patch_sweep
from mechkit.network.assets import default_model
from mechkit.network.loading import load_model
from mechkit.network.model import LanguageModel

# A rival changes one cell of these axes: (layer, position) or (layer, head).
Cell = tuple[int, int]
SQUARE = 1024  # of the matrices whose product measures the machine


@dataclass(frozen=True)
class Task:
    """A sweep, as all three run it: `second` counts positions of resid_pre, or heads of z at all positions."""

    name: str
    site: str
    second: str
    clean: Sequence[str]
    corrupted: Sequence[str]


def tasks() -> tuple[Task, ...]:
    """Eight prompts that differ from S2 on, the same with another first word, and a sweep over heads."""
    prompts = ioi_prompts()
    early = [text.replace("When", "After", 1) for text in prompts.swapped]
    return (
        Task("resid", "resid_pre", "position", prompts.texts, prompts.swapped),
        Task("early", "resid_pre", "position", prompts.texts, early),
        Task("head", "z", "head", prompts.texts, prompts.swapped),
    )


def patching_ratios(*, cells: int = 4, rounds: int = 3, seed: int = 0) -> dict[str, object]:
    """How many times longer the rivals take for each sweep, and how far their values lie from ours.

    Args:
        cells: How many of a rival's cells are run in each round.
        rounds: Each times ours and both rivals in turn; the median of the ratios is given.
    Returns: `ratios`; `max_abs_difference`, of the logit difference; `share_of_limit`, the time that the
        unavoidable arithmetic of the residual sweep would take at the machine's best rate, in what it took;
        `sampled_cells`, how many cells of each rival's sweep were run.
    """
    lm = load_model(default_model())
    right, wrong = ioi_prompts().answers(lm)

    def metric(logits: Tensor) -> Tensor:
        return logit_difference(logits, right, wrong)

    lens = TransformerBridge.boot_transformers(str(default_model()))
    # nnsight wraps every module of the model it is given, so it gets its own copy of the same weights
    net = nnsight.LanguageModel(AutoModelForCausalLM.from_pretrained(default_model()), tokenizer=lm.tokenizer)
    ratios, differences, share = {}, [], 0.0
    for task in tasks():
        rivals = {"transformer_lens": _Lens(lens, lm, task, metric), "nnsight": _Sight(net, lm, task, metric)}
        found: dict[str, list[float]] = {name: [] for name in rivals}
        for number in range(rounds):
            swept, ours = _timed(
                lambda task=task: patch_sweep(
                    Pair(lm, task.clean, task.corrupted), metric, site=task.site, over=("layer", task.second)
                )
            )
            drawn = _draw(swept.values.shape[:2], cells, seed + number)
            for name, rival in rivals.items():
                theirs, taken = _timed(lambda rival=rival, drawn=drawn: rival.run(drawn))
                found[name].append(taken / len(drawn) * swept.values[..., 0].numel() / ours)
                expected = torch.stack([swept.values[cell].mean() for cell in drawn])
                differences.append((theirs - expected).abs().max().item())
            if task.name == "resid":
                share = max(share, _least_seconds(lm, task) / ours)
        ratios |= {f"{task.name}_vs_{name}": median(values) for name, values in found.items()}
    return {
        "ratios": ratios,
        "max_abs_difference": max(differences),
        "share_of_limit": share,
        "sampled_cells": cells * rounds,
    }


class _Lens:
    """TransformerLens' own sweep, on its bridge over the same Hugging Face model."""

    def __init__(self, bridge: TransformerBridge, lm: LanguageModel, task: Task, metric: Callable):
        self._bridge, self._task, self._metric = bridge, task, metric
        self._corrupted = lm.tokens(task.corrupted)
        with torch.no_grad():
            _, self._clean = bridge.run_with_cache(lm.tokens(task.clean))

    def run(self, cells: Sequence[Cell]) -> Float[Tensor, " cell"]:
        by_position = self._task.second == "position"
        frame = pd.DataFrame(cells, columns=["layer", "pos" if by_position else "head"])
        setter = lens_patching.layer_pos_patch_setter if by_position else lens_patching.layer_head_vector_patch_setter
        with torch.no_grad():
            return lens_patching.generic_activation_patch(
                self._bridge,
                self._corrupted,
                self._clean,
                lambda logits: self._metric(logits).mean(),
                setter,
                self._task.site,
                index_df=frame,
            )


class _Sight:
    """One trace of nnsight a cell, all prompts at once."""

    def __init__(self, net: nnsight.LanguageModel, lm: LanguageModel, task: Task, metric: Callable):
        self._net, self._task, self._metric, self._d_head = net, task, metric, lm.d_head
        self._corrupted: Int[Tensor, "batch pos"] = lm.tokens(task.corrupted)
        self._clean = Pair(lm, task.clean, task.corrupted).clean.values(task.site)

    def run(self, cells: Sequence[Cell]) -> Float[Tensor, " cell"]:
        run = self._position if self._task.second == "position" else self._head
        with torch.no_grad():
            return torch.stack([self._metric(run(*cell)).mean() for cell in cells])

    def _position(self, layer: int, position: int) -> Float[Tensor, "batch pos d_vocab"]:
        with self._net.trace(self._corrupted):
            self._net.model.layers[layer].input[:, position] = self._clean[layer][:, position]
            logits = self._net.lm_head.output.save()
        return logits

    def _head(self, layer: int, head: int) -> Float[Tensor, "batch pos d_vocab"]:
        here = slice(head * self._d_head, (head + 1) * self._d_head)
        with self._net.trace(self._corrupted):
            self._net.model.layers[layer].self_attn.o_proj.input[:, :, here] = self._clean[layer][:, :, head]
            logits = self._net.lm_head.output.save()
        return logits


def _draw(shape: Sequence[int], cells: int, seed: int) -> list[Cell]:
    every = [(first, second) for first in range(shape[0]) for second in range(shape[1])]
    return random.Random(seed).sample(every, cells)


def _timed(action: Callable) -> tuple[object, float]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rivals' own
        done = action()
    return done, time.perf_counter() - start


def _least_seconds(lm: LanguageModel, task: Task) -> float:
    """How long the multiplications of a residual sweep take that no method can leave out, at the best rate.

    Both runs, and for each cell whose states differ what lies above and after it, with the weights of a block once
    a token; attention's own products and the norms are not counted, nor is all that is not a multiplication.
    """
    pair = Pair(lm, task.clean, task.corrupted)
    length = pair.clean_tokens.shape[1]
    block = sum(each.numel() for each in lm.hf.base_model.layers[0].parameters() if each.ndim == 2)
    tokens = 2 * lm.n_layers * pair.clean_tokens.numel()
    rows = 2 * len(pair.clean_tokens)
    for layer in range(lm.n_layers):
        differ = (pair.clean.resid_pre(layer) != pair.corrupted.resid_pre(layer)).any(-1).sum(0)
        tokens += sum(int(count) * (lm.n_layers - layer) * (length - at) for at, count in enumerate(differ))
        rows += int(differ.sum())
    operations = 2 * (block * tokens + lm.d_model * lm.d_vocab * rows)
    return operations / _best_rate()


def _best_rate() -> float:
    """Operations a second in the product of two square matrices: the best of a few."""
    one, other = torch.rand(2, SQUARE, SQUARE)
    return max(2 * SQUARE**3 / _timed(lambda: one @ other)[1] for _ in range(10))
