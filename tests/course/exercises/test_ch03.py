"""Right answers to chapter 03, each exercise at least twice, written as differently as learners do."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechkit.course.checks import Surroundings, check
from mechkit.course.exercises import ch03
from mechkit.methods.erasure import add_direction, fit_leace
from mechkit.methods.probes import accuracy, features, fit_logistic, last_logits
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model


def sklearn_right(x, y, train, test):
    """Accuracy of scikit-learn's own pipeline: no line of ours."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(x[train].numpy(), y[train])
    return accuracy_score(y[test], model.predict(x[test].numpy()))


def standardise_by_sklearn(train, test):
    scaler = StandardScaler().fit(train.numpy())
    return scaler.transform(train.numpy()), scaler.transform(test.numpy())


def standardise_by_torch(train, test):
    mean, spread = train.mean(dim=0, keepdim=True), train.var(dim=0, keepdim=True).sqrt()
    return [(part - mean) / spread for part in (train, test)]


def difference_by_matrix(x, y):
    weight = y / y.sum() - (1 - y) / (1 - y).sum()
    return weight.float() @ x


def difference_by_numpy(x, y):
    x, y = x.numpy(), y.numpy().astype(bool)
    return x[y].mean(axis=0) - x[~y].mean(axis=0)


def honest_by_sklearn(x, y, words, held_out):
    test = np.isin(words, held_out)
    return sklearn_right(x, y, np.flatnonzero(~test), np.flatnonzero(test))


def honest_by_places(x, y, words, held_out):
    test = [place for place, word in enumerate(words) if word in held_out]
    train = [place for place in range(len(words)) if place not in test]
    return torch.tensor(accuracy(fit_logistic(x[train], y[train]), x[test], y[test]))


def first_by_last_failure(table, chance):
    safe = table.mean(0) - 2 * table.std(0) / table.shape[0] ** 0.5 > chance
    failed = (~safe).nonzero().flatten()
    return int(failed[-1]) + 1 if len(failed) else 0


def first_by_numpy(table, chance):
    table = table.numpy()
    safe = table.mean(0) - 2 * table.std(0, ddof=1) / np.sqrt(len(table)) > chance
    return table.shape[1] - int(np.logical_and.accumulate(safe[::-1]).sum())


def labels_by_unique(words, coins):
    _, place = np.unique(words, return_inverse=True)
    return coins.numpy()[place]


def labels_by_index(words, coins):
    known = sorted({*words})
    return [coins[known.index(word)].item() for word in words]


def selectivity_by_sklearn(x, y, words, coins, train, test):
    control = torch.tensor(labels_by_index(words, coins))
    return sklearn_right(x, y, train, test) - sklearn_right(x, control, train, test)


def selectivity_by_counting(x, y, words, coins, train, test):
    control, found = torch.as_tensor(labels_by_unique(words, coins)), []
    for labels in (y, control):
        answers = fit_logistic(x[train], labels[train]).scores(x[test]).argmax(-1)
        found.append((answers == labels[test]).float().mean())
    return found[0] - found[1]


def auc_by_sklearn(scores, labels):
    return roc_auc_score(labels, scores)


def auc_by_sign(scores, labels):
    gaps = scores[labels == 1].reshape(-1, 1) - scores[labels == 0]
    return (1 + gaps.sign().double().mean()) / 2


