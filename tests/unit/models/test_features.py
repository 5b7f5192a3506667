"""Frozen features and their cache: the same numbers with and without it, and no run lost to a disk or a kill."""

from __future__ import annotations

import errno
import math
import warnings
from pathlib import Path

import pytest
import torch
from tiny_models import entries, pictures, tiny_features, tiny_unet

from textdiff.base import memory
from textdiff.base.cache import FeatureCache
from textdiff.data.images.transforms import dihedral
from textdiff.models.features import DiffusionFeatures


class Passes:
    """Counts the images that go through a UNet."""

    def __init__(self, features: DiffusionFeatures) -> None:
        self.images = 0
        self.inputs: list[tuple[torch.Tensor, int]] = []
        decode = features.unet.decode

        def counted(x, timesteps, blocks, y=None):
            self.images += len(x)
            self.inputs.append((x, int(timesteps[0])))
            return decode(x, timesteps, blocks, y)

        features.unet.decode = counted


def cached(tmp_path: Path, **changes: object) -> DiffusionFeatures:
    return tiny_features(cache=FeatureCache(tmp_path / "cache"), **changes)


# --- the maps -------------------------------------------------------------------------------------------


def test_steps_follow_each_other_along_the_channels():
    both, first, second = (tiny_features(steps=s)(pictures(1)) for s in ((250, 50), (250,), (50,)))
    for k in range(2):
        torch.testing.assert_close(both[k], torch.cat([first[k], second[k]], dim=1))


def test_all_images_and_steps_share_one_noise_map():
    features = tiny_features(steps=(0, 500, 999))
    passes = Passes(features)
    x0 = pictures(3)
    features(x0)
    noise = features.noise((3, 16, 16))
    assert noise.shape == (1, 3, 16, 16) and noise.std() == pytest.approx(1, abs=0.1)
    assert len(passes.inputs) == 3 * 3
    for k, (x_t, step) in enumerate(passes.inputs):
        abar, image = float(features.diffusion.alphas_cumprod[step]), x0[k // 3 : k // 3 + 1]
        torch.testing.assert_close(x_t, math.sqrt(abar) * image + math.sqrt(1 - abar) * noise, rtol=0, atol=1e-5)


def test_noise_depends_on_the_seed_alone():
    before = torch.random.get_rng_state()
    a, b, other = (tiny_features(noise_seed=seed).noise((3, 8, 8)) for seed in (40, 40, 41))
    assert torch.equal(a, b) and not torch.equal(a, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.allclose(tiny_features()(pictures(1))[0], tiny_features(noise_seed=41)(pictures(1))[0], atol=1e-3)


def test_bfloat16_is_close_to_float32_and_rounded():
    exact, rounded = tiny_features()(pictures(2)), tiny_features(precision="bfloat16")(pictures(2))
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b).square().mean().sqrt() < 0.03 * a.std()
        assert torch.equal(b, b.bfloat16().float())


def test_the_network_is_frozen_and_stays_in_eval_mode():
    features = tiny_features()
    features.train()
    assert not features.unet.training and not any(p.requires_grad for p in features.parameters())
    parent = torch.nn.Sequential(features).train()
    assert parent.training and not features.unet.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": (0, 4)}, r"decoder blocks \[0, 4\]: this UNet has blocks 0 to 3"),
        ({"blocks": ()}, "name at least one"),
        ({"steps": (50, 1000)}, r"noise steps \[50, 1000\]: .* from 0 to 999"),
        ({"steps": (-1,)}, r"noise steps \[-1\]"),
        ({"steps": ()}, "give at least one"),
        ({"steps": (5, 5)}, "each once"),
        ({"precision": "float16"}, "precision 'float16': known are 'float32', 'bfloat16'"),
        ({"noise_schedule": "square"}, "noise_schedule='square': choose one of linear, cosine"),
    ],
)
def test_wrong_settings_are_refused_when_built(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_features(**changes)


def test_images_that_do_not_fit_are_refused(tmp_path):
    for features in (tiny_features(), cached(tmp_path)):
        with pytest.raises(ValueError, match=r"floating-point numbers in \[-1, 1\], got torch.uint8"):
            features(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
        with pytest.raises(ValueError, match="image size 17x16: .* nearest that would do is 16x16"):
            features(torch.zeros(1, 3, 17, 16))


# --- the cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_hit_equals_the_computation_bit_for_bit(tmp_path, precision):
    features, x = cached(tmp_path, precision=precision), pictures(1)
    computed = tiny_features(precision=precision)(x)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(features(x), computed, strict=True))
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_maps_of_an_image_do_not_tell_its_company(tmp_path, precision):
    """To the bit: alone, in batches of any size, at any place in them, and whoever filled the cache."""
    images, plain = pictures(5, 32), tiny_features(precision=precision)
    alone = [plain(images[i : i + 1]) for i in range(5)]
    for batch in ([0, 1], [2, 1, 0], [4, 3, 0, 1, 2]):
        stored = cached(tmp_path / f"{len(batch)}", precision=precision)
        for features in (plain, stored, stored):  # computed, stored, read
            maps = features(images[batch])
            for row, i in enumerate(batch):
                assert all(torch.equal(one[row], own[0]) for one, own in zip(maps, alone[i], strict=True)), (batch, i)


def test_eight_views_cost_no_pass_in_the_second_epoch(tmp_path):
    features, image = cached(tmp_path), pictures(1)[0]
    passes = Passes(features)
    views = [dihedral(image, k).contiguous() for k in range(8)]
    first = [features(view[None]) for view in views]
    assert passes.images == 8 * len(features.steps) and len(entries(tmp_path)) == 8
    for order in (range(7, -1, -1), range(8)):
        batch = features(torch.stack([views[k] for k in order]))
        assert all(torch.equal(batch[0][i], first[k][0][0]) for i, k in enumerate(order))
    assert passes.images == 8 * len(features.steps)


def test_a_card_is_given_whole_groups_of_one_size(monkeypatch):
    """The processor takes itself for a card whose memory takes two images at once."""
    monkeypatch.setattr(memory, "TOGETHER", {"cpu": 4})
    features, images = tiny_features(steps=(50,)), pictures(6)
    passes, decode = Passes(features), features.unet.decode

    def narrow(x, timesteps, blocks):
        maps = decode(x, timesteps, blocks)
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return maps

    features.unet.decode, most = narrow, 4
    expected = features(images)
    assert [len(x) for x, _ in passes.inputs] == [4, 4] and all(len(one) == 6 for one in expected)
    passes.inputs.clear()
    most = 2
    found = features(images)
    assert [len(x) for x, _ in passes.inputs] == [4, 2, 2, 2, 2]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_only_missing_images_of_a_batch_are_computed(tmp_path):
    x = pictures(4)
    cached(tmp_path)(x[:2])
    features = cached(tmp_path)  # another object finds the entries
    passes = Passes(features)
    maps = features(x[[3, 0, 2, 1]])
    assert passes.images == 2 * len(features.steps)
    torch.testing.assert_close(maps[0], tiny_features()(x[[3, 0, 2, 1]])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": (0, 3)},
        {"blocks": (2, 0)},
        {"steps": (50, 251)},
        {"noise_seed": 41},
        {"noise_schedule": "cosine"},
        {"precision": "bfloat16"},
        {"seed": 1},
    ],
)
def test_other_settings_and_weights_have_other_entries(tmp_path, changes):
    cached(tmp_path)(pictures(1))
    other = cached(tmp_path, **changes)
    passes = Passes(other)
    other(pictures(1))
    assert passes.images == len(other.steps) and len(entries(tmp_path)) == 2


