"""Right answers to chapter 07, each exercise at least twice, written as differently as learners do."""

from itertools import product

import numpy as np
import pytest
import torch

from mechkit.course.checks import Surroundings, check
from mechkit.course.exercises import find_chapter
from mechkit.course.exercises.ch07 import WRONG_CONTROLS
from mechkit.methods.gradients import attribution_patch
from mechkit.methods.metrics import logit_difference
from mechkit.methods.patching import Pair, patch_sweep
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.replay import Replay
from mechkit.network.tiny import tiny_model


def recovery_at_once(patched, clean, corrupted):
    return (patched.mean(-1) - corrupted.mean()) / (clean.mean() - corrupted.mean())


def recovery_by_numpy(patched, clean, corrupted):
    patched, clean, corrupted = (each.double().numpy() for each in (patched, clean, corrupted))
    return 1 - (clean.mean() - patched.mean(axis=-1)) / (clean.mean() - corrupted.mean())


def recovery_of_sums(patched, clean, corrupted):
    gain = (patched - corrupted).sum(-1)
    return (gain / (clean - corrupted).sum()).tolist()


def both_by_index(table):
    parts, found = range(table.ndim), {"necessary": (), "sufficient": ()}
    for part in parts:
        states = [0] * table.ndim
        states[part] = 1
        if table[tuple(states)] == table.max():
            found["sufficient"] += (part,)
        if table[tuple(1 - state for state in states)] == 0:
            found["necessary"] += (part,)
    return found


def both_by_eye(table):
    n, array = table.ndim, table.numpy()
    eye = np.eye(n, dtype=int)
    return {
        "sufficient": [i for i in range(n) if array[tuple(eye[i])] > 0.5],
        "necessary": np.flatnonzero([array[tuple(1 - eye[i])] < 0.5 for i in range(n)]),
    }


def both_by_search(table):
    hits = [states for states in product((0, 1), repeat=table.ndim) if table[states]]
    alone = [states.index(1) for states in hits if sum(states) == 1]
    spared = [states.index(0) for states in hits if sum(states) == table.ndim - 1]
    return {"sufficient": sorted(alone), "necessary": [i for i in range(table.ndim) if i not in spared]}


def patch_in_place(lm, clean, corrupted, layer, position):
    _, cache = run(lm, clean, sites="resid_pre")

    def change(old):
        old[:, position] = cache["resid_pre", layer][:, position]
        return old

    with edit(lm, Edit("resid_pre", layer, change)):
        return run(lm, corrupted)[0][:, -1].double()


def patch_after_the_layer_before(lm, clean, corrupted, layer, position):
    _, cache = run(lm, clean, sites="resid_post", layers=layer - 1)
    state = cache["resid_post", layer - 1][:, [position]]
    with edit(lm, Edit("resid_post", layer - 1, lambda old: state, position=[position])):
        return run(lm, lm.tokens(corrupted), sites="logits")[1]["logits"][:, -1].numpy()


def patch_by_replay(lm, clean, corrupted, layer, position):
    there, here = (Replay(lm, lm.tokens(each)) for each in (clean, corrupted))
    resid = here.resid_pre(layer).clone()
    resid[:, position] = there.resid_pre(layer)[:, position]
    return lm.unembed(lm.final_norm(here.rest(layer, resid, torch.arange(len(resid)))[:, -1]))


def moves_by_diff(data):
    return sorted(data["recovery"][:, data["END"]].diff().topk(2).indices.tolist())


def moves_by_numpy(data):
    column = data["recovery"].double().numpy()[:, data["END"]]
    return np.sort(np.argsort(column[1:] - column[:-1])[-2:])


def moves_as_tuple(data):
    column = data["recovery"][:, data["END"]].tolist()
    gains = {layer: column[layer + 1] - column[layer] for layer in range(len(column) - 1)}
    return tuple(sorted(sorted(gains, key=gains.get)[-2:]))


def gap(lm, data, logits):
    right, wrong = (torch.tensor([lm.token_id(word) for word in data[name]]) for name in ("right", "wrong"))
    return logit_difference(logits[:, None], right, wrong)


def control_by_patch(lm, data):
    texts, position = data["sources"]["other_names"]
    low, high = (gap(lm, data, run(lm, data[name])[0][:, -1]).mean() for name in ("corrupted", "clean"))
    now = gap(lm, data, patch_in_place(lm, texts, data["corrupted"], data["layer"], position).float())
    return {"recovery": (now.mean() - low) / (high - low), "choice": "other_names"}


