"""Chapter 03, probes: is it readable, and is it used?"""

import random
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property, Tiny
from mechkit.data.lexicon import NOUNS
from mechkit.data.probe_results import load_probe_results
from mechkit.methods.probes import accuracy, fit_logistic
from mechkit.network.hooks import Edit, edit, read
from mechkit.network.model import LanguageModel
from mechkit.network.tiny import tiny_model

ANSWERS = (" is", " are")
CONFIDENT = 5.0
# one token in both numbers for the default model, so that they run as one batch
HIDDEN_NOUNS = [forms for forms in NOUNS[24:90] if forms[0] not in ("baker", "uncle")]
VISIBLE_NOUNS = NOUNS[:24]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed))


# standardise ------------------------------------------------------------------------------------------------


def standardise(
    train: Float[Tensor, "example d"], test: Float[Tensor, "other d"]
) -> tuple[Float[Tensor, "example d"], Float[Tensor, "other d"]]:
    columns = [], []
    for column in range(train.shape[1]):
        values = train[:, column].double()
        mean = sum(values.tolist()) / len(values)
        spread = (sum((value - mean) ** 2 for value in values.tolist()) / (len(values) - 1)) ** 0.5
        for part, whole in zip(columns, (train, test), strict=True):
            part.append((whole[:, column] - mean) / spread)
    return torch.stack(columns[0], dim=1), torch.stack(columns[1], dim=1)


def _scaled(x: Tensor, by: Tensor) -> Tensor:
    return (x - by.mean(0)) / by.std(0)


STANDARDISE = Exercise(
    id="03_standardise",
    kind="code",
    level=1,
    points=1,
    minutes=6,
    reference=standardise,
    cases=lambda seed: [
        (3 * _normal(seed, 200, 4) + 2, 2 * _normal(seed + 100, 60, 4) + 4),
        (_normal(seed + 200, 150, 2) * torch.tensor([1.0, 50.0]), _normal(seed + 300, 80, 2) + 1),
    ],
    mistakes=(
        Mistake(
            "own_statistics",
            "Yours scales the test rows by their *own* mean and spread. Then train and test no longer live on one "
            "scale, and the probe would be told something about the test set: use the training rows' numbers for both.",
            lambda train, test: (_scaled(train, train), _scaled(test, test)),
        ),
        Mistake(
            "pooled",
            "Yours takes mean and spread over train *and* test. What is measured on the test rows has then already "
            "shaped the probe's input: use the training rows alone.",
            lambda train, test: tuple(_scaled(x, torch.cat([train, test])) for x in (train, test)),
        ),
        Mistake(
            "only_centred",
            "Yours takes off the mean and leaves the spread: a coordinate that varies a lot still dominates. Divide "
            "by `train.std(0)`.",
            lambda train, test: (train - train.mean(0), test - train.mean(0)),
        ),
        Mistake(
            "variance",
            "Yours divides by the variance. It is its square root, the standard deviation.",
            lambda train, test: tuple((x - train.mean(0)) / train.var(0) for x in (train, test)),
        ),
        Mistake(
            "one_scale_for_all",
            "Yours uses one mean and one spread for all coordinates. Each has its own: `train.mean(0)`, with the "
            "axis named.",
            lambda train, test: tuple((x - train.mean()) / train.std() for x in (train, test)),
        ),
    ),
    hints=(
        "Two numbers a coordinate, both learned from `train`: its mean and its standard deviation.",
        "`train.mean(0)` and `train.std(0)` have one entry a coordinate; broadcasting does the rest.",
        "Return `(train - mean) / spread, (test - mean) / spread` with both from `train`.",
    ),
    discussion="Coordinates of a residual stream differ in size by factors of hundreds, and a penalty on the weights "
    "treats all alike: without this step the large ones win, whatever they mean. And a test set may be used for one "
    "thing only.",
    tolerance=5e-3,
    teaches=("StandardScaler",),
)


# mean_difference --------------------------------------------------------------------------------------------


def mean_difference(x: Float[Tensor, "example d"], y: Int[Tensor, " example"]) -> Float[Tensor, " d"]:
    sums, counts = {0: torch.zeros(x.shape[1]), 1: torch.zeros(x.shape[1])}, {0: 0, 1: 0}
    for row, label in zip(x, y.tolist(), strict=True):
        sums[label] = sums[label] + row
        counts[label] += 1
    return sums[1] / counts[1] - sums[0] / counts[0]


def _unbalanced(seed: int) -> tuple:
    y = (torch.rand(30, generator=_generator(seed)) < 0.3).long()
    y[:2] = torch.tensor([0, 1])
    return (_normal(seed + 1, 30, 6) + y[:, None] * _normal(seed + 2, 6) + 1, y)


MEAN_DIFFERENCE = Exercise(
    id="03_mean_difference",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=mean_difference,
    cases=lambda seed: [_unbalanced(seed), _unbalanced(seed + 50)],
    mistakes=(
        Mistake(
            "reversed",
            "Yours leads from class 1 to class 0. Added to a singular noun it should make it *more* plural: class 1 "
            "minus class 0.",
            lambda x, y: x[y == 0].mean(0) - x[y == 1].mean(0),
        ),
        Mistake(
            "from_the_overall_mean",
            "Yours starts from the mean of everything, which is itself part class 1: the arrow is too short. Start "
            "from the mean of class 0.",
            lambda x, y: x[y == 1].mean(0) - x.mean(0),
        ),
        Mistake(
            "sums",
            "Yours subtracts sums. The class with more examples then wins: take means.",
            lambda x, y: x[y == 1].sum(0) - x[y == 0].sum(0),
        ),
        Mistake(
            "unit_length",
            "Yours has length 1. The length is wanted here: it says how far apart the classes are.",
            lambda x, y: (x[y == 1].mean(0) - x[y == 0].mean(0)) / (x[y == 1].mean(0) - x[y == 0].mean(0)).norm(),
        ),
    ),
    hints=(
        "`x[y == 1]` picks the rows of class 1.",
        "Take the mean over rows of each class, `.mean(0)`, and subtract.",
        "Return `x[y == 1].mean(0) - x[y == 0].mean(0)`.",
    ),
    discussion="This is the *mass-mean* direction: a probe that optimises nothing. It needs no training, so it cannot "
    "overfit, and it is the arrow that we will *add* to a model. As a reader it has a weakness: what else varies.",
    teaches=("mean_difference", "fit_mass_mean"),
)


# honest_accuracy: repair ------------------------------------------------------------------------------------


def honest_accuracy(
    x: Float[Tensor, "example d"], y: Int[Tensor, " example"], words: Sequence[str], held_out: Sequence[str]
) -> float:
    train, test = [], []
    for place, word in enumerate(words):
        (test if word in held_out else train).append(place)
    probe = fit_logistic(x[train], y[train])
    return sum(int(probe.scores(x[[i]]).argmax()) == int(y[i]) for i in test) / len(test)


def _with_flaws(flaws: Sequence[str], x: Tensor, y: Tensor, words: Sequence[str], held_out: Sequence[str]) -> float:
    test = torch.tensor([word in held_out for word in words])
    if "words" in flaws:
        test = torch.arange(len(words)) % 3 == 0
    probe = fit_logistic(x[~test], y[~test])
    return accuracy(probe, x, y) if "everything" in flaws else accuracy(probe, x[test], y[test])


FLAWS = {
    "words": "the same words stand in train and test, so a probe that remembers words looks as if it had understood",
    "everything": "it is scored on every example, those that it was fitted on among them",
}


def _flawed(flaws: Sequence[str]) -> Mistake:
    found = "; ".join(FLAWS[flaw] for flaw in flaws)
    return Mistake(
        "_".join(flaws), f"{'One flaw is' if len(flaws) == 1 else 'Both flaws are'} left: {found}.", _partial(flaws)
    )


