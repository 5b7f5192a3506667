"""What it costs. In: records of `make bench` and of the runs behind the book's tables. Out: tables, and what figures are drawn from.

A record of costs (experiment "cost") holds one number a row; `benchmarks/README.md` says what they are. Nothing is guessed: what no
record holds says so, and what is multiplied up from a part is called extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from textdiff.base.parsing import numbers
from textdiff.data import registry
from textdiff.evaluation.comparing import Comparison, compare, holm
from textdiff.experiments.cost import COLUMNS
from textdiff.experiments.grids import Grid, grid
from textdiff.experiments.images import TextDiffConfig
from textdiff.figures.style import NOT_RUN
from textdiff.models.store import REDRAWN, architecture_of, load_backbone
from textdiff.report.missing import NOT_GIVEN
from textdiff.report.rows import by_row, case_table, record_of
from textdiff.report.tables import Table, by_case, mean_sd, p_text, points, text_frame

NOT_HERE = "not measured here"
CEILING = "ceiling"
# What is drawn under the roof, and said where the time goes; the others vary one of these
PIECES = ("head forward", "head step", "inference", "training small", "backbones", "pretraining", "choices", "live")
# Tables of the book by the data set that they are of
TABLES = {
    "monuseg": ("comparison", "ablation", "label_efficiency", "audit", "reading", "encoders"),
    "qata": ("comparison", "ablation", "recipe", "label_efficiency", "audit", "reading", "encoders", "cost"),
    "hippocampus": ("comparison3d", "ablation3d", "label_efficiency3d", "prompts3d"),
    "chest_phantoms": ("comparison", "ablation", "label_efficiency", "audit", "reading"),
    "abdomen_phantoms": ("comparison3d", "ablation3d", "label_efficiency3d", "prompts3d"),
}
DRAWS = {"cost": (0, 1)}  # of tables that have fewer than three
IMAGES = 5  # of the training that `make bench` extrapolates to the authors' 50 epochs
CACHE_GB = 20.0  # what the feature cache holds at most
GB = 1e9


# --- one record a device ------------------------------------------------------------------------------------


def cost_records(records: pd.DataFrame, machine: str = "") -> list[pd.Series]:
    """The record of costs of each device, processor first: the whole one before the quick one, then the newest.

    `machine`: of this machine alone; "" for any. Demo runs and stale records do not count.
    """
    if records.empty or "cost" not in set(records["experiment"]):
        return []
    own = records[(records["experiment"] == "cost") & (records["mode"] == "full") & ~records["stale"].astype(bool)]
    own = own[own["machine"] == machine] if machine else own
    found = []
    for gpu in (False, True):
        fitting = own[own["env/gpu"].notna() == gpu]
        if len(fitting):
            found.append(fitting.sort_values(["extent", "env/date"]).iloc[-1])  # "whole" comes after "quick"
    return found


def cost_rows(found: Sequence[pd.Series]) -> pd.DataFrame:
    """The numbers of `cost_records`, with the columns of the record."""
    tables = [case_table(one) for one in found]
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
    return rows.astype({"value": float, "side": str})


def machines(found: Sequence[pd.Series]) -> str:
    """On what the records were made, and how much of it was measured."""
    said = [
        f"{one['env/gpu'] if pd.notna(one['env/gpu']) else one['env/processor']}, {one['threads']:.0f} threads, {one['extent']}, {one['env/date']}: {one['run_id']}"
        for one in found
    ]
    missing = [] if any(pd.notna(one["env/gpu"]) for one in found) else [f"graphics card: {NOT_HERE}"]
    return "\n".join([*(said or [f"processor: {NOT_HERE} yet (make bench)"]), *missing])


def value_of(rows: pd.DataFrame, work: str, side: str, quantity: str, device: str = "cpu") -> float:
    """One number of `cost_rows`; nan where it was not measured."""
    same = (rows["work"] == work) & (rows["side"] == side) & (rows["quantity"] == quantity) & (rows["device"] == device)
    return float(rows.loc[same, "value"].iloc[0]) if same.any() else float("nan")


# --- goals -----------------------------------------------------------------------------------------------------


def goals_of(found: Sequence[pd.Series]) -> pd.DataFrame:
    """The goals, one a row: `goal`, `value` (nan: no record holds it), `wanted`, `met` (1, 0, nan) and `more`: whether more is better."""
    rows: dict[str, dict[str, Any]] = {}
    for record in found:
        for key in (key for key in record.index if key.startswith("goal/") and key.endswith("/goal")):
            name = key.split("/")[1]
            value, wanted, met = (pd.to_numeric(record[f"goal/{name}/{part}"]) for part in ("value", "goal", "met"))
            if not pd.isna(wanted) and (name not in rows or not pd.isna(value)):
                rows[name] = {"goal": name, "value": value, "wanted": wanted, "met": met}
    table = pd.DataFrame(list(rows.values()), columns=["goal", "value", "wanted", "met"])
    table = table.astype(dict.fromkeys(("value", "wanted", "met"), float))
    return table.assign(more=(table["value"] >= table["wanted"]) == (table["met"] == 1))


def goals_met_table(goals: pd.DataFrame) -> Table:
    """Each goal of `goals_of`: wanted, measured, and met or by how much it is missed."""
    lines = []
    for one in goals.itertuples():
        if pd.isna(one.value):
            lines.append([one.goal, f"{one.wanted:g}", "", NOT_HERE])
            continue
        sign, short = "≥" if one.more else "≤", abs(one.value - one.wanted) / one.wanted
        verdict = "yes" if one.met else f"no, by {short:.0%}"
        lines.append([one.goal, f"{sign} {one.wanted:g}", f"{one.value:.3g}", verdict])
    caption = (
        "The goals, as a record of `make bench` judged them. Ratios are of both sides in one run; seconds, memory and slopes are "
        "held against the number itself."
    )
    return Table(text_frame(lines, ["goal", "wanted", "measured", "met"]), caption)


# --- where the time goes -----------------------------------------------------------------------------------------


def precision_of(work: str, side: str) -> str:
    """In which precision a side of a piece of work multiplies; "live" and other choices are bfloat16 unless they say otherwise."""
    lighter = work.startswith(("choices", "live", "size")) or work == "backbones"
    return "bfloat16" if "bfloat16" in side or (lighter and "float32" not in side) else "float32"


def pieces_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Pieces of work with known operations on each device: `work`, `side`, `device`, `seconds`, `gflop`, `peak` (MB of the device's memory), `rate`
    (GFLOP/s), `intensity` (GFLOP a GB moved) and `share` (of the ceiling of its precision, measured in the same run)."""
    quantities = {"seconds": "wall s", "gflop": "GFLOP", "moved": "GB moved"}
    own = rows[(rows["quantity"] == "GFLOP") & rows["work"].str.startswith(PIECES)]
    table = own[["work", "side", "device"]].reset_index(drop=True)
    for name, quantity in quantities.items():
        table[name] = [value_of(rows, one.work, one.side, quantity, one.device) for one in table.itertuples()]
    peaks = {"cpu": "peak MB", "cuda": "device peak MB"}
    table["peak"] = [
        value_of(rows, one.work, one.side, peaks.get(one.device, ""), one.device) for one in table.itertuples()
    ]
    tops = [roofs_of(rows, one.device).get(precision_of(one.work, one.side)) for one in table.itertuples()]
    table["rate"], table["intensity"] = table["gflop"] / table["seconds"], table["gflop"] / table["moved"]
    return table.assign(share=table["rate"] / np.array(tops, float)).dropna(subset=["rate"])


