"""The cache of feature maps: whole entries under several processes, a kill and a limit; no entry of another format."""

from __future__ import annotations

import multiprocessing
import os
import signal
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


def _store_the_same(folder: str, start: multiprocessing.synchronize.Event) -> None:
    cache = FeatureCache(folder)
    start.wait(60)
    for _ in range(30):
        cache.put("ab" * 16, [torch.arange(4000.0), torch.ones(3)])
        maps = cache.get("ab" * 16)
        assert maps is not None and torch.equal(maps[0], torch.arange(4000.0))


def _die_while_writing(folder: str) -> None:
    import safetensors.torch

    def half(tensors, path, metadata=None):
        Path(path).write_bytes(b"half an entry")
        os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = half
    FeatureCache(folder).put("cd" * 16, [torch.ones(3)])


def test_processes_that_write_the_same_entry_and_one_that_is_killed(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, folder = context.Event(), str(tmp_path)
    writers = [context.Process(target=_store_the_same, args=(folder, start)) for _ in range(2)]
    killed = context.Process(target=_die_while_writing, args=(folder,))
    for process in (*writers, killed):
        process.start()
    start.set()
    for process in (*writers, killed):
        process.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0] and killed.exitcode == -signal.SIGKILL
    cache = FeatureCache(folder)
    assert [path.name for path in entries(tmp_path)] == [f"{'ab' * 16}.{FORMAT}.safetensors"]
    assert cache.get("cd" * 16) is None
    (left,) = tmp_path.rglob(".*.part")
    os.utime(left, (0, left.stat().st_mtime - 2 * ABANDONED))
    cache.put("ef" * 16, [torch.ones(3)])
    assert not left.exists()  # what nobody finishes does not fill the disk for ever


def test_other_disk_errors_are_not_hidden(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError):
        FeatureCache(tmp_path / "cache").put("ab" * 16, [torch.ones(3)])


def test_the_entry_used_longest_ago_makes_room(tmp_path):
    maps = [torch.zeros(1000)]
    cache = FeatureCache(tmp_path, max_bytes=3 * 4500)
    keys = [f"{k:032x}" for k in range(4)]
    for age, key in zip((30, 20, 10), keys, strict=False):
        cache.put(key, maps)
        path = cache._path(key)
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    assert cache.get(keys[0]) is not None  # the oldest, but used just now
    cache.put(keys[3], maps)
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]
    for k in range(20):
        cache.put(f"{k + 50:032x}", maps)
        assert sum(path.stat().st_size for path in entries(tmp_path)) <= 3 * 4500
    assert len(entries(tmp_path)) == 3


def test_the_limit_holds_for_entries_of_earlier_runs_too(tmp_path):
    for k in range(3):
        FeatureCache(tmp_path).put(f"{k:032x}", [torch.zeros(1000)])
    FeatureCache(tmp_path, max_bytes=9000).put(f"{9:032x}", [torch.zeros(1000)])
    assert len(entries(tmp_path)) == 2 and FeatureCache(tmp_path).get(f"{9:032x}") is not None


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
def test_a_cache_without_room_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=f"max_bytes must be positive, got {size}; for no cache give cache=None"):
        FeatureCache(tmp_path, max_bytes=size)