def _partial(flaws: Sequence[str]) -> Any:
    return lambda x, y, words, held_out: _with_flaws(flaws, x, y, words, held_out)


def _memorable(seed: int) -> tuple:
    """Each word has a strong vector and a label of its own; the property itself is weak."""
    generator = _generator(seed)
    count, each, size = 48, 4, 40
    label = torch.randperm(count, generator=generator) % 2
    vector = 2 * torch.randn(count, size, generator=generator)
    place = torch.arange(count).repeat_interleave(each)[torch.randperm(count * each, generator=generator)]
    x = vector[place] + 0.7 * torch.randn(len(place), size, generator=generator)
    x[:, 0] += 0.8 * (2 * label[place] - 1)
    words = [f"word{int(i):02d}" for i in place]
    held_out = sorted(f"word{int(i):02d}" for i in torch.randperm(count, generator=generator)[:16])
    return (x, label[place], words, held_out)


HONEST_ACCURACY = Exercise(
    id="03_honest_accuracy",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=honest_accuracy,
    cases=lambda seed: [_memorable(seed), _memorable(seed + 10)],
    mistakes=tuple(
        _flawed([flaw for flaw, present in zip(FLAWS, chosen, strict=True) if present])
        for chosen in product((False, True), repeat=2)
        if any(chosen)
    ),
    hints=(
        "Ask of each test example: what has the probe seen of it before? There are two answers.",
        "`held_out` is there to be used: an example is for testing if its word is in it, and for nothing else.",
        "`test = torch.tensor([word in held_out for word in words])`, fit on `x[~test]`, and take the accuracy on "
        "`x[test]` alone.",
    ),
    discussion="Whatever recurs from example to example can leak: words, templates, authors, the minute of recording. "
    "Ask what the *unit* of generalisation is in your claim, and hold out whole units.",
    tolerance=0.01,
    teaches=("split_by_word", "cross_validate"),
)


# first_readable ---------------------------------------------------------------------------------------------


def first_readable(table: Float[Tensor, "seed layer"], chance: float) -> int:
    seeds, layers = table.shape
    first = layers
    for layer in reversed(range(layers)):
        values = table[:, layer].double().tolist()
        mean = sum(values) / seeds
        error = (sum((value - mean) ** 2 for value in values) / (seeds - 1)) ** 0.5 / seeds**0.5
        if mean - 2 * error <= chance:
            break
        first = layer
    return first


def _from_then_on(yes: Tensor) -> int:
    return max((layer + 1 for layer, each in enumerate(yes.tolist()) if not each), default=0)


def _bar(table: Tensor, errors: float) -> Tensor:
    return table.mean(0) - errors * table.std(0)


def _staged(seed: int) -> tuple:
    """A sweep in which every short cut stops at another layer: noise of exactly known size around known means."""
    start, chance = 2 + seed % 3, (0.5, 0.25)[seed % 2]
    above = [0.0] * start + [0.2, 0.0, 0.02, 0.12, 0.35, 0.4, 0.3]
    spread = [0.02] * start + [0.01, 0.02, 0.06, 0.1, 0.02, 0.01, 0.01]
    z = torch.tensor([-1.2, -0.6, 0.0, 0.6, 1.2]).double()
    z = (z / z.std())[torch.randperm(5, generator=_generator(seed))]
    return (chance + torch.tensor(above).double() + z[:, None] * torch.tensor(spread).double(), chance)


def _never(seed: int) -> tuple:
    """A sweep that falls back to chance in its last layers."""
    table, chance = _staged(seed)
    return (torch.cat([table, chance + 0.1 * (table[:, :2] - chance)], dim=1), chance)


def _zero_if_none(table: Tensor, chance: float, otherwise: int = 0) -> int:
    found = first_readable(table, chance)
    return otherwise % table.shape[1] if found == table.shape[1] else found


def _shipped(seed: int) -> tuple:
    names = ("number", "truth", "sentiment", "part of speech", "language")
    sweep = load_probe_results()[names[seed % len(names)]]
    return (sweep.measures["new words"], sweep.chance)


FIRST_READABLE = Exercise(
    id="03_first_readable",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=first_readable,
    cases=lambda seed: [_shipped(seed), _staged(seed), _staged(seed + 7), _never(seed)],
    mistakes=(
        Mistake(
            "no_error_bar",
            "Yours asks the *mean* to be above chance. With a few seeds it may be so by luck: ask for the mean less "
            "two standard errors.",
            lambda table, chance: _from_then_on(table.mean(0) > chance),
        ),
        Mistake(
            "standard_deviation",
            "Yours takes off two standard *deviations*: how much one seed scatters. Asked is the error of the mean, "
            "smaller by the root of the number of seeds.",
            lambda table, chance: _from_then_on(_bar(table, 2) > chance),
        ),
        Mistake(
            "first_time",
            "Yours is the first layer above chance. Asked is the first from which it *stays* above, to the end.",
            lambda table, chance: int((_bar(table, 2 / len(table) ** 0.5) > chance).int().argmax()),
        ),
        Mistake(
            "best_layer",
            "Yours is the layer where the probe does best. Asked is the first from which it does better than chance.",
            lambda table, chance: int(table.mean(0).argmax()),
        ),
        Mistake(
            "zero_if_none",
            "Where the last layer is not above chance, yours says layer 0, which would mean *everywhere*. Say the "
            "number of layers, `table.shape[1]`: one past the last.",
            _zero_if_none,
        ),
        Mistake(
            "last_layer_if_none",
            "Where the last layer is not above chance, yours names a layer all the same, the last. Say the number of "
            "layers, `table.shape[1]`: one past the last.",
            partial(_zero_if_none, otherwise=-1),
        ),
    ),
    hints=(
        "Over the seeds (axis 0): a mean and a standard error, `table.std(0) / len(table) ** 0.5`.",
        "`safe = mean - 2 * error > chance` says yes or no for each layer. You want the start of the last unbroken run "
        "of yes.",
        "Walk down from the last layer while the one below is safe: `while layer > 0 and safe[layer - 1]: layer -= 1`.",
    ),
    properties=(
        Property(
            "It is a layer of the table, or their number if there is none.",
            lambda result, table, chance: 0 <= result <= table.shape[1],
        ),
    ),
    discussion="Five seeds are five draws of the *split*, not five experiments: they share their sentences, so the "
    "true uncertainty is larger than this bar. It still beats a single number.",
)


# control_labels ---------------------------------------------------------------------------------------------


def control_labels(words: Sequence[str], coins: Int[Tensor, " type"]) -> Int[Tensor, " example"]:
    label_of = {}
    for coin, word in zip(coins.tolist(), sorted(set(words)), strict=True):
        label_of[word] = coin
    labels = []
    for word in words:
        labels.append(label_of[word])
    return torch.tensor(labels)


def _tossed(seed: int) -> tuple:
    rng = random.Random(seed)
    words = rng.sample([forms[0] for forms in NOUNS], 9)
    words = [*words, *rng.choices(words, k=15)]
    rng.shuffle(words)
    return (words, torch.tensor(rng.sample([0, 1] * 5, 9)))


