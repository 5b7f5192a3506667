"""A picture in three dimensions with its place in the patient: voxels and an affine in, the same in other orders and grids out.

World axes are nibabel's, in millimetres: x grows towards the patient's right (R), y towards the front (A),
z towards the head (S). An axis code names where each array axis grows to: in an "LPS" array the first index
runs to the patient's left. So the liver, which lies on the right, has the larger x.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

SHIFT = 0.1  # how far two volumes of a pair, or DICOM slices from their places, may lie apart; in voxels
PERCENTILES = (0.5, 99.5)
LONGEST, SHORTEST = 10_000.0, 5.0  # mm; no patient is longer, and no organ that is segmented shorter
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK count x and y the other way
Place = tuple[tuple[int, int, int], np.ndarray]  # shape and affine


@dataclass(frozen=True, eq=False)
class HeaderGrid:
    """What a NIfTI header says of its grid, so that a mask can say the same word for word.

    fields: its entries by name (codes, matrices, quaternion, voxel sizes, units). affine: what was made of them, mm.
    """

    fields: Mapping[str, np.ndarray]
    affine: np.ndarray


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and where they lie.

    array: [X, Y, Z], in the file's own voxel order.
    affine: [4, 4] float64, voxel index -> world millimetres (RAS+).
    header: how the NIfTI file behind it says the same; None otherwise. Masks made by `replace(volume, array=...)` keep it.
    """

    array: np.ndarray = field(repr=False)
    affine: np.ndarray = field(repr=False)
    name: str = ""
    header: HeaderGrid | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        object.__setattr__(self, "affine", affine)
        where = self.name or "volume"
        if self.array.ndim != 3:
            raise ValueError(f"{where}: expected three dimensions [X, Y, Z], got shape {self.array.shape}")
        if affine.shape != (4, 4) or not invertible(affine):
            raise ValueError(f"{where}: the affine must be an invertible 4x4 matrix, got {affine.tolist()}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis of the array."""
        return self.array.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres along each axis of the array, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def axes(self) -> str:
        """Direction in which each axis of the array grows: "RAS", "LPS", ..."""
        import nibabel

        return "".join(nibabel.aff2axcodes(self.affine))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)


def invertible(affine: np.ndarray) -> bool:
    """Whether an affine [4, 4] is finite and its axes span a space, however small its voxels are."""
    steps = affine[:3, :3]
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(steps)) > 1e-6 * np.linalg.norm(steps, axis=0).prod())


def volume_shape(shape: tuple[int, ...], where: object) -> tuple[int, int, int]:
    """Shape without trailing axes of length one; ValueError, naming `where`, unless it is that of one volume."""
    if len(shape) < 3 or set(shape[3:]) - {1}:
        kind = "several volumes or channels" if len(shape) > 3 else "a flat picture"
        raise ValueError(f"{where}: expected one volume [X, Y, Z], got shape {tuple(map(int, shape))}: {kind}")
    x, y, z = map(int, shape[:3])
    if min(x, y, z) < 2:
        raise ValueError(f"{where}: shape {(x, y, z)} is a single slice; at least 2 slices are needed along each axis")
    return x, y, z


def check_size(volume: Volume) -> None:
    """Raise ValueError, naming the file, for a volume larger than any patient; warn of one that is smaller than a tooth."""
    extent = max(n * step for n, step in zip(volume.shape, volume.spacing, strict=True))
    said = f"{volume.name}: by its header the volume is {extent:.4g} mm long, with voxels of {in_mm(volume.spacing)} mm"
    if extent > LONGEST:
        raise ValueError(f"{said}; its voxel sizes or their unit are wrong: correct the header")
    if extent < SHORTEST:
        warnings.warn(f"{said}; are its voxel sizes and their unit right?", stacklevel=6)


def in_mm(numbers: Iterable[float]) -> str:
    """Such as "1.316 x 1.316 x 10"."""
    return " x ".join(f"{number:.4g}" for number in numbers)


# --- pairs ---------------------------------------------------------------------------------------------


def corners(shape: tuple[int, ...]) -> np.ndarray:
    """Indices of the eight corner voxels as homogeneous columns, [4, 8]."""
    return np.array([*itertools.product(*((0, side - 1) for side in shape), (1,))], dtype=np.float64).T


