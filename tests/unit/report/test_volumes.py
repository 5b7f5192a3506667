"""Tables of 3D runs: the right mean and unit, structures apart, and the right words for what is missing."""

from __future__ import annotations

import pandas as pd
import pytest

from textdiff.experiments.config import TextDiffSegConfig
from textdiff.experiments.grids import Grid, Row
from textdiff.experiments.records import portable
from textdiff.report import images as report
from textdiff.report import volumes as report3d
from textdiff.report.images import NOT_GIVEN, NOT_RUN

HEAD, TAIL = "anterior_hippocampus", "posterior_hippocampus"
LITTLE = Grid(
    "little",
    "Which is better?",
    (
        Row("TextDiffSeg", {}),
        Row("SegResNet", {"model": "segresnet"}),
        Row("never run", {"model": "unetr"}),
    ),
    {"mode": "full", "dataset": "hippocampus", "text_encoder": "tiny"},
    (0, 1),
    TextDiffSegConfig,
)


def saved(root, config, scores, distances, stale=False, **more):
    """A record's row as `load_records` gives it, with its per-case table on disk. `scores`: {case: Dice}."""
    folder = root / config.run_id
    folder.mkdir()
    table = pd.DataFrame({"case": list(scores), "dice": list(scores.values()), "hd95_mm": distances})
    table.to_csv(folder / "per_case.csv", index=False)
    dice, far = table["dice"].mean(), table["hd95_mm"].mean()
    metrics = {"n": len(table), "dice": dice, "iou": dice / 2, "hd95_mm": far, "assd_mm": 0.5, "seconds": 1.5}
    metrics |= {"dice_ci_low": dice - 0.1, "dice_ci_high": dice + 0.1, "dice_pooled": dice, "iou_pooled": dice / 2}
    for name, shift in ((HEAD, 0.05), (TAIL, -0.05)):
        metrics |= {
            f"dice_{name}": dice + shift,
            f"iou_{name}": dice / 2,
            f"hd95_mm_{name}": far,
            f"assd_mm_{name}": 0.5,
        }
    place = {"run_id": config.run_id, "experiment": "textdiffseg3d", "folder": folder, "stale": stale}
    cost = {"model/trained_parameters": 1_234_567, "train/seconds": 3600.0, "val/dice": dice}
    return portable(config.to_dict()) | {f"test/{k}": v for k, v in metrics.items()} | cost | place | more


def read(dice: float) -> dict[str, float]:
    """Metrics of a reading test: own structure, and the other one."""
    pairs = {f"test/dice_{a}_asked_for_{b}": dice if a == b else 0.02 for a in (HEAD, TAIL) for b in (HEAD, TAIL)}
    return pairs | {"test/dice_one_by_one": dice, "test/dice_swapped": 0.02}


@pytest.fixture
def little(tmp_path):
    """Two draws of TextDiffSeg and one of SegResNet; the case 002 has no distance in the former."""
    ours, net = (LITTLE.configs(row) for row in LITTLE.rows[:2])
    return pd.DataFrame(
        [
            saved(tmp_path, ours[0], {"001": 0.9, "002": 0.8}, [1.0, None], **read(0.84)),
            saved(tmp_path, ours[1], {"001": 0.7, "002": 0.8}, [2.0, None], **read(0.74)),
            saved(tmp_path, net[0], {"002": 0.7, "001": 0.85}, [3.0, 1.5]),
        ]
    )


def test_rows_in_order_with_structures_distances_and_costs(little):
    frame = report3d.grid_table_3d(LITTLE, little).frame.set_index("Model")
    ours = frame.loc["TextDiffSeg"]
    assert (ours["n labelled"], ours["draws"], ours["test n"]) == ("all", "2 of 2", "2")
    assert (ours["Dice"], ours["95 % interval"]) == ("80.00 ± 7.07", "70.00 to 90.00")
    assert (ours["anterior hippocampus"], ours["posterior hippocampus"]) == ("85.00 ± 7.07", "75.00 ± 7.07")
    assert (ours["HD95 (mm)"], ours["ASSD (mm)"]) == ("1.50 ± 0.71", "0.50 ± 0.00")
    assert (ours["trained parameters"], ours["training seconds"]) == ("1.23 M", "3,600")
    assert frame.loc["SegResNet", ["draws", "Dice", "seconds a volume"]].tolist() == ["1 of 2", "77.50", "1.50"]
    assert frame.loc["never run"].tolist()[1:5] == ["0 of 2", "", NOT_RUN, ""]


def test_the_opponent_is_chosen_on_validation_volumes(little):
    runs = report.grid_records(LITTLE, little)
    assert report3d.best_row(runs, ("segresnet", "unetr")) == "SegResNet"
    assert report3d.best_row(runs, ("unetr",)) is None and report3d.best_row(runs.iloc[:0], ("segresnet",)) is None


def test_many_structures_have_a_table_of_their_own(little):
    for k in range(4):
        little[f"test/iou_organ_{k}"] = 0.5
    assert "anterior hippocampus" not in report3d.grid_table_3d(LITTLE, little).frame
    names = report3d.structure_table(LITTLE, little).frame.query("Model == 'SegResNet'")["structure"]
    assert names.tolist() == ["anterior hippocampus", "posterior hippocampus", *(f"organ {k}" for k in range(4))]


