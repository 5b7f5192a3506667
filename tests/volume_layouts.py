"""Phantoms as files in the layouts in which publishers give out their volumes; and a hippocampus to write in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from textdiff.base.checkpoints import write_text
from textdiff.data.entries import DatasetEntry
from textdiff.data.registry import dataset
from textdiff.data.splits import SPLITS
from textdiff.data.volumes.layouts import TOTALSEGMENTATOR
from textdiff.data.volumes.phantoms import abdomen
from textdiff.data.volumes.volume import Volume, turned, write_image, write_labels

# Order of the voxels in the published files.
AXES = {"msd": "RAS", "kits": "IPL", "amos": "LAS", "btcv": "LAS", "totalsegmentator": "RAS"}


def hippocampus(index: int, shape: tuple[int, int, int] = (36, 50, 35)) -> tuple[Volume, Volume]:
    """A bent rod in MR, labels 1 (the front third) and 2; grey values without unit, voxels of 1 mm, RAS."""
    rng = np.random.default_rng([12, index])
    x, y, z = np.meshgrid(*(np.arange(side) - side / 2 for side in shape), indexing="ij")
    inside = (x - rng.uniform(-2, 2)) ** 2 + (z - 0.02 * y**2) ** 2 < rng.uniform(4, 6) ** 2
    labels = np.where(inside & (abs(y) < 18), np.where(y > 6, 1, 2), 0).astype(np.uint8)
    grey = np.where(labels > 0, 100, 130) + rng.uniform(4, 8) * rng.standard_normal(shape)
    affine = np.eye(4)
    affine[:3, 3] = 1.0
    return Volume(grey.astype(np.float32), affine), Volume(labels, affine)


def write_layout(
    folder: Path,
    name: str,
    n: int,
    seed: int = 0,
    shape: tuple[int, int, int] = (48, 48, 40),
    spacing: tuple[float, float, float] = (6.0, 6.0, 6.0),
) -> Path:
    """Write `n` phantoms in the layout of data set `name`: the last two are for validation and test. Returns the folder."""
    task = dataset(name, "volumes")
    for index in range(n):
        pair = hippocampus(index) if name == "hippocampus" else abdomen(index, seed, shape, spacing, task.structures)
        _write_case(folder, task, index, *pair)
    _write_split(folder, task, n)
    return folder


def _file_names(task: DatasetEntry, index: int) -> tuple[str, str]:
    """Image and label map of case `index`."""
    if task.layout == "msd":
        return f"imagesTr/phantom_{index:03d}.nii.gz", f"labelsTr/phantom_{index:03d}.nii.gz"
    if task.layout == "amos":
        return f"imagesTr/amos_{index + 1:04d}.nii.gz", f"labelsTr/amos_{index + 1:04d}.nii.gz"
    if task.layout == "btcv":
        return f"img/img{index + 1:04d}.nii.gz", f"label/label{index + 1:04d}.nii.gz"
    if task.layout == "kits":
        labels = "aggregated_MAJ_seg" if task.name == "kits21" else "segmentation"
        return f"case_{index:05d}/imaging.nii.gz", f"case_{index:05d}/{labels}.nii.gz"
    return f"s{index:04d}/{task.modality.lower()}.nii.gz", f"s{index:04d}/segmentations"


def _write_case(folder: Path, task: DatasetEntry, index: int, image: Volume, labels: Volume) -> None:
    image, labels = (turned(volume, AXES[task.layout]) for volume in (image, labels))
    image_path, label_path = (folder / name for name in _file_names(task, index))
    grey = image.array - image.array.min() if task.modality == "MR" else image.array
    write_image(image_path, Volume(np.rint(grey).astype(np.int16), image.affine))
    if task.layout != "totalsegmentator":
        write_labels(label_path, labels)  # all number their structures 1, 2, ...
        return
    for label, name in enumerate(task.structures, start=1):
        mask = Volume((labels.array == label).astype(np.uint8), labels.affine)
        write_labels(label_path / f"{TOTALSEGMENTATOR[name][0]}.nii.gz", mask)


def _write_split(folder: Path, task: DatasetEntry, n: int) -> None:
    """split.json, or TotalSegmentator's meta.csv."""
    splits = (["train"] * max(n - 2, 1) + ["val", "test"])[:n]
    if task.layout == "totalsegmentator":
        rows = [f"s{index:04d};{split}" for index, split in enumerate(splits)]
        write_text(folder / "meta.csv", "\n".join(["image_id;split", *rows, ""]))
        return
    names = [_file_names(task, index)[0] for index in range(n)]
    names = [Path(name).parent.name if task.layout == "kits" else name.removeprefix("img/img") for name in names]
    content = {split: [name for name, its in zip(names, splits, strict=True) if its == split] for split in SPLITS}
    write_text(folder / "split.json", json.dumps(content))
