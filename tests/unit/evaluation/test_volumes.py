"""Scores of segmenters whose answers are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from textdiff.data.volumes.layouts import VolumeCase
from textdiff.data.volumes.volume import Volume
from textdiff.evaluation.calibration import Reliability
from textdiff.evaluation.volumes import score_volumes, summarise_volumes
from textdiff.models.inference import Prediction

NAMES = ("background", "liver", "left kidney")
AFFINE = np.diag([-2.0, 1.0, 5.0, 1.0])  # 10 mm3 a voxel, first axis to the left


def case(name, shift=0, without=()):
    labels = np.zeros((16, 14, 12), np.uint8)
    labels[2:8, 2:8, 2:8] = 1
    labels[10:14, 8:12, 4 + shift : 8 + shift] = 2
    labels[np.isin(labels, without)] = 0
    image = Volume(labels.astype(np.float32) * 50, AFFINE, name)
    return VolumeCase(name, image_volume=image, label_volume=Volume(labels, AFFINE, name))


CASES = [case("a"), case("b", shift=2)]
PROMPTS = ["liver and left kidney"] * 2


def perfect(image, prompt):
    return Volume((image.array / 50).astype(np.uint8), image.affine)


def shifted(image, prompt):
    return replace(perfect(image, prompt), array=np.roll(perfect(image, prompt).array, 1, axis=2))


def only_liver(image, prompt):
    array = perfect(image, prompt).array
    return Volume(np.where(array == 1, array, 0), image.affine)


def run(segment=perfect, cases=CASES, **options):
    how = {"prompts": PROMPTS[: len(cases)], "class_names": NAMES, "progress": False}
    return score_volumes(segment, cases, **(how | options))


def test_a_perfect_segmenter():
    table = run()
    assert table["case"].tolist() == ["a", "b"] and table["prompt"].tolist() == PROMPTS
    assert (table[["dice", "iou", "dice_liver", "dice_left_kidney"]] == 1).all(axis=None)
    assert (table[["hd95_mm", "assd_mm_left_kidney", "missed", "invented"]] == 0).all(axis=None)
    assert table["actual_liver"].tolist() == [216, 216]
    assert table["actual_ml_liver"].tolist() == pytest.approx([2.16, 2.16])
    assert (table["seconds"] >= 0).all()
    assert table["actual_liver"].dtype.kind == "i"


def test_a_shifted_answer_is_as_far_off_as_the_millimetres_of_a_voxel():
    table = run(shifted)
    assert table["hd95_mm_liver"].tolist() == [5, 5]
    assert table["dice_liver"].tolist() == pytest.approx([5 / 6] * 2, abs=1e-6)
    assert table["dice_left_kidney"].tolist() == pytest.approx([3 / 4] * 2, abs=1e-6)
    assert table["dice"].tolist() == pytest.approx([(5 / 6 + 3 / 4) / 2] * 2, abs=1e-6)
    without = run(shifted, surfaces=False)
    assert not [name for name in without.columns if "_mm" in name] and "hd95_mm" not in summarise_volumes(without)
    assert without.equals(table[without.columns].assign(seconds=without["seconds"]))


def test_a_structure_in_one_map_costs_the_diagonal_and_in_neither_it_scores_one():
    diagonal = np.linalg.norm([16 * 2, 14, 12 * 5])
    table = run(only_liver)
    assert table["missed"].tolist() == [1, 1] and table["invented"].tolist() == [0, 0]
    assert table["hd95_mm_left_kidney"].tolist() == pytest.approx([diagonal] * 2)
    assert table["hd95_mm"].tolist() == pytest.approx([diagonal / 2] * 2)
    invented = run(lambda image, prompt: CASES[0].labels(), [case("a", without=(2,))])
    assert (invented["missed"][0], invented["invented"][0]) == (0, 1)
    neither = run(cases=[case("a", without=(2,))])
    assert neither["dice_left_kidney"][0] == 1
    assert np.isnan(neither["hd95_mm_left_kidney"][0]) and neither["hd95_mm"][0] == 0


def predicted(confidence, wrong=0):
    """A segmenter with probabilities: `confidence` in its answer, which misses the first `wrong` voxels of the liver."""

    def segment(image, prompt):
        labels = perfect(image, prompt)
        unsure = np.zeros(labels.shape, np.float32)
        places = np.argwhere(labels.array == 1)[:wrong]
        labels.array[tuple(places.T)], unsure[tuple(places.T)] = 0, 1
        chances = np.full((3, *labels.shape), (1 - confidence) / 2, np.float32)
        np.put_along_axis(chances, labels.array[None].astype(int), confidence, axis=0)
        return Prediction(labels, NAMES, {}, uncertainty=Volume(unsure, image.affine), probabilities=chances)

    return segment


def test_uncertainty_and_probabilities_are_scored_where_they_come():
    kept = Reliability()
    table = run(predicted(0.9, wrong=10), reliability=kept)
    assert table["error_auroc"].tolist() == table["error_auprc"].tolist() == [1, 1]
    assert (table["uncertainty"] > 0).all()
    right = 1 - table["error_share"]
    assert table["ece"].tolist() == pytest.approx((right - 0.9).abs().tolist(), abs=1e-5)
    assert kept.n < 2 * 16 * 14 * 12 and kept.ece() == pytest.approx(table["ece"].mean(), abs=1e-3)
    summary = summarise_volumes(table)
    assert summary["error_auroc"] == 1 and np.isnan(summary["dice_vs_uncertainty"])


@pytest.mark.parametrize("answer", [CASES[0].labels(), Prediction(CASES[0].labels(), NAMES, {})])
def test_reliability_needs_probabilities(answer):
    with pytest.raises(ValueError, match="returns none"):
        run(lambda image, prompt: answer, CASES[:1], reliability=Reliability())
    assert "ece" not in run(lambda image, prompt: answer, CASES[:1])


def test_the_summary():
    table = pd.concat([run(), run(shifted)])
    summary = summarise_volumes(table)
    assert summary["n"] == 4
    assert summary["dice"] == pytest.approx(table["dice"].mean())
    assert summary["dice_ci_low"] < summary["dice"] < summary["dice_ci_high"]
    assert summary["hd95_mm"] == summary["hd95_mm_liver"] == 2.5
    assert summary["dice_liver"] == pytest.approx((1 + 5 / 6) / 2, abs=1e-6)
    assert summary["dice_pooled"] == pytest.approx(((1 + 5 / 6) / 2 + (1 + 3 / 4) / 2) / 2, abs=1e-6)
    assert (summary["missed"], summary["invented"]) == (0, 0)
    assert "ece" not in summary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": []}, "no cases"),
        ({"prompts": ["liver"]}, "prompts: give one per case"),
        ({"prompts": "ab"}, "prompts: give one per case"),
        ({"class_names": NAMES[:1]}, "at least one structure"),
        ({"class_names": NAMES[:2]}, "case 'a'.*only 0..1 are possible"),
        ({"segment": lambda image, prompt: Volume(perfect(image, prompt).array, np.diag([2.0, 1.0, 5.0, 1.0]))}, "case 'a': the prediction.*mm apart"),
        ({"segment": lambda image, prompt: Volume(perfect(image, prompt).array[1:], image.affine)}, "case 'a': the prediction.*shape"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_summary_refuses_what_is_no_case_table():
    for table, message in ((pd.DataFrame({"dice": [1.0]}), "lacks the columns"), (run()[:0], "no rows")):
        with pytest.raises(ValueError, match=message):
            summarise_volumes(table)
