"""No word on both sides, one label a word, and sentences for splits that cannot be."""

from collections import Counter, defaultdict

import pytest
import torch

from mechkit.methods.splits import (
    check_labels,
    control_labels,
    random_labels,
    split_by_example,
    split_by_word,
    word_folds,
)

WORDS = [word for word in "dog cat cow hen pig fox owl bat ant bee".split() for _ in range(4)]


def labels_of_words(labels):
    seen = defaultdict(set)
    for word, label in zip(WORDS, labels.tolist(), strict=True):
        seen[word].add(label)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_no_word_stands_on_both_sides_and_no_example_is_lost(seed):
    train, test = split_by_word(WORDS, seed=seed)
    assert not {WORDS[i] for i in train} & {WORDS[i] for i in test}
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(40))
    assert len(test) == 12


def test_a_split_by_example_shares_words():
    train, test = split_by_example(len(WORDS), seed=0)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(40))
    assert {WORDS[i] for i in train} & {WORDS[i] for i in test}


def test_even_an_extreme_share_leaves_a_word_on_each_side():
    for share in (0.0, 1.0):
        train, test = split_by_word(["a", "b", "a"], share=share)
        assert len(train)
        assert len(test)


def test_one_word_cannot_be_split():
    with pytest.raises(ValueError, match="wanted at least two different words to split; came 1"):
        split_by_word(["dog", "dog"])


def test_a_control_task_gives_each_word_one_label_and_each_label_as_many_words():
    seen = labels_of_words(control_labels(WORDS, seed=3))
    assert all(len(labels) == 1 for labels in seen.values())
    assert Counter(label for labels in seen.values() for label in labels) == {0: 5, 1: 5}
    assert not torch.equal(control_labels(WORDS, seed=3), control_labels(WORDS, seed=4))
    assert control_labels(WORDS, classes=4).unique().tolist() == [0, 1, 2, 3]


def test_random_labels_are_the_same_labels_elsewhere():
    y = torch.tensor([0] * 10 + [1] * 30)
    assert random_labels(y, seed=1).sum() == 30
    assert not torch.equal(random_labels(y, seed=1), y)


def test_a_fold_holds_whole_words():
    folds = word_folds(WORDS, folds=5, seed=2)
    assert all(len(labels) == 1 for labels in labels_of_words(folds).values())
    assert folds.bincount().tolist() == [8] * 5


@pytest.mark.parametrize("folds", [1, 11])
def test_impossible_folds_are_said(folds):
    with pytest.raises(ValueError, match=rf"at most one for each of the 10 words; came {folds}: take fewer folds, or"):
        word_folds(WORDS, folds=folds)


@pytest.mark.parametrize(("labels", "came"), [([1, 1, 1], "class 1 only"), ([], "no labels")])
def test_one_class_only_is_said(labels, came):
    with pytest.raises(ValueError, match=f"wanted labels of at least two classes; came {came}: look at how"):
        check_labels(torch.tensor(labels, dtype=torch.long))
