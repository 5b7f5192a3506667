from __future__ import annotations

import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from textdiff.data.cases import Case
from textdiff.data.splits import check_unseen, draw_labelled, hashed_split

PIXELS = np.zeros((2, 2, 3), np.uint8)
CASES = [Case(f"case-{i}", "text", image_array=PIXELS, mask_array=PIXELS[..., 0]) for i in range(30)]
PINNED = ["case-7", "case-14", "case-20"]  # a changed rule would silently change every experiment
PINNED_SPLIT = ["train", "val", "train", "train", "train", "val", "train", "test", "train", "val"]


def names(cases):
    return [case.name for case in cases]


def test_a_draw_follows_seed_and_names_alone():
    drawn = draw_labelled(CASES, 5, seed=2)
    undrawn = next(case for case in CASES if case not in drawn)
    assert draw_labelled([c for c in CASES[::-1] if c is not undrawn], 5, seed=2) == drawn
    assert draw_labelled(CASES, 10, seed=2)[:5] == drawn != draw_labelled(CASES, 5, seed=1)
    assert names(draw_labelled(CASES, 3, seed=0)) == PINNED


def test_every_case_is_drawn_about_equally_often():
    counts = dict.fromkeys(names(CASES), 0)
    for seed in range(300):
        for name in names(draw_labelled(CASES, 10, seed)):
            counts[name] += 1
    assert 60 < min(counts.values()) and max(counts.values()) < 140


@pytest.mark.parametrize("n", [0, -1, 31])
def test_impossible_number_is_refused(n):
    with pytest.raises(ValueError, match="from 30"):
        draw_labelled(CASES, n, seed=0)


def test_repeated_names_and_missing_masks_are_refused():
    with pytest.raises(ValueError, match="case-0"):
        draw_labelled([CASES[0], CASES[0]], 1, seed=0)
    with pytest.raises(ValueError, match="without a mask"):
        draw_labelled([CASES[0].without_mask()], 1, seed=0)


def test_the_split_by_hash_is_pinned():
    assert [hashed_split(f"case-{number}") for number in range(10)] == PINNED_SPLIT


def test_a_fingerprint_stands_for_the_pixels_whatever_file_holds_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    case = Case("a", "text", image_array=pixels)
    assert len(case.fingerprint()) == 16
    for suffix in ("png", "tiff"):
        Image.fromarray(pixels).save(tmp_path / f"x.{suffix}")
        assert Case("b", "other", image_path=tmp_path / f"x.{suffix}").fingerprint() == case.fingerprint()
    for other in (pixels ^ 1, pixels.reshape(7, 5, 3)):
        assert Case("a", "text", image_array=other).fingerprint() != case.fingerprint()


def test_cases_that_a_model_was_trained_on_are_refused():
    pictures = [Case(f"case-{i}", "", image_array=np.full((2, 2, 3), i, np.uint8)) for i in range(8)]
    trained_on = {"dataset": "mine", "cases": [case.fingerprint() for case in pictures[:5]]}
    check_unseen(trained_on, pictures[5:])
    check_unseen({}, pictures)
    renamed = [replace(case, name=f"renamed-{case.name}") for case in pictures]
    with pytest.raises(
        ValueError, match="trained on 5 of the 8 test cases .renamed-case-0, .*and 2 more; data set mine"
    ):
        check_unseen(trained_on, renamed)


def test_a_name_is_in_the_same_split_in_either_form_of_its_letters():
    names = [f"M\u00fcller_{number}" for number in range(40)]
    assert [hashed_split(name) for name in names] == [
        hashed_split(unicodedata.normalize("NFD", name)) for name in names
    ]
