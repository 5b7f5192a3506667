"""Counts of sentences, sides and mask rules, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from textdiff.data import load_dataset
from textdiff.data.cases import Case, Dataset
from textdiff.data.images.captions import named_side, other_areas, parse_chest_caption
from textdiff.data.registry import DATASETS
from textdiff.evaluation.sentences import mask_rules, most_moved, sentence_counts, side_agreement


def one(name: str, caption: str, columns: slice = slice(0, 4)) -> Case:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:12, columns] = 1
    return Case(name, caption, image_array=np.zeros((16, 16, 3), dtype=np.uint8), mask_array=mask)


def test_sentences_are_counted_by_split():
    train, test = [one("a", "x"), one("b", "y"), one("c", "y")], [one("d", "z")]
    counts = sentence_counts(Dataset(DATASETS["nuclei_phantoms"], train, [], test, []))
    assert counts.to_dict("index") == {
        "y": {"train": 2, "val": 0, "test": 0},
        "x": {"train": 1, "val": 0, "test": 0},
        "z": {"train": 0, "val": 0, "test": 1},
    }


def test_a_one_sided_sentence_agrees_with_the_side_of_its_mask():
    right, empty = slice(12, 16), slice(0, 0)
    cases = [
        one("a", "left lung."),
        one("b", "Left.", right),
        one("c", "left and right", right),
        one("d", "left", empty),
    ]
    assert side_agreement(cases) == (1, 2)
    phantoms = load_dataset("nuclei_phantoms", sizes=(30, 1, 1), image_size=48).train
    agreeing, total = side_agreement(phantoms)
    assert agreeing == total > 0


@pytest.mark.parametrize(
    ("caption", "side"), [("upper left", "left"), ("RIGHT lung", "right"), ("left, right", None), ("brightly", None)]
)
def test_named_side(caption, side):
    assert named_side(caption) == side


def test_the_other_areas_are_those_that_are_not_named():
    own = "bilateral pulmonary infection, three infected areas, upper left lung and middle lower right lung."
    named, others = parse_chest_caption(own), parse_chest_caption(other_areas(own))
    assert not named & others and len(named | others) == 6
    assert other_areas("The nuclei density in the left is high.") == "The nuclei density in the right is high."


def test_the_dilated_rule_makes_masks_larger():
    cases = load_dataset("nuclei_phantoms", sizes=(3, 1, 1), image_size=96).train
    table = mask_rules(cases, 48)
    assert len(table) == 3
    assert (table["dilated"] > table["area"]).all() and (table["dice"] < 1).all()
    np.testing.assert_allclose(table["area"], table["native"], atol=0.05)
    assert mask_rules(cases, 96)["area"].equals(mask_rules(cases, 96)["native"])


def test_the_image_that_another_sentence_moves_most():
    class Obeys:
        def predict(self, image, text):
            return np.full((4, 4), len(text) % 2)

    assert most_moved(Obeys(), [one("a", "even"), one("b", "even")], ["four", "three"]) == 1
