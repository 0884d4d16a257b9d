"""What the grader hands back, in a browser: readable by everybody, and asking nothing of the network."""

import pytest

from mechkit.grading.reports import feedback_html, summary_html
from tests.browser.axe import accessible
from tests.browser.jupyter import Guard
from tests.grading.conftest import graded_record, graded_row

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", [feedback_html, lambda record: summary_html([record])], ids=["feedback", "summary"])
def test_a_page_of_the_grader_is_accessible(page, theme, browser, tmp_path):
    rows = [graded_row(message="Use `mean`.", mistake="no_mean"), graded_row("double", status="passed", points=2.0)]
    (tmp_path / "page.html").write_text(page(graded_record(exercises=[*rows, graded_row(status="not attempted")])))
    context = browser.new_context(color_scheme=theme, bypass_csp=True)  # the page's own policy keeps axe out as well
    guard = Guard(context)
    opened = context.new_page()
    opened.goto((tmp_path / "page.html").as_uri())
    assert opened.get_by_role("heading", level=1).count() == 1
    assert accessible(opened) == []
    assert guard.seen == []
    context.close()
