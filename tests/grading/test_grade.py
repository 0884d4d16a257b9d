"""Every kind of submission that a grader must survive, each answer between healthy neighbours."""

import json
import os
import time

import pytest

from mechkit.grading.grade import Grader, grade_one
from mechkit.grading.judge import Judge
from mechkit.grading.sandbox import NAMESPACES, NOBODY, PROCESS, TIME_ONLY, IsolationError
from tests.grading.conftest import (
    ANSWERS,
    LIMITS,
    SPREAD,
    cell,
    cells,
    loud_head,
    mark,
    needs_namespaces,
    spread,
    stubs,
    text,
)

RIGHT = "base + (x - x.mean()) ** 2"
HEAD = "def spread(x, base):\n"


def row(record, name):
    return next(each for each in record["exercises"] if each["name"] == name)


def bad(body):
    return HEAD + "\n".join(f"    {line}" for line in body.split("\n"))


def test_a_right_notebook_scores_all(grade):
    record = grade(cells())
    assert [each["status"] for each in record["exercises"]] == ["passed"] * 4
    assert (record["points"], record["max_points"], record["problem"]) == (8.0, 8.0, "")
    assert json.loads(json.dumps(record)) == record


def test_an_untouched_notebook_is_not_attempted(grade):
    record = grade(cells(**stubs()))
    assert {each["status"] for each in record["exercises"]} == {"not attempted"}
    assert record["points"] == 0


def test_a_stub_below_a_comment_is_not_attempted_either(grade):
    record = grade(cells(spread=bad("# todo\nraise NotImplementedError()")))
    assert row(record, "spread")["status"] == "not attempted"


def test_half_right_scores_half(grade):
    record = grade(cells(spread=stubs()["spread"], widest=stubs()["widest"]))
    assert record["points"] == 4.0
    assert row(record, "double")["status"] == "passed", "ours takes the place of the missing earlier answer"


def test_an_earlier_answer_that_is_wrong_does_not_spoil_a_later_one(grade):
    record = grade(cells(spread=bad("return x")))
    assert [each["points"] for each in record["exercises"]] == [0.0, 2.0, 2.0, 2.0]


def test_an_earlier_answer_that_passed_is_the_learners_own(grade):
    own = bad(f"global seen\nseen = True\nreturn ({RIGHT}).tolist()")
    record = grade(cells(spread=own, double="def double(x, base):\n    return spread(x, base) + spread(x, base)"))
    assert record["points"] == 8.0, "a list comes to the later answer as a tensor"


STYLES = [
    f"({RIGHT}).tolist()",
    f"({RIGHT}).numpy()",
    f"({RIGHT}).double()",
    f"({RIGHT}).half().double() * 0 + {RIGHT}",
    f"({RIGHT}).requires_grad_()",
    f"torch.nn.Parameter({RIGHT})",
    f"({RIGHT}).to_sparse()",
    f"(each for each in {RIGHT})",
    f"tuple({RIGHT})",
    f"({RIGHT})[None].expand(3, -1)[0]",
    f"__import__('numpy').float64(1.0) * ({RIGHT})",
]


@pytest.mark.parametrize("value", STYLES)
def test_a_right_answer_passes_however_it_is_written(grade, value):
    assert row(grade(cells(spread=bad(f"return {value}"))), "spread")["status"] == "passed"


CELLS = [
    f"%matplotlib inline\n!ls\n{ANSWERS['spread']}\nspread?",
    f"{ANSWERS['spread']}\nlesson.check(spread)\nprint(spread(data, 0))",
    f"thing = missing + 1\n{ANSWERS['spread']}",
    f"x = await nothing()\n{ANSWERS['spread']}",
    f"import warnings, sys\n{HEAD}    warnings.warn('careful'); print('x', file=sys.stderr)\n    return {RIGHT}",
    f"def centre(x):\n    return x - x.mean()\n{HEAD}    return base + centre(x) ** 2",
    f"spread = lambda x, base: {RIGHT}",
    f"class Spread:\n    def __call__(self, x, base): return {RIGHT}\nspread = Spread()",
    f"{HEAD}    import os; os.environ['HOME']; return {RIGHT}",
    f"{HEAD}    open('mine.txt', 'w').write('x'); return {RIGHT}",
    f"if True:\n    {HEAD}        return {RIGHT}",
    f"{ANSWERS['spread']}\nprint([torch.var(each) for each in data])",
    f"{HEAD}    import time; time.sleep(0.7); return {RIGHT}",
    f"get_ipython().ast_transformers.append(1)\n{ANSWERS['spread']}",
]


