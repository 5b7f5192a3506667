"""Figures in one style. In: images, masks, tables. Out: matplotlib Figures that carry their alt text and
caption.

Call `style()` once. No function shows anything: a figure is the value of its cell. Colours stay apart for
colour-blind readers, and every colour has a legend or a label.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from textdiff.data.cases import Case

    Picture = np.ndarray | torch.Tensor

# Blue, vermilion and yellow differ in hue for every kind of colour vision, and in lightness in grey print.
HIT, FALSE_ALARM, MISS = "#0072b2", "#d55e00", "#f0e442"
OUTLINE = "#f0e442"
MEANINGS = {HIT: "found", FALSE_ALARM: "marked, but not in the truth", MISS: "missed"}


def style() -> None:
    """Set the project's look for all figures of this process: white ground, seaborn's colour-blind-safe
    palette.
    """
    import seaborn as sns

    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.dpi": 110,
            "axes.titlesize": "medium",
            "axes.spines.right": False,
            "axes.spines.top": False,
        },
    )


def described(fig: Figure, alt: str, caption: str = "") -> Figure:
    """Give `fig` its alt text (what a reader who cannot see it must know) and caption; returns `fig`.

    `runs.Run.save` writes both beside the picture. Raises ValueError for an empty alt text.
    """
    if not alt.strip():
        raise ValueError("the alt text is empty: say in a sentence what the figure shows")
    fig.textdiff_description = {"alt": alt.strip(), "caption": caption.strip()}
    fig._repr_mimebundle_ = lambda **kwargs: _shown(fig)
    return fig


def _shown(fig: Figure) -> tuple[dict[str, bytes], dict[str, Any]]:
    """What a notebook displays: the picture, and its alt text and caption as the output's metadata."""
    stream = io.BytesIO()
    fig.savefig(stream, format="png", bbox_inches="tight")
    return {"image/png": stream.getvalue()}, {"image/png": description(fig)}


def description(fig: Figure) -> dict[str, str]:
    """The alt text and caption of a figure; empty texts where none was given."""
    return dict(getattr(fig, "textdiff_description", {"alt": "", "caption": ""}))


def show_cases(cases: Sequence[Case], columns: int = 4) -> Figure:
    """Images of `cases` with the true outline and the caption under each."""
    fig, axes = _grid(len(cases), columns, side=2.6, extra_height=0.75)
    for axis, case in zip(axes, cases, strict=True):
        axis.imshow(case.image())
        _outline(axis, case.mask())
        axis.set_title(_wrapped(case.name, 28))
        axis.set_xlabel(_wrapped(case.caption, 34), fontsize="small")
    names = ", ".join(case.name for case in cases)
    return described(
        fig,
        f"{len(cases)} images ({names}), each with the outline of its true mask in yellow and its caption beneath.",
        "Images, true masks (yellow outline) and captions.",
    )


def overlay(image: Picture, mask: Picture, prediction: Picture | None = None, title: str = "") -> Figure:
    """One image with its true mask as an outline, or, given a prediction, with found, missed and wrongly
    marked pixels.

    `image`: uint8 [H, W, 3], or float [3, H, W] in [-1, 1]; `mask`, `prediction`: labels [H, W], any size;
    they are brought to the image's size by nearest neighbour.
    """
    fig, axes = _grid(1, 1, side=4.2)
    picture = as_picture(image)
    if prediction is None:
        axes[0].imshow(picture)
        _outline(axes[0], _fit(mask, picture))
        alt, caption = "An image with the outline of its true mask in yellow.", "True mask (yellow outline)."
    else:
        _draw_comparison(axes[0], picture, mask, prediction)
        _legend(fig)
        alt = f"An image with a prediction over it: {_agreement(mask, prediction)}."
        caption = "Prediction compared with the truth."
    axes[0].set_title(title)
    return described(fig, alt, caption)


def compare_masks(
    image: Picture, truth: Picture, predictions: Mapping[str, Picture], columns: int = 4, caption: str = ""
) -> Figure:
    """The image with its true outline, then one panel a prediction: found, missed and wrongly marked pixels,
    and the Dice.

    `image`: uint8 [H, W, 3] or float [3, H, W] in [-1, 1]; `truth` and the predictions: labels [H, W], each
    prediction of the truth's size (the Dice is counted there; any foreground class counts as foreground).
    """
    fig, axes = _grid(1 + len(predictions), columns, side=2.9)
    picture = as_picture(image)
    axes[0].imshow(picture)
    _outline(axes[0], _fit(truth, picture))
    axes[0].set_title("image and truth")
    said = []
    for axis, (name, prediction) in zip(axes[1:], predictions.items(), strict=True):
        _draw_comparison(axis, picture, truth, prediction)
        axis.set_title(f"{_wrapped(name, 26)}\nDice {_binary_dice(truth, prediction):.3f}")
        said.append(f"{name}: {_agreement(truth, prediction)}")
    _legend(fig)
    alt = "An image with its true mask, and predictions compared with it. " + "; ".join(said) + "."
    return described(fig, alt, caption or "Predictions compared with the truth.")


