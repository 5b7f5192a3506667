"""What pages conclude in words is borne out by the records that are shipped: each sentence here stands on its page, and its condition holds.

A sentence that is changed, or a record that no longer says it, fails here.
"""

from __future__ import annotations

import re
from functools import cache

import build_book
import nbformat
import pandas as pd
import pytest

from textdiff.experiments.grids import grid
from textdiff.experiments.records import load_records, published_dir
from textdiff.report.images import reading_losses
from textdiff.report.rows import grid_records
from textdiff.report.tables import differences
from textdiff.report.verdicts import standing


@cache
def records() -> pd.DataFrame:
    return load_records(published_dir())


def to_base(name: str, dataset: str, base: str) -> pd.DataFrame:
    return differences(grid(name, dataset), records(), base)


def stands(name: str, dataset: str, base: str, label: str) -> str:
    """ "above", "level" or "below": where the row ``label`` stands to the row ``base``."""
    one = to_base(name, dataset, base).loc[label]
    assert one["cases"], f"no record compares {label} with {base}"
    return standing(one)


def lost(dataset: str, label: str, reading: str = "another image's") -> pd.Series:
    losses = reading_losses(grid("comparison", dataset), records()).set_index(["row", "reading"])
    return losses.loc[(label, reading)]


def dice(name: str, dataset: str, label: str) -> pd.Series:
    runs = grid_records(grid(name, dataset), records())
    return runs[runs["row"] == label]["test/dice"].astype(float)


CLAIMS = {
    (
        "results_2d",
        "ahead of the networks trained from scratch, the one that reads included, in every draw of labels",
    ): lambda: (
        min(to_base("comparison", "qata", "U-Net that reads").loc["TextDiff", "draws"]) > 0
        and min(to_base("comparison", "qata", "U-Net").loc["TextDiff", "draws"]) > 0.05
        and stands("comparison", "qata", "U-Net", "TextDiff") == "above"
    ),
    ("results_2d", "for other labels three draws cannot say it"): lambda: (
        stands("comparison", "qata", "U-Net that reads", "TextDiff") == "level"
        and to_base("comparison", "qata", "U-Net that reads").loc["TextDiff", "cases_low"] > 0
        and len(to_base("comparison", "qata", "U-Net that reads").loc["TextDiff", "draws"]) == 3
    ),
    ("results_2d", "With another film's sentence TextDiff loses nearly thirty points"): lambda: (
        0.27 < lost("qata", "TextDiff")["difference"] < 0.31
    ),
    (
        "results_2d",
        "Without text the frozen features are level with a U-Net that trains all its weights, or below it",
    ): lambda: stands("comparison", "qata", "U-Net", "TextDiff without text") in ("level", "below"),
    ("results_2d", "Films with a sentence and no mask add next to nothing"): lambda: (
        abs(to_base("comparison", "qata", "TextDiff").loc["TextDiff, and films with a sentence alone", "difference"])
        < 0.005
    ),
    ("results_tissue", "about a point below it in the mean of three draws, which do not tell the two apart"): lambda: (
        -0.015 < to_base("comparison", "monuseg", "U-Net").loc["TextDiff", "difference"] < -0.005
        and stands("comparison", "monuseg", "U-Net", "TextDiff") == "level"
    ),
    ("results_tissue", "The sentence is worth next to nothing"): lambda: (
        lost("monuseg", "TextDiff")["difference"] < 0.02
    ),
    ("results_tissue", "The pre-training is worth something"): lambda: (
        stands("comparison", "monuseg", "TextDiff, redrawn weights", "TextDiff") == "above"
    ),
    ("results_3d", "In the short runs MedNeXt and DynUNet are about a point ahead of TextDiffSeg"): lambda: all(
        0.005
        < to_base("comparison3d", "hippocampus", "TextDiffSeg, 1200 steps").loc[f"{net}, 1200 steps", "difference"]
        < 0.02
        for net in ("MedNeXt", "DynUNet (nnU-Net)")
    ),
    ("results_3d", "It is a draw with SegResNet, not a win"): lambda: (
        stands("comparison3d", "hippocampus", "SegResNet, 5000 steps", "TextDiffSeg, 5000 steps") == "level"
    ),
    ("results_3d", "With five volumes TextDiffSeg is a point ahead of SegResNet"): lambda: (
        0.005 < few("TextDiffSeg", 5) - few("SegResNet", 5) < 0.02
        and abs(few("TextDiffSeg", 20) - few("SegResNet", 20)) < 0.005
    ),
}


def few(label: str, labelled: int) -> float:
    runs = grid_records(grid("label_efficiency3d", "hippocampus"), records())
    return float(runs[(runs["row"] == label) & (runs["n_labels"] == labelled)]["test/dice"].astype(float).mean())


@pytest.mark.parametrize(("page", "words"), CLAIMS, ids=[f"{page}: {words[:50]}" for page, words in CLAIMS])
def test_the_page_says_so_and_the_records_too(page, words):
    cells = nbformat.read(build_book.ROOT / "book" / f"{page}.ipynb", as_version=4).cells
    prose = " ".join(re.sub(r"[*_]|\s+", " ", cell.source) for cell in cells if cell.cell_type == "markdown")
    assert re.sub(r"\s+", " ", words) in re.sub(r"\s+", " ", prose), (
        f"{page} no longer says so: change the claim with it"
    )
    assert CLAIMS[page, words](), f"the records no longer say so: {words!r} on {page}"
