"""Volumes with labels by name: a folder in the layout its publisher gave it in, a `VolumeDataset` out.

Layouts: the Medical Segmentation Decathlon (MSD), KiTS, AMOS, BTCV ("Beyond the Cranial Vault"),
TotalSegmentator. What the data sets are about, and how their labels are numbered, stands in the registry.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from textdiff.base.checkpoints import read_json
from textdiff.data.entries import DatasetEntry
from textdiff.data.registry import dataset
from textdiff.data.splits import SPLITS, drawn_splits, hashed_split, manifest_split
from textdiff.data.volumes.cases import VolumeCase, VolumeDataset
from textdiff.data.volumes.volume import NIFTI_SUFFIXES, check_places, read_place

PHANTOM_SIZES = (24, 8, 16)
# Our name -> name of its mask file in TotalSegmentator, and value in its multi-label files of version 1, version 2 and for MR.
TOTALSEGMENTATOR: dict[str, tuple[str, int, int, int]] = {
    "spleen": ("spleen", 1, 1, 1),
    "right kidney": ("kidney_right", 2, 2, 2),
    "left kidney": ("kidney_left", 3, 3, 3),
    "gallbladder": ("gallbladder", 4, 4, 4),
    "liver": ("liver", 5, 5, 5),
    "stomach": ("stomach", 6, 6, 6),
    "pancreas": ("pancreas", 10, 7, 7),
    "right adrenal gland": ("adrenal_gland_right", 11, 8, 8),
    "left adrenal gland": ("adrenal_gland_left", 12, 9, 9),
    "oesophagus": ("esophagus", 42, 15, 12),
    "duodenum": ("duodenum", 56, 19, 14),
    "small bowel": ("small_bowel", 55, 18, 13),
    "colon": ("colon", 57, 20, 15),
    "bladder": ("urinary_bladder", 104, 21, 16),
    "aorta": ("aorta", 7, 52, 23),
    "inferior vena cava": ("inferior_vena_cava", 8, 63, 24),
    "portal and splenic vein": ("portal_vein_and_splenic_vein", 9, 64, 25),
}
TOTALSEGMENTATOR_CLASSES = {"v1": 104, "v2": 117, "mr": 50}  # the others are background here

# --- layouts -------------------------------------------------------------------------------------------


def case_name(file_name: str) -> str:
    """File name without folder and suffix: "./imagesTr/liver_1.nii.gz" -> "liver_1"."""
    return re.sub(r"\.nii(\.gz)?$", "", file_name.rsplit("/", 1)[-1], flags=re.IGNORECASE)


def _volumes(folder: Path) -> dict[str, Path]:
    """NIfTI files of a folder by case name; hidden ones (macOS leaves "._x.nii.gz") are passed over."""
    found = [path for path in sorted(folder.glob("[!.]*")) if path.name.lower().endswith(NIFTI_SUFFIXES)]
    return {case_name(path.name): path for path in found}


def _need_folders(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder}: no folder {' and no folder '.join(missing)}; is this the right data set?")


def _pairs(
    images: Mapping[str, Path], labels: Mapping[str, Path], task: DatasetEntry, where: Path, listed: Iterable[str] = ()
) -> list[VolumeCase]:
    """Cases out of images and label maps of the same name; one without the other is an error.

    listed: names of all cases; by default all that are there but those numbered higher than the task's last one.
    """
    names = set(listed or images.keys() | labels.keys())
    if not listed and task.last_case is not None:
        names = {name for name in names if int(re.sub(r"\D", "", name) or 0) <= task.last_case}
    for name in sorted(names - (images.keys() & labels.keys())):
        if name in images:
            raise FileNotFoundError(f"case {name!r}: image {images[name]} has no label map in {where}")
        if name in labels:
            raise FileNotFoundError(f"case {name!r}: label map {labels[name]} has no image in {where}")
        raise FileNotFoundError(f"case {name!r} is listed in {where} but has neither file")
    return [VolumeCase(name, images[name], labels[name], values=task.labels) for name in sorted(names)]


def _collect_msd(folder: Path, task: DatasetEntry) -> list[VolumeCase]:
    """imagesTr/, labelsTr/; split.json or dataset.json say which files belong, where there is one."""
    _need_folders(folder, "imagesTr", "labelsTr")
    images, labels = _volumes(folder / "imagesTr"), _volumes(folder / "labelsTr")
    return _pairs(images, labels, task, folder, _read_split(folder) or _listed(folder))


def _listed(folder: Path) -> set[str]:
    """Case names under "training" in dataset.json, if there is one."""
    path = folder / "dataset.json"
    if not path.is_file():
        return set()
    try:
        return {case_name(row["image"]) for row in read_json(path)["training"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path}: expected "training": [{{"image": ..., "label": ...}}, ...]') from error


def _collect_amos(folder: Path, task: DatasetEntry) -> list[VolumeCase]:
    """imagesTr/, labelsTr/, and where they are there imagesVa/, labelsVa/."""
    _need_folders(folder, "imagesTr", "labelsTr")
    images = _volumes(folder / "imagesTr") | _volumes(folder / "imagesVa")
    labels = _volumes(folder / "labelsTr") | _volumes(folder / "labelsVa")
    return _pairs(images, labels, task, folder)


def _collect_btcv(folder: Path, task: DatasetEntry) -> list[VolumeCase]:
    """img/img0001.nii.gz, label/label0001.nii.gz, also below RawData/Training/."""
    folder = next((inner for inner in sorted(folder.glob("**/Training")) if (inner / "img").is_dir()), folder)
    _need_folders(folder, "img", "label")
    images, labels = (
        {name.removeprefix(kind): path for name, path in _volumes(folder / kind).items()} for kind in ("img", "label")
    )
    return _pairs(images, labels, task, folder)


def _first(folder: Path, *stems: str) -> Path | None:
    """The first of these NIfTI files that `folder` holds."""
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in NIFTI_SUFFIXES[::-1])
    return next((path for path in paths if path.is_file()), None)


def _collect_kits(folder: Path, task: DatasetEntry) -> list[VolumeCase]:
    """case_00000/imaging.nii.gz and segmentation.nii.gz (KiTS19, KiTS23) or aggregated_MAJ_seg.nii.gz (KiTS21)."""
    cases = sorted(path for path in (*folder.glob("case_*"), *folder.glob("*/case_*")) if path.is_dir())
    images = {case.name: path for case in cases if (path := _first(case, "imaging"))}
    labels = {case.name: path for case in cases if (path := _first(case, "aggregated_MAJ_seg", "segmentation"))}
    return _pairs(images, labels, task, folder)


def _collect_totalsegmentator(folder: Path, task: DatasetEntry) -> list[VolumeCase]:
    """One folder per case: ct.nii.gz (or dicom/) or mr.nii.gz, and labels."""
    mine, other = ("ct", "mr") if task.modality == "CT" else ("mr", "ct")
    cases = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        image, dicom = _first(place, mine), place / "dicom"
        if image is None and (_first(place, other) or (mine == "mr" and dicom.is_dir())):
            continue
        if image is None and not dicom.is_dir():
            raise FileNotFoundError(f"case {place.name!r}: no {mine}.nii.gz and no dicom/ in {place}")
        cases.append(_totalsegmentator_case(place, image or dicom, task))
    return cases


def _totalsegmentator_case(place: Path, image: Path, task: DatasetEntry) -> VolumeCase:
    """The image with one multi-label file seg*.nii.gz, or with one mask per structure in segmentations/."""
    whole = [path for name, path in _volumes(place).items() if name.lower().startswith(("seg", "label"))]
    if len(whole) > 1:
        raise ValueError(f"case {place.name!r}: several multi-label files: {[path.name for path in whole]}")
    if whole:
        return VolumeCase(place.name, image, whole[0], values=_totalsegmentator_values(whole[0], task.structures))
    folder = place / "segmentations"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"case {place.name!r}: image {image} has no labels: neither a multi-label file seg*.nii.gz nor a folder "
            "segmentations/ beside it"
        )
    found = {name: _first(folder, TOTALSEGMENTATOR[name][0]) for name in task.structures}
    if missing := [name for name, path in found.items() if path is None]:
        raise FileNotFoundError(
            f"case {place.name!r}: no mask of {', '.join(missing)} in {folder}; leave them out with structures=(...)"
        )
    masks = {label: path for label, path in enumerate(found.values(), start=1) if path is not None}
    return VolumeCase(place.name, image, masks=masks)


def _totalsegmentator_values(path: Path, structures: Sequence[str]) -> dict[int, int]:
    """Value in a multi-label file -> place in `structures`, 0 for other classes; the file's name says which numbering."""
    found = re.search(r"(?:^|[^a-z0-9])(v1|v2|mr)(?:$|[^a-z0-9])", case_name(path.name).lower())
    if not found:
        raise ValueError(
            f"{path}: TotalSegmentator numbers its classes differently in version 1, version 2 and for MR; say which "
            "with _v1, _v2 or _mr in the file's name, such as seg_v2.nii.gz"
        )
    column = 1 + list(TOTALSEGMENTATOR_CLASSES).index(found[1])
    values = dict.fromkeys(range(1, TOTALSEGMENTATOR_CLASSES[found[1]] + 1), 0)
    return values | {int(TOTALSEGMENTATOR[name][column]): number for number, name in enumerate(structures, start=1)}


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
    twice = sorted(name for name, times in Counter(name for name, _ in rows).items() if times > 1)
    if twice:
        raise ValueError(f"{path}: listed more than once: {', '.join(twice[:3])}; a case belongs to one split")
    return dict(rows)


