"""Records of the small grids, on disk."""

import pandas as pd
import pytest

from tests.unit.report import little


@pytest.fixture
def images(tmp_path) -> pd.DataFrame:
    return little.image_records(tmp_path)


@pytest.fixture
def volumes(tmp_path) -> pd.DataFrame:
    return little.volume_records(tmp_path)


@pytest.fixture
def none() -> pd.DataFrame:
    """What `load_records` gives where there is no record."""
    return pd.DataFrame(columns=["run_id", "experiment", "folder", "source", "stale"])
