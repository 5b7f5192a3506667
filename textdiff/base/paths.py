"""Where things are: environment variables and the checkout go in, folders of data, weights, caches and
results come out.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

# Folder names under which each data set is met in the wild, in order of preference (compared without letter
# case).
DATASET_FOLDERS: dict[str, tuple[str, ...]] = {
    "monuseg": ("MoNuSeg",),
    "qata": ("QaTa-COV19", "QaTa-COV19-v2", "QaTa_COV19", "QaTa"),
    "hippocampus": ("Task04_Hippocampus", "Hippocampus"),
    "liver_tumour": ("Task03_Liver",),
    "pancreas_tumour": ("Task07_Pancreas",),
    "colon_tumour": ("Task10_Colon",),
    "kits19": ("KiTS19",),
    "kits21": ("KiTS21",),
    "kits23": ("KiTS23",),
    "amos": ("AMOS22", "AMOS"),
    "btcv": ("BTCV", "RawData", "Abdomen"),
    "totalsegmentator": ("Totalsegmentator_dataset_v201", "Totalsegmentator_dataset", "TotalSegmentator"),
    "totalsegmentator_mr": ("TotalsegmentatorMRI_dataset_v200", "TotalsegmentatorMRI_dataset", "TotalSegmentatorMR"),
}


def _checkout() -> Path | None:
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() else None


def _folder(variable: str, in_checkout: str, elsewhere: str) -> Path:
    value = os.environ.get(variable, "").strip()
    if value:
        return Path(value).expanduser()
    root = _checkout()
    return root / in_checkout if root else Path.home() / ".cache" / "textdiff" / elsewhere


def data_dir() -> Path:
    """Folder of the data sets: TEXTDIFF_DATA, else `data/` of the checkout, else ~/.cache/textdiff/data."""
    return _folder("TEXTDIFF_DATA", "data", "data")


def weights_dir() -> Path:
    """Folder of downloaded or trained weights: TEXTDIFF_WEIGHTS, else `weights/`, else
    ~/.cache/textdiff/weights.
    """
    return _folder("TEXTDIFF_WEIGHTS", "weights", "weights")


def cache_dir() -> Path:
    """Folder of things that can be made again: TEXTDIFF_CACHE, else ~/.cache/textdiff/cache."""
    value = os.environ.get("TEXTDIFF_CACHE", "").strip()
    return Path(value).expanduser() if value else Path.home() / ".cache" / "textdiff" / "cache"


def results_dir() -> Path:
    """Folder of run records: TEXTDIFF_RESULTS, else `results/runs`, else ~/.cache/textdiff/results/runs."""
    return _folder("TEXTDIFF_RESULTS", "results/runs", "results/runs")


def assets_dir() -> Path:
    """Folder of the files shipped inside the package (small encoder, small backbone)."""
    return PACKAGE / "assets"


def shipped(kind: str) -> Path:
    """Folder of what comes with the package: "weights" (small models), "published" (records), "notebooks" or
    "book" (paper_tables.csv). In a checkout it lies outside the package, in an installed package inside.
    """
    in_checkout = {"weights": "weights", "published": "results/published", "notebooks": "notebooks", "book": "book"}
    if kind not in in_checkout:
        raise ValueError(f"nothing called {kind!r} is shipped; there are {', '.join(in_checkout)}")
    root = _checkout()
    return root / in_checkout[kind] if root else PACKAGE / "shipped" / kind


def find_dataset(name: str) -> Path:
    """Return the folder of a real data set (a key of `DATASET_FOLDERS`) under `data_dir()`.

    Raises:
        ValueError: the name is not a known real data set.
        FileNotFoundError: no such folder; the message names the place looked at and how to bring the data
            there.
    """
    if name not in DATASET_FOLDERS:
        raise ValueError(f"unknown data set {name!r}; known real data sets: {', '.join(DATASET_FOLDERS)}")
    root = data_dir()
    present = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()} if root.is_dir() else {}
    for folder in DATASET_FOLDERS[name]:
        if folder.lower() in present:
            return present[folder.lower()]
    raise FileNotFoundError(
        f"data set {name!r} not found: looked for {' or '.join(DATASET_FOLDERS[name])} in {root}. "
        f"Bring it there with `textdiff fetch {name}`, or set TEXTDIFF_DATA to the folder that holds it."
    )
