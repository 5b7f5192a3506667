"""Gaussian diffusion: clean images or latents and noise in; noised ones, posteriors and samples out.

:class:`Diffusion` is openai/guided-diffusion's (commit 22e0df8, ``gaussian_diffusion.py`` and ``respace.py``): pictures
in [-1, 1], a UNet that predicts the noise. :class:`LatentDiffusion` is TextDiffSeg's. Both move by :func:`ddim_step`.
Schedules are computed in float64 on the CPU; what meets a tensor is a Python number or has the tensor's own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

NoiseSchedule = Literal["linear", "cosine"]
Target = Literal["sample", "epsilon", "v_prediction"]
Sampler = Literal["ddim", "ddpm"]
STEPS = 1000  # of a full schedule
ETA: dict[str, float] = {"ddim": 0.0, "ddpm": 1.0}  # 1 is the ancestral step (Song et al. 2021, section 4.1)


@dataclass(frozen=True)
class Sampling:
    """How a latent is drawn.

    sampling_steps: denoising steps, from pure noise, 1 or more.
    sampler: "ddim" (deterministic given the first noise) or "ddpm" (ancestral: new noise in every step).
    samples: how many times to draw.
    seed: of the noise, 0 or more.

    Raises ValueError that names the setting which is out of range.
    """

    sampling_steps: int = 5
    sampler: Sampler = "ddim"
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("sampling_steps", 1), ("samples", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: at least {least}")
        if self.sampler not in ETA:
            raise ValueError(f"sampler={self.sampler!r}: choose one of {', '.join(ETA)}")


def beta_schedule(name: NoiseSchedule) -> np.ndarray:
    """The variances ``beta_t`` of the noising steps, float64 ``[1000]``.

    "linear" runs from 1e-4 to 2e-2; "cosine" is Nichol and Dhariwal's, capped at 0.999.
    """
    if name == "linear":
        return np.linspace(1e-4, 2e-2, STEPS, dtype=np.float64)
    if name == "cosine":
        signal = [math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(STEPS + 1)]
        return np.array([min(1 - after / before, 0.999) for before, after in pairwise(signal)])
    raise ValueError(f"noise_schedule={name!r}: choose one of {', '.join(get_args(NoiseSchedule))}")


def respaced_timesteps(respacing: str | int) -> list[int]:
    """The steps of the full schedule that a shortened one visits, ascending.

    ``respacing``: a number of steps, evenly spaced from the first to the last, or "ddimN" (N at one whole stride, from 0).
    Raises ValueError: more steps than there are, or no whole stride that gives N.
    """
    if str(respacing).startswith("ddim"):
        strided = (range(0, STEPS, stride) for stride in range(1, STEPS))
        fitting = next((steps for steps in strided if len(steps) == int(str(respacing)[4:])), None)
        if fitting is None:
            raise ValueError(f"respacing={respacing!r}: no whole stride takes exactly so many of {STEPS} steps")
        return list(fitting)
    count = int(respacing)
    if not 1 <= count <= STEPS:
        raise ValueError(f"respacing={respacing!r}: from 1 to {STEPS} steps")
    return [round(k * (STEPS - 1) / max(1, count - 1)) for k in range(count)]


def ddim_step(
    clean: Tensor, noised: Tensor, abar: float, abar_next: float, noise: Tensor | float, eta: float
) -> Tensor:
    """From the noise level ``abar`` to the next one visited (Song et al. 2021, equation 12 with the sigma of 16).

    ``clean``: predicted from ``noised``. ``abar``, ``abar_next``: products of the alphas; 1 is no noise, 0 nothing else.
    ``noise``: standard normal; its share grows with ``eta``, 0 (none) to 1 (the ancestral step).
    """
    predicted_noise = (noised - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
    sigma = eta * math.sqrt((1 - abar_next) / (1 - abar) * (1 - abar / abar_next))
    kept = math.sqrt(max(0.0, 1 - abar_next - sigma**2))
    return math.sqrt(abar_next) * clean + kept * predicted_noise + sigma * noise


class _Noising:
    """One schedule: ``alphas_cumprod`` float64 of its steps on the CPU."""

    def __init__(self, abar: np.ndarray) -> None:
        self._abar = abar
        self.alphas_cumprod = torch.from_numpy(abar)
        self._levels: dict[torch.device, Tensor] = {}  # float32 [2, steps] where they are used

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``sqrt(abar_t) clean + sqrt(1 - abar_t) noise`` in the dtype of ``clean``; ``timesteps`` int ``[B]`` of this schedule."""
        signal, spread = self.levels(timesteps, clean)
        return (signal * clean + spread * noise).to(clean.dtype)

    def levels(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``sqrt(abar_t)`` and ``sqrt(1 - abar_t)``, float32 ``[B, 1, ...]`` on the device of ``like``."""
        if like.device not in self._levels:
            both = torch.stack([self.alphas_cumprod, 1 - self.alphas_cumprod]).sqrt().float()
            self._levels[like.device] = both.to(like.device)
        table, places = self._levels[like.device], timesteps.to(like.device)
        signal, spread = (row[places].reshape(-1, *[1] * (like.ndim - 1)) for row in table)
        return signal, spread


class Diffusion(_Noising):
    """Noising and denoising of pictures, predicting the noise; ``respacing`` as of :func:`respaced_timesteps`, "" for all steps.

    ``timesteps[i]`` is the full schedule's step that step ``i`` of this one stands for, which the UNet must be told.
    """

    def __init__(self, noise_schedule: NoiseSchedule = "linear", respacing: str | int = "") -> None:
        self.timesteps = list(range(STEPS)) if respacing == "" else respaced_timesteps(respacing)
        super().__init__(np.cumprod(1 - beta_schedule(noise_schedule))[self.timesteps])
        self._before = np.append(1.0, self._abar[:-1])  # abar of the step that step t leads to
        self.betas = 1 - self._abar / self._before

    def predict_x0(self, eps: Tensor, x_t: Tensor, t: int) -> Tensor:
        """The clean image that noise ``eps`` implies, clipped to [-1, 1]."""
        abar = float(self._abar[t])
        return ((x_t - math.sqrt(1 - abar) * eps) / math.sqrt(abar)).clamp(-1, 1)

    def posterior(self, output: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance of ``p(x_{t-1} | x_t)`` and the predicted clean image, from a UNet output.

        ``output`` has the channels of ``x_t`` (fixed variance) or twice as many (learned range: the second half, in
        [-1, 1], interpolates between the logarithms of the smallest and largest sensible variance).
        """
        eps, variance = output, None
        if output.shape[1] == 2 * x_t.shape[1]:
            eps, variance = output.chunk(2, dim=1)
        x0 = self.predict_x0(eps, x_t, t)
        abar, before, beta = (float(row[t]) for row in (self._abar, self._before, self.betas))
        mean = (beta * math.sqrt(before) * x0 + (1 - before) * math.sqrt(1 - beta) * x_t) / (1 - abar)
        smallest = math.log(self._posterior_variance(t))
        if variance is None:
            return mean, torch.full_like(mean, smallest), x0
        share = (variance + 1) / 2
        return mean, share * math.log(beta) + (1 - share) * smallest, x0

    def ddpm_step(self, output: Tensor, x_t: Tensor, t: int, generator: torch.Generator | None = None) -> Tensor:
        """One ancestral step from ``t`` to ``t - 1``."""
        mean, log_variance, _ = self.posterior(output, x_t, t)
        if t == 0:
            return mean
        return mean + (0.5 * log_variance).exp() * torch.randn(x_t.shape, generator=generator).to(x_t)

    def ddim_step(self, output: Tensor, x_t: Tensor, t: int, generator: torch.Generator | None = None) -> Tensor:
        """One deterministic DDIM step from ``t`` to ``t - 1``; the noise is predicted anew from the clipped image."""
        x0 = self.predict_x0(output[:, : x_t.shape[1]], x_t, t)
        return ddim_step(x0, x_t, float(self._abar[t]), float(self._before[t]), 0.0, eta=0.0)

    @torch.inference_mode()
    def sample(
        self,
        unet: nn.Module,
        shape: Sequence[int],
        sampler: Sampler = "ddim",
        seed: int = 0,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> Tensor:
        """Pictures ``shape = (B, C, H, W)`` in [-1, 1] drawn from a pretrained UNet by "ddim" (eta 0) or "ddpm" steps.

        The noise is drawn on the CPU: a seed means the same everywhere.
        """
        step = {"ddim": self.ddim_step, "ddpm": self.ddpm_step}[sampler]
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(*shape, generator=generator).to(device)
        for t in tqdm(range(len(self.timesteps) - 1, -1, -1), desc="denoising", disable=not progress):
            timesteps = torch.full((shape[0],), self.timesteps[t], device=device)
            x = step(unet(x, timesteps), x, t, generator)
        return x.clamp(-1, 1)

    def _posterior_variance(self, t: int) -> float:
        """Variance of ``q(x_{t-1} | x_t, x_0)``; at t = 0 it is zero, and that of t = 1 stands in for its logarithm."""
        t = max(t, min(1, len(self.betas) - 1))
        variance = (1 - self._before[t]) / (1 - self._abar[t]) * self.betas[t]
        return max(float(variance), 1e-20)


class LatentDiffusion(_Noising):
    """Noising (TextDiffSeg's equation 3) and denoising of a latent of unit variance, unclipped.

    ``prediction``: what the network gives: the clean latent ("sample"), the noise ("epsilon") or "v_prediction". Ours is
    "sample": out of nearly pure noise, where few-step sampling begins, the noise says nothing about the latent.

    Raises ValueError: an unknown schedule or prediction.
    """

    def __init__(self, noise_schedule: NoiseSchedule = "linear", prediction: Target = "sample") -> None:
        if prediction not in get_args(Target):
            raise ValueError(f"prediction={prediction!r}: choose one of {', '.join(get_args(Target))}")
        super().__init__(np.cumprod(1 - beta_schedule(noise_schedule)))
        self.prediction = prediction

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should give for this latent and this noise."""
        if self.prediction == "sample":
            return clean
        if self.prediction == "epsilon":
            return noise
        signal, spread = self.levels(timesteps, clean)
        return signal * noise - spread * clean

    def clean(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latent that a network's output implies."""
        if self.prediction == "sample":
            return output
        signal, spread = self.levels(timesteps, noised)
        if self.prediction == "epsilon":
            return (noised - spread * output) / signal
        return signal * noised - spread * output

    def visited(self, sampling_steps: int) -> list[int]:
        """The steps that sampling visits: evenly spaced, descending, the first the schedule's last (nearly pure noise).

        Raises ValueError: a number of steps outside 1..1000.
        """
        if not 1 <= sampling_steps <= STEPS:
            raise ValueError(f"sampling_steps={sampling_steps}: between 1 and {STEPS}")
        return [k * STEPS // sampling_steps - 1 for k in range(sampling_steps, 0, -1)]

    def sample(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        shape: Sequence[int],
        batch: int,
        sampling: Sampling,
        generators: Sequence[torch.Generator],
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Latents float32 ``[batch, *shape]`` from noise; every step moves to the level of the next one visited.

        The noise is that of each latent's own generator, or of a single one the same for all; it is drawn on the CPU: an answer
        depends neither on what else is in the batch nor on the device. ``denoise(latent, timesteps [batch])`` is the network.

        Raises ValueError: more steps than the schedule has.
        """
        eta, steps = ETA[sampling.sampler], self.visited(sampling.sampling_steps)

        def noise() -> Tensor:
            drawn = torch.stack([torch.randn(*shape, generator=one) for one in generators])
            return drawn.to(device).expand(batch, *shape)

        latent = noise()
        for t, following in zip(steps, [*steps[1:], None], strict=True):
            timesteps = torch.full((batch,), t, device=device)
            clean = self.clean(denoise(latent, timesteps).float(), latent, timesteps)
            abar_next = 1.0 if following is None else float(self._abar[following])
            latent = ddim_step(clean, latent, float(self._abar[t]), abar_next, noise() if eta else 0.0, eta)
        return latent