def drawn_pieces(pieces: pd.DataFrame, device: str = "cpu") -> pd.DataFrame:
    """Those of `pieces_of` that are drawn under the roof, with sides that are of one kind under one name."""
    kinds = {"compact": "lighter heads", "decoder": "lighter heads", "openai_256": "ours bfloat16"}
    whole = ~pieces["work"].str.startswith(("choices", "live")) & pieces["intensity"].notna()
    shown = pieces[whole & (pieces["device"] == device)]
    known = shown["side"].str.startswith(("reference", "ours")) | shown["side"].isin(list(kinds))
    return shown.assign(side=shown["side"].replace(kinds).where(known, "small backbones"))


def roofs_of(rows: pd.DataFrame, device: str = "cpu") -> dict[str, float]:
    """What the machine can do: GFLOP/s by precision, and "memory" in GB/s."""
    own = rows[(rows["work"] == CEILING) & (rows["device"] == device)]
    return dict(zip(own["side"], own["value"], strict=True))


def where_table(pieces: pd.DataFrame) -> Table:
    """`pieces_of` as a table."""
    lines = []
    for one in pieces.itertuples():
        share = NOT_GIVEN if pd.isna(one.share) else f"{one.share:.0%}"
        peak = NOT_GIVEN if pd.isna(one.peak) else f"{one.peak:,.0f}"
        lines.append(
            [one.work, one.side, one.device, _short(one.seconds), f"{one.gflop:,.1f}", f"{one.rate:,.0f}", share, peak]
        )
    columns = ["work", "side", "device", "seconds", "GFLOP", "GFLOP/s", "of the ceiling", "peak MB"]
    caption = (
        "Seconds of one time (the best of the repeats), its operations, and how much of what the same machine can do in that "
        "precision was reached. Peak memory is above what the process held before."
    )
    return Table(text_frame(lines, columns), caption)