def reversed_by_sklearn(data):
    orders = []
    for inside, outside in zip(data["inside"], data["outside"], strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        scores = model.fit(inside.numpy(), data["labels"]).decision_function(outside.numpy())
        orders.append(roc_auc_score(data["outside labels"], scores))
    return {"layer": np.argmin(orders), "auc": min(orders)}


def reversed_by_direction(data):
    probes = [fit_logistic(inside, data["labels"]) for inside in data["inside"]]
    orders = torch.stack(
        [
            auc_by_sign(outside @ probe.direction, data["outside labels"])
            for probe, outside in zip(probes, data["outside"], strict=True)
        ]
    )
    return {"auc": orders.min(), "layer": orders.argmin()}


def ccs_by_numpy(p_yes, p_no):
    p, q = p_yes.numpy(), p_no.numpy()
    return np.mean((p - 1 + q) ** 2 + np.minimum(p, q) ** 2)


def ccs_by_where(p_yes, p_no):
    smaller = torch.where(p_yes < p_no, p_yes, p_no)
    return (1 - p_yes - p_no).pow(2).mean() + smaller.pow(2).mean()


def impostor_by_lstsq(yes, no, sides):
    rows, wanted = torch.cat([yes, no]).double(), torch.cat([sides, -sides]).double() * 5
    return torch.linalg.lstsq(rows, wanted[:, None], driver="gelsd", rcond=1e-8).solution[:, 0]


def impostor_by_numpy(yes, no, sides):
    rows = np.vstack([yes.numpy(), no.numpy()]).astype(float)
    return np.linalg.lstsq(rows, 5.0 * np.concatenate([sides, -sides]), rcond=1e-6)[0]


def push_with_the_library(lm, data):
    layer, verbs = lm.n_layers // 2, [lm.token_id(word) for word in data["answers"]]
    one, many = (features(lm, data[side])[layer].mean(0) for side in ("singular", "plural"))
    noise = data["noise"][: lm.d_model]
    noise = noise * (many - one).norm() / noise.norm()
    plain = last_logits(lm, data["prompts"], data["answers"])
    found = {}
    for name, push in (("random", noise), ("direction", many - one)):
        with edit(lm, add_direction(push, layer, position=-1)):
            change = last_logits(lm, data["prompts"], verbs) - plain
        found[name] = (change[:, 1] - change[:, 0]).mean()
    return found


def gap_one_by_one(lm, prompt, answers, edits=()):
    """Second answer minus first after one prompt."""
    singular, plural = (lm.token_id(word) for word in answers)
    with edit(lm, *edits):
        logits = run(lm, prompt, sites=())[0][0, -1]
    return float(logits[plural] - logits[singular])


def push_by_hand(lm, data):
    layer = lm.n_layers // 2
    means = []
    for side in ("singular", "plural"):
        rows = [run(lm, prompt, sites="resid_post", layers=layer)[1] for prompt in data[side]]
        means.append(sum(row["resid_post", layer][0, -1] for row in rows) / len(rows))
    direction, noise, found = means[1] - means[0], data["noise"][: lm.d_model], {}
    for name, push in (("direction", direction), ("random", noise / noise.norm() * direction.norm())):
        place = Edit("resid_post", layer, lambda value, push=push: value + push, position=-1)
        shifts = [
            gap_one_by_one(lm, prompt, data["answers"], [place]) - gap_one_by_one(lm, prompt, data["answers"])
            for prompt in data["prompts"]
        ]
        found[name] = sum(shifts) / len(shifts)
    return found


def control_with_the_library(data, lm):
    push = add_direction(data["directions"]["random, same length"], data["layer"], position=-1)
    before = gap_one_by_one(lm, data["prompt"], data["answers"])
    after = gap_one_by_one(lm, data["prompt"], data["answers"], [push])
    return {"shift": np.float64(after - before), "choice": "random, same length"}


def control_in_place(data, lm):
    def change(value):
        value += data["directions"]["random, same length"]
        return value

    place = Edit("resid_post", data["layer"], change, position=[lm.tokens(data["prompt"]).shape[1] - 1])
    edited = gap_one_by_one(lm, data["prompt"], data["answers"], [place])
    return {"choice": "random, same length", "shift": edited - gap_one_by_one(lm, data["prompt"], data["answers"])}


def writable_with_the_library(lm, data):
    one, many = (features(lm, data[name]) for name in ("prompts", "twins"))
    found = {"layer": lm.n_layers, "gaps": []}
    for layer in reversed([int(depth * lm.n_layers) for depth in data["depths"]]):
        gaps = []
        for place, prompt in enumerate(data["prompts"]):
            with edit(lm, add_direction(many[layer, place] - one[layer, place], layer, position=-1)):
                gaps.append(last_logits(lm, [prompt], data["answers"])[0].diff())
        found["gaps"].insert(0, torch.cat(gaps).mean())
        found["layer"] = layer if found["gaps"][0] > 0 else found["layer"]
    return found


def writable_by_hand(lm, data):
    """The whole state put in the place of the other: no difference is taken."""
    found = {"layer": lm.n_layers, "gaps": []}
    for depth in data["depths"]:
        layer, gaps = int(depth * lm.n_layers), []
        for prompt, twin in zip(data["prompts"], data["twins"], strict=True):
            state = run(lm, twin, sites="resid_post", layers=layer)[1]["resid_post", layer][:, -1]
            place = Edit("resid_post", layer, lambda _, state=state: state, position=-1)
            gaps.append(gap_one_by_one(lm, prompt, data["answers"], [place]))
        found["gaps"].append(float(np.mean(gaps)))
        if found["gaps"][-1] > 0:
            found["layer"] = min(found["layer"], layer)
    return found


def erase_by_matrix(x, direction, mean):
    projector = torch.outer(direction, direction) / (direction @ direction)
    return x - (x - mean) @ projector


def erase_by_numpy(x, direction, mean):
    x, unit = x.numpy(), direction.numpy() / np.linalg.norm(direction.numpy())
    return x - np.outer((x - mean.numpy()) @ unit, unit)


def leace_by_formula(x, y):
    x = x.double()
    mean, gap = x.mean(0), x[y == 1].mean(0) - x[y == 0].mean(0)
    read = torch.linalg.inv(torch.cov(x.T)) @ gap
    return x - torch.outer((x - mean) @ read, gap) / (gap @ read)


def leace_by_the_library(x, y):
    return fit_leace(x, y)(x).numpy()


RIGHT = {
    "03_standardise": [standardise_by_sklearn, standardise_by_torch],
    "03_mean_difference": [difference_by_matrix, difference_by_numpy],
    "03_honest_accuracy": [honest_by_sklearn, honest_by_places],
    "03_first_readable": [first_by_last_failure, first_by_numpy],
    "03_control_labels": [labels_by_unique, labels_by_index],
    "03_selectivity": [selectivity_by_sklearn, selectivity_by_counting],
    "03_auc": [auc_by_sklearn, auc_by_sign],
    "03_most_reversed": [reversed_by_sklearn, reversed_by_direction],
    "03_ccs_loss": [ccs_by_numpy, ccs_by_where],
    "03_impostor": [impostor_by_lstsq, impostor_by_numpy],
    "03_number_push": [push_with_the_library, push_by_hand],
    "03_fair_control": [control_with_the_library, control_in_place],
    "03_writable_from": [writable_with_the_library, writable_by_hand],
    "03_erase": [erase_by_matrix, erase_by_numpy],
    "03_leace": [leace_by_formula, leace_by_the_library],
}


def test_no_layer_at_all_is_a_number_and_not_none():
    def none_if_none(table, chance):
        found = first_by_last_failure(table, chance)
        return None if found == table.shape[1] else found

    verdict = check(ch03.FIRST_READABLE, none_if_none, Surroundings({}, {}, {}))
    assert verdict.message == "The answer returned None; wanted a whole number."


@pytest.mark.parametrize("seed", range(5))
def test_a_control_that_nobody_can_remember_is_said(seed):
    def a_coin_for_each_example(x, y, words, coins, train, test):
        control = torch.randint(2, (len(words),), generator=torch.Generator().manual_seed(seed))
        return sklearn_right(x, y, train, test) - sklearn_right(x, control, train, test)

    verdict = check(ch03.SELECTIVITY, a_coin_for_each_example, Surroundings({}, {}, {}))
    assert verdict.stage == "property"
    assert verdict.message.startswith("Your control sits at chance")


@pytest.mark.parametrize("seed", range(30))
def test_the_control_task_wins_in_one_case_and_the_most_reversed_layer_is_not_the_most_telling(seed):
    task, memory = (ch03.selectivity(*case) for case in ch03.SELECTIVITY.cases(seed))
    assert task >= 0
    assert memory < -0.1
    order = ch03._orders(*ch03.MOST_REVERSED.cases(seed)[1])["order"]
    assert (order - 0.5).abs().argmax() == order.argmax()


@pytest.mark.parametrize("seed", range(5))
def test_one_case_never_flips(seed):
    tiny, data = ch03.WRITABLE_FROM.cases(seed)[1]
    lm = tiny_model(tiny.family, seed=tiny.seed, d_model=tiny.d_model)
    assert writable_by_hand(lm, data)["layer"] == lm.n_layers
