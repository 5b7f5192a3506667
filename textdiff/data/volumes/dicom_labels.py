"""Labels that lie beside a DICOM series: an RT structure set or a SEG and its series in, a label map on the series' grid out."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from textdiff.base.limits import need_bytes
from textdiff.data.volumes.dicom_files import check_pixels
from textdiff.data.volumes.dicom_seg import need_highdicom
from textdiff.data.volumes.dicom_series import series_slices
from textdiff.data.volumes.dicom_slices import Refused, Slice, dataset_of, grid, naming
from textdiff.data.volumes.grids import LPS_TO_RAS, Volume, in_mm

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OFF_PLANE = 0.1  # how far a contour may lie from the slice it is drawn on, in slices
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


class Structure(NamedTuple):
    """A name and the voxels that belong to it, as indices of the flat array [X, Y, Z]."""

    name: str
    voxels: np.ndarray


def read_dicom_labels(
    path: str | Path, image: str | Path, series: str = "", names: Sequence[str] | Callable[[str], bool] = ()
) -> tuple[Volume, tuple[str, ...]]:
    """Read the structures in an RT structure set or a SEG as a label map on the grid of the series that they were drawn on.

    Label k is the k-th structure of the file, or of `names` where they are given. A voxel belongs to an outline when its
    centre lies inside; an outline within another of the same structure cuts a hole. Where structures overlap the smaller
    one stays, with a warning.

    Args:
        image, series: as for `read_image`.
        names: structures to read, in the order of their labels, or a rule that picks them by name; by default all.

    Returns the labels, int16, and the names of the labels, first "background".

    Raises ValueError that names the file: another kind of object, another frame of reference or grid than the series',
    outlines between the slices, names that are not there; and as `read_image` does. A structure of points or open lines
    is left out with a warning. ImportError without highdicom, for a SEG.
    """
    path, image = Path(path).expanduser(), Path(image).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no such labels: {path}")
    with naming(path):
        slices, affine = grid(series_slices(image, series), image)
        shape = (int(slices[0].dataset.Columns), int(slices[0].dataset.Rows), len(slices))
        need_bytes(2 * prod(shape), image, f"labels of {in_mm(shape)} voxels")
        structures = _picked(list(_structures(path, slices, affine, shape)), names, path)
    array = _overlaid(structures, shape, path)
    return Volume(array, LPS_TO_RAS @ affine, str(path)), ("background", *(one.name for one in structures))


def _structures(
    path: Path, slices: Sequence[Slice], affine: np.ndarray, shape: tuple[int, int, int]
) -> Iterator[Structure]:
    found = dataset_of(path)
    kind = str(found.get("Modality", "no DICOM object"))
    if kind == "RTSTRUCT":
        return _outlined(path, found, slices, affine, shape)
    if kind == "SEG":
        return _segmented(path, found, slices, affine, shape)
    raise Refused(f"{path}: expected an RT structure set or a DICOM SEG, got {kind}")


def _picked(structures: list[Structure], names: Sequence[str] | Callable[[str], bool], path: Path) -> list[Structure]:
    if callable(names):
        return [one for one in structures if names(one.name)]
    there = {one.name: one for one in structures}
    if missing := [name for name in names if name not in there]:
        raise Refused(f"{path}: no structure {', '.join(missing)}; there are {', '.join(there) or 'none'}")
    counts = Counter(one.name for one in structures)
    if twice := [name for name in names if counts[name] > 1]:
        raise Refused(f"{path}: more than one structure is called {', '.join(twice)}; read all, without names")
    return [there[name] for name in names] if names else structures


def _overlaid(structures: Sequence[Structure], shape: tuple[int, int, int], path: Path) -> np.ndarray:
    """Labels [X, Y, Z], int16: the largest structure first, so that small ones lie on top."""
    array = np.zeros(np.prod(shape), np.int16)
    for k in sorted(range(len(structures)), key=lambda k: -structures[k].voxels.size):
        name, voxels = structures[k]
        for below in np.unique(array[voxels]):
            if below:
                count = int((array[voxels] == below).sum())
                warnings.warn(
                    f"{path}: {name} and {structures[below - 1].name} share {count} voxels; they count as {name}",
                    stacklevel=2,
                )
        array[voxels] = k + 1
    return array.reshape(shape)


def _check_frame(path: Path, uids: set[str], slices: Sequence[Slice]) -> None:
    own = str(slices[0].dataset.get("FrameOfReferenceUID") or "")
    if own and uids - {"", own}:
        raise Refused(
            f"{path}: drawn in another frame of reference than that of {slices[0].path.parent}; is it of that series?"
        )


# --- RT structure sets ---------------------------------------------------------------------------------


def _outlined(
    path: Path, found: Dataset, slices: Sequence[Slice], affine: np.ndarray, shape: tuple[int, int, int]
) -> Iterator[Structure]:
    to_index = np.linalg.inv(affine)
    _check_frame(path, {str(roi.get("ReferencedFrameOfReferenceUID", "")) for roi in _rois(found)}, slices)
    for name, outlines in _outlines(found):
        if strange := {kind for kind, _ in outlines} - set(CLOSED):
            warnings.warn(f"{path}: {name} is left out: {', '.join(sorted(strange))} encloses nothing", stacklevel=2)
            continue
        mask = np.zeros(shape, bool)
        for _, points in outlines:
            _fill(mask, points @ to_index[:3, :3].T + to_index[:3, 3], f"{path}, {name}")
        _check_gaps(mask, f"{path}: {name}")
        yield Structure(name, np.flatnonzero(mask))


def _check_gaps(mask: np.ndarray, where: str) -> None:
    """Warn of slices without an outline between the first and the last that have one."""
    filled = np.flatnonzero(mask.any(axis=(0, 1)))
    if filled.size and (empty := int(filled[-1] - filled[0] + 1 - filled.size)):
        warnings.warn(
            f"{where} has no outline on {empty} slices between its first and its last; it is empty there", stacklevel=2
        )


def _rois(found: Dataset) -> Sequence[Dataset]:
    return found.get("StructureSetROISequence") or ()


def _outlines(found: Dataset) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """For each structure its name and the outlines: their kind and points [points, 3] in DICOM's axes."""
    drawn: dict[str, list[tuple[str, np.ndarray]]] = {}
    for item in found.get("ROIContourSequence") or ():
        contours = [(str(line.ContourGeometricType), _points(line)) for line in item.get("ContourSequence") or ()]
        drawn.setdefault(str(item.ReferencedROINumber), []).extend(contours)
    return [(str(roi.get("ROIName") or roi.ROINumber), drawn.get(str(roi.ROINumber), [])) for roi in _rois(found)]


