"""Values that travel as text: "6,8,12" in, (6, 8, 12) out; an environment variable's gigabytes in, bytes out.

A name that is not known in, a question for the nearest that is out.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def numbers(text: str, kind: type = int) -> tuple:
    """Parses "6,8,12" (or "0.5,1") into a tuple; raises ValueError that quotes the text."""
    try:
        return tuple(kind(part) for part in str(text).split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a comma-separated list of {kind.__name__} numbers") from None


def gigabytes(variable: str, zero: bool = False) -> float | None:
    """Bytes that an environment variable says in units of 1e9; None where it is not set or empty.

    Raises ValueError for what is no number above 0 (with ``zero``: of 0 or more).
    """
    if not (said := os.environ.get(variable, "").strip()):
        return None
    try:
        size = float(said)
    except ValueError:
        size = -1.0
    if not (0 < size < 1e9 or zero and size == 0):
        raise ValueError(
            f"{variable}={said!r}: a number of gigabytes {'of 0 or more' if zero else 'above 0'}, such as 4"
        )
    return size * 1e9


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'qata'?)" for "qatta", to go behind the name in an error; "" where no known name is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
