"""A course for nbgrader, and what real nbgrader makes of it."""

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mechkit import cli
from mechkit.course.regions import MARKER
from mechkit.grading.handout import lay_out
from mechkit.network.assets import default_model
from tests.grading import conftest

ROOT = Path(__file__).parents[2]
NAME = "00_start_here"


def test_a_course_is_laid_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.main(["export", "nbgrader", str(tmp_path / "course"), "00"]) == 0
    source = tmp_path / "course" / "source" / NAME / f"{NAME}.ipynb"
    assert capsys.readouterr().out.strip() == str(source)
    assert source.read_bytes() == (ROOT / "solutions" / f"{NAME}.ipynb").read_bytes()
    assert (source.parent / "glossary.md").read_bytes() == (ROOT / "chapters" / "glossary.md").read_bytes()
    compile((tmp_path / "course" / "nbgrader_config.py").read_text(), "config", "exec")


def test_nothing_is_overwritten(tmp_path):
    lay_out(tmp_path, ROOT, ["00"])
    (tmp_path / "nbgrader_config.py").write_text("# mine")
    with pytest.raises(ValueError, match="is there already"):
        lay_out(tmp_path, ROOT, ["00"])
    assert len(lay_out(tmp_path, ROOT, ["04"])) == 1
    assert (tmp_path / "nbgrader_config.py").read_text() == "# mine"


def test_gradescopes_autograder_is_packed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "new" / "autograder.zip"
    assert cli.main(["export", "gradescope", str(path), "04"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert archive.getinfo("run_autograder").external_attr >> 16 == 0o755
        assert b"--chapter 04" in archive.read("run_autograder")
        assert archive.read("setup.sh").startswith(b"#!/bin/sh\nset -e")
    assert {"course/pyproject.toml", "course/mechkit/cli.py", "course/chapters/04_logit_lens.ipynb"} <= set(names)
    assert not [name for name in names if "solutions" in name or "__pycache__" in name]
    assert cli.main(["export", "gradescope", str(path), "04"]) == 1
    assert "is there already" in capsys.readouterr().err


STANDS_FOR_PYTHON = """#!/bin/sh
# `python3.11 -m venv FOLDER` without the network: this environment's Python, and the course that was packed
test "$1 $2" = "-m venv" || exit 1
mkdir -p "$3/bin" "$3/lib/python3.11/site-packages/mechkit"
printf '#!/bin/sh\\ntest -f "$2/pyproject.toml" && test -f "$2/README.md"\\n' > "$3/bin/pip"
printf '#!/bin/sh\\nPYTHONPATH=@ROOT@/source/course exec @PYTHON@ -m mechkit.cli "$@"\\n' > "$3/bin/mechkit"
chmod +x "$3/bin/pip" "$3/bin/mechkit"
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Gradescope's containers are Linux")
def test_gradescopes_scripts_run_as_they_are_packed(tmp_path, monkeypatch):
    """In a scratch folder instead of a container: only paths change, and what needs a network is stood in for."""
    monkeypatch.chdir(ROOT)
    root, programs = tmp_path / "autograder", tmp_path / "programs"
    assert cli.main(["export", "gradescope", str(tmp_path / "autograder.zip"), "00"]) == 0
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        archive.extractall(root / "source")
    for name in ("submission", "results", "cache"):
        (root / name).mkdir()
    (root / "cache").rmdir()
    (root / "cache").symlink_to(default_model().parent)
    programs.mkdir()
    python = STANDS_FOR_PYTHON.replace("@ROOT@", str(root)).replace("@PYTHON@", sys.executable)
    for name, script in {"apt-get": "#!/bin/sh\n", "python3.11": python}.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    solved = {"cosine": "def cosine(a, b):\n    return a @ b / (a.norm() * b.norm())"}
    answer = conftest.cell(solved["cosine"], metadata=conftest.mark("00_cosine"))
    (root / "submission" / "my notebook.ipynb").write_text(conftest.text([answer]))
    for name in ("setup.sh", "run_autograder"):
        script = (root / "source" / name).read_text().replace("/autograder", str(root))
        (tmp_path / name).write_text(script.replace("/tmp/graded", str(tmp_path / "graded")))
        environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        command = ["sh", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    results = json.loads((root / "results" / "results.json").read_text())
    assert [each["name"] for each in results["tests"] if each["status"] == "passed"] == ["cosine"]
    assert results["score"] == sum(each["score"] for each in results["tests"]) > 0
    assert (root / "source").stat().st_mode & 0o077 == 0, "answers that run as nobody find none of ours"


@pytest.mark.parametrize("names", [[], ["00", "04"]])
def test_gradescope_takes_one_chapter(tmp_path, names, capsys):
    assert cli.main(["export", "gradescope", str(tmp_path / "x.zip"), *names]) == 1
    assert "wanted one chapter" in capsys.readouterr().err


def nbgrader(course, *arguments):
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def submit(course, learner, answered):
    """A learner's notebook: the release, with so many of its answers filled in."""
    release = json.loads((course / "release" / NAME / f"{NAME}.ipynb").read_text())
    solution = json.loads((ROOT / "solutions" / f"{NAME}.ipynb").read_text())
    sources = {cell["id"]: "".join(cell["source"]).split("\n") for cell in solution["cells"]}
    left = answered
    for cell in release["cells"]:
        mark = cell["metadata"].get("nbgrader", {})
        if mark.get("solution") and left > 0:
            cell["source"] = "\n".join(line for line in sources[cell["id"]] if not MARKER.fullmatch(line))
            left -= "def " in cell["source"]
    path = course / "submitted" / learner / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(release))


@pytest.mark.slow
def test_nbgrader_gives_the_solution_all_the_untouched_nothing_and_a_half_its_half(tmp_path):
    course = tmp_path / "course"
    lay_out(course, ROOT, ["00"])
    nbgrader(course, "generate_assignment", NAME)
    for learner, answered in {"solved": 99, "untouched": 0, "half": 4}.items():
        submit(course, learner, answered)
    nbgrader(course, "autograde", NAME)
    scores = marks(course / "gradebook.db")
    ours = json.loads(grade(course, tmp_path / "out"))["records"]
    assert scores == {"solved": 23.0, "untouched": 0.0, "half": 5.0}
    assert {record["learner"]: record["points"] for record in ours} == scores


def marks(database):
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "select submitted_assignment.student_id, sum(coalesce(grade.manual_score, grade.auto_score, 0)) from grade "
            "join submitted_notebook on grade.notebook_id = submitted_notebook.id "
            "join submitted_assignment on submitted_notebook.assignment_id = submitted_assignment.id "
            "group by submitted_assignment.student_id"
        )
        return dict(rows.fetchall())


def grade(course, out):
    command = [sys.executable, "-m", "mechkit.cli", "grade", str(course / "submitted"), "--out", str(out), "--json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
