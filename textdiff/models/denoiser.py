"""TextDiffSeg's blocks and its denoiser: a noised label latent with the fused image latent, a time and tokens in, the clean latent out.

The denoiser is MONAI's ``DiffusionModelUNet`` in the one form that is used here (two levels, one residual block each, attention at
the coarse one), under the same names of weights, with the same numbers. It stands here because MONAI alone takes longer to import
than a volume to segment; the products of its attention are PyTorch's fused ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.models.unet import timestep_embedding, zeroed

GROUPS, EPS = 16, 1e-6  # of the group norms
HEAD = 32  # channels of an attention head


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> nn.Module:
    """A convolution that keeps the size, or divides it by ``stride``; its weights are called ``conv.*``, as MONAI's are."""
    padding = (kernel - stride + 1) // 2 if kernel > 1 else 0
    return nn.Sequential(OrderedDict(conv=nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=bias)))


class ConvBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with a residual connection, instance norm and leaky ReLU: MONAI's ``UnetResBlock``, after nnU-Net.

    ``forward(x [B, in, X, Y, Z])`` gives ``[B, out, X/stride, Y/stride, Z/stride]``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride, bias=False)
        self.conv2 = conv(out_channels, out_channels, 3, bias=False)
        if in_channels != out_channels or stride != 1:
            self.conv3 = conv(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(F.instance_norm(self.conv1(x)), inplace=True)
        h = F.instance_norm(self.conv2(h))
        h += F.instance_norm(self.conv3(x)) if hasattr(self, "conv3") else x
        return F.leaky_relu(h, inplace=True)


class ResBlock(nn.Module):
    """Two convolutions that are told the time, and a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, time: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels, EPS)
        self.conv1 = conv(in_channels, out_channels)
        self.time_emb_proj = nn.Linear(time, out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels, EPS)
        self.conv2 = zeroed(conv(out_channels, out_channels))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """``x [B, C, X, Y, Z]``, ``time [B, T]`` -> ``[B, out, X, Y, Z]``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(time))[:, :, None, None, None]
        return self.skip_connection(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Multi-head attention of ``x [B, N, dim]`` over ``context [B, L, context_dim]``."""

    def __init__(self, dim: int, context_dim: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(dim, dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim, dim, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        parts = (self.to_q(x), self.to_k(context), self.to_v(context))
        q, k, v = (part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in parts)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """A gated layer: one half of the widened channels decides, by GELU, what passes of the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(dim, 8 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.linear1(x).chunk(2, dim=-1)
        return self.linear2(values * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Cells look at each other, at the tokens, and each at itself."""

    def __init__(self, dim: int, text_dim: int) -> None:
        super().__init__()
        self.attn1, self.ff, self.attn2 = Attention(dim, dim), FeedForward(dim), Attention(dim, text_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        own = self.norm1(x)
        x = self.attn1(own, own) + x
        x = self.attn2(self.norm2(x), tokens) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    """A transformer block over the cells of a map ``[B, C, X, Y, Z]``, as a residual branch."""

    def __init__(self, channels: int, text_dim: int) -> None:
        super().__init__()
        inner = channels // HEAD * HEAD  # whole heads
        self.norm = nn.GroupNorm(GROUPS, channels, EPS)
        self.proj_in = conv(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, text_dim)])
        self.proj_out = zeroed(conv(inner, channels, 1))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            h = block(h, tokens)
        return self.proj_out(h.transpose(1, 2).unflatten(2, x.shape[2:])) + x


class Level(nn.Module):
    """Residual blocks of one size, each with a transformer behind it where ``text_dim`` is not 0."""

    attentions: nn.ModuleList
    downsampler: nn.Module
    upsampler: nn.Module

    def __init__(self, inputs: Sequence[int], channels: int, time: int, text_dim: int) -> None:
        super().__init__()
        resnets, attentions = [], []
        for width in inputs:
            resnets.append(ResBlock(width, channels, time))
            attentions += [SpatialTransformer(channels, text_dim)] if text_dim else []
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)

    def block(self, k: int, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """The ``k``-th residual block and its transformer."""
        x = self.resnets[k](x, time)
        return self.attentions[k](x, tokens) if hasattr(self, "attentions") else x


class Middle(nn.Module):
    """Residual block, transformer, residual block."""

    def __init__(self, channels: int, time: int, text_dim: int) -> None:
        super().__init__()
        self.resnet_1 = ResBlock(channels, channels, time)
        self.attention = SpatialTransformer(channels, text_dim)
        self.resnet_2 = ResBlock(channels, channels, time)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        return self.resnet_2(self.attention(self.resnet_1(x, time), tokens), time)


class Denoiser(nn.Module):
    """The whole UNet.

    Args:
        in_channels, out_channels: of the two latents together, and of the label latent.
        widths: channels at the latent's own stride and at twice that, multiples of 16, the second at least 32.
        text_dim: channels of a token.
    """

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int], text_dim: int) -> None:
        super().__init__()
        fine, coarse = widths
        time = 4 * fine
        self.fine = fine
        self.conv_in = conv(in_channels, fine)
        self.time_embed = nn.Sequential(nn.Linear(fine, time), nn.SiLU(), nn.Linear(time, time))
        down = Level([fine], fine, time, 0)
        down.downsampler = nn.Sequential(OrderedDict(op=conv(fine, fine, stride=2)))
        self.down_blocks: Any = nn.ModuleList([down, Level([fine], coarse, time, text_dim)])
        self.middle_block = Middle(coarse, time, text_dim)
        up = Level([2 * coarse, coarse + fine], coarse, time, text_dim)
        up.upsampler = nn.Sequential(OrderedDict(larger=nn.Upsample(scale_factor=2), postconv=conv(coarse, coarse)))
        self.up_blocks: Any = nn.ModuleList([up, Level([coarse + fine, 2 * fine], fine, time, 0)])
        last = zeroed(conv(fine, out_channels))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, fine, EPS), nn.SiLU(), last)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """``x [B, in, X, Y, Z]`` with even sides, ``timesteps [B]``, tokens ``context [B, L, text_dim]`` -> ``[B, out, X, Y, Z]``."""
        time = self.time_embed(timestep_embedding(timesteps, self.fine).to(x.dtype))
        first: Any = self.down_blocks[0]
        second: Any = self.down_blocks[1]
        passed = [self.conv_in(x)]
        passed.append(first.block(0, passed[-1], time, context))
        passed.append(first.downsampler(passed[-1]))
        passed.append(second.block(0, passed[-1], time, context))
        h = self.middle_block(passed[-1], time, context)
        for level in self.up_blocks:
            for k in range(2):
                h = level.block(k, torch.cat([h, passed.pop()], dim=1), time, context)
            h = level.upsampler(h) if hasattr(level, "upsampler") else h
        return self.out(h)
