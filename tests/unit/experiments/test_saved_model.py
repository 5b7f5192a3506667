"""A saved model comes with data of its structures."""

from __future__ import annotations

import pytest
import torch

from textdiff.data.volumes.patches import Preprocessing
from textdiff.experiments import volumes as experiments3d
from textdiff.experiments.pages import SamplingConfig
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
    assert settings.structures == ",".join(NAMES) and data.test


def test_without_a_model_it_says_what_to_do():
    config = SamplingConfig.from_params(mode="full", dataset="liver_tumour")
    with pytest.raises(ValueError, match="no model ships for 'liver_tumour': train one"):
        experiments3d.saved_model(config, config.model_folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        experiments3d.saved_model(config, "nowhere")
