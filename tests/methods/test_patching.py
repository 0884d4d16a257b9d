"""Sweeps against one run at a time: every value is what that one patch gives."""

from itertools import product

import pytest
import torch

from mechkit.methods import sweeps
from mechkit.methods.patching import Pair, patch_sweep, patched_logits, path_patch
from mechkit.methods.sweeps import SITES, WITH_HEADS
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, chosen, edit
from mechkit.network.tiny import tiny_model

OVER = [("layer",), ("layer", "position"), ("layer", "head"), ("layer", "head", "position")]


def gap(logits):
    return logits[:, -1, 3] - logits[:, -1, 4]


@pytest.fixture
def tokens():
    """Clean and corrupted: one pair differs at one position, one at two, one nowhere."""
    clean = torch.randint(5, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    corrupted = clean.clone()
    corrupted[:2, 3] += 1
    corrupted[1, 5] += 1
    return clean, corrupted


@pytest.fixture
def pair(tokens):
    return Pair(tiny_model(), *tokens)


def one_by_one(lm, tokens, source, site, sweep):
    """The slow obvious way: one whole run a cell."""
    _, cache = run(lm, source, sites=site)
    values = torch.zeros(sweep.values.shape)
    for cell in product(*map(range, values.shape[:-1])):
        at = dict(zip(sweep.axes, cell, strict=True))
        place = {"head": at.get("head"), "position": at.get("position")}
        there = chosen(Edit(site, at["layer"], torch.clone, **place), cache[site, at["layer"]])
        with edit(lm, Edit(site, at["layer"], lambda _, there=there: there, **place)):
            values[cell] = gap(run(lm, tokens, sites="logits")[0])
    return values


@pytest.mark.parametrize("site", SITES)
def test_every_cell_is_what_one_patched_run_gives(site, tokens, tiny):
    if site not in tiny.sites:
        pytest.skip("a parallel model has no resid_mid")
    clean, corrupted = tokens
    for over in OVER:
        if "head" not in over or site in WITH_HEADS:
            swept = patch_sweep(Pair(tiny, clean, corrupted), gap, site=site, over=over, rows=7)
            expected = one_by_one(tiny, corrupted, clean, site, swept)
            torch.testing.assert_close(swept.values, expected, rtol=1e-4, atol=2e-5)


def test_noising_patches_the_other_way(pair, tokens):
    swept = patch_sweep(pair, gap, site="z", over=("layer", "head"), noising=True)
    torch.testing.assert_close(swept.values, one_by_one(pair.lm, *tokens, "z", swept), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_how_many_run_at_once_changes_nothing(rows, pair):
    expected = patch_sweep(pair, gap, site="z", over=("layer", "head"))
    torch.testing.assert_close(
        patch_sweep(pair, gap, site="z", over=("layer", "head"), rows=rows).values, expected.values
    )


def test_patching_a_run_into_itself_changes_nothing(pair):
    """Clean into clean: no cell differs, so none is run."""
    swept = sweeps.sweep(pair.clean, pair.clean.values("z"), gap, site="z", over=("layer", "head"))
    assert torch.equal(swept.change, torch.zeros_like(swept.change))


def test_equal_states_are_not_run(pair, monkeypatch):
    begun = []  # the layer at which each row that was run began
    rest = type(pair.corrupted).rest
    monkeypatch.setattr(
        type(pair.corrupted), "rest", lambda self, *args: begun.extend(args[0].tolist()) or rest(self, *args)
    )
    swept = patch_sweep(pair, gap)
    assert torch.equal(swept.values[:, :3], swept.base.expand(pair.lm.n_layers, 3, 3))  # before the first difference
    assert torch.equal(swept.values[..., 2], swept.base[2].expand(swept.values.shape[:2]))  # equal prompts
    # at layer 0 only the two positions, of two prompts, whose tokens differ
    assert 0 < begun.count(0) <= 4


def test_everything_at_once_is_the_source(pair):
    recovered = patch_sweep(pair, gap, over=("layer",)).recovery
    torch.testing.assert_close(recovered, torch.ones_like(recovered))


def test_noising_starts_where_denoising_ends(pair):
    there, back = (patch_sweep(pair, gap, noising=noising) for noising in (False, True))
    assert torch.equal(there.base, back.source)
    assert torch.equal(there.source, back.base)


@pytest.mark.parametrize("noising", [False, True])
def test_what_is_said_after_each_patch_is_what_the_sweep_scores(tokens, tiny, noising):
    pair = Pair(tiny, *tokens)
    swept = patch_sweep(pair, gap, noising=noising)
    for prompt in range(3):  # the last pair is equal: nothing to patch
        logits = patched_logits(pair, prompt=prompt, noising=noising)
        torch.testing.assert_close(logits[..., 3] - logits[..., 4], swept.values[..., prompt], rtol=1e-4, atol=2e-5)


def test_an_interrupted_sweep_keeps_what_was_done(pair, capsys):
    calls = []

    def impatient(logits):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return gap(logits)

    whole = patch_sweep(pair, gap)
    part = sweeps.sweep(pair.corrupted, pair.clean.values("resid_pre"), impatient, site="resid_pre", over=whole.axes)
    done = ~part.values.isnan().any(-1)
    assert 0 < (done & (whole.values != whole.base).any(-1)).sum() < (whole.values != whole.base).any(-1).sum()
    torch.testing.assert_close(part.values[done], whole.values[done])
    assert f"Interrupted: {int(done.sum())} of {done.numel()} cells are done" in capsys.readouterr().out


def test_the_gradient_mode_is_left_alone(pair):
    assert torch.is_grad_enabled()
    patch_sweep(pair, gap, over=("layer",))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("clean", "corrupted", "words"),
    [
        ("a b c", "a b", r"came \[1, \d+\] and \[1, \d+\]: a patch needs the same positions"),
        ("a b", "a b", "nothing to recover"),
    ],
)
def test_prompts_that_do_not_match_are_refused(clean, corrupted, words):
    with pytest.raises(ValueError, match=words):
        Pair(tiny_model(), clean, corrupted)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"site": "logits"}, "wanted a site to sweep over; came 'logits': use one of resid_pre"),
        ({"over": ("layer", "head")}, 'wanted axes of resid_pre: "layer", and any of position; came'),
        ({"site": "z", "over": ("head",)}, 'wanted axes of z: "layer", and any of head, position'),
        ({"over": "layer"}, "came 'layer'"),
    ],
)
def test_what_cannot_be_swept_is_refused(wanted, words, pair):
    with pytest.raises(ValueError, match=words):
        patch_sweep(pair, gap, **wanted)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (lambda logits: gap(logits).mean(), r"came \[\]: return a tensor and take no mean over prompts"),
        (lambda logits: 1.0, "came a float"),
        (lambda logits: gap(logits) * torch.nan, "wanted a finite metric; came nan"),
    ],
)
def test_a_metric_that_is_none_is_refused(metric, words, pair):
    with pytest.raises(ValueError, match=words):
        patch_sweep(pair, metric)


