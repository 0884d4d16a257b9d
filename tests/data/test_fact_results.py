"""The shipped traces and edits are complete, teach what the chapter says, and a slice made again agrees."""

import json
from dataclasses import replace

import pytest
import torch

from mechkit.data import fact_results
from mechkit.data.counterfacts import COUNTERFACTS, TRACED_FACTS, known_prompts
from mechkit.data.fact_results import (
    MEASURES,
    SHIPPED_LAYER,
    SWEPT,
    TUNED,
    WINDOWS,
    by_role,
    load_edits,
    load_traces,
    main,
    measure_edit,
)
from mechkit.data.probe_results import four_layers
from mechkit.methods.editing import Rewrite, key_covariance
from mechkit.methods.rewriting import rome
from mechkit.methods.tracing import NoisyRuns, Trace, trace
from mechkit.network.tiny import tiny_model


def scores(subject, method, layer=SHIPPED_LAYER):
    [found] = [each for each in load_edits() if (each.subject, each.method, each.layer) == (subject, method, layer)]
    return found.scores


def test_every_fact_is_traced_at_every_site():
    traces = load_traces()
    assert list(traces) == [fact.subject for fact in TRACED_FACTS]
    for sites in traces.values():
        assert sites.keys() == WINDOWS.keys()
        for found in sites.values():
            assert found.values.shape == (len(found.layers), len(found.labels))
            assert found.clean > 0.5 > 0.2 > found.noisy
            assert bool(((found.values >= 0) & (found.values <= 1)).all())


def test_every_fact_is_rewritten_and_some_are_tuned_and_swept():
    edits = load_edits()
    for method, subjects in (
        ("none", [fact.subject for fact in COUNTERFACTS]),
        ("rome", [fact.subject for fact in COUNTERFACTS]),
        ("fine-tuning", [COUNTERFACTS[which].subject for which in TUNED]),
    ):
        found = [each.subject for each in edits if (each.method, each.layer) == (method, SHIPPED_LAYER)]
        assert found == subjects
    layers = {each.layer for each in edits if each.subject == COUNTERFACTS[SWEPT[0]].subject and each.method == "rome"}
    assert len(layers) >= 4
    assert all(each.scores.keys() == MEASURES.keys() for each in edits)


def test_what_the_chapter_teaches_is_in_the_shipped_numbers():
    roles = [by_role(sites["resid_post"]) for sites in load_traces().values()]
    early = torch.stack([each["last subject"] for each in roles]).mean(0)
    late = torch.stack([each["last"] for each in roles]).mean(0)
    assert early.argmax() < 12 < 20 < (late > 0.5).int().argmax()
    assert torch.stack([each["after"] for each in roles if "after" in each]).mean(0).max() < 0.1
    eiffel = load_traces()["Eiffel Tower"]["resid_post"]
    assert eiffel.recovered[:12, eiffel.subject[-1]].max() < 0.1 < 0.7 < eiffel.recovered[:12, eiffel.subject[-2]].max()
    for fact in COUNTERFACTS:
        assert scores(fact.subject, "none")["efficacy"] == 0
        assert scores(fact.subject, "rome")["efficacy"] == 1
        assert scores(fact.subject, "rome")["drift"] > 5 * scores(fact.subject, "rome")["known drift"]
    assert sum(scores(fact.subject, "rome")["paraphrase"] for fact in COUNTERFACTS) / len(COUNTERFACTS) > 0.8
    assert scores("France", "fine-tuning")["known drift"] > 3 * scores("France", "rome")["known drift"]


def test_a_middle_role_and_a_first_one_need_more_tokens():
    values = torch.arange(10.0).reshape(2, 5) / 10
    long = by_role(Trace(values, 1.0, 0.0, (0, 1), tuple("abcde"), (1, 2, 3)))
    assert {role: row.tolist() for role, row in long.items() if role != "after"} == {
        "first subject": pytest.approx([0.1, 0.6]),
        "middle subject": pytest.approx([0.2, 0.7]),
        "last subject": pytest.approx([0.3, 0.8]),
        "last": pytest.approx([0.4, 0.9]),
    }
    assert list(by_role(Trace(values, 1.0, 0.0, (0, 1), tuple("abcde"), (2,)))) == ["last subject", "after", "last"]


