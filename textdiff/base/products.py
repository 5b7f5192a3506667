"""A linear layer's product of matrices, by the fastest routine at hand. In: pixels, weights, bias. Out: the product.

On processors torch multiplies float32 matrices by MKL, which leaves half of an AMD processor idle; oneDNN, whose
convolutions torch uses anyway, does not (twice as fast there, measured in notebook 30). torch offers it without gradients
only, under a private name: they are written here, and where the name is missing MKL does the work.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEWEST = 2**22  # multiplications below which the detour costs more than it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [..., C]`` times ``weight [K, C]`` plus ``bias [K]``: ``[..., K]``, as :func:`torch.nn.functional.linear`."""
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32
    if plain or not ONEDNN or torch.is_autocast_enabled("cpu") or x.numel() * len(weight) < FEWEST:
        return F.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


def linear_of_each(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As :func:`linear`, with matrices of its own for each member of the batch: ``[B, N, C]``, ``[B, K, C]``, ``[K]``."""
    if len(x) == 1:
        return linear(x, weight[0], bias)
    product = torch.bmm(x, weight.transpose(1, 2).to(x.dtype))
    return product if bias is None else product + bias.to(product.dtype)


def pixelwise(conv: nn.Module, h: Tensor) -> Tensor:
    """A convolution whose kernel is one pixel, as a product of matrices: ``[B, C, *space]`` -> ``[B, K, *space]``, channels last."""
    weight, bias = (getattr(conv, name) for name in ("weight", "bias"))
    return linear(h.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        return (
            _product(grad, weight.T) if for_x else None,
            _product(grad.T, x.T) if for_weight else None,
            grad.sum(dim=0) if for_bias else None,
        )
