"""Tables from run records. In: records (`runs.load_records`) and the papers' facts (`book/paper_tables.csv`).
Out: a `Table`, a DataFrame with its caption, shown as HTML in a notebook. No number without a record or a
source.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from textdiff.base import paths
from textdiff.evaluation.metrics import bootstrap_interval
from textdiff.experiments.config import PROTOCOLS, Config, TextDiffConfig
from textdiff.experiments.records import NOT_CONFIG, portable

if TYPE_CHECKING:
    from textdiff.experiments.grids import Grid, Row

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
GRID_COLUMNS = (*COLUMNS, "trained parameters", "seconds")
# Fields that may differ between the draws of one row without making them different experiments.
FREE_FIELDS = ("seed", "device")
# Fields in which the records of one run of a grid may differ: where it ran, and the search for a learning rate.
SEARCHED_FIELDS = ("device", "learning_rate")
# The columns that tell single records apart.
RUN_FIELDS = {
    "data set": "dataset",
    "model": "model",
    "backbone": "backbone",
    "labels": "n_labels",
    "draw": "seed",
    "protocol": "protocol",
}
# The sentences that a test image is read with besides its own, and the columns of their Dice.
READINGS = {
    "another image's": "dice_shuffled",
    "another's of the same kind": "dice_same_count",
    "none": "dice_empty",
    "left and right swapped": "dice_swapped",
}


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
    fresh = _fresh(records)
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


def _mean_sd(values: pd.Series, scale: float = 100) -> str:
    scaled = values.astype(float).dropna() * scale
    if scaled.empty:
        return NOT_GIVEN
    return f"{scaled.mean():.2f}" + (f" ± {scaled.std(ddof=1):.2f}" if len(scaled) > 1 else "")


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
    text = [f"Results on the {split} images ({common}), in percent.", *_score_words(split)]
    return " ".join([*text, *_footnotes(frame, with_paper, stale)])


def _score_words(split: str) -> list[str]:
    return [
        "Dice and IoU: means over images; where there are several draws of the labelled images, mean ± "
        "standard deviation over draws (no ±: one draw).",
        f"95 % interval: bootstrap over the {split} images of one draw, or the mean of the draws' bounds; it "
        "does not hold the spread between draws.",
        "Pooled Dice: all pixels of all images counted as one. Native Dice: mean over images at their own size.",
    ]


def _footnotes(frame: pd.DataFrame, with_paper: bool, stale: int) -> list[str]:
    text = []
    if (frame == NOT_RUN).any(axis=None):
        text.append(f'"{NOT_RUN}": there is no record of that run.')
    if with_paper:
        text.append(
            f"Rows with a source in brackets are others' numbers, not ours; {NOT_GIVEN} means not known, and "
            "a Dice whose scale is not stated stands under Dice. Source grades: A read in code, B read on a "
            "page, C taken from a third party's summary."
        )
    if stale:
        text.append(f"{stale} record(s) made with an older form of the configuration were left out.")
    return text


def _fresh(records: pd.DataFrame) -> pd.DataFrame:
    return records[~records["stale"].astype(bool)] if len(records) else records


def best_by_validation(records: pd.DataFrame) -> pd.DataFrame:
    """Of the records that differ in nothing but the learning rate (and the device), the one with the best
    validation Dice; the others' order stays. A record without `val/dice` comes last.
    """
    if len(records) == 0:
        return records
    config = [c for c in records.columns if "/" not in c and c not in (*NOT_CONFIG, *SEARCHED_FIELDS)]
    ranked = (
        records.reindex(columns=["val/dice"]).astype(float).sort_values("val/dice", na_position="first", kind="stable")
    )
    beaten = records.loc[ranked.index, config].astype(str).duplicated(keep="last")
    return records[~beaten.sort_index()]


def grid_records(grid: Grid, records: pd.DataFrame) -> pd.DataFrame:
    """The records that make a grid: one row a run that was made, in the grid's order.

    Columns are added: `row` and `place`, label and position of the grid's row (labels may repeat), and `searched`,
    whether a search for a learning rate stands behind the record. A run's record has all values of its configuration, the learning rate excepted: of
    several learning rates `best_by_validation` keeps one. Stale records do not count. No record: no rows.
    """
    fresh, found = _fresh(records), []
    for place, row in enumerate(grid.rows):
        for config in grid.configs(row):
            candidates = _candidates(fresh, config)
            searched = "learning_rate" in candidates and (candidates["learning_rate"] != config.learning_rate).any()
            found.append(best_by_validation(candidates).assign(row=row.label, place=place, searched=searched))
    return pd.concat([one for one in found if len(one)] or found[:1], ignore_index=True)


def _by_row(grid: Grid, records: pd.DataFrame) -> list[tuple[Row, pd.DataFrame]]:
    """The rows of a grid, each with the records of its draws."""
    runs = grid_records(grid, records)
    return [(row, runs[runs["place"] == place]) for place, row in enumerate(grid.rows)]


def _candidates(records: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The records of a configuration at any learning rate."""
    values = {k: v for k, v in portable(config.to_dict()).items() if k not in SEARCHED_FIELDS}
    if not set(values) <= set(records.columns):
        return records.iloc[:0]
    same = pd.Series(True, index=records.index)
    for name, value in values.items():
        same &= records[name] == value
    return records[same]


