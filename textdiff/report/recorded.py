"""Figures of records. In: a run and a figure's name. Out: the picture, with its alt text and caption, as a cell's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textdiff.base.files import read_json
from textdiff.experiments.records import Run


@dataclass(frozen=True)
class RecordedFigure:
    """A PNG and its words, shown in a notebook as the figure was; `png` is empty where the record has no such picture."""

    png: bytes
    words: dict[str, str]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if not self.png:
            return {"text/plain": self.words["caption"]}, {}
        return {"image/png": self.png}, {"image/png": self.words}


def recorded_figure(run: Run, name: str) -> RecordedFigure:
    """A figure of a finished run. Published records of real images have the training curve only: then words say so."""
    path = run.figure(name)
    if path is None:
        return RecordedFigure(b"", {"alt": "", "caption": f"This record has no figure “{name}”."})
    return RecordedFigure(path.read_bytes(), read_json(path.with_suffix(".json")))
