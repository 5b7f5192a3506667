"""Training data larger than memory. In: numbers, a known or a growing count of them. Out: a tensor to read them from.

While they are few they are in memory; beyond a share of the machine's they lie in a file without a name, which is mapped: the
system keeps of it what fits, and the file is gone with the process, after a kill too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import reduction
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textdiff.base.parsing import gigabytes
from textdiff.base.paths import cache_dir

VARIABLE = "TEXTDIFF_MEMORY_GB"
SHARE = 0.25  # of the machine's memory
UNKNOWN = 4e9  # bytes, where the system does not say how much it has


def memory_share() -> float:
    """Bytes that one training set may keep in memory: TEXTDIFF_MEMORY_GB (1e9 bytes each), else a quarter of the machine's.

    Raises ValueError where the variable holds no number of 0 or more.
    """
    if (said := gigabytes(VARIABLE, zero=True)) is not None:
        return said
    try:
        return SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN


def room(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor to be filled, in memory or in a file; its first values are anything. Raises OSError where the disk is full."""
    size = math.prod(shape) * dtype.itemsize
    if size <= memory_share():
        return torch.empty(tuple(shape), dtype=dtype)
    file = _file()
    with _told(size):
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is met now, not as a signal at some later write
    return torch.from_numpy(np.memmap(file, np.uint8, "r+")).view(dtype).view(tuple(shape))


class Pile:
    """Numbers of one dtype, put on piece by piece and read as one flat tensor; loading processes map the same file."""

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []
        self._file: Any = None
        self._dtype = torch.uint8
        self._bytes = 0
        self._whole: Tensor | None = None

    def put(self, values: Tensor) -> None:
        """Adds a tensor's values; all have the first one's dtype. Raises OSError where the disk is full."""
        self._dtype, self._whole = values.dtype, None
        self._pieces.append(values.detach().contiguous().flatten())
        self._bytes += values.nbytes
        if self._file is None and self._bytes > memory_share():
            self._file = _file()
        if self._file is not None:
            with _told(self._bytes):
                for piece in self._pieces:
                    self._file.write(piece.view(torch.uint8).numpy())
                self._file.flush()
            self._pieces.clear()

    def whole(self) -> Tensor:
        """All values in the order they came in. Of a mapped file nothing is read before it is asked for."""
        if self._whole is None and self._file is not None:
            self._whole = torch.from_numpy(np.memmap(self._file, np.uint8, "c")).view(self._dtype)
        elif self._whole is None:
            self._whole = torch.cat(self._pieces)
            self._pieces = [self._whole]
        return self._whole

    def __getstate__(self) -> dict[str, Any]:
        """For a loading process: the tensor, which torch shares, or the open file.

        Raises OSError where the system hands no open file to another process (Windows).
        """
        if self._file is None:
            return vars(self) | {"_whole": self.whole(), "_pieces": []}
        if not hasattr(reduction, "DupFd"):
            raise OSError(
                f"the training data, {self._bytes / 1e9:.2f} GB, lie in a file that this system cannot hand to loading processes: "
                f"use workers=0, or let them stay in memory ({VARIABLE}={math.ceil(self._bytes / 1e9)})"
            )
        return vars(self) | {"_whole": None, "_file": reduction.DupFd(self._file.fileno())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._file is not None:
            self._file = os.fdopen(self._file.detach(), "rb")


def _file() -> Any:
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return TemporaryFile(dir=folder)  # noqa: SIM115


@contextmanager
def _told(size: int) -> Iterator[None]:
    """Within it an OSError names the cache folder, and how much was to be written there."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{cache_dir()}: no place for {size / 1e9:.2f} GB of training data, more than {VARIABLE} allows in memory "
            f"({memory_share() / 1e9:.2f} GB): {error.strerror}. Set TEXTDIFF_CACHE to a folder with more room"
        ) from error
