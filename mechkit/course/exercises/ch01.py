"""Chapter 01, toy superposition: how do more features than dimensions fit?"""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option, Property
from mechkit.data.topics import TOPICS
from mechkit.methods.toy import Toy, ToyModels, random_directions, train_toys
from mechkit.network.cache import run
from mechkit.network.model import LanguageModel

LONG, STRONG = 0.5, 0.5


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=32)
def _trained(seed: int, *sparsity: float, n: int, d: int = 2, kind: str = "relu") -> ToyModels:
    """A few small models, quickly trained: rough, but of the right kind."""
    toy = Toy(0.9 ** torch.arange(float(n)), d, kind)
    return train_toys(toy, sparsity, copies=3, steps=400, seed=seed, progress=False)


def _vectors(seed: int, n: int, d: int) -> Float[Tensor, "feature d_hidden"]:
    """Random vectors, some short and some long, none near the length that decides."""
    lengths = [0.1, 0.3, 0.4, 0.62, 0.67, 0.8, 1.0, 1.2]
    drawn = torch.tensor(random.Random(seed).sample(lengths, n))
    return drawn[:, None] * random_directions(n, d, seed=seed)


# reconstruct --------------------------------------------------------------------------------------------------


def reconstruct(
    x: Float[Tensor, "batch feature"], W: Float[Tensor, "feature d_hidden"], b: Float[Tensor, " feature"]
) -> Float[Tensor, "batch feature"]:
    rows = []
    for each in x:
        hidden = sum(each[i] * W[i] for i in range(len(W)))
        rows.append(torch.stack([torch.relu(hidden @ W[i] + b[i]) for i in range(len(W))]))
    return torch.stack(rows)


def _toy_case(seed: int, n: int, d: int) -> tuple:
    g = _generator(seed)
    return (torch.rand(6, n, generator=g), torch.randn(n, d, generator=g), 0.3 * torch.randn(n, generator=g))


RECONSTRUCT = Exercise(
    id="01_reconstruct",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=reconstruct,
    cases=lambda seed: [_toy_case(seed, 5, 2), _toy_case(seed + 100, 7, 3)],
    mistakes=(
        Mistake(
            "no_relu",
            "Yours leaves out the ReLU: it reads negative numbers back, though no feature is ever negative. That "
            "model comes later, as a control.",
            lambda x, W, b: x @ W @ W.T + b,
        ),
        Mistake("no_bias", "Yours leaves out the bias: add `b` before the ReLU.", lambda x, W, b: (x @ W @ W.T).relu()),
        Mistake(
            "bias_after",
            "Yours adds the bias *after* the ReLU. Inside, a negative bias can silence a little noise; outside it "
            "cannot.",
            lambda x, W, b: (x @ W @ W.T).relu() + b,
        ),
        Mistake(
            "relu_on_hidden",
            "Yours has the ReLU on the hidden numbers. Here it stands at the end, on what is read back.",
            lambda x, W, b: (x @ W).relu() @ W.T + b,
        ),
        Mistake(
            "relu_twice",
            "Yours has a ReLU on the hidden numbers as well. They may be negative here: that is how two opposite "
            "features share one of them. Only what is read back goes through the ReLU.",
            lambda x, W, b: ((x @ W).relu() @ W.T + b).relu(),
        ),
    ),
    hints=(
        "Two matrix products: one squeezes [batch feature] into [batch d_hidden], one reads back.",
        "Squeezing is `x @ W`. Reading back asks how much of each feature's own vector is in there: `… @ W.T`.",
        "Return `(x @ W @ W.T + b).relu()`.",
    ),
    properties=(Property("After a ReLU nothing is negative; yours is.", lambda result, *_: bool((result >= 0).all())),),
    discussion="One matrix writes and reads: a feature is read along the direction on which it was written. So what "
    "feature i hears of feature j is the dot product of their vectors, before bias and ReLU.",
)


# weighted_loss ------------------------------------------------------------------------------------------------


def weighted_loss(
    x: Float[Tensor, "batch feature"], output: Float[Tensor, "batch feature"], importance: Float[Tensor, " feature"]
) -> float:
    total = 0.0
    for i in range(len(x)):
        for j in range(len(importance)):
            total += float(importance[j]) * float(x[i, j] - output[i, j]) ** 2
    return total / x.numel()


def _loss_case(seed: int) -> tuple:
    g = _generator(seed)
    return (torch.rand(8, 5, generator=g), torch.rand(8, 5, generator=g), 0.7 ** torch.arange(5.0))


WEIGHTED_LOSS = Exercise(
    id="01_weighted_loss",
    kind="code",
    level=1,
    points=1,
    minutes=5,
    reference=weighted_loss,
    cases=lambda seed: [_loss_case(seed)],
    mistakes=(
        Mistake(
            "not_weighted",
            "Yours counts every feature alike. Multiply each squared error by its feature's importance.",
            lambda x, output, importance: float((x - output).square().mean()),
        ),
        Mistake(
            "weight_squared",
            "Yours multiplies the error by the importance and squares afterwards, so the importance is squared too.",
            lambda x, output, importance: float((importance * (x - output)).square().mean()),
        ),
        Mistake(
            "sum",
            "Yours adds the errors up, so a larger batch looks worse. Take the mean over inputs and features.",
            lambda x, output, importance: float((importance * (x - output) ** 2).sum()),
        ),
        Mistake(
            "sum_over_features",
            "Yours adds up over the features and takes the mean over the inputs only. Take the mean over both.",
            lambda x, output, importance: float((importance * (x - output) ** 2).sum(-1).mean()),
        ),
        Mistake(
            "absolute",
            "Yours takes absolute errors. Asked are squared ones.",
            lambda x, output, importance: float((importance * (x - output).abs()).mean()),
        ),
        Mistake(
            "weighted_mean",
            "Yours divides by the sum of the importances. Take the plain mean: over all inputs and features.",
            lambda x, output, importance: float((importance * (x - output) ** 2).sum(-1).mean() / importance.sum()),
        ),
    ),
    hints=(
        "First the squared errors, [batch feature]. `importance` has one number a feature: it broadcasts.",
        "Return `float((importance * (x - output) ** 2).mean())`.",
    ),
    discussion="Importance is what the task pays for a feature; sparsity is how often it is needed. The two decide "
    "together who gets a place.",
)


