"""Figures of volumes. In: a volume and label maps on its grid. Out: matplotlib Figures with alt text and caption.

Slices are shown as radiologists hang them: the patient's right and the patient's front on the left of the picture, the
head up; letters at the edges say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from scipy.ndimage import gaussian_filter

from textdiff.data.volumes.volume import Volume, check_pair, turned, widest_planes
from textdiff.evaluation.metrics import case_scores
from textdiff.evaluation.surfaces import foreground_box
from textdiff.figures.style import STRUCTURES, described, figure, frameless, legend

TRUTH = "white"
FINEST = 96  # cells of the surfaces' grid along the longest side: more are not seen at this size


# Cuts through a volume of RAS axes, across the first, second and third axis: letters left, right, below and above of them.
PLANES = {"sagittal": "APIS", "coronal": "RLIS", "axial": "RLPA"}
LETTERS = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.02, "center", "bottom"), (0.5, 0.98, "center", "top"))  # fmt: skip


def slices(
    image: Volume,
    labels: Volume | Mapping[str, Volume],
    truth: Volume | None = None,
    *,
    class_names: Sequence[str] = (),
    window: tuple[float, float] | None = None,
    margin: float | None = None,
    title: str = "",
) -> Figure:
    """Three planes of a volume with the outlines of its structures, those of the truth dashed.

    `labels`: a label map on the image's grid, or several by name (models), one row each; `class_names`: of all labels,
    background first (default: their numbers); `window`: grey values (HU) from black to white (default: 1st to 99th percentile);
    `margin`: show only this many mm around what is marked. The planes lie where the structures, each counted alike, are widest:
    those of the truth where it is given. Raises ValueError for maps that do not lie on the image.
    """
    rows = {"": labels} if isinstance(labels, Volume) else dict(labels)
    scene = _Scene.of(image, rows, truth, margin)
    fig, axes = scene.panels(len(rows), title)
    for line, (name, found) in zip(axes, scene.maps.items(), strict=True):
        scene.draw_outlined(line, found, window)
        line[0].set_ylabel(name, labelpad=14)
    scene.legend(fig, scene.maps.values(), class_names)
    said = "; ".join(f"{name or 'marked'}: {_said(found, truth, class_names)}" for name, found in rows.items())
    alt = f"Sagittal, coronal and axial slice{f' of {title}' if title else ''} with outlines of structures. {said}."
    dashed = ", the truth dashed" if truth is not None else ""
    return described(fig, alt, f"Slices with outlined structures{dashed}. R and L are the patient's sides.")


def uncertainty_slices(
    image: Volume,
    labels: Volume,
    truth: Volume | None,
    uncertainty: Volume,
    *,
    class_names: Sequence[str] = (),
    window: tuple[float, float] | None = None,
    margin: float | None = None,
    title: str = "",
) -> Figure:
    """Above, three planes with outlines as in `slices`; below, the uncertainty there (0..1), wrong voxels outlined.

    Arguments as for `slices`; `uncertainty` lies on the image's grid. Without truth no errors are drawn.
    """
    scene = _Scene.of(image, {"": labels, "uncertainty": uncertainty}, truth, margin)
    found, unsure = scene.maps.values()
    fig, (above, below) = scene.panels(2, title)
    scene.draw_outlined(above, found, window)
    said, caption = _said(labels, truth, class_names), "Outlined structures, and the model's uncertainty at each voxel."
    for plane, axis in enumerate(below):
        shown = scene.draw(axis, plane, unsure.array, cmap="viridis", vmin=0, vmax=1)
        if scene.truth is not None:
            errors = replace(found, array=(found.array != scene.truth.array).astype(np.uint8))
            scene.outline(axis, plane, errors, TRUTH)
    if truth is not None:
        wrong = labels.array != truth.array
        means = (float(uncertainty.array[where].mean()) if where.any() else math.nan for where in (wrong, ~wrong))
        said += "; mean uncertainty {:.2f} where it is wrong, {:.2f} elsewhere".format(*means)
        caption = (
            "Above, prediction and truth (dashed); below, the model's uncertainty, wrong voxels outlined in white."
        )
    fig.colorbar(shown, ax=[*above, *below], label="uncertainty", shrink=0.6)
    scene.legend(fig, [found], class_names)
    return described(fig, f"Slices with outlines above, maps of uncertainty below. {said}.", caption)


def surfaces(
    labels: Volume, truth: Volume | None = None, *, class_names: Sequence[str] = (), title: str = ""
) -> Figure:
    """Surfaces of all structures in the patient's axes (mm); beside them, from the same side, those of the truth.

    Triangles by scikit-image's marching cubes. Large volumes are drawn on a coarser grid.
    """
    shown = {"prediction": labels} | ({"truth": truth} if truth is not None else {})
    found = {name: meshes(turned(volume)) for name, volume in shown.items()}
    corners = np.concatenate([mesh for one in found.values() for mesh in one.values()] or [np.zeros((1, 3, 3))])
    low, high = corners.min(axis=(0, 1)) - 1, corners.max(axis=(0, 1)) + 1
    fig, _ = figure(1, 1, (4.6 * len(shown) + 0.4, 4.8))
    fig.clear()
    for place, (name, one) in enumerate(found.items(), start=1):
        axis: Any = fig.add_subplot(1, len(shown), place, projection="3d")
        for label, triangles in one.items():
            axis.add_collection3d(Poly3DCollection(triangles, facecolors=_colour(label), shade=True, linewidths=0))
        if not one:
            axis.text2D(0.5, 0.5, "nothing is marked", transform=axis.transAxes, ha="center", color="0.4")
        ends = zip(low, high, strict=True)
        axis.set(**dict(zip(("xlim", "ylim", "zlim"), ends, strict=True)))
        axis.set(xlabel="right (mm)", ylabel="front (mm)", zlabel="head (mm)")
        axis.set_box_aspect(high - low, zoom=0.9)
        axis.view_init(elev=25, azim=-35)
        axis.tick_params(labelsize="x-small")
        axis.set_title(name if truth is not None else "")
    fig.suptitle(title)
    legend(fig, {name: _colour(label) for label, name in _names(shown.values(), class_names).items()})
    said = "; ".join(f"{name}: {_said(volume, None, class_names)}" for name, volume in shown.items())
    alt = f"Surfaces of structures in three dimensions{f', {title}' if title else ''}. {said}."
    return described(fig, alt, "Surfaces of the structures. Axes: mm along the patient's right, front and head.")


@dataclass(frozen=True)
class _Scene:
    """What the panels of one figure share, in RAS axes: grey values, label maps by name, truth, and where the planes cut."""

    image: Volume
    maps: dict[str, Volume]
    truth: Volume | None
    at: tuple[int, int, int]

    @classmethod
    def of(cls, image: Volume, maps: Mapping[str, Volume], truth: Volume | None, margin: float | None) -> _Scene:
        if not maps:
            raise ValueError("there is nothing to draw: no label map is given")
        for name, one in (*maps.items(), ("truth", truth)):
            if one is not None:
                check_pair(image, one, name or "the label map")
        image, truth = turned(image), truth and turned(truth)
        maps = {name: turned(one) for name, one in maps.items()}
        first = next(iter(maps.values()))
        box = _around(first if truth is None else truth, margin)
        image, truth = cut_out(image, box), truth and cut_out(truth, box)
        maps = {name: cut_out(one, box) for name, one in maps.items()}
        guide = truth if truth is not None and truth.array.any() else next(iter(maps.values()))
        return cls(image, maps, truth, widest_planes(guide.array))

    def picture(self, plane: int, array: np.ndarray) -> np.ndarray:
        """The cut, rows upwards, columns from the patient's right (or front) to the left (or back)."""
        return np.take(array, self.at[plane], axis=plane).T[:, ::-1]

    def size(self, plane: int) -> tuple[float, float]:
        """Width and height of the cut, mm."""
        width, height = np.delete(np.multiply(self.image.shape, self.image.spacing), plane).tolist()
        return width, height

    def panels(self, rows: int, title: str) -> tuple[Figure, np.ndarray]:
        """A figure and its axes [rows, 3], one column per plane, all at one scale."""
        widths, heights = zip(*map(self.size, range(3)), strict=True)
        fig, axes = figure(rows, 3, (9.6, rows * (9.6 * max(heights) / sum(widths) + 0.15) + 0.8))
        axes[0].get_gridspec().set_width_ratios(widths)
        for axis, name in zip(axes, PLANES, strict=False):
            axis.set_title(name, fontsize="small")
        fig.suptitle(title)
        return fig, axes.reshape(rows, 3)

    def draw_outlined(self, axes: Sequence[Axes], labels: Volume, window: tuple[float, float] | None) -> None:
        """The image's three planes with the outlines of `labels`, those of the truth dashed over them."""
        low, high = window or np.percentile(self.image.array, (1, 99))
        for plane, axis in enumerate(axes):
            self.draw(axis, plane, self.image.array, cmap="gray", vmin=low, vmax=high)
            self.outline(axis, plane, labels)
            if self.truth is not None:
                self.outline(axis, plane, self.truth, TRUTH, "dashed")

    def draw(self, axis: Axes, plane: int, array: np.ndarray, **colours: Any) -> AxesImage:
        """The cut through `array`, with the letters of its sides."""
        frameless(axis)
        halo: Any = [withStroke(linewidth=2, foreground="black")]
        for letter, (x, y, across, up) in zip(list(PLANES.values())[plane], LETTERS, strict=True):
            where: Any = {"transform": axis.transAxes, "ha": across, "va": up, "path_effects": halo}
            axis.text(x, y, letter, color="white", fontsize="small", **where)
        width, height = self.size(plane)
        return axis.imshow(self.picture(plane, array), origin="lower", extent=(0, width, 0, height), **colours)

    def outline(self, axis: Axes, plane: int, labels: Volume, colour: str = "", style: str = "solid") -> None:
        """Each structure's outline, in `colour` or the structure's own."""
        picture, (width, height) = self.picture(plane, labels.array), self.size(plane)
        sides = zip((width, height), reversed(picture.shape), strict=True)
        places = [(np.arange(-1, count + 1) + 0.5) * length / count for length, count in sides]
        for label in np.unique(picture[picture > 0]):
            # Zeros around: a structure that reaches the edge is closed there, and an even field has a contour
            mask, own = np.pad(picture == label, 1).astype(float), colour or _colour(label)
            axis.contour(*places, mask, levels=[0.5], colors=[own], linestyles=style, linewidths=1.2)
        axis.set(xlim=(0, width), ylim=(0, height))

    def legend(self, fig: Figure, maps: Iterable[Volume], class_names: Sequence[str]) -> None:
        """The colours of the structures in `maps` and in the truth."""
        colours = {name: _colour(label) for label, name in _names([*maps, self.truth], class_names).items()}
        legend(fig, colours, {"truth (white in the picture)": "0.5"} if self.truth is not None else None)


