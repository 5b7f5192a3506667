"""Data sets by name: `load_dataset(name)` gives a `Dataset` of pictures, `load_volumes(name)` a `VolumeDataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textdiff.data.cases import Case, Dataset
from textdiff.data.entries import DatasetEntry
from textdiff.data.registry import dataset
from textdiff.data.splits import FIRST_INDEX, SPLITS, check_sizes

__all__ = ["Case", "Dataset", "load_dataset", "load_volumes"]

PHANTOM_SIZES = (60, 20, 40)


def __getattr__(name: str) -> Any:
    if name == "load_volumes":  # 2D work goes without the libraries of 3D
        from textdiff.data.volumes.layouts import load_volumes

        return load_volumes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_dataset(
    name: str,
    root: str | Path | None = None,
    seed: int = 0,
    sizes: tuple[int, int, int] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Load a data set of images by its name in the registry.

    Args:
        name: "monuseg", "qata" (real, LViT's folder layout), "nuclei_phantoms", "chest_phantoms"
            (synthetic), or one of your own (`textdiff.data.registry`).
        root: folder with Train_Folder, Val_Folder and Test_Folder; default: found under
            `textdiff.base.paths.data_dir()`.
        seed: seed of the phantoms.
        sizes: (train, val, test) numbers of phantoms, default (60, 20, 40). Synthetic sets only.
        image_size: side of the phantoms in pixels. Synthetic sets only.

    Returns a Dataset. Its unlabelled cases are all training images without masks (QaTa: with
    Train_Extra_Folder if present).
    Raises ValueError for an unknown name or an argument that does not apply; FileNotFoundError when the data
    are not there.
    """
    entry = dataset(name, "images")
    if entry.synthetic:
        return _load_phantoms(entry, seed, sizes or PHANTOM_SIZES, image_size)
    if sizes is not None or image_size is not None:
        raise ValueError(f"sizes and image_size are for synthetic data sets; {name!r} is real")
    return _load_real(entry, root)


def _load_real(entry: DatasetEntry, root: str | Path | None) -> Dataset:
    from textdiff.data.images.lvit import find_entry, read_split

    folder = Path(root) if root is not None else entry.folder()
    if not folder.is_dir():
        raise FileNotFoundError(f"no such data set folder: {folder}")
    splits = {}
    for split in SPLITS:
        wanted = f"{split.capitalize()}_Folder"
        splits[split] = read_split(find_entry(folder, wanted) or folder / wanted)
    extra_folder = find_entry(folder, "Train_Extra_Folder")
    extra = read_split(extra_folder) if extra_folder else []
    unlabelled = sorted(splits["train"] + extra, key=lambda case: case.name)
    return _dataset(entry, splits, unlabelled)


def _load_phantoms(entry: DatasetEntry, seed: int, sizes: tuple[int, int, int], image_size: int | None) -> Dataset:
    from textdiff.data.images import phantoms

    check_sizes(sizes)
    make = getattr(phantoms, entry.name)
    options = {} if image_size is None else {"size": image_size}
    splits = {split: make(n, seed, start=FIRST_INDEX[split], **options) for split, n in zip(SPLITS, sizes, strict=True)}
    return _dataset(entry, splits, splits["train"])


def _dataset(entry: DatasetEntry, splits: dict[str, list[Case]], unlabelled: list[Case]) -> Dataset:
    return Dataset(
        entry.name,
        **splits,
        unlabelled=[case.without_mask() for case in unlabelled],
        class_names=entry.class_names,
        synthetic=entry.synthetic,
        licence=entry.licence,
    )
