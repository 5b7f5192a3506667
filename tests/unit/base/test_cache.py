"""The cache of feature maps: whole entries under several processes, a kill and a limit; no entry of another format."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_models import entries

from textdiff.base import cache as cache_module
from textdiff.base.cache import ABANDONED, FORMAT, FeatureCache


def test_an_entry_of_another_format_is_not_read_and_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "FORMAT", FORMAT - 1)
    FeatureCache(tmp_path).put("ab" * 16, [torch.zeros(1000)])
    monkeypatch.undo()
    cache = FeatureCache(tmp_path, max_bytes=5000)
    assert cache.get("ab" * 16) is None
    cache.put("ab" * 16, [torch.ones(1000)])
    assert len(entries(tmp_path)) == 1 and cache.get("ab" * 16)[0].all()


WRITER = """
import torch
from textdiff.base.cache import FeatureCache
cache = FeatureCache({folder!r})
for _ in range(30):
    cache.put("ab" * 16, [torch.arange(4000.0), torch.ones(3)])
    assert torch.equal(cache.get("ab" * 16)[0], torch.arange(4000.0))
"""
KILLED = """
import os, pathlib, signal, torch
from textdiff.base import cache, checkpoints
def half(temporary):
    temporary.write_bytes(b"half an entry")
    os.kill(os.getpid(), signal.SIGKILL)
write = checkpoints.write_atomically
cache.write_checkpoint = lambda path, tensors: write(path, half)
cache.FeatureCache({folder!r}).put("cd" * 16, [torch.ones(3)])
"""


def test_processes_that_write_the_same_entry_and_one_that_is_killed(tmp_path):
    cache, folder = FeatureCache(tmp_path), str(tmp_path)
    cache.put("cd" * 16, [torch.zeros(3)])
    settings = {"cwd": Path(__file__).parents[3]}
    writer, killed = (
        subprocess.Popen([sys.executable, "-c", script.format(folder=folder)], **settings)
        for script in (WRITER, KILLED)
    )
    while writer.poll() is None:
        cache.put("ab" * 16, [torch.arange(4000.0), torch.ones(3)])
        assert torch.equal(cache.get("ab" * 16)[0], torch.arange(4000.0))
        time.sleep(0.01)
    assert (writer.returncode, killed.wait(120)) == (0, -signal.SIGKILL)
    assert [path.name[:2] for path in entries(tmp_path)] == ["ab", "cd"]
    assert not cache.get("cd" * 16)[0].any()  # the old entry is whole
    (left,) = tmp_path.rglob(".*.part")
    os.utime(left, (0, left.stat().st_mtime - 2 * ABANDONED))
    FeatureCache(tmp_path).put("ef" * 16, [torch.ones(3)])
    assert not left.exists()  # what nobody finishes does not fill the disk for ever


def test_the_entry_used_longest_ago_makes_room(tmp_path):
    maps = [torch.zeros(1000)]
    cache = FeatureCache(tmp_path, max_bytes=3 * 4500)
    keys = [f"{k:032x}" for k in range(4)]
    for age, key in zip((30, 20, 10), keys, strict=False):
        cache.put(key, maps)
        path = cache._path(key)
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    cache = FeatureCache(tmp_path, max_bytes=3 * 4500)  # the limit holds for entries of earlier runs too
    assert cache.get(keys[0]) is not None  # the oldest, but used just now
    cache.put(keys[3], maps)
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]
    for k in range(20):
        cache.put(f"{k + 50:032x}", maps)
        assert sum(path.stat().st_size for path in entries(tmp_path)) <= 3 * 4500
    assert len(entries(tmp_path)) == 3


def test_an_entry_larger_than_the_cache_is_not_stored(tmp_path):
    cache = FeatureCache(tmp_path, max_bytes=5000)
    cache.put("ab" * 16, [torch.zeros(1000)])
    large = [torch.zeros(2000)]
    assert cache.put("cd" * 16, large) is large and cache.get("cd" * 16) is None
    assert cache.get("ab" * 16) is not None


def test_the_cache_keeps_dtype_and_order_of_many_maps(tmp_path):
    cache = FeatureCache(tmp_path)
    maps = [torch.full((2,), k).to(torch.bfloat16 if k % 2 else torch.float32) for k in range(12)]
    cache.put("ab" * 16, maps)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(cache.get("ab" * 16), maps, strict=True))


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_without_room_or_folder_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=f"max_bytes must be positive, got {size}; for no cache give cache=None"):
        FeatureCache(tmp_path, max_bytes=size)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError):  # other disk errors than a full one are not hidden
        FeatureCache(tmp_path / "cache").put("ab" * 16, [torch.ones(3)])
