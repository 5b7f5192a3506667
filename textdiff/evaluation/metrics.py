"""Scores of segmentations. In: label maps (prediction and truth). Out: Dice and IoU of an image, and of a set of images.

Conventions (TextDiff's public code, which follows LViT's): foreground classes only,
IoU = (I + 1e-5) / (U + 1e-5), Dice = 2 IoU / (1 + IoU), so a pair without any foreground scores 1. Two ways
to score a set are always told apart: the mean over images, and *pooled* (all pixels of all images as one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

LabelMap = np.ndarray | torch.Tensor

SMOOTH = 1e-5
COUNTS = ("intersection", "predicted", "actual")
SUBJECT = re.compile(r"sub-[^_]+(?=_)")


def case_counts(pred: LabelMap, target: LabelMap, num_classes: int = 2) -> np.ndarray:
    """Count the pixels of every foreground class.

    `pred` and `target`: label maps of one shape with values 0..num_classes-1, 0 being background. Returns int64
    [num_classes - 1, 3]: intersection, predicted, actual; row 0 is class 1. Raises ValueError for shapes that
    differ, empty maps, and values that are no whole labels or out of range.
    """
    if num_classes < 2:
        raise ValueError(
            f"num_classes={num_classes}: a segmentation needs a background and at least one class (2 or more)"
        )
    pred, target = _labels(pred, "prediction", num_classes), _labels(target, "truth", num_classes)
    if pred.shape != target.shape:
        raise ValueError(f"the prediction has shape {pred.shape} and the truth {target.shape}: they must be equal")
    pairs = np.bincount((target * num_classes + pred).ravel(), minlength=num_classes**2)
    confusion = pairs.reshape(num_classes, num_classes)
    return np.stack([confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)], axis=1)[1:]


def _labels(values: LabelMap, what: str, num_classes: int) -> np.ndarray:
    labels = np.asarray(values)
    if labels.size == 0:
        raise ValueError(f"the {what} is empty (shape {labels.shape})")
    if labels.dtype.kind not in "biu":
        raise ValueError(
            f"the {what} has type {labels.dtype}: a label map holds whole numbers (take the argmax of logits first)"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"the {what} holds labels {labels.min()}..{labels.max()}, but with num_classes={num_classes} "
            f"only 0..{num_classes - 1} are possible"
        )
    return labels.astype(np.int64)


def check_class_order(model: Sequence[str], data: Sequence[str]) -> None:
    """Raises ValueError, with both lists, where a model was trained with the classes of the data in another order: its label 1 is
    not theirs, and nothing else would tell.
    """
    if tuple(model) != tuple(data) and sorted(model) == sorted(data):
        raise ValueError(
            f"the model was trained with the classes in the order {', '.join(model)}, and the data have them as {', '.join(data)}: "
            "give the data's class_names in the model's order"
        )


def iou_of_counts(counts: np.ndarray) -> np.ndarray:
    """IoU in 0..1 from counts [..., 3] (intersection, predicted, actual); 1 where prediction and truth are both empty."""
    intersection, predicted, actual = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return (intersection + SMOOTH) / (predicted + actual - intersection + SMOOTH)


def dice_of_iou(iou: np.ndarray) -> np.ndarray:
    """Dice in 0..1 from IoU in 0..1, as in TextDiff's public code."""
    return 2 * iou / (1 + iou)


def case_scores(
    pred: LabelMap,
    target: LabelMap,
    num_classes: int = 2,
    class_names: Sequence[str] | None = None,
    suffix: str = "",
) -> dict[str, float | int]:
    """Score one image: `dice` and `iou` (means over the foreground classes) and the summed pixel counts.

    With more than one foreground class every score and count also comes per class, as `dice_<class>` and so on;
    `class_names` names all classes, background first (default: their numbers). `suffix` goes behind each score's
    name ("_native" gives `dice_native`, `dice_native_<class>`). Raises ValueError as `case_counts` does, and when
    the names are not as many as the classes.
    """
    counts = case_counts(pred, target, num_classes)
    names = list(class_names) if class_names is not None else [str(label) for label in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"{len(names)} class names {names} for num_classes={num_classes}: name each, background first")
    iou = iou_of_counts(counts)
    dice = dice_of_iou(iou)
    scores: dict[str, float | int] = {f"dice{suffix}": float(dice.mean()), f"iou{suffix}": float(iou.mean())}
    scores |= {f"{name}{suffix}": int(total) for name, total in zip(COUNTS, counts.sum(axis=0), strict=True)}
    if num_classes > 2:
        for label, name in enumerate(names[1:]):
            scores |= {f"dice{suffix}_{name}": float(dice[label]), f"iou{suffix}_{name}": float(iou[label])}
            scores |= {f"{count}{suffix}_{name}": int(n) for count, n in zip(COUNTS, counts[label], strict=True)}
    return scores


