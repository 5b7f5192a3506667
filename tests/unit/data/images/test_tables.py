"""Text tables as people save them: names meet although they are written in other characters, and nothing goes unseen."""

from __future__ import annotations

import tracemalloc
import unicodedata
import zipfile
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from PIL import Image

from textdiff.base.limits import TooLargeError
from textdiff.data.images.lvit import match_key, read_split, read_text
from textdiff.data.images.tables import plain, read_table, shown

HEAD = ["Image", "Description"]


@pytest.fixture
def split(tmp_path) -> Path:
    for part in ("img", "labelcol"):
        (tmp_path / part).mkdir()
    return tmp_path


def add(split: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (4, 3)).save(split / "img" / name)
        Image.new("L", (4, 3)).save((split / "labelcol" / name).with_suffix(".png"))


def workbook(split: Path, *sheets: list[list]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, start=1):
        sheet = book.create_sheet(f"S{number}")
        for row in rows:
            sheet.append(row)
    book.save(split / "Train_text.xlsx")
    return split / "Train_text.xlsx"


@pytest.mark.takes("Text tables", "names with accents, invisible characters or other spaces", "taken")
@pytest.mark.parametrize(
    ("file", "written"),
    [
        (unicodedata.normalize("NFD", "Ärzte é.png"), "Ärzte é.png"),
        ("Ärzte é.png", unicodedata.normalize("NFD", "ärzte é")),
        ("a b.png", "a\u00a0b.png"),
        ("ab.png", "\ufeffa\u200bb.png\u2009"),
        ("it's-1.png", "it\u2019s\u20131.png"),
        ("scan.webp", "scan"),
    ],
)
def test_names_that_look_alike_meet(split, file, written):
    add(split, file)
    workbook(split, [["\ufeffImage", "De\u200bscription "], [written, "one\u00a0two"]])
    (case,) = read_split(split)
    assert (case.name, case.caption) == (Path(file).stem, "one two")


@pytest.mark.takes("Text tables", "a row for an image that is not there, such as 12 for 0012", "refused")
@pytest.mark.parametrize(
    ("cell", "there", "said"),
    [
        (12, "0012.png", "row for '12' .*there is '0012.png': format the column as text"),
        (12.0, "0012.png", "there is '0012.png'"),
        ("scan_12b", "scan_12a.png", "there is 'scan_12a.png'\\n"),
        ("a\u0430.png", "aa.png", r"row for 'a\u0430'"),
        (datetime(2024, 1, 2), "1-2.png", "row for '2024-01-02 00:00:00'"),
    ],
)
def test_a_name_that_is_not_there_is_shown_beside_what_is(split, cell, there, said):
    add(split, there)
    workbook(split, [HEAD, [cell, "one"]])
    with pytest.raises(FileNotFoundError, match=said):
        read_split(split)


def test_invisible_differences_are_spelt_out():
    assert (shown("a b"), shown("a\u00a0b"), shown("é")) == ("'a b'", r"'a\xa0b'", "'é'")
    assert plain(" \u200bx\u3000y\u00ad\n") == "x y" and match_key("C:\\Data\\mask_A.PNG") == "a"


def test_the_sheet_that_has_the_columns_is_found(split):
    path = workbook(split, [["note"], ["see the other sheet"]], [HEAD, ["a.png", "one"]], [HEAD], [])
    assert list(read_table(path, HEAD)) == [(2, ("a.png", "one"))]
    workbook(split, [HEAD, ["a.png", "one"]], [HEAD, ["b.png", "two"]])
    with pytest.raises(ValueError, match=r"sheets \['S1', 'S2'\] all have rows"):
        read_text(split)
    workbook(split, [["My data"], HEAD], [["x"]])
    with pytest.raises(ValueError, match=r"missing column .*found \['My data'\] .*all sheets: .*'S2': \['x'\]"):
        read_text(split)
    workbook(split, [[*HEAD, "image"], ["a.png", "one", "b.png"]])
    with pytest.raises(ValueError, match="two columns are called 'Image'"):
        read_text(split)


@pytest.mark.takes("Text tables", "an empty sentence, or a formula without a value", "refused")
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a.png", "=A1"]], "row 2: empty caption for 'a.png' .*formulas without a saved value"),
        ([[None, None], ["a.png", None]], "row 3: empty caption for 'a.png'"),
        ([["a.png", "\u200b\u00a0"]], "row 2: empty caption"),
        ([["", "one"]], "row 2: empty file name"),
        ([["a.png", "one"], ["a\u200b", "two"]], r"row 3: second caption for 'a\\u200b'"),
    ],
)
def test_rows_that_say_nothing_are_named(split, rows, said):
    workbook(split, [HEAD, *rows])
    with pytest.raises(ValueError, match=said):
        read_text(split)


def test_empty_rows_between_are_no_rows(split):
    workbook(split, [HEAD, [None, None], ["a.png", "one"], ["", ""]])
    assert read_text(split) == {"a": "one"}


