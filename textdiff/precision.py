"""Mixed precision by name: "float32" or "bfloat16" in, a context for the forward pass out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("float32", "bfloat16")


def mixed_precision(device: torch.device | str, precision: str) -> AbstractContextManager:
    """Autocast to bfloat16 on ``device``, or no change for "float32".

    Raises:
        ValueError: another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: known are {', '.join(map(repr, PRECISIONS))}")
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)
