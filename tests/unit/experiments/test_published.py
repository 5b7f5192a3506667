"""The published records: none stale, and their scores follow from their own tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from textdiff.evaluation.metrics import summarise
from textdiff.evaluation.volumes import summarise_volumes
from textdiff.experiments.records import load_records

PUBLISHED = Path(__file__).resolve().parents[3] / "results" / "published"
FOLDERS = sorted(path.parent for path in PUBLISHED.glob("*/*/metrics.json"))
every_record = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
SCORED = [folder for folder in FOLDERS if folder.parent.name == "textdiff2d"]
VOLUMES = [folder for folder in FOLDERS if folder.parent.name == "textdiffseg3d"]
PROBED = [folder for folder in FOLDERS if folder.parent.name == "blocks_steps"]


def test_no_record_is_stale() -> None:
    records = load_records(PUBLISHED)
    assert len(records) == len(FOLDERS) > 0
    assert records.loc[records["stale"].astype(bool), "run_id"].tolist() == []


@pytest.mark.parametrize("folder", SCORED, ids=lambda folder: folder.name)
def test_scores_follow_from_the_table(folder: Path) -> None:
    recorded = json.loads((folder / "metrics.json").read_text())
    table = pd.read_csv(folder / "per_case.csv", keep_default_na=False)
    again = {f"test/{name}": value for name, value in summarise(table).items()}
    assert {name: recorded[name] for name in again} == pytest.approx(again)
    for name in ("shuffled", "same_count", "empty", "swapped"):
        if f"dice_{name}" in table:
            assert recorded[f"test/dice_{name}"] == pytest.approx(table[f"dice_{name}"].mean())


@pytest.mark.parametrize("folder", VOLUMES, ids=lambda folder: folder.name)
def test_scores_of_volumes_follow_from_the_table(folder: Path) -> None:
    recorded = json.loads((folder / "metrics.json").read_text())
    table = pd.read_csv(folder / "per_case.csv")
    # An undefined score is null in a record
    again = {f"test/{name}": value for name, value in summarise_volumes(table).items() if not pd.isna(value)}
    assert {name: recorded[name] for name in again} == pytest.approx(again)
    for name in table.filter(like="_asked_for_"):
        assert recorded[f"test/{name}"] == pytest.approx(table[name].mean())


@pytest.mark.parametrize("folder", PROBED, ids=lambda folder: folder.name)
def test_probes_follow_from_the_table(folder: Path) -> None:
    recorded = json.loads((folder / "metrics.json").read_text())
    table = pd.read_csv(folder / "per_case.csv", dtype={"blocks": str, "steps": str})
    means = table.groupby(["backbone", "blocks", "steps"])["dice"].mean()
    sets = [name.removeprefix("probe/") for name in recorded if "@" in name]
    assert sets
    for name in sets:
        tap, backbone = name.split(" ")
        assert recorded[f"probe/{name}"] == pytest.approx(means[(backbone, *tap.split("@"))])


@every_record
def test_a_record_names_no_machine_and_shows_no_patient(folder: Path) -> None:
    text = "".join(path.read_text() for path in folder.glob("*.json"))
    assert not any(root in text for root in ("/home/", "/root/", "/tmp/", "C:\\"))
    assert [path.name for path in folder.glob("figures/*.png") if path.stem != "training"] == []