def subjects_of(cases: Iterable[Any]) -> list[str]:
    """Whom each case is of, by its name: ``sub-<label>_...`` (BIDS, as QaTa-COV19's films are called); other names stand for themselves."""
    return [found[0] if (found := SUBJECT.match(str(case))) else str(case) for case in cases]


def bootstrap_interval(
    values: Sequence[float], subjects: Sequence[str] | None = None, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean: images are drawn with replacement `n_resamples` times.

    `subjects`: whom each image is of (`subjects_of`); then subjects are drawn, each with all of its images, and the mean stays that
    over images. The same seed gives the same interval, in whatever order the values come; (nan, nan) for a single image or subject.
    Raises ValueError for no values or values that are not finite.
    """
    scores = np.asarray(values, dtype=np.float64).ravel()
    if scores.size == 0:
        raise ValueError("no values to resample: an interval needs at least two images")
    if not np.isfinite(scores).all():
        raise ValueError("the values hold nan or infinity: score every image before asking for an interval")
    if n_resamples < 1:
        raise ValueError(f"n_resamples={n_resamples}: at least 1")
    _, whose = np.unique(np.arange(scores.size) if subjects is None else subjects, return_inverse=True)
    parts = np.stack([np.bincount(whose), np.bincount(whose, scores)])  # of each subject: images, and their sum
    images, sums = parts[:, np.lexsort(parts)]
    if len(sums) == 1:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(sums), size=(n_resamples, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / images[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def interval_by_patient(per_case: pd.DataFrame) -> tuple[float, float]:
    """`bootstrap_interval` of the mean `dice` of a per-case table, where `case` names them the images of a patient together."""
    return bootstrap_interval(per_case["dice"], subjects_of(per_case["case"]))


def check_table(per_case: pd.DataFrame, needed: Sequence[str], maker: str) -> None:
    """Raises ValueError for a per-case table without rows or without columns that `maker` gives."""
    missing = [name for name in needed if name not in per_case.columns]
    if missing:
        raise ValueError(f"the per-case table lacks the columns {missing}: make it with textdiff.evaluation.{maker}")
    if len(per_case) == 0:
        raise ValueError("the per-case table has no rows: there is nothing to summarise")


def summary_of_dice(per_case: pd.DataFrame, endings: Sequence[str], suffix: str = "") -> dict[str, float]:
    """Means of `dice` and `iou` over cases, the bootstrap interval, and `_pooled`: from the counts of all cases together.

    `suffix` stands behind every name. `endings`: of the columns of the counts; the pooled scores are means over them.
    """
    totals = np.array([[per_case[f"{count}{end}"].sum() for count in COUNTS] for end in endings])
    pooled = iou_of_counts(totals)
    low, high = bootstrap_interval(per_case[f"dice{suffix}"])
    return {f"{score}{suffix}": float(per_case[f"{score}{suffix}"].mean()) for score in ("dice", "iou")} | {
        f"dice{suffix}_pooled": float(dice_of_iou(pooled).mean()),
        f"iou{suffix}_pooled": float(pooled.mean()),
        f"dice{suffix}_ci_low": low,
        f"dice{suffix}_ci_high": high,
    }


def summarise(per_case: pd.DataFrame) -> dict[str, float | int]:
    """Summarise a per-case table (`evaluation.images.score_cases`) as flat numbers in 0..1.

    `n`: images; `dice`, `iou`: means over images; `dice_pooled`, `iou_pooled`: from the pixels of all images together
    (mean over classes where there are several); `dice_ci_low`, `dice_ci_high`: 95 % bootstrap over images, whomever they are of
    (`interval_by_patient` takes those of one patient together); the same with
    `_native` at the images' own size; `dice_<class>` where there are several foreground classes. Raises ValueError
    as `check_table` does.
    """
    needed = [f"{name}{suffix}" for suffix in ("", "_native") for name in ("dice", "iou", *COUNTS)]
    check_table(per_case, needed, "images.score_cases")
    columns = [str(column) for column in per_case.columns]
    named = [column.removeprefix("intersection_") for column in columns if column.startswith("intersection_")]
    classes = [name for name in named if f"intersection_native_{name}" in columns]
    summary: dict[str, float | int] = {"n": len(per_case)}
    for suffix in ("", "_native"):
        summary |= summary_of_dice(per_case, [f"{suffix}_{name}" for name in classes] or [suffix], suffix)
        summary |= {f"dice{suffix}_{name}": float(per_case[f"dice{suffix}_{name}"].mean()) for name in classes}
    return summary
