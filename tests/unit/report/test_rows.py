"""The only door to records: those of a grid's configurations, whole tests, one learning rate; and the words for the rest."""

from dataclasses import replace

import pandas as pd
import pytest

from tests.unit.report.little import IMAGES, VOLUMES, image_record
from textdiff.experiments.grids import Grid, Row
from textdiff.report.images import grid_table
from textdiff.report.missing import missing_runs
from textdiff.report.rows import best_label, by_row, case_table, grid_records, record_of, tried_rates, with_records


def test_records_come_in_the_grids_order(images):
    runs = grid_records(IMAGES, images.iloc[[3, 2, 0]])
    rows = [["with text", 0, 0], ["with text", 0, 1], ["without", 1, 1]]
    assert runs[["row", "place", "seed"]].values.tolist() == rows
    assert [one.start[2] for one in by_row(IMAGES, images.iloc[[3, 2, 0]])] == ["2 of 2", "1 of 2", "0 of 2"]


OTHERS = {"iterations": 7, "augmentation": "none", "dataset": "nuclei_phantoms", "protocol": "official", "max_test": 4, "backbone_weights": "0123456789abcdef", "experiment": "another"}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), OTHERS.items())
def test_records_that_share_some_fields_only_do_not_count(images, field, value):
    assert grid_records(IMAGES, images.assign(**{field: value})).empty
    assert len(grid_records(IMAGES, images.assign(device="cuda", workers=4))) == 4, (
        "where a run was made does not matter"
    )


def test_a_test_on_a_part_of_real_data_is_never_shown(tmp_path):
    """Even where the grid itself asks for it; of phantoms the number is part of the experiment."""
    part = Grid("part", "", (Row("TextDiff", {}),), {"mode": "full", "dataset": "monuseg", "backbone": "he_32", "max_test": 4}, (0,))  # fmt: skip
    whole = replace(part, common=part.common | {"max_test": "all"})
    phantoms = replace(IMAGES, common=IMAGES.common | {"max_test": 4})
    for grid, count in ((part, 0), (whole, 1), (phantoms, 1)):
        records = pd.DataFrame([image_record(tmp_path, grid.configs(grid.rows[0])[0], {"a": 0.5})])
        assert len(grid_records(grid, records)) == count
        table = grid_table(grid, records)
        assert ("ask for a part of the test set" in table.caption) == (grid is part)
        assert (table.frame["Model"][0] == "not run yet") == (grid is part)
        assert ("of real data such runs are never shown" in missing_runs(grid, records)) == (grid is part)


def test_stale_records_do_not_count_and_are_told(images):
    images.loc[0, "stale"] = True
    table = grid_table(IMAGES, images)
    assert table.frame["draws"].tolist() == ["1 of 2", "2 of 2"]
    assert "not shown (1 of 3). 1 record(s) made with an older form" in table.caption


def test_the_learning_rate_is_chosen_on_validation_cases(images):
    other = images.iloc[[0]].assign(learning_rate=0.5, **{"val/dice": 0.1, "test/dice": 0.99})
    both = pd.concat([images, other], ignore_index=True)
    first = grid_records(IMAGES, both).iloc[0]
    assert (first["learning_rate"], first["searched"]) == (images.loc[0, "learning_rate"], True)
    assert "For 1 run(s) a learning rate was searched" in grid_table(IMAGES, both).caption
    assert "searched" not in grid_table(IMAGES, images).caption
    both.loc[4, "val/dice"] = 0.9
    assert grid_records(IMAGES, both).loc[0, "learning_rate"] == 0.5
    both.loc[4, "val/dice"] = None  # never validated: last
    assert grid_records(IMAGES, both).loc[0, "learning_rate"] == images.loc[0, "learning_rate"]


def test_rows_without_a_record_can_be_left_out(images):
    both = Grid("both", "", (*IMAGES.rows[:1], Row("never", {"n_labels": 3})), IMAGES.common, IMAGES.seeds)
    assert [row.label for row in with_records(both, images).rows] == ["with text"]
    assert with_records(IMAGES, images).rows == IMAGES.rows[:2]


def test_the_best_row_is_chosen_on_validation_cases_and_rows_of_one_label_are_kept_apart(images, volumes):
    rows = (Row("ours", {}), Row("ours", {"model": "textdiff_no_text"}))
    grid = Grid("two", "", rows, IMAGES.common, IMAGES.seeds)
    assert grid_table(grid, images).frame["Dice"].tolist() == ["65.00 ± 14.14", "40.00 ± 7.07"]
    runs = grid_records(grid, images).assign(model="ours")
    runs.loc[runs["place"] == 1, ["row", "val/dice"]] = "the other", 0.66
    assert best_label(runs, ("ours",)) == "the other"
    runs = grid_records(VOLUMES, volumes)
    assert best_label(runs, ("segresnet", "unetr")) == "SegResNet"
    assert best_label(runs, ("unetr",)) is None and best_label(runs.iloc[:0], ("segresnet",)) is None
    assert best_label(runs.drop(columns="val/dice"), ("segresnet", "unetr")) is None


def test_the_best_row_is_one_of_as_many_labels_on_the_draws_that_all_have():
    told = [
        ("ours", 0, 0, 5, 0.1),
        *[("often", 1, seed, 5, score) for seed, score in enumerate((0.8, 0.5, 0.5))],
        ("once", 2, 0, 5, 0.7),
        ("many labels", 3, 0, 24, 0.9),
    ]
    runs = pd.DataFrame(told, columns=["row", "place", "seed", "n_labels", "val/dice"]).assign(model="unet")
    runs.loc[0, "model"] = "textdiff"
    assert best_label(runs, ("unet",)) == "often"  # its mean of three is below the other's single draw
    assert best_label(runs[(runs["row"] != "often") | (runs["seed"] > 0)], ("unet",)) == "once"  # none in common


def test_rates_that_were_not_tried(images, none):
    assert tried_rates(IMAGES.configs(IMAGES.rows[0])[0], none).empty
    assert tried_rates(IMAGES.configs(IMAGES.rows[0])[0], images)["taken"].tolist() == [True]


def test_the_record_of_one_configuration(images, none):
    config = IMAGES.configs(IMAGES.rows[0])[1]
    record = record_of(replace(config, device="cpu"), images)
    assert record["run_id"] == config.run_id
    assert case_table(record)["case"].tolist() == ["001", "002"]
    assert record_of(config, images.assign(learning_rate=0.5)) is None
    assert record_of(config, images.assign(stale=True)) is None and record_of(config, none) is None


def test_missing_runs_come_with_their_command(images, volumes):
    assert missing_runs(IMAGES, images.iloc[:3]).splitlines() == [
        "3 of 6 runs of the grid little have no record yet:",
        "  without, 60 labelled: seed 1",
        "  never run, 60 labelled: seed 0, 1",
        "This makes them (and nothing twice):",
        "  textdiff sweep little -p dataset=chest_phantoms --seeds 0,1",
    ]
    assert "  SegResNet, all labelled: seed 1" in missing_runs(VOLUMES, volumes)
    two = replace(IMAGES, name="two", rows=IMAGES.rows[:2])
    assert missing_runs(two, images) == "All 4 runs of the grid two have a record."
