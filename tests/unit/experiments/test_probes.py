"""Probes from a configuration: features, controls, the table with its controls, what a record keeps."""

from __future__ import annotations

import pandas as pd
import pytest
from tiny_models import tiny_unet

from textdiff.experiments import probes
from textdiff.experiments.pages import BlocksConfig


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr("textdiff.experiments.images.PHANTOM_SIDE", 32)
    tiny_unet().save_pretrained(tmp_path / "mine")
    params = {"backbone": str(tmp_path / "mine"), "image_size": 16, "noise_steps": "50,250", "sets": "0,2@50"}
    return BlocksConfig.from_params(**params, n_labels=2, n_draws=2, max_test=2, pixels=200)


def test_the_table_has_the_backbone_and_its_controls_under_names_without_folders(config):
    table = probes.probe_with_controls(config)
    assert table["backbone"].unique().tolist() == ["mine", "random:mine", "redrawn:mine"]
    assert len(table) == 3 * 2 * (4 * 2 + 1)  # networks, draws, blocks at steps and the set
    assert table["dice"].between(0, 1).all()
    metrics = probes.probe_metrics(table)
    assert {"probe/best mine", "probe/best block redrawn:mine", "probe/0,2@50 random:mine"} <= set(metrics)
    gain = probes.gain_over_controls(table, config)
    assert list(gain.columns) == ["blocks", "noise_steps", "draw", "dice"] and len(gain) == 2 * 9


def test_the_gain_is_over_the_better_control(config):
    names, dice = ("mine", "random:mine", "redrawn:mine"), (0.9, 0.5, 0.7)
    rows = [
        {"blocks": "0", "noise_steps": "50", "draw": 0, "dice": d, "backbone": n}
        for n, d in zip(names, dice, strict=True)
    ]
    assert probes.gain_over_controls(pd.DataFrame(rows), config)["dice"].item() == pytest.approx(0.2)


def test_features_are_those_of_the_configuration(config):
    features = probes.features_of(config)
    assert (list(features.blocks), list(features.steps)) == ([0, 1, 2, 3], [50, 250])
