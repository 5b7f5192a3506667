"""Figures of volumes, in the style of `plots`. In: volumes, label maps, tables. Out: matplotlib Figures that carry their
alt text and caption.

Slices are shown as radiologists hang them: the patient's right and the patient's front on the left of the picture, the
head up; letters at the edges say so. Structures have colours that stay apart for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from textdiff.data.volumes.volume import Volume, check_pair, turned
from textdiff.figures.images import _cycle, _figure, _no_frame, _say_not_run, described

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Light on dark tissue; the order keeps neighbours apart in hue and in lightness. No more than ten stay apart by eye.
COLOURS = (
    "#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#9d7fe6", "#b8e0a0", "#a6553a", "#c4f0f5",
)  # fmt: skip
TRUTH = "white"
FINEST = 96  # cells of the surfaces' grid along the longest side: more are not seen at this size


@dataclass(frozen=True)
class _Plane:
    """A cut through a volume of RAS axes: across which axis, and the letters left, right, below and above of it."""

    name: str
    axis: int
    letters: str


PLANES = (_Plane("sagittal", 0, "APIS"), _Plane("coronal", 1, "RLIS"), _Plane("axial", 2, "RLPA"))


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

    Args:
        labels: a label map on the image's grid, or several by name (models): a row each.
        class_names: of all labels, background first (default: their numbers).
        window: grey values (HU) from black to white; default: the 1st to 99th percentile.
        margin: show only so many mm around what is marked; default: the whole volume.

    The planes lie where the structures, each counted alike, are widest: those of the truth where it is given.
    Raises ValueError for maps that do not lie on the image.
    """
    rows = {"": labels} if isinstance(labels, Volume) else dict(labels)
    scene = _Scene.of(image, rows, truth, margin)
    fig, axes = scene.panels(len(rows))
    low, high = window or np.percentile(scene.image.array, (1, 99))
    for line, (name, found) in zip(axes.reshape(-1, 3), scene.maps.items(), strict=True):
        for axis, plane in zip(line, PLANES, strict=True):
            scene.draw(axis, plane, scene.image.array, cmap="gray", vmin=low, vmax=high)
            scene.outline(axis, plane, found, scene.truth)
        line[0].set_ylabel(name, labelpad=14)
    for axis, plane in zip(axes, PLANES, strict=False):
        axis.set_title(plane.name, fontsize="small")
    fig.suptitle(title)
    _legend(fig, [*scene.maps.values(), scene.truth], class_names, truth is not None)
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
    """Above, three planes with outlines as in `slices`; below, the uncertainty there (0..1), voxels that are wrong outlined.

    Arguments as for `slices`; `uncertainty` lies on the image's grid. Without truth no errors are drawn.
    """
    scene = _Scene.of(image, {"": labels, "uncertainty": uncertainty}, truth, margin)
    found, unsure = scene.maps.values()
    fig, axes = scene.panels(2)
    low, high = window or np.percentile(scene.image.array, (1, 99))
    for above, below, plane in zip(axes[:3], axes[3:], PLANES, strict=True):
        scene.draw(above, plane, scene.image.array, cmap="gray", vmin=low, vmax=high)
        scene.outline(above, plane, found, scene.truth)
        shown = scene.draw(below, plane, unsure.array, cmap="viridis", vmin=0, vmax=1)
        above.set_title(plane.name, fontsize="small")
        if truth is not None:
            scene.outline(
                below,
                plane,
                replace(found, array=(found.array != scene.truth.array).astype(np.uint8)),
                colours=("white",),
            )
    fig.colorbar(shown, ax=list(axes), label="uncertainty", shrink=0.6)
    fig.suptitle(title)
    _legend(fig, [found, scene.truth], class_names, truth is not None)
    said = _said(labels, truth, class_names)
    caption = "Outlined structures, and how unsure the model is of each voxel."
    if truth is not None:
        wrong = labels.array != truth.array
        means = (float(uncertainty.array[where].mean()) if where.any() else math.nan for where in (wrong, ~wrong))
        said += "; mean uncertainty {:.2f} where it is wrong, {:.2f} elsewhere".format(*means)
        caption = (
            "Above, prediction and truth (dashed); below, how unsure the model is, wrong voxels outlined in white."
        )
    return described(fig, f"Slices with outlines above, maps of uncertainty below. {said}.", caption)


