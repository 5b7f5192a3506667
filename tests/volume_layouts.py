"""Abdomen phantoms as files of the Decathlon's and KiTS's tumour tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textdiff.base.checkpoints import write_text
from textdiff.data.registry import dataset
from textdiff.data.volumes.phantoms import abdomen
from textdiff.data.volumes.volume import Volume, turned, write_image, write_labels


def write_layout(
    folder: Path, name: str, n: int, seed: int = 0, *, shape: tuple[int, ...], spacing: Sequence[float]
) -> Path:
    """Write `n` phantoms in the layout of data set `name`: the last two are for validation and test. Returns the folder."""
    task = dataset(name, "volumes")
    kits = task.layout == "kits"
    for index in range(n):
        image, labels = (turned(one, "IPL") for one in abdomen(index, seed, shape, tuple(spacing), task.structures))
        paths = (f"case_{index:05d}/imaging", f"case_{index:05d}/aggregated_MAJ_seg")
        paths = paths if kits else (f"imagesTr/case_{index:05d}", f"labelsTr/case_{index:05d}")
        write_image(folder / f"{paths[0]}.nii.gz", Volume(np.rint(image.array).astype(np.int16), image.affine))
        write_labels(folder / f"{paths[1]}.nii.gz", labels)
    names = [f"case_{index:05d}" for index in range(n)]
    write_text(folder / "split.json", json.dumps({"train": names[:-2], "val": names[-2:-1], "test": names[-1:]}))
    return folder
