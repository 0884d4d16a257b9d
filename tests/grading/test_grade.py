"""One notebook becomes one record: right answers in every style, wrong ones, and what a lower isolation still holds."""

import hashlib
import json
import os

import pytest

from mechkit.grading.grade import Grader, grade_one
from mechkit.grading.judge import Judge
from mechkit.grading.sandbox import NAMESPACES, NOBODY, PROCESS, TIME_ONLY, IsolationError, SandboxError
from tests.grading.answers import HEAD, HOSTILE, RIGHT, bad
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


def row(record, name):
    return next(each for each in record["exercises"] if each["name"] == name)


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


def test_what_nobody_foresaw_of_one_answer_stays_with_it(grade, grader, monkeypatch):
    def judge(exercise, answered):
        if exercise.name == "spread":
            raise AttributeError("nobody foresaw this")
        return known(exercise, answered)

    known = grader.judge.judge
    monkeypatch.setattr(grader.judge, "judge", judge)
    record = grade(cells())
    assert [each["points"] for each in record["exercises"]] == [0.0, 2.0, 2.0, 2.0]
    assert row(record, "spread")["message"] == "It could not be judged (AttributeError)."


def test_a_sandbox_that_does_not_start_is_no_learners_fault(grade, grader, monkeypatch):
    def run():
        raise SandboxError("no process to be had")

    monkeypatch.setattr(grader._box, "run", run)
    with pytest.raises(SandboxError):
        grade(cells())


def test_what_is_graded_is_what_the_records_digest_is_of(grade, monkeypatch):
    """A file that changes while it is graded is read once."""
    monkeypatch.setattr("mechkit.grading.grade.digest_of", lambda path: "of what it is by now")
    record = grade(cells())
    assert record["sha256"] == hashlib.sha256(text(cells()).encode()).hexdigest()


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
