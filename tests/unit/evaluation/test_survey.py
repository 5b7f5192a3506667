"""What volumes and sentences hold before any model: places, sizes, what a grid costs, what a sentence gives away."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny_volumes import NAMES, training_volumes, volume_case
from textdiff.data.volumes.phantoms import ABDOMEN, abdomen_phantoms
from textdiff.data.volumes.volume import Volume
from textdiff.evaluation import survey

ORGANS = NAMES[1:]


@pytest.fixture(scope="module")
def pairs():
    return [volume_case("a").pair(), volume_case("b", seed=1).pair()]


def test_the_fullest_pair_has_the_most_structures(pairs):
    image, labels = pairs[0]
    one = Volume(np.ones(labels.shape, np.uint8), labels.affine)
    assert survey.fullest([(image, one), pairs[0]]) == 1
    assert survey.fullest([pairs[0], (image, Volume(labels.array * (labels.array > 1), labels.affine))]) == 0


def test_a_place_keeps_its_mm_and_its_grey_value_in_every_order_of_axes(pairs):
    table = survey.orders_of_axes(*pairs[0])
    assert table.index.tolist() == ["RAS", "LPS", "IPL"]
    assert table["mm"].nunique() == table["grey value"].nunique() == 1 and table["index of the place"].nunique() == 3
    assert set(table["turned to RAS"]) == {"the same array"}
    assert table.loc["IPL", "array"] == (16, 24, 20)


def test_volumes_are_told_in_ml(pairs):
    table = survey.overview(pairs, ORGANS)
    assert table["liver (ml)"].tolist() == [2.3, 2.3]  # 6 x 8 x 6 voxels of 8 mm3
    assert table.loc[0, "spacing (mm)"] == (2.0, 2.0, 2.0) and table.loc[0, "axes"] == "RAS"


def test_a_coarser_grid_costs_more_and_a_structure_that_nobody_has_is_not_scored(pairs):
    table = survey.coarse_dice([labels for _, labels in pairs], (*ORGANS, "spleen"), (1.0, 3.0))
    assert table["1 times"].tolist()[:2] == [1.0, 1.0]
    assert (table["3 times"][:2] < 0.95).all() and table.loc["spleen"].isna().all()


def test_only_reports_give_the_volume_away():
    labels = [case.labels() for case in abdomen_phantoms(4, seed=0, shape=(24, 24, 24), spacing=(12.0, 12.0, 10.0))]
    table = survey.leakage(labels, ABDOMEN)
    errors = table["error of the volume, told blind"].str.rstrip("%").astype(float)
    assert errors["class"] == errors["anatomy"] > 5 * errors["report"]
    assert table.loc["class", "different ones"] <= len(ABDOMEN) < table.loc["report", "different ones"]
    right, written = survey.understood(labels[0], ABDOMEN)
    assert right == written > 90


def test_wordings_and_patches_are_listed(pairs):
    labels = pairs[0][1]
    lines = survey.wordings(labels, ORGANS, ["liver"], most=2)
    assert lines.index.tolist() == [(kind, k) for kind in ("class", "anatomy", "report") for k in (0, 1)]
    assert lines.loc[("class", 0), "sentence"] == "liver" and "ml" in lines.loc[("report", 1), "sentence"]
    volumes = training_volumes(single=1.0, prompts="class")
    table = survey.patch_table(volumes.collate([volumes.sample(0), volumes.sample(1)]), NAMES)
    assert len(table) == 2 and set(table["labelled"]) <= {*ORGANS, "liver, left kidney", "nothing"}
    assert all(" to " in reach for reach in table["head"])
