"""Volumes with labels by the name of a task: a folder in the layout its publisher gave it in, a `VolumeDataset` out.

Layouts: the Medical Segmentation Decathlon (MSD), KiTS, AMOS, BTCV ("Beyond the Cranial Vault"),
TotalSegmentator. What the tasks are about, and how labels are numbered, stands in `tasks`.
"""

from __future__ import annotations

import csv
import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from textdiff.base.paths import find_dataset
from textdiff.data.volumes.tasks import TASKS, TOTALSEGMENTATOR, Task, totalsegmentator_labels
from textdiff.data.volumes.volume import (
    NIFTI_SUFFIXES,
    Volume,
    check_pair,
    check_places,
    read_image,
    read_labels,
    read_place,
    turned,
)

ON_ERROR = ("raise", "skip")
SPLITS = ("train", "val", "test")
PHANTOM_SIZES = (24, 8, 16)
# Index ranges that can never overlap, so that no phantom of one split is met in another.
FIRST_INDEX = {"train": 0, "val": 10_000_000, "test": 20_000_000}
VAL_SHARE, TEST_SHARE = 0.1, 0.2  # of a set without a split of its own


# --- cases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VolumeCase:
    """A volume and its labels, as files or (synthetic cases) in memory.

    label_path: one label map. masks: our label -> file with that structure alone, instead. values: value in
    the label map -> our label (None: it is numbered our way). report: a sentence about this patient, if any.
    """

    name: str
    image_path: Path | None = None
    label_path: Path | None = None
    masks: Mapping[int, Path] = field(default_factory=dict, compare=False)
    values: Mapping[int, int] | None = field(default=None, compare=False)
    image_volume: Volume | None = field(default=None, repr=False, compare=False)
    label_volume: Volume | None = field(default=None, repr=False, compare=False)
    report: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a case needs a name")
        if self.image_path is None and self.image_volume is None:
            raise ValueError(f"case {self.name!r} has neither image_path nor image_volume")

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""
        return self.label_path is not None or bool(self.masks) or self.label_volume is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files behind the case; none for a case in memory."""
        return tuple(path for path in (self.image_path, self.label_path, *self.masks.values()) if path is not None)

    def image(self) -> Volume:
        """Grey values, float32, in the file's own voxel order. Errors name the file."""
        return self.image_volume if self.image_volume is not None else read_image(self.image_path)

    def labels(self) -> Volume:
        """Label map, uint8, 0..K in our numbering, in the file's own voxel order.

        Raises ValueError without labels, for a file that cannot be read, and for values that the task does
        not know (it lists them).
        """
        if self.label_volume is not None:
            return self._numbered(self.label_volume)
        if self.label_path is not None:
            return self._numbered(read_labels(self.label_path))
        if not self.masks:
            raise ValueError(f"case {self.name!r} has no labels")
        return self._gathered()

    def pair(self) -> tuple[Volume, Volume]:
        """Image and labels, voxel on voxel; labels stored in another axis order are turned to the image's.

        Raises ValueError, naming the case, when they differ in shape or place.
        """
        image, labels = self.image(), self.labels()
        if labels.axes != image.axes:
            labels = turned(labels, image.axes)
        check_pair(image, labels, f"case {self.name!r}")
        return image, labels

    def _numbered(self, labels: Volume) -> Volume:
        if self.values is None:
            return replace(labels, array=labels.array.astype(np.uint8, copy=False))
        counts = np.bincount(labels.array.ravel())
        table = np.zeros(len(counts), np.uint8)
        unknown = []
        for value in np.flatnonzero(counts):
            if value and int(value) not in self.values:
                unknown.append(f"{value} ({counts[value]} voxels)")
            table[value] = self.values.get(int(value), 0)
        if unknown:
            known = ", ".join(str(value) for value in sorted(self.values))
            raise ValueError(
                f"case {self.name!r}: {self.label_path or 'labels'} holds values that the task does not know: "
                f"{', '.join(unknown)}; known: 0, {known}"
            )
        return replace(labels, array=table[labels.array])

    def _gathered(self) -> Volume:
        """One label map out of single masks; where two overlap the later structure stays."""
        whole: Volume | None = None
        for label, path in self.masks.items():
            mask = read_labels(path)
            if whole is None:
                whole = replace(mask, array=np.zeros(mask.shape, np.uint8))
            check_pair(whole, mask, f"case {self.name!r}, {path.name}")
            whole.array[mask.array > 0] = label
        return whole


@dataclass(frozen=True)
class VolumeDataset:
    """A task's cases with their splits."""

    name: str
    task: Task
    train: list[VolumeCase]
    val: list[VolumeCase]
    test: list[VolumeCase]
    licence: str
    synthetic: bool

    @property
    def class_names(self) -> tuple[str, ...]:
        """("background", *structures)."""
        return self.task.class_names


