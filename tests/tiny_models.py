"""Networks and cases small enough for a test, with random weights in every layer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from textdiff import DiffusionFeatures, TextDiff, TextDiffHead, TextEncoder, UNet
from textdiff.base.slots import SlotFile
from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec
from textdiff.models.textdiff import HeadSpec

ARCHITECTURE = dict(
    image_size=16,
    in_channels=3,
    model_channels=32,
    out_channels=3,
    num_res_blocks=1,
    attention_resolutions=(2,),
    channel_mult=(1, 2),
    num_head_channels=32,
    use_scale_shift_norm=True,
    resblock_updown=True,
)
SMALL_HEAD = dict(dim=16, hidden=(8, 8), num_heads=2, head_dim=8)


def tiny_unet(seed: int = 0, **changes: object) -> UNet:
    """Four decoder blocks, channels 64, 64, 32, 32, strides 2, 1, 1, 1. No branch is zero, as some are in a fresh network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet(**{**ARCHITECTURE, **changes})
        for parameter in unet.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
    return unet.eval()


def tiny_features(seed: int = 0, **changes: object) -> DiffusionFeatures:
    return DiffusionFeatures(tiny_unet(seed), **{"blocks": (0, 2), "steps": (50, 250), **changes})


def tiny_head(channels: tuple[int, ...], text_dim: int = 10, num_classes: int = 2, **changes: object) -> TextDiffHead:
    """A small head; ``changes`` are settings of :class:`HeadSpec`."""
    return TextDiffHead(channels, text_dim, num_classes, HeadSpec(**{**SMALL_HEAD, **changes}))


def tiny_textdiff(text: TextEncoder | None, seed: int = 0, **changes: object) -> TextDiff:
    """A small TextDiff; ``changes`` are its arguments, and settings of its head (:class:`HeadSpec`) and image."""
    options = {"image_size": 16, **SMALL_HEAD, **changes}
    kinds = {"head": HeadSpec, "image": ImageSpec}
    specs = {
        name: kind(
            **{
                one.name: options.pop(one.name)
                for one in fields(kind)
                if one.name in options and one.name != "num_classes"
            }
        )
        for name, kind in kinds.items()
        if name not in options
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        features = options.pop("features", None) or tiny_features()
        return TextDiff(features, text, **specs, **options)


def pictures(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    """``[count, 3, size, size]`` in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def cases(count: int, size: int = 16, caption: str = "The nuclei are evenly distributed.") -> list[Case]:
    """Pictures with a bright square that the mask marks, at another place each."""
    made = []
    for i in range(count):
        draw = np.random.default_rng(i)
        image = draw.integers(0, 100, (size, size, 3), dtype=np.uint8)
        mask = np.zeros((size, size), dtype=np.uint8)
        top, left = draw.integers(0, size // 2, 2)
        mask[top : top + size // 2, left : left + size // 2] = 1
        image[mask == 1] += 120
        made.append(Case(f"case{i}", caption, image_array=image, mask_array=mask))
    return made


def entries(folder: Path) -> list[str]:
    """Keys of the whole cache entries in ``folder``."""
    files = [SlotFile(path) for path in folder.rglob("*.maps")]
    for file in files:
        file.scan()
    return sorted(key for file in files for key in file.slots)
