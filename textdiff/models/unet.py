"""The denoising UNet of guided-diffusion: noised images and timesteps in, predicted noise (and any decoder block) out.

The architecture, the constructor's argument names and every state-dict key are those of openai/guided-diffusion
(commit 22e0df8, ``guided_diffusion/unet.py``), so that its published checkpoints load strictly. What differs is how it
runs: attention goes through ``scaled_dot_product_attention``, and a forward pass may stop at a chosen decoder block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.checkpoints import (
    TooManyError,
    building,
    load_strict,
    read_checkpoint,
    read_json,
    write_checkpoint,
    write_text,
)
from textdiff.base.products import pixelwise


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of the noise step: ``[B]`` (0..999, may be fractional) -> ``[B, dim]`` float32, cosines first."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps[:, None].float() * frequencies.to(timesteps.device)[None]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


class GroupNorm32(nn.GroupNorm):
    """Group normalisation over 32 groups, computed in float32 whatever the dtype of its input and weights."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        plain = x.dtype == torch.float32 and self.weight.dtype == torch.float32
        # On a processor the normalisation of bfloat16 with float32 weights is itself computed in float32, in one pass; its
        # gradient takes longer than the detour
        mixed = x.dtype == torch.bfloat16 and self.weight.dtype == torch.float32
        if plain or (mixed and x.device.type == "cpu" and not torch.is_grad_enabled()):
            return F.group_norm(x, 32, self.weight, self.bias, self.eps)
        return F.group_norm(x.float(), 32, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class Upsample(nn.Module):
    """Nearest-neighbour doubling of height and width, then a 3x3 convolution where ``use_conv``."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if use_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Downsample(nn.Module):
    """Halves height and width: a strided 3x3 convolution where ``use_conv``, else the mean of 2x2 pixels."""

    def __init__(self, channels: int, use_conv: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if use_conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """Residual block conditioned on the timestep embedding; ``resample`` ("up", "down" or None) changes the size inside."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        dropout: float,
        out_channels: int,
        use_scale_shift_norm: bool,
        resample: str | None = None,
    ) -> None:
        super().__init__()
        self.use_scale_shift_norm = use_scale_shift_norm
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.resample: nn.Module = nn.Identity()
        if resample is not None:
            self.resample = (Upsample if resample == "up" else Downsample)(channels, use_conv=False)
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels if use_scale_shift_norm else out_channels)
        )
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = out_channels == channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[-1](self.resample(self.in_layers[:-1](x)))
        x = self.resample(x)
        emb = self.emb_layers(emb)[:, :, None, None]
        if self.use_scale_shift_norm:
            scale, shift = emb.chunk(2, dim=1)
            h = self.out_layers[1:](torch.addcmul(shift, self.out_layers[0](h), 1 + scale))
        else:
            h = self.out_layers(h + emb)
        if not isinstance(self.skip_connection, nn.Identity):
            x = pixelwise(self.skip_connection, x)
        return x + h


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, ``[B, C, H, W]`` -> the same shape.

    Checkpoints interleave queries, keys and values along the channels in two ways: (head, qkv, channel) by default, (qkv,
    head, channel) with ``use_new_attention_order``.
    """

    def __init__(self, channels: int, num_heads: int, use_new_attention_order: bool) -> None:
        super().__init__()
        self.num_heads, self.use_new_attention_order = num_heads, use_new_attention_order
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        order = (3, self.num_heads) if self.use_new_attention_order else (self.num_heads, 3)
        qkv = pixelwise(self.qkv, self.norm(x)).flatten(2).transpose(1, 2).unflatten(2, (*order, -1))  # [B, N, ..., d]
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(dim=2 if self.use_new_attention_order else 3))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, N, C]
        return x + pixelwise(self.proj_out, h.transpose(1, 2).unflatten(2, x.shape[2:]))


class TimestepBlock(nn.Sequential):
    """A sequence of layers of which only the residual blocks are given the timestep embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]  # Sequential takes one tensor
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(nn.Module):
    """guided-diffusion's UNet with attention and timestep embedding.

    Args:
        image_size: side of the training images in pixels; kept for the record, any divisible size can be run.
        in_channels, out_channels: image channels, and predicted channels (twice as many where the variance is learned).
        model_channels: channels of the finest level; multiplied by ``channel_mult`` level by level.
        num_res_blocks: residual blocks a level (the decoder has one more a level).
        attention_resolutions: *down-sampling factors* (1, 2, 4, ...) at which self-attention is used.
        num_classes: number of labels of a class-conditional network, else None.
        num_heads, num_head_channels: heads, or channels per head (which wins unless it is -1).
        use_scale_shift_norm: the timestep scales and shifts the normalised activations instead of being added.
        resblock_updown: resample inside residual blocks; else by convolutions where ``conv_resample``, or by pooling.
        use_new_attention_order: channel order inside ``qkv`` (see :class:`AttentionBlock`).

    ``known_as``: the built-in name that its weights were loaded by, if any.

    Raises ValueError: arguments that contradict each other, naming both.
    """

    known_as: str = ""

    def __init__(
        self,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        dropout: float = 0.0,
        channel_mult: Sequence[int] = (1, 2, 4, 8),
        conv_resample: bool = True,
        num_classes: int | None = None,
        num_heads: int = 1,
        num_head_channels: int = -1,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
    ) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.config |= {k: list(self.config[k]) for k in ("attention_resolutions", "channel_mult")}
        widths = [int(mult * model_channels) for mult in channel_mult]
        _check_arguments(widths, attention_resolutions, num_heads, num_head_channels)
        self.model_channels, self.num_classes = model_channels, num_classes

        emb_channels = 4 * model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        if num_classes is not None:
            self.label_emb = nn.Embedding(num_classes, emb_channels)

        def residual(channels: int, out: int, resample: str | None = None) -> ResBlock:
            return ResBlock(channels, emb_channels, dropout, out, use_scale_shift_norm, resample)

        def attention(channels: int) -> AttentionBlock:
            heads = num_heads if num_head_channels == -1 else channels // num_head_channels
            return AttentionBlock(channels, heads, use_new_attention_order)

        self.input_blocks = nn.ModuleList([TimestepBlock(nn.Conv2d(in_channels, widths[0], 3, padding=1))])
        skips, channels = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [residual(channels, width)]
                channels = width
                if 2**level in attention_resolutions:
                    layers.append(attention(channels))
                self.input_blocks.append(TimestepBlock(*layers))
                skips.append(channels)
            if level < len(widths) - 1:
                down = residual(channels, channels, "down") if resblock_updown else Downsample(channels, conv_resample)
                self.input_blocks.append(TimestepBlock(down))
                skips.append(channels)

        self.middle_block = TimestepBlock(
            residual(channels, channels), attention(channels), residual(channels, channels)
        )

        self.output_blocks = nn.ModuleList()
        self.block_channels: list[int] = []
        self.block_strides: list[int] = []
        for level in reversed(range(len(widths))):
            for i in range(num_res_blocks + 1):
                layers = [residual(channels + skips.pop(), widths[level])]
                channels, stride = widths[level], 2**level
                if stride in attention_resolutions:
                    layers.append(attention(channels))
                if level > 0 and i == num_res_blocks:
                    up = residual(channels, channels, "up") if resblock_updown else Upsample(channels, conv_resample)
                    layers, stride = [*layers, up], stride // 2
                self.output_blocks.append(TimestepBlock(*layers))
                self.block_channels.append(channels)
                self.block_strides.append(stride)

        self.out = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), zeroed(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    @property
    def divisor(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (len(self.config["channel_mult"]) - 1)

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        """``x [B, in, H, W]`` in about [-1, 1], ``timesteps [B]`` (0..999), labels ``y [B]`` -> ``[B, out, H, W]``."""
        h = self.decode(x, timesteps, (len(self.output_blocks) - 1,), y)[0]
        return self.out(h).to(x.dtype)

    def decode(self, x: Tensor, timesteps: Tensor, blocks: Sequence[int], y: Tensor | None = None) -> list[Tensor]:
        """Outputs of the decoder ``blocks`` (counted from the deepest), in the order asked for.

        Nothing after the last block asked for is computed.

        Raises ValueError: a block that does not exist, a size that cannot be halved often enough, labels missing or too many.
        """
        self._check_input(x, timesteps, blocks, y)
        dtype = next(self.time_embed.parameters()).dtype
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(dtype))
        if y is not None:
            emb = emb + self.label_emb(y)
        h, skips = x.to(dtype), []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        wanted = {}
        for k, block in enumerate(self.output_blocks[: max(blocks) + 1]):
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if k in blocks:
                wanted[k] = h
        return [wanted[k] for k in blocks]

    def _check_input(self, x: Tensor, timesteps: Tensor, blocks: Sequence[int], y: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.config["in_channels"]:
            raise ValueError(f"images must be [B, {self.config['in_channels']}, H, W], got {tuple(x.shape)}")
        size, divisor = tuple(x.shape[-2:]), self.divisor
        near = tuple(max(divisor, round(side / divisor) * divisor) for side in size)
        if size != near:
            raise ValueError(
                f"image size {size[0]}x{size[1]}: height and width must be multiples of {divisor} "
                f"for this UNet; the nearest that would do is {near[0]}x{near[1]}"
            )
        if timesteps.shape != (len(x),):
            raise ValueError(f"timesteps must be [{len(x)}], one for each image, got {tuple(timesteps.shape)}")
        if (y is None) != (self.num_classes is None):
            kind = "class-conditional: give labels y" if y is None else "unconditional: give no labels y"
            raise ValueError(f"this UNet is {kind}")
        check_blocks(blocks, len(self.output_blocks))

    def rounded(self) -> UNet:
        """In place: the weights of convolutions and linear layers in bfloat16, to which mixed precision rounds them anyway.

        Features computed in bfloat16 stay the same, without rounding all weights anew each time and in half the memory.
        """
        for part in self.modules():
            if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                part.to(torch.bfloat16)
        return self

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes ``config.json`` and ``model.safetensors`` (in ``dtype``) into ``folder``, each of them atomically."""
        state = {key: value.to(dtype) for key, value in self.state_dict().items()}
        write_checkpoint(Path(folder) / "model.safetensors", state)
        write_text(Path(folder) / "config.json", json.dumps(self.config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, rounded: bool = False) -> UNet:
        """The network that :meth:`save_pretrained` wrote, in float32 (or as :meth:`rounded`) and eval mode."""
        config = Path(folder).expanduser() / "config.json"
        if not config.is_file():
            raise FileNotFoundError(f"no UNet in {folder}: config.json is missing (and model.safetensors beside it)")
        return cls.with_weights(read_json(config), config.with_name("model.safetensors"), rounded)

    @classmethod
    def with_weights(cls, config: Mapping[str, Any], weights: Path, rounded: bool = False) -> UNet:
        """The network of these settings and this file's weights, in eval mode; only one copy of them is ever made."""
        state, about = read_checkpoint(weights), weights.with_name("config.json")
        try:
            with torch.device("meta"), building(about, weights.stat().st_size):
                unet = cls(**config)
        except TooManyError:
            raise
        except (TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError) as error:  # values of any kind
            raise ValueError(f"{about} describes no UNet: {error}") from error
        if rounded:
            unet.rounded()
        load_strict(unet, state, source=str(weights))
        return unet.eval()


def check_blocks(blocks: Sequence[int], available: int) -> None:
    """Raises ValueError unless ``blocks`` is a non-empty list of distinct decoder block numbers below ``available``."""
    wrong = [k for k in blocks if not 0 <= k < available]
    if wrong or not blocks or len(set(blocks)) != len(blocks):
        raise ValueError(
            f"decoder blocks {list(blocks)}: this UNet has blocks 0 to {available - 1} (0 is the deepest); "
            "name at least one, each once"
        )


def _check_arguments(widths: list[int], attention: Sequence[int], num_heads: int, head_channels: int) -> None:
    if any(width % 32 for width in widths):
        raise ValueError(f"model_channels times channel_mult gives {widths}: each must be a multiple of 32")
    factors = [2**level for level in range(len(widths))]
    if not set(attention) <= set(factors):
        raise ValueError(
            f"attention_resolutions {list(attention)} are down-sampling factors; with this channel_mult they can be {factors}"
        )
    with_attention = [w for w, f in zip(widths, factors, strict=True) if f in attention] + [widths[-1]]
    name, share = ("num_heads", num_heads) if head_channels == -1 else ("num_head_channels", head_channels)
    if any(width % share for width in with_attention):
        raise ValueError(f"{name}={share} does not divide the attention widths {with_attention} (from channel_mult)")


def zeroed(module: nn.Module) -> nn.Module:
    """Residual branches start as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
