"""Right answers to chapter 06, each exercise at least twice, written as differently as learners do."""

import statistics

import numpy as np
import torch

from mechkit.data.ioi import ioi_positions
from mechkit.methods.ablation import mean
from mechkit.methods.attribution import direct_logit_attribution, written_logits
from mechkit.methods.circuits import Trial, end_attention
from mechkit.methods.metrics import logit_difference
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit


def ids_of(lm, names):
    return [lm.token_id(name) for name in names]


def gaps(lm, data):
    right, wrong = (torch.tensor(ids_of(lm, data[key])) for key in ("io", "subject"))
    return logit_difference(run(lm, data["prompts"], sites=())[0], right, wrong)


def shares(lm, data):
    words = (ids_of(lm, data[key]) for key in ("io", "subject"))
    return direct_logit_attribution(lm, data["prompts"], *words).heads.mean(-1)


def looks(lm, data):
    return end_attention(lm, data["prompts"], ioi_positions(lm, data))


def ranking(lm, scores, number):
    return [divmod(i, lm.n_heads) for i in scores.flatten().argsort(descending=True)[:number].tolist()]


def places_by_mask(ids, io, subject):
    said = (ids == subject).nonzero().flatten()
    return {"END": len(ids) - 1, "IO": (ids == io).nonzero().item(), "S1": said[0], "S2": said[-1]}


def places_by_list(ids, io, subject):
    row = ids.tolist()
    last = len(row) - 1 - row[::-1].index(subject)
    return {"IO": row.index(io), "S1": row.index(subject), "S2": np.int64(last), "END": float(len(row) - 1)}


def spread_by_torch(differences):
    sd = differences.std()
    return {"mean": differences.mean(), "sd": sd, "standard_error": sd / len(differences) ** 0.5}


def spread_by_statistics(differences):
    values = differences.double().tolist()
    sd = statistics.stdev(values)
    return {"standard_error": sd / np.sqrt(len(values)), "mean": statistics.mean(values), "sd": np.float64(sd)}


def recency_by_mask(lm, data):
    last = torch.tensor([order == "BABA" for order in data["order"]])
    gap = gaps(lm, data)
    return gap[last].mean() - gap[~last].mean()


def recency_one_by_one(lm, data):
    found = {"ABBA": [], "BABA": []}
    for prompt, io, subject, order in zip(*(data[key] for key in ("prompts", "io", "subject", "order")), strict=True):
        log_p = run(lm, prompt, sites=())[0][0, -1].log_softmax(-1).tolist()
        found[order].append(log_p[lm.token_id(io)] - log_p[lm.token_id(subject)])
    return np.mean(found["BABA"]) - np.mean(found["ABBA"])


def dominant_by_attribution(lm, data):
    head = divmod(int(shares(lm, data).argmax()), lm.n_heads)
    attention = looks(lm, data)
    return {"head": head, "looks_at": max(("IO", "S1", "S2", "END"), key=lambda place: float(attention[place][head]))}


def dominant_as_tensor(lm, data):
    heads = shares(lm, data)
    head = (heads == heads.max()).nonzero()[0]
    attention = looks(lm, data)
    named = {place: attention[place][tuple(head)].item() for place in ("END", "S2", "S1", "IO")}
    return {"looks_at": max(named, key=named.get), "head": head}


def said_by_columns(lm, data):
    head, names = dominant_by_attribution(lm, data)["head"], ids_of(lm, data["names"])
    found = {}
    for key, prompts, said in (("twice", "prompts", "subject"), ("once", "third", "other")):
        written = written_logits(lm, data[prompts], head, names)
        own = [data["names"].index(name) for name in data[said]]
        found[key] = (written[range(len(own)), own] - written.mean(1)).mean()
    return found


def said_by_attribution(lm, data):
    layer, head = dominant_by_attribution(lm, data)["head"]

    def raised(prompts, said):
        total = []
        for prompt, name in zip(prompts, said, strict=True):
            every = ids_of(lm, [name, *data["names"]])
            part = direct_logit_attribution(lm, [prompt] * len(every), every).heads[layer, head]
            total.append(float(part[0] - part[1:].mean()))
        return sum(total) / len(total)

    return {"twice": raised(data["prompts"], data["subject"]), "once": raised(data["third"], data["other"])}


def movers_by_ranking(lm, data):
    share = shares(lm, data)
    lookers = ranking(lm, looks(lm, data)["IO"], data["lookers"])
    return sorted(lookers, key=lambda head: -float(share[head]))[: data["movers"]]


def movers_by_masking(lm, data):
    share, attention = shares(lm, data), looks(lm, data)["IO"]
    least = attention.flatten().topk(data["lookers"]).values[-1]
    masked = share.masked_fill(attention < least, -torch.inf)
    return torch.tensor(ranking(lm, masked, data["movers"]))


def copying_by_counting(logits, tokens, among):
    own = logits.gather(-1, tokens[:, None, None].expand(-1, logits.shape[1], 1))
    above, below = (logits > own).sum(-1), (logits < own).sum(-1)
    return (above < among).double().mean(0), (below < among).double().mean(0)


