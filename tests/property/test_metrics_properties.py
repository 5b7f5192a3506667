"""What must hold for the metrics whatever the label maps."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from textdiff.evaluation.metrics import bootstrap_interval, case_scores, summarise

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=30)


@st.composite
def label_pairs(draw, num_classes=2):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    labels = hnp.arrays(np.uint8, shape, elements=st.integers(0, num_classes - 1))
    return draw(labels), draw(labels)


@given(label_pairs(num_classes=3), st.randoms(use_true_random=False))
def test_scores_of_any_pair(pair, random):
    pred, truth = pair
    scores, backward = case_scores(pred, truth, 3), case_scores(truth, pred, 3)
    assert 0 <= scores["iou"] <= scores["dice"] + 1e-12 <= 1 + 1e-9
    assert (scores["dice"] > 1 - 1e-9) == np.array_equal(pred, truth), "only equal maps score one"
    assert scores["dice"] == backward["dice"]
    assert (scores["predicted"], scores["actual"]) == (backward["actual"], backward["predicted"])
    order = list(range(pred.size))
    random.shuffle(order)
    assert case_scores(pred.ravel()[order], truth.ravel()[order], 3) == scores


@given(st.lists(label_pairs(), min_size=1, max_size=5))
@settings(max_examples=30)
def test_pooled_scores_are_those_of_one_long_image(pairs):
    rows = [case_scores(p, t) | case_scores(p, t, suffix="_native") for p, t in pairs]
    joined = [np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1)]
    assert summarise(pd.DataFrame(rows))["dice_pooled"] == pytest.approx(case_scores(*joined)["dice"])


@given(SHARES, st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_interval_lies_within_the_values_and_ignores_their_order(values, seed, random):
    low, high = bootstrap_interval(values, n_resamples=200, seed=seed)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    shuffled = list(values)
    random.shuffle(shuffled)
    assert bootstrap_interval(shuffled, n_resamples=200, seed=seed) == (low, high)
