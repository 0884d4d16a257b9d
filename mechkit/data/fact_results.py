"""Thirteen facts traced and eight rewritten, measured beforehand and shipped: what chapter 09 shows beside its own.

Made by `python -m mechkit.data.fact_results` from the default model. The chapter traces two facts and rewrites one
itself; the averages, the controls by fine-tuning and the sweep over layers are read from here.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.data.corpus import load_corpus
from mechkit.data.counterfacts import COUNTERFACTS, TRACED_FACTS, Counterfact, TracedFact, known_prompts
from mechkit.methods.editing import Rewrite, key_covariance, rewritten
from mechkit.methods.metrics import kl_divergence
from mechkit.methods.probes import last_logits
from mechkit.methods.rewriting import fine_tune, rome
from mechkit.methods.tracing import NoisyRuns, Trace, trace
from mechkit.network.loading import load_model
from mechkit.network.model import LanguageModel

RESULTS_FILE = Path(__file__).with_name("fact_results.json")
WINDOW = 6  # layers restored together, of one kind
DRAWS = 3
WINDOWS = {"resid_post": 1, "mlp_out": WINDOW, "attn_out": WINDOW}
SHIPPED_LAYER = 4  # where all facts are rewritten
SWEPT_LAYERS = (1, 4, 8, 12, 16, 20)  # the last third is left out for time, and untested
TUNED = (0, 1, 2, 6)  # the counterfacts that are fine-tuned too
SWEPT = (1, 6)  # and those that are rewritten at every layer of the sweep
MEASURES = {
    "efficacy": "whether the new answer is more likely than the old one after the prompt that was edited",
    "top": "whether it is the likeliest token there",
    "paraphrase": "share of paraphrases after which the new answer is more likely than the old one",
    "paraphrase top": "share of paraphrases after which it is the likeliest token",
    "neighbours": "share of neighbours whose likeliest token is what it was",
    "known": "share of other known facts whose likeliest token is what it was",
    "drift": "KL from before to after on other questions about the subject, nats",
    "known drift": "KL from before to after on other known facts, nats",
}


@dataclass(frozen=True)
class EditResult:
    """What one rewriting of one fact did.

    Args:
        method: "none" (before), "rome" or "fine-tuning".
        size: The change's norm, in norms of the matrix.
        scores: Each measure of `MEASURES`.
    """

    subject: str
    method: str
    layer: int
    size: float
    scores: dict[str, float]


def measure_edit(lm: LanguageModel, fact: Counterfact, rewrite: Rewrite | None) -> dict[str, float]:
    """Every measure of `MEASURES` for a rewriting; None for the model as it is.

    Chapter: 09.
    """
    asked = (fact.paraphrases, fact.neighbours, fact.same_subject, tuple(known_prompts(fact)))
    prompts = [fact.prompt, *(prompt for group in asked for prompt in group)]
    before = last_logits(lm, prompts)
    after = before
    if rewrite is not None:
        with rewritten(lm, rewrite):
            after = last_logits(lm, prompts)
    if not after.isfinite().all():
        raise ValueError("wanted finite logits; the edited model gives NaN: make the edit smaller")
    old, new = lm.token_id(fact.answer), lm.token_id(fact.target)
    wins, top = (after[:, new] > after[:, old]).float(), (after.argmax(-1) == new).float()
    kept, moved = (before.argmax(-1) == after.argmax(-1)).float(), kl_divergence(before, after)
    edited, paraphrases, neighbours, same, known = _parts([1, *map(len, asked)])
    return {
        "efficacy": wins[edited].mean().item(),
        "top": top[edited].mean().item(),
        "paraphrase": wins[paraphrases].mean().item(),
        "paraphrase top": top[paraphrases].mean().item(),
        "neighbours": kept[neighbours].mean().item(),
        "known": kept[known].mean().item(),
        "drift": moved[same].mean().item(),
        "known drift": moved[known].mean().item(),
    }


def _parts(lengths: Sequence[int]) -> list[slice]:
    parts, start = [], 0
    for length in lengths:
        parts.append(slice(start, start + length))
        start += length
    return parts


def by_role(found: Trace) -> dict[str, Float[Tensor, " layer"]]:
    """What a trace recovered at the subject's first, middle and last tokens, between them and the end, and at the end.

    A role that no token has is left out; a subject of one token has only a last one.

    Chapter: 09.
    """
    first, last, end = found.subject[0], found.subject[-1], len(found.labels) - 1
    columns = {
        "first subject": [first] if first < last else [],
        "middle subject": list(range(first + 1, last)),
        "last subject": [last],
        "after": list(range(last + 1, end)),
        "last": [end],
    }
    return {role: found.recovered[:, places].mean(-1) for role, places in columns.items() if places}


@cache
def load_traces(path: Path = RESULTS_FILE) -> dict[str, dict[str, Trace]]:
    """The shipped traces of the default model: subject, then site, to its trace.

    Chapter: 09.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))["traces"]
    return {
        subject: {site: _read(entry, values) for site, values in entry["per mille"].items()}
        for subject, entry in stored.items()
    }


