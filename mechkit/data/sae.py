"""Features of the default model's middle layer, trained beforehand and shipped: what chapter 08 reads.

Made by `python -m mechkit.data.sae` from the default model and the shipped corpus.
"""

import json
from functools import cache
from pathlib import Path

from mechkit.methods.sae import SAE
from mechkit.methods.sae_files import load_sae
from mechkit.network.model import LanguageModel

KINDS = ("sae", "small", "transcoder")
FOLDER = Path(__file__).parent
RESULTS_FILE = FOLDER / "sae_results.json"


def load_features(kind: str = "sae", lm: LanguageModel | None = None) -> SAE:
    """A shipped dictionary of the default model: "sae", "small" with fewer features, or "transcoder".

    Its `.site` and `.layer` say what it reads.

    Raises: ValueError for another kind, or if `lm` is not the model that it was trained on.
    Chapter: 08.
    """
    if kind not in KINDS:
        raise ValueError(f"wanted one of the shipped dictionaries; came {kind!r}: use one of {', '.join(KINDS)}")
    return load_sae(FOLDER / f"sae_{kind}", lm)


def sae_results() -> dict:
    """What was measured when the shipped dictionaries were trained: curves, metrics and baselines.

    Chapter: 08.
    """
    return json.loads(_stored(RESULTS_FILE))


@cache
def _stored(path: Path) -> str:
    return path.read_text(encoding="utf-8")