# represented --------------------------------------------------------------------------------------------------


def represented(W: Float[Tensor, "sparsity feature d_hidden"]) -> list[int]:
    counts = []
    for instance in W:
        counts.append(sum(1 for vector in instance if sum(float(v) ** 2 for v in vector) ** 0.5 > LONG))
    return counts


def _represented_cases(seed: int) -> list[tuple]:
    n, d = [(5, 2), (4, 2), (6, 3), (6, 2), (7, 3)][seed % 5]
    mixed = torch.stack([_vectors(10 * seed + i, 6, 3) for i in range(4)])
    flat = mixed * torch.tensor([0.0, 0.0, 0.01])  # a third dimension that counts for a rank, hardly for a length
    flat[..., :2] = torch.stack([_vectors(10 * seed + i, 6, 2) for i in range(4, 8)])
    return [(_trained(seed, 0.0, 0.5, 0.8, 0.95, n=n, d=d).best,), (mixed,), (flat,)]


REPRESENTED = Exercise(
    id="01_represented",
    kind="finding",
    level=2,
    points=2,
    minutes=8,
    reference=represented,
    cases=_represented_cases,
    mistakes=(
        Mistake(
            "squared_length",
            "Yours compares the *squared* length with a half. A vector of length 0.6 counts, though its square is "
            "0.36.",
            lambda W: (W.square().sum(-1) > LONG).sum(-1).tolist(),
        ),
        Mistake(
            "entries",
            "Yours counts large *numbers* in W. A feature is a whole row: take the length of each row first.",
            lambda W: (W.abs() > LONG).sum((-2, -1)).tolist(),
        ),
        Mistake(
            "columns",
            "Yours takes the lengths of the columns: those are the hidden dimensions. A feature is a *row* of W.",
            lambda W: (W.norm(dim=-2) > LONG).sum(-1).tolist(),
        ),
        Mistake(
            "rank",
            "Yours is the rank of each W: how many dimensions its vectors span, which is never more than there are. "
            "Asked is how many features have a vector.",
            lambda W: torch.linalg.matrix_rank(W).tolist(),
        ),
        Mistake(
            "short_ones",
            "Yours counts the features that are left out. Asked are those whose vector is longer than a half.",
            lambda W: (W.norm(dim=-1) < LONG).sum(-1).tolist(),
        ),
        Mistake(
            "total",
            "Yours is one total. Return a list: one count for each sparsity.",
            lambda W: int((W.norm(dim=-1) > LONG).sum()),
        ),
    ),
    hints=(
        "`W.norm(dim=-1)` is the length of every feature's vector: [sparsity feature].",
        "Compare with 0.5, and sum over the features.",
        "Return `(W.norm(dim=-1) > 0.5).sum(-1).tolist()`.",
    ),
    properties=(
        Property(
            "There cannot be more represented features than features.",
            lambda result, W: all(0 <= count <= W.shape[1] for count in result),
        ),
    ),
    discussion="Dense, the model keeps as many features as it has dimensions and drops the rest. The sparser the "
    "features, the more of them it keeps, though nothing about the model has grown.",
    teaches=("is_represented",),
)


# dimensionality -----------------------------------------------------------------------------------------------


def dimensionality(W: Float[Tensor, "feature d_hidden"]) -> Float[Tensor, " feature"]:
    shares = []
    for row in W:
        unit = row / row.norm()
        claimed = sum((unit @ other) ** 2 for other in W)
        shares.append(row @ row / claimed)
    return torch.stack(shares)


def _unit(W: Tensor) -> Tensor:
    return W / W.norm(dim=-1, keepdim=True)


def _others(squares: Tensor) -> Tensor:
    return squares.sum(-1) - squares.diagonal()


DIMENSIONALITY = Exercise(
    id="01_dimensionality",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=dimensionality,
    cases=lambda seed: [(_vectors(seed, 6, 3),), (_vectors(seed + 50, 5, 2),)],
    mistakes=(
        Mistake(
            "no_unit",
            "Yours projects on W_i itself. The denominator asks what lies along its *direction*: divide W_i by its "
            "length there first.",
            lambda W: W.square().sum(-1) / (W @ W.T).square().sum(-1),
        ),
        Mistake(
            "not_itself",
            "Yours leaves the feature itself out of the sum. It counts too: alone on its direction, a feature has "
            "dimensionality 1.",
            lambda W: W.square().sum(-1) / _others((_unit(W) @ W.T).square()),
        ),
        Mistake(
            "length",
            "Yours has the length of W_i on top. Asked is its *square*.",
            lambda W: W.norm(dim=-1) / (_unit(W) @ W.T).square().sum(-1),
        ),
        Mistake(
            "cosines",
            "Yours divides by squared cosines, so the lengths of the other vectors are lost. Only W_i is scaled to "
            "length 1; a long neighbour claims more than a short one.",
            lambda W: W.square().sum(-1) / (_unit(W) @ _unit(W).T).square().sum(-1),
        ),
        Mistake(
            "not_squared",
            "Yours adds up dot products, so that opposite ones cancel. Square each first.",
            lambda W: W.square().sum(-1) / (_unit(W) @ W.T).sum(-1),
        ),
        Mistake(
            "squared_after_the_sum",
            "Yours squares the sum. Each dot product is squared first, and the squares are added: opposite ones must "
            "not cancel.",
            lambda W: W.square().sum(-1) / (_unit(W) @ W.T).sum(-1).square(),
        ),
        Mistake(
            "by_others_direction",
            "Yours is the other way round: what W_i writes on the directions of the others. Asked is what they write "
            "on its own, so only W_i is scaled to length 1.",
            lambda W: W.square().sum(-1) / (W @ _unit(W).T).square().sum(-1),
        ),
        Mistake(
            "one_length",
            "Yours divides by *one* length, that of the whole matrix. Each row has its own: "
            "`W.norm(dim=-1, keepdim=True)`.",
            lambda W: W.square().sum(-1) / ((W / W.norm()) @ W.T).square().sum(-1),
        ),
    ),
    hints=(
        "With u = W / length, `u @ W.T` holds every u_i · W_j: [feature feature].",
        "Square it and sum over j: that is the denominator. On top stands the squared length of W_i.",
        "`u = W / W.norm(dim=-1, keepdim=True)`, then `W.square().sum(-1) / (u @ W.T).square().sum(-1)`.",
    ),
    properties=(
        Property(
            "A share of a dimension lies between 0 and 1.",
            lambda result, W: bool(((result >= 0) & (result <= 1 + 1e-5)).all()),
        ),
    ),
    discussion="The shares of all features add up to at most the number of dimensions, and in trained models to nearly "
    "all of it. So an average of d/n is no news, nor is every feature at d/n: an even share. That the features of one "
    "model stand at *different* simple fractions is: then look which vectors share.",
    teaches=("dimensionality",),
)


