"""What holds of the cache of feature maps for any dtypes, shapes, bits and order of use."""

from __future__ import annotations

import tempfile

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.base.cache import FeatureCache

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.bool)
layouts = st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(1, 5), min_size=1, max_size=3)), min_size=1)


def bits(dtype: torch.dtype, shape: list[int], number: int) -> torch.Tensor:
    """A map of any bits: nan, infinity and -0 among the numbers."""
    size = torch.empty(shape, dtype=dtype).numel() * dtype.itemsize
    most = 2 if dtype == torch.bool else 256
    drawn = torch.randint(0, most, (size,), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
    return drawn.view(dtype).reshape(shape)


@settings(max_examples=25, deadline=None)
@given(layouts, st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=5), st.booleans())
def test_the_maps_of_an_image_are_the_same_bits_whatever_was_asked_before(layout, batches, room_for_all):
    images = torch.arange(6.0).reshape(6, 1)
    computed = []

    def compute(some: torch.Tensor) -> list[torch.Tensor]:
        computed.extend(int(one) for one in some)
        return [torch.stack([bits(dtype, shape, int(one)) for one in some]) for dtype, shape in layout]

    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            cache = FeatureCache(folder, 20e9 if room_for_all else 9000)  # as a new process does
            for _ in range(2):
                maps = cache.batch("network", images[batch], compute)
                for got, (dtype, shape) in zip(maps, layout, strict=True):
                    expected = torch.stack([bits(dtype, shape, k) for k in batch])
                    assert got.dtype == dtype and got.is_contiguous()
                    assert torch.equal(got.view(torch.uint8), expected.view(torch.uint8))
    if room_for_all:  # twice only where an image comes twice before it is stored
        assert len(computed) <= sum(map(len, batches)) and set(computed) == set(sum(batches, []))
