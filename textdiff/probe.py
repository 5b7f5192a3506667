"""Linear probe of frozen features: feature maps and masks in, Dice by decoder block and noise step out.

The question is what a block knows at a noise step, not how good a trained head can get: a least-squares plane through a
few thousand labelled pixels, measured on other images. Ours; DDPM-seg and TextDiff choose blocks by larger classifiers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.features import DiffusionFeatures
from textdiff.metrics import case_scores

if TYPE_CHECKING:
    import pandas as pd


def dice_by_block_and_step(
    features: DiffusionFeatures, images: Tensor, masks: Tensor, n_fit: int, pixels: int = 4000, seed: int = 0
) -> pd.DataFrame:
    """Dice of a linear probe on each block at each step of ``features``, alone.

    Args:
        images: ``[N, 3, S, S]`` in [-1, 1], on the device of the network.
        masks: ``[N, h, w]`` labels; every class above 0 counts as foreground.
        n_fit, pixels, seed: see :func:`linear_probe`.

    Returns:
        Dice in 0..1, rows "decoder block" from the deepest, columns "noise step".
    """
    import pandas as pd

    columns = {}
    for step in features.steps:  # one step at a time: the maps of all steps at once would not fit for large networks
        settings = features.settings | {"steps": (step,)}
        alone = DiffusionFeatures(features.unet, **settings)
        seen = [alone(image[None]) for image in images]
        columns[step] = [linear_probe(torch.cat(maps), masks, n_fit, pixels, seed) for maps in zip(*seen, strict=True)]
    table = pd.DataFrame(columns, index=pd.Index(features.blocks, name="decoder block"))
    return table.rename_axis(columns="noise step")


def linear_probe(
    maps: Tensor, masks: Tensor, n_fit: int, pixels: int = 4000, seed: int = 0, ridge: float = 1e-3
) -> float:
    """Mean Dice of a linear classifier of single pixels, fitted on the first ``n_fit`` images, measured on the others.

    Ridge regression from a pixel's standardised features (bilinear between map pixels) to foreground or not; the
    threshold is the one with the best Dice on the pixels that were fitted.

    Args:
        maps: ``[N, C, h, w]``, the features of N images.
        masks: ``[N, H, W]`` labels; every class above 0 counts as foreground.
        n_fit: from 1 to N - 1.
        pixels: drawn from the ``n_fit`` images together, seeded.
        ridge: penalty on the squared weights, relative to the features' unit variance.

    Raises:
        ValueError: not one mask a map, no image left to fit or to measure on, too few pixels, or drawn pixels that are
            all foreground or all background.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks: give one mask an image")
    if not 1 <= n_fit < len(maps):
        raise ValueError(f"n_fit={n_fit} of {len(maps)} images: at least one must be fitted and one must be left over")
    if pixels < n_fit:
        raise ValueError(f"pixels={pixels}: fewer than the {n_fit} images to draw them from")
    truth = (masks > 0).to(maps.device)
    x, y = _drawn_pixels(maps[:n_fit], truth[:n_fit], pixels // n_fit, seed)
    if y.min() == y.max():
        raise ValueError("the drawn pixels are all foreground or all background: draw more pixels or other images")
    mean, deviation = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
    x = (x - mean) / deviation
    gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (y - y.mean()) / len(x))
    threshold = _best_threshold(x @ weight, y)

    # Bilinear enlargement and a linear map commute: the scores are enlarged instead of the features
    plane = (weight / deviation).to(maps.dtype)
    scores = torch.einsum("nchw,c->nhw", maps[n_fit:], plane) - (mean @ (weight / deviation)).to(maps.dtype)
    scores = F.interpolate(scores[:, None], size=truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    pairs = zip(scores > threshold, truth[n_fit:], strict=True)
    return sum(case_scores(found, true)["dice"] for found, true in pairs) / (len(maps) - n_fit)


def _drawn_pixels(maps: Tensor, truth: Tensor, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features ``[n * each, C]`` and foreground ``[n * each]``, float64, at ``each`` random mask pixels of every image."""
    height, width = truth.shape[1:]
    place = torch.randint(height * width, (len(maps), each), generator=torch.Generator().manual_seed(seed))
    place = place.to(maps.device)
    row, column = place // width, place % width
    grid = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=-1) * 2 - 1
    drawn = F.grid_sample(
        maps, grid[:, :, None].to(maps.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    x = drawn[..., 0].transpose(1, 2).flatten(0, 1)
    return x.double(), truth.flatten(1).gather(1, place).flatten().double()


def _best_threshold(scores: Tensor, y: Tensor) -> float:
    """The threshold above which marking pixels gives the best Dice with ``y``."""
    ordered, order = scores.sort(descending=True)
    found = y[order].cumsum(0)
    marked = torch.arange(1, len(y) + 1, device=y.device)
    best = int((2 * found / (marked + y.sum())).argmax())
    following = ordered[min(best + 1, len(ordered) - 1)]
    return float((ordered[best] + following) / 2)
