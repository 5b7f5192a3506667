"""Axial slices side by side. In: volumes, patches, label maps, latents, in RAS axes. Out: matplotlib Figures with alt text.

Every slice is hung as radiologists hang it: front up, the patient's right on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from textdiff.data.volumes.patches import VolumeBatch
from textdiff.data.volumes.volume import Volume, normalised, to_grid
from textdiff.evaluation.studies import hung
from textdiff.figures.images import pca_rgb, samples_grid

Window = tuple[float, float] | None
SPREAD = 3.0  # standard deviations of MR grey values from black to white, either way


def axial_grid(slices: Mapping[str, np.ndarray], columns: int, caption: str = "") -> Figure:
    """Slices by title: floats [X, Y] from -1 (black) to 1 (white), or [3, X, Y], red, green and blue from 0 to 1."""
    pictures = [hung(one if one.ndim == 2 else 2 * one - 1) for one in slices.values()]
    return samples_grid(pictures, list(slices), columns, caption)


def _level(labels: np.ndarray) -> int:
    """The height at which most voxels are marked."""
    return int((labels > 0).sum(axis=(0, 1)).argmax())


def through_windows(image: Volume, labels: Volume, windows: Mapping[str, Window]) -> Figure:
    """One slice under several windows of grey values: (lowest, highest), or None for the percentiles of MR."""
    grid, level = to_grid(image, None), _level(to_grid(labels, None, "labels").array)
    slices = {}
    for name, window in windows.items():
        shown = normalised(grid.array, window)[:, :, level]
        title = f"{name}: {window[0]:.0f} to {window[1]:.0f}" if window else name
        slices[title] = shown if window else shown / SPREAD
    return axial_grid(slices, len(slices), "The same slice under several windows of grey values.")


def patches_and_places(batch: VolumeBatch, window: Window) -> Figure:
    """Above, a slice of each patch; below, the same slice of its first place channel: how far to the patient's right."""
    slices, places = {}, {}
    for number, (image, labels) in enumerate(zip(batch.images.cpu().numpy(), batch.labels.cpu().numpy(), strict=True)):
        grey, right = image[:2, :, :, _level(labels)]
        slices[f"patch {number}"] = grey if window else grey / SPREAD
        places[f"patch {number}: how far right"] = right
    return axial_grid(slices | places, len(slices), "Patches (above) and the first of their place channels (below).")


def encoder_inputs(batch: VolumeBatch, names: Sequence[str], window: Window, shown: int = 3) -> Figure:
    """What the label encoder is given of the first volume: one-hot maps and signed distances of its largest structures."""
    if batch.distances is None:
        raise ValueError("the batch has no signed distances: make its volumes with distances=True")
    labels, image = batch.labels[0].cpu().numpy(), batch.images[0, 0].cpu().numpy()
    amounts = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:]
    largest = np.argsort(-amounts)[:shown]
    areas = np.stack([(labels == k + 1).sum(axis=(0, 1)) for k in largest])
    level = int(((areas > 0).sum(axis=0) + areas.min(axis=0) / (1 + areas.max())).argmax())
    slices = {"image": (image if window else image / SPREAD)[:, :, level]}
    slices |= {names[k]: (labels[:, :, level] == k + 1) * 2.0 - 1 for k in largest}
    slices[" "] = np.ones(image.shape[:2])
    slices |= {f"{names[k]}: distance": batch.distances[0, k, :, :, level].cpu().numpy() for k in largest}
    return axial_grid(slices, 1 + len(largest), "An image, one-hot maps (above) and signed distances (below).")


def latent_colours(latents: Mapping[str, np.ndarray], columns: int = 5) -> Figure:
    """The middle slice of latents [channels, X, Y, Z], by title; their three main directions as red, green and blue."""
    colours = pca_rgb([one[:, :, :, one.shape[-1] // 2] for one in latents.values()])
    shown = {title: np.moveaxis(one, -1, 0) for title, one in zip(latents, colours, strict=True)}
    return axial_grid(shown, columns, "Slices of the latent as colours, clean and noised.")
