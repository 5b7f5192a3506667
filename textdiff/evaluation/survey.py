"""What volumes and sentences hold before anything is trained. In: images and label maps. Out: tables (notebook 20).

`pairs` are images with their labels as `VolumeCase.pair` gives them, `names` the structures without the background.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from textdiff.data.volumes.patches import VolumeBatch
from textdiff.data.volumes.prompts import KINDS, VARIANTS, named_structures, prompt
from textdiff.data.volumes.volume import Volume, from_grid, read_image, to_grid, turned, write_image
from textdiff.evaluation.metrics import case_scores

Pairs = Sequence[tuple[Volume, Volume]]
LONGER = 1  # the wording of "report" sentences that tells the volume in ml


def fullest(pairs: Pairs) -> int:
    """Place of the pair with the most structures; of several, that with the most voxels of them."""
    counts = [(len(np.unique(labels.array)), int((labels.array > 0).sum())) for _, labels in pairs]
    return max(range(len(pairs)), key=lambda place: counts[place])


def orders_of_axes(image: Volume, labels: Volume, orders: Sequence[str] = ("RAS", "LPS", "IPL")) -> pd.DataFrame:
    """One place in the patient, found again in files of the same volume with other orders of the axes.

    The place is a voxel of the first structure. One row per order: `array` (shape), `index of the place`, `mm`, `grey value`, and
    `turned to RAS`: whether the array is then that of the first file.
    """
    marked = np.argwhere(labels.array == np.unique(labels.array)[1])
    place = labels.affine @ [*marked[len(marked) // 2], 1]
    rows, first = {}, None
    with tempfile.TemporaryDirectory() as folder:
        for order in orders:
            path = Path(folder) / f"{order}.nii.gz"
            write_image(path, turned(image, order))
            volume = read_image(path)
            index = tuple(np.rint(np.linalg.inv(volume.affine) @ place).astype(int)[:3].tolist())
            grid = to_grid(volume, None).array
            first = grid if first is None else first
            rows[order] = {
                "array": volume.shape,
                "index of the place": index,
                "mm": tuple(np.round((volume.affine @ [*index, 1])[:3], 1).tolist()),
                "grey value": round(float(volume.array[index]), 1),
                "turned to RAS": "the same array" if np.array_equal(grid, first) else "another array",
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("axes")


def overview(pairs: Pairs, names: Sequence[str]) -> pd.DataFrame:
    """Shape, spacing (mm), axes, lowest and highest grey value, and each structure's volume (ml): one row per pair."""
    rows = []
    for image, labels in pairs:
        amounts = np.bincount(labels.array.ravel(), minlength=len(names) + 1)[1:] * labels.voxel_ml
        about = {
            "shape": image.shape,
            "spacing (mm)": tuple(round(step, 2) for step in image.spacing),
            "axes": image.axes,
            "lowest": float(image.array.min()),
            "highest": float(image.array.max()),
        }
        rows.append(about | {f"{name} (ml)": round(float(ml), 1) for name, ml in zip(names, amounts, strict=True)})
    return pd.DataFrame(rows)


def coarse_dice(
    labels: Sequence[Volume], names: Sequence[str], factors: Sequence[float] = (1.5, 2.0, 3.0)
) -> pd.DataFrame:
    """Dice (0..1) of label maps with themselves after a way through larger voxels and back.

    One row per structure, one column per factor by which the sides of a voxel grow; the mean over the maps that have the
    structure, nan where none has it.
    """
    rows = []
    for one in labels:
        x, y, z = to_grid(one, None, "labels").spacing
        for factor in factors:
            back = from_grid(to_grid(one, (factor * x, factor * y, factor * z), "labels"), one)
            for label, name in enumerate(names, start=1):
                held = one.array == label
                dice = case_scores(back.array == label, held)["dice"] if held.any() else np.nan
                rows.append({"structure": name, "side of a voxel": f"{factor:g} times", "dice": dice})
    table = pd.DataFrame(rows).groupby(["structure", "side of a voxel"], sort=False)["dice"].mean().unstack()
    return table[[f"{factor:g} times" for factor in factors]].reindex(pd.Index(names, name="structure"))


def patch_table(batch: VolumeBatch, class_names: Sequence[str]) -> pd.DataFrame:
    """Each patch of a batch: its sentence, what is labelled, and from where to where it reaches (-1 to 1) in the volume."""
    rows = []
    for image, labels, sentence in zip(batch.images, batch.labels, batch.prompts, strict=True):
        held = [class_names[label] for label in labels.unique().tolist() if label]
        reach = {
            direction: f"{place.min():.2f} to {place.max():.2f}"
            for direction, place in zip(("right", "front", "head"), image[1:], strict=True)
        }
        rows.append({"sentence": sentence, "labelled": ", ".join(held) or "nothing"} | reach)
    return pd.DataFrame(rows).rename_axis("patch")


def leakage(labels: Sequence[Volume], names: Sequence[str]) -> pd.DataFrame:
    """How much a kind of sentence gives away, without any model: one row per kind.

    `different ones` of the `sentences` that ask each label map for each of its structures, and the mean relative `error of the
    volume, told blind`: from the ml in the sentence where it tells them, else by the mean of all.
    """
    rows = {}
    for kind in KINDS:
        written, errors = [], []
        for label, name in enumerate(names, start=1):
            held = [one for one in labels if (one.array == label).any()]
            true = np.array([(one.array == label).sum() * one.voxel_ml for one in held])
            sentences = [prompt(kind, [name], one, ("background", *names), variant=LONGER) for one in held]
            told = [re.search(r"([\d.]+) ml", sentence) for sentence in sentences]
            guess = np.array([float(found[1]) if found else true.mean() for found in told])
            errors += list(np.abs(guess - true) / true)
            written += sentences
        rows[kind] = {
            "sentences": len(written),
            "different ones": len(set(written)),
            "error of the volume, told blind": f"{np.mean(errors):.1%}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("kind")


def wordings(labels: Volume, names: Sequence[str], asked: Sequence[str], most: int = 3) -> pd.DataFrame:
    """The first `most` wordings of every kind of sentence that asks for the structures `asked`; indexed by kind and wording."""
    lines = [
        (kind, variant, prompt(kind, asked, labels, ("background", *names), variant))
        for kind in KINDS
        for variant in range(min(most, VARIANTS[kind]))
    ]
    return pd.DataFrame(lines, columns=["kind", "wording", "sentence"]).set_index(["kind", "wording"])


def understood(labels: Volume, names: Sequence[str]) -> tuple[int, int]:
    """How many sentences `named_structures` understands as the one structure they were written for, and how many there are.

    All kinds and wordings; "report" sentences only of structures that the label map holds.
    """
    present = [name for label, name in enumerate(names, start=1) if (labels.array == label).any()]
    right = [
        named_structures(prompt(kind, [name], labels, ("background", *names), variant), names) == (name,)
        for kind in KINDS
        for variant in range(VARIANTS[kind])
        for name in (present if kind == "report" else names)
    ]
    return sum(right), len(right)
