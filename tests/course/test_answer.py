"""Whatever an answer does comes back as an outcome, and leaves nothing behind."""

import random
import signal
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from mechkit.course import answer
from mechkit.course.answer import PRINTED, run_answer, within
from mechkit.course.scope import isolate

SOON = 0.05


def outcome_of(notebook, source, *arguments, name="f"):
    notebook.run(source)
    return run_answer(notebook[name], arguments)


# what an answer may return ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("f = lambda x: x + 1", 2),
        ("def f(x, by=2): return x + by", 3),
        ("def f(x, *, by=3): return x + by", 4),
        ("def f(*numbers): return sum(numbers)", 1),
        ("def make(k):\n    def f(x): return x + k\n    return f\nf = make(4)", 5),
        ("from functools import partial\nf = partial(lambda k, x: x + k, 5)", 6),
        ("class Add:\n    def __call__(self, x): return x + 6\nf = Add()", 7),
        ("class f(int):\n    pass", 1),
        ("from functools import cache\n@cache\ndef f(x): return x + 7", 8),
        ("import torch\n@torch.no_grad()\ndef f(x): return x + 8", 9),
        ("def f(x):\n    yield x\n    yield x + 1", [1, 2]),
        ("f = abs", 1),
    ],
)
def test_any_callable_can_be_an_answer(notebook, source, result):
    notebook.run(source)
    assert run_answer(notebook["f"], (1,)).result == run_answer(isolate(notebook["f"], {}), (1,)).result == result


def test_an_endless_generator_is_cut(notebook):
    assert len(outcome_of(notebook, "def f():\n    while True: yield 1").result) == answer.ITEMS


def test_an_async_answer_is_named(notebook):
    assert "write a plain `def`" in outcome_of(notebook, "async def f(): return 1").trouble


@pytest.mark.parametrize("ending", ["NotImplementedError", "NotImplementedError()"])
def test_an_untouched_stub_is_not_an_attempt(notebook, ending):
    assert not outcome_of(notebook, f"def f():\n    raise {ending}").attempted


def test_a_not_implemented_error_of_somebody_else_is_an_attempt(notebook):
    outcome = outcome_of(notebook, "def f():\n    raise NotImplementedError('no such kernel')")
    assert outcome.attempted
    assert "no such kernel" in outcome.trouble


# what an answer may write -------------------------------------------------------------------------------------


def test_prints_are_kept_and_not_shown(notebook, capfd):
    outcome = outcome_of(notebook, "import sys\ndef f(x):\n    print('seen', x)\n    print('!', file=sys.stderr)", 3)
    assert (outcome.result, outcome.printed) == (None, "seen 3\n")
    assert capfd.readouterr() == ("", "")


def test_huge_prints_are_bounded(notebook):
    assert len(outcome_of(notebook, "def f():\n    for _ in range(1000): print('x' * 1000)").printed) == PRINTED


def test_a_closed_stdout_is_no_trouble(notebook):
    assert outcome_of(notebook, "import sys\ndef f():\n    sys.stdout.close()\n    print(1)\n    return 2").result == 2


# exceptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "trouble"),
    [
        ("\n\ndef f(): return 1 / 0", "At line 3 of your cell, `def f(): return 1 / 0`, it raised ZeroDivisionError: "),
        ("def g(x):\n    return x.q\n\ndef f(): return g(1)", "At line 2 of your cell, `return x.q`, it raised Attr"),
        ("import torch\ndef f():\n    a = torch.ones(2)\n    return a @ torch.ones(3)", "At line 4 of your cell, `"),
        ("def f(): assert False", "it raised AssertionError"),
        ("def f(): raise ValueError('one\\ntwo')", "it raised ValueError: one"),
        ("def f(): raise ValueError('x' * 9999)", "it raised ValueError: xxx"),
        ("def f(): return f()", "`def f(): return f()`, it raised RecursionError: maximum recursion depth"),
        ("import sys\ndef f(): sys.exit('bye')", "it raised SystemExit: bye"),
        (
            "def f(): raise TimeoutError",
            "At line 1 of your cell, `def f(): raise TimeoutError`, it raised TimeoutError",
        ),
        ("def f(): raise KeyboardInterrupt", "It was interrupted."),
        ("import signal\ndef f(): signal.raise_signal(signal.SIGINT)", "It was interrupted."),
        ("class E(Exception):\n    __str__ = None\ndef f(): raise E", "it raised E"),
        ("def f():\n    yield 1\n    yield 1 / 0", "At line 3 of your cell, `yield 1 / 0`, it raised Zero"),
        ("def f(x): return x", "missing 1 required positional argument: 'x'"),
        ("class F:\n    def __call__(self): return 1 / 0\nf = F()", "At line 2 of your cell"),
        ("class f:\n    def __init__(self): 1 / 0", "At line 2 of your cell, `def __init__(self): 1 / 0`"),
        ("from functools import partial\nf = partial(lambda x: 1 / x, 0)", "At line 2 of your cell, `f = partial("),
        ("import torch\n@torch.no_grad()\ndef f():\n    return 1 / 0", "At line 4 of your cell, `return 1 / 0`"),
        ("from functools import cache\n@cache\ndef f():\n    return 1 / 0", "At line 4 of your cell, `return 1 / 0`"),
    ],
)
def test_an_exception_is_one_line_with_the_learners_own_line(notebook, source, trouble):
    said = outcome_of(notebook, source).trouble
    assert trouble in said
    assert "\n" not in said
    assert len(said) < 600


def test_an_exception_without_a_line_of_the_learners_is_only_named():
    assert run_answer(int, ("x",)).trouble.startswith("It raised ValueError: invalid literal")


# edited arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "edit"),
    [
        (torch.zeros(2), "x += 1"),
        (torch.zeros(2), "x.resize_(3)"),
        (torch.tensor([True]), "x.zero_()"),
        (np.zeros(2), "x += 1"),
        ([1, 2], "x.append(3)"),
        ([1, 2], "x.sort(reverse=True)"),
        ([1], "x[0] = __import__('numpy').ones(2)"),
        ([1], "x.append(x)"),
        ([1], "x[0] = True"),
        ({"a": [1]}, "x['a'].clear()"),
        ({"a": torch.zeros(1)}, "x['a'][0] = 5"),
        ({1}, "x.add(2)"),
        ((torch.zeros(1),), "x[0].add_(1)"),
    ],
    ids=repr,
)
def test_an_edited_argument_is_said_and_the_original_untouched(notebook, argument, edit):
    before = repr(argument)
    outcome = outcome_of(notebook, f"def f(a, x):\n    {edit}\n    return 1", 0, argument)
    assert "It edits its argument `x`" in outcome.trouble
    assert repr(argument) == before


@pytest.mark.parametrize(
    "argument",
    [
        torch.tensor([1.0, float("nan")]),
        np.array([np.nan]),
        np.array(["a"]),
        [1, "a", None],
        {"a": (1,)},
        {1},
        object(),
    ],
    ids=["nan", "array", "words", "list", "dict", "set", "object"],
)
def test_an_argument_that_is_only_read_is_not_edited(notebook, argument):
    assert outcome_of(notebook, "def f(x): return 1", argument).trouble == ""


# time ---------------------------------------------------------------------------------------------------------

LOOPS = {
    "silent": "while True: pass",
    "sleeping": "while True: time.sleep(0.001)",
    "one last word": """
try:
    while True: pass
except KeyboardInterrupt: return 1""",
    "deaf once": """
while True:
    try:
        while True: pass
    except KeyboardInterrupt: pass""",
    "deaf": """
while True:
    try: time.sleep(0.001)
    except BaseException: continue""",
    "deaf in depth": """
while True:
    try:
        with Deaf(): time.sleep(0.001)
    except BaseException: continue""",
    "generator": "while True: yield time.sleep(0.01)",
}
DEAF = "import time\nclass Deaf:\n    __enter__ = lambda self: None\n    __exit__ = lambda *_: True\n"


