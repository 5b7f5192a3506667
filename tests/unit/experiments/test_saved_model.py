"""A saved model with data of its structures, and tables of volumes."""

from __future__ import annotations

import pytest
import torch

from textdiff.data.volumes.patches import Preprocessing
from textdiff.experiments import images as experiments
from textdiff.experiments import volumes as experiments3d
from textdiff.experiments.config import SamplingConfig, TextDiffSegConfig, VolumeTableConfig
from textdiff.models.text import TextEncoder
from textdiff.models.textdiffseg import TextDiffSeg

NAMES = ("liver", "left kidney")


@pytest.fixture
def model():
    torch.manual_seed(0)
    text = TextEncoder.from_pretrained("tiny", max_length=64)
    tiny = {"widths": (4, 4, 8), "denoiser_widths": (16, 32), "latent_channels": 4}
    return TextDiffSeg(text, ("background", *NAMES), Preprocessing(None, (-160.0, 240.0), (24, 24, 24)), **tiny).eval()


def test_a_saved_model_comes_with_data_of_its_structures(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    config = SamplingConfig.from_params(model_folder=str(tmp_path / "saved"), device="cpu")
    again, settings, data = experiments3d.saved_model(config, config.model_folder)
    assert again.class_names == data.class_names == ("background", *NAMES) and not again.training
    assert settings.structures == ",".join(NAMES) and len(data.test) == settings.max_test


def test_without_a_model_it_says_what_to_do():
    config = SamplingConfig.from_params(mode="full", dataset="liver_tumour")
    with pytest.raises(ValueError, match="no model ships for 'liver_tumour': train one"):
        experiments3d.saved_model(config, config.model_folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        experiments3d.saved_model(config, "nowhere")


def test_a_table_of_volumes_makes_its_missing_runs_in_demo_mode(tmp_path, monkeypatch):
    made = []
    monkeypatch.setenv("TEXTDIFF_RESULTS", str(tmp_path))
    monkeypatch.setattr(experiments3d, "run_textdiffseg", lambda config, out: made.append((config.model, out)))
    monkeypatch.setattr(experiments, "run_textdiff", None)
    table, records = experiments.table_of(
        "comparison3d", VolumeTableConfig.from_params(out_dir="somewhere", device="cpu")
    )
    assert made == [("textdiffseg", "somewhere"), ("segresnet", "somewhere")] and len(records) >= 0
    assert table.common["device"] == "cpu" and table.kind is TextDiffSegConfig
    experiments.table_of("comparison3d", VolumeTableConfig.from_params(mode="full", dataset="hippocampus"))
    assert len(made) == 2
