"""Edits reach what they name, reach on from there, compose, and are gone afterwards."""

import pytest
import torch

from mechkit.network.cache import run
from mechkit.network.hooks import Edit, chosen, edit, read
from mechkit.network.sites import ATTENTION_SITES, AXES, FAMILIES, SITES, WITHOUT_LAYER
from mechkit.network.tiny import tiny_model

PROMPTS = ["The capital of France is", "The country of Italy is"]
CLEAN, CORRUPTED = "The capital of France is", "The country of Italy is"


@pytest.fixture
def lm(tiny_models):
    return tiny_models["llama"]


def hooks_left(lm):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.hf.modules())


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """After every test here: no hook, and Hugging Face's own attention, in every family."""
    models = request.getfixturevalue("tiny_models")
    yield
    for lm in models.values():
        assert hooks_left(lm) == 0
        assert lm.hf.config._attn_implementation == "eager"


def place(site, layer=1):
    return None if site in WITHOUT_LAYER else layer


def key(site, layer=1):
    return site if site in WITHOUT_LAYER else (site, layer)


@pytest.mark.parametrize("site", SITES)
def test_patching_clean_into_clean_changes_nothing(site, tiny):
    if site not in tiny.sites:
        return
    clean, cache = run(tiny, PROMPTS)
    with edit(tiny, Edit(site, place(site), lambda _: cache[key(site)])):
        patched, _ = run(tiny, PROMPTS, ())
    assert torch.equal(patched, clean)


@pytest.mark.parametrize("site", SITES)
def test_an_edited_value_is_what_the_model_goes_on_from(site, tiny):
    """Patching a site of a corrupted run with its clean value gives, from there on, what depends on it alone."""
    if site not in tiny.sites:
        return
    corrupted, _ = run(tiny, CORRUPTED)
    _, clean = run(tiny, CLEAN)
    with edit(tiny, Edit(site, place(site), lambda _: clean[key(site)])):
        patched, cache = run(tiny, CORRUPTED)
    assert torch.equal(cache[key(site)], clean[key(site)])
    assert not torch.allclose(patched, corrupted, atol=1e-4)


@pytest.mark.parametrize("site", ["embed", "resid_pre", "resid_mid", "resid_post", "logits"])
def test_what_carries_everything_restores_the_clean_logits(site, tiny):
    if site not in tiny.sites:
        return
    logits, clean = run(tiny, CLEAN)
    with edit(tiny, Edit(site, place(site), lambda _: clean[key(site)])):
        patched, _ = run(tiny, CORRUPTED)
    assert torch.equal(patched, logits)


def test_an_edited_resid_mid_is_carried_past_the_mlp(tiny):
    if "resid_mid" not in tiny.sites:
        return
    with edit(tiny, Edit("resid_mid", 1, lambda value: 2 * value)):
        _, cache = run(tiny, PROMPTS)
    assert torch.equal(cache["resid_mid", 1] + cache["mlp_out", 1], cache["resid_post", 1])
    assert torch.allclose(cache["resid_mid", 1], 2 * (cache["resid_pre", 1] + cache["attn_out", 1]), atol=1e-5)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_edits_around_resid_mid_compose_in_any_nesting(order, tiny):
    if "resid_mid" not in tiny.sites:
        return
    edits = [
        Edit("resid_mid", 1, lambda value: value + 1),
        Edit("mlp_out", 1, lambda value: value + 10),
        Edit("resid_post", 1, lambda value: value + 100),
    ]
    edits = [edits[number] for number in order]
    with edit(tiny, edits[0]), edit(tiny, Edit("resid_mid", 1, lambda value: value + 1)), edit(tiny, *edits[1:]):
        _, cache = run(tiny, PROMPTS)
        _, again = run(tiny, PROMPTS)
    before = cache["resid_pre", 1] + cache["attn_out", 1]
    assert torch.allclose(cache["resid_mid", 1], before + 2, atol=1e-5)
    assert torch.allclose(cache["resid_post", 1], cache["resid_mid", 1] + cache["mlp_out", 1] + 100, atol=1e-4)
    assert torch.equal(cache["resid_post", 1], again["resid_post", 1])


