"""Curves, bars and heat maps. In: tables of scores (0..1). Out: matplotlib Figures with alt text and caption.

Scores are drawn in percent. What has not been run is drawn too, as a place that says "not run yet".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from textdiff.figures.style import NOT_RUN, colour_of, described, figure, findings, looks, say_not_run, wrapped

INTERVAL = "95 % interval for other draws and other images (hollow: one draw, other images alone)"


def loss_curve(history: pd.DataFrame | Sequence[Mapping[str, float]], along: str = "epoch") -> Figure:
    """Training history: losses over the column `along`, and beside them the scores where there are any.

    Columns of `history` with "loss" in their name go left, those with "dice" or "iou" (0..1) right. Raises ValueError for an
    empty history, one without `along` or one without losses.
    """
    table = pd.DataFrame(history)
    numeric = table.select_dtypes("number").dropna(axis=1, how="all").drop(columns=along, errors="ignore")
    losses, scores = (list(numeric.filter(regex=words)) for words in ("loss", "dice|iou"))
    if along not in table or len(table) == 0 or not losses:
        raise ValueError(
            f"a history needs rows, a column {along!r} and one with 'loss' in its name; its columns are {list(table.columns)}"
        )
    panels = [(losses, "loss"), (scores, "score (0 to 1)")][: 2 if scores else 1]
    fig, axes = figure(1, len(panels), (4.6 * len(panels), 3.2))
    said = []
    for axis, (names, label) in zip(axes, panels, strict=True):
        for name, look in zip(names, looks(), strict=False):
            known = table[[along, name]].dropna()
            axis.plot(known[along], known[name], markevery=0.2, markersize=4, label=name, **look)
            said.append(f"{name} from {known[name].iloc[0]:.3f} to {known[name].iloc[-1]:.3f}")
        axis.set(xlabel=along, ylabel=label)
        axis.legend(frameon=False)
    return described(fig, f"Curves of {len(table)} points: {'; '.join(said)}.", "Training history.")


def dice_heatmap(
    mean: pd.DataFrame,
    caption: str = "",
    *,
    spread: pd.DataFrame | None = None,
    limits: tuple[float, float] | None = None,
    signed: bool = False,
) -> Figure:
    """Dice by row and column, in percent; cells without a run are hatched and say so.

    `mean`: shares 0..1 (`signed`: differences, -1..1), nan where not run; its index and column names label the axes.
    `spread`: standard deviations, written under the means. `limits`: ends of the colour scale as shares, by default the
    table's own; a signed scale is symmetrical about zero. Raises ValueError for values out of range, and for a spread with other
    rows or columns.
    """
    import seaborn as sns

    if spread is not None and not (mean.index.equals(spread.index) and mean.columns.equals(spread.columns)):
        raise ValueError("mean and spread must have the same rows and columns")
    lowest = -1 if signed else 0
    if ((mean < lowest) | (mean > 1)).any(axis=None):
        raise ValueError(f"the table holds values outside {lowest}..1: give Dice as a share, not in percent")
    known = mean.stack().dropna()
    low, high = limits or ((known.min(), known.max()) if len(known) else (0, 1))
    if signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    written = mean.map(lambda value: f"{100 * value:{'+' if signed else ''}.1f}")
    if spread is not None:
        written += spread.map(lambda value: "" if np.isnan(value) else f"\n± {100 * value:.1f}")
    unit = "difference in Dice (points)" if signed else "Dice (%)"
    rows, columns = ([wrapped(str(label), 14) for label in labels] for labels in (mean.index, mean.columns))
    widest = [max(len(line) for label in labels for line in label.split("\n")) for labels in (rows, columns)]
    size = (max(0.75, 0.11 * widest[1]) * mean.shape[1] + 0.09 * widest[0] + 1.9, 0.52 * mean.shape[0] + 1.4)
    fig, (axis,) = figure(1, 1, size)
    sns.heatmap(
        mean.astype(float) * 100, vmin=100 * low, vmax=100 * high, ax=axis, annot=written, fmt="", annot_kws={"size": 8},
        cmap="PuOr" if signed else "cividis", cbar_kws={"label": unit}, xticklabels=columns, yticklabels=rows,
    )  # fmt: skip
    missing = np.argwhere(mean.isna().to_numpy())
    for row, column in missing:
        axis.add_patch(Rectangle((column, row), 1, 1, facecolor="white", edgecolor="0.7", hatch="///", linewidth=0))
        centred: Any = {"ha": "center", "va": "center", "fontsize": "x-small", "backgroundcolor": "white"}
        axis.text(column + 0.5, row + 0.5, NOT_RUN, **centred)
    axis.set(xlabel=mean.columns.name or "", ylabel=mean.index.name or "")
    axis.tick_params(length=0, rotation=0)
    said = []
    if len(known):
        ends = (f"{written.loc[at].split()[0]} at {at[0]} and {at[1]}" for at in (known.idxmin(), known.idxmax()))
        said = [f"From {' to '.join(ends)}"] + [f"cells not run yet: {len(missing)}"] * (len(missing) > 0)
    alt = f"Table of {unit}, {mean.index.name or 'rows'} by {mean.columns.name or 'columns'}"
    cells = written.where(mean.notna(), NOT_RUN).map(lambda cell: cell.replace("\n", " "))
    lines = "; ".join(f"{at}: {', '.join(row)}" for at, row in zip(cells.index, cells.values, strict=True))
    return described(fig, f"{findings(alt, said)} Row by row: {lines}.", caption or f"{unit}.")


def _series(
    axis: Axes, along: pd.Series, values: pd.Series, look: Mapping[str, Any], label: str, aside: float = 1
) -> pd.Series:
    """Mean and sample standard deviation of `values` at each place `along` the axis, and every value as a small mark.

    Places are multiplied by `aside`. Returns the means by place.
    """
    points = values.groupby(along).agg(["mean", "std"])
    axis.errorbar(points.index * aside, points["mean"], points["std"], capsize=3, label=label or None, **look)
    axis.scatter(along * aside, values, s=12, alpha=0.5, linewidths=0, color=look["color"], marker=look["marker"])
    return points["mean"]


def _logarithmic(axis: Axes, places: Sequence[int], names: Mapping[int, str] | None = None) -> None:
    """A logarithmic axis with a tick at each of `places`; without any it says that nothing was run."""
    if len(places) == 0:
        say_not_run(axis)
        return
    axis.set_xscale("log")
    axis.set_xticks(places, [(names or {}).get(place, str(place)) for place in places])
    axis.minorticks_off()


def label_efficiency_curve(runs: pd.DataFrame, what: str = "images") -> Figure:
    """Test Dice against the number of labelled `what`, on a logarithmic axis: one line per row of a grid.

    `runs`: one row per run, as `report.rows.grid_records` gives them: `row` (the line's name), `n_labels` ("all" is drawn to
    the right of the numbers) and `test/dice` (0..1). Points are means over the runs of a row and number, bars their
    sample standard deviation, small marks the runs.
    """
    runs = runs.reindex(columns=["row", "n_labels", "test/dice"]).dropna().astype({"test/dice": float})
    counts = pd.to_numeric(runs["n_labels"], errors="coerce")
    behind = 2 * int(counts.max()) if counts.notna().any() else 1
    runs, names = runs.assign(n_labels=counts.fillna(behind).astype(int)), {behind: "all"}
    fig, (axis,) = figure(1, 1, (6.4, 3.8))
    said = []
    for place, (name, look) in enumerate(zip(runs["row"].unique(), looks(), strict=False)):
        one = runs[runs["row"] == name]
        # Each line stands a little aside, so that bars at one number of images do not cover each other
        look |= {"color": colour_of(name)}
        means = _series(axis, one["n_labels"], 100 * one["test/dice"], look, name, 1.03**place)
        said.append(f"{name}: " + ", ".join(f"{mean:.1f} % with {names.get(n, n)}" for n, mean in means.items()))
    _logarithmic(axis, sorted(runs["n_labels"].unique()), names)
    if said:
        axis.legend(frameon=False)
    axis.set(xlabel=f"labelled {what} (logarithmic)", ylabel="test Dice (%)")
    alt = findings(f"Test Dice against the number of labelled {what}", said)
    return described(fig, alt, f"Test Dice by number of labelled {what}: mean and standard deviation over draws.")


def pretraining_curve(runs: pd.DataFrame, controls: Mapping[str, float]) -> Figure:
    """Dice of frozen features against the iterations of their pre-training; untrained networks are level lines.

    `runs`: one row per backbone and draw of labelled images, with `iterations` and `dice` (0..1). `controls`: Dice by name.
    """
    fig, (axis,) = figure(1, 1, (6.4, 3.4))
    said, series = [], looks()
    if len(runs):
        means = _series(axis, runs["iterations"], 100 * runs["dice"], next(series), "pre-trained")
        said = [f"{mean:.1f} % after {iterations} iterations" for iterations, mean in means.items()]
        for (name, dice), look in zip(controls.items(), series, strict=False):
            axis.axhline(100 * dice, color=look["color"], ls=look["ls"], label=name)
            said.append(f"{name} {100 * dice:.1f} %")
        axis.legend(frameon=False)
    else:
        say_not_run(axis)
    axis.set(xlabel="iterations of pre-training", ylabel="test Dice (%)")
    alt = findings("Test Dice of a probe against iterations of pre-training", said)
    return described(fig, alt, "Dice of frozen features by length of pre-training; marks are draws of labelled images.")


def steps_curve(scores: pd.DataFrame) -> Figure:
    """Dice, and seconds per volume, against the number of sampling steps: one line per sampler, mean and standard deviation.

    `scores`: of `evaluation.studies.sampling_study`. Drawn are single samples, of the ways that were tried on all its volumes:
    long ones are tried on a few, whose mean does not compare.
    """
    fig, axes = figure(1, 2, (9.2, 3.4))
    single = scores[scores["samples"] == 1]
    volumes = single.groupby(["sampler", "sampling_steps"])["case"].transform("nunique")
    said, table = [], single[volumes == single["case"].nunique()]
    for (name, one), look in zip(table.groupby("sampler", sort=False), looks(), strict=False):
        for axis, score, scale in zip(axes, ("dice", "seconds"), (100, 1), strict=True):
            means = _series(axis, one["sampling_steps"], scale * one[score], look, name)
            said.append(f"{name} {score}: ".lstrip() + ", ".join(f"{m:.1f} at {n}" for n, m in means.items()))
    for axis, label in zip(axes, ("test Dice (%)", "seconds per volume"), strict=True):
        axis.set(xlabel="sampling steps", ylabel=label)
        _logarithmic(axis, sorted(table["sampling_steps"].unique()))
        if table["sampler"].nunique() > 1:
            axis.legend(frameon=False)
    alt = findings("Dice and seconds against sampling steps", said)
    caption = (
        "Test Dice and seconds per volume by number of sampling steps: mean, standard deviation, and every volume."
    )
    return described(fig, alt, caption)


def reliability_curve(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence, and below how many voxels have that confidence.

    `tables`: of `calibration.Reliability.table`, by name. Below the diagonal the model is overconfident. The legend gives each
    expected calibration error.
    """
    fig, (upper, lower) = figure(2, 1, (5.2, 5.6))
    said = []
    for (name, table), look in zip(tables.items(), looks(), strict=False):
        known = table[table["n"] > 0]
        gap = (known["confidence"] - known["accuracy"]).abs()
        ece = f"ECE {(known['n'] * gap).sum() / known['n'].sum():.3f}" if len(known) else "no voxels"
        said.append(f"{name}: {ece}")
        upper.plot(known["confidence"], known["accuracy"], markersize=5, label=said[-1], **look)
        shares = table["n"] / max(1, table["n"].sum())
        lower.stairs(shares, [*table["low"], *table["high"][-1:]], color=look["color"], linewidth=1.6)
    if said:
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
        upper.legend(frameon=False, fontsize="small")
        if any(table["n"].any() for table in tables.values()):
            lower.set_yscale("log")
    else:
        say_not_run(upper)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    lower.set(xlim=(0, 1), xlabel="confidence", ylabel="share of voxels (log)")
    alt = findings("Reliability: accuracy of voxels against confidence", said)
    return described(fig, alt, "Accuracy by confidence, and the share of voxels at each confidence.")


