"""One look for every figure. In: a figure, and words for it. Out: the figure, with its alt text and caption.

Call `style()` once. No function shows anything: a figure is the value of its cell. Colours stay apart for colour-blind
readers, and every colour has a legend or a label.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

NOT_RUN = "not run yet"
# Okabe and Ito's colours: they differ in hue for every kind of colour vision, and neighbours in lightness too.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# A method has its colour on every page: ours, ours with something taken away, and networks trained from scratch that read or do not.
OURS, TAKEN_AWAY, READER, TEXT_FREE = "#0072b2", "#56b4e9", "#d55e00", "#009e73"
HIT, FALSE_ALARM, MISS = "#0072b2", "#d55e00", "#f0e442"
# Outlines on pictures; the blue of predictions is lighter than tissue and films.
TRUE, PREDICTED = "#f0e442", "#56b4e9"
# Structures of a volume, light on dark tissue. No more than ten stay apart by eye.
STRUCTURES = (
    "#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#9d7fe6", "#b8e0a0", "#a6553a", "#c4f0f5",
)  # fmt: skip


def style() -> None:
    """Set the project's look for all figures of this process: white ground, colour-blind-safe palette."""
    import seaborn as sns

    look = {"figure.dpi": 110, "axes.titlesize": "medium", "axes.spines.right": False, "axes.spines.top": False}
    sns.set_theme(context="notebook", style="ticks", palette=SERIES, rc=look)


def described(fig: Figure, alt: str, caption: str = "") -> Figure:
    """Give `fig` its alt text (what a reader who cannot see it must know) and caption, which go with the picture into notebooks
    and records; returns `fig`. Its texts are drawn as they are written. Raises ValueError for an empty alt text.
    """
    if not alt.strip():
        raise ValueError("the alt text is empty: say in a sentence what the figure shows")
    _take_as_written(fig)

    def shown(**_: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
        stream = io.BytesIO()
        fig.savefig(stream, format="png", bbox_inches="tight")
        return {"image/png": stream.getvalue()}, {"image/png": description(fig)}

    own: Any = fig
    own.textdiff_description = {"alt": alt.strip(), "caption": caption.strip()}
    own._repr_mimebundle_ = shown
    return fig


def _take_as_written(fig: Figure) -> None:
    """Sentences and names may hold dollar signs, which start no formula; the powers of ten at logarithmic axes are formulas."""
    ticks = {id(label) for tick in fig.findobj(Tick) for label in (tick.label1, tick.label2)}
    for text in fig.findobj(Text):
        if id(text) not in ticks:
            text.set_parse_math(False)


def description(fig: Figure) -> dict[str, str]:
    """The alt text and caption of a figure; empty texts where none was given."""
    return dict(getattr(fig, "textdiff_description", {"alt": "", "caption": ""}))


def figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure and its axes [rows * columns]. pyplot has let go of it: it is shown once, as a cell's value."""
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    plt.close(fig)
    return fig, axes.ravel()


def tiles(count: int, columns: int, side: float, extra_height: float = 0.35) -> tuple[Figure, np.ndarray]:
    """A figure with `count` square panels without frames, at most `columns` per row."""
    if count == 0:
        raise ValueError("there is nothing to draw: the list is empty")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    fig, axes = figure(rows, columns, (side * columns, (side + extra_height) * rows))
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        frameless(axis)
    return fig, axes[:count]


def frameless(axis: Axes) -> None:
    """Take away the ticks and the frame."""
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters; never empty, so that titles keep their height."""
    return "\n".join(textwrap.wrap(text, width)) or " "


def looks() -> Iterator[dict[str, Any]]:
    """Colour, marker and line style of one series after the other, as matplotlib's keyword arguments."""
    for colour, marker, line in zip(cycle(SERIES), cycle("osD^"), cycle(("-", "--", ":", "-.")), strict=False):
        yield {"color": colour, "marker": marker, "ls": line}


def colour_of(label: str) -> str:
    """The colour of a method by the label of its row: "TextDiff", "TextDiff without text", "U-Net that reads", "U-Net" ..."""
    if re.fullmatch(r"TextDiff(Seg)?(, \d+ steps)?", label):
        return OURS
    if "reads" in label:
        return READER
    return TEXT_FREE if re.search("^[^,]*(Net|NeXt|UNETR)", label) else TAKEN_AWAY


def legend(fig: Figure, colours: Mapping[str, str], dashed: Mapping[str, str] | None = None) -> None:
    """A legend of lines beneath the panels: {label: colour}, and those drawn `dashed`."""
    lines = [Line2D([], [], color=colour, linewidth=2.5, label=label) for label, colour in colours.items()]
    lines += [Line2D([], [], color=colour, ls="dashed", label=label) for label, colour in (dashed or {}).items()]
    if lines:
        fig.legend(handles=lines, loc="outside lower center", ncols=min(5, len(lines)), frameon=False, fontsize="small")


def say_not_run(axis: Axes) -> None:
    """Empty axes that say "not run yet"."""
    axis.set(xticks=[], yticks=[])
    axis.text(0.5, 0.5, NOT_RUN, transform=axis.transAxes, ha="center", va="center", color="0.4")


def findings(what: str, said: Sequence[str]) -> str:
    """An alt text: what is drawn, then the numbers, or that there are none yet."""
    return f"{what}. {'; '.join(said) or 'Nothing has been run yet'}."