# --- layouts -------------------------------------------------------------------------------------------


def _complain(message: str, on_error: str, kind: type[Exception] = ValueError) -> None:
    if on_error == "raise":
        raise kind(message)
    warnings.warn(f"skipped: {message}", stacklevel=4)


def case_name(file_name: str) -> str:
    """File name without folder and suffix: "./imagesTr/liver_1.nii.gz" -> "liver_1"."""
    name = file_name.rsplit("/", 1)[-1]
    for suffix in NIFTI_SUFFIXES[::-1]:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _volumes(folder: Path) -> dict[str, Path]:
    """NIfTI files of a folder by case name; hidden ones (macOS leaves "._x.nii.gz") are passed over."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        case_name(path.name): path
        for path in found
        if path.name.lower().endswith(NIFTI_SUFFIXES) and not path.name.startswith(".")
    }


def _need_folders(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder}: no folder {' and no folder '.join(missing)}; is this the right data set?")


def _names(images: Mapping[str, Path], labels: Mapping[str, Path], task: Task) -> set[str]:
    """Names of all cases but those numbered higher than the task's last one."""
    names = images.keys() | labels.keys()
    if task.last_case is None:
        return names
    return {name for name in names if int(re.sub(r"\D", "", name) or 0) <= task.last_case}


def _pairs(
    images: Mapping[str, Path], labels: Mapping[str, Path], listed: Iterable[str], where: str, on_error: str
) -> list[VolumeCase]:
    """Cases out of images and label maps of the same name; one without the other is an error."""
    cases = []
    for name in sorted(listed):
        if name in images and name in labels:
            cases.append(VolumeCase(name, image_path=images[name], label_path=labels[name]))
        elif name in images:
            _complain(f"case {name!r}: image {images[name]} has no label map in {where}", on_error, FileNotFoundError)
        elif name in labels:
            _complain(f"case {name!r}: label map {labels[name]} has no image in {where}", on_error, FileNotFoundError)
        else:
            _complain(f"case {name!r} is listed in {where} but has neither file", on_error, FileNotFoundError)
    return cases


def _collect_msd(folder: Path, task: Task, on_error: str) -> list[VolumeCase]:
    """imagesTr/, labelsTr/; split.json or dataset.json say which files belong, where there is one."""
    _need_folders(folder, "imagesTr", "labelsTr")
    images, labels = _volumes(folder / "imagesTr"), _volumes(folder / "labelsTr")
    split = _read_split(folder)
    listed = split if split is not None else _listed(folder)
    return _pairs(images, labels, _names(images, labels, task) if listed is None else listed, str(folder), on_error)


def _listed(folder: Path) -> set[str] | None:
    """Case names under "training" in dataset.json, or None."""
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    from textdiff.base.checkpoints import read_json

    try:
        return {case_name(row["image"]) for row in read_json(path)["training"]} or None
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path}: expected "training": [{{"image": ..., "label": ...}}, ...]') from error


def _collect_amos(folder: Path, task: Task, on_error: str) -> list[VolumeCase]:
    """imagesTr/, labelsTr/, and where they are there imagesVa/, labelsVa/."""
    _need_folders(folder, "imagesTr", "labelsTr")
    images = _volumes(folder / "imagesTr") | _volumes(folder / "imagesVa")
    labels = _volumes(folder / "labelsTr") | _volumes(folder / "labelsVa")
    return _pairs(images, labels, _names(images, labels, task), str(folder), on_error)


def _collect_btcv(folder: Path, task: Task, on_error: str) -> list[VolumeCase]:
    """img/img0001.nii.gz, label/label0001.nii.gz, also below RawData/Training/."""
    folder = next((inner for inner in sorted(folder.glob("**/Training")) if (inner / "img").is_dir()), folder)
    _need_folders(folder, "img", "label")
    images, labels = (
        {name.removeprefix(kind): path for name, path in _volumes(folder / kind).items()} for kind in ("img", "label")
    )
    return _pairs(images, labels, _names(images, labels, task), str(folder), on_error)


def _first(folder: Path, *stems: str) -> Path | None:
    """The first of these NIfTI files that `folder` holds."""
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in NIFTI_SUFFIXES[::-1])
    return next((path for path in paths if path.is_file()), None)