def surfaces(
    labels: Volume, truth: Volume | None = None, *, class_names: Sequence[str] = (), title: str = ""
) -> Figure:
    """Surfaces of all structures in the patient's axes (mm); beside them, from the same side, those of the truth.

    Triangles by scikit-image's marching cubes. Large volumes are drawn on a coarser grid.
    """
    shown = {"prediction": labels} | ({"truth": truth} if truth is not None else {})
    meshes = {name: _meshes(turned(volume)) for name, volume in shown.items()}
    corners = np.concatenate([mesh for one in meshes.values() for mesh in one.values()] or [np.zeros((1, 3, 3))])
    low, high = corners.min(axis=(0, 1)) - 1, corners.max(axis=(0, 1)) + 1
    fig = _figure(1, 1, (4.6 * len(shown) + 0.4, 4.8))[0]
    fig.clear()
    for place, (name, one) in enumerate(meshes.items(), start=1):
        axis = fig.add_subplot(1, len(shown), place, projection="3d")
        _draw_meshes(axis, one, low, high)
        axis.set_title(name if truth is not None else "")
    fig.suptitle(title)
    _legend(fig, list(shown.values()), class_names, False)
    said = "; ".join(f"{name}: {_said(volume, None, class_names)}" for name, volume in shown.items())
    alt = f"Surfaces of structures in three dimensions{f', {title}' if title else ''}. {said}."
    return described(fig, alt, "Surfaces of the structures. Axes: mm along the patient's right, front and head.")


