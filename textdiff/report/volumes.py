"""Tables of the runs on volumes. In: a grid of 3D runs and records (`runs.load_records`). Out: `report.Table`s, distances in mm.

Rows, draws, and the words for what is missing are those of `report`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from textdiff.data.volumes.prompts import KINDS
from textdiff.evaluation.calibration import uncertainty_against_dice
from textdiff.report.images import (
    NOT_GIVEN,
    NOT_RUN,
    Table,
    _by_row,
    _cost,
    _grid_caption,
    _mean_sd,
    _points,
    differences,
    grid_records,
    labelled,
)

if TYPE_CHECKING:
    from textdiff.experiments.grids import Grid

BESIDE = 4  # structures that have a column of their own beside the means; more have `structure_table` only
DISTANCES = {"HD95 (mm)": "hd95_mm", "ASSD (mm)": "assd_mm"}
SCORE_WORDS = (
    "Dice in percent: mean over the structures of a volume, then over volumes; where there are several draws of the "
    "labelled volumes, mean ± standard deviation over draws (no ±: one draw).",
    "95 % interval: bootstrap over the test volumes of one draw, or the mean of the draws' bounds; it does not hold "
    "the spread between draws.",
)


def structures_of(runs: pd.DataFrame) -> list[str]:
    """The structures that records have scores of, in their order; blanks are written as blanks."""
    scored = [name for name in runs.columns if name.startswith("test/iou_") and runs[name].notna().any()]
    return [name.removeprefix("test/iou_").replace("_", " ") for name in scored if name != "test/iou_pooled"]


def best_row(runs: pd.DataFrame, models: Sequence[str]) -> str | None:
    """Label of the row with the best mean Dice on validation volumes among those of `models`; None where none has been run.

    `runs`: from `report.grid_records`.
    """
    candidates = runs[runs["model"].isin(models)] if len(runs) else runs
    return candidates.groupby("row")["val/dice"].mean().idxmax() if len(candidates) else None


def grid_table_3d(grid: Grid, records: pd.DataFrame) -> Table:
    """A grid's results on the test volumes, its rows in order: Dice, distances of the surfaces, parameters and seconds.

    `records`: from `load_records`; which of them count says `report.grid_records`. Up to `BESIDE` structures have a column
    for their Dice. A row without record says "not run yet".
    """
    names = structures_of(grid_records(grid, records))
    beside = names if len(names) <= BESIDE else []
    columns = ["Model", "n labelled", "draws", "test n", "Dice", "95 % interval", *beside, *DISTANCES]
    columns += ["trained parameters", "training seconds", "seconds a volume"]
    lines = []
    for row, draws in _by_row(grid, records):
        configs = grid.configs(row)
        first = [row.label, labelled(configs[0]), f"{len(draws)} of {len(configs)}"]
        cells = _cells(draws, beside) if len(draws) else ["", NOT_RUN, *[""] * (len(columns) - 5)]
        lines.append([*first, *cells])
    frame = pd.DataFrame(lines, columns=columns, dtype=object)
    dataset = grid.configs(grid.rows[0])[0].dataset
    text = [
        f"Results on the test volumes ({dataset}). Draws: records found of those that the table asks for.",
        *SCORE_WORDS,
        "HD95: 95th percentile of the distances between the surfaces; ASSD: their mean. A structure that is in the truth or in "
        "the prediction alone counts with the diagonal of the volume.",
        "Training seconds and seconds a volume: means, comparable on one machine only.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


def _cells(draws: pd.DataFrame, names: Sequence[str]) -> list[str]:
    volumes = "/".join(str(int(n)) for n in sorted(draws["test/n"].dropna().unique()))
    bounds = draws.reindex(columns=["test/dice_ci_low", "test/dice_ci_high"]).astype(float).mean() * 100
    interval = f"{bounds.iloc[0]:.2f} to {bounds.iloc[1]:.2f}" if bounds.notna().all() else NOT_GIVEN
    structures = [_score(draws, f"dice_{_slug(name)}") for name in names]
    distances = [_score(draws, score, 1) for score in DISTANCES.values()]
    return [
        volumes,
        _score(draws, "dice"),
        interval,
        *structures,
        *distances,
        *_cost(draws),
        _score(draws, "seconds", 1),
    ]


def _score(draws: pd.DataFrame, name: str, scale: float = 100) -> str:
    key = f"test/{name}"
    return _mean_sd(draws[key], scale) if key in draws.columns else NOT_GIVEN


def _slug(name: str) -> str:
    return name.replace(" ", "_")


def structure_table(grid: Grid, records: pd.DataFrame) -> Table:
    """Dice and distances of every structure: one line a row of the grid and structure. A row without record says so once."""
    lines = []
    for row, draws in _by_row(grid, records):
        for name in structures_of(draws):
            distances = [_score(draws, f"{score}_{_slug(name)}", 1) for score in DISTANCES.values()]
            lines.append([row.label, name, _score(draws, f"dice_{_slug(name)}"), *distances])
        if draws.empty:
            lines.append([row.label, "", NOT_RUN, "", ""])
    frame = pd.DataFrame(lines, columns=["Model", "structure", "Dice", *DISTANCES], dtype=object)
    text = [
        "Every structure by itself on the test volumes: mean ± standard deviation over draws (no ±: one draw), Dice in percent.",
        "A structure that a volume lacks counts as 100 where none is marked, and has no distance then; where one is, or where one "
        "is missed, it counts as 0, and with the diagonal of the volume.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


def paired_differences_3d(grid: Grid, records: pd.DataFrame, base: str) -> Table:
    """Each row of a grid minus the row labelled `base`, on the same test volumes and draws: points of Dice, and HD95 in mm.

    Made of `report.differences` (which says what is raised). A row that cannot be compared yet says "not run yet".
    """
    dice, distance = (differences(grid, records, base, score) for score in ("dice", "hd95_mm"))
    lines = []
    for (label, one), (_, far) in zip(dice.iterrows(), distance.iterrows(), strict=True):
        cells = [
            one["images"],
            _points(one),
            ", ".join(f"{100 * value:+.2f}" for value in one["draws"]),
            _points(far, 1),
        ]
        if one["images"] == 0:
            cells = ["", NOT_RUN, "", ""]
        elif label == base:
            cells = [one["images"], "the base", "", ""]
        lines.append([label, *cells])
    frame = pd.DataFrame(lines, columns=["Model", "test n", "Dice", "draw by draw", "HD95 (mm)"], dtype=object)
    text = [
        f"Difference to “{base}”: Dice in points (percent), above zero where the row is better; HD95 in mm, below zero where the "
        "row is better. Of each test volume in each draw of the labelled volumes, then the mean over draws, then over volumes.",
        "In brackets: 95 % bootstrap over the test volumes; it does not hold the spread between draws, which stands "
        "draw by draw beside the Dice.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


def prompt_table(grid: Grid, records: pd.DataFrame) -> Table:
    """How the models of a grid follow their sentences: everything asked for at once, one structure at a time, and another.

    Rows that do not read are left out; columns for kinds of sentences are there for models that were trained on all of them.
    """
    columns = [
        "Model",
        "draws",
        "all at once",
        "one by one",
        "another asked for",
        *(f"{kind} prompts" for kind in KINDS),
    ]
    scores = ["dice", "dice_one_by_one", "dice_swapped", *(f"dice_prompt_{kind}" for kind in KINDS)]
    lines = []
    for row, draws in _by_row(grid, records):
        if not grid.configs(row)[0].reads:
            continue
        cells = [_score(draws, score) for score in scores] if len(draws) else [NOT_RUN, *[""] * (len(scores) - 1)]
        lines.append([row.label, len(draws), *cells])
    frame = pd.DataFrame(lines, columns=columns, dtype=object)
    text = [
        "Test Dice in percent (mean ± standard deviation over draws) by what the sentence asks for.",
        "One by one: of each structure when it alone is named. Another asked for: what is still marked of a structure when "
        "another one is named; a model that reads has next to nothing there.",
        "Kinds of prompts: everything at once, asked in that kind, by a model that was trained on all three. "
        "Reports are made from the true label and leak it.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


def prompt_matrix(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean test Dice (0..1) of records, by the structure that was asked for (rows) and the one that is scored (columns).

    `runs`: rows of `load_records`, such as those of one row of a grid. Empty where no reading test was made.
    """
    cells = {}
    for name in runs.columns:
        match = re.fullmatch(r"test/dice_(.+)_asked_for_(.+)", name)
        if match and runs[name].notna().any():
            found, asked = (part.replace("_", " ") for part in match.groups())
            cells.setdefault(found, {})[asked] = runs[name].astype(float).mean()
    return pd.DataFrame(cells).rename_axis(index="asked for", columns="structure")


