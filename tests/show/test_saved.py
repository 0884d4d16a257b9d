"""Solved chapters as a page without a kernel shows them: GitHub, VS Code, a site."""

import re
from pathlib import Path

import pytest

from mechkit.course import authoring

SOLUTIONS = sorted((Path(__file__).parents[2] / "solutions").glob("*.ipynb"))
EXPLORER = re.compile(r"\bmk\.\w+Explorer\(")
LARGEST = 3_000_000  # bytes
each_solution = pytest.mark.parametrize("path", SOLUTIONS, ids=[path.stem for path in SOLUTIONS])


def shown(path):
    """Cell and data of every stored output that is more than printed text."""
    cells = [cell for cell in authoring.read(path).cells if cell.cell_type == "code"]
    return [(cell, output.data) for cell in cells for output in cell.outputs if "data" in output]


@each_solution
def test_nothing_needs_a_kernel_a_script_or_the_network(path):
    for cell, data in shown(path):
        assert set(data) <= {"text/html", "text/plain", "image/png"}, f"{cell.id} stores {set(data)}"
        page = data.get("text/html", "")
        assert not re.search(r"<script|<iframe|(src|href)=\"http|url\(|@import", page), cell.id
        assert all(re.search(r' alt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", page)), cell.id


@each_solution
def test_an_explorer_stands_still_as_a_picture_or_a_table(path):
    explorers = {cell.id: "" for cell in authoring.read(path).cells if EXPLORER.search(cell.source)}
    assert explorers
    for cell, data in shown(path):
        if cell.id in explorers:
            explorers[cell.id] += data["text/html"]
            assert not re.search("error|model not found", data["text/plain"], re.IGNORECASE), cell.id
    for still in explorers.values():
        assert re.search(r"<table|<img|<li>", still)


@each_solution
def test_a_solved_chapter_is_small_enough_to_be_shown(path):
    assert path.stat().st_size < LARGEST