CONTROL_LABELS = Exercise(
    id="03_control_labels",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=control_labels,
    cases=lambda seed: [_tossed(seed), _tossed(seed + 40)],
    mistakes=(
        Mistake(
            "one_per_example",
            "Yours gives each *example* the next coin. The same word must get the same label wherever it stands, or "
            "there would be nothing to remember.",
            lambda words, coins: [int(coins[i % len(coins)]) for i in range(len(words))],
        ),
        Mistake(
            "order_of_appearance",
            "Yours deals out the coins in the order in which words first appear. They are meant for the words in "
            "alphabetical order: `sorted(set(words))`.",
            lambda words, coins: [int(coins[list(dict.fromkeys(words)).index(word)]) for word in words],
        ),
        Mistake(
            "flipped",
            "Yours has every label turned over: 1 where the coin says 0.",
            lambda words, coins: 1 - control_labels(words, coins),
        ),
    ),
    hints=(
        "First find the different words, in alphabetical order; each owns one coin.",
        "A dict from word to coin: `dict(zip(sorted(set(words)), coins.tolist()))`.",
        "Return `torch.tensor([coin[word] for word in words])` with that dict.",
    ),
    properties=(
        Property("Labels are 0 or 1, one for each example.", lambda result, *_: set(result.tolist()) <= {0, 1}),
    ),
    discussion="Nothing in language decides these labels, so a probe that does well on them has remembered words. "
    "That makes memory *measurable*: it is the control task of Hewitt and Liang (2019).",
    teaches=("control_labels",),
)


# selectivity ------------------------------------------------------------------------------------------------


def selectivity(
    x: Float[Tensor, "example d"],
    y: Int[Tensor, " example"],
    words: Sequence[str],
    coins: Int[Tensor, " type"],
    train: Int[Tensor, " train"],
    test: Int[Tensor, " test"],
) -> float:
    control = control_labels(words, coins)
    right = {}
    for name, labels in (("task", y), ("control", control)):
        probe = fit_logistic(x[train], labels[train])
        right[name] = sum(int(probe.scores(x[[i]]).argmax()) == int(labels[i]) for i in test.tolist())
    return (right["task"] - right["control"]) / len(test)


def _accuracies(x: Tensor, y: Tensor, control: Tensor, train: Tensor, test: Tensor) -> tuple[float, float]:
    task, other = (accuracy(fit_logistic(x[train], labels[train]), x[test], labels[test]) for labels in (y, control))
    return task, other


def _selective(seed: int, blur: float = 0.6) -> tuple:
    generator = _generator(seed)
    count, each, size = 30, 8, 40
    place = torch.arange(count).repeat_interleave(each)[torch.randperm(count * each, generator=generator)]
    y = torch.randperm(len(place), generator=generator) % 2
    x = torch.randn(count, size, generator=generator)[place] + blur * torch.randn(len(place), size, generator=generator)
    x[:, 0] = 2 * y - 1 + 0.1 * torch.randn(len(place), generator=generator)
    coins = torch.randperm(count, generator=generator) % 2
    order = torch.randperm(len(place), generator=generator)
    return (x, y, [f"word{int(i):02d}" for i in place], coins, order[:150], order[150:])


def _memorised(seed: int) -> tuple:
    """Labels drawn anew for each example, so that only the control task can be learned: it wins."""
    x, _, words, coins, train, test = _selective(seed, blur=0.4)
    y = torch.randperm(len(x), generator=_generator(seed + 1)) % 2
    x[:, 0] = torch.randn(len(x), generator=_generator(seed + 2))
    return (x, y, words, coins, train, test)


def _learnable_control(result: float, x, y, words, coins, train, test) -> bool:
    """Whether the control's accuracy, as the result implies it, is not chance where memory does much better."""
    task, control = _accuracies(x, y, control_labels(words, coins), train, test)
    return control < 0.7 or abs(task - float(result) - 0.5) > 0.15


def _coin_per_example(x, y, words, coins, train, test) -> float:
    control = torch.tensor([int(coins[i % len(coins)]) for i in range(len(words))])
    task, other = _accuracies(x, y, control, train, test)
    return task - other


def _on_train(x, y, words, coins, train, test) -> float:
    control = control_labels(words, coins)
    task, _ = _accuracies(x, y, control, train, test)
    return task - _accuracies(x, y, control, train, train)[1]


SELECTIVITY = Exercise(
    id="03_selectivity",
    kind="code",
    level=2,
    points=3,
    minutes=12,
    reference=selectivity,
    cases=lambda seed: [_selective(seed), _memorised(seed + 20)],
    mistakes=(
        Mistake(
            "reversed",
            "Yours is control minus task. Selectivity is large where the task is easier than remembering words.",
            lambda *case: -selectivity(*case),
        ),
        Mistake(
            "absolute",
            "Yours has lost its sign. Where memory does *better* than the task, selectivity is negative, and that is "
            "the finding: no `abs`.",
            lambda *case: abs(selectivity(*case)),
        ),
        Mistake(
            "both_on_train",
            "Yours scores both probes on the rows that they were fitted to. There a probe is nearly always right, "
            "whatever its labels mean: score on `test`.",
            lambda x, y, words, coins, train, test: selectivity(x, y, words, coins, train, train),
        ),
        Mistake(
            "coin_per_example",
            "Your control labels differ between examples of one word, so not even memory can learn them: the control "
            "sits at chance and every probe looks selective. Use `control_labels`.",
            _coin_per_example,
        ),
        Mistake(
            "control_on_train",
            "Yours scores the control on its *training* examples: there a probe remembers everything. Both accuracies "
            "belong on `test`.",
            _on_train,
        ),
        Mistake(
            "probe_of_the_task",
            "Yours scores the *task's* probe on the control labels. The control needs a probe of its own, fitted to "
            "its own labels.",
            lambda x, y, words, coins, train, test: (
                accuracy(fit_logistic(x[train], y[train]), x[test], y[test])
                - accuracy(fit_logistic(x[train], y[train]), x[test], control_labels(words, coins)[test])
            ),
        ),
        Mistake(
            "control_only",
            "Yours is the accuracy on the control task alone. Take it from the accuracy on the task itself.",
            lambda x, y, words, coins, train, test: _accuracies(x, y, control_labels(words, coins), train, test)[1],
        ),
    ),
    hints=(
        "Two probes of one kind, on the same rows: one learns `y`, the other the control labels.",
        "`mk.fit_logistic(x[train], labels[train])`, then `mk.accuracy(probe, x[test], labels[test])`, for each.",
        "`task - control`, where `control` uses `labels = control_labels(words, coins)`.",
    ),
    properties=(
        Property(
            "Your control sits at chance, where a probe that remembers words does much better. Does each *word* have "
            "one label, the same in all its examples? Use `control_labels(words, coins)`.",
            _learnable_control,
        ),
    ),
    discussion="Selectivity belongs to a probe *and* a dataset: a larger probe, fewer words or a vector that spells "
    "the word out all lower it, with the model unchanged. Report it beside every accuracy.",
    tolerance=0.01,
    control=True,
)


# auc --------------------------------------------------------------------------------------------------------


def auc(scores: Float[Tensor, " example"], labels: Int[Tensor, " example"]) -> float:
    won, pairs = 0.0, 0
    for above, one in zip(scores.tolist(), labels.tolist(), strict=True):
        for below, other in zip(scores.tolist(), labels.tolist(), strict=True):
            if one == 1 and other == 0:
                pairs += 1
                won += 1.0 if above > below else 0.5 if above == below else 0.0
    return won / pairs


def _pairs_won(scores: Tensor, labels: Tensor, tie: float) -> float:
    gaps = scores[labels == 1][:, None] - scores[labels == 0]
    return float((gaps > 0).double().mean() + tie * (gaps == 0).double().mean())


def _scores(seed: int, shift: float) -> tuple:
    labels = (torch.rand(40, generator=_generator(seed)) < 0.4).long()
    labels[:2] = torch.tensor([0, 1])
    return ((_normal(seed + 1, 40) + 0.8 * labels + shift).round(), labels)


