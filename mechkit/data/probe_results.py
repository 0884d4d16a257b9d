"""Probes of every property, layer and seed, measured beforehand and shipped: what the explorer of chapter 03 shows.

Made by `python -m mechkit.data.probe_results` from the default model. The chapter measures three properties
itself; the rest, and the error bars over seeds, are read from here.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.data.properties import PROPERTIES, Property, load_property
from mechkit.methods.probes import Fit, accuracy, auc, features, fit_logistic, fit_mlp
from mechkit.methods.splits import control_labels, split_by_example, split_by_word
from mechkit.network.loading import load_model

RESULTS_FILE = Path(__file__).with_name("probe_results.json")
SEEDS = 5
MEASURES = {
    "new words": "sentences of the training kind, words that the probe has not met",
    "outside": "other words in other sentences",
    "outside, order": "the same as AUC: whether class 1 scores above class 0, wherever the threshold is",
    "known words": "words that the probe has met, in other sentences",
    "control": "as `known words`, with a random label for each word",
}


@dataclass(frozen=True)
class ProbeSweep:
    """Accuracies of one kind of probe on one property: each measure of `MEASURES`, by seed and layer.

    Args:
        chance: What guessing gives.
    """

    layers: tuple[int, ...]
    chance: float
    measures: Mapping[str, Float[Tensor, "seed layer"]]

    @property
    def selectivity(self) -> Float[Tensor, "seed layer"]:
        """Accuracy on known words less that of the control task: how much of it is not memory.

        Source: Hewitt and Liang (2019), "Designing and Interpreting Probes with Control Tasks".
        """
        return self.measures["known words"] - self.measures["control"]


def measure(
    task: Property,
    inside: Float[Tensor, "layer example d_model"],
    outside: Float[Tensor, "layer other d_model"],
    *,
    layers: Sequence[int],
    seeds: int = SEEDS,
    mlp: bool = False,
) -> ProbeSweep:
    """Every measure of one property at these layers; the seed draws the split, the control labels and the MLP.

    Args:
        inside, outside: `features` of the property's sentences.
        mlp: Whether the probe is an MLP; else it is linear.
    Chapter: 03.
    """
    rows = [
        [_measure_once(task, inside[layer], outside[layer], seed=seed, mlp=mlp) for layer in layers]
        for seed in range(seeds)
    ]
    tables = {name: torch.tensor([[cell[name] for cell in row] for row in rows]) for name in rows[0][0]}
    return ProbeSweep(tuple(layers), 1 / len(task.classes), tables)


def _measure_once(
    task: Property,
    inside: Float[Tensor, "example d_model"],
    outside: Float[Tensor, "other d_model"],
    *,
    seed: int,
    mlp: bool,
) -> dict[str, float]:
    words, classes = task.inside.words, len(task.classes)
    y, other = torch.tensor(task.inside.labels), torch.tensor(task.outside.labels)
    fit: Fit = (lambda a, b: fit_mlp(a, b, seed=seed)) if mlp else fit_logistic
    control = control_labels(words, seed=seed, classes=classes)
    train, test = split_by_word(words, seed=seed)
    probe = fit(inside[train], y[train])
    found = {"new words": accuracy(probe, inside[test], y[test]), "outside": accuracy(probe, outside, other)}
    if classes == 2:
        scores = probe.scores(outside)
        found["outside, order"] = auc(scores[:, 1] - scores[:, 0], other)
    train, test = split_by_example(len(y), seed=seed)
    for name, labels in (("known words", y), ("control", control)):
        found[name] = accuracy(fit(inside[train], labels[train]), inside[test], labels[test])
    return found


@cache
def load_probe_results(kind: str = "linear", path: Path = RESULTS_FILE) -> dict[str, ProbeSweep]:
    """The shipped sweeps of the default model by property: linear at every layer, or MLP at a few.

    Args:
        kind: "linear" or "mlp".
    Raises: ValueError for another kind.
    Chapter: 03.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if kind not in stored["sweeps"]:
        raise ValueError(f"wanted probes of the kind {' or '.join(map(repr, stored['sweeps']))}; came {kind!r}")
    return {name: _read(sweep) for name, sweep in stored["sweeps"][kind].items()}


def _read(stored: dict) -> ProbeSweep:
    tables = {name: torch.tensor(table) / 1000 for name, table in stored["per mille"].items()}
    return ProbeSweep(tuple(stored["layers"]), stored["chance"], tables)


def _written(sweep: ProbeSweep) -> dict:
    tables = {name: (1000 * table).round().int().tolist() for name, table in sweep.measures.items()}
    return {"layers": list(sweep.layers), "chance": sweep.chance, "per mille": tables}


def four_layers(n_layers: int) -> list[int]:
    """Four layers spread over the model, the last among them: where MLP probes are measured."""
    return [(n_layers - 1) * part // 4 for part in (1, 2, 3, 4)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.data.probe_results",
        description="Measure the shipped probe results: about five minutes.",
        epilog="example: python -m mechkit.data.probe_results --seeds 5",
    )
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS_FILE, help="where to write (default: the shipped file)")
    options = parser.parse_args(arguments)
    lm = load_model()
    sweeps: dict[str, dict] = {"linear": {}, "mlp": {}}
    for name in tqdm(PROPERTIES, desc="properties"):
        task = load_property(name)
        found = [features(lm, part.prompts) for part in (task.inside, task.outside)]
        for kind, layers in (("linear", list(range(lm.n_layers))), ("mlp", four_layers(lm.n_layers))):
            sweep = measure(task, *found, layers=layers, seeds=options.seeds, mlp=kind == "mlp")
            sweeps[kind][name] = _written(sweep)
    stored = {"model": lm.name, "seeds": options.seeds, "measures": MEASURES, "sweeps": sweeps}
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    options.out.write_text(text.replace('"per mille"', '\n"per mille"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
