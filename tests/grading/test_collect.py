"""Who handed in what, as four systems and people say it; and what a zip may not do."""

import os
import zipfile

import pytest

from mechkit.grading.collect import HandedIn, chapter_of, choose, collect, safe_name
from mechkit.grading.submission import read_template
from tests.grading.conftest import cell, cells, text

LAYOUTS = {
    "flat": (["ann.ipynb", "bob smith.ipynb"], ["ann", "bob smith"]),
    "a folder each": (["ann/work.ipynb", "bob/deep/down/work.ipynb"], ["ann", "bob"]),
    "nbgrader": (["submitted/ann/04/04.ipynb", "submitted/bob/04/04.ipynb", "source/04/04.ipynb"], ["ann", "bob"]),
    "Canvas": (
        ["annlee_1234_99_04_logit_lens.ipynb", "bobby_LATE_77_98_04_logit_lens.ipynb"],
        ["annlee (1234)", "bobby (77)"],
    ),
    "Canvas, handed in again": (["annlee_1_99_04.ipynb", "annlee_1_100_04-1.ipynb"], ["annlee (1)"]),
    "Moodle": (
        ["Ann Lee_5_assignsubmission_file_/04.ipynb", "Bob O'Hara_6_assignsubmission_file/x.ipynb"],
        ["Ann Lee (5)", "Bob O'Hara (6)"],
    ),
    "litter": (["ann/a.ipynb", "ann/.ipynb_checkpoints/a.ipynb", "__MACOSX/ann/._a.ipynb", "ann/a.txt"], ["ann"]),
    "odd names": (['=cmd,"x".ipynb', "Ωμέγα.ipynb"], ['=cmd,"x"', "Ωμέγα"]),
}


def lay(root, names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(cells()))
    return root


