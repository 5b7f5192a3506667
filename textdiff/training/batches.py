"""Batches for the training loop. In: numbered samples. Out: batches in order, on the device where they are wanted.

Batch ``i`` is samples ``i * size`` to ``(i + 1) * size - 1``, and a sample depends on its number alone: whoever makes it,
and wherever a run was interrupted, the batches are the same. Pictures are made as whole batches where they are wanted;
volumes sample by sample, by any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from textdiff.base.cores import cores


@runtime_checkable
class Batched(Protocol):
    """A training set that makes whole batches. ``settings`` say, in JSON's types, what decides its samples."""

    @property
    def settings(self) -> Mapping[str, object]: ...

    def batch(self, numbers: Sequence[int], device: str | torch.device) -> Any:
        """The samples with these numbers as one batch on ``device``; the processor does not wait for the device."""


class Samples(Protocol):
    """A training set whose samples are made one by one, in this process or in others. ``settings`` as of :class:`Batched`."""

    @property
    def settings(self) -> Mapping[str, object]: ...

    def sample(self, number: int) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """One batch, with ``to(device, non_blocking)`` and ``pin_memory()`` as tensors have them."""


class _Numbered(Dataset):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, number: int) -> Any:
        return self.samples.sample(number)


def batches(
    samples: Samples | Batched,
    size: int,
    numbers: range,
    device: str | torch.device = "cpu",
    workers: int = 0,
    part: slice = slice(None),
) -> Iterator[Any]:
    """The batches of ``size`` samples with these numbers, in order, on ``device``; of each the samples of ``part``.

    ``workers``: processes that load samples ahead; 0 loads in this one, when asked. A :class:`Batched` set needs none.
    """
    each = [list(range(number * size, (number + 1) * size)[part]) for number in numbers]
    if isinstance(samples, Batched):
        yield from (samples.batch(one, device) for one in each)
        return
    on_gpu = torch.device(device).type == "cuda"
    loader = DataLoader(
        _Numbered(samples),
        batch_sampler=each,
        collate_fn=samples.collate,
        num_workers=workers,
        # A process that is forked while torch's threads run may wait for them for ever
        multiprocessing_context="spawn" if workers else None,
        pin_memory=on_gpu,
        generator=torch.Generator(),  # leaves the global one alone
    )
    for batch in loader:
        yield batch.to(device, non_blocking=on_gpu)


def workers_for(device: str | torch.device) -> int:
    """Loading processes that keep ``device`` busy: none on a CPU, which would share its cores with them; up to 4 for a GPU."""
    if torch.device(device).type != "cuda":
        return 0
    return max(0, min(4, cores() - 1))
