"""Memory over time. In: megabytes held at moments of a long work (`tools/measure_streaming.py` notes them). Out: a Figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from textdiff.figures.style import SERIES, described, figure, findings

KINDS = {"RssAnon": "cannot be given back", "RssFile": "mapped of files"}


def held_curve(watched: pd.DataFrame, set_mb: float, share_mb: float) -> Figure:
    """Megabytes of each kind against seconds, the parts of the work marked, and the sizes of the set and of its share of memory.

    `watched`: `seconds`, `part` ("reading", "training"), `RssAnon`, `RssFile` (MB).
    """
    fig, (axis,) = figure(1, 1, (7.6, 3.6))
    for colour, (kind, label) in zip(SERIES, KINDS.items(), strict=False):
        axis.plot(watched["seconds"], watched[kind], color=colour, label=label)
    axis.axhline(set_mb, color="0.35", ls="--", label=f"the set, {set_mb:.0f} MB")
    axis.axhline(share_mb, color="0.35", ls=":", label=f"what it may keep in memory, {share_mb:.0f} MB")
    starts = watched[watched["part"] != "start"].groupby("part", sort=False)["seconds"].min()
    for part, second in starts.items():
        axis.axvline(second, color="0.8", lw=1, zorder=0)
        axis.annotate(str(part), (second, 1.01), xycoords=("data", "axes fraction"), fontsize="small")
    axis.set(xlabel="seconds", ylabel="MB", ylim=(0, None))
    fig.legend(loc="outside right upper", frameon=False, fontsize="small")
    said = [f"{label}: {watched[kind].min():.0f} to {watched[kind].max():.0f} MB" for kind, label in KINDS.items()]
    return described(fig, findings("Memory held", said), "Megabytes held while a set is read, then trained on.")
