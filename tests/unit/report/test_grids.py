"""Tables about the rows of a grid: departures, differences by number of labels, gains, machines."""

from __future__ import annotations

import math

import pandas as pd

from textdiff.experiments.grids import grid
from textdiff.report.grids import departures, differences_by_labels, gain, hardware

NONE = pd.DataFrame(columns=["run_id", "experiment", "folder", "source", "stale"])


def test_departures_say_what_each_row_sets():
    table = departures(grid("reading", "chest_phantoms"))
    assert table.frame.set_index("Row")["sets"].to_dict() == {
        "without places in the queries": "positions=off",
        "ten tokens": "caption_tokens=10",
        "padding read as words": "text_mask=off",
        "none of them": "caption_tokens=10, text_mask=off, positions=off",
    }


def test_differences_by_labels_has_every_model_at_every_number():
    asked = grid("label_efficiency", "chest_phantoms")
    frame = differences_by_labels(asked, NONE, "U-Net").frame
    assert list(zip(frame["Model"], frame["n labelled"], strict=True)) == [
        ("TextDiff", 10),
        ("TextDiff", 60),
        ("TextDiff without text", 10),
        ("TextDiff without text", 60),
    ]


def test_without_records_there_is_no_gain_and_no_machine():
    assert math.isnan(gain(grid("comparison", "chest_phantoms"), NONE, "U-Net"))
    assert hardware(NONE) == "0 records; no machine yet"


def test_each_machine_is_named_once():
    runs = pd.DataFrame({"env/processor": ["P", "P"], "env/cores": [2, 2], "env/gpu": [None, None]})
    assert hardware(runs) == "2 records; P, 2 cores, GPU: none"
