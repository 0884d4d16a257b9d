"""Chapters made from small solutions, and what is wrong with faulty ones; nbgrader 0.9 is the oracle."""

import copy
import json
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mechkit.course import authoring
from mechkit.course.proofreading import faults, leaks

ANSWER = '''def shift(x: list, by: int) -> list:
    """Move every item along."""
    ### BEGIN SOLUTION
    turned = x[-by:] + x[:-by]
    return list(turned)
    ### END SOLUTION'''
GUESS = "guess = ...\n### BEGIN SOLUTION\nguess = ['the middle one']\n### END SOLUTION\nprint(guess is ...)"
CHECK = """result = shift([1, 2, 3], 1)
print(result)
### BEGIN HIDDEN TESTS
assert result == [3, 1, 2]
### END HIDDEN TESTS"""
NAME = "solutions/99_small.ipynb"
WORKED = "mechkit/course/exercises/ch99_solutions.json"


def grader(grade_id, grade, solution, locked, **more):
    flags = {"grade": grade, "solution": solution, "locked": locked}
    return {"nbgrader": {"schema_version": 3, "grade_id": grade_id, **flags, **more}}


def solution_notebook():
    cells = [
        new_markdown_cell("# Small\nMove things along.", id="title"),
        new_code_cell("import math\nmath.floor(1.5)", id="setup", metadata=grader("99_setup", False, False, True)),
        new_code_cell(GUESS, id="guess", metadata=grader("99_guess", False, True, False)),
        new_code_cell(ANSWER, id="answer", metadata=grader("99_shift", False, True, False)),
        new_code_cell(CHECK, id="check", metadata=grader("99_shift_check", True, False, True, points=2)),
        new_code_cell("1 + 1", id="last", metadata={"tags": ["nbval-ignore-output"], "collapsed": True}),
    ]
    count = 0
    for cell in cells:
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [new_output("stream", name="stdout", text="stored\n")]
            cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    return new_notebook(cells=cells, metadata={"widgets": widgets, "language_info": {"name": "python"}})


@pytest.fixture
def notebook():
    return solution_notebook()


@pytest.fixture
def course(tmp_path, notebook):
    """A checkout with one solution and its chapter, both in order."""
    save(tmp_path, notebook)
    authoring.build(tmp_path)
    return tmp_path


def save(root, notebook, name=NAME):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(authoring.to_text(notebook), encoding="utf-8", newline="\n")


def chapter_of(root):
    return authoring.read(root / "chapters" / "99_small.ipynb")


def cell_of(notebook, cell_id):
    return next(cell for cell in notebook.cells if cell.id == cell_id)


def test_the_chapter_has_stubs_and_no_outputs(course):
    chapter = chapter_of(course)
    assert cell_of(chapter, "guess").source == "guess = ...\n# YOUR GUESS HERE\nprint(guess is ...)"
    assert cell_of(chapter, "answer").source.endswith("    # YOUR CODE HERE\n    raise NotImplementedError()")
    assert "HIDDEN" not in cell_of(chapter, "check").source
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_ids_and_tags_stay_and_what_is_volatile_goes(course, notebook):
    chapter = chapter_of(course)
    assert [cell.id for cell in chapter.cells] == [cell.id for cell in notebook.cells]
    assert cell_of(chapter, "last").metadata == {"tags": ["nbval-ignore-output"]}
    assert chapter.metadata.kernelspec.name == "python3"
    assert "widgets" not in chapter.metadata
    nbformat.validate(chapter)


