"""Seconds of one prediction under each choice of the grid "cost": what stands against its Dice in the book.

    python -m benchmarks choices

The choices are rows of the grid (backbone, noise steps, blocks, precision); their Dice is in its records. A backbone that is not on
this machine is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.measuring import Once, Row, alternately
from textdiff.base.allocator import keep_freed_memory
from textdiff.experiments.cost import answering
from textdiff.experiments.grids import grid
from textdiff.experiments.images import TextDiffConfig
from textdiff.models.store import decoder_blocks


@dataclass(frozen=True)
class Sizes:
    """``rows``: labels of the grid's rows; all if empty. ``image_size``: 0 for the grid's own."""

    dataset: str = "qata"
    rows: Sequence[str] = ()
    image_size: int = 0
    repeats: int = 5
    apart: bool = True


QUICK = Sizes(repeats=3)
FULL = Sizes(repeats=10)
TINY = Sizes(rows=("chest_32", "one block"), image_size=16, repeats=1, apart=False)


def predicting(config: TextDiffConfig) -> Once:
    keep_freed_memory()  # as prediction does
    return answering(config)


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "choices", one side a row of the grid."""
    sizes = sizes or (QUICK if quick else FULL)
    table = grid("cost", sizes.dataset, seeds=(0,))
    sides: dict[str, Any] = {}
    for row in (table.only(sizes.rows) if sizes.rows else table).rows:
        config: Any = table.configs(row)[0]
        if decoder_blocks(config.backbone) is not None:
            config = replace(config, device=device, image_size=sizes.image_size or config.image_size)
            sides[row.label] = partial(predicting, config)
    found = alternately(sides, device, sizes.repeats, sizes.apart)
    return [row for side, one in found.items() for row in one.rows("choices", side, device, "one picture")]