@pytest.mark.parametrize("source", CELLS)
def test_what_else_stands_in_the_cell_does_no_harm(grade, source):
    record = grade(cells(spread=source))
    assert row(record, "spread")["status"] == "passed", row(record, "spread")["message"]


ENDED = "ended the process"
WRONG = "values are not right"
HOSTILE = {
    "loop": ("while True: pass", "still running after 1.5 seconds"),
    "deaf loop": (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "still running",
    ),
    "sleep": ("import time\ntime.sleep(60)", "still running"),
    "input": ("return input()", "EOFError"),
    "exit at once": ("import os\nos._exit(0)", ENDED),
    "sys.exit": ("import sys\nsys.exit(0)", "SystemExit"),
    "keyboard": ("raise KeyboardInterrupt", "interrupted"),
    "exception that cannot speak": (
        "class E(Exception):\n    def __str__(self): raise E\nraise E",
        "raised",
    ),
    "segfault": ("import ctypes\nctypes.string_at(0)", "crashed"),
    "abort": ("import os\nos.abort()", "crashed"),
    "kill itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "crashed"),
    "stack": ("return spread(x, base)", "RecursionError"),
    "closed descriptors": ("import os\nos.closerange(0, 4096)\nreturn x", ENDED),
    "much output": ("for _ in range(200):\n    print('x' * 1_000_000)\nreturn x", WRONG),
    "control characters": ("raise ValueError('\\x1b[31m\\x00\\ud800<script>')", "ValueError"),
    "memory": ("return torch.ones(2**31)", "raised"),
    "memory by and by": ("kept = []\nwhile True: kept.append(bytearray(2**24))", ""),
    "forks": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", ""),
    "threads": (
        "import threading, time\nfor _ in range(5000):\n"
        "    threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\nreturn x",
        "",
    ),
    "huge result": ("return torch.ones(2**27)", ""),
    "fills the disk": (
        "parts = [open(f'{i}', 'wb') for i in range(100)]\n[part.write(b'0' * 2**20) for part in parts]\n"
        "[part.flush() for part in parts]\nreturn x",
        "",
    ),
    "network": ("import socket\nsocket.create_connection(('192.0.2.1', 80), 1)", "raised"),
    "equal to everything": (
        "class E:\n    def __eq__(self, other): return True\n    __len__ = lambda self: 4\nreturn E()",
        "came an object of type E",
    ),
    "malicious pickle": (
        "class P:\n    def __reduce__(self): return exec, ('raise SystemExit',)\nreturn P()",
        "came an object of type P",
    ),
    "float that lies": (
        "class F(float):\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\n"
        "    def __eq__(self, o): return True\nreturn [F(0)] * len(x)",
        WRONG,
    ),
    "tensor that lies": (
        "class T(torch.Tensor):\n    def __torch_function__(*a, **k): return torch.zeros(())\n"
        "return torch.zeros(len(x)).as_subclass(T)",
        WRONG,
    ),
    "patched torch": ("torch.allclose = torch.equal = lambda *a, **k: True\nreturn x", WRONG),
    "patched builtins": ("import builtins\nbuiltins.abs = builtins.all = lambda *a: True\nreturn x", WRONG),
    "patched time and random": (
        "import time, random\ntime.monotonic = time.time = lambda: 0\nrandom.seed = lambda *a: None\nreturn x",
        WRONG,
    ),
    "frames": (
        "import gc\nfound = [o for o in gc.get_objects() if type(o).__name__ in ('Exercise', 'Judge', 'Mistake')]\n"
        "return found[0].reference(x, base)",
        "IndexError",
    ),
    "the exercises": ("from mechkit.course.exercises import ch00\nreturn ch00.CHAPTER", "No module named"),
    "the grader": ("import mechkit.grading\nreturn x", "No module named"),
    "the lesson": ("return mk.lesson('99')", "No module named"),
    "a solution on disk": (
        "import glob\nfound = glob.glob('/**/solutions/*.ipynb', recursive=True)\nreturn open(found[0]).read()",
        "",
    ),
    "forged messages": (
        'import gc, socket\nbody = b\'{"dict": [["kind", "done"]]}\'\nfor o in gc.get_objects():\n'
        "    try: isinstance(o, socket.socket) and o.sendall(len(body).to_bytes(8, 'big') + bytes(8) + body)\n"
        "    except OSError: pass\nreturn x",
        "",
    ),
    "broken messages": (
        "import gc, socket\nfor o in gc.get_objects():\n"
        "    try: isinstance(o, socket.socket) and o.sendall(b'\\xff' * 64)\n    except OSError: pass\nreturn x",
        "cannot be read",
    ),
    "deep": ("found = []\nfor _ in range(100_000): found = [found]\nreturn found", ""),
    "NaN": ("return x * float('nan')", "NaN"),
    "None": ("pass", "returned None"),
    "prints": ("print(x)", "prints its result"),
    "mutates": (f"result = {RIGHT}\nx.zero_()\nreturn result", "edits its argument"),
    "typed in": ("return [0.5, 0.25, 0.125, 1.0] if len(x) == 4 else [0.5] * 6", WRONG),
    "leans": (f"return {RIGHT} + elsewhere", "leans on the notebook's variable `elsewhere`"),
    "taught": ("return torch.var(x)", "It calls `var`"),
    "unicode": ("return 'Ω\\u202e'", "came a string"),
    "taught through a lambda": ("return (lambda y: y.var())(x)", "It calls `var`"),
    "taught under another name": ("from torch import var as v\nreturn v(x)", "It calls `var`"),
}