def test_the_file_is_the_same_to_the_byte_every_time(course):
    path = course / "chapters" / "99_small.ipynb"
    before = path.read_bytes()
    assert authoring.build(course) == [path, course / WORKED]
    assert path.read_bytes() == before
    assert before.endswith(b"}\n")
    assert b"\r" not in before
    loaded = json.loads(before)
    assert before.decode() == json.dumps(loaded, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_chapter_is_nbgraders_own_release(course, notebook):
    """Every cell but a guess, which is ours, is what nbgrader's own preprocessors make of the source."""
    ours, theirs = chapter_of(course), nbgrader_release(notebook)
    for mine, other in zip(ours.cells, theirs.cells, strict=True):
        other.metadata = {key: value for key, value in other.metadata.items() if key not in ("execution", "collapsed")}
        if mine.id != "guess":
            assert mine == other


def nbgrader_release(notebook):
    script = (
        "import sys, nbformat\n"
        "from nbgrader.preprocessors import *\n"
        "nb = nbformat.reads(sys.stdin.read(), as_version=4)\n"
        "for step in (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums,"
        " ClearHiddenTests, ComputeChecksums, CheckCellMetadata):\n"
        "    nb, _ = step().preprocess(nb, {})\n"
        "print(nbformat.writes(nb))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=nbformat.writes(notebook),
        capture_output=True,
        text=True,
        check=True,
    )
    return nbformat.reads(done.stdout, as_version=4)


def test_checksums_are_nbgraders():
    kinds = [(False, True, False), (True, False, True), (True, True, False), (False, False, True)]
    graders = [grader("99_x", *kind, **({"points": 1.5} if kind[0] else {})) for kind in kinds]
    cells = [new_code_cell("x = 'é'", metadata=each) for each in graders]
    # in a process of its own: importing nbgrader replaces modules that others may have in use
    script = (
        "import sys, nbformat\nfrom nbgrader.utils import compute_checksum\n"
        "print(*map(compute_checksum, nbformat.reads(sys.stdin.read(), 4).cells))"
    )
    text = nbformat.writes(new_notebook(cells=cells))
    done = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [authoring.checksum(cell) for cell in cells]


def test_a_course_in_order_has_no_problems(course):
    assert authoring.check(course) == []


def test_an_edited_chapter_is_reported(course):
    path = course / "chapters" / "99_small.ipynb"
    path.write_bytes(path.read_bytes().replace(b"Move things along", b"Move things around"))
    assert authoring.check(course) == [f"chapters/99_small.ipynb is not what {NAME} generates; run `mechkit build`."]


def test_missing_orphaned_and_broken_chapters_are_reported(course):
    chapters = course / "chapters"
    (chapters / "99_small.ipynb").rename(chapters / "98_other.ipynb")
    assert authoring.check(course) == [
        "chapters/99_small.ipynb is missing; run `mechkit build`.",
        "chapters/98_other.ipynb has no solution: write solutions/98_other.ipynb, or delete it.",
    ]
    (chapters / "99_small.ipynb").write_text("{", encoding="utf-8")
    assert "chapters/99_small.ipynb is not a notebook" in authoring.check(course, ["99"])[-1]


def test_the_worked_solution_is_the_answer_cell_without_its_markers(course):
    """Of exercises only: nobody reveals a guess. The lines are the cell's, so that a change shows line by line."""
    text = (course / WORKED).read_bytes().decode()
    worked = json.loads(text)
    assert worked == {
        "99_shift": [
            "def shift(x: list, by: int) -> list:",
            '    """Move every item along."""',
            "    turned = x[-by:] + x[:-by]",
            "    return list(turned)",
        ]
    }
    assert text == json.dumps(worked, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_stale_missing_and_orphaned_worked_solutions_are_reported(course, notebook):
    stale = f"{WORKED} is not what {NAME} generates; run `mechkit build`."
    cell_of(notebook, "answer").source = ANSWER.replace("turned", "moved")
    save(course, notebook)
    for names in ([], ["99"]):
        assert authoring.check(course, names) == [stale]  # the chapter has not changed
    (course / WORKED).unlink()
    assert authoring.check(course) == [f"{WORKED} is missing; run `mechkit build`."]
    authoring.build(course, ["99"])
    assert authoring.check(course) == []
    (course / WORKED).with_name("ch98_solutions.json").write_text("{}\n")
    orphaned = WORKED.replace("99", "98")
    assert authoring.check(course) == [f"{orphaned} belongs to no solution; delete it."]


def test_names_choose_and_unknown_names_list_what_there_is(course):
    for name in ("99", "99_small", "99_small.ipynb", NAME):
        assert authoring.build(course, [name])[0].name == "99_small.ipynb"
    with pytest.raises(ValueError, match=r"no solution called '9'\. There are: 99_small"):
        authoring.build(course, ["9"])
    with pytest.raises(ValueError, match="has no solutions folder"):
        authoring.check(course / "chapters")


def change(cell_id, **new):
    """An edit of the small solution: a new source, or metadata keys of nbgrader to set or drop (None)."""

    def edit(notebook):
        cell = cell_of(notebook, cell_id)
        cell.source = new.pop("source", cell.source)
        for key, value in new.items():
            cell.metadata["nbgrader"][key] = value
            if value is None:
                del cell.metadata["nbgrader"][key]

    return edit


def drop_metadata(notebook):
    del cell_of(notebook, "answer").metadata["nbgrader"]


def share_id(notebook):
    notebook.cells[1].id = "title"


FAULTS = {
    "unbalanced": (
        change("answer", source=ANSWER + "\n### END SOLUTION"),
        "cell 4 ('answer'), ends a SOLUTION",
    ),
    "no metadata": (
        drop_metadata,
        "cell 4 ('answer'), has a SOLUTION region; its nbgrader metadata must say",
    ),
    "marker in prose": (
        change("title", source="### BEGIN SOLUTION"),
        "cell 1 ('title'), has a region marker",
    ),
    "no region": (change("answer", source="x = 1"), "cell 4 ('answer'), is marked as an answer and has no"),
    "hidden test elsewhere": (change("setup", source=CHECK), "cell 2 ('setup'), has HIDDEN TESTS"),
    "twice the same id": (share_id, "shares its id with another cell"),
    "twice the same grade_id": (
        change("guess", grade_id="99_shift"),
        "has the grade_id '99_shift', which another",
    ),
    "bad grade_id": (change("guess", grade_id="99 guess"), "has the grade_id '99 guess'; it must be letters"),
    "no check": (change("check", grade_id="99_other"), "no cell has the grade_id '99_shift_check'"),
    "no answer": (
        change("answer", grade_id="99_other"),
        "cell 5 ('check'), is a check without an answer: no answer has the grade_id '99_shift'",
    ),
    "no points": (change("check", points=None), "cell 5 ('check'), is graded and has points None"),
    "odd kind": (change("check", locked=False), "cell 5 ('check'), has nbgrader metadata of no known kind"),
    "old schema": (change("check", schema_version=1), "has nbgrader schema_version 1; it must be 3"),
    "stray key": (
        change("check", checksum="0"),
        "has nbgrader keys that do not belong in a source: checksum",
    ),
}


@pytest.mark.parametrize(("edit", "words"), FAULTS.values(), ids=FAULTS)
def test_faults_name_notebook_and_cell(edit, words, notebook, tmp_path):
    edit(notebook)
    found = faults(notebook, NAME)
    assert any(problem.startswith(f"{NAME}, cell") and words in problem for problem in found), found
    save(tmp_path, notebook)
    assert authoring.check(tmp_path) == found
    with pytest.raises(ValueError, match=r"99_small\.ipynb, cell"):
        authoring.build(tmp_path)
    assert not (tmp_path / "chapters").exists()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda raw: raw["cells"][1].pop("id"),
            "is not a valid notebook: cell 2 'id' is a required property",
        ),
        (lambda raw: raw["cells"][0].update(id="no spaces"), "cell 1 'no spaces' does not match"),
        (lambda raw: raw.update(nbformat_minor=4), "format before 4.5"),
        (lambda raw: raw.pop("nbformat"), "is not a notebook"),
    ],
)
def test_files_that_are_no_notebooks_get_a_sentence(edit, words, notebook, tmp_path):
    raw = json.loads(authoring.to_text(notebook))
    edit(raw)
    (tmp_path / "solutions").mkdir()
    (tmp_path / NAME).write_text(json.dumps(raw), encoding="utf-8")
    [problem] = authoring.check(tmp_path)
    assert problem.startswith(NAME)
    assert words in problem


