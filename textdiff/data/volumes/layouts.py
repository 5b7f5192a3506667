"""Volumes with labels by name: a folder in the layout its publisher gave it in, a `VolumeDataset` out.

Layouts: the Medical Segmentation Decathlon (MSD), KiTS, AMOS, BTCV ("Beyond the Cranial Vault"),
TotalSegmentator. What the data sets are about, and how their labels are numbered, stands in the registry; a
dataset.json that names its labels goes before. What is wrong is collected, and what is left out counted, as `Fault` objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from textdiff.data.entries import DatasetEntry
from textdiff.data.faults import Fault, counted, few, settle
from textdiff.data.registry import dataset
from textdiff.data.splits import SPLITS, drawn_splits, hashed_split, manifest_split
from textdiff.data.volumes.cases import VolumeCase, VolumeDataset
from textdiff.data.volumes.listings import (
    CHANNEL,
    VOLUME_SUFFIXES,
    VOXEL_SUFFIXES,
    by_case,
    case_name,
    fold,
    listed_cases,
    read_description,
    read_split,
    resolved,
)
from textdiff.data.volumes.numbering import numbered_by_name
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

# Names that are judged by their number (`DatasetEntry.last_case`), by layout; others are of somebody's own making
NUMBERED = {"amos": r"amos_(\d{4})", "kits": r"case_(\d{5})"}
LONE = "bring the other, or move this one away"  # of image and labels

# --- files ---------------------------------------------------------------------------------------------


def _volumes(folder: Path, faults: list[Fault]) -> dict[str, Path]:
    """Volumes of a folder by case name, none if there is no such folder. Two of one name are a fault; the rest is counted."""
    found: dict[str, Path] = {}
    first: dict[str, Path] = {}
    over = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_volume = path.name.lower().endswith(VOLUME_SUFFIXES)
        if path.name.startswith(".") or not is_volume:
            over += [path.name] if is_volume or not path.name.startswith(".") else []
        elif (other := first.setdefault(fold(case_name(path.name)), path)) is not path:
            faults.append(_twins(other, path))
        else:
            found[case_name(path.name)] = path
    over = [name for name in over if not (name.lower().endswith(VOXEL_SUFFIXES) and Path(name).stem in found)]
    if over:
        said = f"{folder}: {counted(len(over), 'file')} passed over, no volumes: {few(over)}"
        faults.append(Fault(said, file=str(folder), warning=True))
    return found


def _twins(one: Path, other: Path) -> Fault:
    """The fault that two files, or folders, are one case by their names."""
    said = f"{other.parent}: {one.name} and {other.name} are two files for one case"
    why = "letter case, Unicode form and suffix do not tell cases apart"
    return Fault(f"{said} ({why})", case_name(other.name), str(other), "rename or remove one")


def _need_folders(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder}: no folder {' and no folder '.join(missing)}; is this the right data set?")


def _first(folder: Path, *stems: str) -> Path | None:
    """The first of these volumes that `folder` holds."""
    paths = (folder / f"{stem}{suffix}" for stem in stems for suffix in VOLUME_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _without_channels(
    images: Mapping[str, Path], labels: Mapping[str, Path], folder: Path, faults: list[Fault]
) -> dict[str, Path]:
    """Images by the names of their cases: nnU-Net's x_0000 is case x. Several channels of one case are a fault."""
    known, nnunet = {fold(name) for name in labels}, "channel_names" in read_description(folder)
    files: dict[str, tuple[str, list[Path]]] = {}
    for name, path in images.items():
        channel = CHANNEL.fullmatch(name)
        if channel and fold(name) not in known and (nnunet or fold(channel[1]) in known):
            name = channel[1]
        files.setdefault(fold(name), (name, []))[1].append(path)
    for name, several in files.values():
        if len(several) > 1:
            said = f"case {name!r}: {len(several)} images ({few(path.name for path in several)}) where one is read"
            remedy = "leave the one channel to use in the folder, move the others away"
            faults.append(Fault(said, name, str(several[0]), remedy))
    return {name: paths[0] for name, paths in files.values()}


