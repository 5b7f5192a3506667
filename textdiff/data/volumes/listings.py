"""What a folder of volumes says of itself: dataset.json, split.json or meta.csv in; names of cases, labels and splits out.

dataset.json is that of the Decathlon or of nnU-Net (version 1 or 2). Names of cases are compared folded: in one Unicode
form and letter case, since disks and spreadsheets change both.
"""

from __future__ import annotations

import csv
import glob
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from textdiff.base.files import read_json
from textdiff.data.faults import few, repeated
from textdiff.data.splits import SPLITS
from textdiff.data.volumes.itk import ITK_SUFFIXES, named_voxels
from textdiff.data.volumes.volume import MGH_SUFFIXES

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".hdr", *MGH_SUFFIXES, *ITK_SUFFIXES)
HEADER_SUFFIXES = (".hdr", ".mhd", ".nhdr")
VOXEL_SUFFIXES = (".img", ".raw", ".zraw")  # the other file of such a header
BESIDE = (*VOXEL_SUFFIXES, ".gz", ".mat")  # the last says where the voxels of an Analyze image are
CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net: liver_1_0000.nii.gz is the first channel of case liver_1
SEPARATORS = ";,\t|"


def case_name(file_name: str) -> str:
    """File name without folder and suffix, in composed Unicode form: "./imagesTr/liver_1.nii.gz" -> "liver_1"."""
    name = unicodedata.normalize("NFC", file_name.replace("\\", "/").rsplit("/", 1)[-1]).strip()
    suffix = next((suffix for suffix in VOLUME_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def bytes_of(path: Path) -> list[Path]:
    """The files that decide what is read from `path`: itself and the voxels beside a header, or all that is in a folder."""
    if path.is_dir():
        return sorted(path.rglob("*"))
    if path.suffix.lower() not in HEADER_SUFFIXES:
        return [path]
    beside = {one for one in path.parent.glob(f"{glob.escape(path.stem)}.*") if one.suffix.lower() in BESIDE}
    if path.is_file() and (named := named_voxels(path)):
        beside.add(named)
    return [path, *sorted(beside)]


def fold(name: str) -> str:
    """What a case is compared by: its name in one Unicode form and letter case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


def resolved(name: str, known: Mapping[str, object] | set[str]) -> str:
    """The folded name among `known` ones that a listed name means: with a suffix or a channel's number, or without; "" if none."""
    key = fold(case_name(name))
    channel = CHANNEL.fullmatch(key)
    return key if key in known else channel[1] if channel and channel[1] in known else ""


# --- dataset.json --------------------------------------------------------------------------------------


def read_description(folder: Path) -> dict[str, Any]:
    """The folder's dataset.json; {} without one. Raises ValueError that names a damaged file."""
    path = folder / "dataset.json"
    return read_json(path) if path.is_file() else {}


def listed_cases(folder: Path) -> list[str]:
    """Files under "training" in dataset.json; none without such a list."""
    rows = read_description(folder).get("training", [])
    try:
        return [row["image"] + "" for row in rows]
    except (KeyError, TypeError) as error:
        path = folder / "dataset.json"
        raise ValueError(f'{path}: expected "training": [{{"image": ..., "label": ...}}, ...]') from error


def label_names(folder: Path) -> dict[int, str] | None:
    """Value in the label maps -> its name in dataset.json, background too; None where that names no labels.

    A region of nnU-Net, {"whole tumour": [1, 2], "core": [2]}, gives each value the last name that holds it.
    """
    labels = read_description(folder).get("labels")
    if not labels:
        return None
    names: dict[int, str] = {}
    try:
        for key, value in labels.items():
            if isinstance(value, str) and not value.isdecimal():
                names[int(key)] = value
            else:
                names |= {int(one): str(key) for one in (value if isinstance(value, list) else [value])}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{folder / "dataset.json"}: expected "labels": {{"0": "background", "1": "liver"}} or '
            f'{{"background": 0, "liver": 1}}, got {labels!r}'
        ) from error
    return names


# --- split.json, meta.csv ------------------------------------------------------------------------------


def read_split(folder: Path) -> dict[str, str] | None:
    """Name of a case or of its file -> "train", "val" or "test", from split.json or meta.csv; None without either.

    Raises ValueError that names the file, for another form or a case that is listed twice.
    """
    if (path := folder / "split.json").is_file():
        rows = _json_rows(path)
    elif (path := folder / "meta.csv").is_file():
        rows = _table_rows(path)
    else:
        return None
    if twice := repeated(fold(case_name(name)) for name, _ in rows):
        raise ValueError(f"{path}: listed more than once: {few(twice)}; a case belongs to one split")
    return dict(rows)


def _json_rows(path: Path) -> list[tuple[str, str]]:
    content = read_json(path)
    others = [name for name, value in content.items() if name not in SPLITS and isinstance(value, list)]
    if others or not content.get("train") or not all(isinstance(content.get(split, []), list) for split in SPLITS):
        raise ValueError(f'{path}: expected {{"train": [names], "val": [names], "test": [names]}}')
    return [(str(name), split) for split in SPLITS for name in content.get(split, [])]


def _table_rows(path: Path) -> list[tuple[str, str]]:
    """Rows of a table whose columns are separated by semicolons, commas, tabs or bars."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8; save it as CSV in UTF-8 ({error})") from error
    separator = max(SEPARATORS, key=(lines or [""])[0].count)
    table = [
        {str(name).strip().lower(): str(value or "").strip() for name, value in row.items()}
        for row in csv.DictReader(lines, delimiter=separator)
    ]
    rows = [(row.get("image_id", ""), row.get("split", "").lower()) for row in table]
    if not all(name and split in SPLITS for name, split in rows):
        raise ValueError(f"{path}: expected columns image_id and split ({', '.join(SPLITS)}), separated by semicolons")
    return rows


def by_case(listed: Iterable[tuple[str, str]], known: Mapping[str, object] | set[str]) -> dict[str, set[str]]:
    """Folded name of a case -> the splits that it is listed in; "" stands for the names that are not known."""
    found: dict[str, set[str]] = {}
    for name, split in listed:
        found.setdefault(resolved(name, known), set()).add(split)
    return found
