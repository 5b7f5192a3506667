"""QaTa-COV19 as SGSeg's repository holds it in, LViT's folder layout out.

In: images/<split>/{images,masks} and prompts/annotation.json. Every caption, and a sample of the pictures, is verified; file
names in it are names and no paths.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textdiff.base.limits import need_bytes
from textdiff.data.archives import own_file, plain_name
from textdiff.data.cases import picture_size
from textdiff.data.download import FetchError, verify
from textdiff.data.images.lvit import match_key

LVIT_SPLITS = {"train": "Train", "valid": "Val", "test": "Test"}


def convert(root: Path, stage: Path, manifest: Mapping[str, Any], as_recorded: bool = False) -> None:
    """Write the data set at `root` to `stage` in LViT's layout.

    Args:
        manifest: {"cases": {split: number}, "captions_sha256": {split: hex}, "rows_sha256": {split: [first 12 digits]},
            "recorded": {split: number}, "files": {path: what `verify` takes}}. Where only some rows of a split are known, the
            others have no caption that no known row has.
        as_recorded: only the films of the published records: of a split the "recorded" first ones by the SHA-1 of the mask's
            file name, else the rows that are known. The other training films go into Train_Extra_Folder, to be unlabelled.

    Raises FetchError that names the split or the file which is not as the manifest says.
    """
    import pandas as pd

    rows = _read_captions(root / "prompts" / "annotation.json", root, manifest)
    known = {path.lower(): expected for path, expected in manifest["files"].items()}
    for split, lvit_split in LVIT_SPLITS.items():
        parts = {lvit_split: rows[split]}
        if as_recorded:
            parts = {lvit_split: recorded_rows(split, rows[split], manifest)}
            if split == "train":
                parts["Train_Extra"] = sorted(set(rows[split]) - set(parts["Train"]))
        for part, some in parts.items():
            _copy(root, split, some, stage / f"{part}_Folder", known)
            table = pd.DataFrame(some, columns=["Image", "Description"])
            table.to_excel(stage / f"{part}_Folder" / f"{part}_text.xlsx", index=False)


Row = tuple[str, str]


def _copy(root: Path, split: str, rows: Sequence[Row], folder: Path, known: Mapping[str, Any]) -> None:
    """Images and masks of these rows into `img/` and `labelcol/` of a folder, verified where they are `known`."""
    for kind, subfolder in (("images", "img"), ("masks", "labelcol")):
        (folder / subfolder).mkdir(parents=True)
        pictures = _by_key(root / "images" / split / kind)
        for mask_name, _ in rows:
            name = mask_name if kind == "masks" else mask_name.removeprefix("mask_")
            origin = pictures.get(match_key(mask_name))
            if origin is None:
                raise FetchError(f"{root}: missing images/{split}/{kind}/{name}, which the captions name")
            own_file(origin, root)
            verify(origin, known.get(f"images/{split}/{kind}/{name}".lower(), {}), str(root))
            picture_size(origin)
            shutil.copyfile(origin, folder / subfolder / name)


def _read_captions(path: Path, root: Path, manifest: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Split -> rows (mask's file name, caption), as many and the very ones that the manifest knows."""
    try:
        need_bytes(20 * own_file(path, root).stat().st_size, path, "the captions")
        annotation = json.loads(path.read_text(encoding="utf-8"))
        rows = {split: [(row["image_path"], row["caption"] + "") for row in annotation[split]] for split in LVIT_SPLITS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FetchError(f"{path}: cannot read the captions: {error!r}") from error
    for split, some in rows.items():
        names = [match_key(plain_name(name, (".png",), f"{path}, split {split!r}")) for name, _ in some]
        if len(set(names)) < len(names):
            raise FetchError(f"{path}: two captions for one image in split {split!r}")
        if len(some) != (expected := manifest["cases"].get(split, len(some))):
            raise FetchError(f"{path}: {len(some)} captions in split {split!r}, expected {expected}")
    _verify_rows(path, rows, manifest)
    return rows


def recorded_rows(split: str, rows: Sequence[Row], manifest: Mapping[str, Any]) -> list[Row]:
    """The rows of a split that the published records were made with, in the order in which they came."""
    if split in manifest["rows_sha256"]:
        known = set(manifest["rows_sha256"][split])
        return [row for row in rows if _sha256("\t".join(row))[:12] in known]
    first = set(sorted(rows, key=lambda row: hashlib.sha1(row[0].encode()).digest())[: manifest["recorded"][split]])
    return [row for row in rows if row in first]


def _verify_rows(path: Path, rows: Mapping[str, list[Row]], manifest: Mapping[str, Any]) -> None:
    lines = {split: [f"{image}\t{caption}" for image, caption in some] for split, some in rows.items()}
    known: set[str] = set()
    for split, expected in manifest["captions_sha256"].items():
        if (found := _sha256("\n".join(sorted(lines[split])))) != expected:
            raise FetchError(f"{path}: SHA-256 of the captions of split {split!r} is {found}, expected {expected}")
        known |= {caption for _, caption in rows[split]}
    for split, digests in manifest.get("rows_sha256", {}).items():
        by_digest = {_sha256(line)[:12]: row for line, row in zip(lines[split], rows[split], strict=True)}
        if missing := set(digests) - by_digest.keys():
            raise FetchError(
                f"{path}: {len(missing)} rows of split {split!r} are not as published, SHA-256 {min(missing)}"
            )
        known |= {by_digest[digest][1] for digest in digests}
        if new := sorted({caption for _, caption in rows[split]} - known):
            raise FetchError(f"{path}: split {split!r} has a caption that is not published, {ascii(new[0])[:200]}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _by_key(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by key; of names that differ in letter case only, the lower-case one."""
    if not folder.is_dir():
        raise FetchError(f"missing folder {folder}")
    return {match_key(path.name): path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