def _folded(files: Mapping[str, Path], faults: list[Fault]) -> dict[str, tuple[str, Path]]:
    """Name and path by folded name; two of one folded name are a fault."""
    found: dict[str, tuple[str, Path]] = {}
    for name, path in files.items():
        other = found.setdefault(fold(name), (name, path))[1]
        if other != path:
            faults.append(_twins(other, path))
    return found


def _pairs(
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    task: DatasetEntry,
    where: Path,
    faults: list[Fault],
    listed: Sequence[str] = (),
) -> list[VolumeCase]:
    """Cases out of images and label maps of the same name; one without the other is a fault.

    listed: names of all cases; by default all that are there but those numbered higher than the task's last one.
    """
    pictures, maps = _folded(images, faults), _folded(labels, faults)
    known = maps | pictures
    chosen = _listed_only(known, listed, where, faults) if listed else _published_only(known, task, where, faults)
    cases = []
    for key in sorted(chosen):
        if key in pictures and key in maps:
            name, image = pictures[key]
            cases.append(VolumeCase(name, image, maps[key][1], values=task.labels))
            continue
        name, path = known[key]
        is_image = key in pictures
        what = f"image {path} has no label map" if is_image else f"label map {path} has no image"
        faults.append(Fault(f"case {name!r}: {what} in {where}", name, str(path), LONE, missing=True))
    return cases


def _listed_only(
    known: Mapping[str, tuple[str, Path]], listed: Sequence[str], where: Path, faults: list[Fault]
) -> set[str]:
    """Keys of the listed cases; those listed and not there are a fault, those there and not listed are counted."""
    for name in listed:
        if not resolved(name, known):
            said = f"case {case_name(name)!r} is listed in {where} but has neither file"
            faults.append(Fault(said, case_name(name), remedy="correct the list, or bring the files", missing=True))
    chosen = {resolved(name, known) for name in listed} - {""}
    others = [name for key, (name, _) in known.items() if key not in chosen]
    _left_out(others, "with files that no list (split.json, dataset.json) names, left out", where, faults)
    return chosen


def _published_only(
    known: Mapping[str, tuple[str, Path]], task: DatasetEntry, where: Path, faults: list[Fault]
) -> set[str]:
    """Keys of all cases but those numbered higher than the task's last one, which are counted."""
    if task.last_case is None:
        return set(known)
    numbers = {
        key: re.fullmatch(NUMBERED.get(task.layout, r"\D*(\d+)"), name, re.I) for key, (name, _) in known.items()
    }
    beyond = {key for key, number in numbers.items() if number and int(number[1]) > task.last_case}
    said = f"numbered above {task.last_case}, left out (without labels, or not {task.modality})"
    _left_out([known[key][0] for key in beyond], said, where, faults)
    return set(known) - beyond


def _left_out(names: Iterable[str], said: str, where: Path, faults: list[Fault]) -> None:
    """A warning that counts and names cases, if there are any: "<where>: 2 cases <said>: a, b"."""
    if names := sorted(names):
        text = f"{where}: {counted(len(names), 'case')} {said}: {few(names)}"
        faults.append(Fault(text, file=str(where), warning=True))


# --- layouts -------------------------------------------------------------------------------------------


def _collect_msd(folder: Path, task: DatasetEntry, faults: list[Fault]) -> list[VolumeCase]:
    """imagesTr/, labelsTr/; split.json or dataset.json say which files belong, where there is one."""
    _need_folders(folder, "imagesTr", "labelsTr")
    labels = _volumes(folder / "labelsTr", faults)
    images = _without_channels(_volumes(folder / "imagesTr", faults), labels, folder, faults)
    _left_out(_volumes(folder / "labelsTs", []), "with labels in labelsTs, not read", folder, faults)
    return _pairs(images, labels, task, folder, faults, list(read_split(folder) or listed_cases(folder)))


