"""Cost against size: seconds and memory of ours against the number of images, pixels, tokens and noise steps.

    python -m benchmarks sizes

A small backbone with the compact head, one quantity varied at a time. The side of a row is the size; that of the last rows is
"slope", of the line through the logarithms: 1 is proportional, 0 does not grow. Images follow each other in batches, so
that memory should not grow with them; every pixel and every noise step has maps of its own that a head reads together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import Build, Once, Row, alternately, slope
from benchmarks.pieces import HE_32, TINY_UNET, new_unet, pictures
from textdiff import DiffusionFeatures
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.precision import mixed_precision
from textdiff.models.textdiff import HEADS, TextDiffHead

BATCH = 4


@dataclass(frozen=True)
class Point:
    """What one prediction is made of; ``side`` in pixels."""

    images: int = 4
    side: int = 128
    tokens: int = 16
    steps: int = 3


@dataclass(frozen=True)
class Sizes:
    unet: dict[str, Any] = field(default_factory=lambda: HE_32)
    blocks: tuple[int, ...] = (1, 4, 7)
    images: tuple[int, ...] = (4, 16, 64)
    sides: tuple[int, ...] = (64, 128, 256)
    tokens: tuple[int, ...] = (16, 64, 256)
    steps: tuple[int, ...] = (1, 3, 9)
    start: Point = Point()
    repeats: int = 2
    apart: bool = True


QUICK = Sizes()
FULL = Sizes(
    images=(4, 8, 16, 32, 64, 128),
    sides=(64, 96, 128, 192, 256, 384, 512),
    tokens=(8, 16, 32, 64, 128, 256, 512),
    steps=(1, 2, 4, 8, 16),
    repeats=3,
)
TINY = Sizes(TINY_UNET, (0, 2), (1, 2), (8, 16), (2, 4), (1, 2), Point(1, 8, 4, 1), 1, False)


def predicting(point: Point, sizes: Sizes, device: str) -> Once:
    """All images, in batches, from pixels and tokens to logits, in bfloat16."""
    keep_freed_memory()  # as prediction does
    steps = tuple(50 + 20 * k for k in range(point.steps))
    features = DiffusionFeatures(new_unet(sizes.unet), sizes.blocks, steps, precision="bfloat16").to(device)
    torch.manual_seed(1)
    head = TextDiffHead(features.channels, 128, 2, HEADS["compact"]).to(device).eval()
    images = pictures(min(BATCH, point.images), point.side)[0].to(device)
    tokens = torch.randn(len(images), point.tokens, 128).to(device)

    @torch.inference_mode()
    def once() -> Tensor:
        for _ in range(-(-point.images // len(images))):
            maps = features.maps(images)
            with mixed_precision(device, "bfloat16"):
                logits = head(maps, tokens, size=(point.side, point.side))
        return logits[0, 0, 0, 0]

    return once


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "size: images", "size: pixels", "size: tokens" and "size: noise steps"."""
    sizes = sizes or (QUICK if quick else FULL)
    axes = {"images": ("images", sizes.images), "pixels": ("side", sizes.sides)}
    axes |= {"tokens": ("tokens", sizes.tokens), "noise steps": ("steps", sizes.steps)}
    rows = []
    for axis, (name, values) in axes.items():
        points = {
            str(value**2 if axis == "pixels" else value): Point(**{**asdict(sizes.start), name: value})
            for value in values
        }
        sides: dict[str, Build] = {size: partial(predicting, point, sizes, device) for size, point in points.items()}
        found = alternately(sides, device, sizes.repeats, sizes.apart)
        here = [row for size, one in found.items() for row in one.rows(f"size: {axis}", size, device)]
        rows += here + [_slope(quantity, here) for quantity in dict.fromkeys(row.quantity for row in here)]
    return rows


def _slope(quantity: str, rows: list[Row]) -> Row:
    of = [row for row in rows if row.quantity == quantity]
    value = slope([float(row.side) for row in of], [row.value for row in of])
    return Row(of[0].work, "slope", quantity, value, "", device=of[0].device, note="of the logarithms")
