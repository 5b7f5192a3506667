"""DICOM as a clinic has it: a folder with sub-folders, a DICOMDIR or one file in, the grey values of one series as a `Volume` out.

A `Slice` is one picture and its place; `series_slices` finds those of one series, `grid` puts them in order. DICOM's own
axes (x to the left, y to the back, z to the head, mm) are used up to `read_dicom`, which turns them into those of a `Volume`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from textdiff.data.volumes.volume import Volume

SUFFIXES = (".dcm", ".dicom", ".ima")
SHIFT = 0.1  # how far a slice may lie from its place, as a share of the distance of slices
SAME = 1e-3  # mm: two slices closer than this lie at one place
ALIKE = 2e-4  # how far spacing (relative) and orientation may differ between slices of one series
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # how a file without preamble may begin
NOT_A_PICTURE = ("Segmentation", "RT Dose", "Parametric Map", "RT Image", "Color Palette", "Spectroscopy")
ASSIGNED = ("CT", "PT")  # their numbers have a unit, whatever the display makes of them
LISTED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyDate", "PatientID", "Modality", "SeriesNumber"),
    *("SeriesDescription", "ImageType", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "PixelSpacing"),
    *("ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
KEPT_BY_ANONYMISERS = ("SOPClassUID", "SOPInstanceUID")  # where they empty them, the file still begins with them
# What tells apart several pictures of one place, the most telling first.
PHASES = (
    *("EchoTime", "EffectiveEchoTime", "DiffusionBValue", "TemporalPositionIdentifier", "TemporalPositionIndex"),
    *("TriggerTime", "NominalPercentageOfCardiacPhase", "ImageType", "FrameType", "AcquisitionNumber"),
    *("AcquisitionTime", "ContentTime", "InstanceNumber"),
)


class Refused(ValueError):
    """A DICOM file that is not taken; the text names it and says why."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever a damaged file raises, which has no end, becomes a `Refused` that names it."""
    try:
        yield
    except (Refused, FileNotFoundError, ImportError):
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Refused(f"cannot read {path}: not a DICOM file, or damaged ({said})") from error


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
        if (
            slope is None
            or intercept is None
            or not float(slope)
            or not np.isfinite([float(slope), float(intercept)]).all()
        ):
            raise Refused(
                f"{self.name}: RescaleSlope {slope} and RescaleIntercept {intercept} are no rule for grey values"
            )
        return float(slope), float(intercept)


@dataclass(frozen=True)
class Series:
    """Files of one SeriesInstanceUID, with their headers."""

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...] = field(repr=False)

    @cached_property
    def kind(self) -> str:
        """What the standard calls such an object: "CT Image", "RT Structure Set", ..."""
        uid = self.headers[0].get("SOPClassUID")
        return uid.name.replace(" Storage", "") if uid else "object of unknown kind"

    @property
    def nothing_to_read(self) -> str:
        """Why there is nothing to read in it, for messages."""
        if not self.headers[0].get("SOPClassUID") and "Rows" not in self.headers[0]:
            return "it is no DICOM object"
        return f"it is a DICOM {self.kind}, which holds no grey values of a volume"

    @property
    def is_picture(self) -> bool:
        """Whether it holds grey values, in one slice or more."""
        return "Rows" in self.headers[0] and not any(word in self.kind for word in NOT_A_PICTURE)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return sum(_frame_count(header) for header in self.headers)

    @property
    def is_volume(self) -> bool:
        """Whether it looks like slices of a body: at least two, with a place, and no localizer."""
        header = self.headers[0]
        placed = "ImagePositionPatient" in header or "SharedFunctionalGroupsSequence" in header
        return self.is_picture and placed and self.count > 1 and "LOCALIZER" not in (header.get("ImageType") or ())

    def __str__(self) -> str:
        header = self.headers[0]
        size = f"{self.count} slice{'s' if self.count > 1 else ''} of {self._spacing()}"
        return f'{header.get("Modality", "?")} "{header.get("SeriesDescription", "")}", {size} ({self.uid or "no UID"})'

    def _spacing(self) -> str:
        try:
            found = [
                piece for path, head in zip(self.files, self.headers, strict=True) for piece in _slices(path, head)
            ]
        except Refused:
            return "unknown spacing"
        sides = " x ".join(f"{side:.2f}" for side in found[0].spacing)
        try:
            return f"{sides} x {np.linalg.norm(grid(found, self.files[0])[1][:3, 2]):.2f} mm"
        except Refused:
            return f"{sides} mm"