def _collect_amos(folder: Path, task: DatasetEntry, faults: list[Fault]) -> list[VolumeCase]:
    """imagesTr/, labelsTr/, and where they are there imagesVa/, labelsVa/."""
    _need_folders(folder, "imagesTr", "labelsTr")
    cases: list[VolumeCase] = []
    for part in ("Tr", "Va"):
        labels = _volumes(folder / f"labels{part}", faults)
        images = _without_channels(_volumes(folder / f"images{part}", faults), labels, folder, faults)
        cases += _pairs(images, labels, task, folder, faults)
    return cases


def _collect_btcv(folder: Path, task: DatasetEntry, faults: list[Fault]) -> list[VolumeCase]:
    """img/img0001.nii.gz, label/label0001.nii.gz, also below RawData/Training/."""
    folder = next((inner for inner in sorted(folder.glob("**/Training")) if (inner / "img").is_dir()), folder)
    _need_folders(folder, "img", "label")
    parts = {}
    for kind in ("img", "label"):
        found = _volumes(folder / kind, faults)
        parts[kind] = {name.removeprefix(kind): path for name, path in found.items()}
        kept = set(parts[kind].values())
        faults += [
            _twins(parts[kind][name.removeprefix(kind)], path) for name, path in found.items() if path not in kept
        ]
    return _pairs(parts["img"], parts["label"], task, folder, faults)


def _collect_kits(folder: Path, task: DatasetEntry, faults: list[Fault]) -> list[VolumeCase]:
    """<case>/imaging.nii.gz and segmentation.nii.gz (KiTS19, KiTS23) or aggregated_MAJ_seg.nii.gz (KiTS21), also below data/."""
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    others = []
    for place in sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_dir()):
        image, found = _first(place, "imaging"), _first(place, "aggregated_MAJ_seg", "segmentation")
        if place.name.startswith(".") or place.name in images.keys() | labels.keys():
            if image or found:
                said = f"{place}: a second folder of case {place.name!r}, or a hidden one, is passed over"
                faults.append(Fault(said, place.name, str(place), warning=True))
            continue
        images |= {place.name: image} if image else {}
        labels |= {place.name: found} if found else {}
        others += [] if image or found or not _volumes(place, []) else [str(place.relative_to(folder))]
    _left_out(others, "with volumes but neither imaging.nii.gz nor segmentation.nii.gz, left out", folder, faults)
    return _pairs(images, labels, task, folder, faults)


def _collect_totalsegmentator(folder: Path, task: DatasetEntry, faults: list[Fault]) -> list[VolumeCase]:
    """One folder per case: ct.nii.gz (or dicom/) or mr.nii.gz, and labels."""
    mine, other = ("ct", "mr") if task.modality == "CT" else ("mr", "ct")
    cases, of_other = [], []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        image, dicom = _first(place, mine), place / "dicom"
        if image is None and (_first(place, other) or (mine == "mr" and dicom.is_dir())):
            of_other.append(place.name)
        elif image is None and not dicom.is_dir():
            said = f"case {place.name!r}: no {mine}.nii.gz and no dicom/ in {place}"
            faults.append(Fault(said, place.name, str(place), "add it, or move the folder away", missing=True))
        else:
            cases += _totalsegmentator_case(place, image or dicom, task, faults)
    _left_out(of_other, f"not of {task.modality}, left out", folder, faults)
    return cases


