"""An invented chapter, met as a learner meets it: by what it prints, what it records and what it returns."""

import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from mechkit.course import lesson as module
from mechkit.course import progress
from mechkit.course.cards import SHUTDOWN
from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Option
from mechkit.course.lesson import Lesson
from mechkit.course.progress import Progress
from mechkit.network.loading import ModelError

ROOT = Path(__file__).parents[2]


def twice(x):
    return [value + value for value in x]


def exercise(name, **fields):
    basis = {
        "id": f"99_{name}",
        "kind": "code",
        "level": 1,
        "points": 2.0,
        "minutes": 5,
        "reference": twice,
        "cases": lambda seed: [([1, 2, seed],)],
        "mistakes": (
            Mistake("squared", "Yours squares.", lambda x: [value**2 for value in x]),
            Mistake("same", "Yours is `x` itself.", list),
        ),
        "hints": ("Think of a number.", "Double it.", "Return `[2 * v for v in x]`."),
        "discussion": "Two is enough.",
    }
    return Exercise(**(basis | fields))


CLAIM = Claim(
    statements={"late": Option("It is late", True, "Yes."), "early": Option("It is early", False, "No: look again.")},
    evidence={"causal": Option("Causal", True, "Yes."), "readable": Option("Readable", False, "No.")},
    refuted_by={"control": Option("A control", True, "Yes."), "nothing": Option("Nothing", False, "No.")},
)
CHAPTER = Chapter(
    number="99",
    title="small",
    exercises=(
        exercise("twice"),
        exercise("pick", choice=True, points=4.0),
        exercise("again", library=lambda x: "ours"),
        exercise("deep", kind="finding", cases=lambda seed: [(MODEL,)], reference=lambda lm: lm),
    ),
    claim=CLAIM,
)
SOLVED = """def twice(x):
    return [2 * value for value in x]"""
RIGHT = "def twice(x): return [v + v for v in x]"
WRONG = "def twice(x): return x"
STUB = "def twice(x): raise NotImplementedError()"


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    monkeypatch.setattr(progress, "_MEMORY", {})
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)


@pytest.fixture
def lesson(notebook, monkeypatch):
    monkeypatch.setattr(module, "worked_solution", {"99_twice": SOLVED}.__getitem__)
    setup = notebook.run("import math")
    return Lesson(CHAPTER, notebook, setup=setup)


@pytest.fixture
def told(capsys):
    """Call something and return what it prints; stderr stays empty."""

    def tell(call, *arguments, **named):
        assert call(*arguments, **named) is None
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return tell


@pytest.fixture
def answer(notebook, lesson, told):
    """Run an answer's cell, check it, and return what is printed."""

    def check(source, name="twice"):
        notebook.run(source)
        return told(lesson.check, notebook[name])

    return check


def entry(name="twice"):
    return Progress().read()["exercises"].get(f"99_{name}", {})


# the verdict --------------------------------------------------------------------------------------------------


def test_a_known_mistake_reads_as_designed(answer):
    assert answer(WRONG) == ('✗ 99.1 twice · values\n  Yours is `x` itself.\n  Next: lesson.hint("twice") (1 of 3)\n')


def test_a_right_answer_reads_as_designed(answer):
    assert answer(RIGHT) == "✓ 99.1 twice · passed, 2 points\n  Two is enough.\n"


def test_an_untouched_answer_is_quiet(answer):
    assert answer(STUB) == "○ 99.1 twice · not attempted yet\n"
    assert entry() == {"status": "not attempted", "tries": 0}


def test_an_exception_is_one_line_of_the_learners(answer):
    assert "At line 2 of your cell, `return x.q`, it raised AttributeErr" in answer("def twice(x):\n    return x.q")


def test_the_setup_cells_imports_are_seen_and_other_cells_are_not(answer, notebook):
    assert "✓" in answer("def twice(x): return [math.floor(2 * v) for v in x]")
    notebook.run("two = 2")
    assert "leans on the notebook's variable `two`" in answer("def twice(x): return [two * v for v in x]")


def test_after_the_last_hint_the_next_step_is_the_solution(answer, lesson, told):
    for _ in range(3):
        told(lesson.hint, "twice")
    assert answer(WRONG).endswith('Next: lesson.reveal("twice")\n')


