"""Labels, examples and edits of features, on activations made so that the answer is known."""

import pytest
import torch

from mechkit.methods.sae import SAE, TopK
from mechkit.methods.sae_activations import Activations
from mechkit.methods.sae_features import (
    change_features,
    clearly_on,
    detection_score,
    feature_examples,
    label_from_tokens,
    promoted,
    token_statistics,
    tokens_before,
)
from mechkit.network.cache import run
from mechkit.network.hooks import edit

TOKENS = torch.tensor([5, 6, 7, 5, 6, 6, 5, 9, 5, 6])
PASSAGES = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
POSITIONS = torch.tensor([1, 2, 3, 4, 5, 1, 2, 4, 5, 6])  # position 3 of the second text was massive


@pytest.fixture
def activations():
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    return Activations(x, x, TOKENS, PASSAGES, POSITIONS, 1)


def hidden_for(feature):
    """Another feature beside the one in question, so that columns are told apart."""
    return torch.stack([torch.full((10,), 0.3), torch.as_tensor(feature, dtype=torch.float32)], 1)


def test_the_token_before_is_in_the_same_text_and_right_before(activations):
    assert tokens_before(activations, 0) is activations.tokens
    assert tokens_before(activations, 1).tolist() == [-1, 5, 6, 7, 5, -1, 6, -1, 9, 5]
    assert tokens_before(activations, 2).tolist() == [-1, -1, 5, 6, 7, -1, -1, -1, -1, 9]


def test_statistics_are_counts_and_shares(activations):
    values = [2, 0, 0, 1, 0, 0, 3, 0, 0, 4]
    found = token_statistics(hidden_for(values), activations, 1)
    assert found.tokens.tolist()[:2] == [5, 6]
    assert found.count.tolist()[:2] == [4, 4]
    assert found.on.tolist()[:2] == [0.75, 0.25]
    assert found.mass.tolist() == pytest.approx([0.6, 0.4, 0, 0])


def test_examples_are_the_strongest_of_each_text(activations):
    values = [2, 0, 0, 1, 0, 0, 3, 0, 0, 4]
    first, second = feature_examples(hidden_for(values), activations, 1, n=5)
    assert (first.passage, second.passage) == (1, 0)
    assert first.values[first.peak] == 4
    assert first.tokens.tolist() == [6, 5, 9, 5, 6]
    assert second.peak == 0
    [short] = feature_examples(hidden_for(values), activations, 1, n=1, width=1)
    assert short.tokens.tolist() == [5, 6]
    assert short.peak == 1
    assert feature_examples(hidden_for([0] * 10), activations, 1) == []


def test_a_feature_of_one_token_gets_its_name(activations, tiny_models):
    values = (TOKENS == 5).float()
    label = label_from_tokens(hidden_for(values), activations, 1, tiny_models["llama"])
    assert (label.tokens, label.back) == ((5,), 0)
    assert label.text == f"at {tiny_models['llama'].labels([5])[0]!r}"
    assert torch.equal(label.predict(activations), TOKENS == 5)
    assert detection_score(label.predict(activations), values > 0) == 1


def test_a_feature_of_what_came_before_is_found_too(activations, tiny_models):
    values = (tokens_before(activations, 1) == 5).float()
    label = label_from_tokens(hidden_for(values), activations, 1, tiny_models["llama"])
    assert (label.tokens, label.back) == ((5,), 1)
    assert label.text.startswith("right after ")
    assert detection_score(label.predict(activations), values > 0) == 1


def test_a_feature_that_tokens_do_not_foretell_is_said_to_be_one(tiny_models):
    x, tokens = torch.zeros(100, 4), torch.full((100,), 5)
    alike = Activations(x, x, tokens, torch.zeros_like(tokens), torch.arange(1, 101), 0)
    values = (torch.arange(100) == 50).float()
    label = label_from_tokens(values[:, None], alike, 0, tiny_models["llama"])
    assert label.tokens == ()
    assert label.text == "no token foretells it"
    assert detection_score(label.predict(alike), values > 0) == 0.5
    with pytest.raises(ValueError, match="wanted a feature that is on somewhere in this text; feature 0 is dead here"):
        label_from_tokens(torch.zeros(100, 1), alike, 0, tiny_models["llama"])


def test_clearly_on_is_above_a_share_of_the_largest():
    values = torch.tensor([0.0, 1.0, 3.0, 3.1, 10.0])
    assert clearly_on(values).tolist() == [False, False, False, True, True]
    assert clearly_on(values, share=0).tolist() == [False, True, True, True, True]
    assert clearly_on(values, largest=2.0).tolist() == [False, True, True, True, True]
    assert not clearly_on(torch.zeros(3)).any()


