"""Large tensors without a trip to the operating system for each. In: nothing. Out: a process that keeps freed memory.

The GNU C library gives every block above a few hundred kilobytes back when it is freed, and the next operation touches new
pages one by one: on a processor, elementwise work on feature maps then takes up to five times as long as it needs.
"""

from __future__ import annotations

import ctypes
import functools

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
LARGEST = 2**27  # bytes of a block that is kept; gaps between larger ones would cost more memory than they save time
NEVER = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """From now on this process keeps the memory of freed tensors for later ones; its peak may grow by a tenth.

    Returns whether the C library was asked; only the GNU one is.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        return bool(library.mallopt(MMAP_THRESHOLD, LARGEST) and library.mallopt(TRIM_THRESHOLD, NEVER))
    except (OSError, AttributeError):
        return False