def loss_curve(history: pd.DataFrame | Sequence[Mapping[str, float]], along: str = "epoch") -> Figure:
    """Training history: losses over the column `along`, and beside them the scores where there are any.

    Columns of `history` with "loss" in their name go left, those with "dice" or "iou" (0..1) right. Raises ValueError
    for an empty history, one without `along` or one without losses.
    """
    import pandas as pd

    table = pd.DataFrame(history)
    if along not in table.columns or len(table) == 0:
        raise ValueError(f"a history needs rows and a column {along!r}; its columns are {list(table.columns)}")
    numeric = [c for c in table.select_dtypes("number").columns if c != along and table[c].notna().any()]
    losses = [name for name in numeric if "loss" in name]
    scores = [name for name in numeric if "dice" in name or "iou" in name]
    if not losses:
        raise ValueError(f"the history has no column with 'loss' in its name; its columns are {list(table.columns)}")
    panels = [(losses, "loss"), (scores, "score (0 to 1)")] if scores else [(losses, "loss")]
    fig, axes = _figure(1, len(panels), (4.6 * len(panels), 3.2))
    for axis, (names, label) in zip(axes, panels, strict=True):
        for name, line, marker in zip(names, _cycle("-", "--", ":", "-."), _cycle("o", "s", "^", "D"), strict=False):
            known = table[[along, name]].dropna()
            axis.plot(known[along], known[name], line, marker=marker, markevery=0.2, markersize=4, label=name)
        axis.set_xlabel(along)
        axis.set_ylabel(label)
        axis.legend(frameon=False)
    ends = [(name, table[name].dropna().iloc[[0, -1]]) for name in losses + scores]
    alt = f"Curves of {len(table)} points: " + "; ".join(
        f"{n} from {e.iloc[0]:.3f} to {e.iloc[1]:.3f}" for n, e in ends
    )
    return described(fig, alt + ".", "Training history.")


