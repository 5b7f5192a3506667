"""Features of no picture, a control. In: images. Out: maps of zeros in the shapes of a diffusion network's own.

A head that is trained on them learns from the sentence and from the place of a pixel alone. What it reaches is what a sentence gives
away without the picture; the rest of a model's score is what it has seen.
"""

from __future__ import annotations

from torch import Tensor

from textdiff.models.features import DiffusionFeatures


class BlindFeatures(DiffusionFeatures):
    """:class:`~textdiff.models.features.DiffusionFeatures` that sees nothing."""

    def compute(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[2:]
        shapes = [(len(images), c, height // s, width // s) for c, s in zip(self.channels, self.strides, strict=True)]
        return [images.new_zeros(shape) for shape in shapes]
