"""Is this result that result, however it is written?

A list, an array, a float64 tensor and a float32 tensor with the same numbers are the same answer. What
differs is reported in the order in which a person would look: its type, its shape, its values.
"""

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Stage = Literal["type", "shape", "property", "values"]
LISTED = 8  # keys that a message lists


@dataclass(frozen=True)
class Difference:
    """Where two results part: the stage at which they do, a sentence, and in what part of a dict or list."""

    stage: Stage
    sentence: str
    place: str = ""


def compare(result: Any, expected: Any, tolerance: float) -> Difference | None:
    """The first difference between a learner's result and the expected one, or None if they agree.

    Numbers agree if `|result - expected| <= tolerance * max|expected|`, so the bar follows the size of the
    values; whole numbers, words, truth values, infinities and NaNs must be equal.

    Returns: None, or the difference with a sentence that says what was wanted and what came.
    """
    if isinstance(expected, np.ndarray | np.bool_):
        expected = torch.as_tensor(expected) if expected.ndim else expected.item()
    if not isinstance(expected, Tensor | numbers.Number | str | Mapping | Sequence):
        raise TypeError(f"a reference may return tensors, numbers, words, lists and dicts, not {type(expected)}")
    if result is None:
        return Difference("type", f"The answer returned None; wanted {describe(expected)}.")
    try:
        return _by_kind(result, expected, tolerance)
    except Exception:  # an object of the learner's own making, whose methods fail
        return Difference("type", f"Wanted {describe(expected)}; came a {type(result).__name__} that cannot be read.")


def _by_kind(result: Any, expected: Any, tolerance: float) -> Difference | None:
    if isinstance(expected, Tensor):
        return _compare_tensors(result, expected, tolerance)
    if isinstance(expected, numbers.Number):
        return _compare_numbers(result, expected, tolerance)
    if isinstance(expected, str):
        return _compare_words(result, expected)
    if isinstance(expected, Mapping):
        return _compare_mappings(result, expected, tolerance)
    return _compare_sequences(result, expected, tolerance)


def alike(result: Any, expected: Any) -> Any:
    """A right result in the form of the expected one: a list where a tensor is wanted becomes that tensor.

    Sizes may differ; what cannot be put into that form is returned as it is.
    """
    numbers_in_it = as_tensor(result)
    if isinstance(expected, Tensor) and numbers_in_it is not None:
        return numbers_in_it.to(expected.dtype)
    if isinstance(expected, numbers.Number) and numbers_in_it is not None and numbers_in_it.numel() == 1:
        return type(expected)(numbers_in_it.item())
    if isinstance(expected, Mapping) and isinstance(result, Mapping):
        return {key: alike(value, expected[key]) if key in expected else value for key, value in result.items()}
    if isinstance(expected, list | tuple) and expected and isinstance(result, list | tuple | Tensor | np.ndarray):
        return type(expected)(alike(part, expected[min(i, len(expected) - 1)]) for i, part in enumerate(result))
    return result


def describe(value: Any) -> str:
    """A value's type and size in a learner's words."""
    if isinstance(value, Tensor):
        return f"a tensor of {'complex numbers and ' if value.is_complex() else ''}shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {list(value.shape)}"
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, numbers.Integral):
        return "a whole number"
    if isinstance(value, numbers.Number):
        return "a number" if isinstance(value, numbers.Real) else "a complex number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Mapping):
        keys = [repr(key) for key in islice(value, LISTED)]
        return f"a dict with the keys {', '.join(keys)}{' …' if len(value) > LISTED else ''}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"an object of type {type(value).__name__}"


def as_tensor(value: Any) -> Tensor | None:
    """The real numbers in a tensor, array, number or nested list, as a plain float64 tensor; None if there are none."""
    try:
        if isinstance(value, list | tuple):
            parts = [as_tensor(part) for part in value]
            return torch.stack(parts) if parts else torch.zeros(0, dtype=torch.float64)
        if isinstance(value, Tensor):
            with torch._C.DisableTorchFunctionSubclass():  # a subclass may have changed what its methods do
                plain = Tensor.as_subclass(Tensor.to_dense(Tensor.detach(value)), Tensor)
                return None if plain.is_complex() else plain.to("cpu", torch.float64)
        if isinstance(value, numbers.Real | np.bool_):
            return torch.tensor(float(value), dtype=torch.float64)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return torch.from_numpy(np.array(value, dtype=np.float64, subok=False))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return None