def pca_rgb(features: Sequence[Picture]) -> list[np.ndarray]:
    """Turn feature maps [C, h, w], all of one C, into pictures float [h, w, 3] in 0..1 by PCA.

    Each map is centred on its own mean, then three components are fitted on all maps together: a colour means
    the same departure from the mean in each. The range is the 2nd to 98th percentile of all maps. With fewer
    than three channels the last colours stay 0.
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
    """Feature pictures: a row a decoder block, a column a noise step, colours from `pca_rgb` (comparable
    within a row).

    `features`: {block: {step: map [C, h, w]}}, the same steps for every block; `image`, if given, stands left
    of each row. Raises ValueError when the blocks do not have the same steps.
    """
    steps = list(next(iter(features.values()), {}))
    if not steps or any(list(row) != steps for row in features.values()):
        raise ValueError("every block needs maps for the same steps, in the same order: {block: {step: map}}")
    lead = [] if image is None else ["image"]
    shape = (len(features), len(steps) + len(lead))
    fig, axes = _figure(*shape, (1.9 * shape[1], 1.9 * shape[0] + 0.3))
    rows = axes.reshape(shape)
    for row, (block, maps) in zip(rows, features.items(), strict=True):
        pictures = [as_picture(image)] * len(lead) + pca_rgb(list(maps.values()))
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            _no_frame(axis)
        channels, height, width = next(iter(maps.values())).shape
        row[0].set_ylabel(f"block {block}\n{channels} × {height} × {width}")
    for axis, title in zip(rows[0], [*lead, *(f"step {step}" for step in steps)], strict=True):
        axis.set_title(title)
    blocks = ", ".join(map(str, features))
    return described(
        fig,
        f"Grid of feature pictures: rows are decoder blocks {blocks}, columns noise steps "
        f"{', '.join(map(str, steps))}. Deeper blocks are coarser.",
        "Decoder features as colours (three principal components; colours comparable within a row).",
    )


def dice_heatmap(table: pd.DataFrame, caption: str = "") -> Figure:
    """Dice by row and column (such as block by step), in percent; cells without a run are hatched and say so.

    `table`: values in 0..1, nan where not run; its index and column names become the axes' labels. Raises
    ValueError for values outside 0..1.
    """
    import seaborn as sns

    values = table.astype(float) * 100
    if ((values < 0) | (values > 100)).any(axis=None):
        raise ValueError("the table holds values outside 0..1: give Dice as a share, not in percent")
    fig, axes = _figure(1, 1, (1.1 * table.shape[1] + 2, 0.6 * table.shape[0] + 1.4))
    axis = axes[0]
    low, high = (values.min(axis=None), values.max(axis=None)) if values.notna().any(axis=None) else (0, 100)
    bar = {"label": "Dice (%)"}
    sns.heatmap(values, vmin=low, vmax=high, ax=axis, annot=True, fmt=".1f", cmap="cividis", cbar_kws=bar)
    for row, column in np.argwhere(values.isna().to_numpy()):
        _mark_not_run(axis, column, row)
    axis.set_xlabel(table.columns.name or "")
    axis.set_ylabel(table.index.name or "")
    axis.tick_params(length=0, rotation=0)
    return described(fig, _heatmap_alt(values), caption or "Dice in percent.")


def attention_by_word(image: Picture, words: Sequence[str], maps: Picture, columns: int = 5) -> Figure:
    """Where the image attends to each word: the image, then one panel a word, all on one colour scale from 0.

    `image`: uint8 [H, W, 3] or float [3, H, W] in [-1, 1]; `maps`: [L, h, w], weights in 0..1, one a word.
    Raises ValueError when words and maps are not equally many.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    weights = np.asarray(maps, dtype=np.float64)
    if len(weights) != len(words):
        raise ValueError(f"{len(words)} words but {len(weights)} attention maps: give one map a word")
    picture = as_picture(image)
    fig, axes = _grid(1 + len(words), columns, side=2.0)
    axes[0].imshow(picture)
    axes[0].set_title("image")
    scale = Normalize(0, max(float(weights.max()), 1e-12))
    for axis, word, weight in zip(axes[1:], words, weights, strict=True):
        axis.imshow(weight, cmap="magma", norm=scale)
        axis.set_title(f"{word}\nmean {weight.mean():.3f}", fontsize="small")
    fig.colorbar(ScalarMappable(scale, "magma"), ax=axes, label="attention weight", shrink=0.7, fraction=0.03)
    most = words[int(weights.mean(axis=(1, 2)).argmax())]
    return described(
        fig,
        f"An image and {len(words)} maps of the attention that its places give to the words "
        f"{', '.join(words)}; on average “{most}” gets most.",
        "Attention of image places to words, averaged over heads (one colour scale).",
    )


def samples_grid(
    images: Sequence[Picture], titles: Sequence[str] | None = None, columns: int = 6, caption: str = ""
) -> Figure:
    """A plain grid of images, uint8 [H, W, 3] or float [3, H, W] in [-1, 1], such as a backbone's samples."""
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images: give one each")
    fig, axes = _grid(len(images), columns, side=1.8)
    for index, (axis, image) in enumerate(zip(axes, images, strict=True)):
        axis.imshow(as_picture(image))
        axis.set_title(_wrapped(titles[index], 22) if titles else "", fontsize="small")
    named = f": {', '.join(titles)}" if titles else ""
    return described(fig, f"Grid of {len(images)} images{named}.", caption or "Images.")


def as_picture(image: Picture) -> np.ndarray:
    """Any of the project's images as float [H, W, 3] in 0..1: uint8 [H, W, 3] or [H, W], or float [3, H, W]
    in [-1, 1].

    Raises ValueError for other shapes.
    """
    pixels = np.asarray(image)
    if pixels.dtype == np.uint8 and pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels / 255.0
    if pixels.dtype.kind == "f" and pixels.ndim == 3 and pixels.shape[0] == 3:
        return np.clip((np.moveaxis(pixels, 0, -1) + 1) / 2, 0, 1).astype(np.float64)
    raise ValueError(
        f"an image of shape {pixels.shape} and type {pixels.dtype}: expected uint8 [H, W, 3] or [H, W], "
        "or float [3, H, W] in [-1, 1]"
    )


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure that pyplot has let go of: it is shown once, as a cell's value, and its memory is freed with
    it.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    plt.close(fig)
    return fig, axes.ravel()


