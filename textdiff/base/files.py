"""Small files on disk: text, JSON or whatever a function writes in; a file that is whole or not there out.

Without torch: what only looks at files begins at once.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from textdiff.base.limits import need_bytes

JSON_GROWTH = 40  # bytes of memory for one of a file: an empty list is two
# What a disk that is full, or that this process may only read, says
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary)`` beside ``path`` and renames the result: after a kill or a full disk the old file is whole.

    The file's mode is what the umask leaves of 0666. An OSError names ``path``.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(temporary)
        with open(temporary, "rb+") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename = str(path)
            del error.filename2  # None would be shown as a second name
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def may_be_left_out(what: str, folder: Path) -> Iterator[None]:
    """What is written within this context can be made again: a disk that takes none of it costs a warning, not the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        said = f"nothing is stored in {what}, going on without ({error.strerror}): {folder}"
        warnings.warn(said, stacklevel=3)


def temporary_name(path: Path) -> Path:
    """A new hidden name beside ``path``, short enough wherever the name of ``path`` is."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half-written in ``folder``; the caller holds the lock of whoever writes there."""
    for path in folder.rglob(".*.part"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | Path) -> dict:
    """The object in a JSON file.

    Raises ValueError that names a file which is damaged, nested without end or holds something else; TooLargeError for one that
    takes more than it may.
    """
    path = Path(path)
    need_bytes(JSON_GROWTH * path.stat().st_size, path, "what it says")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin with a mark
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where an object was expected")
    return content
