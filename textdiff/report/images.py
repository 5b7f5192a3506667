"""Tables of the runs on images. In: a grid and records, and the papers' facts (`book/paper_tables.csv`). Out: `report.tables.Table`s."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pandas as pd

from textdiff.base import paths
from textdiff.evaluation.comparing import Comparison, compare
from textdiff.evaluation.probe import by_block_and_step
from textdiff.experiments.grids import Grid
from textdiff.experiments.images import EVAL_SIZE
from textdiff.report.missing import NOT_GIVEN, NOT_RUN, grid_caption, score_words
from textdiff.report.rows import by_row
from textdiff.report.tables import (
    Table,
    by_case,
    grid_table_of,
    millions,
    points,
    results,
    score_of,
    text_frame,
)

SCORES = {"IoU": ("iou", 100), "pooled Dice": ("dice_pooled", 100), "native Dice": ("dice_native", 100)}
# The sentences that a test image is read with besides its own, and the columns of their Dice.
READINGS = {
    "another image's": "dice_shuffled",
    "another's of the same kind": "dice_same_count",
    "none": "dice_empty",
    "left and right swapped": "dice_swapped",
}

ENDS = {"ahead below": "low", "level at": "difference", "behind from": "high"}


def paper_facts(path: str | Path | None = None) -> pd.DataFrame:
    """The papers' numbers: one row per method and data set; unknown cells are missing values (Dice and IoU in percent).

    Default path: the shipped `paper_tables.csv`. Grades: A read in code or measured, B read on a page or README, C taken from a
    third party's summary. Raises FileNotFoundError when the file is not there.
    """
    file = Path(path) if path else paths.shipped("book") / "paper_tables.csv"
    if not file.is_file():
        raise FileNotFoundError(
            f"no table of paper facts at {file}: it is part of the repository (book/paper_tables.csv)"
        )
    return pd.read_csv(file)


def grid_table(grid: Grid, records: pd.DataFrame, paper: pd.DataFrame | None = None) -> Table:
    """A grid's results on the test images: its rows in order, with the paper's rows beneath.

    `records`: from `load_records`; which of them count says `report.rows.by_row`. `paper`: a selection of `paper_facts()`; its
    rows of the grid's data set are shown. Scores are in percent. A row without a record is not shown.
    """
    rows = by_row(grid, records)
    frame, dataset = results(rows, SCORES), rows[0].configs[0].dataset
    facts = [] if paper is None else [_paper_line(fact) for _, fact in paper[paper["dataset"] == dataset].iterrows()]
    for line in facts:
        frame.loc[len(frame)] = [line.get(name, "") for name in frame.columns]
    text = [
        "Results on the test images. Draws: records found of those that the table asks for.",
        *score_words("images"),
        "Pooled Dice: all pixels of all images counted as one. Native Dice: mean over images at their own size.",
        "Trained parameters: those that learn from the labelled images (others' as their sources give them). Training seconds: "
        "mean over draws; comparable on one machine only.",
    ]
    if any(runs.configs[0].unlabelled for runs in rows if len(runs.draws)):
        text.append(
            "Where images without masks are learned from, they are those of the last training: the teacher's, and what it took to "
            "mark the images, come on top."
        )
    return Table(frame, grid_caption(text, rows, records, with_paper=bool(facts)))


def _paper_line(fact: pd.Series) -> dict[str, str]:
    """A row of `paper_facts` as cells by column; the Dice stands under its own scale, the IoU beside a plain Dice only."""
    dice, iou = (NOT_GIVEN if pd.isna(fact[name]) else f"{fact[name]:.2f}" for name in ("dice", "iou"))
    grade = "" if pd.isna(fact["grade"]) else f", source grade {fact['grade']}"
    scale = str(fact["scale"])
    column = "pooled Dice" if scale.startswith("pooled") else "native Dice" if scale.endswith("native") else "Dice"
    scores = {**dict.fromkeys(("Dice", *SCORES), NOT_GIVEN), column: dice}
    if column == "Dice":
        scores["IoU"] = iou
    return scores | {
        "Model": f"{fact['method']} ({fact['origin']}: {fact['paper']}{grade})",
        "n labelled": NOT_GIVEN if pd.isna(fact["n_labels"]) else f"{fact['n_labels']:.0f}",
        "trained parameters": millions(fact["params_m"]),
    }


def reading_losses(grid: Grid, records: pd.DataFrame) -> pd.DataFrame:
    """What each model of a grid loses with another sentence than the image's own, image by image.

    One row per grid row and reading (`READINGS`): `row`, `reading`, and the columns of `report.tables.differences`, where
    `difference` is the Dice with the own sentence minus that with the other. nan where the run is not made, or does not read.
    """
    losses = [
        {"row": runs.row.label, "reading": reading, **asdict(loss)}
        for runs in by_row(grid, records)
        for reading, loss in _losses(runs.draws).items()
    ]
    return pd.DataFrame(losses)


def _losses(draws: pd.DataFrame) -> dict[str, Comparison]:
    own = by_case(draws, "dice")
    found = {reading: compare(own, by_case(draws, name)) for reading, name in READINGS.items()}
    all_there_is = own.mean().mean()  # nobody can lose more: few draws that differ much have wider intervals than that
    return {reading: replace(loss, high=min(loss.high, all_there_is)) for reading, loss in found.items()}


def reading_table(grid: Grid, records: pd.DataFrame) -> Table:
    """`reading_losses` in points of Dice, one row per model that reads, beside the Dice with the own sentence."""
    rows, lines = by_row(grid, records), []
    for runs in rows:
        if runs.configs[0].reads:
            cells = [NOT_RUN, *[""] * len(READINGS)]
            if len(runs.draws):
                losses = _losses(runs.draws).values()
                cells = [score_of(runs.draws, "dice"), *(points(one.difference, one.low, one.high) for one in losses)]
            lines.append([runs.row.label, len(runs.draws), *cells])
    text = [
        "Test Dice with each image's own sentence (percent; mean ± standard deviation over draws), and how many points are lost "
        "with another: for each image in each draw, then the mean over draws, then over images.",
        "In brackets: 95 % interval for other draws and other images (where there is one draw, for other images alone), those of one patient "
        "together, each loss by itself, ending where the whole Dice is lost. A loss whose interval holds zero is no sign of reading.",
        "Another's of the same kind: of a test image whose sentence names as many areas, so that only what it says of them "
        "differs. None: an empty sentence, never met in training. Models that do not read have no row.",
    ]
    return grid_table_of(rows, records, lines, ["Model", "draws", "own sentence", *READINGS], text)


def wrong_sentences_table(grid: Grid, records: pd.DataFrame, labels: Sequence[str], base: str) -> Table:
    """What share of wrong sentences takes the rows `labels` back to the row `base`, which does not read: per cent of all sentences, by kind of error.

    Where a share s of them is wrong, an image's expected Dice is (1 - s) of that with its own sentence and s of that with the other.
    Rows without a record, or without draws in common with `base`, are left out. Raises ValueError for an unknown label.
    """
    draws = {runs.row.label: runs.draws for runs in by_row(grid.only([*labels, base]), records)}
    plain, lines = by_case(draws[base], "dice"), []
    for label in labels:
        own = by_case(draws[label], "dice")
        if compare(own, plain).cases:
            for kind, name in READINGS.items():
                wrong = by_case(draws[label], name)
                lines.append([label, kind, *(_share_until(own, wrong, plain, bound) for bound in ENDS.values())])
    text = (
        f"How many of the sentences may be wrong, in per cent, until a row is as good as “{base}” on the mean: calculated from the "
        "Dice with the own sentence and with the other. Ahead, behind: the 95 % interval for other draws and other images lies above zero, or below."
    )
    return Table(
        text_frame(lines, ["Model", "the wrong sentence", *ENDS]),
        text if lines else "None of these rows has a record yet.",
    )


def _share_until(own: pd.DataFrame, wrong: pd.DataFrame, base: pd.DataFrame, bound: str) -> str:
    """The first whole per cent of wrong sentences at which a bound of the difference to `base` is not above zero."""
    shares = range(101)
    place = bisect_left(shares, True, key=lambda s: getattr(compare(own + (wrong - own) * (s / 100), base), bound) <= 0)
    return f"{place} %" if place in shares else "never"


def dice_by_size(grid: Grid, records: pd.DataFrame, labels: Sequence[str], shares: Sequence[float]) -> Table:
    """Mean Dice of the rows `labels`, by the share of the picture that a test image's truth covers: below `shares[0]`, up to `shares[1]` ..., more.

    Of real images, which are scored at one size. Means over images of the mean over draws; the last line is the share of all
    answers with a Dice below one half. Rows without a record are left out. Raises ValueError for an unknown label.
    """
    rows = {runs.row.label: runs.draws for runs in by_row(grid.only(labels), records) if len(runs.draws)}
    if not rows:
        return Table(text_frame([], ["Truth", "images"]), "None of these rows has a record yet.")
    dice = pd.DataFrame({label: by_case(draws, "dice").mean(axis=1) for label, draws in rows.items()})
    below = {label: (by_case(draws, "dice") < 0.5).mean().mean() for label, draws in rows.items()}
    size = by_case(next(iter(rows.values())), "actual").iloc[:, 0] / EVAL_SIZE**2
    edges = [0.0, *shares, math.inf]
    group = pd.cut(size, edges, right=False, labels=[_of_picture(*ends) for ends in pairwise(edges)])
    lines = [
        [name, f"{len(part):,}", *(f"{100 * one:.1f}" for one in part.mean())]
        for name, part in dice.groupby(group, observed=True)
    ]
    lines.append(["answers with a Dice below 50", f"{len(dice):,}", *(f"{100 * one:.1f} %" for one in below.values())])
    text = "Dice in percent by the share of the picture that the truth covers, and how many answers fail; means over draws."
    return Table(text_frame(lines, ["Truth", "images", *rows]), text)


def _of_picture(low: float, high: float) -> str:
    if high == math.inf:
        return f"{low:.0%} of the picture or more"
    return f"{low:.0%} to {high:.0%}" if low else f"less than {high:.0%}"


def probe_table(table: pd.DataFrame, caption: str) -> Table:
    """The sets of blocks and noise steps in a table of `evaluation.probe.probe`, one column per backbone.

    `table` has the column `backbone` too. One line per set that reads several maps, then the best single block and step.
    """
    table = table.astype({"blocks": str, "noise_steps": str})
    sets = table[(table["blocks"] + table["noise_steps"]).str.contains(",")]
    names = list(dict.fromkeys(table["backbone"]))
    lines = []
    for (blocks, steps), rows in sets.groupby(["blocks", "noise_steps"], sort=False):
        dice = rows.groupby("backbone")["dice"].agg(["mean", "std"]).mul(100).reindex(names)
        written = (f"{mean:.1f} ± {std:.1f}".removesuffix(" ± nan") for mean, std in dice.to_numpy())
        lines.append([blocks, steps, *written])
    best = ["best single", ""]
    for name in names:
        single = by_block_and_step(table[table["backbone"] == name]).stack()
        block, step = single.idxmax()
        best.append(f"{100 * single.max():.1f} (block {block}, step {step})")
    return Table(text_frame([*lines, best], ["blocks", "noise steps", *names]), caption)
