"""What one file may take. In: the bytes that reading it would need. Out: nothing, or an error with both numbers.

A header can announce any size, and an archive can hold a thousand times its own: who reads a file from elsewhere asks here
before anything is allocated or written.
"""

from __future__ import annotations

from pathlib import Path

from textdiff.base.parsing import gigabytes

DEFAULT_GB = 2.0
VARIABLE = "TEXTDIFF_MAX_FILE_GB"


class TooLargeError(ValueError):
    """A file asks for more than it may take."""


def most_bytes() -> int:
    """Bytes that the content of one file may take in memory: TEXTDIFF_MAX_FILE_GB (1e9 bytes each), else 2 GB.

    Raises ValueError where the variable holds no number above 0.
    """
    said = gigabytes(VARIABLE)
    return int(DEFAULT_GB * 1e9 if said is None else said)


def need_bytes(size: float, path: str | Path, what: str) -> None:
    """Raises TooLargeError where ``what`` of the file at ``path``, ``size`` bytes in memory, is beyond :func:`most_bytes`."""
    if size > (most := most_bytes()):
        raise TooLargeError(
            f"{path}: {what} would take {size / 1e9:.3g} GB of memory, and one file may take {most / 1e9:.3g} GB. "
            f"If the file is right, set {VARIABLE}={max(1, -(-int(size) // 10**9))} and run again"
        )
