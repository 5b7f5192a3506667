"""The paper's whole training: 5 images, 50 epochs, batches of one, the authors' head and UNet. The authors' way and ours.

    python -m benchmarks training

The reference computes features and tokens anew at every step; ours computes the features of a view once and then reads them.
At the paper's size some steps on the images as they are are measured and multiplied to 250, with what it takes to fill the
cache with one view times the number of views: five in work "training", and in "training views" as many as the authors' random
turns, flips and rotations of 250 steps show (a quarter of them rotations, none of which comes twice). At a small size the
whole training is measured, on the images as they are. On a GPU, a training on views that never repeat is measured
too: what part of the time the GPU works.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers  # noqa: F401  # here, so that what it costs to import counts as import

from benchmarks.measuring import Build, Measured, Once, Row, alternately
from benchmarks.pieces import CAPTION, PAPER, SMALL, Setting, our_model, pictures, reference_model
from benchmarks.pieces import TINY as TINY_SETTING
from textdiff.base.cache import FeatureCache
from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec
from textdiff.data.images.views import TrainingImages
from textdiff.training.fit import Optimisation, fit

IMAGES, EPOCHS = 5, 50
RATE = 1e-4


@dataclass(frozen=True)
class Sizes:
    """``steps``: so many are measured at the size of ``setting``, on ``images``; ``small`` is trained for ``epochs``."""

    setting: Setting = PAPER
    images: int = 1
    steps: int = 2
    small: Setting = SMALL
    epochs: int = EPOCHS
    repeats: int = 1
    apart: bool = True
    views_of: Setting = replace(SMALL, side=256)  # for so many steps on views that never repeat
    views: int = 300


QUICK = Sizes()
FULL = Sizes(images=IMAGES, steps=10, repeats=2)
TINY = Sizes(TINY_SETTING, 2, 2, TINY_SETTING, 2, 1, False, TINY_SETTING, 3)


def samples(setting: Setting, images: int, **how: Any) -> TrainingImages:
    """Labelled pictures as the loop takes them."""
    made, masks = pictures(images, setting.side)
    pixels = ((made.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    pairs = zip(pixels, masks.byte().numpy(), strict=True)
    cases = [Case(str(k), CAPTION, image_array=image, mask_array=mask) for k, (image, mask) in enumerate(pairs)]
    return TrainingImages(cases, ImageSpec(image_size=setting.side), **{"augmentation": "none", **how})


def reference(setting: Setting, images: int, steps: int, device: str, torso: str = "float32") -> Once:
    """The losses of so many steps, always from the same weights."""
    model, given = reference_model(setting, device, torso), samples(setting, images)
    begun = {key: value.clone() for key, value in model.head.state_dict().items()}

    def once() -> list[float]:
        model.head.load_state_dict(begun)
        taken = (given.sample(number) for number in range(steps))
        on_device = [(image.to(device), mask.to(device), caption) for image, mask, caption in taken]
        return model.train(on_device, range(steps), RATE)

    return once


def ours(setting: Setting, images: int, steps: int, device: str, precision: str, filled: bool) -> Once:
    """The same. ``filled``: with features already in the cache; else each time with an empty one."""
    folder = tempfile.TemporaryDirectory()
    model, given = our_model(setting, device, precision), samples(setting, images)
    begun = {key: value.clone() for key, value in model.head.state_dict().items()}
    how = Optimisation(steps, 1, RATE, lr_schedule="constant", validate_every=1)
    if filled:
        model.features.cache = FeatureCache(Path(folder.name))
        model.features.maps(given.images.to(device))

    def once() -> list[float]:
        model.head.load_state_dict(begun)
        if filled:
            return [row["loss"] for row in fit(model, given, how, device=device, progress=False)]
        with tempfile.TemporaryDirectory(dir=folder.name) as empty, model.features.caching(FeatureCache(Path(empty))):
            return [row["loss"] for row in fit(model, given, how, device=device, progress=False)]

    return once


def filling(setting: Setting, device: str, precision: str) -> Once:
    """The features of one image, computed and kept."""
    folder = tempfile.TemporaryDirectory()
    model, images = our_model(setting, device, precision), samples(setting, 1).images.to(device)

    def once() -> None:
        with tempfile.TemporaryDirectory(dir=folder.name) as empty, model.features.caching(FeatureCache(Path(empty))):
            model.features.maps(images)

    return once


def measure(quick: bool = True, device: str = "cpu", sizes: Sizes | None = None) -> list[Row]:
    """Rows of "training", "training small" and, on a GPU, "new views"."""
    sizes = sizes or (QUICK if quick else FULL)
    rows = _paper(sizes, device) + _small(sizes, device)
    return rows + (_new_views(sizes, device) if device == "cuda" else [])


def _paper(sizes: Sizes, device: str) -> list[Row]:
    setting, images, steps = sizes.setting, sizes.images, sizes.steps
    sides: dict[str, Build] = {"reference": partial(reference, setting, images, steps, device)}
    if device == "cuda":  # as the authors run it there
        sides["reference float16"] = partial(reference, setting, images, steps, device, "float16")
    fills: dict[str, Build] = {}
    for side, precision in (("ours", "float32"), ("ours bfloat16", "bfloat16")):
        sides[side] = partial(ours, setting, images, steps, device, precision, True)
        fills[side] = partial(filling, setting, device, precision)
    how = (device, sizes.repeats, sizes.apart, device == "cuda", False)
    found = alternately(sides, *how)
    # Once more than that: the first time pays for what a training pays once, such as the fingerprint of the weights
    filled = alternately(fills, device, sizes.repeats + 1, *how[2:])
    rows = []
    for side, one in found.items():
        rows += _whole(side, one, filled.get(side), sizes, device)
        rows += _curves("training", side, found, device, f"of the first {steps} steps")
    return rows


def _whole(side: str, steps: Measured, cache: Measured | None, sizes: Sizes, device: str) -> list[Row]:
    """Seconds of 250 steps, with the filling of the cache where there is one; and memory, the larger of both."""
    rows, count = [], len(steps.seconds)
    views = {"training": IMAGES, "training views": views_shown()}
    for quantity, kind in (("wall s", "wall"), ("processor s", "processor")):
        step = min(getattr(one, kind) for one in steps.seconds) / sizes.steps
        fill = min(getattr(one, kind) for one in cache.seconds) if cache else 0.0
        for work, shown in views.items():
            note = f"250 steps as {sizes.steps} measured ones" + (f", {shown} views as one" if cache else "")
            whole = EPOCHS * IMAGES * step + shown * fill
            rows.append(Row(work, side, quantity, whole, "s", count, device=device, note=note))
        rows.append(Row("training", side, f"{quantity} a step", step, "s", count, device=device))
        if cache:
            note = "one view"
            rows.append(Row("training", side, f"{quantity} filling", fill, "s", count, device=device, note=note))
    held = [one.memory for one in (steps, cache) if one is not None and one.memory is not None]
    if held:
        rows.append(Row("training", side, "peak MB", max(one.peak for one in held), "MB", device=device))
    if held and all(one.device is not None for one in held):
        rows.append(Row("training", side, "device peak MB", max(one.device or 0 for one in held), "MB", device=device))
    return rows


def views_shown() -> int:
    """Different inputs among the 250 of a training with the authors' augmentation."""
    given = samples(TINY_SETTING, IMAGES, augmentation="official")
    return len({given.sample(number)[0].numpy().tobytes() for number in range(EPOCHS * IMAGES)})


