from collections import OrderedDict, defaultdict
from fractions import Fraction

import numpy as np
import pytest
import torch

from mechkit.course.compare import alike, as_tensor, compare, describe

BAR = 1e-4
SQUARE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
NAN, INF = float("nan"), float("inf")


def stage(result, expected, tolerance=BAR):
    difference = compare(result, expected, tolerance)
    return difference.stage if difference else "agrees"


def sentence(result, expected, tolerance=BAR):
    return compare(result, expected, tolerance).sentence


WRITINGS = {
    "list": SQUARE.tolist(),
    "tuple of lists": tuple(SQUARE.tolist()),
    "array": SQUARE.numpy(),
    "float64": SQUARE.double(),
    "bfloat16": SQUARE.bfloat16(),
    "whole": SQUARE.int(),
    "gradient": SQUARE.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(SQUARE),
    "transposed": SQUARE.T.contiguous().T,
    "sparse": SQUARE.to_sparse(),
    "list of tensors": list(SQUARE),
    "tensors in lists": [list(row) for row in SQUARE],
    "list of arrays": list(SQUARE.numpy()),
    "array back to front": np.array([[4, 3], [2, 1]])[::-1, ::-1],
    "numpy numbers": [[np.float32(1), np.int8(2)], [np.float64(3), np.uint16(4)]],
}


@pytest.mark.parametrize("result", WRITINGS.values(), ids=WRITINGS)
def test_the_same_numbers_are_the_same_answer(result):
    assert stage(result, SQUARE) == "agrees"


@pytest.mark.parametrize("result", WRITINGS.values(), ids=WRITINGS)
def test_other_numbers_are_not(result):
    assert stage(result, SQUARE + 0.01) == "values"


THREES = [3, 3.0, np.float32(3), np.int64(3), np.array(3), np.array([3.0]), torch.tensor(3), torch.tensor([3.0])]
WANTED_THREES = [3, 3.0, np.float64(3), np.int32(3), torch.tensor(3.0), torch.tensor(3)]


@pytest.mark.parametrize("result", [*THREES, Fraction(3)], ids=repr)
@pytest.mark.parametrize("expected", WANTED_THREES, ids=repr)
def test_a_number_may_be_written_in_any_way(result, expected):
    if isinstance(expected, torch.Tensor) and np.ndim(result):
        expected = expected[None]
    assert stage(result, expected) == "agrees"


@pytest.mark.parametrize("result", [True, 1, np.True_, torch.tensor(True), torch.tensor(1.0)], ids=repr)
def test_a_truth_value_may_be_written_in_any_way(result):
    assert [stage(result, expected) for expected in (True, np.True_, False)] == ["agrees", "agrees", "values"]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ((1, 2), [1, 2]),
        (torch.tensor([1, 2]), [1, 2]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([], []),
        (torch.tensor([0.5, 1e3]), [0.5, 1e3]),
        (OrderedDict(b=[1], a=2.0), {"a": 2, "b": [1]}),
        (defaultdict(int, {0: torch.tensor(5)}), {0: 5}),
        ([{"layer": np.int64(3)}, "x"], [{"layer": 3}, "x"]),
        (np.str_("Paris"), "Paris"),
        ([True, False], torch.tensor([True, False])),
        ([1.0, 2.0], np.array([1.0, 2.0])),
        ([], torch.zeros(0)),
    ],
)
def test_collections_agree_by_what_they_hold(result, expected):
    assert stage(result, expected) == "agrees"


