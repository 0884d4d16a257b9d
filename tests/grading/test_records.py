"""A record is there or not there, never half."""

from mechkit.grading.records import WRITING, Records


def test_a_broken_record_is_none(tmp_path):
    records = Records(tmp_path)
    records.write("ann", {"status": "graded"})
    assert records.read("ann") == {"learner": "ann", "status": "graded"}
    (tmp_path / "records" / "ann.json").write_text('{"stat')
    assert records.read("ann") is None
    assert records.all(["ann", "bob"]) == []


def test_what_a_killed_run_was_writing_is_cleared_away(tmp_path):
    (tmp_path / "records").mkdir()
    for folder in (tmp_path, tmp_path / "records"):
        (folder / f"{WRITING}x").write_text('{"stat')
    (tmp_path / "records" / ".mine").touch()
    Records(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".mine"]
