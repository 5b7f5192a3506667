from __future__ import annotations

from pathlib import Path

import pytest

from textdiff.base import paths
from textdiff.base.files import read_json, write_text
from textdiff.data import load_dataset

FOLDERS = {
    "TEXTDIFF_DATA": (paths.data_dir, "data", "data"),
    "TEXTDIFF_WEIGHTS": (paths.weights_dir, "weights", "weights"),
    "TEXTDIFF_RESULTS": (paths.results_dir, "results/runs", "results/runs"),
}


@pytest.mark.parametrize("variable", FOLDERS)
def test_environment_wins_then_checkout_then_home(variable, monkeypatch, tmp_path):
    folder, in_checkout, elsewhere = FOLDERS[variable]
    monkeypatch.setenv(variable, str(tmp_path / "mine"))
    assert folder() == tmp_path / "mine"
    monkeypatch.delenv(variable)
    monkeypatch.setattr(paths, "_checkout", lambda: tmp_path)
    assert folder() == tmp_path / in_checkout
    monkeypatch.setattr(paths, "_checkout", lambda: None)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert folder() == tmp_path / ".cache" / "textdiff" / elsewhere


def test_blank_variable_counts_as_unset(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_CACHE", " ")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert paths.cache_dir() == tmp_path / ".cache" / "textdiff" / "cache"


def test_assets_are_inside_the_package():
    assert paths.assets_dir().parent.name == "textdiff"


@pytest.mark.parametrize("kind", ["weights", "published", "notebooks", "book"])
def test_what_is_shipped_lies_in_the_checkout_or_in_the_package(kind, monkeypatch):
    assert paths.shipped(kind).is_dir()
    monkeypatch.setattr(paths, "_checkout", lambda: None)
    assert paths.shipped(kind) == paths.PACKAGE / "shipped" / kind


def test_the_size_of_the_feature_cache_may_be_set(monkeypatch):
    monkeypatch.delenv("TEXTDIFF_CACHE_GB", raising=False)
    assert paths.cache_bytes() == 20e9
    monkeypatch.setenv("TEXTDIFF_CACHE_GB", "0.5")
    assert paths.cache_bytes() == 5e8
    for wrong in ("-1", "much", "inf"):
        monkeypatch.setenv("TEXTDIFF_CACHE_GB", wrong)
        with pytest.raises(ValueError, match=f"TEXTDIFF_CACHE_GB='{wrong}': a number of gigabytes above 0"):
            paths.cache_bytes()


def test_json_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b'{"train": ["a"]}')
    assert read_json(tmp_path / "a.json") == {"train": ["a"]}


def test_files_and_data_below_the_home_folder_may_be_given_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_text("~/deep/a.txt", "a")
    assert (tmp_path / "deep" / "a.txt").read_text() == "a" and not (tmp_path / "~").exists()
    with pytest.raises(FileNotFoundError, match=f"no such data set folder: {tmp_path}"):
        load_dataset("monuseg", "~/absent")
