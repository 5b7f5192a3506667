"""What all batches share: tensors that move together. In: a dataclass of tensors and sentences. Out: the same elsewhere.

Fields are tensors and lists of one row per sample, or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """Base of the batches: fields that are tensors are moved, all others stay."""

    def to(self: B, device: str | torch.device, non_blocking: bool = False) -> B:
        """The batch on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: B) -> B:
        """The batch in memory from which a GPU can fetch it while the processor goes on (torch's DataLoader asks for it)."""
        return self._each(Tensor.pin_memory)

    def __getitem__(self: B, part: slice) -> B:
        """The samples of ``part``; what there is one of per sample is cut."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[part] for name, value in values.items() if value is not None})

    def _each(self: B, change: Callable[[Tensor], Tensor]) -> B:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})
