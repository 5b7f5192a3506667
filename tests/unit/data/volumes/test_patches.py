"""Training patches: what is sampled where, what the sentence names, and that a batch is always the same."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_volumes import KEEP, NAMES, SHAPE, training_volumes, volume_case

from textdiff.data.volumes.layouts import VolumeCase
from textdiff.data.volumes.patches import (
    Preprocessing,
    TrainingVolumes,
    VolumeBatch,
    place_channels,
    signed_distances,
)
from textdiff.data.volumes.prompts import named_structures


def batch_of(source: TrainingVolumes, *numbers: int) -> VolumeBatch:
    return source.collate([source.sample(number) for number in numbers])


def test_without_augmentation_a_patch_as_large_as_the_volume_is_the_volume():
    batch = batch_of(training_volumes(patch=SHAPE, prompts=""), 0)
    image, labels = volume_case().pair()
    assert torch.equal(batch.labels[0], torch.from_numpy(labels.array).long())
    expected = torch.from_numpy(np.clip(image.array, -100, 100) / 100)
    assert torch.allclose(batch.images[0, 0], expected, atol=1e-4)
    assert torch.allclose(batch.images[0, 1:], place_channels(SHAPE), atol=1e-5)
    assert batch.prompts == [""]


def test_the_place_channels_of_a_crop_say_where_in_the_volume_it_lies():
    source = training_volumes(prompts="", foreground=1.0)
    whole = place_channels(SHAPE)
    for index in range(6):
        batch = batch_of(source, index)
        place = batch.images[0, 1:]
        corner = [round(float((place[axis].min() + 1) / 2 * SHAPE[axis] - 0.5), 3) for axis in range(3)]
        assert all(side >= 0 for side in corner)
        nearest = [int(round(side)) for side in corner]
        part = whole[(slice(None), *(slice(a, a + 16) for a in nearest))]
        assert torch.allclose(place, part, atol=2 * 0.5 / 16 + 1e-3)


def test_image_labels_and_places_are_turned_and_bent_together():
    source = training_volumes(
        [volume_case(seed=k, name=f"c{k}") for k in range(3)], augment=True, mirror=True, prompts=""
    )
    for index in range(6):
        batch = batch_of(source, index)
        image, labels = batch.images[0, 0], batch.labels[0]
        inside = labels == 2
        if inside.sum() > 50 and (labels == 0).sum() > 50:
            assert image[inside].mean() > image[labels == 0].mean() + 0.3


def test_a_mirrored_patch_says_so_in_its_first_place_channel():
    source = training_volumes(augment=True, mirror=True, prompts="")
    signs = {bool(p[0, -1].mean() > p[0, 0].mean()) for p in (batch_of(source, k).images[0, 1:] for k in range(12))}
    assert signs == {True, False}
    source = training_volumes(augment=True, mirror=False, prompts="")
    assert all(p[0, -1].mean() > p[0, 0].mean() for p in (batch_of(source, k).images[0, 1:] for k in range(12)))


def test_a_sample_is_the_same_whenever_it_is_asked_for():
    first, second, other = (training_volumes(augment=True, distances=True, seed=seed) for seed in (0, 0, 1))
    second.sample(7)
    for a, b in zip(first.sample(3)[:3], second.sample(3)[:3], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.sample(3)[0], other.sample(3)[0])


def test_distances_are_measured_only_when_asked_for():
    batch = batch_of(training_volumes(prompts=""), 0, 1)
    assert batch.distances is None and batch.to("meta").distances is None
    asked = batch_of(training_volumes(prompts="", distances=True), 0, 1)
    assert asked.distances.shape == (2, 2, 16, 16, 16) and torch.equal(asked.images, batch.images)
    expected = [signed_distances(labels.numpy(), 3, (2.0, 2.0, 2.0)) for labels in batch.labels]
    assert np.array_equal(asked.distances.numpy(), np.stack(expected))


def test_all_volumes_are_met_once_before_any_is_met_again():
    many = [volume_case(f"c{k}", seed=k) for k in range(5)]
    source = training_volumes(many, prompts="", patch=SHAPE)
    for turn in range(2):
        met = {tuple(batch_of(source, turn * 5 + k).images[0, 0].flatten()[:3].tolist()) for k in range(5)}
        assert len(met) == 5


@pytest.mark.parametrize("kind", ["class", "anatomy", "report", "mixed"])
def test_what_the_sentence_does_not_name_is_background(kind):
    source = training_volumes(prompts=kind, single=0.7, patch=SHAPE, distances=True)
    seen = set()
    for index in range(12):
        batch = batch_of(source, index)
        named = named_structures(batch.prompts[0], NAMES[1:])
        present = {NAMES[int(k)] for k in batch.labels.unique() if k}
        assert present == set(named)
        for k, name in enumerate(NAMES[1:]):
            assert (batch.distances[0, k].max() > 0) == (name in named)
        seen.add(named)
    assert len(seen) == 3, "either structure alone, and both"


def test_a_volume_smaller_than_the_patch_is_surrounded_by_its_minimum():
    batch = batch_of(training_volumes(patch=(32, 32, 32), prompts=""), 0)
    assert batch.images.shape == (1, 4, 32, 32, 32)
    assert batch.images[0, 0, 0].max() == batch.images[0, 0].min() and batch.labels[0, 0].max() == 0


def test_signed_distances_are_in_mm_positive_inside_and_cut():
    labels = np.zeros((20, 9, 9), np.uint8)
    labels[5:10, 2:7, 2:7] = 1
    found = signed_distances(labels, 3, (2.0, 1.0, 1.0), limit=4.0)
    assert found.shape == (2, 20, 9, 9) and found.dtype == np.float32
    assert found[0, 7, 4, 4] == pytest.approx(3 / 4), "three voxels of 1 mm to the nearest background"
    assert found[0, 4, 4, 4] == pytest.approx(-2 / 4), "one voxel of 2 mm outside"
    assert found[0, 19, 4, 4] == -1 and (found[1] == -1).all()
    assert (signed_distances(np.ones((3, 4, 5), np.uint8), 2, (1.0, 1.0, 1.0)) == 1).all()


@pytest.fixture
def in_files(tmp_path) -> VolumeCase:
    import nibabel

    for name, volume in zip(("image", "labels"), volume_case().pair(), strict=True):
        nibabel.save(nibabel.Nifti1Image(volume.array, volume.affine), tmp_path / f"{name}.nii.gz")
    return VolumeCase("a", image_path=tmp_path / "image.nii.gz", label_path=tmp_path / "labels.nii.gz")


def test_prepared_volumes_are_kept_and_read_again(in_files, tmp_path):
    stored = in_files
    cache = tmp_path / "cache"
    first = batch_of(training_volumes([stored], cache=cache), 0)
    assert len(list(cache.glob("*.npz"))) == 1
    (tmp_path / "image.nii.gz").touch()
    training_volumes([stored], cache=cache)
    assert len(list(cache.glob("*.npz"))) == 2, "a file that has changed is prepared anew"
    other = replace(stored, values={1: 2, 2: 1})
    swapped = batch_of(training_volumes([other], cache=cache, prompts=""), 0)
    assert not torch.equal(swapped.labels, batch_of(training_volumes([stored], prompts=""), 0).labels)
    again = batch_of(training_volumes([stored], cache=cache), 0)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)


def test_other_structures_of_the_same_files_are_not_taken_from_the_cache(in_files, tmp_path):
    """Of a DICOM object the names decide which of its structures are labels."""
    for names in (("liver", "left kidney"), ("spleen", "left kidney")):
        training_volumes([replace(in_files, structures=names)], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "others", "pickle"])
def test_a_damaged_entry_of_the_cache_is_made_again(in_files, tmp_path, damage):
    cache = tmp_path / "cache"
    first = batch_of(training_volumes([in_files], cache=cache), 0)
    (entry,) = cache.glob("*.npz")
    whole = entry.read_bytes()
    if damage == "others":
        np.savez(entry, something=np.zeros(3))
    elif damage == "pickle":
        np.savez(entry, image=np.array([{}]), labels=np.array([{}]), affine=np.eye(4))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        entry.write_bytes({"empty": b"", "cut": whole[:middle], "flipped": flipped}[damage])
    with pytest.warns(UserWarning, match=f"a damaged entry of the cache of volumes is made again: .*{entry.name}"):
        again = batch_of(training_volumes([in_files], cache=cache), 0)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    with np.load(entry) as there:
        assert sorted(there) == ["affine", "image", "labels"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_no_entry_costs_the_entry_not_the_run(in_files, tmp_path, monkeypatch, number):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    expected = batch_of(training_volumes([in_files]), 0)
    monkeypatch.setattr(np, "savez", refuse)
    with pytest.warns(UserWarning, match="nothing is stored in the cache of volumes, going on without"):
        found = batch_of(training_volumes([in_files], cache=tmp_path / "cache"), 0)
    assert torch.equal(expected.images, found.images) and [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]


def test_what_a_killed_writer_left_in_the_cache_goes(in_files, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / ".0123.part").write_bytes(bytes(1000))
    training_volumes([in_files], cache=cache)
    assert sorted(path.suffix for path in cache.iterdir() if path.name != ".lock") == [".npz"]


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="no labelled volumes"):
        TrainingVolumes([], NAMES, KEEP, patch=(8, 8, 8))
    with pytest.raises(ValueError, match="choose one of class, anatomy"):
        training_volumes(prompts="poem")
    with pytest.raises(ValueError, match="a has label 2, but class_names name labels up to 1"):
        TrainingVolumes([volume_case()], NAMES[:2], KEEP, patch=(8, 8, 8), progress=False)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((35, 50, 36), (40, 56, 40)),
        ((43, 59, 47), (48, 64, 48)),
        ((48, 72, 20), (48, 56, 40)),
        ((51, 300, 40), (40, 56, 40)),
    ],
)
def test_an_axis_a_little_longer_than_the_patch_is_taken_whole(shape, window):
    assert Preprocessing(None, None, (40, 56, 40)).frame(shape) == window


@pytest.mark.parametrize(
    "values",
    [
        ((1, 1), None, (8, 8, 8)),
        ((1, 1, 0), None, (8, 8, 8)),
        (None, ("a", "b"), (8, 8, 8)),
        (None, (250.0, -175.0), (8, 8, 8)),
        (None, None, None),
        (None, None, 8),
    ],
)
def test_a_preparation_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="numbers"):
        Preprocessing(*values)


@pytest.mark.parametrize("change", [{"window": (0.0, 50.0)}, {"spacing": (4.0, 4.0, 4.0)}])
def test_another_preparation_is_not_taken_from_the_cache(in_files, tmp_path, change):
    for how in (KEEP, replace(KEEP, **change)):
        settings = {"patch": (16, 16, 16), "augment": False, "progress": False, "cache": tmp_path / "cache"}
        TrainingVolumes([in_files], NAMES, how, **settings)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
