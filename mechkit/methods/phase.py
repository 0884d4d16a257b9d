"""When does in-context copying appear? A transformer of attention alone, watched while it learns.

The setting: texts of random tokens, each said again and again with a period of its own, so that nothing but the
text itself tells what comes next. The key move: train with two layers and with one, on the same texts, and measure
at every few steps where the heads look and what they gain. The limit: these texts hold nothing but repetition, so
the change comes within seconds and alone; in a language model it comes amid everything else that is learned.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import AdamW
from tqdm.auto import tqdm

from mechkit.methods.heads import induction_score, previous_token_score

VOCABULARY, CONTEXT, PERIODS = 64, 48, (8, 24)
WIDTH, HEADS, STEPS, BATCH, RATE = 64, 4, 1000, 32, 1e-3
HELD_OUT, HELD_OUT_SEED = 64, 10_000_019  # no training run has this seed


class Attention(nn.Module):
    """One layer: every head looks back over the normed stream and adds what it read."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(d_model)
        self.read = nn.Linear(d_model, 3 * d_model, bias=False)
        self.write = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, stream: Float[Tensor, "batch pos d_model"]
    ) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch head query key"]]:
        """What the layer adds to the stream, and where its heads looked."""
        heads = self.read(self.norm(stream)).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each [batch head pos d_head]
        future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        pattern = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(future, -torch.inf).softmax(-1)
        return self.write((pattern @ v).transpose(1, 2).flatten(2)), pattern


class AttentionOnly(nn.Module):
    """Embeddings of tokens and positions, layers of attention, an unembedding; no MLP.

    Args:
        layers: How many; with one, no head can read what another wrote.
        seed: Of the first weights.
    Raises: ValueError for fewer than one layer, or a width that the heads cannot share evenly.
    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits".
    Chapter: 05.
    """

    def __init__(self, layers: int, *, d_model: int = WIDTH, n_heads: int = HEADS, seed: int = 0):
        super().__init__()
        if layers < 1:
            raise ValueError(f"wanted at least one layer; came {layers}")
        if d_model % n_heads:
            raise ValueError(f"wanted a width that {n_heads} heads share evenly; came {d_model}: use a multiple of it")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tokens = nn.Embedding.from_pretrained(torch.randn(VOCABULARY, d_model) / 2, freeze=False)
            self.positions = nn.Parameter(torch.randn(CONTEXT, d_model) / 2)
            self.layers = nn.ModuleList(Attention(d_model, n_heads) for _ in range(layers))
            self.norm = nn.LayerNorm(d_model)
            self.unembed = nn.Linear(d_model, VOCABULARY, bias=False)

    def forward(
        self, tokens: Int[Tensor, "batch pos"]
    ) -> tuple[Float[Tensor, "batch pos d_vocab"], Float[Tensor, "layer batch head query key"]]:
        """The logits, and every head's pattern.

        Raises: ValueError for a text that is longer than the context.
        """
        if tokens.shape[1] > CONTEXT:
            raise ValueError(f"wanted at most {CONTEXT} tokens; came {tokens.shape[1]}: shorten the text")
        stream, patterns = self.tokens(tokens) + self.positions[: tokens.shape[1]], []
        for layer in self.layers:
            added, pattern = layer(stream)
            stream = stream + added
            patterns.append(pattern)
        return self.unembed(self.norm(stream)), torch.stack(patterns)


@dataclass(frozen=True)
class PhaseRun:
    """How one model learned: what was measured on held-out texts, every few steps.

    Args:
        steps: When.
        loss: The mean loss on texts like those of the training, in nats.
        gain: The in-context-learning score: loss on the first tokens, which nothing foretells, less that on as many
            of the last. (Olsson et al. write it the other way round, so that it is negative.)
        previous: Each head's previous-token score, on random tokens said twice.
        induction: Each head's induction score, on the same.
        model: As it is after the last step.
    """

    steps: Int[Tensor, " step"]
    loss: Float[Tensor, " step"]
    gain: Float[Tensor, " step"]
    previous: Float[Tensor, "step layer head"]
    induction: Float[Tensor, "step layer head"]
    model: AttentionOnly

    @property
    def best_induction(self) -> Float[Tensor, " step"]:
        """The strongest head's induction score, whichever head that is."""
        return self.induction.flatten(1).amax(1)

    @property
    def best_previous(self) -> Float[Tensor, " step"]:
        """The strongest head's previous-token score."""
        return self.previous.flatten(1).amax(1)


