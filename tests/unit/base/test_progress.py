"""How far long work is, where nobody sees a bar."""

from __future__ import annotations

from textdiff.base import progress
from textdiff.base.progress import followed


def test_captured_output_gets_whole_lines_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(followed("abcdefg", 7, "checking")) == list("abcdefg")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "textdiff: checking: 3 of 7, about 16 s left",
        "textdiff: checking: 6 of 7, about 4 s left",
    ]


def test_nothing_is_said_where_nothing_is_asked_for(capsys):
    assert list(followed([1, 2], 2, "checking", shown=False)) == [1, 2]
    assert capsys.readouterr().err == ""
