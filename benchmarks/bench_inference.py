"""One image from its pixels and its sentence to its mask, through the paper's UNet and head: the authors' way and ours.

    python -m benchmarks inference

A sentence is read anew each time. With random weights no mask means anything, so that of a side is taken where its logits are
highest, as many pixels as the image's own mask has; the Dice of both masks with that are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch
import transformers  # noqa: F401  # here, so that what it costs to import counts as import
from torch import Tensor

from benchmarks.measuring import Build, Once, Row, alternately, largest_difference
from benchmarks.pieces import CAPTION, PAPER, Setting, our_model, pictures, reference_model
from benchmarks.pieces import TINY as TINY_SETTING


@dataclass(frozen=True)
class Sizes:
    setting: Setting = PAPER
    repeats: int = 2
    warm_up: bool = False
    apart: bool = True


QUICK = Sizes()
FULL = Sizes(repeats=5, warm_up=True)
TINY = Sizes(TINY_SETTING, 1, True, False)


def reference(setting: Setting, device: str, torso: str = "float32") -> Once:
    model = reference_model(setting, device, torso)
    model.head.eval()
    return _answering(model, setting, device)


def ours(setting: Setting, device: str, precision: str) -> Once:
    model = our_model(setting, device, precision).eval()
    return _answering(lambda image, caption: model(image, [caption]), setting, device)


def _answering(model: Callable[[Tensor, str], Tensor], setting: Setting, device: str) -> Once:
    """Logits of the one image; the end of its sentence, which no token holds, differs each time, so that nothing is remembered."""
    image, number = pictures(1, setting.side)[0].to(device), count()

    @torch.inference_mode()
    def once() -> Tensor:
        return model(image, f"{CAPTION} {next(number)}")

    return once


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "inference"."""
    sizes = sizes or (QUICK if quick else FULL)
    sides: dict[str, Build] = {"reference": partial(reference, sizes.setting, device)}
    if device == "cuda":
        sides["reference float16"] = partial(reference, sizes.setting, device, "float16")
    sides |= {"ours": partial(ours, sizes.setting, device, "float32")}
    sides |= {"ours bfloat16": partial(ours, sizes.setting, device, "bfloat16")}
    found = alternately(sides, device, sizes.repeats, sizes.apart, sizes.warm_up)
    asked, truth = found["reference"].results[0], pictures(1, sizes.setting.side)[1].numpy().astype(bool)
    rows = []
    for side, one in found.items():
        rows += one.rows("inference", side, device)
        if side != "reference":
            logits = one.results[0]
            mask, theirs = (_as_large(answer, truth) for answer in (logits, asked))
            lost = 100 * abs(_dice(mask, truth) - _dice(theirs, truth))
            rows += [
                Row(
                    "inference",
                    side,
                    "largest difference of logits",
                    largest_difference(logits, asked),
                    "sd",
                    device=device,
                ),
                Row("inference", side, "Dice difference", lost, "points", device=device, note="of 100; random weights"),
                Row("inference", side, "Dice of both masks", 100 * _dice(mask, theirs), "points", device=device),
            ]
    return rows


def _as_large(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The pixels where class 1 leads most, as many as ``truth`` has."""
    lead = logits[:, 1] - logits[:, 0]
    return lead > np.quantile(lead, 1 - truth.mean())


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))
