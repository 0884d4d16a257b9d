"""Right answers to chapter 09, each exercise at least twice, written as differently as learners do."""

import numpy as np
import pytest
import torch

from mechkit.course.checks import Surroundings, check
from mechkit.course.exercises import ch09
from mechkit.methods.editing import Rewrite, rewritten
from mechkit.methods.tracing import NoisyRuns, restore, trace
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit


def recovered_at_once(restored, clean, noisy):
    return (restored.double() - noisy) / (clean - noisy)


def recovered_as_numpy(restored, clean, noisy):
    return 1 - (clean - restored.numpy()) / (clean - noisy)


def blur_by_adding(embed, positions, noise):
    blurred = embed.clone()
    blurred[:, positions] += noise
    return blurred


def blur_with_zeros(embed, positions, noise):
    extra = torch.zeros_like(embed)
    for i, position in enumerate(positions):
        extra[:, position] = noise[:, i]
    return (embed + extra).tolist()


def state_at_once(lm, prompt, subject, noise, place, token):
    layer, position = place
    _, cache = run(lm, prompt, sites="resid_post")
    clean = cache["resid_post", layer][0, position]
    add = Edit("embed", None, lambda old: old + noise, position=subject)
    put = Edit("resid_post", layer, lambda old: clean.expand_as(old), position=position)
    with edit(lm, add, put):
        logits, _ = run(lm, lm.tokens(prompt).repeat(len(noise), 1), sites=())
    return logits[:, -1].softmax(-1)[:, token].mean()


def state_in_place(lm, prompt, subject, noise, place, token):
    layer, position = place
    clean = run(lm, lm.tokens(prompt))[1]["resid_post", layer]
    found = []
    for draw in range(len(noise)):

        def add(old, draw=draw):
            old[:, subject] += noise[draw]
            return old

        def put(old):
            old[:, position] = clean[:, position]
            return old

        with edit(lm, Edit("embed", None, add)), edit(lm, Edit("resid_post", layer, put)):
            found.append(torch.softmax(run(lm, prompt)[0][0, -1].double(), 0)[token].item())
    return np.mean(found)


def carrier_by_restore(lm, data):
    found = []
    for prompt, subject, answer in zip(data["prompts"], data["subjects"], data["answers"], strict=True):
        runs, token = NoisyRuns(lm, prompt, subject, draws=2), lm.token_id(answer)
        layer = lm.n_layers // 5
        scores = [restore(runs, token, [("resid_post", layer, each)]).mean() for each in runs.subject]
        found.append(runs.subject[int(torch.stack(scores).argmax())])
    return found


