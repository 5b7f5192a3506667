"""What can be counted in images with sentences, most of it before anything is trained. In: cases. Out: tables and counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from textdiff.data.cases import Case, Dataset
from textdiff.data.images.captions import named_side
from textdiff.data.images.transforms import mask_at
from textdiff.evaluation.metrics import case_scores
from textdiff.models.textdiff import TextDiff


def sentence_counts(data: Dataset) -> pd.DataFrame:
    """How often each sentence occurs: one row per sentence, columns train, val, test; the most frequent of training first."""
    counts = {name: pd.Series([case.caption for case in getattr(data, name)]) for name in ("train", "val", "test")}
    table = pd.DataFrame({name: captions.value_counts() for name, captions in counts.items()}).fillna(0).astype(int)
    return table.sort_values("train", ascending=False, kind="stable").rename_axis("sentence")


def side_agreement(cases: Sequence[Case]) -> tuple[int, int]:
    """Of how many one-sided sentences the mask lies on the side of the picture that they name, and how many there are.

    A mask lies where the mean of its foreground's columns is. Cases with an empty mask do not count.
    """
    agreeing = total = 0
    for case in cases:
        side, columns = named_side(case.caption), np.nonzero(case.mask())[1]
        if side is not None and len(columns):
            total += 1
            agreeing += ("left" if columns.mean() < case.mask().shape[1] / 2 else "right") == side
    return agreeing, total


def mask_rules(cases: Sequence[Case], size: int) -> pd.DataFrame:
    """What the two rules of reducing a mask do at ``size`` pixels: one row per case.

    ``native``, ``area``, ``dilated``: shares (0..1) of foreground at the mask's own size and under each rule; ``dice`` between
    the two reduced masks.
    """
    rows = []
    for case in cases:
        mask = case.mask()
        area, dilated = (mask_at(mask, size, rule) for rule in ("area", "dilated"))
        shares = {"native": (mask > 0).mean(), "area": area.double().mean(), "dilated": dilated.double().mean()}
        rows.append(shares | {"dice": case_scores(dilated, area)["dice"]})
    return pd.DataFrame(rows).astype(float)


def most_moved(model: TextDiff, cases: Sequence[Case], captions: Sequence[str]) -> int:
    """Place of the case of whose pixels the most change their label when ``captions[i]`` stands for the case's own sentence."""
    moved = [
        (model.predict(case.image(), case.caption) != model.predict(case.image(), caption)).mean()
        for case, caption in zip(cases, captions, strict=True)
    ]
    return int(np.argmax(moved))
