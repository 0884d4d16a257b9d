"""Every solved chapter in JupyterLab: what it gives, whether that is what the repository stores, and what it takes."""

import json
import re
import sys
from contextlib import closing, nullcontext

import psutil
import pytest

from mechkit.course import authoring
from mechkit.course.bench import PEAK_MB, slowness, watched_cost
from mechkit.course.exercises import NUMBERS, find_chapter
from tests.browser.axe import accessible
from tests.browser.jupyter import OUTPUT, SOLUTIONS, Notebook

pytestmark = [pytest.mark.slow, pytest.mark.browser]

# Of a solved chapter, start to end: the weights stay on disk and are shared, the rest is anonymous.
BARS = {"peak_mb": PEAK_MB, "anonymous_mb": 0.9 * 1024}
# Its kernel has one thread here, so what its processor works is what it takes with nothing else to do, at the most.
CPU_SECONDS = 90

# A figure is not compared: its bytes differ between releases of matplotlib, and its table, digit for digit, between
# processors wherever the truth is 0. What its caption says is.
NOT_COMPARED = {
    r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+": "FIGURE",
    r"<details.*?</details>": "TABLE",
    r"<Figure size [^>]*>": "<Figure>",
}
PASS_OVER = "nbval-ignore-output"  # the tag of a cell whose output is trained, timed or drawn while it runs


@pytest.fixture(params=NUMBERS)
def number(request):
    return request.param


@pytest.fixture
def solution(number):
    return SOLUTIONS / f"{find_chapter(number).notebook}.ipynb"


@pytest.fixture
def notebook(solution, lab, browser):
    lab.forget()
    with closing(Notebook(browser, lab, f"solved/{solution.name}")) as notebook:
        yield notebook


def test_the_solution_gives_its_stored_outputs_within_its_budget(notebook, number, solution, lab):
    with watched_cost(lab.process) if sys.platform == "linux" else nullcontext({}) as cost:
        notebook.run_all()
        notebook.finish()
    print(solution.stem, cost)
    assert notebook.failed() == {}
    assert lab.statuses() == dict.fromkeys([each.id for each in find_chapter(number).exercises], "passed")

    notebook.save()
    saved = authoring.settled(authoring.read(lab.work / "solved" / solution.name))
    button = saved.cells[-1].outputs.pop()  # is there only where it can be pressed
    assert "Shut this kernel down" in button["data"]["text/html"]
    assert compared(saved) == compared(authoring.read(solution))

    assert {name: value for name, value in cost.items() if value > BARS.get(name, value)} == {}
    if cost and cost["cpu_seconds"] > CPU_SECONDS:
        assert cost["cpu_seconds"] <= CPU_SECONDS * slowness()

    notebook.draw_all()
    assert accessible(notebook.page, OUTPUT) == []
    notebook.cell(saved.cells[-1].id).get_by_role("button", name="Shut this kernel down").click()
    psutil.wait_procs(lab.kernels(), timeout=30)
    assert lab.kernels() == []
    assert notebook.guard.seen == []


def compared(notebook):
    """The text of every output that is the same from run to run: cell id to output."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {cell.id: text_of(cell.outputs) for cell in cells if PASS_OVER not in cell.metadata.get("tags", [])}


def text_of(outputs):
    text = json.dumps([{**output, "execution_count": None} for output in outputs], indent=1)
    for pattern, name in NOT_COMPARED.items():
        text = re.sub(pattern, name, text, flags=re.DOTALL)
    return text
