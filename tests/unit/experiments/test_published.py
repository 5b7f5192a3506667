"""The published records: of today's configurations, whole, in range, following from their own tables, and nobody's data."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from textdiff.base.paths import PACKAGE
from textdiff.data import registry
from textdiff.evaluation.metrics import summarise
from textdiff.evaluation.volumes import summarise_volumes
from textdiff.experiments.catalogue import config_from_record
from textdiff.experiments.publish import CURVE, WHOLE_TESTS, refusal
from textdiff.experiments.records import FILES, read_table

PUBLISHED = PACKAGE.parent / "results" / "published"
FOLDERS = sorted(path.parent for path in PUBLISHED.glob("*/*/metrics.json"))
SHARES = ("dice", "iou", "ece", "accuracy", "confidence", "error_auroc", "error_auprc")


def of(*experiments: str):
    found = [folder for folder in FOLDERS if not experiments or folder.parent.name in experiments]
    return pytest.mark.parametrize("folder", found, ids=lambda folder: f"{folder.parent.name}/{folder.name}")


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def test_there_are_records_and_none_is_half():
    assert FOLDERS and not [path for path in PUBLISHED.glob("*/.*")]
    # What tools/measure_streaming.py wrote is no run: test_streaming.py looks at it
    assert {path for path in PUBLISHED.glob("*/*") if path.parent.name != "streaming"} == set(FOLDERS)


@of()
def test_a_record_could_be_published_today(folder):
    """Not stale, not of a demo, tested on all cases, of a known commit."""
    config = config_from_record(read(folder, "config.json"))
    assert (config.run_id, config.experiment) == (folder.name, folder.parent.name)
    assert refusal(folder.name, folder) == ""


@of()
def test_a_record_names_no_machine_and_shows_no_patient(folder):
    text = "".join(path.read_text() for path in folder.glob("*.json"))
    assert not any(root in text for root in ("/home/", "/root/", "/tmp/", "C:\\"))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(FILES) <= names
    if not registry.dataset(read(folder, "config.json")["dataset"]).synthetic:
        assert names <= {*FILES, *(f"figures/{name}" for name in CURVE)}
        assert not [name for name in read_table(folder / "per_case.csv") if name.startswith("caption")]


@of()
def test_scores_are_in_range_and_count_the_table(folder):
    metrics, table = read(folder, "metrics.json"), read_table(folder / "per_case.csv")
    assert all(isinstance(value, (int, float)) or value is None for value in metrics.values())
    found = pd.concat([pd.DataFrame([metrics], dtype=float).agg(["min", "max"]), table.agg(["min", "max"])], axis=1)
    shares = found[[name for name in found if name.split("/")[-1].startswith(SHARES)]]
    assert ((shares.isna()) | ((shares >= 0) & (shares <= 1))).all(axis=None)
    assert not (found.filter(like="_mm") < 0).any(axis=None)
    if "test/n" in metrics:
        assert metrics["test/n"] == table["case"].nunique()
    training = read(folder, "env.json").get("training_cases")
    learned_from = metrics.get("train/n", 0) + metrics.get("train/unlabelled", 0)
    assert training is None or len(set(training)) == learned_from


@of(*WHOLE_TESTS)
def test_scores_follow_from_the_table(folder):
    metrics, table = read(folder, "metrics.json"), read_table(folder / "per_case.csv")
    assert table["case"].is_unique
    summary = (summarise if folder.parent.name == "textdiff2d" else summarise_volumes)(table)
    # An undefined score is null in a record
    again = {f"test/{name}": value for name, value in summary.items() if not pd.isna(value)}
    assert {name: metrics[name] for name in again} == pytest.approx(again)
    readings = [f"dice_{name}" for name in ("shuffled", "same_count", "empty", "swapped")]
    for name in table:
        if name in readings or "_asked_for_" in name:
            assert metrics[f"test/{name}"] == pytest.approx(table[name].mean())


@pytest.mark.parametrize("experiment", WHOLE_TESTS)
def test_runs_of_one_data_set_were_tested_on_the_same_cases(experiment):
    tested: dict[tuple[str, object], set[tuple[str, ...]]] = {}
    for folder in PUBLISHED.glob(f"{experiment}/*"):
        cases = tuple(sorted(read_table(folder / "per_case.csv")["case"]))
        config = read(folder, "config.json")
        tested.setdefault((config["dataset"], config["max_test"]), set()).add(cases)
    for (dataset, most), found in tested.items():
        assert registry.dataset(dataset).synthetic or len(found) == 1, f"{dataset}: {sorted(map(len, found))} cases"
        manifest = registry.dataset(dataset).manifest
        if manifest:  # small runs of cost against Dice are tested on the first so many
            test = read(PACKAGE / "data" / "manifests", manifest)["test"]
            assert list(*found) == sorted(test if most == "all" else test[:most])


@of("blocks_steps")
def test_probes_follow_from_the_table(folder):
    metrics, table = read(folder, "metrics.json"), read_table(folder / "per_case.csv")
    means = (
        table.astype({"blocks": str, "noise_steps": str}).groupby(["backbone", "blocks", "noise_steps"])["dice"].mean()
    )
    sets = [name.removeprefix("probe/") for name in metrics if "@" in name]
    assert sets
    for name in sets:
        tap, backbone = name.split(" ")
        assert metrics[f"probe/{name}"] == pytest.approx(means[(backbone, *tap.split("@"))])
