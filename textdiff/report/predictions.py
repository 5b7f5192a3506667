"""What was found in one volume. In: a prediction and, where it is known, the truth. Out: a `Table`, one line per structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from textdiff.evaluation.metrics import case_scores
from textdiff.report.missing import NOT_GIVEN
from textdiff.report.tables import Table

if TYPE_CHECKING:
    from textdiff.data.volumes.volume import Volume
    from textdiff.models.inference import Prediction


def found_table(prediction: Prediction, truth: Volume | None = None, asked: Sequence[str] = ()) -> Table:
    """Volume of every structure in the samples, and its middle; with the truth, whether the volume lies within their range,
    how far apart the middles are, and the Dice.

    `truth`: on the prediction's grid. `asked`: the structures that the sentence names; all if empty. Those that it does not name
    are listed, and not compared with the truth.
    """
    lines = []
    for label, name in enumerate(prediction.class_names[1:], start=1):
        amounts = prediction.volumes_ml[name]
        wanted = name in asked or not asked
        line = {
            "structure": name,
            "asked for": "yes" if wanted else "no",
            "found (ml)": f"{np.mean(amounts):.1f}",
            "in the samples (ml)": f"{min(amounts):.1f} to {max(amounts):.1f}",
            "middle (mm)": _written(_middle(prediction.labels, label)),
        }
        if truth is not None:
            line |= _compared(prediction, truth, label) if wanted else dict.fromkeys(COMPARED, "")
        lines.append(line)
    text = [
        f"What was found, with {len(amounts)} sample(s). Middle: of all voxels of the structure, in mm to the patient's right, "
        "front and head."
    ]
    if truth is not None:
        text.append("Within: whether the true volume lies in the range of the samples' volumes.")
    return Table(pd.DataFrame(lines, dtype=object), " ".join(text))


COMPARED = ("truth (ml)", "within", "middles apart (mm)", "Dice")


def _compared(prediction: Prediction, truth: Volume, label: int) -> dict[str, str]:
    amounts = prediction.volumes_ml[prediction.class_names[label]]
    true, marked = truth.array == label, prediction.labels.array == label
    ml = true.sum() * truth.voxel_ml
    found, there = _middle(prediction.labels, label), _middle(truth, label)
    apart = NOT_GIVEN if not found or not there else f"{np.linalg.norm(np.subtract(found, there)):.1f}"
    within = "yes" if min(amounts) <= ml <= max(amounts) else "no"
    cells = [f"{ml:.1f}", within, apart, f"{case_scores(marked, true)['dice']:.3f}"]
    return dict(zip(COMPARED, cells, strict=True))


def _middle(labels: Volume, label: int) -> tuple[float, ...] | None:
    voxels = np.argwhere(labels.array == label)
    return tuple((labels.affine @ [*voxels.mean(axis=0), 1])[:3].tolist()) if len(voxels) else None


def _written(place: tuple[float, ...] | None) -> str:
    return "none" if place is None else ", ".join(f"{one:.0f}" for one in place)