def control_by_replay(lm, data):
    texts, position = data["sources"]["other_names"]
    logits = [run(lm, data[name], sites=())[0][:, -1] for name in ("clean", "corrupted")]
    logits.append(patch_by_replay(lm, texts, data["corrupted"], data["layer"], position))
    high, low, now = (gap(lm, data, each).double().mean().item() for each in logits)
    return {"choice": "other_names", "recovery": np.float64((now - low) / (high - low))}


def key_by_topk(data):
    places = data["recovery"].abs().flatten().topk(data["count"]).indices
    return [divmod(int(place), data["recovery"].shape[1]) for place in places]


def key_by_sorting(data):
    table = data["recovery"]
    places = [[layer, head] for layer in range(len(table)) for head in range(table.shape[1])]
    return sorted(places, key=lambda place: -abs(table[place[0], place[1]].item()))[: data["count"]]


def key_by_numpy(data):
    array = data["recovery"].numpy()
    return np.stack(np.unravel_index(np.argsort(-np.abs(array), axis=None)[: data["count"]], array.shape), axis=1)


def steered_at_once(lm, data):
    rows, change = torch.arange(len(data["IO"])), 0
    for name, sign in (("clean", 1), ("corrupted", -1)):
        last = run(lm, data[name], sites="pattern")[1].stack("pattern")[:, :, :, -1].transpose(1, 2)
        change = change + sign * (last[:, :, rows, data["IO"]] - last[:, :, rows, data["S1"]]).sum(-1)
    return [divmod(place, lm.n_heads) for place in change.flatten().topk(3).indices.tolist()]


def steered_by_loop(lm, data):
    scores = {}
    caches = [run(lm, data[name])[1] for name in ("clean", "corrupted")]
    for layer, head in product(range(lm.n_layers), range(lm.n_heads)):
        total = 0.0
        for row, (io, s1) in enumerate(zip(data["IO"], data["S1"], strict=True)):
            clean, corrupted = (cache["pattern", layer][row, head, -1] for cache in caches)
            total += float((clean[io] - clean[s1]) - (corrupted[io] - corrupted[s1]))
        scores[layer, head] = total
    return torch.tensor(sorted(scores, key=scores.get, reverse=True)[:3])


def query_by_difference(lm, clean, corrupted, sender, receiver):
    (low, writer), (high, reader) = sender, receiver
    now, then = (run(lm, each, sites="z", layers=low)[1]["z", low][:, -1, writer] for each in (clean, corrupted))
    change = (then - now) @ lm.W_O(low)[writer]
    with edit(lm, Edit("resid_pre", high, lambda old: old + change, position=-1)):
        return run(lm, clean, sites="q", layers=high)[1]["q", high][:, -1, reader]


def query_by_whole_stream(lm, clean, corrupted, sender, receiver):
    (low, writer), (high, reader) = sender, receiver
    _, a = run(lm, clean)
    _, b = run(lm, corrupted)
    matrix = lm.W_O(low)[writer].double()
    stream = a["resid_pre", high].double()
    stream = stream + torch.einsum("bpd,dm->bpm", (b["z", low] - a["z", low])[:, :, writer].double(), matrix)
    with edit(lm, Edit("resid_pre", high, lambda old: stream)):
        _, cache = run(lm, clean, sites="q")
    return cache["q", high][:, -1, reader].numpy()


def attribution_by_einsum(clean, corrupted, gradient):
    return torch.einsum("bphd,bphd->h", clean - corrupted, gradient) / len(clean)


def attribution_by_numpy(clean, corrupted, gradient):
    product_ = (clean.double().numpy() - corrupted.double().numpy()) * gradient.numpy()
    return [float(product_[:, :, head].sum() / len(product_)) for head in range(product_.shape[2])]


def missed_at_once(data):
    truth, estimate = data["truth"], data["estimate"]
    missed = ((truth.abs() >= data["large"]) & (estimate / truth < 0.5)).nonzero().tolist()
    both = torch.stack([truth.flatten(), estimate.flatten()])
    return {"missed": missed, "correlation": torch.corrcoef(both)[0, 1]}


def missed_by_sign(data):
    truth, estimate = data["truth"].numpy(), data["estimate"].numpy()
    sign = np.sign(truth)
    missed = (np.abs(truth) >= data["large"]) & (sign * estimate < sign * truth / 2)
    return {"correlation": np.corrcoef(truth.ravel(), estimate.ravel())[0, 1], "missed": np.argwhere(missed)}


