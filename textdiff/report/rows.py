"""From records to the rows of a grid. In: a grid, and records (`experiments.records.load_records`). Out: the records that count.

Tables and figures read the rows of a grid and nothing else: `by_row` and `grid_records` find the records whose configurations
the grid asks for, so that no mean mixes runs that merely share some fields. `record_of` finds the one record of a notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textdiff.experiments.config import AT_RUN_TIME, Config
from textdiff.experiments.grids import Grid, Row
from textdiff.experiments.records import read_table

# Fields in which a record of a grid's run may differ: where it ran, and the search for a learning rate.
FREE = (*AT_RUN_TIME, "learning_rate")


@dataclass(frozen=True)
class RowRuns:
    """One row of a grid: what it asks for, and the records that answer it, one per draw.

    `draws` has the columns of `load_records` and `searched`: whether the record is the best of several learning rates.
    `partial`: real data, tested on a part of the test cases only; then `draws` is empty whatever was run.
    """

    row: Row
    configs: Sequence[Any]  # TextDiffConfig or TextDiffSegConfig
    draws: pd.DataFrame
    partial: bool

    @property
    def missing(self) -> list[Any]:
        """The configurations without a record."""
        made = set(self.draws["seed"]) if len(self.draws) else set()
        return [config for config in self.configs if config.seed not in made]

    @property
    def start(self) -> list[Any]:
        """The cells that every table begins with: label, labelled cases, draws."""
        return [self.row.label, self.configs[0].n_labels, f"{len(self.draws)} of {len(self.configs)}"]


def by_row(grid: Grid, records: pd.DataFrame) -> list[RowRuns]:
    """The rows of a grid, each with the records of its draws.

    A fresh record counts where it has all values of the configuration, the learning rate excepted: of several, the one with the
    best validation Dice is taken.
    """
    found = []
    for row in grid.rows:
        configs = grid.configs(row)
        partial = not configs[0].entry.synthetic and getattr(configs[0], "max_test", "all") != "all"
        best = [_best(config, records, _same(config, records, FREE)) for config in configs if not partial]
        made = [one for one in best if one]
        draws = records.iloc[[place for place, _ in made]].assign(searched=np.array([one for _, one in made], bool))
        found.append(RowRuns(row, configs, draws, partial))
    return found


def with_records(grid: Grid, records: pd.DataFrame) -> Grid:
    """The grid without the rows of which nothing was run yet: a page shows those it can, and counts the others elsewhere."""
    return replace(grid, rows=tuple(runs.row for runs in by_row(grid, records) if len(runs.draws)))


def tried_rates(config: Any, records: pd.DataFrame) -> pd.DataFrame:
    """The records of a configuration at whatever learning rate, smallest first; `taken` tells the one that counts in a table."""
    same = _same(config, records, FREE)
    best = _best(config, records, same)
    rates = records.iloc[same].assign(taken=[best is not None and place == best[0] for place in same])
    return rates.sort_values("learning_rate", kind="stable") if len(same) else rates


def _same(config: Config, records: pd.DataFrame, free: Sequence[str]) -> np.ndarray:
    """Places of the records that are not stale and have all values of a configuration, those of `free` fields excepted."""
    values = {name: value for name, value in config.to_record().items() if name not in free}
    if records.empty or not set(values) <= set(records.columns):
        return np.array([], int)
    # Arrays: a page compares 40 columns with a thousand configurations, for which Series take a minute
    same = ~records["stale"].to_numpy(bool)
    for name, value in values.items():
        if same.any():
            same &= records[name].to_numpy(object) == value
    return np.flatnonzero(same)


def _best(config: Any, records: pd.DataFrame, same: np.ndarray) -> tuple[int, bool] | None:
    """Place of the one record of `same` that answers a configuration, and whether it is of several learning rates; None without one."""
    if len(same) == 0:
        return None
    rates = records["learning_rate"].to_numpy()[same]
    dice = records["val/dice"].to_numpy(float)[same] if "val/dice" in records else np.full(len(same), np.nan)
    best = np.argsort(np.nan_to_num(dice, nan=-np.inf), kind="stable")[-1]
    return int(same[best]), bool((rates != config.learning_rate).any())


def grid_records(grid: Grid, records: pd.DataFrame) -> pd.DataFrame:
    """The records that make a grid (see `by_row`): one row per run that was made, in the grid's order.

    Columns are added: `row` and `place`, label and position of the grid's row (labels may repeat), and `searched`.
    """
    found = [runs.draws.assign(row=runs.row.label, place=place) for place, runs in enumerate(by_row(grid, records))]
    return pd.concat([one for one in found if len(one)] or found[:1], ignore_index=True)


def record_of(config: Config, records: pd.DataFrame) -> pd.Series | None:
    """The fresh record of exactly this configuration (wherever it ran), such as that of a notebook; None where it is not run."""
    same = _same(config, records, AT_RUN_TIME)
    return records.iloc[same[0]] if len(same) else None


def case_table(record: pd.Series) -> pd.DataFrame:
    """The per-case table of a record."""
    file = Path(record["folder"]) / "per_case.csv"
    return _table(file, file.stat().st_mtime_ns).copy()


@lru_cache(maxsize=128)
def _table(file: Path, _changed: int) -> pd.DataFrame:
    """A page asks for the same tables again and again: each is read once, and anew when the file has changed."""
    return read_table(file)


def best_label(runs: pd.DataFrame, models: Sequence[str]) -> str | None:
    """Label of the row of `grid_records` with the best mean Dice on validation cases among those of `models`; None without one.

    Only rows with as many labelled cases and steps as the first with a record, and the draws that all these have, if there are any.
    """
    if runs.empty or runs.reindex(columns=["val/dice"]).isna().all(axis=None):
        return None
    first = runs.loc[runs["place"].idxmin()]
    alike = [name for name in ("n_labels", "iterations") if name in runs]
    candidates = runs[runs["model"].isin(models) & (runs[alike] == first[alike]).all(axis=1)].dropna(subset="val/dice")
    if candidates.empty:
        return None
    scores = candidates.pivot_table(values="val/dice", index="place", columns="seed")
    shared = scores.dropna(axis=1)
    best = (scores if shared.empty else shared).mean(axis=1).idxmax()
    return candidates.loc[candidates["place"] == best, "row"].iloc[0]
