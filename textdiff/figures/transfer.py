"""What a model says of its own masks beside the truth. In: a table of cases of several sources. Out: a Figure with alt text."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from textdiff.figures.style import described, figure, findings, looks, say_not_run, wrapped

COLUMNS, SIDE = 4, 2.3


def doubt_scatter(table: pd.DataFrame, sure: Mapping[str, str]) -> Figure:
    """True Dice against what the model says of its masks: a panel per target, a mark per case and doubt.

    `table`: `target`, `dice` and the columns of `sure`, all 0..1; nan is left out. `sure`: column -> its name in the legend. On the
    line the model is right about itself, below it too sure.
    """
    targets = list(table.groupby("target", sort=False))
    columns = max(1, min(COLUMNS, len(targets)))
    rows = -(-max(1, len(targets)) // columns)
    fig, axes = figure(rows, columns, (SIDE * columns + 0.6, SIDE * rows + 0.9))
    if not targets:
        say_not_run(axes[0])
    said = []
    for axis, (target, cases) in zip(axes, targets, strict=False):
        axis.plot([0, 100], [0, 100], color="0.6", linewidth=1)
        beliefs = []
        for (column, name), look in zip(sure.items(), looks(), strict=False):
            axis.scatter(
                100 * cases[column],
                100 * cases["dice"],
                s=14,
                alpha=0.6,
                linewidths=0,
                color=look["color"],
                marker=look["marker"],
            )
            beliefs.append(f"{name} {100 * cases[column].mean():.1f} %")
        axis.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))
        axis.set_title(wrapped(str(target), 22), fontsize="small")
        said.append(f"{target}: Dice {100 * cases['dice'].mean():.1f} %, {', '.join(beliefs)}")
    for axis in axes[len(targets) :] if targets else ():
        axis.remove()
    if targets:
        fig.supxlabel("what the model says (%)", fontsize="medium")
        fig.supylabel("true Dice (%)", fontsize="medium")
        for (_, name), look in zip(sure.items(), looks(), strict=False):
            axes[0].plot([], [], look["marker"], color=look["color"], label=name)
        fig.legend(loc="outside upper center", ncols=len(sure), frameon=False, fontsize="small")
    alt = findings("True Dice against what the model says of its own masks, a panel per source of pictures", said)
    return described(
        fig, alt, "True Dice against the model's own: on the line it is right about itself, below it too sure."
    )
