"""A model without the picture: it answers every picture alike, and the places of the sentence are all that it can learn."""

from __future__ import annotations

import torch
from tiny_models import pictures, tiny_features, tiny_head, tiny_textdiff, tiny_unet

from textdiff import TextDiff, TextEncoder
from textdiff.base.cache import FeatureCache
from textdiff.experiments.images import TextDiffConfig, build_features
from textdiff.models.blind import BlindFeatures
from textdiff.models.features import DiffusionFeatures
from textdiff.models.store import architecture_of, weights_identity


def test_the_maps_are_empty_and_shaped_like_those_of_the_network():
    seen, blind = tiny_features()(pictures(2)), BlindFeatures(tiny_unet(), (0, 2), (50, 250))(pictures(2))
    assert [one.shape for one in blind] == [one.shape for one in seen]
    assert not any(one.any() for one in blind) and all(one.any() for one in seen)


def test_a_head_answers_every_picture_alike_and_every_sentence_for_itself():
    features = BlindFeatures(tiny_unet(), (0, 2))
    head = tiny_head(tuple(features.channels), positions=True).eval()
    tokens = torch.randn(1, 5, 10, generator=torch.Generator().manual_seed(0))
    maps = features(pictures(2))
    first, second = head(maps, torch.cat([tokens, tokens]), None, (16, 16))
    assert torch.allclose(first, second)
    first, second = head(maps, torch.cat([tokens, -tokens]), None, (16, 16))
    assert not torch.allclose(first, second)


def test_a_saved_model_stays_blind(tmp_path):
    features = BlindFeatures(tiny_unet(), (0, 2), (50,))
    model = tiny_textdiff(TextEncoder.from_pretrained("tiny"), features=features, positions=True)
    model.save_pretrained(tmp_path / "model")
    again = TextDiff.from_pretrained(tmp_path / "model")
    assert type(again.features) is BlindFeatures
    one, other = again(pictures(2), ["upper left lung."] * 2).detach()
    assert torch.equal(one, other)


def test_the_name_before_a_backbone_asks_for_it_and_needs_no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path))
    common = {"mode": "demo", "dataset": "chest_phantoms"}
    config = TextDiffConfig.resolved(**common, backbone="blind:phantoms_32")
    seeing = TextDiffConfig.resolved(**common, backbone="phantoms_32")
    assert type(build_features(config)) is BlindFeatures and type(build_features(seeing)) is not BlindFeatures
    assert architecture_of(config.backbone) == "phantoms_32" and config.blocks == seeing.blocks
    assert len({weights_identity(f"{kind}phantoms_32") for kind in ("blind:", "random:", "redrawn:", "")}) == 4


def test_a_cache_that_has_seen_the_picture_does_not_tell(tmp_path):
    for kind in (DiffusionFeatures, BlindFeatures):
        maps = kind(tiny_unet(), (0, 2), (50,), cache=FeatureCache(tmp_path))(pictures(1))
    assert not any(one.any() for one in maps)
