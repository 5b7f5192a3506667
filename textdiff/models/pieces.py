"""A large map, pixel by pixel, without large intermediate steps. In: a function of pixels, a map. Out: the function's map.

On a processor a map is read in pieces that stay in its caches. Of large maps nothing between input and output is kept
for the gradients, but computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from textdiff.base.precision import again

PIECE = {"cpu": 3 * 2**20}  # numbers that are read at once (12 MB); a GPU wants as many as there are
RECOMPUTED = 2**23  # numbers of a map above which its steps are computed twice


def in_pieces(read: Callable[..., Tensor], pixels: Tensor, *each: Any) -> Tensor:
    """``read(pixels, *each)`` where no pixel sees another: ``[B, N, C]`` -> ``[B, N, C]``.

    each: what belongs to every image, taken apart by ``one[i : i + 1]``.
    """
    whole, kind = pixels.numel(), pixels.device.type
    kept = whole < RECOMPUTED or not torch.is_grad_enabled()

    def one(piece: Tensor, *own: Any) -> Tensor:
        if kept:
            return read(piece, *own)
        return checkpoint(read, piece, *own, use_reentrant=False, preserve_rng_state=False, **again(piece.device))

    if whole <= PIECE.get(kind, whole):
        return one(pixels, *each)
    length = max(1, PIECE[kind] // pixels.shape[-1])
    found = [
        one(piece, *(part[i : i + 1] for part in each))
        for i in range(len(pixels))
        for piece in pixels[i : i + 1].split(length, dim=1)
    ]
    return torch.cat(found, dim=1).reshape(pixels.shape)
