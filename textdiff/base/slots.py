"""A file of slots of one size: maps of one set of shapes in, under keys; the same maps out, after any kill.

    header: JSON, HEADER bytes  |  slot 0: maps, key, checksum  |  slot 1: ...

Slots are added at the end and never written again, so a slot that the file's length covers is whole. Plain reads straight
into the batch's memory cost as little as a memory map, and a file that shrinks or goes is an error and no dead process.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from textdiff.base.checkpoints import bytes_of, write_atomically

HEADER = 4096  # bytes
MARK = struct.Struct("<16sI")  # at the end of a slot: key, checksum of header, maps and key
DROPPED = bytes(16)  # in a key's place: the slot holds nothing any more
Layout = list[tuple[torch.dtype, tuple[int, ...]]]


def layout_of(maps: Sequence[Tensor]) -> Layout:
    """Dtype and shape of every map of one entry."""
    return [(one.dtype, tuple(one.shape)) for one in maps]


def slot_bytes(layout: Layout) -> int:
    """How long a slot of such maps is."""
    return sum(dtype.itemsize * prod(shape) for dtype, shape in layout) + MARK.size


def _dtype(name: str) -> torch.dtype:
    if not isinstance(dtype := getattr(torch, name), torch.dtype):
        raise ValueError(f"no type of numbers: {name}")
    return dtype


def _shape(sides: list[int]) -> tuple[int, ...]:
    if not all(isinstance(side, int) and side >= 0 for side in sides):
        raise ValueError(f"no shape: {sides}")
    return tuple(sides)


class SlotFile:
    """An existing file of slots. Keys are 32 hexadecimal digits. One process at a time may write, any number read.

    Raises FileNotFoundError, or ValueError where the header is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            header = file.read(HEADER)
        try:
            if len(header) < HEADER:
                raise ValueError(f"{len(header)} bytes")
            told = json.loads(header)
            self.layout: Layout = [(_dtype(dtype), _shape(shape)) for dtype, shape in told]
            self.size = slot_bytes(self.layout)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} has no header of feature maps ({error})") from error
        self.slots: dict[str, int] = {}
        self._checksum = zlib.crc32(header)
        self._scanned = 0
        self._trusted: set[int] = set()  # slots whose bytes this process has written or checked

    @classmethod
    def create(cls, path: Path, layout: Layout) -> SlotFile:
        """A file without slots, whole or not there."""
        header = json.dumps([[str(dtype).removeprefix("torch."), shape] for dtype, shape in layout]).encode()
        if len(header) > HEADER:
            raise ValueError(f"{len(layout)} maps are more than one cache file describes")
        write_atomically(path, lambda temporary: temporary.write_bytes(header.ljust(HEADER)))
        return cls(path)

    def scan(self) -> None:
        """Notes in ``slots`` what was added since the last time."""
        with open(self.path, "rb", buffering=0) as file:
            count = self._count(file.fileno())
            for slot in range(self._scanned, count):
                file.seek(HEADER + (slot + 1) * self.size - MARK.size)
                key, _ = MARK.unpack(file.read(MARK.size))
                if key != DROPPED:
                    self.slots[key.hex()] = slot
            self._scanned = count

    def read(self, key: str, into: Sequence[Tensor]) -> None:
        """Fills the contiguous tensors ``into`` with the maps of a known key.

        Raises FileNotFoundError; or KeyError where the slot is damaged (its bytes are checked the first time).
        """
        slot, parts = self.slots[key], [bytes_of(one) for one in into]
        with open(self.path, "rb", buffering=0) as file:
            file.seek(HEADER + slot * self.size)
            whole = all(file.readinto(part) == len(part) for part in parts)
            mark = file.read(MARK.size)
        if slot in self._trusted:
            whole = whole and mark[:16] == bytes.fromhex(key)
        else:
            whole = whole and mark == self._mark(key, parts)
        if not whole:
            raise KeyError(key)
        self._trusted.add(slot)

    def append(self, key: str, maps: Sequence[Tensor]) -> None:
        """Adds an entry. Raises OSError, after which the file is as before, or ValueError for maps of another layout."""
        if layout_of(maps) != self.layout:
            raise ValueError(f"{self.path} holds maps of {self.layout}, not of {layout_of(maps)}")
        parts = [bytes_of(one) for one in maps]
        mark = memoryview(self._mark(key, parts))
        with open(self.path, "r+b", buffering=0) as file:
            slot = self._count(file.fileno())
            start = HEADER + slot * self.size  # over what a killed writer left of its entry
            try:
                file.seek(start)
                for part in (*parts, mark):
                    while part:
                        part = part[file.write(part) :]
            except OSError:
                file.truncate(start)
                raise
        self.slots[key] = slot
        self._trusted.add(slot)

    def drop(self, key: str) -> None:
        """Forgets an entry, for every process; its place is free when the file goes."""
        slot = self.slots.pop(key)
        with open(self.path, "r+b", buffering=0) as file:
            if slot < self._count(file.fileno()):  # else the file has been cut off before it
                file.seek(HEADER + (slot + 1) * self.size - MARK.size)
                file.write(DROPPED)

    def length(self) -> int:
        """Its length; 0 where the file is gone."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _count(self, file: int) -> int:
        return max(0, os.fstat(file).st_size - HEADER) // self.size

    def _mark(self, key: str, parts: Sequence[memoryview]) -> bytes:
        checksum = self._checksum
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        name = bytes.fromhex(key)
        return MARK.pack(name, zlib.crc32(name, checksum))
