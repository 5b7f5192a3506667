"""An EPUB's pages: formulas as MathML, XML that every reader opens, files of other folders in the reading order."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
import zipfile

import build_book
import epub_contents
import finish_epub
import pytest
from print_book import BROWSERS

HEAD = '<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head></head><body>'
FORMULAS = (
    '<p>with <span class="math notranslate nohighlight">\\(a &lt; b\\)</span></p>'
    '<div class="math notranslate nohighlight" id="equation-one">\n<span class="eqno">(4.1)</span>\\[\nx^2\n\\]</div>'
    '<p>and <span class="math notranslate nohighlight">\\(a &lt; b\\)</span> again; code <code>\\(no\\)</code></p>'
)
NOT_XML = (
    "<script defer src='x.js'></script><noscript><img src='y.png' alt='still'></noscript><br>1&nbsp;&lt;&nbsp;2"
    "<style scoped>td { color: red }</style><summary><p class='collapsed x'>Show</p><p class='expanded'>Hide</p></summary>"
)


def book(path, **pages):
    with zipfile.ZipFile(path, "w") as epub:
        epub.writestr("mimetype", "application/epub+zip")
        for name, body in pages.items():
            epub.writestr(f"book/{name}.xhtml", f"{HEAD}{body}</body></html>")
        epub.writestr("content.opf", "".join(f'<item href="book/{name}.xhtml" id="x"/>' for name in pages))
    return path


def named(asked):
    return [f"<math>{len(tex)} {display}</math>" for tex, display in asked]


def test_formulas_become_mathml_and_are_declared(tmp_path):
    epub = book(tmp_path / "a.epub", one=FORMULAS, two="<p>none</p>")
    asked = []
    assert finish_epub.finish(epub, tmp_path / "b.epub", lambda them: asked.extend(them) or named(them)) == 3
    assert asked == [("a < b", False), ("x^2", True)]
    with zipfile.ZipFile(tmp_path / "b.epub") as done:
        assert done.namelist()[0] == "mimetype" and done.getinfo("mimetype").compress_type == zipfile.ZIP_STORED
        page = done.read("book/one.xhtml").decode()
        assert page.count("<math>5 False</math>") == 2 and "(4.1)</span><math>3 True</math></div>" in page
        assert 'id="equation-one"' in page and "<code>\\(no\\)</code>" in page
        listed = done.read("content.opf").decode()
    assert listed.count("mathml") == 1 and 'href="book/one.xhtml" properties="mathml"' in listed


def test_pages_become_xml_that_runs_nothing():
    page = finish_epub.as_xml(f"{HEAD}{NOT_XML}</body></html>")
    root = ET.fromstring(page)
    names = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert "script" not in names and "noscript" not in names and {"img", "br", "style"} <= set(names)
    assert "1\u00a0&lt;\u00a02" in page and "<summary>Show</summary>" in page
    assert root[0][0].tag.endswith("style") and not root[0][0].attrib


def test_a_page_that_is_no_xml_is_named():
    with pytest.raises(finish_epub.EpubFailed, match=r"book/x.xhtml is no XML: mismatched tag.*: <p><b>1</p>"):
        finish_epub.check("book/x.xhtml", b"<html>\n<p><b>1</p>\n</html>")


def test_capitals_of_other_alphabets_are_characters():
    kinds = [("script", "L"), ("script", "N"), ("double-struck", "R"), ("double-struck", "E")]
    letters = [f'<mi mathvariant="{kind}">{letter}</mi>' for kind, letter in kinds]
    assert [finish_epub.LETTER.sub(finish_epub.lettered, one) for one in letters] == [
        f"<mi>{letter}</mi>" for letter in "ℒ𝒩ℝ𝔼"
    ]


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="formulas are set by a browser")
def test_mathjax_sets_formulas_and_names_what_it_does_not_know(tmp_path):
    mathjax = build_book.ROOT / "book/_static/mathjax/tex-mml-chtml.js"
    convert = finish_epub.by_mathjax(next(filter(None, map(shutil.which, BROWSERS))), mathjax, tmp_path)
    inline, block = convert([(r"a < \sqrt{b}", False), (r"\bigl\lVert \mathcal N \bigr\rVert", True)])
    assert [one.tag.rpartition("}")[2] for one in ET.fromstring(inline).iter()] == ["math", "mi", "mo", "msqrt", "mi"]
    assert ET.fromstring(block).attrib == {"display": "block"} and "<mi>𝒩</mi>" in block and "data-" not in block
    with pytest.raises(finish_epub.EpubFailed, match=r"MathJax does not understand '.*nonsense'"):
        convert([(r"\nonsense", False)])


def test_pages_of_other_folders_have_their_own_address(monkeypatch):
    seen = []
    monkeypatch.setattr(epub_contents.Epub3Builder, "toc_add_files", lambda self, nodes: seen.extend(nodes))
    pages = [{"refuri": "book/../notebooks/x.xhtml"}, {"refuri": "book/y.xhtml"}]
    epub_contents.Builder.toc_add_files(object.__new__(epub_contents.Builder), pages)
    assert [page["refuri"] for page in seen] == ["notebooks/x.xhtml", "book/y.xhtml"]
