"""What is not there. In: a grid and records. Out: the words for it, in captions and lists, and the command that makes the rest."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from textdiff.experiments.grids import Grid
from textdiff.figures.style import NOT_RUN
from textdiff.report.rows import RowRuns, by_row

NOT_GIVEN = "–"


def missing_runs(grid: Grid, records: pd.DataFrame) -> str:
    """Which runs of a grid have no record, one line per row, and the command that makes them; or that none is missing."""
    rows = by_row(grid, records)
    total, missing = _counts(rows)
    if not missing:
        return f"All {total} runs of the grid {grid.name} have a record."
    lines = [f"{missing} of {total} runs of the grid {grid.name} have no record yet:"]
    for one in filter(lambda one: one.missing, rows):
        seeds = ", ".join(str(config.seed) for config in one.missing)
        lines.append(f"  {one.row.label}, {one.configs[0].n_labels} labelled: seed {seeds}")
    make = (
        f"  textdiff sweep {grid.name} -p dataset={rows[0].configs[0].dataset} --seeds {','.join(map(str, grid.seeds))}"
    )
    return "\n".join([*lines, "This makes them (and nothing twice):", make, *_partial(rows)])


def counted_runs(grids: Sequence[Grid], records: pd.DataFrame) -> str:
    """How many runs of several grids have a record, a run that grids share counted once; and the rows that are whole."""
    rows = [one for grid in grids for one in by_row(grid, records)]
    asked = {config.run_id for one in rows for config in one.configs}
    lacking = {config.run_id for one in rows for config in one.missing}
    whole = sum(not one.missing for one in rows)
    return f"{len(asked) - len(lacking)} of {len(asked)} runs have a record; {whole} of {len(rows)} rows have all their draws."


def _counts(rows: Sequence[RowRuns]) -> tuple[int, int]:
    """Runs that are asked for, and how many of them have no record."""
    return sum(len(one.configs) for one in rows), sum(len(one.missing) for one in rows)


def _unseen(rows: Sequence[RowRuns]) -> str:
    without = sum(one.draws.empty for one in rows)
    return f", and rows that have none at all are not shown ({without} of {len(rows)})" if without else ""


def recorded(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table of a grid that have a record; where none has, one line that says so."""
    made = frame[~(frame == NOT_RUN).any(axis=1)].reset_index(drop=True)
    if made.empty and len(frame):
        made.loc[0] = [NOT_RUN, *[""] * (frame.shape[1] - 1)]
    return made


def _partial(rows: Sequence[RowRuns]) -> list[str]:
    parts = sum(one.partial for one in rows)
    text = f"{parts} row(s) ask for a part of the test set only (max_test): of real data such runs are never shown."
    return [text] if parts else []


def grid_caption(
    text: Sequence[str],
    rows: Sequence[RowRuns],
    records: pd.DataFrame,
    with_paper: bool = False,
) -> str:
    """The caption of a table of a grid: its data set, `text`, and which records are missing or not used."""
    config = rows[0].configs[0]
    text = [f"Data set: {config.dataset}.", *text]
    if with_paper:
        text.append(
            f"Rows with a source in brackets are others' numbers, not ours; {NOT_GIVEN} means not known, and a Dice whose scale "
            "is not stated stands under Dice. Source grades: A read in code, B read on a page, C taken from a third party's "
            "summary."
        )
    total, missing = _counts(rows)
    if missing:
        text.append(f"{missing} of {total} runs have no record yet{_unseen(rows)}.")
    text += _partial(rows)
    stale = (records["stale"].astype(bool) & (records["dataset"] == config.dataset)).sum() if len(records) else 0
    if stale:
        text.append(f"{stale} record(s) made with an older form of the configuration were left out.")
    searched = sum(int(one.draws["searched"].sum()) for one in rows)
    if searched:
        text.append(
            f"For {searched} run(s) a learning rate was searched: the record with the best Dice on the validation "
            f"{config.entry.kind} counts."
        )
    return " ".join(text)


def score_words(kind: str) -> list[str]:
    """What Dice and its interval are in tables of "images" or "volumes"."""
    mean = {
        "images": "Dice and IoU in percent: means over images",
        "volumes": "Dice in percent: mean over the structures of a volume, then over volumes",
    }
    return [
        f"{mean[kind]}; where there are several draws of the labelled {kind}, mean ± standard deviation over draws (no ±: one "
        "draw).",
        f"95 % interval: bootstrap over the test {kind} of one draw (those of one patient together), or the mean of the draws' bounds; it does not hold the "
        "spread between draws.",
    ]
