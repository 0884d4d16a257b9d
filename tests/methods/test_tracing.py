"""Restoring is checked against plain runs with the same noise, on every family, and by what must hold at its ends."""

import pytest
import torch

from mechkit.methods import tracing
from mechkit.methods.tracing import NoisyRuns, Trace, restore, subject_positions, trace
from mechkit.network.cache import run
from mechkit.network.hooks import Edit, edit
from mechkit.network.tiny import tiny_model

PROMPT, SUBJECT = "the king of France is in the city of", "king of France"
SITES = ("resid_post", "mlp_out", "attn_out")


def token(lm):
    return int(run(lm, PROMPT, sites=())[0][0, -1].argmax())


def slow_restore(lm, runs, answer, places, draws, noise=3.0, seed=0):
    """Whole runs, one edit a place, no replay."""
    generator = torch.Generator().manual_seed(seed)
    blur = noise * lm.W_E.std() * torch.randn(draws, len(runs.subject), lm.d_model, generator=generator)
    _, clean = run(lm, PROMPT)
    edits = [Edit("embed", None, lambda old: old + blur, position=runs.subject)]
    for site, layer, position in places:
        value = clean[site, layer][:, position]
        edits.append(Edit(site, layer, lambda old, value=value: value.expand_as(old), position=position))
    with edit(lm, *edits):
        logits, _ = run(lm, lm.tokens(PROMPT).repeat(draws, 1), sites=())
    return logits[:, -1].softmax(-1)[:, answer]


def test_the_subjects_tokens_are_found_at_its_first_mention():
    lm = tiny_model()
    labels = lm.labels(lm.tokens("the king and the king of France")[0])
    assert [labels[i] for i in subject_positions(lm, "the king and the king of France", "king")] == [" king"]
    assert subject_positions(lm, "the king and the king of France", "king")[0] == labels.index(" king")
    whole = subject_positions(lm, PROMPT, SUBJECT)
    assert "".join(lm.labels(lm.tokens(PROMPT)[0])[whole[0] : whole[-1] + 1]) == f" {SUBJECT}"


@pytest.mark.parametrize("subject", ["Peter", "", " "])
def test_a_subject_that_is_not_in_the_prompt_is_said(subject):
    with pytest.raises(ValueError, match=r"wanted a subject that stands in the prompt; came .* copy it from there"):
        NoisyRuns(tiny_model(), PROMPT, subject)


def test_noise_that_makes_no_sense_is_said():
    with pytest.raises(ValueError, match="wanted noise of 0 or more standard deviations; came nan"):
        NoisyRuns(tiny_model(), PROMPT, SUBJECT, noise=float("nan"))
    with pytest.raises(ValueError, match="wanted at least one draw of noise; came 0"):
        NoisyRuns(tiny_model(), PROMPT, SUBJECT, draws=0)


