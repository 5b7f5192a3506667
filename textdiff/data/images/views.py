"""Training images: labelled cases in; augmented inputs, masks and sentences out, numbered and always the same.

Every random number follows from the seed and the sample's number alone, so that an interrupted run continues exactly.
Batches are made whole where they are wanted, on a card too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from textdiff.base.memory import Pool, sent
from textdiff.base.spilling import room
from textdiff.data.batch import Batch
from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec, dihedral, dihedral_caption, dihedral_places

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
        sided: some classes differ only in their side; a picture is not turned then, because its labels would be wrong.

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
        sided: bool = False,
    ) -> None:
        if augmentation not in get_args(Augmentation):
            raise ValueError(f"augmentation={augmentation!r}: choose one of {', '.join(get_args(Augmentation))}")
        if views < 0:
            raise ValueError(f"views={views}: a number of views per image, or 0 for a new one each time")
        if not cases:
            raise ValueError("no labelled images to train on")
        side = (spec.image_size, spec.image_size)
        self.images = room((len(cases), 3, *side), torch.float32)
        self.masks = room((len(cases), *side), torch.int64)
        for i, case in enumerate(cases):
            image, mask = case.pair(spec.num_classes)
            self.images[i], self.masks[i] = spec.input(image), spec.target(mask)
        self.captions = [case.caption for case in cases]
        self.spec, self.augmentation, self.seed, self.views, self.sided = spec, augmentation, seed, views, sided
        self.turns = [self._turns(caption) for caption in self.captions]
        self._latest: tuple[int, list[int]] = (-1, [])  # epoch and its order
        self._pool = Pool(self.images, self.masks, dihedral_places(spec.image_size))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def settings(self) -> dict[str, object]:
        """What decides the samples, apart from the pixels."""
        about = {"images": len(self), "spec": asdict(self.spec), "augmentation": self.augmentation}
        return about | {"seed": self.seed, "views": self.views} | ({"sided": True} if self.sided else {})

    def sample(self, number: int) -> Sample:
        """Image ``[3, S, S]``, mask ``[S, S]`` and caption. Every image comes once before any comes twice."""
        batch = self.batch([number])
        return batch.images[0], batch.masks[0], batch.captions[0]

    def batch(self, numbers: Sequence[int], device: str | torch.device = "cpu") -> ImageBatch:
        """These samples as one batch, augmented on ``device``; what is drawn is drawn on the processor.

        A card is given all images and masks at the first call if they may stay there
        (:class:`textdiff.base.memory.Pool`); else batches are made on the processor and sent.
        """
        device, drawn = torch.device(device), [self._view(number) for number in numbers]
        numbers, turns = [view.image for view in drawn], [view.turn for view in drawn]
        images, masks, places = self._pool.near(device)
        if self.augmentation in JITTERED:  # before they are turned
            upright = [_taken(one, numbers, [0] * len(drawn), places) for one in (images, masks)]
            images, masks = _jittered(upright[0], upright[1], drawn)
            numbers = list(range(len(drawn)))
        images, masks = (_taken(one, numbers, turns, places) for one in (images, masks))
        if self.augmentation == "official":  # each is turned or rotated, never both
            _rotate(images, masks, drawn)
        images, masks = (one if one.device.type == device.type else sent(one, device) for one in (images, masks))
        return ImageBatch(images, masks, [view.caption for view in drawn])

    @cached_property
    def distinct_views(self) -> int:
        """Different inputs that there will ever be at most; 0 where there is no bound, and caching them is in vain."""
        if self.augmentation in ("official", *JITTERED):
            return self.views * len(self)
        turned = [len(turns) for turns in self.turns]
        return sum(min(self.views, n) if self.views else n for n in turned)

    @property
    def come_again(self) -> bool:
        """Whether inputs come again, so that it is worth keeping their features; of "official" three quarters do."""
        return self.distinct_views > 0 or self.augmentation == "official"

    def _turns(self, caption: str) -> list[int]:
        if self.sided:
            return [0]
        if self.augmentation in FOLLOWED:
            return [k for k in range(8) if dihedral_caption(caption, k) is not None]
        return list(range(8)) if self.augmentation in ("contradict", "official") else [0]

    def _view(self, number: int) -> _View:
        """What is drawn for sample ``number``."""
        epoch, place = divmod(number, len(self))
        i = self._order(epoch)[place]
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + number)
        if self.views:
            view = int(torch.randint(self.views, (), generator=generator))
            generator.manual_seed((self.seed * 32_452_843 + i) * 1_009 + view)
        caption, turns = self.captions[i], self.turns[i]
        k = turns[int(torch.randint(len(turns), (), generator=generator))]
        if self.augmentation == "official":
            chance, again, angle = torch.rand(3, generator=generator).tolist()
            if chance >= 0.5:
                return _View(i, 0, caption, 40 * angle - 20 if again >= 0.5 else None)
        elif self.augmentation in FOLLOWED:
            caption = dihedral_caption(caption, k) or caption  # never None: `turns` are those it can follow
        if self.augmentation in JITTERED:
            colours = self.images.shape[1] if self.augmentation == "stain" else 1
            return _View(i, k, caption, jitter=2 * torch.rand(4 + 2 * colours, generator=generator) - 1)
        return _View(i, k, caption)

    def _order(self, epoch: int) -> list[int]:
        """In which order the images come; kept for the epoch that is asked for most."""
        if self._latest[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 15_485_863 + epoch)
            self._latest = epoch, torch.randperm(len(self), generator=generator).tolist()
        return self._latest[1]


class MixedImages:
    """Two sets of training images in turn: sample ``number`` is of the first where that is even, else of the second."""

    def __init__(self, first: TrainingImages, second: TrainingImages) -> None:
        self.sources = (first, second)

    @property
    def settings(self) -> dict[str, object]:
        """What decides the samples, apart from the pixels."""
        return {"mixed": [source.settings for source in self.sources]}

    def batch(self, numbers: Sequence[int], device: str | torch.device = "cpu") -> ImageBatch:
        """These samples as one batch, the first set's before the second's."""
        shares = [[number // 2 for number in numbers if number % 2 == k] for k in (0, 1)]
        parts = [source.batch(share, device) for source, share in zip(self.sources, shares, strict=True) if share]
        captions = [caption for part in parts for caption in part.captions]
        return ImageBatch(torch.cat([p.images for p in parts]), torch.cat([p.masks for p in parts]), captions)

    @property
    def come_again(self) -> bool:
        """Whether inputs of both come again."""
        return all(source.come_again for source in self.sources)


@dataclass(frozen=True)
class _View:
    """One sample: image number, turn, caption; degrees of the official rotation; what :func:`_jittered` was drawn, -1 to 1."""

    image: int
    turn: int
    caption: str
    degrees: float | None = None
    jitter: Tensor | None = None


def _taken(pixels: Tensor, numbers: Sequence[int], turns: Sequence[int], places: Tensor) -> Tensor:
    """Those of ``pixels [N, ..., S, S]`` with these numbers, each turned by its own symmetry: ``[B, ..., S, S]``.

    One gathering on a card; a processor is slow at that and copies one by one.
    """
    if pixels.device.type == "cpu":
        taken = pixels.new_empty(len(numbers), *pixels.shape[1:])
        for one, number, k in zip(taken, numbers, turns, strict=True):
            one.copy_(dihedral(pixels[number], k))
        return taken
    chosen, k = sent(torch.tensor([numbers, turns]), pixels.device)
    return _gathered(pixels[chosen], places[k])


def _gathered(pixels: Tensor, sources: Tensor) -> Tensor:
    """``pixels [B, ..., S, S]`` from their ``sources [B, S * S]`` (:func:`dihedral_places`)."""
    flat = pixels.flatten(-2)
    sources = sources.view(len(flat), *[1] * (flat.ndim - 2), -1).expand_as(flat)
    return flat.gather(-1, sources).view_as(pixels)


def _jittered(images: Tensor, masks: Tensor, views: Sequence[_View]) -> tuple[Tensor, Tensor]:
    """Scale by 0.8 to 1.25, rotate by up to 15 degrees, shift by up to a tenth, contrast and brightness by a fifth.

    Small enough that a caption's places stay true. Beyond the border the picture is mirrored. Contrast and brightness are
    drawn for all channels together or for each.
    """
    drawn = torch.stack([view.jitter for view in views if view.jitter is not None])
    matrices = []
    for scale, angle, right, down in drawn[:, :4].tolist():
        factor, angle = 1.25**scale, math.radians(15 * angle)
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        matrices.append([[cos, -sin, 0.2 * right], [sin, cos, 0.2 * down]])
    grid = _grid(matrices, images)
    contrast, brightness = sent(0.2 * drawn[:, 4:], images.device).view(len(views), 2, -1, 1, 1).unbind(1)

    def move(pixels: Tensor, mode: str) -> Tensor:
        return nn.functional.grid_sample(pixels, grid, mode, "reflection", align_corners=False)

    images = (move(images, "bilinear") * (1 + contrast) + brightness).clamp(-1, 1)
    return images, move(masks[:, None].float(), "nearest")[:, 0].long()


def _rotate(images: Tensor, masks: Tensor, views: Sequence[_View]) -> None:
    """Turns those that have degrees, in place, about the centre; nearest neighbour, outside black (order 0, as the authors')."""
    angles = {place: math.radians(view.degrees) for place, view in enumerate(views) if view.degrees is not None}
    if not angles:
        return
    rotations = [[[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]] for a in angles.values()]
    grid, where = _grid(rotations, images), sent(torch.tensor(list(angles)), images.device)

    def turn(pixels: Tensor) -> Tensor:
        return nn.functional.grid_sample(pixels, grid, mode="nearest", align_corners=False)

    images[where] = turn(images[where] + 1) - 1
    masks[where] = turn(masks[where][:, None].float())[:, 0].long()


def _grid(matrices: list[list[list[float]]], images: Tensor) -> Tensor:
    """Where to sample ``images``, ``[B, S, S, 2]``, for one 2 x 3 matrix each."""
    sent_there = sent(torch.tensor(matrices), images.device)
    return nn.functional.affine_grid(sent_there, [len(matrices), 1, *images.shape[-2:]], align_corners=False)