def _short(value: float) -> str:
    return NOT_GIVEN if pd.isna(value) else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


# --- size ------------------------------------------------------------------------------------------------------


def sizes_of(rows: pd.DataFrame, device: str = "cpu") -> pd.DataFrame:
    """The rows "size: ..." as `figures.cost.size_curves` takes them."""
    columns = ["axis", "size", "quantity", "value", "slope"]
    quantities = ["wall s", "peak MB"]
    own = rows[(rows["device"] == device) & rows["work"].str.startswith("size: ") & rows["quantity"].isin(quantities)]
    table = own[own["side"] != "slope"].assign(axis=lambda one: one["work"].str.removeprefix("size: "))
    slopes = [value_of(rows, one.work, "slope", one.quantity, device) for one in table.itertuples()]
    return table.assign(size=pd.to_numeric(table["side"]), slope=slopes)[columns].reset_index(drop=True)


# --- cost against Dice -------------------------------------------------------------------------------------------


def choices_of(table: Grid, records: pd.DataFrame, rows: pd.DataFrame, device: str = "cpu") -> pd.DataFrame:
    """The rows of the grid "cost", each with its Dice and the seconds of one prediction.

    `rows`: of `cost_rows`, whose work "choices" has a side for each label. Returns `choice`, `kind` (what is changed), `cost`
    (seconds a picture), `dice` and `draws` (test Dice, 0..1), `n` (test cases), `runs` (the records), and `against`: the difference
    to the first row (`evaluation.comparing.compare`).
    """
    start: Any = table.configs(table.rows[0])[0]
    found, base = [], None
    for row in table.rows:
        configs = table.configs(row)
        made = [one for one in (record_of(config, records) for config in configs) if one is not None]
        runs = pd.DataFrame(made)
        cases = by_case(runs, "dice")
        base = cases if base is None else base
        dice = [float(one["test/dice"]) for one in made]
        found.append(
            {
                "choice": row.label,
                "kind": _changed(start, configs[0]),
                "cost": value_of(rows, "choices", row.label, "wall s", device),
                "dice": float(np.mean(dice)) if dice else float("nan"),
                "draws": dice,
                "asked": len(configs),
                "n": int(made[0]["test/n"]) if made else 0,
                "runs": runs,
                "against": compare(cases, base),
            }
        )
    return pd.DataFrame(found)


def _changed(start: Any, config: Any) -> str:
    for name in ("backbone", "noise_steps", "blocks", "precision"):
        if getattr(start, name) != getattr(config, name):
            return name.replace("_", " ")
    return "where it starts"


