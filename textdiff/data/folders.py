"""Which data set a folder holds, and everything that is wrong with it: a folder in, a `Report` out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from textdiff.base.files import read_json
from textdiff.data import registry
from textdiff.data.check import OneCase, check_cases
from textdiff.data.entries import DatasetEntry, Kind
from textdiff.data.faults import Fault, Report
from textdiff.data.images.lvit import find_entry, read_split
from textdiff.data.splits import SPLITS
from textdiff.data.volumes.layouts import NUMBERED, find_volumes
from textdiff.data.volumes.listings import case_name, label_names

LAYOUTS = (
    "Train_Folder/, Val_Folder/, Test_Folder/ with img/, labelcol/ and a table (LViT); imagesTr/ and labelsTr/ (Decathlon, "
    "nnU-Net, AMOS); <case>/imaging.nii.gz (KiTS); <case>/ct.nii.gz or mr.nii.gz (TotalSegmentator); img/ and label/ (BTCV)"
)


def check_folder(folder: str | Path, name: str = "", progress: bool = True) -> Report:
    """Read a whole data set and report everything that is wrong with it (`textdiff.data.check.check_cases`).

    name: the data set, as the registry calls it; by default what the folder's name or its layout say. Where neither tells the
    classes, labels are only counted, and a warning says so.

    Raises FileNotFoundError without such a folder, ValueError for an unknown name or a layout that is not recognised.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no such data set folder: {folder}")
    entry, known = _recognised(folder, name)
    faults: list[Fault] = []
    if not known:
        said = f"{folder}: no data set of this name is known, so its labels are only counted"
        names = f"say what it is with --dataset NAME ({', '.join(_real(entry.kind))}, or an entry of your own)"
        faults.append(Fault(said, file=str(folder), remedy=names, warning=True))
    if _as_recorded(folder):
        said = f"{folder}: the cases of the published records alone, as it was fetched (--as-recorded)"
        faults.append(
            Fault(said, file=str(folder), remedy=f"`textdiff fetch {entry.name} --force` brings all", warning=True)
        )
    cases = _pictures(folder, faults) if entry.kind == "images" else _volumes(folder, entry, known, faults)
    report = check_cases(cases, entry.class_names if known else (), root=folder, progress=progress)
    return replace(report, found=(*faults, *report.found))


def _as_recorded(folder: Path) -> bool:
    """Whether `textdiff fetch` made this folder and left cases out; what else is called SOURCE.json says nothing of it."""
    try:
        return read_json(folder / "SOURCE.json").get("as_recorded") is True
    except (FileNotFoundError, ValueError):
        return False


def _pictures(folder: Path, faults: list[Fault]) -> Mapping[str, Sequence[OneCase]]:
    places = {split: find_entry(folder, f"{split.capitalize()}_Folder") for split in SPLITS}
    if not any(places.values()):  # one split by itself
        return {folder.name: _split(folder, folder.name, faults)}
    found = {
        split: _split(place or folder / f"{split.capitalize()}_Folder", split, faults)
        for split, place in places.items()
    }
    extra = find_entry(folder, "Train_Extra_Folder")
    return found | ({"train_extra": _split(extra, "train_extra", faults)} if extra else {})


def _split(folder: Path, split: str, faults: list[Fault]) -> Sequence[OneCase]:
    told: list[Fault] = []
    try:
        return read_split(folder, None, told)
    except (ValueError, OSError) as error:
        told.append(Fault(str(error), file=str(folder), missing=isinstance(error, FileNotFoundError)))
        return []
    finally:
        faults += [replace(fault, split=split) for fault in told]


def _volumes(folder: Path, entry: DatasetEntry, known: bool, faults: list[Fault]) -> Mapping[str, Sequence[OneCase]]:
    try:
        data = find_volumes(folder, entry, faults)
    except (ValueError, OSError) as error:
        faults.append(Fault(str(error), file=str(folder), missing=isinstance(error, FileNotFoundError)))
        return {}
    found = {split: getattr(data, split) for split in SPLITS}
    return found if known else {split: [replace(case, values=None) for case in some] for split, some in found.items()}


# --- which data set it is ------------------------------------------------------------------------------


def _real(kind: Kind | None = None) -> list[str]:
    return [name for name in registry.names(kind) if not registry.dataset(name).synthetic]


def _recognised(folder: Path, name: str) -> tuple[DatasetEntry, bool]:
    """The entry to read a folder by, and whether its classes are known."""
    if name:
        entry = registry.dataset(name)
        if entry.synthetic:
            raise ValueError(f"{name!r} is synthetic and has no folder; data sets of files: {', '.join(_real())}")
        return entry, True
    for entry in map(registry.dataset, _real()):
        if folder.resolve().name.lower() in (one.lower() for one in entry.folders):
            return entry, True
    layout = _layout(folder)
    if layout == "msd":
        return _unnamed(folder)
    if layout == "lvit":
        return DatasetEntry(
            folder.name, "images", "lvit", ("background", "foreground"), "unknown", split="official"
        ), False
    return registry.dataset(layout), True


def _layout(folder: Path) -> str:
    """ "lvit", "msd", or the data set that fixes the classes of a layout by itself."""
    if find_entry(folder, "Train_Folder") or (find_entry(folder, "img") and find_entry(folder, "labelcol")):
        return "lvit"
    if (folder / "imagesTr").is_dir():
        names = [case_name(path.name) for path in (folder / "imagesTr").glob("[!.]*")]
        amos = (folder / "imagesVa").is_dir() or (names and all(re.fullmatch(NUMBERED["amos"], name) for name in names))
        return "amos" if amos else "msd"
    patterns = {
        "kits23": ("*/imaging.nii*", "*/*/imaging.nii*"),
        "totalsegmentator": ("*/ct.nii*",),
        "totalsegmentator_mr": ("*/mr.nii*",),
        "btcv": ("label/*.nii*", "**/Training/label/*.nii*"),
    }
    for name, some in patterns.items():
        if any(next(folder.glob(pattern), None) for pattern in some):
            return name
    raise ValueError(
        f"{folder}: not recognised as a data set. Layouts: {LAYOUTS}. Say what it is with --dataset NAME: {', '.join(_real())}"
    )


def _unnamed(folder: Path) -> tuple[DatasetEntry, bool]:
    """An entry for a folder in the Decathlon's layout, with the classes that its dataset.json names."""
    names = {value: name for value, name in (label_names(folder) or {}).items() if value}
    structures = list(dict.fromkeys(names[value] for value in sorted(names)))
    labels = {value: structures.index(name) + 1 for value, name in names.items()}
    class_names = ("background", *(structures or ["foreground"]))
    return DatasetEntry(folder.name, "volumes", "msd", class_names, "unknown", labels=labels), bool(structures)
