"""One chromium for all browser tests; where it or Playwright is missing they are skipped with the reason."""

from __future__ import annotations

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api",
        reason="the browser tests need Playwright: pip install playwright (no `playwright install`)",
    )
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("the browser tests need chromium: apt-get install chromium (Debian, Ubuntu), or Google Chrome")
    with sync_api.sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=found) as browser:
            yield browser


@pytest.fixture
def page(browser):
    with browser.new_page() as page:
        yield page
