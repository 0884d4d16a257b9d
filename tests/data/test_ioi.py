"""Counterbalanced sentences about two people."""

from collections import Counter

import pytest
import torch

from mechkit.data.ioi import IOI_NAMES, IOI_TEMPLATES, ioi_prompts
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
