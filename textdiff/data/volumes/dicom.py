"""DICOM as a clinic has it: a folder with sub-folders, a DICOMDIR or one file in, the grey values of one series as a `Volume` out.

`dicom_slices` reads single files, `dicom_series` finds the files that belong together.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from textdiff.base.limits import need_bytes
from textdiff.data.volumes.dicom_files import announced, check_pixels, decoded, read_file, said
from textdiff.data.volumes.dicom_series import is_dicom, series_slices
from textdiff.data.volumes.dicom_slices import Refused, Slice, grid, naming, need, quiet
from textdiff.data.volumes.grids import LPS_TO_RAS, Volume, check_size
from textdiff.data.volumes.itk import silent

__all__ = ["is_dicom", "read_dicom"]


def read_dicom(path: Path, series: str = "") -> Volume:
    """Read the grey values of one series as float32, rescaled where its slices say how (CT: HU).

    path: a folder, searched with its sub-folders; a DICOMDIR, which stands for its folder; a file with many frames; or one
    slice, which stands for its series in the same folder.
    series: UID or number in the list of the folder's series; by default the only one there is, localizers, dose, contours
    and reports left aside.

    Raises FileNotFoundError; `Refused`, a ValueError, that names the file: several series, none, or an object that is no
    picture; no spacing, position or orientation, or another one than the other slices; slices missing, twice there or
    tilted; colour, inverted grey values; damaged. ImportError when DICOM support is not installed.
    """
    with naming(path):
        slices, affine = grid(series_slices(path, series), path)
        _check_gaps(slices, float(np.linalg.norm(affine[:3, 2])), path)
        volume = Volume(_voxels(slices, path), LPS_TO_RAS @ affine, str(path))
    check_size(volume)
    return volume


def _check_gaps(slices: Sequence[Slice], distance: float, where: Path) -> None:
    """Warn when slices lie evenly, but are numbered as if those between them were left out."""
    numbers = [one.dataset.get("InstanceNumber") for one in slices]
    thickness = slices[0].tags.get("SliceThickness", slices[0].dataset.get("SliceThickness"))
    if thickness is None or float(thickness) * 1.4 > distance or any(number is None for number in numbers):
        return
    steps = {abs(int(after) - int(before)) for before, after in zip(numbers, numbers[1:], strict=False)}
    if len(steps) == 1 and min(steps) > 1:
        warnings.warn(
            f"{where}: slices of {float(thickness):g} mm lie {distance:.4g} mm apart and are numbered in steps of {min(steps)}: "
            "those between them may be missing",
            stacklevel=2,
        )


# --- voxels --------------------------------------------------------------------------------------------


def _voxels(slices: Sequence[Slice], where: Path) -> np.ndarray:
    """Grey values [column, row, slice], float32."""
    _check_units(slices, where)
    first = slices[0]
    shape = (len(slices), int(first.dataset.Rows), int(first.dataset.Columns))
    need_bytes(4 * prod(shape), where, f"a series of {said(shape)} voxels")
    array = np.empty(shape, np.float32)
    files: dict[Path, list[tuple[int, Slice]]] = {}
    for k, one in enumerate(slices):
        files.setdefault(one.path, []).append((k, one))
    for members in files.values():
        frames = _decoded([one for _, one in members])
        wanted = announced(members[0][1].dataset)
        if frames.shape != wanted:
            raise Refused(
                f"{members[0][1].path}: its header announces {said(wanted)} voxels, but it holds {said(frames.shape)}"
            )
        for k, one in members:
            array[k] = frames[one.frame]
    _replace_padding(array, slices, where)
    return array.transpose()


def _check_units(slices: Sequence[Slice], where: Path) -> None:
    """Warn when a CT does not say how its numbers become HU, or says it in several ways."""
    if slices[0].dataset.get("Modality") != "CT" or "ModalityLUTSequence" in slices[0].tags:
        return
    rules = sorted({one.rescale for one in slices if one.rescale})
    if not rules:
        warnings.warn(f"{where}: a CT whose slices do not say how to rescale them to HU; taken as HU", stacklevel=2)
    if len(rules) > 1:
        warnings.warn(
            f"{where}: a CT whose slices are rescaled in {len(rules)} ways, each as it says (slope and intercept "
            f"{rules[0]}..{rules[-1]})",
            stacklevel=2,
        )


def _decoded(mates: Sequence[Slice]) -> np.ndarray:
    """Rescaled grey values [frame, row, column] of the file that these slices lie in."""
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, UncompressedTransferSyntaxes

    path, syntax = mates[0].path, mates[0].dataset.file_meta.get("TransferSyntaxUID")
    with naming(path), quiet():
        dataset = read_file(path)
        if not syntax:  # a file without preamble
            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        check_pixels(dataset, path)
    try:
        with naming(path), quiet():
            stored = decoded(dataset, path)
    except Refused:
        if syntax in (None, RLELossless, *UncompressedTransferSyntaxes):
            raise
        return _decoded_by_itk(mates)
    grey = np.empty(stored.shape, np.float32)
    for piece in mates:
        grey[piece.frame] = apply_modality_lut(stored[piece.frame], piece.tags)
    return grey


def _decoded_by_itk(mates: Sequence[Slice]) -> np.ndarray:
    """`_decoded` for ways of compression that pydicom does not know; ITK rescales by one rule a file."""
    one = mates[0]
    need("SimpleITK", one.path)
    import SimpleITK as sitk

    try:
        if len({piece.rescale for piece in mates}) > 1 or "ModalityLUTSequence" in one.tags:
            raise RuntimeError
        with silent():
            return sitk.GetArrayFromImage(sitk.ReadImage(str(one.path), sitk.sitkFloat32))
    except RuntimeError:  # its text is for those who know ITK
        syntax = one.dataset.file_meta.TransferSyntaxUID
        raise Refused(
            f"cannot read {one.path}: its voxels are damaged, or compressed in a way that cannot be undone here ({syntax.name}); "
            "export it uncompressed"
        ) from None


def _replace_padding(array: np.ndarray, slices: Sequence[Slice], where: Path) -> None:
    """Give voxels that the scanner marks as no measurement the lowest grey value, if they lie far off the others."""
    padding = np.zeros(array.shape, bool)
    for k, one in enumerate(slices):
        slope, intercept = one.rescale or (1.0, 0.0)
        marks = [one.dataset.get("PixelPaddingValue"), one.dataset.get("PixelPaddingRangeLimit")]
        ends = np.array([slope * mark + intercept for mark in marks if isinstance(mark, int)], np.float32)
        if ends.size:
            padding[k] = (array[k] >= ends.min()) & (array[k] <= ends.max())
    if not padding.any() or padding.all():
        return
    low, high = array[~padding].min(), array[~padding].max()
    off = padding & ((array > high) | (array < low - (high - low)))
    if off.any():
        warnings.warn(
            f"{where}: {int(off.sum())} voxels are padding, not measured, with values such as {array[off][0]:g} far off the "
            f"others ({low:g}..{high:g}); taken as {low:g}",
            stacklevel=2,
        )
        array[off] = low