def matrix_table(grid: Grid, records: pd.DataFrame) -> Table:
    """`prompt_matrix` of every row of a grid that reads, in percent: a line a row and structure asked for."""
    lines, names = [], structures_of(grid_records(grid, records))
    for row, draws in _by_row(grid, records):
        if not grid.configs(row)[0].reads:
            continue
        matrix = prompt_matrix(draws)
        if matrix.empty:
            lines.append([row.label, NOT_RUN, *[""] * len(names)])
        for asked in matrix.index:
            cells = (matrix.loc[asked].get(name) for name in names)
            lines.append([row.label, asked, *(NOT_GIVEN if cell is None else f"{100 * cell:.2f}" for cell in cells)])
    frame = pd.DataFrame(lines, columns=["Model", "asked for", *names], dtype=object)
    text = [
        "Test Dice in percent of every structure, by the one structure that the sentence names; mean over volumes and draws.",
        "A model that reads is high where both are the same and near zero elsewhere: the mask moves with the words.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


# --- one model, many ways to draw (notebook 25) --------------------------------------------------------


def sampling_table(per_case: pd.DataFrame) -> Table:
    """Dice and seconds by sampler and number of denoising steps.

    `per_case`: one row a volume, sampler, number of steps and number of samples, as notebook 25 records it (`case`, `sampler`,
    `steps`, `samples`, `dice` and `ece` 0..1, `seconds`). Rows of several samples are left to `uncertainty_table`.
    """
    one = per_case[per_case["samples"] == 1]
    counts = one.groupby(["sampler", "steps"], sort=False)["case"].nunique()
    shared = (
        set.intersection(*(set(part["case"]) for _, part in one.groupby(["sampler", "steps"]))) if len(one) else set()
    )
    lines = []
    for (sampler, steps), n in counts.items():
        part = one[(one["sampler"] == sampler) & (one["steps"] == steps)]
        same = part[part["case"].isin(shared)]
        scores = (100 * part["dice"].mean(), 100 * same["dice"].mean(), part["ece"].mean(), part["seconds"].mean())
        lines.append(
            [sampler, steps, n, *(f"{value:.{digits}f}" for value, digits in zip(scores, (2, 2, 3, 2), strict=True))]
        )
    columns = [
        "sampler",
        "steps",
        "test n",
        "Dice",
        f"Dice on the {len(shared)} that all have",
        "ECE",
        "seconds a volume",
    ]
    text = [
        "One model, one sample: mean Dice in percent by sampler and number of denoising steps.",
        "Where the numbers of volumes differ, only the column of those that all have compares rows.",
        "ECE: expected calibration error of a volume's voxels near true or marked structures.",
    ]
    return Table(pd.DataFrame(lines, columns=columns, dtype=object), " ".join(text))


def uncertainty_table(per_case: pd.DataFrame, sampler: str, steps: int) -> Table:
    """What several samples add to one: Dice, calibration, and how well the uncertainty points at errors.

    `per_case` as for `sampling_table`, with `error_auroc`, `error_auprc`, `error_share` and `uncertainty` too.
    """
    part = per_case[(per_case["sampler"] == sampler) & (per_case["steps"] == steps)]
    lines = []
    for samples, rows in part.groupby("samples"):
        scores = rows[["ece", "error_auroc", "error_auprc", "error_share"]].astype(float).mean()
        ranks = uncertainty_against_dice(rows.astype({"uncertainty": float, "dice": float}))
        cells = [f"{value:.3f}" for value in scores]
        cells.append(NOT_GIVEN if pd.isna(ranks) else f"{ranks:+.2f}")
        lines.append([samples, len(rows), f"{100 * rows['dice'].mean():.2f}", *cells, f"{rows['seconds'].mean():.2f}"])
    columns = [
        "samples",
        "test n",
        "Dice",
        "ECE",
        "AUROC",
        "AUPRC",
        "wrong voxels",
        "uncertainty and Dice",
        "seconds a volume",
    ]
    text = [
        f"One model, {steps} steps of {sampler}: means over test volumes, of voxels near true or marked structures.",
        "ECE: distance of confidence from accuracy. AUROC: chance that a wrong voxel is less sure than a right one (guessing: 0.5). "
        "AUPRC: average precision of the least sure voxels being wrong (guessing: the share of wrong voxels).",
        "Uncertainty and Dice: rank correlation over volumes, -1 where the less sure volumes are the worse ones throughout.",
    ]
    return Table(pd.DataFrame(lines, columns=columns, dtype=object), " ".join(text))


def reliability_metrics(table: pd.DataFrame, prefix: str) -> dict[str, float]:
    """A table of `calibration.Reliability` as flat metrics of a record, "<prefix>/<bin>/<column>"; empty bins are left out."""
    known = table[table["n"] > 0]
    return {
        f"{prefix}/{place}/{name}": float(row[name])
        for place, row in known.iterrows()
        for name in ("low", "high", "n", "confidence", "accuracy")
    }


def reliability_table(metrics: Mapping[str, float], prefix: str) -> pd.DataFrame:
    """The table that `reliability_metrics` wrote, without its empty bins."""
    rows: dict[int, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith(f"{prefix}/") and not pd.isna(value):
            place, column = name.removeprefix(f"{prefix}/").split("/")
            rows.setdefault(int(place), {})[column] = value
    table = pd.DataFrame.from_dict(rows, orient="index").sort_index()
    return table.reindex(columns=["low", "high", "n", "confidence", "accuracy"])
