"""What crosses to and from a learner's process: values, and nothing that runs."""

import contextlib
import itertools
import json
import socket
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save

from mechkit.course.compare import compare
from mechkit.course.exercise import MODEL, Tiny
from mechkit.grading.inside.wire import HEAD, TEXT, Channel, Opaque, WireError


@pytest.fixture
def ends():
    pair = [Channel(end, seconds=3, limit=2**23) for end in socket.socketpair()]
    yield pair
    for each in pair:
        each.end.close()


def across(ends, value):
    sender = threading.Thread(target=ends[0].send, args=(value,))
    sender.start()
    came = ends[1].receive()
    sender.join()
    return came


def send_beside(ends, message):
    """Send bytes in a thread: what does not fit a socket's buffer, whose size is the system's, waits for a reader."""
    threading.Thread(target=ends[0].end.sendall, args=(message,), daemon=True).start()


VALUES = [
    None,
    True,
    3,
    2.5,
    "x\ud800",
    [1, (2, "a"), {"b": [None]}],
    {1: "a", (1, 2): "b"},
    {1, 2},
    Tiny(3, "gpt2", 16),
    10**300,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_as_it_went(ends, value):
    came = across(ends, value)
    assert came == value
    assert type(came) is type(value)


def test_infinite_and_undefined_numbers_cross(ends):
    assert across(ends, [float("inf"), -float("inf")]) == [float("inf"), -float("inf")]
    assert across(ends, float("nan")) != across(ends, float("nan"))


def test_the_model_crosses_as_a_name(ends):
    assert across(ends, [MODEL])[0] is MODEL


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16])
def test_a_tensor_crosses(ends, dtype):
    value = torch.ones(2, 3, dtype=dtype)[:, ::2]
    came = across(ends, {"a": value, "b": torch.zeros(())})["a"]
    assert came.dtype == dtype
    assert torch.equal(came, value)


def test_an_array_crosses_as_an_array(ends):
    came = across(ends, np.arange(3.0))
    assert isinstance(came, np.ndarray)
    assert compare(came, torch.arange(3.0), 1e-6) is None
    assert across(ends, np.float64(2)) == 2.0


class Liar(float):
    def __eq__(self, other):
        return True

    __hash__ = float.__hash__


class Refuses:
    def __getattribute__(self, name):
        raise RuntimeError


def test_only_data_is_left_of_objects(ends):
    came = across(ends, [Liar(2.0), Refuses(), len, 10**10_000, np.array(["x"])])
    assert type(came[0]) is float
    assert came[0] == 2.0
    assert all(isinstance(each, Opaque) for each in came[1:])
    assert type(came[1]).__name__ == "Refuses"


def test_what_has_no_end_is_cut_off(ends):
    loop = []
    loop.append(loop)
    came = across(ends, loop)
    assert isinstance(came, list)


COLLIDING = ",".join(f"[{number * (2**61 - 1)}, 0]" for number in range(20_000))
BODIES = {
    "no JSON": b"{",
    "a bare list": b"[1]",
    "no tag": b'{"evil": 1}',
    "no tensor": b'{"tensor": "7"}',
    "two tags": b'{"list": [], "dict": []}',
    "no pairs": b'{"dict": [1]}',
    "unhashable": b'{"dict": [[{"list": []}, 1]]}',
    "deep": b'{"list": [' * 10_000,
    "keys that collide": f'{{"dict": [{COLLIDING}]}}'.encode(),
    "more than anybody reads": b'{"list": [' + b"0," * 1_000_000 + b"0]}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_broken_message_is_an_error_and_nothing_else(ends, body):
    send_beside(ends, HEAD.pack(len(body), 0) + body)
    with pytest.raises(WireError, match="cannot be read"):
        ends[1].receive()


def test_a_message_that_is_too_large_is_not_read(ends):
    ends[0].end.sendall(HEAD.pack(2**40, 0))
    with pytest.raises(WireError, match="at most"):
        ends[1].receive()


def test_text_is_bounded_more_closely_than_tensors(ends):
    ends[0].end.sendall(HEAD.pack(TEXT + 1, 0))
    with pytest.raises(WireError, match="what is not in tensors"):
        ends[1].receive()


def test_a_crowd_of_empty_tensors_is_not_read(ends):
    body, names = b'{"tensor": "0"}', {str(i): torch.zeros(0) for i in range(20_000)}
    bulk = save(names)
    send_beside(ends, HEAD.pack(len(body), len(bulk)) + body + bulk)
    with pytest.raises(WireError, match="cannot be read"):
        ends[1].receive()


def test_who_sends_without_end_is_stopped_in_time(ends):
    receiver, started = Channel(ends[1].end, seconds=0.3), time.monotonic()

    def flood():
        with contextlib.suppress(OSError):
            while True:
                ends[0].end.sendall((HEAD.pack(1, 0) + b"1") * 1000)

    threading.Thread(target=flood, daemon=True).start()
    with pytest.raises(WireError, match="in time"):
        all(receiver.receive() == 1 for _ in itertools.count())
    assert time.monotonic() - started < 3


def test_who_takes_nothing_is_not_waited_for(ends):
    sender, started = Channel(ends[0].end, seconds=0.3), time.monotonic()
    with pytest.raises(OSError, match="timed out"):
        sender.send(torch.zeros(2**22))
    assert time.monotonic() - started < 3


def test_broken_tensors_are_an_error(ends):
    body = json.dumps({"tensor": "0"}).encode()
    ends[0].end.sendall(HEAD.pack(len(body), 64) + body + b"\xff" * 64)
    with pytest.raises(WireError, match="cannot be read"):
        ends[1].receive()


def test_silence_and_an_end_are_told_apart(ends):
    with pytest.raises(WireError, match="in time"):
        ends[1].receive()
    ends[0].end.close()
    with pytest.raises(EOFError):
        Channel(ends[1].end, seconds=1).receive()
