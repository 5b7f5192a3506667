"""Unconditional DDPM pre-training: unlabelled images in, a denoising UNet (exponential average) and its loss curve out.

Small networks learn from crops: a fully convolutional UNet trained on 64-pixel crops runs on whole images afterwards.
Every crop follows from the seed and its number, so that an interrupted run continues exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from textdiff.base.draws import PartGenerator, drawn
from textdiff.base.memory import Pool, sent
from textdiff.base.precision import mixed_precision
from textdiff.base.spilling import room
from textdiff.data.cases import Case
from textdiff.data.images.transforms import dihedral, dihedral_places, to_input
from textdiff.models.diffusion import Diffusion
from textdiff.models.unet import UNet
from textdiff.training.fit import Optimisation, fit


class CropPool:
    """Unlabelled images at several scales, from which square crops are drawn.

    Args:
        image_size: side in pixels of a whole image at scale 1, the size at which features will be tapped.
        crop: side of a crop in pixels.
        scales: whole images are resized to ``image_size * scale``; a crop comes from any of these with equal chance.
        symmetries: which of the eight symmetries of the square a crop may be turned by (0 leaves it, 4 flips left-right).

    Raises ValueError: no images, or a crop that is larger than the smallest of them.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        image_size: int,
        crop: int,
        scales: Sequence[float] = (1.0,),
        symmetries: Sequence[int] = tuple(range(8)),
        seed: int = 0,
    ) -> None:
        sides = [round(image_size * scale) for scale in scales]
        if not cases:
            raise ValueError("no images to pre-train on")
        if min(sides) < crop:
            raise ValueError(
                f"crop of {crop} pixels from images of {min(sides)} (image_size {image_size}, scales {scales})"
            )
        self.crop, self.symmetries, self.seed = crop, tuple(symmetries), seed
        sizes = [len(cases) * 3 * side * side for side in sides]
        self._starts = [0, *accumulate(sizes[:-1])]
        self._pixels = room([sum(sizes)], torch.uint8)
        self.stacks = [
            part.view(len(cases), 3, side, side) for part, side in zip(self._pixels.split(sizes), sides, strict=True)
        ]
        for i, case in enumerate(tqdm(cases, desc="reading images")):
            pixels = case.image()
            for stack, side in zip(self.stacks, sides, strict=True):
                stack[i] = ((to_input(pixels, side) + 1) * 127.5).round()
        self._pool = Pool(self._pixels, dihedral_places(crop))

    @property
    def settings(self) -> dict[str, object]:
        """What decides the crops, apart from the pixels."""
        sides = [stack.shape[-1] for stack in self.stacks]
        about = {"images": len(self.stacks[0]), "sides": sides, "crop": self.crop}
        return about | {"symmetries": self.symmetries, "seed": self.seed}

    def sample(self, number: int) -> Tensor:
        """Crop ``number``, float32 ``[3, crop, crop]`` in [-1, 1]; the same whenever it is asked for."""
        return self.batch([number])[0]

    def batch(self, numbers: Sequence[int], device: str | torch.device = "cpu") -> Tensor:
        """These crops as one batch ``[B, 3, crop, crop]`` on ``device``.

        A card is given all images at the first call if they may stay there (:class:`textdiff.base.memory.Pool`), and cuts
        the crops itself: then only their places travel.
        """
        places, device = [self._place(number) for number in numbers], torch.device(device)
        pixels, turned = self._pool.near(device)
        on_processor = pixels.device.type == "cpu"
        crops = sent(self._copied(places), device) if on_processor else self._gathered(places, pixels, turned)
        return crops.float() / 127.5 - 1

    def _place(self, number: int) -> tuple[int, int, int, int, int]:
        """Of crop ``number``: scale, image, top, left, turn."""
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + number)

        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=generator))

        scale = below(len(self.stacks))
        count, *_, side = self.stacks[scale].shape
        image, top, left = below(count), below(side - self.crop + 1), below(side - self.crop + 1)
        return scale, image, top, left, self.symmetries[below(len(self.symmetries))]

    def _copied(self, places: Sequence[tuple[int, int, int, int, int]]) -> Tensor:
        """uint8 ``[B, 3, crop, crop]``, cut one by one: what a processor does fastest."""
        crops = torch.empty(len(places), 3, self.crop, self.crop, dtype=torch.uint8)
        for crop, (scale, image, top, left, turn) in zip(crops, places, strict=True):
            patch = self.stacks[scale][image, :, top : top + self.crop, left : left + self.crop]
            crop.copy_(dihedral(patch, turn))
        return crops

    def _gathered(self, places: Sequence[tuple[int, int, int, int, int]], pixels: Tensor, turned: Tensor) -> Tensor:
        """The same in one operation, by the places of all pixels in the pool: what a card does fastest."""
        rows = []
        for scale, image, top, left, turn in places:
            side = self.stacks[scale].shape[-1]
            rows.append((self._starts[scale] + 3 * side * side * image + side * top + left, side, turn))
        first, sides, turns = sent(torch.tensor(rows), pixels.device).T[:, :, None]
        inside = turned[turns[:, 0]]  # [B, crop * crop]
        plane = first + inside // self.crop * sides + inside % self.crop
        colours = torch.arange(3, device=pixels.device)[:, None] * (sides * sides)[:, :, None]
        return pixels[plane[:, None] + colours].view(-1, 3, self.crop, self.crop)


class Denoising(nn.Module):
    """A UNet with the loss of its pre-training: the noise's mean squared error (linear schedule of 1000 steps, uniform t)."""

    def __init__(self, unet: UNet, precision: str = "bfloat16") -> None:
        super().__init__()
        mixed_precision("cpu", precision)  # refuses unknown names now
        self.unet, self.diffusion, self.precision = unet, Diffusion("linear"), precision

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """``batch``: images ``[B, C, H, W]`` in [-1, 1]. ``generator`` is of the CPU; noise is drawn where the batch is."""
        generator = drawing_on(batch.device, generator)
        noise = drawn(torch.randn, batch.shape, generator, device=batch.device)
        steps = len(self.diffusion.timesteps)
        timesteps = drawn(partial(torch.randint, steps), [len(batch)], generator, device=batch.device)
        noised = self.diffusion.add_noise(batch, noise, timesteps).to(memory_format=layout(batch.device))
        with mixed_precision(batch.device, self.precision):
            predicted = self.unet(noised, timesteps)
        return {"loss": F.mse_loss(predicted.float(), noise)}


def layout(device: torch.device) -> torch.memory_format:
    """How maps lie in memory from end to end: channels last for a processor; a card's group norm knows the other only."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def drawing_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator that draws on ``device``: the one of the CPU that is given, or on a card a new one that it seeds."""
    if device.type == "cpu":
        return generator
    if isinstance(generator, PartGenerator):
        return PartGenerator(drawing_on(device, generator.batch), generator.part, generator.whole)
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def pretrain(
    unet: UNet,
    pool: CropPool,
    how: Optimisation,
    *,
    device: str | torch.device = "cpu",
    precision: str = "bfloat16",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[UNet, list[dict[str, float]]]:
    """Trains ``unet`` in place to predict the noise; see :func:`textdiff.training.fit.fit`, which this calls.

    Returns the UNet (with ``ema_decay``, the moving average of its weights; in eval mode), and the history.
    """
    unet.to(memory_format=layout(torch.device(device)))  # type: ignore[call-overload]  # missing in torch's stubs
    model = Denoising(unet, precision)
    return unet, fit(model, pool, how, compiling=unet, device=device, checkpoint=checkpoint, progress=progress)
