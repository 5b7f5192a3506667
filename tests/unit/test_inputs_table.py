"""The table of inputs: one row per mark on a test, and the one in the book is that of today's tests."""

import csv
import io

import inputs_table
import pytest


def test_the_table_in_the_book_is_that_of_the_tests():
    assert inputs_table.TABLE.read_text(encoding="utf-8") == inputs_table.table(inputs_table.ROOT)


def test_marks_become_rows(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_x.py").write_text(
        "@pytest.mark.takes('NIfTI', 'a flipped bit', 'refused')\n"
        "@pytest.mark.takes('NIfTI', 'qform alone', 'taken')\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.takes('DICOM', 'no spacing', 'refused'))])\n"
        "def test_something(x): pass\n"
    )
    rows = list(csv.reader(io.StringIO(inputs_table.table(tmp_path))))
    assert rows[0] == list(inputs_table.HEADER)
    assert rows[1:] == [
        ["DICOM", "no spacing", "refused", "test_x.py: test_something"],
        ["NIfTI", "qform alone", "taken", "test_x.py: test_something"],
        ["NIfTI", "a flipped bit", "refused", "test_x.py: test_something"],
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@pytest.mark.takes('NIfTI', 'x')\ndef test_x(): pass", "three texts"),
        ("@pytest.mark.takes('NIfTI', 'x', 'eaten')\ndef test_x(): pass", "answer 'eaten', expected one of taken"),
        ("x = pytest.mark.takes('NIfTI', 'x', 'taken')", "no test function"),
    ],
)
def test_wrong_marks_are_named(source, said):
    with pytest.raises(ValueError, match=said):
        list(inputs_table.marked(source))
