"""What it costs, out of records: goals, pieces of work, choices, tables of the book; and pages that say nothing else."""

from __future__ import annotations

import json
import math
import re

import build_book
import nbformat
import pandas as pd
import pytest
import torch

from benchmarks import bench_training
from tests.unit.report import little
from textdiff.data import registry
from textdiff.experiments.grids import GRIDS, grid
from textdiff.experiments.images import build_model
from textdiff.experiments.pages import CostConfig
from textdiff.experiments.records import Run, load_records, published_dir
from textdiff.models.store import OPENAI_256
from textdiff.models.unet import UNet
from textdiff.report import cost
from textdiff.report.rows import tried_rates

METRICS = {
    "training, CPU": (12.0, 10.0, 1.0),
    "inference float32, CPU": (1.2, 1.5, 0.0),
    "head logits, CPU": (1e-6, 1e-3, 1.0),
    "memory of predict, CPU": (4000.0, 3000.0, 0.0),
    "pre-training, GPU": (math.nan, 3.0, math.nan),
}
NUMBERS = {
    ("ceiling", "float32", "GFLOP/s"): 100, ("ceiling", "bfloat16", "GFLOP/s"): 400, ("ceiling", "memory", "GB/s"): 20,
    ("inference", "reference", "wall s"): 36, ("inference", "reference", "processor s"): 72,
    ("inference", "reference", "GFLOP"): 1800, ("inference", "reference", "GB moved"): 90,
    ("inference", "ours bfloat16", "wall s"): 7.2, ("inference", "ours bfloat16", "GFLOP"): 1440,
    ("training views", "reference", "wall s"): 250 * 48,
    ("training views", "ours bfloat16", "wall s"): 250 * 3.6 + 90 * 7.2,
    ("choices", "chest_32", "wall s"): 0.1, ("choices", "three noise steps", "wall s"): 0.25,
    ("size: images", "4", "wall s"): 1, ("size: images", "16", "wall s"): 4, ("size: images", "slope", "wall s"): 1.0,
}  # fmt: skip


def table(scale: float = 1.0) -> pd.DataFrame:
    rows = [{"work": w, "side": s, "quantity": q, "value": v * scale} for (w, s, q), v in NUMBERS.items()]
    return pd.DataFrame(rows).assign(unit="", low="", high="", repeats=1, device="cpu", note="")


def save(root, scale: float = 1.0, **params) -> None:
    metrics = {
        f"goal/{name}/{part}": value
        for name, values in METRICS.items()
        for part, value in zip(("value", "goal", "met"), values, strict=True)
    }
    config = CostConfig.from_params(
        **{"mode": "full", "machine": "some processor", "threads": 2, "device": "cpu"} | params
    )
    Run.open(config, root).save(metrics, table(scale))


@pytest.fixture
def measured(tmp_path) -> pd.DataFrame:
    """A quick and a whole measurement of one machine, and a demo run."""
    save(tmp_path)
    save(tmp_path, 2.0, extent="whole", machine="another")
    save(tmp_path, 9.0, mode="demo")
    return load_records(tmp_path)


@pytest.fixture
def rows(measured) -> pd.DataFrame:
    return cost.cost_rows(cost.cost_records(measured, "some processor"))


def test_one_record_a_device_the_whole_one_first(measured, none):
    (whole,) = cost.cost_records(measured)
    assert (
        whole["extent"] == "whole" and cost.value_of(cost.cost_rows([whole]), "inference", "reference", "wall s") == 72
    )
    (quick,) = cost.cost_records(measured, "some processor")
    assert quick["extent"] == "quick" and "2 threads" in cost.machines([quick])
    assert "graphics card: not measured here" in cost.machines([quick])
    card = measured.assign(**{"env/gpu": ["NVIDIA H200", None, None]})
    assert [one["env/gpu"] for one in cost.cost_records(card)][-1] == "NVIDIA H200"
    assert cost.cost_records(none) == [] and "not measured here yet" in cost.machines([])