# these take their time, or as much of the machine as they get
LONG = {"loop", "deaf loop", "sleep", "stack", "much output", "memory", "memory by and by", "forks", "threads"}
LONG |= {"huge result", "fills the disk", "deep", "network"}
PARAMETERS = [pytest.param(*each, id=name, marks=[pytest.mark.slow] * (name in LONG)) for name, each in HOSTILE.items()]


@pytest.mark.parametrize(("body", "words"), PARAMETERS)
def test_a_bad_answer_scores_nothing_and_harms_nobody(grade, body, words):
    started = time.monotonic()
    record = grade([*cells(spread=bad(body), double=ANSWERS["double"]), cell("elsewhere = 1")])
    mine = row(record, "spread")
    assert (mine["status"], mine["points"]) == ("failed", 0.0), mine
    assert words in mine["message"]
    assert record["points"] == 6.0, "its neighbours have full marks"
    assert time.monotonic() - started < LIMITS.whole + 12


BROKEN = {
    "syntax": ("def spread(x, base)\n    return x", "is not Python: expected ':' in line 1"),
    "null bytes": ("def spread(x, base):\n    return '\x00'", "is not Python"),
    "too deep": ("def spread(x, base):\n    return " + "(" * 5000 + ")" * 5000, "is not Python"),
    "a number": ("spread = 3", "Wanted the function `spread`; came an object of type int"),
    "another name": ("def spread_(x, base):\n    return x", "its cell does not define it"),
    "fails first": ("spread = 1 / 0", "ZeroDivisionError"),
    "return outside": ("def spread(x, base): return x\nreturn 3", ""),
    "loops at once": ("spread = [None for _ in iter(int, 1)]", "still running"),
    "exits at once": ("import os\nspread = os._exit(0)", "ended the process"),
}


