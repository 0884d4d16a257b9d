"""One step of learning a dictionary, and what changes from step to step.

TopK never computes what is off: the decoder sums k rows and the gradients reach k columns, so that one matrix product
a step is left of six. A `Run` can be put into a file after any step and taken out again.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Adam

from mechkit.methods.sae import SAE, JumpReLU, TopK

WARM_UP, COOL_DOWN = 0.02, 0.2  # shares of the steps over which the rate rises, and falls to zero
POINTS = 200  # of the training curve
ROWS, RIDGE = 20_000, 1e-2  # of the linear map that a transcoder starts from
STATE_FILE = "training.safetensors"


@dataclass(frozen=True)
class Settings:
    """What a training is made of, as it stands beside its kept state."""

    steps: int
    batch: int
    rate: float
    seed: int
    revive: int | None
    penalty: float
    activation: str = ""
    sizes: tuple[int, int, int] | None = None
    data: str = ""


class Run:
    """A training under way: all that changes from step to step."""

    def __init__(self, sae: SAE, x: Tensor, target: Tensor, settings: Settings):
        self.sae, self.x, self.target, self.settings = sae, x, target, settings
        self.step = 0
        self.curve: list[tuple[float, ...]] = []
        self.silent = torch.zeros(sae.d_sae, dtype=torch.long)
        self.scales = [_scale(x), _scale(target)]
        self.mean = target.mean(0)
        self.optimiser = Adam(sae.parameters(), lr=settings.rate, fused=True)
        self._map = _linear_map(x, target) if sae.is_transcoder else None
        self._orders: dict[int, Tensor] = {}
        self._kept: dict[str, Tensor] = {}

    @contextmanager
    def in_scaled_units(self) -> Iterator[None]:
        """Inside, the SAE reads and rebuilds scaled activations; outside, the model's own units."""
        if not self._kept and not self.sae.b_dec.any():
            self._centre()
        self.sae.requires_grad_(True)
        _rescale(self.sae, *self.scales)
        if self._kept:  # a kept state is in scaled units already
            self._put_back()
        try:
            yield
        finally:
            _rescale(self.sae, *(1 / scale for scale in self.scales))
            self.sae.requires_grad_(False)

    @torch.no_grad()
    def _centre(self) -> None:
        """Start from the mean, and in a transcoder from the linear map: a feature reads what foretells its output.

        With an encoder that has nothing to do with its decoder, nearly half of a transcoder's features die at once.
        """
        self.sae.b_dec.copy_(self.mean)
        if self._map is not None:
            self.sae.W_enc.copy_(nn.functional.normalize(self._map @ self.sae.W_dec.T, dim=0))
            self.sae.b_enc.copy_(-self.x.mean(0) @ self.sae.W_enc)

    @torch.enable_grad()
    def advance(self) -> None:
        """One step: a batch, the gradient, Adam, unit rows, and a look at which features fired."""
        rows = self._rows()
        x, target = (part[rows] * scale for part, scale in zip((self.x, self.target), self.scales, strict=True))
        rebuilt, cost, on = rebuild(self.sae, x, self.settings.penalty)
        error = target - rebuilt
        loss = error.square().sum(-1).mean() + cost
        self.optimiser.param_groups[0]["lr"] = self.settings.rate * _share_of_rate(self.step, self.settings.steps)
        self.optimiser.zero_grad()
        loss.backward()
        _along_the_sphere(self.sae.W_dec)
        self.optimiser.step()
        self.sae.normalise_decoder()
        if self.sae.threshold is not None:
            self.sae.threshold.data.clamp_(min=0)
        self.silent = torch.where(on > 0, 0, self.silent + 1)
        if self.step % max(1, self.settings.steps // POINTS) == 0 or self.step == self.settings.steps - 1:
            self._measure(loss, error.detach(), target, float(on.sum()) / len(x))
        self.step += 1
        if self.settings.revive and self.step % self.settings.revive == 0 and self.step < 0.8 * self.settings.steps:
            self._revive(x, error.detach())

    def _rows(self) -> Int[Tensor, " batch"]:
        """The tokens of this step: every one once in each pass over the data, in an order of the pass's own."""
        size = self.settings.batch
        batches = len(self.x) // size
        number, place = divmod(self.step, batches)
        if number not in self._orders:
            generator = torch.Generator().manual_seed(_seed(self.settings.seed, number))
            self._orders = {number: torch.randperm(len(self.x), generator=generator)}
        return self._orders[number][place * size : (place + 1) * size]

    def _measure(self, loss: Tensor, error: Tensor, target: Tensor, l0: float) -> None:
        spread = (target - self.mean * self.scales[1]).square().sum()
        explained = 1 - float(error.square().sum() / spread.clamp(min=1e-12))
        dead = int((self.silent >= min(self.step + 1, self.settings.revive or self.step + 1)).sum())
        self.curve.append((self.step, float(loss.detach()), l0, explained, dead))

    @torch.no_grad()
    def _revive(self, x: Float[Tensor, "batch d_in"], error: Float[Tensor, "batch d_out"]) -> None:
        """Point dead features at errors of this batch, the large ones more often, and forget their moments."""
        dead = (self.silent >= self.settings.revive).nonzero()[:, 0]
        if not len(dead):
            return
        generator = torch.Generator().manual_seed(_seed(self.settings.seed, -self.step))
        chance = error.square().sum(-1).square() + 1e-12
        drawn = torch.multinomial(chance, len(dead), replacement=True, generator=generator)
        sae, new = self.sae, nn.functional.normalize(error[drawn], dim=-1)
        reading = new if self._map is None else nn.functional.normalize(new @ self._map.T, dim=-1)
        living = self.silent < self.settings.revive
        length = sae.W_enc[:, living].norm(dim=0).mean() if living.any() else 1.0
        sae.W_dec[dead] = new
        sae.W_enc[:, dead] = reading.T * length
        sae.b_enc[dead] = -x.mean(0) @ sae.W_enc[:, dead] if sae.is_transcoder else 0.0
        for parameter, rows in ((sae.W_dec, dead), (sae.W_enc, (slice(None), dead)), (sae.b_enc, dead)):
            state = self.optimiser.state[parameter]
            state["exp_avg"][rows] = 0.0
            state["exp_avg_sq"][rows] = 0.0
        self.silent[dead] = 0

    def keep(self, path: Path) -> None:
        """Write all that changes into one file, which takes the place of the old one when it is whole."""
        tensors = {f"weights.{name}": value.detach() for name, value in self.sae.named_parameters()}
        for name, parameter in self.sae.named_parameters():
            for part, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"adam.{name}.{part}"] = value
        tensors |= {"silent": self.silent, "curve": torch.tensor(self.curve, dtype=torch.float64)}
        about = {"step": str(self.step), "settings": json.dumps(asdict(self.settings))}
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        save_file({name: value.contiguous() for name, value in tensors.items()}, new, metadata=about)
        new.replace(path)

    def go_on(self, path: Path) -> None:
        """Take up a kept state, if there is one."""
        if not path.exists():
            return
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                self._kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            known = json.loads(about["settings"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"wanted the state of a training; {path} is damaged ({error}): delete it and train again"
            ) from None
        wanted = json.loads(json.dumps(asdict(self.settings)))
        different = [name for name, value in wanted.items() if known.get(name) != value]
        if different:
            raise ValueError(
                f"wanted the state of this training; {path} is that of one with other {' and '.join(different)}: "
                "name another folder, or delete the file to begin again"
            )
        self.step = int(about["step"])
        self.silent = self._kept["silent"]
        self.curve = [tuple(row) for row in self._kept["curve"].tolist()]

    @torch.no_grad()
    def _put_back(self) -> None:
        for name, parameter in self.sae.named_parameters():
            parameter.copy_(self._kept[f"weights.{name}"])
            start = f"adam.{name}."
            parts = {each.removeprefix(start): value for each, value in self._kept.items() if each.startswith(start)}
            if parts:
                self.optimiser.state[parameter] = parts
        self._kept.clear()


class _Best(torch.autograd.Function):
    """The k largest readings and whose they are; the gradient reaches only their columns."""

    @staticmethod
    def forward(ctx, x: Tensor, W_enc: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        best = torch.addmm(bias, x, W_enc).topk(k, sorted=False)
        values = best.values.relu()
        ctx.save_for_backward(x, best.indices, values)
        ctx.d_sae = len(bias)
        ctx.mark_non_differentiable(best.indices)
        return values, best.indices

    @staticmethod
    def backward(ctx, slope: Tensor, _: Tensor) -> tuple[None, Tensor, Tensor, None]:
        x, indices, values = ctx.saved_tensors
        slope, features = (slope * (values > 0)).flatten(), indices.flatten()
        order = features.argsort(stable=True)  # every feature's uses side by side
        counts = features.bincount(minlength=ctx.d_sae)
        columns = nn.functional.embedding_bag(
            order // indices.shape[1], x, counts.cumsum(0) - counts, mode="sum", per_sample_weights=slope[order]
        )
        return None, columns.T, features.bincount(slope, minlength=ctx.d_sae).to(slope), None


def rebuild(sae: SAE, x: Float[Tensor, "batch d_in"], penalty: float) -> tuple[Tensor, Tensor | float, Tensor]:
    """What the SAE gives for a batch, the cost of what is on, and how often each feature was on."""
    if isinstance(sae.activation, TopK):
        bias = sae.b_enc if sae.is_transcoder else sae.b_enc - sae.b_dec @ sae.W_enc
        values, features = _Best.apply(x, sae.W_enc, bias, sae.activation.k)
        rebuilt = nn.functional.embedding_bag(features, sae.W_dec, mode="sum", per_sample_weights=values) + sae.b_dec
        on = features[values > 0].bincount(minlength=sae.d_sae)
        return rebuilt, penalty * values.sum(-1).mean() if penalty else 0.0, on
    readings = sae.readings(x)
    hidden = sae.activation(readings, sae.threshold)
    jumps = isinstance(sae.activation, JumpReLU)
    counted = sae.activation.count(readings, sae.threshold) if jumps else hidden
    return sae.decode(hidden), penalty * counted.sum(-1).mean(), (hidden.detach() > 0).sum(0)


def _linear_map(x: Float[Tensor, "token d_in"], y: Float[Tensor, "token d_out"]) -> Float[Tensor, "d_in d_out"]:
    """The least-squares map from x to y, of some thousands of tokens, with a little ridge."""
    some = slice(None, None, 1 + len(x) // ROWS)
    x, y = x[some] - x[some].mean(0), y[some] - y[some].mean(0)
    gram = x.T @ x
    return torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ y)


def _seed(seed: int, number: int) -> int:
    """A seed of its own for each pass (counted up) and for each revival (counted down)."""
    return 1_000_003 * seed + number


def _share_of_rate(step: int, steps: int) -> float:
    """Up over the first steps, down to zero over the last."""
    return min(1.0, (step + 1) / max(1.0, WARM_UP * steps), (steps - step) / max(1.0, COOL_DOWN * steps))


def _along_the_sphere(W_dec: nn.Parameter) -> None:
    """Take out of the gradient what would only change the rows' lengths, which are put back to 1 anyway."""
    W_dec.grad -= (W_dec.grad * W_dec.data).sum(-1, keepdim=True) * W_dec.data


@torch.no_grad()
def _rescale(sae: SAE, read: float, rebuilt: float) -> None:
    """Let an SAE for x and y be one for `read * x` and `rebuilt * y`; the rows of W_dec stay as they are."""
    sae.W_enc.mul_(rebuilt / read)
    for each in (sae.b_enc, sae.b_dec, sae.threshold):
        if each is not None:
            each.mul_(rebuilt)


def _scale(x: Float[Tensor, "token d"]) -> float:
    """What x is multiplied by so that its mean squared norm is its dimension."""
    return math.sqrt(x.shape[1] / max(float(x.square().sum(-1).mean()), 1e-30))
