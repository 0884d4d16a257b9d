"""Right answers to chapter 00, each exercise at least twice, written as differently as learners do."""

import math

import numpy as np
import pytest
import torch

from mechkit.course.exercises.ch00 import SELF_TEST
from mechkit.course.selftest import self_test
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit


def shares_by_exp(logits):
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def shares_as_numpy(logits):
    weights = np.exp(logits.double().numpy())
    return weights / weights.sum(-1, keepdims=True)


def shares_as_lists(logits):
    if logits.ndim > 1:
        return [shares_as_lists(row) for row in logits]
    total = sum(math.exp(each) for each in logits)
    return [math.exp(each) / total for each in logits]


def gap_by_index(logits, right, wrong):
    return logits[-1, right] - logits[-1, wrong]


def gap_of_log_shares(logits, right, wrong):
    shares = shares_by_exp(logits[-1].double()).log().tolist()
    return shares[right] - shares[wrong]


def cosine_of_units(a, b):
    return float((a / a.norm()) @ (b / b.norm()))


def cosine_by_numpy(a, b):
    a, b = a.numpy(), b.numpy()
    return np.inner(a, b) / np.sqrt(np.inner(a, a) * np.inner(b, b))


def shadow_at_once(vectors, direction):
    return vectors @ direction / direction.norm()


def shadow_by_einsum(vectors, direction):
    return np.einsum("nd,d->n", vectors.double(), direction.double() / direction.double().norm())


def shadow_by_loop(vectors, direction):
    unit = direction / direction.square().sum() ** 0.5
    return [float((row * unit).sum()) for row in vectors]


def head_by_matmul(q, k, v):
    scores = q @ k.T / q.shape[1] ** 0.5
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    pattern = shares_by_exp(scores.masked_fill(future, -torch.inf))
    return pattern, pattern @ v


def head_by_einsum(q, k, v):
    weights = torch.einsum("qd,kd->qk", q.double(), k.double()).div(math.sqrt(q.shape[1])).exp().tril()
    pattern = (weights / weights.sum(-1, keepdim=True)).numpy()
    return [pattern, np.einsum("qk,kd->qd", pattern, v.double())]


def head_by_rows(q, k, v):
    rows = [shares_by_exp(q[i] @ k[: i + 1].T / math.sqrt(len(q[i]))) for i in range(len(q))]
    pattern = torch.stack([torch.cat([row, torch.zeros(len(q) - len(row))]) for row in rows])
    return pattern, torch.stack([row @ v[: len(row)] for row in rows])


def writes_in_order(lm, prompt):
    _, cache = run(lm, prompt)
    parts = [cache["resid_pre", 0][0, -1]]
    for layer in range(lm.n_layers):
        parts += [cache["attn_out", layer][0, -1], cache["mlp_out", layer][0, -1]]
    return torch.stack(parts)


def writes_interleaved(lm, prompt):
    _, cache = run(lm, prompt, sites=["resid_pre", "attn_out", "mlp_out"])
    pairs = torch.stack([cache.stack("attn_out")[:, 0, -1], cache.stack("mlp_out")[:, 0, -1]], dim=1)
    return np.concatenate([cache["resid_pre", 0][0, -1:].numpy(), pairs.flatten(0, 1).numpy()])


def swap_in_place(lm, prompt, donor, layer, position):
    _, cache = run(lm, donor, sites="resid_post", layers=layer)
    with edit(lm, Edit("resid_post", layer, lambda old: cache["resid_post", layer][:, position], position=position)):
        logits, _ = run(lm, prompt, sites=())
    return logits[0, -1]


def swap_whole_stream(lm, prompt, donor, layer, position):
    _, cache = run(lm, lm.tokens(donor))

    def change(stream):
        stream[:, position] = cache["resid_post", layer][:, position]
        return stream

    with edit(lm, Edit("resid_post", layer, change)):
        return run(lm, prompt)[0][0, -1].double().numpy()


def control_by_hand(lm, data):
    shift = -gap_by_index(run(lm, data["prompt"])[0][0], data["right"], data["wrong"])
    push = data["direction"].norm() * data["pushes"]["random"] / data["pushes"]["random"].norm()
    with edit(lm, Edit("resid_post", data["layer"], lambda old: old + push, position=data["country"])):
        shift += gap_by_index(run(lm, data["prompt"])[0][0], data["right"], data["wrong"])
    return {"shift": float(shift), "choice": "random"}


def control_through_the_next_block(lm, data):
    def gap(strength):
        push = strength * data["pushes"]["random"]
        where = Edit("resid_pre", data["layer"] + 1, lambda old: old + push, position=[data["country"]])
        with edit(lm, where):
            return gap_of_log_shares(run(lm, data["prompt"], sites=())[0][0], data["right"], data["wrong"])

    return {"choice": "random", "shift": gap(1.0) - gap(0.0)}


