"""A file that is to be written after long work: its path in; an error before the work where that could not end well.

Also the modes of what is written: a mask of a picture that only its owner may read is for its owner only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from textdiff.base.files import temporary_name

LEAST_ROOM = 1 << 16  # bytes


def check_output(
    out: Path, option: str, *, inputs: Sequence[Path] = (), force: bool = False, room: int = LEAST_ROOM
) -> None:
    """Refuse a path that could not be written when the work is done.

    Args:
        option: what the user calls it, for the errors ("--out").
        inputs: files and folders that must stay as they are.
        force: replace a file that is there.
        room: bytes that it will need.

    Raises FileNotFoundError: no such folder; FileExistsError: it is there and not forced; ValueError: it is an input or a
    folder; OSError: its folder takes no files, its name is too long, or the disk is too full.
    """
    try:
        os.lstat(out)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        shown = str(out) if len(str(out)) < 100 else f"{str(out)[:60]}... ({len(out.name)} letters)"
        raise OSError(f"{option} {shown} cannot be written ({error.strerror}): choose another name or place") from error
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} for {option}; make it, or choose another")
    if out.is_dir():
        raise ValueError(f"{option} {out} is a folder: give the name of a file in it")
    for one in inputs:
        if out.resolve() == one.resolve() or (out.exists() and one.exists() and out.samefile(one)):
            raise ValueError(f"{option} {out} would replace {one} itself: choose another name")
    if os.path.lexists(out) and not force:
        raise FileExistsError(f"{option} {out} is there already: choose another name, or replace it with --force")
    _try_to_write(out, option)
    free = shutil.disk_usage(out.parent).free
    if free < room:
        raise OSError(
            f"{option} {out} needs about {room / 1e6:.1f} MB, and its disk has {free / 1e6:.1f} MB left: free some space, or "
            "choose another disk"
        )


def check_new_folder(out: Path, option: str, *, force: bool = False) -> None:
    """Refuse a path at which no folder could be made, or, with ``force``, a folder into which no file could be written.

    Raises FileNotFoundError: nothing to make it in; FileExistsError: it is there and not forced; ValueError: it is a file;
    OSError: its place takes no files.
    """
    if out.is_dir():
        if not force:
            raise FileExistsError(
                f"{option} {out} is there already: choose another name, or replace the files in it with --force"
            )
        _try_to_write(out / "file", option)
        return
    if os.path.lexists(out):
        raise ValueError(f"{option} {out} is no folder: choose another name")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} for {option}; make it, or choose another")
    _try_to_write(out, option)


def _try_to_write(out: Path, option: str) -> None:
    """Make and remove a file beside ``out``, under the name that it has until it is whole."""
    trial = temporary_name(out)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OSError(
            f"{option}: no file can be written to {out.parent} ({error.strerror}): choose another folder"
        ) from error


@contextmanager
def as_private_as(source: Path) -> Iterator[None]:
    """Files made in here may be read by nobody who may not read ``source`` (of a folder: it and all files in it).

    Their owner may write them even where ``source`` is read-only. By way of the process's umask: other threads write no
    files meanwhile.
    """
    files = [source, *(path for path in source.rglob("*") if path.is_file())] if source.is_dir() else [source]
    closed = 0
    for file in files:
        closed |= 0o466 & ~file.stat().st_mode
    before = os.umask(0o077)
    os.umask(before | closed)
    try:
        yield
    finally:
        os.umask(before)
