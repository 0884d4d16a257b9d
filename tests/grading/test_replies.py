"""What a learner's code may ask of our own answers, and what it cannot do to the grader with that."""

import os
import signal
import sys
import time

import pytest
import torch

from mechkit.course.exercise import MODEL
from mechkit.grading.replies import Replies
from mechkit.grading.sandbox import Lent, Limits
from tests.grading.conftest import LIMITS, cells, loud_head, spread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shorter time limit than Windows keeps")


@pytest.fixture(scope="module")
def replies(models):
    made = Replies("99", Lent(models.path, models.seed), Limits(seconds=1, whole=2, memory=2**28))
    yield made
    made.close()


X = torch.tensor([1.0, 2.0, 6.0])


def test_our_answer_is_computed(replies):
    reply = replies.call("spread", [X], {"base": 1.0})
    assert reply["trouble"] == ""
    assert torch.equal(reply["result"], spread(X, 1.0))


def test_the_model_is_the_twin(replies, models):
    assert replies.call("loud_head", [MODEL], {})["result"] == loud_head(models.twin) != loud_head(models.original)


def test_what_cannot_be_called_so_is_said(replies):
    assert "TypeError" in replies.call("spread", [], {})["trouble"]
    assert "called with too much" in replies.call("spread", ["x" * 30_000], {})["trouble"]


def test_a_call_without_end_is_interrupted(replies):
    started = time.monotonic()
    assert "still running after 1 seconds" in replies.call("patient", [10**11], {})["trouble"]
    assert time.monotonic() - started < 100


def test_a_call_that_asks_for_all_memory_gets_none(replies):
    assert "raised" in replies.call("greedy", [2**40], {})["trouble"]
    assert replies.call("spread", [X, 0.0], {})["trouble"] == ""


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_process_that_hangs_or_is_gone_is_replaced(models, how, monkeypatch):
    monkeypatch.setattr("mechkit.grading.replies.GRACE", 0.5)
    replies = Replies("99", Lent(), Limits(seconds=0.5))
    try:
        replies.prepare()
        os.kill(replies._process.pid, signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
        replies.call("spread", [X, 0.0], {})
        assert replies.call("spread", [X, 0.0], {})["trouble"] == ""
    finally:
        replies.close()


def test_an_answer_that_asks_too_much_of_an_earlier_one_harms_nobody(grade):
    record = grade(cells(double="def double(x, base):\n    return patient(10**11)"))
    points = {row["name"]: row["points"] for row in record["exercises"]}
    assert points == {"spread": 2.0, "double": 0.0, "widest": 2.0, "loud_head": 2.0}
    assert record["seconds"] < 200, "so many steps take longer"


def test_nothing_is_started_once_it_is_closed():
    replies = Replies("99", Lent(), LIMITS)
    replies.close()
    assert "not to be had" in replies.call("spread", [X, 0.0], {})["trouble"]
    assert replies._process is None
