"""Does the model know when it is wrong? In: probabilities, or an uncertainty map, and the truth. Out: expected calibration
error, reliability table, and how well uncertainty points at errors.

Nearly every voxel of a volume is background that any model gets right and is sure of: restrict the scores to
`near_foreground`; every function takes it as `region`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation

TOLERANCE = 1e-3  # how far the probabilities of a voxel may sum from 1
MARGIN = 2  # voxels


class Reliability:
    """Confidence against accuracy, gathered voxel by voxel over as many cases as are added, in memory of a few numbers.

    A voxel's confidence is the probability of its most probable class; it is right when that class is the true one.
    `bins`: equal parts of the confidence's range 0..1.
    """

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f"bins={bins}: at least 1")
        self.bins = bins
        self._sums = np.zeros((3, bins))  # voxels, their confidence, how many are right

    def add(self, probabilities: np.ndarray, target: np.ndarray, region: np.ndarray | None = None) -> None:
        """Count a case: probabilities ``[K+1, ...]`` (sum 1), true labels ``[...]``, and a mask of the voxels that count.

        Raises ValueError for shapes that do not fit, labels without a class, or numbers that are no probabilities.
        """
        probabilities, target = np.asarray(probabilities), np.asarray(target)
        if probabilities.shape[1:] != target.shape or len(probabilities) < 2:
            raise ValueError(
                f"probabilities of shape {probabilities.shape} and truth of shape {target.shape}: "
                f"expected [classes, ...] with two classes or more, and the same shape without the first axis"
            )
        where = _region(region, target.shape)
        chances, truth = probabilities[:, where], target[where]
        _check_probabilities(chances)
        if truth.size and (truth.min() < 0 or truth.max() >= len(chances)):
            raise ValueError(f"the truth holds labels {truth.min()}..{truth.max()} for {len(chances)} classes")
        confidence = chances.max(axis=0).astype(np.float64)
        right = chances.argmax(axis=0) == truth
        place = np.clip((confidence * self.bins).astype(int), 0, self.bins - 1)
        for row, weights in enumerate((None, confidence, right)):
            self._sums[row] += np.bincount(place, weights, minlength=self.bins)

    @property
    def n(self) -> int:
        """Voxels counted."""
        return int(self._sums[0].sum())

    def ece(self) -> float:
        """Expected calibration error, 0..1: the distance of confidence from accuracy, averaged over voxels; nan without any."""
        voxels, confidence, right = self._sums
        return float(np.abs(confidence - right).sum() / voxels.sum()) if self.n else float("nan")

    def table(self) -> pd.DataFrame:
        """One row per bin: `low`, `high` (of the confidence), `n` (voxels), mean `confidence`, `accuracy`; nan where n is 0."""
        voxels, confidence, right = self._sums
        edges = np.arange(self.bins + 1) / self.bins
        table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "n": voxels.astype(np.int64)})
        known = np.where(voxels > 0, voxels, np.nan)
        return table.assign(confidence=confidence / known, accuracy=right / known)


def near_foreground(pred: np.ndarray, target: np.ndarray | None = None, margin: int = MARGIN) -> np.ndarray:
    """Mask of what is foreground in `pred` or in `target`, widened by `margin` voxels (six neighbours a step)."""
    mask = np.asarray(pred) > 0
    if target is not None:
        mask = mask | (np.asarray(target) > 0)
    return binary_dilation(mask, iterations=margin) if margin and mask.any() else mask


def error_detection(uncertainty: np.ndarray, wrong: np.ndarray, region: np.ndarray | None = None) -> dict[str, float]:
    """How well `uncertainty` (one number per voxel, larger where less sure) tells `wrong` voxels (bool) from right ones.

    Returns `error_auroc` (chance that a wrong voxel is less sure than a right one; 0.5 is guessing), `error_auprc`
    (average precision; guessing gives `error_share`) and `error_share` (wrong voxels among all); nan where there is
    nothing to tell apart: no voxels in the `region`, all right or all wrong.
    """
    uncertainty, wrong = np.asarray(uncertainty), np.asarray(wrong)
    if uncertainty.shape != wrong.shape or wrong.dtype != bool:
        raise ValueError(
            f"uncertainty of shape {uncertainty.shape} and errors of shape {wrong.shape} and type {wrong.dtype}: "
            "expected one shape, and errors as bool"
        )
    where = _region(region, wrong.shape)
    score, mistake = uncertainty[where], wrong[where]
    if not np.isfinite(score).all():
        raise ValueError("the uncertainty holds nan or infinity")
    share = float(mistake.mean()) if mistake.size else float("nan")
    if mistake.all() or not mistake.any():
        return {"error_auroc": float("nan"), "error_auprc": float("nan"), "error_share": share}
    order = np.argsort(-score, kind="stable")
    score, mistake = score[order], mistake[order]
    # Mistakes and others above each threshold, from 0 to all; equal scores stand or fall together.
    last = np.flatnonzero(np.append(np.diff(score) != 0, True))
    caught = np.append(0, np.cumsum(mistake)[last])
    alarms = np.append(0, last + 1) - caught
    recall, precision = caught / caught[-1], caught[1:] / (caught[1:] + alarms[1:])
    auroc = (np.diff(alarms / alarms[-1]) * (recall[1:] + recall[:-1]) / 2).sum()
    auprc = (np.diff(recall) * precision).sum()
    return {"error_auroc": float(auroc), "error_auprc": float(auprc), "error_share": share}


def case_uncertainty(uncertainty: np.ndarray, pred: np.ndarray) -> float:
    """One number for a whole case, without its truth: mean uncertainty in and around what was marked; nan if nothing was."""
    near = near_foreground(pred)
    return float(np.asarray(uncertainty)[near].mean(dtype=np.float64)) if near.any() else float("nan")


def uncertainty_against_dice(per_case: pd.DataFrame) -> float:
    """Spearman's rank correlation, over cases, of the columns `uncertainty` and `dice`: -1 where the less sure cases are
    the worse ones without exception. Cases without uncertainty are left out; nan with fewer than 3, or where one column is constant.
    """
    both = per_case[["uncertainty", "dice"]].astype(float)
    return float(both.corr(method="spearman", min_periods=3).loc["uncertainty", "dice"])


def _region(region: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    region = np.ones(shape, dtype=bool) if region is None else np.asarray(region)
    if region.shape != shape or region.dtype != bool:
        raise ValueError(f"the region has shape {region.shape} and type {region.dtype}: expected bool of shape {shape}")
    return region


def _check_probabilities(chances: np.ndarray) -> None:
    total = chances.sum(axis=0, dtype=np.float64)
    # Written so that nan fails too
    if chances.size and not (chances.min() >= -TOLERANCE and np.abs(total - 1).max() <= TOLERANCE):
        raise ValueError(
            f"these are no probabilities: values {chances.min():.3g}..{chances.max():.3g}, sums over the classes "
            f"{total.min():.3g}..{total.max():.3g} (take the softmax of logits first)"
        )
