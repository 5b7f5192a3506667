"""A backbone is trained once, kept, and read again; what it draws has the shape that was asked for."""

from __future__ import annotations

import pytest
import torch

from textdiff.experiments import pretraining
from textdiff.experiments.places import kept_model
from textdiff.experiments.pretraining import PretrainConfig, crops
from textdiff.models.store import load_backbone


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path))
    small = {"image_size": 32, "crop": 16, "scales": "1", "channel_mult": "1,2", "attention_resolutions": "2"}
    return PretrainConfig.from_params(**small, iterations=2, batch_size=2, n_samples=3, sampling_steps=2)


def test_a_backbone_is_trained_once_and_kept(config, monkeypatch):
    unet, history = pretraining.kept_backbone(config)
    monkeypatch.setattr(pretraining, "pretrained", None)
    again, read = pretraining.kept_backbone(config)
    assert history.equals(read) and list(read["step"]) == [2]
    assert all(torch.equal(a, b) for a, b in zip(unet.state_dict().values(), again.state_dict().values(), strict=True))
    assert load_backbone(str(kept_model(config.run_id))).output_blocks
    assert pretraining.samples(config, unet).shape == (3, 3, 16, 16)


def test_crops_are_those_of_the_configuration(config):
    pool = crops(config)
    assert pool.sample(0).shape == (3, 16, 16)
    assert torch.equal(pool.sample(7), crops(config).sample(7))
