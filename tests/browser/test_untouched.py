"""Every chapter in JupyterLab as its learner gets it: it runs, judges an answer, helps, and can be read and moved."""

import re
from contextlib import closing
from dataclasses import dataclass

import pytest

from mechkit.course import authoring
from mechkit.course.exercises import NUMBERS, find_chapter
from tests.browser.axe import accessible
from tests.browser.jupyter import OUTPUT, SOLUTIONS, Explorer, Notebook, plain

pytestmark = [pytest.mark.slow, pytest.mark.browser]

WIDTHS, THEMES = (1280, 800, 600), ("Light", "Dark")


@dataclass(frozen=True)
class Slip:
    """One exercise of a chapter, and how its right answer becomes a known mistake: one piece of it is another."""

    exercise: str
    mistake: str
    right: str
    wrong: str


SLIPS = {
    "00": Slip("logit_difference", "no_contrast", " - logits[-1, wrong]", ""),
    "01": Slip("reconstruct", "no_relu", ".relu()", ""),
    "02": Slip("nearest", "dot_product", " / vectors.norm(dim=-1)", ""),
    "03": Slip("standardise", "variance", "train.std(0)", "train.var(0)"),
    "04": Slip("rank_of", "counts_equals", "logits > ", "logits >= "),
    "05": Slip("copy_losses", "from_its_first_token", "period + 1 :", "period:"),
    "06": Slip("places", "one_past_the_end", "len(ids) - 1", "len(ids)"),
    "07": Slip("recovery", "gain_over_clean", "(high - low)", "high"),
    "08": Slip("encode", "not_centred", "x - b_dec", "x"),
    "09": Slip("recovered", "not_divided", " / (clean - noisy)", ""),
}
SLIDER, TRACK, TYPED, SWITCH = ".noUi-handle", ".noUi-base", "input[type=text]", "input[type=checkbox]"
CHOICE = ".widget-toggle-button:not(.mod-active)"
# By keys: which control, and what is pressed there, or typed before it. By mouse: which control is clicked.
KEYS = {
    "00": (SLIDER, "", "ArrowRight"),
    "01": (SLIDER, "", "ArrowRight"),
    "02": (TYPED, "uncle", "Enter"),
    "03": (SLIDER, "", "ArrowRight"),
    "04": (SLIDER, "", "ArrowLeft"),
    "05": (SLIDER, "", "ArrowLeft"),
    "06": (SWITCH, "", "Space"),
    "07": (SLIDER, "", "ArrowRight"),
    "08": ("button:has-text('after')", "", "Enter"),
    "09": ("button:has-text('Rewrite')", "", "Enter"),
}
MOUSE = {
    "00": TRACK,
    "01": TRACK,
    "02": CHOICE,
    "03": TRACK,
    "04": TRACK,
    "05": TRACK,
    "06": CHOICE,
    "07": TRACK,
    "08": "button:has-text('after')",
    "09": "button:has-text('Rewrite')",
}


@pytest.fixture(scope="module", params=NUMBERS)
def number(request):
    return request.param


@pytest.fixture(scope="module")
def untouched(number, lab, browser):
    """The untouched chapter, run to its end."""
    lab.forget()
    with closing(Notebook(browser, lab, f"{find_chapter(number).notebook}.ipynb")) as notebook:
        notebook.run_all()
        notebook.finish()
        yield notebook


@pytest.fixture(autouse=True)
def nothing_behind_the_page(untouched):
    yield
    assert untouched.guard.seen == []


@pytest.fixture
def exercise(number):
    return next(each for each in find_chapter(number).exercises if each.name == SLIPS[number].exercise)


@pytest.fixture
def solution(number):
    return authoring.read(SOLUTIONS / f"{find_chapter(number).notebook}.ipynb").cells


@pytest.fixture
def cells(solution):
    """The solution's cells by what nbgrader calls them."""
    return {cell.metadata.nbgrader.grade_id: cell for cell in solution if "nbgrader" in cell.metadata}


@pytest.fixture
def explorer(solution):
    """The id of the cell that shows the chapter's explorer."""
    return next(cell.id for cell in solution if re.search(r"\bmk\.\w+Explorer\(", cell.source))


def test_the_untouched_chapter_runs_to_its_end(untouched, lab, number):
    assert untouched.failed() == {}
    every = [each.id for each in find_chapter(number).exercises]
    assert lab.statuses() == dict.fromkeys(every, "not attempted")
    assert lab.progress()["predictions"] == lab.progress()["claims"] == {}


def test_a_wrong_answer_is_named_a_hint_helps_and_the_right_one_passes(untouched, lab, number, exercise, cells):
    slip, answer, check = SLIPS[number], cells[exercise.id], cells[f"{exercise.id}_check"].id
    mistake = next(each for each in exercise.mistakes if each.name == slip.mistake)
    wrong = answer.source.replace(slip.right, slip.wrong)
    assert wrong != answer.source

    untouched.edit(answer.id, wrong)
    untouched.run(answer.id)
    assert plain(mistake.sentence) in plain(untouched.run(check))
    assert lab.statuses()[exercise.id] == "failed"

    asked = untouched.add_below(check, f'lesson.hint("{exercise.name}")')
    assert plain(exercise.hints[0]) in plain(untouched.run(asked))

    untouched.edit(answer.id, answer.source)
    untouched.run(answer.id)
    card = untouched.run(check)
    assert card.startswith("✓")
    assert "passed" in card
    assert lab.statuses()[exercise.id] == "passed"


def test_the_explorer_follows_keys_and_mouse(untouched, number, explorer):
    shown = Explorer(untouched, explorer)
    control, text, key = KEYS[number]
    shown.press(control, key, text)
    shown.click(MOUSE[number])


def test_it_can_be_read_at_every_width_in_both_themes(untouched, number, exercise, explorer, cells, pictures):
    parts = {"explorer": explorer, "check": cells[f"{exercise.id}_check"].id}
    untouched.draw_all()
    for theme in THEMES:
        untouched.theme(theme)
        for width in WIDTHS:
            untouched.width(width)
            assert untouched.too_wide() == []
            for part, cell in parts.items():
                untouched.cell(cell).scroll_into_view_if_needed()
                untouched.page.screenshot(path=pictures / f"{number}_{part}_{width}_{theme.lower()}.png")
        assert accessible(untouched.page, OUTPUT) == []
    untouched.theme("Light")