def test_restoring_is_what_whole_runs_with_the_same_edits_give(tiny):
    runs, answer = NoisyRuns(tiny, PROMPT, SUBJECT, draws=2), token(tiny)
    last = runs.subject[-1]
    for places in (
        [("resid_post", 1, last)],
        [("mlp_out", 0, each) for each in runs.subject],
        [("attn_out", 2, -1 + runs.tokens.shape[1]), ("mlp_out", 1, last)],
        [],
    ):
        wanted = slow_restore(tiny, runs, answer, places, draws=2)
        torch.testing.assert_close(restore(runs, answer, places), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("site", SITES)
def test_a_trace_is_one_restoration_a_place(tiny, site):
    runs, answer, width = NoisyRuns(tiny, PROMPT, SUBJECT, draws=2), token(tiny), 1 if site == "resid_post" else 2
    found = trace(runs, answer, site=site, window=width)
    for row, layer in enumerate(found.layers):
        window = [each for each in range(layer - width // 2, layer - width // 2 + width) if 0 <= each < tiny.n_layers]
        for position in (0, runs.subject[0], runs.subject[-1], runs.tokens.shape[1] - 1):
            wanted = restore(runs, answer, [(site, each, position) for each in window]).mean()
            torch.testing.assert_close(found.values[row, position], wanted, atol=1e-5, rtol=1e-4)


def test_without_noise_everything_is_clean(tiny):
    runs, answer = NoisyRuns(tiny, PROMPT, SUBJECT, noise=0.0, draws=2), token(tiny)
    clean, noisy = runs.probabilities(answer)
    assert noisy == pytest.approx(clean, abs=1e-5)
    found = trace(runs, answer, site="mlp_out", window=2)
    torch.testing.assert_close(found.values, torch.full_like(found.values, clean), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="wanted noise that takes the answer away"):
        Trace(found.values, clean, clean, found.layers, found.labels, found.subject).recovered  # noqa: B018


def test_restoring_every_position_or_the_last_state_gives_the_clean_probability(tiny):
    runs, answer = NoisyRuns(tiny, PROMPT, SUBJECT, draws=2), token(tiny)
    clean, noisy = runs.probabilities(answer)
    every = [("resid_post", 0, position) for position in range(runs.tokens.shape[1])]
    torch.testing.assert_close(restore(runs, answer, every), torch.full((2,), clean), atol=1e-5, rtol=1e-4)
    found = trace(runs, answer)
    assert found.values[-1, -1].item() == pytest.approx(clean, abs=1e-5)
    torch.testing.assert_close(found.values[:, : runs.subject[0]], torch.full((3, runs.subject[0]), noisy))
    expected = (found.values - noisy) / (clean - noisy)
    if clean - noisy > 1e-6:
        torch.testing.assert_close(found.recovered, expected)


def test_only_the_subject_is_blurred_and_the_seed_decides_how(tiny):
    one, same, other = (NoisyRuns(tiny, PROMPT, SUBJECT, draws=2, seed=seed) for seed in (0, 0, 1))
    clean, before = one.clean.resid_pre(0)[0], one.subject[0]
    torch.testing.assert_close(one.noisy.resid_pre(0)[:, :before], clean[:before].expand(2, -1, -1))
    torch.testing.assert_close(one.noisy.resid_pre(0), same.noisy.resid_pre(0))
    assert not torch.equal(one.noisy.resid_pre(0), other.noisy.resid_pre(0))
    assert not torch.equal(one.noisy.resid_pre(0)[0], one.noisy.resid_pre(0)[1])


def test_a_place_that_is_not_there_is_said():
    runs = NoisyRuns(tiny_model(), PROMPT, SUBJECT, draws=1)
    with pytest.raises(ValueError, match=r"wanted a layer of tiny llama, 0 to 2; came 7"):
        restore(runs, 0, [("mlp_out", 7, 1)])
    with pytest.raises(ValueError, match=r"wanted a place \(site, layer, position\).*came \('mlp_out', 0, 99\)"):
        restore(runs, 0, [("mlp_out", 0, 99)])
    with pytest.raises(ValueError, match="wanted one of resid_post, mlp_out, attn_out with a window of 1 or more"):
        trace(runs, 0, site="q")
    with pytest.raises(ValueError, match="came 'resid_post' with 3"):
        trace(runs, 0, window=3)
    with pytest.raises(ValueError, match=r"wanted a layer of tiny llama, 0 to 2; came 3"):
        trace(runs, 0, layers=[3])


def test_a_model_that_gives_nan_is_said():
    lm = tiny_model(seed=5)
    runs = NoisyRuns(lm, PROMPT, SUBJECT, draws=1)
    runs.noisy.final[:] = torch.nan
    with pytest.raises(ValueError, match="wanted probabilities; tiny llama gives NaN here"):
        runs.probabilities(0)


def test_an_interrupted_trace_keeps_what_was_done(monkeypatch, capsys):
    runs = NoisyRuns(tiny_model(), PROMPT, SUBJECT, draws=1)
    whole, calls, real = trace(runs, 0), [], tracing._traced

    def stopped(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(tracing, "_traced", stopped)
    found = trace(runs, 0)
    done = ~found.values.isnan()
    assert 0 < done.sum() < done.numel()
    torch.testing.assert_close(found.values[done], whole.values[done])
    assert "Interrupted:" in capsys.readouterr().out