def _totalsegmentator_case(place: Path, image: Path, task: DatasetEntry, faults: list[Fault]) -> list[VolumeCase]:
    """The image with one multi-label file seg*.nii.gz, one mask per structure in segmentations/, or, beside a folder of DICOM
    slices, an RT structure set or SEG *.dcm; none if it has no labels."""

    def wrong(said: str, remedy: str, file: Path = place, missing: bool = False) -> list[VolumeCase]:
        faults.append(Fault(said, place.name, str(file), remedy, missing=missing))
        return []

    case, folder = f"case {place.name!r}", place / "segmentations"
    whole = [path for name, path in _volumes(place, []).items() if name.lower().startswith(("seg", "label"))]
    if len(whole) > 1:
        return wrong(f"{case}: several multi-label files: {few(path.name for path in whole)}", "leave one of them")
    if whole:
        numbering = _numbering(whole[0])
        if not numbering:
            said = f"{whole[0]}: TotalSegmentator numbers its classes differently in version 1, version 2 and for MR"
            return wrong(said, "say which with _v1, _v2 or _mr in the file's name, such as seg_v2.nii.gz", whole[0])
        return [VolumeCase(place.name, image, whole[0], values=_totalsegmentator_values(numbering, task.structures))]
    objects = sorted(path for path in place.glob("*.dcm") if image.is_dir() and path.is_file())
    if len(objects) > 1:
        return wrong(f"{case}: several DICOM labels: {few(path.name for path in objects)}", "leave one of them")
    if objects:
        return [VolumeCase(place.name, image, objects[0], structures=task.structures)]
    if not folder.is_dir():
        said = (
            f"{case}: image {image} has no labels: neither a multi-label file seg*.nii.gz, a folder segmentations/, nor "
            "(of DICOM) an RT structure set or SEG *.dcm"
        )
        return wrong(said, "add one, or move the case away", image, missing=True)
    found = {name: _first(folder, TOTALSEGMENTATOR[name][0]) for name in task.structures}
    if absent := [name for name, path in found.items() if path is None]:
        remedy = "leave them out with structures=(...)"
        return wrong(f"{case}: no mask of {', '.join(absent)} in {folder}", remedy, folder, missing=True)
    masks = {label: path for label, path in enumerate(found.values(), start=1) if path is not None}
    return [VolumeCase(place.name, image, masks=masks)]


def _numbering(path: Path) -> str:
    """ "v1", "v2" or "mr", as a multi-label file's name says; "" where it says nothing."""
    found = re.search(r"(?:^|[^a-z0-9])(v1|v2|mr)(?:$|[^a-z0-9])", case_name(path.name).lower())
    return found[1] if found else ""


def _totalsegmentator_values(numbering: str, structures: Sequence[str]) -> dict[int, int]:
    """Value in a multi-label file -> place in `structures`, 0 for other classes."""
    column = 1 + list(TOTALSEGMENTATOR_CLASSES).index(numbering)
    values = dict.fromkeys(range(1, TOTALSEGMENTATOR_CLASSES[numbering] + 1), 0)
    return values | {int(TOTALSEGMENTATOR[name][column]): number for number, name in enumerate(structures, start=1)}


COLLECT = {
    "msd": _collect_msd,
    "kits": _collect_kits,
    "amos": _collect_amos,
    "btcv": _collect_btcv,
    "totalsegmentator": _collect_totalsegmentator,
}

# --- splits --------------------------------------------------------------------------------------------


def divided(cases: Sequence[VolumeCase], folder: Path, task: DatasetEntry, faults: list[Fault]) -> VolumeDataset:
    """Cases by the shipped split, else as the folder says, else by a hash of the name."""
    shipped = manifest_split(task.manifest) if task.manifest else {}
    by_shipped = {fold(name): split for name, split in shipped.items()}
    listed = read_split(folder)
    own = by_case((listed or {}).items(), {fold(case.name) for case in cases})
    by_split: dict[str, list[VolumeCase]] = {name: [] for name in SPLITS}
    for case in sorted(cases, key=lambda case: case.name):
        said = own.get(fold(case.name), set())
        split = by_shipped.get(fold(case.name)) or (hashed_split(case.name) if listed is None else next(iter(said), ""))
        if not split or len(said) > 1:
            where = f"in several splits ({', '.join(sorted(said))})" if said else "in no split"
            faults.append(Fault(f"case {case.name!r} stands {where} of {folder}", case.name, remedy="list it once"))
        else:
            by_split[split].append(case)
    if task.layout != "msd":  # there a case that is listed must be there
        away = [name for name in listed or {} if not resolved(name, {fold(case.name) for case in cases})]
        _left_out(away, "of its list not here, or without what they need", folder, faults)
    here = {fold(case.name) for case in cases}
    absent = tuple(sorted(name for name in shipped if fold(name) not in here))
    return VolumeDataset(task, by_split["train"], by_split["val"], by_split["test"], absent)


