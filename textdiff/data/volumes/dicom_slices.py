"""One DICOM file in, its pictures and their places out: `Slice`; many of them in, their order and grid out: `grid`.

DICOM's own axes, mm: x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textdiff.base.limits import TooLargeError
from textdiff.data.volumes.dicom_files import Refused as Refused
from textdiff.data.volumes.dicom_files import read_file
from textdiff.data.volumes.grids import SHIFT

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SAME = 1e-3  # mm: two slices closer than this lie at one place
ALIKE = 2e-4  # how far spacing (relative) and orientation may differ between slices of one series
ASSIGNED = ("CT", "PT")  # their numbers have a unit, whatever the display makes of them
KEPT_BY_ANONYMISERS = ("SOPClassUID", "SOPInstanceUID")  # where they empty them, the file still begins with them
# What tells apart several pictures of one place, the most telling first.
PHASES = (
    *("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "TemporalPositionIdentifier", "TemporalPositionIndex"),
    *("TriggerTime", "NominalPercentageOfCardiacPhase", "ImageType", "FrameType", "AcquisitionNumber"),
    *("AcquisitionTime", "ContentTime", "InstanceNumber"),
)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever a damaged file raises, which has no end, becomes a `Refused` that names it."""
    try:
        yield
    except (Refused, TooLargeError, FileNotFoundError, ImportError, MemoryError, Warning):
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Refused(f"cannot read {path}: not a DICOM file, or damaged ({said})") from error


# --- files ---------------------------------------------------------------------------------------------


def need(library: str, path: Path) -> None:
    """ImportError, naming `path` and what to install, when a library is not there."""
    try:
        import_module(library)
    except ImportError as error:
        raise ImportError(f'{path}: reading this DICOM needs {library}; pip install "textdiff[dicom]"') from error


def header(path: Path, tags: Sequence[str] | None = None) -> Dataset:
    """A file's tags without its voxels; all, or those in `tags`. ValueError when it cannot be read."""
    return dataset_of(path, stop_before_pixels=True, specific_tags=list(tags) if tags else None)


def dataset_of(path: Path, **options: Any) -> Dataset:
    """A file with its voxels, every tag decoded; `options` of pydicom's reader. ValueError when it cannot be read."""
    with naming(path), quiet():
        dataset = read_file(path, **options)
        dataset.walk(lambda _, element: element.value)
        for keyword in KEPT_BY_ANONYMISERS:
            if not dataset.get(keyword) and (uid := dataset.file_meta.get(f"MediaStorage{keyword}")):
                setattr(dataset, keyword, uid)
        return dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings about details of a file that change nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def frame_count(dataset: Dataset) -> int:
    """Number of pictures in a file; 1 where that is no number."""
    text = str(dataset.get("NumberOfFrames") or 1)
    return int(text) if text.isdecimal() else 1


