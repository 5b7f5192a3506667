"""Tables about the rows of a grid themselves. In: a grid, and records. Out: `report.tables.Table`s."""

from __future__ import annotations

import pandas as pd

from textdiff.experiments.grids import Grid
from textdiff.report.rows import tried_rates
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


def learning_rates(grid: Grid, records: pd.DataFrame) -> Table:
    """The search for learning rates: of every run that has records at several, all of them, and which one its table takes."""
    lines = []
    for row in grid.rows:
        for config in grid.configs(row):
            tried = tried_rates(config, records)
            if len(tried) < 2:
                continue
            for _, one in tried.iterrows():
                scores = [f"{100 * one[key]:.2f}" for key in ("val/dice", "test/dice")]
                taken = "taken" if one["taken"] else ""
                lines.append([row.label, config.seed, f"{one['learning_rate']:g}", *scores, taken])
    columns = ["Model", "draw", "learning rate", "Dice, validation", "Dice, test", ""]
    caption = f"Data set: {grid.configs(grid.rows[0])[0].dataset}. Learning rates, Dice in percent. The validation Dice of the best step decides; the test Dice stands beside it."
    return Table(text_frame(lines, columns), caption if lines else "No run has records at several learning rates yet.")


def gain(grid: Grid, records: pd.DataFrame, base: str, label: str = "TextDiff") -> float:
    """How many points of Dice the row `label` is above the row `base`, on the cases and draws that both have; nan without."""
    return 100 * float(differences(grid, records, base).loc[label, "difference"])


def hardware(runs: pd.DataFrame) -> str:
    """On what the runs of `report.rows.grid_records` were made."""
    where = runs.reindex(columns=["env/processor", "env/cores", "env/gpu"]).astype(object)
    rows = where.where(where.notna(), "none").drop_duplicates().to_numpy()
    machines = [f"{processor}, {cores} cores, GPU: {gpu}" for processor, cores, gpu in rows]
    return f"{len(runs)} records; {'; '.join(machines) or 'no machine yet'}"