def test_every_structure_by_itself(little):
    lines = report3d.structure_table(LITTLE, little).frame.values.tolist()
    assert lines[1] == ["TextDiffSeg", "posterior hippocampus", "75.00 ± 7.07", "1.50 ± 0.71", "0.50 ± 0.00"]
    assert lines[-1] == ["never run", "", NOT_RUN, "", ""]


def test_nothing_has_been_run():
    empty = pd.DataFrame(columns=["stale", "run_id"])
    for result in (report3d.grid_table_3d(LITTLE, empty), report3d.structure_table(LITTLE, empty)):
        assert result.frame["Dice"].tolist() == [NOT_RUN] * 3
    assert report3d.paired_differences_3d(LITTLE, empty, "SegResNet").frame["Dice"].tolist() == [NOT_RUN] * 3
    assert report3d.prompt_table(LITTLE, empty).frame["all at once"].tolist() == [NOT_RUN]
    assert report3d.matrix_table(LITTLE, empty).frame["asked for"].tolist() == [NOT_RUN]
    assert report3d.prompt_matrix(empty).empty


def test_stale_records_do_not_count(little):
    result = report3d.grid_table_3d(LITTLE, little.assign(stale=True))
    assert result.frame["Dice"].tolist() == [NOT_RUN] * 3 and "3 record(s)" in result.caption


def test_differences_are_paired_and_distances_in_mm(little):
    frame = report3d.paired_differences_3d(LITTLE, little, "SegResNet").frame.set_index("Model")
    # Draw 0 alone has both rows, and only case 001 both distances
    assert frame.loc["TextDiffSeg"].tolist() == [2, "+7.50 (+5.00 to +10.00)", "+7.50", "-0.50"]
    assert frame.loc["SegResNet", "Dice"] == "the base"
    assert frame.loc["never run", "Dice"] == NOT_RUN
    with pytest.raises(ValueError, match="not one row 'U-Net'"):
        report3d.paired_differences_3d(LITTLE, little, "U-Net")


def test_models_that_read_and_what_they_do_when_asked_for_another(little):
    frame = report3d.prompt_table(LITTLE, little).frame
    assert frame["Model"].tolist() == ["TextDiffSeg"]
    assert frame.loc[0, ["one by one", "another asked for"]].tolist() == ["79.00 ± 7.07", "2.00 ± 0.00"]
    assert frame.loc[0, "report prompts"] == NOT_GIVEN
    matrix = report3d.prompt_matrix(little)
    assert matrix.loc["anterior hippocampus"].to_dict() == pytest.approx(
        {"anterior hippocampus": 0.79, "posterior hippocampus": 0.02}
    )
    lines = report3d.matrix_table(LITTLE, little).frame.values.tolist()
    assert lines[1] == ["TextDiffSeg", "posterior hippocampus", "2.00", "79.00"]


def test_all_labelled_volumes_are_called_all(little):
    said = report.missing_runs(LITTLE, little)
    assert "3 of 6 runs" in said and "  SegResNet, all labelled: seed 1" in said
    assert "textdiff sweep little -p dataset=hippocampus --seeds 0,1" in said


def sampled(case: str, steps: int, dice: float, samples: int = 1, **more) -> dict:
    scores = {"ece": 0.1, "error_auroc": 0.9, "error_auprc": 0.5, "error_share": 0.05, "uncertainty": 1 - dice}
    return (
        {"case": case, "sampler": "ddim", "steps": steps, "samples": samples, "dice": dice, "seconds": 2.0}
        | scores
        | more
    )


def test_steps_are_compared_on_the_volumes_that_all_have():
    table = pd.DataFrame([sampled("a", 5, 0.8), sampled("b", 5, 0.6), sampled("a", 1000, 0.9), sampled("a", 5, 0.1, 4)])
    lines = report3d.sampling_table(table).frame.values.tolist()
    assert lines == [
        ["ddim", 5, 2, "70.00", "80.00", "0.100", "2.00"],
        ["ddim", 1000, 1, "90.00", "90.00", "0.100", "2.00"],
    ]
    assert len(report3d.sampling_table(table.iloc[:0]).frame) == 0


def test_what_several_samples_add():
    rows = [
        sampled(case, 5, dice, samples) for samples in (1, 4) for case, dice in (("a", 0.9), ("b", 0.7), ("c", 0.8))
    ]
    rows[3]["error_auroc"] = None  # a volume without a wrong voxel
    frame = report3d.uncertainty_table(pd.DataFrame(rows), "ddim", 5).frame
    assert frame["samples"].tolist() == [1, 4]
    assert frame.loc[1, ["Dice", "AUROC", "uncertainty and Dice"]].tolist() == ["80.00", "0.900", "-1.00"]


def test_a_reliability_table_survives_being_recorded():
    table = pd.DataFrame(
        {"low": [0.0, 0.5], "high": [0.5, 1.0], "n": [0, 9], "confidence": [None, 0.8], "accuracy": [None, 0.7]}
    )
    again = report3d.reliability_table(report3d.reliability_metrics(table, "reliability/4"), "reliability/4")
    assert again.to_dict("index") == {1: {"low": 0.5, "high": 1.0, "n": 9, "confidence": 0.8, "accuracy": 0.7}}
    assert report3d.reliability_table({}, "reliability/4").empty