def choices_table(choices: pd.DataFrame) -> Table:
    """`choices_of` as a table: how many times the cost of the first row, and what the Dice gains or loses."""
    lines, first = [], choices["cost"].iloc[0]
    adjusted = holm([float("nan"), *(one.p for one in choices["against"][1:])])
    for one, p in zip(choices.itertuples(), adjusted, strict=True):
        times = NOT_HERE if pd.isna(one.cost / first) else f"{one.cost / first:.2f}"
        dice = mean_sd(pd.Series(one.draws, dtype=float)) if one.draws else NOT_RUN
        above = "the base" if one.Index == 0 else _these_draws(one.against)
        seconds = f"{1000 * one.cost:,.0f}" if not pd.isna(one.cost) else NOT_HERE
        lines.append(
            [one.choice, one.kind, seconds, times, f"{len(one.draws)} of {one.asked}", dice, above if one.draws else ""]
            + ["" if pd.isna(p) else p_text(p)]
        )
    n, base = max(choices["n"]), choices["choice"].iloc[0]
    caption = (
        f"One choice changed at a time, against “{base}”. Dice in percent of {n or 'no'} test images (mean ± standard deviation over "
        "draws of the labelled images), a part of the test set: these short runs compare choices and are no results. Difference in points, "
        "in brackets its 95 % bootstrap interval over images (those of one patient together) for these draws; p: for other draws and other images, after Holm over the "
        "rows. Milliseconds of one picture from pixels and sentence to "
        "logits, measured in turns."
    )
    columns = ["choice", "changes", "ms a picture", "times the cost", "draws", "Dice", f"above “{base}”", "p (Holm)"]
    return Table(text_frame(lines, columns), caption)


def _these_draws(one: Comparison) -> str:
    return points(one.difference, one.cases_low, one.cases_high)


def advice(choices: pd.DataFrame) -> str:
    """Of each choice of `choices_of` whether it is cheaper, and whether it is better, worse, or neither.

    Better and worse: in these draws, that is, their interval over images is clear of zero, and so is each of them.
    """
    first, lines = choices.iloc[0], []
    for one in choices.iloc[1:].itertuples():
        difference, times = one.against, one.cost / first["cost"]
        price = NOT_HERE if pd.isna(times) else f"{times:.2f} times the time"
        if not difference.cases:
            lines.append(f"{one.choice}: {NOT_RUN}")
            continue
        above = difference.cases_low > 0 and min(difference.draws) > 0
        below = difference.cases_high < 0 and max(difference.draws) < 0
        worth = "better" if above else "worse" if below else "no clear difference"
        lines.append(f"{one.choice}: {price}, {worth} in Dice ({_these_draws(difference)} points)")
    return "\n".join([f"Against {first['choice']}:", *lines])


# --- tables of the book -------------------------------------------------------------------------------------------


