"""What it costs. In: tables of measured numbers (`report.cost` makes them). Out: matplotlib Figures with alt text and caption.

What has not been measured is drawn too, as a place that says "not run yet".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from textdiff.figures.style import FALSE_ALARM, HIT, SERIES, described, figure, findings, looks, say_not_run, wrapped

MARKERS = "osD^vPX*<>"


def roofline(pieces: pd.DataFrame, roofs: Mapping[str, float]) -> Figure:
    """Achieved GFLOP/s of pieces of work under what the machine can do, both axes logarithmic.

    `pieces`: `work` (a marker each), `side` (a colour each), `intensity` (GFLOP a GB moved), `rate` (GFLOP/s). `roofs`: GFLOP/s by precision, and "memory" in GB/s.
    """
    fig, (axis,) = figure(1, 1, (8.2, 4.6))
    axis.set(xlabel="operations a byte moved (FLOP/B, logarithmic)", ylabel="GFLOP/s (logarithmic)")
    if pieces.empty or "memory" not in roofs:
        say_not_run(axis)
        return described(fig, findings("Roofline", []), "Roofline.")
    sides, works = (list(dict.fromkeys(pieces[name])) for name in ("side", "work"))
    colours = {side: SERIES[k % len(SERIES)] for k, side in enumerate(sides)}
    markers = {work: MARKERS[k % len(MARKERS)] for k, work in enumerate(works)}
    low, high = pieces["intensity"].min() / 2, pieces["intensity"].max() * 2
    along = np.geomspace(low, high, 200)
    said = [f"memory {roofs['memory']:.3g} GB/s"]
    for (name, roof), line in zip(((n, r) for n, r in roofs.items() if n != "memory"), ("-", "--", ":"), strict=False):
        axis.plot(along, np.minimum(roof, roofs["memory"] * along), color="0.45", ls=line, label=f"ceiling {name}")
        said.append(f"ceiling {name} {roof:.3g} GFLOP/s")
    for one in pieces.itertuples():
        axis.plot(one.intensity, one.rate, markers[one.work], color=colours[one.side], markersize=8, alpha=0.9)
        said.append(f"{one.work}, {one.side}: {one.rate:.3g} GFLOP/s")
    axis.set(xscale="log", yscale="log")
    handles = [*axis.get_legend_handles_labels()[0]]
    handles += [Line2D([], [], color=c, marker="s", ls="", markersize=9, label=name) for name, c in colours.items()]
    handles += [Line2D([], [], color="0.3", marker=m, ls="", mfc="none", label=name) for name, m in markers.items()]
    fig.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    caption = "Achieved operations a second against operations a byte moved; grey: what the same machine can do."
    return described(fig, findings("Roofline", said), caption)


def goal_bars(goals: pd.DataFrame) -> Figure:
    """How many times each goal was reached: one bar a goal, on a logarithmic axis, from the line of the goal itself.

    `goals`: `goal` (its name), `value`, `wanted`, `met` (True, False); those where more is better. A bar to the right is met.
    """
    fig, (axis,) = figure(1, 1, (7.6, 0.42 * max(3, len(goals)) + 1.2))
    axis.set_xlabel("measured ÷ goal (logarithmic)")
    if goals.empty:
        say_not_run(axis)
        return described(
            fig, findings("Measured ratios against their goals", []), "Measured ratios against their goals."
        )
    said = []
    for row, one in enumerate(goals.itertuples()):
        share, met = one.value / one.wanted, bool(one.met)
        axis.barh(
            row, share - 1, left=1, color=HIT if met else FALSE_ALARM, hatch="" if met else "///", edgecolor="white"
        )
        words = f"{one.value:.3g} of {one.wanted:g}"
        axis.text(max(share, 1) * 1.05, row, f"{words}, {'met' if met else 'missed'}", va="center", fontsize="small")
        said.append(f"{one.goal}: {words}, {'met' if met else 'missed'}")
    shares = goals["value"] / goals["wanted"]
    axis.set(xscale="log", xlim=(min(0.5, 0.8 * shares.min()), 4 * max(1.0, shares.max())))
    axis.axvline(1, color="0.3", linewidth=1)
    axis.set_yticks(range(len(goals)), [wrapped(name, 34) for name in goals["goal"]])
    axis.set_ylim(len(goals) - 0.5, -0.5)
    alt = findings("Measured ratios against their goals", said)
    return described(fig, alt, "Measured ratio over its goal: a bar to the right of the line is met.")


def size_curves(sizes: pd.DataFrame) -> Figure:
    """Seconds and peak memory against size, on logarithmic axes: one column a kind of size.

    `sizes`: `axis` ("images", "pixels", ...), `size`, `quantity` ("wall s", "peak MB"), `value`, and `slope`, of the line through the
    logarithms.
    """
    kinds = list(dict.fromkeys(sizes["axis"])) or [""]
    fig, axes = figure(2, len(kinds), (2.9 * len(kinds) + 1, 5.2))
    said = []
    for row, (quantity, label) in enumerate({"wall s": "seconds", "peak MB": "peak MB"}.items()):
        look = next(one for k, one in enumerate(looks()) if k == row)
        for column, kind in enumerate(kinds):
            panel: Axes = axes[row * len(kinds) + column]
            one = sizes[(sizes["axis"] == kind) & (sizes["quantity"] == quantity)].sort_values("size")
            if row:
                panel.set_xlabel(kind)
            if not column:
                panel.set_ylabel(label)
            if one.empty:
                say_not_run(panel)
                continue
            slope = one["slope"].iloc[0]
            panel.plot(one["size"], one["value"], **look)
            panel.set(xscale="log", yscale="log", title=f"slope {slope:.2f}")
            _decade(panel, one["value"])
            ends = sorted({one["size"].iloc[0], one["size"].iloc[-1]})
            panel.set_xticks(ends, [f"{end:,.0f}" for end in ends])
            panel.xaxis.set_minor_formatter(NullFormatter())
            _plain(panel.yaxis)
            said.append(f"{label} against {kind}: slope {slope:.2f}")
    caption = "Seconds and peak memory of one prediction by size; slope 1 is proportional, 0 does not grow."
    return described(fig, findings("Seconds and peak memory against size, logarithmic", said), caption)


def _plain(axis: Axis) -> None:
    """Numbers as they are said at 1, 2 and 5 of every decade of a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _decade(axis: Axes, values: pd.Series) -> None:
    """Never less than a decade high, so that noise does not look like growth."""
    middle = float(np.sqrt(values.min() * values.max()))
    reach = max(10**0.5, 1.3 * float(np.sqrt(values.max() / values.min())))
    axis.set_ylim(middle / reach, middle * reach)


