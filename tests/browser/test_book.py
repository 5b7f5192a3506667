"""Every page of the built book in a real browser: from disk and from a server, wide and narrow, light and dark."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import build_book
import pytest
from browser import checks

CHECKS = (
    "accessibility anchors colab console cut images mathematics network sideways weight copying "
    "dark:accessibility server:console server:network"
).split()
NOTEBOOK = "notebooks/20_volumes_and_sentences.html"


@pytest.fixture(scope="module")
def faults(browser, html: Path, server: str) -> dict[str, list[str]]:
    """Faults of all pages by check, found in one walk: a page is loaded once from disk and once from the server."""
    found = defaultdict(list)
    names = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html") if "_static" not in path.parts)
    with browser.new_page(viewport=checks.WIDE) as page:
        watch = checks.Watch(page, f"{html.as_uri()}/")
        for name in names:
            if name != "index.html":  # it only leads to the first page
                for check, sentences in from_disk(page, watch, html, name).items():
                    found[check] += [f"{name}: {one}" for one in sentences]
    with browser.new_page(viewport=checks.WIDE) as page:
        watch = checks.Watch(page, server)
        for name in names:
            page.goto(f"{server}{name}")
            if name == "index.html":
                page.wait_for_url("**/book/intro.html")
            checks.settled(page)
            for check, sentences in watch.of_page(html).items():
                found[f"server:{check}"] += [f"{name}: {one}" for one in sentences]
    return found


def from_disk(page, watch: checks.Watch, html: Path, name: str) -> dict[str, list[str]]:
    """Load a page from disk and look at it in all four ways."""
    page.set_viewport_size(checks.WIDE)
    page.emulate_media(color_scheme="light")
    page.goto((html / name).as_uri())
    page.add_style_tag(content=checks.STILL)
    checks.settled(page)
    found = checks.measured(page)
    found["accessibility"] = checks.accessibility(page)
    found["colab"] = checks.colab(page, build_book.ROOT)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
    found["dark:accessibility"] = checks.accessibility(page, ["color-contrast"])
    page.set_viewport_size(checks.NARROW)
    found["sideways"] += checks.measured(page)["sideways"]
    return found | watch.of_page(html)


@pytest.mark.parametrize("check", CHECKS)
def test_no_page_has_a_fault(faults, check):
    assert not faults[check], "\n".join(faults[check])


def test_every_check_is_asked_for(faults):
    assert set(faults) <= {*CHECKS, "server:weight"}


def test_code_is_copied_and_cells_unfold(page, html):
    page.goto((html / NOTEBOOK).as_uri())
    assert checks.folding(page) + checks.copying(page) == []


@pytest.mark.parametrize("way", ["disk", "server"])
def test_search_finds_a_word_and_shows_where(page, html, server, way):
    folder = f"{html.as_uri()}/" if way == "disk" else server
    watch = checks.Watch(page, folder)
    assert checks.searching(page, f"{folder}search.html", "hippocampus") == []
    assert watch.of_page(html) == {"console": [], "network": [], "weight": []}
    assert checks.searching(page, f"{folder}search.html", "xylophone", seconds=1) != []
