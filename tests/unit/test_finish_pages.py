"""The last step of the book's build: what it marks, mends, takes out and leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import finish_pages
import pytest
from bs4 import BeautifulSoup
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables._g_l_y_f import Glyph

PAGE = """<!doctype html><html><head><script src="../_static/searchtools.js"></script>
<script src="../_static/mathjax/tex.js"></script><script defer src="../_static/scripts/fontawesome.js"></script></head>
<body><div class="bd-sidebar-primary"><div class="sidebar-primary-item"><a class="navbar-brand">Book</a></div></div>
<main><article class="bd-article"><h1>One<a class="headerlink">#</a></h1><section id="two"><h2>Two</h2>
<p>About a &lt; b and the hippocampus.</p></section><script>no()</script></article>
<i class="fa-solid fa-list"></i><button aria-label="Find">Search</button><button aria-label="Mode"><i></i></button>
<div role="list"><div role="doc-biblioentry">A paper</div></div></main></body></html>"""
ICONS = (
    '.fa-list:before,.fa-list-squares:before{content:"\\f03a"}.fa-ghost:before{content:"\\f6e2"}'
    'html{--pst-icon-bell:"\uf0f3"}@font-face{src:url(a.woff2) format("woff2"),url(a.ttf) format("truetype")}'
)


def page_of(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


@pytest.fixture
def book(tmp_path) -> Path:
    """A built book of one page and its search page, with fonts of three icons."""
    files = {
        "book/one.html": PAGE,
        "search.html": '<html><head><script src="_static/searchtools.js"></script></head><body></body></html>',
        finish_pages.STYLES: ICONS,
        "_static/scripts/fontawesome.js": "1",
        "_static/scripts/fontawesome.js.map": "1",
        "_static/scripts/theme.js.map": "1",
        "_static/scripts/theme.js": "1",
        f"{finish_pages.FONTS}/a.woff2": "1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    glyphs = {0xF03A: "list", 0xF6E2: "ghost", 0xF0F3: "bell"}
    names = [".notdef", *glyphs.values()]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap(glyphs)
    font.setupGlyf({name: Glyph() for name in names})
    font.setupHorizontalMetrics({name: (500, 0) for name in names})
    font.setupHorizontalHeader()
    font.setupPost()
    font.save(tmp_path / finish_pages.FONTS / "a.ttf")
    return tmp_path


def test_scripts_stay_where_they_are_needed(book):
    finish_pages.finish(book)
    assert "<script src=" not in (book / "book/one.html").read_text(encoding="utf-8")
    assert re.findall(r'src="([^"]+)"', (book / "search.html").read_text(encoding="utf-8")) == [
        "_static/searchtools.js",
        "_static/page_texts.js",
    ]
    assert [file.name for file in (book / "_static/scripts").iterdir()] == ["theme.js"]


def test_mathjax_stays_where_there_is_mathematics():
    page = page_of('<script src="mathjax/tex.js"></script><main><span class="math">x</span></main>')
    finish_pages.lighten(page, search=False)
    assert page.select_one("script")


def test_icons_that_are_used_stay(book):
    finish_pages.finish(book)
    styles = (book / finish_pages.STYLES).read_text(encoding="utf-8")
    assert "fa-list:before" in styles and "fa-ghost" not in styles and "woff2" not in styles
    assert set(TTFont(book / finish_pages.FONTS / "a.ttf").getBestCmap()) == {0xF03A, 0xF0F3}
    assert not list(book.rglob("*.woff2"))


def test_a_theme_with_other_icons_is_refused(book):
    (book / finish_pages.STYLES).write_text("body{}", encoding="utf-8")
    with pytest.raises(ValueError, match="the theme has changed"):
        finish_pages.finish(book)


def test_the_search_has_the_text_of_each_page_by_section(book):
    finish_pages.finish(book)
    script = (book / "_static/page_texts.js").read_text(encoding="utf-8")
    texts = json.loads(re.search(r"^const PAGE_TEXTS = (.*);$", script, re.MULTILINE)[1])
    assert list(texts) == ["book/one.html"]
    page = page_of(texts["book/one.html"])
    assert page.select_one("[role=main] #two").get_text(strip=True) == "Two About a < b and the hippocampus."
    assert "no()" not in page.text and "#" not in page.text


def test_names_for_screen_readers():
    page = page_of(PAGE)
    finish_pages.mend(page)
    assert [button.get("aria-label") for button in page.select("button")] == [None, "Mode"]
    assert page.select_one("[role=list] > [role=listitem]") and page.select_one("[role=banner] .navbar-brand")


def test_a_chapter_names_its_toggle_and_a_long_signature_is_a_plain_list():
    page = page_of(
        '<li class="has-children"><a>1. Start</a><details><summary><i></i></summary><ul><li><a>1.1. Try</a></li></ul></details></li>'
        '<dl><dt class="sig">f(<dl><dd>a</dd><dd>b</dd></dl>)</dt><dd>words</dd></dl>'
    )
    finish_pages.mend(page)
    assert page.summary["aria-label"] == "Pages of 1. Start"
    assert [line.name for line in page.select(".signature-lines > *")] == ["li", "li"]
    assert [child.name for child in page.dl.find_all(recursive=False)] == ["dt", "dd"]


def test_columns_of_numbers():
    rows = [
        ["", "Dice", "n", "interval", "parameters", "difference", "name", "gaps"],
        ["U-Net", "88.12", "1 of 3", "84.63 to 86.65", "6.37 M", "+1.26 (-0.26 to +2.77)", "5 draws, one", "–"],
        ["SegResNet", "77.06 ± 0.02", "2,266", "–", "95 %", "−0.1", "SegResNet", ""],
    ]
    head, *body = [
        "<tr>" + "".join(f"<{tag}>{word}</{tag}>" for word in row) + "</tr>"
        for tag, row in zip(["th", "td", "td"], rows, strict=True)
    ]
    page = page_of(f"<main><table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table></main>")
    finish_pages.mend(page)
    marked = [[cell.get_text() for cell in row.select(".number")] for row in page.select("tr")]
    assert marked == [row[1:6] for row in rows]
    assert [cell.name for cell in page.select("thead tr > *")] == ["td", *["th"] * 7]
