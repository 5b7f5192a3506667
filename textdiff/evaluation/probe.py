"""Linear probe of frozen features: labelled images in, Dice by decoder blocks and noise steps out.

The question is what a block knows at a noise step, alone or together with others, not how good a trained head can get: a
least-squares plane through some thousand labelled pixels, measured on other images. Ours; DDPM-seg and TextDiff choose
blocks by larger classifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from textdiff.base.parsing import numbers
from textdiff.evaluation.metrics import case_scores
from textdiff.models.features import DiffusionFeatures

Labelled = tuple[Tensor, Tensor]  # image [3, S, S] in [-1, 1] and labels [h, w], any class above 0 being foreground
Places = Sequence[Sequence[int]]  # for each tap, the indices of the maps that it reads
RIDGE = 1e-3  # penalty on the squared weights of a probe, relative to the features' unit variance


@dataclass(frozen=True)
class Tap:
    """Decoder blocks at noise steps whose features are read together; ``str`` gives "1,4,7@50,150"."""

    blocks: tuple[int, ...]
    noise_steps: tuple[int, ...]

    def __str__(self) -> str:
        return "@".join(",".join(map(str, part)) for part in (self.blocks, self.noise_steps))


def parse_taps(text: str) -> list[Tap]:
    """Reads "1,4,7@50,150,250;1,4,7@50"; raises ValueError that quotes the part that is not of this form."""
    taps = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        blocks, _, steps = part.partition("@")
        tap = Tap(numbers(blocks), numbers(steps))
        if not tap.blocks or not tap.noise_steps:
            raise ValueError(f"{part!r} is no set of blocks and steps: write blocks@steps, such as 1,4,7@50,150,250")
        taps.append(tap)
    return taps


def single_taps(blocks: Sequence[int], noise_steps: Sequence[int]) -> list[Tap]:
    """Every block at every noise step, each alone."""
    return [Tap((block,), (step,)) for step in noise_steps for block in blocks]


def probe(
    features: DiffusionFeatures,
    taps: Sequence[Tap],
    draws: Sequence[Sequence[Labelled]],
    test: Sequence[Labelled],
    pixels: int = 20_000,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Dice of a linear classifier of single pixels on every tap, fitted on each draw and measured on the same test images.

    Ridge regression from a pixel's standardised features (bilinear between map pixels; those of several blocks and steps side by
    side) to foreground or not; the threshold is the one with the best Dice on the pixels that were fitted. In memory are the
    drawn pixels of one draw and the maps of one image.

    Args:
        features: network, noise and precision; its own blocks and steps do not matter. The images are on its device.
        draws: the labelled images to fit on, one sequence per draw.
        pixels: drawn from all images of a draw together, the same places for every tap; draw ``d`` uses ``seed + d``.

    Returns one row per tap and draw: ``blocks``, ``noise_steps`` (text, "1,4,7"), ``draw``, ``dice`` (0..1, mean over ``test``).
    Raises ValueError for no draw, no image to fit or to measure on, too few pixels, or pixels that are all of one kind.
    """
    sizes = [len(images) for images in draws]
    if not sizes or not min(sizes) or not len(test):
        raise ValueError(f"images to fit on, by draw: {sizes}, to measure on: {len(test)}; each must be at least one")
    if pixels < max(sizes):
        raise ValueError(f"pixels={pixels}: fewer than the {max(sizes)} images to draw them from")
    passes = {tap.noise_steps: [other for other in taps if other.noise_steps == tap.noise_steps] for tap in taps}
    rows = []
    with tqdm(total=len(passes) * (sum(sizes) + len(test)), unit="image", disable=not progress, leave=False) as bar:
        for steps, together in passes.items():  # the maps of all steps at once would not fit for large networks
            blocks = tuple(sorted({block for tap in together for block in tap.blocks}))
            settings: dict[str, Any] = features.settings | {"blocks": blocks, "steps": steps}
            tapped = DiffusionFeatures(features.unet, **settings)
            places = [[blocks.index(block) for block in tap.blocks] for tap in together]
            planes = [_fit(tapped, places, images, pixels, seed + d, bar) for d, images in enumerate(draws)]
            dice = _measure(tapped, places, planes, test, bar)
            for tap, by_draw in zip(together, zip(*dice, strict=True), strict=True):
                named = dict(zip(("blocks", "noise_steps"), str(tap).split("@"), strict=True))
                rows += [{**named, "draw": d, "dice": score} for d, score in enumerate(by_draw)]
    return pd.DataFrame(rows)


def by_block_and_step(table: pd.DataFrame, of_draws: str = "mean") -> pd.DataFrame:
    """The single blocks and steps of :func:`probe`'s table: rows "decoder block" from the deepest, columns "noise step".

    ``of_draws``: "mean", or "std" for the sample standard deviation over draws (nan where there is one draw).
    """
    single = table[~(table["blocks"].astype(str) + table["noise_steps"].astype(str)).str.contains(",")]
    single = single.astype({"blocks": int, "noise_steps": int}).groupby(["blocks", "noise_steps"])["dice"].agg(of_draws)
    return single.unstack("noise_steps").rename_axis(index="decoder block", columns="noise step")


