"""What a reader would use instead of TextDiff. In: a name. Out: a network called `model(images, captions) ->
logits`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from textdiff.precision import mixed_precision

FEATURES = (32, 32, 64, 128, 256, 32)
SMALLEST = 32


class UNetBaseline(nn.Module):
    """MONAI's BasicUNet (Falk et al. 2019) on images alone; captions are taken and ignored.

    Instance norm, not batch norm: with five training images a batch's statistics are too poor for the running
    means that batch norm needs at test time, and per-image statistics take out part of the difference between
    stains and exposures. The widths are MONAI's own (about 2 million weights in 2D): a wider net only
    overfits a handful of images sooner.
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        features: Sequence[int] = FEATURES,
        precision: str = "float32",
    ):
        super().__init__()
        from monai.networks.nets import BasicUNet

        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}: background and at least one class make 2 or more")
        self.precision = precision
        self.net = BasicUNet(
            spatial_dims=2, in_channels=in_channels, out_channels=num_classes, features=tuple(features),
            norm=("instance", {"affine": True}),
        )  # fmt: skip

    def forward(self, images: torch.Tensor, captions: Sequence[str] | None = None) -> torch.Tensor:
        """Images float [B, in_channels, H, W] in [-1, 1] -> logits [B, num_classes, H, W]; `captions` are not
        read.

        Raises ValueError where a side is under 32 px: the four poolings would leave nothing to normalise.
        """
        if min(images.shape[-2:]) < SMALLEST:
            raise ValueError(f"images of {tuple(images.shape[-2:])} px: each side must be {SMALLEST} px or more")
        with mixed_precision(images.device, self.precision):
            return self.net(images).float()


BASELINES = {"unet": UNetBaseline}


def build_baseline(name: str, num_classes: int, in_channels: int = 3, precision: str = "float32") -> nn.Module:
    """Build the baseline called `name` (one of `BASELINES`), freshly initialised, running in `precision`.

    Raises ValueError for other names.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; there are: {', '.join(sorted(BASELINES))}")
    return BASELINES[name](num_classes=num_classes, in_channels=in_channels, precision=precision)