# which answer is meant ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["twice", "99_twice"])
def test_an_answer_may_be_checked_by_name(lesson, notebook, told, name):
    assert "Wanted the function `twice`; came nothing: run its cell" in told(lesson.check, name)
    notebook.run(WRONG)
    assert "✗" in told(lesson.check, name)
    notebook.run(RIGHT)
    assert "✓" in told(lesson.check, name)


@pytest.mark.parametrize(
    "source",
    [
        "twice = lambda x: [v + v for v in x]",
        "from functools import partial\ntwice = partial(lambda k, x: [k * v for v in x], 2)",
        "class Twice:\n    def __call__(self, x): return [v + v for v in x]\ntwice = Twice()",
        "def other_name(x): return [v + v for v in x]\ntwice = other_name",
    ],
)
def test_an_answer_goes_by_the_name_that_the_notebook_gives_it(answer, source):
    assert answer(source).startswith("✓ 99.1 twice · passed")


@pytest.mark.parametrize("value", ["None", "7", "'L5H1'", "[1, 2]", "...", "float('nan')"])
def test_an_answer_that_is_no_function_is_said_to_be_none(answer, value):
    assert "✗ 99.1 twice · type\n  Wanted the function `twice`" in answer(f"twice = {value}")


CHAOS = {
    "endless_text": "def twice(x): raise ValueError('x' * 10**6)",
    "exit": "def twice(x): exit()",
    "interrupt": "def twice(x): raise KeyboardInterrupt",
    "group": "def twice(x): raise BaseExceptionGroup('g', [KeyboardInterrupt()])",
    "own exception": "class E(BaseException):\n    def __str__(self): raise E\ndef twice(x): raise E",
    "everything": "class A:\n    def __getattr__(self, name): return self\n    __call__ = lambda s, *a: s\ntwice = A()",
    "class": "class twice:\n    def __init__(self, x): pass",
    "metaclass": "class M(type):\n    def __call__(self, x): return 1 / 0\nclass twice(metaclass=M): pass",
    "coroutine": "async def twice(x): return x",
    "async generator": "async def twice(x): yield x",
    "generator": "def twice(x): yield from (1 / 0 for _ in x)",
    "itself": "def twice(x): return twice",
    "itself inside": "def twice(x):\n    x = []\n    x.append(x)\n    return x",
    "unprintable": "class U:\n    __repr__ = None\n    __eq__ = lambda *_: True\ndef twice(x): return [U(), U(), U()]",
    "surrogate": "def twice(x): raise ValueError('\\ud800')",
    "builtin": "twice = len",
    "type": "twice = int",
    "module": "import math as twice",
    "recursion": "def twice(x): return twice(x)",
    "deleted": "def twice(x):\n    del x[:]",
    "cell": "def twice(x):\n    raise NameError(\"name 'x' is not defined\")",
}


@pytest.mark.parametrize("source", CHAOS.values(), ids=CHAOS)
def test_a_check_never_raises_whatever_the_answer_does(answer, source):
    said = answer(source)
    assert said.startswith("✗ 99.1 twice · ")
    assert len(said) < 1000


UNKNOWN = "chapter 99 has no exercise 'thrice'; its exercises are twice, pick, again, deep"


@pytest.mark.parametrize("method", ["check", "hint", "reveal"])
def test_an_unknown_name_is_answered_with_the_known_ones(lesson, told, method):
    assert told(getattr(lesson, method), "thrice") == f"✗ No such exercise\n  {UNKNOWN}.\n"


def test_a_function_that_no_exercise_asks_for_is_no_traceback(lesson, told, notebook):
    notebook.run("def thrice(x): return 3 * x")
    assert UNKNOWN in told(lesson.check, notebook["thrice"])


def test_an_unknown_name_earns_nothing_under_nbgrader(lesson, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert lesson.check("thrice") == 0.0


def test_nothing_can_be_used_under_an_unknown_name(lesson):
    with pytest.raises(ValueError, match=UNKNOWN):
        lesson.use("thrice")


def test_an_unknown_chapter_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"there is no chapter '99'; the chapters are .*04"):
        module.find_chapter("99")


# what is recorded ---------------------------------------------------------------------------------------------


def test_tries_and_mistakes_are_recorded(answer):
    for source in (WRONG, "def twice(x): return x + y", WRONG):
        answer(source)
    assert entry() == {"status": "failed", "tries": 3, "mistakes": ["same", "same"]}
    answer(RIGHT)
    assert entry() | {"mistakes": []} == {"status": "passed", "tries": 3, "mistakes": [], "points": 2.0}


