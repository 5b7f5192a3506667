"""What the tests of data share: a local server, folders of one's own, nothing said and no waiting."""

from __future__ import annotations

import pytest
from local_server import Server

from textdiff.data import download


@pytest.fixture
def server(monkeypatch):
    """A local server that downloads are brought from, tried again at once."""
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A folder in which data, weights and caches are."""
    for kind in ("data", "weights", "cache"):
        monkeypatch.setenv(f"TEXTDIFF_{kind.upper()}", str(tmp_path / kind))
    return tmp_path
