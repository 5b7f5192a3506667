"""Labels for pictures that have a sentence and no mask. In: a trained model and such cases. Out: cases with its own masks.

The teacher reads the sentence, and is asked about the picture and about its mirror image, whose sentence follows: where the two
masks differ much, it does not know, and the case is left out; so is one on which it finds nothing, for its sentence speaks of
something. What it is sure of, a student learns beside the labelled cases,
in changed views (self-training: Lee 2013; with an average of the weights as teacher: Tarvainen and Valpola 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec
from textdiff.models.mirroring import both_answers, followed

KEPT = 0.75  # of the cases: those on which the teacher agrees best with itself


@torch.no_grad()
def marked_cases(
    teacher: Any,
    cases: Sequence[Case],
    spec: ImageSpec,
    *,
    kept: float = KEPT,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> list[Case]:
    """The share ``kept`` of the cases on which the teacher agrees best with itself, with masks of its own, in their order.

    ``teacher``: in eval mode, with ``once(images, captions)`` that gives logits of the images as they are. Cases are read batch
    by batch. Those whose sentence cannot follow a mirror image, so that there are no two answers, come after all others;
    those on which the teacher finds nothing are never kept.

    Raises ValueError for no cases, a share that is not above 0 and at most 1, or a teacher that finds nothing anywhere.
    """
    if not cases or not 0 < kept <= 1:
        raise ValueError(f"{len(cases)} cases, kept={kept}: at least one case, and a share above 0 and up to 1")
    masks, agreements = [], []
    for start in tqdm(range(0, len(cases), batch_size), desc="marking", disable=not progress, leave=False):
        batch = cases[start : start + batch_size]
        pictures = [case.image() for case in batch]
        inputs = torch.stack([spec.input(picture) for picture in pictures]).to(device)
        answers = both_answers(teacher.once, inputs, [case.caption for case in batch])
        found = agreement(answers[0].argmax(dim=1), answers[1].argmax(dim=1), spec.num_classes).tolist()
        for mean, picture in zip((answers[0] + answers[1]) / 2, pictures, strict=True):
            masks.append(_label_map(mean, picture.shape[:2]))
        agreements += [-1.0 if followed(case.caption) is None else one for one, case in zip(found, batch, strict=True)]
    # Of equal agreement the earlier ones
    surest = np.argsort(-np.asarray(agreements), kind="stable").tolist()
    order = [i for i in surest if masks[i].any()][: max(1, round(kept * len(cases)))]
    if not order:
        raise ValueError(f"the teacher marks nothing on any of {len(cases)} cases: it has not learned enough to teach")
    return [replace(cases[i], mask_path=None, mask_array=masks[i]) for i in sorted(order)]


def agreement(one: Tensor, other: Tensor, num_classes: int) -> Tensor:
    """Dice of two label maps ``[B, H, W]``, mean over the foreground classes: ``[B]``, 1 where neither shows any."""
    first, second = (F.one_hot(labels, num_classes)[..., 1:].flatten(1, 2).float() for labels in (one, other))
    return ((2 * (first * second).sum(dim=1) + 1) / (first.sum(dim=1) + second.sum(dim=1) + 1)).mean(dim=1)


def _label_map(probabilities: Tensor, size: Sequence[int]) -> np.ndarray:
    """uint8 ``[H, W]`` at the picture's own size, from the mean of two answers' probabilities.

    `predict_image`, of one answer, enlarges its logits.
    """
    enlarged = F.interpolate(probabilities[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
    return enlarged.argmax(dim=0).to(torch.uint8).cpu().numpy()
