"""The training loss. In: logits and a label map. Out: one number, cross-entropy plus weighted Dice loss.

The paper says Dice + cross-entropy. TextDiff's public code weighs Dice by 1.5 and computes it on raw logits
(its softmax stays switched off); both are offered: `dice_ce_loss(logits, target, 1.5, "logits")` is that
code's loss. That code trains one image at a time; with larger batches it matters over what the sums of the
Dice run: over the batch, small masks hardly count beside large ones, over each image all images count alike,
as they do in the mean Dice that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F

DiceOn = Literal["softmax", "logits"]
DiceOver = Literal["image", "batch"]
SMOOTH = 1e-5


@dataclass(frozen=True)
class DiceCE:
    """The training loss as an object: ``DiceCE(...)(logits, target)`` is :func:`dice_ce_loss` with these settings.

    Raises ValueError for a setting that does not exist.
    """

    dice_weight: float = 1.0
    dice_on: DiceOn = "softmax"
    dice_over: DiceOver = "image"

    def __post_init__(self) -> None:
        _check_settings(self.dice_weight, self.dice_on, self.dice_over)

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """float [B, K, ...] and int64 [B, ...] to a scalar."""
        return dice_ce_loss(logits, target, self.dice_weight, self.dice_on, self.dice_over)


def _check_settings(dice_weight: float, dice_on: str, dice_over: str) -> None:
    if not 0 <= dice_weight < float("inf"):
        raise ValueError(f"dice_weight={dice_weight}: 0 or more")
    if dice_on not in get_args(DiceOn):
        raise ValueError(f'dice_on="{dice_on}": choose "softmax" or "logits"')
    if dice_over not in get_args(DiceOver):
        raise ValueError(f'dice_over="{dice_over}": choose "image" or "batch"')


def dice_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - Dice with a squared-sum denominator, averaged over classes, sums running over the whole batch.

    `scores` float [B, K, ...] (probabilities, or raw logits as TextDiff's public code has it), `target` int64
    [B, ...] with labels 0..K-1. MONAI's squared Dice takes the overlap from a difference of norms, which
    loses digits on unbounded logits; hence these lines.
    """
    return _dice_loss(scores, _onehot(target, scores), [0, *range(2, scores.ndim)], SMOOTH)


def image_dice_loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - Dice of the foreground classes with a squared-sum denominator, mean over images and classes.

    `scores` float [B, K, ...], `target` int64 [B, ...] with labels 0..K-1. One pixel is added above and below
    the line, so that a class that is neither there nor found costs nothing.
    """
    return _dice_loss(scores[:, 1:], _onehot(target, scores)[:, 1:], list(range(2, scores.ndim)), 1.0)


def _onehot(target: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return F.one_hot(target, scores.shape[1]).movedim(-1, 1).to(scores.dtype)


def _dice_loss(scores: torch.Tensor, onehot: torch.Tensor, summed: list[int], smooth: float) -> torch.Tensor:
    overlap = (scores * onehot).sum(summed)
    dice = (2 * overlap + smooth) / (scores.square().sum(summed) + onehot.sum(summed) + smooth)
    return (1 - dice).mean()


def dice_ce_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    dice_weight: float = 1.0,
    dice_on: DiceOn = "softmax",
    dice_over: DiceOver = "batch",
) -> torch.Tensor:
    """Cross-entropy + `dice_weight` x Dice loss, a scalar.

    `logits` float [B, K, ...], `target` int64 [B, ...] with labels 0..K-1. Corrected protocol: weight 1, on
    the softmax, over each image. Official protocol: weight 1.5, on the raw logits, over the batch (train.py of
    chunmeifeng/TextDiff). Raises ValueError for shapes that do not fit, a wrong `dice_on` or `dice_over`, or a
    target that is not int64.
    """
    _check_settings(dice_weight, dice_on, dice_over)
    if logits.ndim < 3 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} do not fit: logits are "
            "[B, K, H, W], the target is [B, H, W] of the same size"
        )
    if target.dtype != torch.int64:
        raise ValueError(f"the target has type {target.dtype}: labels must be torch.int64")
    logits = logits.float()
    scores = logits.softmax(dim=1) if dice_on == "softmax" else logits
    dice = image_dice_loss if dice_over == "image" else dice_loss
    return F.cross_entropy(logits, target) + dice_weight * dice(scores, target)
