"""What papers and public tools report: the other column of a chapter's last cell and of the report card.

Values are quoted, not measured here, and mostly of other models; each row names its source and its model. The
rows marked "from memory" were not read in the source's text.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published value. `finding` is the exercise that measures the same here; empty where none does."""

    chapter: str
    what: str
    model: str
    value: str
    source: str
    finding: str = ""


IOI = "Wang et al. (2022), Interpretability in the Wild"
ARENA = "ARENA's course notebooks"
TL = "TransformerLens' demonstration notebooks"
ROME = "Meng et al. (2022), Locating and Editing Factual Associations in GPT"
TRUTH = "Marks and Tegmark (2023), The Geometry of Truth"
CCS = "Burns et al. (2022), Discovering Latent Knowledge"
TOY = "Elhage et al. (2022), Toy Models of Superposition"
OLSSON = "Olsson et al. (2022), In-context Learning and Induction Heads"
GPT2 = "GPT-2 small"

_ROWS = {
    "01": (
        ("dimensionality of a digon, a triangle, a pentagon", "toy model", "1/2, 2/3, 2/5", TOY, "01_neighbour_angle"),
        ("dimensionality of a tetrahedron, a square antiprism", "toy model", "3/4, 3/8", TOY),
        ("growth of the vulnerability to small attacks as superposition forms", "toy model", "more than 3 times", TOY),
    ),
    "02": (
        ("king − man + woman, query words left out", "GloVe 6B 50d", "queen", "measured with GloVe's question files"),
        ("all questions of the Google set, exact", "GloVe 6B 50d", "46.2%", "measured with GloVe's question files"),
        ("all questions of the Google set, exact", "GloVe 6B 300d", "71.7%", "GloVe's paper, table 2, from memory"),
    ),
    "03": (
        ("truth of city sentences, mass-mean, false to true", "Llama 2 13B", "0.77", TRUTH),
        ("truth of city sentences, mass-mean, true to false", "Llama 2 13B", "0.90", TRUTH),
        ("CCS, mean accuracy", "six models", "71.2%", CCS),
        ("supervised logistic regression, mean accuracy", "six models", "83.7%", CCS),
    ),
    "05": (
        ("previous-token heads", GPT2, "4.11, 2.2", IOI, "05_suspects"),
        ("induction heads", GPT2, "5.5, 6.9; also 5.1, 7.2, 7.10", f"{IOI}; {ARENA}", "05_induction_heads"),
        ("duplicate-token heads", GPT2, "3.0, 0.1", IOI),
        ("induction score of 5.5, 6.9, 7.10", GPT2, "0.93, 0.91, 0.91", "README of induction-head-detector"),
        ("in-context-learning score before and after the phase change", "34 models", "0.15 and 0.4 nats", OLSSON),
        ("layers that a phase change needs", "attention-only models", "two; none in one layer", OLSSON),
    ),
    "06": (
        ("mean logit difference", GPT2, "3.56", IOI),
        ("share of prompts with IO above S", GPT2, "99.3%", IOI),
        ("name movers", GPT2, "9.9, 10.0, 9.6", IOI, "06_name_movers"),
        ("negative name movers", GPT2, "10.7, 11.10", IOI, "06_negative_mover"),
        ("S-inhibition heads", GPT2, "7.3, 7.9, 8.6, 8.10", IOI, "06_s_inhibition"),
        ("duplicate-token heads", GPT2, "0.1, 3.0", IOI),
        ("backup name movers", GPT2, "9.0, 9.7, 10.1, 10.2, 10.6, 10.10, 11.2, 11.9", IOI, "06_repairer"),
        ("name movers' attention to IO", GPT2, "0.59", IOI),
        ("copying score of the name movers, of the average head", GPT2, "above 95%, below 20%", IOI),
        ("loss of logit difference with all three name movers out", GPT2, "5%", IOI),
        ("faithfulness of the circuit", GPT2, "87%", IOI),
        ("direct attribution of 9.9, 9.6, 10.7", GPT2, "+1.96, +1.63, −1.43", TL),
    ),
    "07": (
        ("logit difference, clean and corrupted, eight prompts", GPT2, "3.55 and −3.55", TL),
        (
            "heads that path patching finds to write into the name movers' queries",
            GPT2,
            "7.3, 7.9, 8.6, 8.10",
            IOI,
            "07_steered_heads",
        ),
    ),
    "08": (
        ("L0, residual stream, layers 0 to 11", "GPT-2 small, res-jb", "10 to 70", "SAELens' list of trained SAEs"),
        ("variance explained, TopK with L0 32", "GPT-2 small, v5-32k", "0.9", "SAELens' list of trained SAEs"),
        ("loss recovered, layer 6", "Gemma 2B, res-jb", "95.3%", "SAELens' list of trained SAEs"),
    ),
    "09": (
        ("effect of all noise on the subject", "GPT-2 XL", "18.6%", ROME),
        ("best single state: layer 15, last subject token", "GPT-2 XL", "8.7%", ROME, "09_carrier"),
        ("best MLP at the last subject token, and attention there", "GPT-2 XL", "6.6% and 1.6%", ROME, "09_first_mlp"),
        ("ROME's score on counterfactuals, fine-tuning's", "GPT-2 XL", "89.2, 66.9", ROME),
    ),
}
PUBLISHED = tuple(Published(chapter, *row) for chapter, rows in _ROWS.items() for row in rows)


def published(chapter: str) -> tuple[Published, ...]:
    """What was published about the findings of a chapter, "05".

    Raises: ValueError if there is nothing.
    """
    found = tuple(row for row in PUBLISHED if row.chapter == chapter)
    if not found:
        raise ValueError(f"wanted a chapter with published values, {', '.join(_ROWS)}; came {chapter!r}")
    return found
