"""One chromium and one server of the book for all browser tests; without chromium or Playwright they are skipped, with the reason."""

from __future__ import annotations

import http.server
import shutil
import threading
from functools import partial
from pathlib import Path

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


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def server(html: Path):
    """Address of a server of the built book."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html))) as served:
        threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_address[1]}/"
        served.shutdown()
