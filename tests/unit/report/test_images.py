"""Tables of runs on images, the papers' rows beneath ours, reading, and probes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.unit.report.little import IMAGES, image_record
from textdiff.experiments.grids import Grid, Row
from textdiff.report import images as report
from textdiff.report.missing import NOT_GIVEN, NOT_RUN


def test_rows_in_order_with_scores_and_costs(images):
    table = report.grid_table(IMAGES, images.iloc[[3, 2, 0]])
    frame = table.frame.set_index("Model")
    assert frame["draws"].to_dict() == {"with text": "2 of 2", "without": "1 of 2"}
    assert frame["Dice"].tolist() == ["65.00 ± 14.14", "45.00"]
    assert frame["n labelled"].tolist() == [60, 60]
    ours = frame.loc["with text"]
    assert (ours["test n"], ours["95 % interval"], ours["IoU"]) == ("2", "60.00 to 70.00", "65.00 ± 14.14")
    assert (ours["pooled Dice"], ours["native Dice"]) == ("67.00 ± 14.14", "32.50 ± 7.07")
    assert (ours["trained parameters"], ours["training seconds"]) == ("0.13 M", "1,200")
    assert "3 of 6 runs have no record yet, and rows that have none at all are not shown (1 of 3)" in table.caption


def test_seconds_of_a_run_with_a_teacher_are_said_to_be_those_of_the_last_training(images, tmp_path):
    films = Row("films", {"unlabelled": 6, "mirrored": "on"})
    grid = replace(IMAGES, rows=(*IMAGES.rows, films))
    said = "those of the last training: the teacher's"
    assert said not in report.grid_table(grid, images).caption, "no such row is shown"
    made = image_record(tmp_path, grid.configs(films)[0], {"001": 0.6, "002": 0.5})
    assert said in report.grid_table(grid, pd.concat([images, pd.DataFrame([made])])).caption


def test_papers_rows_stand_beneath_with_their_grade_and_scale(none):
    facts = report.paper_facts()
    mine = facts[(facts["table"] == "1") & facts["paper"].str.startswith("TextDiff")]

    def papers(dataset, chosen):
        common = {"dataset": dataset, "mode": "full", "backbone": "he_32"}
        return report.grid_table(Grid("real", "", (Row("TextDiff", {}),), common, (0,)), none, chosen)

    table = papers("monuseg", mine)
    frame = table.frame.iloc[1:].set_index("Model")
    row = frame.loc["TextDiff (paper: TextDiff (arXiv 2407.05323), source grade C)"]
    assert row[["Dice", "IoU", "n labelled", "trained parameters"]].tolist() == ["78.67", "64.98", "5", "9.68 M"]
    assert frame.loc["UNet (paper: TextDiff (arXiv 2407.05323))", "Dice"] == NOT_GIVEN
    assert len(frame) == 6 and "Source grades" in table.caption
    # Those of other data sets are not shown
    assert report.grid_table(IMAGES, none, mine).frame["Model"].tolist() == [NOT_RUN]
    frame = papers("qata", facts).frame.set_index("Model")
    for method, scale, dice in (("TGC-Net", "pooled Dice", "90.54"), ("RecLMIS", "native Dice", "83.69")):
        row = frame.filter(like=method, axis=0).iloc[0]
        assert (row["Dice"], row[scale]) == (NOT_GIVEN, dice)


def test_paper_facts_have_a_source_and_a_grade_for_every_number(tmp_path):
    facts = report.paper_facts()
    assert not facts.duplicated(["id", "dataset"]).any()
    assert facts["source"].notna().all()
    known = facts[["dice", "iou"]].notna().any(axis=1)
    assert facts.loc[known, "grade"].isin(["A", "B", "C"]).all()
    assert facts.loc[~known, "grade"].isna().all()
    assert facts["params_grade"].notna().equals(facts["params_m"].notna())
    assert facts[["dice", "iou"]].stack().dropna().between(40, 100).all()
    with pytest.raises(FileNotFoundError, match="part of the repository"):
        report.paper_facts(tmp_path / "none.csv")


def test_reading_is_a_loss_and_only_of_models_that_read(images):
    frame = report.reading_table(IMAGES, images).frame
    assert frame["Model"].tolist() == ["with text"]
    cells = frame.loc[0, ["own sentence", "another image's", "none"]].tolist()
    assert cells == ["65.00 ± 14.14", "+10.00 (+10.00 to +10.00)", NOT_GIVEN]
    losses = report.reading_losses(IMAGES, images).set_index(["row", "reading"])
    assert losses.loc[("with text", "another image's"), "difference"] == pytest.approx(0.1)
    assert losses.loc["without", "difference"].isna().all()
    silent = replace(IMAGES, rows=IMAGES.rows[1:])
    assert report.reading_table(silent, images).frame.empty


def test_sets_of_a_probe_stand_beside_the_best_single_block():
    lines = [("1,4", "50", 0, 0.6), ("1,4", "50", 1, 0.8), ("1", "50", 0, 0.5), ("4", "50", 0, 0.4)]
    table = pd.DataFrame(lines, columns=["blocks", "noise_steps", "draw", "dice"])
    both = pd.concat([table.assign(backbone="he_32"), table.assign(backbone="random:he_32", dice=0.2)])
    found = report.probe_table(both, "A probe.").frame
    assert list(found.columns) == ["blocks", "noise steps", "he_32", "random:he_32"]
    assert found.values.tolist() == [
        ["1,4", "50", "70.0 ± 14.1", "20.0 ± 0.0"],
        ["best single", "", "50.0 (block 1, step 50)", "20.0 (block 1, step 50)"],
    ]


def test_how_many_sentences_may_be_wrong(images, none):
    """Five points ahead with its own sentences, ten behind with all of them wrong: level where a third is."""
    names = [f"c{number}" for number in range(30)]
    spread = np.random.default_rng(0).normal(0, 0.01, (30, 2))
    base = pd.DataFrame(np.full((30, 2), 0.6), names, [0, 1])
    own, wrong = base + 0.05 + spread, base - 0.1 + spread
    low, level, high = (int(report._share_until(own, wrong, base, bound)[:-2]) for bound in report.ENDS.values())
    assert 20 < low < level < high < 50 and abs(level - 34) <= 1
    assert report._share_until(own, own, base, "high") == "never"
    assert report._share_until(base, wrong, base, "low") == "0 %"
    frame = report.wrong_sentences_table(IMAGES, images, ["with text"], "without").frame
    assert list(frame["the wrong sentence"]) == list(report.READINGS) and list(frame.columns[2:]) == list(report.ENDS)
    assert "None of these" in report.wrong_sentences_table(IMAGES, none, ["with text"], "without").caption
    with pytest.raises(ValueError, match="no row 'with texts'"):
        report.wrong_sentences_table(IMAGES, images, ["with texts"], "without")


def test_dice_by_size_groups_images_by_their_truth(images, none):
    """Draws are averaged first; a picture that is foreground throughout has a group; a row without a record is left out."""
    for folder in images["folder"]:
        table = pd.read_csv(file := Path(folder) / "per_case.csv", dtype={"case": str})
        table.assign(actual=[{"001": 256 * 256 / 50, "002": 256 * 256}[case] for case in table["case"]]).to_csv(
            file, index=False
        )
    labels = ["with text", "without"]
    table = report.dice_by_size(IMAGES, images, labels, (0.05,)).frame.set_index("Truth")
    assert list(table.columns) == ["images", "with text", "without"]
    assert table.loc["less than 5%"].tolist() == ["1", "70.0", "35.0"]
    assert table.loc["5% of the picture or more"].tolist() == ["1", "60.0", "45.0"]
    assert table.loc["answers with a Dice below 50"].tolist() == ["2", "0.0 %", "75.0 %"]
    assert "has a record yet" in report.dice_by_size(IMAGES, none, labels, (0.05,)).caption
    with pytest.raises(ValueError, match=r"no row 'with texts' \(did you mean 'with text'"):
        report.dice_by_size(IMAGES, images, ["with texts"], (0.05,))
