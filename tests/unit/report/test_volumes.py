"""Tables of runs on volumes: structures apart, distances in mm, reading, and what notebook 25 measures."""

import pandas as pd
import pytest

from tests.unit.report.little import VOLUMES
from textdiff.report import volumes as report
from textdiff.report.missing import NOT_GIVEN


def test_rows_in_order_with_structures_distances_and_costs(volumes):
    frame = report.grid_table_3d(VOLUMES, volumes).frame.set_index("Model")
    ours = frame.loc["TextDiffSeg"]
    assert (ours["n labelled"], ours["draws"], ours["test n"]) == ("all", "2 of 2", "2")
    assert (ours["Dice"], ours["95 % interval"]) == ("80.00 ± 7.07", "75.00 to 85.00")
    assert (ours["anterior hippocampus"], ours["posterior hippocampus"]) == ("85.00 ± 7.07", "75.00 ± 7.07")
    assert (ours["HD95 (mm)"], ours["ASSD (mm)"]) == ("1.50 ± 0.71", "0.50 ± 0.00")
    assert (ours["trained parameters"], ours["training seconds"]) == ("0.13 M", "1,200")
    assert frame.loc["SegResNet", ["draws", "Dice", "seconds per volume"]].tolist() == ["1 of 2", "77.50", "1.50"]
    assert "never run" not in frame.index


def test_every_structure_by_itself(volumes):
    lines = report.structure_table(VOLUMES, volumes).frame.values.tolist()
    assert lines[1] == ["TextDiffSeg", "posterior hippocampus", "75.00 ± 7.07", "1.50 ± 0.71", "0.50 ± 0.00"]
    assert {line[0] for line in lines} == {"TextDiffSeg", "SegResNet"}
    for k in range(4):
        volumes[f"test/iou_organ_{k}"] = 0.5
    assert "anterior hippocampus" not in report.grid_table_3d(VOLUMES, volumes).frame, "many have a table of their own"
    names = report.structure_table(VOLUMES, volumes).frame.query("Model == 'SegResNet'")["structure"]
    assert names.tolist() == ["anterior hippocampus", "posterior hippocampus", *(f"organ {k}" for k in range(4))]


def test_models_that_read_and_what_they_do_when_asked_for_another(volumes):
    frame = report.prompt_table(VOLUMES, volumes).frame
    assert frame["Model"].tolist() == ["TextDiffSeg"]
    assert frame.loc[0, ["one by one", "another asked for"]].tolist() == ["79.00 ± 7.07", "2.00 ± 0.00"]
    assert frame.loc[0, "report prompts"] == NOT_GIVEN
    matrix = report.prompt_matrix(volumes.iloc[:2])
    assert matrix.loc["anterior hippocampus"].to_dict() == pytest.approx(
        {"anterior hippocampus": 0.79, "posterior hippocampus": 0.02}
    )
    assert report.prompt_matrix(volumes.iloc[2:]).empty
    lines = report.matrix_table(VOLUMES, volumes).frame.values.tolist()
    assert lines[1] == ["TextDiffSeg", "posterior hippocampus", "2.00", "79.00"]


def sampled(case: str, steps: int, dice: float, samples: int = 1) -> dict:
    scores = {"ece": 0.1, "error_auroc": 0.9, "error_auprc": 0.5, "error_share": 0.05, "uncertainty": 1 - dice}
    way = {"sampler": "ddim", "sampling_steps": steps, "samples": samples}
    return {"case": case, "dice": dice, "seconds": 2.0} | way | scores


def test_steps_are_compared_on_the_volumes_that_all_have():
    table = pd.DataFrame([sampled("a", 5, 0.8), sampled("b", 5, 0.6), sampled("a", 1000, 0.9), sampled("a", 5, 0.1, 4)])
    lines = report.sampling_table(table).frame.values.tolist()
    assert lines == [
        ["ddim", 5, 2, "70.00", "80.00", "0.100", "2.00"],
        ["ddim", 1000, 1, "90.00", "90.00", "0.100", "2.00"],
    ]
    assert len(report.sampling_table(table.iloc[:0]).frame) == 0


def test_what_several_samples_add():
    dice = {"a": 0.9, "b": 0.7, "c": 0.8}
    rows = [sampled(case, 5, dice[case], samples) for samples in (1, 4) for case in dice]
    rows[3]["error_auroc"] = None  # a volume without a wrong voxel
    frame = report.uncertainty_table(pd.DataFrame(rows), "ddim", 5).frame
    assert frame["samples"].tolist() == [1, 4]
    assert frame.loc[1, ["Dice", "AUROC", "uncertainty and Dice"]].tolist() == ["80.00", "0.900", "-1.00"]


def test_a_reliability_table_survives_being_recorded():
    known = {"low": 0.5, "high": 1.0, "n": 9, "confidence": 0.8, "accuracy": 0.7}
    table = pd.DataFrame([{"low": 0.0, "high": 0.5, "n": 0}, known])
    again = report.reliability_table(report.reliability_metrics(table, "reliability/4"), "reliability/4")
    assert again.to_dict("index") == {1: known}
    assert report.reliability_table({}, "reliability/4").empty


def test_a_run_by_itself():
    metrics = {
        "test/n": 12,
        "test/dice": 0.8,
        "test/dice_ci_low": 0.7,
        "test/dice_ci_high": 0.9,
        "test/dice_left_kidney": 0.9,
    }
    table = report.run_table(metrics | {"test/hd95_mm": None}, ("background", "left kidney"))
    assert table.frame.values.tolist() == [
        ["all", "80.00", NOT_GIVEN, NOT_GIVEN],
        ["left kidney", "90.00", NOT_GIVEN, NOT_GIVEN],
    ]
    assert "12 volumes" in table.caption and "70.00 to 90.00" in table.caption


def test_the_best_network_is_chosen_on_validation_volumes(volumes):
    assert report.best_network(VOLUMES, volumes) == "SegResNet"
    assert report.best_network(VOLUMES, volumes.iloc[:0]) == "SegResNet", "before any was run, the first"


def test_what_notebook_25_measured_survives_being_recorded():
    table = pd.DataFrame([sampled("a", 5, 0.8), sampled("b", 5, 0.6), sampled("a", 5, 0.9, 4)])
    bins = pd.DataFrame({"low": [0.5], "high": [1.0], "n": [9.0], "confidence": [0.9], "accuracy": [0.8]}, index=[1])
    ways = {("ddim", 5, 1): bins, ("ddim", 5, 4): bins, ("ddpm", 5, 1): bins.assign(n=1.0), ("ddim", 9, 2): bins}
    metrics = report.sampling_metrics(table, ways, uncertainty_steps=5)
    assert metrics["test/n"] == 2 and metrics["sampling/dice ddim 5 x1"] == pytest.approx(0.7)
    again = report.reliability_tables(metrics)
    assert list(again) == ["one sample", "4 samples"]
    pd.testing.assert_frame_equal(again["one sample"], bins, check_names=False)
