"""What holds of features for any blocks, steps and batches, and of the cache for any order of use."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import entries, pictures, tiny_features, tiny_unet

from textdiff.base.cache import FeatureCache
from textdiff.models.features import DiffusionFeatures

UNET = tiny_unet()
IMAGES = pictures(5)
PLAIN = tiny_features()
with torch.no_grad():
    EXPECTED = PLAIN(IMAGES)

blocks = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)
steps = st.lists(st.integers(0, 999), min_size=1, max_size=3, unique=True)


@settings(max_examples=15, deadline=None)
@given(blocks, steps, st.integers(1, 2), st.integers(2, 8), st.integers(2, 8))
def test_announced_and_real_shapes_agree(blocks, steps, batch, half_height, half_width):
    features = DiffusionFeatures(UNET, blocks, steps)
    maps = features(torch.zeros(batch, 3, 2 * half_height, 2 * half_width))
    expected = [
        (batch, c, 2 * half_height // s, 2 * half_width // s)
        for c, s in zip(features.channels, features.strides, strict=True)
    ]
    assert [tuple(h.shape) for h in maps] == expected


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=4), st.booleans())
def test_whatever_was_cached_before_an_image_has_the_same_maps(batches, room_for_all):
    """Batches in any order, with repetitions, with a cache that holds all or hardly more than one entry."""
    with tempfile.TemporaryDirectory() as folder:
        entry = sum(h[0].numel() * 4 for h in EXPECTED)
        cache = FeatureCache(folder, max_bytes=10 * entry if room_for_all else 1.5 * entry)
        features = DiffusionFeatures(PLAIN.unet, PLAIN.blocks, PLAIN.steps, cache=cache)
        for batch in batches:
            for got, expected in zip(features(IMAGES[batch]), EXPECTED, strict=True):
                torch.testing.assert_close(got, expected[batch], rtol=1e-4, atol=1e-4)
        assert len(entries(Path(folder))) == (len(set(sum(batches, []))) if room_for_all else 1)