def dice_against_cost(choices: pd.DataFrame) -> Figure:
    """Test Dice against what a prediction costs (logarithmic): a mark a choice, small marks its draws.

    `choices`: one row per choice, `choice`, `kind` (a colour and a marker each), `cost` in seconds a picture, `dice` (0..1) and `draws` (their
    Dice). Choices without a cost or a Dice are left out.
    """
    fig, (axis,) = figure(1, 1, (8.2, 4.4))
    axis.set(xlabel="seconds a picture (logarithmic)", ylabel="test Dice (%)")
    known = choices.dropna(subset=["cost", "dice"])
    if known.empty:
        say_not_run(axis)
        return described(fig, findings("Test Dice against cost", []), "Test Dice against cost.")
    said = []
    for (_, group), look in zip(known.groupby("kind", sort=False), looks(), strict=False):
        plain: dict[str, Any] = {"color": look["color"], "marker": look["marker"]}
        for one in group.itertuples():
            axis.scatter([one.cost] * len(one.draws), 100 * np.array(one.draws), s=14, alpha=0.5, linewidths=0, **plain)
            said.append(f"{one.choice}: {100 * one.dice:.1f} % at {one.cost:.3g}")
        axis.plot(group["cost"], 100 * group["dice"], markersize=8, ls="", label=group["kind"].iloc[0], **plain)
    axis.set_xscale("log")
    _plain(axis.xaxis)
    low, high = known["cost"].min(), known["cost"].max()
    axis.set_xlim(low / 1.3, high * (high / low) ** 0.45 * 1.6)  # room for the words on the right
    for one, height in zip(known.itertuples(), _apart(100 * known["dice"].to_numpy(), axis), strict=True):
        at = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": "small"}
        axis.annotate(one.choice, (one.cost, height), **at)
    fig.legend(loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    alt = findings("Test Dice against seconds a picture, logarithmic", said)
    return described(
        fig, alt, "Test Dice against seconds a picture, one choice changed at a time; small marks are draws."
    )


def _apart(heights: np.ndarray, axis: Axes) -> np.ndarray:
    """Heights moved as little as keeps words from lying on each other, from the lowest up."""
    low, high = axis.get_ylim()
    least, moved, last = (high - low) / 22, heights.astype(float).copy(), -np.inf
    for place in np.argsort(heights):
        moved[place] = last = max(moved[place], last + least)
    return moved
