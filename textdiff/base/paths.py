"""Where things are: environment variables and the checkout go in, folders of data, weights, caches and results come out."""

from __future__ import annotations

import os
from pathlib import Path

from textdiff.base.parsing import gigabytes

PACKAGE = Path(__file__).resolve().parents[1]


def _checkout() -> Path | None:
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None


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
    """Folder of downloaded or trained weights: TEXTDIFF_WEIGHTS, else `weights/`, else ~/.cache/textdiff/weights."""
    return _folder("TEXTDIFF_WEIGHTS", "weights", "weights")


def cache_dir() -> Path:
    """Folder of things that can be made again: TEXTDIFF_CACHE, else ~/.cache/textdiff/cache."""
    value = os.environ.get("TEXTDIFF_CACHE", "").strip()
    return Path(value).expanduser() if value else Path.home() / ".cache" / "textdiff" / "cache"


def cache_bytes() -> float:
    """What the feature cache may hold: TEXTDIFF_CACHE_GB gigabytes, else 20. Raises ValueError for what is no number above 0."""
    said = gigabytes("TEXTDIFF_CACHE_GB")
    return 20e9 if said is None else said


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
    root = _checkout()
    return root / ("results/published" if kind == "published" else kind) if root else PACKAGE / "shipped" / kind