def _collect_kits(folder: Path, task: Task, on_error: str) -> list[VolumeCase]:
    """case_00000/imaging.nii.gz and segmentation.nii.gz (KiTS19, KiTS23) or aggregated_MAJ_seg.nii.gz (KiTS21)."""
    cases = sorted(path for path in (*folder.glob("case_*"), *folder.glob("*/case_*")) if path.is_dir())
    images = {case.name: path for case in cases if (path := _first(case, "imaging"))}
    labels = {case.name: path for case in cases if (path := _first(case, "aggregated_MAJ_seg", "segmentation"))}
    return _pairs(images, labels, _names(images, labels, task), str(folder), on_error)


def _collect_totalsegmentator(folder: Path, task: Task, on_error: str) -> list[VolumeCase]:
    """A folder a case: ct.nii.gz (or dicom/) or mr.nii.gz, and one multi-label file or a mask a structure in segmentations/."""
    cases = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        mine, other = ("ct", "mr") if task.modality == "CT" else ("mr", "ct")
        image = _first(place, mine)
        if image is None and (_first(place, other) or (mine == "mr" and (place / "dicom").is_dir())):
            continue
        if image is None and (place / "dicom").is_dir():
            image = place / "dicom"
        try:
            case = _totalsegmentator_case(place, image, task)
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            _complain(str(error), on_error)
            continue
        cases.append(case)
    return cases


def _totalsegmentator_case(place: Path, image: Path | None, task: Task) -> VolumeCase:
    if image is None:
        raise FileNotFoundError(f"case {place.name!r}: no {task.modality.lower()}.nii.gz and no dicom/ in {place}")
    whole = [path for name, path in _volumes(place).items() if name.lower().startswith(("seg", "label"))]
    if len(whole) > 1:
        raise ValueError(f"case {place.name!r}: several multi-label files: {[path.name for path in whole]}")
    if whole:
        values = totalsegmentator_labels(_numbering(whole[0]), task.structures)
        return VolumeCase(place.name, image_path=image, label_path=whole[0], values=values)
    if not (place / "segmentations").is_dir():
        raise FileNotFoundError(
            f"case {place.name!r}: image {image} has no labels: neither a multi-label file seg*.nii.gz nor a folder "
            "segmentations/ beside it"
        )
    masks = {k: _first(place / "segmentations", TOTALSEGMENTATOR[name][0]) for k, name in enumerate(task.structures, 1)}
    missing = [name for k, name in enumerate(task.structures, 1) if masks[k] is None]
    if missing:
        raise FileNotFoundError(
            f"case {place.name!r}: no mask of {', '.join(missing)} in {place / 'segmentations'}; "
            "leave them out with structures=(...)"
        )
    return VolumeCase(place.name, image_path=image, masks=masks)


def _numbering(path: Path) -> str:
    """Which numbering a multi-label file of TotalSegmentator follows: "v1", "v2" or "mr", as its name says."""
    found = re.search(r"(?:^|[^a-z0-9])(v1|v2|mr)(?:$|[^a-z0-9])", case_name(path.name).lower())
    if not found:
        raise ValueError(
            f"{path}: TotalSegmentator numbers its classes differently in version 1, version 2 and for MR; say which "
            "with _v1, _v2 or _mr in the file's name, such as seg_v2.nii.gz"
        )
    return found[1]


COLLECT = {
    "msd": _collect_msd,
    "kits": _collect_kits,
    "amos": _collect_amos,
    "btcv": _collect_btcv,
    "totalsegmentator": _collect_totalsegmentator,
}

# --- splits --------------------------------------------------------------------------------------------


def _read_split(folder: Path) -> dict[str, str] | None:
    """Case name -> "train", "val" or "test" from split.json, or TotalSegmentator's meta.csv; None without either."""
    from textdiff.base.checkpoints import read_json

    path = folder / "split.json"
    if path.is_file():
        content = read_json(path)
        wrong = not content.get("train") or not all(isinstance(content.get(split, []), list) for split in SPLITS)
        rows = [] if wrong else [(case_name(str(name)), split) for split in SPLITS for name in content.get(split, [])]
        expected = '{"train": [names], "val": [names], "test": [names]}'
    elif (path := folder / "meta.csv").is_file():
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file, delimiter=";"))
        wrong = not all(row.get("image_id") and row.get("split") in SPLITS for row in table)
        rows = [] if wrong else [(row["image_id"], row["split"]) for row in table]
        expected = f"columns image_id and split ({', '.join(SPLITS)}), separated by semicolons"
    else:
        return None
    if wrong:
        raise ValueError(f"{path}: expected {expected}")
    split = dict(rows)
    if len(split) != len(rows):
        names = [name for name, _ in rows]
        twice = sorted({name for name in split if names.count(name) > 1})
        raise ValueError(f"{path}: listed more than once: {', '.join(twice[:3])}; a case belongs to one split")
    return split


