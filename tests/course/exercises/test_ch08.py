"""Right answers to chapter 08, each exercise at least twice, written as differently as learners do."""

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, normalize

from mechkit.network.cache import run
from mechkit.network.hooks import read


def encode_by_clamp(x, W_enc, b_enc, b_dec):
    return torch.clamp(x @ W_enc - b_dec @ W_enc + b_enc, min=0)


def encode_by_numpy(x, W_enc, b_enc, b_dec):
    return np.maximum((x - b_dec).double().numpy() @ W_enc.double().numpy() + b_enc.numpy(), 0)


def encode_by_einsum(x, W_enc, b_enc, b_dec):
    return torch.relu(torch.einsum("td,ds->ts", x - b_dec[None], W_enc) + b_enc[None]).tolist()


def loss_by_norms(x, reconstruction, hidden, penalty):
    return torch.linalg.norm(x - reconstruction, dim=1).pow(2).mean() + penalty * hidden.norm(p=1, dim=1).mean()


def loss_by_sums(x, reconstruction, hidden, penalty):
    return (((x - reconstruction) ** 2).sum() + penalty * hidden.sum()) / len(x)


def recovered_by_similarity(truth, W_dec, bar):
    return (cosine_similarity(truth[:, None], W_dec[None], dim=-1) >= bar).any(dim=1).sum()


def recovered_by_loop(truth, W_dec, bar):
    return sum(any(cosine_similarity(each, row, dim=0) >= bar for row in W_dec) for each in truth)


def bias_by_numpy(x, reconstruction, b_dec):
    out, true = (reconstruction - b_dec).numpy().ravel(), (x - b_dec).numpy().ravel()
    return np.dot(out, out) / np.dot(out, true)


def bias_by_best_factor(x, reconstruction, b_dec):
    out, true = (reconstruction - b_dec).flatten()[:, None], (x - b_dec).flatten()[:, None]
    return 1 / torch.linalg.lstsq(out.double(), true.double()).solution.item()


def bias_as_a_tensor(x, reconstruction, b_dec):
    return (reconstruction - b_dec).square().mean() / ((reconstruction - b_dec) * (x - b_dec)).mean()


def top_by_scatter(readings, k):
    best = readings.relu().topk(k)
    return torch.zeros_like(readings).scatter(-1, best.indices, best.values)


def top_by_threshold(readings, k):
    positive = readings.relu()
    return positive * (positive >= positive.sort(descending=True).values[:, k - 1 : k])


def top_by_numpy(readings, k):
    values = np.maximum(readings.numpy(), 0)
    kept = np.zeros_like(values)
    for row, line in enumerate(values):
        for place in np.argsort(-line)[:k]:
            kept[row, place] = line[place]
    return kept


def inflation_by_torch(lm, data):
    layer = lm.n_layers // 2
    streams = [run(lm, text, sites="resid_post", layers=layer)[1]["resid_post", layer][0] for text in data["texts"]]
    spread = [rows.var(dim=0, correction=0).sum() for rows in (torch.cat(streams), torch.cat([s[1:] for s in streams]))]
    return spread[0] / spread[1]


def inflation_unbiased_by_numpy(lm, data):
    layer, rows, place = lm.n_layers // 2, [], []
    for text in data["texts"]:
        with read(lm, "resid_post", [layer]) as seen, torch.no_grad():
            lm.hf(lm.tokens(text))
        rows += list(seen["resid_post", layer][0].numpy())
        place += range(seen["resid_post", layer].shape[1])
    rows, place = np.array(rows), np.array(place)
    return rows.var(axis=0, ddof=1).sum() / rows[place > 0].var(axis=0, ddof=1).sum()


def variance_by_var(x, reconstruction, position, trained):
    kept = (position != 0) & ~trained
    error = (x - reconstruction)[kept]
    return 1 - error.square().mean(0).sum() / x[kept].var(0, correction=0).sum()


def variance_by_numpy(x, reconstruction, position, trained):
    kept = np.logical_and(position.numpy() > 0, np.logical_not(trained.numpy()))
    true, out = x.double().numpy()[kept], reconstruction.double().numpy()[kept]
    return 1 - ((true - out) ** 2).sum() / ((true - true.mean(axis=0)) ** 2).sum()


def detection_by_means(predicted, truth):
    return (predicted[truth].float().mean() + (~predicted)[~truth].float().mean()) / 2


