"""Is it readable in translation? One affine map a layer, from its residual stream to the last layer's.

A middle layer need not speak the last layer's language. The affine lens learns the best affine translation in
closed form; a tuned lens goes on from there by gradient descent. Both are trained, so both need the control
that `shuffle` gives: what does a map say that has learned nothing about the stream?
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from mechkit.methods.lens import logit_lens
from mechkit.network.assets import cache_folder
from mechkit.network.hooks import read
from mechkit.network.model import LanguageModel

TOKENS, RIDGE = 8000, 1e-2
LENGTH, BATCH = 96, 2  # small batches: a forward pass leaves little in the heap
STEP, RATE = 96, 5e-4

# A handful of tokens carry norms hundreds of times their neighbours' and would dominate any least-squares fit.
MASSIVE = 20.0

_KEPT: "WeakKeyDictionary[nn.Module, dict[str, AffineLens]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class AffineLens:
    """One affine map a layer, from its residual stream to the last layer's.

    Args:
        weight: `resid[l] @ weight[l] + bias[l]` approximates the last layer's resid_post.
        bias: The mean that the layers still to come add.
    Source: Belrose et al. (2023), "Eliciting Latent Predictions with the Tuned Lens"; ours is fitted to the
        residual stream in closed form, theirs to the output distribution by gradient descent.
    Chapter: 04.
    """

    weight: Float[Tensor, "layer d_model d_model"]
    bias: Float[Tensor, "layer d_model"]

    def translate(self, resid: Float[Tensor, "layer *batch d_model"]) -> Float[Tensor, "layer *batch d_model"]:
        """Every layer's stream in the last layer's language."""
        flat = resid.reshape(resid.shape[0], -1, resid.shape[-1])
        return (flat @ self.weight + self.bias[:, None]).reshape(resid.shape)

    def read(
        self, resid: Float[Tensor, "layer *batch d_model"], lm: LanguageModel
    ) -> Float[Tensor, "layer *batch d_vocab"]:
        """Translate, then the logit lens."""
        return logit_lens(self.translate(resid), lm)


class LeastSquares:
    """Running sums from which an affine map is solved in closed form, so that no activation is kept.

    The map minimises `|x @ W + b - y|^2 + ridge * scale * |W - I|^2`, where `scale` is the mean variance of a
    coordinate of x. The pull is towards the identity, that is towards the plain lens: with little data or at
    the last layer the affine lens *is* the logit lens. The bias is free.

    Args:
        d_model: Size of x and of y.
    """

    def __init__(self, d_model: int):
        self.count = 0
        self._x = torch.zeros(d_model, dtype=torch.float64)
        self._gap = torch.zeros(d_model, dtype=torch.float64)
        self._xx = torch.zeros(d_model, d_model, dtype=torch.float64)
        self._xgap = torch.zeros(d_model, d_model, dtype=torch.float64)

    def add(self, x: Float[Tensor, "token d_model"], y: Float[Tensor, "token d_model"]) -> None:
        """Take in some pairs."""
        gap = y - x
        self.count += x.shape[0]
        self._x += x.sum(0)
        self._gap += gap.sum(0)
        self._xx += x.T @ x  # products in the tensors' own precision, which is fast; sums in float64
        self._xgap += x.T @ gap

    def solve(self, ridge: float) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"]]:
        """The weight and the bias, in float32.

        Raises: ValueError if nothing was added.
        """
        if self.count == 0:
            raise ValueError("wanted at least one token to fit on; came none: pass longer texts")
        mean, mean_gap = self._x / self.count, self._gap / self.count
        covariance = self._xx - self.count * torch.outer(mean, mean)
        cross = self._xgap - self.count * torch.outer(mean, mean_gap)
        penalty = ridge * covariance.diagonal().mean().clamp(min=1e-12)
        identity = torch.eye(len(mean), dtype=torch.float64)
        change = torch.linalg.solve(covariance + penalty * identity, cross)
        return (identity + change).float(), (mean_gap - mean @ change).float()


def fit_affine_lens(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    tokens: int = TOKENS,
    ridge: float = RIDGE,
    shuffle: int | None = None,
) -> AffineLens:
    """Fit the affine lens of every layer on texts, in closed form.

    Position 0 (the attention sink) and the few massive tokens are left out: their norms are hundreds of times
    the others', and least squares would fit little else.

    Args:
        tokens: How many tokens to read; more is better and slower.
        ridge: The pull towards the plain lens, in units of the stream's variance, summed over tokens.
        shuffle: A seed for the control: every stream is paired with the last stream of another token.
    """
    sums = [LeastSquares(lm.d_model) for _ in range(lm.n_layers)]
    generator = torch.Generator().manual_seed(shuffle or 0)
    for resid in read_streams(lm, texts, tokens):
        order = torch.arange(resid.shape[1])
        if shuffle is not None:
            order = torch.randperm(resid.shape[1], generator=generator)
        for layer, pairs in enumerate(resid):
            sums[layer].add(pairs, resid[-1, order])
    solved = [each.solve(ridge) for each in sums]
    return AffineLens(torch.stack([weight for weight, _ in solved]), torch.stack([bias for _, bias in solved]))


def affine_lens(lm: LanguageModel, texts: Sequence[str]) -> AffineLens:
    """The affine lens fitted on texts, kept for next time: in memory, and in the user's cache on disk.

    Where nothing can be written, it is fitted once for each kernel.

    Chapter: 04.
    """
    name = _fingerprint(lm, texts)
    kept = _KEPT.setdefault(lm.hf, {})
    if name not in kept:
        kept[name] = _load_or_fit(lm, texts, cache_folder() / "lenses" / f"{name}.safetensors")
    return kept[name]


def keep_affine_lens(lm: LanguageModel, texts: Sequence[str], lens: AffineLens) -> None:
    """Let `affine_lens` give this lens for these texts: one fitted on a model with the same streams."""
    _KEPT.setdefault(lm.hf, {})[_fingerprint(lm, texts)] = lens


def save_affine_lens(lens: AffineLens, path: Path) -> None:
    """Write a lens to a file; `AffineLens(**load_file(path))` reads it."""
    save_file({"weight": lens.weight, "bias": lens.bias}, path)


def tune_layer(
    lm: LanguageModel, lens: AffineLens, layer: int, texts: Sequence[str], *, steps: int = 40, seed: int = 0
) -> AffineLens:
    """One layer's map, trained on from the closed form to predict the model's output: a tuned lens.

    Minimises `KL(final || lens)` with Adam, on `STEP` tokens a step.

    Args:
        texts: Text to train on; keep what you measure on out of it.
    Returns: A lens of that one layer.
    Source: Belrose et al. (2023), "Eliciting Latent Predictions with the Tuned Lens".
    Chapter: 04.
    """
    streams = torch.cat([resid[[layer, -1]] for resid in read_streams(lm, texts, steps * STEP // 2)], dim=1)
    weight, bias = (nn.Parameter(part[layer].clone()) for part in (lens.weight, lens.bias))
    optimiser = torch.optim.Adam([weight, bias], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for step in tqdm(range(steps), desc=f"tuning layer {layer}", leave=False):
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
        chosen = torch.randint(streams.shape[1], (STEP,), generator=generator)
        stream, last = streams[:, chosen]
        final = logit_lens(last, lm).log_softmax(-1)
        with torch.enable_grad():
            read = lm.unembed(lm.final_norm(stream @ weight + bias)).log_softmax(-1)
            loss = nn.functional.kl_div(read, final, log_target=True, reduction="batchmean")
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
    return AffineLens(weight.detach()[None], bias.detach()[None])


def ordinary(resid: Float[Tensor, "layer token d_model"]) -> Float[Tensor, "layer kept d_model"]:
    """The tokens whose norm is ordinary at every layer: massive ones are left out."""
    norms = resid.norm(dim=-1)
    typical = norms.median(dim=-1, keepdim=True).values
    return resid[:, (norms <= MASSIVE * typical).all(0)]


def read_streams(
    lm: LanguageModel, texts: Sequence[str], tokens: int
) -> Iterable[Float[Tensor, "layer token d_model"]]:
    """Every layer's stream at the ordinary tokens of texts, some texts at a time, with a progress bar."""
    done = 0
    with tqdm(total=tokens, desc="reading text", unit="token", leave=False) as bar:
        for batch in _batches(lm, texts):
            with torch.no_grad(), read(lm, "resid_post") as seen:
                lm.hf.base_model(input_ids=batch, use_cache=False)  # no logits: they would be most of the memory
            resid = torch.stack([seen["resid_post", i][:, 1:].flatten(0, 1) for i in range(lm.n_layers)])
            seen.clear()
            resid = resid[:, : tokens - done]
            yield ordinary(resid)
            done += resid.shape[1]
            bar.update(resid.shape[1])
            if done >= tokens:
                return