def divided(cases: list[VolumeCase], folder: Path, task: DatasetEntry) -> VolumeDataset:
    """Cases by the shipped split, else as the folder says, else by a hash of the name."""
    shipped = manifest_split(task.manifest) if task.manifest else {}
    own = _read_split(folder)
    by_split: dict[str, list[VolumeCase]] = {name: [] for name in SPLITS}
    for case in sorted(cases, key=lambda case: case.name):
        split = shipped.get(case.name) or (hashed_split(case.name) if own is None else own.get(case.name))
        if split is None:
            raise ValueError(f"case {case.name!r} stands in no split of {folder}")
        by_split[split].append(case)
    absent = tuple(sorted(shipped.keys() - {case.name for case in cases}))
    return VolumeDataset(task, by_split["train"], by_split["val"], by_split["test"], absent)


# --- loading -------------------------------------------------------------------------------------------


def _load_real(folder: Path, task: DatasetEntry) -> VolumeDataset:
    cases = COLLECT[task.layout](folder, task)
    if not cases:
        raise ValueError(f"{folder}: no case with image and labels found in the layout of {task.name!r}")
    for case in cases:
        image, labels = case.files[:2]
        if image.is_file():
            check_places(read_place(image), read_place(labels), f"case {case.name!r}")
    return divided(cases, folder, task)


