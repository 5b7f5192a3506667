"""Every question at a tiny size: its rows, that each goal finds the rows it is about, and the record of all."""

from __future__ import annotations

import importlib
import math

import pytest
import torch

from benchmarks import command, pieces
from benchmarks.goals import judge
from benchmarks.measuring import COLUMNS, Row
from textdiff import UNet
from textdiff.experiments.pages import CostConfig
from textdiff.experiments.publish import refusal
from textdiff.experiments.records import load_records, read_table

# This needs another version of the package
ELSEWHERE = ("predict",)


def modules():
    found = {name: importlib.import_module(f"benchmarks.bench_{name}") for name in command.questions()}
    return {name: module for name, module in found.items() if hasattr(module, "TINY")}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row for module in modules().values() for row in module.measure(sizes=module.TINY)]


def test_numbers_are_finite_and_told_once(rows):
    assert all(math.isfinite(row.value) and row.device == "cpu" for row in rows)
    keys = [(row.work, row.side, row.quantity) for row in rows]
    assert len(set(keys)) == len(keys)


def test_every_goal_of_a_processor_finds_its_rows(rows):
    for verdict in judge(rows):
        one = verdict.goal
        if one.device == "cpu" and one.work not in ELSEWHERE and one.quantity != "peak MB":
            assert verdict.value is not None, one


@pytest.mark.parametrize("name", ["PAPER", "SMALL", "TINY"])
def test_the_authors_head_fits_every_setting(name):
    """Its later scales share one projection, or need none."""
    setting = getattr(pieces, name)
    with torch.device("meta"):
        unet = UNet(**setting.unet)
    later = {unet.block_channels[k] * len(setting.steps) for k in setting.blocks[1:]}
    assert len(later - {setting.head.dim}) <= 1


def test_spans_that_overlap_count_once():
    assert importlib.import_module("benchmarks.bench_training").covered([(0, 2), (1, 3), (1.5, 2), (5, 6)]) == 4


def test_both_sides_compute_the_same(rows):
    """In float32; at this size rounding is all that may differ."""
    differences = [row for row in rows if "difference" in row.quantity and row.side == "ours"]
    assert len(differences) >= 7
    assert all(row.value < 1e-2 for row in differences)


@pytest.fixture
def only_head(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "questions", lambda: ["head"])
    return tmp_path / "results"


def test_a_run_writes_a_record(only_head, capsys, monkeypatch):
    assert command.main(["--demo", "--device", "cpu"]) == 0
    (record,) = load_records(only_head).to_dict("records")
    assert record["experiment"] == "cost" and not record["stale"] and record["mode"] == "demo"
    table = read_table(record["folder"] / "per_case.csv")
    assert tuple(table) == COLUMNS
    assert {"ceiling", "head forward monuseg", "head step monuseg"} == set(table["work"])
    assert table["value"].dtype == float and table["low"].isna().any()
    assert record["goal/head forward, CPU/goal"] == 3 and record["goal/head forward, CPU/met"] in (0, 1)
    assert record["goal/pre-training, GPU/value"] is None
    assert "demo" in refusal(record["run_id"], record["folder"])
    said = capsys.readouterr().out
    assert "pre-training, GPU" in said and "not measured here" in said
    monkeypatch.setattr(importlib.import_module("benchmarks.bench_head"), "measure", None)
    assert command.main(["--demo", "--device", "cpu"]) == 1
    assert read_table(record["folder"] / "per_case.csv").equals(table), "a whole record is worth more"


def test_named_questions_are_printed_only(only_head, capsys):
    assert command.main(["head", "--demo", "--device", "cpu"]) == 0
    assert not only_head.exists() and "head step monuseg" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["heads"])


def test_a_question_that_fails_does_not_lose_the_others(only_head, monkeypatch):
    def measure(quick, device, sizes):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(importlib.import_module("benchmarks.bench_head"), "measure", measure)
    assert command.main(["--demo", "--device", "cpu"]) == 1
    (record,) = load_records(only_head).to_dict("records")
    table = read_table(record["folder"] / "per_case.csv")
    assert table.iloc[-1][["work", "quantity", "note"]].tolist() == ["head", "failed", "RuntimeError: out of memory"]
    assert record["env/command"] == "python -m benchmarks --demo --device cpu"


def test_a_record_is_of_a_machine_and_of_settings_not_of_a_folder():
    whole = {"mode": "full", "machine": "AMD EPYC 9B45 96-Core Processor", "threads": 2}
    ids = {
        CostConfig.from_params(**whole, **more).run_id for more in ({}, {"extent": "whole"}, {"backbones": "chest_32"})
    }
    assert len(ids) == 3
    assert CostConfig.from_params(**whole).run_id.startswith("amd-epyc-9b45-96-core-processor-t2-quick-")
    assert CostConfig.from_params(**whole, device="cpu").run_id == CostConfig.from_params(**whole).run_id
