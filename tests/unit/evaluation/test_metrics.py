"""Metrics against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from textdiff.evaluation.metrics import (
    COUNTS,
    bootstrap_interval,
    case_counts,
    case_scores,
    interval_by_patient,
    subjects_of,
    summarise,
)


def test_counts_and_scores_by_hand():
    truth = np.array([[1, 1, 0], [0, 0, 0]])
    pred = np.array([[0, 1, 1], [1, 0, 0]])
    assert case_counts(pred, truth).tolist() == [[1, 3, 2]]
    scores = case_scores(pred, truth)
    assert scores["iou"] == pytest.approx(1 / 4, abs=1e-5)
    assert scores["dice"] == pytest.approx(2 / 5, abs=1e-5)
    assert (scores["intersection"], scores["predicted"], scores["actual"]) == (1, 3, 2)


def test_smoothing_is_the_public_codes_and_an_empty_pair_scores_one():
    truth, pred = torch.tensor([[1, 0, 0]]), torch.tensor([[0, 1, 1]])
    iou = 1e-5 / (3 + 1e-5)
    assert case_scores(pred, truth)["iou"] == pytest.approx(iou, rel=1e-9)
    assert case_scores(pred, truth)["dice"] == pytest.approx(2 * iou / (1 + iou), rel=1e-9)
    assert case_scores(truth * 0, truth * 0)["dice"] == 1


def test_several_classes_are_averaged_and_named():
    truth = np.array([[1, 1, 2, 2]])
    pred = np.array([[1, 1, 2, 0]])
    scores = case_scores(pred, truth, 3, ("background", "organ", "tumour"))
    assert scores["dice_organ"] == pytest.approx(1, abs=1e-5)
    assert scores["dice_tumour"] == pytest.approx(2 / 3, abs=1e-5)
    assert scores["dice"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-5)
    assert (scores["intersection_tumour"], scores["predicted_tumour"], scores["actual_tumour"]) == (1, 1, 2)


def test_two_classes_have_no_class_columns():
    scores = case_scores(np.array([1, 0]), np.array([1, 1]), 2, ("background", "nucleus"), suffix="_native")
    assert set(scores) == {f"{name}_native" for name in ("dice", "iou", "intersection", "predicted", "actual")}


@pytest.mark.parametrize(
    ("pred", "truth", "classes", "says"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), 2, "must be equal"),
        (np.full((2, 2), 2), np.zeros((2, 2), int), 2, "only 0..1"),
        (np.zeros((2, 2), int), np.full((2, 2), 255, np.uint8), 2, "truth holds labels"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), 2, "argmax"),
        (np.zeros((0, 2), int), np.zeros((0, 2), int), 2, "empty"),
        (np.zeros(2, int), np.zeros(2, int), 1, "at least one class"),
    ],
)
def test_wrong_label_maps_are_refused(pred, truth, classes, says):
    with pytest.raises(ValueError, match=says):
        case_scores(pred, truth, classes)
    with pytest.raises(ValueError, match="background first"):
        case_scores(np.zeros(2, int), np.zeros(2, int), 3, ("background", "organ"))


def test_bootstrap_interval_covers_and_narrows():
    values = np.random.default_rng(0).normal(0.7, 0.1, 400).clip(0, 1)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    # The normal approximation is good for 400 values.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    few_low, few_high = bootstrap_interval(values[:20])
    assert few_high - few_low > high - low
    assert np.isnan(bootstrap_interval([0.5])).all()


def test_images_of_a_patient_are_resampled_together():
    rng = np.random.default_rng(0)
    of_patient = rng.normal(0.7, 0.1, 60)
    values, subjects = np.repeat(of_patient, 5), np.repeat([f"sub-{number}" for number in range(60)], 5)
    together = bootstrap_interval(values, subjects)
    assert together == pytest.approx(bootstrap_interval(of_patient))
    order = rng.permutation(300)
    assert bootstrap_interval(values[order], subjects[order]) == together
    assert np.isnan(bootstrap_interval(values[:5], subjects[:5])).all()


def test_names_tell_whom_a_case_is_of():
    names = ["sub-s08047_ses-e16280_run-1", "sub-s08047_ses-e16628_run-1", "sub-s08047", "covid_3.png", 7]
    assert subjects_of(names) == ["sub-s08047", "sub-s08047", "sub-s08047", "covid_3.png", "7"]


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [([], {}, "no values"), ([0.1, float("nan")], {}, "nan"), ([0.1, 0.2], {"n_resamples": 0}, "at least 1")],
)
def test_bootstrap_refuses(values, options, says):
    with pytest.raises(ValueError, match=says):
        bootstrap_interval(values, **options)


def table(*pairs, num_classes=2, names=None):
    rows = []
    for number, (pred, truth) in enumerate(pairs):
        scores = case_scores(pred, truth, num_classes, names)
        native = case_scores(pred, truth, num_classes, names, suffix="_native")
        rows.append({"case": str(number)} | scores | native)
    return pd.DataFrame(rows)


def test_summary_tells_mean_from_pooled():
    large = np.ones(98, int), np.ones(98, int)
    small = np.array([1, 0]), np.array([0, 1])
    summary = summarise(table(large, small))
    assert summary["dice"] == pytest.approx(0.5, abs=1e-4)
    assert summary["dice_pooled"] == pytest.approx(2 * 98 / (99 + 99), abs=1e-6)
    assert summary["iou_pooled"] == pytest.approx(98 / 100, abs=1e-6)
    assert summary["dice_native_pooled"] == summary["dice_pooled"]
    assert summary["n"] == 2
    assert summary["dice_ci_low"] == pytest.approx(0, abs=1e-4)
    assert summary["dice_native_ci_high"] == pytest.approx(1)


def test_summary_of_classes():
    names = ("background", "organ", "tumour")
    perfect = np.array([1, 2, 0]), np.array([1, 2, 0])
    no_tumour = np.array([1, 0, 0]), np.array([1, 2, 0])
    summary = summarise(table(perfect, no_tumour, num_classes=3, names=names))
    assert summary["dice_tumour"] == pytest.approx(0.5, abs=1e-4)
    assert summary["dice_native_organ"] == pytest.approx(1)
    assert summary["dice_pooled"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)


def test_a_class_may_be_called_native():
    table = pd.DataFrame(
        {
            f"{count}{size}_{name}": [2.0 + place]
            for place, name in enumerate(("native kidney", "transplant kidney"))
            for size in ("", "_native")
            for count in ("dice", "iou", *COUNTS)
        }
        | {f"{count}{size}": [2.0] for size in ("", "_native") for count in ("dice", "iou", *COUNTS)}
    )
    found = summarise(table)
    assert (found["dice_native kidney"], found["dice_transplant kidney"]) == (2.0, 3.0)
    assert {"dice_native_native kidney", "dice_native_transplant kidney"} <= set(found)


def test_summary_refuses_what_is_no_case_table():
    with pytest.raises(ValueError, match="dice_native"):
        summarise(pd.DataFrame({"dice": [1.0]}))
    with pytest.raises(ValueError, match="no rows"):
        summarise(table((np.ones(2, int), np.ones(2, int))).iloc[:0])


def test_a_table_names_the_patients_that_are_resampled():
    names = [f"sub-{patient}_run-{image}" for patient in "ab" for image in range(20)]
    per_case = pd.DataFrame({"case": names, "dice": [0.2] * 20 + [0.8] * 20})
    assert interval_by_patient(per_case) == pytest.approx((0.2, 0.8)), "two patients, not forty"


def test_the_interval_at_the_native_size_is_that_of_the_native_scores():
    per_case = pd.concat([table((np.ones(2, int), np.ones(2, int)))] * 4, ignore_index=True)
    per_case["dice_native"] = [0.1, 0.2, 0.3, 0.4]
    summary = summarise(per_case)
    for name in ("dice", "dice_native"):
        assert (summary[f"{name}_ci_low"], summary[f"{name}_ci_high"]) == bootstrap_interval(per_case[name]), name
