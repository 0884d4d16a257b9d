"""Sentences about two people in which one acts twice, so that the other must come next: indirect object identification.

"When Mary and John went to the store, John gave a drink to" is answered with the indirect object (IO), Mary, and
not with the subject (S), John. A set is counterbalanced: each pair of names appears in both roles and both orders,
so that a liking for a name, or for the name said last, cancels in the mean. All templates are equally long for the
tokenizers of the default model and GPT-2, so that a set is one batch.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from mechkit.network.model import LanguageModel

IOI_TEMPLATES = (
    "When {A} and {B} went to the store, {S} gave a drink to",
    "After {A} and {B} arrived at the school, {S} handed a letter to",
    "While {A} and {B} sat in the garden, {S} told a story to",
    "When {A} and {B} came to the museum, {S} showed a map to",
    "At the beach {A} and {B} found a ring. {S} gave it to",
    "Today {A} and {B} met at the station. {S} sold a ticket to",
    "Friends {A} and {B} cooked in the kitchen, {S} passed a plate to",
)

# Each is one token, after a space, for the default model and for GPT-2.
IOI_NAMES = tuple(
    "Mary John Tom Alice Henry Lucy Daniel Sarah Emma Paul James Anna David Laura Peter Helen Robert Susan Mark Julia "
    "George Emily Simon Rachel Jack Kate Adam Rose Frank Grace Michael Maria Martin Claire Alex Diana Richard Jane "
    "Oliver Sophie Steven Linda Thomas Nina Andrew Ruth Charles Eva William Amy Ben Lisa Kevin Karen".split()
)


@dataclass(frozen=True)
class IOIPrompt:
    """One sentence. `names` are the two in the order they are said, then three that are not in it."""

    template: str
    names: tuple[str, str, str, str, str]
    subject: str

    @property
    def order(self) -> str:
        """The names' roles in the order they are said: "ABBA" if the subject comes second, else "BABA"."""
        return "ABBA" if self.names[1] == self.subject else "BABA"

    @property
    def io(self) -> str:
        """The indirect object: the right answer."""
        return self.names[0] if self.order == "ABBA" else self.names[1]

    @property
    def text(self) -> str:
        """The sentence, up to the name that must come."""
        return self.say(self.subject)

    def say(self, last: str, first: str | None = None, second: str | None = None) -> str:
        """The sentence with other names: `last` where the subject acts, `first` and `second` where both are said."""
        return self.template.format(A=first or self.names[0], B=second or self.names[1], S=last)


