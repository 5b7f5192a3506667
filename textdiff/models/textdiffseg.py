"""TextDiffSeg: a volume and a sentence in, labels and their uncertainty out.

    volume --- image encoder ----> z_i --- cross-modal attention with the sentence ---> z_fused
    labels --- label encoder ----> z_l --- noising (eq. 3) --> z_l(t) --- denoiser(z_l(t), t, z_fused, tokens) --> z_l(0)
    z_l(0), image maps --- decoder ---> a probability for every structure in every voxel

The modules, equations 1 to 3, end-to-end training and the joint loss are the paper's (Ma, arXiv 2504.11825). Layers, sizes,
the denoiser, its target, the losses' exact form and the sampler are **ours**, because the paper's are not known; so are the
image maps in the decoder and the place channels in the input. Keys and values of the attention are the tokens: over
one pooled vector, as equation 2 may be read, the softmax would be 1 everywhere and the text a constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.base.draws import drawn
from textdiff.base.precision import Precision, mixed_precision
from textdiff.data.volumes.patches import DIVISOR, IMAGE_CHANNELS, Preprocessing
from textdiff.models import inference
from textdiff.models.denoiser import ConvBlock, Denoiser
from textdiff.models.diffusion import STEPS, LatentDiffusion, NoiseSchedule, Sampling, Target
from textdiff.models.fusion import CrossModalAttention
from textdiff.models.losses import DiceCE
from textdiff.models.store import Pretrained

if TYPE_CHECKING:
    from textdiff.data.volumes.patches import VolumeBatch
    from textdiff.data.volumes.volume import Volume
    from textdiff.models.text import TextEncoder

STRIDE = 4  # voxels per cell of the latent, along each axis
# What the constructor is given that is stored apart from the model's other settings
OBJECTS = ("self", "__class__", "text", "class_names", "preprocessing", "criterion")


class ImageEncoder(nn.Module):
    """Volume to the image latent ``z_i`` and the finer maps on the way there.

    ``forward(images [B, 4, X, Y, Z])`` gives maps at strides 1, 2 and 4, channels ``widths``; the last is ``z_i``.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList([ConvBlock(IMAGE_CHANNELS, widths[0]), ConvBlock(widths[0], widths[1], stride=2)])
        self.stages.append(nn.Sequential(ConvBlock(widths[1], widths[2], stride=2), ConvBlock(widths[2], widths[2])))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


