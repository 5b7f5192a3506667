"""Cells, differences and goals: the right mean and unit, and the right words for what is missing."""

import pandas as pd
import pytest

from tests.unit.report.little import IMAGES, TWO_PATIENTS, VOLUMES, image_record
from textdiff.report import images as report
from textdiff.report import volumes as report3d
from textdiff.report.missing import NOT_GIVEN, NOT_RUN
from textdiff.report.rows import by_row, grid_records
from textdiff.report.tables import (
    Table,
    differences,
    goals_table,
    mean_sd,
    p_text,
    paired_differences,
    questions_table,
    results,
    row_mean,
)
from textdiff.report.verdicts import small_table


def test_a_table_is_shown_with_its_caption_and_means_with_their_deviation():
    shown = Table(pd.DataFrame({"a": ["1 < 2"]}), "5 % & more")._repr_html_()
    assert "<caption>5 % &amp; more</caption>" in shown and "1 &lt; 2" in shown
    draws = [0.6, 0.7, 0.8], [0.6], [0.6, None], []
    written = [mean_sd(pd.Series(values, dtype=float)) for values in draws]
    assert written == ["70.00 ± 10.00", "60.00", "60.00", NOT_GIVEN]


@pytest.mark.parametrize(
    "make",
    [
        lambda none: report.grid_table(IMAGES, none),
        lambda none: report3d.grid_table_3d(VOLUMES, none),
        lambda none: report3d.structure_table(VOLUMES, none),
        lambda none: paired_differences(IMAGES, none, "without"),
        lambda none: paired_differences(VOLUMES, none, "SegResNet"),
        lambda none: report.reading_table(IMAGES, none),
        lambda none: report3d.prompt_table(VOLUMES, none),
        lambda none: report3d.matrix_table(VOLUMES, none),
        lambda none: small_table(IMAGES, none, "without"),
    ],
)
def test_a_grid_without_any_record_says_so(none, make):
    table = make(none)
    assert table.frame["Model"].tolist() == [NOT_RUN]
    assert table.caption.startswith(("Data set: chest_phantoms. ", "Data set: hippocampus. "))
    assert "6 of 6 runs have no record yet, and rows that have none at all are not shown (3 of 3)" in table.caption


def test_differences_are_paired_by_case_and_draw(images):
    one = differences(IMAGES, images, "without").loc["with text"]
    assert one["draws"] == pytest.approx((0.2, 0.3))
    assert (one["difference"], one["cases"]) == (pytest.approx(0.25), 2)
    # by image, over draws: 0.35 and 0.15
    assert (one["cases_low"], one["cases_high"]) == pytest.approx((0.15, 0.35))
    # Of two images and two draws: 6.19 standard errors of 0.112 on either side (worked out in test_comparing)
    assert (one["low"], one["high"]) == pytest.approx((-0.442, 0.942), abs=0.001)
    native = differences(IMAGES, images, "without", "dice_native").loc["with text", "difference"]
    assert native == pytest.approx(0.125)
    # Only draws of both rows are compared
    assert differences(IMAGES, images.iloc[:3], "without").loc["with text", "draws"] == pytest.approx((0.2,))
    assert differences(IMAGES, images.iloc[[0, 3]], "without").loc["with text", "cases"] == 0


def test_table_of_differences(images):
    table = paired_differences(IMAGES, images, "without")
    dice, native = "+25.00 (-44.19 to +94.19)", "+12.50 (-22.09 to +47.09)"
    assert table.frame.values.tolist() == [
        ["with text", 2, dice, "+20.00, +30.00", "0.20", "+1.77", "100 %", native],
        ["without", 2, "the base", *[""] * 5],
    ]
    assert table.frame.columns[-1] == "native Dice" and "without" in table.caption
    assert "for other draws and other images" in table.caption and "Holm" in table.caption
    with pytest.raises(ValueError, match="not one row 'no text'; its rows are with text, without"):
        paired_differences(IMAGES, images, "no text")


