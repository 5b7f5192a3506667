"""What all tables share. In: the rows of a grid (`report.rows`). Out: a `Table`, text cells with the caption that explains them.

No number without a record or a source.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from textdiff.evaluation.comparing import Comparison, compare, holm
from textdiff.evaluation.metrics import interval_by_patient
from textdiff.experiments.grids import Grid
from textdiff.report.missing import NOT_GIVEN, NOT_RUN, grid_caption, recorded
from textdiff.report.rows import RowRuns, by_row, case_table

# The score beside the Dice in tables of differences: column of the per-case tables, header, scale, and what it is.
SECOND = {
    "images": ("dice_native", "native Dice", 100, "native Dice: the difference at the images' own size."),
    "volumes": ("hd95_mm", "HD95 (mm)", 1, "HD95: its difference, below zero where the row is better."),
}


@dataclass(frozen=True)
class Table:
    """A table of text cells and the caption that says what they are."""

    frame: pd.DataFrame
    caption: str

    def _repr_html_(self) -> str:
        """HTML with the caption on top; numbers are text, so nothing is rounded again."""
        body = self.frame.to_html(index=False, border=0, classes="table", justify="left")
        head, rest = body.split(">", 1)
        return f"{head}>\n  <caption>{html.escape(self.caption)}</caption>{rest}"


def mean_sd(values: pd.Series, scale: float = 100) -> str:
    """Mean ± sample standard deviation over draws; without ± for one draw."""
    scaled = values.astype(float).dropna() * scale
    if scaled.empty:
        return NOT_GIVEN
    return f"{scaled.mean():.2f}" + (f" ± {scaled.std(ddof=1):.2f}" if len(scaled) > 1 else "")


def score_of(draws: pd.DataFrame, name: str, scale: float = 100) -> str:
    """`mean_sd` of a test score; "–" where no record has it."""
    key = f"test/{name}"
    return mean_sd(draws[key], scale) if key in draws.columns else NOT_GIVEN


def points(difference: float, low: float, high: float, scale: float = 100) -> str:
    """A difference with its sign, in points unless another scale is given, and its interval in brackets."""
    if pd.isna(difference):
        return NOT_GIVEN
    interval = "" if pd.isna(low) else f" ({scale * low:+.2f} to {scale * high:+.2f})"
    return f"{scale * difference:+.2f}{interval}"


def p_text(p: float) -> str:
    """A p value with as many digits as are read: "<0.001", "0.004", "0.03"; "–" for nan."""
    if pd.isna(p):
        return NOT_GIVEN
    return "<0.001" if p < 0.001 else f"{p:.3f}" if round(p, 3) < 0.01 else f"{p:.2f}"


def millions(count: float) -> str:
    """A number of parameters, given in millions."""
    return NOT_GIVEN if pd.isna(count) else f"{count:.2f} M"


def text_frame(lines: Sequence[Sequence[Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Cells as they are written, one sequence per row."""
    return pd.DataFrame(lines, columns=list(columns), dtype=object)


def grid_table_of(
    rows: Sequence[RowRuns],
    records: pd.DataFrame,
    lines: Sequence[Sequence[Any]],
    columns: Sequence[str],
    text: Sequence[str],
) -> Table:
    """The lines of a table of a grid that have a record, with the caption `text` and what `report.missing.grid_caption` adds."""
    return Table(recorded(text_frame(lines, columns)), grid_caption(text, rows, records))