def worth_of_switches(worth: Mapping[str, pd.DataFrame], base: str) -> Figure:
    """What each switch, set alone, changes in the Dice: a dot and its interval per way of scoring; upright marks are the draws.

    `worth`: {way of scoring: table of `report.tables.differences`}, all with the same rows; `base`: the row that they are
    compared with, which is not drawn.
    """
    rows = [label for label in next(iter(worth.values())).index if label != base]
    fig, said = _dots(worth, rows, f"points of test Dice above “{base}”")
    alt = findings(f"Difference in Dice to “{base}”, in points", said)
    return described(fig, alt, f"Difference in test Dice and single draws, {INTERVAL}.")


def reading_dots(losses: pd.DataFrame) -> Figure:
    """Points of Dice lost with another sentence: a dot and its interval per model and kind of sentence.

    `losses`: of `report.images.reading_losses`, in the order to be drawn; models and sentences without a run are left out.
    """
    known = losses[losses["cases"] > 0]
    rows, readings = (list(dict.fromkeys(known[name])) for name in ("row", "reading"))
    tables = {one: losses[losses["reading"] == one].set_index("row") for one in readings}
    fig, said = _dots(tables, rows, "points of Dice lost")
    alt = findings("Points of Dice lost with another sentence", said)
    return described(fig, alt, f"Points of Dice lost with another sentence, {INTERVAL}.")


