"""How many cores this process may use. Without torch: what only starts others begins at once."""

from __future__ import annotations

import os


def cores() -> int:
    """Processor cores that the system lets this process run on, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
