"""Can truth be found without labels? Contrast-consistent search, and why it may find anything else.

A statement and its negation should get probabilities p and 1 - p. CCS looks for a direction on which that
holds, and never sees a label. The limit is in the idea: every property that differs between the two halves of
a pair satisfies it, and with more dimensions than halves *any* balanced split does, at a loss of zero on them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

STEPS, RATE, DECAY = 300, 1e-2, 1e-2


@dataclass(frozen=True)
class ContrastProbe:
    """A direction on which the two halves of each pair disagree.

    Args:
        loss: What the search got it down to: 0 is perfect consistency and confidence.
    Chapter: 03.
    """

    weight: Float[Tensor, " d_model"]
    bias: float
    loss: float

    def believes(self, yes: Float[Tensor, "pair d_model"], no: Float[Tensor, "pair d_model"]) -> Float[Tensor, " pair"]:
        """The probability that the statement holds: the mean of p(yes) and 1 - p(no). Which side is truth is open."""
        p, q = self.probabilities(yes, no)
        return (p + 1 - q) / 2

    def probabilities(
        self, yes: Float[Tensor, "pair d_model"], no: Float[Tensor, "pair d_model"]
    ) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
        """p(yes) and p(no) of each pair; `ccs_loss` of them says how consistent the probe is on these pairs."""
        p, q = (torch.sigmoid(centred(each.float()) @ self.weight + self.bias) for each in (yes, no))
        return p, q


def ccs_loss(p_yes: Float[Tensor, " pair"], p_no: Float[Tensor, " pair"]) -> Float[Tensor, ""]:
    """How inconsistent, plus how undecided: `mean((p_yes - (1 - p_no))^2 + min(p_yes, p_no)^2)`, from 0 to 1.

    Source: Burns et al. (2022), "Discovering Latent Knowledge in Language Models Without Supervision".
    Chapter: 03.
    """
    return ((p_yes + p_no - 1) ** 2 + torch.minimum(p_yes, p_no) ** 2).mean()


def centred(x: Float[Tensor, "pair d_model"]) -> Float[Tensor, "pair d_model"]:
    """Each half of the pairs with its own mean and spread taken off, so that "yes" or "no" itself is not the answer."""
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)


def fit_ccs(
    yes: Float[Tensor, "pair d_model"], no: Float[Tensor, "pair d_model"], *, restarts: int = 3, seed: int = 0
) -> ContrastProbe:
    """The direction of the lowest loss among some random starts, found by Adam.

    Raises: ValueError for fewer than two pairs, or halves that are alike.
    Source: Burns et al. (2022), "Discovering Latent Knowledge in Language Models Without Supervision".
    Chapter: 03.
    """
    if len(yes) < 2 or yes.shape != no.shape:
        raise ValueError(f"wanted at least two pairs; came {len(yes)} and {len(no)} halves")
    if torch.equal(yes, no):
        raise ValueError("wanted pairs whose halves differ; came the same features twice")
    yes, no = centred(yes.float()), centred(no.float())
    tries = [_descend(yes, no, torch.Generator().manual_seed(1000 * seed + each)) for each in range(restarts)]
    return min(tries, key=lambda probe: probe.loss)


def _descend(
    yes: Float[Tensor, "pair d_model"], no: Float[Tensor, "pair d_model"], generator: torch.Generator
) -> ContrastProbe:
    weight = nn.Parameter(torch.randn(yes.shape[1], generator=generator) / yes.shape[1] ** 0.5)
    bias = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=DECAY)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = ccs_loss(torch.sigmoid(yes @ weight + bias), torch.sigmoid(no @ weight + bias))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return ContrastProbe(weight.detach(), float(bias.detach()), float(loss.detach()))