def test_p_values_are_adjusted_over_the_rows_that_are_compared(images, tmp_path):
    unet = IMAGES.configs(IMAGES.rows[2])
    dice = [{"001": 0.5, "002": 0.52}, {"001": 0.51, "002": 0.5}]
    more = pd.DataFrame([image_record(tmp_path, config, one) for config, one in zip(unet, dice, strict=True)])
    records = pd.concat([images, more], ignore_index=True)
    raw = differences(IMAGES, records, "without")["p"]
    shown = paired_differences(IMAGES, records, "without").frame.set_index("Model")["p (Holm)"]
    assert raw["with text"] < raw["never run"]
    assert shown["with text"] == p_text(2 * raw["with text"]), "two rows beside the base"
    assert shown["never run"] == p_text(max(2 * raw["with text"], raw["never run"])) and shown["without"] == ""


def test_one_difference_has_an_interval_for_every_question(images, none):
    assert questions_table(IMAGES, images, "without", "with text").frame.values.tolist() == [
        ["draw 0 alone", "other images", "+20.00 (-107.06 to +147.06)", "0.30"],
        ["draw 1 alone", "other images", "+30.00 (-97.06 to +157.06)", "0.20"],
        ["these 2 draws", "other images", "+25.00 (+15.00 to +35.00)", ""],
        ["draws as a sample", "other images, other draws", "+25.00 (-44.19 to +94.19)", "0.20"],
    ]
    one = questions_table(IMAGES, images.iloc[:3], "without", "with text").frame
    assert one["taken"].tolist() == ["draw 0 alone"], "a single draw is no sample of draws"
    assert questions_table(IMAGES, none, "without", "with text").frame["Dice"].tolist() == [NOT_RUN]
    with pytest.raises(ValueError, match="not one row 'no text'"):
        questions_table(IMAGES, images, "without", "no text")


def test_p_values_have_the_digits_that_are_read():
    shown = [p_text(p) for p in (0.0002, 0.0042, 0.0098, 0.0312, 1, float("nan"))]
    assert shown == ["<0.001", "0.004", "0.01", "0.03", "1.00", NOT_GIVEN]


def test_differences_of_volumes_have_distances_in_mm(volumes):
    frame = paired_differences(VOLUMES, volumes, "SegResNet").frame.set_index("Model")
    # Draw 0 alone has both rows, and only case 001 both distances: t of two volumes, 12.7 standard errors of 2.5
    dice = "+7.50 (-24.27 to +39.27)"
    assert frame.loc["TextDiffSeg"].tolist() == [2, dice, "one draw", "0.20", "+2.12", "100 %", "-0.50"]
    assert frame.columns[-1] == "HD95 (mm)" and "never run" not in frame.index


def test_goals_are_met_missed_or_not_run(images):
    runs = grid_records(IMAGES, images)
    goals = [("above", 60, 100 * row_mean(runs, "with text")), ("more", 70, 65), ("stays", 5, 65)]
    goals.append(("unknown", 1, row_mean(runs, "never run")))
    lines = goals_table(goals, "Goals.", at_most=["stays"]).frame.values.tolist()
    assert lines == [
        ["above", "60", "65.00", "yes"],
        ["more", "70", "65.00", "no, 5.00 short"],
        ["stays", "5", "65.00", "no, 60.00 short"],
        ["unknown", "1", "", NOT_RUN],
    ]
    with pytest.raises(ValueError, match="several rows 'with text'"):
        row_mean(runs.assign(row="with text"), "with text")


def test_the_interval_takes_the_images_of_a_patient_together(tmp_path):
    config = IMAGES.configs(IMAGES.rows[0])[0]
    records = pd.DataFrame([image_record(tmp_path, config, TWO_PATIENTS)])
    frame = results(by_row(IMAGES, records), {})
    assert frame["95 % interval"].iloc[0] == "20.00 to 80.00", "two patients, not forty"
