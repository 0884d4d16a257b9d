"""Features of the default model's middle layer, trained beforehand and shipped: what chapter 08 reads.

    python -m mechkit.data.sae

remakes all of it from the default model and the shipped corpus: the dictionaries, in SAELens' format, and what was
measured of them on text that they were not trained on. What is done stays, and the next call goes on from there.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.data.corpus import load_corpus
from mechkit.methods.sae import SAE, Activation, ReLU, TopK
from mechkit.methods.sae_activations import Activations, Gathered, gather_sites, middle_layer
from mechkit.methods.sae_files import load_sae, save_sae
from mechkit.methods.sae_metrics import (
    knock_outs,
    pca_dictionary,
    random_dictionary,
    sae_metrics,
    spliced_losses,
    variance_explained,
)
from mechkit.methods.sae_training import SAETraining, train_sae
from mechkit.network.assets import cache_folder
from mechkit.network.loading import keep_memory, load_model
from mechkit.network.model import LanguageModel

FOLDER = Path(__file__).parent
RESULTS = "sae_results.json"
RATE = 3e-3
EVERY = 10  # one text in so many is held out
STREAM, MLP = ("resid_post", "resid_post"), ("mlp_in", "mlp_out")


@dataclass(frozen=True)
class Recipe:
    """A dictionary that is trained: on what, and how.

    Args:
        sites: What is read and what is rebuilt; one site twice for an SAE.
        longer: Trained for all the steps, and shipped; else for fewer, to be compared with others as short.
    """

    name: str
    activation: Activation
    sites: tuple[str, str] = STREAM
    d_sae: int = 2304
    penalty: float = 0.0
    longer: bool = False


SHIPPED = (
    Recipe("sae", TopK(32), longer=True),
    Recipe("small", TopK(32), d_sae=576, longer=True),
    Recipe("transcoder", TopK(32), MLP, longer=True),
)
SWEEP = (
    *(Recipe(f"TopK {k}", TopK(k)) for k in (8, 16, 32, 64, 128)),
    *(Recipe(f"ReLU {penalty:g}", ReLU(), penalty=penalty) for penalty in (0.5, 1, 2, 4, 8)),
)
KINDS = tuple(recipe.name for recipe in SHIPPED)
BASELINES = ("main components", "best components", "random directions", "linear map")


def load_features(kind: str = "sae", lm: LanguageModel | None = None, *, folder: Path | None = None) -> SAE:
    """A shipped dictionary of the default model: "sae", "small" with fewer features, or "transcoder".

    Its `.site` and `.layer` say what it reads.

    Raises: ValueError for another kind, or if `lm` is not the model that it was trained on.
    Chapter: 08.
    """
    if kind not in KINDS:
        raise ValueError(f"wanted one of the shipped dictionaries; came {kind!r}: use one of {', '.join(KINDS)}")
    return load_sae((folder or FOLDER) / f"sae_{kind}", lm)


def sae_results(path: Path | None = None) -> dict:
    """What was measured when the shipped dictionaries were trained, a fresh copy.

    `shipped` and `sweep` hold a row for each dictionary: its settings, its training curve, `metrics` and `loss` on
    held-out text. `baselines` hold the same two for what was not learned as an SAE is.

    Chapter: 08.
    """
    return json.loads(_stored(path or FOLDER / RESULTS))


@cache
def _stored(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sae_texts(limit: int | None = None, *, held_out: bool = False) -> list[str]:
    """The first texts that the shipped dictionaries were trained on, or that they were not: every tenth of the corpus.

    Chapter: 08.
    """
    texts = load_corpus(None)
    return [text for number, text in enumerate(texts) if (number % EVERY == EVERY - 1) == held_out][:limit]


@dataclass(frozen=True)
class _Bench:
    """What dictionaries are trained and measured on."""

    lm: LanguageModel
    layer: int
    train: Gathered
    held: Gathered
    texts: Sequence[str]
    _losses: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    def measured(self, rebuild: Callable[[Tensor], Tensor], sites: tuple[str, str], l0: float) -> dict:
        """A row of the table, for anything that rebuilds."""
        held = self.held.between(*sites)
        explained = variance_explained(held.target, torch.cat([rebuild(rows) for rows in held.x.split(2048)]))
        return {"metrics": {"l0": l0, "variance_explained": explained}, "loss": self.loss(rebuild, sites)}

    def loss(self, rebuild: Callable[[Tensor], Tensor], sites: tuple[str, str]) -> dict[str, float]:
        """The loss with it, and the shares that it recovers of what two knock-outs cost."""
        known = self._knocked_out(sites)
        [spliced] = spliced_losses(self.lm, [rebuild], self.texts, sites, self.layer)
        shares = {f"against_{way}": (known[way] - spliced) / (known[way] - known["clean"]) for way in ("mean", "zero")}
        return {**known, "spliced": spliced, **shares}

    def _knocked_out(self, sites: tuple[str, str]) -> dict[str, float]:
        if sites not in self._losses:
            ways = (None, *knock_outs(self.lm, self.texts, sites, self.layer))
            losses = spliced_losses(self.lm, ways, self.texts, sites, self.layer)
            self._losses[sites] = dict(zip(("clean", "mean", "zero"), losses, strict=True))
        return self._losses[sites]


def _trained(bench: _Bench, recipe: Recipe, steps: int, out: Path, work: Path) -> dict:
    """Train one dictionary, write it if it is shipped, and measure what was written."""
    train, held = (part.between(*recipe.sites) for part in (bench.train, bench.held))
    d_out = None if recipe.sites == STREAM else train.target.shape[1]
    sae = SAE(train.x.shape[1], recipe.d_sae, recipe.activation, d_out=d_out)
    start = time.perf_counter()
    folder = work / recipe.name.replace(" ", "_")
    data = {"target": train.target, "penalty": recipe.penalty}
    training = train_sae(sae, train.x, **data, steps=steps, rate=RATE, folder=folder)
    seconds = time.perf_counter() - start
    if training.done < steps:
        raise KeyboardInterrupt
    if recipe.longer:
        site = recipe.sites[0] if d_out is None else recipe.sites
        about = {"corpus": "mechkit.data.corpus", "made_by": "python -m mechkit.data.sae"}
        save_sae(sae, out / f"sae_{recipe.name}", model=bench.lm.name, site=site, layer=bench.layer, metadata=about)
        sae = load_features(recipe.name, bench.lm, folder=out)
    found = sae_metrics(sae, held.x, held.target)
    numbers = {name: value for name, value in asdict(found).items() if name != "density"}
    rebuilt = torch.cat([sae(rows) for rows in held.x.split(2048)])
    centred = held.target - held.target.mean(0)
    size = float(((rebuilt - held.target.mean(0)) * centred).sum() / centred.square().sum())
    return {
        "name": recipe.name, "activation": repr(recipe.activation), "penalty": recipe.penalty,
        "sites": recipe.sites, "d_sae": recipe.d_sae, "steps": steps, "seconds": round(seconds),
        "curve": _curve(training), "metrics": {**numbers, "size": size}, "loss": bench.loss(sae, recipe.sites),
    }  # fmt: skip


def _curve(training: SAETraining) -> dict[str, list[float]]:
    """A hundred points are plenty to draw."""
    thin = slice(None, None, max(1, len(training.steps) // 100))
    names = ("steps", "loss", "l0", "variance_explained", "dead")
    return {name: getattr(training, name)[thin].tolist() for name in names}


def _baseline(bench: _Bench, name: str, l0: int = 32) -> dict:
    """One of `BASELINES`: the first components, the best components for each token, random directions, a linear map."""
    if name == "linear map":
        return {"name": name, "sites": MLP} | bench.measured(_linear_map(bench.train.between(*MLP)), MLP, 576)
    x = bench.train.between(*STREAM).x
    dictionary = {
        "main components": lambda: pca_dictionary(x, l0),
        "best components": lambda: pca_dictionary(x),
        "random directions": lambda: random_dictionary(SAE(x.shape[1], SHIPPED[0].d_sae, TopK(l0)), x.mean(0)),
    }[name]()
    return {"name": name, "sites": STREAM} | bench.measured(lambda rows: dictionary.rebuild(rows, l0), STREAM, l0)


def _linear_map(data: Activations) -> Callable[[Tensor], Tensor]:
    """The least-squares map from what a transcoder reads to what it rebuilds: all that needs no features."""
    mean, aim = data.x.mean(0), data.target.mean(0)
    x, y = (data.x - mean).double(), (data.target - aim).double()
    weight = torch.linalg.lstsq(
        x.T @ x + 1e-6 * torch.eye(x.shape[1]) * x.square().sum(0).mean(), x.T @ y
    ).solution.float()
    return lambda rows: (rows - mean) @ weight + aim


def _gathered(lm: LanguageModel, texts: Sequence[str], path: Path) -> Gathered:
    """Activations of the three sites, kept in a file."""
    if path.exists():
        kept = load_file(path)
        rest = [kept.pop(name) for name in ("tokens", "passage", "position")]
        return Gathered(kept, *rest)
    found = gather_sites(lm, texts, {*STREAM, *MLP})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({**found.sites, "tokens": found.tokens, "passage": found.passage, "position": found.position}, path)
    return found


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _write(path: Path, stored: dict) -> None:
    text = json.dumps(_rounded(stored), separators=(",", ":"))
    path.write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.data.sae",
        description="Train and measure the shipped dictionaries: an hour on two processors.",
        epilog="example: python -m mechkit.data.sae --texts 40 --steps 50 --short 20 --judged 2 --first 1 --out some",
    )
    parser.add_argument("--texts", type=int, help="of the corpus, how many (default: all)")
    parser.add_argument("--steps", type=int, default=3000, help="for what is shipped")
    parser.add_argument("--short", type=int, default=300, help="steps for what is compared")
    parser.add_argument("--judged", type=int, default=24, help="held-out texts that the loss is measured on")
    parser.add_argument("--first", type=int, help="how many dictionaries of each kind (default: all)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write (default: beside the code)")
    parser.add_argument("--work", type=Path, help="where activations and states are kept (default: in the cache)")
    return parser.parse_args(arguments)


def _jobs(first: int | None) -> list[tuple[str, str, Recipe | None]]:
    """What is to be measured: table, name, and how it is trained if it is."""
    jobs = [("shipped", recipe.name, recipe) for recipe in SHIPPED[:first]]
    jobs += [("baselines", name, None) for name in BASELINES[:first]]
    return jobs + [("sweep", recipe.name, recipe) for recipe in SWEEP[:first]]


def main(arguments: list[str] | None = None) -> None:
    options, lm = _options(arguments), load_model()
    keep_memory()
    known, held = sae_texts(options.texts), sae_texts(options.texts and max(1, options.texts // EVERY), held_out=True)
    work = (options.work or cache_folder() / "sae") / hashlib.sha256("\0".join(known + held).encode()).hexdigest()[:12]
    parts = [_gathered(lm, known, work / "train.safetensors"), _gathered(lm, held, work / "held_out.safetensors")]
    bench = _Bench(lm, middle_layer(lm), *parts, held[: options.judged])
    about = {
        "model": lm.name, "layer": bench.layer, "texts": len(known), "held_out_texts": len(held),
        "tokens": len(parts[0].tokens), "held_out_tokens": len(parts[1].tokens),
        "left_out": sum(part.between(*STREAM).dropped for part in parts),
        "steps": options.steps, "short": options.short, "judged": len(bench.texts),
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / RESULTS
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if stored.get("about") != about:
        stored = {"about": about, "shipped": [], "baselines": [], "sweep": []}
    for table, name, recipe in tqdm(_jobs(options.first), desc="dictionaries"):
        if name in [row["name"] for row in stored[table]]:
            continue
        if recipe is None:
            row = _baseline(bench, name)
        else:
            row = _trained(bench, recipe, options.steps if recipe.longer else options.short, options.out, work)
        stored[table].append(row)
        _write(path, stored)
        print(name, json.dumps(_rounded({"metrics": row["metrics"], "loss": row["loss"]})), flush=True)


if __name__ == "__main__":
    main()
