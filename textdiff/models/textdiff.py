"""TextDiff: images and captions in, per-pixel class logits out. Frozen features, frozen text, a small trained head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.checkpoints import load_strict
from textdiff.base.precision import mixed_precision
from textdiff.base.products import pixelwise
from textdiff.data.images.transforms import ImageSpec
from textdiff.models import inference
from textdiff.models.features import FeatureExtractor
from textdiff.models.fusion import CrossModalAttention
from textdiff.models.losses import DiceCE
from textdiff.models.maps import ResidualPair, conv_of_resized, initialise, normalised, resized
from textdiff.models.mirroring import mirrored_logits
from textdiff.models.store import Pretrained, from_official
from textdiff.models.text import TextEncoder

if TYPE_CHECKING:
    from textdiff.data.images.views import ImageBatch

Fusion = Literal["attention", "pooled", "none"]
Merge = Literal["concat", "sum", "decoder"]
Init = Literal["official", "default"]


@dataclass(frozen=True)
class HeadSpec:
    """The settings of a :class:`TextDiffHead`. Defaults are the authors' (``src/pixel_classifier.py``).

    Args:
        dim: width that every scale is projected to (by a 1x1 convolution, unless it has it already).
        hidden: widths of the classifier's two 3x3 convolutions.
        num_heads, head_dim: heads of the attention, and the width of each.
        fusion: "attention" (the method), or of the ablation "pooled" (the mean token added to every pixel) or "none" (no text).
        merge: "concat" stacks the up-sampled scales (authors); "sum" adds each to the next finer one, which is lighter;
            "decoder" (ours) does that with a residual pair of convolutions at every scale, so that what was read at one
            place is seen around it, classifies at the finest map's size and enlarges the logits.
        attend: how many of the coarsest maps read the text; None for all (authors). Finer maps then only sharpen edges.
        positions: give the pixels' places to the fusion (ours, see :class:`~textdiff.models.fusion.CrossModalAttention`).
        normalise: bring every feature channel of every image to mean 0 and variance 1 before the projection, and use group
            instead of batch normalisation in the classifier (ours): a handful of images has no batch statistics to trust.
        dropout: share of the feature channels of an image that a training step leaves out, so that no few of them decide (ours).
        init: "official" draws all weights from N(0, 0.02), and attention turns to words late; "default" is PyTorch's.

    Raises ValueError for a choice that does not exist or not two hidden widths.
    """

    dim: int = 768
    hidden: tuple[int, int] = (128, 32)
    num_heads: int = 8
    head_dim: int = 64
    fusion: Fusion = "attention"
    merge: Merge = "concat"
    attend: int | None = None
    positions: bool = False
    normalise: bool = False
    dropout: float = 0.0
    init: Init = "official"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name, kind in (("fusion", Fusion), ("merge", Merge), ("init", Init)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}={getattr(self, name)!r}: known are {', '.join(get_args(kind))}")
        if len(self.hidden) != 2 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"hidden={list(self.hidden)}, dropout={self.dropout}: two hidden widths, from 0 to below 1"
            )


COMPACT = HeadSpec(64, (32, 16), 4, 16, merge="sum", attend=2, normalise=True, init="default")
DECODER = replace(COMPACT, merge="decoder")
HEADS = {"official": HeadSpec(), "compact": COMPACT, "decoder": DECODER, "wide": replace(DECODER, dim=96)}


class TextDiffHead(nn.Module):
    """The trained part: projection of every scale, cross-modal attention, pixel classifier.

    By default the authors': 9,683,234 parameters on MoNuSeg, 10,862,882 on QaTa-COV19. ``channels``: of each feature map;
    ``text_dim``: of the tokens; ``num_classes``: background included.

    Raises ValueError: no feature maps, fewer than two classes, or more maps to attend than there are.
    """

    def __init__(
        self, channels: Sequence[int], text_dim: int = 768, num_classes: int = 2, spec: HeadSpec = HeadSpec()
    ) -> None:
        super().__init__()
        self.spec = spec
        if not channels or num_classes < 2:
            raise ValueError(f"channels={list(channels)}, num_classes={num_classes}: at least one map and two classes")
        if spec.attend is not None and not 1 <= spec.attend <= len(channels):
            raise ValueError(f"attend={spec.attend}: from 1 to {len(channels)}, the number of maps, or None for all")
        self.channels, self.attend = list(channels), spec.attend or len(channels)
        # The first scale has a projection of its own, later ones of equal width share one, those of width dim need none
        self._names = ["" if c == spec.dim else f"later{c}" if i else "first" for i, c in enumerate(channels)]
        self.project = nn.ModuleDict(
            {name: nn.Conv2d(c, spec.dim, 1) for name, c in zip(self._names, channels, strict=True) if name}
        )
        if spec.fusion != "none":
            attention = (2, spec.dim, text_dim, spec.num_heads, spec.head_dim, spec.positions)
            pooled = spec.fusion == "pooled"
            self.cross: Any = nn.Linear(text_dim, spec.dim) if pooled else CrossModalAttention(*attention)
        if spec.merge == "decoder":
            # One pair per scale, one more at the coarsest, where it sees farthest for least
            self.ascent = nn.ModuleList(ResidualPair(spec.dim) for _ in range(len(channels) + 1))
        merged = spec.dim * len(channels) if spec.merge == "concat" else spec.dim
        layers: list[nn.Module] = []
        for before, width in pairwise((merged, *spec.hidden)):
            norm = nn.GroupNorm(min(8, width), width) if spec.normalise else nn.BatchNorm2d(width)
            layers += [nn.Conv2d(before, width, 3, padding=1), norm, nn.ReLU(inplace=True)]
        self.classifier = nn.Sequential(*layers, nn.Conv2d(spec.hidden[-1], num_classes, 3, padding=1))
        if spec.init == "official":
            self.apply(initialise)

    def forward(
        self,
        maps: Sequence[Tensor],
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        size: tuple[int, int] = (256, 256),
    ) -> Tensor:
        """Logits ``[B, num_classes, *size]``.

        ``maps``: ``[B, C_k, h_k, w_k]`` of each scale. ``tokens``: ``[B, L, text_dim]``; may be None where ``fusion`` is
        "none". ``mask``: ``[B, L]`` bool, True where a token is to be read; None reads all, padding too (as the authors do).
        """
        fused = self._project(maps, tokens)
        for k in self._reading(maps):
            fused[k] = self._fuse(fused[k], tokens, mask)
        if self.spec.merge == "concat":
            return self._classified(fused, size)
        merged, *finer = sorted(fused, key=lambda h: h.shape[-2] * h.shape[-1])
        if self.spec.merge == "sum":
            for h in finer:
                merged = h + resized(merged, h.shape[-2:])
            return self._classified([merged], size)
        first, second, *others = self.ascent
        merged = second(first(merged))
        for h, pair in zip(finer, others, strict=True):
            merged = pair(h + resized(merged, h.shape[-2:]))
        return resized(self.classifier(merged), size)

    def _classified(self, fused: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The classifier of all maps, up-sampled and stacked: the sum over the maps of its first convolution's shares."""
        first: Any = self.classifier[0]
        shares = zip(fused, first.weight.split(self.spec.dim, dim=1), strict=True)
        h = reduce(torch.add, (conv_of_resized(h, share, size) for h, share in shares))
        return self.classifier[1:](h + first.bias[:, None, None].to(h.dtype))

    def attention(
        self, maps: Sequence[Tensor], tokens: Tensor | None, mask: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Where each token is read, mean over the scales: ``[B, L, *size]``, values 0..1."""
        if self.spec.fusion != "attention":
            raise ValueError(f"a head with fusion={self.spec.fusion!r} has no attention to show")
        projected = self._project(maps, tokens)
        looked = [self.cross.attention(projected[k], tokens, mask) for k in self._reading(maps)]
        return torch.stack([resized(one, size) for one in looked]).mean(dim=0)

    def _project(self, maps: Sequence[Tensor], tokens: Tensor | None) -> list[Tensor]:
        got = [h.shape[1] for h in maps]
        if got != self.channels:
            raise ValueError(f"this head takes maps with {self.channels} channels, got {got}")
        if tokens is None and self.spec.fusion != "none":
            raise ValueError(f"a head with fusion={self.spec.fusion!r} needs tokens")
        if self.spec.normalise:
            maps = [normalised(h) for h in maps]
        if self.training and self.spec.dropout:
            maps = [F.dropout2d(h, self.spec.dropout) for h in maps]
        return [pixelwise(self.project[name], h) if name else h for name, h in zip(self._names, maps, strict=True)]

    def _reading(self, maps: Sequence[Tensor]) -> list[int]:
        """Indices of the maps that read the text: the coarsest ``attend``."""
        return sorted(range(len(maps)), key=lambda k: maps[k].shape[-2] * maps[k].shape[-1])[: self.attend]

    def _fuse(self, h: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.spec.fusion == "none" or tokens is None:
            return h
        if self.spec.fusion == "attention":
            return self.cross(h, tokens, mask)
        weight = torch.ones(tokens.shape[:2], device=tokens.device) if mask is None else mask.float()
        mean = (tokens * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)
        return h + self.cross(mean)[:, :, None, None]

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Takes the authors' state dict; raises ValueError for a head that is not one of their two, or other keys."""
        spec, later = self.spec, [name for name in self.project if name != "first"]
        if spec.fusion != "attention" or spec.merge != "concat" or spec.normalise or len(later) > 1:
            raise ValueError("the authors' weights fit the default head on three steps of four blocks only")
        load_strict(self, from_official(state, *later), source="the authors' code")


class TextDiff(Pretrained):
    """Frozen features and frozen text tokens, read by a trained :class:`TextDiffHead`.

    Args:
        features, text: the two sides; without text the head's ``fusion`` must be "none".
        num_classes: background included.
        image: how a picture becomes the network's input.
        text_mask: hide padding from the attention (the authors' code does not).
        class_names: for the record (default background, class 1, ...).
        criterion: the training loss.
        mirrored: once trained, ask the mirrored picture too (:mod:`textdiff.models.mirroring`).
    """

    SPECS: ClassVar = {"head": HeadSpec, "image": ImageSpec, "criterion": DiceCE}
    LATER: ClassVar = {"head.dropout": 0.0, "model.mirrored": False, "features.enlarge": 1}

    def __init__(
        self,
        features: FeatureExtractor,
        text: TextEncoder | None,
        num_classes: int = 2,
        head: HeadSpec = HeadSpec(),
        image: ImageSpec = ImageSpec(),
        text_mask: bool = True,
        class_names: Sequence[str] = (),
        criterion: DiceCE = DiceCE(),
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.text, self.mirrored = features, text, mirrored
        self.head = TextDiffHead(features.channels, text.dim if text else 1, num_classes, head)
        if text is None and head.fusion != "none":
            raise ValueError("without a text encoder, fusion must be 'none'")
        self.image, self.text_mask, self.criterion = replace(image, num_classes=num_classes), text_mask, criterion
        self.class_names = tuple(class_names) or ("background", *(f"class {k}" for k in range(1, num_classes)))
        about = {"head": asdict(head), "image": asdict(self.image), "criterion": asdict(criterion)}
        about |= {"model": {"num_classes": num_classes, "text_mask": text_mask, "mirrored": mirrored}}
        self.settings = {"class_names": self.class_names, **about}

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """``images [B, 3, H, W]`` in [-1, 1] and B captions -> logits float32 ``[B, num_classes, H, W]``."""
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images but {len(captions)} captions")
        asked_twice = self.mirrored and not self.training
        return mirrored_logits(self.once, images, captions) if asked_twice else self.once(images, captions)

    def once(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Logits of the images as they are."""
        maps, (tokens, mask) = self.features.maps(images), self._read(captions)
        with mixed_precision(images.device, self.features.precision):
            return self.head(maps, tokens, mask, size=tuple(images.shape[-2:])).float()

    def loss(self, batch: ImageBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What training minimises, as a scalar called "loss"; nothing is drawn, the generator is not used."""
        return {"loss": self.criterion(self(batch.images, batch.captions), batch.masks)}

    @torch.no_grad()
    def attention(self, images: Tensor, captions: Sequence[str], size: tuple[int, int]) -> Tensor:
        """Where each token is read: ``[B, L, *size]``, values 0..1."""
        tokens, mask = self._read(captions)
        return self.head.attention(self.features(images), tokens, mask, size)

    def predict(
        self, image: str | Path | np.ndarray, text: str, probabilities: bool = False, strict: bool = False
    ) -> np.ndarray:
        """Labels uint8 ``[H, W]`` of one picture at its own size: :func:`textdiff.models.inference.predict_image`."""
        return inference.predict_image(self, image, text, probabilities, strict)

    def look(self, image: str | Path | np.ndarray, text: str) -> tuple[list[str], np.ndarray]:
        """Which word looked where: :func:`textdiff.models.inference.look`."""
        return inference.look(self, image, text)

    def _read(self, captions: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
        """Tokens ``[B, L, D]`` and mask ``[B, L]`` (None where padding is read too)."""
        if self.text is None or self.head.spec.fusion == "none":
            return None, None
        tokens, mask = self.text(list(captions))
        return tokens.to(self.device), mask.to(self.device) if self.text_mask else None