@cache
def load_edits(path: Path = RESULTS_FILE) -> tuple[EditResult, ...]:
    """The shipped rewritings of the default model: before, by ROME, by fine-tuning, and ROME at other layers.

    Chapter: 09.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))["edits"]
    return tuple(EditResult(**row) for row in stored)


def _read(entry: dict, values: list[list[int]]) -> Trace:
    table = torch.tensor(values) / 1000
    about = (tuple(entry[name]) for name in ("layers", "labels", "subject"))
    return Trace(table, entry["clean"], entry["noisy"], *about)


def trace_fact(lm: LanguageModel, fact: TracedFact, *, stride: int = 1, draws: int = DRAWS) -> dict:
    """Every site of one fact, as it is stored."""
    runs = NoisyRuns(lm, fact.prompt, fact.subject, draws=draws)
    layers = range(0, lm.n_layers, stride)
    token = lm.token_id(fact.answer)
    found = {site: trace(runs, token, site=site, window=width, layers=layers) for site, width in WINDOWS.items()}
    any_site = found["resid_post"]
    return {
        "clean": round(any_site.clean, 4),
        "noisy": round(any_site.noisy, 4),
        "layers": list(layers),
        "labels": list(any_site.labels),
        "subject": list(any_site.subject),
        "per mille": {site: (1000 * each.values).round().int().tolist() for site, each in found.items()},
    }


def edit_result(lm: LanguageModel, fact: Counterfact, method: str, layer: int, covariance: Tensor | None) -> EditResult:
    """One fact rewritten and measured."""
    rewrite = None
    if method == "rome":
        rewrite = rome(lm, fact.request, layer=layer, covariance=covariance)
    elif method == "fine-tuning":
        rewrite = fine_tune(lm, fact.request, layer=layer)
    size = 0.0 if rewrite is None else (rewrite.change.norm() / lm.W_out(layer).norm()).item()
    scores = {name: float(f"{value:.3g}") for name, value in measure_edit(lm, fact, rewrite).items()}
    return EditResult(fact.subject, method, layer, float(f"{size:.3g}"), scores)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.data.fact_results",
        description="Trace and rewrite the shipped facts: about twenty minutes. What is done is kept, so that an "
        "interrupted run goes on where it was.",
        epilog="example: python -m mechkit.data.fact_results --out again.json",
    )
    parser.add_argument("--stride", type=int, default=1, help="trace every so many layers (default: 1)")
    parser.add_argument("--passages", type=int, default=130, help="passages for the covariance (default: 130)")
    parser.add_argument("--out", type=Path, default=RESULTS_FILE, help="where to write (default: the shipped file)")
    options = parser.parse_args(arguments)
    lm = load_model()
    settings = {
        "model": lm.name, "draws": DRAWS, "noise": 3.0, "window": WINDOW, "stride": options.stride,
        "passages": options.passages, "layer": SHIPPED_LAYER, "swept": list(SWEPT_LAYERS),
        "measures": MEASURES,
    }  # fmt: skip
    stored = _started(options.out, settings)
    for fact in tqdm(TRACED_FACTS, desc="facts traced"):
        if fact.subject not in stored["traces"]:
            stored["traces"][fact.subject] = trace_fact(lm, fact, stride=options.stride)
            _write(options.out, stored)
    texts = load_corpus()[: options.passages]
    known: dict[int, Tensor] = {}
    done = {(row["subject"], row["method"], row["layer"]) for row in stored["edits"]}
    for fact, method, layer in tqdm(_plan(lm.n_layers), desc="facts rewritten"):
        if (fact.subject, method, layer) not in done:
            if method == "rome" and layer not in known:
                known = {layer: key_covariance(lm, layer, texts)}
            stored["edits"].append(asdict(edit_result(lm, fact, method, layer, known.get(layer))))
            _write(options.out, stored)


def _plan(n_layers: int) -> list[tuple[Counterfact, str, int]]:
    """What is rewritten, how and where; layers that the model lacks are left out."""
    layer = min(SHIPPED_LAYER, n_layers - 1)
    plan = [(fact, "none", layer) for fact in COUNTERFACTS] + [(fact, "rome", layer) for fact in COUNTERFACTS]
    plan += [(COUNTERFACTS[which], "fine-tuning", layer) for which in TUNED]
    others = [each for each in SWEPT_LAYERS if each < n_layers and each != layer]
    return plan + [(COUNTERFACTS[which], "rome", each) for each in others for which in SWEPT]


def _started(path: Path, settings: dict) -> dict:
    """What an earlier run with the same settings has written, or a beginning."""
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["settings"] == settings:
            return stored
    return {"settings": settings, "traces": {}, "edits": []}


def _write(path: Path, stored: dict) -> None:
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    for word in ('"per mille"', '"resid_post"', '"mlp_out"', '"attn_out"', '{"subject"'):
        text = text.replace(word, f"\n{word}")
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