class RawImage(nn.Module):
    """The ablation "without image features": the averaged volume through one 1 x 1 x 1 convolution, and no finer maps."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.project = nn.Conv3d(IMAGE_CHANNELS, widths[-1], 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.project(F.avg_pool3d(images, STRIDE))]


class LabelEncoder(nn.Module):
    """Shape-aware: one-hot labels and signed distances ``[B, 2K, X, Y, Z]`` to ``z_l(0)`` ``[B, channels, X/4, Y/4, Z/4]``.

    The latent has mean 0 and variance 1 over each volume, so that a step of the noise schedule means the same for all and
    the latent cannot shrink to make denoising easy.
    """

    def __init__(self, structures: int, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            ConvBlock(2 * structures, widths[0], stride=2),
            ConvBlock(widths[0], widths[1], stride=2),
            nn.Conv3d(widths[1], channels, 1),
            nn.GroupNorm(1, channels, affine=False),
        )

    def forward(self, onehot: Tensor, distances: Tensor) -> Tensor:
        return self.blocks(torch.cat([onehot, distances], dim=1))


class RawLabels(nn.Module):
    """The ablation "without label encoder": the share of each structure in every cell, from -1 (none) to 1 (all)."""

    def forward(self, onehot: Tensor, distances: Tensor | None) -> Tensor:
        return F.avg_pool3d(onehot, STRIDE) * 2 - 1


class Decoder(nn.Module):
    """``z_l(0)`` and the image maps to logits ``[B, num_classes, X, Y, Z]``.

    The image maps have not read the sentence: what is wanted can only come through the latent.
    """

    def __init__(self, channels: int, widths: Sequence[int], num_classes: int, fine: bool) -> None:
        super().__init__()
        self.enter = ConvBlock(channels + (widths[2] if fine else 0), widths[2])
        self.up = nn.ModuleList([nn.ConvTranspose3d(widths[k + 1], widths[k], 2, 2) for k in (1, 0)])
        self.join = nn.ModuleList([ConvBlock(widths[k] * (2 if fine else 1), widths[k]) for k in (1, 0)])
        self.classify = nn.Conv3d(widths[0], num_classes, 1)

    def forward(self, latent: Tensor, maps: Sequence[Tensor]) -> Tensor:
        h = self.enter(torch.cat([latent, maps[-1]], dim=1) if len(maps) > 1 else latent)
        for level, (up, join) in enumerate(zip(self.up, self.join, strict=True), start=2):
            h = up(h)
            h = join(torch.cat([h, maps[-level]], dim=1) if len(maps) > 1 else h)
        return self.classify(h)


def _preprocessing(**about: Any) -> Preprocessing:
    """Lists of a JSON file as the tuples they were."""
    settings: dict[str, Any] = {key: None if value is None else tuple(value) for key, value in about.items()}
    return Preprocessing(**settings)


class TextDiffSeg(Pretrained):
    """The whole system. Trained with :meth:`loss`, asked with :meth:`segment` (tensors) or :meth:`predict` (files).

    Args:
        text: the frozen encoder of the sentences; None for the ablation without text.
        class_names: background first; the sentence names which of the others are wanted.
        preprocessing: what is done to a volume before; travels with the model.
        widths: channels at strides 1, 2 and 4.
        latent_channels: channels of the label latent.
        denoiser_widths: channels of the denoising UNet at strides 4 and 8, multiples of 16, the second at least 32.
        image_features, label_encoder: False for the paper's ablations.
        prediction: what the denoiser predicts: "sample" (the clean latent), "epsilon" (the noise) or "v_prediction".
        noise_schedule: "linear" or "cosine", over 1000 steps.
        denoise_weight: lambda, weight of the denoising loss; 0 for the ablation without joint loss.
        autoencode: share of the training volumes whose decoder is given the clean latent instead of the denoised one.
        from_noise: share of the training volumes that are noised to the last step, where few-step sampling begins; the
            others to a random one.
        precision: "float32" or "bfloat16" (mixed).
        criterion: L_seg.

    Raises ValueError: fewer than two classes, or sizes that do not fit.
    """

    SPECS: ClassVar = {"preprocessing": _preprocessing, "criterion": DiceCE}
    STORED = torch.float16
    divisor = DIVISOR

    def __init__(
        self,
        text: TextEncoder | None,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        *,
        widths: Sequence[int] = (16, 32, 64),
        latent_channels: int = 16,
        denoiser_widths: Sequence[int] = (64, 96),
        image_features: bool = True,
        label_encoder: bool = True,
        prediction: Target = "sample",
        noise_schedule: NoiseSchedule = "linear",
        denoise_weight: float = 0.25,
        autoencode: float = 0.15,
        from_noise: float = 0.6,
        precision: Precision = "float32",
        criterion: DiceCE = DiceCE(),
    ) -> None:
        model = {key: value for key, value in locals().items() if key not in OBJECTS}
        super().__init__()
        if not 2 <= len(class_names) <= 256:  # label maps have 8 bits
            said = list(class_names) if len(class_names) < 2 else f"{len(class_names)} names"
            raise ValueError(f"class_names={said}: background and 1 to 255 structures")
        wrong = any(width % 16 or width < least for width, least in zip(denoiser_widths, (16, 32), strict=False))
        if wrong or len(denoiser_widths) != 2 or len(widths) != 3:
            raise ValueError(
                f"widths={tuple(widths)} must be three numbers and denoiser_widths={tuple(denoiser_widths)} two multiples of 16, "
                "the second at least 32"
            )
        preprocessing.check_cells()
        about = {"preprocessing": asdict(preprocessing), "criterion": asdict(criterion)}
        self.settings = {"class_names": tuple(class_names), **about, "model": model}
        structures = len(class_names) - 1
        self.latent_channels = channels = latent_channels if label_encoder else structures
        self.text, self.class_names = text, tuple(class_names)
        self.preprocessing, self.criterion, self.precision = preprocessing, criterion, precision
        self.denoise_weight, self.autoencode, self.from_noise = denoise_weight, autoencode, from_noise
        self.image_encoder = (ImageEncoder if image_features else RawImage)(widths)
        self.label_encoder = LabelEncoder(structures, widths, channels) if label_encoder else RawLabels()
        self.fuse = None if text is None else CrossModalAttention(3, widths[-1], text.dim, num_heads=4, head_dim=16)
        self.denoiser = _denoiser(channels, widths[-1], denoiser_widths, None if text is None else text.dim)
        self.decoder = Decoder(channels, widths, len(class_names), image_features)
        self.diffusion = LatentDiffusion(noise_schedule, prediction)

    @property
    def device(self) -> torch.device:
        return self.decoder.classify.weight.device

    def loss(self, batch: VolumeBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The joint loss ``L = L_seg + lambda * L_denoise`` and its parts, as scalars by name ("loss" is the sum).

        L_seg is cross-entropy plus Dice of the decoded labels; for a share ``autoencode`` of the volumes they are decoded
        from the clean latent instead (label auto-encoding). L_denoise is the squared error of what the denoiser
        predicts. Its target is cut off from the label encoder, which would otherwise learn latents that are easy to
        guess rather than latents that say much (ours).
        """
        with mixed_precision(self.device, self.precision, batch.images.shape[2] // DIVISOR):
            maps, fused, tokens = self._read(batch.images, batch.prompts)
            clean = self._latent(batch.labels, batch.distances)
            noise = drawn(torch.randn, clean.shape, generator).to(clean)
            timesteps = self._timesteps(len(clean), generator).to(clean.device)
            noised = self.diffusion.add_noise(clean, noise, timesteps)
            output = self._denoise(noised, timesteps, fused, tokens)
            denoise = F.mse_loss(output, self.diffusion.target(clean.detach(), noise, timesteps))
            guessed = self.diffusion.clean(output, noised, timesteps)
            keep = (drawn(torch.rand, [len(clean)], generator) < self.autoencode).to(clean.device)
            decoded = torch.where(keep.reshape(-1, 1, 1, 1, 1), clean, guessed)
            logits = self.decoder(decoded, maps)
        segment = self.criterion(logits, batch.labels)
        return {"loss": segment + self.denoise_weight * denoise, "segment": segment, "denoise": denoise}

    def segment(self, images: Tensor, prompts: Sequence[str], sampling: Sampling = Sampling()) -> Tensor:
        """Probabilities ``[B, num_classes, X, Y, Z]`` of ``images [B, 4, X, Y, Z]``, the mean over the samples.

        Sample k of every volume of the batch starts from the same noise, whatever else is in the batch.

        Raises ValueError: sides that are no multiples of 8, another number of channels, prompts that are not one per volume.
        """
        return torch.stack(list(self.draws(images, prompts, sampling))).mean(dim=0)

    def draws(self, images: Tensor, prompts: Sequence[str], sampling: Sampling = Sampling()) -> Iterator[Tensor]:
        """One after another the probabilities of each sample (see :meth:`segment`); image and text are read once."""
        self._check(images, prompts)
        yield from self._drawn(images, list(prompts), sampling, [sampling.seed])

    def ask(self, images: Tensor, texts: Sequence[str], sampling: Sampling, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Every text asked about every image, ``[B, 4, X, Y, Z]``: sample after sample ``[texts, B, num_classes, X, Y, Z]``.

        The same as :meth:`draws` with every text and the image's own seed of ``seeds`` in place of that of ``sampling``, but
        images are read once for all texts.

        Raises ValueError: as :meth:`segment`; seeds that are not one per image.
        """
        self._check(images, list(texts)[:1] * len(images))
        if len(seeds) != len(images):
            raise ValueError(f"{len(seeds)} seeds for {len(images)} images: give one each")
        prompts = [text for text in texts for _ in images]
        for sample in self._drawn(images, prompts, sampling, [*seeds] * len(texts)):
            yield sample.unflatten(0, (len(texts), -1))

    @torch.no_grad()
    def _drawn(
        self, images: Tensor, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[Tensor]:
        """Sample after sample the probabilities for all prompts: of every image the first, of every image the second, and so on.

        ``seeds``: of the noise, one for each prompt or one for all.
        """
        with mixed_precision(self.device, self.precision):
            maps, fused, tokens = self._read(images, prompts)
        shape = (self.latent_channels, *fused.shape[2:])
        denoise = partial(self._denoise, fused=fused, tokens=tokens)
        for k in range(sampling.samples):
            generators = [torch.Generator().manual_seed(seed * 1_000_003 + k) for seed in seeds]
            # Entered anew for each sample: what surrounds a `yield` would hold for the caller's own work too
            with mixed_precision(self.device, self.precision):
                latent = self.diffusion.sample(denoise, shape, len(fused), sampling, generators, fused.device)
                drawn = self.decoder(latent, maps).float().softmax(dim=1)
            yield drawn

    def autoencoded(self, labels: Tensor, distances: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latent of a label map and the probabilities decoded from it: what the latent can hold at best."""
        with torch.no_grad(), mixed_precision(self.device, self.precision):
            latent = self._latent(labels, distances)
            return latent, self.decoder(latent, self.image_encoder(images)).float().softmax(dim=1)

    def attention(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Where each token is read: ``[B, L, X/4, Y/4, Z/4]``, tokens sum to one in every cell."""
        if self.fuse is None or self.text is None:
            raise ValueError("this model was built without text: there is no attention to look at")
        with torch.no_grad():
            tokens, mask = self.text(list(prompts))
            return self.fuse.attention(self.image_encoder(images)[-1], tokens.to(images.device), mask.to(images.device))

    def _latent(self, labels: Tensor, distances: Tensor | None) -> Tensor:
        """The clean latent ``z_l(0)`` of labels ``[B, X, Y, Z]`` and their signed distances ``[B, K, X, Y, Z]``."""
        if distances is None and isinstance(self.label_encoder, LabelEncoder):
            raise ValueError("the label encoder reads signed distances: ask for them (TrainingVolumes(distances=True))")
        onehot = F.one_hot(labels, len(self.class_names)).movedim(-1, 1)[:, 1:].float()
        return self.label_encoder(onehot, distances).float()

    def _read(self, images: Tensor, prompts: Sequence[str]) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Finer maps, the fused image latent and the tokens for the denoiser, for every prompt (see :meth:`_drawn`)."""
        maps = self.image_encoder(images)
        if len(prompts) > len(images):
            maps = [part.repeat(len(prompts) // len(images), 1, 1, 1, 1) for part in maps]
        if self.fuse is None or self.text is None:
            return maps, maps[-1], None
        tokens, mask = (part.to(images.device) for part in self.text(list(prompts)))
        fused = self.fuse(maps[-1], tokens, mask)
        # MONAI's attention knows no mask: always the same length, so that a sentence means the same in every batch
        tokens = tokens * mask[..., None]
        return maps, fused, F.pad(tokens, (0, 0, 0, self.text.max_length - tokens.shape[1]))

    def _denoise(self, noised: Tensor, timesteps: Tensor, fused: Tensor, tokens: Tensor | None) -> Tensor:
        return self.denoiser(torch.cat([noised, fused.to(noised.dtype)], dim=1), timesteps, context=tokens).float()

    def _timesteps(self, n: int, generator: torch.Generator | None) -> Tensor:
        timesteps = drawn(partial(torch.randint, STEPS), [n], generator)
        last = drawn(torch.rand, [n], generator) < self.from_noise
        return torch.where(last, STEPS - 1, timesteps)

    def _check(self, images: Tensor, prompts: Sequence[str]) -> None:
        if images.ndim != 5 or images.shape[1] != IMAGE_CHANNELS:
            raise ValueError(f"images must be [B, {IMAGE_CHANNELS}, X, Y, Z], got {tuple(images.shape)}")
        sides = tuple(images.shape[2:])
        fits = tuple(-(-side // DIVISOR) * DIVISOR for side in sides)
        if sides != fits:
            raise ValueError(f"sides {sides} must be multiples of {DIVISOR}; the nearest that fit are {fits}")
        if self.text is not None and len(prompts) != len(images):
            raise ValueError(f"{len(prompts)} prompts for {len(images)} volumes: give one each")

    def predict(self, volume: str | Path | Volume, text: str, *args: Any, **options: Any) -> inference.Prediction:
        """Labels (and uncertainty) of a NIfTI file, a DICOM folder or a :class:`Volume`, on the volume's own grid.

        See :func:`textdiff.models.inference.predict_volume` for the options.
        """
        return inference.predict_volume(self, volume, text, *args, **options)


def _denoiser(channels: int, image_channels: int, widths: Sequence[int], text_dim: int | None) -> nn.Module:
    """A diffusion UNet: noised latent and fused image latent in; reads the tokens again at its coarse level."""
    if text_dim is not None:
        return Denoiser(channels + image_channels, channels, widths, text_dim)
    from monai.networks.nets import DiffusionModelUNet

    return DiffusionModelUNet(
        3,
        channels + image_channels,
        channels,
        num_res_blocks=1,
        channels=tuple(widths),
        attention_levels=(False, True),
        norm_num_groups=16,
        num_head_channels=(0, 32),
    )