def comparison_dots(
    dice: Mapping[str, Sequence[float]], above: pd.DataFrame, base: str, paper: Mapping[str, float] | None = None
) -> Figure:
    """Test Dice of the draws of every row, and beside it how far each row is above one of them, with its interval.

    `dice`: one share 0..1 per draw, by row, in the order to be drawn. `above`: table of `report.tables.differences` to `base`.
    `paper`: others' Dice (percent) by name, drawn as level marks. Rows without a draw are left out.
    """
    rows = [label for label, draws in dice.items() if len(draws)]
    fig, (left, right) = figure(1, 2, (9.6, 0.42 * max(2, len(rows)) + 1.6))
    said = []
    for axis in (left, right):
        if not rows:
            say_not_run(axis)
    for place, label in enumerate(rows):
        look = {"color": colour_of(label)}
        draws, one = 100 * np.asarray(dice[label], dtype=float), above.loc[label]
        left.plot(draws, [place] * len(draws), "o", fillstyle="none", markersize=6, **look)
        left.plot([draws.mean()], [place], "|", markersize=16, markeredgewidth=2.5, **look)
        said.append(f"{label}: {draws.mean():.1f} %")
        if label != base and one["cases"]:
            low, high, mean = (100 * one[part] for part in ("low", "high", "difference"))
            right.plot([low, high], [place] * 2, linewidth=2, **look)
            right.plot([mean], [place], "o" if len(one["draws"]) > 1 else "s", markersize=7, **look)
            right.plot(100 * np.array(one["draws"]), [place] * len(one["draws"]), "k|", markersize=7)
            said[-1] += f", {mean:+.1f} points ({low:+.1f} to {high:+.1f})"
    for (name, value), line in zip((paper or {}).items(), ("--", ":", "-."), strict=False):
        left.axvline(value, color="0.4", linewidth=1.2, ls=line, label=name)
        said.append(f"{name}: {value:.1f} %")
    right.axvline(0, color="0.6", linewidth=1)
    left.set(xlabel="test Dice (%)", yticks=range(len(rows)), yticklabels=[wrapped(label, 34) for label in rows])
    right.set(xlabel=f"points above “{base}”", yticks=range(len(rows)), yticklabels=[])
    for axis in (left, right):
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="x", color="0.9", linewidth=0.8)
    if paper:
        fig.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    caption = (
        "Left: test Dice, a ring for every draw of the labelled cases, an upright mark for their mean. Right: difference to "
        f"“{base}” on the same cases and draws, 95 % interval for other draws and other cases (square: one draw, other cases "
        "alone); thin marks are single draws."
    )
    return described(fig, findings(f"Test Dice by method, and points above “{base}”", said), caption)


