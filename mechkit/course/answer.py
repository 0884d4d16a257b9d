"""Run a learner's function as a grader would: on copies, in its own globals, against the clock.

An answer sees its arguments, the setup cell's imports, what its own cell defines and the earlier answers
that its exercise names. Whatever it does comes back as an `Outcome`; nothing it does raises here.
"""

import _thread
import contextlib
import io
import itertools
import random
import signal
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch

from mechkit.course.scope import file_of, unwrapped

SECONDS = 20.0
AGAIN = 1.0  # seconds from one interrupt to the next
PATIENCE = 3  # interrupts that an answer may swallow before they come at every step
PRINTED = 2000
ITEMS = 100_000  # taken from a generator


@dataclass(frozen=True)
class Outcome:
    """What came of one call: a result, or the sentence that says why there is none.

    Args:
        result: What the function returned.
        trouble: "" or one sentence: the exception, the endless loop, the edited argument.
        attempted: False if the stub is untouched.
        printed: What it wrote, up to 2,000 characters.
    """

    result: Any = None
    trouble: str = ""
    attempted: bool = True
    printed: str = ""


class TooLong(TimeoutError):
    """An answer was still running when its time was up."""


def run_answer(function: Callable[..., Any], arguments: Sequence[Any], seconds: float = SECONDS) -> Outcome:
    """Call a learner's function on copies of the arguments and say what came of it.

    Endless loops are interrupted after `seconds`; prints are kept; an edited argument is reported; random
    generators and torch's settings are afterwards as they were.
    """
    copies, written = [_copy(argument) for argument in arguments], _Written()
    try:
        with _settings_kept(written):
            result = within(seconds, lambda: _call(function, copies))
    except BaseException as error:
        if isinstance(error, NotImplementedError) and not error.args:
            return Outcome(attempted=False)
        return Outcome(trouble=_blame(function, error), printed=written.getvalue())
    return Outcome(result=result, trouble=_edited(function, arguments, copies), printed=written.getvalue())


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The value of `call()`, interrupted in the main thread if it takes longer than `seconds`.

    The interrupt is a KeyboardInterrupt inside the call, repeated each second until the call is back. It
    cannot stop one long C call before that call ends. Off the main thread there is no limit.
    Raises: TooLong if the time was up, whatever the call made of the interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    watchdog = _Watchdog(seconds)
    try:
        watchdog.silent = False
        return call()
    finally:
        watchdog.silent = True  # nothing is interrupted from here on, not even this ending
        watchdog.stop()
        if watchdog.strikes:
            raise TooLong(
                f"It was still running after {seconds:g} seconds and was stopped. A right answer needs less than "
                "two: look for a loop that never ends, or that does more than was asked."
            ) from None


class _Watchdog(threading.Thread):
    """Interrupts the main thread when time is up, through a signal handler that can be silenced in one step."""

    def __init__(self, seconds: float):
        super().__init__(daemon=True)
        self.silent, self.strikes = True, 0
        self._seconds, self._back = seconds, threading.Event()
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self.start()

    def run(self) -> None:
        wait = self._seconds
        while not self._back.wait(wait):
            self.strikes += 1
            _thread.interrupt_main()
            wait = AGAIN

    def stop(self) -> None:
        self._back.set()
        self.join()
        # an interrupt on its way is first handed to the silent handler
        signal.signal(signal.SIGINT, self._before or signal.SIG_DFL)

    @no_type_check
    def _interrupt(self, *_: object) -> None:
        if self.silent:
            return
        if self.strikes > PATIENCE:
            # Strike again at the next step, inside the `except` that swallows this one. In a plain call of
            # interrupt_main, or under a type checker's wrapper, the next step would be here. Python 3.12 can
            # swallow this too, in an `except` inside an `except`.
            for _ in iter(_thread.interrupt_main, None):
                pass
        raise KeyboardInterrupt


def _call(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    result = function(*arguments)
    if isinstance(result, types.CoroutineType):
        result.close()
        raise TypeError("an `async` function returns nothing until it is awaited; write a plain `def`")
    return list(itertools.islice(result, ITEMS)) if isinstance(result, types.GeneratorType) else result


@contextlib.contextmanager
def _settings_kept(written: "_Written") -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(_Written()), warnings.catch_warnings():
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
            torch.set_default_dtype(dtype), torch.set_grad_enabled(grad)


def _blame(function: Callable[..., Any], error: BaseException) -> str:
    """The learner's own line at which an exception arose, and the exception in one line."""
    if isinstance(error, KeyboardInterrupt | TooLong):
        return str(error) or "It was interrupted."
    text = ""
    with contextlib.suppress(BaseException):  # an exception of the learner's own may be unable to say what it is
        text = str(error).strip().split("\n")[0][:300]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    file = file_of(function)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if file and frame.filename == file]
    if not frames:
        return f"It raised {what}"
    source = f", `{frames[-1].line[:200]}`," if frames[-1].line else ""
    return f"At line {frames[-1].lineno} of your cell{source} it raised {what}"


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray | set):
        return value.clone() if isinstance(value, torch.Tensor) else value.copy()
    if type(value) in (list, tuple):
        return type(value)(_copy(part) for part in value)
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return value


def _edited(function: Callable[..., Any], before: Sequence[Any], after: Sequence[Any]) -> str:
    names = getattr(getattr(unwrapped(function), "__code__", None), "co_varnames", ())
    for position, (old, new) in enumerate(zip(before, after, strict=True)):
        if not _same(old, new):
            name = f"`{names[position]}`" if position < len(names) else f"number {position + 1}"
            return f"It edits its argument {name}: later cells would see the edited one. Work on a copy (`.clone()`)."
    return ""


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, torch.Tensor):
        return old.shape == new.shape and torch.equal(torch.nan_to_num(old), torch.nan_to_num(new))
    if isinstance(old, np.ndarray):
        return np.array_equal(old, new, equal_nan=old.dtype.kind == "f")
    if type(old) in (list, tuple):
        return type(new) is type(old) and len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return old is new or (type(old) is type(new) and bool(old == new))


class _Written(io.StringIO):
    """Keeps the first characters written to it and lets the rest go; an answer cannot close it."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, PRINTED - self.tell())])
        return len(text)

    def close(self) -> None:
        pass
