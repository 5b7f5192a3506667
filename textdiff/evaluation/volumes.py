"""Scoring on volumes. In: something that segments a volume as a sentence asks, and labelled cases. Out: a table, one row
per case, and its summary.

Everything is scored on the image's own grid against the labels as they were drawn. Dice and IoU follow `metrics`
(1 where a structure is in neither map), distances follow `surfaces` (mm; nan there).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from textdiff.data.volumes.volume import Volume, check_pair
from textdiff.evaluation.calibration import (
    Reliability,
    case_uncertainty,
    error_detection,
    near_foreground,
    uncertainty_against_dice,
)
from textdiff.evaluation.metrics import COUNTS, bootstrap_interval, case_counts, dice_of_iou, iou_of_counts
from textdiff.evaluation.surfaces import DISTANCES, foreground_box, surface_distances

if TYPE_CHECKING:
    import pandas as pd

    from textdiff.data.volumes.layouts import VolumeCase
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
    asked: Sequence[Sequence[str]] | None = None,
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
        asked: the structures that each prompt asks for (default: all). The others are neither scored nor averaged.
        surfaces: also measure distances; they take longest, so leave them out while a model is being chosen.
        reliability: gathers the probabilities of all cases, near true or predicted foreground.

    Returns a DataFrame with one row per case: `case`, `prompt`, `dice`, `iou`, `hd95_mm`, `assd_mm` (means over the structures asked for; nan
    distances left out), `missed` and `invented` (structures that are only in the truth, only in the prediction),
    `unasked` (voxels marked as a structure that was not asked for), `seconds` (of `segment`), and of every structure
    `dice_<structure>`, ..., `intersection_`, `predicted_`, `actual_` (voxels), `predicted_ml_`, `actual_ml_`; nan where it
    was not asked for. With uncertainty: `uncertainty` (`calibration.case_uncertainty`), `error_auroc`, `error_auprc`,
    `error_share`, with probabilities `ece`, all near true or predicted foreground.

    Raises ValueError for no cases, prompts or `asked` that are not one per case, an unknown structure, labels on another
    grid than the image, labels that have no class, and `reliability` without probabilities. Errors name the case.
    """
    import pandas as pd
    from tqdm import tqdm

    _check_request(cases, prompts, class_names, asked)
    wanted = [class_names[1:]] * len(cases) if asked is None else asked
    rows = []
    for case, prompt, names in zip(
        tqdm(cases, unit="volume", disable=not progress, leave=False), prompts, wanted, strict=True
    ):
        image, truth = case.pair()
        try:
            started = time.perf_counter()
            result = segment(image, prompt)
            seconds = time.perf_counter() - started
            scores = _scores(image, truth.array, result, class_names, names, surfaces, reliability)
        except ValueError as error:
            raise ValueError(f"case {case.name!r}: {error}") from error
        rows.append({"case": case.name, "prompt": prompt} | scores | {"seconds": seconds})
    return pd.DataFrame(rows)


def _check_request(
    cases: Sequence[VolumeCase],
    prompts: Sequence[str],
    class_names: Sequence[str],
    asked: Sequence[Sequence[str]] | None,
) -> None:
    if len(cases) == 0:
        raise ValueError("there are no cases to score")
    if len(class_names) < 2:
        raise ValueError(f"class_names={list(class_names)}: name the background and at least one structure")
    for what, given in (("prompts", prompts), ("asked", asked)):
        if given is not None and (isinstance(given, str) or len(given) != len(cases)):
            raise ValueError(f"{what}: give one per case, in the cases' order, for {len(cases)} cases")
    for names in asked or ():
        unknown = [name for name in names if name not in class_names[1:]]
        if unknown or not names or isinstance(names, str):
            raise ValueError(f"asked={names!r}: give a list of at least one of {', '.join(class_names[1:])}")


def _scores(
    image: Volume,
    truth: np.ndarray,
    result: Volume | Prediction,
    class_names: Sequence[str],
    asked: Sequence[str],
    surfaces: bool,
    reliability: Reliability | None,
) -> dict[str, float | int]:
    labels = result if isinstance(result, Volume) else result.labels
    check_pair(image, labels, "the prediction")
    box = foreground_box(labels.array, truth)
    case_counts(labels.array[box], truth[box], len(class_names))  # its checks come before anything is left out
    numbers = [place for place, name in enumerate(class_names) if name in asked and place]
    pred, target = (np.where(np.isin(array, numbers), array, 0) for array in (labels.array, truth))
    scores = _overlap_and_distance(pred, target, image, class_names, numbers, surfaces)
    scores["unasked"] = int((labels.array != pred).sum())
    if isinstance(result, Volume):
        if reliability is not None:
            raise ValueError("reliability needs probabilities, but the segmenter returns labels alone")
        return scores
    return scores | _certainty(result, target, reliability)