def test_what_has_passed_stays_passed(answer):
    answer(RIGHT)
    answer(WRONG)
    answer(STUB)
    assert entry() == {"status": "passed", "tries": 0, "points": 2.0}


def test_a_wrong_answer_shows_what_it_printed(answer):
    assert answer("def twice(x):\n    print('x is', x)\n    return x").endswith("It printed:\n    x is [1, 2, 0]\n")


def test_an_answer_may_not_call_a_later_one(answer):
    answer("def again(x): return twice(x)", "again")
    assert "✓" not in answer("def twice(x): return again(x)")


def test_each_wrong_try_of_a_choice_halves_its_points(answer):
    wrong, right = "def pick(x): return x", RIGHT.replace("twice", "pick")
    assert "Each wrong choice halves the points: 2 left." in answer(wrong, "pick")
    assert "Each wrong choice halves the points: 1 left." in answer(wrong, "pick")
    assert "passed, 1 point\n" in answer(right, "pick")
    assert entry("pick")["points"] == 1.0


def test_a_slip_in_the_code_of_a_choice_costs_nothing(answer):
    answer("def pick(x): return 1 / 0", "pick")
    answer("def pick(x): return 'words'", "pick")
    assert "passed, 4 points\n" in answer(RIGHT.replace("twice", "pick"), "pick")


def test_two_lessons_share_one_record(lesson, notebook, answer, told):
    other = Lesson(CHAPTER, notebook)
    told(other.hint, "twice")
    assert "(2 of 3)" in answer(WRONG)
    assert "hint 2 of 3" in told(other.hint, "twice")


def test_a_disk_that_refuses_is_said_once_and_loses_nothing(notebook, tmp_path, monkeypatch, told):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path / "file"))
    first = Lesson(CHAPTER, notebook)
    assert told(first.hint, "twice").count("cannot be saved") == 1
    assert "hint 2 of 3" in told(first.hint, "twice")
    assert told(Lesson(CHAPTER, notebook).hint, "twice") == (
        "○ 99.1 twice · hint 3 of 3\n  Return `[2 * v for v in x]`.\n"
    )


def test_a_summary_says_what_is_open(lesson, answer, told):
    answer(RIGHT)
    assert told(lesson.summary) == "○ Chapter 99, small: 1 of 4\n  2 of 10 points.\n  Still open: pick, again, deep.\n"


def test_in_jupyterlab_a_summary_offers_to_shut_the_kernel_down(lesson, told, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "99_small.ipynb")
    monkeypatch.delenv("VSCODE_PID", raising=False)
    assert told(lesson.summary).endswith(f"\n{SHUTDOWN.text}\n")


def test_whoever_comes_back_is_told_what_was_kept(notebook, lesson, answer, told):
    assert told(Lesson(CHAPTER, notebook).welcome_back) == ""
    answer(WRONG)
    assert told(Lesson(CHAPTER, notebook).welcome_back) == ""
    answer(RIGHT)
    assert told(Lesson(CHAPTER, notebook).welcome_back) == (
        "○ Chapter 99, welcome back: 1 of 4 passed\n  Your progress is kept. A new kernel knows none of your answers: "
        "run their cells and checks again, and later cells use them.\n"
    )


def test_without_its_model_a_check_says_so_and_records_nothing(notebook, told, monkeypatch):
    def refuse(name):
        raise ModelError("wanted a model; there is none: fetch it")

    monkeypatch.setattr(module, "load_model", refuse)
    here = Lesson(CHAPTER, notebook)
    notebook.run("def deep(lm): return lm")
    assert told(here.check, notebook["deep"]) == (
        "✗ 99.4 deep · no model\n  This check takes the model: wanted a model; there is none: fetch it.\n"
        "  Nothing was recorded.\n"
    )
    assert entry("deep") == {}
    monkeypatch.setattr(Lesson.__dict__["model"], "func", lambda self: "the model")  # fetched since
    assert "99.4 deep · passed" in told(here.check, notebook["deep"])


# hints, solution, use -----------------------------------------------------------------------------------------


def test_hints_come_one_by_one_and_the_last_stays(lesson, told):
    shown = [told(lesson.hint, "twice") for _ in range(4)]
    assert shown[0] == "○ 99.1 twice · hint 1 of 3\n  Think of a number.\n"
    assert [text.splitlines()[0][-6:] for text in shown] == ["1 of 3", "2 of 3", "3 of 3", "3 of 3"]
    assert shown[2] == shown[3]


