"""A folder, a DICOMDIR or one file in, the slices of one DICOM series out; where there are several, a list to choose from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdiff.data.volumes.dicom_slices import Refused, Slice, frame_count, grey_slices, grid, header, need, slices_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SUFFIXES = (".dcm", ".dicom", ".ima")
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # how a file without preamble may begin
NOT_A_PICTURE = ("Segmentation", "RT Dose", "Parametric Map", "RT Image", "Color Palette", "Spectroscopy")
WITH_STRUCTURES = ("RT Structure Set", "Segmentation", "Label Map Segmentation")
LISTED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyDate", "PatientID", "Modality", "SeriesNumber"),
    *("SeriesDescription", "ImageType", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "PixelSpacing"),
    *("ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Series:
    """Files of one SeriesInstanceUID, with their headers."""

    uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...] = field(repr=False)

    @property
    def kind(self) -> str:
        """What the standard calls such an object: "CT Image", "RT Structure Set", ..."""
        return _kind(self.headers[0]) or "object of unknown kind"

    @property
    def nothing_to_read(self) -> str:
        """Why there is nothing to read in it, for messages."""
        if not self.headers[0].get("SOPClassUID") and "Rows" not in self.headers[0]:
            return "it is no DICOM object"
        way_out = "; read_dicom_labels(path, image) reads its structures" if self.kind in WITH_STRUCTURES else ""
        return f"it is a DICOM {self.kind}, which holds no grey values of a volume{way_out}"

    @property
    def is_picture(self) -> bool:
        """Whether it holds grey values, in one slice or more."""
        return any("Rows" in header for header in self.headers) and not any(word in self.kind for word in NOT_A_PICTURE)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return sum(frame_count(header) for header in self.headers)

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
            found = [one for file in zip(self.files, self.headers, strict=True) for one in slices_of(*file)]
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


def series_slices(path: Path, series: str = "") -> list[Slice]:
    """Slices of the series that `read_dicom` takes, in no order. Raises as it does."""
    need("pydicom", path)
    if not path.exists():
        raise FileNotFoundError(f"no such volume: {path}")
    if path.is_dir() or path.name.upper() == "DICOMDIR":
        folder = path if path.is_dir() else path.parent
        files = sorted(file for file in folder.rglob("*") if _looks_like_dicom(file) and not _is_hidden(file, folder))
        chosen = _chosen(_by_series(files, path), series, path)
    else:
        chosen = _series_of(path, series)
    if chosen.count < 2:
        raise Refused(f"{path}: the series has one slice ({chosen.kind}); at least 2 slices are needed")
    return [piece for file in chosen.files for piece in grey_slices(file, header(file))]


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(132)
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from error


def _looks_like_dicom(path: Path) -> bool:
    """By suffix, by the mark in its preamble, or by its first tag; a DICOMDIR, which holds no picture, is none."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    begin = _first_bytes(path)
    return path.suffix.lower() in SUFFIXES or begin[128:] == b"DICM" or begin[:2] in FIRST_GROUPS


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _by_series(files: Iterable[Path], where: Path) -> list[Series]:
    """Series by patient, date and number. ValueError when a file cannot be read; a warning when a DICOMDIR lists more."""
    headers: dict[Path, Dataset] = {}
    broken = []
    for file in files:
        try:
            headers[file] = header(file, LISTED)
        except Refused:
            broken.append(file)
    broken += [file for file, found in headers.items() if _is_cut(found)]
    if broken:
        raise Refused(f"{where}: {len(broken)} of the DICOM files there cannot be read, for example {broken[0].name}")
    _check_listed(headers, where)

    def key(file: Path) -> tuple[str, str]:
        uid = str(headers[file].get("SeriesInstanceUID", ""))
        return uid, "" if uid else str(file.parent)

    groups = [(uid, tuple(group)) for (uid, _), group in groupby(sorted(headers, key=key), key=key)]
    series = [Series(uid, group, tuple(headers[file] for file in group)) for uid, group in groups]
    return sorted(series, key=_place_in_list)


def _kind(header: Dataset) -> str:
    """What the standard calls an object of this class; empty where none is named."""
    uid = header.get("SOPClassUID")
    return uid.name.replace(" Storage", "") if uid else ""


def _is_cut(found: Dataset) -> bool:
    """Whether a header ends before it has said what the object is, or to which series of pictures it belongs."""
    kind = _kind(found)
    return not kind or ("Image" in kind and "SeriesInstanceUID" not in found and "Rows" not in found)


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
    beside = sorted(file for file in path.parent.iterdir() if _looks_like_dicom(file))
    return next(one for one in _by_series(beside, path) if path in one.files)


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
    lines = ["patient {}, {}, {}".format(*_study(one), one) if several else str(one) for one in pictures]
    return "".join(f"\n  {number}: {line};" for number, line in enumerate(lines, start=1))
