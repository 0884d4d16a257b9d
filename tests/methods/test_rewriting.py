"""Finding a new answer: what is tried is what is used, and the model is left as it was."""

import pytest
import torch

from mechkit.methods import rewriting
from mechkit.methods.editing import PREFIXES, Request, key_covariance, rewritten
from mechkit.methods.rewriting import fine_tune, rome
from mechkit.network.cache import run
from mechkit.network.tiny import tiny_model

PROMPT = "the king of France is in the city of"
TEXTS = ["the queen gave Tom a drink and a book", "Mary and John went to the school in Rome", "London is the capital"]


def request_for(lm):
    """Something that this random model does not say."""
    top = int(run(lm, PROMPT, sites=())[0][0, -1].argmax())
    return Request(PROMPT, "king of France", " Rome" if top != lm.token_id(" Rome") else " Paris")


@pytest.mark.parametrize("method", ["rome", "fine_tune"])
def test_an_edit_makes_the_target_likelier_and_leaves_the_model_alone(tiny, method):
    request = request_for(tiny)
    target, weights = tiny.token_id(request.target), {name: p.clone() for name, p in tiny.hf.named_parameters()}
    before = run(tiny, PROMPT, sites=())[0][0, -1].log_softmax(-1)[target]
    if method == "rome":
        found = rome(tiny, request, layer=1, covariance=key_covariance(tiny, 1, TEXTS), steps=15)
        assert torch.linalg.matrix_rank(found.change) == 1
    else:
        found = fine_tune(tiny, request, layer=1, steps=15, lr=0.02)
    with rewritten(tiny, found):
        after = run(tiny, PROMPT, sites=())[0][0, -1].log_softmax(-1)[target]
    assert after > before + 0.5
    assert found.losses[-1] < found.losses[0]
    assert all(torch.equal(p, weights[name]) for name, p in tiny.hf.named_parameters())
    assert not any(p.requires_grad for p in tiny.hf.parameters())


def test_what_is_tried_is_what_is_used(tiny):
    """The first loss of fine-tuning is the model's own surprise, whatever is padded beside it."""
    request = request_for(tiny)
    target = tiny.token_id(request.target)
    own = -run(tiny, PROMPT, sites=())[0][0, -1].log_softmax(-1)[target]
    assert fine_tune(tiny, request, layer=0, steps=1).losses[0] == pytest.approx(own.item(), abs=1e-4)
    found = rome(tiny, request, layer=0, covariance=key_covariance(tiny, 0, TEXTS), steps=1)
    each = [-run(tiny, prefix + PROMPT, sites=())[0][0, -1].log_softmax(-1)[target] for prefix in PREFIXES]
    assert found.losses[0] == pytest.approx(torch.stack(each).mean().item(), abs=1e-4)


def test_bad_requests_are_answered_with_a_sentence():
    lm = tiny_model()
    C = key_covariance(lm, 1, TEXTS)
    top = lm.labels([int(run(lm, PROMPT, sites=())[0][0, -1].argmax())])[0]

    def ask(target=" Rome", subject="king of France", layer=1, matrix=C):
        return rome(lm, Request(PROMPT, subject, target), layer=layer, covariance=matrix)

    with pytest.raises(ValueError, match="wanted a subject that stands in the prompt; came 'Peter'"):
        ask(subject="Peter")
    with pytest.raises(ValueError, match=r"wanted one token; came ' New York', which tiny llama reads as"):
        ask(target=" New York")
    with pytest.raises(ValueError, match="wanted a layer of tiny llama, 0 to 2; came 9"):
        ask(layer=9)
    with pytest.raises(ValueError, match=r"wanted a new answer; came .* which tiny llama says already after"):
        ask(target=top)
    with pytest.raises(ValueError, match=r"wanted the covariance of this model's keys, 48 × 48 .* came 3 × 3"):
        ask(matrix=torch.eye(3))
    with pytest.raises(ValueError, match="finite numbers; came 48 × 48"):
        ask(matrix=C * torch.nan)


def test_an_interrupted_edit_keeps_what_was_found(monkeypatch, capsys):
    lm, calls, real = tiny_model(), [], rewriting._Task.loss

    def stopped(self, change):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, change)

    monkeypatch.setattr(rewriting._Task, "loss", stopped)
    found = rome(lm, request_for(lm), layer=1, covariance=key_covariance(lm, 1, TEXTS))
    assert len(found.losses) == 3
    assert found.change.abs().max() > 0
    assert "Interrupted after 3 steps" in capsys.readouterr().out


def test_a_bar_of_learning_that_ends_early_is_full(monkeypatch):
    lm, bars, calls, bar, real = tiny_model(), [], [], rewriting.tqdm, rewriting._Task.loss

    def learned(self, change):
        calls.append(1)
        loss, surprise = real(self, change)
        return loss, surprise if len(calls) < 4 else 0.0

    monkeypatch.setattr(rewriting._Task, "loss", learned)
    monkeypatch.setattr(rewriting, "tqdm", lambda *args, **how: bars.append(bar(*args, **how)) or bars[-1])
    rome(lm, request_for(lm), layer=1, covariance=key_covariance(lm, 1, TEXTS))
    assert (bars[0].n, bars[0].total) == (3, 3)
