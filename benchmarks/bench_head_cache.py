"""What the feature cache saves: an epoch of head training that computes its features, one that fills the cache, one that reads it.

    python -m benchmarks head_cache

An epoch shows every view of every image once, through the model, the loss and the optimiser.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import Build, Once, Row, alternately
from benchmarks.pieces import CAPTION, HE_32, PAPER, Setting, new_text, new_unet, pictures
from benchmarks.pieces import TINY as TINY_SETTING
from textdiff import DiffusionFeatures, TextDiff
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.cache import FeatureCache
from textdiff.data.images.transforms import dihedral
from textdiff.models.losses import DiceCE
from textdiff.models.textdiff import HEADS

COMPACT = Setting(HE_32, (1, 4, 7, 10), head=HEADS["compact"], text="tiny")


@dataclass(frozen=True)
class Sizes:
    """``works``: settings by name, with images, views of each (the symmetries of the square) and images at once."""

    works: tuple[tuple[str, Setting, int, int, int], ...]
    repeats: int = 2
    apart: bool = True


QUICK = Sizes((("compact", COMPACT, 1, 8, 4),))
FULL = Sizes((("compact", COMPACT, 5, 8, 4), ("official", PAPER, 1, 1, 1)), 3)
TINY = Sizes((("compact", TINY_SETTING, 1, 2, 2),), 1, False)


def epoch(setting: Setting, images: int, views: int, batch: int, device: str, kind: str) -> Once:
    """``kind``: "recomputed" has no cache, "filling" an empty one each time, "cached" a full one."""
    keep_freed_memory()  # as training does
    folder = tempfile.TemporaryDirectory()
    features = DiffusionFeatures(new_unet(setting.unet), setting.blocks, setting.steps, precision="bfloat16")
    torch.manual_seed(1)
    model = TextDiff(features, new_text(setting.text), head=setting.head).to(device).train()
    optimiser, criterion = torch.optim.AdamW(model.head.parameters(), lr=1e-3), DiceCE(dice_over="batch")
    made = pictures(images, setting.side)[0]
    seen = torch.cat([dihedral(made, k) for k in range(views)]).to(device)

    def shown() -> Tensor:
        for inputs in seen.split(batch):
            optimiser.zero_grad()
            loss = criterion(model(inputs, [CAPTION] * len(inputs)), (inputs[:, 0] > 0).long())
            loss.backward()
            optimiser.step()
        return loss

    def filling() -> Tensor:
        with tempfile.TemporaryDirectory(dir=folder.name) as empty, features.caching(FeatureCache(Path(empty))):
            return shown()

    if kind == "filling":
        return filling
    if kind == "cached":
        features.cache = FeatureCache(Path(folder.name))
        for inputs in seen.split(batch):
            features.maps(inputs)
    return shown


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "epoch compact" and "epoch official"."""
    sizes = sizes or (QUICK if quick else FULL)
    rows = []
    for name, setting, images, views, batch in sizes.works:
        kinds = ("recomputed", "filling", "cached")
        sides: dict[str, Build] = {kind: partial(epoch, setting, images, views, batch, device, kind) for kind in kinds}
        note = f"{images * views} views of {setting.side} px"
        for side, one in alternately(sides, device, sizes.repeats, sizes.apart).items():
            rows += one.rows(f"epoch {name}", side, device, note)
    return rows
