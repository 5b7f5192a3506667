"""LViT's folder layout: `img/`, `labelcol/` and `*_text.xlsx` of a split in, a list of `Case` out, and back.

Takes the data sets as published (LViT, papers: Li et al. 2023): images and masks of different file types (MoNuSeg's
test images are tif, its masks png), masks called `mask_<image>` (QaTa-COV19), sentences keyed by the mask's name, names
that differ in letter case between files and table, and the two text columns in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textdiff.data.cases import Case, picture_size
from textdiff.data.faults import Fault, counted, few, settle

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


def match_key(file_name: str) -> str:
    """What image, mask and table row share: the name in lower case without folder, suffix or `mask_`."""
    name = file_name.strip().replace("\\", "/").rsplit("/", 1)[-1].lower()
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix}" in PICTURE_SUFFIXES:
        name = stem
    return name.removeprefix("mask_")


def find_entry(folder: Path, name: str) -> Path | None:
    """The entry of `folder` called `name` whatever its letter case, or None."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact if exact.exists() else None
    return next((entry for entry in sorted(folder.iterdir()) if entry.name.lower() == name.lower()), None)


def _pictures(folder: Path, what: str, faults: list[Fault]) -> dict[str, Path]:
    found = find_entry(folder, what)
    if found is None or not found.is_dir():
        raise FileNotFoundError(f"{folder}: no folder {what!r}; LViT's layout is img/, labelcol/ and one *_text.xlsx")
    pictures: dict[str, Path] = {}
    over = []
    for path in sorted(path for path in found.iterdir() if not path.name.startswith(".")):
        key = match_key(path.name)
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            over.append(path.name)
        elif key not in pictures:
            pictures[key] = path
        elif pictures[key].read_bytes() != path.read_bytes():
            said = f"{found}: {pictures[key].name} and {path.name} are different files for one case ({key!r})"
            faults.append(Fault(said, key, str(path), "rename or remove one"))
    if over:
        said = (
            f"{found}: {counted(len(over), 'file')} passed over, not {' '.join(sorted(PICTURE_SUFFIXES))}: {few(over)}"
        )
        faults.append(Fault(said, file=str(found), warning=True))
    return pictures


