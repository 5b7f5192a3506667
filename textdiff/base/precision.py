"""Device and mixed precision by name: "auto" or "cuda:1" in, a device out; "bfloat16" in, a context for the forward pass out."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]
# On a CPU, the bfloat16 weight gradient of a 3 x 3 x 3 convolution reads memory that nobody has written where its map has
# two cells along the first axis: now and then it is nan, and wrong without a sign otherwise (torch 2.13.0; found by
# filling all memory with nan before use). Three cells and more, and inference, are right.
FEWEST_CELLS = 3


def mixed_precision(device: torch.device | str, precision: str, cells: int = FEWEST_CELLS) -> AbstractContextManager:
    """Autocast to bfloat16 on ``device``, or no change for "float32"; ValueError for another name.

    ``cells``: of 3D maps, those of the coarsest one along the first axis. With fewer than `FEWEST_CELLS`, training on a CPU
    stays in float32.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r}: known are {', '.join(map(repr, get_args(Precision)))}")
    device_type = torch.device(device).type
    wrong = cells < FEWEST_CELLS and device_type == "cpu" and torch.is_grad_enabled()
    if precision == "float32" or wrong:
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16)


def resolve_device(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", "cuda:1", "mps"; "auto" is CUDA where there is one, else the CPU.

    Raises ValueError for another name, or a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"device={name!r}: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps', ...")
    device, instead = torch.device(name), "use device='cpu' or 'auto'"
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but torch sees no CUDA device here; {instead}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name!r}, but there are only {torch.cuda.device_count()} CUDA devices; {instead}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r}, but torch sees no Apple GPU here; {instead}")
    return device