def _hashed_split(names: Sequence[str]) -> dict[str, str]:
    """About 70 % train, 10 % val, 20 % test by a hash of the name: the same on every machine and in any order."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    test = max(1, round(TEST_SHARE * len(ranked))) if len(ranked) > 2 else 0
    val = max(1, round(VAL_SHARE * len(ranked))) if len(ranked) > 2 else 0
    return {name: "test" if k < test else "val" if k < test + val else "train" for k, name in enumerate(ranked)}


def _divide(cases: list[VolumeCase], folder: Path, on_error: str) -> dict[str, list[VolumeCase]]:
    """Cases by split, as the folder says, else by hash."""
    split = _read_split(folder) or _hashed_split([case.name for case in cases])
    divided: dict[str, list[VolumeCase]] = {name: [] for name in SPLITS}
    for case in sorted(cases, key=lambda case: case.name):
        if case.name not in split:
            _complain(f"case {case.name!r} stands in no split of {folder}", on_error)
            continue
        divided[split[case.name]].append(case)
    return divided


# --- loading -------------------------------------------------------------------------------------------


def _check(case: VolumeCase, thorough: bool) -> None:
    """Headers agree in shape and place; `thorough` reads every voxel."""
    if thorough:
        case.pair()
        return
    labels = case.label_path or next(iter(case.masks.values()))
    if case.image_path.is_file():
        check_places(read_place(case.image_path), read_place(labels), f"case {case.name!r}")


def _load_real(folder: Path, task: Task, on_error: str) -> dict[str, list[VolumeCase]]:
    found = COLLECT[task.layout](folder, task, on_error)
    cases = []
    for case in found:
        if case.label_path is not None and case.values is None:
            case = replace(case, values=task.labels)
        try:
            _check(case, thorough=on_error == "skip")
        except (ValueError, OSError) as error:
            if on_error == "raise":
                raise
            _complain(str(error), on_error)
            continue
        cases.append(case)
    if not cases:
        raise ValueError(f"{folder}: no case with image and labels found in the layout of {task.name!r}")
    return _divide(cases, folder, on_error)


def _load_phantoms(task: Task, seed: int, sizes: tuple[int, int, int]) -> dict[str, list[VolumeCase]]:
    from textdiff.data.volumes import phantoms as synthetic3d

    if len(sizes) != 3 or min(sizes) < 0:
        raise ValueError(f"sizes must be three numbers (train, val, test), none negative; got {sizes!r}")
    make = getattr(synthetic3d, task.name)
    return {
        split: [replace(case, values=task.labels) for case in make(n, seed, start=FIRST_INDEX[split])]
        for split, n in zip(SPLITS, sizes, strict=True)
    }


def load_volumes(
    name: str,
    root: str | Path | None = None,
    on_error: str = "raise",
    seed: int = 0,
    sizes: tuple[int, int, int] | None = None,
    structures: Sequence[str] | None = None,
) -> VolumeDataset:
    """Load a 3D data set by the name of its task.

    The split is that of the folder's split.json ({"train": [names], "val": [...], "test": [...]}) or meta.csv
    (TotalSegmentator), else about 70/10/20 % by a hash of the case name.

    Args:
        name: one of `TASKS`.
        root: folder of the data set; default: found under `textdiff.base.paths.data_dir()`.
        on_error: "raise" stops at the first bad case; only headers are read, so a file broken further in is
            named when the case is used. "skip" warns, leaves the case out, and reads every file once.
        seed: seed of the phantoms.
        sizes: (train, val, test) numbers of phantoms, default (24, 8, 16).
        structures: some of the task's structures, renumbered 1, 2, ... in this order; the others become
            background.

    Raises ValueError for an unknown name or structure, an argument that does not apply, two volumes that do
    not lie on each other, a split that names a case twice; FileNotFoundError when the data are not there, or
    an image has no labels or the reverse. The message names the case.
    """
    if name not in TASKS:
        raise ValueError(f"unknown 3D data set {name!r}; known: {', '.join(TASKS)}")
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {ON_ERROR}, got {on_error!r}")
    task = TASKS[name] if structures is None else TASKS[name].only(structures)
    synthetic = task.layout == "phantoms"
    if synthetic:
        if root is not None:
            raise ValueError(f"{name!r} is synthetic and has no folder, got root={str(root)!r}")
        splits = _load_phantoms(task, seed, sizes or PHANTOM_SIZES)
    else:
        if sizes is not None:
            raise ValueError(f"sizes is for synthetic data sets; {name!r} is real")
        folder = Path(root).expanduser() if root is not None else find_dataset(name)
        if not folder.is_dir():
            raise FileNotFoundError(f"no such data set folder: {folder}")
        splits = _load_real(folder, task, on_error)
    return VolumeDataset(name, task, **splits, licence=task.licence, synthetic=synthetic)