def _dots(tables: Mapping[str, pd.DataFrame], rows: Sequence[str], label: str) -> tuple[Figure, list[str]]:
    """Differences in points: one line per row, one dot with interval and draws per table. Returns also the numbers in words."""
    fig, (axis,) = figure(1, 1, (7.2, 0.48 * max(2, len(rows)) + 1.5))
    axis.set_xlabel(label)
    if not rows:
        say_not_run(axis)
        return fig, []
    axis.axvline(0, color="0.6", linewidth=1)
    said = []
    for k, ((name, table), look) in enumerate(zip(tables.items(), looks(), strict=False)):
        for row, one in enumerate(table.loc[label] for label in rows):
            if one["cases"]:
                height = row + 0.6 / len(tables) * (k - (len(tables) - 1) / 2)
                low, high, mean = (100 * one[part] for part in ("low", "high", "difference"))
                axis.plot([low, high], [height] * 2, color=look["color"], linewidth=2)
                fill = "full" if len(one["draws"]) > 1 else "none"
                axis.plot([mean], [height], look["marker"], color=look["color"], fillstyle=fill, markersize=7)
                axis.plot(100 * np.array(one["draws"]), [height] * len(one["draws"]), "k|", markersize=7)
                said.append(f"{rows[row]}, {name}: {mean:+.1f}")
        axis.plot([], [], look["marker"], color=look["color"], label=name)
    for row, label in enumerate(rows):
        if not any(table.loc[label, "cases"] for table in tables.values()):
            axis.text(0, row, f" {NOT_RUN}", va="center", fontsize="small", color="0.4")
    axis.set_yticks(range(len(rows)), [wrapped(label, 36) for label in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    fig.legend(loc="outside upper center", ncols=len(tables), frameon=False, fontsize="small")
    return fig, said