def results(rows: Sequence[RowRuns], scores: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """The rows of a grid with their test Dice, its interval, other `scores` ({header: (name, scale)}), parameters and seconds."""
    columns = ["Model", "n labelled", "draws", "test n", "Dice", "95 % interval", *scores]
    columns += ["trained parameters", "training seconds"]
    known = ["model/trained_parameters", "train/seconds"]
    lines = []
    for runs in rows:
        draws, cells = runs.draws, ["", NOT_RUN, *[""] * (3 + len(scores))]
        if len(draws):
            parameters, seconds = draws.reindex(columns=known).astype(float).mean()
            low, high = np.mean([interval_by_patient(case_table(run)) for _, run in draws.iterrows()], axis=0)
            cells = ["/".join(str(int(n)) for n in sorted(draws["test/n"].dropna().unique())), score_of(draws, "dice")]
            cells += [NOT_GIVEN if pd.isna(low + high) else f"{100 * low:.2f} to {100 * high:.2f}"]
            cells += [score_of(draws, *one) for one in scores.values()]
            cells += [millions(parameters / 1e6), NOT_GIVEN if pd.isna(seconds) else f"{seconds:,.0f}"]
        lines.append([*runs.start, *cells])
    return recorded(text_frame(lines, columns))


def differences(grid: Grid, records: pd.DataFrame, base: str, score: str = "dice") -> pd.DataFrame:
    """How much each row of a grid is above the row labelled `base`, case by case and draw by draw.

    `score`: a column of the per-case tables. Returns one row per row of the grid with the columns of
    `evaluation.comparing.Comparison`; rows that cannot be compared yet hold nan. Raises ValueError for a base that is not one row
    of the grid.
    """
    return differences_of(by_row(grid, records), grid.name, base, score)


def differences_of(rows: Sequence[RowRuns], name: str, base: str, score: str = "dice") -> pd.DataFrame:
    """`differences` of the rows of the grid called `name`."""
    compared = _compared(rows, _bases(rows, name, base), score)
    return pd.DataFrame([asdict(one) for one in compared], index=[runs.row.label for runs in rows])


def _bases(rows: Sequence[RowRuns], name: str, base: str, by: str = "") -> list[RowRuns]:
    """The row that each row is compared with: the one labelled `base`, with the same value of the field `by` where that is given."""
    found = []
    for runs in rows:
        same = [one for one in rows if not by or getattr(one.configs[0], by) == getattr(runs.configs[0], by)]
        fitting = [one for one in same if one.row.label == base]
        if len(fitting) != 1:
            labels = ", ".join(one.row.label for one in same)
            raise ValueError(f"the grid {name} has not one row {base!r}; its rows are {labels}")
        found += fitting
    return found


def _compared(rows: Sequence[RowRuns], bases: Sequence[RowRuns], score: str) -> list[Comparison]:
    scores = {id(runs): by_case(runs.draws, score) for runs in rows}
    return [compare(scores[id(runs)], scores[id(base)]) for runs, base in zip(rows, bases, strict=True)]


def by_case(draws: pd.DataFrame, score: str) -> pd.DataFrame:
    """One score of every test case: one row per case, one column per seed. Draws that do not have the score are left out."""
    columns = {}
    for _, run in draws.iterrows():
        table = case_table(run)
        if score in table:
            columns[run["seed"]] = table.set_index("case")[score].astype(float)
    return pd.DataFrame(columns)


def paired_differences(grid: Grid, records: pd.DataFrame, base: str, by: str = "") -> Table:
    """Each row of a grid minus the row labelled `base`, on the same test cases and draws (`evaluation.comparing`).

    `by`: a field of the configurations; then the base of a row is the one with the same value of it, which has a column. Points of Dice, what its
    p and size are, and the score of `SECOND`. A row that cannot be compared yet is not shown. Raises as `differences`.
    """
    rows = by_row(grid, records)
    kind = rows[0].configs[0].entry.kind
    score, header, scale, also = SECOND[kind]
    bases = _bases(rows, grid.name, base, by)
    dice, second = (_compared(rows, bases, name) for name in ("dice", score))
    adjusted = holm([float("nan") if runs is own else one.p for runs, own, one in zip(rows, bases, dice, strict=True)])
    lines = []
    for runs, own, one, other, p in zip(rows, bases, dice, second, adjusted, strict=True):
        cells = [*_cells(one, p), points(other.difference, other.low, other.high, scale)]
        if one.cases == 0:
            cells = ["", NOT_RUN, *[""] * 5]
        elif runs is own:
            cells = [one.cases, "the base", *[""] * 5]
        lines.append([runs.row.label, *([getattr(runs.configs[0], by)] if by else []), *cells])
    text = [
        f"Difference to “{base}” in points of Dice (percent), above zero where the row is better, on the same test {kind} and "
        f"draws of the labelled {kind}; in brackets its 95 % interval for other draws and other {kind} (where there is one "
        f"draw, for other {kind} alone); {kind} of one patient are taken together.",
        f"p: of the same t test, after Holm over the rows of this table; dz: the mean over {kind} divided by its standard "
        f"deviation between them; better: share of {kind} on which the row is; {also}",
    ]
    columns = ["Model", *([by.replace("n_labels", "n labelled")] if by else []), "test n", "Dice", "draw by draw"]
    columns += ["p (Holm)", "dz", "better", header]
    return grid_table_of(rows, records, lines, columns, text)


def _cells(one: Comparison, adjusted: float) -> list[Any]:
    draws = ", ".join(f"{100 * value:+.2f}" for value in one.draws) if len(one.draws) > 1 else "one draw"
    size = NOT_GIVEN if pd.isna(one.dz) else f"{one.dz:+.2f}"
    dice = points(one.difference, one.low, one.high)
    return [one.cases, dice, draws, p_text(adjusted), size, f"{100 * one.above:.0f} %"]


def questions_table(grid: Grid, records: pd.DataFrame, base: str, label: str) -> Table:
    """One difference under every question that can be asked of it: the Dice of the row `label` minus that of the row `base`.

    One line per draw alone, then for all draws as they are, then for all as a sample of others. Without a draw that both rows
    have, the table says "not run yet". Raises ValueError for a `base` or `label` that is not one row of the grid.
    """
    rows = by_row(grid, records)
    kind = rows[0].configs[0].entry.kind
    ours, theirs = (by_case(_bases(rows, grid.name, one)[0].draws, "dice") for one in (label, base))
    both, lines = compare(ours, theirs), []
    for seed in (seed for seed in ours if seed in theirs):
        one = compare(ours[[seed]], theirs)
        lines.append([f"draw {seed} alone", f"other {kind}", points(one.difference, one.low, one.high), p_text(one.p)])
    if len(both.draws) > 1:
        as_they_are = points(both.difference, both.cases_low, both.cases_high)
        sampled = points(both.difference, both.low, both.high)
        lines.append([f"these {len(both.draws)} draws", f"other {kind}", as_they_are, ""])
        lines.append(["draws as a sample", f"other {kind}, other draws", sampled, p_text(both.p)])
    caption = (
        f"“{label}” minus “{base}” on {both.cases} test {kind}: points of Dice with 95 % intervals (a bootstrap over {kind} for "
        f"these draws together, otherwise of a t test; {kind} of one patient are taken together) and the p of that test."
    )
    columns = ["taken", "what else might have been", "Dice", "p"]
    return Table(text_frame(lines or [["", "", NOT_RUN, ""]], columns), caption)


def row_mean(runs: pd.DataFrame, label: str, metric: str = "test/dice") -> float:
    """Mean of a metric over the draws of the row of `grid_records` called `label`; nan where none was run.

    Raises ValueError for a label that several rows of the grid have: their mean would mix experiments.
    """
    own = runs.reindex(columns=["row", "place", metric]).query("row == @label")
    if own["place"].nunique() > 1:
        raise ValueError(f"the grid has several rows {label!r}: take the mean of one of them")
    return float(own[metric].astype(float).mean())


def goals_table(goals: Sequence[tuple[str, float, float]], caption: str, at_most: Sequence[str] = ()) -> Table:
    """What was to be reached and how far it came: one (goal, wanted, reached) per line, reached nan where nothing was run.

    `at_most`: the goals whose number is to stay below what was wanted.
    """
    lines = []
    for goal, wanted, reached in goals:
        short = reached - wanted if goal in at_most else wanted - reached
        verdict = NOT_RUN if pd.isna(reached) else "yes" if short <= 0 else f"no, {short:.2f} short"
        lines.append([goal, f"{wanted:g}", "" if pd.isna(reached) else f"{reached:.2f}", verdict])
    return Table(text_frame(lines, ["goal", "wanted", "reached", "met"]), caption)
