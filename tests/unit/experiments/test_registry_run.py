"""A data set and a backbone of one's own, by one entry each in registry.json: notebook 13 runs on them as on any other."""

from __future__ import annotations

import json

import pytest
from tiny_models import tiny_unet

from textdiff.data import load_dataset
from textdiff.data.images.lvit import read_split, write_split
from textdiff.experiments.records import load_records, read_table
from textdiff.notebooks import checked_parameters, execute_notebook, find_notebook

PARAMETERS = {"dataset": "mine", "iterations": "2", "validate_every": "1", "max_test": "2", "head": "compact"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with images in LViT's layout, a saved backbone, and their two entries."""
    drawn = load_dataset("nuclei_phantoms", sizes=(4, 2, 2), image_size=32)
    for split in ("train", "val", "test"):
        write_split(tmp_path / "mine" / f"{split.capitalize()}_Folder", getattr(drawn, split))
    tiny_unet().save_pretrained(tmp_path / "my_unet")
    entries = {
        "datasets": {
            "mine": {
                "kind": "images",
                "layout": "lvit",
                "class_names": ["background", "nucleus"],
                "licence": "mine",
                "backbone": "my_unet",
                "n_labels": 3,
            }
        },
        "backbones": {"my_unet": {"image_size": 16, "blocks": {"": "0,2"}, "folder": str(tmp_path / "my_unet")}},
    }
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    for name in ("DATA", "RESULTS", "CACHE", "WEIGHTS"):
        monkeypatch.setenv(f"TEXTDIFF_{name}", str(tmp_path / ("" if name == "DATA" else name.lower())))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    return tmp_path


def test_cases_that_are_written_are_read_again(folder):
    drawn = load_dataset("nuclei_phantoms", sizes=(4, 2, 2), image_size=32)
    found = read_split(folder / "mine" / "Train_Folder")
    assert [(case.name, case.caption, case.fingerprint()) for case in found] == [
        (case.name, case.caption, case.fingerprint()) for case in drawn.train
    ]
    assert all((a.mask() == b.mask()).all() for a, b in zip(found, drawn.train, strict=True))


def test_notebook_13_runs_on_a_data_set_and_a_backbone_of_ones_own(folder):
    notebook = find_notebook("13")
    execute_notebook(notebook, folder / "out.ipynb", checked_parameters(notebook, PARAMETERS))
    (record,) = load_records(folder / "results").to_dict("records")
    assert (record["dataset"], record["backbone"], record["blocks"], record["n_labels"]) == (
        "mine",
        "my_unet",
        "0,2",
        3,
    )
    assert record["image_size"] == 16 and not record["stale"]
    assert 0 <= record["test/dice"] <= 1
    assert len(read_table(record["folder"] / "per_case.csv")) == 2
