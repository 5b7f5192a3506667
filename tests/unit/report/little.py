"""Two small grids, and records of some of their runs as `load_records` gives them, per-case tables on disk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from textdiff.experiments.config import Config
from textdiff.experiments.grids import Grid, Row
from textdiff.experiments.volumes import TextDiffSegConfig

IMAGES = Grid(
    "little",
    "Is it the text?",
    (Row("with text", {}), Row("without", {"model": "textdiff_no_text"}), Row("never run", {"model": "unet"})),
    {"dataset": "chest_phantoms"},
    (0, 1),
)
VOLUMES = Grid(
    "little",
    "Which is better?",
    (Row("TextDiffSeg", {}), Row("SegResNet", {"model": "segresnet"}), Row("never run", {"model": "unetr"})),
    {"mode": "full", "dataset": "hippocampus", "text_encoder": "tiny"},
    (0, 1),
    TextDiffSegConfig,
)
HEAD, TAIL = "anterior_hippocampus", "posterior_hippocampus"


def saved(root: Path, config: Config, per_case: pd.DataFrame, metrics: dict[str, float]) -> dict:
    """A record's row; `metrics` are those of the test."""
    folder = root / config.run_id
    folder.mkdir(exist_ok=True)
    per_case.to_csv(folder / "per_case.csv", index=False)
    dice = per_case["dice"].mean()
    metrics = {"n": len(per_case), "dice": dice, "dice_ci_low": dice - 0.1, "dice_ci_high": dice + 0.1, **metrics}
    cost = {"val/dice": dice, "train/seconds": 1200.0, "model/trained_parameters": 134130}
    place = {"run_id": config.run_id, "experiment": config.experiment, "folder": folder, "stale": False}
    return config.to_record() | {f"test/{name}": value for name, value in metrics.items()} | cost | place


def image_record(root: Path, config: Config, dice: dict[str, float]) -> dict:
    """`dice`: by case; half as much at the native size, 0.1 less with another image's sentence."""
    table = pd.DataFrame({"case": list(dice), "dice": list(dice.values())})
    table["dice_native"] = table["dice"] / 2
    if config.reads:
        table["dice_shuffled"] = table["dice"] - 0.1
    mean = table["dice"].mean()
    return saved(root, config, table, {"iou": mean, "dice_pooled": mean + 0.02, "dice_native": mean / 2})


def image_records(root: Path) -> pd.DataFrame:
    """Both draws of the first two rows: the text is worth 0.3, 0.1 in the first draw and 0.4, 0.2 in the second."""
    text, none, _ = (IMAGES.configs(row) for row in IMAGES.rows)
    dice = [{"001": 0.6, "002": 0.5}, {"002": 0.4, "001": 0.3}, {"001": 0.8, "002": 0.7}, {"001": 0.4, "002": 0.5}]
    configs = [text[0], none[0], text[1], none[1]]
    return pd.DataFrame([image_record(root, config, one) for config, one in zip(configs, dice, strict=True)])


def volume_record(root: Path, config: Config, dice: dict[str, float], distances: list, read: float = 0) -> dict:
    """`distances`: HD95 by case. `read`: Dice of a structure when it alone is asked for; 0.02 of it when the other is."""
    table = pd.DataFrame({"case": list(dice), "dice": list(dice.values()), "hd95_mm": distances})
    mean, far = table["dice"].mean(), table["hd95_mm"].mean()
    metrics = {"iou": mean / 2, "iou_pooled": mean / 2, "hd95_mm": far, "assd_mm": 0.5, "seconds": 1.5}
    for name, shift in ((HEAD, 0.05), (TAIL, -0.05)):
        own = {"dice": mean + shift, "iou": mean / 2, "hd95_mm": far, "assd_mm": 0.5}
        metrics |= {f"{score}_{name}": value for score, value in own.items()}
    if read:
        metrics |= {f"dice_{a}_asked_for_{b}": read if a == b else 0.02 for a in (HEAD, TAIL) for b in (HEAD, TAIL)}
        metrics |= {"dice_one_by_one": read, "dice_swapped": 0.02}
    return saved(root, config, table, metrics)


def volume_records(root: Path) -> pd.DataFrame:
    """Two draws of TextDiffSeg and one of SegResNet; the case 002 has no distance in the former."""
    ours, net = (VOLUMES.configs(row) for row in VOLUMES.rows[:2])
    one = volume_record(root, ours[0], {"001": 0.9, "002": 0.8}, [1.0, None], read=0.84)
    two = volume_record(root, ours[1], {"001": 0.7, "002": 0.8}, [2.0, None], read=0.74)
    return pd.DataFrame([one, two, volume_record(root, net[0], {"002": 0.7, "001": 0.85}, [3.0, 1.5])])


# Dice of forty images of two patients
TWO_PATIENTS = {f"sub-{who}_run-{image}": dice for who, dice in (("a", 0.2), ("b", 0.8)) for image in range(20)}
