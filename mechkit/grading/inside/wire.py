"""How do values cross between the judge and a learner's code? As JSON and safetensors, never as a pickle.

A message is JSON with a tag for what JSON cannot say, and the tensors beside it. What comes out of a learner's
process is only ever read as data: a broken message is an error here, and nothing in it is run.
"""

import json
import re
import socket
import struct
import time
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from mechkit.course.exercise import MODEL, Tiny, Words

HEAD = struct.Struct(">QQ")
DEPTH, ITEMS, NAME = 40, 200_000, 80  # of what is no tensor
KEYS = 2_000  # of a dict or a set: with keys that were made to collide, each costs as much as all before it
LIMIT, TEXT, HEADER = 64 * 2**20, 4 * 2**20, 2**20  # bytes of all messages, of one's JSON, of its tensors' names


class WireError(ValueError):
    """A message that cannot be read, or does not come in time."""


class Opaque:
    """Stands for an object that cannot cross; subclasses carry its type's name into sentences."""


class Channel:
    """One end of a conversation.

    Args:
        end: A connected socket.
        seconds: How long all reading together may take; None for no limit.
        limit: Bytes that all messages received may have together.
    """

    def __init__(self, end: socket.socket, seconds: float | None = None, limit: int = LIMIT):
        self.end, self._limit, self._left = end, limit, limit
        self._until = None if seconds is None else time.monotonic() + seconds

    def send(self, message: Any) -> None:
        """Send a value.

        Raises: OSError if the other end is gone, or does not take it before the time is up.
        """
        tensors: dict[str, Tensor] = {}
        body = json.dumps(_Packer(tensors).pack(message, 0)).encode()
        bulk = save(tensors) if tensors else b""
        self._watch_the_time()
        self.end.sendall(HEAD.pack(len(body), len(bulk)) + body)
        self.end.sendall(bulk)

    def receive(self) -> Any:
        """The next value.

        Raises: EOFError if the other end is gone, WireError if the time is up or the message cannot be read.
        """
        body, bulk = HEAD.unpack(self._exactly(HEAD.size))
        self._left -= body + bulk
        if self._left < 0:
            raise WireError(f"wanted at most {self._limit:,} bytes; came {self._limit - self._left:,}")
        if body > TEXT:
            raise WireError(f"wanted at most {TEXT:,} bytes of what is not in tensors; came {body:,}")
        text, data = self._exactly(body), self._exactly(bulk)
        try:
            return _Unpacker(_tensors(data)).unpack(json.loads(text))
        except Exception as error:  # whatever a hostile message does to a parser
            raise WireError(f"wanted a message; came one that cannot be read ({type(error).__name__})") from None

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                self._watch_the_time()
                part = self.end.recv(min(count - len(parts), 2**20))
            except TimeoutError:
                raise WireError("wanted an answer in time; none came") from None
            except ConnectionError:
                part = b""
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def _watch_the_time(self) -> None:
        """Bound the next step by the time that is left, also for one who sends without end."""
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.end.settimeout(left)


class _Packer:
    """Turns a value into JSON, moving tensors aside, and gives up on what is too deep or too much."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors, self.items = tensors, 0

    def pack(self, value: Any, depth: int) -> Any:
        self.items += 1
        if depth > DEPTH or self.items > ITEMS:
            return _opaque(value)
        try:
            return self._pack(value, depth + 1)
        except Exception:  # an object of the learner's own making, whose methods fail
            return _opaque(value)

    def _pack(self, value: Any, depth: int) -> Any:
        if value is None or type(value) in (bool, float):
            return value
        if value is MODEL:
            return {"model": None}
        if isinstance(value, Tiny):
            return {"tiny": [value.seed, value.family, value.d_model]}
        if isinstance(value, Words):
            return {"words": value.limit}
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, int | np.integer):
            return int(str(int(value)))  # refuses what has too many digits
        if isinstance(value, float | np.floating):
            return float(value)
        if isinstance(value, Tensor):
            return {"tensor": self._aside(value)}
        if isinstance(value, np.ndarray):
            return {"array": self._aside(torch.from_numpy(np.array(value, subok=False)))}
        return self._pack_many(value, depth)

    def _pack_many(self, value: Any, depth: int) -> Any:
        for kind, tag in ((list, "list"), (tuple, "tuple"), (set, "set")):
            if isinstance(value, kind):
                return {tag: [self.pack(part, depth) for part in value]}
        if isinstance(value, dict):
            return {"dict": [[self.pack(key, depth), self.pack(part, depth)] for key, part in value.items()]}
        return _opaque(value)

    def _aside(self, value: Tensor) -> str:
        with torch._C.DisableTorchFunctionSubclass():  # a subclass may have changed what its methods do
            plain = Tensor.as_subclass(Tensor.to_dense(Tensor.detach(value)), Tensor).cpu()
            name = str(len(self.tensors))
            self.tensors[name] = plain.resolve_conj().clone(memory_format=torch.contiguous_format)
        return name


def _opaque(value: Any) -> dict:
    name = re.sub(r"\W", "_", type.__getattribute__(type(value), "__name__"))[:NAME]
    return {"other": name}


def _tensors(data: bytes) -> dict[str, Tensor]:
    if not data:
        return {}
    if int.from_bytes(data[:8], "little") > HEADER:
        raise ValueError("so many tensors are no answer")
    return load(data)


class _Unpacker:
    """Reads a message back, which may be of a learner's making: bounded in everything that could take long."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors, self.items = tensors, 0

    def unpack(self, value: Any) -> Any:
        self.items += 1
        if self.items > ITEMS:
            raise ValueError("too much")
        if not isinstance(value, dict):
            if isinstance(value, list):
                raise ValueError("a bare list is no message")
            return value
        ((tag, inside),) = value.items()
        return self._unpack(tag, inside)

    def _unpack(self, tag: str, inside: Any) -> Any:
        if tag in ("set", "dict") and len(inside) > KEYS:
            raise ValueError("too many keys")
        match tag:
            case "model":
                return MODEL
            case "tiny":
                return Tiny(int(inside[0]), str(inside[1]), int(inside[2]))
            case "words":
                return Words(None if inside is None else int(inside))
            case "tensor":
                return self.tensors[inside]
            case "array":
                return self.tensors[inside].numpy()
            case "list" | "tuple" | "set":
                return {"list": list, "tuple": tuple, "set": set}[tag](self.unpack(part) for part in inside)
            case "dict":
                return {self.unpack(key): self.unpack(part) for key, part in inside}
            case "other":
                return type(re.sub(r"\W", "_", str(inside))[:NAME] or "object", (Opaque,), {})()
        raise ValueError(f"no such tag: {tag}")
