"""What is installed is whole or not there: a path in, the right to replace it for one process at a time out, after any kill.

.NAME.lock      held while NAME is brought      .NAME.partial   what is being made
.NAME.old       what NAME was, for the moment in which it is replaced
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

SECONDS = 10.0  # longer than two renames take


def partial_of(target: Path) -> Path:
    """Where the next `target` is made, by who holds its lock."""
    return target.with_name(f".{target.name}.partial")


@contextmanager
def locked(target: Path, say: Callable[[str], object] = lambda _: None) -> Iterator[None]:
    """Within it no other process replaces `target`; one that does is waited for, and `say` is told so.

    What killed processes left beside it is cleared first, unless its own lock is held: partial folders of others, and an old
    folder comes back where a replacement did not take its place. Where nothing can be written there is nothing to lock.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        yield
        return
    _tidy(target)
    lock = _lock(target)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{target}: another process is bringing it; waiting for that")
        lock.acquire()
    try:
        _recover(target)
        yield
    finally:
        lock.release()


def bring_back(target: Path) -> None:
    """Where a replacement of `target` was killed between its two renames, the old one comes back."""
    if _old(target).exists() and not target.exists():
        with suppress(Timeout, OSError), _lock(target).acquire(timeout=SECONDS):
            _recover(target)


def swap(stage: Path, target: Path) -> None:
    """Put `stage` in the place of `target`, which comes back where that fails; the lock is held."""
    old = _old(target)
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(stage, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _lock(target: Path) -> FileLock:
    return FileLock(target.with_name(f".{target.name}.lock"))


def _recover(target: Path) -> None:
    old = _old(target)
    if old.exists() and not target.exists():
        os.rename(old, target)
    remove(old)


def _tidy(target: Path) -> None:
    """Clear what killed processes left of the neighbours of `target`: those that a lock's file names."""
    for file in target.parent.glob(".*.lock"):
        other = file.with_name(file.name[1:].removesuffix(".lock"))
        if other != target and (partial_of(other).exists() or _old(other).exists()):
            with suppress(Timeout, OSError), _lock(other).acquire(timeout=0):
                _recover(other)
                remove(partial_of(other))
