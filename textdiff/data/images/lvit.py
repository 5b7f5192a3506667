"""LViT's folder layout: `img/`, `labelcol/` and `*_text.xlsx` of a split in, a list of `Case` out, and back.

Takes the data sets as published (LViT, papers: Li et al. 2023): images and masks of different file types
(MoNuSeg's test images are tif, its masks png), masks called `mask_<image>` (QaTa-COV19), sentences keyed by
the mask's name, names that differ in letter case between files and table, and the two text columns in any
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from textdiff.data.cases import ON_ERROR, Case, complain, picture_size

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


def _pictures(folder: Path, what: str) -> dict[str, Path]:
    found = find_entry(folder, what)
    if found is None or not found.is_dir():
        raise FileNotFoundError(f"{folder}: no folder {what!r}; LViT's layout is img/, labelcol/ and one *_text.xlsx")
    pictures: dict[str, Path] = {}
    for path in sorted(found.iterdir()):
        if path.suffix.lower() not in PICTURE_SUFFIXES or path.name.startswith("."):
            continue
        key = match_key(path.name)
        if key not in pictures:
            pictures[key] = path
        elif pictures[key].read_bytes() != path.read_bytes():
            raise ValueError(
                f"{found}: {pictures[key].name} and {path.name} are different files for one case ({key!r})"
            )
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


def read_text(folder: Path, on_error: str = "raise") -> dict[str, str]:
    """Read the sentences of a split, {match_key: sentence}, from its *_text.xlsx (or its only .xlsx).

    The columns `Image` and `Description` may stand in any order and letter case. Raises FileNotFoundError
    without a table; ValueError for a missing column, an empty sentence, or a second row for one image. With
    `on_error="skip"` bad rows are left out with a warning (of two rows for one image: both).
    """
    table, frame = _read_table(folder)
    captions: dict[str, str] = {}
    twice: set[str] = set()
    for row, (image, description) in enumerate(frame, start=2):
        key, caption = match_key(image), description.strip()
        if not key and not caption:
            continue
        if not caption:
            complain(f"{table}, row {row}: empty caption for {image!r}", on_error)
        elif not key:
            complain(f"{table}, row {row}: empty file name in column 'Image'", on_error)
        elif key in captions:
            complain(f"{table}, row {row}: second caption for {image!r}; every image needs one row", on_error)
            twice.add(key)
        else:
            captions[key] = caption
    return {key: caption for key, caption in captions.items() if key not in twice}


def _check_sizes(image_path: Path, mask_path: Path) -> None:
    """By their headers alone."""
    image, mask = picture_size(image_path), picture_size(mask_path)
    if image != mask:
        raise ValueError(
            f"{image_path} is {image[0]}x{image[1]} but {mask_path} is {mask[0]}x{mask[1]} "
            "(height x width); they must be equal"
        )


def read_split(folder: str | Path, on_error: str = "raise") -> list[Case]:
    """Read one split folder of LViT's layout, sorted by name.

    Args:
        folder: for example `MoNuSeg/Train_Folder`.
        on_error: "raise" stops at the first bad case. "skip" warns, naming the file, and leaves the case
            out; every picture is then decoded once, so that later reading cannot meet a broken one. With
            "raise" only the headers are read here, and a file broken further in is named when the case is
            used.

    Returns cases named by the image file's stem. Raises FileNotFoundError or ValueError that name the file
    and what is wrong: missing mask, caption or column, two captions for one image, an empty caption, unequal
    sizes, an unreadable file.
    """
    folder = Path(folder)
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {ON_ERROR}, got {on_error!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"no such split folder: {folder}")
    images, masks, captions = (
        _pictures(folder, "img"),
        _pictures(folder, "labelcol"),
        read_text(folder, on_error),
    )
    for key in sorted(captions.keys() - images.keys()):
        complain(
            f"{folder}: the text table has a row for {key!r} but there is no such image",
            on_error,
            FileNotFoundError,
        )
    cases = []
    for key, image in sorted(images.items()):
        if key not in masks:
            complain(f"{image}: no mask of that name in {folder / 'labelcol'}", on_error, FileNotFoundError)
            continue
        if key not in captions:
            complain(f"{image}: no caption in the text table of {folder}", on_error)
            continue
        case = Case(name=image.stem, caption=captions[key], image_path=image, mask_path=masks[key])
        try:
            _check_sizes(image, masks[key])
            if on_error == "skip":
                case.pair()
        except (ValueError, OSError) as error:
            complain(str(error), on_error)
            continue
        cases.append(case)
    if not cases:
        raise ValueError(f"{folder}: no usable case (image, mask and caption) found")
    return cases


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