def _batches(lm: LanguageModel, texts: Sequence[str]) -> Iterable[Int[Tensor, "batch pos"]]:
    """Texts as batches of one length: each is cut to `LENGTH` tokens, and shorter ones are left out."""
    rows = (lm.tokens(text)[0, :LENGTH] for text in texts)
    full = (row for row in rows if len(row) == LENGTH)
    while batch := list(islice(full, BATCH)):
        yield torch.stack(batch)


def _fingerprint(lm: LanguageModel, texts: Sequence[str]) -> str:
    """Names a fit by what goes into it: the weights' own bytes, the texts and the settings."""
    digest = hashlib.sha256(repr((lm.name, lm.n_layers, TOKENS, RIDGE, LENGTH)).encode())
    digest.update("\0".join(texts).encode())
    for weight in (lm.W_E[:64], lm.W_O(lm.n_layers - 1)[0]):
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


def _load_or_fit(lm: LanguageModel, texts: Sequence[str], path: Path) -> AffineLens:
    try:
        return AffineLens(**load_file(path))
    except (OSError, SafetensorError, TypeError):  # not there yet, or damaged
        lens = fit_affine_lens(lm, texts)
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as folder:
            save_affine_lens(lens, Path(folder) / "lens")
            (Path(folder) / "lens").replace(path)
    return lens
