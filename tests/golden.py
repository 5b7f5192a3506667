"""Reference numbers: where they lie, and the generator of weights and inputs that both sides share."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(os.environ.get("TEXTDIFF_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden"))
LOCAL = Path(__file__).parent / "golden_arrays"


def find(name: str) -> Path:
    """The golden file ``name``, from this folder or from TEXTDIFF_GOLDEN; skips the test where it is in neither."""
    for folder in (LOCAL, GOLDEN):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"golden numbers not here: {name} (set TEXTDIFF_GOLDEN to their folder)")


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(find(name)) as file:
        return {key: file[key] for key in file.files}


def description(name: str) -> dict:
    return json.loads(find(name).read_text())


def parameter(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The value of a parameter or buffer, generated from its own name (the golden files' convention)."""
    normal = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_var"):
        return torch.from_numpy((1 + 0.1 * np.abs(normal)).astype(np.float32))
    if len(shape) == 1:
        return torch.from_numpy(((1.0 if key.endswith("weight") else 0.0) + 0.1 * normal).astype(np.float32))
    return torch.from_numpy((normal / np.sqrt(np.prod(shape[1:]))).astype(np.float32))


def data(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The input called ``name``."""
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32))


def state(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {key: parameter(key, tuple(shape)) for key, shape in shapes.items()}


def assert_close(ours: torch.Tensor, reference: np.ndarray, tolerance: float = 1e-4) -> None:
    """Largest difference relative to the reference's standard deviation."""
    reference = torch.from_numpy(reference)
    error = (ours.detach().float().cpu() - reference).abs().max() / reference.std()
    assert error < tolerance, f"largest relative difference {error:.2e}"
