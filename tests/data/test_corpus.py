"""The shipped text is there, is what its statistics say, and covers every kind."""

import hashlib
import json
import random
from collections import Counter

import pytest

from mechkit.data.corpus import CORPUS_FILE, PART, Passage, load_corpus, read_corpus, write_corpus
from mechkit.data.openings import OPENINGS
from mechkit.data.sampling import SHORTEST, flaw, statistics
from mechkit.network.assets import default_model
from mechkit.network.loading import load_model


def shipped_statistics():
    return json.loads(CORPUS_FILE.with_name("corpus.json").read_text(encoding="utf-8"))


def test_passages_come_back_as_they_were_written(tmp_path):
    passages = [Passage("story", "A line\nand “another”"), Passage("code", "x = 1\t# é")]
    write_corpus(tmp_path / "corpus.jsonl.gz", passages)
    assert list(read_corpus(tmp_path / "corpus.jsonl.gz")) == passages


def test_the_same_passages_give_the_same_bytes(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_corpus(tmp_path / name, list(read_corpus())[:20])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_a_part_can_be_loaded_and_is_a_fresh_list():
    assert load_corpus(3) == [passage.text for passage in read_corpus()[:3]]
    load_corpus().clear()
    assert len(load_corpus()) == PART
    assert len(load_corpus(None)) == len(read_corpus()) == shipped_statistics()["passages"]


def test_the_part_that_earlier_chapters_use_is_what_it_was():
    """Their stored outputs, and lenses in learners' caches, are of these very texts."""
    digest = hashlib.sha256("\0".join(load_corpus()).encode()).hexdigest()
    assert digest[:16] == "71a263b0bf072982"


def test_the_file_is_small():
    assert CORPUS_FILE.stat().st_size < 1_500_000


def test_every_kind_is_in_the_first_passages_already():
    assert {passage.kind for passage in read_corpus()[:200]} == set(OPENINGS)
    counts = Counter(passage.kind for passage in read_corpus())
    assert counts == shipped_statistics()["kinds"]
    assert max(counts.values()) < 3 * min(counts.values())


def test_there_are_no_empty_or_double_passages():
    texts = load_corpus(None)
    assert len(set(texts)) == len(texts)
    assert all(text == text.rstrip() and len(text) > SHORTEST for text in texts)
    assert not any("<|" in text for text in texts)


@pytest.mark.slow
def test_the_statistics_are_those_of_the_default_model():
    lm = load_model(default_model())
    shipped = shipped_statistics()
    rows = [lm.tokens(text, prefix=None)[0].tolist() for text in load_corpus(None)]
    assert sum(map(len, rows)) == shipped["tokens"] >= 300_000
    assert not any(flaw(row, text) for row, text in zip(rows, load_corpus(None), strict=True))
    part = statistics(lm, random.Random(0).sample(list(read_corpus()), 40))
    assert part["mean_loss"] == pytest.approx(shipped["mean_loss"], abs=0.2)
