"""Products of matrices by oneDNN against torch's own: values, gradients, and where the detour is not taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from textdiff.base import products

LARGE = (300, 130, 120)  # pixels, channels, outputs: above the size from which oneDNN is asked


def parts(n: int, c: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=generator, requires_grad=True) for shape in ((2, n, c), (k, c), (k,)))


@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_torch(with_bias):
    found = []
    for linear in (F.linear, products.linear):
        x, weight, bias = parts(*LARGE)
        y = linear(x, weight, bias if with_bias else None)
        asked = [x, weight, *([bias] if with_bias else [])]
        found.append([y.detach(), *torch.autograd.grad(y.sin().sum(), asked)])
    assert 2 * LARGE[0] * LARGE[1] * LARGE[2] > products.FEWEST
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4)


def test_only_what_asks_for_gradients_gets_them():
    x, weight, bias = parts(*LARGE)
    products.linear(x.detach(), weight, bias).sum().backward()
    assert x.grad is None and weight.grad is not None and bias.grad is not None


def test_gradients_of_gradients_are_refused_and_not_wrong():
    x, weight, bias = parts(*LARGE)
    (first,) = torch.autograd.grad(products.linear(x, weight, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


def test_without_onednn_torch_does_the_work(monkeypatch):
    x, weight, bias = parts(*LARGE)
    monkeypatch.setattr(products, "ONEDNN", False)
    torch.testing.assert_close(products.linear(x, weight, bias), F.linear(x, weight, bias), rtol=0, atol=0)


def test_autocast_rounds_as_ever():
    x, weight, bias = parts(*LARGE)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = products.linear(x, weight, bias), F.linear(x, weight, bias)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_image_by_its_own_matrix(batch):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*s, generator=generator) for s in ((batch, 7, 5), (batch, 4, 5), (4,)))
    expected = torch.stack([F.linear(one, own, bias) for one, own in zip(x, weight, strict=True)])
    torch.testing.assert_close(products.linear_of_each(x, weight, bias), expected)


@pytest.mark.parametrize("space", [(6,), (4, 5), (2, 3, 4)])
def test_pixelwise_is_the_convolution_with_a_kernel_of_one(space):
    torch.manual_seed(0)
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(space)](6, 4, 1)
    h = torch.randn(2, 6, *space)
    torch.testing.assert_close(products.pixelwise(conv, h), conv(h))
