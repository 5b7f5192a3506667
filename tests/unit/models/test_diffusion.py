"""Noising and sampling: what is refused, and that a network that knows the answer is led to it."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import pictures
from torch import nn

from textdiff.models.diffusion import Diffusion


class Oracle(nn.Module):
    """Predicts exactly the noise that turned ``clean`` into what it is shown."""

    def __init__(self, clean: torch.Tensor, diffusion: Diffusion) -> None:
        super().__init__()
        self.clean = clean
        self.abar = dict(zip(diffusion.timesteps, diffusion.alphas_cumprod.tolist(), strict=True))
        self.asked: list[int] = []

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        self.asked.append(int(timesteps[0]))
        abar = self.abar[int(timesteps[0])]
        return (x - math.sqrt(abar) * self.clean) / math.sqrt(1 - abar)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_perfect_network_is_led_to_the_clean_image(sampler):
    diffusion = Diffusion("linear", respacing=10)
    oracle = Oracle(pictures(2, 8), diffusion)
    sampled = diffusion.sample(oracle, (2, 3, 8, 8), sampler, progress=False)
    torch.testing.assert_close(sampled, oracle.clean, rtol=0, atol=1e-3)
    assert oracle.asked == diffusion.timesteps[::-1]  # the network is told the full schedule's numbers


def test_the_seed_decides():
    diffusion = Diffusion(respacing=4)
    network = lambda x, t: x.tanh()  # noqa: E731
    draw = lambda seed: diffusion.sample(network, (1, 3, 4, 4), "ddpm", seed, progress=False)  # noqa: E731
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    assert draw(1).abs().max() <= 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_noising_goes_from_the_image_to_noise(schedule):
    diffusion = Diffusion(schedule)
    x0, noise = pictures(2), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (diffusion.add_noise(x0, noise, torch.tensor([0, 0])) - x0).abs().max() < 0.1
    assert (diffusion.add_noise(x0, noise, torch.tensor([999, 999])) - noise).abs().max() < 0.02
    mixed = diffusion.add_noise(x0, noise, torch.tensor([0, 999]))
    assert (mixed[0] - x0[0]).abs().max() < 0.1 and (mixed[1] - noise[1]).abs().max() < 0.02


def test_predicted_clean_image_undoes_the_noise_and_is_clipped():
    diffusion, x0 = Diffusion(), pictures(1) * 2
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    x_t = diffusion.add_noise(x0, noise, torch.tensor([300]))
    assert x0.abs().max() > 1
    torch.testing.assert_close(diffusion.predict_x0(noise, x_t, 300), x0.clamp(-1, 1), rtol=1e-4, atol=1e-4)


def test_last_step_adds_no_noise():
    diffusion, x = Diffusion(respacing=5), pictures(1)
    draws = [diffusion.ddpm_step(x, x, 0, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert torch.equal(*draws)
    draws = [diffusion.ddpm_step(x, x, 1, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert not torch.equal(*draws)


def test_learned_variance_runs_between_the_two_bounds():
    diffusion, x = Diffusion(), pictures(1)
    bounds = [diffusion.posterior(torch.cat([x, torch.full_like(x, v)], 1), x, 400)[1].unique() for v in (-1, 1)]
    assert bounds[0] < bounds[1] == pytest.approx(math.log(diffusion.betas[400]), rel=1e-5)
    assert bounds[0] == pytest.approx(float(diffusion.posterior(x, x, 400)[1].mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"respacing": 1001}, "respacing=1001: from 1 to 1000 steps"),
        ({"respacing": 0}, "respacing=0: from 1"),
        ({"respacing": "ddim700"}, "respacing='ddim700': no whole stride takes exactly so many of 1000 steps"),
        ({"noise_schedule": "sigmoid"}, "noise_schedule='sigmoid': choose one of linear, cosine"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Diffusion(**options)


def test_a_respaced_schedule_goes_from_end_to_end():
    assert Diffusion(respacing=3).timesteps == [0, 500, 999] and Diffusion(respacing=1).timesteps == [0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_noised_pictures_keep_their_dtype(dtype):
    diffusion, x0 = Diffusion(), pictures(2).to(dtype)
    assert diffusion.add_noise(x0, torch.zeros_like(x0), torch.tensor([0, 999])).dtype == dtype
