"""A card's memory: work on a batch in, the same work in as large parts as fit out; how much of a pool a card may keep."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
TOGETHER = {"cuda": 4}  # images, a power of two; one would keep a card waiting for orders, elsewhere it is as fast
POOL_SHARE = 0.25  # of the memory that is free on a card when a pool of pixels is moved to it

T = TypeVar("T")


class Fitting:
    """Runs work on whole batches for as long as memory lasts, then on halves; remembers the size that fitted.

    Args:
        what: of which a batch is made, for the line that is logged.
        whole: why a batch must not be split, and what to do instead; "" where it may be.
    """

    def __init__(self, what: str = "images", whole: str = "") -> None:
        self.what, self.whole = what, whole
        self.most: int | None = None  # None until memory ran out

    def run(self, work: Callable[[list[slice]], T], count: int, most: int | None = None) -> T:
        """What ``work(parts)`` gives, where ``parts`` are slices of ``most`` samples (None: all) that together cover ``count``.

        On ``torch.OutOfMemoryError`` the work is begun anew with parts half as large: it must leave nothing behind.

        Raises MemoryError: a single sample is too much, or the batch must not be split.
        """
        while True:
            size = min(count, most or count, self.most or count)
            try:
                return work([slice(start, min(start + size, count)) for start in range(0, count, size)])
            except torch.OutOfMemoryError:
                pass  # with the exception go its frames, and with those the tensors that they hold
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._halve(size)

    def _halve(self, size: int) -> None:
        if self.whole and size > 1:
            raise MemoryError(f"out of memory with {size} {self.what} at once, which cannot be split: {self.whole}")
        if size == 1:
            raise MemoryError(
                f"out of memory with a single one of the {self.what}: choose a smaller size, a smaller network, "
                "precision='bfloat16' or device='cpu'"
            )
        self.most = size // 2
        logger.warning("out of memory with %d %s at once, going on with %d", size, self.what, self.most)


def in_groups(images: Tensor) -> tuple[Tensor, int]:
    """``images [B, ...]``, the last one repeated until they make whole groups, and the size of a group on their device.

    A network rounds by the size of its batch. What goes through in groups of one size gives the same numbers whatever else is asked
    for; where it goes alone, by construction.
    """
    together = TOGETHER.get(images.device.type, 1)
    more = -len(images) % together
    return (torch.cat([images, images[-1:].expand(more, *images.shape[1:])]) if more else images), together


class Pool:
    """Tensors on the processor that a training comes back to, and their copies on the card that it runs on."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        self._there: dict[torch.device, tuple[Tensor, ...]] = {}

    def near(self, device: torch.device) -> tuple[Tensor, ...]:
        """The tensors on ``device``, where the first call moves them; on the processor where a card should not keep them.

        A card keeps `POOL_SHARE` of its free memory: of 80 GB that is 20 GB, 100,000 pictures of 256 x 256 pixels in 8
        bits, or 15,000 in 32 bits with their masks.
        """
        if device not in self._there:
            size = sum(one.nbytes for one in self.tensors)
            fits = device.type != "cuda" or size <= POOL_SHARE * torch.cuda.mem_get_info(device)[0]
            self._there = {device: tuple(one.to(device) for one in self.tensors) if fits else self.tensors}
        return self._there[device]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, made on the processor, on ``device``; the processor does not wait until it is there."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
