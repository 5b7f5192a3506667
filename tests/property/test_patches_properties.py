"""Patches: the quick ways to signed distances and resampled labels give what their plain definitions give."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from textdiff.data.volumes.patches import sampled_labels, signed_distances

shapes = st.tuples(*[st.integers(1, 12)] * 3)
spacings = st.tuples(*[st.floats(0.4, 6.0)] * 3)


def labels_of(shape, seed: int, classes: int, coarse: int) -> np.ndarray:
    """Blobs of ``coarse`` voxels; with many classes, some are absent."""
    small = np.random.default_rng(seed).integers(0, classes, [-(-side // coarse) for side in shape])
    whole = small.repeat(coarse, 0).repeat(coarse, 1).repeat(coarse, 2)
    return whole[tuple(slice(side) for side in shape)].astype(np.uint8)


@settings(max_examples=40)
@given(
    shape=shapes,
    spacing=spacings,
    seed=st.integers(0, 999),
    classes=st.sampled_from((2, 3, 5, 18)),
    coarse=st.integers(1, 6),
    limit=st.floats(0.3, 15.0),
)
def test_signed_distances_are_those_of_the_whole_transform(shape, spacing, seed, classes, coarse, limit):
    labels = labels_of(shape, seed, classes, coarse)
    found = signed_distances(labels, classes, spacing, limit)
    assert found.shape == (classes - 1, *shape) and found.dtype == np.float32
    for k in range(1, classes):
        inside = labels == k
        if not inside.any() or inside.all():
            expected = np.full(shape, 1.0 if inside.all() else -1.0)
        else:
            outward = distance_transform_edt(~inside, sampling=spacing)
            inward = distance_transform_edt(inside, sampling=spacing)
            expected = np.clip((inward - outward) / limit, -1, 1)
        assert np.allclose(found[k - 1], expected, rtol=0, atol=1e-5)


@settings(max_examples=40)
@given(
    shape=shapes,
    patch=shapes,
    seed=st.integers(0, 999),
    classes=st.sampled_from((2, 3, 5, 18)),
    coarse=st.integers(1, 6),
)
def test_resampled_labels_are_the_largest_of_one_map_per_class(shape, patch, seed, classes, coarse):
    labels = torch.from_numpy(labels_of(shape, seed, classes, coarse))
    grid = torch.rand(1, *patch, 3, generator=torch.Generator().manual_seed(seed)) * 3 - 1.5
    maps = torch.stack([(labels == k).float() for k in range(1, classes)])
    shares = F.grid_sample(maps[None], grid, mode="bilinear", align_corners=False)[0]
    expected = torch.cat([1 - shares.sum(dim=0, keepdim=True), shares]).argmax(dim=0)
    found = sampled_labels(labels, grid, classes)
    assert found.dtype == np.uint8 and np.array_equal(found, expected.numpy())
