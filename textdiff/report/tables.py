"""What all tables share. In: the rows of a grid (`report.rows`). Out: a `Table`, text cells with the caption that explains them.

No number without a record or a source.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from textdiff.evaluation.metrics import bootstrap_interval
from textdiff.experiments.grids import Grid
from textdiff.report.missing import NOT_GIVEN, NOT_RUN, grid_caption
from textdiff.report.rows import RowRuns, by_row, case_table

# The score beside the Dice in tables of differences: column of the per-case tables, header, scale, and what it is.
SECOND = {
    "images": ("dice_native", "native Dice", 100, "Native Dice: the same at the images' own size."),
    "volumes": ("hd95_mm", "HD95 (mm)", 1, "HD95 in mm, below zero where the row is better."),
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


def points(one: Mapping[str, Any], scale: float = 100) -> str:
    """A row of `differences` with its sign, in points unless another scale is given, and its interval in brackets."""
    mean, low, high = (scale * one[name] for name in ("difference", "low", "high"))
    if pd.isna(mean):
        return NOT_GIVEN
    return f"{mean:+.2f}" + ("" if pd.isna(low) else f" ({low:+.2f} to {high:+.2f})")


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
    """The cells of a table of a grid with the caption `text` and what `report.missing.grid_caption` adds."""
    frame = text_frame(lines, columns)
    return Table(frame, grid_caption(text, rows, records, frame))


def results(rows: Sequence[RowRuns], scores: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """The rows of a grid with their test Dice, its interval, other `scores` ({header: (name, scale)}), parameters and seconds."""
    columns = ["Model", "n labelled", "draws", "test n", "Dice", "95 % interval", *scores]
    columns += ["trained parameters", "training seconds"]
    known = ["test/dice_ci_low", "test/dice_ci_high", "model/trained_parameters", "train/seconds"]
    lines = []
    for runs in rows:
        draws, cells = runs.draws, ["", NOT_RUN, *[""] * (3 + len(scores))]
        if len(draws):
            low, high, parameters, seconds = draws.reindex(columns=known).astype(float).mean()
            cells = ["/".join(str(int(n)) for n in sorted(draws["test/n"].dropna().unique())), score_of(draws, "dice")]
            cells += [NOT_GIVEN if pd.isna(low + high) else f"{100 * low:.2f} to {100 * high:.2f}"]
            cells += [score_of(draws, *one) for one in scores.values()]
            cells += [millions(parameters / 1e6), NOT_GIVEN if pd.isna(seconds) else f"{seconds:,.0f}"]
        lines.append([*runs.start, *cells])
    return text_frame(lines, columns)


def differences(grid: Grid, records: pd.DataFrame, base: str, score: str = "dice") -> pd.DataFrame:
    """How much each row of a grid is above the row labelled `base`, case by case.

    `score`: a column of the per-case tables. For each test case the row's score minus the base row's, in draws that both have;
    then the mean over draws, then over cases. Returns one row per row of the grid, in the score's unit: `difference`, `low` and
    `high` (95 % bootstrap over cases), `cases` (their number), `draws` (the mean difference of each draw). Rows that cannot be
    compared yet hold nan. Raises ValueError for a base that is not one row of the grid.
    """
    return _differences(by_row(grid, records), grid.name, base, score)


def _differences(rows: Sequence[RowRuns], name: str, base: str, score: str) -> pd.DataFrame:
    labels = [runs.row.label for runs in rows]
    if labels.count(base) != 1:
        raise ValueError(f"the grid {name} has not one row {base!r}; its rows are {', '.join(labels)}")
    scores = [by_case(runs.draws, score) for runs in rows]
    return pd.DataFrame([paired(one, scores[labels.index(base)]) for one in scores], index=labels)


def by_case(draws: pd.DataFrame, score: str) -> pd.DataFrame:
    """One score of every test case: one row per case, one column per seed. Draws that do not have the score are left out."""
    columns = {}
    for _, run in draws.iterrows():
        table = case_table(run)
        if score in table:
            columns[run["seed"]] = table.set_index("case")[score].astype(float)
    return pd.DataFrame(columns)


def paired(ours: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    """The difference of two tables of `by_case`, on the cases and draws that both have: one row of `differences`."""
    both = (ours - base)[[seed for seed in ours if seed in base]].dropna()
    if both.empty:
        return dict.fromkeys(("difference", "low", "high"), float("nan")) | {"cases": 0, "draws": ()}
    of_case, draws = both.mean(axis=1), tuple(both.mean())
    low, high = bootstrap_interval(of_case)
    return {"difference": of_case.mean(), "low": low, "high": high, "cases": len(both), "draws": draws}


def paired_differences(grid: Grid, records: pd.DataFrame, base: str) -> Table:
    """Each row of a grid minus the row labelled `base`, on the same test cases and draws.

    Made of `differences` (which says what is raised): points of Dice, draw by draw, and the score of `SECOND`. A row that cannot
    be compared yet says "not run yet".
    """
    rows = by_row(grid, records)
    kind = rows[0].configs[0].entry.kind
    score, header, scale, also = SECOND[kind]
    dice, second = (_differences(rows, grid.name, base, name) for name in ("dice", score))
    lines = []
    for (label, one), (_, other) in zip(dice.iterrows(), second.iterrows(), strict=True):
        draws = ", ".join(f"{100 * value:+.2f}" for value in one["draws"])
        cells = [one["cases"], points(one), draws, points(other, scale)]
        if one["cases"] == 0:
            cells = ["", NOT_RUN, "", ""]
        elif label == base:
            cells = [one["cases"], "the base", "", ""]
        lines.append([label, *cells])
    text = [
        f"Difference to “{base}” in points of Dice (percent), above zero where the row is better: for each test case in each "
        f"draw of the labelled {kind}, then the mean over draws, then over cases. {also}",
        f"In brackets: 95 % bootstrap over the test {kind}; it does not hold the spread between draws, which stands draw by "
        "draw beside the Dice.",
    ]
    return grid_table_of(rows, records, lines, ["Model", "test n", "Dice", "draw by draw", header], text)


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
