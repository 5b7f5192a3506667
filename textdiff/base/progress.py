"""Long work in equal steps: their number comes in; a bar on a terminal, now and then a line elsewhere, comes out.

The lines go to standard error, without carriage returns: a log file or a captured output stays readable.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines
FIRST = 2  # steps after which the time is first told, for the first step is also a warm-up


class Progress:
    """Used in a ``with``; :meth:`step` is called after each of ``total`` steps ("windows"). ``about`` is said at once.

    On a terminal a bar. Elsewhere one line as soon as it can be told how long the work takes, if that is worth a word, and
    one at most every ten seconds. Nothing at all where not ``shown``.
    """

    def __init__(self, total: int, unit: str, about: str, shown: bool = True) -> None:
        self.total, self.unit, self.done = total, unit, 0
        self.lines = shown and not sys.stderr.isatty()
        if shown:
            print(f"textdiff: {about}", file=sys.stderr, flush=True)
        self.started = self.told = time.monotonic()
        self.bar = tqdm(total=total, unit=f" {unit}", file=sys.stderr, disable=not shown or self.lines, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        self.bar.update()
        now = time.monotonic()
        left = (now - self.started) / self.done * (self.total - self.done)
        first = self.done == FIRST and left > EVERY
        if self.lines and self.done < self.total and (first or now - self.told >= EVERY):
            self.told = now
            print(
                f"textdiff: {self.done} of {self.total} {self.unit}, about {in_words(left)} left",
                file=sys.stderr,
                flush=True,
            )


def in_words(seconds: float) -> str:
    """Such as "40 s", "3 min" or "2.5 h"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
