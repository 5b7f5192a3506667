"""Tables from run records. In: records (`runs.load_records`) and the papers' facts (`book/paper_tables.csv`).
Out: a `Table`, a DataFrame with its caption, shown as HTML in a notebook. No number without a record or a
source.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from textdiff import paths
from textdiff.runs import NOT_CONFIG

NOT_RUN = "not run yet"
NOT_GIVEN = "–"
COLUMNS = (
    "Model",
    "n labelled",
    "draws",
    "test n",
    "Dice",
    "95 % interval",
    "IoU",
    "pooled Dice",
    "native Dice",
)
# Fields that may differ between the draws of one row without making them different experiments.
FREE_FIELDS = ("seed", "device")


@dataclass(frozen=True)
class Table:
    """A table of text cells and the caption that says what they are."""

    frame: pd.DataFrame
    caption: str

    def to_html(self) -> str:
        """HTML with the caption on top; numbers are text, so nothing is rounded again."""
        body = self.frame.to_html(index=False, border=0, classes="table", justify="left")
        head, rest = body.split(">", 1)
        return f"{head}>\n  <caption>{html.escape(self.caption)}</caption>{rest}"

    def to_markdown(self) -> str:
        """A pipe table with the caption under it."""
        rows = [
            list(self.frame.columns),
            ["---"] * self.frame.shape[1],
            *self.frame.astype(str).to_numpy().tolist(),
        ]
        lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
        return "\n".join([*lines, "", self.caption, ""])

    def _repr_html_(self) -> str:
        return self.to_html()


def paper_facts(path: str | Path | None = None) -> pd.DataFrame:
    """The papers' numbers: one row a method and data set; unknown cells are missing values (Dice and IoU in
    percent).

    Default path: `book/paper_tables.csv` of the checkout. Grades: A read in code or measured, B read on a
    page or README, C taken from a third party's summary. Raises FileNotFoundError when the file is not there.
    """
    file = Path(path) if path is not None else paths.PACKAGE.parent / "book" / "paper_tables.csv"
    if not file.is_file():
        raise FileNotFoundError(
            f"no table of paper facts at {file}: it is part of the repository (book/paper_tables.csv), "
            "not of the installed package; work in a checkout or give its path"
        )
    return pd.read_csv(file)


def results_table(
    records: pd.DataFrame,
    rows: Sequence[str] | Mapping[str, Mapping[str, Any]],
    *,
    where: Mapping[str, Any],
    paper: pd.DataFrame | None = None,
    split: str = "test",
) -> Table:
    """Our results, one row a model and number of labelled images, with the paper's rows beneath.

    `records`: from `load_records`. `rows`: model names, or {label: {field: value}} for rows that differ in
    other config fields. `where`: fields common to all rows, at least `dataset`; usually also `protocol` and
    `mode`. `paper`: a selection of `paper_facts()`; its rows of the same data set are shown. `split`: prefix
    of the metrics ("test", "val").

    Dice is the mean over draws ± their sample standard deviation; the interval is the 95 % bootstrap over
    images (mean of the draws' bounds). All in percent. Stale records do not count. A row without record says
    "not run yet". Raises ValueError without `dataset` in `where`, for a field that no record has, and when
    the records of one row differ in anything but the seed: such a mean would mix experiments.
    """
    if "dataset" not in where:
        raise ValueError("where={...} must name the dataset: numbers of several data sets are never put in one table")
    filters = dict(rows) if isinstance(rows, Mapping) else {name: {"model": name} for name in rows}
    fresh = records[~records["stale"].astype(bool)] if len(records) else records
    lines = []
    for label, fields in filters.items():
        chosen = _select(fresh, {**where, **fields}, split)
        by_n = list(chosen.groupby("n_labels")) if len(chosen) else []
        if not by_n:
            n_labels = {**where, **fields}.get("n_labels", "")
            lines.append([label, n_labels, 0, "", NOT_RUN, "", "", "", ""])
        for n_labels, draws in by_n:
            _check_same_experiment(label, draws)
            lines.append([label, n_labels, len(draws), *_cells(draws, split)])
    facts = paper[paper["dataset"] == where["dataset"]] if paper is not None else []
    if len(facts):
        lines += [_paper_line(fact) for _, fact in facts.iterrows()]
    stale = len(records) - len(fresh)
    frame = pd.DataFrame(lines, columns=list(COLUMNS), dtype=object)
    return Table(frame, _caption(where, split, stale, frame, with_paper=len(facts) > 0))


def _select(records: pd.DataFrame, fields: Mapping[str, Any], split: str) -> pd.DataFrame:
    if len(records) == 0:
        return records
    unknown = [name for name in fields if name not in records.columns]
    if unknown:
        raise ValueError(f"no record has the config fields {unknown}: check their spelling")
    chosen = records
    for name, value in fields.items():
        chosen = chosen[chosen[name] == value]
    dice = f"{split}/dice"
    return chosen[chosen[dice].notna()] if dice in chosen.columns else chosen.iloc[:0]


def _check_same_experiment(label: str, draws: pd.DataFrame) -> None:
    config = [c for c in draws.columns if "/" not in c and c not in (*NOT_CONFIG, *FREE_FIELDS)]
    differing = [name for name in config if draws[name].astype(str).nunique(dropna=False) > 1]
    if differing:
        values = {name: sorted(draws[name].astype(str).unique()) for name in differing}
        raise ValueError(
            f"the records of row {label!r} are not draws of one experiment, they differ in {values}: "
            "fix these fields in `where`, or make them rows of their own"
        )


def _cells(draws: pd.DataFrame, split: str) -> list[str]:
    def percent(name: str) -> str:
        key = f"{split}/{name}"
        return _mean_sd(draws[key]) if key in draws.columns else NOT_GIVEN

    images = "/".join(str(int(n)) for n in sorted(draws[f"{split}/n"].dropna().unique()))
    bounds = draws.reindex(columns=[f"{split}/dice_ci_low", f"{split}/dice_ci_high"]).astype(float).mean() * 100
    interval = f"{bounds.iloc[0]:.2f} to {bounds.iloc[1]:.2f}" if bounds.notna().all() else NOT_GIVEN
    return [images, percent("dice"), interval, percent("iou"), percent("dice_pooled"), percent("dice_native")]


def _mean_sd(values: pd.Series) -> str:
    percent = values.astype(float).dropna() * 100
    if percent.empty:
        return NOT_GIVEN
    return f"{percent.mean():.2f}" + (f" ± {percent.std(ddof=1):.2f}" if len(percent) > 1 else "")


def _paper_line(fact: pd.Series) -> list[str]:
    def given(name: str, form: str) -> str:
        return NOT_GIVEN if pd.isna(fact[name]) else form.format(fact[name])

    grade = "" if pd.isna(fact["grade"]) else f", source grade {fact['grade']}"
    label = f"{fact['method']} ({fact['origin']}: {fact['paper']}{grade})"
    n_labels, dice, iou = given("n_labels", "{:.0f}"), given("dice", "{:.2f}"), given("iou", "{:.2f}")
    scale = "" if pd.isna(fact["scale"]) else str(fact["scale"])
    if scale.startswith("pooled"):
        scores = [NOT_GIVEN, "", NOT_GIVEN, dice, NOT_GIVEN]
    elif scale.endswith("native"):
        scores = [NOT_GIVEN, "", NOT_GIVEN, NOT_GIVEN, dice]
    else:
        scores = [dice, "", iou, NOT_GIVEN, NOT_GIVEN]
    return [label, n_labels, "", "", *scores]


def _caption(where: Mapping[str, Any], split: str, stale: int, frame: pd.DataFrame, with_paper: bool) -> str:
    common = ", ".join(f"{name} {value}" for name, value in where.items())
    text = [
        f"Results on the {split} images ({common}), in percent.",
        "Dice and IoU: means over images; where there are several draws of the labelled images, mean ± "
        "standard deviation over draws (no ±: one draw).",
        f"95 % interval: bootstrap over the {split} images of one draw, or the mean of the draws' bounds; it "
        "does not hold the spread between draws.",
        "Pooled Dice: all pixels of all images counted as one. Native Dice: mean over images at their own size.",
    ]
    if (frame["Dice"] == NOT_RUN).any():
        text.append(f'"{NOT_RUN}": there is no record of that run.')
    if with_paper:
        text.append(
            f"Rows with a source in brackets are others' numbers, not ours; {NOT_GIVEN} means not known, and "
            "a Dice whose scale is not stated stands under Dice. Source grades: A read in code, B read on a "
            "page, C taken from a third party's summary."
        )
    if stale:
        text.append(f"{stale} record(s) made with an older form of the configuration were left out.")
    return " ".join(text)