def test_a_solution_is_shown_after_all_hints_and_one_real_attempt(lesson, answer, told):
    assert 'First, 3 more hints, lesson.hint("twice").' in told(lesson.reveal, "twice")
    told(lesson.hint, "99_twice")
    told(lesson.hint, "99_twice")
    assert 'First, 1 more hint, lesson.hint("twice").' in told(lesson.reveal, "twice")
    told(lesson.hint, "99_twice")
    answer(STUB)
    assert "First, one real attempt, checked." in told(lesson.reveal, "twice")
    assert not entry().get("seen")
    answer(WRONG)
    shown = told(lesson.reveal, "twice")
    assert shown.startswith("○ 99.1 twice · a worked solution\n")
    assert "    def twice(x):\n        return [2 * value for value in x]\n" in shown
    assert entry()["seen"]


def test_who_has_passed_may_see_the_solution_without_a_hint(lesson, answer, told):
    answer(RIGHT)
    shown = told(lesson.reveal, "twice")
    assert "Seeing it costs no points." in shown
    assert "    def twice(x):" in shown


@pytest.mark.parametrize("name", ["again", "99_again"])
def test_use_hands_out_ours_until_theirs_has_passed(lesson, answer, capsys, name):
    assert lesson.use(name)([1]) == "ours"
    assert capsys.readouterr().out == "Using again: ours, until yours passes.\n"
    answer("def again(x): return x", "again")
    assert lesson.use(name)([1]) == "ours"
    answer("def again(x): return twice(x)", "again")
    mine = lesson.use(name)
    assert capsys.readouterr().out.endswith("Using again: your own.\n")
    assert mine([1]) == [2]  # with our `twice`, which its check gave it
    answer("def again(x): return x", "again")
    assert lesson.use(name) is mine


def test_use_says_that_a_new_kernel_does_not_know_what_has_passed(notebook, answer, capsys):
    answer(RIGHT)
    Lesson(CHAPTER, notebook).use("twice")
    assert "Using twice: ours; yours passed in an earlier kernel: run its cell" in capsys.readouterr().out


@pytest.mark.parametrize(
    "form", ["[v + v for v in x]", "tuple(v + v for v in x)", "np.array(x) * 2", "2 * torch.tensor(x)"]
)
def test_what_use_hands_out_gives_results_in_our_form(lesson, answer, form):
    answer(f"import numpy as np, torch\ndef twice(x): return {form}")
    assert lesson.use("twice")([1, 2, 3, 4]) == [2, 4, 6, 8]


def test_an_answer_is_given_the_learners_own_earlier_answer_once_it_has_passed(lesson, answer, notebook):
    answer("used = []\ndef twice(x):\n    used.append(1)\n    return [v + v for v in x]")
    notebook["used"].clear()
    assert "✓" in answer("def again(x): return twice(x)", "again")
    assert notebook["used"]


def test_the_model_is_loaded_once_and_only_when_an_exercise_needs_it(answer, monkeypatch):
    loaded = []
    monkeypatch.setattr(Lesson.__dict__["model"], "func", lambda self: loaded.append(1) or "the model")
    answer(RIGHT)
    assert loaded == []
    assert "✓" in answer("def deep(lm): return 'the model'", "deep")
    assert "✓" in answer("def deep(lm): return lm", "deep")
    assert loaded == [1]


# predictions and the claim ------------------------------------------------------------------------------------


def predictions(name="loss"):
    return Progress().read()["predictions"].get(f"99_{name}")


def test_a_prediction_is_recorded_and_then_scored(lesson, told):
    assert told(lesson.predict, "loss", value=5.0) == "○ Prediction loss: value = 5\n  Recorded. Now look.\n"
    assert predictions() == {"guess": {"value": 5.0}}
    assert told(lesson.outcome, "loss", value=5.4, within=0.5) == (
        "✓ Prediction loss\n  value is 5.4; you said 5. Right.\n"
    )
    assert predictions() == {"guess": {"value": 5.0}, "outcome": {"value": 5.4}, "right": True}


def test_a_guess_may_change_until_its_outcome_is_seen(lesson, told):
    told(lesson.predict, "loss", value=1)
    told(lesson.predict, "loss", value=2)
    assert "✗" in told(lesson.outcome, "loss", value=3)
    assert "Your first guess stays" in told(lesson.predict, "loss", value=3)
    assert "you said 2" in told(lesson.outcome, "loss", value=3)
    assert predictions() == {"guess": {"value": 2}, "outcome": {"value": 3}, "right": False}