AUC = Exercise(
    id="03_auc",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=auc,
    cases=lambda seed: [_scores(seed, 0.0), _scores(seed + 60, 6.0)],
    mistakes=(
        Mistake(
            "reversed",
            "Yours counts the pairs in which the *false* one scores higher. Count those that the true one wins.",
            lambda scores, labels: 1 - _pairs_won(scores, labels, 0.5),
        ),
        Mistake(
            "accuracy",
            "Yours puts a threshold at 0 and counts right answers. The point is to do without a threshold: compare "
            "pairs, one of each class.",
            lambda scores, labels: float(((scores > 0).long() == labels).double().mean()),
        ),
        Mistake(
            "ties_lost",
            "Yours gives nothing for a tie. Two equal scores know nothing about the pair, so they count half.",
            lambda scores, labels: _pairs_won(scores, labels, 0.0),
        ),
        Mistake(
            "ties_won",
            "Yours counts a tie as won. Scores that are all alike would then be perfect: a tie counts half.",
            lambda scores, labels: _pairs_won(scores, labels, 1.0),
        ),
    ),
    hints=(
        "Make every pair of one example of class 1 and one of class 0. In what share does the first score higher?",
        "`gaps = scores[labels == 1][:, None] - scores[labels == 0]` holds all pairs.",
        "`(gaps > 0).double().mean() + 0.5 * (gaps == 0).double().mean()`.",
    ),
    properties=(Property("It is a share, from 0 to 1.", lambda result, *_: 0 <= float(result) <= 1),),
    discussion="0.5 knows nothing, 1 orders perfectly, and 0 orders perfectly *the wrong way round*: as much "
    "information as 1. Add a constant to all scores and nothing changes, which is why it survives a shift between "
    "two kinds of sentences.",
    teaches=("auc", "roc_auc_score"),
)


# most_reversed ----------------------------------------------------------------------------------------------


def most_reversed(data: dict[str, Any]) -> dict[str, Any]:
    orders = []
    for inside, outside in zip(data["inside"], data["outside"], strict=True):
        probe = fit_logistic(inside, data["labels"])
        scores = probe.scores(outside)
        orders.append(auc(scores[:, 1] - scores[:, 0], data["outside labels"]))
    layer = orders.index(min(orders))
    return {"layer": layer, "auc": orders[layer]}


def _orders(data: dict[str, Any]) -> dict[str, Tensor]:
    """AUC and accuracy outside and accuracy inside, by layer."""
    rows = []
    for inside, outside in zip(data["inside"], data["outside"], strict=True):
        probe, y = fit_logistic(inside, data["labels"]), data["outside labels"]
        order = _pairs_won(outside @ probe.direction, y, 0.5)
        rows.append((order, accuracy(probe, outside, y), accuracy(probe, inside, data["labels"])))
    order, outside, inside = torch.tensor(rows).T
    return {"order": order, "outside": outside, "inside": inside}


def _at(orders: Tensor, layer: Tensor) -> dict[str, Any]:
    return {"layer": int(layer), "auc": float(orders[layer])}


def _turned(seed: int, best: float = 1.6, worst: float = -1.8) -> tuple:
    """Six layers whose direction keeps, loses or turns its meaning outside; two of them with a moved threshold."""
    generator = _generator(seed)
    y, other = torch.arange(80) % 2, torch.arange(40) % 2
    kept = torch.tensor([0.2, best, 0.5, worst, worst / 2, 0.3])
    moved = torch.tensor([0.0, 0.0, 0.0, 9.0, 0.0, 4.0])
    order = torch.randperm(6, generator=generator)
    inside = torch.randn(6, 80, 10, generator=generator)
    outside = torch.randn(6, 40, 10, generator=generator)
    inside[..., 0] += 1.2 * (2 * y - 1) + 0.1 * torch.arange(6)[:, None]
    outside[..., 0] += kept[order, None] * (2 * other - 1) + moved[order, None]
    return ({"inside": inside, "labels": y, "outside": outside, "outside labels": other},)


MOST_REVERSED = Exercise(
    id="03_most_reversed",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=most_reversed,
    cases=lambda seed: [_turned(seed), _turned(seed + 30, best=3.0, worst=-1.0)],
    mistakes=(
        Mistake(
            "lowest_accuracy",
            "Yours is the layer with the lowest *accuracy* outside. Where the threshold has moved, accuracy sticks at "
            "one half however well the order is turned round: compare the AUC.",
            lambda data: _at((found := _orders(data))["order"], found["outside"].argmin()),
        ),
        Mistake(
            "best_order",
            "Yours is the layer whose order carries over *best*. Asked is the one where it is most reversed.",
            lambda data: _at((found := _orders(data))["order"], found["order"].argmax()),
        ),
        Mistake(
            "nearest_to_chance",
            "Yours is the layer whose AUC is nearest to one half: there the probe knows nothing. Reversed is near 0.",
            lambda data: _at((found := _orders(data))["order"], (found["order"] - 0.5).abs().argmin()),
        ),
        Mistake(
            "furthest_from_chance",
            "Yours is the layer whose AUC is furthest from one half, on either side: there the order is kept, not "
            "reversed. Take the smallest AUC itself.",
            lambda data: _at((found := _orders(data))["order"], (found["order"] - 0.5).abs().argmax()),
        ),
    ),
    hints=(
        "For each layer: fit on `inside[layer]` with `labels`, score `outside[layer]`, and take `auc`.",
        "With `scores = probe.scores(outside[layer])`, class 1 over class 0 is `scores[:, 1] - scores[:, 0]`.",
        "Collect them in a list `orders`, one a layer; the answer is `orders.index(min(orders))` and `min(orders)`.",
    ),
    discussion="A probe that is right far *less* often than a coin has found something real: only not what its "
    "labels are called. On sentences of the training kind the two could not be told apart.",
    tolerance=0.02,
    allowance="an AUC over a few hundred sentences moves when two of them change places",
)


# ccs_loss ---------------------------------------------------------------------------------------------------


def ccs_loss(p_yes: Float[Tensor, " pair"], p_no: Float[Tensor, " pair"]) -> float:
    total = 0.0
    for p, q in zip(p_yes.tolist(), p_no.tolist(), strict=True):
        total += (p - (1 - q)) ** 2 + min(p, q) ** 2
    return total / len(p_yes)


def _probabilities(seed: int) -> tuple:
    return tuple(torch.rand(12, generator=_generator(seed + shift)) for shift in (0, 500))


CCS_LOSS = Exercise(
    id="03_ccs_loss",
    kind="code",
    level=2,
    points=1,
    minutes=6,
    reference=ccs_loss,
    cases=lambda seed: [_probabilities(seed), _probabilities(seed + 9)],
    mistakes=(
        Mistake(
            "no_confidence",
            "Yours leaves out the second term. Then p = 1/2 everywhere is perfect: consistent, and without an opinion.",
            lambda p_yes, p_no: ((p_yes + p_no - 1) ** 2).mean(),
        ),
        Mistake(
            "no_consistency",
            "Yours leaves out the first term. Then saying no to everything is perfect: p and 1 − p are not compared.",
            lambda p_yes, p_no: (torch.minimum(p_yes, p_no) ** 2).mean(),
        ),
        Mistake(
            "alike",
            "Yours punishes p(yes) ≠ p(no). They should be *opposites*: p(yes) = 1 − p(no).",
            lambda p_yes, p_no: ((p_yes - p_no) ** 2 + torch.minimum(p_yes, p_no) ** 2).mean(),
        ),
        Mistake(
            "larger",
            "Yours punishes the *larger* probability. One of the two has to be near 1: it is the smaller that should "
            "be near 0.",
            lambda p_yes, p_no: ((p_yes + p_no - 1) ** 2 + torch.maximum(p_yes, p_no) ** 2).mean(),
        ),
        Mistake(
            "sum",
            "Yours adds up the pairs. Take their mean.",
            lambda p_yes, p_no: ((p_yes + p_no - 1) ** 2 + torch.minimum(p_yes, p_no) ** 2).sum(),
        ),
    ),
    hints=(
        "Two terms a pair: how far p(yes) is from 1 − p(no), squared; and the smaller of the two, squared.",
        "`torch.minimum(p_yes, p_no)` is the smaller one of each pair.",
        "`((p_yes + p_no - 1) ** 2 + torch.minimum(p_yes, p_no) ** 2).mean()`.",
    ),
    discussion="There is no label in it. That is its charm, and as you will see in a moment its whole trouble.",
    teaches=("ccs_loss", "fit_ccs"),
)


