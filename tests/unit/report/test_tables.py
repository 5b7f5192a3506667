"""Cells, differences and goals: the right mean and unit, and the right words for what is missing."""

import pandas as pd
import pytest

from tests.unit.report.little import IMAGES, VOLUMES
from textdiff.report import images as report
from textdiff.report import volumes as report3d
from textdiff.report.missing import NOT_GIVEN, NOT_RUN
from textdiff.report.rows import grid_records
from textdiff.report.tables import Table, differences, goals_table, mean_sd, paired_differences, row_mean


def test_a_table_is_shown_with_its_caption_and_means_with_their_deviation():
    shown = Table(pd.DataFrame({"a": ["1 < 2"]}), "5 % & more")._repr_html_()
    assert "<caption>5 % &amp; more</caption>" in shown and "1 &lt; 2" in shown
    draws = [0.6, 0.7, 0.8], [0.6], [0.6, None], []
    written = [mean_sd(pd.Series(values, dtype=float)) for values in draws]
    assert written == ["70.00 ± 10.00", "60.00", "60.00", NOT_GIVEN]


@pytest.mark.parametrize(
    ("make", "column"),
    [
        (lambda none: report.grid_table(IMAGES, none), "Dice"),
        (lambda none: report3d.grid_table_3d(VOLUMES, none), "Dice"),
        (lambda none: report3d.structure_table(VOLUMES, none), "Dice"),
        (lambda none: paired_differences(IMAGES, none, "without"), "Dice"),
        (lambda none: paired_differences(VOLUMES, none, "SegResNet"), "Dice"),
        (lambda none: report.reading_table(IMAGES, none), "own sentence"),
        (lambda none: report3d.prompt_table(VOLUMES, none), "all at once"),
        (lambda none: report3d.matrix_table(VOLUMES, none), "asked for"),
    ],
)
def test_a_grid_without_any_record_says_so(none, make, column):
    table = make(none)
    assert set(table.frame[column]) == {NOT_RUN} and len(table.frame) in (1, 3)
    assert f"“{NOT_RUN}”" in table.caption and "6 of 6 runs have no record yet" in table.caption


def test_differences_are_paired_by_case_and_draw(images):
    one = differences(IMAGES, images, "without").loc["with text"]
    assert one["draws"] == pytest.approx((0.2, 0.3))
    assert (one["difference"], one["cases"]) == (pytest.approx(0.25), 2)
    # by image, over draws: 0.35 and 0.15
    assert (one["low"], one["high"]) == pytest.approx((0.15, 0.35))
    native = differences(IMAGES, images, "without", "dice_native").loc["with text", "difference"]
    assert native == pytest.approx(0.125)
    # Only draws of both rows are compared
    assert differences(IMAGES, images.iloc[:3], "without").loc["with text", "draws"] == pytest.approx((0.2,))
    assert differences(IMAGES, images.iloc[[0, 3]], "without").loc["with text", "cases"] == 0


def test_table_of_differences(images):
    table = paired_differences(IMAGES, images, "without")
    assert table.frame.values.tolist() == [
        ["with text", 2, "+25.00 (+15.00 to +35.00)", "+20.00, +30.00", "+12.50 (+7.50 to +17.50)"],
        ["without", 2, "the base", "", ""],
        ["never run", "", NOT_RUN, "", ""],
    ]
    assert table.frame.columns[-1] == "native Dice" and "without" in table.caption
    with pytest.raises(ValueError, match="not one row 'no text'; its rows are with text, without"):
        paired_differences(IMAGES, images, "no text")


def test_differences_of_volumes_have_distances_in_mm(volumes):
    frame = paired_differences(VOLUMES, volumes, "SegResNet").frame.set_index("Model")
    # Draw 0 alone has both rows, and only case 001 both distances
    assert frame.loc["TextDiffSeg"].tolist() == [2, "+7.50 (+5.00 to +10.00)", "+7.50", "-0.50"]
    assert frame.columns[-1] == "HD95 (mm)" and frame.loc["never run", "Dice"] == NOT_RUN


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
