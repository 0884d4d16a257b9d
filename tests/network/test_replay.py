"""The rest of a run, run again: what comes is what the whole run gives."""

import pytest
import torch

from mechkit.network.cache import run
from mechkit.network.hooks import Edit, block_calls, edit
from mechkit.network.replay import Replay
from mechkit.network.tiny import tiny_model

ROWS = torch.tensor([0, 2, 1, 0])


def prompts(lm):
    return torch.randint(5, 20, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("start", [0, 3, 6])
def test_nothing_changed_gives_the_kept_run(start, tiny):
    tokens = prompts(tiny)
    kept, (_, cache) = Replay(tiny, tokens), run(tiny, tokens, sites="resid_post")
    for layer in range(tiny.n_layers):
        final = kept.rest(layer, kept.resid_pre(layer)[ROWS, start:], ROWS)
        torch.testing.assert_close(final, cache["resid_post", tiny.n_layers - 1][ROWS, start:])


@pytest.mark.parametrize("start", [0, 3, 6])
def test_a_changed_stream_gives_what_the_edited_run_gives(start, tiny):
    tokens = prompts(tiny)
    kept, layer = Replay(tiny, tokens), tiny.n_layers - 1
    changed = kept.resid_pre(layer)[ROWS].clone()
    changed[:, start:] += torch.randn(changed[:, start:].shape, generator=torch.Generator().manual_seed(1))
    with edit(tiny, Edit("resid_pre", layer, lambda _: changed)):
        _, cache = run(tiny, tokens[ROWS], sites="resid_post")
    final = kept.rest(layer, changed[:, start:], ROWS)
    torch.testing.assert_close(final, cache["resid_post", layer][:, start:])


@pytest.mark.parametrize("start", [0, 3])
def test_rows_that_join_later_give_what_each_gives_alone(start, tiny):
    kept = Replay(tiny, prompts(tiny))
    layers = torch.tensor([0, 0, 1, tiny.n_layers - 1])
    noise = torch.randn(4, 7 - start, tiny.d_model, generator=torch.Generator().manual_seed(1))
    resid = noise + torch.stack(
        [kept.resid_pre(int(layer))[row, start:] for layer, row in zip(layers, ROWS, strict=True)]
    )
    together = kept.rest(layers, resid, ROWS)
    for row, layer in enumerate(layers.tolist()):
        alone = kept.rest(layer, resid[row : row + 1], ROWS[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("site", ["k", "z", "mlp_out"])
def test_edits_on_the_way_count_positions_from_where_the_rest_begins(site, tiny):
    tokens = prompts(tiny)
    kept = Replay(tiny, tokens)
    with edit(tiny, Edit(site, 1, torch.zeros_like, position=4)):
        _, cache = run(tiny, tokens[ROWS], sites="resid_post")
    final = kept.rest(1, kept.resid_pre(1)[ROWS, 3:], ROWS, Edit(site, 1, torch.zeros_like, position=1))
    torch.testing.assert_close(final, cache["resid_post", tiny.n_layers - 1][:, 3:])


def test_the_values_of_a_site_are_those_of_the_run(tiny):
    tokens = prompts(tiny)
    values, (_, cache) = Replay(tiny, tokens).values("z"), run(tiny, tokens, sites="z")
    torch.testing.assert_close(torch.stack(list(values.values())), cache.stack("z"))


def test_a_bare_run_is_untouched_afterwards(tiny):
    tokens = prompts(tiny)
    before = tiny.hf(input_ids=tokens).logits
    kept = Replay(tiny, tokens)
    with pytest.raises(ZeroDivisionError):
        kept.rest(0, kept.resid_pre(0)[ROWS, 2:], ROWS, Edit("z", 1, lambda old: old * (1 / 0)))
    assert torch.equal(tiny.hf(input_ids=tokens).logits, before)


def test_the_arguments_of_every_block_are_recorded_and_the_hooks_removed():
    lm = tiny_model()
    with block_calls(lm) as calls:
        lm.hf(input_ids=prompts(lm), use_cache=False)
    assert list(calls) == list(range(lm.n_layers))
    assert all(next(iter(call)) == "hidden_states" for call in calls.values())
    assert not any(module._forward_pre_hooks for module in lm.hf.modules())
