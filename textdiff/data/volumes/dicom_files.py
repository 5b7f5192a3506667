"""A DICOM file in, its tags and voxels out, within bounds: what its header announces is held against what lies in it.

Decoders believe the header. Where it is that of another picture, they give memory that nobody has written, or a picture whose
rows are broken at another place.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textdiff.base.limits import most_bytes, need_bytes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
SIZED = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of JPEG and JPEG-LS after which the size stands
JPEG, J2K = b"\xff\xd8", b"\xff\x4f\xff\x51"


class Refused(ValueError):
    """A DICOM file that is not taken; the text names it and says why."""


class _Bounded(io.BufferedReader):
    """A file of which never more is asked than it has: the length in a header is allocated first, whatever is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.path, self.size = path, path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        if size is not None and size >= 0:
            return super().read(min(size, left))
        packed = super().read(left)  # all the rest is asked of a deflated file alone
        inflating = zlib.decompressobj(-zlib.MAX_WBITS)
        need_bytes(len(inflating.decompress(packed, most_bytes() + 1)), self.path, "its deflated content")
        return packed


def read_file(path: Path, **options: Any) -> Dataset:
    """The object in a file; ``options`` of pydicom's reader. Raises what pydicom raises, and TooLargeError for a file that is
    larger than it may be, or unpacks to more.
    """
    import pydicom

    with _Bounded(path) as file:
        if not options.get("stop_before_pixels"):
            need_bytes(file.size, path, "the file")
        return pydicom.dcmread(file, force=True, **options)


def check_pixels(dataset: Dataset, path: Path) -> None:
    """Raises Refused, with both numbers, where there are not as many voxels as the header announces; TooLargeError."""
    wanted = announced(dataset)
    # the decoded frames, and their grey values in float32
    need_bytes(prod(wanted) * (int(dataset.BitsAllocated) / 8 + 4), path, f"{said(wanted)} voxels")
    pixels = next((dataset[name].value for name in PIXELS if dataset.get(name) is not None), b"")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_streams(pixels, wanted, dataset.file_meta.TransferSyntaxUID.name, path)
    else:
        _check_length(dataset, len(pixels), path)


def decoded(dataset: Dataset, path: Path) -> np.ndarray:
    """The voxels as they are stored, [frame, row, column], by pydicom; whatever a decoder raises."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stored = dataset.pixel_array
    if any("decoded RLE segment" in str(one.message) for one in told):
        raise Refused(f"{path}: its RLE data hold more than the {said(announced(dataset))} voxels of its header")
    return stored.reshape(-1, *stored.shape[-2:])


def announced(dataset: Dataset) -> tuple[int, int, int]:
    """Frames, rows and columns by the header."""
    return int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)


def said(shape: Sequence[int]) -> str:
    """Such as "3 x 512 x 512"; of one frame without its number."""
    frames, rows, columns = shape
    return f"{frames} x {rows} x {columns}" if frames > 1 else f"{rows} x {columns}"


def _check_length(dataset: Dataset, length: int, path: Path) -> None:
    from pydicom.pixels.utils import get_expected_length

    expected, row = get_expected_length(dataset), int(dataset.Columns) * int(dataset.BitsAllocated) // 8
    if not expected <= length < expected + max(2, row):  # writers fill up, but not with rows
        raise Refused(
            f"{path}: its header announces {expected} bytes of pixel data, and {length} are there: damaged, or cut short"
        )


def _check_streams(pixels: bytes, wanted: tuple[int, int, int], name: str, path: Path) -> None:
    from pydicom.encaps import generate_frames

    frames, *size = wanted
    streams = list(generate_frames(pixels, number_of_frames=frames))
    if len(streams) != frames:
        raise Refused(f"{path}: its header announces {frames} pictures, and {len(streams)} are in its pixel data")
    for frame, stream in enumerate(streams, start=1):
        found = _size_in(stream)
        if found and found != tuple(size):
            raise Refused(
                f"{path}: its voxels are damaged, or those of another picture ({name}): its header announces {size[0]} x {size[1]} "
                f"(rows x columns), and picture {frame} has {found[0]} x {found[1]}"
            )


def _size_in(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a compressed picture by its own header; None where it has none of them (RLE)."""
    if stream.startswith(J2K):
        right, bottom, left, top = struct.unpack(">4I", stream[8:24])
        return bottom - top, right - left
    place = 2
    while stream.startswith(JPEG) and place + 9 <= len(stream) and stream[place] == 0xFF:
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4])
        if marker in SIZED:
            rows, columns = struct.unpack(">2H", stream[place + 5 : place + 9])
            return rows, columns
        place += 1 if marker == 0xFF else 2 + length
    return None