def is_dicom(path: Path) -> bool:
    """Whether `path` is for `read_dicom`: a folder, a DICOMDIR, or a file with DICOM's mark or suffix."""
    if path.is_dir() or path.name.upper() == "DICOMDIR" or path.suffix.lower() in SUFFIXES:
        return True
    return path.is_file() and _first_bytes(path)[128:] == b"DICM"


def read_dicom(path: Path, series: str = "") -> Volume:
    """Read the grey values of one series as float32, rescaled where its slices say how (CT: HU).

    path: a folder, searched with its sub-folders; a DICOMDIR, which stands for its folder; a file with many frames; or one
    slice, which stands for its series in the same folder.
    series: UID or number in the list of the folder's series; by default the only one there is, localizers, dose, contours
    and reports left aside.

    Raises FileNotFoundError; `Refused`, a ValueError, that names the file: several series, none, or an object that is no picture; no
    spacing, position or orientation, or another one than the other slices; slices missing, twice there or tilted; colour,
    inverted grey values; damaged. ImportError when DICOM support is not installed.
    """
    from textdiff.data.volumes.volume import LPS_TO_RAS, Volume

    with naming(path):
        slices, affine = grid(series_slices(path, series), path)
        return Volume(_voxels(slices, path), LPS_TO_RAS @ affine, str(path))


# --- finding -------------------------------------------------------------------------------------------


def series_slices(path: Path, series: str = "") -> list[Slice]:
    """Slices of the series that `read_dicom` takes, in no order. Raises as it does."""
    _need("pydicom", path)
    if not path.exists():
        raise FileNotFoundError(f"no such volume: {path}")
    if path.is_dir() or path.name.upper() == "DICOMDIR":
        folder = path if path.is_dir() else path.parent
        shown = (
            file for file in folder.rglob("*") if not any(part[0] == "." for part in file.relative_to(folder).parts)
        )
        files = sorted(file for file in shown if _looks_like_dicom(file))
        chosen = _chosen(_by_series(files, path), series, path)
    else:
        chosen = _series_of(path, series)
    if chosen.count < 2:
        raise Refused(f"{path}: the series has one slice ({chosen.kind}); at least 2 slices are needed")
    return [piece for file in chosen.files for piece in _grey_slices(file, header(file))]


def _need(library: str, path: Path) -> None:
    try:
        import_module(library)
    except ImportError as error:
        raise ImportError(f'{path}: reading this DICOM needs {library}; pip install "textdiff[dicom]"') from error


def header(path: Path, tags: Sequence[str] | None = None) -> Dataset:
    """A file's tags without its voxels; all, or those in `tags`. ValueError when it cannot be read."""
    return dataset_of(path, stop_before_pixels=True, specific_tags=list(tags) if tags else None)


def dataset_of(path: Path, **options: Any) -> Dataset:
    """A file with its voxels, every tag decoded; `options` of pydicom's reader. ValueError when it cannot be read."""
    import pydicom

    with naming(path), _quiet():
        dataset = pydicom.dcmread(path, force=True, **options)
        dataset.walk(lambda _, element: element.value)
        for keyword in KEPT_BY_ANONYMISERS:
            if not dataset.get(keyword) and (uid := dataset.file_meta.get(f"MediaStorage{keyword}")):
                setattr(dataset, keyword, uid)
        return dataset


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings about details of a file that change nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(132)
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from error


def _looks_like_dicom(path: Path) -> bool:
    """By suffix, by the mark in its preamble, or by its first tag; a DICOMDIR, which holds no picture, is none."""
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    begin = _first_bytes(path)
    return path.suffix.lower() in SUFFIXES or begin[128:] == b"DICM" or begin[:2] in FIRST_GROUPS


