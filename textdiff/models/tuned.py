"""The U-Net that most would use: its encoder has seen ImageNet, and all of it is trained. In: images, captions. Out: logits.

The control that asks whether freezing pays: the same network frozen, read by TextDiff's head, is
:class:`textdiff.models.timm_features.TimmFeatures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from textdiff.base.precision import Precision, mixed_precision
from textdiff.models.baselines import GROUPS, Reading, check_images, whole_cells
from textdiff.models.losses import DiceCE
from textdiff.models.maps import resized
from textdiff.models.text import TextEncoder
from textdiff.models.timm_features import TimmFeatures

if TYPE_CHECKING:
    from textdiff.data.images.views import ImageBatch

WIDTHS = (256, 128, 64, 32)  # of the decoder, the coarsest map first; a shallower encoder takes the last


class TunedUNet(nn.Module):
    """A network of timm's and a decoder of MONAI's, trained together; it reads where it is given an encoder of text.

    Args:
        encoder: all maps of the network, the finest first. It computes in float32, and its batch normalisation keeps the
            statistics that it came with: five images are too few for others. All its weights are trained.
        num_classes: background included.
        text: a frozen encoder (:class:`~textdiff.models.baselines.Reading` says how it is read), outside the module's weights;
            None for a network that does not read.
        precision, criterion: as for :class:`textdiff.models.baselines.Baseline`.

    Raises ValueError: an encoder of fewer than three maps, or of more than the decoder has widths for.
    """

    text: TextEncoder | None

    def __init__(
        self,
        encoder: TimmFeatures,
        num_classes: int,
        text: TextEncoder | None = None,
        precision: Precision = "float32",
        criterion: DiceCE = DiceCE(),
    ) -> None:
        super().__init__()
        from monai.networks.nets.basic_unet import UpCat

        *finer, deepest = encoder.channels
        if not 2 <= len(finer) <= len(WIDTHS):
            raise ValueError(f"an encoder of {len(finer) + 1} maps: from 3 to {len(WIDTHS) + 1}")
        object.__setattr__(self, "text", text)
        self.precision, self.criterion = precision, criterion
        self.encoder = encoder
        encoder.network.requires_grad_(True)
        widths = (deepest, *WIDTHS[-len(finer) :])
        self.up = nn.ModuleList(
            UpCat(2, below, skip, width, bias=True, **GROUPS)
            for (below, width), skip in zip(pairwise(widths), reversed(finer), strict=True)
        )
        self.reading = Reading(widths[:2], text.dim) if text else None
        self.classify = nn.Conv2d(widths[-1], num_classes, 1)

    def forward(self, images: Tensor, captions: Sequence[str] | None = None) -> Tensor:
        """Images ``[B, 3, H, W]`` in [-1, 1] and B captions -> logits float32 ``[B, num_classes, H, W]``.

        Raises ValueError where a side is under 32 px, or a network that reads is not given a caption for every image.
        """
        check_images(images)
        if self.text is not None and (captions is None or len(captions) != len(images)):
            raise ValueError(f"{len(images)} images but {len(captions or ())} captions")
        read = [] if self.text is None else [part.to(images.device) for part in self.text(list(captions or ()))]
        padded, (rows, columns) = whole_cells(images, self.encoder.strides[-1], 2 * self.encoder.strides[-1])
        with mixed_precision(images.device, self.precision):
            *maps, x = self.encoder.compute(padded)
            for level, up in enumerate(self.up):
                if self.reading is not None and level < len(self.reading.read):
                    x = self.reading(x, *read, level)
                x = up(x, maps.pop())
            logits = resized(self.classify(x), padded.shape[2:])
        return logits[..., rows, columns].float()

    def loss(self, batch: ImageBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What training minimises, as a scalar called "loss"; nothing is drawn, the generator is not used."""
        return {"loss": self.criterion(self(batch.images, batch.captions), batch.masks)}