def _grid(count: int, columns: int, side: float, extra_height: float = 0.35) -> tuple[Figure, np.ndarray]:
    """A figure with `count` square panels without axes, at most `columns` in a row."""
    if count == 0:
        raise ValueError("there is nothing to draw: the list is empty")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    fig, axes = _figure(rows, columns, (side * columns, (side + extra_height) * rows))
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        _no_frame(axis)
    return fig, axes[:count]


def _no_frame(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _foreground(labels: Picture) -> np.ndarray:
    return np.asarray(labels) > 0


def _fit(labels: Picture, picture: np.ndarray) -> np.ndarray:
    """Foreground of a label map at the picture's size, by nearest neighbour."""
    mask = _foreground(labels)
    height, width = picture.shape[:2]
    rows = (np.arange(height) + 0.5) * mask.shape[0] // height
    columns = (np.arange(width) + 0.5) * mask.shape[1] // width
    return mask[rows.astype(int)][:, columns.astype(int)]


def _outline(axis: Axes, mask: Picture) -> None:
    mask = _foreground(mask)
    if mask.any() and not mask.all():  # an even field has no contour and matplotlib would warn
        axis.contour(mask, levels=[0.5], colors="black", linewidths=1.8)
        axis.contour(mask, levels=[0.5], colors=OUTLINE, linewidths=0.9)


def _draw_comparison(axis: Axes, picture: np.ndarray, truth: Picture, prediction: Picture) -> None:
    from matplotlib.colors import to_rgb

    true, marked = _fit(truth, picture), _fit(prediction, picture)
    # A faded grey picture under strong colours: the colours keep the legend's look on dark tissue too.
    shown = 0.4 + 0.6 * np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    for colour, where in ((HIT, true & marked), (FALSE_ALARM, ~true & marked), (MISS, true & ~marked)):
        shown[where] = 0.25 * shown[where] + 0.75 * np.array(to_rgb(colour))
    axis.imshow(shown)


def _legend(fig: Figure) -> None:
    from matplotlib.patches import Patch

    fig.legend(
        handles=[Patch(facecolor=colour, label=meaning) for colour, meaning in MEANINGS.items()],
        loc="outside lower center", ncols=3, frameon=False, fontsize="small",
    )  # fmt: skip


def _binary_dice(truth: Picture, prediction: Picture) -> float:
    from textdiff.evaluation.metrics import case_scores

    return case_scores(_foreground(prediction), _foreground(truth))["dice"]


def _agreement(truth: Picture, prediction: Picture) -> str:
    """In words, for the alt text: how much of the truth is found and how much of the marked area is wrong."""
    true, marked = _foreground(truth), _foreground(prediction)
    marked = _fit(marked, np.empty((*true.shape, 3)))
    found = (true & marked).sum() / true.sum() if true.any() else None
    wrong = (~true & marked).sum() / marked.sum() if marked.any() else None
    first = "the truth is empty" if found is None else f"{found:.0%} of the true area is found"
    second = "nothing is marked" if wrong is None else f"{wrong:.0%} of the marked area is wrong"
    return f"{first}, {second}"


def _mark_not_run(axis: Axes, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    hatched = Rectangle((column, row), 1, 1, facecolor="white", edgecolor="0.7", hatch="///", linewidth=0)
    axis.add_patch(hatched)
    place = {"ha": "center", "va": "center", "fontsize": "x-small", "backgroundcolor": "white"}
    axis.text(column + 0.5, row + 0.5, "not run yet", **place)


def _heatmap_alt(percent: pd.DataFrame) -> str:
    known = percent.stack().dropna()
    what = f"Table of Dice, {percent.index.name or 'rows'} by {percent.columns.name or 'columns'}"
    if known.empty:
        return f"{what}; nothing has been run yet."
    missing = int(percent.isna().sum().sum())
    tail = f"; cells not run yet: {missing}" if missing else ""
    worst, best = (" and ".join(map(str, where)) for where in (known.idxmin(), known.idxmax()))
    return f"{what}: from {known.min():.1f} % at {worst} to {known.max():.1f} % at {best}{tail}."


def _cycle(*marks: str) -> Any:
    from itertools import cycle

    return cycle(marks)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or " "


# Outlines on pictures: truth as everywhere, predictions in a blue that is lighter than tissue and films
PREDICTED = "#56b4e9"


def spread_heatmap(
    mean: pd.DataFrame,
    spread: pd.DataFrame,
    caption: str = "",
    limits: tuple[float, float] | None = None,
    signed: bool = False,
) -> Figure:
    """Means by row and column in percent, each with its standard deviation under it (left out where it is nan).

    `mean`, `spread`: shares (0..1; `signed`: differences, -1..1), index and column names label the axes. `limits`: ends of the
    colour scale as shares, default the table's own; a signed scale is symmetrical about zero. Raises ValueError where the two
    tables do not have the same rows and columns.
    """
    import seaborn as sns

    if not (mean.index.equals(spread.index) and mean.columns.equals(spread.columns)):
        raise ValueError("mean and spread must have the same rows and columns")
    low, high = limits or (mean.min(axis=None), mean.max(axis=None))
    if signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    written = mean.map(lambda value: f"{100 * value:{'+' if signed else ''}.1f}")
    written += spread.map(lambda value: "" if np.isnan(value) else f"\n± {100 * value:.1f}")
    unit = "difference in Dice (points)" if signed else "Dice (%)"
    rows, columns = ([_wrapped(str(label), 14) for label in labels] for labels in (mean.index, mean.columns))
    widest = [max(len(line) for label in labels for line in label.split("\n")) for labels in (rows, columns)]
    size = (max(0.75, 0.11 * widest[1]) * mean.shape[1] + 0.09 * widest[0] + 1.9, 0.52 * mean.shape[0] + 1.4)
    fig, axes = _figure(1, 1, size)
    sns.heatmap(
        mean * 100, vmin=100 * low, vmax=100 * high, ax=axes[0], annot=written, fmt="", annot_kws={"size": 8},
        cmap="PuOr" if signed else "cividis", cbar_kws={"label": unit}, xticklabels=columns, yticklabels=rows,
    )  # fmt: skip
    axes[0].tick_params(length=0, rotation=0)
    axes[0].set(xlabel=mean.columns.name or "", ylabel=mean.index.name or "")
    ends = [
        f"{written.loc[where].splitlines()[0]} at {' and '.join(map(str, where))}"
        for where in (mean.stack().idxmin(), mean.stack().idxmax())
    ]
    names = f"{mean.index.name or 'rows'} by {mean.columns.name or 'columns'}"
    return described(fig, f"Table of {unit}, {names}: from {ends[0]} to {ends[1]}.", caption or f"{unit}.")


def most_varied(words: Sequence[str], maps: Picture, shown: int) -> list[int]:
    """Places of the `shown` words whose attention differs most over the picture, in the sentence's order.

    `maps`: [L, h, w]. Punctuation and the encoder's own marks ("[CLS]") are passed over.
    """
    spread = np.asarray(maps, dtype=np.float64).std(axis=(1, 2))
    places = [i for i, word in enumerate(words) if word.strip("#").isalnum()]
    return sorted(sorted(places, key=lambda i: -spread[i])[:shown])


def words_over_images(
    rows: Sequence[tuple[Picture, Picture, str, Sequence[str], Picture]], shown: int = 6, caption: str = ""
) -> Figure:
    """Where a sentence's words are read: a row an image; the image with its truth, then the words that vary most over it.

    `rows`: image (uint8 [H, W, 3] or float [3, H, W] in [-1, 1]), true labels [H, W], sentence, words, attention [L, h, w] in
    0..1. Attention lies as colour over the grey picture, all on one scale from 0. Raises ValueError for no rows or where words
    and maps are not equally many.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    if not rows:
        raise ValueError("there is nothing to draw: the list is empty")
    if any(len(words) != len(maps) for *_, words, maps in rows):
        raise ValueError("give one attention map a word")
    chosen = [most_varied(words, maps, shown) for *_, words, maps in rows]
    weights = [np.asarray(maps, dtype=np.float64)[places] for (*_, maps), places in zip(rows, chosen, strict=True)]
    scale = Normalize(0, max((one.max() for one in weights if one.size), default=1.0))
    fig, axes = _figure(len(rows), 1 + shown, (1.6 * (1 + shown) + 0.8, 2.25 * len(rows)))
    for line, row, places, maps in zip(axes.reshape(len(rows), -1), rows, chosen, weights, strict=True):
        _draw_words(line, row, places, maps, scale)
    bar = {"shrink": 0.6, "fraction": 0.015, "pad": 0.01, "aspect": 40}
    fig.colorbar(ScalarMappable(scale, "magma"), ax=fig.axes, label="attention weight", **bar)
    said = [
        f"“{sentence}”: {', '.join(words[place] for place in places)}"
        for (_, _, sentence, words, _), places in zip(rows, chosen, strict=True)
    ]
    alt = f"{len(rows)} images with true outlines, and where words of their sentences are read. {'; '.join(said)}."
    return described(fig, alt, caption or "Attention to the words that vary most over the image (one colour scale).")


def _draw_words(line: np.ndarray, row: tuple, places: Sequence[int], maps: np.ndarray, scale: Any) -> None:
    """One row of `words_over_images`: the image in the first panel, one word in each of the others."""
    image, truth, sentence, words, _ = row
    picture = as_picture(image)
    line[0].imshow(picture)
    _outline(line[0], _fit(truth, picture))
    line[0].set_title(_wrapped(sentence, 30), fontsize="xx-small", loc="left")
    over = {"alpha": 0.65, "extent": line[0].images[0].get_extent(), "interpolation": "bilinear"}
    for axis, place, weight in zip(line[1:], places, maps, strict=False):
        axis.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
        axis.imshow(weight, cmap="magma", norm=scale, **over)
        axis.set_title(words[place], fontsize="small")
    for axis in line:
        _no_frame(axis)
    for axis in line[1 + len(places) :]:
        axis.remove()


def reading_bars(losses: pd.DataFrame, caption: str = "") -> Figure:
    """Points of Dice lost with another sentence: a group of bars a model, a bar a kind of sentence, whiskers the interval.

    `losses`: columns `row`, `reading`, `difference`, `low`, `high` (shares), in the order to be drawn; rows without a
    difference are left out. Raises ValueError where nothing is left.
    """
    import seaborn as sns

    known = losses.dropna(subset=["difference"])
    if known.empty:
        raise ValueError("there is nothing to draw: no row has a difference (the runs have no record yet)")
    labels, readings = list(dict.fromkeys(known["row"])), list(dict.fromkeys(known["reading"]))
    thick = 0.8 / len(readings)
    fig, axes = _figure(1, 1, (7.5, 1.3 + 0.15 * len(labels) * (len(readings) + 1)))
    for k, (reading, colour, hatch) in enumerate(
        zip(readings, sns.color_palette("colorblind"), _cycle("", "///", "...", "xxx"), strict=False)
    ):
        part = known[known["reading"] == reading]
        at = [labels.index(row) + thick * (k + 0.5) - 0.4 for row in part["row"]]
        values = 100 * part["difference"]
        whiskers = np.nan_to_num([values - 100 * part["low"], 100 * part["high"] - values])
        axes[0].barh(
            at, values, thick, xerr=whiskers.clip(0), color=colour, edgecolor="white", hatch=hatch, label=reading,
            error_kw={"elinewidth": 1, "capsize": 2},
        )  # fmt: skip
    axes[0].axvline(0, color="0.3", linewidth=0.8)
    axes[0].set_yticks(range(len(labels)), [_wrapped(label, 28) for label in labels])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("points of Dice lost")
    fig.legend(loc="outside upper center", ncols=len(readings), frameon=False, fontsize="small")
    said = "; ".join(f"{one.row}, {one.reading}: {100 * one.difference:+.1f}" for one in known.itertuples())
    caption = caption or "Points of Dice lost with another sentence."
    return described(fig, f"Bars of the points of Dice lost. {said}.", caption)


def qualitative_grid(
    rows: Sequence[tuple[str, Picture, Picture, Mapping[str, Picture]]],
    pixels: int = 160,
    window: float = 1.0,
    caption: str = "",
) -> Figure:
    """A row an image: the image, its truth, and every model's prediction as outlines, with the Dice of the whole image.

    `rows`: label at the side, image (uint8 [H, W, 3] or float [3, H, W] in [-1, 1]), true labels [H, W], predictions by model
    name, each of the truth's size. A tile shows the middle `window` (0..1) of each side, brought to at most `pixels` a side: a
    small picture, not a copy. Raises ValueError for no rows, a window outside 0..1, or rows that differ in their models.
    """
    from matplotlib.lines import Line2D

    if not rows:
        raise ValueError("there is nothing to draw: the list is empty")
    if not 0 < window <= 1:
        raise ValueError(f"window={window}: the share of a side that is shown, above 0, at most 1")
    names = list(rows[0][3])
    if any(list(predictions) != names for *_, predictions in rows):
        raise ValueError("every row needs predictions of the same models, in the same order")
    fig, axes = _figure(len(rows), 2 + len(names), (1.5 * (2 + len(names)) + 0.4, 1.72 * len(rows) + 0.4))
    said = []
    for line, (label, image, truth, predictions) in zip(axes.reshape(len(rows), -1), rows, strict=True):
        picture = as_picture(image)
        tile, true = _reduced(_middle(picture, window), pixels), _middle(_fit(truth, picture), window)
        for axis, mask in zip(line, [None, None, *predictions.values()], strict=True):
            axis.imshow(tile, extent=(0, 1, 1, 0))
            _no_frame(axis)
            if axis is not line[0]:
                _thin_outline(axis, true, OUTLINE)
            if mask is not None:
                _thin_outline(axis, _middle(_fit(mask, picture), window), PREDICTED)
        scores = [f"Dice {100 * _binary_dice(truth, prediction):.1f}" for prediction in predictions.values()]
        for axis, score in zip(line[2:], scores, strict=True):
            axis.set_title(score, fontsize="small")
        line[0].set_ylabel(label, fontsize="small")
        said.append(f"{label}: {', '.join(f'{name} {score}' for name, score in zip(names, scores, strict=True))}")
    for axis, name in zip(axes, ["image", "truth", *names], strict=False):
        axis.set_title(f"{_wrapped(name, 16)}\n{axis.get_title()}".strip(), fontsize="small")
    colours = {"truth": OUTLINE, "prediction": PREDICTED}
    lines = [Line2D([], [], color=colour, label=label) for label, colour in colours.items()]
    fig.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    alt = f"{len(rows)} images, each with its true outline and the outlines of {', '.join(names)}. {'; '.join(said)}."
    return described(fig, alt, caption or "Outlines of truth and prediction.")


def _middle(picture: np.ndarray, window: float) -> np.ndarray:
    """The middle `window` of each side of [H, W] or [H, W, 3]."""
    height, width = (max(1, round(side * window)) for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _reduced(picture: np.ndarray, pixels: int) -> np.ndarray:
    """[H, W, 3] in 0..1, brought to at most `pixels` a side where it is larger (antialiased)."""
    from PIL import Image

    reduced = Image.fromarray((picture * 255).round().astype(np.uint8))
    reduced.thumbnail((pixels, pixels))
    return np.asarray(reduced) / 255


def _thin_outline(axis: Axes, mask: np.ndarray, colour: str) -> None:
    """The outline of a mask [h, w] over a tile that spans 0..1."""
    if mask.any() and not mask.all():  # an even field has no contour and matplotlib would warn
        across = [(np.arange(side) + 0.5) / side for side in mask.shape]
        axis.contour(across[1], across[0], mask, levels=[0.5], colors="black", linewidths=1.5)
        axis.contour(across[1], across[0], mask, levels=[0.5], colors=colour, linewidths=0.9)


def label_efficiency_curve(runs: pd.DataFrame, what: str = "images") -> Figure:
    """Dice against the number of labelled images, on a logarithmic axis: a line a model.

    `runs`: one row a run, with `model` (the line's name), `n_labels` (0: all there are, drawn behind the others) and `dice`
    (0..1). Points are means over the runs of a model and number, bars their sample standard deviation, small marks the runs.
    `what`: the word for what is labelled. No rows: an empty figure that says "not run yet".
    """
    import seaborn as sns

    fig, (axis,) = _figure(1, 1, (6.4, 3.8))
    said = []
    behind = 2 * max(runs["n_labels"].max(), 1) if len(runs) else 0
    runs = runs.assign(n_labels=runs["n_labels"].replace(0, behind))
    named = {behind: "all"}
    looks = zip(sns.color_palette("colorblind"), _cycle("-", "--", ":", "-."), _cycle("o", "s", "^", "D"), strict=False)
    for place, (name, (colour, line, marker)) in enumerate(zip(runs["model"].unique(), looks, strict=False)):
        one = runs.loc[runs["model"] == name, ["n_labels", "dice"]].astype({"n_labels": int, "dice": float})
        points = (100 * one.set_index("n_labels")["dice"]).groupby("n_labels").agg(["mean", "std"])
        # Each line stands a little aside, so that bars at one number of images do not cover each other
        aside = 1.03**place
        look = {"color": colour, "marker": marker}
        axis.errorbar(points.index * aside, points["mean"], points["std"], ls=line, capsize=3, label=name, **look)
        axis.scatter(one["n_labels"] * aside, 100 * one["dice"], s=12, alpha=0.5, linewidths=0, **look)
        said.append(
            f"{name}: " + ", ".join(f"{mean:.1f} % with {named.get(n, n)}" for n, mean in points["mean"].items())
        )
    numbers = sorted(runs["n_labels"].astype(int).unique())
    if numbers:
        axis.set_xscale("log")
        axis.set_xticks(numbers, [named.get(number, str(number)) for number in numbers])
        axis.minorticks_off()
        axis.legend(frameon=False)
    else:
        _say_not_run(axis)
    axis.set(xlabel=f"labelled {what} (logarithmic)", ylabel="test Dice (%)")
    alt = f"Test Dice against the number of labelled {what}. " + ("; ".join(said) or "Nothing has been run yet") + "."
    return described(fig, alt, f"Test Dice by number of labelled {what}: mean and standard deviation over draws.")


def pretraining_curve(runs: pd.DataFrame, controls: Mapping[str, float]) -> Figure:
    """Dice of frozen features against the steps of their pre-training, and of networks that were never trained as level lines.

    `runs`: one row a backbone and draw, with `steps` and `dice` (0..1); the line joins the means over draws, marks are draws.
    `controls`: Dice (0..1) by name. No rows: an empty figure that says "not run yet".
    """
    import seaborn as sns

    fig, (axis,) = _figure(1, 1, (6.4, 3.4))
    said, colours = [], sns.color_palette("colorblind")
    if len(runs):
        means = 100 * runs.groupby("steps")["dice"].mean()
        axis.plot(means.index, means, marker="o", color=colours[0], label="pre-trained")
        axis.scatter(runs["steps"], 100 * runs["dice"], s=12, alpha=0.5, linewidths=0, color=colours[0])
        said = [f"{mean:.1f} % after {steps} steps" for steps, mean in means.items()]
        for (name, dice), colour, line in zip(controls.items(), colours[1:], _cycle("--", ":"), strict=False):
            axis.axhline(100 * dice, color=colour, ls=line, label=name)
            said.append(f"{name} {100 * dice:.1f} %")
        axis.legend(frameon=False)
    else:
        _say_not_run(axis)
    axis.set(xlabel="steps of pre-training", ylabel="test Dice (%)")
    alt = "Test Dice of a probe against steps of pre-training. " + ("; ".join(said) or "Nothing has been run yet") + "."
    return described(fig, alt, "Dice of frozen features by length of pre-training; marks are draws of labelled images.")


def worth_of_switches(worth: Mapping[str, pd.DataFrame], base: str) -> Figure:
    """What each switch, set alone, changes in the Dice: a dot and its interval, one or two series (ways of scoring).

    `worth`: {name of the series: table of `report.differences`}, all with the same rows; `base`: the row that they
    are compared with, which is not drawn. Small upright marks are the draws. A row without run says so.
    """
    rows = [label for label in next(iter(worth.values())).index if label != base]
    fig, (axis,) = _figure(1, 1, (7.2, 0.48 * len(rows) + 1.5))
    axis.axvline(0, color="0.6", linewidth=1)
    said = []
    for (name, table), colour, marker, height in zip(
        worth.items(), (HIT, FALSE_ALARM), "os", (-0.15, 0.15), strict=False
    ):
        for row, label in enumerate(rows):
            one = table.loc[label]
            if one["images"]:
                _dot_and_interval(axis, row + height, one, colour, marker)
                said.append(f"{label}, {name}: {100 * one['difference']:+.1f}")
        axis.plot([], [], marker, color=colour, label=name)
    for row in np.flatnonzero(next(iter(worth.values())).loc[rows, "images"] == 0):
        axis.text(0, row, " not run yet", va="center", fontsize="small", color="0.4")
    axis.set_yticks(range(len(rows)), rows)
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"points of test Dice above “{base}”")
    fig.legend(loc="outside upper center", ncols=len(worth), frameon=False)
    alt = f"Difference in Dice to “{base}”, in points. " + ("; ".join(said) or "Nothing has been run yet") + "."
    return described(fig, alt, "Difference in test Dice, 95 % paired bootstrap interval over images, and single draws.")


def _dot_and_interval(axis: Axes, height: float, one: pd.Series, colour: str, marker: str) -> None:
    """One row of `report.differences`, in points, at `height`."""
    mean, low, high = (100 * one[name] for name in ("difference", "low", "high"))
    axis.plot([low, high], [height, height], color=colour, linewidth=2)
    axis.plot([mean], [height], marker, color=colour, markersize=7)
    draws = [100 * draw for draw in one["draws"]]
    axis.plot(draws, [height] * len(draws), "|", color="black", markersize=7)


def _say_not_run(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.text(0.5, 0.5, "not run yet", transform=axis.transAxes, ha="center", va="center", color="0.4")
