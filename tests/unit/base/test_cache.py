"""The cache of feature maps: whole entries under several processes, a kill, damage, a full disk and a limit."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import entries

from textdiff.base import cache as cache_module
from textdiff.base import slots as slots_module
from textdiff.base.cache import FORMAT, FeatureCache
from textdiff.base.slots import HEADER, MARK

GROUP = "ab" * 16
KEYS = [f"{k + 1:032x}" for k in range(40)]
SLOT = 4000 + MARK.size  # of what `maps` makes


def maps(count: int, value: float = 1.0) -> list[torch.Tensor]:
    return [torch.full((count, 1000), value)]


def known(cache: FeatureCache, group: str = GROUP) -> list[int]:
    """Numbers of the keys that are stored."""
    missing = cache.get(group, KEYS)[1]
    return [k for k in range(len(KEYS)) if k not in missing]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.maps"))


class Breaking:
    """A file that takes half of what is written, and then something happens."""

    def __init__(self, path, *mode, **options):
        self.file = open(path, *mode, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, part):
        self.file.write(part[: len(part) // 2])
        self.happen()

    def happen(self):
        raise OSError(errno.ENOSPC, "no room")


# --- what is stored ---------------------------------------------------------------------------------------


def test_rows_come_back_in_the_order_asked_for_and_missing_ones_are_named(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put(GROUP, KEYS[:3], [torch.arange(6.0).reshape(3, 2), torch.arange(3).to(torch.bfloat16).reshape(3, 1)])
    for one in (cache, FeatureCache(tmp_path)):
        (wide, narrow), missing = one.get(GROUP, [KEYS[2], KEYS[9], KEYS[0]])
        assert missing == [1] and wide.dtype == torch.float32 and narrow.dtype == torch.bfloat16
        assert wide[[0, 2]].tolist() == [[4, 5], [0, 1]] and narrow[[0, 2], 0].tolist() == [2, 0]
    assert cache.get("cd" * 16, KEYS[:1]) == ([], [0])


def test_a_group_is_one_file_and_another_group_another(tmp_path):
    cache = FeatureCache(tmp_path)
    for k in range(5):
        cache.put(GROUP, KEYS[k : k + 2], maps(2))  # every second entry is there already
    assert [path.stat().st_size for path in files(tmp_path)] == [HEADER + 6 * SLOT]
    cache.put("cd" * 16, KEYS[:1], [torch.zeros(1, 7)])
    assert len(files(tmp_path)) == 2 and known(cache, "cd" * 16) == [0] and known(cache) == list(range(6))


def test_maps_of_other_shapes_do_not_get_under_the_same_name(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put(GROUP, KEYS[:1], maps(1))
    with pytest.raises(ValueError, match="holds maps of .*1000.* not of .*999"):
        cache.put(GROUP, KEYS[1:2], [torch.zeros(1, 999)])


def test_files_of_another_format_are_not_read_and_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "FORMAT", FORMAT - 1)
    FeatureCache(tmp_path).put(GROUP, KEYS[:1], maps(1))
    monkeypatch.undo()
    cache = FeatureCache(tmp_path, max_bytes=HEADER + SLOT)
    assert known(cache) == []
    cache.put(GROUP, KEYS[:1], maps(1))
    assert known(cache) == [0] and len(files(tmp_path)) == 1


def test_what_older_versions_and_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    kept = [tmp_path / "notes.txt", tmp_path / "cd" / "notes.txt", tmp_path / "weights" / "model.safetensors"]
    left = [tmp_path / "ab" / f"{GROUP}.2.safetensors", tmp_path / "cd" / ".1f.part", tmp_path / ".2f.part"]
    for path in (*kept, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_text("here")
    cache = FeatureCache(tmp_path)
    assert known(cache) == [] and all(path.exists() for path in left)  # who only reads removes nothing
    cache.put(GROUP, KEYS[:1], maps(1))
    assert all(path.exists() for path in kept) and not any(path.exists() for path in left)
    assert not (tmp_path / "ab").exists()


# --- several processes, kills, damage ---------------------------------------------------------------------

SCRIPT = f"""
import errno, os, signal, sys, torch
from textdiff.base import slots
from textdiff.base.cache import FeatureCache
cache, GROUP, KEYS = FeatureCache(sys.argv[1]), {GROUP!r}, {KEYS!r}
{inspect.getsource(Breaking)}
"""
WRITER = f"""{SCRIPT}
for k in range(30):
    cache.put(GROUP, KEYS[k:k + 2], [torch.full((2, 1000), k) + torch.arange(2.0)[:, None]])
    stored, missing = cache.get(GROUP, KEYS[:k + 2])
    assert not missing and torch.equal(stored[0][:, 999], torch.arange(k + 2.0))