def carrier_by_trace(lm, data):
    found = []
    for prompt, subject, answer in zip(data["prompts"], data["subjects"], data["answers"], strict=True):
        runs = NoisyRuns(lm, prompt, subject, draws=2)
        row = trace(runs, lm.token_id(answer), layers=[lm.n_layers // 5]).recovered[0]
        found.append(max(runs.subject, key=lambda position, row=row: row[position]))
    return torch.tensor(found)


def late_by_walking(recovered):
    mean, layer = recovered.mean(0), recovered.shape[1]
    while layer > 0 and mean[layer - 1] > 0.5:
        layer -= 1
    return layer


def late_by_numpy(recovered):
    below = np.flatnonzero(recovered.numpy().mean(0) <= 0.5)
    return below[-1] + 1 if len(below) else 0


def mlps(lm, data, layers):
    shares = []
    for prompt, subject, answer in zip(data["prompts"], data["subjects"], data["answers"], strict=True):
        runs, token = NoisyRuns(lm, prompt, subject, draws=2), lm.token_id(answer)
        places = [("mlp_out", layer, position) for layer in layers for position in runs.subject]
        clean, noisy = runs.probabilities(token)
        shares.append((restore(runs, token, places).mean().item() - noisy) / (clean - noisy))
    return sum(shares) / len(shares)


def first_mlp_by_restore(lm, data):
    return {"first": mlps(lm, data, [0]), "later": mlps(lm, data, range(1, lm.n_layers // 3 + 1))}


def first_mlp_as_tensors(lm, data):
    found = first_mlp_by_restore(lm, data)
    return {"later": torch.tensor(found["later"]), "first": torch.tensor(found["first"])}


def noisy_probabilities(lm, data, *edits):
    add = Edit("embed", None, lambda old: old + data["noise"], position=data["subject"])
    with edit(lm, add, *edits):
        logits, _ = run(lm, lm.tokens(data["prompt"]).repeat(len(data["noise"]), 1), sites=())
    return logits[:, -1].softmax(-1)[:, data["token"]].mean()


def recovery_mended(lm, data):
    logits, cache = run(lm, data["prompt"], sites="resid_post")
    clean = logits[0, -1].softmax(-1)[data["token"]]
    value = cache["resid_post", data["layer"]][0, data["subject"][-1]]
    put = Edit("resid_post", data["layer"], lambda old: value.expand_as(old), position=data["subject"][-1])
    base = noisy_probabilities(lm, data)
    return (noisy_probabilities(lm, data, put) - base) / (clean - base)


def recovery_by_earlier_answers(lm, data):
    last, clean = data["subject"][-1], run(lm, data["prompt"])[0][0, -1].softmax(-1)[data["token"]].item()
    place = (data["layer"], last)
    found = state_at_once(lm, data["prompt"], data["subject"], data["noise"], place, data["token"]).item()
    base = float(noisy_probabilities(lm, data))
    return recovered_at_once(torch.tensor(found), clean, base)


def rank_one_by_formula(W, key, value, C):
    direction = torch.linalg.solve(C, key)
    return torch.outer(direction / (key @ direction), value - key @ W)


def rank_one_by_inverse(W, key, value, C):
    u = torch.linalg.inv(C.double()) @ key.double()
    return ((u / (u @ key.double()))[:, None] * (value - key @ W).double()[None]).numpy()


def score_at_once(before, after, old, new):
    p, q = before.log_softmax(-1), after.log_softmax(-1)
    return {
        "drift": (p.exp() * (p - q)).sum(-1).mean(),
        "kept": (before.argmax(-1) == after.argmax(-1)).double().mean(),
        "wins": (after[:, new] > after[:, old]).double().mean(),
    }


def score_by_numpy(before, after, old, new):
    p, q = before.double().softmax(-1).numpy(), after.double().softmax(-1).numpy()
    return {
        "wins": np.mean(q[:, new] > q[:, old]),
        "kept": np.mean(p.argmax(1) == q.argmax(1)),
        "drift": np.mean((p * np.log(p / q)).sum(1)),
    }


def works_by_listing(layers, recovered, success):
    return [layer for layer, share, won in zip(layers, recovered, success, strict=True) if share < 0.1 and won > 0.5]


def works_by_mask(layers, recovered, success):
    return torch.tensor(layers)[(recovered < 0.1) & (success > 0.5)]


def control_at_once(lm, data):
    each = data["silent_layer"]

    def surprise():
        return run(lm, each["prompt"], sites=())[0][0, -1].log_softmax(-1)[each["token"]]

    before = surprise()
    with rewritten(lm, Rewrite(layer=each["layer"], change=each["change"])):
        return {"gain": surprise() - before, "choice": "silent_layer"}


def control_by_probabilities(lm, data):
    each = data["silent_layer"]
    before = run(lm, each["prompt"])[0][0, -1].double().softmax(-1)[each["token"]]
    with rewritten(lm, Rewrite(each["layer"], each["change"])):
        after = run(lm, each["prompt"])[0][0, -1].double().softmax(-1)[each["token"]]
    return {"choice": "silent_layer", "gain": np.log(float(after / before))}


RIGHT = {
    "09_recovered": [recovered_at_once, recovered_as_numpy],
    "09_blur": [blur_by_adding, blur_with_zeros],
    "09_restore_state": [state_at_once, state_in_place],
    "09_carrier": [carrier_by_restore, carrier_by_trace],
    "09_late_site": [late_by_walking, late_by_numpy],
    "09_first_mlp": [first_mlp_by_restore, first_mlp_as_tensors],
    "09_fair_recovery": [recovery_mended, recovery_by_earlier_answers],
    "09_rank_one": [rank_one_by_formula, rank_one_by_inverse],
    "09_score_edit": [score_at_once, score_by_numpy],
    "09_works_anyway": [works_by_listing, works_by_mask],
    "09_edit_control": [control_at_once, control_by_probabilities],
}


@pytest.mark.parametrize("choice", [*ch09.NO_CONTROL, "another"])
def test_a_wrong_choice_with_any_number_is_answered_without_the_right_one(choice):
    verdict = check(ch09.EDIT_CONTROL, lambda lm, data: {"choice": choice, "gain": 0.5}, Surroundings({}, {}, {}))
    assert verdict.stage == "property"
    assert verdict.message == ch09.NO_CONTROL.get(choice, verdict.message)
    assert "wanted" not in verdict.message


@pytest.mark.parametrize("never", [lambda table: -1, len])
def test_late_site_asks_what_to_return_for_never(never):
    table = ch09._never_late(3)[0]
    assert ch09.late_site(table) == table.shape[1] != never(table)


@pytest.mark.slow
def test_the_references_agree_with_whole_runs(default_model):
    data, mlps = ch09._carried(0)[1], ch09._mlp_data(0)[1]
    by_whole_runs = [max(scores, key=scores.get) for scores in ch09._by_token(default_model, data)]
    assert ch09.carrier(default_model, data) == by_whole_runs
    assert ch09.first_mlp(default_model, mlps) == pytest.approx(ch09._mlp_mistake()(default_model, mlps), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("short_cut", ch09.CARRIED)
def test_every_fact_of_a_kind_tells_its_short_cut_from_what_is_asked(short_cut, default_model):
    data = ch09._facts(*ch09.CARRIED[short_cut])
    mistake = next(each for each in ch09.CARRIER.mistakes if each.name == short_cut)
    right = [max(scores, key=scores.get) for scores in ch09._by_token(default_model, data)]
    assert all(theirs != ours for theirs, ours in zip(mistake.answer(default_model, data), right, strict=True))
