"""Lists that travel as text: "6,8,12" in, (6, 8, 12) out."""

from __future__ import annotations


def numbers(text: str, kind: type = int) -> tuple:
    """Parses "6,8,12" (or "0.5,1") into a tuple; raises ValueError that quotes the text."""
    try:
        return tuple(kind(part) for part in str(text).split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a comma-separated list of {kind.__name__} numbers") from None