@pytest.mark.takes("Text tables", "CSV with commas or semicolons, TSV", "taken")
@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("Train_text.csv", 'Image,Description\na.png,"one, two"\n', "utf-8"),
        ("Train_text.csv", "Image;Description\r\n\r\na.png;one, two\r\n", "utf-8-sig"),
        ("TRAIN_TEXT.TSV", "Description\tImage\none, two\ta.png\n", "utf-8"),
    ],
)
def test_tables_of_plain_text(split, name, content, encoding):
    (split / name).write_bytes(content.encode(encoding))
    assert read_text(split) == {"a": "one, two"}


@pytest.mark.takes("Text tables", "a CSV that is not in UTF-8", "refused")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Image,Description\na.png,one, two\n", "row 2: 3 cells where the first row has 2; .* double quotes"),
        ("Image,Description\nä.png,one\n".encode("latin-1"), "not in UTF-8 .*CSV UTF-8"),
        ("Image\tDescription\na.png\tone\n".encode("utf-16"), "not in UTF-8"),
        (b"Image,Description\na.png,#REF!\n", "row 2: the caption for 'a.png' is a spreadsheet's error"),
        (b'Image,Description\na.png,"one\n', "cannot read .*Train_text.csv"),
        (b"", "missing column"),
    ],
)
def test_tables_of_plain_text_that_cannot_be_read(split, content, said):
    (split / "Train_text.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_text(split)


def test_two_tables_are_not_chosen_from(split):
    workbook(split, [HEAD, ["a.png", "one"]])
    (split / "Train_text.csv").write_text("Image,Description\na.png,two\n")
    with pytest.raises(FileNotFoundError, match=r"found \['Train_text.csv', 'Train_text.xlsx'\]"):
        read_text(split)


def test_what_is_left_out_is_counted(split, recwarn):
    add(split, "a.png")
    workbook(split, [HEAD, ["a.png", "one"]])
    for name in ("img/b.jp2", "img/c.JP2", "img/notes.txt", "img/Thumbs.db", "img/.hidden"):
        (split / name).write_bytes(b"x")
    Image.new("L", (4, 3)).save(split / "labelcol" / "z.png")
    assert [case.name for case in read_split(split)] == ["a"]
    said = sorted(str(one.message) for one in recwarn)
    assert len(said) == 2
    assert "img: 3 entries are no pictures that can be read, and left out (.jp2: 2, .txt: 1)" in said[0]
    assert "1 masks have no image, and are left out (for example 'z.png')" in said[1]


# --- from strangers --------------------------------------------------------------------------------------


def rewritten(path: Path, part: str, content: bytes) -> Path:
    """The workbook with another content of one of its parts."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, was in parts.items():
            archive.writestr(name, content if name == part else was)
    return path


def sheet_of(rows: bytes) -> bytes:
    space = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    head = b"".join(b'<c t="inlineStr"><is><t>%s</t></is></c>' % name.encode() for name in HEAD)
    return b'<worksheet xmlns="%s"><sheetData><row r="1">%s</row>%s</sheetData></worksheet>' % (space, head, rows)


@pytest.mark.takes("Text tables", "a cell far off, and nothing between", "taken")
def test_a_far_cell_takes_no_memory(split):
    book = openpyxl.Workbook()
    for row in (HEAD, ["a.png", "one"]):
        book.active.append(row)
    book.active.cell(4000, 2**14).value = "far"
    book.save(split / "t.xlsx")
    tracemalloc.start()
    rows = list(read_table(split / "t.xlsx", HEAD))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [(2, ("a.png", "one")), (4000, ("", ""))] and peak < 10**7


@pytest.mark.takes("Text tables", "more cells than memory and time allow", "refused")
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b'<row r="99999999999"><c><v>1</v></c></row>', "reaches to row 1048577, column 0"),
        (b'<row><c r="XFD2"><v>1</v></c></row>' * 400, "reaches to row 307, column 16384"),
    ],
)
def test_a_sheet_without_end_is_refused(split, rows, said):
    path = rewritten(workbook(split, [HEAD]), "xl/worksheets/sheet1.xml", sheet_of(rows))
    with pytest.raises(ValueError, match=rf"Train_text.xlsx, sheet 'S1': it {said}"):
        list(read_table(path, HEAD))


def test_tables_that_unpack_to_more_than_they_may(split, monkeypatch):
    path = rewritten(workbook(split, [HEAD]), "xl/worksheets/sheet1.xml", sheet_of(b"<row/>" * 10**5))
    (split / "t.csv").write_text("Image,Description\n" * 30_000)
    monkeypatch.setenv("TEXTDIFF_MAX_FILE_GB", "0.01")
    for file in (path, split / "t.csv"):
        with pytest.raises(TooLargeError, match=rf"{file.name}: its .*cells would take 0.* GB of memory"):
            list(read_table(file, HEAD))


def test_entities_that_grow_are_refused(split):
    lines = [b"<!DOCTYPE a [", b'<!ENTITY a0 "xxxxxxxxxx">']
    lines += [b'<!ENTITY a%d "%s">' % (k, b"&a%d;" % (k - 1) * 10) for k in range(1, 10)]
    bomb = b"".join([*lines, b"]>", sheet_of(b'<row><c t="inlineStr"><is><t>&a9;</t></is></c></row>')])
    path = rewritten(workbook(split, [HEAD]), "xl/worksheets/sheet1.xml", bomb)
    with pytest.raises(ValueError, match="cannot read .*Train_text.xlsx"):
        list(read_table(path, HEAD))
