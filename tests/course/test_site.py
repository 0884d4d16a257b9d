"""The solved course as a site: whole, at home everywhere, and asking no other machine for anything."""

import re
import tempfile
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import nbformat.v4
import pytest

from mechkit.course import authoring, glossary, site

ROOT = Path(__file__).parents[2]
CHAPTERS = [path.stem for path in authoring.solution_paths(ROOT)]
# myst-parser uses names that Sphinx 11 will not have; `pyproject.toml` stops before
pytestmark = pytest.mark.filterwarnings("ignore:.*Check CHANGES for Sphinx API:PendingDeprecationWarning")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """What a page holds: its ids, what its `<a>` point to, and what it makes a browser load."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.ids, self.links, self.loads, self.tags = set(), [], [], []
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids.add(attrs.get("id"))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        if attrs.get(LOADED.get(tag)):
            self.loads.append(attrs[LOADED[tag]])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site of the course as it is."""
    out = tmp_path_factory.mktemp("site") / "deep" / "out"
    assert site.build_site(ROOT, out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def read(built):
    return {path.name: Page(path) for path in built.glob("*.html")}


@pytest.mark.slow
def test_there_is_a_page_for_each_chapter_and_each_is_linked_to_the_next(read):
    order = ["index", *CHAPTERS, "glossary", "reading_map"]
    assert set(read) == {f"{name}.html" for name in (*order, "search")}
    for here, after in pairwise(order):
        assert f"{after}.html" in read[f"{here}.html"].links
        assert f"{here}.html" in read[f"{after}.html"].links


@pytest.mark.slow
def test_every_link_inside_the_site_leads_somewhere(built, read):
    for name, page in read.items():
        for link in page.links:
            if re.match(r"https?://", link):
                continue
            target, _, fragment = unquote(link).partition("#")
            assert (built / (target or name)).is_file(), f"{name} links to {link}"
            assert not fragment or fragment in read[target or name].ids, f"{name} links to {link}"


@pytest.mark.slow
def test_nothing_is_loaded_from_another_machine(built, read):
    asked = [(name, load) for name, page in read.items() for load in page.loads]
    assert not [each for each in asked if re.match(r"(https?:)?//", each[1])]
    styles = "".join(path.read_text(encoding="utf-8") for path in built.rglob("*.css"))
    assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", styles)
    pages = "".join(page.html for page in read.values())
    assert not re.search(r"mathjax|requirejs|unpkg|jsdelivr|cdnjs", pages, re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_shows_its_figures_formulas_and_still_views_and_no_widget_or_marker(name, read):
    solution, page = authoring.read(ROOT / "solutions" / f"{name}.ipynb"), read[f"{name}.html"]
    outputs = [output.get("data", {}) for cell in solution.cells for output in cell.get("outputs", [])]
    drawn = "".join(data.get("text/html", "") for data in outputs)
    text = "".join(cell.source for cell in solution.cells if cell.cell_type == "markdown")
    assert page.tags.count("img") == drawn.count("<img")
    assert page.html.count(site.STILL.replace("details", "details open")) == drawn.count(site.STILL) > 0
    assert ("math" in page.tags) == ("$" in text)
    assert not re.search(r"widget-view|run this cell in JupyterLab|BEGIN SOLUTION|it/s\]", page.html)


@pytest.mark.slow
def test_every_term_can_be_found_by_search_and_by_its_link(read):
    for term in glossary.terms():
        assert glossary.anchor(term.name) in read["glossary.html"].ids
    assert "searchindex.js" in read["search.html"].loads
    assert "Please activate JavaScript" in read["search.html"].html


@pytest.fixture
def course(tmp_path):
    """A checkout with one small solution and a glossary."""
    folder = tmp_path / "course" / "solutions"
    folder.mkdir(parents=True)
    closing = "## Further reading\n\n- Olah (2020), *Zoom In*. Why."
    cells = [nbformat.v4.new_markdown_cell(source) for source in ("# 00 · Small\n\n**Why?**", closing)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=authoring.METADATA)
    (folder / "00_small.ipynb").write_text(authoring.to_text(notebook), encoding="utf-8")
    (folder / glossary.PAGE).write_text("# Glossary\n\n## nat\n\nA unit.\n\n[Chapter 00](00_small.ipynb).\n")
    return tmp_path / "course"


def test_a_folder_with_something_else_in_it_is_left_alone(course, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt", course):
        with pytest.raises(ValueError, match=r"wanted a new folder for the site, or a former site; .* holds something"):
            site.build_site(course, out)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_only_a_whole_site_takes_a_former_ones_place_and_nothing_is_left_elsewhere(course, tmp_path, monkeypatch):
    workshop, out = tmp_path / "temporary", tmp_path / "out"
    workshop.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(workshop))
    site.build_site(course, out)
    (out / "stale.html").touch()
    page, solution = course / "solutions" / glossary.PAGE, course / "solutions" / "00_small.ipynb"
    whole = page.read_text()
    page.write_text(whole.replace("00_small.ipynb", "07_lost.ipynb"))
    with pytest.raises(ValueError, match=r"wanted a site without faults; Sphinx found some:\n.*07_lost.ipynb"):
        site.build_site(course, out)
    assert (out / "stale.html").exists()
    page.write_text(whole)
    before = solution.read_bytes()
    site.build_site(course, out)
    assert not (out / "stale.html").exists()
    assert solution.read_bytes() == before
    assert sorted(path.name for path in course.rglob("*") if path.is_file()) == ["00_small.ipynb", "glossary.md"]
    assert list(workshop.iterdir()) == []
