"""Figures of images. In: pictures, masks, feature maps, attention. Out: matplotlib Figures with alt text and caption.

A `Picture` is uint8 [H, W, 3] or [H, W], or float [3, H, W] or [H, W] in [-1, 1]; masks are label maps [h, w] of any size,
any class above 0 counting as foreground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from textdiff.data.cases import Case
from textdiff.evaluation.metrics import case_scores
from textdiff.figures import style
from textdiff.figures.style import PREDICTED, TRUE, described, figure, frameless, tiles, wrapped

Picture = np.ndarray | torch.Tensor
WordMaps = tuple[Picture, Picture | None, str, Sequence[str], Picture]  # image, truth, sentence, words, attention
TILE = 160  # pixels
MEANINGS = {"found": style.HIT, "marked, but not in the truth": style.FALSE_ALARM, "missed": style.MISS}


def show_cases(cases: Sequence[Case], columns: int = 4) -> Figure:
    """Images of `cases` with the true outline, and the caption under each."""
    fig, axes = tiles(len(cases), columns, side=2.6, extra_height=0.75)
    for axis, case in zip(axes, cases, strict=True):
        axis.imshow(case.image())
        _outline(axis, case.mask())
        axis.set_title(wrapped(case.name, 28))
        axis.set_xlabel(wrapped(case.caption, 34), fontsize="small")
    names = ", ".join(case.name for case in cases)
    alt = f"{len(cases)} images ({names}), each with the outline of its true mask in yellow and its caption beneath."
    return described(fig, alt, "Images, true masks (yellow outline) and captions.")


def samples_grid(
    images: Sequence[Picture], titles: Sequence[str] | None = None, columns: int = 6, caption: str = ""
) -> Figure:
    """A plain grid of pictures, such as a backbone's samples. Raises ValueError for no images, or too few titles."""
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images: give one each")
    fig, axes = tiles(len(images), columns, side=1.8)
    for axis, image, title in zip(axes, images, titles or [""] * len(images), strict=True):
        axis.imshow(as_picture(image))
        axis.set_title(wrapped(title, 22), fontsize="small")
    named = f": {', '.join(titles)}" if titles else ""
    return described(fig, f"Grid of {len(images)} images{named}.", caption or "Images.")


def compare_masks(image: Picture, truth: Picture, predictions: Mapping[str, Picture], columns: int = 4) -> Figure:
    """The image with its true outline, then one panel per prediction: found, missed and wrongly marked pixels, and the Dice.

    Each prediction has the truth's size (the Dice is counted there).
    """
    fig, axes = tiles(1 + len(predictions), columns, side=2.9)
    picture = as_picture(image)
    axes[0].imshow(picture)
    _outline(axes[0], _fit(truth, picture))
    axes[0].set_title("image and truth")
    true, faded, said = np.asarray(truth) > 0, 0.4 + 0.6 * picture.mean(axis=-1, keepdims=True), []
    for axis, (name, prediction) in zip(axes[1:], predictions.items(), strict=True):
        # A faded grey picture under strong colours: the colours keep the legend's look on dark tissue too.
        shown, marked = np.repeat(faded, 3, axis=-1), np.asarray(prediction) > 0
        for colour, where in zip(MEANINGS.values(), (true & marked, ~true & marked, true & ~marked), strict=True):
            place = _fit(where, picture)
            shown[place] = 0.25 * shown[place] + 0.75 * np.array(to_rgb(colour))
        axis.imshow(shown)
        axis.set_title(f"{wrapped(name, 26)}\nDice {_binary_dice(truth, prediction):.3f}")
        found = (
            f"{(true & marked).sum() / true.sum():.0%} of the true area is found"
            if true.any()
            else "the truth is empty"
        )
        wrong = f"{(marked & ~true).sum() / max(1, marked.sum()):.0%} of the marked area is wrong"
        said.append(f"{name}: {found}, {wrong if marked.any() else 'nothing is marked'}")
    style.legend(fig, MEANINGS)
    alt = f"An image with its true mask, and predictions compared with it. {'; '.join(said)}."
    return described(fig, alt, "Predictions compared with the truth.")


