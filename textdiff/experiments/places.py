"""Where a run leaves what is not its record: a run id in; folders of trained weights, checkpoints and locks out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from textdiff.base import paths


class HasRunId(Protocol):
    """A configuration, of which only the run id is asked."""

    @property
    def run_id(self) -> str: ...


def kept_model(run_id: str) -> Path:
    """Where the trained weights of a run are kept on this machine."""
    return paths.cache_dir() / "models" / run_id


def scratch_dir() -> Path:
    """Folder of locks and checkpoints of runs that are not finished."""
    return paths.cache_dir() / "training"


@contextmanager
def locked(config: HasRunId) -> Iterator[None]:
    """Within this context no other process of this machine makes the same run; one that does is waited for."""
    scratch_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(scratch_dir() / f"{config.run_id}.lock"):
        yield
