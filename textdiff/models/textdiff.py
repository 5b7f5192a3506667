"""TextDiff: images and captions in, per-pixel class logits out. Frozen features, frozen text, a small trained head."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.checkpoints import find_model, load_strict, read_checkpoint, read_json, write_checkpoint, write_text
from textdiff.base.precision import mixed_precision
from textdiff.data.cases import read_picture
from textdiff.data.images.transforms import to_input
from textdiff.models.features import DiffusionFeatures
from textdiff.models.fusion import CrossModalAttention
from textdiff.models.text import TextEncoder
from textdiff.models.unet import UNet

FUSIONS = ("attention", "pooled", "none")
MERGES = ("concat", "sum", "decoder")


class TextDiffHead(nn.Module):
    """The trained part: projection of every scale, cross-modal attention, pixel classifier.

    Defaults are the authors' (``src/pixel_classifier.py``): 9,683,234 parameters on MoNuSeg, 10,862,882 on QaTa-COV19.

    Args:
        channels: channels of each feature map.
        text_dim: channels of the tokens.
        num_classes: background included.
        dim: width that every scale is projected to (by a 1x1 convolution, unless it has it already).
        hidden: widths of the two 3x3 convolutions of the classifier.
        num_heads, head_dim: of the attention.
        fusion: "attention" (the method), "pooled" (the mean token is added to every pixel; the ablation's text without
            cross-attention), or "none" (no text; the ablation's first row).
        merge: "concat" stacks the up-sampled scales (authors); "sum" adds each to the next finer one, which is lighter;
            "decoder" does that with a residual pair of convolutions at every scale, so that what was read at one place is
            seen around it, classifies at the finest map's size and enlarges the logits (ours).
        attend: how many of the coarsest maps read the text; 0 for all (authors). Finer maps then only sharpen the edges.
        positions: give the pixels' places to the fusion (ours, see :class:`~textdiff.models.fusion.CrossModalAttention`).
        init: "official" draws every weight from N(0, 0.02), "default" is PyTorch's. With the former queries and keys start
            so small that the attention is uniform and takes hundreds of steps to turn to any word.
        normalise: bring every feature channel of every image to mean 0 and variance 1 before the projection, and use group
            instead of batch normalisation in the classifier (ours): a handful of images has no batch statistics to trust.

    Raises:
        ValueError: an unknown fusion or merge, no feature maps, fewer than two classes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        text_dim: int = 768,
        num_classes: int = 2,
        dim: int = 768,
        hidden: Sequence[int] = (128, 32),
        num_heads: int = 8,
        head_dim: int = 64,
        fusion: str = "attention",
        merge: str = "concat",
        attend: int = 0,
        positions: bool = False,
        normalise: bool = False,
        init: str = "official",
    ) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config |= {"channels": list(channels), "hidden": list(hidden)}
        if fusion not in FUSIONS:
            raise ValueError(f"fusion={fusion!r}: known are {', '.join(FUSIONS)}")
        if merge not in MERGES:
            raise ValueError(f"merge={merge!r}: known are {', '.join(MERGES)}")
        if init not in ("official", "default"):
            raise ValueError(f"init={init!r}: known are official, default")
        if not channels or num_classes < 2 or len(hidden) != 2:
            raise ValueError(
                f"channels={list(channels)}, num_classes={num_classes}, hidden={list(hidden)}: "
                "a head needs at least one map, two classes and two hidden widths"
            )
        if not 0 <= attend <= len(channels):
            raise ValueError(f"attend={attend}: from 0 (all) to {len(channels)}, the number of maps")
        self.channels, self.fusion, self.merge = list(channels), fusion, merge
        self.attend = attend or len(channels)
        self.normalise = normalise
        self.project = nn.ModuleDict(
            {name: nn.Conv2d(c, dim, 1) for name, c in zip(self._projections(dim), channels, strict=True) if name}
        )
        self._names = self._projections(dim)
        if fusion == "attention":
            self.cross = CrossModalAttention(2, dim, text_dim, num_heads, head_dim, positions)
        elif fusion == "pooled":
            self.cross = nn.Linear(text_dim, dim)
        if merge == "decoder":
            # One pair a scale, one more at the coarsest, where it sees farthest for least
            self.ascent = nn.ModuleList(ResidualPair(dim) for _ in range(len(channels) + 1))
        merged = dim * len(channels) if merge == "concat" else dim
        norms = [nn.GroupNorm(min(8, width), width) if normalise else nn.BatchNorm2d(width) for width in hidden]
        self.classifier = nn.Sequential(
            nn.Conv2d(merged, hidden[0], 3, padding=1),
            norms[0],
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden[0], hidden[1], 3, padding=1),
            norms[1],
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden[1], num_classes, 3, padding=1),
        )
        if init == "official":
            self.apply(_initialise)

    def _projections(self, dim: int) -> list[str]:
        """Which 1x1 convolution serves which scale: the first has its own, later ones of equal width share one."""
        names = [f"later{c}" if i else "first" for i, c in enumerate(self.channels)]
        return ["" if c == dim else name for name, c in zip(names, self.channels, strict=True)]

    def forward(
        self,
        maps: Sequence[Tensor],
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        size: tuple[int, int] = (256, 256),
    ) -> Tensor:
        """Logits ``[B, num_classes, *size]``.

        Args:
            maps: one ``[B, C_k, h_k, w_k]`` a scale.
            tokens: ``[B, L, text_dim]``; may be None only where ``fusion`` is "none".
            mask: ``[B, L]`` bool, True where a token is to be read; None reads all, padding too (as the authors do).
            size: height and width of the logits.
        """
        fused = self._project(maps, tokens)
        for k in self._reading(maps):
            fused[k] = self._fuse(fused[k], tokens, mask)
        if self.merge == "concat":
            return self.classifier(torch.cat([_resized(h, size) for h in fused], dim=1))
        merged, *finer = sorted(fused, key=lambda h: h.shape[-2] * h.shape[-1])
        if self.merge == "sum":
            for h in finer:
                merged = h + _resized(merged, h.shape[-2:])
            return self.classifier(_resized(merged, size))
        first, second, *others = self.ascent
        merged = second(first(merged))
        for h, pair in zip(finer, others, strict=True):
            merged = pair(h + _resized(merged, h.shape[-2:]))
        return _resized(self.classifier(merged), size)

    def attention(self, maps: Sequence[Tensor], tokens: Tensor, mask: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Where each token is read, mean over the scales: ``[B, L, *size]``, values 0..1."""
        if self.fusion != "attention":
            raise ValueError(f"a head with fusion={self.fusion!r} has no attention to show")
        projected = self._project(maps, tokens)
        looked = [self.cross.attention(projected[k], tokens, mask) for k in self._reading(maps)]
        raised = [F.interpolate(w, size=size, mode="bilinear", align_corners=False) for w in looked]
        return torch.stack(raised).mean(dim=0)

    def _project(self, maps: Sequence[Tensor], tokens: Tensor | None) -> list[Tensor]:
        got = [h.shape[1] for h in maps]
        if got != self.channels:
            raise ValueError(f"this head takes maps with {self.channels} channels, got {got}")
        if tokens is None and self.fusion != "none":
            raise ValueError(f"a head with fusion={self.fusion!r} needs tokens")
        if self.normalise:
            maps = [_lean(_standardised(h)) for h in maps]
        return [self.project[name](h) if name else h for name, h in zip(self._names, maps, strict=True)]

    def _reading(self, maps: Sequence[Tensor]) -> list[int]:
        """Indices of the maps that read the text: the coarsest ``attend``."""
        return sorted(range(len(maps)), key=lambda k: maps[k].shape[-2] * maps[k].shape[-1])[: self.attend]

    def _fuse(self, h: Tensor, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        if self.fusion == "none":
            return h
        if self.fusion == "attention":
            return self.cross(h, tokens, mask)
        weight = torch.ones(tokens.shape[:2], device=tokens.device) if mask is None else mask.float()
        mean = (tokens * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)
        return h + self.cross(mean)[:, :, None, None]

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Takes the state dict that the authors' code writes.

        Raises:
            ValueError: this head is not in one of the authors' two configurations, or keys are missing or wrong.
        """
        later = [name for name in self.project if name != "first"]
        if self.fusion != "attention" or self.merge != "concat" or self.normalise or len(later) > 1:
            raise ValueError("the authors' weights fit the default head on three steps of four blocks only")
        renamed = {}
        for key, value in state.items():
            for old, new in _official_names(later[0] if later else "").items():
                if key.startswith(old):
                    key = new + key.removeprefix(old)
                    break
            renamed[key] = value
        load_strict(self, renamed, source="the authors' code")


class ResidualPair(nn.Module):
    """``x + f(x)``, f twice group normalisation, ReLU and a 3x3 convolution; ``[B, dim, h, w]`` to the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        norms = [nn.GroupNorm(min(8, dim), dim) for _ in range(2)]
        convs = [nn.Conv2d(dim, dim, 3, padding=1) for _ in range(2)]
        self.body = nn.Sequential(norms[0], nn.ReLU(), convs[0], norms[1], nn.ReLU(), convs[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _resized(h: Tensor, size: Sequence[int]) -> Tensor:
    return (
        h if h.shape[-2:] == tuple(size) else F.interpolate(h, size=tuple(size), mode="bilinear", align_corners=False)
    )


def _standardised(h: Tensor) -> Tensor:
    """Every channel of every image to mean 0 and variance 1 over its pixels."""
    return F.layer_norm(h, h.shape[-2:])


def _lean(h: Tensor) -> Tensor:
    """Channels last, in the dtype that autocast would round the projection's input to: a small head waits for memory."""
    kind = h.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h.dtype
    return h.to(dtype, memory_format=torch.channels_last)


def _official_names(later: str) -> dict[str, str]:
    return {
        "decodes.": "classifier.",
        "cross1.ff.net.2.": "cross.ff.",
        "cross1.": "cross.",
        "down1.": "project.first.",
        "down2.": f"project.{later}.",
    }


def _initialise(module: nn.Module) -> None:
    """As the authors': weights N(0, 0.02), biases 0; batch normalisation N(1, 0.02); layer normalisation untouched."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class TextDiff(nn.Module):
    """Frozen diffusion features and frozen text tokens, read by a trained :class:`TextDiffHead`.

    Args:
        features: the image side.
        text: the text side; may be None where ``fusion`` is "none".
        num_classes: background included.
        image_size: side in pixels that :meth:`predict` brings a picture to before the UNet sees it.
        channel_order, resize: how a picture becomes the UNet's input (:func:`textdiff.data.images.transforms.to_input`).
        text_mask: hide padding from the attention (the authors' code does not).
        class_names: for the record; default background, foreground, ...
        head: further arguments of :class:`TextDiffHead`.
    """

    def __init__(
        self,
        features: DiffusionFeatures,
        text: TextEncoder | None,
        num_classes: int = 2,
        image_size: int = 256,
        channel_order: str = "RGB",
        resize: str = "area",
        text_mask: bool = True,
        class_names: Sequence[str] = (),
        **head: object,
    ) -> None:
        super().__init__()
        if text is None and head.get("fusion", "attention") != "none":
            raise ValueError("without a text encoder, fusion must be 'none'")
        self.features, self.text = features, text
        self.image_size, self.channel_order, self.resize = image_size, channel_order, resize
        self.text_mask = text_mask
        self.class_names = tuple(class_names) or ("background", *(f"class {k}" for k in range(1, num_classes)))
        self.head = TextDiffHead(features.channels, text.dim if text else 1, num_classes, **head)

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """``images [B, 3, H, W]`` in [-1, 1] and B captions -> logits ``[B, num_classes, H, W]``."""
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images but {len(captions)} captions")
        maps = self.features.maps(images)
        tokens, mask = self._read(captions)
        with mixed_precision(images.device, self.features.precision):
            return self.head(maps, tokens, mask, size=tuple(images.shape[-2:])).float()

    def _read(self, captions: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
        if self.head.fusion == "none":
            return None, None
        tokens, mask = self.text(list(captions))
        return tokens.to(self.device), mask.to(self.device) if self.text_mask else None

    @torch.no_grad()
    def predict(self, image: str | Path | np.ndarray, text: str, probabilities: bool = False) -> np.ndarray:
        """Segments one picture.

        Args:
            image: a file, or a uint8 array ``[H, W, 3]`` (RGB) or ``[H, W]`` (grey).
            text: the sentence that describes it.
            probabilities: return float32 ``[num_classes, H, W]`` instead of labels.

        Returns:
            label map uint8 ``[H, W]`` at the picture's own size.
        """
        pixels = _as_rgb(image)
        was_training = self.training
        self.eval()
        try:
            with self.features.uncached():
                logits = self(self._input(pixels), [text])
        finally:
            self.train(was_training)
        logits = F.interpolate(logits, size=pixels.shape[:2], mode="bilinear", align_corners=False)[0]
        if probabilities:
            return logits.softmax(dim=0).cpu().numpy()
        return logits.argmax(dim=0).to(torch.uint8).cpu().numpy()

    @torch.no_grad()
    def look(self, image: str | Path | np.ndarray, text: str) -> tuple[list[str], np.ndarray]:
        """Which word looked where: the caption's word pieces and their attention, float32 ``[L, H, W]`` in 0..1."""
        pixels = _as_rgb(image)
        tokens, mask = self._read([text])
        with self.features.uncached():
            maps = self.features(self._input(pixels))
        weights = self.head.attention(maps, tokens, mask, size=pixels.shape[:2])[0]
        words = self.text.words(text)
        return words, weights[: len(words)].cpu().numpy()

    def _input(self, pixels: np.ndarray) -> Tensor:
        return to_input(pixels, self.image_size, self.channel_order, self.resize)[None].to(self.device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``config.json``, ``head.safetensors`` and the backbone (``unet/``); the text encoder by its name.

        The backbone is stored in float16 where that loses nothing (it was loaded from float16), else in float32.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.features.unet.state_dict()
        lossless = all(torch.equal(value, value.half().to(value.dtype)) for value in state.values())
        self.features.unet.save_pretrained(folder / "unet", torch.float16 if lossless else torch.float32)
        write_checkpoint(folder / "head.safetensors", self.head.state_dict())
        text = None
        if self.text is not None:
            text = {"name": self.text.name, "max_length": self.text.max_length, "padding": self.text.padding}
        config = {
            "format": "textdiff-2d/1",
            "features": self.features.settings,
            "text": text,
            "model": {
                "image_size": self.image_size,
                "channel_order": self.channel_order,
                "resize": self.resize,
                "text_mask": self.text_mask,
                "class_names": list(self.class_names),
            },
            "head": self.head.config,
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | torch.device = "cpu") -> TextDiff:
        """The model that :meth:`save_pretrained` wrote, from a folder or a Hugging Face hub id, in eval mode.

        Raises:
            FileNotFoundError: neither a folder nor a hub id that can be reached.
            ValueError: a damaged file, or weights that do not fit the configuration (keys are listed).
        """
        folder = find_model(name, "TextDiff")
        config = read_json(folder / "config.json")
        features = DiffusionFeatures(UNet.from_pretrained(folder / "unet"), **config["features"])
        text = None
        if config["text"] is not None:
            about = config["text"]
            text = TextEncoder.from_pretrained(about["name"], max_length=about["max_length"], padding=about["padding"])
        head = dict(config["head"])
        fixed = {key: head.pop(key) for key in ("channels", "text_dim", "num_classes")}
        model = cls(features, text, num_classes=fixed["num_classes"], **config["model"], **head)
        load_strict(model.head, read_checkpoint(folder / "head.safetensors"), source=str(folder))
        return model.to(device).eval()


def _as_rgb(image: str | Path | np.ndarray) -> np.ndarray:
    if isinstance(image, (str, Path)):
        return read_picture(Path(image), "RGB")
    if image.dtype == np.uint8 and image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 [H, W, 3] or [H, W], values 0..255; got {image.dtype} {image.shape}")
    return image
