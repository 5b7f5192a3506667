"""Frozen diffusion features: images in, activations of chosen decoder blocks at chosen noise steps out, cached on disk.

Paper section: "image encoder" of TextDiff, after DDPM-seg. An image is noised to each step in one jump, the frozen UNet
is run once a step as far as the deepest block needs, nothing is sampled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from textdiff.base.checkpoints import fingerprint, read_checkpoint, write_checkpoint
from textdiff.base.precision import mixed_precision
from textdiff.models.diffusion import Diffusion
from textdiff.models.unet import UNet, check_blocks

HEADER = 256  # bytes of a file beside a map's own, at most
ABANDONED = 3600.0  # seconds after which a temporary file has no writer any more


class DiffusionFeatures(nn.Module):
    """A frozen UNet as feature extractor.

    Args:
        unet: the pretrained network; it is frozen and kept in eval mode.
        blocks: decoder blocks to tap, counted from the deepest. The paper's sets, for the 18 blocks of the published
            checkpoint: (6, 8, 12, 16) on MoNuSeg, (4, 6, 8, 12) on QaTa-COV19.
        steps: noise steps (0..999 of the schedule), ascending in what they hide; the paper's are (50, 150, 250).
        noise_seed: seed of the one noise map that all images and steps share (40 in the authors' code).
        schedule: the noise schedule that the UNet was trained with.
        precision: "float32", or "bfloat16" (mixed precision; maps are rounded to bfloat16).
        cache: where maps are kept (see :class:`FeatureCache`); None computes them every time.

    Attributes:
        channels: channels of each map: the block's, times the number of steps.
        strides: image pixels a map pixel, one number a block.

    Raises:
        ValueError: a block or step that does not exist, saying the range.
    """

    def __init__(
        self,
        unet: UNet,
        blocks: Sequence[int],
        steps: Sequence[int] = (50, 150, 250),
        noise_seed: int = 40,
        schedule: str = "linear",
        precision: str = "float32",
        cache: FeatureCache | None = None,
    ) -> None:
        super().__init__()
        check_blocks(blocks, len(unet.output_blocks))
        self.diffusion = Diffusion(schedule)
        last = len(self.diffusion.timesteps) - 1
        if not steps or any(not 0 <= step <= last for step in steps) or len(set(steps)) != len(steps):
            raise ValueError(f"noise steps {list(steps)}: give at least one, each once, from 0 to {last}")
        mixed_precision("cpu", precision)  # refuses unknown names now rather than at the first image
        self.unet = unet.eval().requires_grad_(False)
        self.blocks, self.steps = tuple(blocks), tuple(steps)
        self.noise_seed, self.schedule, self.precision = noise_seed, schedule, precision
        self.cache = cache
        self.channels = [unet.block_channels[k] * len(self.steps) for k in self.blocks]
        self.strides = [unet.block_strides[k] for k in self.blocks]
        self._known_identity: tuple[list, str] = ([], "")

    def train(self, mode: bool = True) -> DiffusionFeatures:
        """Frozen: stays in eval mode whatever is trained around it."""
        return super().train(False)

    @property
    def settings(self) -> dict[str, object]:
        """The constructor's arguments apart from network and cache."""
        return {
            "blocks": list(self.blocks),
            "steps": list(self.steps),
            "noise_seed": self.noise_seed,
            "schedule": self.schedule,
            "precision": self.precision,
        }

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """``images [B, C, H, W]`` in [-1, 1] -> a list of float32 maps ``[B, C_k * len(steps), H / s_k, W / s_k]``.

        Along the channels, the steps follow each other in the order given. On the device of ``images``.
        """
        return [one.float() for one in self.maps(images)]

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """What :meth:`forward` gives, in the dtype of ``precision``: for a head that would round them again anyway.

        Raises:
            ValueError: images that are no floating-point numbers, or of a size that the network cannot halve.
        """
        if not images.is_floating_point():
            raise ValueError(f"images must be floating-point numbers in [-1, 1], got {images.dtype}")
        if self.cache is None:
            return self._compute(images)
        identity = self._identity()
        keys = [_key(identity, image) for image in images]
        known = {key: self.cache.get(key) for key in keys}
        missing = [i for i, key in enumerate(keys) if known[key] is None]
        if missing:
            for i, maps in zip(missing, zip(*self._compute(images[missing]), strict=True), strict=True):
                known[keys[i]] = self.cache.put(keys[i], list(maps))
        columns = zip(*(known[key] for key in keys), strict=True)
        return [torch.stack(column).to(images.device) for column in columns]

    @contextmanager
    def caching(self, cache: FeatureCache | None) -> Iterator[None]:
        """Within this context maps are kept in ``cache``, or nowhere."""
        before, self.cache = self.cache, cache
        try:
            yield
        finally:
            self.cache = before

    def uncached(self) -> AbstractContextManager[None]:
        """Within this context nothing is read from or written to the cache (for images that are seen only once)."""
        return self.caching(None)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """The shared noise map ``[1, C, H, W]``; drawn on the CPU, so that it is the same on every device."""
        generator = torch.Generator().manual_seed(self.noise_seed)
        return torch.randn(1, *shape, generator=generator)

    def _compute(self, images: Tensor) -> list[Tensor]:
        noise = self.noise(images.shape[1:]).to(images.device)
        images = images.to(memory_format=torch.channels_last)
        by_step = []
        for step in self.steps:
            timesteps = torch.full((len(images),), step, device=images.device)
            x_t = self.diffusion.add_noise(images, noise.expand_as(images), timesteps)
            with mixed_precision(images.device, self.precision):
                by_step.append(self.unet.decode(x_t, timesteps, self.blocks))
        joined = [torch.cat(one, dim=1).contiguous() for one in zip(*by_step, strict=True)]
        return [one.to(torch.bfloat16 if self.precision == "bfloat16" else torch.float32) for one in joined]

    def _identity(self) -> str:
        """Stands for all that turns pixels into maps; made anew when weights were loaded into the network since."""
        state = self.unet.state_dict(keep_vars=True)
        versions = [(value.data_ptr(), 0 if value.is_inference() else value._version) for value in state.values()]
        if versions != self._known_identity[0]:
            about = {"unet": fingerprint(state), "config": self.unet.config, **self.settings}
            self._known_identity = (versions, json.dumps(about, sort_keys=True))
        return self._known_identity[1]


def _key(identity: str, image: Tensor) -> str:
    """Stands for the pixels after every transform, and for what turns them into maps."""
    pixels = image.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{identity}{pixels.dtype}{tuple(pixels.shape)}".encode())
    digest.update(pixels.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


class FeatureCache:
    """Feature maps on disk, one file an image; safe under several processes and under a kill.

    A file is written under a temporary name and renamed, so that a reader sees a whole entry or none. Beyond
    ``max_bytes`` the entries used longest ago are removed. A full disk costs the entry, not the run.
    """

    def __init__(self, folder: str | Path, max_bytes: float = 20e9) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, got {max_bytes}; for no cache give cache=None")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._size: int | None = None

    def get(self, key: str) -> list[Tensor] | None:
        """The maps stored under ``key``, or None. A damaged entry is removed and counts as absent."""
        path = self._path(key)
        try:
            tensors = read_checkpoint(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            warnings.warn(f"a damaged cache entry is dropped and computed again: {error}", stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        return [tensors[str(i)] for i in range(len(tensors))]

    def put(self, key: str, maps: list[Tensor]) -> list[Tensor]:
        """Stores ``maps`` under ``key`` if there is room, and returns them."""
        size = sum(one.numel() * one.element_size() + HEADER for one in maps)
        if size > self.max_bytes:
            return maps
        self._make_room(size)
        try:
            write_checkpoint(self._path(key), {str(i): one for i, one in enumerate(maps)})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            warnings.warn(
                f"the disk of the feature cache is full, going on without storing: {self.folder}", stacklevel=2
            )
        return maps

    def size(self) -> int:
        """Bytes in the cache now."""
        return sum(size for _, size, _ in self._entries())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _entries(self) -> list[tuple[float, int, Path]]:
        entries = []
        for path in self.folder.glob("??/*.safetensors"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process has just removed it
                continue
            entries.append((status.st_mtime, status.st_size, path))
        return sorted(entries)

    def _sweep(self) -> None:
        """Removes what killed processes left half-written."""
        for path in self.folder.glob("??/.*.part"):
            try:
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()
            except FileNotFoundError:
                continue

    def _make_room(self, size: int) -> None:
        if self._size is None or self._size + size > self.max_bytes:
            self._sweep()
            entries = self._entries()
            self._size = sum(entry[1] for entry in entries)
            for _, freed, path in entries:
                if self._size + size <= self.max_bytes:
                    break
                path.unlink(missing_ok=True)
                self._size -= freed
        self._size += size
