"""Unconditional DDPM pre-training: unlabelled images in, a denoising UNet (exponential average) and its loss curve out.

Small networks learn from crops: a fully convolutional UNet trained on 64-pixel crops runs on whole images afterwards.
Every crop follows from the seed and its number, so that an interrupted run continues exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from textdiff.base.precision import mixed_precision
from textdiff.data.cases import Case
from textdiff.data.images.transforms import dihedral, to_input
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
        self.stacks = [torch.empty(len(cases), 3, side, side, dtype=torch.uint8) for side in sides]
        for i, case in enumerate(tqdm(cases, desc="reading images")):
            pixels = case.image()
            for stack, side in zip(self.stacks, sides, strict=True):
                stack[i] = ((to_input(pixels, side) + 1) * 127.5).round()

    @property
    def settings(self) -> dict[str, object]:
        """What decides the crops, apart from the pixels."""
        sides = [stack.shape[-1] for stack in self.stacks]
        about = {"images": len(self.stacks[0]), "sides": sides, "crop": self.crop}
        return about | {"symmetries": self.symmetries, "seed": self.seed}

    def sample(self, number: int) -> Tensor:
        """Crop ``number``, float32 ``[3, crop, crop]`` in [-1, 1]; the same whenever it is asked for."""
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + number)

        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=generator))

        stack = self.stacks[below(len(self.stacks))]
        image = stack[below(len(stack))]
        top, left = (below(image.shape[-1] - self.crop + 1) for _ in range(2))
        patch = image[:, top : top + self.crop, left : left + self.crop]
        return dihedral(patch, self.symmetries[below(len(self.symmetries))]).float() / 127.5 - 1

    def collate(self, crops: Sequence[Tensor]) -> Tensor:
        """Crops as one batch ``[B, 3, crop, crop]``."""
        return torch.stack(list(crops))


class Denoising(nn.Module):
    """A UNet with the loss of its pre-training: the noise's mean squared error (linear schedule of 1000 steps, uniform t)."""

    def __init__(self, unet: UNet, precision: str = "bfloat16") -> None:
        super().__init__()
        mixed_precision("cpu", precision)  # refuses unknown names now
        self.unet = unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.diffusion, self.precision = Diffusion("linear"), precision

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """``batch``: images ``[B, C, H, W]`` in [-1, 1]."""
        noise = torch.randn(batch.shape, generator=generator).to(batch.device)
        timesteps = torch.randint(len(self.diffusion.timesteps), (len(batch),), generator=generator).to(batch.device)
        noised = self.diffusion.add_noise(batch, noise, timesteps).to(memory_format=torch.channels_last)
        with mixed_precision(batch.device, self.precision):
            predicted = self.unet(noised, timesteps)
        return {"loss": F.mse_loss(predicted.float(), noise)}


def pretrain(
    unet: UNet,
    pool: CropPool,
    how: Optimisation,
    *,
    device: str | torch.device = "cpu",
    precision: str = "bfloat16",
    checkpoint: str | Path | None = None,
    workers: int = 0,
    progress: bool = True,
) -> tuple[UNet, list[dict[str, float]]]:
    """Trains ``unet`` in place to predict the noise; see :func:`textdiff.training.fit.fit`, which this calls.

    Returns the UNet (with ``ema_decay``, the moving average of its weights; in eval mode), and the history.
    """
    model = Denoising(unet, precision)
    return unet, fit(model, pool, how, device=device, checkpoint=checkpoint, workers=workers, progress=progress)
