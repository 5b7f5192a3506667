"""NRRD and MetaImage files (.nrrd, .nhdr, .mha, .mhd) in, a `Volume` out.

SimpleITK says what a header means. The voxels are taken from the file here, all of them against the checksum: SimpleITK gives
others without a word when compressed data is damaged.
"""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from textdiff.base.limits import most_bytes, need_bytes
from textdiff.data.volumes.grids import LPS_TO_RAS, Volume, check_size, in_mm, volume_shape
from textdiff.data.volumes.nifti import unpacked

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
HEAD = 64_000  # bytes in which a header without voxels says where they are
SPACES = {"rightanteriorsuperior", "leftanteriorsuperior", "leftposteriorsuperior", "ras", "las", "lps"}
NUMBERS = {  # SimpleITK's name of a type -> numpy's
    **{f"{bits}-bit signed integer": f"i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"{bits}-bit unsigned integer": f"u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{"32-bit float": "f4", "64-bit float": "f8"},
}


# Of a MetaImage of n axes, fields of n numbers (1) and of n times n (2)
COUNTED = {
    name: 1 for name in ("dimsize", "elementspacing", "elementsize", "offset", "position", "origin", "centerofrotation")
}
COUNTED |= {name: 2 for name in ("transformmatrix", "rotation", "orientation")}


def read_itk(path: Path, dtype: type | None) -> Volume:
    """Read a file of one of `ITK_SUFFIXES`; `dtype` None keeps the stored type.

    Raises ValueError that names the file: damaged, truncated, without voxel sizes, several volumes, colours; ImportError
    without SimpleITK. Warns where the header does not say how the volume lies.
    """
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise ImportError(f'{path}: reading {path.suffix} needs SimpleITK; pip install "textdiff[dicom]"') from error

    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    content, big, placed = _nrrd(path) if nrrd else _meta(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    try:
        with silent():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(f"cannot read {path}: SimpleITK does not understand its header; it may be damaged") from error
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() != 1 or kind not in NUMBERS:
        raise ValueError(f"{path}: voxels are {kind}, expected plain numbers (grey values or labels), one a voxel")
    shape, stored = volume_shape(reader.GetSize(), path), np.dtype(NUMBERS[kind]).newbyteorder(">" if big else "<")
    needed = prod(shape) * stored.itemsize
    need_bytes(needed + (prod(shape) * np.dtype(dtype).itemsize if dtype else 0), path, f"{in_mm(shape)} voxels")
    if len(content) != needed:
        raise ValueError(
            f"cannot read {path}: truncated or damaged: it holds {len(content)} bytes of voxels where its header asks for "
            f"{needed} ({in_mm(shape)} voxels of {kind})"
        )
    if not placed:
        warnings.warn(
            f"{path}: the header does not say how the volume lies; left and right may be exchanged", stacklevel=5
        )
    array = np.frombuffer(content, stored).reshape(shape, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        volume = Volume(array if dtype is None else array.astype(dtype), _affine(reader), str(path))
    check_size(volume)
    return volume


@contextmanager
def silent() -> Iterator[None]:
    """What C++ code writes to standard error, past Python, is dropped."""
    sys.stderr.flush()
    before = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _affine(reader) -> np.ndarray:  # type: ignore[no-untyped-def]
    """ITK's spacing, direction and origin, the first three axes, as an affine to RAS."""
    count = reader.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (count, count))[:3, :3] * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


# --- what stands in the files --------------------------------------------------------------------------


def _nrrd(path: Path) -> tuple[bytes | bytearray, bool, bool]:
    """Bytes of the voxels, whether numbers are stored big end first, and whether the header says how the volume lies."""
    content = _whole(path)
    first, gap = min(
        ((i, len(gap)) for gap in (b"\n\n", b"\r\n\r\n") if (i := content.find(gap)) >= 0), default=(-1, 0)
    )
    voxels: bytes | bytearray
    head, voxels = (content, b"") if first < 0 else (content[:first], content[first + gap :])
    if not head.startswith(b"NRRD000"):
        raise ValueError(f"cannot read {path}: not a NRRD file, or its header is damaged")
    fields = _fields(head, ":")
    if detached := fields.get("datafile", ""):
        voxels = _beside(path, detached)
    directions = fields.get("spacedirections", "")
    _check_spacing(path, directions or fields.get("spacings", ""))
    for name in ("spaceunits", "units"):
        if other := set(fields.get(name, "").lower().replace('"', " ").split()) - {"mm", "millimeter", "millimeters"}:
            raise ValueError(f"{path}: its lengths are in {', '.join(sorted(other))}; save it with lengths in mm")
    encoding = fields.get("encoding", "").lower()
    if encoding in ("gzip", "gz"):
        voxels = unpacked(io.BytesIO(voxels), path, most_bytes())
        need_bytes(len(voxels), path, "what it is unpacked to")
    elif encoding != "raw":
        raise ValueError(f"{path}: its encoding is {encoding or 'not said'}; save it as raw or gzip")
    _no_skips(path, fields, "byteskip", "lineskip")
    placed = bool(directions) and fields.get("space", "").lower().replace("-", "") in SPACES
    return voxels, fields.get("endian", "little").lower() == "big", placed


def _meta(path: Path) -> tuple[bytes | bytearray, bool, bool]:
    """The same of a MetaImage, whose header ends with the line on where the voxels are."""
    content = _whole(path)
    line = content.find(b"ElementDataFile")
    end = content.find(b"\n", line)
    fields = _fields(content[: end if end >= 0 else None], "=") if line >= 0 else {}
    if not fields.get("elementdatafile"):
        raise ValueError(f"cannot read {path}: not a MetaImage, or its header is damaged")
    _check_counts(path, fields, content[:end])
    where = fields["elementdatafile"]
    voxels = content[end + 1 :] if where.upper() == "LOCAL" else _beside(path, where)
    _check_spacing(path, fields.get("elementspacing", ""))
    if fields.get("binarydata", "true").lower() != "true":
        raise ValueError(f"{path}: its voxels are written as text; save it as binary")
    _no_skips(path, fields, "headersize")
    if fields.get("compresseddata", "false").lower() == "true":
        voxels = _inflated(voxels, path)
    big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", "false")).lower() == "true"
    return voxels, big, any(name in fields for name in ("transformmatrix", "rotation", "orientation"))


def _check_counts(path: Path, fields: dict[str, str], head: bytes) -> None:
    """ITK's reader of MetaImages believes counts and numbers, and may end the process where they are none."""
    names = [line.partition(b"=")[0].decode("latin-1").lower().replace(" ", "") for line in head.splitlines()]
    count = fields.get("ndims", "")
    if count not in ("2", "3", "4"):
        raise ValueError(
            f"cannot read {path}: its header has NDims = {count[:20]!r}, expected 2, 3 or 4; it may be damaged"
        )
    for name, power in {"ndims": 0, **COUNTED}.items():
        words = fields.get(name, "").split()
        try:
            right = (
                name not in fields or len(words) == int(count) ** power and all(math.isfinite(float(w)) for w in words)
            )
        except ValueError:
            right = False
        if not right or names.count(name) > 1:
            raise ValueError(
                f"cannot read {path}: {name} in its header should be {int(count) ** power} numbers, once; it may be damaged"
            )


def _fields(head: bytes, sign: str) -> dict[str, str]:
    """Lines "name: value" of a header; names in small letters, without spaces. Lines "key:=value" are notes of whoever wrote it."""
    lines = (line.partition(sign) for line in head.decode("latin-1").splitlines() if not line.startswith("#"))
    return {
        name.lower().replace(" ", ""): value.strip()
        for name, found, value in lines
        if found and not value.startswith("=")
    }


def named_voxels(path: Path) -> Path | None:
    """The file beside a header in which it says that its voxels are, if there is one."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    name = _fields(head, "=").get("elementdatafile") or _fields(head, ":").get("datafile") or ""
    return path.parent / name if name and (path.parent / name).is_file() else None


def _beside(path: Path, name: str) -> bytes:
    """The bytes of the file that a header names."""
    if name.upper().startswith("LIST") or "%" in name:
        raise ValueError(f"{path}: its voxels are spread over several files; save it as one file")
    if Path(name).is_absolute() or ".." in Path(name).parts:  # a header must not choose any file of this machine
        raise ValueError(
            f"{path}: its header takes its voxels from {name}; they must lie beside it, in the same folder"
        )
    file = path.parent / name
    if not file.is_file():
        raise FileNotFoundError(f"{path}: its voxels should lie in {file}, which is not there")
    return _whole(file)


def _whole(path: Path) -> bytes:
    need_bytes(path.stat().st_size, path, "the file")
    return path.read_bytes()


def _check_spacing(path: Path, said: str) -> None:
    if not said or "nan" in said.lower():
        raise ValueError(f"{path}: its header does not say how large the voxels are")


def _no_skips(path: Path, fields: dict[str, str], *names: str) -> None:
    for name in names:
        if fields.get(name, "0") != "0":
            raise ValueError(
                f"{path}: its header asks to skip part of the data ({name}: {fields[name]}); save it as one file"
            )


def _inflated(content: bytes, path: Path) -> bytes:
    """What was compressed by zlib, to its checksum and not a byte more."""
    stream = zlib.decompressobj()
    try:
        voxels = stream.decompress(content, most_bytes() + 1)
    except zlib.error as error:
        raise ValueError(f"cannot read {path}: its compressed data is damaged ({error})") from error
    need_bytes(len(voxels), path, "what it is unpacked to")
    if not stream.eof or stream.unused_data:
        raise ValueError(f"cannot read {path}: its compressed data is truncated or damaged")
    return voxels