# interference -------------------------------------------------------------------------------------------------


def interference(W: Float[Tensor, "feature d_hidden"]) -> Float[Tensor, " feature"]:
    sums = []
    for i, row in enumerate(W):
        unit = row / row.norm()
        sums.append(sum((unit @ other) ** 2 for j, other in enumerate(W) if j != i))
    return torch.stack(sums)


INTERFERENCE = Exercise(
    id="01_interference",
    kind="code",
    level=2,
    points=2,
    minutes=8,
    reference=interference,
    cases=lambda seed: [(_vectors(seed + 7, 6, 3),), (_vectors(seed + 57, 5, 2),)],
    mistakes=(
        Mistake(
            "with_itself",
            "Yours counts the feature itself. What it writes on its own direction is signal, not interference.",
            lambda W: (_unit(W) @ W.T).square().sum(-1),
        ),
        Mistake(
            "signed",
            "Yours adds signed overlaps, so that an opposite vector cancels a parallel one. Two such neighbours are on "
            "at different times: square each overlap first.",
            lambda W: _others(_unit(W) @ W.T),
        ),
        Mistake(
            "no_unit",
            "Yours projects on W_i itself. Scale W_i to length 1: only its direction matters here.",
            lambda W: _others((W @ W.T).square()),
        ),
        Mistake(
            "cosines",
            "Yours sums squared cosines. The *other* vectors keep their lengths: a short one disturbs little.",
            lambda W: _others((_unit(W) @ _unit(W).T).square()),
        ),
        Mistake(
            "by_others_direction",
            "Yours is the other way round: what feature i writes on the others. Asked is what they write on i.",
            lambda W: _others((W @ _unit(W).T).square()),
        ),
        Mistake(
            "minus_one",
            "Yours takes off 1 for the feature itself. What it writes on its own direction is its squared length, "
            "which is 1 only for some.",
            lambda W: (_unit(W) @ W.T).square().sum(-1) - 1,
        ),
    ),
    hints=(
        "It is the sum of the last exercise's denominator without the term j = i. How large is that term?",
        "u_i · W_i is the length of W_i, so its square is `W.square().sum(-1)`.",
        "`(u @ W.T).square().sum(-1) - W.square().sum(-1)`, with `u = W / W.norm(dim=-1, keepdim=True)`.",
    ),
    discussion="Interference costs only when two features are on together. Halve how often each is on, and a pair "
    "meets a quarter as often: that is why sparsity pays for superposition.",
    teaches=("interference",),
)


# neighbour_angle ----------------------------------------------------------------------------------------------


def neighbour_angle(W: Float[Tensor, "feature d_hidden"]) -> float:
    vectors = [row for row in W if row.norm() > LONG]
    angles = []
    for i, row in enumerate(vectors):
        cosines = [row @ other / row.norm() / other.norm() for j, other in enumerate(vectors) if j != i]
        angles.append(float(torch.rad2deg(torch.arccos(max(cosines).clamp(-1, 1)))))
    return sum(angles) / len(angles)


def _angles(W: Tensor, *, all_features: bool = False) -> Tensor:
    """Angles in degrees between all pairs; a vector's angle with itself is infinite."""
    unit = _unit(W if all_features else W[W.norm(dim=-1) > LONG])
    angles = torch.rad2deg(torch.arccos((unit @ unit.T).clamp(-1, 1)))
    return angles.masked_fill(torch.eye(len(unit), dtype=torch.bool), torch.inf)


def _finite_mean(angles: Tensor) -> float:
    return float(angles[angles.isfinite()].mean())


