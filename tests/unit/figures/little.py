"""Small pictures, volumes and tables that the tests of figures draw."""

import numpy as np
import pandas as pd

from textdiff.data.volumes.volume import Volume

IMAGE = np.full((16, 16, 3), 128, np.uint8)
TRUTH = np.zeros((16, 16), np.uint8)
TRUTH[4:8, 4:8] = 1
SHIFTED = np.roll(TRUTH, 2, axis=0)
WORDS = ["[CLS]", "upper", "left", "."]
ATTENTION = np.linspace(0, 0.4, 4 * 16).reshape(4, 4, 4)
SHOWN = [
    ("worst", IMAGE, TRUTH, {"ours": SHIFTED, "U-Net": TRUTH * 0}),
    ("best", IMAGE, TRUTH, {"ours": TRUTH, "U-Net": TRUTH}),
]

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
LABELS = np.zeros((12, 10, 8), np.uint8)
LABELS[8:11, 2:6, 1:5] = 1  # on the patient's right
LABELS[9, 3, 2:4] = 2
VOLUME = Volume(np.random.default_rng(0).normal(size=LABELS.shape).astype(np.float32), AFFINE, "case")
MARKED, EMPTY, FULL = (Volume(array, AFFINE, "case") for array in (LABELS, LABELS * 0, LABELS * 0 + 1))
UNSURE = Volume(np.full(LABELS.shape, 0.25, np.float32), AFFINE)

HEAT = pd.DataFrame([[0.5, np.nan], [0.6, 0.7]], index=pd.Index([6, 8], name="block"), columns=[50, 150])
RUNS = pd.DataFrame(
    {"row": ["ours", "ours", "ours", "U-Net"], "n_labels": [1, 1, 10, 5], "test/dice": [0.4, 0.6, 0.7, 0.3]}
)
SAMPLED = pd.DataFrame(
    {"sampling_steps": [1, 5, 1, 5], "case": list("aabb"), "dice": [0.5, 0.8, 0.6, 0.9], "seconds": [1, 5, 1, 6]}
).assign(sampler="ddim", samples=1)
PRETRAINED = pd.DataFrame({"iterations": [10, 10, 20, 20], "dice": [0.3, 0.5, 0.5, 0.7]})
DIFFERENCES = pd.DataFrame(
    {"difference": [0, 0.05, np.nan], "low": [-0.01, 0.04, np.nan], "high": [0.02, 0.07, np.nan], "cases": [3, 3, 0]},
    index=["base", "BGR", "ten tokens"],
).assign(draws=[(0.0, 0.04)] * 2 + [()])
LOSSES = DIFFERENCES.rename_axis("row").reset_index().assign(reading="none")
