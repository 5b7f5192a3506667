"""Archives and folders from elsewhere: a zip or tar in, a new folder with its plain files of the wanted kinds out.

Nothing in an archive is trusted. Only regular files whose path is plain and whose suffix is wanted are written, each to a
new file; links, devices and programs never are. Bytes and members are counted before they are unpacked.
"""

from __future__ import annotations

import filecmp
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from textdiff.base.limits import need_bytes
from textdiff.data.download import CHUNK, MIB, FetchError, writing

MOST_MEMBERS = 100_000
MOST_NAME = 200  # bytes of one part of a path
MOST_DEPTH = 30
MOST_HEADER = 1 << 16  # bytes of a tar's header beyond the first block: names, owners, comments
FORBIDDEN = set('/\\:*?"<>|')  # by one system or another
EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")


def plain_name(name: object, suffixes: Sequence[str], origin: str) -> str:
    """`name`, which somebody else wrote, where it is the name of a file and no path, with one of `suffixes` (lower case).

    Raises FetchError that shows the name and says where it stands (`origin`).
    """
    if (
        isinstance(name, str)
        and name.isprintable()
        and not name.startswith(".")
        and name == name.strip()
        and not FORBIDDEN & set(name)
        and 0 < len(name.encode()) <= MOST_NAME
        and name.lower().endswith(tuple(suffixes))
    ):
        return name
    kinds = f" that ends in {', '.join(suffixes)}" if any(suffixes) else ""
    raise FetchError(f"{origin}: {ascii(name)[:MOST_NAME]} is not the plain name of a file{kinds}")


def own_file(path: Path, root: Path) -> Path:
    """`path` where it is a regular file that lies in `root`, also when links are followed.

    Raises FetchError for a link that leads out of `root`, a device, a pipe, or nothing.
    """
    inside = path.resolve().is_relative_to(root.resolve())
    if not (inside and path.is_file()):
        what = "is no regular file" if inside else "is a link that leads out of the data set"
        raise FetchError(f"{path} {what}; only files inside {root} are read")
    return path


def unpack(archive: Path, folder: Path, suffixes: Sequence[str], most: int) -> None:
    """Write the files of a zip or tar (also compressed) that end in one of `suffixes` below `folder`.

    Hidden files and other suffixes stay in the archive. Of two names that differ in letter case or Unicode form only, with
    the same bytes, the first is written.

    Args:
        most: bytes that may be unpacked, those of a tar that are only passed over included.

    Raises FetchError, after which `folder` is to be thrown away: no archive, a damaged or cut one, a path that leads
    elsewhere, a link or device in a file's place, two files of one name, or more bytes or members than allowed.
    """
    try:
        with writing(folder):
            known: dict[str, Path] = {}
            taken = 0
            for number, member in enumerate(_members(archive), start=1):
                parts = _wanted(member, suffixes, archive)
                taken += member.size if parts or member.passed else 0
                if number > MOST_MEMBERS or taken > most or member.size < 0:
                    raise FetchError(
                        f"{archive}: refused: at member {number} it has {taken / MIB:.0f} MiB, and such an archive has at "
                        f"most {most / MIB:.0f} MiB in {MOST_MEMBERS} members. If it is right, unpack it and give the folder"
                    )
                if parts:
                    _write(member, folder.joinpath(*parts), known, archive)
    except FetchError:
        raise
    except Exception as error:  # zipfile, tarfile and each decompressor raise their own kinds for damage
        raise FetchError(f"{archive}: damaged archive: {error!r}") from error


@dataclass(frozen=True)
class _Member:
    name: str
    size: int  # bytes, as announced
    kind: str  # "file", "folder" or "other"
    passed: bool  # its bytes are unpacked even where it is left
    open: Callable[[], IO[bytes] | None]


def _wanted(member: _Member, suffixes: Sequence[str], archive: Path) -> list[str]:
    """The parts of a member's path where it is a file to be written; none where it is to be left."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.kind == "folder" or not parts or not parts[-1].lower().endswith(tuple(suffixes)):
        return []
    if any(part.startswith(".") and part != ".." or part == "__MACOSX" for part in parts):
        return []
    origin = f"{archive}, member {ascii(member.name)[:MOST_NAME]}"
    if member.name.startswith("/") or len(parts) > MOST_DEPTH:
        raise FetchError(f"{origin}: refused: its path leads elsewhere")
    if member.kind != "file":
        raise FetchError(f"{origin}: refused: a link or device stands in the place of a file")
    return [*(plain_name(part, ("",), origin) for part in parts[:-1]), plain_name(parts[-1], suffixes, origin)]


def _write(member: _Member, path: Path, known: dict[str, Path], archive: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    twin = known.setdefault(unicodedata.normalize("NFC", str(path)).casefold(), path)
    place = path.with_name(".twin") if twin.exists() else path
    with open(place, "xb") as file:
        _copy(member, file)
    if place != path:
        if not filecmp.cmp(twin, place, shallow=False):
            raise FetchError(f"{archive}: two different files are called {ascii(twin.name)}, but for letter case")
        place.unlink()


def _copy(member: _Member, file: IO[bytes]) -> None:
    """Write the bytes of a member, no more than announced. Raises ValueError for fewer."""
    source, rest = member.open(), member.size
    if source is None:
        raise ValueError(f"{member.name!r} has no content")
    with source:
        while chunk := source.read(min(CHUNK, rest + 1)):
            file.write(chunk[:rest])
            rest -= len(chunk)
            if rest < 0:
                break
    if rest:
        raise ValueError(f"{member.name!r} does not have the {member.size} bytes that are announced")


def _members(archive: Path) -> Iterator[_Member]:
    # A tar first: the end of one that holds a workbook, which is a zip, looks like that of a zip
    try:
        tar = tarfile.open(archive, tarinfo=_StrictInfo)
    except tarfile.ReadError:
        if not zipfile.is_zipfile(archive):
            raise FetchError(f"{archive}: neither a zip nor a tar archive") from None
        yield from _zip_members(archive)
        return
    with tar:
        for info in tar:
            kind = "file" if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else "folder" if info.isdir() else "other"
            yield _Member(info.name, info.size, kind, True, partial(tar.extractfile, info))


def _zip_members(archive: Path) -> Iterator[_Member]:
    with open(archive, "rb") as file:  # each entry of the list begins so; zipfile would read the whole list at once
        entries, end = 0, b""
        while chunk := file.read(MIB):
            entries += (end + chunk).count(b"PK\1\2")
            end = chunk[-3:]
    need_bytes(entries * 1000, archive, "the list of its members")
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            form = stat.S_IFMT(info.external_attr >> 16)
            kind = "folder" if info.is_dir() else "file" if form in (0, stat.S_IFREG) else "other"
            yield _Member(info.filename, info.file_size, kind, False, partial(packed.open, info))


class _StrictInfo(tarfile.TarInfo):
    """Headers of a tar, of which none may be missing, damaged or huge: tarfile takes any of these for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        is_end = len(buf) == tarfile.BLOCKSIZE and not any(buf)
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if is_end:
                raise
            raise tarfile.ReadError(f"it is cut off or damaged at a header ({error})") from error
        if info.size < 0 or (info.type in EXTENDED and info.size > MOST_HEADER):
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info
