"""Figures of records, shown with their words."""

from __future__ import annotations

import json

import pytest

from textdiff.experiments.config import Config
from textdiff.experiments.records import Run
from textdiff.report.recorded import recorded_figure


@pytest.fixture
def run(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/training.png").write_bytes(b"picture")
    (tmp_path / "figures/training.json").write_text(json.dumps({"alt": "A curve.", "caption": "Training."}))
    return Run(Config(), tmp_path)


def test_a_recorded_figure_has_its_words(run):
    data, words = recorded_figure(run, "training")._repr_mimebundle_()
    assert data == {"image/png": b"picture"} and words == {"image/png": {"alt": "A curve.", "caption": "Training."}}


def test_a_figure_that_is_not_there_is_said(run):
    data, _ = recorded_figure(run, "worst")._repr_mimebundle_()
    assert "worst" in data["text/plain"]
