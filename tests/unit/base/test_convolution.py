"""Convolutions by the quick routine: torch's own numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.base import convolution
from textdiff.base.convolution import conv2d, conv3d

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


@pytest.fixture
def avx2(monkeypatch):
    monkeypatch.setattr(convolution, "AVX2_ALONE", True)


def channels_last(*shape):
    return drawn(*shape).detach().to(memory_format=torch.channels_last).requires_grad_()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 3),
    side=st.tuples(st.integers(1, 40), st.integers(1, 9)),
    strip=st.integers(1, 60),
    widths=st.tuples(st.integers(16, 20), st.integers(16, 20)),
    biased=st.booleans(),
    last=st.booleans(),
)
def test_gradients_by_strips_are_those_of_torch(count, side, strip, widths, biased, last):
    images, weight = channels_last(count, widths[0], *side), drawn(widths[1], widths[0], 3, 3)
    bias = drawn(widths[1]) if biased else None
    leaves = [leaf for leaf in (images, weight, bias) if leaf is not None]
    upstream = drawn(count, widths[1], *side).detach()  # as a later layer gives it: in either layout
    upstream = upstream.to(memory_format=torch.channels_last) if last else upstream
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "AVX2_ALONE", True)
        patch.setattr(convolution, "STRIP", strip)
        ours = conv2d(images, weight, bias, padding=1)
        mine = torch.autograd.grad(ours, leaves, upstream)
    expected = torch.conv2d(images, weight, bias, padding=1)
    assert "_ConvOfStrips" in type(ours.grad_fn).__name__
    assert torch.equal(ours, expected)
    for one, theirs in zip(mine, torch.autograd.grad(expected, leaves, upstream), strict=True):
        torch.testing.assert_close(one, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": 2},
        {"padding": 0},
        {"padding": "same"},
        {"dilation": 2},
        {"weight": (16, 16, 1, 1)},
        {"weight": (8, 16, 3, 3)},
        {"weight": (16, 1, 3, 3), "groups": 16},
        {"images": drawn(2, 16, 6, 6)},
        {"images": channels_last(2, 16, 6, 6).double(), "dtype": torch.float64},
    ],
    ids=str,
)
def test_other_convolutions_in_2d_are_left_to_torch(avx2, changed):
    images = changed.get("images", channels_last(2, 16, 6, 6))
    weight = drawn(*changed.get("weight", (16, 16, 3, 3))).to(changed.get("dtype", torch.float32))
    rest = {"padding": 1} | {
        name: changed[name] for name in changed if name in ("stride", "padding", "dilation", "groups")
    }
    found = conv2d(images, weight, **rest)
    assert "_ConvOfStrips" not in type(found.grad_fn).__name__
    assert torch.equal(found, torch.conv2d(images, weight, **rest))


def test_frozen_weights_and_processors_with_more_units_are_left_to_torch(avx2, monkeypatch):
    images, weight = channels_last(1, 16, 6, 6), drawn(16, 16, 3, 3)
    assert "_ConvOfStrips" in type(conv2d(images, weight, padding=1).grad_fn).__name__
    assert "_ConvOfStrips" not in type(conv2d(images, weight.detach(), padding=1).grad_fn).__name__
    monkeypatch.setattr(convolution, "AVX2_ALONE", False)
    assert "_ConvOfStrips" not in type(conv2d(images, weight, padding=1).grad_fn).__name__
