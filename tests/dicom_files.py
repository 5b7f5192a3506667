"""DICOM files for tests: an array and its place in, series of slices, files with many frames and outlines out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

AXIAL = np.eye(3)[:2]


def dataset(kind: str, uid: str, syntax: str = "ExplicitVRLittleEndian"):
    """An object of one SOP class (its keyword), with what every object has."""
    pydicom = pytest.importorskip("pydicom")
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    made.SOPClassUID, made.SOPInstanceUID = getattr(pydicom.uid, kind), uid
    made.StudyInstanceUID, made.FrameOfReferenceUID = "1.2.3", "1.2.3.4"
    made.PatientID, made.PatientName, made.StudyDate, made.StudyID = "p1", "Doe^Jane", "20240102", "7"
    return made


def picture(made, frames: np.ndarray, **tags):
    """Put voxels [frames, rows, columns] (or one [rows, columns]) into an object."""
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = frames.shape[-2:]
    made.BitsAllocated = made.BitsStored = 8 * frames.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(frames.dtype.kind == "i")
    made.PixelData = frames.tobytes()
    for keyword, value in tags.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def decimal(values) -> list[str]:
    """Numbers as DICOM writes them: at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(value)) for value in np.ravel(values)]


def save_series(
    folder: Path,
    array: np.ndarray,
    positions,
    orientation=AXIAL,
    spacing=(0.5, 0.7),
    uid: str = "1.2.3.5",
    order=None,
    change=None,
    **tags,
) -> Path:
    """Slices of [X, Y, Z], `positions` in DICOM's axes, `spacing` along X and Y; change(k, object) may alter slice k.

    order: k-th entry is the number in the file name of slice k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(len(positions)).permutation(len(positions)) if order is None else order
    for k, position in enumerate(positions):
        made = dataset("CTImageStorage", f"{uid}.{k + 1}")
        made.SeriesInstanceUID, made.Modality, made.SeriesNumber, made.InstanceNumber = uid, "CT", "4", str(k + 1)
        made.PixelSpacing = decimal(spacing[::-1])
        made.ImagePositionPatient, made.ImageOrientationPatient = decimal(position), decimal(orientation)
        made.RescaleSlope, made.RescaleIntercept = "1", "-1024"
        made.SeriesDescription = "abdomen"
        picture(made, np.ascontiguousarray(array[:, :, k].T), **tags)
        if change:
            change(k, made)
        made.save_as(folder / f"{numbers[k]:03d}_{uid[-1]}.dcm", enforce_file_format=True)
    return folder


def rising(count: int, step: float = 3.0) -> list[tuple[float, float, float]]:
    """Positions of axial slices."""
    return [(-10.0, 20.0, 5.0 + step * k) for k in range(count)]


def save_frames(
    path: Path, array: np.ndarray, positions, orientation=AXIAL, spacing=(0.5, 0.7), rescale=None, change=None
):
    """An enhanced MR file: the slices of [X, Y, Z] as frames; rescale: a pair for each frame."""
    from pydicom import Dataset

    def group(**tags):
        item = Dataset()
        for keyword, value in tags.items():
            setattr(item, keyword, value)
        return [item]

    made = dataset("EnhancedMRImageStorage", "1.2.3.6.1")
    made.SeriesInstanceUID, made.Modality, made.NumberOfFrames = "1.2.3.6", "MR", len(positions)
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = group(PixelSpacing=decimal(spacing[::-1]), SliceThickness="9")
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=decimal(orientation))
    for k, position in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=decimal(position))
        slope, intercept = rescale[k] if rescale else (1, 0)
        frame.PixelValueTransformationSequence = group(RescaleSlope=f"{slope}", RescaleIntercept=f"{intercept}")
        frames.append(frame)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], frames
    picture(made, np.ascontiguousarray(array.transpose()))
    if change:
        change(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def save_outlines(path: Path, structures: dict[str, list[np.ndarray]], kind: str = "CLOSED_PLANAR") -> Path:
    """An RT structure set: name -> outlines [points, 3] in DICOM's axes, mm."""
    from pydicom import Dataset

    made = dataset("RTStructureSetStorage", "1.2.3.7.1")
    made.SeriesInstanceUID, made.Modality = "1.2.3.7", "RTSTRUCT"
    rois, contours = [], []
    for number, (name, outlines) in enumerate(structures.items(), start=1):
        roi, contour = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, "1.2.3.4"
        contour.ReferencedROINumber, contour.ContourSequence = number, []
        for points in outlines:
            line = Dataset()
            line.ContourGeometricType, line.NumberOfContourPoints, line.ContourData = kind, len(points), decimal(points)
            contour.ContourSequence.append(line)
        rois.append(roi)
        contours.append(contour)
    made.StructureSetROISequence, made.ROIContourSequence = rois, contours
    made.save_as(path, enforce_file_format=True)
    return path
