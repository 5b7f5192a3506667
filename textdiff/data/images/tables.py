"""Text tables as people save them (.xlsx, .csv, .tsv) in, their rows with text in it out; names in one plain form."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

TABLE_SUFFIXES = {".xlsx", ".xlsm", ".csv", ".tsv"}
TYPED = str.maketrans(
    "\u2018\u2019\u201a\u201c\u201d\u201e\u2010\u2011\u2012\u2013\u2014\u2212", "'''\"\"\"------"
)  # for what text programs put

Rows = Iterator[tuple[int, tuple[str, ...]]]


def plain(text: str) -> str:
    """Text without what cannot be seen: invisible characters go, every kind of space, quote and dash becomes the plain
    one, letters are composed with their accents (NFC).
    """
    composed = unicodedata.normalize("NFC", text).translate(TYPED)
    kept = (" " if unicodedata.category(c) == "Zs" else c for c in composed if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", "".join(kept)).strip()


def shown(text: str) -> str:
    """Text in quotes; where it is not in plain form, its characters are spelt out ('a\\xa0b')."""
    return repr(text) if plain(text) == text else ascii(text)


def read_table(path: Path, columns: Sequence[str]) -> Rows:
    """Row numbers, as a spreadsheet counts them, and the cells of these columns, found by their names in the first row.

    In a workbook they may stand on any one sheet. A .csv or .tsv is UTF-8 with tabs, semicolons or commas between cells.

    Raises ValueError that names the file: damaged, another encoding, a column missing, several sheets that have rows under
    these columns, or a row with more or fewer cells than the first.
    """
    sheets = _sheets_of_text(path) if path.suffix.lower() in (".csv", ".tsv") else _sheets_of_workbook(path)
    found = {name: places for name, rows in sheets.items() if (places := _places(path, rows[:1], columns))}
    filled = [name for name in found if any(any(row) for row in sheets[name][1:])] or list(found)[:1]
    if len(filled) > 1:
        raise ValueError(f"{path}: sheets {filled} all have rows under {list(columns)}; leave one of them")
    if not filled:
        first = {name: [plain(cell) for cell in rows[0]] if rows else [] for name, rows in sheets.items()}
        present = next(iter(first.values()), [])
        missing = [column for column in columns if column.lower() not in map(str.lower, present)]
        raise ValueError(
            f"{path}: missing column {missing}; found {present}"
            + (f" (first rows of all sheets: {first})" if len(first) > 1 else "")
        )
    places = found[filled[0]]
    for number, row in enumerate(sheets[filled[0]][1:], start=2):
        yield number, tuple(row[place] for place in places)


def _places(path: Path, first: Sequence[Sequence[str]], columns: Sequence[str]) -> list[int]:
    """Where the columns are in the first row; none unless all are there. Raises ValueError for one that is there twice."""
    names = [plain(cell).lower() for row in first for cell in row]
    if twice := [column for column in columns if names.count(column.lower()) > 1]:
        raise ValueError(f"{path}: two columns are called {twice[0]!r}")
    return [names.index(column.lower()) for column in columns] if all(c.lower() in names for c in columns) else []


def _sheets_of_workbook(path: Path) -> dict[str, list[list[str]]]:
    import pandas as pd

    try:
        frames = pd.read_excel(path, sheet_name=None, header=None, dtype=str, keep_default_na=False)
    except Exception as error:  # openpyxl, zipfile and xml each raise their own kinds for a damaged workbook
        raise ValueError(f"cannot read {path}: {error}") from error
    return {name: frame.fillna("").values.tolist() for name, frame in frames.items()}


def _sheets_of_text(path: Path) -> dict[str, list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error}): save it as 'CSV UTF-8'") from error
    first = text.split("\n", 1)[0]
    separator = max("\t;,", key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)]
    except csv.Error as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if row and len(row) != len(rows[0]):
            raise ValueError(
                f"{path}, row {number}: {len(row)} cells where the first row has {len(rows[0])}; text with {separator!r} in it "
                "stands in double quotes"
            )
    return {path.name: [row or [""] * len(rows[0]) for row in rows]}
