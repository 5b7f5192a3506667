"""Training from a set larger than memory. In: the folder that `tools/measure_streaming.py` wrote. Out: its table, and what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from textdiff.base.files import read_json


def held(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What was held at each moment (:func:`textdiff.figures.held.held_curve`), and of what set on which machine."""
    about = read_json(folder / "about.json") | {"env": read_json(folder / "env.json")}
    return pd.read_csv(folder / "held.csv"), about


def growth_mb(watched: pd.DataFrame) -> float:
    """By how many megabytes what cannot be given back grew, from the first moment of reading to the most of all training."""
    own = watched[watched["part"] != "start"]
    return float(own["RssAnon"].max() - own["RssAnon"].iloc[0])


def held_text(watched: pd.DataFrame, about: dict[str, Any]) -> str:
    """Of what set, and by how much memory grew."""
    training = watched[watched["part"] == "training"]["RssAnon"]
    drift = training.tail(len(training) // 4).mean() - training.iloc[: len(training) // 4].mean()
    limit = f"The system allowed the whole process {about['limited_mb']} MB, file pages included.\n"
    return (
        f"{about['volumes']} volumes, {about['set_mb']} MB of voxels, {about['share_mb']:.0f} MB of them allowed in memory, "
        f"{about['steps']} steps, {about['env']['cores']} cores.\n{limit if about['limited_mb'] else ''}"
        f"From the first volume read to the most of all training, memory that cannot be given back grew by {growth_mb(watched):.0f} MB; "
        f"from the first quarter of training to the last by {drift:+.1f} MB."
    )
