"""Scoring on images. In: a model called `model(images, captions)` and cases. Out: a table, one row per case.

Every image is scored twice: at `eval_size` (256 px in the paper's convention) and at the image's own ("native") size, where
the truth is always the mask as it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from textdiff.base.memory import Fitting
from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec
from textdiff.evaluation.metrics import case_scores, check_class_order


def score_cases(
    model: torch.nn.Module,
    cases: Sequence[Case],
    spec: ImageSpec,
    *,
    eval_size: int = 256,
    batch_size: int = 8,
    device: str | torch.device = "cpu",
    captions: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Score `model` on every case; images are read batch by batch, so memory does not grow with their number.

    Args:
        model: on `device`; takes float images ``[B, 3, S, S]`` in [-1, 1] (``S = spec.image_size``) and a list of captions,
            gives logits ``[B, spec.num_classes, h, w]``, which are resized bilinearly to `eval_size` and to the native size
            before argmax. Its train/eval state is left as it was.
        spec: how images become tensors, and masks the truth at `eval_size`.
        captions: replace the cases' own, one per case (shuffled, empty or swapped captions).
        class_names: of all classes, background first.

    Returns one row per case: `case`, `caption` (as given to the model), `dice`, `iou` (0..1), `intersection`, `predicted`,
    `actual` (pixels), the same with `_native`, and columns per class where there are more than two.

    Raises ValueError for no cases, captions that are not one per case, labels without a class, or a model with other classes
    than `spec`; FloatingPointError when the model gives nan or infinity; MemoryError when one image is too much for the device
    (where a batch is, it is scored in smaller ones).
    """
    if len(cases) == 0:
        raise ValueError("there are no cases to score")
    if captions is not None and len(captions) != len(cases):
        raise ValueError(f"{len(captions)} captions for {len(cases)} cases: give one per case, in the cases' order")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1")
    check_class_order(getattr(model, "class_names", ()), class_names or ())
    texts = [case.caption for case in cases] if captions is None else list(captions)
    rows, fitting = [], Fitting("images")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        # Not inference_mode: what the model caches here (text tokens) must still serve a later training step.
        with torch.no_grad(), tqdm(total=len(cases), unit="image", disable=not progress, leave=False) as bar:
            for start in range(0, len(cases), batch_size):
                batch, words = cases[start : start + batch_size], texts[start : start + batch_size]
                images, masks = zip(*(case.pair(spec.num_classes) for case in batch), strict=True)
                inputs = torch.stack([spec.input(image) for image in images])
                batch_logits = fitting.run(partial(_logits, model, inputs, words, device), len(batch))
                for case, caption, mask, logits in zip(batch, words, masks, batch_logits, strict=True):
                    scores = _scores(case.name, logits, mask, spec, eval_size, class_names)
                    rows.append({"case": case.name, "caption": caption} | scores)
                bar.update(len(batch))
    finally:
        for module, training in modes.items():
            module.training = training
    return pd.DataFrame(rows)


def _logits(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    words: Sequence[str],
    device: str | torch.device,
    parts: Sequence[slice],
) -> torch.Tensor:
    """Logits float32 of the batch on the processor, computed in ``parts``."""
    return torch.cat([model(inputs[part].to(device), words[part]).float().cpu() for part in parts])


def _scores(
    name: str,
    logits: torch.Tensor,
    mask: np.ndarray,
    spec: ImageSpec,
    eval_size: int,
    class_names: Sequence[str] | None,
) -> dict[str, float | int]:
    """Scores of one case at `eval_size` and, with `_native` behind the names, at the size of its mask."""
    if logits.shape[0] != spec.num_classes:
        raise ValueError(f"the model gives {logits.shape[0]} classes, but the images have {spec.num_classes}")
    if not torch.isfinite(logits).all():
        raise FloatingPointError(f"the model gives nan or infinity for case {name!r}: the training has diverged")
    classes = spec.num_classes, class_names
    try:
        small = spec.target(mask, eval_size)
        scores = case_scores(_labels_at(logits, small.shape), small, *classes)
        return scores | case_scores(_labels_at(logits, mask.shape), mask, *classes, suffix="_native")
    except ValueError as error:
        raise ValueError(f"case {name!r}: {error}") from error


def _labels_at(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Label map int64 `size` from logits [K, h, w]: bilinear, then argmax."""
    if logits.shape[1:] != torch.Size(size):
        logits = F.interpolate(logits[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
    return logits.argmax(dim=0)
