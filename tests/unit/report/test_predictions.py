"""What was found in one volume, beside the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.tiny_volumes import NAMES, volume_case
from textdiff.models.inference import Prediction
from textdiff.report.missing import NOT_GIVEN
from textdiff.report.predictions import found_table


def test_amounts_middles_and_dice_beside_the_truth():
    truth = volume_case().labels()
    marked = replace(truth, array=np.where(truth.array == 1, 1, 0))
    found = Prediction(marked, NAMES, {"liver": (2.0, 2.5), "left kidney": (0.0, 0.0)}, 1.0)
    liver, kidney = found_table(found, truth).frame.to_dict("records")
    assert (liver["marked (ml)"], liver["in the samples (ml)"], liver["truth (ml)"]) == ("2.3", "2.0 to 2.5", "2.3")
    assert (liver["within"], liver["middles apart (mm)"], liver["Dice"]) == ("yes", "0.0", "1.000")
    assert (kidney["middle (mm)"], kidney["within"], kidney["middles apart (mm)"]) == ("none", "no", NOT_GIVEN)
    _, kidney = found_table(found, truth, ["liver"]).frame.to_dict("records")
    assert kidney["asked for"] == "no" and kidney["Dice"] == kidney["truth (ml)"] == ""
    assert "truth (ml)" not in found_table(found).frame.columns
