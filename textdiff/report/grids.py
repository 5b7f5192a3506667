"""Tables about the rows of a grid themselves. In: a grid, and records. Out: `report.tables.Table`s."""

from __future__ import annotations

import pandas as pd

from textdiff.experiments.grids import Grid
from textdiff.report.tables import Table, differences, paired_differences, text_frame


def departures(grid: Grid) -> Table:
    """Where each row of a grid departs from the first, in the words of the configurations."""
    first, *others = grid.rows
    base, lines = grid.configs(first)[0].to_dict(), []
    for row in others:
        differing = {name: value for name, value in grid.configs(row)[0].to_dict().items() if value != base[name]}
        lines.append([row.label, ", ".join(f"{name}={value}" for name, value in differing.items())])
    return Table(text_frame(lines, ["Row", "sets"]), f"Where each row departs from “{first.label}”.")


def differences_by_labels(grid: Grid, records: pd.DataFrame, base: str) -> Table:
    """`report.tables.paired_differences` to the row `base` at every number of labelled cases, one model after the other."""
    table = paired_differences(grid, records, base, by="n_labels")
    frame = table.frame[table.frame["Model"] != base].sort_values("Model", kind="stable", ignore_index=True)
    return Table(frame, table.caption)


def gain(grid: Grid, records: pd.DataFrame, base: str, label: str = "TextDiff") -> float:
    """How many points of Dice the row `label` is above the row `base`, on the cases and draws that both have; nan without."""
    return 100 * float(differences(grid, records, base).loc[label, "difference"])


def hardware(runs: pd.DataFrame) -> str:
    """On what the runs of `report.rows.grid_records` were made."""
    where = runs.reindex(columns=["env/processor", "env/cores", "env/gpu"]).astype(object)
    rows = where.where(where.notna(), "none").drop_duplicates().to_numpy()
    machines = [f"{processor}, {cores} cores, GPU: {gpu}" for processor, cores, gpu in rows]
    return f"{len(runs)} records; {'; '.join(machines) or 'no machine yet'}"
