"""Feature maps on disk: a key and a list of tensors in, the same tensors out, by any process and after any kill."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from textdiff.base.checkpoints import bytes_of, fingerprint, read_checkpoint, write_checkpoint

FORMAT = 2  # of an entry and of what its key stands for; entries of another format are not found and make room first
HEADER = 256  # bytes of a file beside a map's own, at most
ABANDONED = 3600.0  # seconds after which a temporary file has no writer any more


def key_of(identity: str, image: Tensor) -> str:
    """Stands for the pixels of an image after every transform, and for ``identity``: all that turns them into maps."""
    digest = hashlib.sha256(f"{identity}{image.dtype}{tuple(image.shape)}".encode())
    digest.update(bytes_of(image))
    return digest.hexdigest()[:32]


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
    """Feature maps on disk, one file per image; safe under several processes and under a kill: an entry is whole or not there.

    Beyond ``max_bytes`` the entries used longest ago are removed. A full disk costs the entry, not the run.
    """

    def __init__(self, folder: str | Path, max_bytes: float = 20e9) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, got {max_bytes}; for no cache give cache=None")
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._size: int | None = None

    def get(self, key: str) -> list[Tensor] | None:
        """The maps stored under ``key``, on the CPU, or None. A damaged entry is removed and counts as absent."""
        path = self._path(key)
        try:
            tensors = read_checkpoint(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            warnings.warn(f"a damaged cache entry is dropped and computed again: {error}", stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        return [tensors[str(i)] for i in range(len(tensors))]

    def put(self, key: str, maps: list[Tensor]) -> list[Tensor]:
        """Stores ``maps`` under ``key`` if there is room, and returns them."""
        size = sum(one.numel() * one.element_size() + HEADER for one in maps)
        if size > self.max_bytes:
            return maps
        self._make_room(size)
        try:
            write_checkpoint(self._path(key), {str(i): one for i, one in enumerate(maps)})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            said = f"the disk of the feature cache is full, going on without storing: {self.folder}"
            warnings.warn(said, stacklevel=2)
        return maps

    def batch(self, keys: Sequence[str], images: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """The maps of a batch, on the device of ``images``; ``compute`` makes those that are not stored yet."""
        known = {key: found for key in keys if (found := self.get(key)) is not None}
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            for i, maps in zip(missing, zip(*compute(images[missing]), strict=True), strict=True):
                known[keys[i]] = self.put(keys[i], list(maps))
        columns = zip(*(known[key] for key in keys), strict=True)
        # Some maps come from the disk and some from the network: each to one device before they are joined
        return [torch.stack([one.to(images.device) for one in column]) for column in columns]

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.{FORMAT}.safetensors"

    def _make_room(self, size: int) -> None:
        """Removes what killed processes left half-written, and the entries used longest ago."""
        if self._size is None or self._size + size > self.max_bytes:
            entries = []
            for path in self.folder.glob("??/*"):
                with suppress(FileNotFoundError):  # another process has just removed it
                    status = path.stat()
                    if path.suffix == ".safetensors":
                        entries.append((status.st_mtime, status.st_size, path))
                    elif time.time() - status.st_mtime > ABANDONED:
                        path.unlink()
            self._size = sum(entry[1] for entry in entries)
            for _, freed, path in sorted(entries):
                if self._size + size <= self.max_bytes:
                    break
                path.unlink(missing_ok=True)
                self._size -= freed
        self._size += size
