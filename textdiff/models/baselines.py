"""What a reader would use instead of TextDiff and of TextDiffSeg: networks trained from scratch, for images and volumes.

In: a name. Out: a network called ``model(images, captions) -> logits``, from MONAI's parts; one of them reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.precision import Precision, mixed_precision
from textdiff.models.fusion import CrossModalAttention
from textdiff.models.losses import DiceCE
from textdiff.models.text import TextEncoder

if TYPE_CHECKING:
    from textdiff.data.images.views import ImageBatch
    from textdiff.data.volumes.patches import Preprocessing, VolumeBatch
    from textdiff.models.diffusion import Sampling

FEATURES = (32, 32, 64, 128, 256, 32)  # MONAI's own: a wider net only overfits a handful of images sooner
WIDTHS = (32, 64, 128, 256, 256)
SMALLEST = 32
INSTANCE = ("instance", {"affine": True})


class Baseline(nn.Module):
    """A network of images alone; captions are taken and ignored.

    All normalise every image by itself, none a batch: with five training images a batch's statistics are too poor for
    the running means that batch norm needs at test time, and per-image statistics take out part of the difference
    between stains and exposures.

    Args:
        net: maps ``[B, C, H, W]`` to logits ``[B, K, H, W]`` or a list of such, the last of which counts.
        divisor: what ``net`` needs H and W to be multiples of. Images are mirrored up to that, and to at least twice as
            much, since the deepest map must have more than one pixel to normalise; logits are cut back.
        precision: "float32" or "bfloat16".
        criterion: the training loss.
    """

    def __init__(
        self, net: nn.Module, divisor: int = 1, precision: Precision = "float32", criterion: DiceCE = DiceCE()
    ) -> None:
        super().__init__()
        self.net, self.divisor, self.precision, self.criterion = net, divisor, precision, criterion

    def forward(self, images: Tensor, captions: Sequence[str] | None = None) -> Tensor:
        """Images float ``[B, in_channels, H, W]`` in [-1, 1] -> logits float32 ``[B, num_classes, H, W]``.

        Raises ValueError where a side is under 32 px.
        """
        _check_size(images)
        height, width = images.shape[-2:]
        top, bottom = _margins(height, self.divisor)
        left, right = _margins(width, self.divisor)
        with mixed_precision(images.device, self.precision):
            logits = self.net(F.pad(images, (left, right, top, bottom), mode="reflect"))
        logits = logits[-1] if isinstance(logits, list) else logits
        return logits[..., top : top + height, left : left + width].float()

    def loss(self, batch: ImageBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What training minimises, as a scalar called "loss"; nothing is drawn, the generator is not used."""
        return {"loss": self.criterion(self(batch.images, batch.captions), batch.masks)}