def test_a_processor_beside_a_graphics_card_keeps_its_name(measured):
    both = measured.assign(**{"env/gpu": ["NVIDIA H200", None, None], "env/processor": "EPYC"})  # pandas 3: None -> nan
    processor, card = cost.cost_records(both)
    assert [line.split(",")[0] for line in cost.machines([processor, card]).splitlines()] == ["EPYC", "NVIDIA H200"]
    assert cost.machines([processor]).endswith("graphics card: not measured here")


def test_goals_say_by_how_much_they_are_missed(measured):
    goals = cost.goals_of(cost.cost_records(measured))
    said = cost.goals_met_table(goals).frame.set_index("goal")
    assert said["met"].to_dict() == {
        "training, CPU": "yes",
        "inference float32, CPU": "no, by 20%",
        "head logits, CPU": "yes",
        "memory of predict, CPU": "no, by 33%",
        "pre-training, GPU": "not measured here",
    }
    assert said["wanted"].tolist() == ["≥ 10", "≥ 1.5", "≤ 0.001", "≤ 3000", "3"]
    assert goals.loc[goals["more"] & goals["value"].notna(), "goal"].tolist() == [
        "training, CPU",
        "inference float32, CPU",
    ]
    assert cost.goals_of([]).empty and cost.goals_met_table(cost.goals_of([])).frame.empty


def test_pieces_stand_under_the_ceiling_of_their_precision(rows):
    pieces = cost.pieces_of(rows).set_index(["work", "side"])
    assert pieces.loc[("inference", "reference"), ["rate", "intensity", "share"]].tolist() == [50, 20, 0.5]
    assert pieces.loc[("inference", "ours bfloat16"), ["rate", "share"]].tolist() == [200, 0.5]
    assert cost.roofs_of(rows) == {"float32": 100, "bfloat16": 400, "memory": 20}
    assert cost.where_table(cost.pieces_of(rows)).frame.loc[0, "of the ceiling"] == "50%"
    assert len(cost.drawn_pieces(cost.pieces_of(rows))) == 1, "without bytes there is no place under the roof"


@pytest.mark.parametrize(
    ("work", "side", "precision"),
    [
        ("inference", "ours", "float32"),
        ("inference", "ours bfloat16", "bfloat16"),
        ("backbones", "he_32", "bfloat16"),
        ("backbones float32", "he_32", "float32"),
        ("choices", "float32", "float32"),
        ("choices", "one block", "bfloat16"),
        ("head step qata", "decoder", "float32"),
    ],
)
def test_precisions_are_those_of_the_benchmarks(work, side, precision):
    assert cost.precision_of(work, side) == precision


def test_sizes_are_drawn_with_their_slope(rows):
    sizes = cost.sizes_of(rows)
    assert sizes[["axis", "size", "value", "slope"]].values.tolist() == [["images", 4, 1, 1], ["images", 16, 4, 1]]


def test_choices_have_their_price_and_their_worth(rows, tmp_path):
    three = grid("cost", "qata", (0, 1)).only(["chest_32", "three noise steps", "one block"])
    base, steps, _ = (three.configs(row) for row in three.rows)
    made = [(base[0], 0.5), (base[1], 0.6), (steps[0], 0.7)]
    records = pd.DataFrame(
        [little.image_record(tmp_path, config, {"001": dice, "002": dice}) for config, dice in made]
    ).assign(experiment="textdiff2d")
    choices = cost.choices_of(three, records, rows)
    assert choices["kind"].tolist() == ["where it starts", "noise steps", "blocks"]
    shown = cost.choices_table(choices).frame.iloc[:, 2:].values.tolist()
    assert shown[0] == ["100", "1.00", "2 of 2", "55.00 ± 7.07", "the base", ""]
    one = ["250", "2.50", "1 of 2", "70.00", "+20.00 (+20.00 to +20.00)", "<0.001"]
    assert shown[1] == one, "in the draw that both have"
    assert shown[2] == ["not measured here", "not measured here", "0 of 2", "not run yet", "", ""]
    assert "three noise steps: 2.50 times the time, better in Dice" in cost.advice(choices)
    assert "one block: not run yet" in cost.advice(choices)
    made += [(steps[1], 0.59)]  # now the draws do not agree
    records = pd.DataFrame([little.image_record(tmp_path, one, {"001": dice, "002": dice}) for one, dice in made])
    choices = cost.choices_of(three, records.assign(experiment="textdiff2d"), rows)
    assert choices.loc[1, "against"].cases_low > 0 and "no clear difference" in cost.advice(choices)
    nothing = records.iloc[:0]
    assert "of no test images" in cost.choices_table(cost.choices_of(three, nothing, rows)).caption


