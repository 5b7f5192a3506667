"""NIfTI files with headers as no careful program writes them: an array and entries of the header in, a file out."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

UNITS = {"unknown": 1.0, "meter": 1000.0, "mm": 1.0, "micron": 0.001}  # mm


def write_header(path: Path, array: np.ndarray, image: type = nibabel.Nifti1Image, order: str = "<", **entries) -> Path:
    """A .nii with exactly these entries; those not named say voxels of 1 mm and no place."""
    header = image.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    for name, value in entries.items():
        header[name] = value
    voxels = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    content = header.binaryblock
    path.write_bytes(content.ljust(header.single_vox_offset, b"\0") + voxels)
    return path


def grid_entries(
    affine: np.ndarray, sform_code: int, qform_code: int, unit: str = "mm", image: type = nibabel.Nifti1Image
) -> dict:
    """Entries that lay an array at `affine` (mm) by sform, qform, both, or (codes 0) with its voxel sizes alone."""
    header = image.header_class()
    stored = np.diag([1 / UNITS[unit]] * 3 + [1]) @ affine
    header["pixdim"][1:4] = np.linalg.norm(stored[:3, :3], axis=0)
    if qform_code:
        header.set_qform(stored, qform_code)
    if sform_code:
        header.set_sform(stored, sform_code)
    header.set_xyzt_units(unit)
    names = ("pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z")
    names += tuple(f"quatern_{letter}" for letter in "bcd") + tuple(f"qoffset_{letter}" for letter in "xyz")
    return {name: header[name].copy() for name in names}


def itk_affine(path: Path) -> np.ndarray:
    """Where SimpleITK, and the viewers built on it, lay a file: index -> RAS mm."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
