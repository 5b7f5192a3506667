"""Gaussian diffusion over MONAI's schedulers: clean images and noise in; noised images, posteriors and samples out.

Schedules, respacing and the learned-range posterior follow openai/guided-diffusion (commit 22e0df8,
``gaussian_diffusion.py`` and ``respace.py``); the arithmetic of a step is MONAI's. Two differences between those two
matter and are bridged here: guided-diffusion computes its schedules in float64 and interpolates the *logarithm* of a
learned variance, and its DDIM step predicts the noise anew from the clipped image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm


def beta_schedule(name: str, num_steps: int = 1000) -> np.ndarray:
    """The variances ``beta_t`` of ``num_steps`` noising steps as float64 ``[num_steps]``.

    "linear" runs from 1e-4 to 2e-2 for 1000 steps (scaled so that other lengths reach the same final noise); "cosine" is
    Nichol and Dhariwal's, capped at 0.999.
    """
    if name == "linear":
        scale = 1000 / num_steps
        return np.linspace(scale * 1e-4, scale * 2e-2, num_steps, dtype=np.float64)
    if name == "cosine":

        def signal(fraction: float) -> float:
            return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

        ratios = [signal((t + 1) / num_steps) / signal(t / num_steps) for t in range(num_steps)]
        return np.array([min(1 - ratio, 0.999) for ratio in ratios])
    raise ValueError(f"unknown noise schedule {name!r}; known: 'linear', 'cosine'")


def respaced_timesteps(respacing: str | int, num_steps: int = 1000) -> list[int]:
    """The steps of the full schedule that a shortened one visits, ascending.

    ``respacing`` is a number of steps, a list such as "10,15,20" (so many steps from equal sections of the schedule), or
    "ddimN" (N steps at one whole stride, from 0).

    Raises:
        ValueError: more steps than there are, or no whole stride that gives N.
    """
    respacing = str(respacing)
    if respacing.startswith("ddim"):
        wanted = int(respacing[4:])
        for stride in range(1, num_steps):
            if len(range(0, num_steps, stride)) == wanted:
                return list(range(0, num_steps, stride))
        raise ValueError(f"no whole stride takes exactly {wanted} of {num_steps} steps; give a plain number instead")
    counts = [int(part) for part in respacing.split(",")]
    steps, start = [], 0
    for i, count in enumerate(counts):
        size = num_steps // len(counts) + (1 if i < num_steps % len(counts) else 0)
        if not 1 <= count <= size:
            raise ValueError(f"cannot take {count} steps from a section of {size} (respacing {respacing!r})")
        stride = (size - 1) / (count - 1) if count > 1 else 1
        steps += [start + round(k * stride) for k in range(count)]
        start += size
    return steps


class Diffusion:
    """Noising and denoising with one schedule, predicting the noise.

    Args:
        schedule: "linear" or "cosine".
        num_steps: steps of the full schedule.
        respacing: see :func:`respaced_timesteps`; "" keeps every step.

    ``timesteps[i]`` is the full schedule's step that step ``i`` of this one stands for, which the UNet must be told.
    """

    def __init__(self, schedule: str = "linear", num_steps: int = 1000, respacing: str | int = "") -> None:
        # MONAI's scheduler module takes seconds to import, and the frozen features need only its arithmetic here
        from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

        full = np.cumprod(1 - beta_schedule(schedule, num_steps))
        self.timesteps = list(range(num_steps)) if respacing == "" else respaced_timesteps(respacing, num_steps)
        alphas_cumprod = full[self.timesteps]
        self.betas = 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
        length = len(self.timesteps)
        self.ddpm = DDPMScheduler(length, prediction_type="sample")
        self.ddim = DDIMScheduler(length, prediction_type="sample", clip_sample=False)
        for scheduler in (self.ddpm, self.ddim):
            scheduler.betas = torch.from_numpy(self.betas)
            scheduler.alphas = 1 - scheduler.betas
            scheduler.alphas_cumprod = torch.from_numpy(alphas_cumprod)
        self._final_log_variance = math.log(self._posterior_variance(min(1, length - 1)))

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Eq. 1 in one jump: ``sqrt(abar_t) x0 + sqrt(1 - abar_t) noise``; ``timesteps [B]`` index this schedule."""
        abar = torch.from_numpy(np.cumprod(1 - self.betas))[timesteps.cpu()].to(x0.device)
        abar = abar.reshape(-1, *[1] * (x0.ndim - 1))
        return (abar.sqrt() * x0 + (1 - abar).sqrt() * noise).to(x0.dtype)

    def predict_x0(self, eps: Tensor, x_t: Tensor, t: int, clip: bool = True) -> Tensor:
        """The clean image that noise ``eps`` implies, clipped to [-1, 1]."""
        abar = float(self.ddpm.alphas_cumprod[t])
        x0 = (x_t - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        return x0.clamp(-1, 1) if clip else x0

    def posterior(self, output: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-variance of ``p(x_{t-1} | x_t)`` and the predicted clean image, from a UNet output.

        ``output`` has the channels of ``x_t`` (fixed variance) or twice as many (learned range: the second half, in
        [-1, 1], interpolates between the logarithms of the smallest and largest sensible variance).
        """
        eps, variance = output, None
        if output.shape[1] == 2 * x_t.shape[1]:
            eps, variance = output.chunk(2, dim=1)
        x0 = self.predict_x0(eps, x_t, t)
        mean = self.ddpm._get_mean(t, x0, x_t).to(x_t.dtype)
        smallest = math.log(self._posterior_variance(t)) if t > 0 else self._final_log_variance
        if variance is None:
            return mean, torch.full_like(mean, smallest), x0
        share = (variance + 1) / 2
        return mean, share * math.log(self.betas[t]) + (1 - share) * smallest, x0

    def ddpm_step(self, output: Tensor, x_t: Tensor, t: int, generator: torch.Generator | None = None) -> Tensor:
        """One ancestral step from ``t`` to ``t - 1``."""
        mean, log_variance, _ = self.posterior(output, x_t, t)
        if t == 0:
            return mean
        return mean + (0.5 * log_variance).exp() * _normal(x_t.shape, generator, x_t)

    def ddim_step(
        self, output: Tensor, x_t: Tensor, t: int, eta: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """One DDIM step from ``t`` to ``t - 1``; deterministic for ``eta`` 0."""
        x0 = self.predict_x0(output[:, : x_t.shape[1]], x_t, t)
        return self.ddim.step(x0, t, x_t, eta=eta, generator=generator)[0].to(x_t.dtype)

    @torch.inference_mode()
    def sample(
        self,
        unet: nn.Module,
        shape: Sequence[int],
        sampler: str = "ddim",
        seed: int = 0,
        device: str | torch.device = "cpu",
        progress: bool = True,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Pictures ``shape = (B, C, H, W)`` in [-1, 1] drawn from a pretrained UNet by "ddim" (eta 0) or "ddpm" steps.

        ``callback(t, x)`` sees every intermediate image. The noise is drawn on the CPU: a seed means the same everywhere.
        """
        if sampler not in ("ddim", "ddpm"):
            raise ValueError(f"unknown sampler {sampler!r}; known: 'ddim', 'ddpm'")
        step = self.ddim_step if sampler == "ddim" else self.ddpm_step
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(*shape, generator=generator).to(device)
        for t in tqdm(range(len(self.timesteps) - 1, -1, -1), desc="denoising", disable=not progress):
            timesteps = torch.full((shape[0],), self.timesteps[t], device=device)
            x = step(unet(x, timesteps), x, t, generator=generator)
            if callback is not None:
                callback(t, x)
        return x.clamp(-1, 1)

    def _posterior_variance(self, t: int) -> float:
        """Variance of ``q(x_{t-1} | x_t, x_0)``; at t = 0 it is zero, and its logarithm is taken from t = 1."""
        return float(self.ddpm._get_variance(t))


PREDICTIONS = ("sample", "epsilon", "v_prediction")
SAMPLERS = {"ddim": 0.0, "ddpm": 1.0}  # eta of the DDIM step; 1 is the ancestral step (Song et al. 2021, section 4.1)


class LatentDiffusion:
    """Noising and denoising of a latent of unit variance (TextDiffSeg's equation 3), unclipped.

    Args:
        schedule: "linear" or "cosine".
        prediction: what the network gives: the clean latent ("sample"), the noise ("epsilon") or "v_prediction". Ours is
            "sample": out of nearly pure noise, where few-step sampling begins, the noise says nothing about the latent.
        num_steps: steps of the full schedule.

    Raises:
        ValueError: an unknown schedule or prediction.
    """

    def __init__(self, schedule: str = "linear", prediction: str = "sample", num_steps: int = 1000) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction={prediction!r}: choose one of {', '.join(PREDICTIONS)}")
        self.schedule, self.prediction, self.num_steps = schedule, prediction, num_steps
        self.alphas_cumprod = torch.from_numpy(np.cumprod(1 - beta_schedule(schedule, num_steps))).float()

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Equation 3: ``sqrt(abar_t) clean + sqrt(1 - abar_t) noise``; ``timesteps`` int ``[B]``."""
        signal, spread = self._levels(timesteps, clean)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should give for this latent and this noise."""
        if self.prediction == "sample":
            return clean
        if self.prediction == "epsilon":
            return noise
        signal, spread = self._levels(timesteps, clean)
        return signal * noise - spread * clean

    def clean(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latent that a network's output implies."""
        if self.prediction == "sample":
            return output
        signal, spread = self._levels(timesteps, noised)
        if self.prediction == "epsilon":
            return (noised - spread * output) / signal
        return signal * noised - spread * output

    def sample(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        shape: Sequence[int],
        batch: int,
        steps: int,
        sampler: str,
        generator: torch.Generator,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """Latents ``[batch, *shape[1:]]`` from noise in ``steps`` evenly spaced steps that begin at the last.

        Every latent of the batch gets the same noise, drawn on the CPU: an answer depends neither on what else is in the
        batch nor on the device.

        Raises:
            ValueError: an unknown sampler, or a number of steps outside 1..num_steps.
        """
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; known: {', '.join(SAMPLERS)}")
        if not 1 <= steps <= self.num_steps:
            raise ValueError(f"steps={steps}: between 1 and {self.num_steps}")
        scheduler = self._scheduler(steps)
        latent = torch.randn(*shape, generator=generator).expand(batch, *shape[1:])
        for t in scheduler.timesteps.tolist():
            output = denoise(latent.to(device), torch.full((batch,), t, device=device)).float().cpu()
            state, parts = generator.get_state(), []
            for one, guess in zip(latent.split(1), output.split(1), strict=True):
                generator.set_state(state)
                parts.append(scheduler.step(guess, t, one, eta=SAMPLERS[sampler], generator=generator)[0])
            latent = torch.cat(parts)
        return latent.to(device)

    def _scheduler(self, steps: int):
        """MONAI's DDIM with its steps moved so that the first is the last of the schedule, which is nearly pure noise."""
        from monai.networks.schedulers import DDIMScheduler

        offset = self.num_steps // steps - 1
        scheduler = DDIMScheduler(
            self.num_steps, prediction_type=self.prediction, clip_sample=False, steps_offset=offset
        )
        scheduler.alphas_cumprod = self.alphas_cumprod
        scheduler.set_timesteps(steps)
        return scheduler

    def _levels(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod[timesteps.cpu()].to(like).reshape(-1, *[1] * (like.ndim - 1))
        return abar.sqrt(), (1 - abar).sqrt()


def _normal(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    return torch.randn(*shape, generator=generator).to(like.device, like.dtype)
