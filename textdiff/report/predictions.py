"""What was found in one volume. In: a prediction and, where it is known, the truth. Out: a `Table`, one line per structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from textdiff.data.volumes.volume import Volume
from textdiff.evaluation.metrics import case_scores
from textdiff.models.inference import Prediction
from textdiff.report.missing import NOT_GIVEN
from textdiff.report.tables import Table

COMPARED = ("truth (ml)", "within", "middles apart (mm)", "Dice")


def found_table(prediction: Prediction, truth: Volume | None = None, asked: Sequence[str] = ()) -> Table:
    """Volume of every structure in the mask and in the samples, and its middle; with the truth, whether the true volume lies
    within the samples' range, how far apart the middles are, and the Dice.

    `truth`: on the prediction's grid. `asked`: the structures that the sentence names; all if empty. Those that it does not name
    are listed, and not compared with the truth.
    """
    lines = []
    for label, name in enumerate(prediction.class_names[1:], start=1):
        amounts = prediction.volumes_ml[name]
        wanted, middle = name in asked or not asked, _middle(prediction.labels, label)
        line = {
            "structure": name,
            "asked for": "yes" if wanted else "no",
            "marked (ml)": f"{(prediction.labels.array == label).sum() * prediction.labels.voxel_ml:.1f}",
            "in the samples (ml)": f"{min(amounts):.1f} to {max(amounts):.1f}",
            "middle (mm)": ", ".join(f"{one:.0f}" for one in middle) if np.isfinite(middle).all() else "none",
        }
        if truth is not None:
            line |= _compared(prediction, truth, label) if wanted else dict.fromkeys(COMPARED, "")
        lines.append(line)
    text = [
        f"What was found, with {len(amounts)} sample(s). Marked: in the mask, which follows the mean of the samples; one sample "
        "alone may mark much more. Middle: of all marked voxels of the structure, in mm to the patient's right, front and head."
    ]
    if truth is not None:
        text.append("Within: whether the true volume lies in the range of the samples' volumes.")
    return Table(pd.DataFrame(lines, dtype=object), " ".join(text))


def _compared(prediction: Prediction, truth: Volume, label: int) -> dict[str, str]:
    amounts = prediction.volumes_ml[prediction.class_names[label]]
    true, marked = truth.array == label, prediction.labels.array == label
    ml = true.sum() * truth.voxel_ml
    apart = np.linalg.norm(_middle(prediction.labels, label) - _middle(truth, label))
    within = "yes" if min(amounts) <= ml <= max(amounts) else "no"
    dice = case_scores(marked, true)["dice"]
    cells = [f"{ml:.1f}", within, NOT_GIVEN if np.isnan(apart) else f"{apart:.1f}", f"{dice:.3f}"]
    return dict(zip(COMPARED, cells, strict=True))


def _middle(labels: Volume, label: int) -> np.ndarray:
    """Of all voxels of a structure, mm in the patient's axes [3]; nan where there are none."""
    voxels = np.argwhere(labels.array == label)
    return (labels.affine @ [*voxels.mean(axis=0), 1])[:3] if len(voxels) else np.full(3, np.nan)