def test_no_guess_is_no_prediction(lesson, told):
    assert told(lesson.predict, "loss", value=...).startswith("○ Prediction loss: no guess yet")
    assert told(lesson.outcome, "loss", value=3) == "○ Prediction loss\n  value is 3. You had not guessed.\n"
    assert predictions() is None


@pytest.mark.parametrize("guess", ["90%", "0.9", " -3 ", "0,9", "1.5 %"])
def test_a_number_in_quotes_is_noticed_at_once(lesson, told, guess):
    assert "If a number was asked for, write it without quotes" in told(lesson.predict, "loss", value=guess)
    assert "Recorded. Now look." in told(lesson.predict, "loss", value=0.9)


@pytest.mark.parametrize("guess", ["small", "L3", "layer 3", "", "%", "3 or 4"])
def test_words_are_a_guess(lesson, told, guess):
    assert "Recorded. Now look." in told(lesson.predict, "loss", value=guess)


def test_words_for_a_number_do_not_count_as_a_guess(lesson, told):
    told(lesson.predict, "loss", value="small")
    assert told(lesson.outcome, "loss", value=3.0) == (
        "○ Prediction loss\n  value is 3, a number; you said 'small', which does not compare: it does not count.\n"
    )
    assert predictions() == {"guess": {"value": "small"}}


@pytest.mark.parametrize(
    ("guess", "truth", "right"),
    [
        (5, 5.0, True),
        (5, 6, False),
        (np.float32(0.5), 0.5, True),
        (3, np.int64(3), True),
        (torch.tensor(3), torch.tensor(3.0), True),
        ("late", "late", True),
        ("late", np.str_("early"), False),
        (("a", 1), ["a", 1], True),
        ([1, 2], torch.tensor([1, 2]), True),
        (True, np.True_, True),
        (float("nan"), 1.0, False),
        (object(), "x", False),
    ],
    ids=map(str, range(12)),
)
def test_a_guess_may_be_written_in_any_way(lesson, told, guess, truth, right):
    told(lesson.predict, "loss", value=guess)
    told(lesson.outcome, "loss", value=truth)
    assert predictions()["right"] is right


def test_a_claim_that_is_not_filled_in_offers_the_choices(lesson, told):
    said = told(lesson.claim, "late", evidence=...)
    assert said.startswith("○ Claim 99 · not filled in yet\n")
    assert '  statement, one of:\n  · "late": It is late\n  · "early": It is early\n  evidence, one of:\n' in said
    assert Progress().read()["claims"] == {}


@pytest.mark.parametrize(
    ("choices", "mark", "words"),
    [
        (("late", "causal", "control"), "✓ Claim 99 · supported", "statement: It is late. Yes."),
        (("early", "causal", "control"), "✗ Claim 99 · not what the chapter shows", "No: look again."),
        (("late", "felt", "control"), "✗", "evidence: wanted one of 'causal', 'readable'; came 'felt'."),
        (("late", ["causal"], None), "✗", "came ['causal']"),
    ],
)
def test_a_claim_is_answered_recorded_and_scored(lesson, told, choices, mark, words):
    said = told(lesson.claim, *choices)
    assert said.startswith(mark)
    assert words in said
    record = Progress().read()["claims"]["99"]
    assert record["statement"] == choices[0]
    assert record["right"] is (mark[0] == "✓")


# under nbgrader -----------------------------------------------------------------------------------------------

LOUD = """
import os, sys
def twice(x):
    os.write(2, b"C")
    __import__("logging").getLogger("somebody").error("logged")
    print("Python", file=sys.stderr)
    {}
"""


@pytest.mark.parametrize(
    ("source", "points"),
    [
        (RIGHT, 2.0),
        (LOUD.format("return [v + v for v in x]"), 2.0),
        (WRONG, 0.0),
        (STUB, 0.0),
        ("twice = None", 0.0),
        (LOUD.format("return 1 / 0"), 0.0),
    ],
)
def test_under_nbgrader_a_check_returns_its_points_and_stderr_stays_empty(notebook, monkeypatch, capfd, source, points):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    notebook.run(source)
    returned = Lesson(CHAPTER, notebook).check(notebook["twice"])
    assert (type(returned), returned) == (float, points)
    assert capfd.readouterr().err == ""