def reliability_curve(tables: pd.DataFrame | Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence, and below how many voxels have that confidence.

    `tables`: of `calibration.Reliability.table`, one or several by name. On the diagonal the model is as often right as it
    says; below it, it is too sure. The legend gives each expected calibration error.
    """
    import pandas as pd
    import seaborn as sns

    named = {"": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
    fig, (upper, lower) = _figure(2, 1, (5.2, 5.6))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="as often right as sure")
    said = []
    for (name, table), colour, marker in zip(
        named.items(), sns.color_palette("colorblind"), _cycle(*"os^D"), strict=False
    ):
        known = table[table["n"] > 0]
        gap = (known["confidence"] - known["accuracy"]).abs()
        text = f"ECE {(known['n'] * gap).sum() / known['n'].sum():.3f}" if len(known) else "no voxels"
        label = f"{name}: {text}" if name else text
        upper.plot(known["confidence"], known["accuracy"], marker=marker, markersize=5, color=colour, label=label)
        lower.stairs(table["n"] / max(1, table["n"].sum()), [*table["low"], 1.0], color=colour, linewidth=1.6)
        said.append(label)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    lower.set(xlim=(0, 1), xlabel="confidence", ylabel="share of voxels (log)")
    if any(table["n"].any() for table in named.values()):
        lower.set_yscale("log")
    upper.legend(frameon=False, fontsize="small")
    alt = f"Reliability: accuracy of voxels against confidence. {'; '.join(said)}."
    return described(fig, alt, "Accuracy by confidence, and the share of voxels at each confidence.")


def steps_curve(runs: pd.DataFrame) -> Figure:
    """Dice, and seconds a volume, against the number of denoising steps: a line a sampler.

    `runs`: one row a run with `steps`, `dice` (0..1), `seconds`, and, where there are several, `sampler`; lines join means over
    runs, bars are their sample standard deviation. No rows: an empty figure that says "not run yet".
    """
    import seaborn as sns

    fig, axes = _figure(1, 2, (9.2, 3.4))
    said, table = [], runs if "sampler" in runs.columns else runs.assign(sampler="")
    looks = zip(sns.color_palette("colorblind"), _cycle(*"os^D"), _cycle("-", "--", ":"), strict=False)
    for (name, one), (colour, marker, line) in zip(table.groupby("sampler", sort=False), looks, strict=False):
        for axis, score, scale in zip(axes, ("dice", "seconds"), (100, 1), strict=True):
            points = scale * one.groupby("steps")[score].agg(["mean", "std"])
            look = {"color": colour, "marker": marker, "ls": line, "label": name or None}
            axis.errorbar(points.index, points["mean"], points["std"].fillna(0), capsize=3, **look)
            said.append(f"{name} {score}: ".lstrip() + ", ".join(f"{m:.1f} at {n}" for n, m in points["mean"].items()))
    for axis, label in zip(axes, ("test Dice (%)", "seconds a volume"), strict=True):
        axis.set(xlabel="denoising steps", ylabel=label)
        if runs.empty:
            _say_not_run(axis)
            continue
        numbers = sorted(runs["steps"].unique())
        axis.set_xscale("log")
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.minorticks_off()
        if table["sampler"].nunique() > 1:
            axis.legend(frameon=False)
    alt = "Dice and seconds against denoising steps. " + ("; ".join(said) or "Nothing has been run yet") + "."
    return described(fig, alt, "Test Dice and time a volume by number of denoising steps.")


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
        image, truth = _cut(image, box), truth and _cut(truth, box)
        maps = {name: _cut(one, box) for name, one in maps.items()}
        guide = truth if truth is not None and truth.array.any() else next(iter(maps.values()))
        return cls(image, maps, truth, _widest(guide.array))

    def _picture(self, plane: _Plane, array: np.ndarray) -> np.ndarray:
        """The cut, rows upwards, columns from the patient's right (or front) to the left (or back)."""
        return np.take(array, self.at[plane.axis], axis=plane.axis).T[:, ::-1]

    def _size(self, plane: _Plane) -> tuple[float, float]:
        """Width and height of the cut, mm."""
        sides = [count * step for count, step in zip(self.image.shape, self.image.spacing, strict=True)]
        return tuple(side for axis, side in enumerate(sides) if axis != plane.axis)

    def panels(self, rows: int) -> tuple[Figure, np.ndarray]:
        """A figure with a panel a plane in each of `rows` rows, all at one scale."""
        widths, heights = zip(*map(self._size, PLANES), strict=True)
        fig, axes = _figure(rows, 3, (9.6, rows * (9.6 * max(heights) / sum(widths) + 0.15) + 0.8))
        axes[0].get_gridspec().set_width_ratios(widths)
        return fig, axes

    def draw(self, axis: Axes, plane: _Plane, array: np.ndarray, **colours):
        width, height = self._size(plane)
        _no_frame(axis)
        for letter, x, y in zip(plane.letters, (0.02, 0.98, 0.5, 0.5), (0.5, 0.5, 0.02, 0.98), strict=True):
            sides = {
                "ha": {0.02: "left", 0.98: "right"}.get(x, "center"),
                "va": {0.02: "bottom", 0.98: "top"}.get(y, "center"),
            }
            axis.text(
                x, y, letter, transform=axis.transAxes, color="white", fontsize="small", **sides, path_effects=_halo()
            )
        return axis.imshow(self._picture(plane, array), origin="lower", extent=(0, width, 0, height), **colours)

    def outline(
        self, axis: Axes, plane: _Plane, labels: Volume, truth: Volume | None = None, colours: Sequence[str] = COLOURS
    ) -> None:
        """Each structure's outline in its colour, over those of the truth, dashed."""
        layers = [(labels, None, "solid")] + ([(truth, TRUTH, "dashed")] if truth is not None else [])
        for volume, fixed, style in layers:
            picture = self._picture(plane, volume.array)
            width, height = self._size(plane)
            across = (np.arange(picture.shape[1]) + 0.5) * width / picture.shape[1]
            up = (np.arange(picture.shape[0]) + 0.5) * height / picture.shape[0]
            for label in np.unique(picture[picture > 0]):
                colour = fixed or colours[(int(label) - 1) % len(colours)]
                # Zeros around: a structure that reaches the edge is closed there, and an even field has a contour
                mask = np.pad(picture == label, 1).astype(float)
                places = [np.concatenate([[2 * a[0] - a[1]], a, [2 * a[-1] - a[-2]]]) for a in (across, up)]
                axis.contour(*places, mask, levels=[0.5], colors=[colour], linestyles=style, linewidths=1.2)
        axis.set(xlim=(0, self._size(plane)[0]), ylim=(0, self._size(plane)[1]))


def _halo() -> list:
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2, foreground="black")]