def copying_by_topk(logits, tokens, among):
    best, worst = (logits.topk(among, largest=largest).indices for largest in (True, False))
    return [(each == tokens[:, None, None]).any(-1).float().mean(0).tolist() for each in (best, worst)]


def negative_by_ranking(lm, data):
    share = shares(lm, data)
    return min(ranking(lm, looks(lm, data)["IO"], data["lookers"]), key=lambda head: float(share[head]))


def negative_by_masking(lm, data):
    attention = looks(lm, data)["IO"]
    least = attention.flatten().sort(descending=True).values[data["lookers"] - 1]
    masked = torch.where(attention >= least, shares(lm, data), torch.inf)
    return list(divmod(int(masked.argmin()), lm.n_heads))


def inhibition_by_edits(lm, data):
    high, mover = movers_by_ranking(lm, data)[0]
    _, usual = run(lm, data["fresh"], sites="z")

    def focus():
        attention = looks(lm, data)
        return float(attention["IO"][high, mover] - attention["S1"][high, mover])

    intact, drops = focus(), {}
    for layer, head in ranking(lm, looks(lm, data)["S2"][:high], data["candidates"]):
        with edit(lm, mean("z", layer, usual, head=head, position=-1)):
            drops[layer, head] = intact - focus()
    return sorted(drops, key=drops.get, reverse=True)[:2]


def inhibition_as_lists(lm, data):
    return [list(head) for head in inhibition_by_edits(lm, data)]


def knock_out_by_mean(lm, data, head):
    layer, number = head
    _, usual = run(lm, data["fresh"], sites="z")
    with edit(lm, mean("z", layer, usual, head=number)):
        return gaps(lm, data).mean()


def knock_out_by_trial(lm, data, head):
    return float(trial(lm, data).without([tuple(head)]).mean())


def trial(lm, data):
    right, wrong = (torch.tensor(ids_of(lm, data[key])) for key in ("io", "subject"))
    return Trial(lm, data["prompts"], data["fresh"], lambda logits: logit_difference(logits, right, wrong))


def repairer_by_attribution(lm, data):
    movers = movers_by_ranking(lm, data)
    _, usual = run(lm, data["fresh"], sites="z")
    before = shares(lm, data)
    with edit(lm, *[mean("z", layer, usual, head=head) for layer, head in movers]):
        rise = shares(lm, data) - before
    for head in movers:
        rise[head] = -torch.inf
    return divmod(int(rise.argmax()), lm.n_heads)


def repairer_by_search(lm, data):
    movers = [tuple(head) for head in movers_by_masking(lm, data).tolist()]
    _, usual = run(lm, data["fresh"], sites="z")
    edits = [
        Edit("z", layer, lambda old, at=(layer, head): usual["z", at[0]][:, :, at[1]].mean(0).expand_as(old), head=head)
        for layer, head in movers
    ]
    before = shares(lm, data)
    with edit(lm, *edits):
        after = shares(lm, data)
    others = [
        (layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads) if (layer, head) not in movers
    ]
    return max(others, key=lambda head: float(after[head] - before[head]))


def faithful_by_edits(lm, data, circuit):
    _, usual = run(lm, data["fresh"], sites="z")
    inside = {tuple(head) for head in circuit}
    places = [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]
    with edit(lm, *[mean("z", layer, usual, head=head) for layer, head in places if (layer, head) not in inside]):
        alone = gaps(lm, data).mean()
    return alone / gaps(lm, data).mean()


def faithful_by_trial(lm, data, circuit):
    test = trial(lm, data)
    return np.float64(test.keep(map(tuple, circuit)).sum() / test.without().sum())


def rival_by_trial(lm, data):
    shares = [faithful_by_trial(lm, data, each) for each in data["rivals"]["same_layers"]]
    return {"faithful_share": np.mean(shares), "choice": "same_layers"}


def rival_by_edits(lm, data):
    shares = torch.stack([faithful_by_edits(lm, data, each) for each in data["rivals"]["same_layers"]])
    return {"choice": "same_layers", "faithful_share": shares.mean()}


RIGHT = {
    "06_places": [places_by_mask, places_by_list],
    "06_spread": [spread_by_torch, spread_by_statistics],
    "06_recency": [recency_by_mask, recency_one_by_one],
    "06_dominant_head": [dominant_by_attribution, dominant_as_tensor],
    "06_said_once": [said_by_columns, said_by_attribution],
    "06_name_movers": [movers_by_ranking, movers_by_masking],
    "06_copying": [copying_by_counting, copying_by_topk],
    "06_negative_mover": [negative_by_ranking, negative_by_masking],
    "06_s_inhibition": [inhibition_by_edits, inhibition_as_lists],
    "06_fair_knock_out": [knock_out_by_mean, knock_out_by_trial],
    "06_repairer": [repairer_by_attribution, repairer_by_search],
    "06_faithful_share": [faithful_by_edits, faithful_by_trial],
    "06_rival": [rival_by_trial, rival_by_edits],
}
