"""Volumes on disk: a file or a folder of DICOM slices in, a `Volume` out, and back.

Formats read: NIfTI (.nii, .nii.gz, .hdr and .img), Analyze, FreeSurfer's .mgz and .mgh, NRRD, MetaImage, DICOM.
Written: NIfTI.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from textdiff.data.volumes.grids import (
    LPS_TO_RAS,
    HeaderGrid,
    Place,
    Volume,
    askew,
    check_pair,
    check_places,
    from_grid,
    normalised,
    to_grid,
    turned,
    volume_shape,
    widest_planes,
)
from textdiff.data.volumes.itk import ITK_SUFFIXES, read_itk
from textdiff.data.volumes.nifti import NIFTI_SUFFIXES, Trust, nifti_place, read_mgh, read_nifti, write_nifti

__all__ = [
    "LPS_TO_RAS",
    "NIFTI_SUFFIXES",
    "HeaderGrid",
    "Place",
    "Trust",
    "Volume",
    "askew",
    "check_pair",
    "check_places",
    "check_whole",
    "from_grid",
    "normalised",
    "read_image",
    "read_labels",
    "read_place",
    "to_grid",
    "turned",
    "volume_shape",
    "widest_planes",
    "write_image",
    "write_labels",
]

WHOLE = 1e-3  # how far a stored label may lie from a whole number
PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
MGH_SUFFIXES = (".mgz", ".mgh")
WAY_OUT = {  # end of a file's name -> what to do with such a file
    r"(png|jpe?g|bmp|gif|webp)": "that is a picture: give it as an image (--image)",
    r"tiff?": "a TIFF does not say how large its voxels are; save the volume as .nii.gz with its voxel sizes",
    r"(bz2|zst|xz|zip|7z|rar|tar|tgz)": "unpack it first",
    r"(par|rec)": "dcm2niix makes a .nii.gz of Philips' PAR/REC files",
    r"(head|brik|brik\.gz)": "AFNI's 3dAFNItoNIFTI makes a .nii.gz of it",
    r"mnc": "MINC's mnc2nii makes a .nii of it",
    r"(trk|tck)": "those are lines through a volume, not the volume",
    r"(npy|npz|mat|h5)": "numbers alone do not say where they lie; save them as .nii.gz with their voxel sizes",
}


def _read(path: Path, dtype: type | None, trust: Trust, series: str) -> Volume:
    """The volume behind a path, by the reader of its format; all voxels are finite. `dtype` None keeps the stored type."""
    from textdiff.data.volumes.dicom import is_dicom, read_dicom

    if trust not in ("", "sform", "qform"):
        raise ValueError(f'trust must be "sform" or "qform", or empty, got {trust!r}')
    if not path.exists():
        raise FileNotFoundError(f"no such volume: {path}")
    if is_dicom(path):
        return read_dicom(path, series)
    if series:
        raise ValueError(f"{path} is no DICOM folder: it has no series {series!r}")
    try:
        volume = _read_file(path, dtype, trust)
    except PermissionError as error:
        raise ValueError(f"cannot read {path}: you are not permitted to") from error
    array = volume.array
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # both pass a NaN on
        count = int(array.size - np.isfinite(array).sum())
        raise ValueError(f"{path}: {count} of {array.size} voxels are NaN or infinite")
    return volume


def _read_file(path: Path, dtype: type | None, trust: Trust) -> Volume:
    name = path.name.lower()
    if name.endswith((*NIFTI_SUFFIXES, *PAIRS)):
        return read_nifti(path, dtype, trust)
    if name.endswith(ITK_SUFFIXES):
        return read_itk(path, dtype)
    if name.endswith(MGH_SUFFIXES):
        return read_mgh(path, dtype)
    raise ValueError(_unknown(path))


def _unknown(path: Path) -> str:
    way_out = next((text for end, text in WAY_OUT.items() if re.search(rf"\.{end}$", path.name.lower())), "")
    if way_out:
        return f"{path}: {way_out}"
    return (
        f"{path}: expected a NIfTI file (.nii, .nii.gz), one of {', '.join((*ITK_SUFFIXES, '.mgz', '.hdr, .img'))}, "
        "or a folder with one DICOM series; save it as one of these with the program that it comes from"
    )


def read_image(path: str | Path, *, trust: Trust = "", series: str = "") -> Volume:
    """Read grey values as float32: HU for CT, what the scanner wrote for MR.

    Args:
        path: a file, or a folder with the slices of a DICOM series.
        trust: which grid is true where a NIfTI header gives two that contradict each other: the "sform", or the "qform" with
            the voxel sizes (pixdim) that belong to it. Empty: such a file is refused.
        series: of a folder with several DICOM series, the one to read.

    Raises FileNotFoundError; ValueError that names the file: not readable, truncated or damaged anywhere, a header that
    contradicts itself, flat or with several volumes (a last axis of length one is dropped), one slice only, NaN or infinite
    voxels, the same value everywhere; for DICOM as `textdiff.data.volumes.dicom.read_dicom`. ImportError when the library for
    a format is not installed. Damage inside the voxels of a file that is not compressed cannot be seen: it has no checksum.
    """
    path = Path(path).expanduser()
    volume = _read(path, np.float32, trust, series)
    if volume.array.min() == volume.array.max():
        raise ValueError(f"{path}: every voxel has the same value ({volume.array.flat[0]:g}): the image is empty")
    return volume


def read_labels(path: str | Path, *, trust: Trust = "", series: str = "") -> Volume:
    """Read a label map as int16, values 0 and up; whole numbers stored as floats are accepted.

    Raises as `read_image` does (a map that is 0 everywhere is allowed), and for values not whole or not in 0..32767.
    """
    path = Path(path).expanduser()
    volume = _read(path, None, trust, series)
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


def check_whole(array: np.ndarray, most: int, where: object) -> None:
    """Raises ValueError, with values, unless an array of labels holds whole numbers 0 to `most` and nothing else."""
    if array.dtype.kind not in "biu" and (broken := ~np.isfinite(array) | (array != np.rint(array))).any():
        raise ValueError(
            f"{where}: labels must be whole numbers, got {array.dtype} with other values, such as {array[broken][0]:g} "
            f"({int(broken.sum())} voxels)"
        )
    if array.min() < 0 or array.max() > most:
        raise ValueError(f"{where}: labels must lie in 0..{most}, got {array.min()}..{array.max()}")


def read_place(path: str | Path) -> Place:
    """Shape and affine of a NIfTI file, in RAS order, from its header alone. Errors name the file."""
    from nibabel import orientations

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such volume: {path}")
    shape, affine = nifti_place(path)
    turn = orientations.io_orientation(affine)
    x, y, z = (shape[axis] for axis in np.argsort(turn[:, 0]))
    return (x, y, z), affine @ orientations.inv_ornt_aff(turn, shape)


def write_labels(path: str | Path, labels: Volume) -> None:
    """Write a label map as NIfTI (.nii.gz, .nii), uint8, or uint16 when a label is above 255; whole or not at all.

    It lies where `labels` lies; where that is known from a NIfTI header, in that header's own words, so that every program
    lays it on the image. Raises ValueError for another suffix, or labels that are not whole or not in 0..65535.
    """
    array = labels.array
    check_whole(array, np.iinfo(np.uint16).max, path)
    write_nifti(Path(path), replace(labels, array=array.astype(np.uint8 if array.max() <= 255 else np.uint16)))


def write_image(path: str | Path, volume: Volume) -> None:
    """Write grey values or an uncertainty map as NIfTI (.nii.gz, .nii): whole numbers as int16 where they fit, else float32."""
    array = volume.array
    short = array.dtype.kind in "biu" and np.iinfo(np.int16).min <= array.min() <= array.max() <= np.iinfo(np.int16).max
    write_nifti(Path(path), replace(volume, array=array.astype(np.int16 if short else np.float32)))
