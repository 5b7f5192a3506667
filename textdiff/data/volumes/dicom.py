"""A folder with the slices of one DICOM series in, a `Volume` out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textdiff.data.volumes.grids import LPS_TO_RAS, SHIFT, Volume, volume_shape


def is_dicom(path: Path) -> bool:
    """Whether `path` is a folder, whose slices are then looked for."""
    return path.is_dir()


def read_dicom(folder: Path, series: str = "") -> Volume:
    """Read the one DICOM series in `folder`, rescaled to HU where the slices say how."""
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise ImportError(f'{folder}: reading DICOM needs SimpleITK; pip install "textdiff[dicom]"') from error

    names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if series:
        names = tuple(name for name in names if name == series)
    if len(names) != 1:
        found = f"{len(names)} DICOM series ({', '.join(names)})" if names else "no DICOM slices"
        raise ValueError(f"{folder}: {found}; expected a folder with the slices of exactly one series")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), names[0]))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    reader.MetaDataDictionaryArrayUpdateOn()
    slices = {Path(name).name for name in reader.GetFileNames()}
    left = sorted(path.name for path in folder.iterdir() if path.name not in slices and _looks_like_dicom(path))
    if left:  # the reader passes over what it cannot open
        raise ValueError(f"{folder}: {len(left)} of its DICOM files cannot be read, for example {left[0]}")
    if len(slices) < 2:
        raise ValueError(f"{folder}: the series has one slice; at least 2 slices are needed")
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ValueError(
            f"{folder}: cannot read the slices; one may be damaged, of another size, or compressed in a way that this "
            f"SimpleITK cannot undo ({error})"
        ) from error
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    positions = [reader.GetMetaData(k, "0020|0032") for k in range(image.GetSize()[2])]
    _check_slices(np.array([position.split("\\") for position in positions], dtype=float), affine, folder)
    array = sitk.GetArrayFromImage(image).transpose()
    return Volume(array.reshape(volume_shape(array.shape, folder)), LPS_TO_RAS @ affine, str(folder))


def _looks_like_dicom(path: Path) -> bool:
    """By suffix or by the mark in its preamble; a DICOMDIR, which holds no picture, is none."""
    if not path.is_file() or path.name.upper() == "DICOMDIR" or path.name.startswith("."):
        return False
    with open(path, "rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(132)[128:] == b"DICM"


def _check_slices(positions: np.ndarray, affine: np.ndarray, folder: Path) -> None:
    """ValueError unless the slices [N, 3] lie where `affine` (index -> LPS mm) says."""
    expected = affine[:3, 3] + np.arange(len(positions))[:, None] * affine[:3, 2]
    away = np.linalg.norm(positions - expected, axis=1)
    if away.max() > SHIFT * np.linalg.norm(affine[:3, 2]):
        gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        raise ValueError(
            f"{folder}: the slices are not evenly spaced along one straight line (distances {gaps.min():.2f} to "
            f"{gaps.max():.2f} mm): some are missing or twice there, or the gantry was tilted"
        )
