"""A check on invented exercises: what passes, what fails and at which stage, and which mistake it was."""

import linecache
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mechkit.course.checks import Question, Surroundings, check
from mechkit.course.exercise import MODEL, Exercise, Mistake, Property, Tiny, Words
from mechkit.course.scope import imports_of
from tests.invented import spread, spread_cases


def _refuses(x, base):
    raise RuntimeError("this mistake cannot be made here")


SPREAD = Exercise(
    id="99_spread",
    kind="code",
    level=1,
    points=2.0,
    minutes=5,
    reference=spread,
    cases=spread_cases,
    mistakes=(
        Mistake("raises", "never met", _refuses),
        Mistake("nothing", "never met either", lambda x, base: None),
        Mistake("edits", "nor this", lambda x, base: x.zero_()),
        Mistake("not_squared", "Yours is not squared.", lambda x, base: base + (x - x.mean()).abs()),
        Mistake("no_mean", "Yours forgets the mean.", lambda x, base: base + x**2),
        Mistake("no_base", "Yours forgets the base.", lambda x, base: (x - x.mean()) ** 2),
        Mistake("total", "Yours adds everything up.", lambda x, base: (base + (x - x.mean()) ** 2).sum()),
    ),
    hints=("Think.", "Square."),
    discussion="Well spread.",
    properties=(Property("A spread is never below its base; yours is.", lambda y, x, base: bool((y >= base).all())),),
    teaches=("var",),
)
WIDEST = Exercise(
    id="99_widest",
    kind="finding",
    level=2,
    points=1.0,
    minutes=5,
    reference=lambda lm: int(lm.W_E.norm(dim=-1).argmax()),
    cases=lambda seed: [(Tiny(seed),), (Tiny(seed + 1, "gpt2"),)],
    mistakes=(
        Mistake("narrowest", "Yours is the narrowest.", lambda lm: int(lm.W_E.norm(dim=-1).argmin())),
        Mistake("largest", "Yours has the largest entry.", lambda lm: int(lm.W_E.max(-1).values.argmax())),
    ),
    hints=("Norms.", "Argmax."),
    discussion="Found.",
)
RIGHT = "(base + (x - x.mean()) ** 2)"


COUNT = Exercise(
    id="99_count",
    kind="finding",
    level=1,
    points=1.0,
    minutes=5,
    reference=lambda words: len(words) + words.place("the"),
    cases=lambda seed: [(Words(100 + seed),)],
    mistakes=(Mistake("all", "All.", lambda words: 400_000), Mistake("none", "None.", lambda words: 0)),
    hints=("Count.", "len."),
    discussion="Counted.",
)


def judge(notebook, source, exercise=SPREAD, name="spread", **around):
    setup = notebook.run("import torch\nimport numpy as np")
    notebook.run(source)
    around = {"imports": imports_of(setup, notebook), "answers": {}, "notebook": notebook} | around
    return check(exercise, notebook[name], Surroundings(**around))


def returning(value):
    return f"def spread(x, base): return {value}"


@pytest.mark.parametrize(
    "value",
    [
        RIGHT,
        f"{RIGHT}.tolist()",
        f"tuple({RIGHT})",
        f"{RIGHT}.numpy()",
        f"{RIGHT}.double()",
        f"{RIGHT}.requires_grad_()",
        f"torch.nn.Parameter({RIGHT})",
        "np.array(base + (x.numpy() - x.numpy().mean()) ** 2)",
        "[base + (float(v) - float(x.mean())) ** 2 for v in x]",
        "(base + (v - x.mean()) ** 2 for v in x)",
    ],
)
def test_a_right_answer_passes_however_it_is_written(notebook, value):
    verdict = judge(notebook, returning(value))
    assert (verdict.status, verdict.stage, verdict.message) == ("passed", "", "Well spread.")
    assert len(verdict.results) == 2


@pytest.mark.parametrize(
    ("body", "stage", "words"),
    [
        ("raise NotImplementedError()", "", ""),
        ("return x / 'a'", "running", "At line 2 of your cell, `return x / 'a'`, it raised TypeError"),
        ("x += 1; return x", "running", "It edits its argument `x`"),
        ("return torch.var(x)", "running", "It calls `var`: this is what you are asked to write."),
        ("return", "type", "returned None; wanted a tensor of shape [4]"),
        ("print(x)", "type", "It prints its result instead of returning it: end with `return`."),
        ("return 'x'", "type", "Wanted a tensor of shape [4]; came a string"),
        ("return spread", "type", "came an object of type function"),
        ("return x[1:]", "shape", "Wanted shape [4]; came [3]"),
        ("return x * float('nan')", "property", "There is a NaN"),
        ("return x - 100", "property", "never below its base"),
        ("return x + 100", "values", "4 of 4 values differ"),
    ],
)
def test_the_first_thing_that_is_wrong_is_said(notebook, body, stage, words):
    verdict = judge(notebook, f"def spread(x, base):\n    {body}")
    assert verdict.status == ("failed" if stage else "not attempted")
    assert verdict.stage == stage
    assert words in verdict.message
    assert verdict.mistake == ""