def repeating_texts(batch: int, *, seed: int, periods: tuple[int, int] = PERIODS) -> Int[Tensor, "batch pos"]:
    """Random tokens, said again and again until the context is full; each text has a period of its own.

    Were all periods the same, a head could copy by counting back, without looking at a token.

    Args:
        periods: The shortest and the longest.
    Raises: ValueError if the longest is not said twice within the context.
    Chapter: 05.
    """
    return _texts(batch, torch.Generator().manual_seed(seed), periods)


def train_attention_only(
    layers: int, *, steps: int = STEPS, every: int = 10, seed: int = 0, progress: bool = True
) -> PhaseRun:
    """Train on repeating texts, fresh at every step, and keep what the heads do on the way.

    The same seed gives the same texts whatever the number of layers.

    Args:
        layers: Two are needed for an induction head: one head says what came before, another looks for it.
        every: Steps from one measurement to the next.
    Raises: ValueError for fewer than one layer or step.
    Source: Olsson et al. (2022), "In-context Learning and Induction Heads".
    Chapter: 05.
    """
    if min(steps, every) < 1:
        raise ValueError(f"wanted at least one step, and one between measurements; came {steps} and {every}")
    model = AttentionOnly(layers, seed=seed)
    optimiser = AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), fused=True)
    generator = torch.Generator().manual_seed(seed)
    seen, measured = [], []
    name = f"{layers} layer{'s' * (layers > 1)}"
    for step in tqdm(range(steps + 1), desc=name, mininterval=0.5, leave=False, disable=not progress):
        if step % every == 0:
            seen.append(step)
            measured.append(_measure(model))
        surprise = _surprise(model, _texts(BATCH, generator, PERIODS))
        optimiser.zero_grad()
        surprise.mean().backward()
        optimiser.step()
    return PhaseRun(torch.tensor(seen), *map(torch.stack, zip(*measured, strict=True)), model)


def _texts(batch: int, generator: torch.Generator, periods: tuple[int, int]) -> Int[Tensor, "batch pos"]:
    shortest, longest = periods
    if not 1 <= shortest <= longest <= CONTEXT // 2:
        raise ValueError(f"wanted periods from 1 to {CONTEXT // 2}, half the context, in order; came {periods}")
    once = torch.randint(VOCABULARY, (batch, longest), generator=generator)
    period = torch.randint(shortest, longest + 1, (batch, 1), generator=generator)
    return once.gather(1, torch.arange(CONTEXT) % period)


def _surprise(model: AttentionOnly, texts: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch predicted"]:
    logits, _ = model(texts)
    return nn.functional.cross_entropy(logits[:, :-1].mT, texts[:, 1:], reduction="none")


@torch.no_grad()
def _measure(model: AttentionOnly) -> tuple[Tensor, ...]:
    """The loss, the gain and both scores of every head."""
    surprise = _surprise(model, repeating_texts(HELD_OUT, seed=HELD_OUT_SEED)).mean(0)
    new = PERIODS[0] - 1  # predictions that no repetition can help
    half = CONTEXT // 2
    _, patterns = model(repeating_texts(HELD_OUT // 2, seed=HELD_OUT_SEED, periods=(half, half)))
    previous = torch.stack([previous_token_score(each) for each in patterns])
    induction = torch.stack([induction_score(each, half) for each in patterns])
    return surprise.mean(), surprise[:new].mean() - surprise[-new:].mean(), previous, induction