def detection_by_counting(predicted, truth):
    predicted, truth = predicted.numpy(), truth.numpy()
    hits, clear = (predicted & truth).sum() / truth.sum(), (~predicted & ~truth).sum() / (~truth).sum()
    return float(np.mean([hits, clear]))


def direction_by_sort(x, direction, density):
    shadows = x @ direction / direction.norm()
    return (shadows - shadows.sort(descending=True).values[round(density * len(x))]).relu()


def direction_by_topk(x, direction, density):
    shadows = normalize(direction, dim=0).double() @ x.double().T
    n = round(density * len(x))
    bar = shadows.topk(n + 1).values.min()
    return torch.where(shadows > bar, shadows - bar, torch.zeros_like(shadows)).tolist()


def control_by_rates(data):
    control = data["controls"]["random_directions"]
    said, on = control["predicted"].float(), control["truth"].float()
    hits, clear = (said * on).sum(1) / on.sum(1), ((1 - said) * (1 - on)).sum(1) / (1 - on).sum(1)
    return {"score": ((hits + clear) / 2).mean(), "choice": "random_directions"}


def control_by_loop(data):
    chosen = data["controls"]["random_directions"]
    scores = [detection_by_counting(said, on) for said, on in zip(chosen["predicted"], chosen["truth"], strict=True)]
    return {"choice": "random_directions", "score": np.mean(scores)}


def without_by_subtracting(x, hidden, W_dec, b_dec, feature):
    return x - torch.outer(hidden[:, feature], W_dec[feature])


def without_by_difference(x, hidden, W_dec, b_dec, feature):
    silenced = hidden.clone()
    silenced[:, feature] = 0
    return x - (hidden @ W_dec + b_dec) + (silenced @ W_dec + b_dec)


def children_by_table(small, large, parent, bar):
    table = normalize(large, dim=1) @ normalize(small, dim=1).T
    value, nearest = table.max(1)
    mine = ((nearest == parent) & (value >= bar)).nonzero().flatten()
    return mine[value[mine].argsort(descending=True)]


def children_by_loop(small, large, parent, bar):
    found = {}
    for child in range(len(large)):
        cosines = cosine_similarity(large[child : child + 1], small)
        if cosines.argmax().item() == parent and cosines.max() >= bar:
            found[child] = cosines.max().item()
    return sorted(found, key=found.get, reverse=True)


def attribution_by_einsum(hidden, W_dec, direction):
    return torch.einsum("ts,sd,td->ts", hidden, W_dec, direction).double()


def attribution_by_token(hidden, W_dec, direction):
    return torch.stack([(h[:, None] * W_dec) @ d for h, d in zip(hidden, direction, strict=True)]).numpy()


def upstream_by_matmul(hidden_in, W_dec, W_enc, hidden_out, feature):
    given = hidden_in[hidden_out[:, feature] > 0].mean(0) * (W_dec @ W_enc)[:, feature]
    return given.argmax(), given.max()


def upstream_by_numpy(hidden_in, W_dec, W_enc, hidden_out, feature):
    on = np.flatnonzero(hidden_out.numpy()[:, feature])
    writes = hidden_in.numpy()[on, :, None] * W_dec.numpy()[None]
    given = (writes @ W_enc.numpy()[:, feature]).mean(axis=0)
    return [int(np.argmax(given)), given.max()]


RIGHT = {
    "08_encode": [encode_by_clamp, encode_by_numpy, encode_by_einsum],
    "08_sae_loss": [loss_by_norms, loss_by_sums],
    "08_recovered": [recovered_by_similarity, recovered_by_loop],
    "08_relative_bias": [bias_by_numpy, bias_by_best_factor, bias_as_a_tensor],
    "08_top_k": [top_by_scatter, top_by_threshold, top_by_numpy],
    "08_inflation": [inflation_by_torch, inflation_unbiased_by_numpy],
    "08_fair_variance": [variance_by_var, variance_by_numpy],
    "08_detection_score": [detection_by_means, detection_by_counting],
    "08_matched_direction": [direction_by_sort, direction_by_topk],
    "08_label_control": [control_by_rates, control_by_loop],
    "08_without_feature": [without_by_subtracting, without_by_difference],
    "08_children": [children_by_table, children_by_loop],
    "08_feature_attribution": [attribution_by_einsum, attribution_by_token],
    "08_upstream": [upstream_by_matmul, upstream_by_numpy],
}
