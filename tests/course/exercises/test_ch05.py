"""Right answers to chapter 05, each exercise at least twice, written as differently as learners do."""

import numpy as np
import torch

from mechkit.methods.ablation import mean
from mechkit.methods.heads import head_scores, repeated_tokens, without_sender
from mechkit.methods.metrics import loss
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit


def losses_by_the_library(logits, tokens, period):
    return (
        loss(logits[:, : period + 1], tokens[:, : period + 1]),
        loss(logits[:, period + 1 :], tokens[:, period + 1 :]),
    )


def losses_by_cross_entropy(logits, tokens, period):
    surprise = torch.nn.functional.cross_entropy(logits[:, :-1].double().mT, tokens[:, 1:], reduction="none").numpy()
    return [surprise[:, :period].mean(), surprise[:, -(period - 1) :].mean()]


def losses_as_a_tensor(logits, tokens, period):
    log_p = logits.log_softmax(-1)[:, :-1]
    picked = -log_p[torch.arange(len(tokens))[:, None], torch.arange(tokens.shape[1] - 1), tokens[:, 1:]]
    return torch.tensor([picked[:, :period].mean(), picked[:, period + 1 :].mean()])


def previous_by_index(pattern):
    queries = torch.arange(2, pattern.shape[-1])
    return pattern[:, :, queries, queries - 1].mean((0, 2)).double()


def previous_by_numpy(pattern):
    return [np.mean([np.diagonal(text[head], -1)[1:] for text in pattern.numpy()]) for head in range(pattern.shape[1])]


def induction_by_index(pattern, period):
    queries = np.arange(pattern.shape[-1] - period, pattern.shape[-1])
    return pattern.numpy()[:, :, queries, queries - period + 1].mean((0, 2))


def induction_by_loop(pattern, period):
    return [
        sum(float(text[head, q, q - period + 1]) for text in pattern for q in range(period + 1, 2 * period + 1))
        / (period * len(pattern))
        for head in range(pattern.shape[1])
    ]


def heads_by_scores(lm, data):
    table = head_scores(lm, repeated_tokens(lm, **data), data["period"])["induction"]
    return [[layer + 1, head] for layer, head in (divmod(int(i), lm.n_heads) for i in table[1:].flatten().topk(4)[1])]


def heads_by_sorting(lm, data):
    _, cache = run(lm, repeated_tokens(lm, **data), sites="pattern", layers=range(1, lm.n_layers))
    scores = {}
    for layer in range(1, lm.n_layers):
        for head, score in enumerate(induction_by_index(cache["pattern", layer], data["period"])):
            scores[layer, head] = float(score)
    return torch.tensor(sorted(scores, key=scores.get)[: -4 - 1 : -1])


def share_by_topk(logits, tokens, among):
    return (logits.topk(among, dim=-1).indices == tokens[:, None, None]).any(-1).double().mean(0)


def share_by_sorting(logits, tokens, among):
    order = np.argsort(-logits.numpy(), axis=-1)[..., :among]
    return [float(np.mean([t in order[i, h] for i, t in enumerate(tokens.tolist())])) for h in range(logits.shape[1])]


def matched_by_counting(chosen, order):
    mask = torch.zeros(order.shape, dtype=torch.bool)
    for layer, head in chosen:
        mask[layer, head] = True
    drawn = []
    for layer, row in enumerate(order):
        drawn += [[layer, int(head)] for head in row if not mask[layer, head]][: int(mask[layer].sum())]
    return torch.tensor(sorted(drawn))


def matched_by_hand(chosen, order):
    left = {layer: [head for head in row if (layer, head) not in chosen] for layer, row in enumerate(order.tolist())}
    return sorted((layer, left[layer].pop(0)) for layer, _ in chosen)


def ablated_by_constants(lm, tokens, period, heads):
    _, cache = run(lm, tokens, sites="z")
    edits = []
    for layer, head in heads:
        average = cache["z", layer][:, 1:, head].double().mean((0, 1)).float()
        edits.append(Edit("z", layer, lambda value, average=average: 0 * value + average, head=head))
    with edit(lm, *edits):
        logits, _ = run(lm, tokens, sites=())
    return loss(logits[:, period + 1 :], tokens[:, period + 1 :])


def ablated_in_nested_contexts(lm, tokens, period, heads):
    _, cache = run(lm, tokens, sites="z", layers=[layer for layer, _ in heads])

    def inside(left):
        if not left:
            return losses_by_the_library(run(lm, tokens, sites=())[0], tokens, period)[1]
        (layer, head), *rest = left
        with edit(lm, mean("z", layer, cache, head=[head], per_position=False)):
            return inside(rest)

    return inside(list(heads)).item()


def suspects_by_scores(lm, data):
    (top, _), *_ = heads_by_scores(lm, data)
    table = head_scores(lm, repeated_tokens(lm, **data), data["period"])["previous"][:top]
    return [divmod(i, lm.n_heads) for i in table.flatten().argsort(descending=True)[:4].tolist()]


