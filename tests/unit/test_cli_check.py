"""`textdiff check`: the table, the JSON file, and what the exit code says."""

from __future__ import annotations

import json

import pytest
from msd_files import labels, msd
from typer.testing import CliRunner

from textdiff import cli


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "cache"))


def check(*words: object):
    return CliRunner().invoke(cli.app, ["check", *map(str, words)])


def test_exit_codes_table_and_json(tmp_path):
    root = msd(tmp_path / "Liver", 1)
    sound = check(root, "--dataset", "liver_tumour", "--json", tmp_path / "report.json")
    assert (
        sound.exit_code == 0
        and "faults: none" in sound.stdout
        and json.loads((tmp_path / "report.json").read_text())["faults"] == []
    )
    labels(root / "labelsTr" / "case_0.nii.gz", 1, 2, 8)
    again = check(root, "--dataset", "liver_tumour", "--json", tmp_path / "report.json")
    assert again.exit_code == 2 and "report.json is there already" in again.stderr
    broken = check(root, "--dataset", "liver_tumour", "--json", tmp_path / "report.json", "--force")
    assert broken.exit_code == 1 and "labelsTr/case_0.nii.gz  case_0" in broken.stdout
    assert "8 (1 voxels)" in json.loads((tmp_path / "report.json").read_text())["faults"][0]["text"]


def test_what_cannot_be_checked_ends_in_one_line(tmp_path):
    for words, said in (
        ((tmp_path / "absent",), "no such data set folder"),
        ((tmp_path,), "not recognised as a data set"),
        ((tmp_path, "--dataset", "livver_tumour"), "did you mean 'liver_tumour'?"),
    ):
        result = check(*words)
        assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
