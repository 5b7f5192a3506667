"""Seeded draws of labelled images: a list of cases, a number and a seed in, the drawn cases out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from textdiff.data.cases import Case


def draw_labelled(cases: Sequence[Case], n: int, seed: int) -> list[Case]:
    """Draw `n` labelled cases.

    Cases are ranked by a hash of seed and name, so the draw depends neither on the order of the list nor on
    the platform, a smaller draw is the beginning of a larger one with the same seed, and taking an undrawn
    case away changes nothing.

    Raises ValueError when n is not 1..len(cases), a name occurs twice, or a drawn case has no mask.
    """
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise ValueError(f"case names must be unique; twice: {sorted({x for x in names if names.count(x) > 1})[:3]}")
    if not 1 <= n <= len(cases):
        raise ValueError(f"cannot draw {n} labelled cases from {len(cases)}")
    drawn = sorted(cases, key=lambda case: hashlib.sha256(f"{seed}/{case.name}".encode()).digest())[:n]
    bare = [case.name for case in drawn if not case.labelled]
    if bare:
        raise ValueError(f"drawn cases without a mask: {bare[:3]}")
    return drawn
