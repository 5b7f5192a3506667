"""Goals. In: the table goals.csv and measured rows. Out: of each goal whether it is met, and by how much it is missed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Row

TABLE = Path(__file__).with_name("goals.csv")
RULES = ("times less", "times more", "at most", "at least")


@dataclass(frozen=True)
class Goal:
    """What is asked of one quantity of one side.

    ``rule``: "times less" and "times more" compare the side ``ours`` with the side ``against`` of the same run; "at most" and
    "at least" hold the value of ``ours`` against the number itself.
    """

    name: str
    work: str
    device: str
    quantity: str
    ours: str
    against: str
    rule: str
    goal: float


@dataclass(frozen=True)
class Verdict:
    """``value``: the measured ratio or number; None where this run has no such rows."""

    goal: Goal
    value: float | None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.goal.goal if self.goal.rule == "at most" else self.value >= self.goal.goal

    def __str__(self) -> str:
        if self.value is None:
            return "not measured here"
        asked = f"{self.goal.rule} {self.goal.goal:g}"
        if self.goal.rule.startswith("times"):
            asked = f"{self.goal.goal:g} {self.goal.rule} than {self.goal.against}"
        if self.met:
            return f"met: {self.value:.3g} ({asked})"
        short = abs(self.value - self.goal.goal) / self.goal.goal
        return f"missed by {short:.0%}: {self.value:.3g} ({asked})"


def goals(table: Path = TABLE) -> list[Goal]:
    """All goals. Raises ValueError: a rule that is not known, or a comparison without a side to compare with."""
    with table.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = [
        Goal(**{name: value for name, value in one.items() if name != "goal"}, goal=float(one["goal"])) for one in lines
    ]
    for one in found:
        if one.rule not in RULES or (one.rule.startswith("times") != bool(one.against)):
            raise ValueError(f"{table.name}: {one.name}: rule {one.rule!r}, against {one.against!r}")
    return found


def judge(rows: Iterable[Row], asked: Sequence[Goal] | None = None) -> list[Verdict]:
    """One verdict for each goal."""
    values = {(row.work, row.device, row.quantity, row.side): row.value for row in rows if math.isfinite(row.value)}
    return [Verdict(one, _value(one, values)) for one in (goals() if asked is None else asked)]


def _value(goal: Goal, values: dict[tuple[str, str, str, str], float]) -> float | None:
    ours, against = (values.get((goal.work, goal.device, goal.quantity, side)) for side in (goal.ours, goal.against))
    if ours is None or not goal.rule.startswith("times"):
        return ours
    if against is None:
        return None
    return against / ours if goal.rule == "times less" else ours / against