def _by_series(files: Iterable[Path], where: Path) -> list[Series]:
    """Series by patient, date and number. ValueError when a file cannot be read; a warning when a DICOMDIR lists more."""
    headers: dict[Path, Dataset] = {}
    broken = []
    for file in files:
        try:
            found = header(file, LISTED)
            if found.get("SOPClassUID") or file.suffix.lower() in SUFFIXES:  # else its first bytes were so by chance
                headers[file] = found
        except Refused:
            broken.append(file)
    if broken:
        raise Refused(f"{where}: {len(broken)} of its DICOM files cannot be read, for example {broken[0].name}")
    _check_listed(headers, where)

    def key(file: Path) -> tuple[str, str]:
        uid = str(headers[file].get("SeriesInstanceUID", ""))
        return uid, "" if uid else str(file.parent)

    groups = [(uid, tuple(group)) for (uid, _), group in groupby(sorted(headers, key=key), key=key)]
    series = [Series(uid, group, tuple(headers[file] for file in group)) for uid, group in groups]
    return sorted(series, key=_place_in_list)


def _study(series: Series) -> tuple[str, str]:
    """Patient and date."""
    return str(series.headers[0].get("PatientID", "")), str(series.headers[0].get("StudyDate", ""))


def _place_in_list(series: Series) -> tuple[tuple[str, str], str, str]:
    return _study(series), str(series.headers[0].get("SeriesNumber") or "").rjust(12), series.uid


def _check_listed(headers: dict[Path, Dataset], where: Path) -> None:
    """Warn when a DICOMDIR in `where` lists pictures that are not among `headers`."""
    folder = where if where.is_dir() else where.parent
    directories = [path for path in sorted(folder.iterdir()) if path.name.upper() == "DICOMDIR" and path.is_file()]
    there = {str(dataset.get("SOPInstanceUID")) for dataset in headers.values()}
    for path in directories:
        records = header(path).get("DirectoryRecordSequence") or ()
        listed = {str(record.get("ReferencedSOPInstanceUIDInFile", "")) for record in records} - {""}
        if missing := listed - there:
            warnings.warn(
                f"{path}: {len(missing)} of the {len(listed)} objects that it lists are not there", stacklevel=2
            )


def _series_of(path: Path, series: str) -> Series:
    """A file with many frames alone, else the series of the slice `path` in its folder."""
    own = header(path, LISTED)
    alone = Series(str(own.get("SeriesInstanceUID", "")), (path,), (own,))
    if series not in ("", alone.uid):
        raise Refused(f"{path}: it belongs to series {alone.uid}, not {series}; give its folder to choose another")
    if not alone.is_picture:
        raise Refused(f"{path}: {alone.nothing_to_read}")
    if alone.count > 1:
        return alone
    beside = sorted(file for file in path.parent.iterdir() if file != path and _looks_like_dicom(file))
    mates = [
        (file, head)
        for file in beside
        if (head := _header_or_none(file)) and head.get("SeriesInstanceUID") == alone.uid
    ]
    return Series(alone.uid, (path, *(file for file, _ in mates)), (own, *(head for _, head in mates)))


def _header_or_none(path: Path) -> Dataset | None:
    try:
        return header(path, LISTED)
    except Refused:
        return None


def _chosen(found: list[Series], series: str, where: Path) -> Series:
    """The series of that UID or number, or the only one. ValueError with the list of them where that is not one."""
    pictures = [one for one in found if one.is_picture]
    if series:
        named = [one for one in found if one.uid == series]
        named = named or [one for number, one in enumerate(pictures, start=1) if str(number) == series]
        if named and not named[0].is_picture:
            raise Refused(f"{where}, series {series}: {named[0].nothing_to_read}")
        if named:
            return named[0]
        raise Refused(f"{where}: no DICOM series {series}; there are:{_listing(pictures)}")
    for candidates in ([one for one in pictures if one.is_volume], pictures):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise Refused(
                f"{where}: {len(pictures)} DICOM series; say which one with series (--series), by its number or UID:"
                f"{_listing(pictures)}"
            )
    others = ", ".join(sorted({one.kind for one in found}))
    what = f"no DICOM slices, only objects without grey values ({others})" if others else "no DICOM slices"
    raise Refused(f"{where}: {what}; expected a folder with the slices of one series")


def _listing(pictures: list[Series]) -> str:
    """A line for each series; with patient and date where they are of more than one."""
    several = len({_study(one) for one in pictures}) > 1
    who = ["patient {}, {}, ".format(*_study(one)) if several else "" for one in pictures]
    return "".join(
        f"\n  {number}: {which}{one};" for number, (which, one) in enumerate(zip(who, pictures, strict=True), 1)
    )


