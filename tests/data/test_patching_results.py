"""The shipped sweeps hold what chapter 07 teaches, and a slice made again agrees."""

import inspect
from functools import partial

import pytest
import torch

from mechkit.data import patching_results
from mechkit.data.ioi import IOI_TEMPLATES, ioi_prompts
from mechkit.data.patching_results import RECIPES, RESULTS_FILE, Recipe, load_patch_sweep, main, measure_sweep
from mechkit.methods.metrics import logit_difference
from mechkit.methods.patching import Pair, patched_logits
from mechkit.network.tiny import tiny_model

HEADS = ("layer", "head")


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_sweep_is_there(recipe):
    sweep = load_patch_sweep(
        recipe.site, recipe.over, corruption=recipe.corruption, noising=recipe.noising, template=recipe.template
    )
    sizes = {"layer": 30, "head": 9, "position": len(sweep.labels)}
    assert sweep.recovery.shape == tuple(sizes[axis] for axis in recipe.over)
    assert sweep.recovery.isfinite().all()
    assert sweep.labels[sweep.S2].startswith(" ")
    assert abs(sweep.source - sweep.base) > 3


def test_its_help_shows_no_path_of_the_machine_that_made_it():
    assert "/" not in str(inspect.signature(load_patch_sweep))


def test_the_file_is_small():
    assert RESULTS_FILE.stat().st_size < 200_000


def test_what_the_chapter_teaches_is_in_the_shipped_numbers():
    stream = load_patch_sweep().recovery
    S2 = load_patch_sweep().S2
    assert stream[:19, S2].min() > 0.98
    assert stream[25:, -1].min() > 0.85
    assert load_patch_sweep("mlp_out").recovery[0, S2] > 0.95  # the trap
    fresh = {way: load_patch_sweep("z", HEADS, corruption="fresh", noising=way).recovery for way in (False, True)}
    assert fresh[True][20, 0] > 0.15 > 0.05 > fresh[False][20, 0]


def test_the_swap_is_its_own_mirror():
    """The corrupted set is the clean set with right and wrong exchanged, so both directions are one experiment."""
    there, back = (load_patch_sweep("z", HEADS, noising=way).recovery for way in (False, True))
    torch.testing.assert_close(there, back, atol=0.0021, rtol=0)


def test_what_is_not_shipped_is_answered_with_what_is():
    with pytest.raises(ValueError, match="wanted one of the shipped sweeps; came q over layer, head, swapped") as error:
        load_patch_sweep("q", HEADS)
    assert "z over layer, head, fresh, noising, template 0" in str(error.value)
    with pytest.raises(ValueError, match="wanted a site to sweep over"):
        load_patch_sweep("thoughts")


def test_the_command_writes_what_is_read(tmp_path, monkeypatch):
    # names that are single tokens of the tiny model
    names = "Mary John Tom Alice Henry Lucy Daniel".split()
    monkeypatch.setattr(patching_results, "load_model", tiny_model)
    monkeypatch.setattr(patching_results, "ioi_prompts", partial(ioi_prompts, names=names))
    main(["--first", "4", "--out", str(tmp_path / "results.json")])
    sweep = load_patch_sweep("z", HEADS, path=tmp_path / "results.json")
    again = measure_sweep(tiny_model(), Recipe("z", HEADS))
    torch.testing.assert_close(sweep.recovery, again.recovery, atol=5.1e-4, rtol=0)
    assert (sweep.labels, sweep.S2) == (again.labels, again.S2)


@pytest.mark.slow
def test_a_slice_made_again_agrees_with_the_shipped_file(default_model):
    prompts = ioi_prompts(templates=IOI_TEMPLATES[:1])
    right, wrong = prompts.answers(default_model)
    pair = Pair(default_model, prompts.texts, prompts.third)
    layers, S2 = (0, 17, 20, 23), load_patch_sweep().S2
    metric = partial(logit_difference, right=right, wrong=wrong)
    base, source = (
        metric(default_model.unembed(default_model.final_norm(replay.final))) for replay in (pair.corrupted, pair.clean)
    )
    rows = torch.arange(len(right))
    for layer in layers:
        stream = pair.corrupted.resid_pre(layer)[:, S2:].clone()
        stream[:, 0] = pair.clean.resid_pre(layer)[:, S2]
        last = pair.corrupted.rest(layer, stream, rows)
        now = metric(default_model.unembed(default_model.final_norm(last[:, -1:])))
        found = (now.mean() - base.mean()) / (source.mean() - base.mean())
        shipped = load_patch_sweep(corruption="third").recovery[layer, S2]
        torch.testing.assert_close(found, shipped, atol=0.005, rtol=0)
    assert patched_logits(pair).shape == (default_model.n_layers, pair.clean_tokens.shape[1], default_model.d_vocab)