def test_other_pixels_have_other_entries(tmp_path):
    features, x = cached(tmp_path), pictures(1)
    x[0, 0, 0, 0] = 0.5
    nearly = x.clone()
    nearly[0, 0, 0, 0] += 1e-6
    for images in (x, nearly, x.transpose(-1, -2), x.reshape(1, 3, 8, 32)):
        features(images)
    assert len(entries(tmp_path)) == 4


def test_weights_loaded_later_are_noticed(tmp_path):
    features = cached(tmp_path)
    before = features(pictures(1))[0]
    features.unet.load_state_dict(tiny_unet(5).state_dict())
    after = features(pictures(1))[0]
    assert not torch.equal(before, after) and torch.equal(after, tiny_features(5)(pictures(1))[0])


def test_uncached_neither_reads_nor_writes(tmp_path):
    features = cached(tmp_path)
    with features.caching(None):
        features(pictures(1))
    assert not entries(tmp_path) and features.cache is not None
    with pytest.raises(RuntimeError), features.caching(None):
        raise RuntimeError
    assert features.cache is not None


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_file_is_computed_again_with_a_warning(tmp_path, damage):
    x = pictures(1)
    whole = cached(tmp_path)(x)
    (path,) = tmp_path.rglob("*.maps")
    path.write_bytes(damage(path.read_bytes()))
    features = cached(tmp_path)
    with pytest.warns(UserWarning, match=f"damaged cache file.*{path.name}"):
        again = features(x)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(x)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_costs_the_entry_not_the_run(tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, "no room")

    monkeypatch.setattr(Path, "write_bytes", full)
    features = cached(tmp_path)
    with pytest.warns(UserWarning, match="nothing is stored in the feature cache, going on without"):
        maps = features(pictures(1))
    assert torch.equal(maps[0], tiny_features()(pictures(1))[0])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    there = tiny_features().cuda()(pictures(2).cuda())
    for a, b in zip(there, tiny_features()(pictures(2)), strict=True):
        assert a.is_cuda
        torch.testing.assert_close(a.cpu(), b, rtol=2e-2, atol=2e-2)


def test_the_same_weights_in_another_network_have_other_entries(tmp_path):
    cache = FeatureCache(tmp_path)
    one, other = (DiffusionFeatures(tiny_unet(num_head_channels=k), (0, 2), (50,), cache=cache) for k in (32, 16))
    other.unet.load_state_dict(one.unet.state_dict())
    maps = one(pictures(1))
    assert not torch.allclose(maps[0], other(pictures(1))[0], atol=1e-3) and len(entries(tmp_path)) == 2


def test_in_bfloat16_the_network_itself_computes():
    for a, b in zip(tiny_features()(pictures(2)), tiny_features(precision="bfloat16")(pictures(2)), strict=True):
        assert not torch.equal(b, a.bfloat16().float())
