"""What a reader would use instead of TextDiff and of TextDiffSeg: networks trained from scratch, for images and volumes.

In: a name. Out: a network called ``model(images, captions) -> logits``, from MONAI's parts; one of them reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.precision import FEWEST_CELLS, Precision, mixed_precision
from textdiff.models.fusion import CrossModalAttention
from textdiff.models.losses import DiceCE
from textdiff.models.text import TextEncoder

if TYPE_CHECKING:
    from textdiff.data.images.views import ImageBatch
    from textdiff.data.volumes.patches import Preprocessing, VolumeBatch
    from textdiff.models.diffusion import Sampling

FEATURES = (32, 32, 64, 128, 256, 32)  # MONAI's own: a wider net only overfits a handful of images sooner
WIDTHS, WIDTHS_3D = (32, 64, 128, 256, 256), (32, 64, 128, 256)
SMALLEST = 32
PATCH = (40, 56, 40)
VIT_CELL = 16  # voxels a token of UNETR stands for, along each axis; its decoder is built for that
INSTANCE = ("instance", {"affine": True})
GROUPS: dict[str, Any] = {
    "act": ("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
    "norm": ("group", {"num_groups": 8}),
}

# Name: class in monai.networks.nets, its arguments apart from channels, and what sides must be multiples of. Falk et al.
# 2019; Zhou et al. 2018; Oktay et al. 2018; Hatamizadeh et al. 2022 with MONAI's smaller width; nnU-Net's network (Isensee
# et al. 2021) without planning, ensembles and deep supervision; Roy et al. 2023, the smallest: kernels of 3, expansion by 2.
Network = tuple[str, dict[str, Any], int]
_DYNUNET = {"spatial_dims": 2, "kernel_size": [3] * 5, "strides": [1, 2, 2, 2, 2], "upsample_kernel_size": [2] * 4}
NETWORKS: dict[str, Network] = {
    "unet": ("BasicUNet", {"spatial_dims": 2, "features": FEATURES, "norm": INSTANCE}, 1),
    "unetpp": ("BasicUNetPlusPlus", {"spatial_dims": 2, "features": FEATURES, "norm": INSTANCE}, 1),
    "attention_unet": ("AttentionUnet", {"spatial_dims": 2, "channels": WIDTHS, "strides": (2,) * 4}, 16),
    "swin_unetr": ("SwinUNETR", {"spatial_dims": 2, "feature_size": 24, "norm_name": INSTANCE}, 32),
    "dynunet": ("DynUNet", {**_DYNUNET, "filters": WIDTHS, "norm_name": INSTANCE}, 16),
    "mednext": ("MedNeXtSmall", {"spatial_dims": 2, "deep_supervision": False}, 16),
}
READING = ("text_unet",)
BASELINES = (*NETWORKS, *READING)

# The same for volumes. nnU-Net's plan for patches of 40 x 56 x 40 voxels has three poolings and 32 to 256 channels; the
# others (SegResNet is Myronenko's of 2018, as MONAI's brain-tumour bundle has it; UNETR Hatamizadeh's of 2021) are cut to a
# like size, which two processor cores can train. Larger patches take the same networks.
_SWIN_3D = {"feature_size": 12, "num_heads": (1, 2, 4, 8), "window_size": 4}  # windows tile maps of 32, 16, 8, 4
_MEDNEXT_3D = {"init_filters": 32, "kernel_size": 3, "blocks_down": (2,) * 3, "blocks_up": (2,) * 3}
_DYNUNET_3D = {"spatial_dims": 3, "kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
NETWORKS_3D: dict[str, Network] = {
    "segresnet": ("SegResNet", {"spatial_dims": 3, "init_filters": 16, "blocks_down": (1, 2, 2, 4)}, 8),
    "swin_unetr": ("SwinUNETR", {**_SWIN_3D, "norm_name": INSTANCE}, 32),
    "unetr": ("UNETR", {"hidden_size": 192, "mlp_dim": 768, "num_heads": 6, "norm_name": INSTANCE}, VIT_CELL),
    "dynunet": ("DynUNet", {**_DYNUNET_3D, "filters": WIDTHS_3D, "norm_name": INSTANCE}, 8),
    "mednext": ("MedNeXt", {"spatial_dims": 3, **_MEDNEXT_3D, "use_residual_connection": True}, 8),
}
BASELINES_3D = tuple(NETWORKS_3D)


class Baseline(nn.Module):
    """A network of images or volumes alone; captions are taken and ignored.

    All normalise every image by itself, none a batch: five training images are too few for a batch's statistics, and
    per-image statistics take out part of the difference between stains and exposures.

    Args:
        net: maps ``[B, C, *space]`` to logits ``[B, K, *space]`` or a list of such, the last of which counts.
        divisor: what ``net`` needs sides to be multiples of. Images are padded up to that, and to at least twice as much,
            since the deepest map must have more than one cell to normalise (:func:`whole_cells`); logits are cut back.
        precision: "float32" or "bfloat16".
        criterion: the training loss.
        spatial_dims: 2 for pictures, 3 for volumes.
    """

    def __init__(
        self,
        net: nn.Module,
        divisor: int = 1,
        precision: Precision = "float32",
        criterion: DiceCE = DiceCE(),
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.net, self.divisor, self.precision, self.criterion = net, divisor, precision, criterion
        self.spatial_dims = spatial_dims

    def forward(self, images: Tensor, captions: Sequence[str] | None = None) -> Tensor:
        """Images float ``[B, in_channels, *space]`` -> logits float32 ``[B, num_classes, *space]``.

        Raises ValueError for another number of axes, and where a side of a picture is under 32 px.
        """
        check_images(images, self.spatial_dims)
        padded, inner = whole_cells(images, self.divisor, 2 * self.divisor)
        cells = padded.shape[2] // self.divisor if self.spatial_dims == 3 else FEWEST_CELLS
        with mixed_precision(images.device, self.precision, cells):
            logits = self.net(padded)
        logits = logits[-1] if isinstance(logits, list) else logits
        return logits[(..., *inner)].float()

    def loss(self, batch: ImageBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What training minimises, as a scalar called "loss"; nothing is drawn, the generator is not used."""
        return {"loss": self.criterion(self(batch.images, batch.captions), batch.masks)}