"""
KILLED = f"""{SCRIPT}
slots.open = Breaking
Breaking.happen = lambda self: os.kill(os.getpid(), signal.SIGKILL)
cache.put(GROUP, KEYS[39:], [torch.ones(1, 1000)])
"""


def started(script: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=Path(__file__).parents[3])


def test_processes_that_write_the_same_entries_at_once_store_each_once(tmp_path):
    writers = [started(WRITER, tmp_path) for _ in range(2)]
    cache, seen = FeatureCache(tmp_path), 0
    while any(writer.poll() is None for writer in writers):
        stored, missing = cache.get(GROUP, KEYS[:31])
        assert all(stored[0][k].eq(k).all() for k in range(31) if k not in missing)
        assert len(missing) <= 31 - seen
        seen = 31 - len(missing)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert entries(tmp_path) == KEYS[:31] and known(FeatureCache(tmp_path)) == list(range(31))
    assert [path.stat().st_size for path in files(tmp_path)] == [HEADER + 31 * SLOT]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_writer_killed_in_the_middle_of_an_entry_leaves_the_others_whole(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put(GROUP, KEYS[:2], maps(2))
    assert started(KILLED, tmp_path).wait(120) == -signal.SIGKILL
    (path,) = files(tmp_path)
    assert path.stat().st_size == HEADER + 2 * SLOT + 2000  # half an entry is there, and is none
    assert known(cache) == known(FeatureCache(tmp_path)) == [0, 1]
    cache.put(GROUP, KEYS[2:3], maps(1, 2.0))  # the lock went with its holder
    assert path.stat().st_size == HEADER + 3 * SLOT and entries(tmp_path) == KEYS[:3]
    assert FeatureCache(tmp_path).get(GROUP, KEYS[2:3])[0][0].eq(2).all()


@pytest.mark.parametrize("place", [0, 2000, 3999, 4000, 4015, 4016, 4019])
def test_a_flipped_bit_anywhere_in_a_slot_costs_this_entry_alone(tmp_path, place):
    FeatureCache(tmp_path).put(GROUP, KEYS[:3], maps(3))
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[HEADER + SLOT + place] ^= 128
    path.write_bytes(content)
    cache = FeatureCache(tmp_path)
    if 4000 <= place < 4016:  # under another key nobody asks for it
        assert known(cache) == [0, 2]
    else:
        with pytest.warns(UserWarning, match=f"damaged cache entry.*{KEYS[1]} in .*{path.name}"):
            assert known(cache) == [0, 2]
        assert entries(tmp_path) == [KEYS[0], KEYS[2]]  # no other process meets it
    cache.put(GROUP, KEYS[1:2], maps(1))
    assert known(cache) == known(FeatureCache(tmp_path)) == [0, 1, 2]


@pytest.mark.parametrize("place", [0, 3, 20])
def test_a_flipped_bit_in_the_header_never_gives_other_maps(tmp_path, place):
    FeatureCache(tmp_path).put(GROUP, KEYS[:1], maps(1, 3.0))
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert known(FeatureCache(tmp_path)) == []


def test_a_file_that_shrinks_or_goes_while_in_use_costs_its_entries(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put(GROUP, KEYS[:3], maps(3))
    (path,) = files(tmp_path)
    os.truncate(path, HEADER + SLOT + 100)
    with pytest.warns(UserWarning, match="damaged cache entry"):
        assert known(cache) == [0]
    path.unlink()
    assert known(cache) == []
    cache.put(GROUP, KEYS[:3], maps(3))
    assert known(cache) == [0, 1, 2]


# --- room -------------------------------------------------------------------------------------------------


def test_the_files_used_longest_ago_make_room(tmp_path):
    limit = 3 * (HEADER + SLOT)
    cache = FeatureCache(tmp_path, limit)
    for k in range(3):
        cache.put(GROUP, KEYS[k : k + 1], maps(1))
    for age, path in zip((30, 20, 10), sorted(files(tmp_path), key=entries_of), strict=True):
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    cache = FeatureCache(tmp_path, limit)  # the limit holds for entries of earlier runs too
    assert cache.get(GROUP, KEYS[:1])[1] == []  # the oldest, but used just now
    cache.put(GROUP, KEYS[3:4], maps(1))
    assert known(cache) == [0, 2, 3]
    for k in range(4, 24):
        cache.put(f"{k:032x}", KEYS[:1], maps(1))  # other groups too
        assert sum(path.stat().st_size for path in files(tmp_path)) <= limit
    assert len(entries(tmp_path)) == 3


def test_a_cache_that_may_only_be_read_gives_its_entries_and_takes_none(tmp_path, monkeypatch):
    """As root may write where nobody else may, the system's calls refuse in its place."""
    FeatureCache(tmp_path).put(GROUP, KEYS[:2], maps(2))
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[HEADER + SLOT + 5] ^= 1
    path.write_bytes(content)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(cache_module.FileLock, "acquire", refused)
    cache = FeatureCache(tmp_path)
    with pytest.warns(UserWarning, match="damaged cache entry"):
        assert known(cache) == [0]
    with pytest.warns(UserWarning, match=r"nothing is stored in the feature cache, going on without \(Read-only"):
        cache.put(GROUP, KEYS[2:3], maps(1))
    assert path.read_bytes() == content


