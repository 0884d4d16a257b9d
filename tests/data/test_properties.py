"""Every property is balanced, has enough words, keeps its sides apart and is deterministic."""

from collections import Counter, defaultdict

import pytest

from mechkit.data import lexicon
from mechkit.data.properties import PROPERTIES, load_property

each_property = pytest.mark.parametrize("name", PROPERTIES)


@each_property
def test_there_are_at_least_a_hundred_words_and_none_of_them_outside(name):
    task = load_property(name)
    assert len(set(task.inside.words)) >= 100
    assert len(set(task.outside.words)) >= 20
    assert not set(task.inside.words) & set(task.outside.words)


@each_property
def test_classes_are_balanced_and_sentences_differ(name):
    task = load_property(name)
    for part in (task.inside, task.outside):
        assert set(Counter(part.labels).values()) == {len(part) // len(task.classes)}
        assert set(part.labels) == set(range(len(task.classes)))
        assert len(set(part.prompts)) == len(part) == len(part.labels) == len(part.words)
        assert not any("{" in prompt or prompt != prompt.strip() for prompt in part.prompts)


@each_property
def test_every_word_stands_in_several_sentences_equally_often(name):
    counts = set(Counter(load_property(name).inside.words).values())
    assert len(counts) == 1
    assert counts.pop() >= 2


def test_the_distractor_says_nothing_about_the_head_noun():
    task = load_property("number")
    plurals = {forms[1] for forms in lexicon.DISTRACTORS}
    table = Counter(
        (label, prompt.split()[-1] in plurals)
        for prompt, label in zip(task.inside.prompts, task.inside.labels, strict=True)
    )
    assert len(set(table.values())) == 1
    by_distractor = defaultdict(list)
    for prompt, label in zip(task.inside.prompts, task.inside.labels, strict=True):
        by_distractor[prompt.split()[-1]].append(label)
    assert all(0.35 < sum(labels) / len(labels) < 0.65 for labels in by_distractor.values())


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_a_country_is_named_as_often_rightly_as_wrongly(side):
    task, negated = load_property("truth"), side == "outside"
    part = getattr(task, side)
    named = defaultdict(list)
    for prompt, label in zip(part.prompts, part.labels, strict=True):
        named[prompt.rstrip(".").split(" in ")[-1]].append(label)
        assert (" not " in prompt) == negated
    assert all(2 * sum(labels) == len(labels) for labels in named.values())


def test_a_negation_is_true_where_the_statement_is_false():
    task = load_property("truth")
    truth = dict(zip(task.outside.prompts, task.outside.labels, strict=True))
    assert truth["The city of Bangkok is not in Thailand."] == 0
    truth = dict(zip(task.inside.prompts, task.inside.labels, strict=True))
    assert truth["The city of Paris is in France."] == 1
    assert truth["The city of Rotterdam is in the Netherlands."] == 1


def test_past_and_present_are_spelled():
    forms = dict(lexicon.VERBS)
    assert forms["walks"] == "walked"
    assert forms["smiles"] == "smiled"
    assert len({present for present, _ in lexicon.VERBS}) == len(lexicon.VERBS)


def test_an_unknown_property_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"wanted one of the properties number, tense, .*; came 'colour'"):
        load_property("colour")