def _points(line: Dataset) -> np.ndarray:
    points = np.array(line.ContourData, dtype=float).reshape(-1, 3)
    if line.ContourGeometricType in CLOSED and (len(points) < 3 or not np.isfinite(points).all()):
        raise ValueError(f"an outline of {len(points)} points")
    return points


def _fill(mask: np.ndarray, points: np.ndarray, where: str) -> None:
    """Turn over the voxels of `mask` whose centres lie inside the outline."""
    from matplotlib.path import Path as Outline

    k = round(float(points[:, 2].mean()))
    if abs(points[:, 2] - k).max() > OFF_PLANE:
        raise Refused(f"{where}: an outline does not lie on a slice of the image; was it drawn on this series?")
    if not 0 <= k < mask.shape[2]:
        raise Refused(f"{where}: an outline lies beyond the first or last slice of the image; are slices missing?")
    first = np.maximum(np.ceil(points[:, :2].min(0)), 0).astype(int)
    last = np.minimum(np.floor(points[:, :2].max(0)), np.array(mask.shape[:2]) - 1).astype(int)
    if (last < first).any():
        return
    centres = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(first, last, strict=True)), indexing="ij"), -1)
    inside = Outline(points[:, :2]).contains_points(centres.reshape(-1, 2)).reshape(centres.shape[:2])
    mask[first[0] : last[0] + 1, first[1] : last[1] + 1, k] ^= inside


# --- SEG -----------------------------------------------------------------------------------------------


def _segmented(
    path: Path, found: Dataset, slices: Sequence[Slice], affine: np.ndarray, shape: tuple[int, int, int]
) -> Iterator[Structure]:
    need_highdicom(path)
    import highdicom

    if found.get("SegmentationType") == "FRACTIONAL":
        raise Refused(f"{path}: a SEG of fractions, not of whole voxels; export it as BINARY")
    _check_frame(path, {str(found.get("FrameOfReferenceUID", ""))}, slices)
    check_pixels(found, path)
    uid = found.get("FrameOfReferenceUID")
    like = highdicom.VolumeGeometry(affine, shape, "PATIENT", frame_of_reference_uid=uid)
    seg = highdicom.seg.Segmentation.from_dataset(found, copy=False)
    with_frames = _numbers_with_frames(seg)
    for segment in found.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number == 0:  # the background of a label map
            continue
        voxels = _segment_voxels(path, seg, number, like) if number in with_frames else np.array([], int)
        yield Structure(str(segment.get("SegmentLabel") or number), voxels)


def _numbers_with_frames(seg: Any) -> set[int]:
    """Segments that have a frame; for a label map, where frames are of all segments, all."""
    if seg.SegmentationType == "LABELMAP":
        return set(seg.segment_numbers)
    groups = [*(seg.get("SharedFunctionalGroupsSequence") or ()), *seg.PerFrameFunctionalGroupsSequence]
    return {
        int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for group in groups
        if "SegmentIdentificationSequence" in group
    }


def _segment_voxels(path: Path, seg: Any, number: int, like: Any) -> np.ndarray:
    try:
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        mask = volume.match_geometry(like, tol=1e-3).array > 0
    except Exception as error:
        raise Refused(
            f"{path}: segment {number} does not lie on the grid of the series, or is damaged "
            f"({str(error).splitlines()[0]}); was it drawn on this series?"
        ) from error
    if int(mask.sum()) != int((volume.array > 0).sum()):
        raise Refused(f"{path}: segment {number} reaches beyond the slices of the image; are slices missing?")
    return np.flatnonzero(mask)