def whole_cells(images: Tensor, divisor: int, least: int) -> tuple[Tensor, list[slice]]:
    """``images [B, C, *space]`` with sides that are multiples of ``divisor``, and ``least`` or more; where they lie in them.

    Pictures are mirrored; volumes, which may be thinner than the padding they need, repeat their edge.
    """
    sides = images.shape[2:]
    extra = [max(least, -(-side // divisor) * divisor) - side for side in sides]
    padding = [part for more in reversed(extra) for part in (more // 2, more - more // 2)]
    inner = [slice(more // 2, more // 2 + side) for more, side in zip(extra, sides, strict=True)]
    return F.pad(images, padding, mode="reflect" if images.ndim == 4 else "replicate"), inner


def check_images(images: Tensor, spatial_dims: int = 2) -> None:
    """Raises ValueError for images of another number of axes than ``[B, C, *space]``, or with a side under 32 px in 2D."""
    if images.ndim != spatial_dims + 2:
        axes = "[B, C, H, W]" if spatial_dims == 2 else "[B, C, D, H, W]"
        raise ValueError(f"images of shape {tuple(images.shape)}: a {spatial_dims}D baseline takes {axes}")
    if spatial_dims == 2 and min(images.shape[2:]) < SMALLEST:
        raise ValueError(f"images of {tuple(images.shape[2:])} px: each side must be {SMALLEST} px or more")


class Reading(nn.Module):
    """How a U-Net reads here: the mean token scales and shifts its deepest map (nothing at first), then this map and the
    next finer one of the decoder ask the tokens as TextDiff does, every pixel knowing its place. Padding is never read.

    ``widths``: channels of these two maps, the deepest first; ``text_dim``: of the tokens.
    """

    def __init__(self, widths: Sequence[int], text_dim: int) -> None:
        super().__init__()
        self.read = nn.ModuleList(
            CrossModalAttention(2, dim, text_dim, num_heads=4, head_dim=32, positions=True) for dim in widths
        )
        self.film = nn.Linear(text_dim, 2 * widths[0])
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, level: int) -> Tensor:
        """``x [B, C, h, w]``, the deepest map (``level`` 0) or the next (1), once it has read ``tokens [B, L, text_dim]``."""
        if level == 0:
            mean = (tokens * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            scale, shift = self.film(mean)[..., None, None].chunk(2, dim=1)
            x = x * (1 + scale) + shift
        return self.read[level](x, tokens, mask)


class TextUNet(nn.Module):
    """A plain U-Net, trained from scratch, that reads the sentence (:class:`Reading`): the control that TextDiff must beat.

    Widths and depth are the U-Net's above. Group norm, not instance norm: that would take out again what a sentence adds to a
    whole map.

    Args:
        text: a frozen encoder. It stays where it is, and outside the module's weights: neither trained, counted nor saved.
        num_classes: background included.
        in_channels, precision, criterion: as for :class:`Baseline`.

    Raises ValueError: no encoder.
    """

    text: TextEncoder

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
        self.first = TwoConv(2, in_channels, widths[0], bias=True, **GROUPS)
        self.down = nn.ModuleList(Down(2, wide, deep, bias=True, **GROUPS) for wide, deep in pairwise(widths))
        self.up = nn.ModuleList(
            UpCat(2, deep, wide, out, bias=True, halves=deep != wide, **GROUPS)
            for deep, wide, out in zip(widths[:0:-1], widths[-2::-1], [*widths[-2:0:-1], last], strict=True)
        )
        self.reading = Reading(widths[:-3:-1], text.dim)
        self.classify = nn.Conv2d(last, num_classes, 1)

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Images ``[B, in_channels, H, W]`` in [-1, 1] and B captions -> logits float32 ``[B, num_classes, H, W]``.

        Raises ValueError where a side is under 32 px, or images and captions differ in number.
        """
        check_images(images)
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
        x = self.reading(maps.pop(), tokens, mask, level=0)
        for level, up in enumerate(self.up):
            x = up(x, maps.pop())
            if level == 0:
                x = self.reading(x, tokens, mask, level=1)
        return self.classify(x)


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

    Raises ValueError: another name, fewer than two classes, or a network that reads without ``text``.
    """
    _check_request("baseline", name, BASELINES, num_classes)
    if name in READING:
        return TextUNet(text, num_classes, in_channels, precision, criterion)
    return Baseline(_built(NETWORKS[name], in_channels, num_classes), NETWORKS[name][2], precision, criterion)


def build_baseline_3d(
    name: str, num_classes: int, in_channels: int = 4, patch: Sequence[int] = PATCH, precision: Precision = "float32"
) -> Baseline:
    """Build the 3D baseline called ``name`` (one of ``BASELINES_3D``), freshly initialised, running in ``precision``.

    Args:
        num_classes: background included.
        in_channels: intensity, and three of place (-1..1 over the whole volume), as TextDiffSeg gets them.
        patch: sides of the training patch in voxels. All take other sizes too; UNETR, whose position embedding has one
            size, answers those in windows of ``patch``.

    Raises ValueError: another name, fewer than two classes, or a ``patch`` that is not three sides of 1 or more.
    """
    _check_request("3D baseline", name, BASELINES_3D, num_classes)
    if len(patch) != 3 or min(patch) < 1:
        raise ValueError(f"patch={tuple(patch)}: three sides in voxels, such as {PATCH}")
    net = _built(NETWORKS_3D[name], in_channels, num_classes, patch)
    return Baseline(net, NETWORKS_3D[name][2], precision, spatial_dims=3)


def _check_request(kind: str, name: str, known: Sequence[str], num_classes: int) -> None:
    if name not in known:
        raise ValueError(f"there is no {kind} {name!r}; there are: {', '.join(known)}")
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: background and at least one class make 2 or more")


def _built(network: Network, in_channels: int, num_classes: int, patch: Sequence[int] = ()) -> nn.Module:
    """MONAI's network without what no gradient ever reaches, which would have no optimiser state to save."""
    from monai.networks import nets

    kind, options, _ = network
    options = options | {"in_channels": in_channels, "out_channels": num_classes}
    size = tuple(-(-side // VIT_CELL) * VIT_CELL for side in patch)  # whole tokens
    if kind == "UNETR":
        options["img_size"] = size
    net = getattr(nets, kind)(**options)
    if kind == "BasicUNetPlusPlus":  # only deep supervision asks for these
        net.final_conv_0_1 = net.final_conv_0_2 = net.final_conv_0_3 = nn.Identity()
    elif kind == "AttentionUnet":  # MONAI fixes batch norm
        for parent in list(net.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, nn.InstanceNorm2d(child.num_features, affine=True))
    elif kind == "DynUNet":  # a second list of the same layers, which hang in `skip_layers`
        for name in ("input_block", "downsamples", "bottleneck", "upsamples"):
            delattr(net, name)
    elif kind == "UNETR":
        for block in net.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # there is nothing to cross
        return _Windows(net, size)
    return net


# --- volumes ---------------------------------------------------------------------------------------------


class VolumeNetwork(nn.Module):
    """A 3D baseline in TextDiffSeg's place: trained by the same loop, run over volumes by the same windows.

    It does not read: every structure is always looked for. ``net``: of :func:`build_baseline_3d`; ``class_names``:
    background first; ``preprocessing``: what is done to a volume before; ``criterion``: the training loss.
    """

    def __init__(
        self, net: nn.Module, class_names: Sequence[str], preprocessing: Preprocessing, criterion: DiceCE = DiceCE()
    ) -> None:
        super().__init__()
        self.net, self.class_names = net, tuple(class_names)
        self.preprocessing, self.criterion = preprocessing, criterion

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