NEIGHBOUR_ANGLE = Exercise(
    id="01_neighbour_angle",
    kind="finding",
    level=2,
    points=2,
    minutes=12,
    reference=neighbour_angle,
    cases=lambda seed: [
        (_trained(seed, 0.97, n=[5, 3, 4, 6][seed % 4]).best[0],),
        (_vectors(seed + 20, 7, 2),),
    ],
    mistakes=(
        Mistake(
            "radians",
            "Yours is in radians. Asked are degrees: `torch.rad2deg`.",
            lambda W: float(torch.deg2rad(_angles(W).amin(-1)).mean()),
        ),
        Mistake(
            "cosine",
            "Yours is the neighbours' mean cosine. Take `arccos` of each, in degrees, and average afterwards.",
            lambda W: float(torch.deg2rad(_angles(W).amin(-1)).cos().mean()),
        ),
        Mistake(
            "itself",
            "Yours takes each vector as its own nearest neighbour, at 0 degrees. Leave out the diagonal.",
            lambda W: 0.0,
        ),
        Mistake(
            "short_ones",
            "Yours includes features that are not represented. A vector of almost no length has a direction, but it "
            "means nothing: keep rows longer than 0.5.",
            lambda W: float(_angles(W, all_features=True).amin(-1).mean()),
        ),
        Mistake(
            "all_pairs",
            "Yours averages over all pairs. Asked is each vector's *nearest* neighbour.",
            lambda W: _finite_mean(_angles(W)),
        ),
        Mistake(
            "closest_pair",
            "Yours is the one closest pair. Asked is the mean over all features of the angle to its own nearest.",
            lambda W: float(_angles(W).min()),
        ),
        Mistake(
            "axes",
            "Yours takes the absolute cosine, so that an opposite vector counts as near. These are arrows, not axes: "
            "opposite is as far as can be.",
            lambda W: float(torch.minimum(_angles(W), 180 - _angles(W)).abs().amin(-1).mean()),
        ),
        Mistake(
            "mean_before_arccos",
            "Yours averages the cosines and takes one angle of the mean. Take each feature's angle first, then the "
            "mean of the angles.",
            lambda W: float(torch.rad2deg(torch.deg2rad(_angles(W).amin(-1)).cos().mean().arccos())),
        ),
    ),
    hints=(
        "Keep `W[W.norm(dim=-1) > 0.5]`, scale each row to length 1; then `u @ u.T` holds the cosines.",
        "The nearest neighbour has the largest cosine. Put −1 on the diagonal first: `c.fill_diagonal_(-1)`.",
        "`float(torch.rad2deg(torch.arccos(c.amax(-1).clamp(-1, 1))).mean())`.",
    ),
    properties=(Property("An angle to a neighbour lies above 0 and up to 180.", lambda result, W: 0 < result <= 180),),
    discussion="A full turn shared by five is 72 degrees, whose cosine is 0.31: a regular pentagon. Nobody asked for "
    "one. It keeps positive overlaps small; the negative ones a ReLU can silence.",
    tolerance=1e-3,
)


# fair_loss: repair --------------------------------------------------------------------------------------------


def fair_loss(
    x: Float[Tensor, "sparsity batch feature"], output: Float[Tensor, "sparsity copy batch feature"]
) -> Float[Tensor, " sparsity"]:
    shares = []
    for inputs, copies in zip(x, output, strict=True):
        constant = sum((row - inputs.mean(0)).square().sum() for row in inputs)
        errors = [sum((row - read).square().sum() for row, read in zip(inputs, copy, strict=True)) for copy in copies]
        shares.append(sum(errors) / len(errors) / constant)
    return torch.stack(shares)


def _errors(x: Tensor, output: Tensor) -> Float[Tensor, "sparsity copy"]:
    return (x[:, None] - output).square().mean((-2, -1))


def _spread(x: Tensor) -> Float[Tensor, " sparsity"]:
    return (x - x.mean(1, keepdim=True)).square().mean((-2, -1))


def _fair_case(seed: int) -> tuple:
    g = _generator(seed)
    on = torch.rand(3, 40, 5, generator=g) < torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    x = on * torch.rand(3, 40, 5, generator=g) * torch.linspace(0.5, 1.5, 5)
    noise = torch.rand(3, 4, 1, 1, generator=g) * torch.randn(3, 4, 40, 5, generator=g)
    return (x, (x[:, None] + 0.4 * noise * torch.linspace(1, 3, 5)).relu())


FAIR_LOSS = Exercise(
    id="01_fair_loss",
    kind="code",
    level=3,
    points=3,
    minutes=15,
    reference=fair_loss,
    cases=lambda seed: [_fair_case(seed)],
    mistakes=(
        Mistake(
            "both",
            "Both flaws are left: sparse inputs are easy for anyone who answers next to nothing, and the best copy was "
            "picked after the results were seen.",
            lambda x, output: _errors(x, output).amin(-1),
        ),
        Mistake(
            "no_baseline",
            "One flaw is left: nothing to compare with. Where inputs are mostly zero, every loss is small. Divide by "
            "the error of answering each feature's mean, whatever is shown.",
            lambda x, output: _errors(x, output).mean(-1),
        ),
        Mistake(
            "best_copy",
            "One flaw is left: it reports the best copy, picked after the results were seen. Take the mean over "
            "copies.",
            lambda x, output: _errors(x, output).amin(-1) / _spread(x),
        ),
        Mistake(
            "against_zero",
            "Yours compares with answering *zero*. For dense inputs that is a straw man: a constant can do better, by "
            "answering the mean.",
            lambda x, output: _errors(x, output).mean(-1) / x.square().mean((-2, -1)),
        ),
        Mistake(
            "by_share_on",
            "Yours divides by how often a feature is on. That is the right idea but not the right size: divide by the "
            "error of the best constant answer, each feature's mean.",
            lambda x, output: _errors(x, output).mean(-1) / (x > 0).float().mean((-2, -1)),
        ),
        Mistake(
            "one_mean",
            "Yours answers every feature with one overall mean. Give each feature its own: `x.mean(1, keepdim=True)`.",
            lambda x, output: (
                _errors(x, output).mean(-1) / (x - x.mean((-2, -1), keepdim=True)).square().mean((-2, -1))
            ),
        ),
        Mistake(
            "one_variance",
            "Yours takes one variance of all numbers together, so the constant is one for all features. Give each "
            "feature its own mean: `x.mean(1, keepdim=True)`.",
            lambda x, output: _errors(x, output).mean(-1) / x.var(dim=(-2, -1)),
        ),
        Mistake(
            "unbiased",
            "Nearly: your variance divides by one less than the number of inputs. The error of the constant is a plain "
            "mean of squares: `correction=0`.",
            lambda x, output: _errors(x, output).mean(-1) / x.var(dim=1).mean(-1),
        ),
        Mistake(
            "averaged_outputs",
            "Yours averages what the copies *answer*, and takes the error of that: a committee errs less than its "
            "members. Take each copy's error first, then the mean.",
            lambda x, output: (x - output.mean(1)).square().mean((-2, -1)) / _spread(x),
        ),
        Mistake(
            "mean_of_ratios",
            "Yours averages a ratio for each feature. Asked is one ratio: total error by total error of the constant.",
            lambda x, output: (
                (x[:, None] - output).square().mean((1, 2)) / (x - x.mean(1, keepdim=True)).square().mean(1)
            ).mean(-1),
        ),
    ),
    hints=(
        "What would a model score that ignores its input and always answers the same? Compute that, at each sparsity.",
        "The best constant answer is each feature's mean: `(x - x.mean(1, keepdim=True)).square().mean((-2, -1))`.",
        "`errors = (x[:, None] - output).square().mean((-2, -1))` is [sparsity copy]; return `errors.mean(1) / "
        "constant`.",
    ),
    discussion="What is left is the share of the inputs' variance that the model fails to explain: 0 is perfect, 1 no "
    "better than a constant. A number without its baseline is not yet a result, and the best of several runs is a "
    "statement about luck.",
)


