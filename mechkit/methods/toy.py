"""More features than dimensions: the smallest network that must choose what to keep.

The setting: n features, each off most of the time, are squeezed through d < n numbers and read back. The key
move: features get a vector each, and where few are on at once the vectors may overlap (superposition). The
limit: here we know the features, and every one is a direction by construction. In a real network neither is given.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Adam
from tqdm.auto import tqdm

STEPS, BATCH, RATE, COPIES = 1500, 512, 2e-2, 6
LENGTH_THAT_COUNTS = 0.5  # trained lengths are near 0 or near 1, seldom between

Sampler = Callable[[tuple[int, int], Float[Tensor, " instance"], torch.Generator], Tensor]


def independent(
    size: tuple[int, int], sparsity: Float[Tensor, " instance"], generator: torch.Generator
) -> Float[Tensor, "instance batch feature"]:
    """Features that are 0 with probability `sparsity` and otherwise uniform from 0 to 1, each by itself.

    Args:
        size: How many inputs, and how many features each: (batch, feature).
    Raises: ValueError if a sparsity is not at least 0 and below 1.
    """
    shape = (len(_valid(sparsity)), *size)
    on = torch.rand(shape, generator=generator) < 1 - sparsity[:, None, None]
    return on * torch.rand(shape, generator=generator)


def correlated(
    size: tuple[int, int], sparsity: Float[Tensor, " instance"], generator: torch.Generator
) -> Float[Tensor, "instance batch feature"]:
    """Features in pairs (0 and 1, 2 and 3 …) that are on together or not at all, each with its own value.

    Raises: ValueError if the number of features is odd, or a sparsity is not at least 0 and below 1.
    """
    batch, pairs = _pairs(size)
    on = torch.rand(len(_valid(sparsity)), batch, pairs, generator=generator) < 1 - sparsity[:, None, None]
    both = on.repeat_interleave(2, dim=-1)
    return both * torch.rand(both.shape, generator=generator)


def anticorrelated(
    size: tuple[int, int], sparsity: Float[Tensor, " instance"], generator: torch.Generator
) -> Float[Tensor, "instance batch feature"]:
    """Features in pairs (0 and 1, 2 and 3 …) of which at most one is on, each as often as `sparsity` says.

    Raises: ValueError if the number of features is odd, or a sparsity is below 0.5: two features that are
        never on together cannot both be on more than half of the time.
    """
    if (_valid(sparsity) < 0.5).any():
        raise ValueError(
            f"anticorrelated features wanted a sparsity of at least 0.5; came {float(sparsity.min()):.2g}: two "
            "features that are never on together cannot both be on more than half of the time"
        )
    batch, pairs = _pairs(size)
    shape = (len(sparsity), batch, pairs)
    on = torch.rand(shape, generator=generator) < 2 * (1 - sparsity[:, None, None])
    first = torch.rand(shape, generator=generator) < 0.5
    one_of_two = torch.stack([on & first, on & ~first], -1).flatten(-2)
    return one_of_two * torch.rand(one_of_two.shape, generator=generator)


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "relu": lambda x, W, b: (x @ W @ W.mT + b).relu(),
    "linear": lambda x, W, b: x @ W @ W.mT + b,
    "neurons": lambda x, W, b: ((x @ W).relu() @ W.mT + b).relu(),
}


@dataclass(frozen=True)
class Toy:
    """What is to be squeezed, and through what.

    Args:
        importance: How much an error in each feature counts. Its length is the number of features.
        d_hidden: How many numbers stand in the middle; fewer than there are features.
        kind: "relu" is x' = ReLU(x W W^T + b); "linear" has no ReLU (the control); "neurons" has a second ReLU
            on the hidden numbers, so that they are neurons.
        sampler: `independent`, `correlated` or `anticorrelated` features.
    Raises: ValueError if d_hidden is not below the number of features, or the kind is unknown.
    Source: Elhage et al. (2022), "Toy Models of Superposition". Row i of our W is feature i's vector: the
        paper's W transposed.
    Chapter: 01.
    """

    importance: Float[Tensor, " feature"]
    d_hidden: int = 2
    kind: str = "relu"
    sampler: Sampler = independent

    def __post_init__(self) -> None:
        if not 0 < self.d_hidden < self.n_features:
            raise ValueError(
                f"wanted fewer hidden dimensions than features, and at least 1; came d_hidden = {self.d_hidden} for "
                f"{self.n_features} features: with room for each there is nothing to superpose, so lower d_hidden"
            )
        if self.kind not in KINDS:
            raise ValueError(f"there is no toy model of kind {self.kind!r}; the kinds are {', '.join(KINDS)}")

    @property
    def n_features(self) -> int:
        return len(self.importance)

    def reconstruct(
        self,
        x: Float[Tensor, "*#instance batch feature"],
        W: Float[Tensor, "*#instance feature d_hidden"],
        b: Float[Tensor, "*#instance feature"],
    ) -> Float[Tensor, "... batch feature"]:
        """What the model reads back; leading axes broadcast."""
        return KINDS[self.kind](x, W, b[..., None, :])

    def loss(
        self, x: Float[Tensor, "*#instance batch feature"], output: Float[Tensor, "*#instance batch feature"]
    ) -> Float[Tensor, "..."]:
        """The squared error, weighted by importance: mean over inputs and features."""
        return (self.importance * (x - output) ** 2).mean((-2, -1))


@dataclass(frozen=True)
class ToyModels:
    """Several copies at each of several sparsities, trained side by side.

    Args:
        sparsity: The probability that a feature is off.
        W: Row i is feature i's vector in the hidden space.
        b: What is added before the last ReLU.
        loss: Each copy's loss over the last tenth of its training.
    """

    toy: Toy
    sparsity: Float[Tensor, " sparsity"]
    W: Float[Tensor, "sparsity copy feature d_hidden"]
    b: Float[Tensor, "sparsity copy feature"]
    loss: Float[Tensor, "sparsity copy"]

    @property
    def best(self) -> Float[Tensor, "sparsity feature d_hidden"]:
        """W of the copy with the lowest loss: what the task asks for, not what one run happens to find."""
        return self.W[range(len(self.W)), self.loss.argmin(1)]

    def draw(self, batch: int, *, seed: int) -> Float[Tensor, "sparsity batch feature"]:
        """Fresh inputs of the kind that the models were trained on."""
        generator = torch.Generator().manual_seed(seed)
        return self.toy.sampler((batch, self.toy.n_features), self.sparsity, generator)


def train_toys(
    toy: Toy,
    sparsity: Sequence[float] | Float[Tensor, " sparsity"],
    *,
    copies: int = COPIES,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
) -> ToyModels:
    """Train copies of a toy model at several sparsities, all at once: one tensor, one loop.

    Each copy starts from random weights of its own and sees inputs of its own, fresh at every step. A copy's
    loss is divided by how often a feature is on, so that all learn at the same speed.

    Raises: ValueError if a sparsity is not at least 0 and below 1.
    Chapter: 01.
    """
    sparsity = _valid(torch.as_tensor(sparsity, dtype=torch.float32))
    each = sparsity.repeat_interleave(copies)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(each), toy.n_features, toy.d_hidden, generator=generator) / 2
    W = (start / math.sqrt(toy.d_hidden)).requires_grad_()
    b = torch.zeros(len(each), toy.n_features, requires_grad=True)
    optimiser = Adam([W, b], lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    last = torch.zeros(len(each))
    for step in tqdm(range(steps), desc="training", leave=False, disable=not progress):
        x = toy.sampler((BATCH, toy.n_features), each, generator)
        losses = toy.loss(x, toy.reconstruct(x, W, b))
        optimiser.zero_grad()
        (losses / (1 - each)).sum().backward()
        optimiser.step()
        schedule.step()
        if step >= 0.9 * steps:
            last += losses.detach() / (steps - math.ceil(0.9 * steps))
    shape = (len(sparsity), copies)
    W, b = W.detach().unflatten(0, shape), b.detach().unflatten(0, shape)
    return ToyModels(toy, sparsity, W, b, last.unflatten(0, shape))


def is_represented(W: Float[Tensor, "*instance feature d_hidden"]) -> Tensor:
    """Which features have a vector to speak of: one longer than a half."""
    return W.norm(dim=-1) > LENGTH_THAT_COUNTS


def dimensionality(W: Float[Tensor, "*instance feature d_hidden"]) -> Float[Tensor, "*instance feature"]:
    """The share of a dimension that each feature has to itself: 1 alone, 1/2 in an opposite pair, 2/5 in a pentagon.

    `D_i = |W_i|^2 / sum_j (u_i . W_j)^2`, where `u_i = W_i / |W_i|` and j runs over all features, i too. A
    feature without a vector has none: 0.

    Source: Elhage et al. (2022), "The geometry of superposition".
    Chapter: 01.
    """
    squared = W.square().sum(-1)
    claimed = (W @ W.mT).square().sum(-1)  # |W_i|^2 times the sum over j
    return torch.where(squared > 0, squared.square() / claimed.clamp(min=1e-30), 0.0)


def interference(W: Float[Tensor, "*instance feature d_hidden"]) -> Float[Tensor, "*instance feature"]:
    """What the other features write on each feature's direction: `sum over j != i of (u_i . W_j)^2`.

    0 where a direction is shared with nobody. A feature without a vector suffers none: 0.

    Chapter: 01.
    """
    squared = W.square().sum(-1)
    shared = (W @ W.mT).square().sum(-1) / squared.clamp(min=1e-30)
    return torch.where(squared > 0, shared - squared, 0.0).clamp(min=0)


def random_directions(n: int, d: int, *, seed: int) -> Float[Tensor, "vector d"]:
    """Vectors of length 1 in directions that are all equally likely."""
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=-1, keepdim=True)


def near_orthogonal(vectors: Float[Tensor, "vector d"], limit: float) -> Int[Tensor, " kept"]:
    """Which vectors are kept when each in turn joins only if its cosine with every kept one is within ±limit.

    Of random vectors the number kept grows exponentially with `d * limit^2`, the reason behind the lemma of
    Johnson and Lindenstrauss; for limit 0 it is at most d.

    Raises: ValueError if a vector has length 0.
    Chapter: 01.
    """
    lengths = vectors.norm(dim=-1)
    if (lengths == 0).any():
        place = int((lengths == 0).nonzero()[0])
        raise ValueError(f"wanted vectors with a direction; vector {place} has length 0: leave it out")
    cosines = ((vectors / lengths[:, None]) @ (vectors / lengths[:, None]).T).abs()
    kept: list[int] = []
    for candidate, row in enumerate(cosines):
        if not kept or row[kept].max() <= limit:
            kept.append(candidate)
    return torch.tensor(kept, dtype=torch.long)


def _valid(sparsity: Tensor) -> Tensor:
    wrong = sparsity[~((sparsity >= 0) & (sparsity < 1))]
    if len(wrong):
        raise ValueError(
            f"wanted a sparsity of at least 0 and below 1; came {float(wrong[0]):.2g}: it is the probability that a "
            "feature is off, and at 1 none is ever on, so there is nothing to learn"
        )
    return sparsity


def _pairs(size: tuple[int, int]) -> tuple[int, int]:
    batch, features = size
    if features % 2:
        raise ValueError(f"wanted an even number of features, to pair them up; came {features}")
    return batch, features // 2
