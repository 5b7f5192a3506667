"""Shared fixtures: the built book; the folder of the real data sets, or a skip that says why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)  # a busy machine is no fault
settings.load_profile("house")
REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def html() -> Path:
    """Folder of the built book; notebooks that have not changed are not run again."""
    import build_book  # here: the other tests need none of what it imports

    return build_book.build().parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder that holds MoNuSeg/ and QaTa-COV19/: TEXTDIFF_DATA, else ../shared/data beside the checkout."""
    value = os.environ.get("TEXTDIFF_DATA", "").strip()
    root = Path(value) if value else REPO.parent / "shared" / "data"
    if not (root / "MoNuSeg").is_dir():
        pytest.skip(f"no real data: {root / 'MoNuSeg'} is absent (set TEXTDIFF_DATA)")
    return root


@pytest.fixture(scope="session")
def monuseg_root(data_root: Path) -> Path:
    return data_root / "MoNuSeg"


@pytest.fixture(scope="session")
def qata_root(data_root: Path) -> Path:
    root = data_root / "QaTa-COV19"
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is absent (set TEXTDIFF_DATA)")
    return root
