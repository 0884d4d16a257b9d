"""Right answers to chapter 02, each exercise at least twice, written as differently as learners do."""

import numpy as np
import torch

from mechkit.course.exercises import find_chapter
from mechkit.methods.analogies import pair_offsets, random_offsets, solve_analogies, solve_offsets
from mechkit.methods.words import token_words


def nearest_by_torch(vectors, target, k):
    return torch.nn.functional.cosine_similarity(vectors, target[None], dim=-1).topk(k).indices


def nearest_by_numpy(vectors, target, k):
    cosines = vectors.numpy() @ target.numpy() / np.linalg.norm(vectors.numpy(), axis=1)
    return list(np.argsort(-cosines)[:k])


def add_by_offset(vectors, a, b, c):
    units = torch.nn.functional.normalize(vectors, dim=-1)
    return units @ (units[b] - units[a] + units[c])


def add_by_numpy(vectors, a, b, c):
    units = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    cosines = units @ units.T
    return cosines[b] - cosines[a] + cosines[c]


def add_by_torch(vectors, a, b, c):
    to_a, to_b, to_c = (torch.nn.functional.cosine_similarity(vectors, vectors[[i]], dim=-1) for i in (a, b, c))
    return to_b - to_a + to_c


def exclusion_by_accuracy(words, questions):
    solved = solve_analogies(words, questions)
    firsts = zip(solved.answers(exclude=False), solved.questions, strict=True)
    return {
        "returns_c": sum(answer == asked[2] for answer, asked in firsts) / len(questions),
        "excluded": solved.accuracy(),
        "free": solved.accuracy(exclude=False),
    }


def exclusion_by_hand(words, questions):
    counts = np.zeros(3)
    for question in questions:
        a, b, c, d = (words.place(word) for word in question)
        units = words.units(question)
        cosines = words.cosines((units[1] - units[0] + units[2])[None])[0].numpy()
        free, cosines[[a, b, c]] = cosines.argmax(), -9
        counts += [cosines.argmax() == d, free == d, free == c]
    return dict(zip(("excluded", "free", "returns_c"), counts / len(questions), strict=True))


def mul_by_torch(vectors, a, b, c):
    units = torch.nn.functional.normalize(vectors, dim=-1)
    moved = (units @ units.T + 1) / 2
    return moved[b] * moved[c] / (moved[a] + 0.001)


def mul_by_logarithms(vectors, a, b, c):
    units = torch.nn.functional.normalize(vectors.double(), dim=-1)
    to_a, to_b, to_c = (units @ units[place] / 2 + 0.5 for place in (a, b, c))
    return (to_b.log() + to_c.log() - (to_a + 1e-3).log()).exp().tolist()


def random_by_solving(words, questions, noise):
    lengths = pair_offsets(words, questions).norm(dim=-1, keepdim=True)
    return solve_offsets(words, questions, noise / noise.norm(dim=-1, keepdim=True) * lengths).answers()


def random_by_neighbours(words, questions, noise):
    answers = []
    for (a, b, c, _), direction in zip(questions, noise, strict=True):
        unit_a, unit_b, unit_c = words.units([a, b, c])
        step = direction * (unit_b - unit_a).norm() / direction.norm()
        answers.append(words.nearest(unit_c + step, 1, exclude=[a, b, c])[0][0])
    return answers


def pairing_by_solving(words, data):
    return {"choice": "mismatched", "accuracy": solve_analogies(words, data["mismatched"]).accuracy()}


def pairing_by_answers(words, data):
    solved = solve_analogies(words, data["mismatched"])
    right = [answer == words.spelled(d) for answer, (*_, d) in zip(solved.answers(), data["mismatched"], strict=True)]
    return {"accuracy": np.mean(right), "choice": "mismatched"}


def ranks_by_cosines(words, pairs):
    offsets, starts, ranks = pair_offsets(words, pairs), words.units([a for a, _ in pairs]), []
    for i, (a, b) in enumerate(pairs):
        offset = (offsets.sum(0) - offsets[i]) / (len(pairs) - 1)
        cosines = words.cosines((starts[i] + offset)[None])[0]
        cosines[words.place(a)] = -2
        ranks.append(int((cosines > cosines[words.place(b)]).sum()))
    return ranks


