"""Frozen features: images in, maps of several scales out, kept on disk where a cache is given.

:class:`FeatureExtractor` is what TextDiff asks of a frozen network. :class:`DiffusionFeatures` is the paper's "image
encoder", after DDPM-seg: an image is noised to each step in one jump, the frozen UNet is run once per step as far as the
deepest block needs, nothing is sampled.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from textdiff.base.allocator import keep_freed_memory
from textdiff.base.cache import FeatureCache, KnownFingerprint
from textdiff.base.memory import Fitting, in_groups
from textdiff.base.precision import mixed_precision
from textdiff.models.diffusion import STEPS, Diffusion, NoiseSchedule
from textdiff.models.unet import UNet, check_blocks


class FeatureExtractor(nn.Module, ABC):
    """A frozen network read at several scales.

    A subclass writes :meth:`compute` and ``settings``: its constructor's arguments apart from network and cache.

    Args:
        network: it is frozen and kept in eval mode.
        channels, strides: one number per map: its channels, and image pixels per map pixel.
        precision: "float32", or "bfloat16" (mixed precision; maps are rounded to bfloat16).
        cache: where maps are kept; None computes them every time.
    """

    settings: dict[str, object]

    def __init__(
        self,
        network: nn.Module,
        channels: Sequence[int],
        strides: Sequence[int],
        precision: str = "float32",
        cache: FeatureCache | None = None,
    ) -> None:
        super().__init__()
        mixed_precision("cpu", precision)  # refuses unknown names now rather than at the first image
        self.network = network.eval().requires_grad_(False)
        self.channels, self.strides = list(channels), list(strides)
        self.precision, self.cache = precision, cache
        self._fingerprint, self._fitting = KnownFingerprint(), Fitting("images")

    @abstractmethod
    def compute(self, images: Tensor) -> list[Tensor]:
        """``images [B, C, H, W]`` in [-1, 1] -> one map ``[B, C_k, h_k, w_k]`` per scale, on the images' device."""

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Frozen: stays in eval mode whatever is trained around it."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """``images [B, C, H, W]`` in [-1, 1] -> a list of float32 maps ``[B, C_k, H / s_k, W / s_k]`` on their device."""
        return [one.float() for one in self.maps(images)]

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """What :meth:`forward` gives, in the dtype of ``precision``: for a head that would round them again anyway.

        Raises ValueError: images that are no floating-point numbers, or of a size that the network cannot take.
        """
        if not images.is_floating_point():
            raise ValueError(f"images must be floating-point numbers in [-1, 1], got {images.dtype}")
        keep_freed_memory()
        kept, pixels = self.cache, self._pixels
        maps = pixels(images) if kept is None else kept.batch(self.identity(), images, pixels)
        return [one.movedim(-1, 1) for one in maps]

    def identity(self) -> str:
        """All that turns an image into maps, in one text: the network, its weights and the settings."""
        about = {"kind": type(self).__name__, "network": getattr(self.network, "config", None), **self.settings}
        return json.dumps([self._fingerprint(self), about], sort_keys=True)

    @contextmanager
    def caching(self, cache: FeatureCache | None) -> Iterator[None]:
        """Within this context maps are kept in ``cache``; with None nothing is read from or written to the disk."""
        before, self.cache = self.cache, cache
        try:
            yield
        finally:
            self.cache = before

    def _pixels(self, images: Tensor) -> list[Tensor]:
        """The maps in the order that heads read them, channels last ``[B, h_k, w_k, C_k]``; they do not tell an image's company."""
        filled, together = in_groups(images)
        dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32

        def work(parts: list[slice]) -> list[Tensor]:
            with mixed_precision(images.device, self.precision):
                found = [[one.movedim(1, -1).to(dtype).contiguous() for one in self.compute(filled[p])] for p in parts]
            return [torch.cat(several)[: len(images)] for several in zip(*found, strict=True)]

        return self._fitting.run(work, len(filled), together)


class DiffusionFeatures(FeatureExtractor):
    """Activations of chosen decoder blocks of a frozen denoising UNet at chosen noise steps.

    Args:
        unet: the pretrained network.
        blocks: decoder blocks to tap, counted from the deepest. The paper's sets, for the 18 blocks of the published
            checkpoint: (6, 8, 12, 16) on MoNuSeg, (4, 6, 8, 12) on QaTa-COV19.
        steps: noise steps (0..999 of the schedule), ascending in what they hide; the paper's are (50, 150, 250).
        noise_seed: seed of the one noise map that all images and steps share (40 in the authors' code).
        noise_schedule: what the UNet was trained with.
        precision, cache: see :class:`FeatureExtractor`.

    The channels of a map are the block's, times the number of steps, which follow each other in the order given.

    Raises ValueError: a block or step that does not exist, saying the range.
    """

    network: UNet

    def __init__(
        self,
        unet: UNet,
        blocks: Sequence[int],
        steps: Sequence[int] = (50, 150, 250),
        noise_seed: int = 40,
        noise_schedule: NoiseSchedule = "linear",
        precision: str = "float32",
        cache: FeatureCache | None = None,
    ) -> None:
        check_blocks(blocks, len(unet.output_blocks))
        channels = [unet.block_channels[k] * len(steps) for k in blocks]
        super().__init__(unet, channels, [unet.block_strides[k] for k in blocks], precision, cache)
        if not steps or any(not 0 <= step < STEPS for step in steps) or len(set(steps)) != len(steps):
            raise ValueError(f"noise steps {list(steps)}: give at least one, each once, from 0 to {STEPS - 1}")
        self.diffusion = Diffusion(noise_schedule)
        self.blocks, self.steps, self.noise_seed = tuple(blocks), tuple(steps), noise_seed
        told = {"noise_seed": noise_seed, "noise_schedule": noise_schedule, "precision": precision}
        self.settings = {"blocks": self.blocks, "steps": self.steps, **told}

    @property
    def unet(self) -> UNet:
        return self.network

    def noise(self, shape: Sequence[int]) -> Tensor:
        """The shared noise map ``[1, C, H, W]``; drawn on the CPU, so that it is the same on every device."""
        return torch.randn(1, *shape, generator=torch.Generator().manual_seed(self.noise_seed))

    def compute(self, images: Tensor) -> list[Tensor]:
        noise, count = self.noise(images.shape[1:]).to(images.device), len(images)
        if on_cpu := images.device.type == "cpu":
            images = images.to(memory_format=torch.channels_last)
        found: list[tuple[Tensor, ...]] = []
        # Small networks keep a GPU waiting for orders: all steps at once. A processor would only need more memory for it
        for steps in torch.tensor(self.steps, device=images.device).split(1 if on_cpu else len(self.steps)):
            timesteps = steps.repeat_interleave(count)
            x_t = self.diffusion.add_noise(images.repeat(len(steps), 1, 1, 1), noise, timesteps)
            found += zip(*(one.split(count) for one in self.unet.decode(x_t, timesteps, self.blocks)), strict=True)
        return [torch.cat(one, dim=1) for one in zip(*found, strict=True)]
