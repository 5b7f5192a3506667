"""A convolution in two halves: torch's own numbers, by the quick routine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.base.convolution import conv3d

FILTERS = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)


@settings(max_examples=60, deadline=None)
@given(
    side=st.tuples(st.integers(1, 9), st.integers(3, 7), st.integers(3, 7)),
    size=FILTERS,
    stride=st.integers(1, 3) | FILTERS,
    padding=st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    biased=st.booleans(),
    several=st.booleans(),
)
def test_maps_and_gradients_are_those_of_torch(side, size, stride, padding, dilation, biased, several):
    images, weight = drawn(1 + several, 2, *side), drawn(3, 2, *size)
    bias = drawn(3) if biased else None
    given = (images, weight, bias, stride, padding, dilation)
    try:
        expected = torch.conv3d(*given)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match="(?i)size|greater|padded"):
            conv3d(*given)
        assert "size" in str(error).lower()
        return
    ours = conv3d(*given)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    leaves = [leaf for leaf in (images, weight, bias) if leaf is not None]
    for mine, theirs in zip(
        torch.autograd.grad(ours.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_the_halves_are_onednns_where_the_whole_is_not():
    backend, weight = torch._C._ConvBackend, drawn(4, 4, 3, 3, 3)

    def chosen(images):
        ones = (1, 1, 1)
        return torch._C._select_conv_backend(images, weight, None, ones, ones, ones, False, (0, 0, 0), 1)

    assert chosen(drawn(1, 4, 8, 8, 8)) == backend.Slow3d, "torch needs no help any more"
    assert chosen(drawn(2, 4, 6, 8, 8)) == backend.Mkldnn


@pytest.mark.parametrize(
    ("images", "weight", "rest"),
    [
        ((1, 2, 6, 6, 6), (4, 1, 3, 3, 3), {"groups": 2, "padding": 1}),
        ((1, 2, 6, 6, 6), (4, 2, 3, 3, 3), {"padding": "same"}),
        ((2, 6, 6, 6), (4, 2, 3, 3, 3), {}),
        ((1, 2, 6, 6, 6), (4, 2, 1, 1, 1), {}),
    ],
    ids=["groups", "padding by name", "no batch", "one cell"],
)
def test_what_torch_does_well_is_left_to_it(images, weight, rest):
    images, weight = drawn(*images), drawn(*weight)
    assert torch.equal(conv3d(images, weight, **rest), torch.conv3d(images, weight, **rest))


def test_float64_is_left_to_torch():
    images, weight = drawn(1, 2, 6, 6, 6).double(), drawn(4, 2, 3, 3, 3).double()
    assert torch.equal(conv3d(images, weight), torch.conv3d(images, weight))
