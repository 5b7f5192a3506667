"""LViT's folder layout: `img/`, `labelcol/` and a text table of a split in, a list of `Case` out, and back.

Takes the data sets as published (LViT, papers: Li et al. 2023): images and masks of different file types (MoNuSeg's
test images are tif, its masks png), masks called `mask_<image>` (QaTa-COV19), sentences keyed by the mask's name, names
that differ in letter case between files and table, and the two text columns in any order.
"""

from __future__ import annotations

import difflib
import filecmp
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from textdiff.data.cases import Case
from textdiff.data.faults import Fault, settle
from textdiff.data.images.pictures import PICTURE_SUFFIXES, picture_frame
from textdiff.data.images.tables import TABLE_SUFFIXES, plain, read_table, shown

UNSEEN = {"thumbs.db", "desktop.ini"}  # what systems leave in folders, beside hidden files


def match_key(file_name: str) -> str:
    """What image, mask and table row share: the name in lower case without folder, suffix or `mask_`.

    Names that look alike are alike: accents in one or two characters, spaces of any kind, invisible characters, and the
    quotes and dashes that a text program puts.
    """
    name = plain(file_name).replace("\\", "/").rsplit("/", 1)[-1].lower()
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix}" in PICTURE_SUFFIXES:
        name = stem
    return name.removeprefix("mask_").strip()


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
    left: list[Path] = []
    for path in sorted(found.iterdir()):
        if path.name.startswith(".") or path.name.lower() in UNSEEN:
            continue
        if path.suffix.lower() not in PICTURE_SUFFIXES or path.is_dir():
            left.append(path)
            continue
        key = match_key(path.name)
        if key not in pictures:
            pictures[key] = path
        elif not filecmp.cmp(pictures[key], path, shallow=False):
            said = f"{found}: {shown(pictures[key].name)} and {shown(path.name)} are different files for one case ({key!r})"
            faults.append(Fault(said, key, str(path), "rename or remove one"))
    if left:
        kinds = Counter("folders" if path.is_dir() else path.suffix.lower() or "no suffix" for path in left)
        counts = ", ".join(f"{kind}: {count}" for kind, count in kinds.items())
        said = f"{found}: {len(left)} entries are no pictures that can be read, and left out ({counts})"
        faults.append(Fault(said, file=str(found), warning=True))
    return pictures


def _find_table(folder: Path) -> Path:
    """The text table of a split: called *_text, or the only one."""
    tables = [
        p for p in sorted(folder.iterdir()) if p.suffix.lower() in TABLE_SUFFIXES and not p.name.startswith(("~$", "."))
    ]
    named = [p for p in tables if p.stem.lower().endswith("_text")]
    if len(named or tables) != 1:
        raise FileNotFoundError(
            f"{folder}: expected one *_text.xlsx (or .csv, .tsv), found {[p.name for p in named or tables] or 'none'}"
        )
    return (named or tables)[0]


def read_text(folder: Path, faults: list[Fault] | None = None) -> dict[str, str]:
    """Read the sentences of a split, {match_key: sentence}, from its *_text.xlsx, .csv or .tsv (or its only table).

    The columns `Image` and `Description` may stand in any order and letter case, on any one sheet. faults: as `read_split`
    takes them. Raises FileNotFoundError without a table; ValueError for a missing column, an empty sentence, or a second row
    for one image.
    """
    table, found = _find_table(folder), []
    captions: dict[str, str] = {}
    for row, (image, description) in read_table(table, ("Image", "Description")):
        key, caption = match_key(image), plain(description)
        if not key and not caption:
            continue
        if wrong := _wrong_row(image, key, caption, captions):
            found.append(Fault(f"{table}, row {row}: {wrong}", key, str(table), "correct the row"))
        if key:
            captions.setdefault(key, caption)
    if faults is None:
        settle(found, str(folder))
    else:
        faults += found
    return captions


def _wrong_row(image: str, key: str, caption: str, before: Mapping[str, str]) -> str:
    """What is wrong with a row of the table; "" where nothing is."""
    if not caption:
        return f"empty caption for {shown(image)} (merged cells and formulas without a saved value are empty)"
    if not key:
        return "empty file name in column 'Image'"
    if caption.startswith("#") and caption.rstrip("!?").isupper():
        return f"the caption for {shown(image)} is a spreadsheet's error, {caption!r}"
    return f"second caption for {shown(image)}; every image needs one row" if key in before else ""