def test_two_runs_with_the_same_answer_leave_nothing_to_recover(pair):
    swept = patch_sweep(pair, lambda logits: torch.zeros(len(logits)))
    with pytest.raises(ValueError, match=r"both give 0: there is nothing to recover"):
        _ = swept.recovery


# path patching ------------------------------------------------------------------------------------------------


def frozen(lm, tokens, sender, new_z, sites=("z", "mlp_out")):
    """Edits that hold what stands above a sender, written out; its own z is replaced."""
    layer, head = sender
    _, cache = run(lm, tokens)
    held = [(site, i) for site in sites for i in range(layer, lm.n_layers) if (site, i) != ("z", layer)]
    swap = Edit("z", layer, lambda _: new_z[:, :, head], head=head)
    return [swap, *(Edit(site, i, lambda _, value=cache[site, i]: value) for site, i in held)]


@pytest.mark.parametrize("through_mlps", [False, True])
def test_a_path_to_the_logits_is_a_run_with_all_else_held(tokens, through_mlps, tiny):
    clean, corrupted = tokens
    _, cache = run(tiny, clean)
    sites = ("z",) if through_mlps else ("z", "mlp_out")
    with edit(tiny, *frozen(tiny, corrupted, (1, 2), cache["z", 1], sites)):
        expected = gap(run(tiny, corrupted, sites="logits")[0])
    swept = path_patch(Pair(tiny, clean, corrupted), gap, senders=[(1, 2)], through_mlps=through_mlps)
    torch.testing.assert_close(swept.values[0], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_a_path_to_a_head_changes_what_that_head_reads(tokens, site, tiny):
    clean, corrupted = tokens
    _, cache = run(tiny, clean)
    with edit(tiny, *frozen(tiny, corrupted, (0, 1), cache["z", 0])):
        _, seen = run(tiny, corrupted, sites=site)
    received = seen[site, 2][:, :, 0]
    with edit(tiny, Edit(site, 2, lambda _: received, head=0)):
        expected = gap(run(tiny, corrupted, sites="logits")[0])
    swept = path_patch(Pair(tiny, clean, corrupted), gap, senders=[(0, 1)], receivers=[(site, 2, 0)])
    torch.testing.assert_close(swept.values[0], expected, rtol=1e-4, atol=2e-5)


def test_all_heads_of_the_last_layer_have_only_the_path_to_the_logits(pair):
    """There the path is all that a head does, so path patching agrees with patching it."""
    last = pair.lm.n_layers - 1
    senders = [(last, head) for head in range(pair.lm.n_heads)]
    along = path_patch(pair, gap, senders=senders, through_mlps=True)
    torch.testing.assert_close(along.values, patch_sweep(pair, gap, site="z", over=("layer", "head")).values[last])


def test_nothing_flows_downwards(pair):
    with pytest.raises(ValueError, match=r"wanted receivers above the sender L1H0; came \('q', 1, 2\)"):
        path_patch(pair, gap, senders=[(1, 0)], receivers=[("q", 1, 2)])
