"""Tables about the rows of a grid: departures, differences by number of labels, gains, machines."""

from __future__ import annotations

import math

import pandas as pd

from tests.unit.report.little import IMAGES, image_record
from textdiff.experiments.grids import grid
from textdiff.report.grids import departures, differences_by_labels, gain, hardware, learning_rates

NONE = pd.DataFrame(columns=["run_id", "experiment", "folder", "source", "stale"])


def test_departures_say_what_each_row_sets():
    table = departures(grid("reading", "chest_phantoms"))
    assert table.frame.set_index("Row")["sets"].to_dict() == {
        "without places in the queries": "positions=off",
        "ten tokens": "caption_tokens=10",
        "padding read as words": "text_mask=off",
        "none of them": "caption_tokens=10, text_mask=off, positions=off",
    }


def test_differences_by_labels_has_every_model_at_every_number(tmp_path):
    asked = grid("label_efficiency", "chest_phantoms")
    made = [image_record(tmp_path, asked.configs(row)[0], {"001": 0.5, "002": 0.4}) for row in asked.rows]
    table = differences_by_labels(asked, pd.DataFrame(made), "U-Net")
    frame = table.frame
    assert list(zip(frame["Model"], frame["n labelled"], strict=True)) == [
        ("TextDiff", 10),
        ("TextDiff", 60),
        ("TextDiff without text", 10),
        ("TextDiff without text", 60),
        ("U-Net that reads", 10),
        ("U-Net that reads", 60),
    ]
    whole = len(asked.all())
    assert f"{whole} of {whole} runs have no record yet" in differences_by_labels(asked, NONE, "U-Net").caption


def test_a_row_is_compared_with_the_base_of_as_many_labels(tmp_path):
    asked = grid("label_efficiency", "chest_phantoms")
    dice = {10: {"U-Net": 0.3, "TextDiff": 0.5}, 60: {"U-Net": 0.6, "TextDiff": 0.7}}
    made = [
        image_record(tmp_path, asked.configs(row)[0], {"001": dice[row.fields["n_labels"]][row.label], "002": 0.4})
        for row in asked.rows
        if row.label in ("TextDiff", "U-Net")
    ]
    frame = differences_by_labels(asked, pd.DataFrame(made), "U-Net").frame
    assert [cell.split()[0] for cell in frame["Dice"][:2]] == ["+10.00", "+5.00"]


def test_the_search_for_a_learning_rate_shows_all_that_was_tried_and_what_was_taken(images):
    other = images.iloc[[0]].assign(learning_rate=0.5, **{"val/dice": 0.9, "test/dice": 0.25})
    usual = images.iloc[[0]]["learning_rate"].item()
    table = learning_rates(IMAGES, pd.concat([images, other], ignore_index=True))
    assert table.frame["learning rate"].tolist() == [f"{usual:g}", "0.5"], "one run was searched, the others were not"
    assert table.frame.iloc[1].tolist() == ["with text", 0, "0.5", "90.00", "25.00", "taken"]
    assert table.frame.iloc[0, -1] == "" and table.caption.startswith("Data set: chest_phantoms. ")
    assert "validation Dice of the best step decides" in table.caption
    assert learning_rates(IMAGES, images).caption == "No run has records at several learning rates yet."


def test_without_records_there_is_no_gain_and_no_machine():
    assert math.isnan(gain(grid("comparison", "chest_phantoms"), NONE, "U-Net"))
    assert hardware(NONE) == "0 records; no machine yet"


def test_each_machine_is_named_once():
    runs = pd.DataFrame({"env/processor": ["P", "P"], "env/cores": [2, 2], "env/gpu": [None, None]})
    assert hardware(runs) == "2 records; P, 2 cores, GPU: none"