def fair_by_sweep(lm, data, layer):
    right, wrong = (torch.tensor([lm.token_id(word) for word in data[name]]) for name in ("right", "wrong"))
    pair = Pair(lm, data["clean"], data["corrupted"])
    swept = patch_sweep(pair, lambda logits: logit_difference(logits, right, wrong))
    position = int((pair.clean_tokens != pair.corrupted_tokens).any(0).nonzero()[0])
    return swept.recovery[layer, position]


def fair_by_patch(lm, data, layer):
    position = int((lm.tokens(data["clean"]) != lm.tokens(data["corrupted"])).any(0).int().argmax())
    clean, corrupted = (gap(lm, data, run(lm, data[name])[0][:, -1]) for name in ("clean", "corrupted"))
    patched = gap(lm, data, patch_by_replay(lm, data["clean"], data["corrupted"], layer, position))
    return float(recovery_at_once(patched, clean, corrupted))


RIGHT = {
    "07_recovery": [recovery_at_once, recovery_by_numpy, recovery_of_sums],
    "07_both_ways": [both_by_index, both_by_eye, both_by_search],
    "07_patch": [patch_in_place, patch_after_the_layer_before, patch_by_replay],
    "07_moves": [moves_by_diff, moves_by_numpy, moves_as_tuple],
    "07_control": [control_by_patch, control_by_replay],
    "07_key_heads": [key_by_topk, key_by_sorting, key_by_numpy],
    "07_steered_heads": [steered_at_once, steered_by_loop],
    "07_query_after": [query_by_difference, query_by_whole_stream],
    "07_fair_recovery": [fair_by_sweep, fair_by_patch],
    "07_attribution": [attribution_by_einsum, attribution_by_numpy],
    "07_missed_heads": [missed_at_once, missed_by_sign],
}


def _verdict(name, answer, seed=0):
    exercise = next(each for each in find_chapter("07").exercises if each.name == name)
    return check(exercise, answer, Surroundings(imports={}, answers={}, notebook={}, seconds=300), seed)


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("choice", WRONG_CONTROLS)
def test_a_wrong_control_is_named_whatever_number_came_with_it(choice, number):
    verdict = _verdict("control", lambda lm, data: {"choice": choice, "recovery": number})
    assert verdict.message == WRONG_CONTROLS[choice]


def test_a_control_with_a_guessed_number_hears_that_the_number_is_wrong():
    verdict = _verdict("control", lambda lm, data: {"choice": "other_names", "recovery": 0.5})
    assert verdict.message.startswith("The right control; its recovery is another.")
    verdict = _verdict("control", lambda lm, data: {"choice": "strangers", "recovery": 0.5})
    assert verdict.message.startswith("The choice is one of the names")


def test_the_right_heads_in_another_order_are_named():
    verdict = _verdict("key_heads", lambda data: sorted(key_by_topk(data)))
    assert "another order" in verdict.message
    steered = next(each for each in find_chapter("07").exercises if each.name == "steered_heads")
    lm, data = tiny_model(), {"clean": [" Mary and John"], "corrupted": [" John and Mary"], "IO": [1], "S1": [3]}
    right = steered_by_loop(lm, data).tolist()
    order = steered.properties[-1]
    assert order.holds(right, lm, data)
    assert not order.holds(right[::-1], lm, data)


def test_layers_read_off_the_figure_hear_that_the_check_uses_other_maps():
    verdict = _verdict("moves", lambda data: [20, 23])
    assert "read none off the figure" in verdict.message


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_known_mistakes_are_named_on_hidden_cases_too(seed):
    for exercise in find_chapter("07").exercises:
        if exercise.name == "steered_heads":  # it needs the real weights
            continue
        for mistake in exercise.mistakes:
            assert _verdict(exercise.name, mistake.answer, seed).mistake == mistake.name


def test_the_attribution_that_is_taught_is_what_the_library_gives(tiny_models):
    """The same sum, with the gradient that the library finds."""
    lm = tiny_models["llama"]
    clean = torch.randint(5, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    corrupted = clean.clone()
    corrupted[:, 3] += 1
    pair = Pair(lm, clean, corrupted)
    old, new = (run(lm, each, sites="z", layers=1)[1]["z", 1] for each in (corrupted, clean))
    leaf = old.clone().requires_grad_()
    with torch.enable_grad(), edit(lm, Edit("z", 1, lambda _: leaf)):
        logits = lm.hf(corrupted).logits
        (logits[:, -1, 3] - logits[:, -1, 4]).sum().backward()
    expected = attribution_patch(pair, lambda logits: logits[:, -1, 3] - logits[:, -1, 4]).change[1]
    torch.testing.assert_close(attribution_by_einsum(new, old, leaf.grad), expected, rtol=1e-4, atol=1e-6)