@pytest.mark.parametrize(("names", "learners"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_learners_are_told_apart(tmp_path, names, learners, packed):
    root = lay(tmp_path / "in", names)
    if packed:
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for name in names:
                archive.write(root / name, name)
        root = tmp_path / "in.zip"
    found = collect([root], tmp_path / "unpacked")
    assert sorted(each.learner for each in found) == sorted(learners)
    assert all(path.is_file() for each in found for path in each.notebooks)


def test_a_folder_that_everything_was_zipped_in_is_no_learner(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("class/ann.ipynb", "class/bob.ipynb"):
            archive.writestr(name, text(cells()))
    assert [each.learner for each in collect([tmp_path / "in.zip"], tmp_path / "u")] == ["ann", "bob"]


def test_a_later_one_is_preferred(tmp_path):
    (found,) = collect([lay(tmp_path / "in", ["a_1_99_x.ipynb", "a_1_100_x-1.ipynb", "a_1_8_x.ipynb"])], tmp_path / "u")
    assert [path.name for path in found.notebooks] == ["a_1_100_x-1.ipynb", "a_1_99_x.ipynb", "a_1_8_x.ipynb"]


def test_files_that_are_named_one_by_one(tmp_path):
    root = lay(tmp_path / "in", ["ann.ipynb", "bob.ipynb"])
    found = collect([root / "ann.ipynb", root / "bob.ipynb"], tmp_path / "u")
    assert [each.learner for each in found] == ["ann", "bob"]


def test_a_folder_without_a_notebook_is_a_learner_who_handed_in_none(tmp_path, template):
    root = lay(tmp_path / "in", ["ann/a.ipynb", "bob/b.txt"])
    found = {each.learner: each for each in collect([root], tmp_path / "u")}
    assert choose(found["bob"], read_template(template)) == (None, "No notebook was handed in.")


def test_the_notebook_of_the_chapter_is_chosen(tmp_path, template):
    root = lay(tmp_path / "in", ["ann/b.ipynb"])
    (root / "ann" / "z.ipynb").write_text(text([cell("another chapter's")]))
    (found,) = collect([root], tmp_path / "u")
    path, warning = choose(found, read_template(template))
    assert path.name == "b.ipynb"
    assert "2 notebooks were handed in; 'b.ipynb' is graded" in warning
    assert chapter_of([found]) == "99"


def test_notebooks_of_no_chapter_are_said_to_be_so(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(text([cell("x")]))
    with pytest.raises(ValueError, match="none of these has its marks"):
        chapter_of([HandedIn("x", (path,))])


@pytest.mark.parametrize("path", ["missing", "notes.txt"])
def test_what_is_not_there_is_said_before_anything_runs(tmp_path, path):
    with pytest.raises(ValueError, match="wanted notebooks"):
        collect([tmp_path / "missing"], tmp_path / "u")


def test_nothing_to_grade_is_said(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="found none in"):
        collect([tmp_path / "in"], tmp_path / "u")


def test_a_zip_writes_nothing_outside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in (
            "../../evil.ipynb",
            "/etc/evil.ipynb",
            "ann\\..\\..\\evil.ipynb",
            "ok/fine.ipynb",
            "C:/evil.ipynb",
        ):
            archive.writestr(name, text(cells()))
        link = zipfile.ZipInfo("bob/link.ipynb")
        link.external_attr = 0xA1FF << 16
        archive.writestr(link, "/etc/passwd")
    found = collect([tmp_path / "in.zip"], tmp_path / "u")
    files = [path for each in found for path in each.notebooks]
    assert len(files) == 4
    assert all(path.resolve().is_relative_to(tmp_path / "u") for path in files)
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name and not path.is_relative_to(tmp_path / "u")]


def test_a_zip_bomb_is_cut_off(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ann/bomb.ipynb", b"0" * (200 * 2**20))
        archive.writestr("bob/fine.ipynb", text(cells()))
    ann, bob = collect([tmp_path / "in.zip"], tmp_path / "u")
    assert ann.notebooks[0].stat().st_size < 2**27
    assert bob.notebooks[0].read_text() == text(cells())


def test_a_broken_file_in_a_zip_is_one_learners_trouble(tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("ann", "bob"):
            archive.writestr(f"{name}.ipynb", text(cells()))
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF  # in ann's notebook, whose checksum is now wrong
    path.write_bytes(data)
    ann, bob = collect([path], tmp_path / "u")
    assert ann.notebooks[0].read_bytes() == b""
    assert bob.notebooks[0].read_text() == text(cells())


def _with_a_name_that_is_no_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Ω.ipynb", text(cells()))
    path.write_bytes(path.read_bytes().replace("Ω".encode(), b"\xff\xfe"))


def _broken(path):
    path.write_bytes(b"PK\x03\x04 nothing")


@pytest.mark.parametrize("make", [_broken, _with_a_name_that_is_no_text])
def test_a_broken_zip_is_said_to_be_one(tmp_path, make):
    make(tmp_path / "in.zip")
    with pytest.raises(ValueError, match="cannot be read"):
        collect([tmp_path / "in.zip"], tmp_path / "u")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links")
def test_symbolic_links_are_not_followed(tmp_path):
    root = lay(tmp_path / "in", ["ann.ipynb"])
    (tmp_path / "secret.ipynb").write_text(text(cells()))
    os.symlink(tmp_path / "secret.ipynb", root / "bob.ipynb")
    assert [each.learner for each in collect([root], tmp_path / "u")] == ["ann"]


@pytest.mark.parametrize(
    "learner", ["../../etc/passwd", "a/b", "", "=1+1", "con", "x" * 500, "Ωμέγα", 'a,b"c', "..", "\ud800"]
)
def test_a_learners_file_is_named_safely(learner):
    name = safe_name(learner)
    assert name.replace("-", "").replace("_", "").isalnum()
    assert len(name) < 80
    assert name != safe_name(learner + "x")


@pytest.mark.parametrize("learner", ["ann lee", "Ann_Lee", "ann_lee "])
def test_nobody_can_take_a_name_that_stands_for_somebody_else(learner):
    name = safe_name(learner)
    assert safe_name(name) != name
    assert name.lower() != safe_name("ann_lee").lower()


def test_a_plain_name_stays_and_similar_ones_stay_apart():
    assert safe_name("ann_lee-2") == "ann_lee-2"
    assert safe_name("ann lee") != safe_name("ann_lee")