def test_outer_edits_come_first(lm):
    with edit(lm, Edit("z", 1, lambda value: value + 1)), edit(lm, Edit("z", 1, lambda value: 2 * value)):
        _, cache = run(lm, PROMPTS)
    _, clean = run(lm, PROMPTS)
    assert torch.allclose(cache["z", 1], 2 * (clean["z", 1] + 1), atol=1e-5)


def test_several_edits_in_one_call_come_in_order(lm):
    for site in ("z", "mlp_pre"):
        _, clean = run(lm, PROMPTS)
        with edit(lm, Edit(site, 1, lambda value: value + 1), Edit(site, 1, lambda value: 2 * value)):
            _, cache = run(lm, PROMPTS)
        assert torch.allclose(cache[site, 1], 2 * (clean[site, 1] + 1), atol=1e-5)


def test_an_outer_reader_sees_what_stood_before_an_inner_edit(lm):
    _, clean = run(lm, PROMPTS)
    for site in ("z", "resid_mid", "mlp_out"):
        with read(lm, site) as seen, edit(lm, Edit(site, 1, torch.zeros_like)):
            run(lm, PROMPTS, ())
        assert torch.equal(seen[site, 1], clean[site, 1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", [site for site in SITES if "head" in AXES[site]])
def test_one_head_is_edited_and_no_other(site, family, tiny_models):
    lm = tiny_models[family]
    axis = next(number for number, name in enumerate(AXES[site].split()) if name in ("head", "kv_head"))
    _, clean = run(lm, PROMPTS)
    with edit(lm, Edit(site, 1, lambda value: value + 1, head=1)):
        logits, cache = run(lm, PROMPTS)
    before, after = clean[site, 1].movedim(axis, 0), cache[site, 1].movedim(axis, 0)
    others = [head for head in range(len(before)) if head != 1]
    assert torch.equal(after[1], before[1] + 1)
    assert torch.equal(after[others], before[others])
    if site != "attn_scores":  # adding one to every score moves no attention
        assert not torch.equal(logits, clean["logits"])


def test_editing_a_shared_key_changes_all_heads_that_use_it(lm):
    group = lm.n_heads // lm.n_kv_heads
    _, clean = run(lm, PROMPTS, "pattern")
    with edit(lm, Edit("k", 0, torch.zeros_like, head=1)):
        _, cache = run(lm, PROMPTS, "pattern")
    changed = (cache["pattern", 0] != clean["pattern", 0]).any(dim=(0, 2, 3))
    assert changed.tolist() == [head // group == 1 for head in range(lm.n_heads)]


def test_an_int_removes_its_axis_and_a_list_or_slice_keeps_it(lm):
    shapes = []

    def look(value):
        shapes.append(tuple(value.shape))
        return value

    length = lm.tokens(PROMPTS).shape[1]
    choices = [
        ({}, (2, length, 4, 8)),
        ({"head": 1}, (2, length, 8)),
        ({"head": 1, "position": -1}, (2, 8)),
        ({"head": [1], "position": slice(1, 3)}, (2, 2, 1, 8)),
        ({"head": [0, 2, 3], "position": [1, 4]}, (2, 2, 3, 8)),
        ({"head": torch.tensor([0, 2]), "position": 0}, (2, 2, 8)),
    ]
    for choice, shape in choices:
        with edit(lm, Edit("z", 1, look, **choice)):
            run(lm, PROMPTS, ())
        assert shapes.pop() == shape


def test_chosen_heads_at_chosen_positions_are_a_grid(lm):
    with edit(lm, Edit("z", 1, torch.zeros_like, head=[0, 2], position=[1, 4, 5])):
        _, cache = run(lm, PROMPTS, "z")
    zero = (cache["z", 1] == 0).all(-1).all(0)
    expected = torch.zeros_like(zero)
    expected[torch.tensor([1, 4, 5])[:, None], torch.tensor([0, 2])] = True
    assert torch.equal(zero, expected)


def test_the_position_of_a_pattern_is_the_querys(lm):
    with edit(lm, Edit("pattern", 1, torch.zeros_like, head=[0, 1], position=[2, -1])):
        _, cache = run(lm, PROMPTS, "pattern")
    sums = cache["pattern", 1].sum(-1)
    assert (sums[:, :2, [2, -1]] == 0).all()
    assert torch.allclose(sums[:, 2:], torch.ones(()))
    assert torch.allclose(sums[:, :, [0, 1, 3]], torch.ones(()))


def test_chosen_is_what_change_receives(lm):
    _, cache = run(lm, PROMPTS)
    some = Edit("z", 1, lambda value: value, head=2, position=[0, 1])
    assert torch.equal(chosen(some, cache["z", 1]), cache["z", 1][:, :2, 2])


def test_a_change_that_writes_into_its_argument_reaches_nothing_else(lm):
    def in_place(value):
        value.zero_()
        return value

    _, clean = run(lm, PROMPTS)
    with read(lm, "resid_post") as seen, edit(lm, Edit("resid_pre", 1, in_place)):
        run(lm, PROMPTS, ())
    assert torch.equal(seen["resid_post", 0], clean["resid_post", 0])


def test_edits_reach_only_runs_inside_the_context(lm):
    clean, _ = run(lm, PROMPTS, ())
    with edit(lm, Edit("mlp_out", 0, torch.zeros_like)):
        edited, _ = run(lm, PROMPTS, ())
    after, _ = run(lm, PROMPTS, ())
    assert torch.equal(clean, after)
    assert not torch.allclose(clean, edited)


def test_a_bare_forward_pass_is_edited_too(lm):
    with edit(lm, Edit("logits", None, torch.zeros_like)), torch.no_grad():
        assert (lm.hf(lm.tokens(PROMPTS)).logits == 0).all()


def test_gradients_flow_through_edits_and_readers(lm):
    ids = lm.tokens(PROMPTS)
    nudge = torch.zeros(lm.d_model, requires_grad=True)
    edits = [Edit("resid_mid", 0, lambda value: value + nudge), Edit("z", 1, lambda value: 2 * value, head=1)]
    with edit(lm, *edits), read(lm, ["z", "resid_post"]) as seen:
        logits = lm.hf(ids).logits
    wanted = [nudge, seen["z", 1], seen["resid_post", 0]]
    gradients = torch.autograd.grad(logits[:, -1, 5].sum(), wanted)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


class Stop(Exception):
    pass


def stop(_):
    raise Stop


@pytest.mark.parametrize("site", SITES)
def test_nothing_is_left_after_an_exception_in_a_change(site, tiny):
    if site not in tiny.sites:
        return
    with pytest.raises(Stop), edit(tiny, Edit(site, place(site), stop)):
        run(tiny, PROMPTS)
    assert hooks_left(tiny) == 0


def test_nothing_is_left_after_an_exception_in_the_body(tiny):
    edits = [Edit(site, place(site), torch.zeros_like) for site in tiny.sites]

    def stopped():
        with edit(tiny, *edits), read(tiny):
            assert hooks_left(tiny) > 0
            raise Stop

    with pytest.raises(Stop):
        stopped()
    assert hooks_left(tiny) == 0


def test_nothing_is_left_after_an_exception_in_the_model(tiny, monkeypatch):
    """Between resid_mid and the MLP's output, where a hook waits that was set during the pass."""
    site = "resid_mid" if "resid_mid" in tiny.sites else "resid_pre"
    monkeypatch.setattr(tiny.module(tiny.family.places["mlp_in"].path, 1), "forward", stop)
    with pytest.raises(Stop), edit(tiny, Edit(site, 1, torch.zeros_like), Edit("z", 0, torch.zeros_like)):
        run(tiny, PROMPTS)
    assert hooks_left(tiny) == 0


def test_nothing_is_left_when_the_model_never_runs(tiny):
    with edit(tiny, *[Edit(site, place(site), torch.zeros_like) for site in tiny.sites]):
        pass
    assert hooks_left(tiny) == 0


def refused(lm, some, words):
    with pytest.raises(ValueError, match=words), edit(lm, some):
        run(lm, PROMPTS)
    assert hooks_left(lm) == 0


def test_what_does_not_exist_is_refused_with_what_does(lm):
    same = torch.clone
    refused(lm, Edit("resid", 1, same), "wanted a site; came 'resid': use one of embed, resid_pre")
    refused(lm, Edit("z", 3, same), "wanted a layer of tiny llama, 0 to 2; came 3")
    refused(lm, Edit("z", -1, same), "0 to 2; came -1")
    refused(lm, Edit("z", None, same), "z takes a layer, 0 to 2; came layer=None")
    refused(lm, Edit("embed", 0, same), "embed takes no layer: layer=None; came layer=0")
    refused(
        lm, Edit("z", 1, same, head=4), "wanted a head of z at layer 1, which has 4: 0 to 3, or -4 to -1 .*; came 4"
    )
    refused(lm, Edit("v", 1, same, head=[0, 2]), "which has 2: 0 to 1, .*; came 2")
    refused(lm, Edit("mlp_out", 1, same, head=0), "mlp_out has no heads; sites that have them: q, k, v, attn_scores")
    refused(lm, Edit("z", 1, same, position=20), "wanted a position of z at layer 1, which has 8: 0 to 7, .*; came 20")
    refused(lm, Edit("embed", None, same, position=20), "wanted a position of embed, which has 8")
    refused(lm, Edit("embed", None, same, position=slice(9, 12)), "wanted a position of embed, .* came slice")
    refused(lm, Edit("z", 1, same, head=[True, False]), "wanted a head of z .* came True")


def test_a_tensor_in_place_of_a_change_is_refused(lm):
    given = Edit("z", 1, torch.clone)
    object.__setattr__(given, "change", torch.zeros(1))  # run-time type checks would stop it earlier, in tests only
    refused(lm, given, "wanted `change` of z at layer 1 to be a function .* came a Tensor: .* write lambda old: tensor")


def test_a_change_of_another_shape_is_refused(lm):
    words = r"the change of z at layer 1 to return a tensor of shape \(2, 8, 8\), as it received; came "
    refused(lm, Edit("z", 1, lambda value: value[0], head=0), words + r"\(8, 8\)")
    refused(lm, Edit("z", 1, lambda value: value.sum(), head=0), words + r"\(\)")
    refused(lm, Edit("z", 1, lambda value: value.sum(), head=0, position=[0]), r"came \(\): .* with the same axes$")


def test_one_positions_value_for_all_positions_is_refused_and_position_named(lm):
    one = Edit("resid_post", 1, lambda value: value[:, 0])
    refused(lm, one, r"with the same axes, or give the edit the `position` that it belongs to$")


@pytest.mark.parametrize("result", [None, 0.0, [1.0]])
def test_a_change_that_returns_no_tensor_is_refused(result, lm):
    def change(value):
        return result

    refused(lm, Edit("mlp_out", 1, change), f"came a {type(result).__name__}: return the new value")


def test_a_change_in_double_precision_is_taken_as_single(lm):
    with edit(lm, Edit("resid_post", 1, lambda value: value.double() * 2)):
        logits, _ = run(lm, PROMPTS)
    assert logits.dtype == torch.float32


def test_a_parallel_model_has_no_resid_mid_to_edit(tiny_models):
    refused(tiny_models["gpt_neox"], Edit("resid_mid", 1, torch.clone), "so it has no resid_mid; use resid_pre")


def test_a_sequential_pythia_can_edit_resid_mid():
    lm = tiny_model("gpt_neox", use_parallel_residual=False)
    with edit(lm, Edit("resid_mid", 1, lambda value: 2 * value)):
        _, cache = run(lm, PROMPTS)
    assert torch.equal(cache["resid_mid", 1] + cache["mlp_out", 1], cache["resid_post", 1])


def test_the_attention_sites_are_those_with_heads():
    assert set(ATTENTION_SITES) == {site for site in SITES if "head" in AXES[site]}