def ranks_by_neighbours(words, pairs):
    ranks = []
    for a, b in pairs:
        offset = pair_offsets(words, [pair for pair in pairs if pair != (a, b)]).mean(0)
        order = words.nearest(words.units([a])[0] + offset, len(words) - 1, exclude=[a])
        ranks.append([word for word, _ in order].index(words.spelled(b)))
    return torch.tensor(ranks)


def kept_by_svd(points, k):
    S = torch.linalg.svdvals(points - points.mean(0))
    return S[:k] ** 2 / (S**2).sum()


def kept_by_covariance(points, k):
    covariance = np.cov(points.numpy().T)
    return np.linalg.eigvalsh(covariance)[::-1][:k] / np.trace(covariance)


def left_out_by_sums(offsets):
    others = offsets.sum(0) - offsets
    return (offsets * others).sum(-1) / (offsets.norm(dim=-1) * others.norm(dim=-1))


def left_out_by_deleting(offsets):
    means = [np.delete(offsets.numpy(), i, axis=0).mean(0) for i in range(len(offsets))]
    return [float(x @ m / np.linalg.norm(x) / np.linalg.norm(m)) for x, m in zip(offsets.numpy(), means, strict=True)]


def left_out_by_torch(offsets):
    return torch.nn.functional.cosine_similarity(offsets, offsets.sum(0) - offsets, dim=-1)


def poles_by_projection(words, pairs, names):
    order = (words.units(names) @ pair_offsets(words, pairs).mean(0)).argsort().tolist()
    return {"first": [names[i] for i in order[:3]], "second": [names[i] for i in order[:-4:-1]]}


def poles_by_cosine(words, pairs, names):
    first, second = words.units([a for a, _ in pairs]), words.units([b for _, b in pairs])
    direction = second.mean(0) - first.mean(0)
    cosines = {name: float(torch.cosine_similarity(words[name], direction, dim=0)) for name in names}
    ranked = sorted(names, key=cosines.get)
    return {"second": ranked[-1:-4:-1], "first": tuple(ranked[:3])}


def own_by_solving(lm, questions):
    words = token_words(lm)
    asked = words.known(questions)
    methods = {"analogy": "3CosAdd", "nearest": "nearest to c"}
    return {name: solve_analogies(words, asked, method=method).accuracy() for name, method in methods.items()}


def own_by_offsets(lm, questions):
    words = token_words(lm)
    asked = [question for question in questions if all(word in words for word in question)]
    offsets = pair_offsets(words, asked)
    nothing = random_offsets(offsets, seed=0) * 1e-6
    solved = {"analogy": solve_offsets(words, asked, offsets), "nearest": solve_offsets(words, asked, nothing)}
    return {name: np.float64(each.accuracy()) for name, each in solved.items()}


RIGHT = {
    "02_nearest": [nearest_by_torch, nearest_by_numpy],
    "02_three_cos_add": [add_by_offset, add_by_numpy, add_by_torch],
    "02_exclusion": [exclusion_by_accuracy, exclusion_by_hand],
    "02_three_cos_mul": [mul_by_torch, mul_by_logarithms],
    "02_random_offset": [random_by_solving, random_by_neighbours],
    "02_pairing": [pairing_by_solving, pairing_by_answers],
    "02_fair_ranks": [ranks_by_cosines, ranks_by_neighbours],
    "02_kept_variance": [kept_by_svd, kept_by_covariance],
    "02_left_out": [left_out_by_sums, left_out_by_deleting, left_out_by_torch],
    "02_poles": [poles_by_projection, poles_by_cosine],
    "02_own_embeddings": [own_by_solving, own_by_offsets],
}


def test_torchs_own_cosine_is_forbidden_only_where_it_is_what_is_asked():
    taught = {exercise.name for exercise in find_chapter("02").exercises if "cosine_similarity" in exercise.teaches}
    assert taught == {"nearest"}
