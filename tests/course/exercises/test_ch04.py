"""Right answers to chapter 04, each exercise at least twice, written as differently as learners do."""

import numpy as np
import torch

from mechkit.data.corpus import load_corpus
from mechkit.methods.affine import affine_lens
from mechkit.methods.attribution import direct_logit_attribution
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit


def rank_by_sorting(logits, token):
    return sorted(logits.tolist(), reverse=True).index(float(logits[token]))


def rank_as_numpy(logits, token):
    return np.sum(logits.numpy() > logits.numpy()[token])


def lens_by_matrix(resid, lm):
    return (lm.final_norm(resid) @ lm.W_U).double()


def lens_as_lists(resid, lm):
    return [[lm.unembed(lm.final_norm(vector)).tolist() for vector in layer] for layer in resid]


def kl_by_torch(lens, final):
    log_p = final.log_softmax(-1).expand_as(lens)
    return torch.nn.functional.kl_div(lens.log_softmax(-1), log_p, log_target=True, reduction="none").sum(-1).mean(-1)


def kl_by_numpy(lens, final):
    p, q = (each.double().numpy() for each in (final, lens))
    p, q = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (p, q))
    return (np.exp(p) * (p - q)).sum(-1).mean(-1)


def lock_in_upwards(lm, prompts):
    found = []
    for prompt in prompts:
        _, cache = run(lm, prompt, sites="resid_post")
        top = lm.unembed(lm.final_norm(cache.stack("resid_post")[:, 0, -1])).argmax(-1)
        wrong = (top != top[-1]).nonzero().flatten()
        found.append(int(wrong[-1]) + 1 if len(wrong) else 0)
    return found


def lock_in_as_tensor(lm, prompts):
    return torch.tensor(lock_in_upwards(lm, prompts), dtype=torch.float32)


def fair_kl_at_once(lm, text):
    logits, cache = run(lm, text, sites="resid_post")
    return kl_by_torch(lm.unembed(lm.final_norm(cache.stack("resid_post")[:, 0, 1:])), logits[0, 1:])


def fair_kl_by_layer(lm, text):
    logits, cache = run(lm, lm.tokens(text, prefix=lm.prefix), sites="resid_post")
    layers = (cache["resid_post", layer][0] for layer in range(lm.n_layers))
    return [float(kl_by_torch(lm.unembed(lm.final_norm(each))[None, 1:], logits[0, 1:])) for each in layers]


def fit_change(h, target, ridge):
    x, gap = h.double(), (target - h).double()
    mean, mean_gap = x.mean(0), gap.mean(0)
    change = (
        torch.linalg.inv((x - mean).T @ (x - mean) + ridge * torch.eye(h.shape[1])) @ (x - mean).T @ (gap - mean_gap)
    )
    return torch.eye(h.shape[1]) + change, mean_gap - mean @ change


def fit_centred(h, target, ridge):
    x, y, eye = h - h.mean(0), target - target.mean(0), torch.eye(h.shape[1])
    W = torch.linalg.solve(x.T @ x + ridge * eye, x.T @ y + ridge * eye)
    return [W.numpy(), (target.mean(0) - h.mean(0) @ W).numpy()]


def arrival_by_sorting(lm, prompts):
    lens, ranks = affine_lens(lm, load_corpus()), []
    for prompt in prompts:
        logits, cache = run(lm, prompt, sites="resid_post")
        order = lens.read(cache.stack("resid_post")[:, 0], lm)[:, -1].argsort(-1, descending=True)
        ranks.append((order == logits[0, -1].argmax()).int().argmax(-1))
    median = torch.stack(ranks).double().quantile(0.5, dim=0)
    return int((median < 10).int().argmax())


def arrival_by_numpy(lm, prompts):
    lens, ranks = affine_lens(lm, load_corpus()), []
    for prompt in prompts:
        _, cache = run(lm, prompt, sites="resid_post")
        read = lens.read(cache.stack("resid_post")[:, 0, -1], lm).numpy()
        ranks.append([(row > row[read[-1].argmax()]).sum() for row in read])
    return np.argmax(np.median(ranks, axis=0) < 10)


def control_at_once(data, lm):
    weight, bias = fit_change(*data["train"]["shuffled"], data["ridge"])
    h, target = data["test"]["shuffled"]
    read = lm.unembed(lm.final_norm((h.double() @ weight + bias).float()))
    return {"kl": kl_by_torch(read, lm.unembed(lm.final_norm(target))).mean(), "choice": "shuffled"}


def control_by_augmented_rows(data, lm):
    h, target = data["train"]["shuffled"]
    W, b = fit_centred(h, target, data["ridge"])
    h, target = data["test"]["shuffled"]
    read, final = (lm.unembed(lm.final_norm(each)) for each in (h @ torch.tensor(W) + torch.tensor(b), target))
    return {"choice": "shuffled", "kl": np.float32(kl_by_torch(read, final).mean().item())}


def attribution_by_loop(z, W_O, u, gain, scale):
    return [float((z[head] @ W_O[head] / scale * gain) @ u) for head in range(len(z))]


def attribution_pulled_back(z, W_O, u, gain, scale):
    return (z * (W_O @ (gain * u / scale))).sum(-1)


def head_by_attribution(lm, data):
    words = ([lm.token_id(word) for word in data[key]] for key in ("answers", "others"))
    return divmod(direct_logit_attribution(lm, data["prompts"], *words).heads.mean(-1).argmax().item(), lm.n_heads)


def head_by_search(lm, data):
    words = ([lm.token_id(word) for word in data[key]] for key in ("answers", "others"))
    heads = direct_logit_attribution(lm, data["prompts"], *words).heads.sum(-1)
    places = [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    return torch.tensor(max(places, key=lambda place: heads[place]))


def elsewhere_in_place(lm, vector, prompt, layer):
    def change(value):
        value[:, -1] = vector
        return value

    with edit(lm, Edit("resid_post", layer, change)):
        return run(lm, prompt, sites="logits")[1]["logits"][0, -1]


def elsewhere_by_last_index(lm, vector, prompt, layer):
    tokens = lm.tokens(prompt)
    place = Edit("resid_post", layer, lambda value: vector.repeat(len(value), 1, 1), position=[tokens.shape[1] - 1])
    with edit(lm, place):
        return run(lm, tokens)[0][0, -1].numpy()


RIGHT = {
    "04_rank_of": [rank_by_sorting, rank_as_numpy],
    "04_logit_lens": [lens_by_matrix, lens_as_lists],
    "04_kl_by_layer": [kl_by_torch, kl_by_numpy],
    "04_lock_in": [lock_in_upwards, lock_in_as_tensor],
    "04_fair_kl": [fair_kl_at_once, fair_kl_by_layer],
    "04_fit_affine": [fit_change, fit_centred],
    "04_arrival": [arrival_by_sorting, arrival_by_numpy],
    "04_control": [control_at_once, control_by_augmented_rows],
    "04_head_attribution": [attribution_by_loop, attribution_pulled_back],
    "04_top_head": [head_by_attribution, head_by_search],
    "04_read_elsewhere": [elsewhere_in_place, elsewhere_by_last_index],
}
