"""What token counts say of every shipped feature, and of directions that nobody trained.

    python -m mechkit.data.labels

writes the labels anew. A label gets better with the text that it is written from, and a notebook has little time to
read: so these were written beforehand, from text on which the dictionary was trained, and are to be scored on other
text. Labels of random directions were written in the same way, for they are what the others are compared with.
"""

import argparse
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.data.sae import load_features, sae_texts
from mechkit.methods.sae import SAE
from mechkit.methods.sae_activations import Activations, gather
from mechkit.methods.sae_features import Label, label_from_tokens
from mechkit.methods.toy import random_directions
from mechkit.network.loading import load_model
from mechkit.network.model import LanguageModel

LABELS_FILE = Path(__file__).with_name("sae_labels.json.gz")
TEXTS, DIRECTIONS, SEED = 1000, 40, 1
COLUMNS = 256  # features at once


@dataclass(frozen=True)
class Labels:
    """Labels of all features of a dictionary, and of random directions.

    Args:
        features: One a feature; None for one that was on nowhere.
        directions: One a direction of `random_directions(len(directions), d, seed=SEED)`.
        density: The share of tokens for which each of these directions was on.
        tokens: How many tokens were read.
    """

    features: Sequence[Label | None]
    directions: Sequence[Label | None]
    density: float
    tokens: int


def make_labels(lm: LanguageModel, sae: SAE, activations: Activations, *, progress: bool = True) -> Labels:
    """Label every feature, and directions that are on as often as the median one, from the same text.

    Chapter: 08.
    """
    x, shares, found = activations.x, [], []
    blocks = torch.arange(sae.d_sae).split(COLUMNS)
    for block in tqdm(blocks, desc="labelling", disable=not progress):
        hidden = torch.cat([sae.encode(rows)[:, block] for rows in x.split(1024)])
        shares.append((hidden > 0).float().mean(0))
        found += [_label(hidden, activations, i, lm) for i in range(len(block))]
    density = float(torch.cat(shares).median())
    shadows = x @ random_directions(DIRECTIONS, x.shape[1], seed=SEED).T
    threshold = shadows.sort(0, descending=True).values[round(density * len(x))]
    anything = (shadows - threshold).relu()
    others = [_label(anything, activations, i, lm) for i in range(DIRECTIONS)]
    return Labels(found, others, density, len(x))


def _label(
    hidden: Float[Tensor, "token feature"], activations: Activations, feature: int, lm: LanguageModel
) -> Label | None:
    return label_from_tokens(hidden, activations, feature, lm) if bool((hidden[:, feature] > 0).any()) else None


def save_labels(labels: Labels, path: Path = LABELS_FILE) -> None:
    """Write labels to a file, the same bytes for the same labels."""
    rows = {name: list(map(_row, getattr(labels, name))) for name in ("features", "directions")}
    text = json.dumps({"tokens": labels.tokens, "density": labels.density, **rows}, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load_labels(path: Path = LABELS_FILE) -> Labels:
    """The shipped labels.

    Chapter: 08.
    """
    stored = json.loads(gzip.decompress(path.read_bytes()))
    features, directions = ([_read(row) for row in stored[name]] for name in ("features", "directions"))
    return Labels(features, directions, stored["density"], stored["tokens"])


def _row(label: Label | None) -> list | None:
    return label and [list(label.tokens), label.back, float(f"{label.limit:.5g}"), label.text]


def _read(row: list | None) -> Label | None:
    return row and Label(tuple(row[0]), *row[1:])


def main(arguments: Sequence[str] | None = None, load: Callable[[], LanguageModel] = load_model) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.data.labels",
        description="Label the shipped features: ten minutes.",
        epilog="example: python -m mechkit.data.labels --texts 20 --out some.json.gz",
    )
    parser.add_argument("--texts", type=int, default=TEXTS, help="how many texts to read")
    parser.add_argument("--out", type=Path, default=LABELS_FILE, help="the file to write")
    options = parser.parse_args(arguments)
    lm = load()
    sae = load_features("sae", lm)
    labels = make_labels(lm, sae, gather(lm, sae_texts(options.texts), "resid_post", sae.layer))
    save_labels(labels, options.out)
    print(f"{len(labels.features)} labels from {labels.tokens} tokens")


if __name__ == "__main__":
    main()
