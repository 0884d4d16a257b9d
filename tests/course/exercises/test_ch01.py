"""Right answers to chapter 01, each exercise at least twice, written as differently as learners do."""

import numpy as np
import torch

from mechkit.methods import toy
from mechkit.network.cache import run


def reconstruct_at_once(x, W, b):
    return torch.relu(torch.einsum("bi,ik,jk->bj", x, W, W) + b)


def reconstruct_as_numpy(x, W, b):
    x, W, b = (each.numpy() for each in (x, W, b))
    return np.maximum(x @ W @ W.T + b, 0)


def loss_by_mean(x, output, importance):
    return (importance * (x - output) ** 2).mean()


def loss_by_einsum(x, output, importance):
    return np.float64(torch.einsum("bi,i->", (x - output).square().double(), importance.double()) / x.numel())


def represented_by_norm(W):
    return (W.norm(dim=-1) > 0.5).sum(-1)


def represented_by_loop(W):
    return [sum(np.linalg.norm(vector) > 0.5 for vector in instance.numpy()) for instance in W]


def dimensionality_by_unit(W):
    u = W / W.norm(dim=-1, keepdim=True)
    return W.square().sum(-1) / (u @ W.T).square().sum(-1)


def dimensionality_by_gram(W):
    gram = W.double() @ W.double().T
    return (gram.diagonal() ** 2 / (gram**2).sum(-1)).tolist()


def interference_by_unit(W):
    overlap = ((W / W.norm(dim=-1, keepdim=True)) @ W.T).square()
    return overlap.sum(-1) - overlap.diagonal()


def interference_without_diagonal(W):
    overlap = torch.nn.functional.normalize(W, dim=-1) @ W.T
    return overlap.fill_diagonal_(0).square().sum(-1).numpy()


def angle_by_arccos(W):
    u = torch.nn.functional.normalize(W[W.norm(dim=-1) > 0.5], dim=-1)
    cosines = (u @ u.T).fill_diagonal_(-1).amax(-1)
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).mean()


def angle_by_sorting(W):
    kept = W[W.norm(dim=-1) > 0.5].numpy().astype(float)
    turns = np.sort(np.degrees(np.arctan2(kept[:, 1], kept[:, 0])))
    gaps = np.diff(turns, append=turns[0] + 360)
    gaps = np.minimum(gaps, 360 - gaps)
    return float(np.minimum(gaps, np.roll(gaps, 1)).mean())


def fair_by_means(x, output):
    constant = (x - x.mean(1, keepdim=True)).square().mean((-2, -1))
    return (x[:, None] - output).square().mean((-2, -1)).mean(1) / constant


def fair_by_variance(x, output):
    return [float(((a - b) ** 2).mean() / a.var(0, correction=0).mean()) for a, b in zip(x, output, strict=True)]


def control_by_key(data):
    x, output = data["linear"]["x"], data["linear"]["output"]
    return {"choice": "linear", "unexplained": fair_by_means(x[None], output[None])[0]}


def control_by_hand(data):
    x, output = data["linear"].values()
    share = (x - output).square().mean() / (x - x.mean(0)).square().mean()
    return {"unexplained": share.item(), "choice": "linear"}


def never_by_stack(u, coin, value, sparsity):
    on, first = u < 2 * (1 - sparsity), coin < 0.5
    return value * torch.stack([on & first, on & ~first], -1).flatten(-2)


def never_by_slices(u, coin, value, sparsity):
    x = value.clone()
    x[:, 0::2] *= (u < 2 - 2 * sparsity) * (coin < 0.5)
    x[:, 1::2] *= (u < 2 - 2 * sparsity) * (coin >= 0.5)
    return x.tolist()


def fit_by_list(vectors, limit):
    kept = []
    for vector in vectors:
        if not kept or (torch.stack(kept) @ vector).abs().max() <= limit:
            kept.append(vector)
    return len(kept)


def fit_by_library(vectors, limit):
    return toy.near_orthogonal(vectors, limit).numel()


def polysemantic_by_sum(W):
    alone = W.relu()
    return int(((alone > 0.5 * alone.amax(0)).sum(0) >= 2).sum())


def polysemantic_by_second(W):
    first, second = W.relu().topk(2, dim=0).values
    return torch.sum(second > first / 2)


def tidy_at_once(lm, data):
    peaks = []
    for sentence in data["sentences"]:
        _, cache = run(lm, sentence, sites="mlp_post")
        peaks.append(cache.stack("mlp_post")[:, 0, 1:].amax(1))
    peaks = torch.stack(peaks)
    labels = {name: torch.tensor(data[name]) for name in ("topic", "nonsense")}
    return {name: (peaks[yes].amin(0) > peaks[~yes].amax(0)).double().mean() for name, yes in labels.items()}


def tidy_by_layer(lm, data):
    runs = [run(lm, lm.tokens(sentence), sites="mlp_post")[1] for sentence in data["sentences"]]
    found = {"nonsense": 0, "topic": 0}
    for layer in range(lm.n_layers):
        peaks = np.stack([cache["mlp_post", layer][0, 1:].numpy().max(0) for cache in runs])
        for name in found:
            yes = np.array(data[name])
            found[name] += (peaks[yes].min(0) > peaks[~yes].max(0)).mean() / lm.n_layers
    return found


RIGHT = {
    "01_reconstruct": [reconstruct_at_once, reconstruct_as_numpy],
    "01_weighted_loss": [loss_by_mean, loss_by_einsum],
    "01_represented": [represented_by_norm, represented_by_loop],
    "01_dimensionality": [dimensionality_by_unit, dimensionality_by_gram],
    "01_interference": [interference_by_unit, interference_without_diagonal],
    "01_neighbour_angle": [angle_by_arccos, angle_by_sorting],
    "01_fair_loss": [fair_by_means, fair_by_variance],
    "01_control": [control_by_key, control_by_hand],
    "01_never_together": [never_by_stack, never_by_slices],
    "01_how_many_fit": [fit_by_list, fit_by_library],
    "01_polysemantic": [polysemantic_by_sum, polysemantic_by_second],
    "01_tidy_neurons": [tidy_at_once, tidy_by_layer],
}
