"""Where is a fact? Blur the subject, put one clean state back, and see where that brings the answer back.

Noise on the embeddings of the subject's tokens makes the model forget whom the prompt is about. Each *restoration*
then puts values of the clean run into the noisy one, at one place or a window of layers, and asks for the answer's
probability. The limit: it says which states carry the subject's identity on to the answer, not where the
fact is stored, and a window hides which of its layers did it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechkit.methods.sweeps import logits_of
from mechkit.network.hooks import Edit, edit, points
from mechkit.network.model import LanguageModel
from mechkit.network.replay import Replay

SITES = ("resid_post", "mlp_out", "attn_out")
TOGETHER = 4  # positions that run together: more would compute too many that nothing reaches
Place = tuple[str, int, int]


@dataclass(frozen=True)
class Trace:
    """The answer's probability with one place restored, a mean over the draws of noise.

    Args:
        values: One for each layer and position; NaN where the trace was interrupted before.
        clean: The probability in the clean run.
        noisy: In the noisy ones, with nothing restored.
        layers: What the rows stand for: a layer, or the middle of a window.
        labels: What the columns stand for: the prompt's tokens.
        subject: The columns of the subject.
    """

    values: Float[Tensor, "layer pos"]
    clean: float
    noisy: float
    layers: tuple[int, ...]
    labels: tuple[str, ...]
    subject: tuple[int, ...]

    @property
    def recovered(self) -> Float[Tensor, "layer pos"]:
        """How much of what the noise took each place gives back: 0 nothing, 1 all of it.

        Raises: ValueError if the noise took nothing.
        """
        if self.clean - self.noisy < 1e-6:
            raise ValueError(
                f"wanted noise that takes the answer away; its probability is {self.clean:.3g} without and "
                f"{self.noisy:.3g} with it: there is nothing to recover, use more noise or another prompt"
            )
        return (self.values - self.noisy) / (self.clean - self.noisy)


class NoisyRuns:
    """A clean run of one prompt and some with noise on its subject, kept for any number of restorations.

    Args:
        lm: The model.
        prompt: A text that leads up to the answer.
        subject: What it is about, as it stands in the prompt; noise goes on every token of its first mention.
        noise: The noise's standard deviation, in those of the embeddings; the paper's is 3.
        draws: How many times noise is drawn.
    Raises: ValueError if the subject is not in the prompt, or noise or draws make no sense.
    Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT".
    Chapter: 09.
    """

    def __init__(
        self, lm: LanguageModel, prompt: str, subject: str, *, noise: float = 3.0, draws: int = 4, seed: int = 0
    ):
        if not isfinite(noise) or noise < 0:
            raise ValueError(f"wanted noise of 0 or more standard deviations; came {noise}: the paper's is 3")
        if draws < 1:
            raise ValueError(f"wanted at least one draw of noise; came {draws}")
        self.lm = lm
        self.subject = subject_positions(lm, prompt, subject)
        self.tokens = lm.tokens(prompt)
        self.clean = Replay(lm, self.tokens)
        shape = (draws, len(self.subject), lm.d_model)
        scale = noise * lm.W_E.std()
        blur = scale.cpu() * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        place = Edit("embed", None, lambda old: old + blur.to(old), position=self.subject)
        with edit(lm, place):
            self.noisy = Replay(lm, self.tokens.repeat(draws, 1))
        self._values: dict[str, dict[int, Tensor]] = {}

    @property
    def draws(self) -> int:
        """How many noisy runs there are."""
        return len(self.noisy.tokens)

    def values(self, site: str) -> dict[int, Float[Tensor, "pos d_model"]]:
        """A site's clean values, layer by layer."""
        if site not in self._values:
            self._values[site] = {layer: value[0] for layer, value in self.clean.values(site).items()}
        return self._values[site]

    def probabilities(self, token: int) -> tuple[float, float]:
        """The token's probability after the prompt: in the clean run, and the mean over the noisy ones."""
        clean, noisy = (_probability(self.lm, run.final[:, -1], token) for run in (self.clean, self.noisy))
        return clean.item(), noisy.mean().item()


def subject_positions(lm: LanguageModel, prompt: str, subject: str) -> list[int]:
    """Where the subject's tokens stand in `lm.tokens(prompt)`, at its first mention.

    Raises: ValueError if the subject is not in the prompt.
    Chapter: 09.
    """
    start = prompt.find(subject) if subject.strip() else -1
    if start < 0:
        raise ValueError(
            f"wanted a subject that stands in the prompt; came {subject!r} and {prompt!r}: copy it from there"
        )
    return token_positions(lm, prompt, start, start + len(subject))


def token_positions(lm: LanguageModel, text: str, start: int, end: int) -> list[int]:
    """Where the tokens of `text[start:end]` stand in `lm.tokens(text)`."""
    spans = lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    before = lm.tokens(text).shape[1] - len(spans)
    return [before + i for i, (left, right) in enumerate(spans) if left < end and right > start]


