"""The two-hour path through the book: book/two_hours.csv and pages come in, pages with their signs go out.

The table has a row for each page of the path, in its order: page (as in _toc.yml), minutes, question. Each of them gets a
line under its title; the first page of the book gets the whole list in place of `LIST_MARK`.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

LIST_MARK = "<!-- two-hour-path -->"


@dataclass(frozen=True)
class Stop:
    """One page of the path: its name as in _toc.yml, how long it takes to read, and what it asks."""

    page: str
    minutes: int
    question: str


def read_path(root: Path) -> list[Stop]:
    """The stops of book/two_hours.csv, in their order; none where there is no such file."""
    file = root / "book" / "two_hours.csv"
    if not file.is_file():
        return []
    with open(file, encoding="utf-8", newline="") as stream:
        return [Stop(row["page"], int(row["minutes"]), row["question"]) for row in csv.DictReader(stream)]


def listed(stops: list[Stop]) -> str:
    """The path as a markdown table, with the sum of its minutes."""
    lines = ["| | page | question | minutes |", "|---:|---|---|---:|"]
    lines += [
        f"| {number} | {{doc}}`/{stop.page}` | {stop.question} | {stop.minutes} |"
        for number, stop in enumerate(stops, 1)
    ]
    return "\n".join([*lines, f"| | | together | {sum(stop.minutes for stop in stops)} |"])


def signposted(page: str, source: str, stops: list[Stop]) -> str:
    """Markdown of a page with a line under its title that says where on the path it is; other pages as they are."""
    places = {stop.page: place for place, stop in enumerate(stops)}
    if page not in places:
        return source
    place = places[page]
    after = f"next: {{doc}}`/{stops[place + 1].page}`" if place + 1 < len(stops) else "the last"
    sign = f"Two-hour path, {place + 1} of {len(stops)} · about {stops[place].minutes} minutes · {after}"
    return re.sub(r"^(# .*\n)", rf"\1\n:::{{div}} two-hours\n{sign}\n:::\n", source, count=1)