def _overlap_and_distance(
    pred: np.ndarray,
    target: np.ndarray,
    image: Volume,
    class_names: Sequence[str],
    numbers: Sequence[int],
    surfaces: bool,
) -> dict[str, float | int]:
    """Scores of the structures called `numbers` and their means; the other structures get nan."""
    import pandas as pd

    box = foreground_box(pred, target)
    counts = case_counts(pred[box], target[box], len(class_names))
    iou = iou_of_counts(counts)
    table = pd.DataFrame({"dice": dice_of_iou(iou), "iou": iou})
    if surfaces:
        table = table.assign(**surface_distances(pred, target, image.spacing, len(class_names)))
    scored = list(table.columns)
    table[list(COUNTS)] = counts
    for count in COUNTS[1:]:
        table[f"{count}_ml"] = table[count] * image.voxel_ml
    table.index = [column(name) for name in class_names[1:]]
    kept = table.iloc[[number - 1 for number in numbers]]
    scores = kept[scored].mean().to_dict()
    scores["missed"] = int(((kept["actual"] > 0) & (kept["predicted"] == 0)).sum())
    scores["invented"] = int(((kept["actual"] == 0) & (kept["predicted"] > 0)).sum())
    known = kept.to_dict("index")
    for name in table.index:
        scores |= {f"{score}_{name}": known[name][score] if name in known else np.nan for score in table.columns}
    return scores


def _certainty(result: Prediction, target: np.ndarray, reliability: Reliability | None) -> dict[str, float]:
    """What can be said of the uncertainty and the probabilities that came with the labels."""
    labels, scores = result.labels.array, {}
    near = near_foreground(labels, target)
    if result.uncertainty is not None:
        uncertainty = result.uncertainty.array
        scores["uncertainty"] = case_uncertainty(uncertainty, labels)
        scores |= error_detection(uncertainty, labels != target, near)
    if result.probabilities is None:
        if reliability is not None:
            raise ValueError("reliability needs probabilities, but the segmenter returns none")
        return scores
    own = Reliability()
    for one in (own, reliability):
        if one is not None:
            one.add(result.probabilities, target, near)
    return scores | {"ece": own.ece()}


def summarise_volumes(per_case: pd.DataFrame) -> dict[str, float | int]:
    """Summarise a per-case table (`score_volumes`) as flat numbers.

    `n` (cases); `dice`, `iou` (0..1), `hd95_mm`, `assd_mm`: means over cases; `dice_ci_low`, `dice_ci_high`: 95 %
    bootstrap over cases; `dice_pooled`, `iou_pooled`: from the voxels of all cases together, mean over structures;
    `missed`, `invented`: structures in all; `seconds`: mean per case; of every structure `dice_<structure>`, `iou_`,
    `hd95_mm_`, `assd_mm_` (means over the cases that were asked for it). Where the table has them: distances, means of the
    columns of `CERTAINTY`, and `dice_vs_uncertainty` (`calibration.uncertainty_against_dice`). A distance without any value is nan.

    Raises ValueError for an empty table or missing columns.
    """
    missing = [name for name in (*OVERLAPS, "missed", "invented", "seconds") if name not in per_case.columns]
    if missing:
        raise ValueError(
            f"the table lacks the columns {missing}: make it with textdiff.evaluation.volumes.score_volumes"
        )
    if len(per_case) == 0:
        raise ValueError("the per-case table has no rows: there is nothing to summarise")
    structures = [name.removeprefix("intersection_") for name in per_case.columns if name.startswith("intersection_")]
    structures = [name for name in structures if per_case[f"dice_{name}"].notna().any()]
    scores = [name for name in (*OVERLAPS, *DISTANCES) if name in per_case.columns]
    low, high = bootstrap_interval(per_case["dice"])
    pooled = iou_of_counts([[per_case[f"{count}_{name}"].sum() for count in COUNTS] for name in structures])
    summary: dict[str, float | int] = {"n": len(per_case)}
    summary |= {score: float(per_case[score].mean()) for score in (*scores, "seconds")}
    summary |= {"dice_ci_low": low, "dice_ci_high": high}
    summary |= {"dice_pooled": float(dice_of_iou(pooled).mean()), "iou_pooled": float(pooled.mean())}
    summary |= {name: int(per_case[name].sum()) for name in ("missed", "invented")}
    summary |= {f"{score}_{name}": float(per_case[f"{score}_{name}"].mean()) for name in structures for score in scores}
    summary |= {name: float(per_case[name].mean()) for name in CERTAINTY if name in per_case.columns}
    if "uncertainty" in per_case.columns:
        summary["dice_vs_uncertainty"] = uncertainty_against_dice(per_case)
    return summary
