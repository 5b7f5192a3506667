"""What one file may take: the number is said, can be raised, and a wrong setting is told."""

import pytest

from textdiff.base.limits import TooLargeError, most_bytes, need_bytes


def test_a_file_within_the_limit_passes():
    need_bytes(2e9, "a.nii.gz", "the volume")


def test_a_file_beyond_it_is_refused_with_both_numbers_and_the_way_out(monkeypatch):
    with pytest.raises(TooLargeError, match=r"a.nii.gz: the volume would take 8.6 GB.*may take 2 GB.*GB=9 and run"):
        need_bytes(8.6e9, "a.nii.gz", "the volume")
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "9")
    need_bytes(8.6e9, "a.nii.gz", "the volume")


@pytest.mark.parametrize("said", ["0", "-1", "much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_told(monkeypatch, said):
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", said)
    with pytest.raises(ValueError, match=f"TEXTDIFF_MAX_FILE_GB='{said}'"):
        most_bytes()
