"""Does a model's own doubt tell where it fails? In: a model called `model(images, captions)` and cases. Out: per case the true Dice
beside what the model says of itself; and how well the one is told by the other.

Nothing here is fitted, and no doubt is told the truth. `expected_dice` is high, and `agreement` too, where the model is sure.
The Dice expected of a mask out of its probabilities: Lipton et al. 2014 for one image's F1, which the Dice is; Li et al. 2022 as an
estimate under another source's images. Cases in the order of doubt: Geifman and El-Yaniv 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec
from textdiff.evaluation.calibration import error_detection
from textdiff.evaluation.metrics import SMOOTH, case_scores, interval_by_patient
from textdiff.models.mirroring import both_answers, followed
from textdiff.training.teaching import agreement

SURE = ("expected_dice", "agreement")  # columns that are high where a model is sure
FAILED = 0.5  # a Dice below it is a failure
SHARES = (0.5, 0.75, 0.9, 1.0)  # of the cases, those of least doubt first


def expected_dice(probabilities: Tensor) -> Tensor:
    """The Dice that a model expects of its own masks: ``[B]`` in 0..1, from probabilities ``[B, K, H, W]`` (sum 1 over K).

    Of a class with probabilities p and the mask of the k pixels in which it is the most probable one: twice the sum of p in the
    mask, by k plus the sum of p everywhere; the mean over the foreground classes. It is right on average where the probabilities
    are. Without a mask it is near 0, and 1 where no pixel has any probability. Raises ValueError for fewer than two classes.
    """
    if probabilities.ndim != 4 or probabilities.shape[1] < 2:
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)}: expected [B, K, H, W] with two classes or more"
        )
    chances = probabilities.double()
    masks = F.one_hot(chances.argmax(dim=1), chances.shape[1]).movedim(-1, 1)
    inside, marked, total = ((one[:, 1:]).sum(dim=(2, 3)) for one in (chances * masks, masks, chances))
    return ((2 * inside + SMOOTH) / (marked + total + SMOOTH)).mean(dim=1)


def measure_doubt(
    model: Any,
    cases: Sequence[Case],
    spec: ImageSpec,
    *,
    eval_size: int = 256,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    reading: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """One row per case: its true Dice, and what the model itself has to say of its mask; cases are read batch by batch.

    Args:
        model: in eval mode, on `device`; takes float images ``[B, 3, S, S]`` in [-1, 1] (``S = spec.image_size``) and captions,
            gives logits ``[B, spec.num_classes, S, S]``. One with ``once(images, captions)`` too answers by the mean of a picture
            and its mirror image, unless its ``mirrored`` is False.
        eval_size: side in pixels at which masks and probabilities are compared, as of `images.score_cases`.
        reading: ask without the sentence as well; a text encoder must allow empty sentences.

    Returns the columns `case`, `dice` (that of `images.score_cases`), `expected_dice`, `agreement` (Dice of the answers to the picture
    and to its mirror image, whose sentence follows; nan where it cannot), all 0..1, and with `reading` also `unread`: Dice of the
    masks with the own sentence and without any, 1 where the words change nothing.

    Raises ValueError for no cases, and FloatingPointError when the model gives nan or infinity.
    """
    if len(cases) == 0:
        raise ValueError("there are no cases to ask about")
    rows: list[dict[str, Any]] = []
    with torch.no_grad(), tqdm(total=len(cases), unit="image", disable=not progress, leave=False) as bar:
        for start in range(0, len(cases), batch_size):
            batch = cases[start : start + batch_size]
            images, masks = zip(*(case.pair(spec.num_classes) for case in batch), strict=True)
            inputs = torch.stack([spec.input(image) for image in images]).to(device)
            found, columns = _asked(model, inputs, [case.caption for case in batch], eval_size, reading)
            for i, (case, mask, labels) in enumerate(zip(batch, masks, found, strict=True)):
                scores = case_scores(labels, spec.target(mask, eval_size), spec.num_classes)
                doubts = {name: float(column[i]) for name, column in columns.items()}
                if not np.isfinite(doubts["expected_dice"]):
                    raise FloatingPointError(f"the model gives nan or infinity for case {case.name!r}")
                rows.append({"case": case.name, "dice": scores["dice"]} | doubts)
            bar.update(len(batch))
    return pd.DataFrame(rows)


def _asked(
    model: Any, inputs: Tensor, words: Sequence[str], size: int, reading: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch's masks ``[B, size, size]`` on the processor, and a column ``[B]`` of each doubt."""
    # One that answers by the mean of a picture and its mirror image has ``once``, and need not be asked a third time
    once, twice = getattr(model, "once", model), hasattr(model, "once") and getattr(model, "mirrored", True)
    upright, mirrored = both_answers(once, inputs, words)
    found = _at((upright + mirrored) / 2 if twice else upright, size)
    follows = torch.tensor([followed(said) is not None for said in words], device=found.device)
    agreeing = _agreement(upright, mirrored).where(follows, torch.nan)
    columns = {"expected_dice": expected_dice(found), "agreement": agreeing}
    if reading:
        bare = model(inputs, [""] * len(words)).float().softmax(dim=1)
        columns["unread"] = _agreement(found, _at(bare, size))
    return found.argmax(dim=1).cpu(), columns


def _at(probabilities: Tensor, size: int) -> Tensor:
    """Probabilities ``[B, K, size, size]`` of ``[B, K, H, W]``: their logarithms enlarged, as logits are."""
    if probabilities.shape[-2:] == (size, size):
        return probabilities
    logits = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False).softmax(dim=1)


def _agreement(one: Tensor, other: Tensor) -> Tensor:
    """`agreement` of the masks of probabilities ``[B, K, H, W]``."""
    return agreement(one.argmax(dim=1), other.argmax(dim=1), one.shape[1])


def told_by(table: pd.DataFrame, sure: str, failed: float = FAILED) -> dict[str, float]:
    """How well the column `sure` (high where the model is sure) tells the column `dice`, over the cases that have both.

    `spearman`: rank correlation, 1 where the surer case is always the better one; `auroc`: the chance that of a failure (Dice below
    `failed`) and another case the failure is the less sure one, 0.5 is guessing; `failed_share`: failures among the cases. nan where
    there is nothing to tell apart.
    """
    both = table[[sure, "dice"]].astype(float).dropna()
    found = error_detection(-both[sure].to_numpy(), (both["dice"] < failed).to_numpy())
    spearman = float(both.corr(method="spearman", min_periods=3).loc[sure, "dice"])
    return {"spearman": spearman, "auroc": found["error_auroc"], "failed_share": found["error_share"]}


def by_coverage(table: pd.DataFrame, sure: str, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Mean Dice of the cases of least doubt by the column `sure`: one row per share of the cases that have it.

    Columns `share`, `n` (rounded up), `dice`, and `low`, `high`: 95 % bootstrap over these cases, those of one patient
    together. Equal ones stand by case name, so that the order of the rows does not matter. Raises ValueError for a share that
    is not above 0 and at most 1.
    """
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={list(shares)}: each above 0 and at most 1")
    known = table.dropna(subset=[sure]).sort_values([sure, "case"], ascending=[False, True])
    rows = []
    for share in shares if len(known) else ():
        kept = known[: int(np.ceil(round(share * len(known), 9)))]
        low, high = interval_by_patient(kept)
        rows.append({"share": share, "n": len(kept), "dice": kept["dice"].mean(), "low": low, "high": high})
    return pd.DataFrame(rows, columns=["share", "n", "dice", "low", "high"])
