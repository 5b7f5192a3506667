"""What the records say, in a sentence. In: the rows of a grid, and records. Out: a `Verdict`, losses first, and the plot and small table under it.

A sentence is made of the records when a page is built, so that it cannot outlive them. Two rows are told apart where the 95 % interval of
their difference for other draws and other cases stays clear of zero; one draw alone says so, and is never called a verdict on methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from textdiff.experiments.grids import Grid, Row
from textdiff.figures.curves import comparison_dots
from textdiff.report.images import READINGS, reading_losses
from textdiff.report.missing import NOT_RUN
from textdiff.report.rows import by_row
from textdiff.report.tables import Table, differences_of, grid_table_of, points, score_of

ONE_DRAW = "one draw"
# How a row of a table of differences stands to the base, worst for the base first
PLACES = {
    "above": "**Behind**",
    "level": "**Not told apart from**",
    "below": "**Ahead of**",
    "open": "**No interval on one test case:**",
}
# What a row reads: is the loss with another image's sentence clear of zero, and that with another's of the same kind?
READERS = {
    (False, False): "No sign of reading",
    (False, True): "Reading by the second alone",
    (True, False): "Reading, but no sign of *what* a sentence of its kind says",
    (True, True): "Reading, also *what* a sentence of its kind says",
}


@dataclass(frozen=True)
class Verdict:
    """A sentence, and its parts in a list where it has several; Markdown."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text


def standing(one: pd.Series) -> str:
    """A key of `PLACES` for a row of `report.tables.differences`: "open" where it has no interval."""
    if pd.isna(one["low"]):
        return "open"
    return "above" if one["low"] > 0 else "below" if one["high"] < 0 else "level"


def comparison_verdict(grid: Grid, records: pd.DataFrame, base: str, than: Sequence[str] = ()) -> Verdict:
    """How the row `base` stands to the other rows that have records (or those of `than`): behind, not told apart, ahead.

    Rows that only one draw shares with it are marked. Says so where there is nothing to compare.
    """
    made = by_row(grid, records)
    table = differences_of(made, grid.name, base)
    rows = table[(table["cases"] > 0) & (table.index != base)]
    rows = rows[rows.index.isin(than)] if than else rows
    own = next(runs for runs in made if runs.row.label == base)
    if rows.empty or own.draws.empty:
        return Verdict(f"No record tells yet how “{base}” stands to the others.")
    parts = [
        f"- {words} {_listed(some)}."
        for place, words in PLACES.items()
        if len(some := rows[[standing(one) == place for _, one in rows.iterrows()]])
    ]
    draws = len(own.draws)
    cases, patients = rows["cases"].max(), rows["subjects"].max()
    tested = f"{cases:,} test case{'s' if cases > 1 else ''}{f' of {patients:,} patients' if patients < cases else ''}"
    opening = f"On {tested} “{base}” reaches a Dice of {score_of(own.draws, 'dice')}"
    opening += f" ({draws} draws)." if draws > 1 else f" ({ONE_DRAW})."
    opening += f" Each comparison by itself{', with its 95 % interval' if cases > 1 else ''}:"
    return Verdict("\n".join([opening, "", *parts]))


def _listed(rows: pd.DataFrame) -> str:
    """Rows by name, how far *the base* is above each, and which of them rest on one draw."""
    return "; ".join(f"{label}, {_gap(one, -1)}" for label, one in rows.iterrows())


def _gap(one: pd.Series, sign: int = 1) -> str:
    """Points of a row of differences, their interval, and whether one draw is all; `sign` -1: how far *the base* is above."""
    low, high = sorted((sign * one["low"], sign * one["high"]))
    text = points(sign * one["difference"], low, high)
    if len(one["draws"]) != 1:
        return text
    return f"{text} ({ONE_DRAW})" if pd.isna(low) else f"{text.removesuffix(')')}; {ONE_DRAW})"


