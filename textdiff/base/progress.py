"""How far long work is: things that come one by one in, the same things out, and on standard error a bar or now and then a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines, where standard error is no terminal
Thing = TypeVar("Thing")


def followed(things: Iterable[Thing], total: int, what: str, shown: bool = True) -> Iterator[Thing]:
    """Yields `things`; on a terminal under a bar, elsewhere (a file, a notebook) with a line at most every ten seconds.

    total: how many there will be. what: what is being done to them, such as "checking".
    """
    if not shown or sys.stderr.isatty():
        yield from tqdm(things, desc=what, total=total, disable=not shown, leave=False)
        return
    began = last = time.monotonic()
    for done, thing in enumerate(things, start=1):
        yield thing
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            left = (now - began) / done * (total - done)
            print(f"textdiff: {what}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)