@pytest.mark.parametrize(
    "answer", [None, 3, "spread", [spread], torch.ones(2)], ids=["none", "number", "name", "list", "tensor"]
)
def test_an_answer_that_is_not_callable_is_of_the_wrong_type(answer):
    verdict = check(SPREAD, answer, Surroundings({}, {}, {}))
    assert (verdict.status, verdict.stage) == ("failed", "type")
    assert "Wanted the function `spread`" in verdict.message


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ("base + abs(x - x.mean())", "not_squared"),
        ("(base + x * x).tolist()", "no_mean"),
        ("(x - x.mean()) ** 2", "no_base"),
        ("float((base + (x - x.mean()) ** 2).sum())", "total"),
        ("base + x ** 2 if base else x", ""),
        ("x if base else x ** 2", ""),
    ],
)
def test_a_known_mistake_is_named_only_if_it_agrees_on_every_case(notebook, value, mistake):
    verdict = judge(notebook, returning(value))
    assert verdict.status == "failed"
    assert verdict.mistake == mistake
    sentences = {each.name: each.sentence for each in SPREAD.mistakes}
    assert verdict.message == sentences[mistake] if mistake else verdict.message not in sentences.values()


def test_a_mistake_that_agrees_on_the_first_case_alone_is_not_met(notebook):
    assert judge(notebook, returning(f"{RIGHT} if not base else {RIGHT} + 1")).mistake == ""


def test_a_mistake_that_goes_wrong_in_any_way_is_never_met():
    for results in ([None, None], [torch.zeros(4), torch.zeros(6)]):
        assert Question(SPREAD, spread_cases(0)).diagnose(results) is None


def test_a_property_is_asked_of_the_numbers_however_they_are_written(notebook):
    assert judge(notebook, returning("(x.abs() + base + 100).tolist()")).stage == "values"


def test_a_property_that_cannot_be_computed_does_not_hold(notebook):
    broken = replace(SPREAD, properties=(Property("It is broken.", lambda *_: 1 / 0),))
    assert judge(notebook, returning("x + 100"), broken).message == "It is broken."


class Everything:
    def __eq__(self, other):
        return True

    def __repr__(self):
        raise RuntimeError("no name")

    __hash__ = None


@pytest.mark.parametrize("kind", ["code", "finding"])
@pytest.mark.parametrize("result", [Everything(), [Everything()], {"a": Everything()}], ids=["one", "list", "dict"])
def test_an_object_that_equals_everything_fails_and_raises_nothing(kind, result):
    exercise = replace(SPREAD, kind=kind)
    assert check(exercise, lambda x, base: result, Surroundings({}, {}, {})).stage == "type"


# what stands around an answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        f"def centred(x): return (x - x.mean()) ** 2\n{returning('base + centred(x)')}",
        f"from math import sqrt\nHALF = 0.5\n{returning(RIGHT + ' + HALF - sqrt(0.25)')}",
        f"{returning('base + torch.square(x - np.mean(x.tolist()))')}",
        "spread = lambda x, base, two=2: base + (x - x.mean()) ** two",
        "from functools import partial\nspread = partial(lambda two, x, base: base + (x - x.mean()) ** two, 2)",
        "class Spread:\n    def __call__(self, x, base): return base + (x - x.mean()) ** 2\nspread = Spread()",
        "def make(two): return lambda x, base: base + (x - x.mean()) ** two\nspread = make(2)",
        f"@torch.no_grad()\n{returning(RIGHT)}",
    ],
)
def test_an_answer_may_use_its_own_cell_and_the_setups_imports(notebook, source):
    assert judge(notebook, source).passed


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        ("thing = 2", "leans on the notebook's variable `thing`"),
        ("def thing(x): return x ** 2", "leans on the notebook's variable `thing`"),
        (
            "import math as thing",
            "uses `thing`, which another cell imports: put that import into the answer's own cell",
        ),
    ],
)
def test_an_answer_that_leans_on_another_cell_is_told_on_what(notebook, elsewhere, said):
    notebook.run(elsewhere)
    verdict = judge(notebook, returning("x if thing else base"))
    assert verdict.stage == "running"
    assert said in verdict.message


def test_a_name_that_is_nowhere_is_an_ordinary_error(notebook):
    assert "NameError: name 'nowhere' is not defined" in judge(notebook, returning("nowhere(x)")).message


def test_an_answer_may_call_earlier_answers(notebook):
    source = returning("base + centre(x) ** 2")
    assert judge(notebook, source, answers={"centre": lambda x: x - x.mean()}).passed
    assert not judge(notebook, source).passed


