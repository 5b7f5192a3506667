"""A convolution of an up-sampled map without the up-sampled map. In: a small map, a kernel, a size. Out: the large result.

Bilinear up-sampling acts on every channel alone, a 3x3 convolution is nine 1x1 products, each shifted by a pixel. The
products can thus be taken first, on the small map, and what up-samples and shifts is one matrix for the rows and one for the
columns. The numbers are the same to rounding; up-sampled maps of many channels, and their concatenation, are never made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.base.products import linear


def resized(h: Tensor, size: tuple[int, int]) -> Tensor:
    """``h [B, C, h, w]`` bilinearly at another size (corners not aligned)."""
    if h.shape[-2:] == size:
        return h
    return F.interpolate(h, size=size, mode="bilinear", align_corners=False)


def conv_of_resized(h: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """``conv2d(resized(h, size), weight, padding=1)``: ``h [B, C, h, w]``, ``weight [K, C, 3, 3]`` -> ``[B, K, *size]``."""
    if h.shape[-2] * h.shape[-1] >= size[0] * size[1]:
        # Weights say the memory format: a batch of one image does not
        return F.conv2d(resized(h, size), weight.contiguous(memory_format=torch.channels_last), padding=1)
    batch, channels, height, width = h.shape
    pixels = h.permute(0, 2, 3, 1)
    rows, columns = (_shifted(small, large, h) for small, large in zip((height, width), size, strict=True))
    total: Tensor | None = None
    for dy in range(3):
        taps = weight[:, :, dy].permute(2, 0, 1).flatten(0, 1)  # [(dx, K), C]
        product = linear(pixels, taps).reshape(batch, height, -1)  # [B, h, (w, dx, K)]
        moved = torch.matmul(rows[dy].to(product.dtype), product)
        total = moved if total is None else total + moved
    assert total is not None
    across = columns.permute(1, 2, 0).flatten(1)  # [X, (w, dx)]
    found = torch.matmul(across.to(total.dtype), total.reshape(batch, size[0], 3 * width, -1))
    return found.permute(0, 3, 1, 2)


def _shifted(small: int, large: int, like: Tensor) -> Tensor:
    """``[3, large, small]``: up-sampling of one axis, seen one pixel before, at, and one after each; zeros beyond the ends."""
    identity = torch.eye(small, device=like.device)[None]
    up = F.interpolate(identity, size=large, mode="linear", align_corners=False)[0].T
    padded = F.pad(up, (0, 0, 1, 1))
    return torch.stack([padded[k : k + large] for k in range(3)])
