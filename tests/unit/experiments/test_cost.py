"""What a prediction costs, measured live: rows as a cost record has them, for each choice."""

from __future__ import annotations

import pytest
import torch
from multiplied import Multiplied

from benchmarks.measuring import _roof
from textdiff.base import precision
from textdiff.experiments import cost
from textdiff.experiments.images import TextDiffConfig


def test_every_choice_changes_the_start():
    start, *others = cost.live_choices("chest_phantoms").values()
    assert all(one.run_id != start.run_id for one in others)
    assert cost.answering(start)().shape == (1, 2, start.image_size, start.image_size)


def test_live_rows_are_those_of_a_record(monkeypatch):
    monkeypatch.setattr(cost, "SIDES", 32)
    start = {"dataset": "chest_phantoms", "image_size": 32, "device": "cpu", "head": "compact"}
    choices = {
        "one": TextDiffConfig.from_params(**start, blocks="2", noise_steps="50"),
        "three": TextDiffConfig.from_params(**start, blocks="2"),
    }
    rows = cost.measured_live(choices, repeats=1)
    assert tuple(rows) == cost.COLUMNS and (rows["value"] > 0).all() and set(rows["device"]) == {"cpu"}
    assert rows["note"].str.contains("live, small").all()
    flops = rows[rows["quantity"] == "GFLOP"].set_index("side")["value"]
    assert 2 < flops["three"] / flops["one"] < 3.1, "three noise steps are three passes"
    assert set(rows.loc[rows["work"] == "ceiling", "side"]) == {"float32", "bfloat16"}


@pytest.mark.parametrize(("units", "type_"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_ceiling_is_of_how_the_work_multiplies(units, type_, monkeypatch):
    """A processor without units for bfloat16 multiplies it in float32: a share of its own slow product was 2313 %."""
    monkeypatch.setattr(precision, "BFLOAT16_UNITS", units)
    monkeypatch.setattr(cost, "SIDES", 32)
    works = [lambda: cost._ceiling("bfloat16", torch.device("cpu"))]
    works += [_roof(kind, "bfloat16", 64, "cpu") for kind in ("product", "convolution")]
    for work in works:
        with Multiplied() as seen:
            work()
        assert set(seen.dtypes) == {type_}


def test_a_head_on_one_block_reads_the_text():
    """The decoder lets the two coarsest maps read; of one map, that one does."""
    config = TextDiffConfig.from_params(dataset="chest_phantoms", blocks="2", head="decoder", image_size=32)
    assert torch.isfinite(cost.answering(config)()).all()
