"""When something breaks, the learner reads what happened and can go on."""

import pytest
from playwright.sync_api import expect

from mechkit.course.exercises import find_chapter
from tests.browser.jupyter import Notebook

pytestmark = [pytest.mark.slow, pytest.mark.browser]

EXERCISE = "00_logit_difference"
RIGHT = "def logit_difference(logits, right, wrong):\n    return logits[-1, right] - logits[-1, wrong]"
SLOW = RIGHT.replace("    return", "    while True: pass\n    return")


@pytest.fixture
def notebook(browser, lab):
    """The quickest chapter, of which only the setup has run."""
    lab.forget()
    opened = Notebook(browser, lab, "00_start_here.ipynb")
    opened.run("setup")
    yield opened
    opened.close()
    assert opened.guard.seen == []


def status(lab):
    return lab.progress()["exercises"][EXERCISE]["status"]


def answer(notebook, source):
    notebook.edit("logit-difference", source)
    notebook.run("logit-difference")


def test_after_an_interrupt_the_next_check_works(notebook, lab):
    answer(notebook, SLOW)
    notebook.start("logit-difference-check")
    notebook.page.wait_for_timeout(1000)
    notebook.page.get_by_title("Interrupt the kernel").click()
    notebook.page.wait_for_timeout(1000)
    assert "It was interrupted." in notebook.said("logit-difference-check")
    assert notebook.failed() == {}
    answer(notebook, RIGHT)
    assert "passed" in notebook.run("logit-difference-check")
    assert status(lab) == "passed"


def test_after_the_death_of_a_kernel_what_was_done_is_still_there(notebook, lab):
    answer(notebook, RIGHT)
    notebook.run("logit-difference-check")
    answer(notebook, SLOW)
    notebook.start("logit-difference-check")
    [kernel] = lab.kernels()
    kernel.kill()
    said = notebook.page.locator(".jp-Dialog-body")
    expect(said).to_contain_text("appears to have died. It will restart automatically.")
    notebook.page.locator(".jp-Dialog-button", has_text="Ok").click()
    notebook.ready()
    assert status(lab) == "passed"
    notebook.run("setup")
    summary = notebook.add_below("setup", "lesson.summary()")
    assert f"1 of {len(find_chapter('00').exercises)}" in notebook.run(summary)
