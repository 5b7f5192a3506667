"""A model asked about other sources' pictures (notebook 31). In: the table of `experiments.transfer.measure_transfer`, or records.
Out: tables of how well its doubt tells its failures, and what they say in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from textdiff.data import registry
from textdiff.evaluation.doubt import FAILED, SHARES, SURE, by_coverage, told_by
from textdiff.evaluation.metrics import interval_by_patient
from textdiff.experiments.pages import OWN, TransferConfig
from textdiff.experiments.transfer import TOGETHER
from textdiff.figures.style import NOT_RUN
from textdiff.report.missing import NOT_GIVEN
from textdiff.report.rows import case_table, record_of
from textdiff.report.tables import Table, text_frame

NAMES = dict(zip(SURE, ("expected Dice", "agreement"), strict=True))
MEANT = dict(
    zip(
        SURE,
        (
            "expected Dice: what the model's own probabilities make of its mask",
            "agreement: Dice of its answers to a picture and to the mirror image, the sentence following",
        ),
        strict=True,
    )
)


def transfer_table(table: pd.DataFrame, sure: str = SURE[0]) -> Table:
    """One row per target, and one of all together: the Dice, what the column `sure` says of it, and how well it tells it."""
    return Table(text_frame(_lines(table, sure), _columns(sure)), _caption(sure))


def recorded_transfers(records: pd.DataFrame, sure: str = SURE[0]) -> Table:
    """`transfer_table` of all data sets of real images, out of the records of notebook 31 in full mode, of the models that ship."""
    lines: list[list[Any]] = []
    for name in registry.names("images"):
        entry = registry.dataset(name)
        if not (entry.synthetic or entry.sided):
            record = record_of(TransferConfig.resolved(mode="full", dataset=name), records)
            nothing = [["", NOT_RUN, *[""] * (len(_columns(sure)) - 2)]]
            lines += [[name, *line] for line in (nothing if record is None else _lines(case_table(record), sure))]
    return Table(text_frame(lines, ["Trained on", *_columns(sure)]), _caption(sure))


def coverage_table(table: pd.DataFrame, sure: str = SURE[0]) -> Table:
    """Mean Dice of the answers of least doubt, by the share of them that is kept: one row per target, and one of all together."""
    lines = []
    for name, rows in _targets(table):
        found = by_coverage(rows, sure, SHARES)
        found = found.assign(low=float("nan")) if name == TOGETHER else found
        cells = [_with_interval(one.dice, one.low, one.high) for one in found.itertuples()]
        lines.append([name, *(cells or [NOT_GIVEN] * len(SHARES))])
    text = (
        f"Dice in percent of the answers that the model is surest of by its {NAMES[sure]}, by the share of each row's answers that is "
        "kept; in brackets 95 % bootstrap over these (none of all together, where images come again). Where keeping fewer does not raise it, the doubt is worth nothing."
    )
    return Table(text_frame(lines, ["Pictures of", *(f"surest {share:.0%}" for share in SHARES)]), text)


def said_of_transfer(table: pd.DataFrame) -> str:
    """What the table says in words: the worst target, what the model said of it, and which doubt tells failures."""
    means = table.groupby("target", sort=False)[["dice", *SURE]].mean()
    worst = means["dice"].idxmin()
    own = f", against {means.loc[OWN, 'dice']:.1%} on its own pictures" if OWN in means.index else ""
    beliefs = " and ".join(f"{NAMES[sure]} {means.loc[worst, sure]:.1%}" for sure in SURE)
    failed = int((table["dice"] < FAILED).sum())
    lines = [
        f"Lowest mean Dice: {means.loc[worst, 'dice']:.1%} on {worst}{own}. The model itself says: {beliefs}.",
        *(_too_sure(means, sure) for sure in SURE),
        f"A Dice below {FAILED:g} have {failed} of {len(table)} answers.",
    ]
    if 0 < failed < len(table):
        found = ", ".join(f"{NAMES[sure]} {told_by(table, sure)['auroc']:.2f}" for sure in SURE)
        lines.append(f"Telling them from the others, all sources together (AUROC; 0.5 is guessing): {found}.")
    if "remarked" in table:
        noticed = [
            int(table.loc[where, "remarked"].sum()) for where in (table["dice"] < FAILED, table["dice"] >= FAILED)
        ]
        lines.append(
            f"Remarked on before the answer: {noticed[0]} of these, {noticed[1]} of the {len(table) - failed} others."
        )
    if "unread" in table:
        unread = table.groupby("target", sort=False)["unread"].mean()
        ends = " and ".join(f"{unread[name]:.1%} ({name})" for name in (unread.idxmin(), unread.idxmax()))
        lines.append(
            f"Masks with the sentence and without any have a Dice between {ends}; at 100% words change nothing."
        )
    return "\n".join(lines)


def _too_sure(means: pd.DataFrame, sure: str) -> str:
    gap = means[sure] - means["dice"]
    worst = gap.idxmax()
    return f"By {NAMES[sure]} it is farthest above the truth on {worst}: {means.loc[worst, sure]:.1%}, {100 * gap[worst]:+.1f} points."


def _targets(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield from ((str(name), rows) for name, rows in table.groupby("target", sort=False))
    if table["target"].nunique() > 1:
        yield TOGETHER, table


def _columns(sure: str) -> list[str]:
    return [
        "Pictures of",
        "n",
        "Dice (95 % interval)",
        NAMES[sure],
        "failed",
        "Spearman",
        "AUROC",
        "Dice of the surest half",
        "remarked",
    ]


def _lines(table: pd.DataFrame, sure: str) -> list[list[Any]]:
    lines = []
    for name, rows in _targets(table):
        told, half = told_by(rows, sure), by_coverage(rows, sure, [0.5])
        interval = (float("nan"),) * 2 if name == TOGETHER else interval_by_patient(rows)
        cells = [len(rows), _with_interval(rows["dice"].mean(), *interval), _number(100 * rows[sure].mean())]
        cells += [f"{told['failed_share']:.0%}", _number(told["spearman"], 2), _number(told["auroc"], 2)]
        cells += [_number(100 * one) for one in half["dice"]] or [NOT_GIVEN]
        lines.append([name, *cells, f"{rows['remarked'].mean():.0%}" if "remarked" in rows else NOT_GIVEN])
    return lines


def _caption(sure: str) -> str:
    return (
        f"Dice in percent, mean over images; interval: bootstrap over images, those of one patient together (none of all together, where images come again); "
        f"{MEANT[sure]}, in percent. Failed: share of the answers with a Dice below {FAILED:g}. Spearman: rank correlation of "
        f"{NAMES[sure]} and Dice; AUROC: the chance that a failure has the lower {NAMES[sure]} of two, 0.5 is guessing; "
        f"{NOT_GIVEN}: nothing to tell apart. Surest half: by {NAMES[sure]}. Remarked: share of the pictures that the model "
        "finds unlike those of its training before it answers."
    )


def _with_interval(mean: float, low: float, high: float) -> str:
    return _number(100 * mean) + ("" if pd.isna(low) else f" ({100 * low:.1f} to {100 * high:.1f})")


def _number(value: float, digits: int = 1) -> str:
    return NOT_GIVEN if pd.isna(value) else f"{value:.{digits}f}"