def restore(runs: NoisyRuns, token: int, places: Sequence[Place]) -> Float[Tensor, " draw"]:
    """The token's probability in each noisy run with the clean values at all these places put back.

    Args:
        places: Each a site, a layer and a position, such as ("mlp_out", 0, 3). None given: the noisy runs as they are.
    Raises: ValueError for a site, layer or position that there is not.
    Chapter: 09.
    """
    if not places:
        return _probability(runs.lm, runs.noisy.final[:, -1], token)
    rows = torch.arange(runs.draws)
    return _restored(runs, token, rows, [[(site, layer, position)] for site, layer, position in places], joined=True)


def trace(
    runs: NoisyRuns,
    token: int,
    *,
    site: str = "resid_post",
    window: int = 1,
    layers: Sequence[int] | None = None,
) -> Trace:
    """Restore every layer and position in turn, and read the token's probability. Interrupting keeps what was done.

    Args:
        token: The answer's id.
        site: "resid_post" (the whole state), "mlp_out" or "attn_out".
        window: How many layers are restored together, around each; a whole state needs 1.
        layers: Which; None for all.
    Raises: ValueError for a site or layer that cannot be traced, or a window below 1.
    Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT", section 2.
    Chapter: 09.
    """
    if site not in SITES or window < 1 or (site == "resid_post" and window != 1):
        raise ValueError(
            f"wanted one of {', '.join(SITES)} with a window of 1 or more layers (1 for resid_post, which holds all "
            f"that came before); came {site!r} with {window}"
        )
    chosen = [layer for _, layer in points(runs.lm, site, layers)]
    clean, noisy = runs.probabilities(token)
    last = runs.tokens.shape[1]
    values = torch.full((len(chosen), last), noisy)
    values[:, runs.subject[0] :] = torch.nan  # nothing before the subject differs
    cells = [(row, start) for row in range(len(chosen)) for start in range(runs.subject[0], last, TOGETHER)]
    try:
        for row, start in tqdm(cells, desc=f"restoring {site}", leave=False):
            positions = range(start, min(start + TOGETHER, last))
            around = _window(runs, chosen[row], window)
            values[row, start : positions.stop] = _traced(runs, token, site, around, positions)
    except KeyboardInterrupt:
        done = ~values.isnan()
        print(f"Interrupted: {int(done.sum())} of {done.numel()} places are done, the others are NaN.")
    labels = tuple(runs.lm.labels(runs.tokens[0]))
    return Trace(values, clean, noisy, tuple(chosen), labels, tuple(runs.subject))


def _window(runs: NoisyRuns, middle: int, width: int) -> range:
    """The layers around one, as many as there are."""
    first = middle - width // 2
    return range(max(0, first), min(runs.lm.n_layers, first + width))


def _traced(runs: NoisyRuns, token: int, site: str, layers: range, positions: range) -> Float[Tensor, " pos"]:
    """The mean over draws for each of some positions, one after the other restored."""
    rows = torch.arange(runs.draws).repeat(len(positions))
    each = [[(site, layer, position) for position in positions for _ in range(runs.draws)] for layer in layers]
    return _restored(runs, token, rows, each, joined=False).view(len(positions), runs.draws).mean(-1)


def _restored(
    runs: NoisyRuns, token: int, rows: Tensor, places: Sequence[Sequence[Place]], *, joined: bool
) -> Float[Tensor, " row"]:
    """Noisy runs with clean values put in: each list of places is of one site and layer.

    Args:
        joined: Whether every row gets every place; else the i-th place of each list goes to the i-th row.
    """
    lm, noisy = runs.lm, runs.noisy
    for site, layer, position in (place for group in places for place in group):
        points(lm, site, layer)
        if site not in SITES or not 0 <= position < runs.tokens.shape[1]:
            raise ValueError(
                f"wanted a place (site, layer, position): a site of {', '.join(SITES)}, a position from 0 to "
                f"{runs.tokens.shape[1] - 1}; came {(site, layer, position)}"
            )
    lowest = min(group[0][1] for group in places)
    start = min(position for group in places for _, _, position in group)
    edits = [_putting_back(runs, group, start, None if joined else torch.arange(len(rows))) for group in places]
    final = noisy.rest(lowest, noisy.resid_pre(lowest)[rows, start:], rows, *edits)
    return _probability(lm, final[:, -1], token)


def _putting_back(runs: NoisyRuns, group: Sequence[Place], start: int, rows: Tensor | None) -> Edit:
    site, layer, _ = group[0]
    where = torch.tensor([position for _, _, position in group])
    clean = runs.values(site)[layer][where]
    return Edit(site, layer, partial(_put_back, slice(None) if rows is None else rows, where - start, clean))


def _put_back(rows: slice | Tensor, where: Tensor, clean: Tensor, old: Tensor) -> Tensor:
    old[rows, where] = clean.to(old)
    return old


def _probability(lm: LanguageModel, stream: Float[Tensor, "row d_model"], token: int) -> Float[Tensor, " row"]:
    found = logits_of(lm, stream)[:, 0].softmax(-1)[:, token]
    if not found.isfinite().all():
        raise ValueError(f"wanted probabilities; {lm.name} gives NaN here: its weights or an edit hold one")
    return found
