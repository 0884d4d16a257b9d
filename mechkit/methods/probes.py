"""Is it linearly readable, and does the control agree?

A probe is a small classifier on a model's activations. The setting: one vector for each prompt and layer,
computed once; words that a probe is tested on are not those it was trained on. The key move: every accuracy
has a twin with labels that mean nothing, a random one for each word. The limit: a probe shows what a reader
*could* find there; what the model uses takes an edit (`erasure.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm.auto import tqdm

from mechkit.methods.splits import check_labels, word_folds
from mechkit.network.hooks import read
from mechkit.network.model import LanguageModel

TOKENS = 512  # in one forward pass: what its activations take stays small
FEW = 32  # prompts that are read in a moment: no bar
STRENGTH = 0.01  # inverse penalty of the logistic regression: strong, since there are more dimensions than examples
HIDDEN, STEPS, RATE, DECAY = 64, 150, 3e-3, 0.1


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier in the model's own coordinates: `scores = x @ weight.T + bias`.

    Chapter: 03.
    """

    weight: Float[Tensor, "class d_model"]
    bias: Float[Tensor, " class"]

    def scores(self, x: Float[Tensor, "example d_model"]) -> Float[Tensor, "example class"]:
        """One score a class, in nats up to a constant; the largest is the answer."""
        return x.to(self.weight.dtype) @ self.weight.T + self.bias

    @property
    def direction(self) -> Float[Tensor, " d_model"]:
        """From class 0 to class 1: along it the probe changes its mind soonest.

        Raises: ValueError if there are more than two classes.
        """
        if len(self.weight) != 2:
            raise ValueError(f"wanted a probe of two classes; came {len(self.weight)}: a direction leads from 0 to 1")
        return self.weight[1] - self.weight[0]


@dataclass(frozen=True)
class MLPProbe:
    """A classifier with one hidden layer.

    Chapter: 03.
    """

    network: nn.Module
    mean: Float[Tensor, " d_model"]
    scale: Float[Tensor, " d_model"]

    def scores(self, x: Float[Tensor, "example d_model"]) -> Float[Tensor, "example class"]:
        """One score a class; the largest is the answer."""
        with torch.no_grad():
            return self.network((x.to(self.mean.dtype) - self.mean) / self.scale)


Probe = LinearProbe | MLPProbe
Fit = Callable[[Tensor, Tensor], Probe]


def features(lm: LanguageModel, prompts: Sequence[str]) -> Float[Tensor, "layer example d_model"]:
    """`resid_post` of every layer at each prompt's last token, computed once for all the probes to come.

    Prompts of equally many tokens run together, so nothing is padded and no prompt depends on its company.

    Raises: ValueError if there is no prompt.
    Chapter: 03.
    """
    if not prompts:
        raise ValueError("wanted at least one prompt; came none")
    found = torch.empty(lm.n_layers, len(prompts), lm.d_model)
    quiet = len(prompts) <= FEW
    with tqdm(total=len(prompts), desc="reading prompts", unit="prompt", leave=False, disable=quiet) as bar:
        for rows, ids in _batches(lm, prompts):
            with torch.no_grad(), read(lm, "resid_post") as seen:
                lm.hf.base_model(input_ids=ids, use_cache=False)  # no logits: they would be most of the memory
            for layer in range(lm.n_layers):
                found[layer, rows] = seen["resid_post", layer][:, -1]
            bar.update(len(rows))
    return found


def last_logits(
    lm: LanguageModel, prompts: Sequence[str], tokens: Sequence[int | str] | None = None
) -> Float[Tensor, "prompt token"]:
    """The logits after each prompt, of prompts of any length; inside `edit(...)`, those of the edited model.

    Args:
        tokens: The tokens that are wanted, in this order, as ids or as words (" is"); None for the whole vocabulary.
    Raises: ValueError if there is no prompt, or a word is not one token.
    Chapter: 03.
    """
    if not prompts:
        raise ValueError("wanted at least one prompt; came none")
    wanted = (
        slice(None) if tokens is None else [lm.token_id(each) if isinstance(each, str) else each for each in tokens]
    )
    found: dict[int, Tensor] = {}
    for rows, ids in _batches(lm, prompts):
        with torch.no_grad():
            logits = lm.hf(ids, logits_to_keep=1).logits[:, -1]
        found |= dict(zip(rows, logits[:, wanted], strict=True))
    return torch.stack([found[row] for row in range(len(prompts))])