def test_the_published_choices_are_whole_and_say_what_the_page_makes_of_them():
    table = grid("cost", "qata", cost.DRAWS["cost"])
    choices = cost.choices_of(table, load_records(published_dir()), cost.cost_rows([]))
    assert (choices["draws"].map(len) == 2).all() and (choices["n"] == 60).all()
    said = dict(line.split(": ", 1) for line in cost.advice(choices).splitlines()[1:])
    clear = {choice: re.search(r"better|worse|no clear", words)[0] for choice, words in said.items()}
    dear = {"chest_64": "better", "chest_32 with random weights": "worse", "chest_32 with redrawn weights": "worse"}
    assert dear.items() <= clear.items()
    assert clear["float32"] != "better"
    assert {clear[one] for one in ("three noise steps", "one block", "two blocks", "four blocks")} == {"no clear"}
    p = cost.choices_table(choices).frame["p (Holm)"][1:].astype(float)
    assert (p > 0.05).all(), "the page says that two draws prove none of it for other draws"


# --- tables of the book ------------------------------------------------------------------------------------


def test_hours_of_the_book_are_those_of_its_records(rows):
    records = load_records(published_dir())
    costs = cost.book_costs(records, rows).set_index(["dataset", "table"])
    table, seconds = grid("ablation", "qata"), []
    for row in table.rows:
        tried = pd.concat([tried_rates(config, records) for config in table.configs(row)])
        found = [published_dir() / "textdiff2d" / run for run in tried.loc[tried["taken"], "run_id"]]
        read = [
            json.loads((one / name).read_text())
            for one in found
            if one.is_dir()
            for name in ("env.json", "metrics.json")
        ]
        seconds.append(
            [max(env["seconds"], of["train/seconds"]) for env, of in zip(read[::2], read[1::2], strict=True)]
        )
    told = costs.loc[("qata", "ablation")]
    means = [sum(one) / len(one) for one in seconds if one]
    assert told["hours"] == pytest.approx(12 * sum(means) / len(means) / 3600), "four rows of three draws"
    assert told["longest"] == pytest.approx(max(max(one) for one in seconds if one) / 3600)
    assert (told["runs"], told["recorded"]) == (12, sum(map(len, seconds))) and 0.5 < told["memory"] < 2
    assert math.isnan(told["gpu_hours"]), "no record is of a graphics card"
    # One of the rows sees no picture, and needs no network
    whole = 9 * (150 * 50 * 48 + 1913 * 36) / 3600
    ours = 9 * (150 * (50 * 3.6 + 18 * 7.2) + 1913 * 7.2) / 3600  # of the authors' views 18 an image are computed
    assert told["paper_hours"] == pytest.approx(whole) and told["ours_hours"] == pytest.approx(ours)
    assert costs.loc["hippocampus", "paper_runs"].eq(0).all() and costs.loc["chest_phantoms", "paper_runs"].eq(0).all()
    book, paper = cost.book_table(costs.reset_index()), cost.paper_table(costs.reset_index())
    assert "one GPU" not in book.frame and "One GPU: not measured here." in book.caption
    total = f"{costs['hours'].sum() / 24:,.0f} days"
    assert f"at most: {total} on two cores (27 tables); on one GPU: not measured" in cost.total_text(
        costs.reset_index()
    )
    said = paper.frame.set_index(["data", "table"])
    assert said.loc[("qata", "ablation"), "its way, two cores"] == f"{whole / 24:,.0f} days"
    assert not {"hippocampus", "chest_phantoms"} & set(said.index.get_level_values("data"))