# --- loading -------------------------------------------------------------------------------------------


def find_volumes(
    folder: Path, whole: DatasetEntry, faults: list[Fault], structures: Sequence[str] | None = None
) -> VolumeDataset:
    """The cases of a folder in the layout of `whole`, without those whose files are not complete; no file of voxels is opened.

    structures: as `load_volumes` takes them. What is wrong or left out is added to `faults`.
    Raises FileNotFoundError or ValueError where the folder is of another layout, or a list in it is damaged.
    """
    wanted = whole.structures if structures is None else structures
    task = numbered_by_name(folder, whole, wanted, faults)
    task = task if structures is None else task.only(structures)
    cases = COLLECT[task.layout](folder, task, faults)
    _names_differ(cases, folder, faults)
    if not cases and not any(fault.case for fault in faults):
        said = f"{folder}: no case with image and labels found in the layout of {task.name!r}"
        faults.append(Fault(said, file=str(folder), remedy="is this the right data set?"))
    return divided(cases, folder, task, faults)


def _names_differ(cases: Sequence[VolumeCase], folder: Path, faults: list[Fault]) -> None:
    first: dict[str, VolumeCase] = {}
    for case in cases:
        if (other := first.setdefault(fold(case.name), case)) is not case:
            said = f"{folder}: {other.name!r} and {case.name!r} are two cases of one name"
            why = "letter case and Unicode form do not tell cases apart"
            faults.append(Fault(f"{said} ({why})", case.name, str(case.image_path), "rename one"))


def _load_real(folder: Path, whole: DatasetEntry, structures: Sequence[str] | None) -> VolumeDataset:
    faults: list[Fault] = []
    data = find_volumes(folder, whole, faults, structures)
    for case in (*data.train, *data.val, *data.test):
        image, labels = case.files[:2]
        try:
            if image.name.lower().endswith(NIFTI_SUFFIXES) and labels.name.lower().endswith(NIFTI_SUFFIXES):
                check_places(read_place(image), read_place(labels), f"case {case.name!r}")
        except (ValueError, FileNotFoundError) as error:
            faults.append(Fault(str(error), case.name, str(image), missing=isinstance(error, FileNotFoundError)))
    settle(faults, str(folder))
    return data


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
    Where a dataset.json (of the Decathlon or nnU-Net) names the labels, their names decide which is which. Files that are
    left out are counted in a warning.

    Args:
        name: a data set of volumes (`textdiff.data.registry.names("volumes")`).
        root: folder of the data set; default: found under `textdiff.base.paths.data_dir()`. Only headers are read, so a
            file broken further in is named when the case is used.
        seed: seed of the phantoms.
        sizes: (train, val, test) numbers of phantoms, default (24, 8, 16).
        structures: some of the structures, renumbered 1, 2, ... in this order; the others become background.

    Raises ValueError for an unknown name or structure, an argument that does not apply, two volumes that do not lie on each
    other, a split that names a case twice, labels whose names fit no structure; of several faults the first, with the number
    of the others (`textdiff check` lists all); FileNotFoundError for data, an image or labels that are not there.
    """
    whole = dataset(name, "volumes")
    task = whole if structures is None else whole.only(structures)
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
    return _load_real(folder, whole, structures)
