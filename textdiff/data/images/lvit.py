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


def read_text(folder: Path) -> dict[str, str]:
    """Read the sentences of a split, {match_key: sentence}, from its *_text.xlsx (or its only .xlsx).

    The columns `Image` and `Description` may stand in any order and letter case. Raises FileNotFoundError
    without a table; ValueError for a missing column, an empty sentence, or a second row for one image.
    """
    table, rows = _read_table(folder)
    captions: dict[str, str] = {}
    for row, (image, description) in enumerate(rows, start=2):
        key, caption = match_key(image), description.strip()
        if not key and not caption:
            continue
        if not caption:
            raise ValueError(f"{table}, row {row}: empty caption for {image!r}")
        if not key:
            raise ValueError(f"{table}, row {row}: empty file name in column 'Image'")
        if key in captions:
            raise ValueError(f"{table}, row {row}: second caption for {image!r}; every image needs one row")
        captions[key] = caption
    return captions


def read_split(folder: str | Path) -> list[Case]:
    """Read one split folder of LViT's layout, such as `MoNuSeg/Train_Folder`, sorted by name.

    Only the headers of pictures are read here; a file broken further in is named when the case is used.

    Returns cases named by the image file's stem. Raises FileNotFoundError or ValueError that name the file
    and what is wrong: missing mask, caption or column, two captions for one image, an empty caption, unequal
    sizes, an unreadable file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such split folder: {folder}")
    images, masks, captions = _pictures(folder, "img"), _pictures(folder, "labelcol"), read_text(folder)
    for key in sorted(captions.keys() - images.keys()):
        raise FileNotFoundError(f"{folder}: the text table has a row for {key!r} but there is no such image")
    cases = []
    for key, image in sorted(images.items()):
        if key not in masks:
            raise FileNotFoundError(f"{image}: no mask of that name in {folder / 'labelcol'}")
        if key not in captions:
            raise ValueError(f"{image}: no caption in the text table of {folder}")
        (height, width), (mask_height, mask_width) = picture_size(image), picture_size(masks[key])
        if (height, width) != (mask_height, mask_width):
            raise ValueError(
                f"{image} is {height}x{width} but {masks[key]} is {mask_height}x{mask_width} (height x width); "
                "they must be equal"
            )
        cases.append(Case(name=image.stem, caption=captions[key], image_path=image, mask_path=masks[key]))
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
