"""Text meets image: feature maps and tokens in, maps of the same shape that have read the sentence out.

The block of the authors' code (``src/transformer.py``, chunmeifeng/TextDiff @ cd7e79f): two cross-attentions and a linear
layer, each with pre-normalisation and residual. The paper's equation 3 is one of these attentions. One class serves 2D and
3D: spatial dimensions are flattened.

Pixels are many and tokens few, so what depends on the sentence alone is computed once: queries are never made, since
``(x W_q)(T W_k)^T = x (W_q (T W_k)^T)``, and neither are the heads' outputs, since ``(P V) W_out = P (V W_out)``. Pixels
do not look at each other, and a map is read in pieces that stay in a processor's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.products import linear, linear_of_each
from textdiff.models.maps import PositionEncoding
from textdiff.models.pieces import in_pieces


@dataclass(frozen=True)
class Sentence:
    """Captions as one attention reads them: products of their tokens with its projections, ready for any pixel.

    keys, values: ``[B, heads * L, dim]``. hidden: ``[B, 1, heads * L]``, 0, or -inf where a token is not to be read.
    """

    keys: Tensor
    values: Tensor
    hidden: Tensor

    def __getitem__(self, images: slice) -> Sentence:
        return Sentence(self.keys[images], self.values[images], self.hidden[images])


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

    def sentence(self, tokens: Tensor, mask: Tensor | None) -> Sentence:
        """What pixels need of ``tokens [B, L, text_dim]``, of which ``mask [B, L]`` (True = read it) hides some."""
        heads = (self.num_heads, -1)
        with torch.autocast(tokens.device.type, enabled=False):  # few numbers: rounded once, after the products
            tokens = tokens.to(self.to_k.weight.dtype)
            k, v = (projection(tokens).unflatten(-1, heads) for projection in (self.to_k, self.to_v))
            query, out = self.to_q.weight.unflatten(0, heads), self._projected.weight.unflatten(1, heads)
            keys = torch.einsum("blhd,hdc->bhlc", k, query) / math.sqrt(k.shape[-1])
            values = torch.einsum("blhd,chd->bhlc", v, out)
        hidden = torch.zeros(tokens.shape[:2], device=tokens.device)
        if mask is not None:
            hidden = hidden.masked_fill(~mask, -torch.inf)
        return Sentence(keys.flatten(1, 2), values.flatten(1, 2), hidden.repeat(1, self.num_heads)[:, None])

    def forward(self, x: Tensor, sentence: Sentence) -> Tensor:
        """``x [B, N, dim]`` -> ``[B, N, dim]``."""
        weights = self.weights(x, sentence).flatten(2)
        return self.to_out[1](linear_of_each(weights, sentence.values.transpose(1, 2), self._projected.bias))

    @property
    def _projected(self) -> nn.Linear:
        return self.to_out[0]  # type: ignore[return-value]  # a Sequential does not know its parts' types

    def weights(self, x: Tensor, sentence: Sentence) -> Tensor:
        """The attention of every pixel over the tokens: ``[B, N, heads, L]``, rows sum to one."""
        scores = linear_of_each(x, sentence.keys)
        return (scores + sentence.hidden.to(scores.dtype)).unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)


class CrossModalAttention(nn.Module):
    """The fusion block: cross-attention, cross-attention, linear layer; shared by all scales of a model.

    Args:
        spatial_dims: 2 for maps ``[B, C, H, W]``, 3 for volumes ``[B, C, D, H, W]``.
        dim, text_dim: channels of the maps and of the tokens.
        num_heads, head_dim: attention heads and their width (8 x 64 in the authors' code).
        positions: add a learned projection of Fourier features of each pixel's place to the map (ours). Without it the
            attention alone cannot obey "upper left"; a map that carries the place can, as the UNet's of chest films do.
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
        h = in_pieces(self._read, h, *self._sentences(tokens, mask))
        return h.transpose(1, 2).unflatten(2, x.shape[2:])

    def attention(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where each word is read, mean of both attentions: ``[B, L, *space]``; at every pixel the words sum to one."""
        h = self._flat(x, tokens, mask)
        first, second = self._sentences(tokens, mask)
        looked = [self.attn1.weights(self.norm1(h), first)]
        h = h + self.attn1(self.norm1(h), first)
        looked.append(self.attn2.weights(self.norm2(h), second))
        return torch.stack(looked).mean(dim=(0, 3)).transpose(1, 2).unflatten(2, x.shape[2:])

    def _read(self, h: Tensor, first: Sentence, second: Sentence) -> Tensor:
        h = h + self.attn1(self.norm1(h), first)
        h = h + self.attn2(self.norm2(h), second)
        return h + linear(F.gelu(self.norm3(h)), self.ff.weight, self.ff.bias)

    def _sentences(self, tokens: Tensor, mask: Tensor | None) -> tuple[Sentence, Sentence]:
        return self.attn1.sentence(tokens, mask), self.attn2.sentence(tokens, mask)

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