def test_counterfacts_ask_about_the_right_subjects():
    for fact in COUNTERFACTS:
        assert fact.subject in fact.prompt
        assert all(fact.subject in each for each in (*fact.paraphrases, *fact.same_subject))
        assert not any(fact.subject in each for each in (*fact.neighbours, *known_prompts(fact)))
        assert fact.answer != fact.target
        assert all(word.startswith(" ") for word in (fact.answer, fact.target))
        assert len(known_prompts(fact)) > 40
    assert all(fact.subject in fact.prompt for fact in TRACED_FACTS)


def test_an_edit_that_does_nothing_changes_no_measure():
    lm, fact = tiny_model(), replace(COUNTERFACTS[1], answer=" Rome", target=" London")
    nothing = Rewrite(0, torch.zeros(lm.d_mlp, lm.d_model))
    plain, edited = measure_edit(lm, fact, None), measure_edit(lm, fact, nothing)
    assert plain == pytest.approx(edited, abs=1e-5)
    assert plain["known"] == plain["neighbours"] == 1
    assert plain["drift"] == 0


def test_an_edit_that_ruins_the_model_is_said():
    lm, fact = tiny_model(), replace(COUNTERFACTS[1], answer=" Rome", target=" London")
    huge = Rewrite(0, torch.full((lm.d_mlp, lm.d_model), 3e38))
    with pytest.raises(ValueError, match="wanted finite logits; the edited model gives NaN: make the edit smaller"):
        measure_edit(lm, fact, huge)


@pytest.fixture
def small(monkeypatch):
    """Two facts of each kind, and a model that knows nothing."""
    monkeypatch.setattr(fact_results, "load_model", tiny_model)
    monkeypatch.setattr(fact_results, "load_corpus", lambda: ["the king of France went to school"] * 8)
    monkeypatch.setattr(fact_results, "TRACED_FACTS", [replace(fact, answer=" the") for fact in TRACED_FACTS[:2]])
    facts = tuple(replace(fact, answer=" Rome", target=" Paris") for fact in COUNTERFACTS[:2])
    monkeypatch.setattr(fact_results, "COUNTERFACTS", facts)
    monkeypatch.setattr(fact_results, "TUNED", (0,))
    monkeypatch.setattr(fact_results, "SWEPT", (1,))


def test_the_command_writes_what_is_read_and_goes_on_where_it_was(small, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    main(["--out", str(out), "--passages", "4"])
    assert list(load_traces(out)) == ["Colosseum", "Eiffel Tower"]
    assert [each.method for each in load_edits(out)].count("rome") == 3
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert stored["settings"]["model"] == "tiny llama"
    del stored["traces"]["Eiffel Tower"]
    stored["edits"].pop()
    out.write_text(json.dumps(stored), encoding="utf-8")
    calls, real = [], fact_results.trace_fact
    monkeypatch.setattr(fact_results, "trace_fact", lambda lm, fact, **how: calls.append(fact) or real(lm, fact, **how))
    main(["--out", str(out), "--passages", "4"])
    assert [fact.subject for fact in calls] == ["Eiffel Tower"]
    assert len(json.loads(out.read_text(encoding="utf-8"))["edits"]) == len(stored["edits"]) + 1


@pytest.mark.slow
def test_a_slice_of_the_traces_made_again_agrees(default_model):
    fact, layers = TRACED_FACTS[0], four_layers(default_model.n_layers)
    runs = NoisyRuns(default_model, fact.prompt, fact.subject, draws=fact_results.DRAWS)
    for site in ("resid_post", "attn_out"):
        again = trace(runs, default_model.token_id(fact.answer), site=site, window=WINDOWS[site], layers=layers)
        shipped = load_traces()[fact.subject][site]
        assert again.labels == shipped.labels
        assert again.subject == shipped.subject
        torch.testing.assert_close(again.values, shipped.values[layers], atol=0.01, rtol=0.02)


@pytest.mark.slow
def test_an_edit_made_again_agrees(default_model):
    fact = COUNTERFACTS[0]
    texts = fact_results.load_corpus()[:130]
    covariance = key_covariance(default_model, SHIPPED_LAYER, texts)
    again = measure_edit(
        default_model, fact, rome(default_model, fact.request, layer=SHIPPED_LAYER, covariance=covariance)
    )
    shipped = scores(fact.subject, "rome")
    for name, value in again.items():
        assert value == pytest.approx(shipped[name], rel=0.3, abs=0.02), name
