"""The record of a set larger than memory: what the page says of it is what is in it, and the published one keeps its promise."""

import pandas as pd
import pytest

from textdiff.experiments.records import published_dir
from textdiff.figures.held import held_curve
from textdiff.report.streaming import growth_mb, held, held_text

ABOUT = {"volumes": 9, "limited_mb": 700, "set_mb": 900, "share_mb": 18.0, "steps": 40, "env": {"cores": 2}}


def watched(own):
    parts = ["start", "reading", "reading", *["training"] * 4]
    table = {"seconds": range(7), "part": parts, "RssAnon": own, "RssFile": [50, 200, 400, 300, 500, 100, 90]}
    return pd.DataFrame(table)


def test_growth_is_told_from_the_first_volume_on():
    frame = watched([100, 300, 310, 320, 325, 322, 321])
    assert growth_mb(frame) == 25
    said = held_text(frame, ABOUT)
    assert "grew by 25 MB" in said and "to the last by +1.0 MB" in said and "9 volumes, 900 MB" in said
    assert "allowed the whole process 700 MB" in said and "allowed the" not in held_text(
        frame, ABOUT | {"limited_mb": 0}
    )


def test_a_set_that_is_kept_in_memory_would_be_seen():
    assert growth_mb(watched([100, 300, 600, 900, 1200, 1200, 1200])) == 900


def test_the_figure_says_both_kinds_and_the_size_of_the_set():
    figure = held_curve(watched([100, 300, 310, 320, 325, 322, 321]), 900, 18)
    words = [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]
    assert {"reading", "training", "the set, 900 MB"} <= set(words)


def test_the_published_measurement_is_of_a_set_fifty_times_its_share_and_flat():
    if not (published_dir() / "streaming").is_dir():
        pytest.skip("no published measurement of streaming")
    frame, about = held(published_dir() / "streaming")
    assert about["set_mb"] >= 49 * about["share_mb"] and about["env"]["dirty"] is False
    assert growth_mb(frame) < about["set_mb"] / 20
    assert {path.name for path in (published_dir() / "streaming").iterdir()} == {"about.json", "env.json", "held.csv"}