@pytest.mark.parametrize("hours", [2, -2])
def test_what_others_have_just_used_stays_though_one_clock_is_hours_off(tmp_path, monkeypatch, hours):
    """Four files fit. A process with another clock stores two; then this one uses its own, and makes room for more."""
    limit, now = 4 * (HEADER + SLOT), cache_module.time.time
    ours, theirs = FeatureCache(tmp_path, limit), FeatureCache(tmp_path, limit)

    def by(cache: FeatureCache, group: int) -> None:
        ahead = hours * 3600 if cache is theirs else 0
        monkeypatch.setattr(cache_module.time, "time", lambda: now() + ahead)
        cache.put(f"{group:032x}", KEYS[:1], maps(1))

    for cache, group in (
        (theirs, 1),
        (theirs, 2),
        (ours, 3),
        (ours, 4),
        (theirs, 5),
        (ours, 6),
        (theirs, 7),
        (ours, 8),
    ):
        by(cache, group)
        kept = {int(path.name.split(".")[0], 16) for path in files(tmp_path)}
        assert kept == set(range(max(1, group - 3), group + 1))


def entries_of(path: Path) -> list[str]:
    file = slots_module.SlotFile(path)
    file.scan()
    return list(file.slots)


def test_a_full_cache_loses_a_small_part_at_once(tmp_path):
    cache = FeatureCache(tmp_path, 32 * (HEADER + SLOT))
    for key in KEYS:
        cache.put(GROUP, [key], maps(1))
    most = max(path.stat().st_size for path in files(tmp_path))
    assert HEADER + 2 * SLOT <= most <= cache.max_bytes / 16
    cache.put("cd" * 16, KEYS, maps(len(KEYS)))
    assert 32 <= len(known(cache, "cd" * 16)) and KEYS[39] in entries(tmp_path)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= cache.max_bytes


def test_an_entry_larger_than_the_cache_is_not_stored(tmp_path):
    cache = FeatureCache(tmp_path, max_bytes=HEADER + SLOT)
    cache.put(GROUP, KEYS[:1], maps(1))
    cache.put("cd" * 16, KEYS[:1], [torch.zeros(1, 2000)])
    assert known(cache) == [0] and known(cache, "cd" * 16) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_within_an_entry_leaves_the_file_as_it_was(tmp_path, monkeypatch, number):
    cache = FeatureCache(tmp_path)
    cache.put(GROUP, KEYS[:1], maps(1))
    with monkeypatch.context() as patched:
        patched.setattr(slots_module, "open", Breaking, raising=False)
        with pytest.warns(UserWarning, match="nothing is stored in the feature cache, going on without"):
            cache.put(GROUP, KEYS[1:3], maps(2))
    assert [path.stat().st_size for path in files(tmp_path)] == [HEADER + SLOT] and known(cache) == [0]


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_without_room_or_folder_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match=f"max_bytes must be positive, got {size}; for no cache give cache=None"):
        FeatureCache(tmp_path, max_bytes=size)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError):  # other disk errors than a full one are not hidden
        FeatureCache(tmp_path / "cache").put(GROUP, KEYS[:1], maps(1))
