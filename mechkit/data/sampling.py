"""Make the shipped corpus: let the default model write on from many openings.

    python -m mechkit.data.sampling --tokens 302000 --seed 0

The model continues plain text after its prefix token (no chat template), at temperature 0.9, from the 100
likeliest tokens within 95 % of the probability. What is left out, and counted: passages that end within 48
tokens, degenerate loops (more than 20 % of the 4-token windows occurred before), and coarse language. A seed
gives the same text on the same machine and versions only, which is why the text itself is shipped.
"""

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.data.corpus import CORPUS_FILE, Passage, write_corpus
from mechkit.data.openings import OPENINGS, SLOTS
from mechkit.network.attention import shared_attention
from mechkit.network.loading import LanguageModel, keep_memory, load_model

SHORTEST, LONGEST = 48, 128
LOOP_LIMIT = 0.2
COARSE = re.compile(r"\b(shit|fuck|bitch|bastard|rape|nazi|sex|porn|suicid|nigg|slut|whore|cunt)", re.IGNORECASE)


def opening(kind: str, rng: random.Random) -> str:
    """One opening of this kind, each slot filled independently (two `{name}` slots may differ)."""
    text = rng.choice(OPENINGS[kind])
    for slot, fillings in SLOTS.items():
        while "{" + slot + "}" in text:
            text = text.replace("{" + slot + "}", rng.choice(fillings), 1)
    return text[0].upper() + text[1:] if kind not in ("code", "lists") else text


def repetition(ids: list[int], window: int = 4) -> float:
    """Share of the windows of `window` tokens that occurred before: 0 is fresh text, near 1 a loop."""
    windows = [tuple(ids[i : i + window]) for i in range(len(ids) - window + 1)]
    return 1 - len(set(windows)) / len(windows) if windows else 0.0


def flaw(ids: list[int], text: str) -> str | None:
    """Why a passage is left out: `short`, `loop` or `coarse`; None if it stays."""
    if len(ids) < SHORTEST:
        return "short"
    if repetition(ids) > LOOP_LIMIT:
        return "loop"
    return "coarse" if COARSE.search(text) else None


def left_padded(lm: LanguageModel, texts: list[str]) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Token ids with the prefix, filled up on the left with zeros, and the mask that hides the filling."""
    rows = [lm.tokens(text)[0] for text in texts]
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = row
        mask[i, width - len(row) :] = 1
    return ids, mask


def continuations(lm: LanguageModel, texts: list[str], *, seed: int) -> list[str]:
    """Each text with the model's continuation, cut where the model ended it; the global seed is left alone."""
    ids, mask = left_padded(lm, texts)
    stops = sorted({lm.tokenizer.convert_tokens_to_ids("<|endoftext|>"), lm.tokenizer.eos_token_id})
    with torch.random.fork_rng(devices=[]), shared_attention(lm.hf):
        torch.manual_seed(seed)
        written = lm.hf.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=LONGEST - int(mask.sum(1).min()) + 1,
            **{"do_sample": True, "temperature": 0.9, "top_p": 0.95, "top_k": 100},
            **{"eos_token_id": stops, "pad_token_id": stops[0]},
        )
    bodies = [row[padding + 1 : padding + 1 + LONGEST] for row, padding in zip(written, (1 - mask).sum(1), strict=True)]
    return [lm.tokenizer.decode(body, skip_special_tokens=True).rstrip("\ufffd").rstrip() for body in bodies]


def sample(lm: LanguageModel, n_tokens: int, *, seed: int = 0, batch: int = 96) -> tuple[list[Passage], Counter]:
    """Passages of at least `n_tokens` tokens in all, every kind about equally often, and the count of rejects."""
    rng, passages, rejected, total = random.Random(seed), [], Counter(), 0
    with tqdm(total=n_tokens, unit="token", desc="Sampling") as bar:
        for kind, text in _drafts(lm, rng, batch):
            ids = lm.tokens(text, prefix=None)[0].tolist()
            if reason := flaw(ids, text):
                rejected[reason] += 1
                continue
            passages.append(Passage(kind, text))
            total += len(ids)
            bar.update(len(ids))
            if total >= n_tokens:
                return passages, rejected


def _drafts(lm: LanguageModel, rng: random.Random, batch: int) -> Iterator[tuple[str, str]]:
    """Sampled texts without end, batch after batch, kinds shuffled within each batch."""
    while True:
        kinds = [list(OPENINGS)[i % len(OPENINGS)] for i in range(batch)]
        rng.shuffle(kinds)
        texts = [opening(kind, rng) for kind in kinds]
        yield from zip(kinds, continuations(lm, texts, seed=rng.getrandbits(32)), strict=True)


@torch.no_grad()
def statistics(lm: LanguageModel, passages: list[Passage], *, batch: int = 16) -> dict:
    """Size of the corpus and the model's mean loss on it in nats per token, with the prefix."""
    rows = sorted((lm.tokens(passage.text)[0] for passage in passages), key=len)
    loss, n_tokens = 0.0, 0
    for start in tqdm(range(0, len(rows), batch), desc="Measuring"):
        some = rows[start : start + batch]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)  # filled up behind, where nothing looks
        for row, stream in zip(some, _streams(lm, ids), strict=True):
            log_probs = lm.unembed(stream[: len(row) - 1]).log_softmax(-1)
            loss -= log_probs.gather(1, row[1:, None]).sum().item()
            n_tokens += len(row) - 1
    kinds = dict(sorted(Counter(passage.kind for passage in passages).items()))
    return {"tokens": n_tokens, "passages": len(passages), "mean_loss": round(loss / n_tokens, 3), "kinds": kinds}


def _streams(lm: LanguageModel, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
    """The last stream, normed: logits of a whole batch would be most of the memory."""
    return lm.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mechkit.data.sampling",
        description="Sample the shipped corpus from the model.",
        epilog="example: python -m mechkit.data.sampling --tokens 2000 --out some/corpus.jsonl.gz",
    )
    parser.add_argument("--tokens", type=int, default=302_000, help="how many tokens in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CORPUS_FILE, help="where to write (default: the shipped file)")
    options = parser.parse_args(arguments)
    lm = load_model()
    keep_memory()
    passages, rejected = sample(lm, options.tokens, seed=options.seed)
    write_corpus(options.out, passages)
    facts = {"model": lm.name, "seed": options.seed, **statistics(lm, passages), "rejected": dict(rejected)}
    options.out.with_name("corpus.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
