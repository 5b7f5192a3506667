"""Feature maps on disk: images and what turns them into maps in, the maps of the batch out, by any process, after any kill."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor, nn

from textdiff.base.checkpoints import bytes_of, fingerprint
from textdiff.base.files import may_be_left_out
from textdiff.base.slots import HEADER, SlotFile, layout_of, slot_bytes

FORMAT = 4  # of a file and of what its name and keys stand for; files of another format are not found
SHARE = 16  # a full cache loses at most this part of itself at once: a file is not larger


def group_of(identity: str, images: Tensor) -> str:
    """Stands for all maps of one network, settings (``identity``) and kind of image: those that share files."""
    told = f"{identity}{images.dtype}{tuple(images.shape[1:])}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def key_of(image: Tensor) -> str:
    """Stands for the pixels of an image after every transform."""
    return hashlib.sha256(bytes_of(image)).hexdigest()[:32]


class KnownFingerprint:
    """The fingerprint of a network's weights, made anew where others were loaded into it since."""

    def __init__(self) -> None:
        self._versions: list[tuple[int, int]] = []
        self._fingerprint = ""

    def __call__(self, network: nn.Module) -> str:
        state = network.state_dict(keep_vars=True)
        versions = [(value.data_ptr(), 0 if value.is_inference() else value._version) for value in state.values()]
        if versions != self._versions or not self._fingerprint:
            self._versions, self._fingerprint = versions, fingerprint(state)
        return self._fingerprint


class FeatureCache:
    """Feature maps on disk, those of one network and settings in few files; safe under several processes and under a kill.

    An entry is whole or not there. Beyond ``max_bytes`` the files used longest ago are removed; a file takes at most a
    sixteenth of it. A disk that is full or may only be read costs the entry, not the run.
    """

    def __init__(self, folder: str | Path, max_bytes: float = 20e9) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, got {max_bytes}; for no cache give cache=None")
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._files: dict[str, dict[Path, SlotFile]] = {}
        self._latest = 0.0  # of the times of use that were seen, in seconds
        self._tidy = False

    def batch(self, identity: str, images: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """The maps of ``images [B, ...]``, on their device; ``compute`` makes those that are not stored yet.

        ``identity``: all that turns an image into maps.
        """
        group, keys = group_of(identity, images), [key_of(image) for image in images]
        stored, missing = self.get(group, keys)
        computed: list[Tensor] = []
        if missing:
            computed = [one.contiguous() for one in compute(images[missing])]
            self.put(group, [keys[i] for i in missing], computed)
        if len(missing) == len(keys):
            return computed
        maps = [one.to(images.device) for one in stored]
        if missing:
            for one, new in zip(maps, computed, strict=True):
                one[missing] = new
        return maps

    def get(self, group: str, keys: Sequence[str]) -> tuple[list[Tensor], list[int]]:
        """The maps stored under ``keys``, one tensor ``[len(keys), ...]`` per scale on the CPU, and which of them are missing.

        Rows of missing ones hold anything. A damaged entry is dropped and counts as missing.
        """
        if any(self._holder(group, key) is None for key in keys):
            self._refresh(group)
        maps: list[Tensor] = []
        missing = []
        for i, key in enumerate(keys):
            file = self._holder(group, key)
            if file and not maps:
                maps = [torch.empty((len(keys), *shape), dtype=dtype) for dtype, shape in file.layout]
            if not (file and self._read(group, file, key, [one[i] for one in maps])):
                missing.append(i)
        return maps, missing

    def put(self, group: str, keys: Sequence[str], maps: Sequence[Tensor]) -> None:
        """Stores ``maps``, ``[len(keys), ...]`` per scale, as far as there is room."""
        here = [one.detach().cpu() for one in maps]
        with may_be_left_out("the feature cache", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._clean()
                self._refresh(group)
                for i, key in enumerate(keys):
                    if self._holder(group, key) is None:  # no other process was quicker
                        self._store(group, key, [one[i] for one in here])

    def _lock(self) -> FileLock:
        """What whoever writes or removes holds; readers need none."""
        return FileLock(self.folder / ".lock")

    def _holder(self, group: str, key: str) -> SlotFile | None:
        return next((file for file in self._files.get(group, {}).values() if key in file.slots), None)

    def _refresh(self, group: str) -> None:
        """Looks for what other processes have added and removed."""
        before, files = self._files.get(group, {}), {}
        for path in sorted(self.folder.glob(f"{group}.*.{FORMAT}.maps")):
            with suppress(FileNotFoundError):  # another process has just removed it
                try:
                    file = before.get(path) or SlotFile(path)
                    file.scan()
                    files[path] = file
                except ValueError as error:
                    warnings.warn(f"a damaged cache file is dropped, its entries computed again: {error}", stacklevel=2)
                    with suppress(OSError):  # where it may only be read
                        path.unlink()
        self._files[group] = files

    def _read(self, group: str, file: SlotFile, key: str, into: Sequence[Tensor]) -> bool:
        try:
            file.read(key, into)
        except FileNotFoundError:
            del self._files[group][file.path]
            return False
        except KeyError:
            warnings.warn(f"a damaged cache entry is dropped and computed again: {key} in {file.path}", stacklevel=2)
            with suppress(OSError), self._lock():  # it is gone, or may only be read
                file.drop(key)
            return False
        self._used(file.path)
        return True

    def _used(self, path: Path) -> None:
        """Notes that a file was used, later than all that was seen: other machines' clocks may be ahead, and this one's may turn
        back."""
        self._latest = max(self._latest + 1e-6, time.time())
        with suppress(OSError):  # it is gone, or may only be read
            os.utime(path, (self._latest, self._latest))

    def _store(self, group: str, key: str, maps: Sequence[Tensor]) -> None:
        size, files = slot_bytes(layout_of(maps)), self._files[group]
        if not self._make_room(HEADER + size):
            return
        most = max(self.max_bytes / SHARE, HEADER + size)
        file = next((one for one in files.values() if 0 < one.length() <= most - size), None)
        if file is None:
            path = self.folder / f"{group}.{uuid.uuid4().hex[:8]}.{FORMAT}.maps"
            file = files[path] = SlotFile.create(path, layout_of(maps))
        file.append(key, maps)
        self._used(file.path)

    def _make_room(self, size: int) -> bool:
        """Removes the files used longest ago until ``size`` bytes more are within the limit; whether they are."""
        found = []
        for path in self.folder.glob("*.maps"):
            with suppress(FileNotFoundError):  # a damaged one, which another process has just removed
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        self._latest = max([self._latest, *(one[0] for one in found)])
        taken = sum(one[1] for one in found)
        for _, freed, path in sorted(found) if size <= self.max_bytes else ():
            if taken + size <= self.max_bytes:
                break
            with suppress(PermissionError):  # Windows removes no file that is being read
                path.unlink(missing_ok=True)
                taken -= freed
        return taken + size <= self.max_bytes

    def _clean(self) -> None:
        """Removes, once, what killed processes left half-written, and the entries of before files of slots."""
        if not self._tidy:
            digit = "[0-9a-f]"
            old = [path for path in self.folder.glob(digit * 2) if path.is_dir()]
            entries = [path for folder in old for kind in ("*.safetensors", ".*.part") for path in folder.glob(kind)]
            for path in (*entries, *self.folder.glob(".*.part")):
                path.unlink(missing_ok=True)
            for folder in old:
                with suppress(OSError):  # something else lies in it
                    folder.rmdir()
            self._tidy = True