def test_a_grader_keeps_no_record_of_one_learner_for_the_next(notebook, monkeypatch, capsys):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    notebook.run("def pick(x): return x")
    Lesson(CHAPTER, notebook).check("pick")
    notebook.run(RIGHT.replace("twice", "pick"))
    assert Lesson(CHAPTER, notebook).check("pick") == 4.0
    assert not os.path.exists(os.environ["MECHKIT_HOME"])


# in a real kernel ---------------------------------------------------------------------------------------------

SETUP = """
import math
import sys

sys.path.insert(0, {folder!r})
import small_chapter
from mechkit.course import exercises

exercises.NUMBERS += ("99",)
sys.modules["mechkit.course.exercises.ch99"] = small_chapter
import mechkit as mk
lesson = mk.lesson("99")
"""
CELLS = {
    "setup": SETUP,
    "elsewhere": "two = 2",
    "stub": "def twice(x):\n    raise NotImplementedError()",
    "not attempted": "lesson.check(twice)",
    "broken": "# my try\n\ndef half(x):\n    return x.half_of_it\n\n\ndef twice(x):\n    return half(x)",
    "exception": "lesson.check(twice)",
    "leans": "def twice(x): return [two * v for v in x]",
    "leaning": "lesson.check(twice)",
    "magic": "%matplotlib inline\nk = 2\ndef twice(x): return [math.floor(k * v) for v in x]",
    "passed": "lesson.check(twice)",
    "by name": "lesson.check('twice')",
    "endless": "def twice(x):\n    while True: pass",
    "stopped": "from mechkit.course.answer import run_answer\nprint(run_answer(twice, ([1],), 0.5).trouble)",
    "later": "import time\nfor _ in range(30): time.sleep(0.05)\nprint('undisturbed')",
    "loud": LOUD.format("return [v + v for v in x]"),
    "heard": "lesson.check(twice)",
}


def run_in_kernel(folder, **environment):
    """Every cell's outputs by its name, from a kernel of its own."""
    folder.mkdir()
    (folder / "small_chapter.py").write_text(SMALL_CHAPTER, encoding="utf-8")
    cells = [nbformat.v4.new_code_cell(source.replace("{folder!r}", repr(str(folder)))) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    environment = {**os.environ, "MECHKIT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), **environment}
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


SMALL_CHAPTER = """
from mechkit.course.exercise import Chapter, Claim, Exercise, Mistake

CHAPTER = Chapter(
    "99",
    "small",
    [
        Exercise(
            "99_twice", "code", 1, 2.0, 5,
            reference=lambda x: [v + v for v in x],
            cases=lambda seed: [([1, 2, seed],)],
            mistakes=[Mistake("same", "Yours is the same.", lambda x: x)],
            hints=["Think.", "Double."],
            discussion="Two is enough.",
        )
    ],
    Claim({}, {}, {}),
)
"""


@pytest.fixture(scope="module")
def in_notebook(tmp_path_factory):
    return run_in_kernel(tmp_path_factory.mktemp("kernel") / "course")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("not attempted", "○ 99.1 twice · not attempted yet"),
        ("exception", "At line 4 of your cell, `return x.half_of_it`, it raised AttributeError"),
        ("leaning", "It leans on the notebook's variable `two`"),
        ("passed", "✓ 99.1 twice · passed, 2 points"),
        ("by name", "✓ 99.1 twice · passed, 2 points"),
    ],
)
def test_in_a_notebook_a_verdict_is_html_with_a_plain_twin(in_notebook, cell, text):
    [output] = in_notebook[cell]
    assert output.output_type == "display_data"
    assert text in output.data["text/plain"]
    assert output.data["text/html"].startswith('<div role="status"')


@pytest.mark.slow
def test_in_a_notebook_an_endless_loop_is_stopped_and_the_next_cell_undisturbed(in_notebook):
    assert "still running after 0.5 seconds" in in_notebook["stopped"][0].text
    assert in_notebook["later"][0].text == "undisturbed\n"


@pytest.mark.slow
def test_in_nbgraders_kernel_a_check_ends_in_its_points_and_nothing_is_on_stderr(tmp_path):
    outputs = run_in_kernel(tmp_path / "course", NBGRADER_EXECUTION="autograde")
    values = {"not attempted": "0.0", "exception": "0.0", "leaning": "0.0", "passed": "2.0", "heard": "2.0"}
    for cell, value in values.items():
        shown, result = outputs[cell]
        assert (shown.output_type, result.output_type) == ("display_data", "execute_result")
        assert result.data["text/plain"] == value
    assert not (tmp_path / "course" / "home").exists()
