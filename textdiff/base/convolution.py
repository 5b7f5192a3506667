"""A single volume's 3D convolution without torch's slow way. In: what torch.conv3d takes. Out: what it gives, sooner.

torch computes float32 convolutions of a small single volume by im2col, not by oneDNN (torch 2.13, ``ConvParams::use_mkldnn``),
which forward and backward takes up to six times as long on one core of an AMD EPYC. As a batch of its two halves it is oneDNN's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 20480  # channels x depth x height of a single volume up to which torch takes im2col


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
    stride, padding, dilation = (_three(given) for given in (stride, padding, dilation))
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


def _three(given: int | Sequence[int]) -> tuple[int, ...]:
    return (given,) * 3 if isinstance(given, int) else tuple(given)
