"""The built book: whole, readable without a network, with alt text, and free of this machine's folders."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build_book
import pytest
from bs4 import BeautifulSoup

REMOTE = ("http:", "https:", "//")


@pytest.fixture(scope="session")
def pages(html) -> dict[Path, BeautifulSoup]:
    found = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in found}


def test_every_page_of_the_contents_is_built(html):
    toc = (build_book.ROOT / "_toc.yml").read_text(encoding="utf-8")
    for name in re.findall(r"(?:file|root):\s*(\S+)", toc):
        assert (html / f"{name}.html").is_file(), name
    assert (html / "index.html").is_file()


def test_nothing_is_loaded_from_another_server(html, pages):
    for path, page in pages.items():
        for tag in page.select("script[src], img[src], iframe[src], source[src], video[src], link[href]"):
            address = tag.get("src") or tag.get("href")
            assert not address.startswith(REMOTE), f"{path.relative_to(html)}: {tag}"
        for script in page.select("script:not([src])"):
            assert "https://" not in script.text, f"{path.relative_to(html)}: {script.text[:200]}"
    for path in html.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_what_a_page_loads_and_links_to_is_there(html, pages):
    for path, page in pages.items():
        for tag in page.select("script[src], img[src], link[href], a[href]"):
            address = tag.get("src") or tag.get("href")
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//") or not parts.path:
                continue
            assert (path.parent / unquote(parts.path)).exists(), f"{path.relative_to(html)} -> {address}"


def test_formulas_have_their_engine_and_fonts(html):
    assert (html / "_static/mathjax/tex-mml-chtml.js").is_file()
    assert list((html / "_static/mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))
    assert "mathjax/tex-mml-chtml.js" in (html / "book/method_2d.html").read_text(encoding="utf-8")


def test_every_picture_has_alt_text(html, pages):
    for path, page in pages.items():
        for image in page.select("main img"):
            alt = image.get("alt", "").strip()
            name = Path(urlsplit(image["src"]).path).name
            assert alt and name not in alt, f"{path.relative_to(html)}: {image}"


def test_no_folder_of_this_machine_is_printed(html, pages):
    own = [str(build_book.ROOT), str(Path.home())]
    for path, page in pages.items():
        for folder in own:
            assert f"{folder}/" not in page.get_text(), f"{folder} in {path.relative_to(html)}"


def test_notebook_pages_lead_to_colab(html, pages):
    for path in (html / "notebooks").glob("*.html"):
        links = [a["href"] for a in pages[path].select("a[href^='https://colab.research.google.com/']")]
        assert any(link.endswith(f"/blob/main/notebooks/{path.stem}.ipynb") for link in links), path.name