def missing_runs(grid: Grid, records: pd.DataFrame) -> str:
    """Which runs of a grid have no record, a line a row, and the command that makes them; or that none is missing."""
    fresh, lines, missing, first = _fresh(records), [], 0, grid.configs(grid.rows[0])[0]
    for row in grid.rows:
        configs = [config for config in grid.configs(row) if _candidates(fresh, config).empty]
        if configs:
            seeds = ", ".join(str(config.seed) for config in configs)
            lines.append(f"  {row.label}, {labelled(configs[0])} labelled: seed {seeds}")
            missing += len(configs)
    total = len(grid.rows) * len(grid.seeds)
    if not missing:
        return f"All {total} runs of the grid {grid.name} have a record."
    command = f"textdiff sweep {grid.name} -p dataset={first.dataset} --seeds {','.join(map(str, grid.seeds))}"
    command += " -p mode=demo" * (first.mode == "demo")
    head = f"{missing} of {total} runs of the grid {grid.name} have no record yet:"
    return "\n".join([head, *lines, "This makes them (and nothing twice):", f"  {command}"])


def labelled(config: Config) -> int | str:
    """How many labelled images or volumes a configuration trains on; 0 in a configuration means "all"."""
    return config.n_labels or "all"


def grid_table(grid: Grid, records: pd.DataFrame, paper: pd.DataFrame | None = None) -> Table:
    """A grid's results on the test images: its rows in order, with the paper's rows beneath.

    `records`: from `load_records`; which of them count says `grid_records`. `paper`: a selection of
    `paper_facts()`; its rows of the grid's data set are shown. Scores are in percent and as in `results_table`.
    A row without record says "not run yet"; the draws are those found of those that the grid asks for.
    """
    lines = []
    for row, draws in _by_row(grid, records):
        configs = grid.configs(row)
        cells = [*_cells(draws, "test"), *_cost(draws)] if len(draws) else ["", NOT_RUN, "", "", "", "", "", ""]
        lines.append([row.label, configs[0].n_labels, f"{len(draws)} of {len(configs)}", *cells])
    dataset = grid.configs(grid.rows[0])[0].dataset
    facts = paper[paper["dataset"] == dataset] if paper is not None else []
    if len(facts):
        lines += [[*_paper_line(fact), _millions(fact["params_m"]), ""] for _, fact in facts.iterrows()]
    frame = pd.DataFrame(lines, columns=list(GRID_COLUMNS), dtype=object)
    text = [
        f"Results on the test images ({dataset}), in percent. Draws: records found of those that the table asks for.",
        *_score_words("test"),
        "Trained parameters: those that learn from the labelled images (others' as their sources give them). "
        "Seconds: of training, mean over draws; comparable on one machine only.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame, with_paper=len(facts) > 0))


def _cost(draws: pd.DataFrame) -> list[str]:
    known = draws.reindex(columns=["model/trained_parameters", "train/seconds"]).astype(float).mean()
    parameters, seconds = known.iloc[0], known.iloc[1]
    return [_millions(parameters / 1e6), NOT_GIVEN if pd.isna(seconds) else f"{seconds:,.0f}"]


def _millions(count: float) -> str:
    return NOT_GIVEN if pd.isna(count) else f"{count:.2f} M"


def _grid_caption(
    text: Sequence[str], grid: Grid, records: pd.DataFrame, frame: pd.DataFrame, with_paper: bool = False
) -> str:
    """The caption of a table of a grid, with what must be said about the records that it could not, or did not, use."""
    dataset = grid.configs(grid.rows[0])[0].dataset
    stale = int((records["stale"].astype(bool) & (records["dataset"] == dataset)).sum()) if len(records) else 0
    text = [*text, *_footnotes(frame, with_paper, stale)]
    searched = int(grid_records(grid, records)["searched"].sum())
    if searched:
        text.append(
            f"For {searched} run(s) a learning rate was searched: the record with the best Dice on the validation images "
            "counts."
        )
    return " ".join(text)


def differences(grid: Grid, records: pd.DataFrame, base: str, score: str = "dice") -> pd.DataFrame:
    """How much each row of a grid is above the row labelled `base`, image by image.

    `score`: a column of the per-case tables ("dice", "dice_native"). For each test image the row's score minus
    the base row's, in draws that both have; then the mean over draws, then over images. Returns one row a row of
    the grid, all in 0..1: `difference`, `low` and `high` (95 % bootstrap over images), `images`, `draws` (the
    mean difference of each draw). Rows that cannot be compared yet hold nan. Raises ValueError for a base that
    is no row of the grid.
    """
    labels = [row.label for row in grid.rows]
    if labels.count(base) != 1:
        raise ValueError(f"the grid {grid.name} has not one row {base!r}; its rows are {', '.join(labels)}")
    scores = [_by_image(draws, score) for _, draws in _by_row(grid, records)]
    return pd.DataFrame([_paired(one, scores[labels.index(base)]) for one in scores], index=labels)


def _by_image(runs: pd.DataFrame, score: str) -> pd.DataFrame:
    """One score of every test image: a row an image, a column a seed. Draws that do not have the score are left out."""
    columns = {}
    for _, run in runs.iterrows():
        table = pd.read_csv(Path(run["folder"]) / "per_case.csv", dtype={"case": str}, keep_default_na=False)
        if score in table:
            # An empty cell is a score that is not defined: a distance to nothing
            columns[run["seed"]] = table.set_index("case")[score].replace("", "nan").astype(float)
    return pd.DataFrame(columns)


def _paired(ours: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any]:
    """The difference of two tables of `_by_image`, on the images and draws that both have."""
    both = (ours - base)[[seed for seed in ours if seed in base]].dropna()
    if both.empty:
        return {"difference": float("nan"), "low": float("nan"), "high": float("nan"), "images": 0, "draws": ()}
    of_image = both.mean(axis=1)
    low, high = bootstrap_interval(of_image)
    draws = tuple(both.mean())
    return {"difference": of_image.mean(), "low": low, "high": high, "images": len(both), "draws": draws}


def paired_differences(grid: Grid, records: pd.DataFrame, base: str) -> Table:
    """Each row of a grid minus the row labelled `base`, on the same test images and draws, in points of Dice.

    Made of `differences` (which says what is raised): at the scoring size, draw by draw, and at the images' own
    size. A row that cannot be compared yet says "not run yet".
    """
    small, native = (differences(grid, records, base, score) for score in ("dice", "dice_native"))
    lines = []
    for label, one in small.iterrows():
        draws = ", ".join(f"{100 * value:+.2f}" for value in one["draws"])
        if one["images"] == 0:
            cells = ["", NOT_RUN, "", ""]
        elif label == base:
            cells = [one["images"], "the base", "", ""]
        else:
            cells = [one["images"], _points(one), draws, _points(native.loc[label])]
        lines.append([label, *cells])
    frame = pd.DataFrame(lines, columns=["Model", "test n", "Dice", "draw by draw", "native Dice"], dtype=object)
    text = [
        f"Difference to “{base}” in points of Dice (percent), above zero where the row is better: of each test image "
        "in each draw of the labelled images, then the mean over draws, then over images.",
        "In brackets: 95 % bootstrap over the test images; it does not hold the spread between draws, which stands "
        "draw by draw beside it.",
        "Native Dice: the same at the images' own size.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


def reading_losses(grid: Grid, records: pd.DataFrame) -> pd.DataFrame:
    """What each model of a grid loses with another sentence than the image's own, image by image.

    One row a grid row and reading (`READINGS`): `row`, `reading`, and the columns of `differences`, where `difference`
    is the Dice with the own sentence minus that with the other. nan where the run is not made, or does not read.
    """
    return pd.DataFrame(
        [
            {"row": row.label, "reading": reading, **loss}
            for row, draws in _by_row(grid, records)
            for reading, loss in _losses(draws).items()
        ]
    )


def _losses(runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    own = _by_image(runs, "dice")
    return {reading: _paired(own, _by_image(runs, score)) for reading, score in READINGS.items()}


def reading_table(grid: Grid, records: pd.DataFrame) -> Table:
    """`reading_losses` in points of Dice, a row a model that reads, beside the Dice with the own sentence.

    A row without record says "not run yet".
    """
    lines = []
    for row, draws in _by_row(grid, records):
        if not grid.configs(row)[0].reads:
            continue
        cells = [NOT_RUN, *[""] * len(READINGS)]
        if len(draws):
            cells = [_mean_sd(draws["test/dice"]), *(_points(loss) for loss in _losses(draws).values())]
        lines.append([row.label, len(draws), *cells])
    frame = pd.DataFrame(lines, columns=["Model", "draws", "own sentence", *READINGS], dtype=object)
    text = [
        "Test Dice with each image's own sentence (percent; mean ± standard deviation over draws), and how many points "
        "are lost with another: of each image in each draw, then the mean over draws, then over images.",
        "In brackets: 95 % bootstrap over the test images. A loss whose interval holds zero is no sign of reading.",
        "Another's of the same kind: of a test image whose sentence names as many areas, so that only what it says of "
        "them differs. None: an empty sentence, never met in training. Models that do not read have no row.",
    ]
    return Table(frame, _grid_caption(text, grid, records, frame))


def readings_by_record(records: pd.DataFrame) -> Table:
    """The reading test of single records: own sentence, and the points lost with each of the others; one row a record.

    Records of models that do not read, and stale ones, are left out; "switches" are the fields in which a run departs from its
    protocol.
    """
    fresh = _fresh(records)
    read = fresh[fresh["test/dice_shuffled"].notna()] if "test/dice_shuffled" in fresh else fresh.iloc[:0]
    lines = []
    for _, run in read.iterrows():
        cells = [_points(loss) for loss in _losses(run.to_frame().T).values()]
        own = f"{100 * run['test/dice']:.2f}"
        lines.append([*(run[name] for name in RUN_FIELDS.values()), _switches(run), int(run["test/n"]), own, *cells])
    columns = [*RUN_FIELDS, "switches", "test n", "own sentence", *READINGS]
    text = [
        f"{len(lines)} records of models that read: test Dice in percent, and points lost with another sentence.",
        "In brackets: 95 % bootstrap over the test images. Switches: where the run departs from its protocol.",
    ]
    if len(records) > len(fresh):
        text.append(
            f"{len(records) - len(fresh)} record(s) made with an older form of the configuration were left out."
        )
    return Table(pd.DataFrame(lines, columns=columns, dtype=object), " ".join(text))


def _switches(run: pd.Series) -> str:
    asked = ("mode", "dataset", "model", "protocol", "backbone", "blocks")
    usual = TextDiffConfig.from_params(**{name: run[name] for name in asked if name in run}).to_dict()
    return ", ".join(f"{name} {run[name]}" for name in PROTOCOLS[run["protocol"]] if run.get(name) != usual[name])


def _points(one: Mapping[str, Any], scale: float = 100) -> str:
    """A difference (in points, unless another scale is given) with its sign, and its interval in brackets where there is one."""
    mean, low, high = (scale * one[name] for name in ("difference", "low", "high"))
    if pd.isna(mean):
        return NOT_GIVEN
    return f"{mean:+.2f}" + ("" if pd.isna(low) else f" ({low:+.2f} to {high:+.2f})")