@pytest.mark.parametrize(
    ("result", "expected", "where", "words"),
    [
        (None, SQUARE, "type", "returned None; wanted a tensor of shape [2, 2]"),
        ("1 2", SQUARE, "type", "came a string"),
        ([[1, 2], [3]], SQUARE, "type", "does not hold numbers in rows of equal length"),
        ([["1", "2"], ["3", "4"]], SQUARE, "type", "does not hold numbers"),
        (np.array([["1", "2"], ["3", "4"]]), SQUARE, "type", "an array of <U1"),
        (SQUARE + 0j, SQUARE, "type", "complex"),
        ({1, 2}, [1, 2], "type", "wanted a list of length 2; came an object of type set"),
        (range(2), [1, 2], "type", "an object of type range"),
        ("3", 3, "type", "Wanted a whole number; came a string"),
        (1j, 1.0, "type", "Wanted a number; came a complex number"),
        (3, "three", "type", "Wanted a string; came a whole number"),
        ([("a", 1)], {"a": 1}, "type", "came a list of length 1"),
        (SQUARE[0], SQUARE, "shape", "Wanted shape [2, 2]; came [2]"),
        (SQUARE[:, :0], SQUARE, "shape", "came [2, 0]"),
        (SQUARE, 3.0, "shape", "Wanted a number; came a tensor of shape [2, 2]"),
        ([1], [1, 2], "shape", "Wanted a list of length 2; came a list of length 1"),
        ({"b": 1}, {"a": 1}, "shape", "the keys 'a'; came a dict with the keys 'b'"),
        (SQUARE * NAN, SQUARE, "property", "NaN in the result (first at [0, 0])"),
        (torch.tensor([1, NAN]), torch.ones(2), "property", "first at [1]"),
        (NAN, 3.0, "property", "There is a NaN in the result; wanted numbers everywhere."),
        ([1, np.nan], [1, 2], "property", "At [1]: There is a NaN"),
        (SQUARE.T, SQUARE, "values", "2 of 4 values differ. First at [0, 1]: yours 3, wanted 2."),
        (2.0, 3.0, "values", "Yours 2, wanted 3."),
        (torch.tensor([2.0]), torch.tensor([3.0]), "values", "Yours 2, wanted 3."),
        ([1, [2, 4]], [1, [2, 3]], "values", "At [1]: At [1]: Yours 4, wanted 3."),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "values", "At ['b']: Yours 2, wanted 3."),
        ("paris", "Paris", "values", "Yours 'paris', wanted 'Paris'."),
    ],
)
def test_what_differs_is_said_where_it_first_differs(result, expected, where, words):
    assert stage(result, expected) == where
    assert words.lower() in sentence(result, expected).lower()


def test_the_bar_follows_the_largest_value():
    expected = torch.tensor([1e3, 1e-3])
    assert stage(expected + 0.05, expected) == stage((expected + 0.05).tolist(), expected.tolist()) == "agrees"
    assert stage(expected + 0.2, expected) == stage((expected + 0.2).tolist(), expected.tolist()) == "values"
    assert stage(torch.tensor([1e-6]), torch.zeros(1)) == "agrees"


@pytest.mark.parametrize("expected", [50_000, torch.tensor([0, 50_000]), [0, 50_000], {"token": 50_000}])
def test_whole_numbers_have_no_tolerance(expected):
    off = {"token": 50_001} if isinstance(expected, dict) else np.asarray(expected) + 1
    assert stage(off, expected, 0.1) == "values"


@pytest.mark.parametrize(
    ("result", "expected", "words"),
    [
        (1.0002, 1.0, "yours 1.0002, wanted 1"),
        (123456, 123457, "123456, wanted 123457"),
        (1 + 1e-12, 1.0, "1.000000000001"),
    ],
)
def test_two_numbers_never_look_the_same_in_a_message(result, expected, words):
    assert words in sentence(result, expected, 1e-15).lower()


@pytest.mark.parametrize(
    ("result", "expected", "where"),
    [
        (INF, INF, "agrees"),
        (-INF, INF, "values"),
        (3.0, INF, "values"),
        (INF, 3.0, "values"),
        ([1.0, -INF], torch.tensor([1.0, -INF]), "agrees"),
        ([1.0, -1e30], torch.tensor([1.0, -INF]), "values"),
        ([1.0, -INF], torch.tensor([1.0, -2.0]), "values"),
        ([1.0, NAN], torch.tensor([1.0, NAN]), "agrees"),
        ([NAN, 1.0], torch.tensor([1.0, NAN]), "property"),
        ([1.0, 1.0], torch.tensor([1.0, NAN]), "values"),
    ],
)
def test_infinities_and_nans_must_match(result, expected, where):
    assert stage(result, expected) == where


