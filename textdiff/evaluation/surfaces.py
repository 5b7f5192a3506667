"""Distances between surfaces, in mm. In: a predicted and a true label map and the size of a voxel. Out: HD95 and ASSD of
every structure.

Conventions: a surface is the layer of a structure's voxels that touch another label or the edge of the volume (six
neighbours). HD95 is the larger of the two directed 95th percentiles; ASSD the mean over both surfaces' distances
together. A structure in neither map has no distance (nan). A structure in one map only gets the diagonal of the
volume, so that missing a small tumour, or inventing one, is the worst that can happen to it rather than left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import find_objects

from textdiff.evaluation.metrics import case_counts

DISTANCES = ("hd95_mm", "assd_mm")


def surface_distances(
    pred: np.ndarray, target: np.ndarray, spacing: Sequence[float], num_classes: int
) -> dict[str, np.ndarray]:
    """Distances between predicted and true surface of every structure.

    `pred`, `target`: label maps of one shape, values 0..num_classes-1; `spacing`: mm of a voxel along each axis. Returns
    {"hd95_mm": float64 [num_classes - 1], "assd_mm": the same}; nan where a structure is in neither map, the diagonal of the
    volume where it is in one only. Raises ValueError for a spacing that is not one positive number per axis, and as
    `metrics.case_counts` does.
    """
    pred, target = np.asarray(pred), np.asarray(target)
    box = foreground_box(pred, target)
    counts = case_counts(pred[box], target[box], num_classes)
    size = np.asarray(spacing, dtype=np.float64)
    if size.shape != (pred.ndim,) or not (np.isfinite(size) & (size > 0)).all():
        raise ValueError(
            f"spacing={tuple(spacing)}: give {pred.ndim} positive numbers, the mm of a voxel along each axis"
        )
    diagonal = float(np.linalg.norm(size * pred.shape))
    found = np.full((num_classes - 1, len(DISTANCES)), np.nan)
    for row, (_, predicted, actual) in enumerate(counts):
        if predicted and actual:
            found[row] = _of_one(pred[box] == row + 1, target[box] == row + 1, size)
        elif predicted or actual:
            found[row] = diagonal
    return dict(zip(DISTANCES, found.T, strict=True))


def _of_one(pred: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> tuple[float, float]:
    """HD95 and ASSD of two masks, neither empty."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    box = foreground_box(pred, target)
    pair = [torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (pred, target)]
    how = {"include_background": True, "spacing": tuple(spacing.tolist())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it gives itself
        hd95 = compute_hausdorff_distance(*pair, percentile=95, **how)
        assd = compute_average_surface_distance(*pair, symmetric=True, **how)
    return float(hd95), float(assd)


def foreground_box(pred: np.ndarray, target: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around all that is not 0 in either map; one voxel where nothing is.

    Scores of a whole CT are counted there: labels fill little of it. Raises ValueError for shapes that differ.
    """
    if pred.shape != target.shape:
        raise ValueError(f"the prediction has shape {pred.shape} and the truth {target.shape}: they must be equal")
    return find_objects(((pred != 0) | (target != 0)).astype(np.uint8), 1)[0] or (slice(0, 1),) * pred.ndim
