"""Where a run leaves what is not its record: a run id in; folders of trained weights, checkpoints and locks out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from textdiff.base import paths
from textdiff.base.processes import processes


class HasRunId(Protocol):
    """A configuration, of which only the run id is asked."""

    @property
    def run_id(self) -> str: ...


def kept_model(run_id: str) -> Path:
    """Where the trained weights of a run are kept on this machine."""
    return paths.cache_dir() / "models" / run_id


def kept_run(name: str) -> Path | None:
    """Where the run called ``name`` has kept its weights; None for a path, and where no run of this machine has."""
    if name in ("", ".", "..") or Path(name).name != name:
        return None
    folder = kept_model(name)
    return folder if (folder / "model.safetensors").is_file() else None


def scratch_dir() -> Path:
    """Folder of locks and checkpoints of runs that are not finished."""
    return paths.cache_dir() / "training"


@contextmanager
def locked(config: HasRunId) -> Iterator[None]:
    """Within this context nobody else on this machine makes the same run; whoever does is waited for.

    Of several processes of one training the main one holds the lock, for all.
    """
    scratch_dir().mkdir(parents=True, exist_ok=True)
    with nullcontext() if not processes().main else FileLock(scratch_dir() / f"{config.run_id}.lock"):
        yield


def drop_checkpoints(config: HasRunId) -> None:
    """Removes what a run goes on from: all that it was for is kept now."""
    if processes().main:
        shutil.rmtree(scratch_dir() / config.run_id, ignore_errors=True)
