"""Which features are there to read? The shipped ones of the course's own model, or small ones trained on the spot.

Chapter 08 runs on any model. Shipped dictionaries belong to one; for any other, small dictionaries of the same kinds
are trained here, on little text: good enough to try every step, too poor to conclude much from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mechkit.data.corpus import load_corpus
from mechkit.data.labels import Labels, load_labels, make_labels
from mechkit.data.sae import load_features, sae_results, sae_texts
from mechkit.methods.sae import SAE, Activation, ReLU, TopK
from mechkit.methods.sae_activations import gather, middle_layer
from mechkit.methods.sae_metrics import sae_metrics
from mechkit.methods.sae_training import train_sae
from mechkit.network.model import LanguageModel

MOST, HELD = 20_000, 64  # tokens to train on, passages to hold out
STEPS, BATCH, SWEEP_STEPS = 400, 512, 120
PENALTIES, KS = (0.1, 0.3, 1.0, 3.0), (4, 8, 16, 32)


@dataclass(frozen=True)
class Run:
    """One dictionary of a sweep, measured on text that it was not trained on."""

    kind: str
    setting: float | int
    l0: float
    variance_explained: float
    dead: int


@dataclass(frozen=True)
class Measured:
    """How good a dictionary, or a baseline, was on text that it was not trained on.

    Args:
        against_mean: The share of the loss between mean ablation and the model that it recovers.
        against_zero: The same with zeros in place of the mean.
    """

    name: str
    l0: float
    variance_explained: float
    against_mean: float
    against_zero: float


@dataclass(frozen=True)
class Dictionaries:
    """What there is to read of one model's middle layer.

    Args:
        sae: Of the residual stream after the layer.
        small: The same with fewer features.
        transcoder: Of the same layer's MLP.
        seen: Some of the texts that they were trained on.
        unseen: Texts that none of them was trained on.
        sweep: How sparse and how good such dictionaries are at other penalties and other k.
        labels: What token counts on some of the seen text say of each feature, and of random directions.
        table: What was measured when they were trained, beside baselines; empty for those trained on the spot.
        shipped: Whether they were trained beforehand.
    """

    sae: SAE
    small: SAE
    transcoder: SAE
    seen: Sequence[str]
    unseen: Sequence[str]
    sweep: Sequence[Run]
    labels: Labels
    table: Sequence[Measured]
    shipped: bool

    @property
    def layer(self) -> int:
        """The layer that all three read."""
        return self.sae.layer

    def __repr__(self) -> str:
        origin = "shipped with the course" if self.shipped else "trained here, on little text"
        names = {"an SAE": self.sae, "a smaller one": self.small, "a transcoder": self.transcoder}
        parts = ", ".join(f"{name} of {sae.d_sae} features" for name, sae in names.items())
        return f"Layer {self.layer}, dictionaries {origin}: {parts}; {len(self.unseen)} texts that they never saw"


def dictionaries(lm: LanguageModel) -> Dictionaries:
    """The shipped dictionaries if they are this model's, else small ones trained now.

    Chapter: 08.
    """
    shipped = load_features("sae")
    if lm.name == shipped.model_name and lm.d_model == shipped.d_in:
        return _shipped(lm)
    return _trained(lm)


def _shipped(lm: LanguageModel) -> Dictionaries:
    kinds = [load_features(kind, lm) for kind in ("sae", "small", "transcoder")]
    return Dictionaries(
        *kinds, sae_texts(HELD), sae_texts(held_out=True), _stored_sweep(), load_labels(), _stored_table(), shipped=True
    )


def _stored_sweep() -> list[Run]:
    runs = []
    for row in sae_results()["sweep"]:
        kind, setting = row["name"].split()
        found = row["metrics"]
        runs.append(Run(kind, float(setting), found["l0"], found["variance_explained"], found["dead"]))
    return runs


def _stored_table() -> list[Measured]:
    stored = sae_results()
    rows = [*stored["shipped"], *stored["baselines"]]
    return [
        Measured(
            row["name"] + (" of the MLP" if len(set(row["sites"])) == 2 else ""),
            row["metrics"]["l0"],
            row["metrics"]["variance_explained"],
            row["loss"]["against_mean"],
            row["loss"]["against_zero"],
        )
        for row in rows
    ]


def _trained(lm: LanguageModel) -> Dictionaries:
    texts, layer = load_corpus(), middle_layer(lm)
    seen, unseen = texts[HELD:], texts[:HELD]
    stream = gather(lm, seen, "resid_post", layer, limit=MOST)
    x = stream.x
    k = max(2, min(32, lm.d_model // 4))
    sae, small = (_fitted(lm, x, size * lm.d_model, TopK(k)) for size in (4, 2))
    pair = gather(lm, seen, ("mlp_in", "mlp_out"), layer, limit=MOST)
    transcoder = _fitted(lm, pair.x, 4 * lm.d_model, TopK(k), target=pair.target)
    for each in (sae, small, transcoder):
        each.layer, each.site, each.model_name = layer, "resid_post", lm.name
    transcoder.site = ("mlp_in", "mlp_out")
    labels = make_labels(lm, sae, stream, progress=False)
    test = gather(lm, unseen[:16], "resid_post", layer).x
    runs = [_run(lm, x, test, "ReLU", penalty) for penalty in PENALTIES]
    runs += [_run(lm, x, test, "TopK", each) for each in KS if each <= lm.d_model]
    return Dictionaries(sae, small, transcoder, seen, unseen, runs, labels, (), shipped=False)


def _fitted(
    lm: LanguageModel,
    x: Float[Tensor, "token d_in"],
    d_sae: int,
    activation: Activation,
    *,
    target: Float[Tensor, "token d_out"] | None = None,
    penalty: float = 0.0,
    steps: int = STEPS,
) -> SAE:
    sae = SAE(x.shape[1], d_sae, activation, d_out=None if target is None else target.shape[1])
    batch = min(BATCH, len(x))
    return train_sae(sae, x, target=target, penalty=penalty, steps=steps, batch=batch, progress=False).sae


def _run(
    lm: LanguageModel,
    x: Float[Tensor, "token d_in"],
    test: Float[Tensor, "unseen d_in"],
    kind: str,
    setting: float | int,
) -> Run:
    penalty, activation = (setting, ReLU()) if kind == "ReLU" else (0.0, TopK(int(setting)))
    sae = _fitted(lm, x, 2 * lm.d_model, activation, penalty=penalty, steps=SWEEP_STEPS)
    found = sae_metrics(sae, test)
    return Run(kind, setting, found.l0, found.variance_explained, found.dead)