def read_split(folder: str | Path, num_classes: int | None = 2, faults: list[Fault] | None = None) -> list[Case]:
    """Read one split folder of LViT's layout, such as `MoNuSeg/Train_Folder`, sorted by name.

    Of images only the headers are read here; one broken further in is named when the case is used. Masks are read whole, and
    their values must be those of `num_classes` classes, background included; None leaves them for later.

    faults: a list to which everything that is wrong is added, in place of an error for the first; then the other cases are
    returned, and no picture is opened.

    Returns cases named by the image file's stem. Warns of what is left out, with its count, and of masks whose EXIF
    orientation is another than their image's. Raises FileNotFoundError or ValueError that name the file and what is wrong:
    missing mask, caption or column, two captions for one image, an empty caption, unequal sizes, an unreadable file, a mask
    with other values.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such split folder: {folder}")
    found: list[Fault] = []
    images, masks = _pictures(folder, "img", found), _pictures(folder, "labelcol", found)
    cases = _matched(folder, images, masks, read_text(folder, found), found)
    if faults is None:
        _look_at(folder, cases, num_classes, found)
        settle(found, str(folder))
    else:
        faults += found
    if not cases and all(fault.warning for fault in found):
        raise ValueError(f"{folder}: no usable case (image, mask and caption) found")
    return cases


def _matched(
    folder: Path, images: dict[str, Path], masks: dict[str, Path], captions: dict[str, str], faults: list[Fault]
) -> list[Case]:
    """Cases that have image, mask and caption; what lacks one of them is a fault, masks without an image are counted."""
    for key in sorted(captions.keys() - images.keys()):
        near = _near(key, images, captions)
        said = f"{folder}: the text table has a row for {shown(key)} but there is no such image{near}"
        faults.append(Fault(said, key, str(folder), "" if near else "bring it, or remove the row", missing=True))
    cases = []
    for key, image in sorted(images.items()):
        if key not in masks:
            near = _near(key, masks, images)
            said = f"{image}: no mask of that name in {folder / 'labelcol'}{near}"
            faults.append(
                Fault(said, key, str(image), "" if near else "bring it, or move the image away", missing=True)
            )
        elif key not in captions:
            said = f"{image}: no caption in the text table of {folder}"
            faults.append(Fault(said, key, str(image), "add a row to the table"))
        elif captions[key]:
            cases.append(Case(name=image.stem, caption=captions[key], image_path=image, mask_path=masks[key]))
    alone = [masks[key].name for key in sorted(masks.keys() - images.keys())]
    _note(folder, "masks have no image, and are left out", alone, faults)
    return cases


def _look_at(folder: Path, cases: Sequence[Case], num_classes: int | None, faults: list[Fault]) -> None:
    """Adds what is wrong with the sizes of images and masks, by their headers, and with the values of masks."""
    turned = []
    for case in cases:
        assert case.image_path is not None and case.mask_path is not None
        try:
            if _check_frames(case.image_path, case.mask_path):
                turned.append(case.image_path.name)
            if num_classes is not None:
                case.mask(num_classes)
        except (ValueError, FileNotFoundError) as error:
            missing = isinstance(error, FileNotFoundError)
            faults.append(Fault(str(error), case.name, str(case.mask_path), missing=missing))
    said = "images and their masks have different EXIF orientations: each is turned as its own says"
    _note(folder, said, turned, faults)


def _check_frames(image: Path, mask: Path) -> bool:
    """Whether the orientations of image and mask differ; raises ValueError where the upright sizes do."""
    (size, turn), (mask_size, mask_turn) = picture_frame(image), picture_frame(mask)
    if size != mask_size:
        said = f" once upright (EXIF orientations {turn} and {mask_turn})" if turn != mask_turn else ""
        raise ValueError(
            f"{image} is {size[0]}x{size[1]} but {mask} is {mask_size[0]}x{mask_size[1]} (height x width){said}; "
            "they must be equal"
        )
    return turn != mask_turn


def _note(folder: Path, said: str, names: Sequence[str], faults: list[Fault]) -> None:
    """A warning with the number and the first of `names`, if there are any."""
    if names:
        text = f"{folder}: {len(names)} {said} (for example {shown(names[0])})"
        faults.append(Fault(text, file=str(folder), warning=True))


def _near(key: str, there: Mapping[str, Path], taken: Iterable[str]) -> str:
    """The name that may have been meant: a number without the zeros that a spreadsheet drops, or a similar one."""
    free = sorted(there.keys() - set(taken))
    zeros = [name for name in free if name.lstrip("0") == key.removesuffix(".0").lstrip("0")]
    if zeros:
        name = there[zeros[0]].name
        return f"; there is {shown(name)}: format the column as text, so that the spreadsheet keeps zeros"
    similar = difflib.get_close_matches(key, free, 1)
    return f"; there is {shown(there[similar[0]].name)}" if similar else ""


def write_split(folder: str | Path, cases: Sequence[Case]) -> None:
    """Write cases as one split of LViT's layout, such as `mine/Train_Folder`, which `read_split` reads.

    Pictures and masks become PNG files named after the cases; a mask of two classes holds 0 and 255, one of more its labels.
    Raises ValueError for names that `read_split` would take for one case.
    """
    import pandas as pd
    from PIL import Image

    folder = Path(folder)
    for key, count in Counter(match_key(f"{case.name}.png") for case in cases).items():
        if count > 1:
            raise ValueError(f"{count} cases have one name, {key!r} (letter case and a prefix mask_ are no difference)")
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
    with pd.ExcelWriter(folder / f"{folder.name.removesuffix('_Folder')}_text.xlsx", engine="openpyxl") as book:
        table.to_excel(book, index=False)
        for cell in (cell for row in book.book.active.rows for cell in row):
            cell.data_type = "s"  # a sentence that begins with = is no formula
