"""Which models notebook 27 shows: those trained here, else the one that ships."""

from __future__ import annotations

import pytest

from textdiff.experiments import qualitative3d
from textdiff.experiments.grids import grid
from textdiff.experiments.pages import QualitativeVolumesConfig
from textdiff.experiments.run import keep_model
from textdiff.experiments.volumes import build_model, load_data


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path))


def test_in_demo_mode_the_model_that_ships_stands_alone():
    models, own, data = qualitative3d.shown_models(QualitativeVolumesConfig.from_params())
    assert list(models) == [own] == ["TextDiffSeg"]
    assert data.class_names[1:] == ("liver", "left kidney", "right kidney")


def test_a_network_that_was_trained_here_stands_beside_it():
    config = QualitativeVolumesConfig.from_params(mode="full")
    table = grid("comparison3d", config.dataset, [0]).only(["SegResNet"])
    settings = table.configs(table.rows[0])[0]
    keep_model(build_model(settings, load_data(settings)), settings)
    models, own, _ = qualitative3d.shown_models(config)
    assert list(models) == ["TextDiffSeg", "SegResNet"] and own == "TextDiffSeg"


def test_a_model_that_is_named_must_be_here():
    with pytest.raises(FileNotFoundError, match="trained weights"):
        qualitative3d.shown_models(QualitativeVolumesConfig.from_params(models="SegResNet"))
    with pytest.raises(ValueError, match="has no row"):
        qualitative3d.shown_models(QualitativeVolumesConfig.from_params(models="nnU-Net"))