@pytest.mark.parametrize("ending", ["return x", "return None", "raise ValueError"])
def test_what_a_wrong_answer_printed_is_kept(notebook, ending):
    assert judge(notebook, f"def spread(x, base):\n    print('so far', base)\n    {ending}").printed.startswith(
        "so far"
    )


@pytest.mark.parametrize(
    "source",
    [
        returning("torch.var(x)"),
        "def spread(x, base):\n    from torch import var\n    return var(x)",
        f"def helper(x): return torch.var(x)\n{returning('helper(x)')}",
        f"@torch.no_grad()\n{returning('x.var()')}",
    ],
)
def test_what_the_exercise_teaches_may_not_be_called(notebook, source):
    assert judge(notebook, source).message == "It calls `var`: this is what you are asked to write."


@pytest.mark.parametrize("taught", ["var", "spread"])
def test_a_function_of_ones_own_may_have_a_taught_name(notebook, taught):
    source = f"def var(x): return (x - x.mean()) ** 2\n{returning('base + var(x)')}"
    assert judge(notebook, source, replace(SPREAD, teaches=(taught,))).passed


# models, cases and time ---------------------------------------------------------------------------------------


def test_a_finding_is_computed_on_tiny_models(notebook):
    right = "def widest(lm): return lm.W_E.square().sum(-1).argmax()"
    assert judge(notebook, right, WIDEST, "widest").passed
    wrong = judge(notebook, right.replace("argmax", "argmin"), WIDEST, "widest")
    assert (wrong.stage, wrong.message) == ("values", "Yours is the narrowest.")


def test_a_typed_finding_is_shown_but_not_corrected(notebook):
    verdict = judge(notebook, "def widest(lm): return 10 ** 6", WIDEST, "widest")
    assert verdict.message == (
        "Yours is 1000000: not what tiny llama shows, a small random model on which your function has to work as well."
    )


def test_a_wrong_number_is_shown_with_four_digits(notebook):
    exercise = replace(WIDEST, reference=lambda x: 0.5, cases=lambda seed: [(1,)], mistakes=())
    verdict = judge(notebook, "def widest(x): return 1 / 3", exercise, "widest")
    assert verdict.message == "Yours is 0.3333: not what these data give."


def test_a_finding_of_parts_says_which_part_differs_and_not_what_was_wanted(notebook):
    exercise = replace(WIDEST, reference=lambda x: {"size": 3, "name": "a"}, cases=lambda seed: [(1,)], mistakes=())
    verdict = judge(notebook, 'def widest(x): return {"size": 3, "name": "b"}', exercise, "widest")
    assert verdict.message == (
        "Yours is {'size': 3, 'name': 'b'}: not what these data give. It first differs at ['name']."
    )


def test_the_lessons_model_stands_in_for_itself(notebook):
    exercise = replace(WIDEST, reference=lambda lm: lm.layers, cases=lambda seed: [(MODEL,)])
    model = SimpleNamespace(layers=3)
    assert judge(notebook, "def widest(lm): return lm.layers", exercise, "widest", model=model).passed


def test_a_seed_draws_other_cases(notebook):
    source = returning(f"{RIGHT} if float(x[0]) in {[float(case[0][0]) for case in spread_cases(0)]} else x")
    notebook.run("import torch\n" + source)
    verdicts = [check(SPREAD, notebook["spread"], Surroundings({}, {}, notebook), seed).status for seed in (0, 1)]
    assert verdicts == ["passed", "failed"]


def test_an_endless_loop_is_stopped(notebook):
    verdict = judge(notebook, "def spread(x, base):\n    while True: pass", seconds=0.05)
    assert verdict.stage == "running"
    assert "still running after 0.05 seconds" in verdict.message


def test_a_function_that_was_defined_anew_is_judged_as_it_is_now(notebook):
    assert not judge(notebook, returning("x + 100")).passed
    assert judge(notebook, returning(RIGHT)).passed
    notebook["kept"] = notebook["spread"]
    notebook.run(returning("x + 100"))
    assert check(SPREAD, notebook["kept"], Surroundings({}, {}, notebook)).passed


def test_an_answer_without_source_is_still_judged(notebook):
    exec(returning("base + (x - x.mean()) ** 2"), notebook)
    assert not linecache.getlines(notebook["spread"].__code__.co_filename)
    assert check(SPREAD, notebook["spread"], Surroundings({}, {}, notebook)).passed


def test_a_check_does_not_disturb_the_notebooks_random_numbers(notebook):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    judge(notebook, returning("torch.rand(9)"))
    assert torch.rand(1) == expected


def test_words_stand_for_gloves_commonest(notebook):
    assert judge(notebook, "def count(words):\n    return len(words)", COUNT, "count").passed
    assert repr(Words()) == "words"