def test_a_label_keeps_the_limit_of_the_text_that_it_was_made_from(activations, tiny_models):
    values = (TOKENS == 5).float() * 8
    label = label_from_tokens(hidden_for(values), activations, 1, tiny_models["llama"])
    assert label.limit == pytest.approx(2.4)


def test_labels_are_the_same_every_time_and_hold_on_other_text(activations, tiny_models):
    values = (TOKENS == 5).float() * torch.arange(10)
    one, two = (label_from_tokens(hidden_for(values), activations, 1, tiny_models["llama"]) for _ in range(2))
    assert one == two
    other = activations.where(PASSAGES == 1)
    assert torch.equal(one.predict(other), TOKENS[PASSAGES == 1] == 5)


def test_a_score_is_the_mean_of_two_shares_and_a_constant_gets_a_half():
    truth = torch.tensor([True, True, False, False, False, False])
    assert detection_score(torch.tensor([True, False, False, False, False, True]), truth) == (0.5 + 0.75) / 2
    assert detection_score(truth, truth) == 1
    assert detection_score(~truth, truth) == 0
    for constant in (True, False):
        assert detection_score(torch.full((6,), constant), truth) == 0.5
    with pytest.raises(ValueError, match="it is off at all 6: choose others"):
        detection_score(truth, torch.zeros(6, dtype=torch.bool))
    with pytest.raises(ValueError, match="it is on at all 6"):
        detection_score(truth, torch.ones(6, dtype=torch.bool))


def test_what_a_feature_promotes_is_its_direction_through_the_norms_gain_and_the_unembedding(tiny):
    sae = SAE(32, 40, TopK(3))
    found = promoted(sae, tiny, 7, 5)
    assert torch.equal(found.up_logits, found.up_logits.sort(descending=True).values)
    assert torch.equal(found.down_logits, found.down_logits.sort().values)
    gain = tiny.final_norm(torch.ones(1, 32)) - tiny.final_norm(torch.zeros(1, 32))
    if isinstance(tiny.final_norm, torch.nn.LayerNorm):
        gain = tiny.final_norm.weight
        direction = sae.W_dec[7].detach() - sae.W_dec[7].detach().mean()
    else:
        direction = sae.W_dec[7].detach()
    logits = (direction * gain.flatten()) @ tiny.W_U
    assert set(found.up.tolist()) == set((logits - logits.mean()).topk(5).indices.tolist())
    assert set(found.down.tolist()) == set((-logits).topk(5).indices.tolist())


def test_changing_a_feature_moves_the_stream_along_its_direction_and_keeps_the_error(tiny_models):
    lm, sae = tiny_models["llama"], SAE(32, 40, TopK(4))
    text = "the store gave a book to Mary"
    _, before = run(lm, text, "resid_post", 1)
    hidden = sae.encode(before["resid_post", 1])
    feature = int((hidden[0, 1:] > 0).sum(0).argmax())

    def off(values):
        new = values.clone()
        new[..., feature] = 0
        return new

    with edit(lm, *change_features(sae, off, site="resid_post", layer=1)):
        _, after = run(lm, text, "resid_post", 1)
    expected = before["resid_post", 1] - hidden[..., feature, None] * sae.W_dec[feature]
    torch.testing.assert_close(after["resid_post", 1][:, 1:], expected[:, 1:], atol=1e-4, rtol=1e-4)
    assert torch.equal(after["resid_post", 1][:, 0], before["resid_post", 1][:, 0])


def test_a_change_that_changes_nothing_leaves_the_model_as_it_is(tiny_models):
    lm, sae = tiny_models["llama"], SAE(32, 40, TopK(4))
    sae.site, sae.layer = "resid_post", 1
    ids = lm.tokens("the king of Spain")
    with edit(lm, *change_features(sae, lambda hidden: hidden)):
        torch.testing.assert_close(lm.hf(ids).logits, lm.hf(ids).logits)
        changed = lm.hf(ids).logits
    torch.testing.assert_close(changed, lm.hf(ids).logits)


def test_a_change_needs_a_place():
    with pytest.raises(ValueError, match=r"wanted an SAE of one site, and its layer; came .* name both"):
        change_features(SAE(4, 8, TopK(2)), lambda hidden: hidden)
    with pytest.raises(ValueError, match="use splice for a transcoder"):
        change_features(SAE(4, 8, TopK(2), d_out=4), lambda hidden: hidden, site="mlp_in", layer=1)
