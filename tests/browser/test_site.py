"""The site as its reader opens it, from disk: readable by everybody, and asking nothing of the network."""

from pathlib import Path

import pytest

from mechkit.course.site import build_site
from tests.browser.axe import accessible
from tests.browser.jupyter import Guard

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    # myst-parser uses names that Sphinx 11 will not have; `pyproject.toml` stops before
    pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API:PendingDeprecationWarning"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of the site of the course as it is."""
    return sorted(build_site(ROOT, tmp_path_factory.mktemp("site") / "out").parent.glob("*.html"))


# In the dark only colours differ, and chapters have them from the same places: one of each kind of page will do.
@pytest.mark.parametrize(("theme", "names"), [("light", "*"), ("dark", "index 00* 04* glossary reading_map search")])
def test_every_page_of_the_site_is_accessible_and_asks_nobody(theme, names, pages, browser):
    context = browser.new_context(color_scheme=theme, reduced_motion="reduce")
    guard, page = Guard(context), context.new_page()
    chosen = [path for path in pages if any(path.match(f"{name}.html") for name in names.split())]
    assert len(chosen) >= 6
    for path in chosen:
        page.goto(path.as_uri())
        assert accessible(page) == [], path.name
    assert guard.seen == []
    context.close()


def test_the_search_finds_a_term_from_disk(pages, browser):
    with browser.new_context() as context:
        guard, page = Guard(context), context.new_page()
        page.goto(pages[0].with_name("index.html").as_uri())
        page.get_by_placeholder("Search").fill("superposition")
        page.keyboard.press("Enter")
        found = page.locator("#search-results a", has_text="01 · Toy superposition")
        found.first.wait_for()
        assert guard.seen == []
