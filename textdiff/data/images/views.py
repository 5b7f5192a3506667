"""Training images: labelled cases in; augmented inputs, masks and sentences out, numbered and always the same.

Every random number follows from the seed and the sample's number alone, so that an interrupted run continues exactly and
any number of loading processes gives the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from textdiff.data.batch import Batch
from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec, dihedral, dihedral_caption

Augmentation = Literal["follow", "affine", "stain", "official", "contradict", "none"]
JITTERED = ("affine", "stain")  # also moved, scaled and changed in intensity
FOLLOWED = ("follow", *JITTERED)  # the sentence's words go with the turns and flips

Sample = tuple[Tensor, Tensor, str]


@dataclass(frozen=True)
class ImageBatch(Batch):
    """``images`` float32 ``[B, 3, S, S]`` in [-1, 1], ``masks`` int64 ``[B, S, S]``, ``captions`` one per image."""

    images: Tensor
    masks: Tensor
    captions: list[str]


class TrainingImages:
    """Labelled cases as network inputs, augmented; sample ``number`` is the same whenever it is asked for.

    Args:
        cases: labelled cases.
        spec: how pictures and masks become tensors.
        augmentation: "follow" draws one of the eight symmetries that the caption's words can follow, and lets them;
            "affine" adds small random scalings, rotations, shifts and changes of intensity; "stain" changes the intensity
            of each colour channel for itself; "contradict" draws any of the eight and leaves the caption; "official" is
            the authors' mixture (half the time a turn and a flip, a quarter of the time a rotation by up to 20 degrees),
            caption left; "none".
        seed: of order and augmentation.
        views: how many different random views of one image there are; 0 draws a new one each time. A bound lets a
            feature cache hold them all: frozen features of a view are then computed once, however often it comes.

    Raises:
        ValueError: no cases, a case without mask, an unknown augmentation, a negative number of views.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: ImageSpec,
        augmentation: Augmentation = "follow",
        seed: int = 0,
        views: int = 0,
    ) -> None:
        if augmentation not in get_args(Augmentation):
            raise ValueError(f"augmentation={augmentation!r}: choose one of {', '.join(get_args(Augmentation))}")
        if views < 0:
            raise ValueError(f"views={views}: a number of views per image, or 0 for a new one each time")
        if not cases:
            raise ValueError("no labelled images to train on")
        pairs = [case.pair(spec.num_classes) for case in cases]
        self.images = torch.stack([spec.input(image) for image, _ in pairs])
        self.masks = torch.stack([spec.target(mask) for _, mask in pairs])
        self.captions = [case.caption for case in cases]
        self.augmentation, self.seed, self.views = augmentation, seed, views
        self.turns = [self._turns(caption) for caption in self.captions]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def settings(self) -> dict[str, object]:
        """What decides the samples, apart from the pixels."""
        return {"images": len(self), "augmentation": self.augmentation, "seed": self.seed, "views": self.views}

    def sample(self, number: int) -> Sample:
        """Image ``[3, S, S]``, mask ``[S, S]`` and caption. Every image comes once before any comes twice."""
        epoch, place = divmod(number, len(self))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.seed * 15_485_863 + epoch))
        i = int(order[place])
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + number)
        if self.views:
            view = int(torch.randint(self.views, (), generator=generator))
            generator.manual_seed((self.seed * 32_452_843 + i) * 1_009 + view)
        return self._augment(i, generator)

    def collate(self, samples: Sequence[Sample]) -> ImageBatch:
        """Samples as one batch."""
        images, masks, captions = zip(*samples, strict=True)
        return ImageBatch(torch.stack(images), torch.stack(masks), list(captions))

    @cached_property
    def distinct_views(self) -> int:
        """Different inputs that there will ever be at most; 0 where there is no bound, and caching them is in vain."""
        if self.augmentation in ("official", *JITTERED):
            return self.views * len(self)
        turned = [len(turns) for turns in self.turns]
        return sum(min(self.views, n) if self.views else n for n in turned)

    def _turns(self, caption: str) -> list[int]:
        if self.augmentation in FOLLOWED:
            return [k for k in range(8) if dihedral_caption(caption, k) is not None]
        return list(range(8)) if self.augmentation in ("contradict", "official") else [0]

    def _augment(self, i: int, generator: torch.Generator) -> Sample:
        image, mask, caption = self.images[i], self.masks[i], self.captions[i]
        turns = self.turns[i]
        k = turns[int(torch.randint(len(turns), (), generator=generator))]
        if self.augmentation == "official":
            chance, again, angle = torch.rand(3, generator=generator).tolist()
            if chance >= 0.5:
                return (*_rotate(image, mask, 40 * angle - 20), caption) if again >= 0.5 else (image, mask, caption)
        elif self.augmentation in FOLLOWED:
            caption = dihedral_caption(caption, k) or caption  # never None: `turns` are those it can follow
        if self.augmentation in JITTERED:
            image, mask = _jitter(image, mask, generator, len(image) if self.augmentation == "stain" else 1)
        return dihedral(image, k).contiguous(), dihedral(mask, k).contiguous(), caption


def _jitter(image: Tensor, mask: Tensor, generator: torch.Generator, colours: int) -> tuple[Tensor, Tensor]:
    """Scale by 0.8 to 1.25, rotate by up to 15 degrees, shift by up to a tenth, contrast and brightness by a fifth.

    Small enough that a caption's places stay true. Beyond the border the picture is mirrored. Contrast and brightness are
    drawn for all channels together (``colours`` 1) or for each (their number).
    """
    drawn = 2 * torch.rand(4 + 2 * colours, generator=generator) - 1
    scale, angle, right, down = drawn[:4].tolist()
    contrast, brightness = drawn[4:].view(2, colours, 1, 1)
    factor, angle = 1.25**scale, math.radians(15 * angle)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    matrix = torch.tensor([[[cos, -sin, 0.2 * right], [sin, cos, 0.2 * down]]])
    grid = nn.functional.affine_grid(matrix, [1, 1, *mask.shape], align_corners=False)

    def move(pixels: Tensor, mode: str) -> Tensor:
        return nn.functional.grid_sample(pixels[None], grid, mode, "reflection", align_corners=False)[0]

    image = (move(image, "bilinear") * (1 + 0.2 * contrast) + 0.2 * brightness).clamp(-1, 1)
    return image, move(mask[None].float(), "nearest")[0].long()


def _rotate(image: Tensor, mask: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Rotation about the centre, nearest neighbour, outside black (order 0 without resizing, as in the authors' code)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
    grid = nn.functional.affine_grid(matrix, [1, 1, *mask.shape], align_corners=False)

    def turn(pixels: Tensor) -> Tensor:
        return nn.functional.grid_sample(pixels[None], grid, mode="nearest", align_corners=False)[0]

    return turn(image + 1) - 1, turn(mask[None].float())[0].long()
