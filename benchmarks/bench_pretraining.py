"""Pre-training a 64-channel UNet (24 million parameters) on crops of 128 pixels: steps a second of a plain loop and of ours.

    python -m benchmarks pretraining

The plain loop draws crops and noise one by one on the processor and reads the figures of every step before the next; ours is
`textdiff.training.pretraining.pretrain`. Of both the second half of the steps counts, so that what is compiled or started
only once does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import Build, Once, Row, alternately
from benchmarks.pieces import HE_32, TINY_UNET, new_unet, pictures
from benchmarks.reference import ReferenceUNet, reference_pretraining
from textdiff.data.cases import Case
from textdiff.training.fit import Optimisation
from textdiff.training.pretraining import CropPool, pretrain


@dataclass(frozen=True)
class Sizes:
    unet: dict[str, Any] = field(default_factory=lambda: HE_32 | {"model_channels": 64})
    crop: int = 128
    batch: int = 4
    steps: int = 4
    images: int = 4
    apart: bool = True


QUICK = Sizes()
FULL = Sizes(batch=24, steps=6)
ON_GPU = Sizes(batch=24, steps=400, images=64)
TINY = Sizes(TINY_UNET, 16, 2, 4, 2, False)


def pool(sizes: Sizes) -> CropPool:
    made = pictures(sizes.images, 2 * sizes.crop)[0]
    pixels = ((made.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    cases = [Case(str(k), "", image_array=image) for k, image in enumerate(pixels)]
    return CropPool(cases, 2 * sizes.crop, sizes.crop, (0.5, 1.0))


def reference(sizes: Sizes, device: str) -> Once:
    unet, crops = new_unet(sizes.unet).to(device, memory_format=torch.channels_last), pool(sizes)
    state = {key: value.requires_grad_() for key, value in unet.state_dict().items()}
    function, began = ReferenceUNet(sizes.unet, state), [0.0]

    def batches() -> Iterator[Tensor]:
        for step in range(sizes.steps):
            if step == sizes.steps // 2:
                began[0] = time.perf_counter()
            yield torch.stack([crops.sample(step * sizes.batch + k) for k in range(sizes.batch)])

    def once() -> list[float]:
        reference_pretraining(function, batches())
        return [_rate(sizes, time.perf_counter() - began[0])]

    return once


def ours(sizes: Sizes, device: str) -> Once:
    unet, crops = new_unet(sizes.unet).requires_grad_(True), pool(sizes)
    half = sizes.steps // 2
    how = Optimisation(sizes.steps, sizes.batch, 4e-4, warmup=0, ema_decay=0.999, validate_every=half)

    def once() -> list[float]:
        _, history = pretrain(unet, crops, how, device=device, progress=False)
        first = next(row["seconds"] for row in history if row["step"] == half)
        return [_rate(sizes, history[-1]["seconds"] - first)]

    return once


def _rate(sizes: Sizes, seconds: float) -> float:
    return (sizes.steps - sizes.steps // 2) / seconds


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "pretraining"."""
    sizes = sizes or (ON_GPU if device == "cuda" else QUICK if quick else FULL)
    makers: dict[str, Callable[..., Once]] = {"reference": reference, "ours": ours}
    sides: dict[str, Build] = {side: partial(make, sizes, device) for side, make in makers.items()}
    found = alternately(sides, device, 2, sizes.apart, warm_up=False, count=False)
    note, rows = f"{sizes.batch} crops of {sizes.crop} px", []
    for side, one in found.items():
        rates = [result[0] for result in one.results]
        spread = (min(rates), max(rates))
        rows.append(Row("pretraining", side, "steps/s", max(rates), "steps/s", len(rates), spread, device, note))
        rows += [row for row in one.rows("pretraining", side, device, note) if row.quantity.endswith("MB")]
    return rows
