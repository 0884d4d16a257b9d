"""A model of attention alone, against loops; and that induction comes at once, with two layers and not with one."""

import math

import pytest
import torch

from mechkit.methods.phase import CONTEXT, VOCABULARY, AttentionOnly, repeating_texts, train_attention_only


@pytest.fixture(scope="module")
def model():
    return AttentionOnly(2, d_model=12, n_heads=3, seed=4)


def test_every_text_repeats_itself_with_a_period_of_its_own():
    texts = repeating_texts(300, seed=1)
    assert texts.shape == (300, CONTEXT)
    periods = [next(p for p in range(1, CONTEXT) if torch.equal(text[p:], text[:-p])) for text in texts]
    assert (min(periods), max(periods)) == (8, 24)
    assert len(set(periods)) == 17
    assert texts.unique().numel() == VOCABULARY
    assert torch.equal(texts, repeating_texts(300, seed=1))
    assert not torch.equal(texts, repeating_texts(300, seed=2))


@torch.no_grad()
def test_logits_and_patterns_are_those_of_a_loop(model):
    text = repeating_texts(1, seed=0)[:, :7]
    logits, patterns = model(text)
    assert patterns.shape == (2, 1, 3, 7, 7)
    stream = torch.stack([model.tokens.weight[token] + model.positions[i] for i, token in enumerate(text[0])])
    for number, layer in enumerate(model.layers):
        normed, size, writes = layer.norm(stream), 4, torch.zeros(7, 12)
        for head in range(3):
            rows = [layer.read.weight[12 * part + size * head : 12 * part + size * (head + 1)] for part in range(3)]
            for query in range(7):
                q = rows[0] @ normed[query]
                weights = [math.exp(float(q @ (rows[1] @ normed[key])) / 2) for key in range(query + 1)]
                for key, weight in enumerate(weights):
                    share = weight / sum(weights)
                    assert float(patterns[number, 0, head, query, key]) == pytest.approx(share, abs=1e-5)
                    writes[query, size * head : size * (head + 1)] += share * (rows[2] @ normed[key])
        stream = stream + writes @ layer.write.weight.T
    torch.testing.assert_close(logits[0], model.norm(stream) @ model.unembed.weight.T, rtol=1e-4, atol=1e-5)


def test_no_token_sees_what_comes_after_it(model):
    text = repeating_texts(2, seed=3)
    other = text.clone()
    other[:, 20:] = (other[:, 20:] + 1) % VOCABULARY
    torch.testing.assert_close(model(text)[0][:, :20], model(other)[0][:, :20])


def test_the_same_seed_trains_the_same_model_and_leaves_torchs_own_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (train_attention_only(1, steps=4, every=2, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.loss, two.loss)
    assert not torch.equal(one.loss, other.loss)
    assert one.steps.tolist() == [0, 2, 4]
    assert one.induction.shape == one.previous.shape == (3, 1, 4)


def test_what_is_measured_at_the_start_is_ignorance():
    run = train_attention_only(2, steps=1, progress=False)
    assert float(run.loss[0]) == pytest.approx(math.log(VOCABULARY), abs=0.25)
    assert abs(float(run.gain[0])) < 0.1
    assert float(run.best_induction[0]) < 0.05
    assert torch.equal(run.best_previous, run.previous.amax((1, 2)))


@pytest.mark.slow
def test_with_two_layers_induction_comes_at_once_and_with_one_never():
    two, one = (train_attention_only(layers, steps=800, seed=1, progress=False) for layers in (2, 1))
    early, late = int((two.steps == 350).nonzero()), int((two.steps == 750).nonzero())
    assert float(two.best_induction[early]) < 0.1
    assert float(two.best_induction[late]) > 0.45
    assert float(two.gain[late] - two.gain[early]) > 1.8
    assert float(one.best_induction.max()) < 0.15
    assert float(one.gain[late] - one.gain[early]) < 0.9


@pytest.mark.parametrize(("call", "words"), [
    (lambda: AttentionOnly(0), "wanted at least one layer; came 0"),
    (lambda: AttentionOnly(1, d_model=10), "wanted a width that 4 heads share evenly; came 10: use a multiple of it"),
    (lambda: AttentionOnly(1)(torch.zeros(1, CONTEXT + 1, dtype=torch.long)), "wanted at most 48 tokens; came 49: sho"),
    (lambda: repeating_texts(2, seed=0, periods=(8, 25)), r"periods from 1 to 24.*in order; came \(8, 25\)"),
    (lambda: repeating_texts(2, seed=0, periods=(9, 8)), r"periods from 1 to 24.*in order; came \(9, 8\)"),
    (lambda: train_attention_only(1, steps=0), "wanted at least one step, and one between measurements; came 0 and 10"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