# --- slices --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """One picture of a series: `frame` of the file `path`, whose header is `dataset`.

    tags: what is said of this picture alone. spacing: mm along a row and along a column. position: centre of the first
    voxel. orientation: directions [2, 3] of a row and of a column, of length one.
    """

    path: Path
    frame: int
    dataset: Dataset = field(repr=False)
    tags: Dataset = field(repr=False)
    spacing: tuple[float, float]
    position: np.ndarray
    orientation: np.ndarray

    @property
    def name(self) -> str:
        """File and frame, for messages."""
        return f"{self.path}, frame {self.frame + 1}" if "NumberOfFrames" in self.dataset else str(self.path)

    @property
    def normal(self) -> np.ndarray:
        """Direction across the slice, [3]."""
        return np.cross(*self.orientation)

    @property
    def rescale(self) -> tuple[float, float] | None:
        """Slope and intercept; None where the slice has neither. ValueError where it has one of them, or a slope of 0."""
        slope, intercept = self.tags.get("RescaleSlope"), self.tags.get("RescaleIntercept")
        if slope is None and intercept is None:
            return None
        if not slope or intercept is None or not np.isfinite([float(slope), float(intercept)]).all():
            raise Refused(f"{self.name}: RescaleSlope {slope} and RescaleIntercept {intercept} give no grey values")
        return float(slope), float(intercept)


def grey_slices(path: Path, dataset: Dataset) -> list[Slice]:
    """`slices_of`; ValueError for colours, and for grey values that are stored inverted and have no unit."""
    meaning = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or not meaning.startswith("MONOCHROME"):
        raise Refused(f"{path}: a colour picture ({meaning}), expected grey values")
    if meaning == "MONOCHROME1" and dataset.get("Modality") not in ASSIGNED:
        raise Refused(
            f"{path}: grey values are stored inverted (MONOCHROME1: the highest is black); export them as MONOCHROME2"
        )
    return slices_of(path, dataset)


def slices_of(path: Path, dataset: Dataset) -> list[Slice]:
    """The pictures in a file. ValueError for one that does not say where and how large it is."""
    if not dataset.get("Rows"):
        raise Refused(f"{path}: no picture in this DICOM file")
    frames = frame_count(dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups is None and frames == 1:
        return [_slice(path, 0, dataset, dataset)]
    if groups is None or len(groups) != frames:
        raise Refused(f"{path}: a DICOM file with {frames} frames that does not say of each where it lies")
    return [_slice(path, frame, dataset, _frame_tags(dataset, group)) for frame, group in enumerate(groups)]


def _frame_tags(dataset: Dataset, group: Dataset) -> Dataset:
    """What holds for a frame, in one flat list: shared by all, then its own."""
    from pydicom.dataset import Dataset

    flat = Dataset()
    for source in (*(dataset.get("SharedFunctionalGroupsSequence") or ()), group):
        for element in source:
            if element.VR == "SQ" and element.value:
                flat.update(element.value[0])
    return flat


def _numbers(path: Path, tags: Dataset, keyword: str, count: int) -> np.ndarray:
    try:
        values = np.array(tags.get(keyword), dtype=float)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape == (count,) and np.isfinite(values).all():
        return values
    why = f"{keyword} is {tags[keyword].value!r}" if tags.get(keyword) is not None else f"the tag {keyword} is missing"
    if keyword == "PixelSpacing" and "ImagerPixelSpacing" in tags:
        why += " (ImagerPixelSpacing is measured at the detector, not in the body)"
    raise Refused(f"{path}: {why}; without it size and place of the voxels are unknown")


def _slice(path: Path, frame: int, dataset: Dataset, tags: Dataset) -> Slice:
    down, along = _numbers(path, tags, "PixelSpacing", 2)
    position = _numbers(path, tags, "ImagePositionPatient", 3)
    orientation = _numbers(path, tags, "ImageOrientationPatient", 6).reshape(2, 3)
    if min(down, along) <= 0:
        raise Refused(f"{path}: PixelSpacing {down:g}, {along:g} mm must be positive")
    lengths = np.linalg.norm(orientation, axis=1, keepdims=True)
    if abs(lengths - 1).max() > 1e-2 or abs(orientation[0] @ orientation[1]) > 1e-3:
        raise Refused(
            f"{path}: ImageOrientationPatient {orientation.ravel().tolist()} is no pair of directions at a right angle"
        )
    return Slice(path, frame, dataset, tags, (float(along), float(down)), position, orientation / lengths)


def grid(slices: Sequence[Slice], where: Path) -> tuple[list[Slice], np.ndarray]:
    """Slices in their order along the body and the affine [4, 4], index (column, row, slice) -> DICOM's mm.

    Raises ValueError that names the slice: another size, spacing, orientation or frame of reference than the first; two
    at one place; not evenly spaced along a line at a right angle to them.
    """
    if len(slices) < 2:
        raise Refused(f"{where}: one slice; at least 2 slices are needed")
    for other in slices:
        _check_alike(slices[0], other)
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    for one, other in zip(ordered, ordered[1:], strict=False):
        if (other.position - one.position) @ normal < SAME:
            raise Refused(_two_at_one_place(one, other, where))
    positions = np.array([one.position for one in ordered])
    step = float((positions[-1] - positions[0]) @ normal) / (len(ordered) - 1)
    expected = positions[0] + step * np.arange(len(ordered))[:, None] * normal
    if np.linalg.norm(positions - expected, axis=1).max() > SHIFT * step:
        gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        raise Refused(
            f"{where}: the slices are not evenly spaced along one straight line (distances {gaps.min():.2f} to "
            f"{gaps.max():.2f} mm): some are missing or twice there, or the gantry was tilted"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([*slices[0].orientation, normal], axis=1) * (*slices[0].spacing, step)
    affine[:3, 3] = positions[0]
    return ordered, affine


def _check_alike(first: Slice, other: Slice) -> None:
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID", "PatientID"):
        mine, theirs = (str(one.dataset.get(keyword) or "") for one in (first, other))
        if mine != theirs:
            raise Refused(f"{other.name}: {keyword} is {theirs}, but {mine} in {first.path.name}, of the same series")
    same_spacing = np.allclose(first.spacing, other.spacing, rtol=ALIKE, atol=0)
    if not same_spacing or not np.allclose(first.orientation, other.orientation, rtol=0, atol=ALIKE):
        keyword = "ImageOrientationPatient" if same_spacing else "PixelSpacing"
        mine, theirs = (", ".join(f"{float(value):g}" for value in one.tags[keyword].value) for one in (first, other))
        raise Refused(f"{other.name}: {keyword} is {theirs}, but {mine} in {first.path.name}, of the same series")
    if (first.rescale is None) != (other.rescale is None):
        raise Refused(f"{other.name}: only one of it and {first.path.name} says how to rescale its grey values")


def _two_at_one_place(one: Slice, other: Slice, where: Path) -> str:
    """Message for two pictures of one place: the same one, or of different times or echoes."""
    if one.path != other.path and one.dataset.get("SOPInstanceUID") == other.dataset.get("SOPInstanceUID"):
        return f"{where}: {one.path.name} and {other.path} are the same slice twice; remove one of them"
    pairs = [(keyword, one.tags.get(keyword), other.tags.get(keyword)) for keyword in PHASES]
    differ = [f"{keyword} {mine} and {theirs}" for keyword, mine, theirs in pairs if mine != theirs]
    return (
        f"{where}: several pictures of one place in one series, such as {one.name} and {other.name} "
        f"({'; '.join(differ[:2]) or 'nothing tells them apart'}): phases, echoes or a slice twice; leave one of them"
    )