def watchers_by_topk(lm, data):
    _, cache = run(lm, data["prompts"], sites="pattern")
    looks = cache.stack("pattern")[:, :, :, -1, data["country"]].mean(1)
    return [divmod(int(each), lm.n_heads) for each in looks.flatten().topk(4).indices]


def watchers_by_sorting(lm, data):
    looks = torch.zeros(lm.n_layers, lm.n_heads)
    for prompt in data["prompts"]:
        _, cache = run(lm, prompt, sites="pattern")
        looks += torch.stack([cache["pattern", i][0, :, -1, data["country"]] for i in range(lm.n_layers)])
    names = [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    return np.array(sorted(names, key=lambda name: -looks[name])[:4])


def effect_by_zeros(lm, prompt, layer, head, right, wrong):
    clean, _ = run(lm, prompt, sites=())
    with edit(lm, Edit("z", layer, torch.zeros_like, head=head)):
        silenced, _ = run(lm, prompt, sites=())
    return gap_by_index(clean[0], right, wrong) - gap_by_index(silenced[0], right, wrong)


def effect_by_taking_off(lm, prompt, layer, head, right, wrong):
    """Silencing a head is taking what it wrote off the attention's output."""
    clean, cache = run(lm, lm.tokens(prompt), sites="z")
    write = cache["z", layer][:, :, head] @ lm.W_O(layer)[head]
    with edit(lm, Edit("attn_out", layer, lambda old: old - write)):
        silenced, _ = run(lm, lm.tokens(prompt), sites=())
    change = (clean - silenced)[0, -1].tolist()
    return np.float64(change[right] - change[wrong])


def gaps(lm, data):
    logits, _ = run(lm, data["prompts"], sites=())
    right, wrong = ([lm.token_id(word) for word in data[key]] for key in ("answers", "others"))
    rows = range(len(right))
    return logits[rows, -1, right] - logits[rows, -1, wrong]


def drops_at_once(lm, data):
    found, clean = [], gaps(lm, data).mean()
    for layer, head in watchers_by_topk(lm, data):
        with edit(lm, Edit("z", layer, torch.zeros_like, head=head)):
            found.append(clean - gaps(lm, data).mean())
    return torch.stack(found)


def drops_without_attention(lm, data):
    """A head whose attention is nothing writes nothing."""
    found, clean = [], gaps(lm, data)
    for layer, head in watchers_by_topk(lm, data):
        with edit(lm, Edit("pattern", layer, lambda old: 0 * old, head=head)):
            found.append(float((clean - gaps(lm, data)).double().mean()))
    return found


RIGHT = {
    "00_probabilities": [shares_by_exp, shares_as_numpy, shares_as_lists],
    "00_logit_difference": [gap_by_index, gap_of_log_shares],
    "00_cosine": [cosine_of_units, cosine_by_numpy],
    "00_shadow": [shadow_at_once, shadow_by_einsum, shadow_by_loop],
    "00_attention_head": [head_by_matmul, head_by_einsum, head_by_rows],
    "00_writes": [writes_in_order, writes_interleaved],
    "00_swap": [swap_in_place, swap_whole_stream],
    "00_fair_control": [control_by_hand, control_through_the_next_block],
    "00_watchers": [watchers_by_topk, watchers_by_sorting],
    "00_head_effect": [effect_by_zeros, effect_by_taking_off],
    "00_drops": [drops_at_once, drops_without_attention],
}


def test_the_self_test_asks_then_says_what_to_skip(capsys):
    self_test()
    asked = capsys.readouterr().out
    assert all(question.ask in asked for question in SELF_TEST)
    right = "".join(question.right for question in SELF_TEST)
    self_test(right)
    said = capsys.readouterr().out
    assert f"{len(SELF_TEST)} of {len(SELF_TEST)}" in said
    assert all(question.skip in said for question in SELF_TEST)


def test_the_self_test_can_be_left_out(capsys):
    self_test(...)
    assert "no answers yet" in capsys.readouterr().out


@pytest.mark.parametrize("answers", ["ab", "abcabc", "abxab", 7])
def test_the_self_test_says_which_letters_it_wants(answers, capsys):
    self_test(answers)
    assert "Wanted 5 letters from a to c" in capsys.readouterr().out


def test_a_wrong_letter_is_answered_with_the_right_one_and_its_section(capsys):
    wrong = "".join("b" if question.right == "a" else "a" for question in SELF_TEST)
    self_test(wrong)
    said = capsys.readouterr().out
    assert "0 of 5" in said
    assert all(question.read in said for question in SELF_TEST)