def _margins(side: int, divisor: int) -> tuple[int, int]:
    extra = max(2 * divisor, -(-side // divisor) * divisor) - side
    return extra // 2, extra - extra // 2


def _check_size(images: Tensor) -> None:
    if min(images.shape[-2:]) < SMALLEST:
        raise ValueError(f"images of {tuple(images.shape[-2:])} px: each side must be {SMALLEST} px or more")


def _unet(num_classes: int, in_channels: int) -> nn.Module:
    """Falk et al. 2019."""
    from monai.networks.nets import BasicUNet

    return BasicUNet(2, in_channels, num_classes, FEATURES, norm=INSTANCE)


def _unetpp(num_classes: int, in_channels: int) -> nn.Module:
    """Zhou et al. 2018."""
    from monai.networks.nets import BasicUNetPlusPlus

    net = BasicUNetPlusPlus(2, in_channels, num_classes, FEATURES, norm=INSTANCE)
    # Without deep supervision nothing asks for these; a weight that no gradient reaches has no optimiser state to save
    net.final_conv_0_1 = net.final_conv_0_2 = net.final_conv_0_3 = nn.Identity()
    return net


def _attention_unet(num_classes: int, in_channels: int) -> nn.Module:
    """Oktay et al. 2018; MONAI fixes batch norm, which is replaced."""
    from monai.networks.nets import AttentionUnet

    net = AttentionUnet(2, in_channels, num_classes, WIDTHS, strides=(2, 2, 2, 2))
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return net


def _swin_unetr(num_classes: int, in_channels: int) -> nn.Module:
    """Hatamizadeh et al. 2022, MONAI's smaller width."""
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(in_channels, num_classes, feature_size=24, spatial_dims=2, norm_name=INSTANCE)


def _dynunet(num_classes: int, in_channels: int) -> nn.Module:
    """nnU-Net's network (Isensee et al. 2021) without its planning, ensembles and deep supervision."""
    from monai.networks.nets import DynUNet

    net = DynUNet(2, in_channels, num_classes, [3] * 5, [1, 2, 2, 2, 2], [2] * 4, WIDTHS, norm_name=INSTANCE)
    return _each_layer_once(net)


def _each_layer_once(net: nn.Module) -> nn.Module:
    """A DynUNet without its second list of the same layers, which hang in `skip_layers`: a checkpoint holds each once."""
    for name in ("input_block", "downsamples", "bottleneck", "upsamples"):
        delattr(net, name)
    return net


def _mednext(num_classes: int, in_channels: int) -> nn.Module:
    """Roy et al. 2023, their smallest: 3x3 kernels, expansion by 2."""
    from monai.networks.nets import MedNeXtSmall

    return MedNeXtSmall(spatial_dims=2, in_channels=in_channels, out_channels=num_classes, deep_supervision=False)


class TextUNet(nn.Module):
    """A plain U-Net, trained from scratch, that reads the sentence: the control that TextDiff must beat.

    Widths and depth are the U-Net's above. The mean token scales and shifts the deepest map (nothing at first), then this
    map and the next finer one of the decoder ask the tokens as TextDiff does, every pixel knowing its place. Padding is
    never read. Group norm, not instance norm: that would take out again what a sentence adds to a whole map.

    Args:
        text: a frozen encoder. It stays where it is, and outside the module's weights: neither trained, counted nor saved.
        num_classes: background included.
        in_channels, precision, criterion: as for :class:`Baseline`.

    Raises:
        ValueError: no encoder.
    """

    def __init__(
        self,
        text: TextEncoder | None,
        num_classes: int,
        in_channels: int = 3,
        precision: Precision = "float32",
        criterion: DiceCE = DiceCE(),
    ) -> None:
        super().__init__()
        from monai.networks.nets.basic_unet import Down, TwoConv, UpCat

        if text is None:
            raise ValueError("text_unet reads captions: it needs a text encoder (text=...)")
        object.__setattr__(self, "text", text)
        self.precision, self.criterion = precision, criterion
        *widths, last = FEATURES
        how = {"act": ("leakyrelu", {"negative_slope": 0.1, "inplace": True}), "norm": ("group", {"num_groups": 8})}
        self.first = TwoConv(2, in_channels, widths[0], bias=True, **how)
        self.down = nn.ModuleList(Down(2, wide, deep, bias=True, **how) for wide, deep in pairwise(widths))
        self.up = nn.ModuleList(
            UpCat(2, deep, wide, out, bias=True, halves=deep != wide, **how)
            for deep, wide, out in zip(widths[:0:-1], widths[-2::-1], [*widths[-2:0:-1], last], strict=True)
        )
        self.read = nn.ModuleList(
            CrossModalAttention(2, dim, text.dim, num_heads=4, head_dim=32, positions=True) for dim in widths[:-3:-1]
        )
        self.film = nn.Linear(text.dim, 2 * widths[-1])
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        self.classify = nn.Conv2d(last, num_classes, 1)

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Images ``[B, in_channels, H, W]`` in [-1, 1] and B captions -> logits float32 ``[B, num_classes, H, W]``.

        Raises ValueError where a side is under 32 px, or images and captions differ in number.
        """
        _check_size(images)
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images but {len(captions)} captions")
        tokens, mask = (part.to(images.device) for part in self.text(list(captions)))
        with mixed_precision(images.device, self.precision):
            return self._segment(images, tokens, mask).float()

    def loss(self, batch: ImageBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What training minimises, as a scalar called "loss"; nothing is drawn, the generator is not used."""
        return {"loss": self.criterion(self(batch.images, batch.captions), batch.masks)}

    def _segment(self, images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        maps = [self.first(images)]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = self.read[0](self._modulate(maps.pop(), tokens, mask), tokens, mask)
        for level, up in enumerate(self.up):
            x = up(x, maps.pop())
            if level == 0:
                x = self.read[1](x, tokens, mask)
        return self.classify(x)

    def _modulate(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``x`` scaled and shifted, channel by channel, by what the mean token says."""
        weight = mask[..., None].float()
        mean = (tokens * weight).sum(dim=1) / weight.sum(dim=1)
        scale, shift = self.film(mean)[..., None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


# Image networks: how each is built, and what its sides must be multiples of
NETWORKS: dict[str, tuple[Callable[[int, int], nn.Module], int]] = {
    "unet": (_unet, 1),
    "unetpp": (_unetpp, 1),
    "attention_unet": (_attention_unet, 16),
    "swin_unetr": (_swin_unetr, 32),
    "dynunet": (_dynunet, 16),
    "mednext": (_mednext, 16),
}
READING = ("text_unet",)
BASELINES = (*NETWORKS, *READING)


def build_baseline(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    precision: Precision = "float32",
    text: TextEncoder | None = None,
    criterion: DiceCE = DiceCE(),
) -> Baseline | TextUNet:
    """Build the baseline called ``name`` (one of ``BASELINES``), freshly initialised, running in ``precision``.

    Those in ``READING`` read captions through ``text``, which the others ignore.

    Raises:
        ValueError: another name, fewer than two classes, or a network that reads without ``text``.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; there are: {', '.join(BASELINES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: background and at least one class make 2 or more")
    if name in READING:
        return TextUNet(text, num_classes, in_channels, precision, criterion)
    build, divisor = NETWORKS[name]
    return Baseline(build(num_classes, in_channels), divisor, precision, criterion)


# Volumes. nnU-Net's plan for patches of 40 x 56 x 40 voxels has three poolings and 32 to 256 channels; the other networks are
# cut to a like size, which two processor cores can train. Larger patches take the same networks.
PATCH = (40, 56, 40)
WIDTHS_3D = (32, 64, 128, 256)
VIT_CELL = 16  # voxels a token of UNETR stands for, along each axis; its decoder is built for that


class VolumeBaseline(nn.Module):
    """A network of volumes alone; prompts are taken and ignored.

    Pads as :class:`Baseline`, with a third axis and the edge repeated instead of mirrored, so that a volume may be thinner
    than the padding it needs.
    """

    def __init__(self, net: nn.Module, divisor: int, precision: Precision) -> None:
        super().__init__()
        self.net, self.divisor, self.precision = net, divisor, precision

    def forward(self, images: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
        """Images float ``[B, in_channels, D, H, W]`` of any size -> logits float32 ``[B, num_classes, D, H, W]``."""
        if images.ndim != 5:
            raise ValueError(f"images of shape {tuple(images.shape)}: a 3D baseline takes [B, C, D, H, W]")
        margins = [_margins(side, self.divisor) for side in images.shape[2:]]
        padding = [margin for pair in reversed(margins) for margin in pair]
        padded = F.pad(images, padding, mode="replicate")
        with mixed_precision(images.device, self.precision, padded.shape[2] // self.divisor):
            logits = self.net(padded)
        inner = (slice(before, before + side) for (before, _), side in zip(margins, images.shape[2:], strict=True))
        return logits[(..., *inner)].float()


class VolumeNetwork(nn.Module):
    """A 3D baseline in TextDiffSeg's place: trained by the same loop, run over volumes by the same windows.

    It does not read: prompts are taken and ignored, and every structure is always looked for.

    Args:
        net: images ``[B, 4, X, Y, Z]`` to logits ``[B, num_classes, X, Y, Z]`` (:func:`build_baseline_3d`).
        class_names: background first.
        preprocessing: what is done to a volume before.
        criterion: the training loss.
    """

    def __init__(
        self,
        net: nn.Module,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        criterion: DiceCE = DiceCE(),
    ) -> None:
        super().__init__()
        self.net, self.class_names, self.preprocessing = net, tuple(class_names), preprocessing
        self.criterion = criterion

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def loss(self, batch: VolumeBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Cross-entropy plus Dice, as TextDiffSeg's L_seg; nothing is drawn, the generator is not used."""
        return {"loss": self.criterion(self.net(batch.images), batch.labels)}

    @torch.no_grad()
    def segment(self, images: Tensor, prompts: Sequence[str], sampling: Sampling | None = None) -> Tensor:
        """Probabilities ``[B, num_classes, X, Y, Z]``; there is nothing to sample."""
        return self.net(images).softmax(dim=1)


class _Windows(nn.Module):
    """A network of one size only, asked window by window where the images have another."""

    def __init__(self, net: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.net, self.size = net, tuple(size)

    def forward(self, images: Tensor) -> Tensor:
        from monai.inferers import sliding_window_inference

        if tuple(images.shape[2:]) == self.size:
            return self.net(images)
        return sliding_window_inference(
            images, self.size, 4, self.net, overlap=0.25, mode="gaussian", padding_mode="replicate"
        )


def _segresnet_3d(num_classes: int, in_channels: int, patch: Sequence[int]) -> nn.Module:
    """Myronenko 2018: 16 filters and blocks (1, 2, 2, 4), as MONAI's brain-tumour bundle; group norm."""
    from monai.networks.nets import SegResNet

    return SegResNet(3, 16, in_channels, num_classes, blocks_down=(1, 2, 2, 4))


def _swin_unetr_3d(num_classes: int, in_channels: int, patch: Sequence[int]) -> nn.Module:
    """Hatamizadeh et al. 2022, reduced: 12 features, heads of 12 channels, windows of 4, which tile maps of 32, 16, 8, 4."""
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(
        in_channels, num_classes, feature_size=12, num_heads=(1, 2, 4, 8), window_size=4, norm_name=INSTANCE
    )


def _unetr_3d(num_classes: int, in_channels: int, patch: Sequence[int]) -> nn.Module:
    """Hatamizadeh et al. 2021, reduced: 192 channels, 6 heads. Built for ``patch``, rounded up to whole tokens."""
    from monai.networks.nets import UNETR

    size = tuple(-(-side // VIT_CELL) * VIT_CELL for side in patch)
    net = UNETR(in_channels, num_classes, size, hidden_size=192, mlp_dim=768, num_heads=6, norm_name=INSTANCE)
    for block in net.vit.blocks:
        block.norm_cross_attn = nn.Identity()  # there is nothing to cross: no gradient would ever reach it
    return _Windows(net, size)


def _dynunet_3d(num_classes: int, in_channels: int, patch: Sequence[int]) -> nn.Module:
    """nnU-Net's network (Isensee et al. 2021) as its planning draws it for Hippocampus, without deep supervision."""
    from monai.networks.nets import DynUNet

    net = DynUNet(3, in_channels, num_classes, [3] * 4, [1, 2, 2, 2], [2] * 3, WIDTHS_3D, norm_name=INSTANCE)
    return _each_layer_once(net)


def _mednext_3d(num_classes: int, in_channels: int, patch: Sequence[int]) -> nn.Module:
    """Roy et al. 2023, their smallest (kernels of 3, expansion by 2) with three poolings instead of four."""
    from monai.networks.nets import MedNeXt

    return MedNeXt(
        3,
        32,
        in_channels,
        num_classes,
        kernel_size=3,
        use_residual_connection=True,
        blocks_down=(2,) * 3,
        blocks_up=(2,) * 3,
    )


# Volume networks: how each is built, and what its sides must be multiples of
NETWORKS_3D: dict[str, tuple[Callable[[int, int, Sequence[int]], nn.Module], int]] = {
    "segresnet": (_segresnet_3d, 8),
    "swin_unetr": (_swin_unetr_3d, 32),
    "unetr": (_unetr_3d, VIT_CELL),
    "dynunet": (_dynunet_3d, 8),
    "mednext": (_mednext_3d, 8),
}
BASELINES_3D = tuple(NETWORKS_3D)


def build_baseline_3d(
    name: str,
    num_classes: int,
    in_channels: int = 4,
    patch: Sequence[int] = PATCH,
    precision: Precision = "float32",
) -> VolumeBaseline:
    """Build the 3D baseline called ``name`` (one of ``BASELINES_3D``), freshly initialised, running in ``precision``.

    Args:
        num_classes: background included.
        in_channels: intensity, and three of place (-1..1 over the whole volume), as TextDiffSeg gets them.
        patch: sides of the training patch in voxels. All take other sizes too; UNETR, whose position embedding has one
            size, answers those in windows of ``patch``.

    Raises:
        ValueError: another name, fewer than two classes, or a ``patch`` that is not three sides of 1 or more.
    """
    if name not in NETWORKS_3D:
        raise ValueError(f"there is no 3D baseline {name!r}; there are: {', '.join(NETWORKS_3D)}")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: background and at least one class make 2 or more")
    if len(patch) != 3 or min(patch) < 1:
        raise ValueError(f"patch={tuple(patch)}: three sides in voxels, such as {PATCH}")
    build, divisor = NETWORKS_3D[name]
    return VolumeBaseline(build(num_classes, in_channels, patch), divisor, precision)
