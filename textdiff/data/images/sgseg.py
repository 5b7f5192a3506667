"""QaTa-COV19 as SGSeg's repository holds it in, LViT's folder layout out.

In: images/<split>/{images,masks} and prompts/annotation.json. Every caption, and a sample of the pictures, is verified.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textdiff.data.cases import picture_size
from textdiff.data.download import FetchError, verify
from textdiff.data.images.lvit import match_key

LVIT_SPLITS = {"train": "Train", "valid": "Val", "test": "Test"}


def convert(root: Path, stage: Path, manifest: Mapping[str, Any]) -> None:
    """Write the data set at `root` to `stage` in LViT's layout.

    Args:
        manifest: {"cases": {split: number}, "captions_sha256": {split: hex}, "files": {path: what `verify` takes}}.

    Raises FetchError that names the split or the file which is not as the manifest says.
    """
    import pandas as pd

    rows = _read_captions(root / "prompts" / "annotation.json", manifest)
    known = {path.lower(): expected for path, expected in manifest["files"].items()}
    for split, lvit_split in LVIT_SPLITS.items():
        folder = stage / f"{lvit_split}_Folder"
        for kind, subfolder in (("images", "img"), ("masks", "labelcol")):
            (folder / subfolder).mkdir(parents=True)
            pictures = _by_key(root / "images" / split / kind)
            for mask_name, _ in rows[split]:
                name = mask_name if kind == "masks" else mask_name.removeprefix("mask_")
                origin = pictures.get(match_key(mask_name))
                if origin is None:
                    raise FetchError(f"{root}: missing images/{split}/{kind}/{name}, which the captions name")
                verify(origin, known.get(f"images/{split}/{kind}/{name}".lower(), {}), str(root))
                picture_size(origin)
                shutil.copyfile(origin, folder / subfolder / name)
        table = pd.DataFrame(rows[split], columns=["Image", "Description"])
        table.to_excel(folder / f"{lvit_split}_text.xlsx", index=False)


def _read_captions(path: Path, manifest: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Split -> rows (mask's file name, caption), as many and the very ones that the manifest knows."""
    try:
        annotation = json.loads(path.read_text(encoding="utf-8"))
        rows = {split: [(row["image_path"], row["caption"]) for row in annotation[split]] for split in LVIT_SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{path}: cannot read the captions: {error!r}") from error
    for split, expected in manifest["cases"].items():
        if len(rows[split]) != expected:
            raise FetchError(f"{path}: {len(rows[split])} captions in split {split!r}, expected {expected}")
    for split, expected in manifest["captions_sha256"].items():
        lines = "\n".join(sorted(f"{image}\t{caption}" for image, caption in rows[split]))
        if (found := hashlib.sha256(lines.encode()).hexdigest()) != expected:
            raise FetchError(f"{path}: SHA-256 of the captions of split {split!r} is {found}, expected {expected}")
    return rows


def _by_key(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by key; of names that differ in letter case only, the lower-case one."""
    if not folder.is_dir():
        raise FetchError(f"missing folder {folder}")
    return {match_key(path.name): path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