def load_volumes(
    name: str,
    root: str | Path | None = None,
    seed: int = 0,
    sizes: tuple[int, int, int] | None = None,
    structures: Sequence[str] | None = None,
) -> VolumeDataset:
    """Load a 3D data set by its name in the registry.

    The split is the shipped one where there is one (hippocampus), else that of the folder's split.json
    ({"train": [names], "val": [...], "test": [...]}) or meta.csv (TotalSegmentator). A case of which none of them says
    anything is placed by a hash of its name alone, 70/15/15 %: no case is moved by another that is there or absent.

    Args:
        name: a data set of volumes (`textdiff.data.registry.names("volumes")`).
        root: folder of the data set; default: found under `textdiff.base.paths.data_dir()`. Only headers are read, so a
            file broken further in is named when the case is used.
        seed: seed of the phantoms.
        sizes: (train, val, test) numbers of phantoms, default (24, 8, 16).
        structures: some of the structures, renumbered 1, 2, ... in this order; the others become background.

    Raises ValueError for an unknown name or structure, an argument that does not apply, two volumes that do not lie on each
    other, a split that names a case twice; FileNotFoundError for data, an image or labels that are not there.
    """
    task = dataset(name, "volumes")
    if structures is not None:
        task = task.only(structures)
    if task.synthetic:
        if root is not None:
            raise ValueError(f"{name!r} is synthetic and has no folder, got root={str(root)!r}")
        from textdiff.data.volumes import phantoms

        splits = drawn_splits(getattr(phantoms, name), seed, sizes or PHANTOM_SIZES)
        numbered = {split: [replace(case, values=task.labels) for case in cases] for split, cases in splits.items()}
        return VolumeDataset(task, numbered["train"], numbered["val"], numbered["test"])
    if sizes is not None:
        raise ValueError(f"sizes is for synthetic data sets; {name!r} is real")
    folder = Path(root).expanduser() if root is not None else task.folder()
    if not folder.is_dir():
        raise FileNotFoundError(f"no such data set folder: {folder}")
    return _load_real(folder, task)