def qualitative_grid(
    rows: Sequence[tuple[str, Picture, Picture, Mapping[str, Picture]]], window: float = 1.0
) -> Figure:
    """One row per image: the image, its truth, and every model's outline with the Dice of the whole image.

    `rows`: label at the side, image, truth, predictions by model name, each of the truth's size. A tile shows the middle
    `window` (0..1) of each side: a small picture, not a copy. Raises ValueError for no rows, a window outside 0..1, or rows that
    differ in their models.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the list is empty")
    if not 0 < window <= 1:
        raise ValueError(f"window={window}: the share of a side that is shown, above 0, at most 1")
    names = list(rows[0][3])
    if any(list(predictions) != names for *_, predictions in rows):
        raise ValueError("every row needs predictions of the same models, in the same order")
    fig, axes = figure(len(rows), 2 + len(names), (1.5 * (2 + len(names)) + 0.4, 1.72 * len(rows) + 0.4))
    said = []
    for line, (label, image, truth, predictions) in zip(axes.reshape(len(rows), -1), rows, strict=True):
        scores = [f"Dice {100 * _binary_dice(truth, one):.1f}" for one in predictions.values()]
        for axis, mask, score in zip(line, [None, None, *predictions.values()], ["", "", *scores], strict=True):
            _draw_tile(axis, as_picture(image), None if axis is line[0] else truth, mask, window)
            axis.set_title(score, fontsize="small")
        line[0].set_ylabel(label, fontsize="small")
        said.append(f"{label}: {', '.join(f'{name} {score}' for name, score in zip(names, scores, strict=True))}")
    for axis, name in zip(axes, ["image", "truth", *names], strict=False):
        axis.set_title(f"{wrapped(name, 16)}\n{axis.get_title()}".strip(), fontsize="small")
    style.legend(fig, {"truth": TRUE, "prediction": PREDICTED})
    alt = f"{len(rows)} images, each with its true outline and the outlines of {', '.join(names)}. {'; '.join(said)}."
    return described(fig, alt, "Outlines of truth and prediction.")


def _draw_tile(axis: Axes, picture: np.ndarray, truth: Picture | None, mask: Picture | None, window: float) -> None:
    """The middle of a picture, brought to at most `TILE` pixels a side (antialiased), with outlines."""
    height, width = (max(1, round(side * window)) for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    middle = np.s_[top : top + height, left : left + width]
    tile = Image.fromarray((picture[middle] * 255).round().astype(np.uint8))
    tile.thumbnail((TILE, TILE))
    axis.imshow(np.asarray(tile) / 255, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    frameless(axis)
    for labels, colour in ((truth, TRUE), (mask, PREDICTED)):
        if labels is not None:
            _outline(axis, _fit(labels, picture)[middle], colour)


def pca_rgb(features: Sequence[Picture]) -> list[np.ndarray]:
    """Turn feature maps [C, h, w], all of one C, into pictures float [h, w, 3] in 0..1 by PCA.

    Each map is centred on its own mean, then three components are fitted on all maps together: a colour means the same
    departure from the mean in each, from the 2nd to the 98th percentile. With fewer channels the last colours stay 0.
    """
    maps = [np.asarray(one, dtype=np.float64) for one in features]
    flat = [one.reshape(one.shape[0], -1).T for one in maps]
    pixels = np.concatenate([one - one.mean(axis=0) for one in flat])
    _, axes = np.linalg.eigh(pixels.T @ pixels)
    axes = axes[:, ::-1][:, :3]
    # An axis has no sign of its own: the largest entry is made positive, so equal maps get equal colours.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    scores = pixels @ axes
    low, high = np.percentile(scores, [2, 98], axis=0)
    scores = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    scores = np.pad(scores, ((0, 0), (0, 3 - scores.shape[1])))
    ends = np.cumsum([one[0].size for one in maps])[:-1]
    return [part.reshape(*one.shape[1:], 3) for part, one in zip(np.split(scores, ends), maps, strict=True)]


def block_step_grid(features: Mapping[int, Mapping[int, Picture]], image: Picture | None = None) -> Figure:
    """Feature pictures: one row per decoder block, one column per noise step, colours from `pca_rgb` (comparable in a row).

    `features`: {block: {step: map [C, h, w]}}, the same steps for every block (ValueError if not); `image` stands left of each row.
    """
    steps = list(next(iter(features.values()), {}))
    if not steps or any(list(row) != steps for row in features.values()):
        raise ValueError("every block needs maps for the same steps, in the same order: {block: {step: map}}")
    lead = [] if image is None else [as_picture(image)]
    shape = (len(features), len(steps) + len(lead))
    fig, axes = figure(*shape, (1.9 * shape[1], 1.9 * shape[0] + 0.3))
    rows = axes.reshape(shape)
    for row, (block, maps) in zip(rows, features.items(), strict=True):
        pictures = lead + pca_rgb(list(maps.values()))
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            frameless(axis)
        channels, height, width = next(iter(maps.values())).shape
        row[0].set_ylabel(f"block {block}\n{channels} × {height} × {width}")
    for axis, title in zip(rows[0], [*["image"] * len(lead), *(f"step {step}" for step in steps)], strict=True):
        axis.set_title(title)
    blocks, columns = (", ".join(map(str, some)) for some in (features, steps))
    alt = f"Grid of feature pictures: rows are decoder blocks {blocks}, columns noise steps {columns}. Deeper blocks are coarser."
    caption = "Decoder features as colours (three principal components; colours comparable within a row)."
    return described(fig, alt, caption)


def most_varied(words: Sequence[str], maps: Picture, shown: int) -> list[int]:
    """Places of the `shown` words whose attention differs most over the picture, in the sentence's order.

    `maps`: [L, h, w]. Punctuation and the encoder's own marks ("[CLS]") are passed over.
    """
    spread = np.asarray(maps, dtype=np.float64).std(axis=(1, 2))
    places = [i for i, word in enumerate(words) if word.strip("#").isalnum()]
    return sorted(sorted(places, key=lambda i: -spread[i])[:shown])


def words_over_images(rows: Sequence[WordMaps], shown: int = 6) -> Figure:
    """Where a sentence's words are read: one row per image; the image, then the words whose attention varies most over it.

    `rows`: `WordMaps`, attention [L, h, w] in 0..1. It lies as colour over the grey picture, all on one scale from 0.
    Raises ValueError for no rows, or where words and maps are not equally many.
    """
    if not rows:
        raise ValueError("there is nothing to draw: the list is empty")
    if any(len(words) != len(maps) for *_, words, maps in rows):
        raise ValueError("give one attention map per word")
    chosen = [most_varied(words, maps, shown) for *_, words, maps in rows]
    weights = [np.asarray(maps, dtype=np.float64)[places] for (*_, maps), places in zip(rows, chosen, strict=True)]
    scale = Normalize(0, max((one.max() for one in weights if one.size), default=1.0))
    fig, axes = figure(len(rows), 1 + shown, (1.6 * (1 + shown) + 0.8, 2.25 * len(rows)))
    said = []
    for line, row, places, maps in zip(axes.reshape(len(rows), -1), rows, chosen, weights, strict=True):
        words = [row[3][place] for place in places]
        _draw_words(line, row, words, maps, scale)
        said.append(f"“{row[2]}”: {', '.join(words)}")
    look: Any = {"label": "attention weight", "shrink": 0.6, "fraction": 0.015, "pad": 0.01, "aspect": 40}
    fig.colorbar(ScalarMappable(scale, "magma"), ax=fig.axes, **look)
    alt = f"{len(rows)} images, and where words of their sentences are read. {'; '.join(said)}."
    return described(fig, alt, "Attention to the words that vary most over the image (one colour scale).")


def _draw_words(line: np.ndarray, row: WordMaps, words: Sequence[str], maps: np.ndarray, scale: Normalize) -> None:
    """One row of `words_over_images`: the image in the first panel, one word in each of the others."""
    image, truth, sentence, *_ = row
    picture = as_picture(image)
    line[0].imshow(picture)
    if truth is not None:
        _outline(line[0], _fit(truth, picture))
    line[0].set_title(wrapped(sentence, 30), fontsize="xx-small", loc="left")
    extent = line[0].images[0].get_extent()
    for axis, word, weight in zip(line[1:], words, maps, strict=False):
        axis.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
        axis.imshow(weight, cmap="magma", norm=scale, alpha=0.65, extent=extent, interpolation="bilinear")
        axis.set_title(word, fontsize="small")
    for place, axis in enumerate(line):
        frameless(axis)
        if place > len(words):
            axis.remove()


def as_picture(image: Picture) -> np.ndarray:
    """Any `Picture` (see the top of this file) as float [H, W, 3] in 0..1. Raises ValueError for other shapes or types."""
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=-1 if pixels.dtype == np.uint8 else 0)
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels / 255.0
    if pixels.dtype.kind == "f" and pixels.ndim == 3 and pixels.shape[0] == 3:
        return np.clip((np.moveaxis(pixels, 0, -1) + 1) / 2, 0, 1).astype(np.float64)
    raise ValueError(
        f"an image of shape {np.shape(image)} and type {pixels.dtype}: expected uint8 [H, W, 3] or [H, W], "
        "or float [3, H, W] or [H, W] in [-1, 1]"
    )


def _fit(labels: Picture, picture: np.ndarray) -> np.ndarray:
    """Foreground of a label map at the picture's size, by nearest neighbour."""
    mask = np.asarray(labels) > 0
    height, width = picture.shape[:2]
    rows = (np.arange(height) + 0.5) * mask.shape[0] // height
    columns = (np.arange(width) + 0.5) * mask.shape[1] // width
    return mask[rows.astype(int)][:, columns.astype(int)]


def _outline(axis: Axes, labels: Picture, colour: str = TRUE) -> None:
    mask = np.asarray(labels) > 0
    if mask.any() and not mask.all():  # an even field has no contour and matplotlib would warn
        axis.contour(mask, levels=[0.5], colors="black", linewidths=1.8)
        axis.contour(mask, levels=[0.5], colors=colour, linewidths=0.9)


def _binary_dice(truth: Picture, prediction: Picture) -> float:
    return case_scores(np.asarray(prediction) > 0, np.asarray(truth) > 0)["dice"]