def _colour(label: int) -> str:
    return STRUCTURES[(int(label) - 1) % len(STRUCTURES)]


def _around(labels: Volume, margin: float | None) -> tuple[slice, ...]:
    """The box of all that is marked and `margin` mm more; the whole volume without a margin or a mark."""
    if margin is None or not labels.array.any():
        return tuple(slice(0, side) for side in labels.shape)
    box = foreground_box(labels.array, labels.array)
    more = [math.ceil(margin / step) for step in labels.spacing]
    return tuple(slice(max(0, one.start - extra), one.stop + extra) for one, extra in zip(box, more, strict=True))


def cut_out(volume: Volume, box: tuple[slice, ...]) -> Volume:
    """The part of a volume within a box of voxels, where it lay."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [one.start for one in box]
    return replace(volume, array=volume.array[box], affine=affine)


def _names(volumes: Iterable[Volume | None], class_names: Sequence[str]) -> dict[int, str]:
    """The structures that occur in any of the maps, by label."""
    present = sorted({int(label) for one in volumes if one is not None for label in np.unique(one.array) if label > 0})
    return {label: class_names[label] if label < len(class_names) else f"label {label}" for label in present}


def _said(labels: Volume, truth: Volume | None, class_names: Sequence[str]) -> str:
    """In words, for the alt text: every structure's volume, and its Dice where the truth is known."""
    words = []
    for label, name in _names([labels, truth], class_names).items():
        marked = labels.array == label
        words.append(f"{name} {marked.sum() * labels.voxel_ml:.3g} ml")
        if truth is not None:
            true = truth.array == label
            words[-1] += f" (truth {true.sum() * truth.voxel_ml:.3g} ml, Dice {case_scores(marked, true)['dice']:.2f})"
    return ", ".join(words) or "nothing is marked"


def meshes(labels: Volume) -> dict[int, np.ndarray]:
    """The surface of every structure, by label: triangles [N, 3, 3], corners in world mm."""
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ImportError('drawing surfaces needs scikit-image; pip install "textdiff[book]"') from error

    found = {}
    for label in _names([labels], ()):
        mask = labels.array == label
        box = foreground_box(mask, mask)
        cut = cut_out(replace(labels, array=mask), box)
        step = max(1, math.ceil(max(cut.shape) / FINEST))
        solid = np.pad(cut.array, step).astype(np.float32)
        # Smoothed, but what is marked stays above the level: single voxels are seen too
        field = np.maximum(gaussian_filter(solid, 0.8 * step), 0.55 * solid)
        vertices, faces, *_ = marching_cubes(field, 0.5, step_size=step)
        placed = (vertices - step) @ cut.affine[:3, :3].T + cut.affine[:3, 3]
        found[label] = placed[faces]
    return found
