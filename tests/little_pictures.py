"""Picture files for tests: with an EXIF orientation, and of kinds that PIL does not write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x112
# What a viewer does with the stored pixels
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def save(path: Path, pixels: np.ndarray | Image.Image, orientation: int = 1, **options: object) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION] = orientation
    picture.save(path, exif=exif, **options)
    return path


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(path: Path, values: np.ndarray) -> Path:
    """uint16 [H, W, 1 to 4] as a PNG of 16 bits a channel."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def tiff(path: Path, pixels: np.ndarray, tags: dict[int, tuple[int, ...]]) -> Path:
    """One uncompressed page; tags (SHORT, or LONG from 256 to 279) are those that PIL would not write so."""
    data = pixels.tobytes()
    fields = {
        256: (pixels.shape[1],),
        257: (pixels.shape[0],),
        259: (1,),
        262: (1,),
        277: (1,),
        278: (pixels.shape[0],),
    }
    fields |= {258: (8 * pixels.itemsize,) * tags.get(277, (1,))[0], 273: (8,), 279: (len(data),)} | tags
    directory, extra = struct.pack("<H", len(fields)), b""
    behind = 8 + len(data) + len(data) % 2 + 6 + 12 * len(fields)
    for tag, values in sorted(fields.items()):
        kind, code = (4, "I") if tag in (273, 279, 330) else (3, "H")
        packed = struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", behind + len(extra)), extra + packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    start = 8 + len(data) + len(data) % 2
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, start) + data.ljust(start - 8, b"\0") + directory + bytes(4) + extra
    )
    return path
