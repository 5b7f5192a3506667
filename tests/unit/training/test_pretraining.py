"""Pre-training: crops inside the pictures, a loss that is the noise's error and goes down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_gpu import Card, fake_gpu, pictures_on_gpu
from tiny_models import cases, tiny_unet
from torch.utils._pytree import tree_leaves

from textdiff.data.cases import Case
from textdiff.data.images.transforms import dihedral
from textdiff.models.unet import UNet
from textdiff.training import pretraining
from textdiff.training.fit import Optimisation
from textdiff.training.pretraining import CropPool, Denoising, drawing_on, pretrain


def crops(pool: CropPool, count: int) -> torch.Tensor:
    return pool.batch(range(count))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class SeededBy:
    """A generator that only says what seeded it."""

    def manual_seed(self, seed: int) -> SeededBy:
        self.seed = seed
        return self


def numbered(size: int = 16) -> Case:
    """A picture whose pixels say where they are."""
    grid = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    return Case("numbered", "", image_array=np.stack([grid] * 3, axis=-1))


def flat(count: int = 3) -> list[Case]:
    """Pictures of one colour each: as easy as data can be."""
    return [Case(f"flat{i}", "", image_array=np.full((8, 8, 3), 60 * i, dtype=np.uint8)) for i in range(count)]


def test_crops_lie_inside_and_reach_every_corner():
    drawn = ((crops(CropPool([numbered()], 16, 6, symmetries=(0,)), 800) + 1) * 127.5).round().long()
    assert drawn.shape == (800, 3, 6, 6)
    assert torch.equal(drawn, drawn[:, :, :1, :1] + 16 * torch.arange(6)[:, None] + torch.arange(6))
    corners = set(drawn[:, 0, 0, 0].tolist())
    assert len(corners) > 110 and {0, 10, 160, 170} <= corners <= {
        16 * row + column for row in range(11) for column in range(11)
    }


def test_scales_and_symmetries_are_all_used():
    whole = crops(CropPool([numbered()], 16, 16, symmetries=(0,)), 2)
    assert torch.equal(whole[0], whole[1]) and whole.min() == -1 and whole.max() == 1
    halves = np.zeros((16, 16, 3), dtype=np.uint8)
    halves[:, 8:] = 255
    drawn = crops(CropPool([Case("halves", "", image_array=halves)], 16, 16, scales=(1, 2), symmetries=(0, 4)), 60)
    shares = {round(float(crop.mean()), 1) for crop in drawn}
    assert {-1.0, 1.0} & shares and 0.0 in shares  # a crop of the doubled picture may see one half only
    left = {round(float(crop[:, :, 0].mean())) for crop in drawn if abs(crop.mean()) < 0.01}
    assert left == {-1, 1}


def test_number_and_seed_decide():
    a, b, c = (crops(CropPool(cases(3), 16, 8, seed=seed), 4) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a[0], a[1])


@pytest.mark.parametrize("symmetries", [range(8), (0, 4)])
def test_a_batch_is_its_crops_one_by_one_however_it_is_cut(symmetries):
    """A card gathers pixels by their places in the pool, a processor copies patches; and the numbers may be any."""
    pool = CropPool(cases(3, 20), 20, 8, (1.0, 2.0, 1.5), symmetries, seed=2)
    numbers = [3, 40, 7, 0, 11, 25, 6]
    batch, places = pool.batch(numbers), [pool._place(number) for number in numbers]
    assert batch.shape == (7, 3, 8, 8) and batch.dtype == torch.float32 and len({scale for scale, *_ in places}) > 1
    assert all(torch.equal(one, pool.sample(number)) for one, number in zip(batch, numbers, strict=True))
    for one, (scale, image, top, left, turn) in zip(batch, places, strict=True):
        patch = pool.stacks[scale][image][:, top : top + 8, left : left + 8]
        assert torch.equal(one, dihedral(patch, turn).float() / 127.5 - 1)
    gathered = pool._gathered(places, *pool._pool.tensors)
    assert gathered.dtype == torch.uint8 and torch.equal(gathered, pool._copied(places))


def test_crops_are_cut_where_they_are_wanted():
    assert CropPool(cases(3), 16, 8).batch(range(2), "meta").device.type == "meta"


def test_pools_that_cannot_be():
    with pytest.raises(ValueError, match="no images to pre-train on"):
        CropPool([], 16, 8)
    with pytest.raises(ValueError, match=r"crop of 9 pixels from images of 8 \(image_size 16, scales \(0.5, 1\)\)"):
        CropPool([numbered()], 16, 9, scales=(0.5, 1))
    with pytest.raises(ValueError, match="precision 'float16'"):
        Denoising(tiny_unet(), "float16")


def test_the_loss_goes_down_on_flat_pictures():
    unet = UNet(16, 3, 32, 3, 1, (), channel_mult=(1, 2), resblock_updown=True)
    how = Optimisation(24, 8, 3e-3, warmup=3, ema_decay=0.999, validate_every=6)
    trained, history = pretrain(unet, CropPool(flat(), 8, 8), how, precision="float32", progress=False)
    losses = [row["loss"] for row in history]
    assert [row["step"] for row in history] == [6, 12, 18, 24]
    assert 0.3 < losses[0] < 1.5 and losses[-1] < 0.7 * losses[0]
    assert trained is unet and not unet.training


def test_the_loss_is_the_error_of_the_noise():
    """Of a network that always guesses 0: the noise's own square, and the same again from the same generator."""
    silent = tiny_unet()
    torch.nn.init.zeros_(silent.out[-1].weight)
    torch.nn.init.zeros_(silent.out[-1].bias)
    model, batch = Denoising(silent, "float32"), torch.zeros(8, 3, 16, 16)
    first, again = (model.loss(batch, torch.Generator().manual_seed(1))["loss"] for _ in range(2))
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, again) and first.item() == pytest.approx(float(noise.square().mean()))


