"""Ways around large maps give the numbers of the plain way: convolution of an up-sampled map, normalisation, pieces."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.models import pieces
from textdiff.models.maps import PositionEncoding, ResidualPair, conv_of_resized, initialise, normalised, resized
from textdiff.models.pieces import in_pieces

SIDES = st.integers(1, 12)


@settings(max_examples=40, deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_a_convolution_of_a_resized_map_needs_no_resized_map(small, large, batch, channels, seed):
    """Of any size to any other, borders included, with the gradients of both inputs."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(batch, channels, *small, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, channels, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    ours, plain = conv_of_resized(h, weight, large), F.conv2d(resized(h, large), weight, padding=1)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    ask = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(ours, (h, weight), ask), torch.autograd.grad(plain, (h, weight), ask), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_large_map_is_never_made(monkeypatch):
    """What is multiplied has the small map's pixels."""
    monkeypatch.setattr("textdiff.models.maps.resized", lambda *given: pytest.fail("the map was resized"))
    assert conv_of_resized(torch.randn(1, 8, 4, 4), torch.randn(2, 8, 3, 3), (32, 32)).shape == (1, 2, 32, 32)


@pytest.mark.parametrize("side", [8, 40])  # below and above where the processor's other way begins
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalised_maps_have_mean_0_and_variance_1(side, dtype):
    h = 3 + 5 * torch.randn(2, 6, side, side, generator=torch.Generator().manual_seed(0))
    found = normalised(h.to(dtype).contiguous(memory_format=torch.channels_last))
    variance, mean = torch.var_mean(h.to(dtype).double(), dim=(2, 3), keepdim=True, correction=0)
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    exact = (h.to(dtype).double() - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(found.double(), exact, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)


@pytest.mark.parametrize("kept", [True, False])
def test_a_map_read_in_pieces_is_the_map(kept, monkeypatch):
    """Whatever is kept for the gradients: values and gradients are those of the whole map, image by image."""
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(pieces, "PIECE", {"cpu": 12})
    monkeypatch.setattr(pieces, "RECOMPUTED", 1000 if kept else 1)
    x = torch.randn(2, 7, 4, generator=generator, requires_grad=True)
    own = torch.randn(2, 1, 4, generator=generator, requires_grad=True)
    seen = []

    def read(h, each):
        seen.append(tuple(h.shape))
        return (h * each).sin()

    ours = in_pieces(read, x, own)
    torch.testing.assert_close(ours, (x * own).sin())
    assert seen == [(1, 3, 4), (1, 3, 4), (1, 1, 4)] * 2
    for one, other in zip(
        torch.autograd.grad(ours.square().sum(), (x, own)),
        torch.autograd.grad((x * own).sin().square().sum(), (x, own)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    assert len(seen) == (6 if kept else 12)


def test_a_place_is_told_by_sines_and_cosines_of_its_coordinates():
    torch.manual_seed(0)
    encoding, (height, width) = PositionEncoding(2, 5), (3, 4)
    found = encoding(torch.Size((height, width)), torch.device("cpu"))
    assert found.shape == (1, 5, height, width)
    for row in range(height):
        for column in range(width):
            place = ((row + 0.5) / height * 2 - 1, (column + 0.5) / width * 2 - 1)
            angles = [math.pi * frequency * one for frequency in (0.5, 1, 2, 4) for one in place]
            features = torch.tensor([math.sin(one) for one in angles] + [math.cos(one) for one in angles])
            torch.testing.assert_close(found[0, :, row, column], encoding.project(features), atol=1e-5, rtol=1e-5)


def test_a_residual_pair_adds_to_what_it_gets():
    pair, x = ResidualPair(8), torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(pair(x), x + pair.body(x))
    torch.nn.init.zeros_(pair.body[-1].weight)
    torch.nn.init.zeros_(pair.body[-1].bias)
    assert torch.equal(pair(x), x)


def test_the_authors_weights_begin_small():
    layers = torch.nn.ModuleList([torch.nn.Linear(100, 100), torch.nn.Conv2d(40, 40, 3), torch.nn.BatchNorm2d(4000)])
    layers.apply(initialise)
    for layer, mean in zip(layers, (0, 0, 1), strict=True):
        assert layer.weight.mean().item() == pytest.approx(mean, abs=2e-3)
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not layer.bias.any()


@pytest.mark.parametrize("side", [8, 40])  # two routines
def test_normalised_maps_have_the_dtype_of_the_layer_that_reads_them(side):
    h = torch.randn(2, 3, side, side) * 4 + 7
    with torch.autocast("cpu", torch.bfloat16):
        assert normalised(h).dtype == torch.bfloat16
    found = normalised(h)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.var(dim=(2, 3), correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)
