"""Scoring on volumes. In: something that segments a volume as a sentence asks, and labelled cases. Out: a table, one row
per case, and its summary.

Everything is scored on the image's own grid against the labels as they were drawn. Dice and IoU follow `metrics`
(1 where a structure is in neither map), distances follow `surfaces` (mm; nan there).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.volume import Volume, check_pair
from textdiff.evaluation.calibration import (
    Reliability,
    case_uncertainty,
    error_detection,
    near_foreground,
    uncertainty_against_dice,
)
from textdiff.evaluation.metrics import (
    COUNTS,
    case_counts,
    check_class_order,
    check_table,
    dice_of_iou,
    iou_of_counts,
    summary_of_dice,
)
from textdiff.evaluation.surfaces import DISTANCES, foreground_box, surface_distances
from textdiff.models.inference import Prediction

Segment = Callable[[Volume, str], Volume | Prediction]
OVERLAPS = ("dice", "iou")
CERTAINTY = ("uncertainty", "ece", "error_auroc", "error_auprc", "error_share")


def column(structure: str) -> str:
    """A structure's name as the end of a column's: "left kidney" is `left_kidney`."""
    return structure.replace(" ", "_")


def score_volumes(
    segment: Segment,
    cases: Sequence[VolumeCase],
    *,
    prompts: Sequence[str],
    class_names: Sequence[str],
    surfaces: bool = True,
    reliability: Reliability | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Segment and score every case; one volume is in memory at a time.

    Args:
        segment: ``(image, prompt) -> labels`` on the image's own grid, values as in `class_names`; or a
            :class:`textdiff.models.inference.Prediction`, whose uncertainty and probabilities are then scored too.
        prompts: one per case. Say in the record where they come from: those made from the labels leak them.
        class_names: all classes, background first.
        surfaces: also measure distances, which takes longest.
        reliability: gathers the probabilities of all cases, near true or predicted foreground.

    Returns one row per case: `case`, `prompt`, `dice`, `iou` (0..1), `hd95_mm`, `assd_mm` (means over the structures; nan
    distances left out), `missed` and `invented` (structures that are only in the truth, only in the prediction), `seconds` (of
    `segment`), and of every structure `dice_<structure>`, ..., `intersection_`, `predicted_`, `actual_` (voxels),
    `predicted_ml_`, `actual_ml_`. With uncertainty also `uncertainty` (`calibration.case_uncertainty`), `error_auroc`,
    `error_auprc`, `error_share`, with probabilities `ece`, all near true or predicted foreground.

    Raises ValueError, naming the case, for no cases, prompts that are not one per case, labels on another grid than the image,
    labels that have no class, and `reliability` without probabilities.
    """
    if len(cases) == 0:
        raise ValueError("there are no cases to score")
    if len(class_names) < 2:
        raise ValueError(f"class_names={list(class_names)}: name the background and at least one structure")
    if isinstance(prompts, str) or len(prompts) != len(cases):
        raise ValueError(f"prompts: give one per case, in the cases' order, for {len(cases)} cases")
    rows = []
    bar = tqdm(cases, unit="volume", disable=not progress, leave=False)
    for case, prompt in zip(bar, prompts, strict=True):
        image, truth = case.pair()
        try:
            started = time.perf_counter()
            result = segment(image, prompt)
            seconds = time.perf_counter() - started
            labels = result if isinstance(result, Volume) else result.labels
            check_class_order(getattr(result, "class_names", ()), class_names)
            check_pair(image, labels, "the prediction")
            scores = _overlap_and_distance(labels.array, truth.array, image, class_names, surfaces)
            scores |= _certainty(result, truth.array, reliability)
        except ValueError as error:
            raise ValueError(f"case {case.name!r}: {error}") from error
        rows.append({"case": case.name, "prompt": prompt} | scores | {"seconds": seconds})
    return pd.DataFrame(rows)


def _overlap_and_distance(
    pred: np.ndarray, target: np.ndarray, image: Volume, class_names: Sequence[str], surfaces: bool
) -> dict[str, float | int]:
    """Scores of every structure and their means."""
    box = foreground_box(pred, target)
    counts = case_counts(pred[box], target[box], len(class_names))
    iou = iou_of_counts(counts)
    table = pd.DataFrame({"dice": dice_of_iou(iou), "iou": iou})
    if surfaces:
        table = table.assign(**surface_distances(pred, target, image.spacing, len(class_names)))
    scores = table.mean().to_dict()
    table[list(COUNTS)] = counts
    scores["missed"] = int(((table["actual"] > 0) & (table["predicted"] == 0)).sum())
    scores["invented"] = int(((table["actual"] == 0) & (table["predicted"] > 0)).sum())
    for count in COUNTS[1:]:
        table[f"{count}_ml"] = table[count] * image.voxel_ml
    for name, own in zip(class_names[1:], table.to_dict("records"), strict=True):
        scores |= {f"{score}_{column(name)}": value for score, value in own.items()}
    return scores


def _certainty(
    result: Volume | Prediction, target: np.ndarray, reliability: Reliability | None
) -> dict[str, float | int]:
    """What can be said of the uncertainty and the probabilities, where they came with the labels."""
    probabilities = None if isinstance(result, Volume) else result.probabilities
    if reliability is not None and probabilities is None:
        raise ValueError("reliability needs probabilities, but the segmenter returns none")
    if isinstance(result, Volume):
        return {}
    labels = result.labels.array
    scores: dict[str, float | int] = {}
    near = near_foreground(labels, target)
    if result.uncertainty is not None:
        uncertainty = result.uncertainty.array
        scores["uncertainty"] = case_uncertainty(uncertainty, labels)
        scores |= error_detection(uncertainty, labels != target, near)
    if probabilities is not None:
        own = Reliability()
        for one in (own, reliability):
            if one is not None:
                one.add(probabilities, target, near)
        scores["ece"] = own.ece()
    return scores


def summarise_volumes(per_case: pd.DataFrame) -> dict[str, float | int]:
    """Summarise a per-case table (`score_volumes`) as flat numbers.

    `n` (cases), what `metrics.summary_of_dice` gives (pooled: mean over structures), `missed`, `invented`: structures in all;
    `seconds`: mean per case; of every structure `dice_<structure>`, `iou_`, and means of the distances and of the columns of
    `CERTAINTY` where the table has them, with `dice_vs_uncertainty` (`calibration.uncertainty_against_dice`).
    """
    check_table(per_case, (*OVERLAPS, "missed", "invented", "seconds"), "volumes.score_volumes")
    structures = [name.removeprefix("intersection_") for name in per_case.columns if name.startswith("intersection_")]
    scores = [name for name in (*OVERLAPS, *DISTANCES) if name in per_case.columns]
    summary: dict[str, float | int] = {"n": len(per_case)}
    summary |= summary_of_dice(per_case, [f"_{name}" for name in structures])
    summary |= {score: float(per_case[score].mean()) for score in (*scores, "seconds")}
    summary |= {name: int(per_case[name].sum()) for name in ("missed", "invented")}
    summary |= {f"{score}_{name}": float(per_case[f"{score}_{name}"].mean()) for name in structures for score in scores}
    summary |= {name: float(per_case[name].mean()) for name in CERTAINTY if name in per_case.columns}
    if "uncertainty" in per_case.columns:
        summary["dice_vs_uncertainty"] = uncertainty_against_dice(per_case)
    return summary