def _batches(lm: LanguageModel, prompts: Sequence[str]) -> Iterator[tuple[list[int], Int[Tensor, "batch pos"]]]:
    """Prompts of one length together, at most `TOKENS` tokens at a time, with their places."""
    ids = [lm.tokens(prompt)[0] for prompt in prompts]
    for length in sorted({len(row) for row in ids}):
        places = [place for place, row in enumerate(ids) if len(row) == length]
        size = max(1, TOKENS // length)
        for start in range(0, len(places), size):
            rows = places[start : start + size]
            yield rows, torch.stack([ids[row] for row in rows])


def at_layer(found: Float[Tensor, "layer example d_model"], layer: int) -> Float[Tensor, "example d_model"]:
    """One layer's features.

    Raises: ValueError for a layer that is not there; it says which are.
    """
    if not -len(found) <= layer < len(found):
        raise ValueError(f"wanted a layer from 0 to {len(found) - 1}; came {layer}")
    return found[layer]


def fit_logistic(
    x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"], *, strength: float = STRENGTH
) -> LinearProbe:
    """Logistic regression on standardised features, with the weights given in the features' own coordinates.

    Args:
        strength: scikit-learn's C, the inverse of the penalty on the squared weights.
    Raises: ValueError if there is one class only, a feature that is not finite, or no feature that varies.
    Source: Alain and Bengio (2016), "Understanding intermediate layers using linear classifier probes".
    Chapter: 03.
    """
    _check(x, y)
    scaler = StandardScaler().fit(x.double().numpy())
    model = LogisticRegression(C=strength, max_iter=500).fit(scaler.transform(x.double().numpy()), y.numpy())
    weight = torch.tensor(model.coef_ / scaler.scale_)
    bias = torch.tensor(model.intercept_) - weight @ torch.tensor(scaler.mean_)
    if len(weight) == 1:  # scikit-learn keeps one row for two classes
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return LinearProbe(weight.float(), bias.float())


def fit_mass_mean(x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"]) -> LinearProbe:
    """The nearest class mean: between two classes, the mean difference with the threshold half-way.

    Nothing is optimised, so there is nothing to overfit but the means; what varies most may drown them.

    Raises: As `fit_logistic`.
    Source: Marks and Tegmark (2023), "The Geometry of Truth".
    Chapter: 03.
    """
    _check(x, y)
    means = torch.stack([x[y == label].mean(0) for label in range(int(y.max()) + 1)])
    return LinearProbe(means, -means.square().sum(-1) / 2)


def fit_mlp(
    x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"], *, hidden: int = HIDDEN, seed: int = 0
) -> MLPProbe:
    """A perceptron with one hidden layer of ReLUs on standardised features, trained by Adam on all examples at once.

    Raises: As `fit_logistic`.
    Chapter: 03.
    """
    _check(x, y)
    x = x.float()
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, int(y.max()) + 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(network((x - mean) / scale), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return MLPProbe(network.requires_grad_(False), mean, scale)


def accuracy(probe: Probe, x: Float[Tensor, "example d_model"], y: Int[Tensor, " example"]) -> float:
    """The share of examples whose largest score is that of their class.

    Chapter: 03.
    """
    return float((probe.scores(x).argmax(-1) == y).double().mean())


def auc(scores: Float[Tensor, " example"], y: Int[Tensor, " example"]) -> float:
    """The chance that an example of class 1 has a higher score than one of class 0: 0.5 for scores that know nothing.

    It asks for the order alone, so a threshold that has moved does not matter. Ties count half.

    Raises: ValueError if there is one class only.
    Chapter: 03.
    """
    check_labels(y)
    gaps = scores[y == 1][:, None] - scores[y == 0][None, :]
    return float((gaps > 0).double().mean() + 0.5 * (gaps == 0).double().mean())


def layer_sweep(
    found: Float[Tensor, "layer example d_model"],
    y: Int[Tensor, " example"],
    train: Int[Tensor, " train"],
    test: Int[Tensor, " test"],
    *,
    fit: Fit = fit_logistic,
) -> Float[Tensor, " layer"]:
    """Test accuracy of a probe fitted at each layer.

    Args:
        train, test: Places of the examples to fit on and to test on, as `split_by_word` gives them.
        fit: `fit_logistic`, `fit_mass_mean`, `fit_mlp` or another function of (x, y).
    Chapter: 03.
    """
    return torch.tensor([accuracy(fit(x[train], y[train]), x[test], y[test]) for x in found])


def cross_validate(
    x: Float[Tensor, "example d_model"],
    y: Int[Tensor, " example"],
    words: Sequence[str],
    *,
    folds: int = 5,
    fit: Fit = fit_logistic,
    seed: int = 0,
) -> Float[Tensor, " fold"]:
    """Accuracy on each fold of the words by a probe that was fitted on the others.

    Raises: ValueError for fewer than two folds, or fewer words than folds.
    Chapter: 03.
    """
    fold = word_folds(words, folds=folds, seed=seed)
    parts = [(fold != each, fold == each) for each in range(folds)]
    return torch.tensor([accuracy(fit(x[train], y[train]), x[test], y[test]) for train, test in parts])


def _check(x: Shaped[Tensor, "example d_model"], y: Shaped[Tensor, " example"]) -> None:
    check_labels(y)
    if not torch.isfinite(x).all():
        raise ValueError("wanted finite features; came some that are infinite or not a number")
    if bool((x == x[0]).all()):
        raise ValueError(
            "wanted features that differ between examples; came the same vector every time: "
            "is the position one where all prompts agree?"
        )