def _read_table(folder: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The text table of a split: its path and its rows (image, description)."""
    import pandas as pd

    tables = [p for p in sorted(folder.glob("*.[xX][lL][sS][xX]")) if not p.name.startswith(("~$", "."))]
    named = [p for p in tables if p.stem.lower().endswith("_text")]
    if len(named or tables) != 1:
        raise FileNotFoundError(f"{folder}: expected one *_text.xlsx, found {[p.name for p in tables] or 'none'}")
    table = (named or tables)[0]
    try:
        frame = pd.read_excel(table, dtype=str, keep_default_na=False)
    except Exception as error:  # openpyxl, zipfile and xml each raise their own kinds for a damaged workbook
        raise ValueError(f"cannot read {table}: {error}") from error
    columns = {str(column).strip().lower(): column for column in frame.columns}
    missing = [name for name in ("Image", "Description") if name.lower() not in columns]
    if missing:
        raise ValueError(f"{table}: missing column {missing}; found {[str(c) for c in frame.columns]}")
    return table, list(zip(frame[columns["image"]], frame[columns["description"]], strict=True))


def read_text(folder: Path, faults: list[Fault] | None = None) -> dict[str, str]:
    """Read the sentences of a split, {match_key: sentence}, from its *_text.xlsx (or its only .xlsx).

    The columns `Image` and `Description` may stand in any order and letter case. faults: as `read_split` takes them.
    Raises FileNotFoundError without a table; ValueError for a missing column, an empty sentence, or a second row for one image.
    """
    table, rows = _read_table(folder)
    found: list[Fault] = []
    captions: dict[str, str] = {}
    for row, (image, description) in enumerate(rows, start=2):
        key, caption, where = match_key(image), description.strip(), f"{table}, row {row}"
        if not key and not caption:
            continue
        if not caption:
            found.append(Fault(f"{where}: empty caption for {image!r}", key, str(table), "write a sentence"))
        elif not key:
            found.append(Fault(f"{where}: empty file name in column 'Image'", file=str(table), remedy="name the mask"))
        elif key in captions:
            said = f"{where}: second caption for {image!r}; every image needs one row"
            found.append(Fault(said, key, str(table), "remove one"))
        captions.setdefault(key, caption)
    captions.pop("", None)
    if faults is None:
        settle(found, folder)
    else:
        faults += found
    return captions


def read_split(folder: str | Path, faults: list[Fault] | None = None) -> list[Case]:
    """Read one split folder of LViT's layout, such as `MoNuSeg/Train_Folder`, sorted by name.

    Only the headers of pictures are read here; a file broken further in is named when the case is used.

    faults: a list that everything which is wrong is added to, instead of an error for the first; the good cases are returned.
    Then the files of pictures are not opened at all.

    Returns cases named by the image file's stem. Raises FileNotFoundError or ValueError that name the file
    and what is wrong: missing mask, caption or column, two captions for one image, an empty caption, unequal
    sizes, an unreadable file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such split folder: {folder}")
    found: list[Fault] = []
    images, masks = _pictures(folder, "img", found), _pictures(folder, "labelcol", found)
    cases = _matched(folder, images, masks, read_text(folder, found), found)
    if faults is None:
        for case in cases:
            _check_sizes(case, found)
        settle(found, folder)
    else:
        faults += found
    if not cases:
        raise ValueError(f"{folder}: no usable case (image, mask and caption) found")
    return cases


def _matched(
    folder: Path, images: dict[str, Path], masks: dict[str, Path], captions: dict[str, str], faults: list[Fault]
) -> list[Case]:
    """Cases that have image, mask and caption; what lacks one of them is a fault, a mask without an image a warning."""
    for key in sorted(captions.keys() - images.keys()):
        said = f"{folder}: the text table has a row for {key!r} but there is no such image"
        faults.append(Fault(said, key, str(folder), "bring the image, or remove the row", missing=True))
    if alone := sorted(masks.keys() - images.keys()):
        said = f"{folder / 'labelcol'}: {counted(len(alone), 'mask')} without an image, left out: {few(alone)}"
        faults.append(Fault(said, file=str(folder / "labelcol"), warning=True))
    cases = []
    for key, image in sorted(images.items()):
        if key not in masks:
            said = f"{image}: no mask of that name in {folder / 'labelcol'}"
            faults.append(Fault(said, key, str(image), "bring the mask, or move the image away", missing=True))
        elif not captions.get(key):
            if key not in captions:
                said = f"{image}: no caption in the text table of {folder}"
                faults.append(Fault(said, key, str(image), "add a row to the table"))
        else:
            cases.append(Case(name=image.stem, caption=captions[key], image_path=image, mask_path=masks[key]))
    return cases


def _check_sizes(case: Case, faults: list[Fault]) -> None:
    assert case.image_path is not None and case.mask_path is not None
    try:
        (height, width), (mask_height, mask_width) = picture_size(case.image_path), picture_size(case.mask_path)
    except (ValueError, FileNotFoundError) as error:
        faults.append(Fault(str(error), case.name, str(case.image_path), missing=isinstance(error, FileNotFoundError)))
        return
    if (height, width) != (mask_height, mask_width):
        said = (
            f"{case.image_path} is {height}x{width} but {case.mask_path} is {mask_height}x{mask_width} (height x width)"
        )
        faults.append(Fault(said, case.name, str(case.image_path), "they must be equal"))


def write_split(folder: str | Path, cases: Sequence[Case]) -> None:
    """Write cases as one split of LViT's layout, such as `mine/Train_Folder`, which `read_split` reads.

    Pictures and masks become PNG files named after the cases; a mask of two classes holds 0 and 255, one of more its labels.
    """
    import pandas as pd
    from PIL import Image

    folder = Path(folder)
    for part in ("img", "labelcol"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in cases:
        image, mask = case.pair()
        Image.fromarray(image).save(folder / "img" / f"{case.name}.png")
        grey = mask * np.uint8(255) if mask.max(initial=0) <= 1 else mask
        Image.fromarray(grey).save(folder / "labelcol" / f"{case.name}.png")
    table = pd.DataFrame(
        {"Image": [f"{case.name}.png" for case in cases], "Description": [case.caption for case in cases]}
    )
    table.to_excel(folder / f"{folder.name.removesuffix('_Folder')}_text.xlsx", index=False)
