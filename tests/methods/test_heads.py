"""Scores of heads against patterns made by hand, and readings against runs in which a head does just that."""

import pytest
import torch

from mechkit.methods.heads import (
    copying_scores,
    duplicate_token_score,
    head_scores,
    induction_score,
    ov_logits,
    previous_token_score,
    repeated_tokens,
    without_sender,
)
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model

PERIOD = 4
QUERIES = 1 + 2 * PERIOD


def looking(offset):
    """A pattern in which every query looks wholly at the key so many before it, or at position 0."""
    pattern = torch.zeros(2, 1, QUERIES, QUERIES)
    for query in range(QUERIES):
        pattern[:, :, query, max(query - offset, 0)] = 1.0
    return pattern


@pytest.mark.parametrize(
    ("offset", "scores"), [(1, (1.0, 0.0, 0.0)), (PERIOD, (0.0, 1.0, 0.0)), (PERIOD - 1, (0.0, 0.0, 1.0))]
)
def test_each_score_is_one_for_its_own_head_and_zero_for_the_others(offset, scores):
    pattern = looking(offset)
    found = (previous_token_score(pattern), duplicate_token_score(pattern, PERIOD), induction_score(pattern, PERIOD))
    assert tuple(float(each) for each in found) == scores


def test_a_head_that_rests_on_the_first_position_scores_nothing():
    resting = looking(QUERIES)
    assert (
        previous_token_score(resting) == duplicate_token_score(resting, PERIOD) == induction_score(resting, PERIOD) == 0
    )


def test_scores_are_means_over_the_second_copy_written_as_a_loop(tiny):
    tokens = repeated_tokens(tiny, batch=2, period=PERIOD)
    scores = head_scores(tiny, tokens, PERIOD)
    _, cache = run(tiny, tokens, sites="pattern")
    pattern = cache["pattern", 1][:, 2]
    second = range(1 + PERIOD, 1 + 2 * PERIOD)
    induction = [pattern[row, i, i - PERIOD + 1] for row in range(2) for i in second]
    previous = [pattern[row, i, i - 1] for row in range(2) for i in range(2, QUERIES)]
    torch.testing.assert_close(scores["induction"][1, 2], torch.stack(induction).mean())
    torch.testing.assert_close(scores["previous"][1, 2], torch.stack(previous).mean())


def test_tokens_are_said_twice_after_the_prefix(tiny):
    tokens = repeated_tokens(tiny, batch=3, period=PERIOD, seed=1)
    assert tokens.shape == (3, QUERIES)
    assert torch.equal(tokens[:, 1 : 1 + PERIOD], tokens[:, 1 + PERIOD :])
    assert (tokens[:, 0] == tiny.tokens("a")[0, 0]).all()
    assert not torch.equal(tokens, repeated_tokens(tiny, batch=3, period=PERIOD, seed=2))


def test_two_periods_that_do_not_fit_are_refused():
    lm = tiny_model()
    with pytest.raises(ValueError, match=f"within the context of {lm.n_ctx} tokens; came a period of {lm.n_ctx}"):
        repeated_tokens(lm, period=lm.n_ctx)


def test_what_a_head_writes_about_a_token_is_what_it_writes_when_it_looks_at_nothing_else(tiny):
    if tiny.post_attention_norm(1) is not None:
        pytest.skip("its heads are normed together")
    tokens = torch.tensor([5, 6, 7])
    ids = torch.cat([tiny.tokens("a")[:, :-1].expand(3, -1), tokens[:, None]], dim=1)
    _, cache = run(tiny, ids, sites="resid_post", layers=0)
    alone = Edit("pattern", 2, lambda old: torch.eye(2).expand_as(old))
    with edit(tiny, Edit("resid_pre", 2, lambda _: cache["resid_post", 0]), alone):
        _, seen = run(tiny, ids, sites="z", layers=2)
    for head in range(tiny.n_heads):
        write = seen["z", 2][:, -1, head] @ tiny.W_O(2)[head]
        expected = tiny.unembed(tiny.final_norm(write))
        torch.testing.assert_close(ov_logits(tiny, 2, tokens)[:, head], expected, rtol=1e-4, atol=1e-4)


def test_copying_counts_tokens_at_the_top_and_at_the_bottom():
    lm, tokens = tiny_model(), torch.arange(5, 25)
    logits = ov_logits(lm, 1, tokens)
    up, down = copying_scores(lm, 1, tokens, among=3)
    for head in range(lm.n_heads):
        ranks = [int((row[head] > row[head, token]).sum()) for row, token in zip(logits, tokens, strict=True)]
        assert float(up[head]) == pytest.approx(sum(rank < 3 for rank in ranks) / 20)
        assert float(down[head]) == pytest.approx(sum(rank >= lm.d_vocab - 3 for rank in ranks) / 20)


@pytest.mark.parametrize("through", ["q", "k", "v"])
def test_a_receiver_without_its_sender_reads_a_stream_without_that_write(through, tiny_models):
    lm = tiny_models["llama"]
    tokens = repeated_tokens(lm, batch=2, period=PERIOD)
    _, cache = run(lm, tokens)
    write = torch.einsum("bpd,dm->bpm", cache["z", 0][:, :, 1], lm.W_O(0)[1])
    stream = cache["resid_pre", 2] - (write - write[:, 1:].mean((0, 1)))
    with edit(lm, Edit("resid_pre", 2, lambda _: stream)):
        _, expected = run(lm, tokens, sites=through)
    with edit(lm, without_sender(lm, tokens, sender=(0, 1), receiver=(2, 3), through=through)):
        _, seen = run(lm, tokens)
    reader = 3 if through == "q" else 3 // (lm.n_heads // lm.n_kv_heads)
    torch.testing.assert_close(seen[through, 2][:, :, reader], expected[through, 2][:, :, reader])
    torch.testing.assert_close(seen["resid_pre", 2], cache["resid_pre", 2])


def test_nobody_listens_to_what_stands_above():
    lm = tiny_model()
    with pytest.raises(ValueError, match="wanted a receiver above the sender; came L1H0 to L1H2"):
        without_sender(lm, lm.tokens("a b"), sender=(1, 0), receiver=(1, 2), through="k")


def test_heads_that_are_normed_together_have_no_write_of_their_own(tiny_models):
    lm = tiny_models["gemma2"]
    with pytest.raises(ValueError, match="one head's write is no part of a sum"):
        without_sender(lm, lm.tokens("a b"), sender=(0, 0), receiver=(1, 2), through="k")


@pytest.mark.slow
def test_the_default_model_has_textbook_induction_heads(default_model):
    """Measured independently before the course was built: L18H6 .87, L17H3-5 about .66, L16H0 .90."""
    scores = head_scores(default_model, repeated_tokens(default_model, batch=4), 50)
    best = scores["induction"].flatten().topk(4).indices.tolist()
    assert {divmod(each, default_model.n_heads) for each in best} == {(18, 6), (17, 3), (17, 4), (17, 5)}
    assert divmod(int(scores["previous"].argmax()), default_model.n_heads) == (16, 0)