def book_costs(records: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What each table of the book takes, one a row of numbers (nan: no record says so).

    `table`, `dataset`, `runs` (asked for), `recorded`; of runs on processors: `hours` of all runs (a row of the table without a record counts as the mean of
    those with one), `longest` (hours of one run), `memory` (GB, the largest); `gpu_hours` of runs on a graphics card; `disk`
    (GB of data and cached features). In the paper's own setting, extrapolated from `rows`: `paper_runs` (rows with frozen features
    only), `paper_hours` by the reference, `ours_hours` by this package, `ours_gpu_hours` on a graphics card.
    """
    found = []
    for dataset, names in TABLES.items():
        for name in names:
            table = grid(name, dataset, DRAWS.get(name))
            made = _runs_of(table, records)
            tested, validated = (float(pd.concat(made)[f"{split}/n"].astype(float).max()) for split in ("test", "val"))
            entry = {"table": name, "dataset": dataset, "runs": len(table.all()), "recorded": sum(map(len, made))}
            measured = _measured(made, len(table.seeds))
            found.append(entry | measured | {"disk": disk_gb(table, tested, validated)} | _paper(table, tested, rows))
    return pd.DataFrame(found)


def _runs_of(table: Grid, records: pd.DataFrame) -> list[pd.DataFrame]:
    """The records of each row of a grid, also of a part of the test set: what they took is asked, not what they reached."""
    known = ["env/seconds", "train/seconds", "env/gpu", "env/peak_memory_mb", "test/n", "val/n"]
    found = []
    for one in by_row(table, records):
        made = [record_of(config, records) for config in one.configs] if one.partial else []
        draws = pd.DataFrame([record for record in made if record is not None]) if one.partial else one.draws
        found.append(draws.reindex(columns=known))
    return found


def _measured(made: Sequence[pd.DataFrame], draws: int) -> dict[str, float]:
    """Of the runs of a table's rows, so many draws each: hours on a processor and on a graphics card, and memory."""
    runs = pd.concat(made)
    # Of a training that was interrupted and went on, the environment knows the last part only
    hours = runs[["env/seconds", "train/seconds"]].astype(float).max(axis=1) / 3600
    row = np.repeat(range(len(made)), [len(one) for one in made])
    gpu = runs["env/gpu"].notna().to_numpy()
    # A row without a record counts as the mean of those with one
    whole = [hours[of].groupby(row[of]).mean().mean() * len(made) * draws for of in (~gpu, gpu)]
    memory = runs.loc[~gpu, "env/peak_memory_mb"].astype(float).max() / 1000
    return {"hours": whole[0], "longest": hours[~gpu].max(), "memory": memory, "gpu_hours": whole[1]}


def disk_gb(table: Grid, tested: float, validated: float) -> float:
    """GB of a table's data and, at most, of the features that its runs keep of known backbones.

    ``tested``, ``validated``: pictures, or nan. Runs share features where network and pictures are the same; those of pictures
    without masks are left out, since the cache is full without them.
    """
    source = registry.dataset(table.common["dataset"]).source
    kept: dict[tuple[Any, ...], float] = {}
    for config in table.all():
        if (
            isinstance(config, TextDiffConfig)
            and not config.blind
            and architecture_of(config.backbone) in registry.backbones()
        ):
            drawn = config.seed if config.backbone != architecture_of(config.backbone) else None  # of untrained weights
            seen = (
                config.blocks,
                config.noise_steps,
                config.image_size,
                config.precision,
                config.channel_order,
                config.resize,
            )
            network, one = (config.backbone, drawn, *seen), features_gb(config)
            labelled = config.n_labels * config.views if isinstance(config.n_labels, int) else 0
            draw = (*network, config.seed, config.augmentation)  # the smaller is the beginning of the larger
            kept[draw] = max(kept.get(draw, 0.0), labelled * one)
            asked = (2 if config.mirrored == "on" else 1) * (np.nan_to_num(tested) + np.nan_to_num(validated))
            kept[network] = max(kept.get(network, 0.0), one * asked)
    return getattr(source, "size", 0) / GB + min(CACHE_GB, sum(kept.values()))


def features_gb(config: TextDiffConfig) -> float:
    """GB of one picture's maps."""
    values = _values(architecture_of(config.backbone), config.blocks, config.noise_steps, config.image_size)
    return values * (2 if config.precision == "bfloat16" else 4) / GB