def test_a_graphics_card_has_numbers_where_a_record_is_of_one(rows, measured):
    card = rows.assign(device="cuda", value=rows["value"] / 100)
    both = pd.concat([rows, card.assign(quantity=card["quantity"].replace("peak MB", "device peak MB"))])
    assert set(cost.pieces_of(both)["device"]) == {"cpu", "cuda"}
    assert set(cost.drawn_pieces(cost.pieces_of(both), "cuda")["device"]) == {"cuda"}
    records = load_records(published_dir())
    processor, gpu = (cost.book_costs(records, one).set_index(["dataset", "table"]) for one in (rows, both))
    one, other = (costs.loc[("monuseg", "comparison")] for costs in (processor, gpu))
    assert math.isnan(one["ours_gpu_hours"]) and other["ours_gpu_hours"] == pytest.approx(other["ours_hours"] / 100)
    on_card = records.assign(**{"env/gpu": "a card"})
    told = cost.book_costs(on_card, rows).set_index(["dataset", "table"]).loc[("monuseg", "comparison")]
    assert told["gpu_hours"] == pytest.approx(one["hours"]) and math.isnan(told["hours"])
    assert "one GPU" in cost.book_table(cost.book_costs(on_card, rows)).frame
    assert "on two cores: not measured here" in cost.total_text(cost.book_costs(on_card, rows))


def test_without_records_nothing_is_guessed(none):
    costs = cost.book_costs(none, cost.cost_rows([]))
    assert (cost.book_table(costs).frame["laptop"] == "not run yet").all()
    assert cost.total_text(costs) == "No run of these tables is recorded."
    assert set(cost.paper_table(costs).frame["our way, two cores"]) == {"not measured here"}


def test_features_that_runs_share_are_kept_once():
    ablation, comparison = (cost.disk_gb(grid(name, "qata"), 1913, 300) for name in ("ablation", "comparison"))
    archive = registry.dataset("qata").source.size / 1e9
    config = grid("ablation", "qata").all()[0]
    one, model = cost.features_gb(config), build_model(config, registry.dataset("qata"))
    maps = model.features.maps(torch.zeros(1, 3, config.image_size, config.image_size))
    assert one == sum(map_.numel() * map_.element_size() for map_ in maps) / 1e9
    assert ablation == pytest.approx(archive + one * (3 * 150 * 16 + 2 * (300 + 1913)))
    assert ablation < comparison <= archive + cost.CACHE_GB


# --- the pages ----------------------------------------------------------------------------------------------


def prose(name: str) -> str:
    cells = nbformat.read(build_book.ROOT / name, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("name", ["book/what_it_costs.ipynb", "notebooks/30_cost.ipynb"])
def test_pages_state_settings_as_they_are_and_no_measured_number(name):
    text = re.sub(r"Demo mode:.*", "", prose(name))
    table = grid("cost", "qata", cost.DRAWS["cost"])
    start = table.configs(table.rows[0])[0]
    assert f"{start.n_labels} labelled films" in text and f"first {start.max_test} test films" in text
    assert len(table.seeds) == 2 and "two draws" in text
    measured = re.findall(r"\d[\d.,]* *(?:×|times|%|per cent|hours?|minutes?|seconds?|ms|GFLOP\S*|[KMG]i?B)\b", text)
    assert [one for one in measured if one != "2.2 GB"] == [], "measured numbers come from records, by code"


def test_what_the_page_says_of_the_papers_network_is_so():
    text = prose("book/what_it_costs.ipynb")
    with torch.device("meta"):
        count = sum(one.numel() for one in UNet(**OPENAI_256).parameters())
    assert f"{count / 1e6:.0f} million parameters" in text and f"{4 * count / 1e9:.1f} GB" in text
    assert f"{bench_training.EPOCHS} epochs" in text and bench_training.IMAGES == cost.IMAGES


def test_every_table_of_the_results_pages_is_told():
    told = {(dataset, name) for dataset, names in cost.TABLES.items() for name in names}
    for page, dataset in (("results_2d", ""), ("results_3d", "hippocampus")):
        cells = nbformat.read(build_book.ROOT / f"book/{page}.ipynb", as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        asked = re.findall(r'\bgrid\("(\w+)", (?:"(\w+)"|DATASET)\)', code)
        assert asked and {(data or dataset, name) for name, data in asked} <= told
    assert all(name in GRIDS for _, name in told)
