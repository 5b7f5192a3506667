"""Text meets image: feature maps and tokens in, maps of the same shape that have read the sentence out.

The block of the authors' code (``src/transformer.py``, chunmeifeng/TextDiff @ cd7e79f): two cross-attentions and a linear
layer, each with pre-normalisation and residual. The paper's equation 3 is one of these attentions. One class serves 2D and
3D: spatial dimensions are flattened.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """Every pixel asks the tokens: ``softmax(x W_q (T W_k)^T / sqrt(d)) T W_v``, then a linear layer and a LayerNorm."""

    def __init__(self, dim: int, text_dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(text_dim, inner, bias=False)
        self.to_v = nn.Linear(text_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim), nn.LayerNorm(dim))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """``x [B, N, dim]``, ``tokens [B, L, text_dim]``, ``mask [B, L]`` (True = read it) -> ``[B, N, dim]``."""
        q, k, v = (self._heads(part) for part in (self.to_q(x), self.to_k(tokens), self.to_v(tokens)))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        return self.to_out(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """The attention of every pixel over the tokens, mean of the heads: ``[B, N, L]``, rows sum to one."""
        q, k = self._heads(self.to_q(x)), self._heads(self.to_k(tokens))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        return scores.softmax(dim=-1).mean(dim=1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class CrossModalAttention(nn.Module):
    """The fusion block: cross-attention, cross-attention, linear layer; shared by all scales of a model.

    Args:
        spatial_dims: 2 for maps ``[B, C, H, W]``, 3 for volumes ``[B, C, D, H, W]``.
        dim, text_dim: channels of the maps and of the tokens.
        num_heads, head_dim: attention heads and their width (8 x 64 in the authors' code).
        positions: add a learned projection of Fourier features of each pixel's place to the map. Ours: without it a
            query knows *what* is there but not *where*, and "upper left" cannot be obeyed.
    """

    def __init__(
        self,
        spatial_dims: int,
        dim: int,
        text_dim: int,
        num_heads: int = 8,
        head_dim: int = 64,
        positions: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        self.spatial_dims = spatial_dims
        self.attn1 = CrossAttention(dim, text_dim, num_heads, head_dim)
        self.attn2 = CrossAttention(dim, text_dim, num_heads, head_dim)
        # "feed-forward" without expansion, as in the authors' code: GELU, then one square linear layer
        self.ff = nn.Linear(dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.place = PositionEncoding(spatial_dims, dim) if positions else None

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x [B, dim, *space]``, ``tokens [B, L, text_dim]``, ``mask [B, L]`` bool or None -> ``[B, dim, *space]``."""
        h = self._flat(x, tokens, mask)
        h = h + self.attn1(self.norm1(h), tokens, mask)
        h = h + self.attn2(self.norm2(h), tokens, mask)
        h = h + self.ff(F.gelu(self.norm3(h)))
        return h.transpose(1, 2).unflatten(2, x.shape[2:])

    def attention(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where each word is read, mean of both attentions: ``[B, L, *space]``; at every pixel the words sum to one."""
        h = self._flat(x, tokens, mask)
        first = self.attn1.weights(self.norm1(h), tokens, mask)
        h = h + self.attn1(self.norm1(h), tokens, mask)
        second = self.attn2.weights(self.norm2(h), tokens, mask)
        return ((first + second) / 2).transpose(1, 2).unflatten(2, x.shape[2:])

    def _flat(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """The checked map as pixels that know their place, ``[B, N, dim]``."""
        if x.ndim != self.spatial_dims + 2:
            raise ValueError(f"maps must have {self.spatial_dims} spatial dimensions, got {tuple(x.shape)}")
        if tokens.ndim != 3 or len(tokens) != len(x):
            raise ValueError(f"tokens must be [{len(x)}, L, D], one row per image, got {tuple(tokens.shape)}")
        if mask is not None and mask.shape != tokens.shape[:2]:
            raise ValueError(f"mask must be {tuple(tokens.shape[:2])} like the tokens, got {tuple(mask.shape)}")
        if mask is not None and not mask.any(dim=1).all():
            raise ValueError("a caption has no token left to read: its whole mask is False")
        if self.place is not None:
            x = x + self.place(x.shape[2:], x.device)
        return x.flatten(2).transpose(1, 2)


class PositionEncoding(nn.Module):
    """Fourier features of the pixel's place, projected to ``dim`` channels; the same place at every scale and size."""

    FREQUENCIES = (0.5, 1.0, 2.0, 4.0)  # periods of four, two, one and half an image

    def __init__(self, spatial_dims: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * spatial_dims * len(self.FREQUENCIES), dim)

    def forward(self, space: torch.Size, device: torch.device) -> Tensor:
        """``[1, dim, *space]`` for a map of that size."""
        axes = [(torch.arange(size, device=device) + 0.5) / size * 2 - 1 for size in space]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        angles = torch.cat([grid * math.pi * frequency for frequency in self.FREQUENCIES], dim=-1)
        encoded = self.project(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return encoded.movedim(-1, 0)[None]
