"""Every path of the models on a graphics card, without one: tensors of two devices never meet, and none has 64-bit floats."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from fake_gpu import GPU, fake_gpu, pictures_on_gpu
from tiny_models import tiny_features, tiny_textdiff
from torch import Tensor, nn

from textdiff.base import cache as cache_module
from textdiff.base.cache import FeatureCache
from textdiff.data.images.views import ImageBatch
from textdiff.data.volumes.patches import Preprocessing, VolumeBatch
from textdiff.data.volumes.volume import Volume
from textdiff.models.baselines import BASELINES, BASELINES_3D, VolumeNetwork, build_baseline, build_baseline_3d
from textdiff.models.diffusion import Diffusion, Sampler, Sampling
from textdiff.models.text import TextEncoder
from textdiff.models.textdiff import HEADS
from textdiff.models.textdiffseg import TextDiffSeg

CAPTIONS = ["The nuclei are evenly distributed.", "The nuclei density in the upper left is high."]
NAMES = ("background", "liver", "left kidney")
SIDE = 16


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return TextEncoder.from_pretrained("tiny", max_length=16)


class InMemory(FeatureCache):
    """A cache whose entries are on the CPU, as those of a disk are."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Tensor]] = {}

    def get(self, group: str, keys: Sequence[str]) -> tuple[list[Tensor], list[int]]:
        known = {key: self.entries[key] for key in keys if key in self.entries}
        anything = next(iter(known.values()), [])
        rows = zip(*(known.get(key, anything) for key in keys), strict=True)
        return [torch.stack(row) for row in rows], [i for i, key in enumerate(keys) if key not in known]

    def put(self, group: str, keys: Sequence[str], maps: Sequence[Tensor]) -> None:
        self.entries |= {key: [one[i].cpu() for one in maps] for i, key in enumerate(keys)}


def image_batch(size: int = SIDE) -> ImageBatch:
    return ImageBatch(pictures_on_gpu(2, size), torch.zeros(2, size, size, dtype=torch.int64).to(GPU), CAPTIONS)


def volume_batch(distances: bool = True) -> VolumeBatch:
    shape = (2, SIDE, SIDE, SIDE)
    images, labels = torch.zeros(2, 4, *shape[1:]), torch.zeros(shape, dtype=torch.int64)
    return VolumeBatch(images, labels, torch.zeros(2, 2, *shape[1:]) if distances else None, ["liver"] * 2).to(GPU)


def textdiffseg(text: TextEncoder | None, **options) -> TextDiffSeg:
    sizes = {"widths": (4, 8, 16), "denoiser_widths": (16, 32), "latent_channels": 4}
    return TextDiffSeg(text, NAMES, Preprocessing(None, None, (SIDE,) * 3), **sizes, **options).eval()


def test_the_card_refuses_what_a_card_refuses():
    with fake_gpu(nn.Linear(2, 2)) as (linear,):
        with pytest.raises(RuntimeError, match="same device"):
            linear(torch.zeros(1, 2))
        with pytest.raises(AssertionError, match="64-bit floats"):
            torch.zeros(2, dtype=torch.float64).to(GPU)


@pytest.mark.parametrize(("stored", "precision"), [(0, "float32"), (1, "float32"), (1, "bfloat16"), (2, "float32")])
def test_a_batch_of_features_of_which_some_are_cached_is_on_one_device(stored, precision, monkeypatch):
    features = tiny_features(precision=precision, cache=InMemory())
    numbers = itertools.cycle(range(2))  # fake pixels have nothing to be told apart by
    monkeypatch.setattr(cache_module, "key_of", lambda image: str(next(numbers)))
    with fake_gpu(features) as (there,):
        images = pictures_on_gpu(2)
        if stored:
            there(images[:stored])
        maps = there(images)
        assert len(there.cache.entries) == 2
        assert all(one.device.type == "cuda" and one.dtype == torch.float32 and len(one) == 2 for one in maps)


