"""Large tensors without a trip to the operating system for each. In: nothing. Out: a process that keeps freed memory.

The GNU C library gives every block above a few hundred kilobytes back when it is freed, and the next operation touches new
pages one by one: on a processor, elementwise work on feature maps then takes up to five times as long as it needs.
"""

from __future__ import annotations

import ctypes
import functools

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
KEPT = 2**31 - 1  # bytes: the largest number that it takes


@functools.cache
def keep_freed_memory() -> bool:
    """From now on this process keeps the memory of freed tensors for later ones; the peak is what it would have been.

    Returns whether the C library was asked; only the GNU one is.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        return bool(library.mallopt(MMAP_THRESHOLD, KEPT) and library.mallopt(TRIM_THRESHOLD, KEPT))
    except (OSError, AttributeError):
        return False