def _curves(work: str, side: str, found: dict[str, Measured], device: str, note: str) -> list[Row]:
    """The loss at the end, and how far its curve is from the reference's: at its farthest step, and over the last epoch."""
    curve, asked = found[side].results[0], found["reference"].results[0]
    rows = [Row(work, side, "final loss", _mean(curve[-IMAGES:]), "", device=device, note=note)]
    if side == "reference":
        return rows
    farthest = max(abs(one - other) / abs(other) for one, other in zip(curve, asked, strict=True))
    last = abs(_mean(curve[-IMAGES:]) / _mean(asked[-IMAGES:]) - 1)
    told = {"loss difference": farthest, "final loss difference": last}
    return rows + [Row(work, side, name, 100 * value, "%", device=device, note=note) for name, value in told.items()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _small(sizes: Sizes, device: str) -> list[Row]:
    """The whole training of a small network, cache and all."""
    setting, steps = sizes.small, sizes.epochs * IMAGES
    sides: dict[str, Build] = {"reference": partial(reference, setting, IMAGES, steps, device)}
    for side, precision in (("ours", "float32"), ("ours bfloat16", "bfloat16")):
        sides[side] = partial(ours, setting, IMAGES, steps, device, precision, False)
    found = alternately(sides, device, sizes.repeats, sizes.apart, warm_up=device == "cuda", count=False)
    rows = []
    for side, one in found.items():
        rows += one.rows("training small", side, device, f"{IMAGES} images, {sizes.epochs} epochs, {setting.side} px")
        rows += _curves("training small", side, found, device, f"all {steps} steps")
    return rows


# --- views that never repeat, on a GPU -------------------------------------------------------------------------


def _new_views(sizes: Sizes, device: str) -> list[Row]:
    """Of the last two thirds of the steps."""
    setting = sizes.views_of
    model, given = our_model(setting, device, "bfloat16"), samples(setting, IMAGES, augmentation="affine")
    how = Optimisation(sizes.views, 8, RATE, validate_every=sizes.views // 3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        history = fit(model, given, how, device=device, progress=False)
    seconds, spans = history[-1]["seconds"] - history[0]["seconds"], sorted(_spans(profile))
    began = max(end for _, end in spans) - seconds * 1e6
    busy = covered([(max(begin, began), end) for begin, end in spans if end > began]) / 1e6
    rate, note = (how.iterations - history[0]["step"]) / seconds, f"8 views of {setting.side} px at once, small UNet"
    return [
        Row("new views", "ours", "GPU busy", 100 * busy / seconds, "%", device=device, note=note),
        Row("new views", "ours", "steps/s", rate, "steps/s", device=device, note="while it is profiled"),
    ]


def _spans(profile: torch.profiler.profile) -> list[tuple[float, float]]:
    """When the GPU worked, in microseconds."""
    on_gpu = torch.autograd.DeviceType.CUDA
    kernels = (one for one in profile.events() if one.device_type == on_gpu and not one.is_user_annotation)
    return [(one.time_range.start, one.time_range.end) for one in kernels]


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans that are sorted by their beginning."""
    total, until = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
