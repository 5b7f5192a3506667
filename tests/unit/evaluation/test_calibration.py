"""Calibration and error detection with answers known by hand."""

import numpy as np
import pandas as pd
import pytest

from textdiff.evaluation.calibration import (
    Reliability,
    case_uncertainty,
    error_detection,
    near_foreground,
    uncertainty_against_dice,
)


def sure(confidence, n=10):
    """`n` voxels of two classes, class 1 with probability `confidence`."""
    return np.stack([np.full(n, 1 - confidence), np.full(n, confidence)])


def truth(right, n=10):
    """Truth that agrees with class 1 in the first `right` of `n` voxels."""
    return (np.arange(n) < right).astype(np.uint8)


def test_the_error_is_the_gap_weighted_by_voxels():
    kept = Reliability(bins=10)
    kept.add(sure(0.95, 30), truth(15, 30))  # gap 0.45
    kept.add(sure(0.65, 10), truth(10, 10))  # gap 0.35
    assert kept.ece() == pytest.approx((30 * 0.45 + 10 * 0.35) / 40)
    table = kept.table()
    assert table["n"].tolist() == [0] * 6 + [10, 0, 0, 30]
    assert table.loc[9, ["low", "high", "confidence", "accuracy"]].tolist() == pytest.approx([0.9, 1, 0.95, 0.5])
    assert np.isnan(table.loc[0, "accuracy"])


def test_only_the_region_counts():
    probabilities = np.concatenate([np.tile([[1.0], [0.0]], 990), sure(0.9)], axis=1)
    target = np.concatenate([np.zeros(990, np.uint8), truth(4)])
    everywhere, near, nothing = Reliability(), Reliability(), Reliability()
    everywhere.add(probabilities, target)
    near.add(probabilities, target, np.arange(1000) >= 990)
    assert everywhere.ece() < 0.01 < 0.49 < near.ece() and near.n == 10
    nothing.add(sure(0.9), truth(5), np.zeros(10, bool))
    assert nothing.n == 0 and np.isnan(nothing.ece()) and nothing.table()["accuracy"].isna().all()


def test_the_neighbourhood_of_both_maps():
    pred, target = np.zeros((2, 1, 1, 12), np.uint8)
    pred[0, 0, 3], target[0, 0, 8] = 2, 1
    assert np.flatnonzero(near_foreground(pred, margin=1)).tolist() == [2, 3, 4]
    assert np.flatnonzero(near_foreground(pred, target, margin=1)).tolist() == [2, 3, 4, 7, 8, 9]
    assert np.flatnonzero(near_foreground(pred, target, margin=0)).tolist() == [3, 8]
    assert not near_foreground(pred * 0).any()


def test_uncertainty_that_points_at_errors():
    wrong = np.array([True, True, False, False, False])
    perfect = error_detection(np.array([0.9, 0.8, 0.3, 0.2, 0.1]), wrong)
    assert perfect == {"error_auroc": 1, "error_auprc": 1, "error_share": 0.4}
    opposite = error_detection(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), wrong)
    assert (opposite["error_auroc"], opposite["error_auprc"]) == pytest.approx((0, (1 / 4 + 2 / 5) / 2))
    blind = error_detection(np.full(5, 0.7), wrong)
    assert (blind["error_auroc"], blind["error_auprc"]) == pytest.approx((0.5, 0.4))
    region = np.array([True, False, True, False, False])
    assert error_detection(np.array([0.2, 0, 0.1, 1, 1]), wrong, region)["error_auroc"] == 1


@pytest.mark.parametrize("wrong", [np.zeros(4, bool), np.ones(4, bool), np.zeros(0, bool)])
def test_with_nothing_to_tell_apart_there_is_no_number(wrong):
    found = error_detection(np.arange(wrong.size, dtype=float), wrong)
    assert np.isnan(found["error_auroc"]) and np.isnan(found["error_auprc"])


def test_a_cases_uncertainty_and_its_correlation_with_the_dice():
    uncertainty, pred = np.zeros((1, 1, 12)), np.zeros((1, 1, 12), np.uint8)
    uncertainty[0, 0, :6], pred[0, 0, 4] = 0.5, 1
    assert case_uncertainty(uncertainty, pred) == pytest.approx(0.5 * 4 / 5)
    assert np.isnan(case_uncertainty(uncertainty, pred * 0))
    table = pd.DataFrame({"uncertainty": [0.1, 0.2, 0.9, np.nan], "dice": [0.9, 0.8, 0.1, 0.0]})
    assert uncertainty_against_dice(table) == pytest.approx(-1)
    assert uncertainty_against_dice(table.assign(dice=[0.1, 0.8, 0.9, 0])) == pytest.approx(1)
    assert np.isnan(uncertainty_against_dice(table[:2])) and np.isnan(uncertainty_against_dice(table.assign(dice=0.5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda kept: kept.add(np.array([[3.0], [-1.0]]), np.zeros(1, int)), "take the softmax"),
        (lambda kept: kept.add(np.full((2, 3), np.nan), np.zeros(3, int)), "no probabilities"),
        (lambda kept: kept.add(sure(0.9), truth(5, 9)), "the same shape without the first axis"),
        (lambda kept: kept.add(sure(0.9), np.full(10, 2)), "labels 2..2 for 2 classes"),
        (lambda kept: kept.add(sure(0.9), truth(5), np.ones(9, bool)), "region"),
        (lambda kept: Reliability(0), "bins=0"),
        (lambda kept: error_detection(np.zeros(4), np.zeros(4)), "errors as bool"),
        (lambda kept: error_detection(np.full(2, np.nan), np.array([True, False])), "nan or infinity"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    kept = Reliability()
    with pytest.raises(ValueError, match=message):
        call(kept)
    assert kept.n == 0