def _around(labels: Volume, margin: float | None) -> tuple[slice, ...]:
    """The box of all that is marked and `margin` mm more; the whole volume without a margin or a mark."""
    from textdiff.evaluation.surfaces import foreground_box

    if margin is None or not labels.array.any():
        return tuple(slice(0, side) for side in labels.shape)
    box = foreground_box(labels.array, labels.array)
    more = [math.ceil(margin / step) for step in labels.spacing]
    return tuple(slice(max(0, one.start - extra), one.stop + extra) for one, extra in zip(box, more, strict=True))


def _cut(volume: Volume, box: tuple[slice, ...]) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [one.start for one in box]
    return replace(volume, array=volume.array[box], affine=affine)


def _widest(labels: np.ndarray) -> tuple[int, int, int]:
    """Along each axis the index where the structures, each by its own widest cut, are widest; the middle if there are none."""
    names = np.unique(labels[labels > 0])
    if names.size == 0:
        return tuple(side // 2 for side in labels.shape)
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        profiles = [(labels == name).sum(axis=others) for name in names]
        found.append(int(sum(profile / profile.max() for profile in profiles).argmax()))
    return tuple(found)


def _names(volumes: Sequence[Volume | None], class_names: Sequence[str]) -> dict[int, str]:
    """The structures that occur in any of the maps, by label."""
    present = sorted({int(label) for one in volumes if one is not None for label in np.unique(one.array) if label > 0})
    return {label: class_names[label] if label < len(class_names) else f"label {label}" for label in present}


def _legend(fig: Figure, volumes: Sequence[Volume | None], class_names: Sequence[str], truth: bool) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=COLOURS[(label - 1) % len(COLOURS)], linewidth=2.5, label=name)
        for label, name in _names(volumes, class_names).items()
    ]
    if truth:
        lines.append(Line2D([], [], color="0.5", linestyle="dashed", label="truth (white in the picture)"))
    if lines:
        fig.legend(handles=lines, loc="outside lower center", ncols=min(5, len(lines)), frameon=False, fontsize="small")


def _said(labels: Volume, truth: Volume | None, class_names: Sequence[str]) -> str:
    """In words, for the alt text: every structure's volume, and its Dice where the truth is known."""
    words = []
    for label, name in _names([labels, truth], class_names).items():
        marked = labels.array == label
        text = f"{name} {marked.sum() * labels.voxel_ml:.3g} ml"
        if truth is not None:
            true = truth.array == label
            text += f" (truth {true.sum() * truth.voxel_ml:.3g} ml, Dice {2 * (marked & true).sum() / (marked.sum() + true.sum()):.2f})"
        words.append(text)
    return ", ".join(words) or "nothing is marked"


def _meshes(labels: Volume) -> dict[int, np.ndarray]:
    """Triangles [N, 3, 3] of every structure's surface, in world mm."""
    from scipy.ndimage import gaussian_filter

    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise ImportError('drawing surfaces needs scikit-image; pip install "textdiff[book]"') from error

    from textdiff.evaluation.surfaces import foreground_box

    found = {}
    for label in _names([labels], ()):
        mask = labels.array == label
        box = foreground_box(mask, mask)
        cut = _cut(replace(labels, array=mask), box)
        step = max(1, math.ceil(max(cut.shape) / FINEST))
        solid = np.pad(cut.array, step).astype(np.float32)
        # Smoothed, but what is marked stays above the level: single voxels are seen too
        field = np.maximum(gaussian_filter(solid, 0.8 * step), 0.55 * solid)
        vertices, faces, *_ = marching_cubes(field, 0.5, step_size=step)
        placed = (vertices - step) @ cut.affine[:3, :3].T + cut.affine[:3, 3]
        found[label] = placed[faces]
    return found


def _draw_meshes(axis: Axes, meshes: Mapping[int, np.ndarray], low: np.ndarray, high: np.ndarray) -> None:
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    for label, triangles in meshes.items():
        colour = COLOURS[(label - 1) % len(COLOURS)]
        axis.add_collection3d(Poly3DCollection(triangles, facecolors=colour, shade=True, linewidths=0))
    if not meshes:
        axis.text2D(0.5, 0.5, "nothing is marked", transform=axis.transAxes, ha="center", color="0.4")
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axis.set(xlabel="right (mm)", ylabel="front (mm)", zlabel="head (mm)")
    axis.set_box_aspect(high - low, zoom=0.9)
    axis.view_init(elev=25, azim=-35)
    axis.tick_params(labelsize="x-small")
