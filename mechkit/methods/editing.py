"""Can one fact be rewritten? One matrix is changed, the model is asked, and the matrix is put back.

An MLP's last matrix is read as a memory: the activation before it is a key, what it gives is a value. A change of
rank one stores a new value under the subject's key and, measured on text, disturbs other keys least. The limit: an
edit that works does not show that the fact was kept there (Hase et al. 2023).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers.pytorch_utils import Conv1D

from mechkit.methods.tracing import subject_positions, token_positions
from mechkit.network.hooks import Edit, edit, points
from mechkit.network.model import LanguageModel

# In front of the prompt, so that key and value hold wherever the subject stands.
PREFIXES = (
    "",
    "The weather is nice. ",
    "He told me so yesterday. ",
    "However, some things never change. ",
    "I think that this is right. ",
    "Because of this, we know it. ",
)
BATCH = 64  # passages at once


@dataclass(frozen=True)
class Request:
    """A fact to write: after `prompt`, which holds `subject`, comes `target` (one token, its space in front)."""

    prompt: str
    subject: str
    target: str


@dataclass(frozen=True)
class Rewrite:
    """A change of one layer's `W_out`; it does nothing until `rewritten` puts it in.

    Args:
        layer: Whose.
        change: What is added to the matrix.
        losses: The new answer's surprise in nats, step by step, while it was being learned.
    """

    layer: int
    change: Float[Tensor, "d_mlp d_model"]
    losses: tuple[float, ...] = ()


@contextmanager
def rewritten(lm: LanguageModel, *rewrites: Rewrite) -> Iterator[None]:
    """Inside, the model runs with these changes; on leaving, also through an exception, its own weights are back.

    The matrix is swapped for a changed copy, so no weight is written to.

    Raises: ValueError for a layer that the model lacks, or a change of another shape or with a NaN in it.
    Chapter: 09.
    """
    for each in rewrites:
        _check_change(lm, each)
    kept: list[tuple[nn.Module, nn.Parameter]] = []
    try:
        for each in rewrites:
            module = last_matrix(lm, each.layer)
            kept.append((module, module.weight))
            change = each.change if isinstance(module, Conv1D) else each.change.T
            module.weight = nn.Parameter(module.weight.detach() + change.to(module.weight), requires_grad=False)
        yield
    finally:
        while kept:
            module, weight = kept.pop()
            module.weight = weight


def rank_one_update(
    W: Float[Tensor, "d_mlp d_model"],
    key: Float[Tensor, " d_mlp"],
    value: Float[Tensor, " d_model"],
    covariance: Float[Tensor, "d_mlp d_mlp"],
) -> Float[Tensor, "d_mlp d_model"]:
    """The change of W that maps the key to the value exactly and disturbs keys of the covariance least.

    `u (value - key W)` with `u = C⁻¹ key / (key C⁻¹ key)`: among all changes that store the value, the one with the
    least mean square of `k @ change` over keys k with `E[k k] = C` (tests/methods/test_editing.py).

    Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT", equation 2, with C for their C.
    Chapter: 09.
    """
    return torch.outer(key_direction(key, covariance), value - key @ W)


def key_covariance(
    lm: LanguageModel, layer: int, texts: Sequence[str], *, ridge: float = 0.01
) -> Float[Tensor, "d_mlp d_mlp"]:
    """The mean of k kᵀ over the keys (mlp_post) of a text's tokens, the prefix left out, and a little on the diagonal.

    Args:
        ridge: How much is added to the diagonal, in its means; more than 0, so that it can be inverted.
    Raises: ValueError for a layer that the model lacks, no text, or a ridge that is not positive.
    Chapter: 09.
    """
    if not texts or not ridge > 0:
        raise ValueError(f"wanted some texts and a positive ridge; came {len(texts)} texts and {ridge}")
    total, count = torch.zeros(lm.d_mlp, lm.d_mlp, dtype=torch.float64), 0
    rows = sorted((lm.tokens(text)[0] for text in texts), key=len)
    for start in tqdm(range(0, len(rows), BATCH), desc="keys of text", leave=False):
        ids, lengths = _padded(rows[start : start + BATCH])
        keys = _keys(lm, layer, ids)
        real = (torch.arange(ids.shape[1]) < lengths[:, None]) & (torch.arange(ids.shape[1]) > 0)
        found = keys[real]
        total, count = total + (found.T @ found).double(), count + len(found)
    mean = total / count
    return (mean + ridge * mean.diagonal().mean() * torch.eye(lm.d_mlp)).float()


def subject_key(lm: LanguageModel, request: Request, layer: int) -> Float[Tensor, " d_mlp"]:
    """What the last MLP matrix reads at the subject's last token: a mean over the prompt behind several prefixes.

    Raises: ValueError for a layer that the model lacks, or a subject that is not in the prompt.
    Chapter: 09.
    """
    ids, _, subject = behind_prefixes(lm, request)
    return _keys(lm, layer, ids)[torch.arange(len(ids)), subject].mean(0)


def key_direction(key: Float[Tensor, " d_mlp"], covariance: Float[Tensor, "d_mlp d_mlp"]) -> Float[Tensor, " d_mlp"]:
    """What a rank-one change reads: `C⁻¹ key / (key C⁻¹ key)` is 1 on the key itself, little on the keys of text."""
    turned = torch.linalg.solve(covariance.double(), key.double())
    return (turned / (key.double() @ turned)).to(key.dtype)


def last_matrix(lm: LanguageModel, layer: int) -> nn.Module:
    """The module that holds `W_out`.

    Raises: ValueError for a layer that the model lacks.
    """
    points(lm, "mlp_post", layer)
    return lm.module(lm.family.places["mlp_post"].path, layer)


def _check_change(lm: LanguageModel, rewrite: Rewrite) -> None:
    points(lm, "mlp_post", rewrite.layer)
    wanted = (lm.d_mlp, lm.d_model)
    if tuple(rewrite.change.shape) != wanted or not rewrite.change.isfinite().all():
        raise ValueError(
            f"wanted a change of W_out, {wanted[0]} × {wanted[1]} finite numbers; came "
            f"{' × '.join(map(str, rewrite.change.shape))}"
            f"{'' if rewrite.change.isfinite().all() else ' with a NaN or an infinity among them'}"
        )


class _Reached(Exception):
    """The forward pass has come as far as it is needed."""


def _keys(lm: LanguageModel, layer: int, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d_mlp"]:
    """mlp_post of one layer; the layers above are not run."""

    def stop(value: Tensor) -> Tensor:
        raise _Reached(value)

    try:
        with torch.no_grad(), edit(lm, Edit("mlp_post", layer, stop)):
            lm.hf.base_model(input_ids=ids, use_cache=False)
    except _Reached as reached:
        return reached.args[0]
    raise RuntimeError("the layer was not reached")


def behind_prefixes(
    lm: LanguageModel, request: Request, prefixes: Sequence[str] = PREFIXES, also: str | None = None
) -> tuple[Int[Tensor, "row pos"], Int[Tensor, " row"], Int[Tensor, " prefix"]]:
    """The prompt behind each prefix, one more text if there is one, and where prompts and subjects end."""
    subject_positions(lm, request.prompt, request.subject)  # it says so if there is none
    begin = request.prompt.index(request.subject)
    end = begin + len(request.subject)
    texts = [prefix + request.prompt for prefix in prefixes]
    subject = [
        token_positions(lm, text, len(prefix) + begin, len(prefix) + end)[-1]
        for prefix, text in zip(prefixes, texts, strict=True)
    ]
    ids, lengths = _padded([lm.tokens(text)[0] for text in [*texts, *([also] if also else [])]])
    return ids, lengths - 1, torch.tensor(subject)


def _padded(rows: Sequence[Int[Tensor, " _"]]) -> tuple[Int[Tensor, "row pos"], Int[Tensor, " row"]]:
    """Rows of any length side by side; what fills them up stands behind, where a causal model cannot see it."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.stack([torch.cat([row, row.new_zeros(int(lengths.max()) - len(row))]) for row in rows])
    return ids, lengths
