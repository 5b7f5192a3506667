"""Data sets by name: `load_dataset(name)` gives a `Dataset` of pictures, `load_volumes(name)` a `VolumeDataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textdiff.data.cases import Case, Dataset
from textdiff.data.entries import DatasetEntry
from textdiff.data.registry import dataset
from textdiff.data.splits import SPLITS, drawn_splits

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
        name: "monuseg", "qata" (real, LViT's layout), "nuclei_phantoms", "chest_phantoms" (synthetic), or one of your own.
        root: folder with Train_Folder, Val_Folder and Test_Folder; default: found under `textdiff.base.paths.data_dir()`.
        seed: of the draw of a synthetic set.
        sizes: how many (train, val, test) images of a synthetic set are drawn.
        image_size: side of a synthetic set's images, pixels.

    Returns a Dataset. Its unlabelled cases are all training images without masks, with those of Train_Extra_Folder.
    Raises ValueError for an unknown name or an argument that does not apply; FileNotFoundError for absent data.
    """
    entry = dataset(name, "images")
    if entry.synthetic:
        from textdiff.data.images import phantoms

        options = {} if image_size is None else {"size": image_size}
        splits = drawn_splits(getattr(phantoms, entry.name), seed, sizes or PHANTOM_SIZES, **options)
        return Dataset(entry, **splits, unlabelled=[case.without_mask() for case in splits["train"]])
    if sizes is not None or image_size is not None:
        raise ValueError(f"sizes and image_size are for synthetic data sets; {name!r} is real")
    return _load_real(entry, root)


def _load_real(entry: DatasetEntry, root: str | Path | None) -> Dataset:
    from textdiff.data.images.lvit import find_entry, read_split

    folder = Path(root).expanduser() if root is not None else entry.folder()
    if not folder.is_dir():
        raise FileNotFoundError(f"no such data set folder: {folder}")
    splits = {}
    for split in SPLITS:
        wanted = f"{split.capitalize()}_Folder"
        splits[split] = read_split(find_entry(folder, wanted) or folder / wanted, len(entry.class_names))
    extra = find_entry(folder, "Train_Extra_Folder")
    unlabelled = sorted(splits["train"] + (read_split(extra, None) if extra else []), key=lambda case: case.name)
    return Dataset(entry, **splits, unlabelled=[case.without_mask() for case in unlabelled])
