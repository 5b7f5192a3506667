"""Text tables as people save them (.xlsx, .csv, .tsv) in, their rows with text in it out; names in one plain form."""

from __future__ import annotations

import csv
import io
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from textdiff.base.limits import TooLargeError, need_bytes

TABLE_SUFFIXES = {".xlsx", ".xlsm", ".csv", ".tsv"}
TYPED = str.maketrans(
    "\u2018\u2019\u201a\u201c\u201d\u201e\u2010\u2011\u2012\u2013\u2014\u2212", "'''\"\"\"------"
)  # for what text programs put

LAST_ROW, MOST_CELLS = 2**20, 5_000_000  # of a spreadsheet; of a sheet, the empty ones before a filled one too
GROWTH = 40  # bytes of memory for one of a table: a cell of two letters is an object of its own

Rows = Iterator[tuple[int, tuple[str, ...]]]
Sheet = list[tuple[int, list[str]]]  # rows with something in them, and their numbers


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
    these columns, a row with more or fewer cells than the first, more than :data:`MOST_CELLS`; TooLargeError for a table that
    takes more than a file may.
    """
    sheets = _sheets_of_text(path) if path.suffix.lower() in (".csv", ".tsv") else _sheets_of_workbook(path)
    first = {name: rows[0][1] if rows and rows[0][0] == 1 else [] for name, rows in sheets.items()}
    found = {name: places for name, row in first.items() if (places := _places(path, row, columns))}
    filled = [name for name in found if len(sheets[name]) > 1] or list(found)[:1]
    if len(filled) > 1:
        raise ValueError(f"{path}: sheets {filled} all have rows under {list(columns)}; leave one of them")
    if not filled:
        there = {name: [plain(cell) for cell in row[:20]] for name, row in first.items()}
        present = next(iter(there.values()), [])
        missing = [column for column in columns if column.lower() not in map(str.lower, present)]
        raise ValueError(
            f"{path}: missing column {missing}; found {present}"
            + (f" (first rows of all sheets: {there})" if len(there) > 1 else "")
        )
    places = found[filled[0]]
    for number, row in sheets[filled[0]][1:]:
        yield number, tuple(row[place] if place < len(row) else "" for place in places)


def _places(path: Path, first: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Where the columns are in the first row; none unless all are there. Raises ValueError for one that is there twice."""
    names = [plain(cell).lower() for cell in first]
    if twice := [column for column in columns if names.count(column.lower()) > 1]:
        raise ValueError(f"{path}: two columns are called {twice[0]!r}")
    return [names.index(column.lower()) for column in columns] if all(c.lower() in names for c in columns) else []


def _sheets_of_workbook(path: Path) -> dict[str, Sheet]:
    import openpyxl

    try:
        with zipfile.ZipFile(path) as archive:
            xml = sum(
                part.file_size for part in archive.infolist() if part.filename.lower().endswith((".xml", ".rels"))
            )
        need_bytes(path.stat().st_size + GROWTH * xml, path, f"its {xml / 1e6:.4g} MB of cells")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            return {sheet.title: list(_filled_rows(path, sheet)) for sheet in book.worksheets}
        finally:
            book.close()
    except (TooLargeError, MemoryError, FileNotFoundError):
        raise
    except Exception as error:  # openpyxl, zipfile and xml each raise their own kinds for a damaged workbook
        raise error if str(path) in str(error) else ValueError(f"cannot read {path}: {error}") from error


def _filled_rows(path: Path, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows with something in them, read one by one: what lies between a table and a cell far off is not kept."""
    sheet.reset_dimensions()  # the file's word for them
    count = 0
    for number, row in enumerate(sheet.iter_rows(), start=1):
        count += len(row)
        if number > LAST_ROW or count > MOST_CELLS:
            raise ValueError(
                f"{path}, sheet {sheet.title!r}: it reaches to row {number}, column {len(row)}, and takes more than {LAST_ROW} rows or "
                f"{MOST_CELLS} cells, the empty ones counted: delete what lies far from the table"
            )
        cells = [_text_of(cell) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def _text_of(cell: Any) -> str:
    """As it is shown: 7 where 7.0 is stored; empty where a formula has failed."""
    value = cell.value
    if value is None or cell.data_type == "e":
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _sheets_of_text(path: Path) -> dict[str, Sheet]:
    need_bytes(GROWTH * path.stat().st_size, path, "its cells")
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
    return {path.name: [(number, row) for number, row in enumerate(rows, start=1) if any(row)]}