# impostor ---------------------------------------------------------------------------------------------------


def impostor(
    yes: Float[Tensor, "pair d"], no: Float[Tensor, "pair d"], sides: Int[Tensor, " pair"]
) -> Float[Tensor, " d"]:
    rows = torch.cat([yes, no]).double()
    wanted = CONFIDENT * torch.cat([sides, -sides]).double()
    # the shortest solution is a sum of the rows themselves, with weights that solve a small square system
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = values > 1e-8 * values[-1]
    weights = vectors[:, kept] @ ((vectors[:, kept].T @ wanted) / values[kept])
    return (rows.T @ weights).float()


def _shortest(rows: Tensor, wanted: Tensor) -> Tensor:
    return (torch.linalg.pinv(rows.double(), rtol=1e-6) @ wanted.double()).float()


def _contrast(seed: int) -> tuple:
    generator = _generator(seed)
    yes, no = (torch.randn(10, 40, generator=generator) for _ in range(2))
    sides = 2 * (torch.randperm(10, generator=generator) % 2) - 1
    return (yes, no, sides)


IMPOSTOR = Exercise(
    id="03_impostor",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=impostor,
    cases=lambda seed: [_contrast(seed), _contrast(seed + 80)],
    mistakes=(
        Mistake(
            "yes_only",
            "Yours fits the yes halves alone: what the no halves score is left to luck, and so is consistency.",
            lambda yes, no, sides: _shortest(yes, CONFIDENT * sides),
        ),
        Mistake(
            "same_side",
            "Yours gives both halves of a pair the same score. They must be opposite: `-sides` for the no halves.",
            lambda yes, no, sides: _shortest(torch.cat([yes, no]), CONFIDENT * torch.cat([sides, sides])),
        ),
        Mistake(
            "differences",
            "Yours fits the *differences* of the halves. Their scores are then 10 apart, and each half may still be "
            "anywhere: ask for +5 and −5 one by one.",
            lambda yes, no, sides: _shortest(yes - no, 2 * CONFIDENT * sides),
        ),
        Mistake(
            "unsure",
            "Yours asks for scores of ±1, which the sigmoid turns into 0.73 and 0.27: consistent, but not confident. "
            "Ask for ±5.",
            lambda yes, no, sides: _shortest(torch.cat([yes, no]), torch.cat([sides, -sides])),
        ),
        Mistake(
            "not_solved",
            "Yours adds up the rows, each with its sign. That points the right way and does not solve the equations: "
            "use `torch.linalg.pinv` or `lstsq`.",
            lambda yes, no, sides: sides.float() @ (yes - no),
        ),
    ),
    hints=(
        "Stack the halves to one matrix `rows`, and the wanted scores to one vector: 5 · sides for yes, −5 · sides "
        "for no.",
        "With more columns than rows many vectors solve `rows @ w = wanted`; the pseudoinverse gives the shortest.",
        "`torch.linalg.pinv(torch.cat([yes, no]), rtol=1e-5) @ (5.0 * torch.cat([sides, -sides]))`; `rtol` leaves out "
        "the row too many that centred halves have.",
    ),
    properties=(
        Property(
            "The scores `yes @ w` must be 5 · sides, and `no @ w` must be −5 · sides; yours are not.",
            lambda result, yes, no, sides: bool(
                ((yes.double() @ result - CONFIDENT * sides).abs() < 0.05).all()
                and ((no.double() @ result + CONFIDENT * sides).abs() < 0.05).all()
            ),
        ),
    ),
    discussion="You chose the sides, and the loss is as good as zero. So a loss of zero is no evidence that the "
    "direction has anything to do with truth: with more dimensions than halves of pairs there is a perfect direction "
    "for *any* balanced split. Does it hold on pairs that it has not met? Look below.",
    tolerance=1e-2,
    teaches=("fit_ccs",),
)


# number_push ------------------------------------------------------------------------------------------------


