"""An invented chapter on a tiny model, its notebooks, and graders that share one sandbox."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mechkit.course import exercises
from mechkit.course.exercise import MODEL, Chapter, Claim, Exercise, Mistake, Tiny
from mechkit.grading import replies
from mechkit.grading.grade import Grader
from mechkit.grading.judge import Judge, Models
from mechkit.grading.sandbox import Limits
from mechkit.network.tiny import tiny_model
from tests.invented import spread, spread_cases


def _has_namespaces():
    """Whether this system gives a process namespaces of its own; many containers and some distributions do not."""
    if not shutil.which("unshare"):
        return False
    asked = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"]
    return subprocess.run(asked, capture_output=True).returncode == 0


# what hostile code can reach is tested where it can be kept from reaching it
needs_namespaces = pytest.mark.skipif(not _has_namespaces(), reason="this system gives no namespaces")

LIMITS = Limits(seconds=1.5, whole=4, memory=512 * 2**20, files=8 * 2**20, processes=16)


def loud_head(lm):
    norms = torch.stack([lm.W_O(layer).flatten(1).norm(dim=-1) for layer in range(lm.n_layers)])
    return divmod(int(norms.argmax()), lm.n_heads)


def _made(name, kind, reference, cases, mistakes, **more):
    return Exercise(
        id=f"99_{name}",
        kind=kind,
        level=1,
        points=2.0,
        minutes=5,
        reference=reference,
        cases=cases,
        mistakes=[Mistake(each, f"Yours: {each}.", answer) for each, answer in mistakes.items()],
        hints=("Think.", "Again."),
        discussion="Well done.",
        **more,
    )


# two that no notebook asks for, and an answer may call
PATIENT = _made("patient", "code", lambda n: sum(1 for _ in range(n)), lambda seed: [(3,)], {})
GREEDY = _made("greedy", "code", lambda n: float(torch.ones(n).sum()), lambda seed: [(3,)], {})
SPREAD = _made(
    "spread",
    "code",
    spread,
    spread_cases,
    {"no_mean": lambda x, base: base + x**2, "no_base": lambda x, base: (x - x.mean()) ** 2},
    teaches=("var",),
)
DOUBLE = _made(
    "double",
    "code",
    lambda x, base: 2 * spread(x, base),
    spread_cases,
    {"single": spread, "half": lambda x, base: spread(x, base) / 2},
)
WIDEST = _made(
    "widest",
    "finding",
    lambda lm: int(lm.W_E.norm(dim=-1).argmax()),
    lambda seed: [(Tiny(seed),), (Tiny(seed + 1, "gpt2"),)],
    {"narrowest": lambda lm: int(lm.W_E.norm(dim=-1).argmin()), "largest": lambda lm: int(lm.W_E.amax(-1).argmax())},
)
LOUD_HEAD = _made(
    "loud_head",
    "finding",
    loud_head,
    lambda seed: [(MODEL,)],
    {"reversed": lambda lm: loud_head(lm)[::-1], "first": lambda lm: (0, 0)},
)
CHAPTER = Chapter("99", "an invented chapter", (PATIENT, GREEDY, SPREAD, DOUBLE, WIDEST, LOUD_HEAD), Claim({}, {}, {}))

ANSWERS = {
    "spread": "def spread(x, base):\n    return base + (x - x.mean()) ** 2",
    "double": "def double(x, base):\n    return 2 * spread(x, base)",
    "widest": "def widest(lm):\n    return lm.W_E.norm(dim=-1).argmax()",
    "loud_head": (
        "def loud_head(lm):\n"
        "    norms = torch.stack([lm.W_O(i).flatten(1).norm(dim=-1) for i in range(lm.n_layers)])\n"
        "    return divmod(int(norms.argmax()), lm.n_heads)"
    ),
}
STUB = "    raise NotImplementedError()"


def mark(grade_id, *, grade=False, solution=True, **more):
    return {"nbgrader": {"grade_id": grade_id, "grade": grade, "solution": solution, "locked": grade} | more}


def cell(source, kind="code", **fields):
    made = {"cell_type": kind, "id": "", "metadata": {}, "source": source} | fields
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def cells(**answers):
    """The chapter's cells with these answers, right ones for the rest."""
    made = [cell('import torch\nimport mechkit as mk\n\nlesson = mk.lesson("99")', id="setup")]
    for name, source in (ANSWERS | answers).items():
        made.append(cell(source, id=name, metadata=mark(f"99_{name}", schema_version=3)))
        check = mark(f"99_{name}_check", grade=True, solution=False, points=2.0, schema_version=3)
        made.append(cell(f"lesson.check({name})", id=f"{name}-check", metadata=check))
    return made


def stubs():
    return {name: source.splitlines()[0] + "\n" + STUB for name, source in ANSWERS.items()}


def text(made):
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def graded_row(name="spread", **fields):
    base = {"id": f"99_{name}", "name": name, "status": "failed", "points": 0.0, "max_points": 2.0}
    return base | {"stage": "values", "message": "Wrong.", "mistake": "", "warning": ""} | fields


def graded_record(learner="ann", **fields):
    base = {"learner": learner, "status": "graded", "problem": "", "note": "", "chapter": "99", "title": "invented"}
    rows = [graded_row(), graded_row("double", status="passed", points=2.0, message="Well done.")]
    base |= {"points": 2.0, "max_points": 4.0, "exercises": rows, "seconds": 1.0, "seed": 1, "isolation": "namespaces"}
    return base | fields


def add_chapter(patch):
    patch.setattr(exercises, "NUMBERS", (*exercises.NUMBERS, "99"))
    patch.setitem(sys.modules, "mechkit.course.exercises.ch99", SimpleNamespace(CHAPTER=CHAPTER))


@pytest.fixture(scope="session", autouse=True)
def chapter():
    """The invented chapter is one of the course's, also in the process that answers calls of earlier exercises."""
    line = "from tests.grading.conftest import add_chapter, pytest; add_chapter(pytest.MonkeyPatch())\n"
    with pytest.MonkeyPatch.context() as patch:
        add_chapter(patch)
        patch.setattr(replies, "BOOT", replies.BOOT.replace("main(config)", f"{line}main(config)"))
        yield CHAPTER


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "99_invented.ipynb"
    path.write_text(text(cells(**stubs())))
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    lm = tiny_model()
    lm.hf.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return Models(str(folder), seed=5)


@pytest.fixture(scope="session")
def grader(template, models):
    """At the strongest isolation of this system."""
    with Grader(template, LIMITS, seed=3, judge=Judge(11, models)) as made:
        yield made


@pytest.fixture
def grade(grader, tmp_path):
    """Grade a notebook, given as cells or as bytes."""

    def run(made, name="99_invented.ipynb"):
        path = tmp_path / name
        path.write_bytes(made if isinstance(made, bytes) else text(made).encode())
        return grader.grade(path)

    return run
