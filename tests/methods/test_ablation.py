"""Knocked-out parts hold what they should, and nothing else of the site changes."""

import pytest
import torch

from mechkit.methods.ablation import ablate_sweep, mean, resample, zero
from mechkit.network.cache import run
from mechkit.network.hooks import edit
from mechkit.network.replay import Replay
from mechkit.network.tiny import tiny_model

PROMPT = "The capital of France is"
OTHERS = ["The country of Italy is", "The capital of Spain is", "The country of Japan is"]
LONGER = ["The capital city of Spain is", "The country of Italy is in"]


@pytest.fixture
def lm(tiny_models):
    return tiny_models["llama"]


@pytest.fixture
def clean(lm):
    return run(lm, PROMPT)[1]


@pytest.fixture
def reference(lm):
    return run(lm, OTHERS)[1]


def after(lm, *edits):
    with edit(lm, *edits):
        return run(lm, PROMPT)[1]


@pytest.mark.parametrize("site", ["resid_pre", "q", "v", "pattern", "z", "attn_out", "mlp_post", "resid_post"])
def test_zeros_are_zeros(site, tiny):
    cache = after(tiny, zero(site, 1))
    assert (cache[site, 1] == 0).all()


def test_zero_takes_a_head_and_a_position(lm, clean):
    cache = after(lm, zero("z", 1, head=2, position=-1))
    assert (cache["z", 1][:, -1, 2] == 0).all()
    assert torch.equal(cache["z", 1][:, :-1], clean["z", 1][:, :-1])
    assert torch.equal(cache["z", 1][:, -1, [0, 1, 3]], clean["z", 1][:, -1, [0, 1, 3]])


def test_zeroing_all_that_is_written_leaves_the_embedding(lm, clean):
    cache = after(lm, *[zero(site, layer) for site in ("attn_out", "mlp_out") for layer in range(lm.n_layers)])
    assert torch.equal(cache["resid_post", lm.n_layers - 1], clean["embed"])