def reading_verdict(grid: Grid, records: pd.DataFrame, label: str) -> Verdict:
    """What the row `label` loses with another sentence than the image's own, and whether it reads."""
    losses = reading_losses(grid, records).query("row == @label and cases > 0").set_index("reading")
    if losses.empty:
        return Verdict(f"No record tells yet whether “{label}” reads.")
    said = [f"- {name}: {points(one['difference'], one['low'], one['high'])}" for name, one in losses.iterrows()]
    other = losses.iloc[0]
    reads = "It **reads**" if other["low"] > 0 else "No sign that it **reads**"
    draws = len(other["draws"])
    opening = (
        f"{reads}: “{label}” loses these points of Dice with another sentence than the image's own "
        f"({f'{draws} draws' if draws > 1 else ONE_DRAW}):"
    )
    return Verdict("\n".join([opening, "", *said]))


def verdict_by_labels(grid: Grid, records: pd.DataFrame, base: str) -> Verdict:
    """`comparison_verdict` among the rows of each number of labelled cases that has the row `base`, in the grid's order; rows may share their labels."""
    rows: dict[str, list[Row]] = {}
    for row in grid.rows:
        config: Any = grid.configs(row)[0]
        rows.setdefault(str(config.n_labels), []).append(row)
    said = {
        number: comparison_verdict(replace(grid, rows=tuple(same)), records, base).text
        for number, same in rows.items()
        if base in {row.label for row in same}
    }
    return Verdict("\n\n".join(f"**{number} labelled.** {text}" for number, text in said.items()))


def readers_verdict(grid: Grid, records: pd.DataFrame) -> Verdict:
    """Which rows of a grid read: those that lose clearly with another image's sentence, and with another's of the same kind.

    Two numbers a row, points of Dice lost. Says so where no row has a record of its readings.
    """
    first, second = list(READINGS)[:2]
    losses = reading_losses(grid, records).query("cases > 0")
    said: dict[tuple[bool, bool], list[str]] = {kind: [] for kind in READERS}
    for label, own in losses[losses["reading"].isin([first, second])].groupby("row", sort=False):
        low = dict(zip(own["reading"], own["low"], strict=True))
        alone = f"; {ONE_DRAW}" if len(own["draws"].iloc[0]) == 1 else ""
        lost = " and ".join(f"{100 * one:+.1f}" for one in own["difference"])
        said[low.get(first, 0) > 0, low.get(second, 0) > 0].append(f"{label} ({lost}{alone})")
    parts = [f"- **{words}**: {', '.join(said[kind])}." for kind, words in READERS.items() if said[kind]]
    if not parts:
        return Verdict("No record tells yet which of the rows read.")
    opening = f"Points of Dice lost with {first} sentence, and with {second}:"
    return Verdict("\n".join([opening, "", *parts]))


def dots(grid: Grid, records: pd.DataFrame, base: str, paper: pd.DataFrame | None = None) -> Figure:
    """The plot of a comparison: every draw of every row, and its difference to the row `base`.

    `paper`: a selection of `report.images.paper_facts`; those of the grid's data set with a known Dice are drawn as lines.
    """
    rows = by_row(grid, records)
    dice = {runs.row.label: runs.draws.get("test/dice", pd.Series(dtype=float)).tolist() for runs in rows}
    facts = {}
    if paper is not None:
        own = paper[paper["dataset"] == rows[0].configs[0].dataset].dropna(subset=["dice"])
        facts = {f"{fact['method']} (published)": float(fact["dice"]) for _, fact in own.iterrows()}
    return comparison_dots(dice, differences_of(rows, grid.name, base), base, facts)


def small_table(grid: Grid, records: pd.DataFrame, base: str) -> Table:
    """The few numbers under a plot: draws, Dice, and points above the row `base` with their interval."""
    rows, lines = by_row(grid, records), []
    table = differences_of(rows, grid.name, base)
    for runs, (_, one) in zip(rows, table.iterrows(), strict=True):
        gap = "the base" if runs.row.label == base else _gap(one)
        lines.append([*runs.start, score_of(runs.draws, "dice") if len(runs.draws) else NOT_RUN, gap])
    columns = ["Model", "n labelled", "draws", "Dice", "above the base"]
    text = [
        f"Dice in percent, and points above “{base}” with the 95 % interval for other draws and other cases (where one draw is "
        "shared, for other cases alone)."
    ]
    return grid_table_of(rows, records, lines, columns, text)
