"""Which change of the matrix makes the model say it? ROME's, of rank one, and fine-tuning's, its control.

ROME looks for a value, by gradient descent on the new answer, and stores it under the subject's key; fine-tuning
descends on the whole matrix. The limit: both know the one prompt, so ask in other words before you believe them.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers.pytorch_utils import Conv1D

from mechkit.methods.editing import (
    PREFIXES,
    Request,
    Rewrite,
    behind_prefixes,
    key_direction,
    last_matrix,
    subject_key,
)
from mechkit.methods.metrics import kl_divergence
from mechkit.network.model import LanguageModel

KL_WEIGHT = 0.0625  # how much the subject's other meaning counts: "{subject} is a"
REACH = 4.0  # how long the new value's change may be, in lengths of the old value
ENOUGH = 0.05  # nats: the new answer counts as learned


def rome(
    lm: LanguageModel,
    request: Request,
    *,
    layer: int,
    covariance: Float[Tensor, "d_mlp d_mlp"],
    steps: int = 25,
) -> Rewrite:
    """The rank-one change that makes the model answer with the target. Interrupting keeps the value found so far.

    Adam looks for the value under which the edited model says the target behind every prefix, while what follows
    "{subject} is a" stays. The paper adds the value at the subject's last token only while it looks; here the matrix
    is changed from the first step, so that what is tried is what will be used.

    Args:
        covariance: `key_covariance` of the same layer.
        steps: At most so many; it stops when the target is learned.
    Raises: ValueError for a subject that is not in the prompt, a target that is not one token or is the answer
        already, a layer that the model lacks, or a covariance of another size.
    Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT", section 3.
    Chapter: 09.
    """
    task = _Task(lm, request, layer)
    if covariance.shape != (lm.d_mlp, lm.d_mlp) or not covariance.isfinite().all():
        raise ValueError(
            f"wanted the covariance of this model's keys, {lm.d_mlp} × {lm.d_mlp} finite numbers; came "
            f"{' × '.join(map(str, covariance.shape))}: use mk.key_covariance(lm, {layer}, texts)"
        )
    key = subject_key(lm, request, layer)
    u, reach = key_direction(key, covariance), REACH * (key @ lm.W_out(layer)).norm()
    delta = torch.zeros(lm.d_model, requires_grad=True)

    def shorten() -> None:
        with torch.no_grad():
            delta.mul_((reach / delta.norm()).clamp(max=1.0))

    losses = _descend(task, delta, lambda: torch.outer(u, delta), lr=0.5, steps=steps, after=shorten)
    return Rewrite(layer, torch.outer(u, delta.detach()), losses)


def fine_tune(lm: LanguageModel, request: Request, *, layer: int, steps: int = 25, lr: float = 5e-4) -> Rewrite:
    """The same matrix, changed by gradient descent on the prompt alone: what ROME is compared with.

    Args:
        lr: Adam's.
    Raises: ValueError as `rome` does.
    Chapter: 09.
    """
    task = _Task(lm, request, layer, prefixes=PREFIXES[:1], kept=0.0)
    change = torch.zeros_like(lm.W_out(layer), requires_grad=True)
    losses = _descend(task, change, lambda: change, lr=lr, steps=steps)
    return Rewrite(layer, change.detach(), losses)


class _Task:
    """What an edit is trained on: the target after the prompt, and what follows "{subject} is a" as it was."""

    def __init__(
        self,
        lm: LanguageModel,
        request: Request,
        layer: int,
        prefixes: Sequence[str] = PREFIXES,
        kept: float = KL_WEIGHT,
    ):
        self._module = last_matrix(lm, layer)
        self.target = lm.token_id(request.target)
        self.ids, self._last, _ = behind_prefixes(lm, request, prefixes, also=f"{request.subject} is a")
        self._lm, self._kept = lm, kept
        self._name = f"{lm.family.places['mlp_post'].path.format(layer=layer)}.weight"
        self._own = self._logits(torch.zeros_like(lm.W_out(layer)))
        if int(self._own[0].argmax()) == self.target:
            raise ValueError(
                f"wanted a new answer; came {request.target!r}, which {lm.name} says already after {request.prompt!r}: "
                "choose another target"
            )

    def loss(self, change: Float[Tensor, "d_mlp d_model"]) -> tuple[Float[Tensor, ""], float]:
        """What is to be small, and the part of it that is the target's surprise."""
        logits = self._logits(change)
        surprise = -logits[:-1].log_softmax(-1)[:, self.target].mean()
        return surprise + self._kept * kl_divergence(self._own[-1], logits[-1]), surprise.item()

    def _logits(self, change: Float[Tensor, "d_mlp d_model"]) -> Float[Tensor, "row d_vocab"]:
        """The logits after each row's last token, with the matrix changed and gradients on."""
        weight = self._module.weight + (change if isinstance(self._module, Conv1D) else change.T)
        rows = torch.arange(len(self.ids))
        inner = self._lm.hf.base_model
        name = self._name.removeprefix(f"{self._lm.hf.base_model_prefix}.")
        out = torch.func.functional_call(inner, {name: weight}, (), {"input_ids": self.ids, "use_cache": False})
        return self._lm.unembed(out.last_hidden_state[rows, self._last])


def _descend(
    task: _Task,
    unknown: Tensor,
    change: Callable[[], Tensor],
    *,
    lr: float,
    steps: int,
    after: Callable[[], None] = lambda: None,
) -> tuple[float, ...]:
    """Adam on the unknown until the target is learned; the surprise before each step."""
    optimiser, losses = torch.optim.Adam([unknown], lr=lr), []
    bar = tqdm(range(steps), desc="learning the new answer", leave=False)
    try:
        for _ in bar:
            loss, surprise = task.loss(change())
            if not loss.isfinite():
                raise ValueError("wanted a finite loss; it is NaN or infinite: the model's weights or an edit hold one")
            losses.append(surprise)
            if surprise < ENOUGH:
                bar.total = len(losses) - 1  # done early, which a notebook would else show as a failure
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            after()
    except KeyboardInterrupt:
        print(f"Interrupted after {len(losses)} steps: the edit is what was found so far.")
    return tuple(losses)
