"""Several processes that make one training together. In: what a launcher left in the environment. Out: who is who, and sums.

``accelerate launch`` and ``torchrun`` start them. The first one is the main process: it alone validates and writes.
Without a launcher there is one process, and accelerate is not needed.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import torch
from torch import Tensor

PATIENCE = timedelta(days=2)  # the others wait for the main process while it validates and tests
MISSING = (
    "this is one of {count} processes that a launcher started for one training, which takes the Python package accelerate: "
    "install it (pip install 'textdiff[parallel]'), or start without the launcher"
)


class Processes:
    """The ``count`` processes of one training; this is number ``index``. ``state``: accelerate's, None for a single one."""

    def __init__(self, state: Any = None) -> None:
        self.count: int = 1 if state is None else state.num_processes
        self.index: int = 0 if state is None else state.process_index
        self.device: torch.device | None = None if state is None else state.device

    @property
    def main(self) -> bool:
        """Whether this process is the one that validates and writes."""
        return self.index == 0

    def share(self, size: int) -> slice:
        """This process's samples of a batch of ``size``; together all have each sample once.

        Raises ValueError: fewer samples than processes.
        """
        if size < self.count:
            raise ValueError(
                f"batch_size={size} cannot be divided among {self.count} processes: at least one sample each"
            )
        return slice(size * self.index // self.count, size * (self.index + 1) // self.count)

    def check_device(self, device: torch.device | str) -> None:
        """Raises ValueError where ``device`` is not the one that the launcher has given this process."""
        device = torch.device(device)
        if self.device is None or (device.type == self.device.type and device.index in (None, self.device.index)):
            return
        raise ValueError(
            f"device={str(device)!r}, but the launcher gave this process {str(self.device)!r}: use device='auto', and "
            "choose processors or cards in the launcher's own options"
        )

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sums over all processes of tensors that each of them has, in the same order and shapes; waits for all.

        Every process is given the same bits. Raises RuntimeError: another process has ended.
        """
        if self.count == 1:
            return list(tensors)
        from accelerate.utils import reduce

        together = torch.cat([one.detach().flatten() for one in tensors])
        try:
            total = reduce(together.to(self.device), "sum").to(together.device)
        except RuntimeError as error:
            raise RuntimeError(
                "another process of this training has ended, so this one ends too; the message of the other says why"
            ) from error
        parts = total.split([one.numel() for one in tensors])
        return [part.view(one.shape).to(one.dtype) for part, one in zip(parts, tensors, strict=True)]

    def told(self, work: Callable[[], float]) -> float:
        """What ``work()`` gives in the main process, where alone it is called; the others wait for it."""
        value = float(work()) if self.main else 0.0
        return self.sums([torch.tensor(value, dtype=torch.float64)])[0].item() if self.count > 1 else value

    def wait(self) -> None:
        """Goes on when all processes have come here."""
        self.told(lambda: 0.0)


@cache
def processes() -> Processes:
    """Those that make the training of this process, met at the first call. With CUDA, "cuda" is then this process's own card.

    Raises RuntimeError: a launcher, but no accelerate.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "LOCAL_RANK" not in os.environ:
        return Processes()
    try:
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env
    except ImportError as error:
        raise RuntimeError(MISSING.format(count=count)) from error
    on_processor = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    met = Processes(PartialState(on_processor, timeout=PATIENCE))
    atexit.register(_part)
    if met.count != count:
        raise RuntimeError(f"the launcher started {count} processes, but accelerate finds {met.count} of them")
    return met


def _part() -> None:
    """Before the interpreter goes: threads of gloo that are still there then may abort a process that has done its work."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
