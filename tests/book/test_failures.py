"""The numbers on the page of failures are those of the records that stand beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean

import build_book
import nbformat
import pytest

from textdiff.base.files import read_json
from textdiff.experiments.config import NOT_HASHED

PUBLISHED = build_book.ROOT / "results/published"
RECORD = re.compile(r"`([\w.-]+-[0-9a-f]{8})`")


def page() -> str:
    """All that is not code of the page."""
    cells = nbformat.read(build_book.ROOT / "book/failures.ipynb", as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def rows() -> Iterator[tuple[str, str, list[str]]]:
    """What fails, how much, and the records of every line with a record; "the same" stands for those of the line above."""
    named: list[str] = []
    for line in page().splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("| **") and len(cells) == 4:
            named = named if cells[3].startswith("the same") else RECORD.findall(cells[3])
            if named:
                yield cells[0], cells[1], named


_json = cache(read_json)


def folder_of(record: str) -> Path:
    (folder,) = PUBLISHED.glob(f"*/{record}")
    return folder


def draws_of(record: str) -> list[Path]:
    """The records of the same configuration but for the seed, its own among them."""
    folder = folder_of(record)

    def but_for_the_seed(one: Path) -> dict:
        return {k: value for k, value in _json(one / "config.json").items() if k not in ("seed", *NOT_HASHED)}

    own = but_for_the_seed(folder)
    return [one for one in folder.parent.iterdir() if but_for_the_seed(one) == own]


def scores(record: str, mean: bool) -> set[str]:
    """All scores of a record with three places, or their means over its draws."""
    return means(draws_of(record) if mean else [folder_of(record)])


def means(folders: list[Path]) -> set[str]:
    kept = [_json(one / "metrics.json") for one in folders]
    every = {key: [one.get(key) for one in kept] for key in kept[0]}
    return {f"{fmean(values):.3f}" for values in every.values() if all(isinstance(one, float) for one in values)}


@pytest.mark.parametrize(("what", "much", "named"), rows(), ids=[row[0][:60] for row in rows()])
def test_each_number_is_that_of_a_record_beside_it(what, much, named):
    said = re.findall(r"0\.\d{3}\b", much)
    if "means of the draws named" in much:
        known = means([folder_of(record) for record in named])
    else:
        known = {score for record in named for score in scores(record, "means of" in much)}
    assert set(said) <= known, f"{what}: no record beside it has {sorted(set(said) - known)}"


def test_every_record_that_a_failure_rests_on_is_published():
    named = RECORD.findall(page())
    published = {path.name for path in PUBLISHED.glob("*/*")}
    assert named and set(named) <= published


def test_the_page_has_numbers_to_check():
    assert sum(len(re.findall(r"0\.\d{3}\b", much)) for _, much, _ in rows()) > 20
