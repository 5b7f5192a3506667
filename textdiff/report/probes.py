"""Linear probes out of their records (notebook 17). In: a configuration and records. Out: figures and tables, or what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from textdiff.evaluation.probe import by_block_and_step
from textdiff.figures.curves import dice_heatmap, pretraining_curve
from textdiff.report.rows import case_table, record_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from textdiff.experiments.pages import BlocksConfig


def probe_of(config: BlocksConfig, records: pd.DataFrame) -> pd.DataFrame:
    """The table of a recorded probe (`experiments.probes.probe_with_controls`); no rows where it is not run."""
    record = record_of(config, records)
    if record is None:
        return pd.DataFrame(columns=["blocks", "noise_steps", "draw", "dice", "backbone"])
    return case_table(record).astype({"blocks": str, "noise_steps": str})


def heatmap_of(table: pd.DataFrame, backbone: str, caption: str, limits: tuple[float, float] | None = None) -> Figure:
    """Dice of one network of a probe's table, by decoder block and noise step, with the deviation over draws.

    limits: ends of the colour scale (0..1), by default the network's own.
    """
    rows = table[table["backbone"] == backbone]
    return dice_heatmap(by_block_and_step(rows), caption, spread=by_block_and_step(rows, "std"), limits=limits)


def limits_of(table: pd.DataFrame) -> tuple[float, float]:
    """The lowest and the highest mean of a single block and step over all networks of a probe's table."""
    means = [by_block_and_step(rows).stack() for _, rows in table.groupby("backbone")]
    return min(one.min() for one in means), max(one.max() for one in means)


def pretraining_figure(configs: Mapping[int, BlocksConfig], records: pd.DataFrame, blocks: str) -> Figure:
    """Dice of one set of blocks against the iterations of pre-training, with the untrained networks as level lines.

    configs: iterations -> the probe of the backbone after so many. Those without a record are left out.
    """
    own: list[dict[str, float]] = []
    others: dict[str, list[float]] = {"redrawn weights": [], "random weights": []}
    for iterations, config in configs.items():
        table = probe_of(config, records)
        table = table[table["blocks"] == blocks]
        trained = table[table["backbone"] == config.backbone]
        own += [{"iterations": iterations, "dice": dice} for dice in trained["dice"]]
        for name, kept in others.items():
            kept += list(table.loc[table["backbone"].str.startswith(name.split()[0]), "dice"])
    controls = {name: sum(kept) / len(kept) for name, kept in others.items() if kept}
    return pretraining_curve(pd.DataFrame(own, columns=["iterations", "dice"]), controls)
