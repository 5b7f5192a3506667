"""Pre-training: crops inside the pictures, a loss that goes down, runs that continue to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import cases, tiny_unet

from textdiff.data.cases import Case
from textdiff.models.unet import UNet
from textdiff.training.pretraining import CropPool, pretrain


class Stop(Exception):
    pass


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(size: int = 16) -> Case:
    """A picture whose pixels say where they are."""
    grid = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    return Case("numbered", "", image_array=np.stack([grid] * 3, axis=-1))


def flat(count: int = 3) -> list[Case]:
    """Pictures of one colour each: as easy as data can be."""
    return [Case(f"flat{i}", "", image_array=np.full((8, 8, 3), 60 * i, dtype=np.uint8)) for i in range(count)]


def network() -> UNet:
    torch.manual_seed(0)
    return tiny_unet()


def test_crops_lie_inside_and_reach_every_corner():
    pool = CropPool([numbered()], 16, 6, symmetries=(0,))
    crops = ((pool.draw(400, generator()) + 1) * 127.5).round().long()
    assert crops.shape == (400, 3, 6, 6)
    expected = crops[:, :, :1, :1] + 16 * torch.arange(6)[:, None] + torch.arange(6)
    assert torch.equal(crops, expected)
    corners = set(crops[:, 0, 0, 0].tolist())
    assert corners == {16 * row + column for row in range(11) for column in range(11)} or len(corners) > 100
    assert {0, 10, 160, 170} <= corners


def test_a_crop_may_be_the_whole_picture():
    crops = CropPool([numbered()], 16, 16, symmetries=(0,)).draw(2, generator())
    assert torch.equal(crops[0], crops[1]) and crops.min() == -1 and crops.max() == 1


def test_scales_and_symmetries_are_all_used():
    halves = np.zeros((16, 16, 3), dtype=np.uint8)
    halves[:, 8:] = 255
    pool = CropPool([Case("halves", "", image_array=halves)], 16, 16, scales=(1, 2), symmetries=(0, 4))
    crops = pool.draw(60, generator())
    shares = {round(float(crop.mean()), 1) for crop in crops}
    assert {-1.0, 1.0} & shares and 0.0 in shares  # a crop of the doubled picture may see one half only
    left = {round(float(crop[:, :, 0].mean())) for crop in crops if abs(crop.mean()) < 0.01}
    assert left == {-1, 1}


def test_the_generator_decides():
    pool = CropPool(cases(3), 16, 8)
    a, b, c = (pool.draw(4, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_pools_that_cannot_be():
    with pytest.raises(ValueError, match="no images to pre-train on"):
        CropPool([], 16, 8)
    with pytest.raises(ValueError, match=r"crop of 9 pixels from images of 8 \(image_size 16, scales \(0.5, 1\)\)"):
        CropPool([numbered()], 16, 9, scales=(0.5, 1))


def test_the_loss_goes_down_on_flat_pictures():
    unet = UNet(16, 3, 32, 3, 1, (), channel_mult=(1, 2), resblock_updown=True)
    average, history = pretrain(
        unet, CropPool(flat(), 8, 8), 40, 8, 3e-3, warmup=5, precision="float32", progress=False
    )
    losses = [row["loss"] for row in history]
    assert [row["step"] for row in history] == [10, 20, 30, 40]
    assert 0.3 < losses[0] < 1.5 and losses[-1] < 0.7 * losses[0]
    assert not average.training


def test_the_average_follows_the_network():
    pool = CropPool(flat(), 8, 8)
    options = dict(steps=6, batch_size=2, learning_rate=1e-2, warmup=1, precision="float32", progress=False)
    unet = network()
    average, _ = pretrain(unet, pool, ema_decay=0.0, **options)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), unet.parameters(), strict=True))
    slow = network()
    average, _ = pretrain(slow, pool, ema_decay=0.999, **options)
    start = network()
    distances = [
        sum((a - b).square().sum() for a, b in zip(one.parameters(), two.parameters(), strict=True))
        for one, two in ((average, start), (average, slow), (slow, start))
    ]
    assert 0 < distances[0] < distances[2] and 0 < distances[1] < distances[2]  # on the way
    assert all(torch.equal(a, b) for a, b in zip(slow.parameters(), unet.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(tmp_path, precision):
    pool, path = CropPool(cases(3), 16, 8), tmp_path / "c.safetensors"
    options = dict(steps=9, batch_size=2, learning_rate=1e-3, warmup=3, precision=precision, progress=False)
    whole, interrupted, continued = network(), network(), network()
    expected, _ = pretrain(whole, pool, **options)

    class Interrupting(CropPool):
        drawn = 0

        def draw(self, count, generator):
            self.drawn += 1
            if self.drawn > 5:
                raise Stop
            return super().draw(count, generator)

    with pytest.raises(Stop):
        pretrain(interrupted, Interrupting(cases(3), 16, 8), checkpoint=path, checkpoint_every=2, **options)
    average, history = pretrain(continued, pool, checkpoint=path, checkpoint_every=2, **options)
    assert history[-1]["step"] == 9
    for a, b in ((average, expected), (continued, whole)):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_checkpoint_of_other_settings_or_another_network_is_refused(tmp_path):
    pool, path = CropPool(flat(), 8, 8), tmp_path / "c.safetensors"
    options = dict(batch_size=1, precision="float32", checkpoint=path, progress=False)
    pretrain(network(), pool, 1, **options)
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        pretrain(network(), pool, 2, **options)
    with pytest.raises(ValueError, match="do not fit this UNet"):
        pretrain(tiny_unet(num_res_blocks=2), pool, 1, **options)


def test_a_rate_far_too_high_ends_in_words(monkeypatch):
    unet = network()
    with torch.no_grad():
        unet.out[-1].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss became nan at step 0"):
        pretrain(unet, CropPool(flat(), 8, 8), 1, 1, precision="float32", progress=False)


def test_unknown_precision():
    with pytest.raises(ValueError, match="precision 'float16'"):
        pretrain(network(), CropPool(flat(), 8, 8), 1, 1, precision="float16", progress=False)