class Everything:
    """Equal to everything, near everything, and says so by every name."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __getattr__(self, name):
        return lambda *_, **__: self

    def __sub__(self, other):
        return 0.0

    __rsub__ = __abs__ = __le__ = __lt__ = __sub__


class Spoof(Everything):
    def __init__(self, claimed):
        self.claimed = claimed

    @property
    def __class__(self):
        return self.claimed


def liar(base):
    """A subclass whose operators agree with everything."""
    always = {name: lambda *_: True for name in ("__eq__", "__le__", "__lt__", "__ge__", "__bool__")}
    never = {name: lambda *_: False for name in ("__ne__", "__gt__")}
    nothing = {name: lambda *_: 0.0 for name in ("__sub__", "__rsub__", "__abs__")}
    return type("Liar", (base,), always | never | nothing | {"__hash__": base.__hash__})


class LyingTensor(torch.Tensor):
    def detach(self):
        return SQUARE

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return SQUARE


class LyingArray(np.ndarray):
    def __array_ufunc__(self, *_, **__):
        return np.True_

    def __array__(self, *_, **__):
        return SQUARE.numpy()


class LyingWord(str):
    def __eq__(self, other):
        return True

    def __str__(self):
        return self

    __hash__ = str.__hash__


LIES = [
    *[(lambda _: Everything(), expected) for expected in (SQUARE, 3, 3.0, True, "x", [1, 2], {"a": 1})],
    *[(lambda _: [Everything(), Everything()], expected) for expected in (torch.ones(2), [1, 2], ["x", "y"])],
    *[(lambda wanted: Spoof(type(wanted)), expected) for expected in (SQUARE, 3, 3.0, "x", [1, 2], {"a": 1})],
    (lambda _: {"a": Everything()}, {"a": 1}),
    (lambda _: liar(float)(2), 3.0),
    (lambda _: liar(int)(2), 3),
    (lambda _: [liar(float)(2)], torch.tensor([3.0])),
    (lambda _: liar(list)([1, 3]), [1, 2]),
    (lambda _: liar(dict)(a=2), {"a": 1}),
    (lambda _: torch.zeros(2, 2).as_subclass(LyingTensor), SQUARE),
    (lambda _: np.zeros((2, 2)).view(LyingArray), SQUARE),
    (lambda _: LyingWord("y"), "x"),
]


@pytest.mark.parametrize(("make", "expected"), LIES, ids=map(str, range(len(LIES))))
def test_objects_that_equal_everything_do_not_pass(make, expected):
    assert stage(make(expected), expected) != "agrees"


class Broken:
    """Every question about it is an error."""

    def __getattribute__(self, name):
        raise RuntimeError("ask me nothing")


class BrokenDict(dict):
    def __iter__(self):
        raise RuntimeError("no keys for you")


@pytest.mark.parametrize("kind", [Broken, BrokenDict])
@pytest.mark.parametrize("expected", [SQUARE, 3.0, "x", [1], {"a": 1}], ids=type)
def test_an_object_that_cannot_be_read_is_of_the_wrong_type(kind, expected):
    assert stage(kind(), expected) == "type"


def test_a_list_that_holds_itself_is_not_numbers():
    endless = [1]
    endless.append(endless)
    assert as_tensor(endless) is None


@pytest.mark.parametrize("expected", [None, {1, 2}, object()])
def test_a_reference_that_cannot_be_compared_is_our_error(expected):
    with pytest.raises(TypeError, match="a reference may return"):
        compare(1, expected, BAR)


def test_as_tensor_makes_a_copy():
    array = np.zeros(2)
    as_tensor(array).add_(1)
    assert array.sum() == 0


def test_a_large_dict_is_described_shortly():
    assert describe(dict.fromkeys(range(1000))).endswith("6, 7 …")


@pytest.mark.parametrize(
    ("result", "expected", "wanted"),
    [
        ([[1, 2]], torch.zeros(3), torch.tensor([[1.0, 2.0]])),
        (np.array([1.5]), torch.zeros(1, dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64)),
        (torch.tensor([True]), torch.tensor([False]), torch.tensor([True])),
        (torch.tensor(2), 1, 2),
        (np.float32(0.5), 1.0, 0.5),
        (torch.tensor([3, 4]), (0, 0), (3, 4)),
        (np.array([[3, 4], [5, 6]]), [(0, 0)], [(3, 4), (5, 6)]),
        ({"a": [1.0], "note": "kept"}, {"a": torch.zeros(1)}, {"a": torch.tensor([1.0]), "note": "kept"}),
        ("word", "other", "word"),
        ("word", 1.0, "word"),
    ],
)
def test_a_result_is_put_into_the_form_of_another(result, expected, wanted):
    ours = alike(result, expected)
    assert type(ours) is type(wanted)
    assert compare(ours, wanted, 0.0) is None
    if isinstance(wanted, torch.Tensor):
        assert ours.dtype == wanted.dtype
