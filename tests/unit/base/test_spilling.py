"""Training data in a file: the same samples as from memory, in loading processes too; nothing left behind; a full disk is said."""

import errno
import os
import pickle
import runpy
import subprocess
import sys
from multiprocessing import reduction

import pytest
import torch
from tiny_volumes import training_volumes

from textdiff.base import spilling
from textdiff.base.spilling import Pile, memory_share, room
from textdiff.data.images.phantoms import chest_phantoms
from textdiff.data.images.transforms import ImageSpec
from textdiff.data.images.views import TrainingImages
from textdiff.training.batches import batches
from textdiff.training.pretraining import CropPool


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """From here on nothing may stay in memory."""
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path / "cache"))

    def begin():
        monkeypatch.setenv("TEXTDIFF_MEMORY_GB", "0")

    return begin


def is_mapped(tensor):
    """Whether a tensor lies in a file without a name that this process has mapped."""
    with open("/proc/self/maps") as maps:
        places = [line.split()[0].split("-") for line in maps if "(deleted)" in line]
    return any(int(low, 16) <= tensor.data_ptr() < int(high, 16) for low, high in places)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="where a tensor lies is told by Linux")
def test_what_is_too_large_lies_in_a_file_and_what_is_not_does_not(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTDIFF_CACHE", str(tmp_path))
    monkeypatch.setenv("TEXTDIFF_MEMORY_GB", "0.001")  # 1 MB
    assert is_mapped(room((1_000_001,), torch.uint8)) and not is_mapped(room((999_999,), torch.uint8))
    pile = Pile()
    pile.put(torch.zeros(999_999, dtype=torch.uint8))
    assert not is_mapped(pile.whole())
    pile.put(torch.ones(2, dtype=torch.uint8))
    assert is_mapped(pile.whole()) and pile.whole().sum() == 2 and len(pile.whole()) == 1_000_001


def test_volumes_from_a_file_are_those_from_memory_in_loading_processes_too(on_disk):
    settings = {"patch": (8, 8, 8), "distances": True, "progress": False}
    inside = training_volumes(**settings)
    on_disk()
    outside = training_volumes(**settings)
    for number in range(6):
        for one, other in zip(inside.sample(number), outside.sample(number), strict=True):
            assert one == other if isinstance(one, str) else torch.equal(one, other)
    for ours, theirs in zip(batches(inside, 2, range(2)), batches(outside, 2, range(2), workers=2), strict=True):
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)


def test_where_open_files_cannot_be_handed_on_the_module_imports_and_loading_processes_are_refused(
    on_disk, monkeypatch
):
    monkeypatch.delattr(reduction, "DupFd")  # as on Windows
    pile = runpy.run_path(spilling.__file__)["Pile"]()
    on_disk()
    pile.put(torch.ones(9))
    assert pile.whole().sum() == 9
    with pytest.raises(OSError, match=r"workers=0.*TEXTDIFF_MEMORY_GB=1\)"):
        pickle.dumps(pile)


@pytest.mark.parametrize("augmentation", ["follow", "affine", "official"])
def test_pictures_from_a_file_are_those_from_memory(on_disk, augmentation):
    cases, spec = chest_phantoms(3, 0, size=32), ImageSpec(image_size=32)
    inside = TrainingImages(cases, spec, augmentation)
    crops = CropPool(cases, 32, 16, scales=(0.5, 1.0))
    on_disk()
    outside = TrainingImages(cases, spec, augmentation)
    ours, theirs = inside.batch(range(5)), outside.batch(range(5))
    assert torch.equal(ours.images, theirs.images) and torch.equal(ours.masks, theirs.masks)
    assert torch.equal(crops.batch(range(4)), CropPool(cases, 32, 16, scales=(0.5, 1.0)).batch(range(4)))


def test_a_process_that_is_killed_leaves_no_file(tmp_path):
    code = (
        "import os, torch; from textdiff.base.spilling import room, Pile; a = room((9,), torch.uint8); a[:] = 1; b = Pile(); "
        "b.put(torch.ones(9)); assert a.sum() == b.whole().sum() == 9; os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "TEXTDIFF_MEMORY_GB": "0", "TEXTDIFF_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == -9 and not list(tmp_path.iterdir()), done.stderr


def test_a_full_disk_says_where_and_how_much(on_disk, monkeypatch):
    on_disk()

    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spilling.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no place for 2.00 GB of training data.*No space left.*TEXTDIFF_CACHE"):
        room((2_000_000_000,), torch.uint8)


@pytest.mark.parametrize("said", ["-1", "much", "nan", "inf"])
def test_a_share_that_is_no_number_is_told(monkeypatch, said):
    monkeypatch.setenv("TEXTDIFF_MEMORY_GB", said)
    with pytest.raises(ValueError, match=f"TEXTDIFF_MEMORY_GB='{said}'"):
        memory_share()
    monkeypatch.delenv("TEXTDIFF_MEMORY_GB")
    assert memory_share() > 1e8