@pytest.mark.parametrize(("source", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_cell_scores_nothing_and_harms_nobody(grade, source, words):
    record = grade(cells(spread=source))
    mine = row(record, "spread")
    assert (mine["status"], mine["points"]) == ("failed", 0.0), mine
    assert words in mine["message"]
    assert record["points"] == 6.0


def test_a_mistake_is_named(grade):
    mine = row(grade(cells(spread=bad("return (x - x.mean()) ** 2"))), "spread")
    assert (mine["mistake"], mine["message"]) == ("no_base", "Yours: no_base.")


def test_the_visible_examples_typed_in_fail_without_a_hidden_one_being_told(grade):
    typed = {round(float(x[0]), 4): spread(x, base).tolist() for x, base in SPREAD.cases(0)}
    leak = f"seen, key = {typed}, round(float(x[0]), 4)\nif key in seen: return seen[key]\nraise ValueError(str(x))"
    mine = row(grade(cells(spread=bad(leak))), "spread")
    assert mine["status"] == "failed"
    assert mine["message"] == "On an example that the notebook does not show it raised ValueError."


def test_a_head_read_off_the_notebooks_model_is_told_so(grade, models):
    layer, head = loud_head(models.original)
    mine = row(grade(cells(loud_head=f"def loud_head(lm):\n    return ({layer}, {head})")), "loud_head")
    assert mine["status"] == "failed"
    assert "instead of typing it in" in mine["message"]


def test_nothing_that_an_answer_leaves_behind_meets_the_next(grade, tmp_path):
    litter = bad(
        "import os, subprocess, sys\n"
        "for folder in ('.', os.path.expanduser('~'), '/tmp', sys.prefix, *sys.path):\n"
        "    try: open(os.path.join(folder, 'torch.py'), 'w').write('raise SystemExit')\n"
        "    except OSError: pass\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(77)'], start_new_session=True)\n"
        f"return {RIGHT}"
    )
    before = set(os.listdir("/tmp"))
    assert row(grade(cells(spread=litter)), "spread")["status"] in ("passed", "failed")
    assert grade(cells())["points"] == 8.0
    assert "torch.py" not in set(os.listdir("/tmp")) - before
    assert not [line for line in _command_lines() if "time.sleep(77)" in line]


def _command_lines():
    for each in os.listdir("/proc"):
        if each.isdigit():
            try:
                with open(f"/proc/{each}/cmdline", encoding="utf-8", errors="replace") as file:
                    yield file.read()
            except OSError:
                continue


# other levels, and grading one -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loop", "deaf loop", "exit at once", "segfault", "memory by and by", "forks"])
def test_without_namespaces_a_bad_answer_is_ended_too(template, models, tmp_path, name):
    path = tmp_path / "x.ipynb"
    path.write_text(text(cells(spread=bad(HOSTILE[name][0]))))
    with Grader(template, LIMITS, judge=Judge(11, models), strongest=PROCESS) as grader:
        assert grader.level in (PROCESS, NOBODY)
        assert grader.grade(path)["points"] == 6.0


@pytest.mark.slow
def test_with_nothing_but_fresh_processes(template, models, tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(text(cells(spread=bad("import os\nos._exit(3)"))))
    with Grader(template, LIMITS, judge=Judge(11, models), strongest=TIME_ONLY) as grader:
        assert grader.level == TIME_ONLY
        assert grader.grade(path)["points"] == 6.0


@pytest.mark.slow
def test_isolation_can_be_required(template, models):
    with pytest.raises(IsolationError, match="wanted the isolation 'namespaces'; this system gives 'process"):
        Grader(template, LIMITS, judge=Judge(11, models), strongest=PROCESS, required=True)


@needs_namespaces
def test_the_isolation_stands_in_the_record(grade, grader):
    assert grade(cells())["isolation"] == grader.level == NAMESPACES


def test_the_same_seed_gives_the_same_record(grade):
    first, again = (grade(cells(spread=bad("return x"))) for _ in range(2))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


@pytest.mark.parametrize("words", ["has no cell with a chapter's grade_id", "is not a notebook"])
def test_a_template_that_is_none_is_refused(tmp_path, words):
    path = tmp_path / "template.ipynb"
    path.write_text(text([cell("x")]) if "grade_id" in words else "nothing")
    with pytest.raises(ValueError, match=words):
        grade_one(path, path)


def test_marks_that_were_forged_count_for_nothing(grade):
    made = cells(spread=stubs()["spread"])
    made[2]["metadata"] = mark("99_spread_check", grade=True, solution=False, points=1000.0)
    made[2]["source"] = "1000.0"
    record = grade(made)
    assert (record["points"], record["max_points"]) == (6.0, 8.0)
