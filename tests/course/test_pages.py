"""The pages beside the chapters say what the chapters say."""

import shutil
from pathlib import Path

import nbformat.v4
import pytest

from mechkit.course import authoring, glossary, pages

ROOT = Path(__file__).parents[2]
READING = (
    "## Further reading\n\n- Elhage et al. (2021), *A Framework*. Sums and\n  readers.\n- Hase (2023), *Does It?* No.\n"
)


def notebook(title, *sources):
    cells = [nbformat.v4.new_markdown_cell(source) for source in (f"# {title}\n\n**Why?**", *sources)]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def course(tmp_path):
    """The true solutions and chapters, to be spoiled."""
    for folder in pages.FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_pages_and_chapters_agree():
    assert pages.check(ROOT) == []


def test_a_stale_page_and_a_chapter_with_other_terms_are_named_and_building_mends_the_page(course):
    (course / "chapters" / "glossary.md").unlink()
    (course / "solutions" / "reading_map.md").write_text("# Reading map\n")
    [path] = authoring.solution_paths(course, ["04"])
    path.write_text(path.read_text(encoding="utf-8").replace("[patchscope]", "[peephole]"), encoding="utf-8")
    missing, stale, other = pages.check(course)
    assert stale == "solutions/reading_map.md is not what the solutions generate; run `mechkit build`."
    assert missing == "chapters/glossary.md is not what the solutions generate; run `mechkit build`."
    assert other.startswith(
        "solutions/04_logit_lens.ipynb names other terms than the glossary; wanted this cell: **Terms"
    )
    assert "[patchscope](glossary.md#patchscope)" in other
    assert course / "chapters" / "glossary.md" in pages.write(course)
    assert pages.check(course) == [other]


def test_a_checkout_without_a_glossary_has_no_pages(course):
    (course / "solutions" / glossary.PAGE).unlink()
    assert pages.write(course) == pages.check(course) == []


def test_the_map_lists_papers_by_chapter_and_says_where_else_they_are_read():
    page = pages.reading_map({"00_a.ipynb": notebook("00 · A", READING), "01_b.ipynb": notebook("01 · B", READING)})
    assert "## [00 · A](00_a.ipynb)\n\n- Elhage et al. (2021), *A Framework*. Sums and readers. (Also for" in page
    assert "- Hase (2023), *Does It?* No. (Also for chapter [01](01_b.ipynb).)" in page


@pytest.mark.parametrize(
    ("reading", "sentence"),
    [
        ("## Summary\n", "wanted papers under '## Further reading' in 00_a.ipynb, .*; came none"),
        ("## Further reading\n\n- *Zoom In*, Olah, 2020: why.", r"in the further reading of 00_a.ipynb; came '\*Zoom"),
        ("## Further reading\n\n- Olah (2020), *Zoom In*.", r"came 'Olah \(2020\), \*Zoom In\*.'"),
    ],
)
def test_a_paper_without_a_reason_to_read_it_is_named(reading, sentence):
    with pytest.raises(ValueError, match=sentence):
        pages.papers(notebook("00 · A", reading), "00_a.ipynb")