def test_stale_outputs_are_reported_but_do_not_stop_a_build(notebook, tmp_path):
    cell_of(notebook, "last").execution_count = None
    save(tmp_path, notebook)
    authoring.build(tmp_path)
    assert authoring.check(tmp_path) == [f"{NAME} was not run from top to end; run `mechkit build --execute`."]
    cell_of(notebook, "last").execution_count = 5
    cell_of(notebook, "last").outputs = [new_output("error", ename="E", evalue="e", traceback=[])]
    save(tmp_path, notebook)
    assert "cell 6 ('last'), stores an error" in authoring.check(tmp_path)[0]


LEAKS = {
    "prose": lambda nb: cell_of(nb, "title").update(source="Write `turned = x[-by:] + x[:-by]`, then return."),
    "prose, respaced": lambda nb: cell_of(nb, "title").update(source="turned  =  x[-by:]\n+ x[:-by]"),
    "later code": lambda nb: cell_of(nb, "last").update(source="turned = x[-by:] + x[:-by]"),
    "docstring": lambda nb: cell_of(nb, "answer").update(source=ANSWER.replace("Move", "turned = x[-by:] + x[:-by]")),
    "the whole answer before it": lambda nb: cell_of(nb, "setup").update(
        source="turned = x[-by:] + x[:-by]\nlist(turned)\nreturn list(turned)"
    ),
    "a guess": lambda nb: cell_of(nb, "title").update(source="It says guess = ['the middle one'], of course."),
    "a tag": lambda nb: cell_of(nb, "last").metadata.update(tags=["turned = x[-by:] + x[:-by]"]),
    "a hidden test": lambda nb: cell_of(nb, "title").update(source="assert result == [3, 1, 2]"),
    "attachment": lambda nb: cell_of(nb, "title").update(
        attachments={"a": {"text/plain": "turned = x[-by:] + x[:-by]"}}
    ),
}