# --- geometry ------------------------------------------------------------------------------------------


def _grey_slices(path: Path, dataset: Dataset) -> list[Slice]:
    """`_slices`; ValueError for colours, and for grey values that are stored inverted and have no unit."""
    meaning = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or not meaning.startswith("MONOCHROME"):
        raise Refused(f"{path}: a colour picture ({meaning}), expected grey values")
    if meaning == "MONOCHROME1" and dataset.get("Modality") not in ASSIGNED:
        raise Refused(
            f"{path}: grey values are stored inverted (MONOCHROME1: the highest is black); export them as MONOCHROME2"
        )
    return _slices(path, dataset)


def _slices(path: Path, dataset: Dataset) -> list[Slice]:
    """The pictures in a file. ValueError for one that does not say where and how large it is."""
    if not dataset.get("Rows"):
        raise Refused(f"{path}: no picture in this DICOM file")
    frames = _frame_count(dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups is None and frames == 1:
        return [_slice(path, 0, dataset, dataset)]
    if groups is None or len(groups) != frames:
        raise Refused(f"{path}: a DICOM file with {frames} frames that does not say of each where it lies")
    return [_slice(path, frame, dataset, _frame_tags(dataset, group)) for frame, group in enumerate(groups)]


def _frame_count(dataset: Dataset) -> int:
    text = str(dataset.get("NumberOfFrames") or 1)
    return int(text) if text.isdecimal() else 1


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
        if (mine := first.dataset.get(keyword)) != (theirs := other.dataset.get(keyword)):
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


# --- voxels --------------------------------------------------------------------------------------------


def _voxels(slices: Sequence[Slice], where: Path) -> np.ndarray:
    """Grey values [column, row, slice], float32."""
    first = slices[0]
    if first.rescale is None and first.dataset.get("Modality") == "CT" and "ModalityLUTSequence" not in first.tags:
        warnings.warn(f"{where}: a CT whose slices do not say how to rescale them to HU; taken as HU", stacklevel=2)
    array = np.empty((len(slices), first.dataset.Rows, first.dataset.Columns), np.float32)
    files: dict[Path, list[tuple[int, Slice]]] = {}
    for k, one in enumerate(slices):
        files.setdefault(one.path, []).append((k, one))
    for members in files.values():
        frames = _decoded([one for _, one in members])
        for k, one in members:
            array[k] = frames[one.frame]
    _replace_padding(array, slices, where)
    return array.transpose()


def _decoded(mates: Sequence[Slice]) -> np.ndarray:
    """Rescaled grey values [frame, row, column] of the file that these slices lie in."""
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, UncompressedTransferSyntaxes

    path, syntax = mates[0].path, mates[0].dataset.file_meta.get("TransferSyntaxUID")
    try:
        with naming(path), _quiet():
            dataset = pydicom.dcmread(path, force=True)
            if not syntax:  # a file without preamble
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            stored = dataset.pixel_array
    except Refused:
        if syntax in (None, *UncompressedTransferSyntaxes):
            raise
        return _decoded_by_itk(mates)
    stored = stored.reshape(-1, *stored.shape[-2:])
    grey = np.empty(stored.shape, np.float32)
    for piece in mates:
        grey[piece.frame] = apply_modality_lut(stored[piece.frame], piece.tags)
    return grey


def _decoded_by_itk(mates: Sequence[Slice]) -> np.ndarray:
    """`_decoded` for ways of compression that pydicom does not know; ITK rescales by one rule a file."""
    one = mates[0]
    _need("SimpleITK", one.path)
    import SimpleITK as sitk

    try:
        if len({piece.rescale for piece in mates}) > 1 or "ModalityLUTSequence" in one.tags:
            raise RuntimeError
        with _silent():
            return sitk.GetArrayFromImage(sitk.ReadImage(str(one.path), sitk.sitkFloat32))
    except RuntimeError:  # its text is for those who know ITK
        syntax = one.dataset.file_meta.TransferSyntaxUID
        raise Refused(
            f"cannot read {one.path}: its voxels are damaged, or compressed in a way that cannot be undone here ({syntax.name}); "
            "export it uncompressed"
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    """Without what libraries in C write to the standard error, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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