def distance(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far two affines lay the voxels of one array apart at most, mm."""
    return float(np.linalg.norm(((first - second) @ corners(shape))[:3], axis=0).max())


def check_places(image: Place, labels: Place, name: str) -> None:
    """`check_pair` for shapes and affines alone."""
    (shape, affine), (label_shape, label_affine) = image, labels
    if shape != label_shape:
        raise ValueError(f"{name}: the image has shape {shape} but its labels {label_shape}; they must be equal")
    apart = distance(affine, label_affine, shape)
    if apart > SHIFT * np.linalg.norm(affine[:3, :3], axis=0).min():
        raise ValueError(
            f"{name}: image and labels have the same shape but lie up to {apart:.3g} mm apart; affine of the image "
            f"{np.round(affine, 3).tolist()}, of the labels {np.round(label_affine, 3).tolist()}"
        )


def check_pair(image: Volume, labels: Volume, name: str) -> None:
    """Raise ValueError, naming the case, unless both have one shape and lie within a tenth of a voxel."""
    check_places((image.shape, image.affine), (labels.shape, labels.affine), name)


# --- grids ---------------------------------------------------------------------------------------------


def turned(volume: Volume, axes: str = "RAS") -> Volume:
    """The same voxels in the same place, array axes reversed and exchanged to grow as `axes` says."""
    from nibabel import orientations

    turn = orientations.ornt_transform(
        orientations.io_orientation(volume.affine), orientations.axcodes2ornt(tuple(axes))
    )
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.shape)
    return replace(volume, array=orientations.apply_orientation(volume.array, turn), affine=affine)


def askew(volume: Volume, degrees: float, axes: str) -> Volume:
    """The volume stored in another order of axes and turned about the patient's long axis, as a scan that lies askew.

    Only the affine tells of the turn, and of a shift of a few cm: the voxels stay as they are.
    """
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilt = np.array([[cosine, -sine, 0, 12.5], [sine, cosine, 0, -40], [0, 0, 1, 310], [0, 0, 0, 1]])
    return turned(replace(volume, affine=tilt @ volume.affine), axes)


MOST_VOXELS = 4e9  # of a grid: a whole body at 0.5 mm has a third of it


def to_grid(volume: Volume, spacing: tuple[float, float, float] | None, kind: str = "image") -> Volume:
    """Bring a volume to RAS axes and voxels of `spacing` mm.

    The array is turned to the nearest RAS order, never rotated by an angle. The new box has the same centre and, to half a
    voxel, the same size. Images are read off linearly, labels at the nearest voxel.

    Args:
        spacing: mm along right, front, head; None keeps the volume's own.
        kind: "image" (gives float32) or "labels" (keeps the dtype).

    Raises ValueError for an unknown kind, a spacing that is not positive, or a volume that would become too large, as one in other
    units than mm does.
    """
    from scipy.ndimage import affine_transform

    if kind not in ("image", "labels"):
        raise ValueError(f'kind must be "image" or "labels", got {kind!r}')
    if spacing is not None and (len(spacing) != 3 or not all(0 < step < np.inf for step in spacing)):
        raise ValueError(f"spacing must be three positive numbers (mm), got {spacing!r}")
    volume = turned(volume)
    array = np.asarray(volume.array, np.float32 if kind == "image" else None)
    if spacing is None or np.allclose(spacing, volume.spacing, rtol=1e-4):
        return replace(volume, array=np.ascontiguousarray(array))
    size, scale = np.array(volume.shape), np.array(spacing) / volume.spacing
    new_size = np.maximum(1, np.rint(size / scale)).astype(int)
    if np.prod(new_size, dtype=float) > MOST_VOXELS:
        extent, sides = (
            " x ".join(f"{side:.4g}" for side in sides) for sides in (size * volume.spacing, volume.spacing)
        )
        raise ValueError(
            f"{volume.name or 'the volume'}: its voxels of {sides} mm make it {extent} mm large: correct its header (units other "
            "than mm?)"
        )
    first = (size - 1) / 2 - scale * (new_size - 1) / 2
    order = 1 if kind == "image" else 0
    array = affine_transform(array, scale, first, output_shape=tuple(new_size), order=order, mode="nearest")
    step = np.diag([*scale, 1.0])
    step[:3, 3] = first
    return replace(volume, array=array, affine=volume.affine @ step)


def from_grid(labels: Volume, like: Volume) -> Volume:
    """Bring a label map on a grid, as `to_grid` makes it, back to `like`'s voxel order, shape and affine: the nearest voxel.

    Raises ValueError when `like`, whose voxels are not looked at, reaches beyond the grid.
    """
    from scipy.ndimage import affine_transform

    back = np.linalg.inv(labels.affine) @ like.affine
    reach = (back @ corners(like.shape))[:3]
    if (reach.min(1) < -1).any() or (reach.max(1) > np.array(labels.shape)).any():
        raise ValueError(
            f"{like.name or 'volume'}: it reaches beyond the grid of {labels.name or 'the labels'} (shape "
            f"{labels.shape}, spacing {np.round(labels.spacing, 3).tolist()} mm); was the grid made from it?"
        )
    array = np.empty(like.shape, labels.array.dtype)
    affine_transform(labels.array, back[:3, :3], back[:3, 3], output=array, order=0, mode="nearest")
    return replace(like, array=array)


def normalised(array: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Grey values as a network takes them, float32.

    window: (lowest, highest) HU, clipped and scaled to [-1, 1]; None, for MR, whose numbers have no unit: clipped to the
    0.5th and 99.5th percentile, then mean 0 and standard deviation 1. Raises ValueError for a window that is not rising.
    """
    if window is not None:
        low, high = window
        if not low < high:
            raise ValueError(f"window must be (lowest, highest) with lowest < highest, got {window!r}")
        scaled = (np.clip(array, low, high).astype(np.float32) - low) * np.float32(2 / (high - low)) - 1
        return np.clip(scaled, -1, 1, out=scaled)  # rounding
    clipped = np.clip(array, *np.percentile(array, PERCENTILES)).astype(np.float32)
    clipped -= clipped.mean(dtype=np.float64)
    deviation = clipped.std(dtype=np.float64)
    return clipped / np.float32(deviation) if deviation > 0 else clipped


def widest_planes(labels: np.ndarray) -> tuple[int, int, int]:
    """Where to cut a label map [X, Y, Z]: along each axis the index at which its structures are widest.

    Each structure counts by the share of its own widest cut, however large it is. The middle of each axis if there is none.
    """
    names = np.unique(labels[labels > 0])
    if names.size == 0:
        return labels.shape[0] // 2, labels.shape[1] // 2, labels.shape[2] // 2

    def widest(*others: int) -> int:
        profiles = [(labels == name).sum(axis=others) for name in names]
        return int(np.sum([profile / profile.max() for profile in profiles], axis=0).argmax())

    return widest(1, 2), widest(0, 2), widest(0, 1)
