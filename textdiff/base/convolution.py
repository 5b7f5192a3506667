"""float32 convolutions without torch's slow ways. In: what torch.conv2d and torch.conv3d take. Out: what they give, sooner.

torch computes those of a small single volume by im2col, not by oneDNN (torch 2.13, ``ConvParams::use_mkldnn``), which forward
and backward takes up to six times as long on one core of an AMD EPYC. As a batch of its two halves it is oneDNN's.

oneDNN computes the weight gradient of images with channels last three times as slowly as its other two products where the
processor has AVX2 alone. As nine products of matrices, a strip of rows at a time, it costs little more than they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

AVX2_ALONE = torch.backends.cpu.get_cpu_capability() == "AVX2"
STRIP = 4096  # pixels whose channels stay in a core's cache
FEWEST_CHANNELS = 16  # of both sides; narrower products leave the units idle
SMALL = 20480  # channels x depth x height of a single volume up to which torch takes im2col


def conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv2d``: images ``[N, C, H, W]``, weight ``[K, C, h, w]`` -> ``[N, K, H', W']``.

    Of 3 x 3 filters that keep the size of images with channels last, the gradient is summed in another order, no more.
    """
    same = [_several(given, 2) for given in (stride, dilation)] == [(1, 1), (1, 1)] and groups == 1
    if not same or isinstance(padding, str) or _several(padding, 2) != (1, 1) or not _slow_gradient(images, weight):
        return torch.conv2d(images, weight, bias, stride, padding, dilation, groups)
    return _ConvOfStrips.apply(images, weight, bias)


def _slow_gradient(images: Tensor, weight: Tensor) -> bool:
    return (
        AVX2_ALONE
        and images.ndim == 4
        and images.dtype == torch.float32
        and images.device.type == "cpu"
        and images.is_contiguous(memory_format=torch.channels_last)
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and torch.is_grad_enabled()
        and weight.requires_grad
    )


class _ConvOfStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        return torch.conv2d(images, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        images, weight = ctx.saved_tensors
        for_images, for_weight, for_bias = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        ones, wanted = (1, 1), (for_images, False, False)
        found = torch.ops.aten.convolution_backward(
            grad, images, weight, None, ones, ones, ones, False, (0, 0), 1, wanted
        )
        return (
            found[0],
            _weight_gradient(images, grad) if for_weight else None,
            grad.sum(dim=(0, 2, 3)) if for_bias else None,
        )


def _weight_gradient(images: Tensor, grad: Tensor) -> Tensor:
    """``[K, C, 3, 3]`` of ``images [N, C, H, W]`` and the gradient of their maps ``[N, K, H, W]``, both with channels last.

    With zeros around a strip of the images, and two columns of zeros beside one of the gradient, a shift of the filter is a shift
    along memory: what a product needs is copied once, not nine times.
    """
    (channels, height, width), line = images.shape[1:], images.shape[3] + 2
    rows = min(height, max(1, STRIP // line))
    around, beside = images.new_zeros(rows + 2, line, channels), grad.new_zeros(rows, line, grad.shape[1])
    total = images.new_zeros(9, grad.shape[1], channels)
    for image, of_image in zip(images.movedim(1, -1), grad.movedim(1, -1), strict=True):
        for top in range(0, height, rows):
            end = min(top + rows, height)
            first, last = max(top - 1, 0), min(end + 1, height)
            around[0] = around[end - top + 1] = 0
            around[first - top + 1 : last - top + 1, 1:-1] = image[first:last]
            beside[: end - top, :width] = of_image[top:end]
            strip = beside.flatten(0, 1)[: (end - top) * line - 2].T
            for tap, product in enumerate(total):
                shift = tap // 3 * line + tap % 3
                product.addmm_(strip, around.flatten(0, 1)[shift : shift + strip.shape[1]])
    return total.unflatten(0, (3, 3)).permute(2, 3, 0, 1)


def conv3d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv3d``: images ``[N, C, D, H, W]``, weight ``[O, C / groups, d, h, w]`` -> ``[N, O, D', H', W']``.

    A small volume alone is cut along its first axis into two that overlap by the filter; sums are in another order, no more.
    """
    if isinstance(padding, str) or not _taken_by_im2col(images, weight, groups):
        return torch.conv3d(images, weight, bias, stride, padding, dilation, groups)
    stride, padding, dilation = (_several(given, 3) for given in (stride, padding, dilation))
    reach = dilation[0] * (weight.shape[2] - 1) + 1
    planes = (images.shape[2] + 2 * padding[0] - reach) // stride[0] + 1
    if planes < 2:
        return torch.conv3d(images, weight, bias, stride, padding, dilation, groups)
    half = (planes + 1) // 2
    start, length = half * stride[0], (half - 1) * stride[0] + reach
    behind = start + length - images.shape[2] - padding[0]
    images = F.pad(images, (0, 0, 0, 0, padding[0], max(behind, padding[0])))
    halves = torch.cat([images[:, :, :length], images[:, :, start : start + length]])
    first, second = torch.conv3d(halves, weight, bias, stride, (0, *padding[1:]), dilation, groups).split(1)
    return torch.cat([first, second[:, :, : planes - half]], dim=2)


def _taken_by_im2col(images: Tensor, weight: Tensor, groups: int) -> bool:
    """Filters of one cell are as quick there; larger ones than 3 x 3, and those in groups, are oneDNN's already."""
    return (
        images.ndim == 5
        and images.shape[0] == 1
        and images.dtype == torch.float32
        and images.device.type == "cpu"
        and images[0, :, :, :, 0].numel() <= SMALL
        and groups == 1
        and max(weight.shape[3:]) > 1
        and min(weight.shape[3:]) <= 3
    )


def _several(given: int | Sequence[int], axes: int) -> tuple[int, ...]:
    return (given,) * axes if isinstance(given, int) else tuple(given)
