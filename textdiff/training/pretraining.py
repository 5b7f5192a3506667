"""Unconditional DDPM pre-training: unlabelled images in, a denoising UNet (exponential average) and its loss curve out.

Small networks learn from crops: a fully convolutional UNet trained on 64-pixel crops runs on whole images afterwards.
Every random number follows from the seed and the step, so that an interrupted run continues exactly where it stopped.
"""

from __future__ import annotations

import copy
import time
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
from textdiff.training.fit import Trainee


class CropPool:
    """Unlabelled images at several scales, from which square crops are drawn.

    Args:
        cases: images; masks and captions are not read.
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
    ) -> None:
        sides = [round(image_size * scale) for scale in scales]
        if not cases:
            raise ValueError("no images to pre-train on")
        if min(sides) < crop:
            raise ValueError(
                f"crop of {crop} pixels from images of {min(sides)} (image_size {image_size}, scales {scales})"
            )
        self.crop, self.symmetries = crop, tuple(symmetries)
        self.stacks = [torch.empty(len(cases), 3, side, side, dtype=torch.uint8) for side in sides]
        for i, case in enumerate(tqdm(cases, desc="reading images")):
            pixels = case.image()
            for stack, side in zip(self.stacks, sides, strict=True):
                stack[i] = ((to_input(pixels, side) + 1) * 127.5).round()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` crops as float32 ``[count, 3, crop, crop]`` in [-1, 1]."""
        return torch.stack([self._draw_one(generator) for _ in range(count)]).float() / 127.5 - 1

    def _draw_one(self, generator: torch.Generator) -> Tensor:
        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=generator))

        stack = self.stacks[below(len(self.stacks))]
        image = stack[below(len(stack))]
        top, left = (below(image.shape[-1] - self.crop + 1) for _ in range(2))
        patch = image[:, top : top + self.crop, left : left + self.crop]
        return dihedral(patch, self.symmetries[below(len(self.symmetries))])


def pretrain(
    unet: UNet,
    pool: CropPool,
    steps: int,
    batch_size: int = 16,
    learning_rate: float = 3e-4,
    ema_decay: float = 0.999,
    warmup: int = 100,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "bfloat16",
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    progress: bool = True,
) -> tuple[UNet, list[dict[str, float]]]:
    """Trains ``unet`` to predict the noise (mean squared error, linear schedule of 1000 steps, uniform t).

    Adam with a warm-up and a cosine decay to zero over ``steps``; mixed precision for "bfloat16". Where ``checkpoint``
    names a file, it is written every ``checkpoint_every`` steps and a later call continues from it, to the step.

    Returns:
        the exponential average of the network (eval mode) and one row ``{"step", "loss", "seconds"}`` every 10 steps.

    Raises:
        ValueError: a checkpoint of another network or of other settings.
    """
    unet = unet.to(device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(unet).requires_grad_(False)
    run = Trainee({"model": unet, "average": average}, steps, learning_rate, warmup)
    settings = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, ema_decay=ema_decay)
    if checkpoint is not None and Path(checkpoint).is_file():
        run.load(Path(checkpoint), settings)
    diffusion = Diffusion("linear")
    recent: list[float] = []
    started = time.monotonic() - (run.history[-1]["seconds"] if run.history else 0.0)
    bar = tqdm(range(run.step, steps), initial=run.step, total=steps, desc="pre-training", disable=not progress)
    for step in bar:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        x0 = pool.draw(batch_size, generator)
        noise = torch.randn(x0.shape, generator=generator)
        timesteps = torch.randint(len(diffusion.timesteps), (batch_size,), generator=generator)
        x_t = diffusion.add_noise(x0, noise, timesteps).to(device, memory_format=torch.channels_last)
        with mixed_precision(device, precision):
            predicted = unet(x_t, timesteps.to(device))
        recent.append(run.update(F.mse_loss(predicted.float(), noise.to(device))))
        # a long memory only once there is something to remember
        _follow(average, unet, min(ema_decay, run.step / (run.step + 10)))
        if run.step % 10 == 0 or run.step == steps:
            loss = sum(recent) / len(recent)
            run.history.append({"step": run.step, "loss": loss, "seconds": time.monotonic() - started})
            bar.set_postfix(loss=f"{loss:.4f}")
            recent = []
        if checkpoint is not None and (run.step % checkpoint_every == 0 or run.step == steps):
            run.save(Path(checkpoint), settings)
    return average.eval(), run.history


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