def suspects_by_sorting(lm, data):
    top = int(heads_by_sorting(lm, data)[0, 0])
    _, cache = run(lm, repeated_tokens(lm, **data), sites="pattern")
    places = [
        (float(score), layer, head)
        for layer in range(top)
        for head, score in enumerate(previous_by_index(cache["pattern", layer]))
    ]
    return [[layer, head] for _, layer, head in sorted(places)[::-1][:4]]


def needed_by_constants(lm, data):
    tokens, (layer, head) = repeated_tokens(lm, **data), heads_by_scores(lm, data)[0]
    _, cache = run(lm, tokens, sites="z")
    left = []
    for low, writer in suspects_by_scores(lm, data):
        average = cache["z", low][:, 1:, writer].mean((0, 1))
        with edit(lm, Edit("z", low, lambda z, average=average: average.expand_as(z), head=writer)):
            _, seen = run(lm, tokens, sites="pattern")
        left.append(float(induction_by_index(seen["pattern", layer], data["period"])[head]))
    return suspects_by_scores(lm, data)[int(np.argmin(left))]


def needed_by_the_largest_drop(lm, data):
    tokens, (layer, head) = repeated_tokens(lm, **data), heads_by_scores(lm, data)[0]
    _, cache = run(lm, tokens, sites=("z", "pattern"))
    intact, drops = induction_by_loop(cache["pattern", layer], data["period"])[head], {}
    for low, writer in suspects_by_sorting(lm, data):
        with edit(lm, mean("z", low, cache, head=writer, per_position=False)):
            scores = head_scores(lm, tokens, data["period"])
        drops[low, writer] = intact - float(scores["induction"][layer, head])
    return torch.tensor(max(drops, key=drops.get))


def key_by_the_library(lm, tokens, sender, receiver):
    with edit(lm, without_sender(lm, tokens, sender=sender, receiver=receiver, through="k")):
        _, cache = run(lm, tokens, sites="k", layers=receiver[0])
    return cache["k", receiver[0]].repeat_interleave(lm.n_heads // lm.n_kv_heads, dim=2)[:, :, receiver[1]]


def key_by_einsum(lm, tokens, sender, receiver):
    _, cache = run(lm, tokens)
    said = torch.einsum("bphd,hdm->bphm", cache["z", sender[0]], lm.W_O(sender[0]))[:, :, sender[1]]
    stream = cache["resid_pre", receiver[0]] - said + said[:, 1:].flatten(0, 1).mean(0)
    with edit(lm, Edit("resid_post", receiver[0] - 1, lambda _: stream)):
        _, cache = run(lm, tokens)
    return cache["k", receiver[0]][:, :, receiver[1] // (lm.n_heads // lm.n_kv_heads)].numpy()


def control_one_edit(lm, data):
    place = {"sender": data["sender"], "receiver": data["receiver"]}
    with edit(lm, without_sender(lm, data["tokens"], **place, through="q")):
        scores = head_scores(lm, data["tokens"], data["period"])
    return {"score": scores["induction"][data["receiver"]], "choice": "queries"}


def control_with_patterns(lm, data):
    place = {"sender": data["sender"], "receiver": data["receiver"]}
    edits = [without_sender(lm, data["tokens"], **place, through=each) for each in data["controls"]["queries"]]
    with edit(lm, *edits):
        _, cache = run(lm, data["tokens"], sites="pattern")
    layer, head = data["receiver"]
    return {"choice": "queries", "score": induction_by_index(cache["pattern", layer], data["period"])[head]}


def rise_by_loop(steps, scores, width):
    rises = [scores[i + width].item() - scores[i].item() for i in range(len(scores) - width)]
    start = rises.index(max(rises))
    return [steps[start], steps[start + width], rises[start]]


def rise_by_numpy(steps, scores, width):
    values = scores.double().numpy()
    start = np.argmax(values[width:] - values[: len(values) - width])
    return steps.numpy()[start], steps.numpy()[start + width], values[start + width] - values[start]


def rise_by_unfolding(steps, scores, width):
    windows = scores.unfold(0, width + 1, 1)
    rise, start = (windows[:, -1] - windows[:, 0]).max(0)
    return int(steps[start]), int(steps[start + width]), rise


RIGHT = {
    "05_copy_losses": [losses_by_the_library, losses_by_cross_entropy, losses_as_a_tensor],
    "05_previous_token_score": [previous_by_index, previous_by_numpy],
    "05_induction_score": [induction_by_index, induction_by_loop],
    "05_induction_heads": [heads_by_scores, heads_by_sorting],
    "05_copying_share": [share_by_topk, share_by_sorting],
    "05_matched_heads": [matched_by_counting, matched_by_hand],
    "05_fair_ablation": [ablated_by_constants, ablated_in_nested_contexts],
    "05_suspects": [suspects_by_scores, suspects_by_sorting],
    "05_needed_head": [needed_by_constants, needed_by_the_largest_drop],
    "05_key_without": [key_by_the_library, key_by_einsum],
    "05_composition_control": [control_one_edit, control_with_patterns],
    "05_steepest_rise": [rise_by_loop, rise_by_numpy, rise_by_unfolding],
}
