"""Patch sweeps of the default model on the sentences of chapter 06, measured beforehand and shipped for chapter 07.

Made by `python -m mechkit.data.patching_results` from the default model. The chapter sweeps the residual stream and
the heads itself, for one template and one corruption; other corruptions, the other direction, single sites, heads
by position and other templates are read from here.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.data.ioi import IOI_TEMPLATES, ioi_prompts
from mechkit.methods.metrics import logit_difference
from mechkit.methods.patching import Pair, patch_sweep
from mechkit.methods.sweeps import checked_axes
from mechkit.network.loading import load_model
from mechkit.network.model import LanguageModel

RESULTS_FILE = Path(__file__).with_name("patching_results.json")
CORRUPTIONS = ("swapped", "third", "fresh")


@dataclass(frozen=True)
class Recipe:
    """Which sweep: what is patched where, what the clean sentence was corrupted to, and which way the patch goes.

    Args:
        over: The axes of the result.
        corruption: The attribute of `ioi_prompts` that holds the corrupted sentences.
        noising: Corrupted values into the clean run; else clean ones into the corrupted.
        template: Its place in `IOI_TEMPLATES`.
    """

    site: str
    over: tuple[str, ...]
    corruption: str = "swapped"
    noising: bool = False
    template: int = 0

    def __str__(self) -> str:
        way = "noising" if self.noising else "denoising"
        return f"{self.site} over {', '.join(self.over)}, {self.corruption}, {way}, template {self.template}"


PLACES, HEADS = ("layer", "position"), ("layer", "head")
RECIPES = (
    *(Recipe(site, PLACES) for site in ("resid_pre", "attn_out", "mlp_out")),
    Recipe("z", HEADS),
    *(
        Recipe(*what, corruption, noising)
        for corruption in CORRUPTIONS
        for noising in (False, True)
        for what in (("resid_pre", PLACES), ("z", HEADS))
        if noising or corruption != "swapped"
    ),
    Recipe("z", ("layer", "head", "position")),
    *(
        Recipe(*what, template=template)
        for template in range(1, len(IOI_TEMPLATES))
        for what in (("z", HEADS), ("resid_pre", PLACES))
    ),
)


@dataclass(frozen=True)
class StoredSweep:
    """One sweep, a mean over its eight sentences.

    Args:
        recovery: 0 for what the changed run gives, 1 for what its source gives.
        base: The mean logit difference of the run that was changed.
        source: That of the run that the values came from.
        labels: The tokens of the first sentence, the prefix included.
        S2: Where the subject is said again.
    """

    recovery: Float[Tensor, "layer ..."]
    base: float
    source: float
    labels: tuple[str, ...]
    S2: int


def measure_sweep(lm: LanguageModel, recipe: Recipe) -> StoredSweep:
    """One sweep on the eight sentences of a template; from seconds to minutes."""
    prompts = ioi_prompts(templates=IOI_TEMPLATES[recipe.template : recipe.template + 1])
    right, wrong = prompts.answers(lm)
    metric = partial(logit_difference, right=right, wrong=wrong)
    pair = Pair(lm, prompts.texts, getattr(prompts, recipe.corruption))
    swept = patch_sweep(pair, metric, site=recipe.site, over=recipe.over, noising=recipe.noising)
    labels = tuple(lm.labels(pair.clean_tokens[0]))
    means = (float(each.mean()) for each in (swept.base, swept.source))
    return StoredSweep(swept.recovery, *means, labels, int(prompts.positions(lm)["S2"][0]))


def load_patch_sweep(
    site: str = "resid_pre",
    over: Sequence[str] = PLACES,
    *,
    corruption: str = "swapped",
    noising: bool = False,
    template: int = 0,
    path: Path | None = None,
) -> StoredSweep:
    """A shipped sweep of the default model over the eight sentences of a template.

    Args: As for `Recipe`; `path` is the shipped file if not given.
    Raises: ValueError if it is not shipped; it lists what is.
    Chapter: 07.
    """
    wanted = Recipe(site, checked_axes(site, over), corruption, noising, template)
    known = _stored(path or RESULTS_FILE)
    if wanted not in known:
        raise ValueError(f"wanted one of the shipped sweeps; came {wanted}: there are\n" + "\n".join(map(str, known)))
    return known[wanted]


@cache
def _stored(path: Path) -> dict[Recipe, StoredSweep]:
    return dict(map(_read, json.loads(path.read_text(encoding="utf-8"))["sweeps"]))


def _read(row: dict) -> tuple[Recipe, StoredSweep]:
    recipe = Recipe(**{name: tuple(value) if name == "over" else value for name, value in row["recipe"].items()})
    recovery = torch.tensor(row["per mille"]) / 1000
    return recipe, StoredSweep(recovery, row["base"], row["source"], tuple(row["labels"]), row["S2"])


def _written(recipe: Recipe, sweep: StoredSweep) -> dict:
    _, base, source, labels, S2 = astuple(sweep)
    return {
        "recipe": asdict(recipe),
        "base": round(base, 4),
        "source": round(source, 4),
        "labels": labels,
        "S2": S2,
        "per mille": (1000 * sweep.recovery).round().int().tolist(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.data.patching_results",
        description="Measure the shipped patch sweeps: about ten minutes.",
        epilog="example: python -m mechkit.data.patching_results --first 4 --out some.json",
    )
    parser.add_argument("--first", type=int, default=len(RECIPES), help="how many of the sweeps to measure")
    parser.add_argument("--out", type=Path, default=RESULTS_FILE, help="where to write (default: the shipped file)")
    options = parser.parse_args(arguments)
    lm, rows = load_model(), []
    for recipe in tqdm(RECIPES[: options.first], desc="sweeps"):
        rows.append(_written(recipe, measure_sweep(lm, recipe)))
        text = json.dumps({"model": lm.name, "sweeps": rows}, ensure_ascii=False, separators=(",", ":"))
        options.out.write_text(text.replace('{"recipe"', '\n{"recipe"') + "\n", encoding="utf-8")  # what is done stays


if __name__ == "__main__":
    main()