# control: design ----------------------------------------------------------------------------------------------


def control(data: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    return _control("linear", data)


def _control(choice: str, data: dict[str, dict[str, Tensor]], *, measure: Callable = fair_loss) -> dict[str, Any]:
    x, output = data[choice]["x"], data[choice]["output"]
    return {"choice": choice, "unexplained": float(measure(x[None], output[None])[0])}


def _raw(x: Tensor, output: Tensor) -> Tensor:
    return _errors(x, output).mean(-1)


@lru_cache(maxsize=8)
def _controls(seed: int) -> dict[str, dict[str, Tensor]]:
    models = {
        "linear": _trained(seed, 0.9, n=5, kind="linear"),
        "dense": _trained(seed, 0.0, n=5),
        "more_room": _trained(seed, 0.9, n=5, d=4),
        "other_seed": _trained(seed + 1000, 0.9, n=5),
    }
    drawn = {name: each.draw(100, seed=seed) for name, each in models.items()}
    return {
        name: {"x": x[0], "output": models[name].toy.reconstruct(x[:, None], models[name].W, models[name].b)[0]}
        for name, x in drawn.items()
    }


CONTROL = Exercise(
    id="01_control",
    kind="code",
    level=3,
    points=4,
    minutes=15,
    reference=control,
    cases=lambda seed: [(_controls(seed),)],
    mistakes=(
        Mistake(
            "dense",
            "Dense features test another claim: that *sparsity* is needed. If the dense model does badly, the ReLU "
            "may still have nothing to do with it.",
            lambda data: _control("dense", data),
        ),
        Mistake(
            "more_room",
            "With more room there is less to superpose. Whatever comes out, it says nothing about the ReLU, which is "
            "still there.",
            lambda data: _control("more_room", data),
        ),
        Mistake(
            "other_seed",
            "Another seed shows that the result repeats. It cannot refute what you say about its *cause*: the ReLU is "
            "still there.",
            lambda data: _control("other_seed", data),
        ),
        Mistake(
            "raw_loss",
            "The right control, with the broken measure: a raw loss says mostly how sparse the inputs are. Use "
            "`fair_loss`.",
            lambda data: _control("linear", data, measure=_raw),
        ),
    ),
    hints=(
        "The claim names a cause. Which of the four takes away that cause and nothing else?",
        "`fair_loss` wants an axis for sparsity in front: `fair_loss(x[None], output[None])[0]`.",
        'Take `data["linear"]`; return `{"choice": "linear", "unexplained": float(...)}`.',
    ),
    discussion="Without the ReLU the best that d numbers can do is to keep d features: the rest stays unexplained, "
    "however sparse. Had the linear model come close to the other, the ReLU would be off the hook.",
    control=True,
    choice=True,
    tolerance=1e-3,
)


# never_together -----------------------------------------------------------------------------------------------


def never_together(
    u: Float[Tensor, "batch pair"],
    coin: Float[Tensor, "batch pair"],
    value: Float[Tensor, "batch feature"],
    sparsity: float,
) -> Float[Tensor, "batch feature"]:
    x = torch.zeros_like(value)
    for row in range(len(u)):
        for pair in range(u.shape[1]):
            if u[row, pair] < 2 * (1 - sparsity):
                feature = 2 * pair if coin[row, pair] < 0.5 else 2 * pair + 1
                x[row, feature] = value[row, feature]
    return x


def _pick(on: Tensor, first: Tensor) -> Tensor:
    return torch.stack([on & first, on & ~first], -1).flatten(-2)


def _pairs_case(seed: int, sparsity: float) -> tuple:
    g = _generator(seed)
    u, coin = torch.rand(40, 3, generator=g), torch.rand(40, 3, generator=g)
    return (u, coin, torch.rand(40, 6, generator=g), sparsity)


NEVER_TOGETHER = Exercise(
    id="01_never_together",
    kind="code",
    level=2,
    points=2,
    minutes=12,
    reference=never_together,
    cases=lambda seed: [_pairs_case(seed, 0.6), _pairs_case(seed + 1, 0.8)],
    mistakes=(
        Mistake(
            "half_as_often",
            "Yours turns a pair on with probability 1 − sparsity, so each of its two features is on only half as often "
            "as asked. A pair must be on twice as often as a feature.",
            lambda u, coin, value, sparsity: value * _pick(u < 1 - sparsity, coin < 0.5),
        ),
        Mistake(
            "other_side",
            "As often as asked, but yours is on where `u` is *large*. A pair is on where `u` lies below what you "
            "choose.",
            lambda u, coin, value, sparsity: value * _pick(u > 2 * sparsity - 1, coin < 0.5),
        ),
        Mistake(
            "other_side_half_as_often",
            "Two things: a pair is on where `u` lies *below* a threshold; and it must be on twice as often as each of "
            "its features.",
            lambda u, coin, value, sparsity: value * _pick(u > sparsity, coin < 0.5),
        ),
        Mistake(
            "both",
            "Yours turns both features of a pair on: they are correlated. Let the coin choose one.",
            lambda u, coin, value, sparsity: value * (u < 2 * (1 - sparsity)).repeat_interleave(2, -1),
        ),
        Mistake(
            "other_one",
            "Yours turns the coin round: below 0.5 means the *first* of the pair.",
            lambda u, coin, value, sparsity: value * _pick(u < 2 * (1 - sparsity), coin >= 0.5),
        ),
        Mistake(
            "halves",
            "Yours pairs feature 0 with the first of the second half. Partners stand side by side: 0 with 1, 2 with 3.",
            lambda u, coin, value, sparsity: (
                value
                * torch.cat([(u < 2 * (1 - sparsity)) & (coin < 0.5), (u < 2 * (1 - sparsity)) & (coin >= 0.5)], -1)
            ),
        ),
        Mistake(
            "ones",
            "Yours returns which features are on. Return their values: 0 where off.",
            lambda u, coin, value, sparsity: _pick(u < 2 * (1 - sparsity), coin < 0.5).float(),
        ),
    ),
    hints=(
        "How often must a *pair* be on, so that each of its two features is on with probability 1 − sparsity?",
        "`on = u < 2 * (1 - sparsity)` and `first = coin < 0.5` are both [batch pair]. The two features are "
        "`on & first` and `on & ~first`.",
        "`torch.stack([on & first, on & ~first], -1).flatten(-2)` puts partners side by side; multiply by `value`.",
    ),
    properties=(
        Property(
            "Two partners are never on together; in yours they are.",
            lambda result, *_: bool((result[:, 0::2] * result[:, 1::2] == 0).all()),
        ),
    ),
    discussion="Features that never meet cannot disturb each other: they may share a line, pointing opposite ways, for "
    "free. A language is full of such pairs: no token is both a comma and a verb.",
    teaches=("anticorrelated",),
)


# how_many_fit -------------------------------------------------------------------------------------------------


def how_many_fit(vectors: Float[Tensor, "vector d"], limit: float) -> int:
    kept: list[Tensor] = []
    for vector in vectors:
        if all(abs(float(vector @ other)) <= limit for other in kept):
            kept.append(vector)
    return len(kept)


def _kept(vectors: Tensor, clashes: Callable[[Tensor], bool], *, last: bool = False) -> int:
    kept: list[Tensor] = []
    for vector in vectors:
        if not kept or not clashes(torch.stack(kept[-1:] if last else kept) @ vector):
            kept.append(vector)
    return len(kept)


def _until_first_clash(vectors: Tensor, limit: float) -> int:
    cosines = (vectors @ vectors.T).abs().tril(-1)
    clashing = (cosines > limit).any(-1)
    return int(clashing.int().argmax()) if clashing.any() else len(vectors)


HOW_MANY_FIT = Exercise(
    id="01_how_many_fit",
    kind="code",
    level=2,
    points=2,
    minutes=10,
    reference=how_many_fit,
    cases=lambda seed: [
        (random_directions(120, 10, seed=seed), 0.35),
        (random_directions(80, 24, seed=seed + 1), 0.3),
    ],
    mistakes=(
        Mistake(
            "signed",
            "Yours lets a vector in when it points *against* a kept one. Opposite is as far from orthogonal as "
            "parallel: "
            "compare the absolute cosine.",
            lambda vectors, limit: _kept(vectors, lambda cosines: bool((cosines > limit).any())),
        ),
        Mistake(
            "only_the_last",
            "Yours compares with the last kept vector only. It must be nearly orthogonal to *all* that are kept.",
            lambda vectors, limit: _kept(vectors, lambda cosines: bool((cosines.abs() > limit).any()), last=True),
        ),
        Mistake(
            "first_clash",
            "Yours stops at the first vector that clashes. Skip it and go on: a later one may still fit.",
            _until_first_clash,
        ),
        Mistake(
            "with_everyone",
            "Yours compares each vector with every other, kept or not. A vector that was turned away stands in "
            "nobody's "
            "way.",
            lambda vectors, limit: int(((vectors @ vectors.T).abs().fill_diagonal_(0) <= limit).all(-1).sum()),
        ),
        Mistake(
            "all_earlier",
            "Yours compares with all *earlier* vectors, those that were turned away too. Compare with the kept ones.",
            lambda vectors, limit: int(((vectors @ vectors.T).abs().tril(-1) <= limit).all(-1).sum()),
        ),
        Mistake(
            "pairs",
            "Yours counts pairs within the limit. Asked is how many vectors fit together.",
            lambda vectors, limit: int(((vectors @ vectors.T).abs() <= limit).sum()) // 2,
        ),
    ),
    hints=(
        "Keep a list. Each vector in turn joins it if all of its cosines with the list are within ±limit.",
        "The vectors have length 1, so a cosine is a dot product: `torch.stack(kept) @ vector`.",
        "`if not kept or (torch.stack(kept) @ vector).abs().max() <= limit: kept.append(vector)`; return `len(kept)`.",
    ),
    discussion="Exactly orthogonal vectors are d and no more. Allow a little overlap, and their number grows "
    "exponentially with d: the geometry of high dimensions has far more room than our plane suggests.",
    teaches=("near_orthogonal",),
)


# polysemantic -------------------------------------------------------------------------------------------------


def polysemantic(W: Float[Tensor, "feature neuron"]) -> int:
    count = 0
    for neuron in range(W.shape[1]):
        excited = [max(0.0, float(weight)) for weight in W[:, neuron]]
        strong = [each for each in excited if each > STRONG * max(excited)]
        count += len(strong) >= 2
    return count


def _polysemantic_cases(seed: int) -> list[tuple]:
    few, many = torch.randn(4, 300, generator=_generator(seed)), 3 * torch.randn(7, 400, generator=_generator(seed + 1))
    return [(_trained(seed, [0.8, 0.95, 0.6][seed % 3], n=6, d=3, kind="neurons").best[0],), (few,), (many,)]


POLYSEMANTIC = Exercise(
    id="01_polysemantic",
    kind="finding",
    level=2,
    points=2,
    minutes=10,
    reference=polysemantic,
    cases=_polysemantic_cases,
    mistakes=(
        Mistake(
            "negative_too",
            "Yours counts negative weights. A feature with a negative weight cannot excite a ReLU neuron: it "
            "silences it.",
            lambda W: int(((W.abs() > STRONG * W.abs().amax(0)).sum(0) >= 2).sum()),
        ),
        Mistake(
            "by_feature",
            "Yours goes through the features and asks which excite several neurons. Asked are *neurons* (columns) that "
            "several features excite.",
            lambda W: int(((W.relu() > STRONG * W.relu().amax(1, keepdim=True)).sum(1) >= 2).sum()),
        ),
        Mistake(
            "fixed_threshold",
            "Yours compares with 0.5 itself. Compare with half of the neuron's own strongest response.",
            lambda W: int(((W > STRONG).sum(0) >= 2).sum()),
        ),
        Mistake(
            "any_response",
            "Yours counts every feature that excites the neuron at all. Asked are those above half of its strongest.",
            lambda W: int(((W > 0).sum(0) >= 2).sum()),
        ),
        Mistake(
            "monosemantic",
            "Yours counts neurons with exactly *one* strong feature. Asked are those with two or more.",
            lambda W: int(((W.relu() > STRONG * W.relu().amax(0)).sum(0) == 1).sum()),
        ),
        Mistake(
            "dead_neurons",
            "Yours counts dead neurons: where no feature excites a neuron, half of its strongest response is 0, and "
            "`>=` finds every feature there. *More than* half: `>`.",
            lambda W: int(((W.relu() >= STRONG * W.relu().amax(0)).sum(0) >= 2).sum()),
        ),
        Mistake(
            "one_scale",
            "Yours compares with half of the strongest response in the whole matrix. Each neuron has its own: "
            "`amax(0)`.",
            lambda W: int(((W.relu() > STRONG * W.relu().max()).sum(0) >= 2).sum()),
        ),
    ),
    hints=(
        "Show the network one feature alone: neuron k then has the activation ReLU(W[i, k]).",
        "`alone = W.relu()`; a column's strongest response is `alone.amax(0)`.",
        "`int(((alone > 0.5 * alone.amax(0)).sum(0) >= 2).sum())`.",
    ),
    properties=(
        Property(
            "There cannot be more polysemantic neurons than neurons.", lambda result, W: 0 <= result <= W.shape[1]
        ),
    ),
    discussion="A neuron that two features excite has no one-word name, whatever its top example suggests. Here we "
    "know the features, so we can tell. In a language model we do not.",
)


# tidy_neurons: the control ------------------------------------------------------------------------------------


def tidy_neurons(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    peaks = _peaks(lm, tuple(data["sentences"]))
    shares = {}
    for name in ("topic", "nonsense"):
        yes = [peak for peak, label in zip(peaks, data[name], strict=True) if label]
        no = [peak for peak, label in zip(peaks, data[name], strict=True) if not label]
        weakest, strongest = torch.stack(yes).amin(0), torch.stack(no).amax(0)
        shares[name] = float((weakest > strongest).double().mean())
    return shares


@lru_cache(maxsize=16)
def _activations(lm: LanguageModel, sentence: str) -> Float[Tensor, "layer pos d_mlp"]:
    _, cache = run(lm, sentence, sites="mlp_post")
    return cache.stack("mlp_post")[:, 0]


@lru_cache(maxsize=4)
def _peaks(lm: LanguageModel, sentences: tuple[str, ...], first: int = 1) -> Float[Tensor, "sentence layer d_mlp"]:
    return torch.stack([_activations(lm, sentence)[:, first:].amax(1) for sentence in sentences])


def _shares(peaks: Tensor, data: dict[str, Any], *, total: bool = False) -> dict[str, float]:
    found = {}
    for name in ("topic", "nonsense"):
        yes = torch.tensor(data[name])
        tidy = (peaks[yes].amin(0) > peaks[~yes].amax(0)).double()
        found[name] = float(tidy.sum() if total else tidy.mean())
    return found


def _by_means(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    peaks = _peaks(lm, tuple(data["sentences"]))
    labels = {name: torch.tensor(data[name]) for name in ("topic", "nonsense")}
    return {name: float((peaks[yes].mean(0) > peaks[~yes].mean(0)).double().mean()) for name, yes in labels.items()}


def _last_tokens(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    return _shares(torch.stack([_activations(lm, each)[:, -1] for each in data["sentences"]]), data)


def _by_mean_position(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    return _shares(torch.stack([_activations(lm, each)[:, 1:].mean(1) for each in data["sentences"]]), data)


def _typed_in(lm: LanguageModel, data: dict[str, Any]) -> dict[str, float]:
    """What the eight sentences of the first case give, whichever are asked about."""
    asked = data["sentences"]
    names = [name for name, sentences in TOPICS.items() if any(each in sentences for each in asked)]
    names.sort(key=lambda name: min(asked.index(each) for each in TOPICS[name] if each in asked))
    return tidy_neurons(lm, _eight(names))


def _eight(names: Sequence[str]) -> dict[str, Any]:
    sentences = [sentence for name in names for sentence in TOPICS[name][:4]]
    return {"sentences": sentences, "topic": [True] * 4 + [False] * 4, "nonsense": [True, False] * 4}


def _topics(seed: int) -> list[tuple]:
    """Four sentences on each of two topics (the chapter's own for seed 0), and half of them, otherwise labelled."""
    names = random.Random(seed).sample(list(TOPICS)[2:], 2) if seed else list(TOPICS)[:2]
    sentences = [sentence for name in names for sentence in TOPICS[name][:2]]
    few = {"sentences": sentences, "topic": [False, True, True, False], "nonsense": [False, True, False, True]}
    return [(MODEL, _eight(names)), (MODEL, few)]


TIDY_NEURONS = Exercise(
    id="01_tidy_neurons",
    kind="finding",
    level=3,
    points=3,
    minutes=15,
    reference=tidy_neurons,
    cases=_topics,
    mistakes=(
        Mistake(
            "means",
            "Yours compares means. Tidy means no exception: the *weakest* peak of one side above the *strongest* of "
            "the "
            "other.",
            _by_means,
        ),
        Mistake(
            "with_prefix",
            "Yours takes the peak over all positions, the prefix included, which is the same in every sentence. Leave "
            "position 0 out.",
            lambda lm, data: _shares(_peaks(lm, tuple(data["sentences"]), first=0), data),
        ),
        Mistake(
            "mean_position",
            "Yours takes the mean over the tokens, which a neuron that fires on one word hardly moves. Take the peak.",
            _by_mean_position,
        ),
        Mistake(
            "typed_in",
            "Yours gives the first case's numbers in every case: typed in, or computed from lists that stand outside. "
            "Other sentences and labels come: use `data`.",
            _typed_in,
        ),
        Mistake(
            "last_token",
            "Yours reads the last token only, a full stop. Take the peak over the sentence's tokens.",
            _last_tokens,
        ),
        Mistake(
            "counts",
            "Yours are counts. Asked are shares of all the model's neurons, so that models can be compared.",
            lambda lm, data: _shares(_peaks(lm, tuple(data["sentences"])), data, total=True),
        ),
        Mistake(
            "swapped",
            "Yours asks for neurons that prefer the *other* side: `data['topic']` is True where the activation should "
            "be high.",
            lambda lm, data: tidy_neurons(
                lm, data | {name: [not label for label in data[name]] for name in ("topic", "nonsense")}
            ),
        ),
    ),
    hints=(
        'For each sentence: `_, cache = mk.run(lm, sentence, sites="mlp_post")`; `cache.stack("mlp_post")` is '
        "[layer, batch, pos, d_mlp].",
        "The peaks: `[:, 0, 1:].amax(1)`, stacked to [sentence, layer, d_mlp]. Turn the labels into a tensor of True "
        "and False to select rows.",
        "With `yes = torch.tensor(data[name])`: `(peaks[yes].amin(0) > peaks[~yes].amax(0)).double().mean()`.",
    ),
    properties=(
        Property(
            "A share lies between 0 and 1.", lambda result, lm, data: all(0 <= share <= 1 for share in result.values())
        ),
    ),
    discussion="Labels that mean nothing find tidy neurons too: with eight sentences, one neuron in seventy sorts any "
    "four from the other four by luck, and a model has many neurons. Whoever searches long enough finds a story.",
    tolerance=2e-2,
    allowance="a mean over few sentences turns on the rounding of the quantised weights",
    control=True,
)


CHAPTER = Chapter(
    number="01",
    title="toy superposition",
    notebook="01_toy_superposition",
    question="How do more features than dimensions fit?",
    minutes=120,
    needs=("00",),
    exercises=(
        RECONSTRUCT,
        WEIGHTED_LOSS,
        REPRESENTED,
        DIMENSIONALITY,
        INTERFERENCE,
        NEIGHBOUR_ANGLE,
        FAIR_LOSS,
        CONTROL,
        NEVER_TOGETHER,
        HOW_MANY_FIT,
        POLYSEMANTIC,
        TIDY_NEURONS,
    ),
    claim=Claim(
        statements={
            "language_models": Option(
                "language models store their features in superposition",
                False,
                "Perhaps they do. But nothing here looked for it: in the language model we only saw that tidy stories "
                "about single neurons fail, which superposition is one explanation of",
            ),
            "toy_model": Option(
                "in this toy model, more features than dimensions are kept only where they are sparse *and* a ReLU "
                "reads them",
                True,
                "Take away either, and as many features are kept as there are dimensions",
            ),
            "sparsity_alone": Option(
                "sparsity alone makes a model keep more features than it has dimensions",
                False,
                "The linear model saw the same sparse features and kept as many as it has dimensions",
            ),
            "pentagon": Option(
                "five features in a plane always form a pentagon",
                False,
                "Dense ones did not, and with other importances or correlations they need not",
            ),
        },
        evidence={
            "readable": Option(
                "it can be read off an activation",
                False,
                "Nothing was read off an activation: the weights themselves were looked at",
            ),
            "correlated": Option(
                "it goes along with something",
                False,
                "It is more than that: sparsity and ReLU were *set*, everything else held, and the result followed",
            ),
            "necessary": Option(
                "without it, it does not come about",
                True,
                "Without sparsity, or without the ReLU, it did not come about",
            ),
            "sufficient": Option(
                "put in, it is enough",
                False,
                "The claim says *only where*: it is about what happens when one of the two is taken away. Whether both "
                "are enough in any other model was not tried",
            ),
        },
        refuted_by={
            "one_copy": Option(
                "one copy that ends in a square with a feature left out",
                False,
                "Some copies do end so: training finds local optima. The claim is about what can be kept",
            ),
            "linear_model": Option(
                "a linear model of the same size that explains as much of the same sparse inputs",
                True,
                "Then the ReLU would not be needed",
            ),
            "more_room": Option(
                "a model with as many dimensions as features that keeps them all",
                False,
                "It would have room for each. That is no superposition, and no surprise",
            ),
        },
    ),
)
