"""Random numbers for a part of a batch. In: the generator of the whole batch. Out: the part's rows of what the batch draws.

A batch may be computed in parts, by several processes or because memory is short. Each part then draws for the whole batch and
keeps its own rows, so that a sample meets the same noise however its batch is divided. Only what goes through
:func:`drawn` is divided so; dropout, which draws from torch's global generator, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class PartGenerator(torch.Generator):
    """The generator of rows ``part`` of a batch of ``whole`` samples, whose own generator is ``batch``.

    What is drawn from it directly, not through :func:`drawn`, comes from a stream of the part's own: independent of the other
    parts, and another one where the batch is divided differently.
    """

    def __new__(cls, batch: torch.Generator, part: slice, whole: int) -> PartGenerator:
        return super().__new__(cls, device=batch.device)  # type: ignore[call-arg]  # missing in torch's stubs

    def __init__(self, batch: torch.Generator, part: slice, whole: int) -> None:
        self.batch, self.part, self.whole = batch, part, whole
        self.manual_seed(seed_of_part(batch.initial_seed(), part.start))


def seed_of_part(seed: int, first: int) -> int:
    """The seed of what the part that begins with sample ``first`` draws for itself alone; that of the batch for the first part."""
    return (seed + first * 2_654_435_761) % 2**63  # a processor's generator reads the lower 32 bits only


def drawn(
    draw: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator | None = None, **options: Any
) -> Tensor:
    """``draw(shape, generator=generator, **options)``, of which a :class:`PartGenerator` gives its rows of the whole batch's.

    ``draw``: such as torch.randn; the first axis of ``shape`` is the samples. None is torch's global generator.
    """
    if not isinstance(generator, PartGenerator):
        return draw(tuple(shape), generator=generator, **options)
    return draw((generator.whole, *shape[1:]), generator=generator.batch, **options)[generator.part]
