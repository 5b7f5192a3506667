"""What several benchmarks are made of: a setting in; the same model twice out, the authors' and ours, with the same weights.

All weights and pictures are random, drawn by a seed: both sides draw the same in their own processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reference import ReferenceHead, ReferenceTextDiff, ReferenceUNet
from textdiff import DiffusionFeatures, TextDiff, TextEncoder, UNet
from textdiff.base.allocator import keep_freed_memory
from textdiff.models.losses import DiceCE
from textdiff.models.store import OPENAI_256
from textdiff.models.textdiff import HEADS, HeadSpec, TextDiffHead

HE_32: dict[str, Any] = {
    "image_size": 64,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 3,
    "num_res_blocks": 2,
    "attention_resolutions": (8,),
    "channel_mult": (1, 2, 3, 4),
    "num_head_channels": 32,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
OFFICIAL_LOSS = DiceCE(1.5, "logits", "batch")
# Longer than what the authors' ten tokens hold: what follows is cut off, whatever it is
CAPTION = "The nuclei in the upper right are densely packed and those in the lower left are not."


@dataclass(frozen=True)
class Setting:
    """A UNet, its taps and a head in the authors' shape. The defaults are the paper's, on MoNuSeg.

    ``text``: "clinical" is an encoder of Bio_ClinicalBERT's size, "tiny" the one that ships.
    """

    unet: Mapping[str, Any] = field(default_factory=lambda: OPENAI_256)
    blocks: tuple[int, ...] = (6, 8, 12, 16)
    steps: tuple[int, ...] = (50, 150, 250)
    side: int = 256
    head: HeadSpec = HEADS["official"]
    text: str = "clinical"


PAPER = Setting()
SMALL = Setting(HE_32, (1, 4, 5, 10), side=64, head=HeadSpec(96, (32, 16), 4, 32), text="tiny")
TINY_UNET = HE_32 | {"channel_mult": (1, 2), "num_res_blocks": 1, "attention_resolutions": (2,)}
TINY = Setting(TINY_UNET, (0, 2), (50, 250), 16, HeadSpec(16, (8, 8), 2, 8), "tiny")


def new_unet(architecture: Mapping[str, Any], rounded: bool = False) -> UNet:
    """A UNet of which no branch is zero, as some are in a fresh one; layer by layer, as weights come from a file."""
    torch.manual_seed(0)
    with torch.device("meta"):
        unet = UNet(**architecture)
    for module in unet.modules():
        if list(module.parameters(recurse=False)):
            drawn: Any = module.to_empty(device="cpu", recurse=False)
            drawn.reset_parameters()
            if rounded and not isinstance(module, nn.GroupNorm):
                module.to(torch.bfloat16)
    return unet.eval().requires_grad_(False)


def new_text(kind: str) -> TextEncoder:
    """A text encoder with the authors' ten tokens, padded."""
    if kind == "tiny":
        return TextEncoder.from_pretrained(max_length=10, padding="max_length")
    from transformers import BertConfig, BertModel

    torch.manual_seed(2)
    tokenizer = TextEncoder.from_pretrained().tokenizer
    return TextEncoder(
        BertModel(BertConfig(vocab_size=28_996)), tokenizer, name=kind, max_length=10, padding="max_length"
    )


def new_reference_head(channels: list[int] | tuple[int, ...], text_dim: int, spec: HeadSpec) -> ReferenceHead:
    torch.manual_seed(1)
    return ReferenceHead(channels, text_dim, spec.dim, spec.hidden, spec.num_heads, spec.head_dim)


def new_head(channels: list[int] | tuple[int, ...], text_dim: int, spec: HeadSpec) -> TextDiffHead:
    """Ours, with the weights of :func:`new_reference_head` where it has the authors' shape."""
    head = TextDiffHead(channels, text_dim, 2, spec)
    if spec.merge == "concat":
        head.load_official(new_reference_head(channels, text_dim, spec).state_dict())
    return head


def reference_model(setting: Setting, device: str, torso: str = "float32") -> ReferenceTextDiff:
    """``torso``: precision of the UNet's blocks."""
    unet, text = new_unet(setting.unet).to(device), new_text(setting.text)
    channels = [unet.block_channels[k] * len(setting.steps) for k in setting.blocks]
    head = new_reference_head(channels, text.dim, setting.head).to(device)
    function = ReferenceUNet(setting.unet, unet.state_dict(), getattr(torch, torso))
    return ReferenceTextDiff(function, text, head, setting.blocks, setting.steps)


def our_model(setting: Setting, device: str, precision: str) -> TextDiff:
    """TextDiff under the official protocol, in a process that keeps freed memory as training and prediction do."""
    features = DiffusionFeatures(
        new_unet(setting.unet, rounded=precision == "bfloat16"),
        setting.blocks,
        setting.steps,
        precision=precision,
    )
    text = new_text(setting.text)
    model = TextDiff(features, text, head=setting.head, text_mask=False, criterion=OFFICIAL_LOSS)
    model.head = new_head(features.channels, text.dim, setting.head)
    keep_freed_memory()
    return model.to(device)


def pictures(count: int, side: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Smooth pictures ``[count, 3, side, side]`` in [-1, 1] and masks int64 ``[count, side, side]`` of their brighter halves."""
    generator = torch.Generator().manual_seed(seed)
    cells = max(2, side // 16)
    coarse = torch.rand(count, 3, cells, cells, generator=generator) * 2 - 1
    images = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(-1, 1)
    images = (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)
    middle = images[:, 0].flatten(1).median(dim=1).values
    return images, (images[:, 0] > middle[:, None, None]).long()
