"""Answers are found in notebooks that were edited, broken, stripped and turned inside out."""

import json

import pytest

from mechkit.grading.submission import LARGEST, SubmissionError, find_answers, read_cells, read_template
from tests.grading.conftest import ANSWERS, cell, cells, stubs, text


@pytest.fixture
def find(template, tmp_path):
    def run(made):
        path = tmp_path / "submitted.ipynb"
        path.write_bytes(made if isinstance(made, bytes) else text(made).encode())
        return find_answers(read_cells(path), read_template(template))["99_spread"]

    return run


def stripped(made):
    return [each | {"metadata": {}} for each in made]


def renamed(made):
    return [each | {"id": f"new-{i}"} for i, each in enumerate(made)]


def without(made, name):
    return [each for each in made if each["id"] != name]


def changed(made, name, **fields):
    return [each | fields if each["id"] == name else each for each in made]


CHANGES = {
    "as it was": (lambda made: made, ""),
    "reordered": (lambda made: made[::-1], ""),
    "new cell ids": (renamed, ""),
    "no metadata": (stripped, "found by its cell id"),
    "no metadata, new ids": (lambda made: renamed(stripped(made)), "found by `spread`, which it defines"),
    "another grade_id": (
        lambda made: changed(made, "spread", metadata={"nbgrader": {"grade_id": "mine"}}),
        "found by its cell id",
    ),
    "metadata of another kind": (lambda made: changed(made, "spread", metadata=[1]), "found by its cell id"),
    "written in a new cell": (
        lambda made: [*without(made, "spread"), cell(ANSWERS["spread"], id="x")],
        "found by `spread`",
    ),
    "twice": (
        lambda made: [changed(made, "spread", source="def spread(x, base): pass")[1], *made],
        "2 cells answer it; the last one counts",
    ),
    "as Markdown": (lambda made: changed(made, "spread", cell_type="markdown"), "stands in a Markdown cell"),
    "as lines": (lambda made: changed(made, "spread", source=ANSWERS["spread"].splitlines(keepends=True)), ""),
    "with odd cells": (lambda made: [None, 7, "x", {}, {"cell_type": 3, "source": {"a": 1}, "id": []}, *made], ""),
}


@pytest.mark.parametrize(("change", "warning"), CHANGES.values(), ids=CHANGES)
def test_an_answer_is_found(find, change, warning):
    found = find(change(cells()))
    assert found.source == ANSWERS["spread"]
    assert warning in found.warning
    assert bool(found.warning) == bool(warning)


def test_a_split_answer_is_put_together(find):
    made = cells()
    head, tail = ANSWERS["spread"].split("\n")
    part = changed(made, "spread", source=tail, id="rest")[1]
    found = find([*changed(made, "spread", source=head)[:2], part, *made[2:]])
    assert found.source == ANSWERS["spread"]
    assert "put together" in found.warning


def test_a_cell_of_ours_is_never_taken_for_an_answer(template, tmp_path):
    ours = cell("def spread(x, base):\n    return 'a wrong answer that the chapter shows'")
    path = tmp_path / "with_ours.ipynb"
    path.write_text(text([ours, *cells(**stubs())]))
    submitted = tmp_path / "submitted.ipynb"
    submitted.write_text(text([ours, *without(cells(), "spread")]))
    found = find_answers(read_cells(submitted), read_template(path))["99_spread"]
    assert (found.source, found.warning) == ("", "No cell answers it.")


@pytest.mark.parametrize("source", ["", "x = spread", "# def spread(x, base)", "spread == 3", "def spreader(): pass"])
def test_what_does_not_define_it_is_not_its_answer(find, source):
    assert find([*without(cells(), "spread"), cell(source)]).warning == "No cell answers it."


def test_an_answer_without_end_is_not_read(find):
    assert "at most 200,000" in find(cells(spread=ANSWERS["spread"] + "#" * 300_000)).warning


@pytest.mark.parametrize(
    "encode",
    [
        lambda made: b"\xef\xbb\xbf" + made.encode(),
        lambda made: made.encode("utf-16"),
        lambda made: b"\n\n" + made.encode() + b"\n",
        lambda made: made.replace('"nbformat": 4', '"nbformat": 5').encode(),
    ],
    ids=["BOM", "UTF-16", "white space around it", "format 5"],
)
def test_a_notebook_is_read_however_it_is_encoded(find, encode):
    assert find(encode(text(cells()))).source == ANSWERS["spread"]


def test_a_notebook_of_format_3_is_read(find):
    old = [{"cell_type": "code", "input": each["source"], "metadata": each["metadata"]} for each in cells()]
    assert find(json.dumps({"nbformat": 3, "worksheets": [{"cells": old}]}).encode()).source == ANSWERS["spread"]


BROKEN = {
    "empty": (b"", "is empty"),
    "white space": (b" \n", "is empty"),
    "not JSON": (b"%PDF-1.4", "not JSON"),
    "cut off": (text([cell("x")]).encode()[:-20], "not JSON"),
    "deep": (b"[" * 200_000, "not JSON"),
    "bad bytes": (b'{"cells": "\xff\xfe\xff"}', "not JSON"),
    "a list": (b"[]", "another kind"),
    "no cells": (b"{}", "no cells"),
    "cells of another kind": (b'{"cells": {}}', "no cells"),
    "a huge number": (b'{"cells": [' + b"1" * 10_000 + b"]}", "not JSON"),
    "many cells": (b'{"cells": [' + b"{}," * 100_000 + b"{}]}", "100,001 cells; at most 20,000"),
}


@pytest.mark.parametrize(("data", "words"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_notebook_is_said_to_be_none(find, data, words):
    with pytest.raises(SubmissionError, match=words):
        find(data)


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    path = tmp_path / "large.ipynb"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(SubmissionError, match="clear its outputs"):
        read_cells(path)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_what_cannot_be_read_is_said(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    with pytest.raises(SubmissionError, match="cannot be read"):
        read_cells(path)


def test_the_setups_imports_are_lent(template):
    assert read_template(template).imports == "import torch\nimport mechkit as mk"