@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
def test_a_loop_that_never_ends_is_stopped(notebook, monkeypatch, source):
    monkeypatch.setattr(answer, "AGAIN", 0.01)
    notebook.run(f"{DEAF}def f():\n{textwrap.indent(source, '    ')}")
    assert "still running after 0.05 seconds" in run_answer(notebook["f"], (), SOON).trouble


def test_the_first_interrupts_leave_time_to_clean_up(notebook):
    cleaned = []
    notebook.run("def f(clean):\n    try:\n        clean\n        while True: pass\n    finally: clean()")
    run_answer(notebook["f"], (lambda: [time.sleep(0.001) for _ in range(5)] and cleaned.append(1),), SOON)
    assert cleaned


@pytest.mark.slow
def test_an_interrupt_never_reaches_later_code(monkeypatch, request):
    """Work that ends right around the limit, hundreds of times: stopped or not, nothing strikes afterwards."""
    monkeypatch.setattr(answer, "AGAIN", 0.0005)
    before, stopped = sys.getswitchinterval(), []
    request.addfinalizer(lambda: sys.setswitchinterval(before))
    sys.setswitchinterval(1e-4)  # or the watchdog waits for up to 5 ms before it can bark
    for _ in range(600):
        end = time.perf_counter() + 0.003 + random.uniform(-1e-3, 1e-3)
        outcome = run_answer(
            lambda end: [None for _ in iter(time.perf_counter, None) if _ < end or 1 / 0], (end,), 0.003
        )
        stopped.append("still running" in outcome.trouble)
        assert stopped[-1] or "ZeroDivisionError" in outcome.trouble
        sum(range(1000))
    assert 0 < sum(stopped) < 600


def test_the_handler_of_interrupts_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    assert within(5.0, lambda: signal.getsignal(signal.SIGINT)) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_no_thread_is_left():
    run_answer(lambda: 1, ())
    assert not [thread for thread in threading.enumerate() if isinstance(thread, answer._Watchdog)]


def test_off_the_main_thread_there_is_no_limit(notebook):
    notebook.run("import time\ndef f(x):\n    time.sleep(0.02)\n    return x")
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run_answer(notebook["f"], (1,), 0.001)))
    thread.start()
    thread.join()
    assert outcomes[0].result == 1


# nothing is left behind ---------------------------------------------------------------------------------------

SETTINGS = {
    "torch's generator": lambda: torch.get_rng_state().tolist(),
    "numpy's generator": lambda: np.random.get_state()[1].tolist(),
    "python's generator": random.getstate,
    "gradients": torch.is_grad_enabled,
    "dtype": torch.get_default_dtype,
    "warnings": lambda: list(warnings.filters),
    "streams": lambda: (sys.stdout, sys.stderr),
}
MEDDLER = """
import io, random, sys, warnings
import numpy as np, torch
def f(ending):
    torch.manual_seed(7), torch.rand(3), np.random.rand(), random.random()
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = io.StringIO()
    if ending: raise ValueError
"""


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("ending", [False, True], ids=["returns", "raises"])
def test_what_an_answer_sets_is_set_back(notebook, setting, ending):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    torch.set_default_dtype(torch.float32), torch.set_grad_enabled(True)
    before = SETTINGS[setting]()
    outcome_of(notebook, MEDDLER, ending)
    assert SETTINGS[setting]() == before


def test_random_answers_are_the_same_each_time(notebook):
    notebook.run(
        "import random, numpy as np, torch\ndef f(): return [torch.rand(1), np.random.rand(), random.random()]"
    )
    assert run_answer(notebook["f"], ()).result == run_answer(notebook["f"], ()).result


def test_an_answer_runs_with_the_notebooks_gradients(notebook):
    source = (
        "import torch\ndef f():\n    x = torch.ones(1, requires_grad=True)\n    (x * 3).backward()\n    return x.grad"
    )
    assert outcome_of(notebook, source).result == 3
