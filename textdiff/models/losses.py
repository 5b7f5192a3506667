"""The training loss. In: logits and a label map. Out: one number, cross-entropy plus weighted Dice loss.

The paper says Dice + cross-entropy. TextDiff's public code weighs Dice by 1.5 and computes it on raw logits (its softmax stays
switched off); both are offered. That code trains one image at a time; with larger batches it matters over what the sums of
the Dice run: over the batch, small masks hardly count beside large ones, over each image all images count alike, as they do
in the mean Dice that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

DiceOn = Literal["softmax", "logits"]
DiceOver = Literal["image", "batch"]
SMOOTH = 1e-5


@dataclass(frozen=True)
class DiceCE:
    """Cross-entropy + ``dice_weight`` x Dice loss: ``DiceCE(...)(logits, target)`` is a scalar.

    Corrected protocol: weight 1, on the softmax, over each image. Official protocol: weight 1.5, on the raw logits, over the
    batch (train.py of chunmeifeng/TextDiff). Raises ValueError for a setting that does not exist.
    """

    dice_weight: float = 1.0
    dice_on: DiceOn = "softmax"
    dice_over: DiceOver = "image"

    def __post_init__(self) -> None:
        if not 0 <= self.dice_weight < float("inf"):
            raise ValueError(f"dice_weight={self.dice_weight}: 0 or more")
        for name, kind in (("dice_on", DiceOn), ("dice_over", DiceOver)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f'{name}="{getattr(self, name)}": choose "{get_args(kind)[0]}" or "{get_args(kind)[1]}"'
                )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """``logits`` float ``[B, K, ...]``, ``target`` int64 ``[B, ...]`` with labels 0..K-1.

        Raises ValueError for shapes that do not fit, or a target that is not int64.
        """
        if logits.ndim < 3 or target.shape != (logits.shape[0], *logits.shape[2:]):
            raise ValueError(
                f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: logits are "
                "[B, K, H, W], the target is [B, H, W] of the same size"
            )
        if target.dtype != torch.int64:
            raise ValueError(f"the target has type {target.dtype}: labels must be torch.int64")
        logits = logits.float()
        scores = logits.softmax(dim=1) if self.dice_on == "softmax" else logits
        dice = image_dice_loss if self.dice_over == "image" else dice_loss
        return F.cross_entropy(logits, target) + self.dice_weight * dice(scores, target)


def dice_loss(scores: Tensor, target: Tensor) -> Tensor:
    """1 - Dice with a squared-sum denominator, averaged over classes, sums running over the whole batch.

    `scores` float [B, K, ...] (probabilities, or raw logits as TextDiff's public code has it), `target` int64
    [B, ...] with labels 0..K-1. MONAI's squared Dice takes the overlap from a difference of norms, which
    loses digits on unbounded logits; hence these lines.
    """
    return _dice_loss(scores, target, [0, *range(2, scores.ndim)], SMOOTH)


def image_dice_loss(scores: Tensor, target: Tensor) -> Tensor:
    """The same of the foreground classes, mean over images and classes.

    One pixel is added above and below the line, so that a class that is neither there nor found costs nothing.
    """
    return _dice_loss(scores, target, list(range(2, scores.ndim)), 1.0, first=1)


def _dice_loss(scores: Tensor, target: Tensor, summed: list[int], smooth: float, first: int = 0) -> Tensor:
    onehot = F.one_hot(target, scores.shape[1]).movedim(-1, 1).to(scores.dtype)[:, first:]
    scores = scores[:, first:]
    overlap = (scores * onehot).sum(summed)
    dice = (2 * overlap + smooth) / (scores.square().sum(summed) + onehot.sum(summed) + smooth)
    return (1 - dice).mean()
