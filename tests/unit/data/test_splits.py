from __future__ import annotations

import numpy as np
import pytest

from textdiff.data.cases import Case
from textdiff.data.splits import draw_labelled

PIXELS = np.zeros((2, 2, 3), np.uint8)
CASES = [Case(f"case-{i}", "text", image_array=PIXELS, mask_array=PIXELS[..., 0]) for i in range(30)]
PINNED = ["case-7", "case-14", "case-20"]  # a changed rule would silently change every experiment


def names(cases):
    return [case.name for case in cases]


def test_draw_does_not_depend_on_the_order_of_the_list():
    assert names(draw_labelled(CASES[::-1], 7, seed=3)) == names(draw_labelled(CASES, 7, seed=3))


def test_smaller_draw_is_the_beginning_of_the_larger():
    assert names(draw_labelled(CASES, 10, seed=1))[:5] == names(draw_labelled(CASES, 5, seed=1))


def test_seeds_draw_differently_and_the_draw_is_pinned():
    assert names(draw_labelled(CASES, 5, seed=0)) != names(draw_labelled(CASES, 5, seed=1))
    assert names(draw_labelled(CASES, 3, seed=0)) == PINNED


def test_taking_an_undrawn_case_away_changes_nothing():
    drawn = draw_labelled(CASES, 5, seed=2)
    undrawn = next(case for case in CASES if case not in drawn)
    assert names(draw_labelled([c for c in CASES if c is not undrawn], 5, seed=2)) == names(drawn)


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