def test_the_mean_is_that_of_each_position(lm, reference):
    cache = after(lm, mean("z", 1, reference))
    assert torch.allclose(cache["z", 1], reference["z", 1].mean(0, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("choice", [{"head": 1}, {"head": [0, 3]}, {"position": -1}, {"head": 2, "position": [1, 2]}])
def test_the_mean_takes_heads_and_positions(choice, lm, clean, reference):
    cache = after(lm, mean("z", 1, reference, **choice))
    average = reference["z", 1].mean(0, keepdim=True)
    heads = [choice["head"]] if isinstance(choice.get("head"), int) else choice.get("head", range(lm.n_heads))
    length = average.shape[1]
    where = choice.get("position", range(length))
    positions = [where % length] if isinstance(where, int) else where
    expected = clean["z", 1].clone()
    for head in heads:
        for position in positions:
            expected[:, position, head] = average[:, position, head]
    assert torch.allclose(cache["z", 1], expected, atol=1e-6)


@pytest.mark.parametrize("position", [None, -1, 3, [1, 2], slice(2, 4)])
def test_one_mean_for_all_positions_leaves_out_the_first_and_fits_any_length(position, lm):
    reference = run(lm, LONGER)[1]
    cache = after(lm, mean("mlp_out", 1, reference, position=position, per_position=False))
    average = reference["mlp_out", 1][:, 1:].mean((0, 1))
    rows = cache["mlp_out", 1][0, slice(None) if position is None else position].reshape(-1, lm.d_model)
    assert torch.allclose(rows, average.expand_as(rows), atol=1e-6)


def test_the_mean_of_the_prompt_itself_changes_nothing(lm, clean):
    cache = after(lm, *[mean("z", layer, clean) for layer in range(lm.n_layers)])
    assert torch.equal(cache["logits"], clean["logits"])


def test_the_mean_of_a_site_without_layer(lm, reference):
    cache = after(lm, mean("embed", None, reference))
    assert torch.allclose(cache["embed"], reference["embed"].mean(0, keepdim=True), atol=1e-6)


def test_resampled_values_are_those_of_a_reference_prompt(lm, reference):
    seen = set()
    for seed in range(12):
        value = after(lm, resample("z", 1, reference, head=1, seed=seed))["z", 1][0, :, 1]
        [row] = [row for row in range(len(OTHERS)) if torch.equal(value, reference["z", 1][row, :, 1])]
        seen.add(row)
    assert seen == set(range(len(OTHERS)))


def test_a_resampling_edit_draws_the_same_prompts_every_time(lm, reference):
    with edit(lm, resample("resid_post", 1, reference)):
        once, again = (run(lm, [PROMPT] * 4)[0] for _ in range(2))
    assert torch.equal(once, again)


def test_prompts_in_a_batch_are_resampled_apart(lm, reference):
    with edit(lm, resample("resid_post", 1, reference)):
        cache = run(lm, [PROMPT] * 8)[1]
    assert len({tuple(row.tolist()) for row in cache["resid_post", 1][:, -1]}) > 1


@pytest.mark.parametrize("make", [mean, resample])
def test_reference_prompts_of_another_length_are_refused(make, lm):
    reference = run(lm, LONGER)[1]
    with pytest.raises(
        ValueError, match=r"wanted reference values of shape .* came .*: use reference prompts of equally"
    ):
        after(lm, make("z", 1, reference))


@pytest.mark.parametrize("make", [mean, resample])
def test_what_the_reference_lacks_is_refused(make, lm, reference):
    with pytest.raises(ValueError, match="wanted a head of z at layer 1, which has 4"):
        make("z", 1, reference, head=7)
    with pytest.raises(KeyError, match="it holds \\('z', 0 to 2\\)"):
        make("mlp_out", 1, run(lm, OTHERS, "z")[1])


def test_a_pattern_has_no_mean_over_positions(lm, reference):
    with pytest.raises(ValueError, match="pattern has one a pair: use per_position=True"):
        mean("pattern", 1, reference, per_position=False)


# sweeps -------------------------------------------------------------------------------------------------------


def last_gap(logits):
    return logits[:, -1, 3] - logits[:, -1, 4]


def some_tokens(batch, seed=0, length=6):
    return torch.randint(5, 20, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_a_swept_ablation_is_the_edit_of_the_same_name(how, tiny):
    tokens, others = some_tokens(3), some_tokens(5, seed=1)
    base, reference = Replay(tiny, tokens), Replay(tiny, others)
    _, cache = run(tiny, others, sites="z")
    edits = {
        "zero": (zero("z", 1, head=2), {}),
        "mean": (mean("z", 1, cache, head=2), {"reference": reference}),
        "resample": (resample("z", 1, cache, head=2, seed=7), {"reference": reference, "seed": 7}),
    }
    one, options = edits[how]
    with edit(tiny, one):
        expected = last_gap(run(tiny, tokens, sites="logits")[0])
    swept = ablate_sweep(base, last_gap, **options)
    torch.testing.assert_close(swept.values[1, 2], expected, rtol=1e-4, atol=2e-5)
    with pytest.raises(ValueError, match="an ablation has none: use its `change`"):
        _ = swept.recovery


def test_reference_prompts_of_another_length_cannot_be_swept():
    lm = tiny_model()
    with pytest.raises(ValueError, match="wanted reference prompts of 6 tokens, as the run has; came prompts of 5"):
        ablate_sweep(Replay(lm, some_tokens(2)), last_gap, reference=Replay(lm, some_tokens(2, length=5)))


def test_a_sweep_of_some_layers_leaves_the_others_as_they_are():
    lm = tiny_model()
    base = Replay(lm, some_tokens(2))
    everywhere, some = ablate_sweep(base, last_gap), ablate_sweep(base, last_gap, layers=[1])
    assert torch.equal(some.change[1], everywhere.change[1])
    assert (some.change[[0, 2]] == 0).all()