def dice_by_block_and_step(
    features: DiffusionFeatures, images: Tensor, masks: Tensor, n_fit: int, pixels: int = 4000, seed: int = 0
) -> pd.DataFrame:
    """:func:`probe` of each block at each step of ``features``, fitted on the first ``n_fit`` of ``images [N, 3, S, S]`` in
    [-1, 1] with ``masks [N, h, w]``, measured on the others. Returns Dice as :func:`by_block_and_step` does.
    """
    if len(images) != len(masks):
        raise ValueError(f"{len(images)} images but {len(masks)} masks: give one mask per image")
    pairs = list(zip(images, masks, strict=True))
    taps = single_taps(features.blocks, features.steps)
    return by_block_and_step(probe(features, taps, [pairs[:n_fit]], pairs[n_fit:], pixels, seed))


@dataclass(frozen=True)
class Plane:
    """A fitted plane: one weight per channel of every map, and what the sum must exceed to be foreground."""

    weights: tuple[Tensor, ...]
    threshold: float

    def mark(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Foreground, bool ``[N, *size]``, of maps ``[N, C_k, h_k, w_k]``.

        Bilinear enlargement and a linear map commute: the scores are enlarged instead of the features.
        """
        total = torch.zeros((), device=maps[0].device)
        for one, weight in zip(maps, self.weights, strict=True):
            scores = torch.einsum("nchw,c->nhw", one, weight.to(one.dtype))[:, None]
            total = total + F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
        return total > self.threshold


def fit_plane(x: Sequence[Tensor], y: Tensor) -> Plane:
    """Ridge regression from pixels' features ``[n, C_k]``, one tensor per map, to ``y [n]``, float64, 1 where foreground, else 0.

    Raises ValueError for pixels that are
    all foreground or all background.
    """
    if y.min() == y.max():
        raise ValueError("the drawn pixels are all foreground or all background: draw more pixels or other images")
    joined = torch.cat(list(x), dim=1)
    mean, deviation = joined.mean(dim=0), joined.std(dim=0).clamp_min(1e-6)
    joined = (joined - mean) / deviation
    gram = RIDGE * torch.eye(joined.shape[1], dtype=torch.float64, device=y.device)
    moment = torch.zeros(joined.shape[1], dtype=torch.float64, device=y.device)
    # In double precision part by part: all pixels at once would not fit
    for part, truth in zip(joined.split(4096), (y - y.mean()).split(4096), strict=True):
        gram += part.double().T @ part.double() / len(y)
        moment += part.double().T @ truth / len(y)
    weight = torch.linalg.solve(gram, moment)
    threshold = _best_threshold((joined @ weight.to(joined.dtype)).double(), y)
    weight = weight / deviation.double()
    threshold += float(mean.double() @ weight)
    return Plane(tuple(weight.split([one.shape[1] for one in x])), threshold)


def drawn_pixels(maps: Sequence[Tensor], truth: Tensor, place: Tensor) -> tuple[list[Tensor], Tensor]:
    """Features ``[n, C_k]`` of each map ``[1, C_k, h_k, w_k]`` and foreground ``[n]`` (float64) at n pixels of one mask.

    ``truth [h, w]`` bool; ``place [n]``: pixels of the mask, counted row by row; between map pixels the features are bilinear.
    """
    height, width = truth.shape
    row, column = place // width, place % width
    grid = torch.stack([(column + 0.5) / width, (row + 0.5) / height], dim=-1)[None, :, None] * 2 - 1
    x = [
        F.grid_sample(one, grid.to(one.dtype), mode="bilinear", padding_mode="border", align_corners=False)[
            0, :, :, 0
        ].T
        for one in maps
    ]
    return x, truth.flatten()[place].double()


def _fit(
    features: DiffusionFeatures, places: Places, images: Sequence[Labelled], pixels: int, seed: int, bar: tqdm
) -> list[Plane]:
    """One plane for each of ``places``."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for image, mask in images:
        truth = (mask > 0).to(image.device)
        place = torch.randint(truth.numel(), (pixels // len(images),), generator=generator)
        drawn.append(drawn_pixels(features(image[None]), truth, place.to(image.device)))
        bar.update()
    y = torch.cat([one for _, one in drawn])
    x = [torch.cat(parts) for parts in zip(*(maps for maps, _ in drawn), strict=True)]
    return [fit_plane([x[k] for k in chosen], y) for chosen in places]


def _measure(
    features: DiffusionFeatures, places: Places, planes: Sequence[Sequence[Plane]], test: Sequence[Labelled], bar: tqdm
) -> list[list[float]]:
    """Mean Dice over ``test`` of every plane, ``[draw][tap]``."""
    total = [[0.0] * len(places) for _ in planes]
    for image, mask in test:
        maps, truth = features(image[None]), (mask > 0).cpu()
        for d, fitted in enumerate(planes):
            for t, (plane, chosen) in enumerate(zip(fitted, places, strict=True)):
                marked = plane.mark([maps[k] for k in chosen], truth.shape)[0].cpu()
                total[d][t] += case_scores(marked, truth)["dice"] / len(test)
        bar.update()
    return total


def _best_threshold(scores: Tensor, y: Tensor) -> float:
    """The threshold above which marking pixels gives the best Dice with ``y``."""
    ordered, order = scores.sort(descending=True)
    marked = torch.arange(1, len(y) + 1, device=y.device)
    best = int((2 * y[order].cumsum(0) / (marked + y.sum())).argmax())
    return float((ordered[best] + ordered[min(best + 1, len(ordered) - 1)]) / 2)
