"""Linear probes out of their records (notebook 17). In: a configuration and records. Out: figures and tables, or what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from textdiff.evaluation.probe import by_block_and_step
from textdiff.experiments.pages import BlocksConfig
from textdiff.figures.curves import dice_heatmap, pretraining_curve
from textdiff.report.rows import case_table, record_of


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


def said_of_probe(table: pd.DataFrame, own: str, controls: Sequence[str]) -> str:
    """What the single blocks and steps of a probe's table say of the network `own`, in words: noise, depth, and each of `controls`."""
    means = by_block_and_step(table[table["backbone"] == own])
    block, step = means.stack().idxmax()
    by_block, (least, most) = means.max(axis=1), (means.columns[0], means.columns[-1])
    lower = int((means[most] < means[least]).sum())
    lines = [
        f"Best single one: block {block} at step {step}, {by_block.max():.1%}. The deepest block reaches {by_block.iloc[0]:.1%}, "
        f"the last {by_block.iloc[-1]:.1%}.",
        f"Noise: at step {most} the Dice is lower than at step {least} in {lower} of {len(means)} blocks.",
    ]
    for name in controls:
        gap = (means - by_block_and_step(table[table["backbone"] == name])).stack()
        lines.append(
            f"Above {name} in {(gap > 0).sum()} of {gap.size} cells, by {100 * gap.mean():+.1f} points on average."
        )
    return "\n".join(lines)


def pretraining_figure(configs: Mapping[int, BlocksConfig], records: pd.DataFrame, blocks: str) -> Figure:
    """Dice of one set of blocks against the iterations of pre-training, with the untrained networks as level lines.

    configs: iterations -> the probe of the backbone after so many. Those without a record are left out.
    """
    parts = [probe_of(one, records).assign(iterations=n, own=one.backbone) for n, one in configs.items()]
    table = pd.concat(parts).query("blocks == @blocks").astype({"dice": float})
    controls: dict[str, float] = {}
    for kind in ("redrawn", "random"):
        dice = table.loc[table["backbone"].str.startswith(kind), "dice"]
        controls |= {f"{kind} weights": dice.mean()} if len(dice) else {}
    return pretraining_curve(table.loc[table["backbone"] == table["own"], ["iterations", "dice"]], controls)