def number_push(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    layer = lm.n_layers // 2
    direction = _states(lm, data["plural"])[layer].mean(0) - _states(lm, data["singular"])[layer].mean(0)
    noise = data["noise"][: lm.d_model]
    noise = noise / noise.norm() * direction.norm()
    pushes = [(layer, vector) for vector in (0 * direction, direction, noise)]
    before, pushed, shaken = _gaps(lm, data["prompts"], pushes).mean(1).tolist()
    return {"direction": pushed - before, "random": shaken - before}


def _states(lm: LanguageModel, prompts: Sequence[str], position: int = -1) -> Float[Tensor, "layer prompt d_model"]:
    return _known_states(lm, tuple(prompts))[:, :, position]


@lru_cache(maxsize=32)
def _known_states(lm: LanguageModel, prompts: tuple[str, ...]) -> Float[Tensor, "layer prompt pos d_model"]:
    """The stream after every layer, at as many positions from the end as the shortest prompt has."""
    streams = []
    for batch in _together(lm, prompts):
        with torch.no_grad(), read(lm, "resid_post") as seen:
            lm.hf.base_model(input_ids=batch, use_cache=False)  # no logits
        streams.append(torch.stack([seen["resid_post", layer] for layer in range(lm.n_layers)]))
    shortest = min(stream.shape[2] for stream in streams)
    return torch.cat([stream[:, :, -shortest:] for stream in streams], dim=1)


def _together(lm: LanguageModel, prompts: Sequence[str]) -> list[Tensor]:
    """All prompts in one batch where they are equally long, else each by itself."""
    rows = [lm.tokens(prompt) for prompt in prompts]
    return [torch.cat(rows)] if len({row.shape[1] for row in rows}) == 1 else rows


def _gaps(
    lm: LanguageModel,
    prompts: Sequence[str],
    pushes: Sequence[tuple[int, Tensor]],
    *,
    position: int | None = -1,
    answers: Sequence[str] = ANSWERS,
) -> Float[Tensor, "push prompt"]:
    """Logit of the second answer less that of the first, for every push: what is added after a layer.

    A push is one vector, or one for each prompt. All of them run as one batch, each on rows of its own.
    """
    first, second = (lm.token_id(word) for word in answers)
    found, start = [], 0
    for batch in _together(lm, prompts):
        count = len(batch)
        parts = [(at, (v if v.ndim == 1 else v[start : start + count]).expand(count, -1)) for at, v in pushes]
        edits = [
            Edit("resid_post", at, partial(_add_to_rows, start=row * count, push=push), position=position)
            for row, (at, push) in enumerate(parts)
        ]
        with torch.no_grad(), edit(lm, *edits):
            logits = lm.hf(batch.repeat(len(pushes), 1), logits_to_keep=1).logits[:, -1]
        found.append((logits[:, second] - logits[:, first]).reshape(len(pushes), count))
        start += count
    return torch.cat(found, dim=1)


def _add_to_rows(value: Tensor, *, start: int, push: Tensor) -> Tensor:
    value = value.clone()
    push = push if value.ndim == 2 else push[:, None]
    value[start : start + len(push)] += push
    return value


def _nouns(seed: int, count: int) -> list[tuple[str, str]]:
    """Nouns with their plurals: the same ones for the notebook, a draw of others for hidden cases."""
    return list(VISIBLE_NOUNS[:count]) if seed == 0 else random.Random(seed).sample(HIDDEN_NOUNS, count)


def _push_case(seed: int) -> tuple:
    nouns = _nouns(seed, 7)  # few, so that the check is quick
    data = {
        "singular": [f"The {noun}" for noun, _ in nouns[:4]],
        "plural": [f"The {noun}" for _, noun in nouns[:4]],
        "prompts": [f"The {noun}" for noun, _ in nouns[4:]],
        "answers": list(ANSWERS),
        "noise": _normal(seed, 8192),
    }
    return (MODEL, data)


def _push(
    lm: LanguageModel, data: dict[str, Any], *, sign: int = 1, length: str = "same", level: bool = False, **options: Any
) -> dict[str, float]:
    layer = lm.n_layers // 2
    direction = sign * (_states(lm, data["plural"]) - _states(lm, data["singular"]))[layer].mean(0)
    noise = data["noise"][: lm.d_model]
    noise = {"same": noise / noise.norm() * direction.norm(), "one": noise / noise.norm(), "own": noise}[length]
    gaps = _gaps(lm, data["prompts"], [(layer, vector) for vector in (0 * noise, direction, noise)], **options).mean(1)
    return {"direction": float(gaps[1] - gaps[0] * (not level)), "random": float(gaps[2] - gaps[0] * (not level))}


NUMBER_PUSH = Exercise(
    id="03_number_push",
    kind="finding",
    level=3,
    points=3,
    minutes=15,
    reference=number_push,
    cases=lambda seed: [_push_case(seed)],
    mistakes=(
        Mistake(
            "towards_the_singular",
            "Yours pushes towards the *singular*: class 1, plural, minus class 0, singular.",
            partial(_push, sign=-1),
        ),
        Mistake(
            "random_of_length_one",
            "Your random direction has length 1, a tiny push beside the other. A control must differ in one thing "
            "only: give it the same length.",
            partial(_push, length="one"),
        ),
        Mistake(
            "random_as_drawn",
            "Your random direction is added as it was drawn, with a length of its own. A control must differ in one "
            "thing only: make it as long as the number direction, `noise / noise.norm() * direction.norm()`.",
            partial(_push, length="own"),
        ),
        Mistake(
            "not_a_change",
            "Yours is the gap after the push. Asked is the *change*: take off the gap without any push.",
            partial(_push, level=True),
        ),
        Mistake(
            "everywhere",
            "Yours pushes at every position, the prefix token among them. Push at the noun alone: `position=-1`.",
            partial(_push, position=None),
        ),
    ),
    hints=(
        "The direction: `mk.features` of the singular and of the plural prompts, at the middle layer, mean minus mean.",
        "The gap: `mk.last_logits(lm, data['prompts'], data['answers'])`, second column minus first; once plain, once "
        "inside `with mk.edit(lm, mk.add_direction(vector, layer, position=-1)):`.",
        "For each vector return the mean of (gap with the push − gap without); the random one is "
        "`noise / noise.norm() * direction.norm()` with `noise = data['noise'][: lm.d_model]`.",
    ),
    discussion="Same place, same length, another direction: that is the whole control. The difference between the "
    "two numbers is what this *direction* does, over and above being pushed at all.",
    tolerance=1e-2,
    allowance="a push is added in float32 at every layer above",
)


# writable_from ----------------------------------------------------------------------------------------------


def writable_from(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    gaps = _swapped_gaps(lm, data)
    found = [layer for layer, gap in zip(_layers(lm, data), gaps, strict=True) if gap > 0]
    return {"layer": found[0] if found else lm.n_layers, "gaps": gaps}


def _layers(lm: LanguageModel, data: dict[str, Any]) -> list[int]:
    return [int(depth * lm.n_layers) for depth in data["depths"]]


def _swapped_gaps(lm: LanguageModel, data: dict[str, Any], **options: Any) -> list[float]:
    """The mean gap when at one layer after another each prompt's state has become its twin's."""
    words = [tuple(data[name]) for name in ("prompts", "twins", "answers")]
    return list(_known_gaps(lm, *words, tuple(_layers(lm, data)), **options)[1:])


def _plain_gap(lm: LanguageModel, data: dict[str, Any]) -> float:
    words = [tuple(data[name]) for name in ("prompts", "twins", "answers")]
    return _known_gaps(lm, *words, tuple(_layers(lm, data)))[0]


@lru_cache(maxsize=32)
def _known_gaps(
    lm: LanguageModel,
    prompts: tuple[str, ...],
    twins: tuple[str, ...],
    answers: tuple[str, ...],
    layers: tuple[int, ...],
    *,
    at: int = -1,
    to: int | None = -1,
    averaged: bool = False,
) -> tuple[float, ...]:
    """The mean gap without a change, then with each layer's difference of twins, read and written where it says."""
    apart = _states(lm, twins, at) - _states(lm, prompts, at)
    apart = apart.mean(1, keepdim=True).expand_as(apart) if averaged else apart
    pushes = [(0, 0 * apart[0]), *((layer, apart[layer]) for layer in layers)]
    return tuple(_gaps(lm, prompts, pushes, position=to, answers=answers).mean(1).tolist())


def _first_above(
    lm: LanguageModel, data: dict[str, Any], gaps: list[float], bar: float = 0.0, *, none: int | None = None
) -> dict[str, Any]:
    found = [layer for layer, gap in zip(_layers(lm, data), gaps, strict=True) if gap > bar]
    return {"layer": found[0] if found else lm.n_layers if none is None else none, "gaps": gaps}


def _wrongly_written(lm: LanguageModel, data: dict[str, Any], *, noun: Sequence[str] = (), **options: Any) -> dict:
    places = dict.fromkeys(noun, data["noun"])
    return _first_above(lm, data, _swapped_gaps(lm, data, **places, **options))


def _any_rise(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    return _first_above(lm, data, _swapped_gaps(lm, data), _plain_gap(lm, data))


def _change(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    return _first_above(lm, data, [gap - _plain_gap(lm, data) for gap in _swapped_gaps(lm, data)])


def _layer_before(lm: LanguageModel, data: dict[str, Any]) -> dict[str, Any]:
    found, layers = writable_from(lm, data), [-1, *_layers(lm, data), lm.n_layers]
    return found | {"layer": layers[layers.index(found["layer"]) - 1]}


def _depth_case(seed: int) -> tuple:
    nouns = _nouns(seed, 2)  # few, so that the check is quick
    late = (0.94, 0.91, 0.88)[seed % 3]
    data = {
        "prompts": [f"The {noun} near the door" for noun, _ in nouns],
        "twins": [f"The {noun} near the door" for _, noun in nouns],
        "noun": -4,
        "answers": list(ANSWERS),
        "depths": [0.1, 0.6, late, 0.98],
    }
    return (MODEL, data)


def _never_flips(seed: int) -> tuple:
    """A small model and two answers of which the first stays ahead, whatever is written."""
    people = ("king", "man", "John", "Paul", "school"), ("queen", "woman", "Mary", "Emma", "friends")
    rng, tiny = random.Random(seed), Tiny(seed)
    while True:
        names = rng.sample(list(zip(*people, strict=True)), 2)
        data = {
            "prompts": [f" the {one} was at Paris" for one, _ in names],
            "twins": [f" the {other} was at Paris" for _, other in names],
            "noun": -4,
            "answers": rng.sample([" is", " was", " gave", " went", " drink"], 2),
            "depths": [0.1, 0.4],
        }
        lm = tiny_model(tiny.family, seed=tiny.seed, d_model=tiny.d_model)
        if max(_plain_gap(lm, data), *_swapped_gaps(lm, data)) < 0:
            return (tiny, data)


WRITABLE_FROM = Exercise(
    id="03_writable_from",
    kind="finding",
    level=3,
    points=3,
    minutes=12,
    reference=writable_from,
    cases=lambda seed: [_depth_case(seed), _never_flips(seed)],
    mistakes=(
        Mistake(
            "at_the_noun",
            "Yours writes at the noun. There it works from the start, since everything after it is still to be "
            "computed; asked is the *last* token.",
            partial(_wrongly_written, noun=("at", "to")),
        ),
        Mistake(
            "the_nouns_arrow",
            "Yours writes at the last token what differs at the *noun*. What tells the numbers apart here is another "
            "arrow: read the difference at the place where you write it.",
            partial(_wrongly_written, noun=("at",)),
        ),
        Mistake(
            "one_for_all",
            "Yours adds the *mean* difference to every prompt. That is one arrow; the whole difference is each "
            "prompt's own, twin minus itself.",
            partial(_wrongly_written, averaged=True),
        ),
        Mistake(
            "any_rise",
            "Yours takes the first layer at which the gap rises at all: a random push does that too. Asked is the "
            "first at which its mean is above 0, so that the answer flips.",
            _any_rise,
        ),
        Mistake(
            "change",
            "Yours are *changes* of the gap. Asked is the gap itself after each push: above 0 the answer has flipped, "
            "and that a change cannot tell.",
            _change,
        ),
        Mistake(
            "layer_before",
            "Yours is the last layer that does *not* flip the answer. The next one on the list is the answer.",
            _layer_before,
        ),
        Mistake(
            "everywhere",
            "Yours pushes at every position, the noun among them. Push at the last token alone: `position=-1`.",
            partial(_wrongly_written, to=None),
        ),
        Mistake(
            "last_tried_if_none",
            "Where no layer flips the answer, yours names the last one tried all the same. Say `lm.n_layers`, one past "
            "the last.",
            lambda lm, data: _first_above(lm, data, _swapped_gaps(lm, data), none=_layers(lm, data)[-1]),
        ),
        Mistake(
            "first_tried_if_none",
            "Where no layer flips the answer, yours names the first one tried. Say `lm.n_layers`, one past the last.",
            lambda lm, data: _first_above(lm, data, _swapped_gaps(lm, data), none=_layers(lm, data)[0]),
        ),
    ),
    hints=(
        "Layers to try: `int(depth * lm.n_layers)` for each depth, lowest first. The whole difference at the last "
        "token: `mk.features(lm, data['twins']) - mk.features(lm, data['prompts'])`, `[layer prompt d_model]`.",
        "Each prompt has a difference of its own, so push prompt by prompt: inside "
        "`with mk.edit(lm, mk.add_direction(apart[layer, i], layer, position=-1)):` take "
        "`mk.last_logits(lm, [prompt], data['answers'])`, column 1 minus column 0.",
        "For each layer append the mean of these gaps to a list `gaps`; then "
        "`next((layer for layer, gap in zip(layers, gaps) if gap > 0), lm.n_layers)`.",
    ),
    properties=(
        Property(
            "The layer is one of those to try, or the number of layers if none does it.",
            lambda result, lm, data: result["layer"] in (*_layers(lm, data), lm.n_layers),
        ),
    ),
    discussion="Swapping the whole state is the most that writing here can do, whatever the direction. A probe reads "
    "the number at the last token long before this layer; until late it is hardly what the model acts on: later layers "
    "fetch the number from the noun.",
    tolerance=1e-2,
    allowance="a gap over few prompts turns on rounding",
)


# erase ------------------------------------------------------------------------------------------------------


def erase(
    x: Float[Tensor, "example d"], direction: Float[Tensor, " d"], mean: Float[Tensor, " d"]
) -> Float[Tensor, "example d"]:
    length = sum(float(part) ** 2 for part in direction) ** 0.5
    unit = direction / length
    rows = []
    for row in x:
        along = sum(float(a) * float(b) for a, b in zip(row - mean, unit, strict=True))
        rows.append(row - along * unit)
    return torch.stack(rows)


def _along(x: Tensor, direction: Tensor) -> Tensor:
    return (x @ direction)[:, None] * direction / direction.square().sum()


ERASE = Exercise(
    id="03_erase",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=erase,
    cases=lambda seed: [
        (_normal(seed, 12, 6) + 2, 3 * _normal(seed + 1, 6), _normal(seed + 2, 6) + 2),
        (_normal(seed + 3, 5, 9), 0.4 * _normal(seed + 4, 9), _normal(seed + 5, 9)),
    ],
    mistakes=(
        Mistake(
            "not_unit_length",
            "Yours uses `direction` as it is, so twice as long a direction erases four times as much. Divide by its "
            "squared length (or make it one unit long).",
            lambda x, direction, mean: x - ((x - mean) @ direction)[:, None] * direction,
        ),
        Mistake(
            "around_the_origin",
            "Yours erases around the origin: every vector loses what lies along the direction *on average* too, and "
            "lands where the model has never been. Measure from `mean`.",
            lambda x, direction, mean: x - _along(x, direction),
        ),
        Mistake(
            "kept_instead",
            "Yours keeps what lies along the direction and erases the rest. Subtract it.",
            lambda x, direction, mean: mean + _along(x - mean, direction),
        ),
        Mistake(
            "mirrored",
            "Yours takes it off twice: that is a mirror, singular becomes plural. Take it off once.",
            lambda x, direction, mean: x - 2 * _along(x - mean, direction),
        ),
        Mistake(
            "moved_to_zero",
            "Yours also takes off the mean. Only what lies along the direction should go: start from `x`.",
            lambda x, direction, mean: (x - mean) - _along(x - mean, direction),
        ),
    ),
    hints=(
        "How far does `x - mean` reach along the direction? That is a projection (chapter 00).",
        "With `u = direction / direction.norm()`, the shadow is `(x - mean) @ u`, one number a row.",
        "Return `x - ((x - mean) @ u)[:, None] * u`.",
    ),
    properties=(
        Property(
            "Afterwards every row must reach equally far along the direction: as far as `mean`.",
            lambda result, x, direction, mean: bool(((result.float() - mean) @ direction).abs().max() < 1e-2),
        ),
    ),
    discussion="One direction is gone; but is the *property*? Along the mean difference it is, for every linear probe: "
    "the class means are then equal. Along a probe's own direction it need not be, since coordinates are correlated.",
    teaches=("project_out",),
)


# leace ------------------------------------------------------------------------------------------------------


def leace(x: Float[Tensor, "example d"], y: Int[Tensor, " example"]) -> Float[Tensor, "example d"]:
    data = x.double()
    mean = data.mean(0)
    values, vectors = torch.linalg.eigh((data - mean).T @ (data - mean) / len(x))
    whiten, colour = ((vectors * values**power) @ vectors.T for power in (-0.5, 0.5))
    unit = whiten @ (data[y == 1].mean(0) - data[y == 0].mean(0))
    unit = unit / unit.norm()
    rows = []
    for row in data:
        white = whiten @ (row - mean)
        rows.append(row - colour @ ((white @ unit) * unit))
    return torch.stack(rows).float()


def _parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = x.double()
    mean = data.mean(0)
    return data, mean, (data - mean).T @ (data - mean) / len(x), data[y == 1].mean(0) - data[y == 0].mean(0)


def _lda_projection(x: Tensor, y: Tensor) -> Tensor:
    data, mean, covariance, gap = _parts(x, y)
    direction = torch.linalg.solve(covariance, gap)
    return (data - _along(data - mean, direction)).float()


def _orthogonal(x: Tensor, y: Tensor) -> Tensor:
    data, mean, _, gap = _parts(x, y)
    return (data - _along(data - mean, gap)).float()


def _around_origin(x: Tensor, y: Tensor) -> Tensor:
    data, _, covariance, gap = _parts(x, y)
    read = torch.linalg.solve(covariance, gap)
    return (data - (data @ read)[:, None] * gap / (gap @ read)).float()


def _with_labels(x: Tensor, y: Tensor, centre: float | None = None) -> Tensor:
    data, _, _, gap = _parts(x, y)
    return (data - (y.double() - (y.double().mean() if centre is None else centre))[:, None] * gap).float()


def _skewed(seed: int) -> tuple:
    y = torch.arange(80) % 2
    x = _normal(seed, 80, 5) @ (_normal(seed + 1, 5, 5) + 2 * torch.eye(5)) + 1.5 * y[:, None] * _normal(seed + 2, 5)
    return (x + 3, y)


LEACE = Exercise(
    id="03_leace",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=leace,
    cases=lambda seed: [_skewed(seed), _skewed(seed + 70)],
    mistakes=(
        Mistake(
            "plain_projection",
            "Yours projects out the mean difference at right angles. That makes the means equal too, but moves the "
            "activations further than it must: read with S⁻¹ gap, and take off along the gap.",
            _orthogonal,
        ),
        Mistake(
            "read_direction_removed",
            "Yours projects out the *reading* direction S⁻¹ gap. Take off along the gap itself: reading and writing "
            "directions differ.",
            _lda_projection,
        ),
        Mistake(
            "around_the_origin",
            "Yours measures from the origin. Measure from the mean: `x - mean`.",
            _around_origin,
        ),
        Mistake(
            "uses_the_labels",
            "Yours moves each example by its *label*. An eraser has to work on a new example whose label nobody "
            "knows: it may only look at the vector.",
            _with_labels,
        ),
        Mistake(
            "off_class_one",
            "Yours takes the gap off the rows of class 1: it looks at their *label*. An eraser has to work on a new "
            "example whose label nobody knows: it may only look at the vector.",
            partial(_with_labels, centre=0.0),
        ),
    ),
    hints=(
        "Three ingredients: `mean = x.mean(0)`, the covariance `S = (x - mean).T @ (x - mean) / len(x)`, and "
        "`gap`, the mean difference.",
        "How much to take off: `read = torch.linalg.solve(S, gap)`, then `(x - mean) @ read / (gap @ read)`, one "
        "number a row.",
        "Return `x - ((x - mean) @ read / (gap @ read))[:, None] * gap`.",
    ),
    properties=(
        Property(
            "Afterwards the two classes must have the same mean.",
            lambda result, x, y: bool((result[y == 1].mean(0) - result[y == 0].mean(0)).abs().max() < 1e-2),
        ),
    ),
    discussion="Equal class means are exactly what it takes to keep every linear probe at chance, and this is the "
    "smallest change (in the mean square) that reaches it. A *nonlinear* probe may still find the property.",
    tolerance=1e-3,
    teaches=("fit_leace", "LeaceFitter", "LeaceEraser"),
)


# fair_control: design ---------------------------------------------------------------------------------------


def fair_control(data: dict[str, Any], lm: LanguageModel) -> dict[str, Any]:
    return _measured("random, same length", data, lm)


def _measured(choice: str, data: dict[str, Any], lm: LanguageModel, position: int | None = -1) -> dict[str, Any]:
    direction = data["directions"][choice]
    pushes = [(data["layer"], vector) for vector in (0 * direction, direction)]
    before, after = _gaps(lm, [data["prompt"]], pushes, position=position, answers=data["answers"])
    return {"choice": choice, "shift": float(after - before)}


def _control_case(seed: int) -> tuple:
    tiny = Tiny(seed)
    direction, noise = _normal(seed, tiny.d_model), _normal(seed + 1, tiny.d_model)
    data = {
        "directions": {
            "half of it": direction / 2,
            "the opposite": -direction,
            "random, same length": noise / noise.norm() * direction.norm(),
            "random, length one": noise / noise.norm(),
        },
        "layer": 1,
        "prompt": random.Random(seed).choice(("The king of France", "The queen of Spain", "John gave the book")),
        "answers": [" is", " was"],
    }
    return (data, tiny)


FAIR_CONTROL = Exercise(
    id="03_fair_control",
    kind="code",
    level=2,
    points=3,
    minutes=10,
    reference=fair_control,
    cases=lambda seed: [_control_case(seed)],
    mistakes=(
        Mistake(
            "half_of_it",
            "Half of the direction is still the direction: if it flips the answer too, that only says that a smaller "
            "dose is enough. It cannot refute the claim.",
            lambda data, lm: _measured("half of it", data, lm),
        ),
        Mistake(
            "opposite",
            "The opposite shows that the sign matters, which a claim about *this direction* predicts as well. It "
            "cannot tell the direction from a push of its size along the same line.",
            lambda data, lm: _measured("the opposite", data, lm),
        ),
        Mistake(
            "length_one",
            "A random direction, but a much shorter push: if nothing happens, that may be the length. Change one "
            "thing at a time.",
            lambda data, lm: _measured("random, length one", data, lm),
        ),
        Mistake(
            "not_a_change",
            "The right control; but yours is the gap *after* the push. Its evidence is the change: take off the gap "
            "without any push.",
            lambda data, lm: {
                "choice": "random, same length",
                "shift": float(
                    _gaps(
                        lm,
                        [data["prompt"]],
                        [(data["layer"], data["directions"]["random, same length"])],
                        answers=data["answers"],
                    )
                ),
            },
        ),
        Mistake(
            "everywhere",
            "The right control in the wrong place: yours is added at every position. Add it where the real one was, "
            "`position=-1`.",
            lambda data, lm: _measured("random, same length", data, lm, None),
        ),
    ),
    hints=(
        "The rival explanation: *any* push of that size would do. Which direction is a push of that size, and has "
        "nothing to do with number?",
        "Length and place the same, direction another.",
        "The gap is `mk.last_logits(lm, [data['prompt']], data['answers']).diff(dim=-1)`. Add "
        "`data['directions']['random, same length']` at `data['layer']`, `position=-1`, and return the choice with the "
        "change of that gap.",
    ),
    discussion="A good control differs from the experiment in exactly the thing that the claim is about. And one "
    "random direction is one draw: the next cells draw a new one for each layer.",
    tolerance=1e-3,
    control=True,
    choice=True,
)


CHAPTER = Chapter(
    number="03",
    title="probes",
    notebook="03_probes",
    question="Is it readable, and is it used?",
    minutes=160,
    needs=("00",),
    exercises=(
        STANDARDISE,
        MEAN_DIFFERENCE,
        HONEST_ACCURACY,
        FIRST_READABLE,
        CONTROL_LABELS,
        SELECTIVITY,
        AUC,
        MOST_REVERSED,
        CCS_LOSS,
        IMPOSTOR,
        NUMBER_PUSH,
        FAIR_CONTROL,
        WRITABLE_FROM,
        ERASE,
        LEACE,
    ),
    claim=Claim(
        statements={
            "probe_is_use": Option(
                "whatever a probe reads at a place, the model uses there",
                False,
                "The number was readable at the last token in the middle layers, and writing it there, even the whole "
                "state, hardly moved the verb",
            ),
            "noun_decides": Option(
                "the number direction at the noun is what the model takes its verb from",
                True,
                "Added there it flipped the verb, erased there the agreement suffered; the controls did neither",
            ),
            "truth_direction": Option(
                "the model holds a direction of truth",
                False,
                "The probe named so put negations the wrong way round: it follows which country goes with which city",
            ),
        },
        evidence={
            "readable": Option("a probe finds it", False, "That is the word for what the probes found"),
            "correlated": Option(
                "it goes along with the number", False, "It would be the word had we only watched; we wrote and erased"
            ),
            "sufficient": Option(
                "added, it is enough to flip the verb",
                False,
                "True, and half of it: without the erasure another source might do as well",
            ),
            "used": Option(
                "sufficient and necessary: added, it flips the verb; taken away, the agreement suffers",
                True,
                "Both, for these sentences and in this measure",
            ),
        },
        refuted_by={
            "random_flips": Option(
                "random directions of the same length that flip the verb as often",
                True,
                "Then the push, not the direction, would be what counts",
            ),
            "better_probe": Option(
                "a probe with a higher accuracy at another layer",
                False,
                "Accuracy speaks about reading; the claim is about use",
            ),
            "nonlinear_rest": Option(
                "a nonlinear probe that still reads the number after erasure",
                False,
                "It would show what erasure left, not that the direction does nothing",
            ),
        },
    ),
)