def _compare_tensors(result: Any, expected: Tensor, tolerance: float) -> Difference | None:
    yours = as_tensor(result)
    if yours is None:
        uneven = " that does not hold numbers in rows of equal length" if isinstance(result, list | tuple) else ""
        return Difference("type", f"Wanted {describe(expected)}; came {describe(result)}{uneven}.")
    if yours.shape != expected.shape:
        return Difference("shape", f"Wanted shape {list(expected.shape)}; came {list(yours.shape)}.")
    target = expected.detach().to("cpu", torch.float64)
    nan = torch.isnan(yours) & ~torch.isnan(target)
    if nan.any():
        place = f" (first at {_index(nan)})" if nan.ndim else ""
        return Difference("property", f"There is a NaN in the result{place}; wanted numbers everywhere.")
    wrong = ~_close(yours, target, tolerance if expected.is_floating_point() else 0.0)
    if not wrong.any():
        return None
    pair = _apart(yours[wrong][0].item(), target[wrong][0].item())
    if wrong.numel() == 1:
        return Difference("values", f"{pair.capitalize()}.")
    share = f"{int(wrong.sum())} of {wrong.numel()} values differ"
    return Difference("values", f"{share}. First at {_index(wrong)}: {pair}.")


def _close(result: Tensor, target: Tensor, tolerance: float) -> Tensor:
    finite = torch.isfinite(target)
    size = target[finite].abs().max().item() if finite.any() else 0.0
    near = (result - target).abs() <= tolerance * (size or 1.0)
    return torch.where(finite, near, (result == target) | (torch.isnan(result) & torch.isnan(target)))


def _index(mask: Tensor) -> str:
    return f"[{', '.join(map(str, mask.nonzero()[0].tolist()))}]"


def _apart(yours: float, wanted: float) -> str:
    """Both numbers, with as many digits as it takes to tell them apart."""
    digits = next((digits for digits in (4, 7, 10) if f"{yours:.{digits}g}" != f"{wanted:.{digits}g}"), 17)
    return f"yours {yours:.{digits}g}, wanted {wanted:.{digits}g}"


def _compare_numbers(result: Any, expected: Any, tolerance: float) -> Difference | None:
    number = as_tensor(result)
    if number is None:
        return Difference("type", f"Wanted {describe(expected)}; came {describe(result)}.")
    if number.numel() != 1:
        return Difference("shape", f"Wanted {describe(expected)}; came {describe(result)}.")
    bar = 0.0 if isinstance(expected, numbers.Integral) else tolerance
    return _compare_tensors(number.reshape(()), torch.tensor(float(expected), dtype=torch.float64), bar)


def _compare_words(result: Any, expected: str) -> Difference | None:
    if not isinstance(result, str):
        return Difference("type", f"Wanted a string; came {describe(result)}.")
    yours = str.__str__(result)  # plain, even if a subclass says that it equals everything
    if yours == expected:
        return None
    return Difference("values", f"Yours {yours[:80]!r}, wanted {expected!r}.")


def _compare_mappings(result: Any, expected: Mapping, tolerance: float) -> Difference | None:
    if not isinstance(result, Mapping):
        return Difference("type", f"Wanted {describe(expected)}; came {describe(result)}.")
    if set(result) != set(expected):
        return Difference("shape", f"Wanted {describe(expected)}; came {describe(result)}.")
    return _first(((f"[{key!r}]", result[key], expected[key]) for key in expected), tolerance)


def _compare_sequences(result: Any, expected: Sequence, tolerance: float) -> Difference | None:
    if isinstance(result, Tensor | np.ndarray):
        result = result.tolist()
    if not isinstance(result, list | tuple):
        return Difference("type", f"Wanted {describe(expected)}; came {describe(result)}.")
    if len(result) != len(expected):
        return Difference("shape", f"Wanted {describe(expected)}; came {describe(result)}.")
    if all(isinstance(each, float) for each in expected) and as_tensor(result) is not None:
        return _compare_tensors(result, torch.tensor(expected, dtype=torch.float64), tolerance)
    pairs = zip(result, expected, strict=True)
    return _first(((f"[{i}]", *pair) for i, pair in enumerate(pairs)), tolerance)


def _first(parts: Any, tolerance: float) -> Difference | None:
    for place, mine, wanted in parts:
        difference = compare(mine, wanted, tolerance)
        if difference:
            return Difference(difference.stage, f"At {place}: {difference.sentence}", place + difference.place)
    return None
