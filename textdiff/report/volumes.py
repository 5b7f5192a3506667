"""Tables of the runs on volumes. In: a grid and records, or what notebook 25 measured. Out: `report.tables.Table`s, distances in mm."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from textdiff.data.volumes.prompts import KINDS
from textdiff.evaluation.calibration import uncertainty_against_dice
from textdiff.evaluation.studies import SAMPLED, Way
from textdiff.evaluation.volumes import column
from textdiff.experiments.grids import Grid
from textdiff.report.missing import NOT_GIVEN, NOT_RUN, grid_caption, score_words
from textdiff.report.rows import RowRuns, best_label, by_row, grid_records
from textdiff.report.tables import Table, grid_table_of, results, score_of, text_frame

BESIDE = 4  # structures that have a column of their own beside the means; more have `structure_table` only
DISTANCES = {"HD95 (mm)": ("hd95_mm", 1), "ASSD (mm)": ("assd_mm", 1)}
BINS = ("low", "high", "n", "confidence", "accuracy")


def structures_of(draws: pd.DataFrame) -> list[str]:
    """The structures that records have scores of, in their order; blanks are written as blanks."""
    scored = [name for name in draws.columns if name.startswith("test/iou_") and draws[name].notna().any()]
    return [name.removeprefix("test/iou_").replace("_", " ") for name in scored if name != "test/iou_pooled"]


def _structures(rows: Sequence[RowRuns]) -> list[str]:
    return list(dict.fromkeys(name for runs in rows for name in structures_of(runs.draws)))


def grid_table_3d(grid: Grid, records: pd.DataFrame) -> Table:
    """A grid's results on the test volumes, its rows in order: Dice, distances of the surfaces, parameters and seconds.

    `records`: from `load_records`; which of them count says `report.rows.by_row`. Up to `BESIDE` structures have a column for
    their Dice. A row without a record is not shown.
    """
    rows = by_row(grid, records)
    names = _structures(rows)
    beside = {name: (f"dice_{column(name)}", 100) for name in names} if len(names) <= BESIDE else {}
    frame = results(rows, {**beside, **DISTANCES, "seconds per volume": ("seconds", 1)})
    text = [
        "Results on the test volumes. Draws: records found of those that the table asks for.",
        *score_words("volumes"),
        "HD95: 95th percentile of the distances between the surfaces; ASSD: their mean. A structure that is in the truth or in "
        "the prediction alone counts with the diagonal of the volume.",
        "Training seconds and seconds per volume: means, comparable on one machine only.",
    ]
    return Table(frame, grid_caption(text, rows, records))


def run_table(metrics: Mapping[str, float], class_names: Sequence[str]) -> Table:
    """The test scores of one run (`Run.metrics`), of every structure and of all together."""
    scores = {"Dice": ("dice", 100), **DISTANCES}
    lines = []
    for name in ("all", *class_names[1:]):
        end = "" if name == "all" else f"_{column(name)}"
        found = [(metrics.get(f"test/{score}{end}"), scale) for score, scale in scores.values()]
        lines.append([name, *(NOT_GIVEN if value is None else f"{scale * value:.2f}" for value, scale in found)])
    text = f"Test scores of the run: means over {metrics['test/n']} volumes, Dice in percent."
    low, high = metrics.get("test/dice_ci_low"), metrics.get("test/dice_ci_high")
    if low is not None and high is not None:
        text += f" 95 % interval of the mean Dice: {100 * low:.2f} to {100 * high:.2f} (bootstrap over volumes)."
    return Table(text_frame(lines, ["structure", *scores]), text)


def best_network(grid: Grid, records: pd.DataFrame) -> str:
    """Label of the network from scratch with the best Dice on validation volumes; before any was run, of the first one."""
    networks = {
        row.fields["model"]: row.label for row in grid.rows if getattr(grid.configs(row)[0], "from_scratch", False)
    }
    return best_label(grid_records(grid, records), list(networks)) or next(iter(networks.values()))


def structure_table(grid: Grid, records: pd.DataFrame) -> Table:
    """Dice and distances of every structure: one line per row of the grid that has a record, and structure."""
    rows, lines = by_row(grid, records), []
    for runs in rows:
        for name in structures_of(runs.draws):
            distances = [score_of(runs.draws, f"{one}_{column(name)}", scale) for one, scale in DISTANCES.values()]
            lines.append([runs.row.label, name, score_of(runs.draws, f"dice_{column(name)}"), *distances])
        if runs.draws.empty:
            lines.append([runs.row.label, "", NOT_RUN, "", ""])
    text = [
        "Every structure by itself on the test volumes: mean ± standard deviation over draws (no ±: one draw), Dice in percent.",
        "A structure that a volume lacks counts as 100 where none is marked, and has no distance then; where one is, or where one "
        "is missed, it counts as 0, and with the diagonal of the volume.",
    ]
    return grid_table_of(rows, records, lines, ["Model", "structure", "Dice", *DISTANCES], text)


def prompt_table(grid: Grid, records: pd.DataFrame) -> Table:
    """How the models of a grid follow their sentences: everything asked for at once, one structure at a time, and another.

    Rows that do not read are left out; columns for kinds of sentences are there for models that were trained on all of them.
    """
    scores = {"all at once": "dice", "one by one": "dice_one_by_one", "another asked for": "dice_swapped"}
    scores |= {f"{kind} prompts": f"dice_prompt_{kind}" for kind in KINDS}
    rows, lines = by_row(grid, records), []
    for runs in rows:
        if runs.configs[0].reads:
            made = [score_of(runs.draws, name) for name in scores.values()]
            cells = made if len(runs.draws) else [NOT_RUN, *[""] * (len(scores) - 1)]
            lines.append([runs.row.label, len(runs.draws), *cells])
    text = [
        "Test Dice in percent (mean ± standard deviation over draws) by what the sentence asks for.",
        "One by one: of each structure when it alone is named. Another asked for: what is still marked of a structure when "
        "another one is named; a model that reads has next to nothing there.",
        "Kinds of prompts: everything at once, asked in that kind, by a model that was trained on all three. Reports are made "
        "from the true label and leak it.",
    ]
    return grid_table_of(rows, records, lines, ["Model", "draws", *scores], text)


def prompt_matrix(draws: pd.DataFrame) -> pd.DataFrame:
    """Mean test Dice (0..1) of one row's draws, by the structure that was asked for (rows) and the one that is scored (columns).

    Empty where no reading test was made.
    """
    cells: dict[str, dict[str, float]] = {}
    for name in draws.columns:
        match = re.fullmatch(r"test/dice_(.+)_asked_for_(.+)", name)
        if match and draws[name].notna().any():
            found, asked = (part.replace("_", " ") for part in match.groups())
            cells.setdefault(found, {})[asked] = draws[name].astype(float).mean()
    return pd.DataFrame(cells).rename_axis(index="asked for", columns="structure")


def matrix_table(grid: Grid, records: pd.DataFrame) -> Table:
    """`prompt_matrix` of every row of a grid that reads, in percent: one line per row and structure asked for."""
    rows, lines = by_row(grid, records), []
    names = _structures(rows)
    for runs in rows:
        if not runs.configs[0].reads:
            continue
        matrix = prompt_matrix(runs.draws)
        if matrix.empty:
            lines.append([runs.row.label, NOT_RUN, *[""] * len(names)])
        for asked in matrix.index:
            cells = (matrix.loc[asked].get(name) for name in names)
            written = (NOT_GIVEN if cell is None else f"{100 * cell:.2f}" for cell in cells)
            lines.append([runs.row.label, asked, *written])
    text = [
        "Test Dice in percent of every structure, by the one structure that the sentence names; mean over volumes and draws.",
        "A model that reads is high where both are the same and near zero elsewhere: the mask moves with the words.",
    ]
    return grid_table_of(rows, records, lines, ["Model", "asked for", *names], text)


def sampling_table(per_case: pd.DataFrame) -> Table:
    """Dice and seconds by sampler and number of sampling steps. `per_case`: the table of `evaluation.studies.sampling_study`;
    rows of several samples are left to `uncertainty_table`.
    """
    ways = per_case[per_case["samples"] == 1].groupby(["sampler", "sampling_steps"], sort=False)
    shared = set.intersection(*(set(part["case"]) for _, part in ways)) if len(ways) else set()
    lines = []
    for way, part in ways:
        dice = (100 * part.loc[kept, "dice"].mean() for kept in (part["case"].notna(), part["case"].isin(shared)))
        cells = [*(f"{one:.2f}" for one in dice), f"{part['ece'].mean():.3f}", f"{part['seconds'].mean():.2f}"]
        lines.append([*way, part["case"].nunique(), *cells])
    same = f"Dice on the {len(shared)} that all have"
    columns = ["sampler", "steps", "test n", "Dice", same, "ECE", "seconds per volume"]
    text = [
        "One model, one sample: mean Dice in percent by sampler and number of sampling steps.",
        "Where the numbers of volumes differ, only the column of those that all have compares rows.",
        "ECE: expected calibration error of a volume's voxels near true or marked structures.",
    ]
    return Table(text_frame(lines, columns), " ".join(text))


def uncertainty_table(per_case: pd.DataFrame, sampler: str, sampling_steps: int) -> Table:
    """What several samples add to one: Dice, calibration, and how well the uncertainty points at errors, in a `per_case`
    table as for `sampling_table`.
    """
    part = per_case[(per_case["sampler"] == sampler) & (per_case["sampling_steps"] == sampling_steps)]
    lines = []
    for samples, rows in part.groupby("samples"):
        scores = rows[["ece", "error_auroc", "error_auprc", "error_share"]].astype(float).mean()
        ranks = uncertainty_against_dice(rows)
        cells = [*(f"{value:.3f}" for value in scores), NOT_GIVEN if pd.isna(ranks) else f"{ranks:+.2f}"]
        lines.append([samples, len(rows), f"{100 * rows['dice'].mean():.2f}", *cells, f"{rows['seconds'].mean():.2f}"])
    columns = ["samples", "test n", "Dice", "ECE", "AUROC", "AUPRC", "wrong voxels"]
    columns += ["uncertainty and Dice", "seconds per volume"]
    text = [
        f"One model, {sampling_steps} steps of {sampler}: means over test volumes, of voxels near true or marked structures.",
        "ECE: distance of confidence from accuracy. AUROC: chance that a wrong voxel is less sure than a right one (guessing: 0.5). "
        "AUPRC: average precision of the least sure voxels being wrong (guessing: the share of wrong voxels).",
        "Uncertainty and Dice: rank correlation over volumes, -1 where the less sure volumes are the worse ones throughout.",
    ]
    return Table(text_frame(lines, columns), " ".join(text))


def sampling_metrics(
    per_case: pd.DataFrame, reliability: Mapping[Way, pd.DataFrame], uncertainty_steps: int
) -> dict[str, float]:
    """The numbers of a record of notebook 25, from what `evaluation.studies.sampling_study` gives.

    "sampling/<score> <sampler> <steps> x<samples>" of every way, and "reliability/<samples>/..." of those with
    `uncertainty_steps` of ddim.
    """
    metrics: dict[str, float] = {"test/n": per_case["case"].nunique()}
    for (sampler, steps, samples), table in reliability.items():
        if (sampler, steps) == ("ddim", uncertainty_steps):
            metrics |= reliability_metrics(table, f"reliability/{samples}")
    for way, scores in per_case.groupby(["sampler", "sampling_steps", "samples"], sort=False):
        for name in SAMPLED[1:]:
            metrics["sampling/{} {} {} x{}".format(name, *way)] = float(scores[name].mean())
    return metrics


def reliability_tables(metrics: Mapping[str, float]) -> dict[str, pd.DataFrame]:
    """The reliability that `sampling_metrics` kept, by number of samples in words."""
    counts = sorted({int(name.split("/")[1]) for name in metrics if name.startswith("reliability/")})
    words = {count: "one sample" if count == 1 else f"{count} samples" for count in counts}
    return {words[count]: reliability_table(metrics, f"reliability/{count}") for count in counts}


def reliability_metrics(table: pd.DataFrame, prefix: str) -> dict[str, float]:
    """A table of `calibration.Reliability` as flat metrics of a record, "<prefix>/<bin>/<column>"; empty bins are left out."""
    known = table[table["n"] > 0]
    return {f"{prefix}/{place}/{name}": float(row[name]) for place, row in known.iterrows() for name in BINS}


def reliability_table(metrics: Mapping[str, float], prefix: str) -> pd.DataFrame:
    """The table that `reliability_metrics` wrote, without its empty bins."""
    kept = {name: value for name, value in metrics.items() if name.startswith(f"{prefix}/") and not pd.isna(value)}
    places = sorted({int(name.split("/")[-2]) for name in kept})
    rows = [{name: kept.get(f"{prefix}/{place}/{name}") for name in BINS} for place in places]
    return pd.DataFrame(rows, index=places, columns=list(BINS))
