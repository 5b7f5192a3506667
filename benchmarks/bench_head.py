"""The head alone: how long a forward pass and a training step take on maps that are there. Sides: the authors', ours, our lighter ones.

python -m benchmarks head
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import Build, Once, Row, alternately, largest_difference
from benchmarks.pieces import OFFICIAL_LOSS, new_head, new_reference_head
from benchmarks.reference import reference_loss
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.precision import mixed_precision
from textdiff.models.textdiff import HEADS, HeadSpec


@dataclass(frozen=True)
class Widths:
    """Channels and sides of the four maps, and the side of the logits."""

    channels: tuple[int, ...]
    sides: tuple[int, ...]
    side: int = 256
    text_dim: int = 768
    spec: HeadSpec = HEADS["official"]

    def maps(
        self, device: str, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format
    ) -> list[Tensor]:
        generator = torch.Generator().manual_seed(4)
        pairs = zip(self.channels, self.sides, strict=True)
        return [torch.randn(1, c, s, s, generator=generator).to(device, dtype, memory_format=layout) for c, s in pairs]

    def tokens(self, device: str) -> Tensor:
        return torch.randn(1, 10, self.text_dim, generator=torch.Generator().manual_seed(5)).to(device)

    def target(self, device: str) -> Tensor:
        generator = torch.Generator().manual_seed(6)
        return torch.randint(2, (1, self.side, self.side), generator=generator).to(device)


@dataclass(frozen=True)
class Sizes:
    """``works``: the widths by name. ``lighter``: our other heads too."""

    works: tuple[tuple[str, Widths], ...]
    repeats: int = 2
    warm_up: bool = False
    lighter: bool = True
    apart: bool = True


MONUSEG = Widths((1536, 1536, 768, 768), (32, 64, 128, 256))
QATA = Widths((3072, 1536, 1536, 768), (16, 32, 64, 128))
QUICK = Sizes((("monuseg", MONUSEG),))
FULL = Sizes((("monuseg", MONUSEG), ("qata", QATA)), repeats=5, warm_up=True)
TINY = Sizes(
    (("monuseg", Widths((24, 12, 12, 16), (2, 4, 8, 16), 16, 12, HeadSpec(16, (8, 8), 2, 8))),), 1, True, True, False
)


def reference(widths: Widths, train: bool, device: str) -> Once:
    head = new_reference_head(widths.channels, widths.text_dim, widths.spec).to(device).train(train)
    maps, tokens, target = widths.maps(device, torch.float32), widths.tokens(device), widths.target(device)
    if not train:
        return torch.inference_mode()(lambda: head(maps, tokens, widths.side))
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-4)

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = reference_loss(head(maps, tokens, widths.side), target)
        loss.backward()
        optimiser.step()
        return loss

    return step


def ours(widths: Widths, train: bool, device: str, precision: str, kind: str = "") -> Once:
    """``kind``: a head of :data:`textdiff.models.textdiff.HEADS`; "" for the authors' shape."""
    keep_freed_memory()  # as training and prediction do
    spec = HEADS[kind] if kind else widths.spec
    head = new_head(widths.channels, widths.text_dim, spec).to(device).train(train)
    # Laid out as each side's own features are
    maps = widths.maps(device, getattr(torch, precision), torch.channels_last)
    tokens, target = widths.tokens(device), widths.target(device)

    def forward() -> Tensor:
        with mixed_precision(device, precision):
            return head(maps, tokens, size=(widths.side, widths.side)).float()

    if not train:
        return torch.inference_mode()(forward)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4, weight_decay=0.0)

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = OFFICIAL_LOSS(forward(), target)
        loss.backward()
        optimiser.step()
        return loss

    return step


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "head forward <widths>" and "head step <widths>"."""
    sizes = sizes or (QUICK if quick else FULL)
    rows = []
    for name, widths in sizes.works:
        for kind, train in (("forward", False), ("step", True)):
            sides: dict[str, Build] = {"reference": partial(reference, widths, train, device)}
            for precision, side in (("float32", "ours"), ("bfloat16", "ours bfloat16")):
                sides[side] = partial(ours, widths, train, device, precision)
            for lighter in ("compact", "decoder") if sizes.lighter else ():
                sides[lighter] = partial(ours, widths, train, device, "float32", lighter)
            found = alternately(sides, device, sizes.repeats, sizes.apart, sizes.warm_up)
            work, asked = f"head {kind} {name}", found["reference"].results[0]
            for side, one in found.items():
                rows += one.rows(work, side, device)
                if side.startswith("ours"):
                    rows.append(_agreement(Row(work, side, "", 0.0, "", device=device), one.results[0], asked))
    return rows


def _agreement(row: Row, result: np.ndarray, reference: np.ndarray) -> Row:
    """Of logits, or of the loss of the first step."""
    if result.ndim:
        return replace(
            row, quantity="largest difference of logits", value=largest_difference(result, reference), unit="sd"
        )
    difference = float(abs(result - reference) / abs(reference)) * 100
    return replace(row, quantity="loss difference", value=difference, unit="%")