@lru_cache
def _values(backbone: str, blocks: str, noise_steps: str, side: int) -> int:
    from textdiff.models.features import DiffusionFeatures

    features = DiffusionFeatures(load_backbone(REDRAWN + backbone), numbers(blocks), numbers(noise_steps))
    return sum(c * (side // s) ** 2 for c, s in zip(features.channels, features.strides, strict=True))


PAPERS_WAYS = (
    ("paper_hours", "reference", "cpu"),
    ("ours_hours", "ours bfloat16", "cpu"),
    ("ours_gpu_hours", "ours bfloat16", "cuda"),
)


def _paper(table: Grid, tested: float, rows: pd.DataFrame) -> dict[str, float]:
    """Hours of a table's runs in the paper's own setting, extrapolated from steps and single images; none of volumes, of drawn pictures and of the small runs
    of cost against Dice, which are not the paper's."""
    kept = [one for one in table.all() if isinstance(one, TextDiffConfig) and not (one.from_scratch or one.blind)]
    configs: list[Any] = [one for one in kept if not one.entry.synthetic and one.max_test == "all"]
    labelled, hours = sum(one.n_labels for one in configs), {}
    for name, side, device in PAPERS_WAYS:
        training = (
            value_of(rows, "training views", side, "wall s", device) / IMAGES
        )  # of an image, its views and all epochs
        answer = value_of(rows, "inference", side, "wall s", device)
        seconds = labelled * training + len(configs) * tested * answer
        hours[name] = seconds / 3600 if configs else float("nan")
    return {"paper_runs": len(configs), **hours}


def book_table(costs: pd.DataFrame) -> Table:
    """`book_costs` in words: what each table takes with the small backbones."""
    lines = []
    for one in costs.itertuples():
        laptop = [_hours(one.hours), _hours(one.longest), _number(one.memory), _number(one.disk)]
        if one.recorded == 0:
            laptop = [NOT_RUN, "", "", _number(one.disk)]
        gpu = NOT_HERE if pd.isna(one.gpu_hours) else _hours(one.gpu_hours)
        lines.append([one.table, one.dataset, f"{one.recorded} of {one.runs}", *laptop, gpu])
    columns = ["table", "data", "recorded", "laptop", "longest run", "memory (GB)", "disk (GB)", "one GPU"]
    frame = text_frame(lines, columns)
    caption = (
        "Laptop: two cores, the small backbones; time of all runs of the table, of which a row without a record counts as the mean "
        "of those with one. Memory: the most that a run held. Disk: data, and at most this of features kept (beyond 20 GB the oldest "
        "are computed again)."
    )
    if (frame["one GPU"] == NOT_HERE).all():  # a sentence leaves room for the others
        frame, caption = frame.drop(columns="one GPU"), f"{caption} One GPU: {NOT_HERE}."
    return Table(frame, caption)


def total_text(costs: pd.DataFrame) -> str:
    """What all tables take together, by `book_costs`: at most, since runs that tables share are made once."""
    if not costs["recorded"].sum():
        return "No run of these tables is recorded."
    ways = {"two cores": costs["hours"].dropna(), "one GPU": costs["gpu_hours"].dropna()}
    said = [
        f"{_hours(of.sum())} on {way} ({len(of)} tables)" if len(of) else f"on {way}: {NOT_HERE}"
        for way, of in ways.items()
    ]
    return (
        f"All {len(costs)} tables together take at most: {'; '.join(said)}. {costs['recorded'].sum()} of {costs['runs'].sum()} runs are "
        f"recorded, runs that tables share counted in each. The most disk that one table takes is {_number(costs['disk'].max())} GB."
    )


def paper_table(costs: pd.DataFrame) -> Table:
    """`book_costs` in words: the same tables in the paper's own setting."""
    lines = []
    for one in costs[costs["paper_runs"] > 0].itertuples():
        ways = [getattr(one, name) for name, *_ in PAPERS_WAYS]
        lines.append([one.table, one.dataset, *(NOT_HERE if pd.isna(value) else _hours(value) for value in ways)])
    caption = (
        "The paper's setting: rows with frozen features on real images, with its network, head, views, epochs and three noise steps, "
        "extrapolated from single steps and images, without validation."
    )
    return Table(
        text_frame(lines, ["table", "data", "its way, two cores", "our way, two cores", "our way, one GPU"]), caption
    )


def _hours(value: float) -> str:
    """Hours as a reader says them: minutes, hours or days."""
    if pd.isna(value):
        return NOT_GIVEN
    if value < 1:
        return f"{60 * value:.0f} min"
    return f"{value:.1f} h" if value < 48 else f"{value / 24:,.0f} days"


def _number(value: float) -> str:
    return NOT_GIVEN if pd.isna(value) else f"{value:.1f}"
