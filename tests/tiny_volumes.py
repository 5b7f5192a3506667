"""Volumes small enough for a test: a brighter box for the liver, a still brighter one for the left kidney."""

from __future__ import annotations

import numpy as np

from textdiff.data.volumes.layouts import VolumeCase
from textdiff.data.volumes.patches import Preprocessing, TrainingVolumes
from textdiff.data.volumes.volume import Volume

NAMES = ("background", "liver", "left kidney")
SHAPE = (20, 24, 16)
KEEP = Preprocessing(None, (-100.0, 100.0), (16, 16, 16))


def volume_case(name: str = "a", seed: int = 0) -> VolumeCase:
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:10, 4:12, 4:10] = 1
    labels[12:17, 14:20, 6:12] = 2
    image = 50.0 * labels + np.random.default_rng(seed).normal(0, 1, SHAPE)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return VolumeCase(
        name, image_volume=Volume(image.astype(np.float32), affine, name), label_volume=Volume(labels, affine, name)
    )


def training_volumes(cases: list[VolumeCase] | None = None, **options) -> TrainingVolumes:
    settings = {"patch": (16, 16, 16), "augment": False, "progress": False} | options
    return TrainingVolumes(cases or [volume_case()], NAMES, KEEP, **settings)
