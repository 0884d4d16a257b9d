"""A record is there or not there, never half."""

from mechkit.grading.records import Records


def test_a_broken_record_is_none(tmp_path):
    records = Records(tmp_path)
    records.write("ann", {"status": "graded"})
    assert records.read("ann") == {"learner": "ann", "status": "graded"}
    (tmp_path / "records" / "ann.json").write_text('{"stat')
    assert records.read("ann") is None
    assert records.all(["ann", "bob"]) == []
