"""3D pictures and their place in the patient: a NIfTI file or a folder of DICOM slices in, a `Volume` out, and back.

World axes are nibabel's, in millimetres: x grows towards the patient's right (R), y towards the front (A),
z towards the head (S). An axis code names where each array axis grows to: in an "LPS" array the first index
runs to the patient's left. So the liver, which lies on the right, has the larger x.
"""

from __future__ import annotations

import gzip
import itertools
import warnings
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textdiff.base.checkpoints import write_atomically

if TYPE_CHECKING:
    import nibabel

NIFTI_SUFFIXES = (".nii", ".nii.gz")
WHOLE = 1e-3  # how far a stored label may lie from a whole number
SHIFT = 0.1  # how far two volumes of a pair, or DICOM slices from their places, may lie apart; in voxels
PERCENTILES = (0.5, 99.5)
Place = tuple[tuple[int, int, int], np.ndarray]  # shape and affine
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK count x and y the other way


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and where they lie.

    array: [X, Y, Z], in the file's own voxel order.
    affine: [4, 4] float64, voxel index -> world millimetres (RAS+).
    """

    array: np.ndarray = field(repr=False)
    affine: np.ndarray = field(repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        object.__setattr__(self, "affine", affine)
        where = self.name or "volume"
        if self.array.ndim != 3:
            raise ValueError(f"{where}: expected three dimensions [X, Y, Z], got shape {self.array.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
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


# --- reading -------------------------------------------------------------------------------------------


def _open_nifti(path: Path) -> nibabel.Nifti1Image:
    """The image behind a NIfTI file; its voxels are not read yet."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not path.exists():
        raise FileNotFoundError(f"no such volume: {path}")
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise ValueError(
            f"{path}: expected a NIfTI file (.nii, .nii.gz) or a folder with one DICOM series; "
            "convert other formats first, for example with dcm2niix"
        )
    try:
        image: Any = nibabel.load(path)  # by its header; the stubs know only that it is some image
        return image
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ValueError(f"cannot read {path}: not a NIfTI file, or damaged ({error})") from error


def _shape(shape: tuple[int, ...], where: object) -> tuple[int, int, int]:
    """Shape without trailing axes of length one; ValueError unless it is that of one volume."""
    if len(shape) < 3 or set(shape[3:]) - {1}:
        kind = "several volumes or channels" if len(shape) > 3 else "a flat picture"
        raise ValueError(f"{where}: expected one volume [X, Y, Z], got shape {tuple(shape)}: {kind}")
    x, y, z = shape[:3]
    if min(x, y, z) < 2:
        raise ValueError(f"{where}: shape {(x, y, z)} is a single slice; at least 2 slices are needed along each axis")
    return x, y, z


def _read_nifti(path: Path, dtype: type | None) -> Volume:
    """Read a file; `dtype` None keeps the stored type unless the header asks for scaling."""
    image = _open_nifti(path)
    shape = _shape(image.shape, path)
    if not int(image.header["qform_code"]) and not int(image.header["sform_code"]):
        warnings.warn(
            f"{path}: the header does not say how the volume lies in the patient (qform and sform codes are 0); "
            "left and right may be exchanged",
            stacklevel=3,
        )
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError(f"{path}: voxels are {image.get_data_dtype()}, expected plain numbers (grey values or labels)")
    try:
        array = image.get_fdata(dtype=dtype, caching="unchanged") if dtype else np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: truncated or damaged ({error})") from error
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # both pass a NaN on
        count = int(array.size - np.isfinite(array).sum())
        raise ValueError(f"{path}: {count} of {array.size} voxels are NaN or infinite")
    return Volume(array.reshape(shape), image.affine, str(path))


def read_image(path: str | Path) -> Volume:
    """Read grey values as float32: HU for CT, what the scanner wrote for MR.

    path: a NIfTI file (.nii, .nii.gz), or a folder with the slices of one DICOM series.

    Raises FileNotFoundError; ValueError that names the file: not readable, truncated, flat or with several volumes (a last
    axis of length one is dropped), one slice only, NaN or infinite voxels, the same value everywhere; for DICOM also two
    series in the folder, missing or tilted slices. ImportError when DICOM support is not installed.
    """
    from textdiff.data.volumes.dicom import is_dicom, read_dicom

    path = Path(path).expanduser()
    volume = read_dicom(path) if is_dicom(path) else _read_nifti(path, np.float32)
    if volume.array.min() == volume.array.max():
        raise ValueError(f"{path}: every voxel has the same value ({volume.array.flat[0]:g}): the image is empty")
    return volume


def read_labels(path: str | Path) -> Volume:
    """Read a label map (NIfTI) as int16, values 0 and up; whole numbers stored as floats are accepted.

    Raises as `read_image` does (a map that is 0 everywhere is allowed), and for values not whole or not in 0..32767.
    """
    from textdiff.data.volumes.dicom import is_dicom

    path = Path(path).expanduser()
    if is_dicom(path):
        raise ValueError(
            f"{path}: labels in DICOM lie on the grid of their image; read_dicom_labels(path, image) reads both"
        )
    volume = _read_nifti(path, None)
    array = volume.array
    if array.min() < -WHOLE or array.max() > np.iinfo(np.int16).max:
        raise ValueError(f"{path}: labels must lie in 0..32767, got {array.min():g}..{array.max():g}")
    whole = np.rint(array) if array.dtype.kind == "f" else array
    if whole is not array and (broken := np.abs(array - whole) > WHOLE).any():
        raise ValueError(
            f"{path}: labels must be whole numbers, but {int(broken.sum())} voxels are not (for example "
            f"{array[broken][0]:g}). Is it an image or a probability map, or a label map resampled linearly?"
        )
    return replace(volume, array=whole.astype(np.int16))


