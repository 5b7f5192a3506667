"""Batches: the same for any number of loading processes and from any step on; everything in them on the device."""

from __future__ import annotations

import pytest
import torch
from tiny_models import cases
from tiny_volumes import training_volumes, volume_case
from torch import Tensor

from textdiff.data.images.transforms import ImageSpec
from textdiff.data.images.views import TrainingImages
from textdiff.training.batches import Batched, batches, workers_for
from textdiff.training.pretraining import CropPool

SETS = {
    "images": lambda: TrainingImages(cases(3), ImageSpec(16), "affine", seed=2),
    "volumes": lambda: training_volumes(
        [volume_case(f"{k}", seed=k) for k in range(3)], distances=True, augment=True, mirror=True
    ),
    "crops": lambda: CropPool(cases(3), 16, 8, seed=2),
}


def tensors(batch) -> list[Tensor]:
    return (
        [batch] if isinstance(batch, Tensor) else [value for value in vars(batch).values() if isinstance(value, Tensor)]
    )


@pytest.mark.parametrize(("kind", "counts"), [("images", (0, 2)), ("volumes", (0, 1)), ("crops", (0, 1))])
def test_any_number_of_workers_gives_the_same_batches(kind, counts):
    samples = SETS[kind]()
    if isinstance(samples, Batched):
        expected = [samples.batch([2 * i, 2 * i + 1]) for i in range(6)]
    else:
        expected = [samples.collate([samples.sample(2 * i), samples.sample(2 * i + 1)]) for i in range(6)]
    for workers in counts:
        found = list(batches(samples, 2, range(6), workers=workers))
        assert len(found) == 6
        for a, b in zip(expected, found, strict=True):
            assert all(map(torch.equal, tensors(a), tensors(b)))
            if not isinstance(a, Tensor):
                assert [v for v in vars(a).values() if isinstance(v, list)] == [
                    v for v in vars(b).values() if isinstance(v, list)
                ]


def test_a_later_start_gives_the_later_batches_and_leaves_the_global_generator():
    samples = SETS["images"]()
    before = torch.get_rng_state()
    whole, rest = list(batches(samples, 2, range(5))), list(batches(samples, 2, range(3, 5)))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[3:], rest, strict=True))


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_a_gpu_is_fed_without_waiting():
    class Recording:
        settings: dict = {}
        asked: list = []

        def sample(self, number):
            return number

        def collate(self, samples):
            return self

        def to(self, device, non_blocking=False):
            self.asked.append((str(device), non_blocking))
            return self

    samples = Recording()
    list(batches(samples, 1, range(2), "cuda:0"))
    list(batches(samples, 1, range(1), "cpu"))
    assert samples.asked == [("cuda:0", True)] * 2 + [("cpu", False)]


def test_pictures_are_made_where_they_are_wanted():
    (batch,) = batches(SETS["images"](), 2, range(1), "meta", workers=2)
    assert {batch.images.device.type, batch.masks.device.type} == {"meta"} and len(batch.captions) == 2
    (crops,) = batches(SETS["crops"](), 2, range(1), "meta")
    assert crops.device.type == "meta"


def test_a_part_of_a_batch_has_every_field_of_its_samples():
    (pictures,) = batches(SETS["images"](), 4, range(1))
    (volumes,) = batches(SETS["volumes"](), 3, range(1))
    part = pictures[slice(1, 3)]
    assert torch.equal(part.images, pictures.images[1:3]) and torch.equal(part.masks, pictures.masks[1:3])
    assert part.captions == pictures.captions[1:3]
    last = volumes[slice(2, 3)]
    assert {len(value) for value in vars(last).values()} == {1} and last.prompts == volumes.prompts[2:]


def test_workers_for_a_device(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(3), raising=False)
    assert (workers_for("cpu"), workers_for("mps"), workers_for("cuda")) == (0, 0, 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64), raising=False)
    assert workers_for("cuda:1") == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augmentation", ["follow", "affine", "official"])
def test_a_real_card_makes_the_batches_of_a_processor(augmentation):
    pictures = TrainingImages(cases(3), ImageSpec(16), augmentation, seed=2)
    crops = CropPool(cases(3), 16, 8, (1.0, 2.0), seed=2)
    here, there = (pictures.batch(range(12), device) for device in ("cpu", "cuda"))
    assert there.images.is_cuda and torch.allclose(there.images.cpu(), here.images, atol=1e-4)
    assert (there.masks.cpu() != here.masks).float().mean() < 0.01 and there.captions == here.captions
    assert torch.allclose(crops.batch(range(12), "cuda").cpu(), crops.batch(range(12)), atol=1e-6)


@pytest.mark.parametrize("kind", ["images", "volumes", "crops"])
def test_of_every_batch_the_part_is_given(kind):
    samples = SETS[kind]()
    whole, part = (list(batches(samples, 4, range(1, 3), part=one)) for one in (slice(None), slice(1, 3)))
    for given, two in zip(whole, part, strict=True):
        assert all(torch.equal(a[1:3], b) for a, b in zip(tensors(given), tensors(two), strict=True))