@pytest.mark.parametrize("edit", LEAKS.values(), ids=LEAKS)
def test_no_answer_leaves_with_the_chapter(edit, notebook, tmp_path):
    edit(notebook)
    save(tmp_path, notebook)
    with pytest.raises(ValueError, match=r"chapters/99_small\.ipynb, cell . .* gives away a line of the answer"):
        authoring.build(tmp_path)
    assert not (tmp_path / "chapters").exists()


def test_a_leak_in_a_committed_chapter_is_found(course):
    chapter = chapter_of(course)
    chapter.metadata["note"] = "turned = x[-by:] + x[:-by]"
    save(course, chapter, "chapters/99_small.ipynb")
    assert any("99_small.ipynb, metadata, gives away" in problem for problem in authoring.check(course))


def test_a_line_taught_before_may_come_back(notebook):
    cell_of(notebook, "setup").source = "x, by = [1, 2], 1\nturned = x[-by:] + x[:-by]\nprint(turned)"
    assert leaks(notebook, authoring.generate(notebook), "chapter") == []


@pytest.mark.slow
def test_execute_stores_fresh_outputs_and_leaves_progress_alone(tmp_path, notebook, monkeypatch):
    cell_of(notebook, "setup").source += "\nprint('one', flush=True)\nprint('two')\ndisplay('shown')\nprint('three')"
    cell_of(notebook, "last").source = (
        "import os\nfrom pathlib import Path\nhome = Path(os.environ['MECHKIT_HOME'])\n"
        "print(home.exists(), Path.cwd() in home.parents, Path('here').write_text('x'))\n"
        "import ipywidgets\nipywidgets.IntSlider()"
    )
    save(tmp_path, notebook)
    monkeypatch.setenv("MECHKIT_HOME", str(tmp_path / "learner"))
    authoring.build(tmp_path, execute=True)
    solved = authoring.read(tmp_path / NAME)
    assert cell_of(solved, "check").outputs[0].text == "[3, 1, 2]\n"
    first, shown, after = cell_of(solved, "setup").outputs
    assert (first.text, shown.data["text/plain"], after.text) == ("one\ntwo\n", "'shown'", "three\n")
    [printed] = cell_of(solved, "last").outputs  # a widget says nothing without its kernel
    assert printed.text == "False True 1\n"
    assert authoring.check(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chapters", "mechkit", "solutions"]


@pytest.mark.slow
def test_a_solution_that_does_not_run_is_left_as_it_was(tmp_path, notebook):
    cell_of(notebook, "last").source = "1 / 0"
    save(tmp_path, notebook)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(ValueError, match=r"(?s)solutions/99_small.ipynb does not run to its end.*ZeroDivisionError"):
        authoring.build(tmp_path, execute=True)
    assert (tmp_path / NAME).read_bytes() == before
    assert not (tmp_path / "chapters").exists()


def test_building_does_not_change_the_notebook_in_hand(notebook):
    before = copy.deepcopy(notebook)
    authoring.generate(notebook)
    assert notebook == before
