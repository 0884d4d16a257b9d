"""Facts: well formed, no overlap between visible and hidden, and known to the default model."""

from itertools import groupby

import pytest

from mechkit.data.prompts import FACTS, HIDDEN_FACTS, VISIBLE_FACTS
from mechkit.network.assets import default_model
from mechkit.network.loading import load_model


def test_facts_are_well_formed():
    for fact in FACTS:
        assert fact.subject in fact.prompt
        assert fact.answer.startswith(" ")
        assert " " not in fact.answer[1:]
        assert not fact.prompt.endswith(" ")
        assert not set("[]") & set(fact.prompt)
    assert len({fact.prompt for fact in FACTS}) == len(FACTS) >= 64


def test_visible_and_hidden_facts_cover_the_same_kinds():
    assert {fact.kind for fact in VISIBLE_FACTS} == {fact.kind for fact in HIDDEN_FACTS}
    assert min(len(VISIBLE_FACTS), len(HIDDEN_FACTS)) >= 24


@pytest.mark.slow
def test_the_default_model_knows_every_fact(record_property):
    lm = load_model(default_model())
    unknown = []
    for length, group in groupby(
        sorted(FACTS, key=lambda fact: n_tokens(lm, fact)), key=lambda fact: n_tokens(lm, fact)
    ):
        facts = list(group)
        probs = lm.hf(lm.tokens([fact.prompt for fact in facts]), logits_to_keep=1).logits[:, -1].softmax(-1)
        for fact, prob in zip(facts, probs, strict=True):
            answer = lm.token_id(fact.answer)
            record_property(fact.prompt, f"{prob[answer]:.2f} of {length} tokens")
            if prob.argmax() != answer:
                unknown.append((fact, lm.text(prob.argmax()[None])))
    assert unknown == []


def n_tokens(lm, fact):
    return lm.tokens(fact.prompt).shape[1]
