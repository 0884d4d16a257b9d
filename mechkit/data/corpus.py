"""Text to fit lenses, covariances and dictionaries on: passages that the default model wrote, shipped with the course.

It is the model's own distribution, so it needs no hub and no licence. Passages are stored as text, not as
token ids, so that any model can read them; they were sampled by `python -m mechkit.data.sampling`.
"""

import gzip
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

CORPUS_FILE = Path(__file__).with_name("corpus.jsonl.gz")
PART = 332  # passages, 40,000 tokens: all that lenses and covariances need


@dataclass(frozen=True)
class Passage:
    """One sampled text: `text` opens with the words it was prompted with, `kind` is a key of `OPENINGS`."""

    kind: str
    text: str


@cache
def read_corpus(path: Path = CORPUS_FILE) -> tuple[Passage, ...]:
    """Every shipped passage, in the order sampled (kinds are mixed, so a slice is a fair sample).

    Chapter: 04.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return tuple(Passage(**json.loads(line)) for line in lines)


def load_corpus(limit: int | None = PART) -> list[str]:
    """The text of the first `limit` passages, about 120 tokens each, without a prefix token; None for all there are.

    By default it is a part that is plenty for a lens. A sparse autoencoder needs all.

    Chapter: 04.
    """
    return [passage.text for passage in read_corpus()[:limit]]


def write_corpus(path: Path, passages: list[Passage]) -> None:
    """Store passages as gzipped JSON lines; the same passages give the same bytes (no time in the header)."""
    lines = [json.dumps(asdict(passage), ensure_ascii=False) for passage in passages]
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=9, mtime=0))
