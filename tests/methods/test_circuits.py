"""A circuit's evaluation against plain runs with one edit a head, and against what must hold of any circuit."""

import pytest
import torch

from mechkit.methods.ablation import mean
from mechkit.methods.circuits import (
    Circuit,
    Trial,
    completeness,
    end_attention,
    faithfulness,
    head_name,
    matched_circuits,
    minimality,
)
from mechkit.methods.metrics import logit_difference
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model

PROMPTS = [" Mary and John went to the school and John gave to", " Tom and Alice went to the store and Tom gave to"]
OTHERS = [
    " Paul and Emma went to the school and Lucy gave to",
    " Lucy and Sarah went to the store and Henry gave to",
    " Alice and Mary went to the school and John gave to",
]
CIRCUIT = Circuit({"early": [(0, 1), (0, 2)], "late": [(2, 3)], "both": [(1, 0), (2, 0)]})


def metric_of(lm):
    right, wrong = (
        torch.tensor([lm.token_id(name) for name in names]) for names in ((" Mary", " Alice"), (" John", " Tom"))
    )
    return lambda logits: logit_difference(logits, right, wrong)


@pytest.fixture
def trial(tiny):
    return Trial(tiny, PROMPTS, OTHERS, metric_of(tiny))


def by_hand(lm, out):
    """The metric with these heads at their mean over the reference, one edit a head and position."""
    _, reference = run(lm, OTHERS, sites="z")
    edits = [mean("z", layer, reference, head=head, position=at[0] if at else None) for layer, head, *at in out]
    with edit(lm, *edits):
        return metric_of(lm)(run(lm, PROMPTS, sites=())[0])


def everything(lm):
    return [(layer, head) for layer in range(lm.n_layers) for head in range(lm.n_heads)]


def close(a, b):
    return torch.allclose(a, b, atol=1e-4)


def test_every_head_in_is_the_model_itself(tiny, trial):
    intact = metric_of(tiny)(run(tiny, PROMPTS, sites=())[0])
    assert close(trial.keep(everything(tiny)), intact)
    assert close(trial.without(), intact)


def test_no_head_in_is_every_head_knocked_out(tiny, trial):
    assert close(trial.keep(), by_hand(tiny, everything(tiny)))
    assert close(trial.without(everything(tiny)), trial.keep())


@pytest.mark.parametrize("heads", [CIRCUIT.heads, [(1, 2)], [(2, 0), (2, 1)], [(0, 3), (2, 2)]])
def test_keeping_and_knocking_out_are_what_single_edits_give(tiny, trial, heads):
    assert close(trial.without(heads), by_hand(tiny, heads))
    assert close(trial.keep(heads), by_hand(tiny, [each for each in everything(tiny) if each not in heads]))


def test_a_head_at_one_position_leaves_its_other_positions(tiny, trial):
    assert close(trial.without([(1, 2, 5)]), by_hand(tiny, [(1, 2, 5)]))
    last = len(tiny.tokens(PROMPTS)[0]) - 1
    all_but = [(*each, at) for each in everything(tiny) for at in range(last + 1) if (*each, at) != (2, 1, last)]
    assert close(trial.keep([(2, 1, last)]), by_hand(tiny, all_but))


def test_the_three_criteria_are_what_their_definitions_say(tiny, trial):
    whole, kept = trial.without().mean(), trial.keep(CIRCUIT.heads).mean()
    assert faithfulness(trial, CIRCUIT) == pytest.approx(float(kept / whole), rel=1e-5)
    both = [(1, 0), (2, 0)]
    rest = [each for each in CIRCUIT.heads if each not in both]
    inside, outside = completeness(trial, CIRCUIT)["both"]
    assert inside == pytest.approx(float(trial.keep(rest).mean()))
    assert outside == pytest.approx(float(trial.without(both).mean()))
    with_it, without_it = minimality(trial, CIRCUIT)[1, 0]
    assert with_it == pytest.approx(float(trial.keep([*rest, (1, 0)]).mean()))
    assert without_it == pytest.approx(inside)
    assert list(minimality(trial, CIRCUIT)) == list(CIRCUIT.heads)


def test_what_was_asked_once_is_not_run_again(tiny_models, monkeypatch):
    trial = Trial(tiny_models["llama"], PROMPTS, OTHERS, metric_of(tiny_models["llama"]))
    first = trial.keep([(1, 0), (0, 1)])
    monkeypatch.setattr(trial, "_edits", lambda _: pytest.fail("run again"))
    assert trial.keep([(0, 1), (1, 0)]) is first


