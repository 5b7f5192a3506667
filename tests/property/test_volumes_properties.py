from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from textdiff.data.volumes.volume import Volume, from_grid, normalised, to_grid, turned

AXES = ["".join(axes) for letters in permutations(("RL", "AP", "SI")) for axes in product(*letters)]
axes = st.sampled_from(AXES)
shapes = st.tuples(*[st.integers(2, 9)] * 3)
spacings = st.tuples(*[st.floats(0.4, 5.0)] * 3)


def labels(shape, spacing, seed: int, degrees: float = 0.0) -> Volume:
    """Random labels 0..3 in RAS order, the box turned by `degrees` about the long axis of the body."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.array([[c, -s, 0, -40.0], [s, c, 0, 7.0], [0, 0, 1, 900.0], [0, 0, 0, 1]]) @ np.diag([*spacing, 1])
    return Volume(np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8), affine)


def centres(volume: Volume) -> np.ndarray:
    """World places of the voxels of each label, [labels, 3]."""
    index = np.indices(volume.shape).reshape(3, -1)
    world = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    flat = volume.array.reshape(-1)
    return np.array([world[:, flat == k].mean(1) for k in np.unique(flat)])


@given(shape=shapes, spacing=spacings, axes=axes, seed=st.integers(0, 99), degrees=st.floats(-40, 40))
def test_turning_moves_nothing_in_the_world(shape, spacing, axes, seed, degrees):
    volume = labels(shape, spacing, seed, degrees)
    other = turned(volume, axes)
    assert other.axes == axes and other.voxel_ml == pytest.approx(volume.voxel_ml)
    assert np.allclose(centres(other), centres(volume), atol=1e-6)
    assert np.array_equal(turned(other, volume.axes).array, volume.array)


@settings(max_examples=60)
@given(shape=shapes, spacing=spacings, axes=axes, seed=st.integers(0, 99), finer=st.integers(1, 4))
def test_a_grid_several_times_finer_is_lossless_there_and_back(shape, spacing, axes, seed, finer):
    volume = turned(labels(shape, spacing, seed), axes)
    grid = to_grid(volume, tuple(step / finer for step in spacing), "labels")
    assert grid.shape == tuple(finer * n for n in shape)
    assert (grid.array > 0).sum() * grid.voxel_ml == pytest.approx((volume.array > 0).sum() * volume.voxel_ml)
    back = from_grid(grid, volume)
    assert grid.axes == "RAS" and back.axes == axes
    assert np.array_equal(back.array, volume.array) and np.array_equal(back.affine, volume.affine)


@settings(max_examples=25)
@given(shape=shapes, spacing=spacings, new=spacings, axes=axes, kind=st.sampled_from(("image", "labels")))
def test_any_grid_covers_the_same_box_and_invents_nothing(shape, spacing, new, axes, kind):
    volume = turned(labels(shape, spacing, seed=3), axes)
    grid = to_grid(volume, new, kind)
    assert grid.axes == "RAS" and grid.spacing == pytest.approx(new)
    assert volume.array.min() <= grid.array.min() and grid.array.max() <= volume.array.max()
    if kind == "labels":
        assert set(np.unique(grid.array)) <= set(np.unique(volume.array))
    middles = [(v.affine @ [*(np.array(v.shape) - 1) / 2, 1])[:3] for v in (volume, grid)]
    assert middles[1] == pytest.approx(middles[0], abs=1e-6)
    sizes = [np.array(v.shape) * v.spacing for v in (turned(volume), grid)]
    assert (np.abs(sizes[1] - sizes[0]) <= np.maximum(np.array(new) / 2, np.array(new) - sizes[0]) + 1e-6).all()
    back = from_grid(grid, volume)  # never "beyond the grid"
    assert back.shape == volume.shape and back.axes == axes


@given(value=st.floats(-2000, 4000), low=st.floats(-1000, 500), width=st.floats(1, 3000))
def test_a_window_keeps_order_and_bounds(value, low, width):
    assume(low + width > low)
    first, second = normalised(np.array([value, value + 1]), (low, low + width))
    assert -1 - 1e-5 <= first <= second <= 1 + 1e-5