def test_a_processor_draws_what_it_is_given_and_a_card_for_itself(monkeypatch):
    given = torch.Generator().manual_seed(1)
    assert drawing_on(torch.device("cpu"), given) is given
    made, generators = [], [seeded(1), seeded(1), seeded(2)]
    monkeypatch.setattr(pretraining.torch, "Generator", lambda device: made.append(device) or SeededBy())
    seeds = [drawing_on(torch.device("cuda:1"), given).seed for given in generators]
    assert seeds[0] == seeds[1] != seeds[2] and {str(device) for device in made} == {"cuda:1"}


def test_the_loss_is_computed_where_the_batch_is():
    with fake_gpu(Denoising(tiny_unet(), "float32")) as (model,), torch.random.fork_rng(devices=[]):
        card = torch.Generator()  # stands for one that draws there, which this build of torch has not
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pretraining, "drawing_on", lambda device, generator: None)
            assert model.loss(pictures_on_gpu(2), card)["loss"].device.type == "cuda"


def test_the_loss_asks_a_card_for_nothing(monkeypatch):
    """Whatever comes back to the processor, a number or a tensor, makes it wait until the card has done all its work."""
    asked, dispatch = [], Card.__torch_dispatch__

    def watched(card, func, types, args=(), kwargs=None):
        out = dispatch(card, func, types, args, kwargs)
        given = {value.device.type for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        got = {value.device.type for value in tree_leaves(out) if isinstance(value, torch.Tensor)}
        if func is torch.ops.aten._local_scalar_dense.default or ("cuda" in given and "cpu" in got):
            asked.append(str(func))
        return out

    monkeypatch.setattr(pretraining, "drawing_on", lambda device, generator: None)
    with fake_gpu(Denoising(tiny_unet(), "float32")) as (model,), torch.random.fork_rng(devices=[]):
        batch = pictures_on_gpu(2)
        monkeypatch.setattr(Card, "__torch_dispatch__", watched)
        model.loss(batch, torch.Generator())
        assert not asked
        batch.cpu()  # the watch is not asleep
    assert asked
