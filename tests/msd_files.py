"""Small volumes on disk in the layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textdiff.data.volumes.volume import Volume, write_image, write_labels

SHAPE = (4, 5, 3)
AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])


def image(path: Path) -> Path:
    write_image(path, Volume(np.arange(60, dtype=np.int16).reshape(SHAPE), AFFINE))
    return path


def labels(path: Path, *values: int, affine: np.ndarray = AFFINE, shape=SHAPE) -> Path:
    """A label map whose first voxels hold `values`, the others 0."""
    array = np.zeros(shape, np.int16)
    array.reshape(-1)[: len(values)] = values
    write_labels(path, Volume(array, affine))
    return path


def msd(root: Path, n: int = 3, values=(1, 2)) -> Path:
    for k in range(n):
        image(root / "imagesTr" / f"case_{k}.nii.gz")
        labels(root / "labelsTr" / f"case_{k}.nii.gz", *values)
    return root
