"""An answer sees its own cell and what it is given, and nothing else of its notebook."""

import functools

import pytest
import torch

from mechkit.course.answer import run_answer
from mechkit.course.scope import borrowed, imports_of, isolate


@pytest.mark.parametrize(
    "source",
    [
        "def g(x): return x + 1\ndef f(x): return g(x)",
        "def f(x): return g(x)\ndef g(x): return x + 1",
        "def f(x): return x + 1 if x == 1 else f(1)",
        "ONE = 1\ndef f(x): return x + ONE",
        "import math as m\ndef f(x): return x + m.floor(1.5)",
        "from math import *\ndef f(x): return x + floor(1.5)",
        "try:\n    from math import floor\nexcept ImportError:\n    pass\ndef f(x): return x + floor(1.5)",
        "if (one := 1):\n    def g(x): return x + one\ndef f(x): return g(x)",
        "for one in [1]: pass\ndef f(x): return x + one",
        "class One:\n    value = 1\ndef f(x): return x + One.value",
        "def f(x): return x + f.one\nf.one = 1",
        "def f(x): return x + given",
        "def g(x):\n    return x + 1\nf = lambda x: (lambda y: g(y))(x)",
    ],
)
def test_an_answer_sees_its_own_cell_and_what_is_allowed(notebook, source):
    notebook.run(source)
    assert run_answer(isolate(notebook["f"], {"given": 1}), (1,)).result == 2


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return elsewhere",
        "def g(): return elsewhere\ndef f(): return g()",
        "f = lambda: elsewhere",
        "def f(): return [elsewhere for _ in range(1)]",
        "import torch\n@torch.no_grad()\ndef f(): return elsewhere",
    ],
)
def test_an_answer_does_not_see_other_cells(notebook, source):
    notebook.run("elsewhere = 1")
    notebook.run(source)
    assert "NameError: name 'elsewhere' is not defined" in run_answer(isolate(notebook["f"], {}), ()).trouble


def test_an_answer_that_was_redefined_since_is_still_itself(notebook):
    notebook.run("def f(): return 1")
    first = notebook["f"]
    notebook.run("def f(): return 2")
    assert run_answer(isolate(first, {}), ()).result == 1


def test_a_builtin_that_the_notebook_hides_is_the_builtin(notebook):
    notebook.run("sum = 3")
    notebook.run("def f(): return sum([1, 2])")
    assert run_answer(isolate(notebook["f"], {}), ()).result == 3


def test_an_answer_without_source_sees_the_notebook():
    notebook = {"elsewhere": 1}
    exec("def f(): return elsewhere", notebook)
    assert run_answer(isolate(notebook["f"], {}), ()).result == 1


def test_running_an_answer_leaves_the_notebooks_variables_alone(notebook):
    notebook.run("count = 0\ndef f():\n    global count\n    count += 1\n    return count")
    assert run_answer(isolate(notebook["f"], {}), ()).result == 1
    assert notebook["count"] == 0


def test_imports_of_a_cell_are_what_it_imports(notebook):
    name = notebook.run(
        "import os.path\nimport math as m\nfrom torch import nn, Tensor as T\nx = 1\ndef f(): import re"
    )
    assert imports_of(name, notebook).keys() == {"os", "m", "nn", "T"}


def test_imports_of_a_cell_without_source_are_all_modules():
    assert imports_of("<gone>", {"torch": torch, "x": 1}) == {"torch": torch}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x): return taught(x)", True),
        ("def f(x): return mk.lens.taught(x)", True),
        ("def f(x):\n    from mechkit import taught as t\n    return t(x)", True),
        ("def f(x): return [taught(y) for y in x]", True),
        ("def g(x): return taught(x)\ndef f(x): return g(x)", True),
        ("import torch\n@torch.no_grad()\ndef f(x): return taught(x)", True),
        ("def taught(x): return x\nf = taught", False),
        ("def taught(x): return taught(x - 1)\nf = taught", False),
        ("def taught(x): return lens.taught(x)\nf = taught", True),
        ("def f(x):\n    taught = 1\n    return 'taught'", False),
        ("class f: pass", False),
    ],
)
def test_what_is_taught_may_be_written_but_not_borrowed(notebook, source, found):
    notebook.run(source)
    assert borrowed(notebook["f"], ["taught", "other"]) == ({"taught"} if found else set())


def test_a_partial_borrows_what_its_function_borrows(notebook):
    notebook.run("def f(k, x): return taught(x)")
    assert borrowed(functools.partial(notebook["f"], 1), ["taught"]) == {"taught"}