def test_a_circuit_names_its_heads_and_their_roles():
    assert CIRCUIT.heads == ((0, 1), (0, 2), (1, 0), (2, 0), (2, 3))
    assert CIRCUIT.role((1, 0)) == "both"
    assert head_name((2, 3)) == "L2H3"
    assert head_name((2, 3, 7)) == "L2H3@7"
    with pytest.raises(ValueError, match=r"wanted a head of the circuit, L0H1, .*; came \(9, 9\)"):
        CIRCUIT.role((9, 9))


def test_matched_circuits_have_as_many_heads_a_layer_and_none_of_its_own(tiny_models):
    drawn = matched_circuits(tiny_models["llama"], CIRCUIT, 20, seed=0)
    assert drawn == matched_circuits(tiny_models["llama"], CIRCUIT, 20, seed=0)
    assert len(set(drawn)) > 1
    for heads in drawn:
        assert [layer for layer, _ in heads] == [layer for layer, _ in CIRCUIT.heads]
        assert len(set(heads)) == len(heads)
        assert not set(heads) & set(CIRCUIT.heads)


def test_a_full_layer_is_filled_up_with_its_own_and_positions_are_kept(tiny_models):
    full = Circuit({"most": [(1, 0, 4), (1, 1), (1, 2)]})
    for heads in matched_circuits(tiny_models["llama"], full, 5, seed=1):
        assert (1, 3) in {each[:2] for each in heads}
        assert len({each[:2] for each in heads}) == 3
        assert [each[2:] for each in heads] == [(4,), (), ()]


def test_attention_from_the_end_is_that_of_each_prompts_own_places(tiny):
    places = {"first": torch.tensor([1, 3]), "end": torch.tensor([9, 9])}
    _, cache = run(tiny, PROMPTS, sites="pattern")
    found = end_attention(tiny, PROMPTS, places)
    assert list(found) == ["first", "end"]
    pattern = cache["pattern", 1]
    assert torch.allclose(found["first"][1, 2], (pattern[0, 2, -1, 1] + pattern[1, 2, -1, 3]) / 2)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ((3, 0), "wanted a layer of tiny llama's run, 0 to 2; came 3 in"),
        ((0, 4), "wanted a head of tiny llama's run, 0 to 3; came 4"),
        ((0, -1), "wanted a head of tiny llama's run, 0 to 3; came -1"),
        ((0, 1, 99), "wanted a position of tiny llama's run"),
        ((1,), r"wanted a head as \(layer, head\), or \(layer, head, position\); came \(1,\)"),
        ((0, 1, 2, 3), "wanted a head as"),
    ],
)
def test_a_head_that_does_not_exist_is_answered_with_those_that_do(tiny_models, head, sentence):
    trial = Trial(tiny_models["llama"], PROMPTS, OTHERS, metric_of(tiny_models["llama"]))
    for measure in (trial.keep, trial.without):
        with pytest.raises(ValueError, match=sentence):
            measure([head])


def test_a_reference_of_another_length_says_so(tiny_models):
    with pytest.raises(ValueError, match=r"wanted reference prompts of .* tokens, as the prompts have"):
        Trial(tiny_models["llama"], PROMPTS, [" Mary gave"], metric_of(tiny_models["llama"]))


def test_a_metric_that_is_wrong_says_so(tiny_models):
    trial = Trial(tiny_models["llama"], PROMPTS, OTHERS, lambda logits: logits.sum())
    with pytest.raises(ValueError, match="wanted a metric from logits"):
        trial.keep()
    nothing = Trial(tiny_models["llama"], PROMPTS, OTHERS, lambda logits: logits[:, 0, 0] * 0)
    with pytest.raises(ValueError, match="its metric is 0: there is nothing to share"):
        faithfulness(nothing, CIRCUIT)


def test_no_hook_is_left_behind(tiny_models):
    lm = tiny_models["gpt2"]
    before, _ = run(lm, PROMPTS, sites=())
    Trial(lm, PROMPTS, OTHERS, metric_of(lm)).keep([(1, 1)])
    assert torch.equal(run(lm, PROMPTS, sites=())[0], before)
    with edit(lm, Edit("z", 0, torch.zeros_like)):
        assert not torch.equal(run(lm, PROMPTS, sites=())[0], before)


def test_the_two_runs_that_a_trial_keeps_do_not_depend_on_the_seed_of_anything():
    lm = tiny_model(seed=3)
    one, two = (Trial(lm, PROMPTS, OTHERS, metric_of(lm)).keep(CIRCUIT.heads) for _ in range(2))
    assert torch.equal(one, two)
