"""What a head does to feature maps, as fast as it can be done. In: maps. Out: normalised, resized, convolved ones; layers and how they begin.

A convolution of an up-sampled map needs no up-sampled map: bilinear up-sampling acts on every channel alone, a 3x3
convolution is nine 1x1 products, each shifted by a pixel. The products can thus be taken first, on the small map, and what
up-samples and shifts is one matrix for the rows and one for the columns. The numbers are the same to rounding; up-sampled
maps of many channels, and their concatenation, are never made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.products import linear


def resized(h: Tensor, size: Sequence[int]) -> Tensor:
    """``h [B, C, h, w]`` bilinearly at another size (corners not aligned)."""
    if h.shape[-2:] == tuple(size):
        return h
    return F.interpolate(h, size=tuple(size), mode="bilinear", align_corners=False)


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


def normalised(h: Tensor) -> Tensor:
    """Every channel of every image to mean 0 and variance 1, ``[B, C, h, w]``, channels last, in autocast's dtype.

    A small head waits for memory: its first layer would round its input to that dtype anyway.
    """
    (height, width), kind = h.shape[-2:], h.device.type
    if kind == "cpu" and height * width >= 1024:
        # Ten times as fast on channels last; with float32 weights its statistics are float32 too
        ones = torch.ones(h.shape[1])
        h = F.group_norm(h, h.shape[1], ones, torch.zeros_like(ones))
    else:
        h = F.layer_norm(h, (height, width))
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype
    return h.to(dtype, memory_format=torch.channels_last)


def _shifted(small: int, large: int, like: Tensor) -> Tensor:
    """``[3, large, small]``: up-sampling of one axis, seen one pixel before, at, and one after each; zeros beyond the ends."""
    identity = torch.eye(small, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))[None]
    up = F.interpolate(identity, size=large, mode="linear", align_corners=False)[0].T
    padded = F.pad(up, (0, 0, 1, 1))
    return torch.stack([padded[k : k + large] for k in range(3)])


class PositionEncoding(nn.Module):
    """Fourier features of the pixel's place, projected to ``dim`` channels; the same place at every scale and size."""

    FREQUENCIES = (0.5, 1.0, 2.0, 4.0)  # periods of four, two, one and half an image

    def __init__(self, spatial_dims: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * spatial_dims * len(self.FREQUENCIES), dim)

    def forward(self, space: torch.Size, device: torch.device) -> Tensor:
        """``[1, dim, *space]`` for a map of that size."""
        axes = [(torch.arange(size, device=device) + 0.5) / size * 2 - 1 for size in space]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        angles = torch.cat([grid * math.pi * frequency for frequency in self.FREQUENCIES], dim=-1)
        encoded = self.project(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return encoded.movedim(-1, 0)[None]


class ResidualPair(nn.Module):
    """``x + f(x)``, f twice group normalisation, ReLU and a 3x3 convolution; ``[B, dim, h, w]`` to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        halves = [(nn.GroupNorm(min(8, dim), dim), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1)) for _ in range(2)]
        self.body = nn.Sequential(*halves[0], *halves[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def initialise(module: nn.Module) -> None:
    """As the authors': weights N(0, 0.02), biases 0; batch normalisation N(1, 0.02); layer normalisation untouched."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
