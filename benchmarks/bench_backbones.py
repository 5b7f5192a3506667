"""Images a second of the small backbones, each at its own size, against the paper's network at 256 pixels.

    python -m benchmarks backbones --backbones he_32,chest_32,<folder>

What they are worth is in the records of notebooks 15 and 18; here only time is measured. The paper's network has random
weights, which does not change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measuring import Build, Once, Row, alternately
from benchmarks.pieces import PAPER, Setting, new_unet, pictures
from benchmarks.pieces import TINY as TINY_SETTING
from textdiff import DiffusionFeatures
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.parsing import numbers
from textdiff.data import registry
from textdiff.models.store import load_backbone

BACKBONES = "he_32,chest_32"
BIG = "openai_256"


@dataclass(frozen=True)
class Sizes:
    """``setting`` and ``batch`` are those of the big network; ``small_batch`` of the others."""

    setting: Setting = PAPER
    batch: int = 1
    small_batch: int = 4
    repeats: int = 2
    warm_up: bool = True
    apart: bool = True


QUICK = Sizes(warm_up=False)
FULL = Sizes(repeats=5)
ON_GPU = Sizes(batch=8, small_batch=32, repeats=5)
TINY = Sizes(TINY_SETTING, 1, 1, 1, True, False)


def big(setting: Setting, batch: int, device: str, precision: str) -> Once:
    keep_freed_memory()  # as training and prediction do
    features = DiffusionFeatures(new_unet(setting.unet), setting.blocks, setting.steps, precision=precision).to(device)
    return partial(features.maps, pictures(batch, setting.side)[0].to(device))


def small(
    name: str, side: int, blocks: tuple[int, ...], steps: tuple[int, ...], batch: int, device: str, precision: str
) -> Once:
    keep_freed_memory()
    features = DiffusionFeatures(load_backbone(name), blocks, steps, precision=precision).to(device)
    return partial(features.maps, pictures(batch, side)[0].to(device))


def measure(
    quick: bool = True, device: str = "cpu", sizes: Sizes | None = None, backbones: str = BACKBONES
) -> list[Row]:
    """Rows of "backbones" (bfloat16) and "backbones float32". ``backbones``: names or folders, with commas between them."""
    sizes = sizes or (ON_GPU if device == "cuda" else QUICK if quick else FULL)
    names = {Path(name).name: name for name in backbones.split(",")}
    rows = []
    for precision, work in (("bfloat16", "backbones"), ("float32", "backbones float32"))[: 1 if quick else 2]:
        sides: dict[str, Build] = {BIG: partial(big, sizes.setting, sizes.batch, device, precision)}
        for label, name in names.items():
            how = (*tapped(name), sizes.setting.steps, sizes.small_batch, device, precision)
            sides[label] = partial(small, name, *how)
        for label, one in alternately(sides, device, sizes.repeats, sizes.apart, sizes.warm_up).items():
            batch, side = (
                (sizes.batch, sizes.setting.side) if label == BIG else (sizes.small_batch, tapped(names[label])[0])
            )
            note = f"{side} px, {batch} at once"
            rate = Row(work, label, "images/s", batch / one.best, "images/s", sizes.repeats, device=device, note=note)
            rows += [*one.rows(work, label, device, note), rate]
    return rows


def tapped(name: str) -> tuple[int, tuple[int, ...]]:
    """The size that a backbone was made for, and the blocks that are read; of a folder, those of a network like chest_32."""
    about = registry.backbones().get(name, registry.backbones()["chest_32"])
    return about.image_size, numbers(about.blocks[""])