def read_place(path: str | Path) -> Place:
    """Shape and affine of a NIfTI file, in RAS order, from its header alone. Errors name the file."""
    from nibabel import orientations

    image = _open_nifti(Path(path))
    shape = _shape(image.shape, path)
    turn = orientations.io_orientation(image.affine)
    x, y, z = (shape[axis] for axis in np.argsort(turn[:, 0]))
    return (x, y, z), image.affine @ orientations.inv_ornt_aff(turn, shape)


# --- pairs ---------------------------------------------------------------------------------------------


def _corners(shape: tuple[int, ...]) -> np.ndarray:
    """Indices of the eight corner voxels as homogeneous columns, [4, 8]."""
    return np.array([*itertools.product(*((0, side - 1) for side in shape), (1,))], dtype=np.float64).T


def check_places(image: Place, labels: Place, name: str) -> None:
    """`check_pair` for shapes and affines alone."""
    (shape, affine), (label_shape, label_affine) = image, labels
    if shape != label_shape:
        raise ValueError(f"{name}: the image has shape {shape} but its labels {label_shape}; they must be equal")
    apart = np.linalg.norm(((affine - label_affine) @ _corners(shape))[:3], axis=0).max()
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


def to_grid(volume: Volume, spacing: tuple[float, float, float] | None, kind: str = "image") -> Volume:
    """Bring a volume to RAS axes and voxels of `spacing` mm.

    The array is turned to the nearest RAS order, never rotated by an angle. The new box has the same centre and, to half a
    voxel, the same size. Images are read off linearly, labels at the nearest voxel.

    Args:
        spacing: mm along right, front, head; None keeps the volume's own.
        kind: "image" (gives float32) or "labels" (keeps the dtype).

    Raises ValueError for an unknown kind or a spacing that is not positive.
    """
    from scipy.ndimage import affine_transform

    if kind not in ("image", "labels"):
        raise ValueError(f'kind must be "image" or "labels", got {kind!r}')
    if spacing is not None and (len(spacing) != 3 or not all(0 < step < np.inf for step in spacing)):
        raise ValueError(f"spacing must be three positive numbers (mm), got {spacing!r}")
    volume = turned(volume)
    array = np.ascontiguousarray(volume.array, np.float32 if kind == "image" else volume.array.dtype)
    if spacing is None or np.allclose(spacing, volume.spacing, rtol=1e-4):
        return replace(volume, array=array)
    size, scale = np.array(volume.shape), np.array(spacing) / volume.spacing
    new_size = np.maximum(1, np.rint(size / scale)).astype(int)
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
    reach = (back @ _corners(like.shape))[:3]
    if (reach.min(1) < -1).any() or (reach.max(1) > np.array(labels.shape)).any():
        raise ValueError(
            f"{like.name or 'volume'}: it reaches beyond the grid of {labels.name or 'the labels'} (shape "
            f"{labels.shape}, spacing {np.round(labels.spacing, 3).tolist()} mm); was the grid made from it?"
        )
    array = np.empty(like.shape, labels.array.dtype)
    affine_transform(labels.array, back[:3, :3], back[:3, 3], output=array, order=0, mode="nearest")
    return Volume(array, like.affine, like.name)


def normalised(array: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Grey values as a network takes them, float32.

    window: (lowest, highest) HU, clipped and scaled to [-1, 1]; None, for MR, whose numbers have no unit: clipped to the
    0.5th and 99.5th percentile, then mean 0 and standard deviation 1. Raises ValueError for a window that is not rising.
    """
    if window is not None:
        low, high = window
        if not low < high:
            raise ValueError(f"window must be (lowest, highest) with lowest < highest, got {window!r}")
        return (np.clip(array, low, high).astype(np.float32) - low) * np.float32(2 / (high - low)) - 1
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


# --- writing -------------------------------------------------------------------------------------------


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise ValueError(f"{path}: volumes are written as .nii.gz or .nii")
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            if path.suffix.lower() != ".gz":
                image.to_stream(file)
                return
            # No time and no name inside: same voxels, same bytes
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                image.to_stream(packed)

    write_atomically(path, write)


def write_labels(path: str | Path, labels: Volume) -> None:
    """Write a label map as NIfTI (.nii.gz, .nii), uint8, or uint16 when a label is above 255; whole or not at all.

    Raises ValueError for another suffix, or labels that are not whole or not in 0..65535.
    """
    array = labels.array
    if array.dtype.kind not in "biu" and (not np.isfinite(array).all() or (array != np.rint(array)).any()):
        raise ValueError(f"{path}: labels must be whole numbers, got {array.dtype} with other values")
    if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        raise ValueError(f"{path}: labels must lie in 0..65535, got {array.min()}..{array.max()}")
    _write_nifti(Path(path), array.astype(np.uint8 if array.max() <= 255 else np.uint16), labels.affine)


def write_image(path: str | Path, volume: Volume) -> None:
    """Write grey values or an uncertainty map as NIfTI (.nii.gz, .nii): whole numbers as int16 where they fit, else float32."""
    array = volume.array
    short = array.dtype.kind in "biu" and np.iinfo(np.int16).min <= array.min() <= array.max() <= np.iinfo(np.int16).max
    _write_nifti(Path(path), array.astype(np.int16 if short else np.float32), volume.affine)
