"""How far long work is: a line now and then where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from textdiff.base import progress
from textdiff.base.progress import Progress, in_words


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Its last number is the time in seconds."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def told(clock, capsys, seconds: float, total: int, **how) -> list[str]:
    with Progress(total, "windows", "what is done", **how) as work:
        for _ in range(total):
            clock.append(clock[-1] + seconds)
            work.step()
    captured = capsys.readouterr()
    assert not captured.out and "\r" not in captured.err
    return captured.err.splitlines()


def test_long_work_says_at_once_how_long_and_then_every_ten_seconds(clock, capsys):
    lines = told(clock, capsys, seconds=4.0, total=50)
    assert lines[:2] == ["textdiff: what is done", "textdiff: 2 of 50 windows, about 3 min left"]
    assert lines[2] == "textdiff: 5 of 50 windows, about 3 min left"
    assert lines[-1] == "textdiff: 47 of 50 windows, about 12 s left" and len(lines) == 17


def test_one_step_that_takes_long_is_told_when_it_is_done(clock, capsys):
    assert told(clock, capsys, seconds=30.0, total=3)[1] == "textdiff: 1 of 3 windows, about 60 s left"


def test_short_work_is_announced_only(clock, capsys):
    assert told(clock, capsys, seconds=0.1, total=50) == ["textdiff: what is done"]
    assert told(clock, capsys, seconds=60, total=50, shown=False) == []


def test_a_terminal_has_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with Progress(3, "windows", "what is done") as work:
        for _ in range(3):
            clock.append(clock[-1] + 30)
            work.step()
    said = capsys.readouterr().err
    assert "0/3" in said and "about" not in said


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (150, "2 min"), (7200, "2.0 h")])
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
