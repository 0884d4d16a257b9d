"""Counterbalanced sentences about two people."""

from collections import Counter

import pytest
import torch

from mechkit.data.ioi import IOI_NAMES, IOI_TEMPLATES, ioi_positions, ioi_prompts, ioi_reference
from mechkit.methods.metrics import logit_difference
from mechkit.network.assets import default_model
from mechkit.network.cache import run
from mechkit.network.loading import load_model


def test_each_pair_stands_in_both_roles_and_both_orders():
    prompts = ioi_prompts(3, templates=IOI_TEMPLATES, seed=1).prompts
    assert len(prompts) == 4 * 3 * len(IOI_TEMPLATES)
    assert Counter(prompt.order for prompt in prompts) == {"ABBA": len(prompts) // 2, "BABA": len(prompts) // 2}
    roles = Counter((prompt.template, prompt.io, prompt.subject) for prompt in prompts)
    assert set(roles.values()) == {2}
    assert all((template, subject, io) in roles for template, io, subject in roles)


def test_corruptions_change_the_names_they_say_they_change():
    prompt = ioi_prompts(1)
    assert prompt.texts[0] == "When Mary and John went to the store, John gave a drink to"
    assert prompt.swapped[0] == "When Mary and John went to the store, Mary gave a drink to"
    assert prompt.third[0] == "When Mary and John went to the store, Tom gave a drink to"
    assert prompt.fresh[0] == "When Alice and Henry went to the store, Tom gave a drink to"


def test_seeds_draw_other_names_and_the_same_seed_the_same():
    assert ioi_prompts(4, seed=1) == ioi_prompts(4, seed=1)
    assert ioi_prompts(4, seed=1) != ioi_prompts(4, seed=2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"pairs": 0}, "at least one pair"),
        ({"pairs": 2, "names": ["Mary", "John", "Tom", "Alice"]}, "wanted at least one pair and 7 different names"),
        ({"names": ["Mary", "Mary", "Tom", "Alice", "Henry", "Lucy", "Emma", "Paul"]}, "of which 7 differ"),
        ({"templates": ["{A} and {B} went to"]}, "wanted a template with {A}, {B} and {S}"),
    ],
)
def test_a_set_that_cannot_be_made_says_why(arguments, sentence):
    with pytest.raises(ValueError, match=sentence.replace("{", r"\{").replace("}", r"\}")):
        ioi_prompts(**arguments)


@pytest.mark.slow
def test_on_the_default_model_names_are_tokens_and_the_set_is_one_batch():
    lm = load_model(default_model())
    assert [name for name in IOI_NAMES if len(lm.tokens(f" {name}", prefix=None)[0]) != 1] == []
    prompts = ioi_prompts(1, templates=IOI_TEMPLATES, seed=0)
    ids, where = lm.tokens(prompts.texts), prompts.positions(lm)
    right, wrong = prompts.answers(lm)
    rows = torch.arange(len(prompts))
    assert torch.equal(ids[rows, where["IO"]], right)
    assert torch.equal(ids[rows, where["S1"]], wrong)
    assert torch.equal(ids[rows, where["S2"]], wrong)
    assert (where["S1"] < where["S2"]).all()
    assert (where["END"] == ids.shape[1] - 1).all()


@pytest.mark.slow
def test_the_default_model_names_the_indirect_object():
    lm = load_model(default_model())
    prompts = ioi_prompts(3, templates=IOI_TEMPLATES, seed=0)
    right, wrong = prompts.answers(lm)
    clean = logit_difference(run(lm, prompts.texts, sites=())[0][:, -1:], right, wrong)
    swapped = logit_difference(run(lm, prompts.swapped, sites=())[0][:, -1:], right, wrong)
    assert (clean > 0).float().mean() > 0.9
    torch.testing.assert_close(swapped.mean(), -clean.mean(), atol=1e-3, rtol=0)  # by the counterbalancing alone


def test_a_set_as_lists_holds_the_sentences_and_the_names_as_tokens():
    prompts = ioi_prompts(2, seed=3)
    columns = prompts.columns
    assert columns["prompts"] == prompts.texts
    assert columns["third"] == prompts.third
    assert columns["fresh"] == prompts.fresh
    for text, io, subject, order in zip(*(columns[key] for key in ("prompts", "io", "subject", "order")), strict=True):
        assert text.count(subject) == 2
        assert text.count(io) == 1
        assert (text.index(io) < text.index(subject)) == (order == "ABBA")
    assert all(other in text for other, text in zip(columns["other"], columns["third"], strict=True))


def test_positions_are_found_for_any_columns_and_a_missing_subject_is_said(tiny):
    columns = {"prompts": [" Mary and John went and John gave to"], "io": [" Mary"], "subject": [" John"]}
    row = tiny.tokens(columns["prompts"])[0]
    found = {name: int(at) for name, at in ioi_positions(tiny, columns).items()}
    assert row[found["IO"]] == tiny.token_id(" Mary")
    assert row[found["S1"]] == row[found["S2"]] == tiny.token_id(" John")
    assert found["S1"] < found["S2"]
    assert found["S1+1"] == found["S1"] + 1
    assert found["END"] == len(row) - 1
    with pytest.raises(ValueError, match=r"wanted a prompt that says Tom; came .* each needs both names"):
        ioi_positions(tiny, columns | {"subject": [" Tom"]})


def test_reference_sentences_name_three_people():
    sentences = ioi_reference(5, seed=1)
    assert sentences == ioi_reference(5, seed=1)
    assert len(set(sentences)) == 5
    for sentence in sentences:
        assert len([word for word in sentence.replace(",", "").split() if word in IOI_NAMES]) == 3
    with pytest.raises(ValueError, match="wanted at least one sentence"):
        ioi_reference(0)
