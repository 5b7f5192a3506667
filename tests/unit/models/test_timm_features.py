"""A timm network in the UNet's place: the same interface, cache, head and storage."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from tiny_models import pictures, tiny_textdiff

from textdiff.base.cache import FeatureCache
from textdiff.base.checkpoints import write_checkpoint
from textdiff.data.images.views import ImageBatch
from textdiff.models.import_timm import import_timm
from textdiff.models.text import TextEncoder
from textdiff.models.textdiff import TextDiff
from textdiff.models.timm_features import TimmFeatures

NAME = "mobilenetv3_small_050"
CAPTIONS = ["The nuclei are evenly distributed.", "The nuclei density in the upper left is high."]


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'textdiff\[timm\]'"):
        TimmFeatures(NAME)


@pytest.fixture
def timm():
    if find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'textdiff[timm]'")
    return import_timm()


def build(seed: int = 0, **options: object) -> TimmFeatures:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TimmFeatures(NAME, **{"out_indices": (1, 2), **options})


def test_maps_have_the_announced_channels_and_strides(timm):
    features, images = build().train(), pictures(2, 64)
    maps = features(images)
    assert [h.shape for h in maps] == [
        (2, c, 64 // s, 64 // s) for c, s in zip(features.channels, features.strides, strict=True)
    ]
    assert not features.network.training and not any(p.requires_grad for p in features.parameters())


def test_of_a_torchvision_that_is_not_installed_nothing_is_left_behind(timm):
    said = "import sys; from textdiff.models.import_timm import import_timm as load; t = load()"
    said += "; assert t.create_model; print([m for m in sys.modules if m.startswith('torchvision')])"
    left = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout
    assert find_spec("torchvision") is not None or left.strip() == "[]"


def test_enlarged_images_give_as_many_times_finer_maps(timm):
    features, images = build(enlarge=2), pictures(2, 64)
    assert features.strides == [stride // 2 for stride in build().strides]
    maps = features(images)
    assert [h.shape[2:] for h in maps] == [(64 // s, 64 // s) for s in features.strides]
    larger = torch.nn.functional.interpolate(images, size=128, mode="bilinear")
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(maps, build()(larger), strict=True))
    for factor in (0, 3, 8):
        with pytest.raises(ValueError, match=f"enlarge={factor}: must divide the strides of the maps"):
            build(enlarge=factor)


def test_in_bfloat16_the_maps_alone_are_rounded(timm):
    images = pictures(2, 64)
    rounded, exact = build(precision="bfloat16").maps(images), build()(images)
    assert all(one.dtype == torch.bfloat16 for one in rounded)
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(rounded, exact, strict=True))


def test_images_are_brought_to_what_the_network_was_trained_with(timm):
    features, images = build(), pictures(1, 64)
    about = timm.get_pretrained_cfg(NAME)
    mean, deviation = (torch.tensor(row).reshape(1, 3, 1, 1) for row in (about.mean, about.std))
    with torch.no_grad():
        expected = features.network((images * 0.5 + 0.5 - mean) / deviation)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(features(images), expected, strict=True))


def test_weights_from_a_file_and_a_cache_that_tells_them_apart(timm, tmp_path, caplog):
    torch.manual_seed(5)
    whole = timm.create_model(NAME)
    write_checkpoint(tmp_path / "weights.safetensors", whole.state_dict())
    cache, images = FeatureCache(tmp_path / "cache"), pictures(2, 64)
    drawn = build(cache=cache)(images)
    loaded = build(weights=tmp_path / "weights.safetensors", cache=cache)
    assert torch.equal(loaded.network.conv_stem.weight, whole.conv_stem.weight)
    assert not caplog.records, "the classifier, which maps do without, is nothing to warn of"
    read = loaded(images)
    assert not torch.allclose(drawn[0], read[0]) and torch.equal(loaded(images)[0], read[0])
    state = whole.state_dict()
    state["stem.weight"] = state.pop("conv_stem.weight")
    write_checkpoint(tmp_path / "other.safetensors", state)
    with pytest.raises(ValueError, match=r"(?s)missing \(1\): conv_stem.weight.*unexpected \(1\): stem.weight"):
        build(weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(("name", "indices"), [("no_such_network", (1,)), (NAME, (1, 99))])
def test_what_timm_does_not_have_is_refused(timm, name, indices):
    with pytest.raises(ValueError, match=f"timm builds no '{name}'"):
        TimmFeatures(name, indices)


def test_textdiff_trains_on_it_and_comes_back_from_disk(timm, tmp_path):
    text = TextEncoder.from_pretrained("tiny")
    model = tiny_textdiff(text, features=build(enlarge=2), image_size=64)
    batch = ImageBatch(pictures(2, 64), torch.zeros(2, 64, 64, dtype=torch.int64), CAPTIONS)
    model.loss(batch)["loss"].backward()
    assert all(p.grad is not None for p in model.head.parameters())
    model.eval().save_pretrained(tmp_path)
    loaded = TextDiff.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(batch.images, CAPTIONS), model(batch.images, CAPTIONS))