@pytest.mark.parametrize(
    ("head", "fusion"), [*((head, "attention") for head in HEADS), ("compact", "pooled"), ("compact", "none")]
)
def test_textdiff(text, head, fusion):
    options = vars(HEADS[head]) | {"dim": 16, "hidden": (8, 8), "fusion": fusion, "positions": True}
    model = tiny_textdiff(None if fusion == "none" else text, **options).eval()
    with fake_gpu(model) as (there,):
        assert there.loss(image_batch())["loss"].device.type == "cuda"
        picture = np.zeros((20, 30, 3), np.uint8)
        if head == "compact":
            assert there.predict(picture, CAPTIONS[0], probabilities=fusion == "none").shape[-2:] == (20, 30)
        if head == "compact" and fusion == "attention":
            assert there.look(picture, CAPTIONS[0])[1].shape[1:] == (20, 30)


def test_a_text_encoder_on_either_device_serves_a_model_on_the_card(text):
    model = tiny_textdiff(None, fusion="none").eval()
    with fake_gpu(text) as (there,):
        for _ in range(2):  # made, then remembered
            tokens, mask = there(CAPTIONS)
            assert tokens.device.type == mask.device.type == "cuda"
    reading = tiny_textdiff(text, init="default").eval()
    with fake_gpu(reading.head, reading.features, model) as (head, features, _):
        reading.head, reading.features = head, features  # the encoder stays where it was
        assert reading(pictures_on_gpu(2), CAPTIONS).device.type == "cuda"


@pytest.mark.parametrize("name", BASELINES)
def test_2d_baselines(text, name):
    model = build_baseline(name, 2, text=text).eval()
    with fake_gpu(model) as (there,):
        assert there.loss(image_batch(64))["loss"].device.type == "cuda"


@pytest.mark.parametrize("name", BASELINES_3D)
def test_3d_baselines(name):
    # UNETR is asked for 32 x 32 x 32 voxels, which it answers in few windows
    net = build_baseline_3d(name, 3, patch=(32, 32, 16))
    model = VolumeNetwork(net, NAMES, Preprocessing(None, None, (SIDE,) * 3)).eval()
    with fake_gpu(model) as (there,):
        batch = volume_batch(distances=False)
        logits = there.net(batch.images)
        there.net.forward = lambda images: logits
        assert there.loss(batch)["loss"].device.type == there.segment(batch.images, []).device.type == "cuda"


@pytest.mark.parametrize(
    "options",
    [
        {"prediction": "v_prediction"},
        {"prediction": "epsilon", "text": None, "label_encoder": False},
        {"image_features": False},
    ],
    ids=str,
)
def test_textdiffseg(text, options):
    with fake_gpu(textdiffseg(**{"text": text} | options)) as (there,):
        batch = volume_batch()
        parts = there.loss(batch, torch.Generator().manual_seed(0))
        assert {part.device.type for part in parts.values()} == {"cuda"}
        assert there.segment(batch.images, batch.prompts, Sampling(1)).shape == (2, 3, SIDE, SIDE, SIDE)


def test_a_volume_by_textdiffseg(text):
    with fake_gpu(textdiffseg(text)) as (there,):
        batch = volume_batch()
        decoded = there.autoencoded(batch.labels, batch.distances, batch.images)
        assert {part.device.type for part in decoded} == {"cuda"}
        assert there.attention(batch.images, batch.prompts).device.type == "cuda"
        assert there.loss(batch, torch.Generator().manual_seed(0))["loss"].device.type == "cuda"
        draw = np.random.default_rng(0).random((17, SIDE, SIDE), dtype=np.float32)
        sampling = Sampling(2, "ddpm", samples=2)
        found = there.predict(
            Volume(draw, np.diag([-1.0, -1, 1, 1])), "liver", sampling, uncertainty=True, progress=False
        )
        assert found.labels.shape == found.uncertainty.shape == (17, SIDE, SIDE)


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_pictures_are_drawn_on_the_card(sampler):
    unet = tiny_features().unet
    with fake_gpu(unet) as (there,):
        drawn = Diffusion(respacing=3).sample(there, (2, 3, SIDE, SIDE), sampler, device=GPU, progress=False)
        assert drawn.device.type == "cuda"