@dataclass(frozen=True)
class IOIPrompts:
    """A set of sentences, and what they are corrupted to.

    Chapter: 06.
    """

    prompts: tuple[IOIPrompt, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def texts(self) -> list[str]:
        """The clean sentences."""
        return [prompt.text for prompt in self.prompts]

    @property
    def swapped(self) -> list[str]:
        """The other person acts: S2 becomes IO, and the right answer turns round."""
        return [prompt.say(prompt.io) for prompt in self.prompts]

    @property
    def third(self) -> list[str]:
        """Somebody else acts: neither name is said twice."""
        return [prompt.say(prompt.names[2]) for prompt in self.prompts]

    @property
    def fresh(self) -> list[str]:
        """Three people who are not in the clean sentence, none of them said twice."""
        return [prompt.say(*prompt.names[2:]) for prompt in self.prompts]

    def answers(self, lm: LanguageModel) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"]]:
        """The tokens of IO, which is right, and of S, which is wrong.

        Raises: ValueError for a name that is more than one token.
        """
        right = torch.tensor([lm.token_id(" " + prompt.io) for prompt in self.prompts])
        return right, torch.tensor([lm.token_id(" " + prompt.subject) for prompt in self.prompts])

    def positions(self, lm: LanguageModel) -> dict[str, Int[Tensor, " batch"]]:
        """Where each prompt says IO, S1 (the subject, first), S1+1 (what follows it), S2 (again), and END.

        Raises: ValueError for a name that is more than one token.
        """
        return ioi_positions(lm, self.columns)

    @property
    def columns(self) -> dict[str, list[str]]:
        """The set as plain lists: the sentences, what they are corrupted to, and the names as tokens are written."""
        return {
            "prompts": self.texts,
            "io": [" " + prompt.io for prompt in self.prompts],
            "subject": [" " + prompt.subject for prompt in self.prompts],
            "order": [prompt.order for prompt in self.prompts],
            "third": self.third,
            "other": [" " + prompt.names[2] for prompt in self.prompts],
            "fresh": self.fresh,
        }


def ioi_positions(lm: LanguageModel, columns: Mapping[str, Sequence[str]]) -> dict[str, Int[Tensor, " batch"]]:
    """Where each prompt says IO, S1 (the subject, first), S1+1 (what follows it), S2 (again), and END.

    Args:
        columns: With "prompts", "io" and "subject", as `IOIPrompts.columns` has them.
    Raises: ValueError for a name that is more than one token, or is not in its prompt.
    Chapter: 06.
    """
    ids = lm.tokens(columns["prompts"])
    right, wrong = (torch.tensor([[lm.token_id(name)] for name in columns[key]]) for key in ("io", "subject"))
    for names, said in ((columns["io"], ids == right), (columns["subject"], ids == wrong)):
        missing = (~said.any(1)).nonzero().flatten().tolist()
        if missing:
            prompt = columns["prompts"][missing[0]]
            raise ValueError(f"wanted a prompt that says{names[missing[0]]}; came {prompt!r}: each needs both names")
    said = ids == wrong
    first, last = said.int().argmax(1), said.shape[1] - 1 - said.flip(1).int().argmax(1)
    return {
        "IO": (ids == right).int().argmax(1),
        "S1": first,
        "S1+1": first + 1,
        "S2": last,
        "END": torch.full_like(last, ids.shape[1] - 1),
    }


def ioi_prompts(
    pairs: int = 2,
    *,
    templates: Sequence[str] = IOI_TEMPLATES[:1],
    names: Sequence[str] = IOI_NAMES,
    seed: int | None = None,
) -> IOIPrompts:
    """Counterbalanced sentences: for each template and pair of names both roles and both orders, so four.

    Args:
        pairs: Pairs of names for each template; no name is in two pairs of a template.
        templates: With {A} and {B} where the two are named, and {S} where one of them acts.
        names: To draw from. Without a seed they are taken as they come: the same few for every template.
        seed: Draws the names, anew for each template.
    Raises: ValueError for too few names, a name twice, or a template without its three places.
    Source: Wang et al. (2022), "Interpretability in the Wild"; templates and names written for this course.
    Chapter: 06.
    """
    needed = max(2 * pairs + 3, 3 * pairs)
    if pairs < 1 or len(set(names)) < needed or len(set(names)) < len(names):
        raise ValueError(
            f"wanted at least one pair and {needed} different names for {pairs} pairs (two each, and some that are not "
            f"in the sentence); came {len(names)}, of which {len(set(names))} differ"
        )
    chance = random.Random(seed)
    prompts = []
    for template in templates:
        if any(place not in template for place in ("{A}", "{B}", "{S}")):
            raise ValueError(f"wanted a template with {{A}}, {{B}} and {{S}}; came {template!r}")
        drawn = list(names) if seed is None else chance.sample(list(names), len(names))
        said, others = drawn[: 2 * pairs], drawn[2 * pairs :]
        for number in range(pairs):
            one, two = said[2 * number : 2 * number + 2]
            spare = tuple(others[(number + step) % len(others)] for step in range(3))
            for first, second in ((one, two), (two, one)):
                prompts += [IOIPrompt(template, (first, second, *spare), subject) for subject in (second, first)]
    return IOIPrompts(tuple(prompts))


def ioi_reference(
    count: int = 16, *, template: str = IOI_TEMPLATES[0], names: Sequence[str] = IOI_NAMES, seed: int = 0
) -> list[str]:
    """Sentences of one form about three people, none said twice: what is usual there, and no answer to be had.

    Raises: ValueError for a template without its three places, or no sentence.
    Chapter: 06.
    """
    if count < 1 or any(place not in template for place in ("{A}", "{B}", "{S}")):
        raise ValueError(
            f"wanted at least one sentence of a template with {{A}}, {{B}} and {{S}}; came {count} of {template!r}"
        )
    chance = random.Random(seed)
    drawn = [chance.sample(list(names), 3) for _ in range(count)]
    return [template.format(A=first, B=second, S=last) for first, second, last in drawn]
