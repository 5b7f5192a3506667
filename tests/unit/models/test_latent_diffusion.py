"""Noising and sampling of a latent: equation 3, what the network is to predict, few-step and ancestral sampling."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.models.diffusion import PREDICTIONS, LatentDiffusion


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@settings(max_examples=25, deadline=None)
@given(t=st.integers(0, 900), seed=st.integers(0, 100))
def test_the_clean_latent_follows_from_a_perfect_prediction(schedule, prediction, t, seed):
    diffusion = LatentDiffusion(schedule, prediction)
    clean, noise = torch.randn(2, 2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(seed)).unbind()
    timesteps = torch.full((2,), t)
    noised = diffusion.add_noise(clean, noise, timesteps)
    again = diffusion.clean(diffusion.target(clean, noise, timesteps), noised, timesteps)
    assert torch.allclose(again, clean, atol=2e-2)


def test_equation_3_keeps_unit_variance_and_ends_in_noise():
    diffusion = LatentDiffusion()
    clean, noise = torch.randn(2, 1, 1, 40, 40, 40, generator=torch.Generator().manual_seed(0)).unbind()
    for t in (0, 300, 999):
        assert diffusion.add_noise(clean, noise, torch.tensor([t])).var() == pytest.approx(1, abs=0.03)
    assert diffusion.alphas_cumprod[-1] < 1e-4 and diffusion.alphas_cumprod[0] > 0.999


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 1000])
def test_sampling_begins_at_the_last_step_and_leaves_no_noise(steps):
    """MONAI's scheduler alone would begin one step out of one at the wrong end of its interval."""
    diffusion = LatentDiffusion()
    clean = torch.randn(1, 2, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    asked = []

    def perfect(noised, timesteps):
        asked.append(int(timesteps[0]))
        return clean.expand(len(noised), -1, -1, -1, -1)

    for sampler in ("ddim", "ddpm"):
        asked.clear()
        found = diffusion.sample(perfect, clean.shape, 2, steps, sampler, torch.Generator().manual_seed(0))
        assert len(asked) == steps and asked[0] == 999 and asked == sorted(asked, reverse=True)
        assert torch.allclose(found, clean.expand_as(found), atol=1e-3)


def test_for_a_gaussian_latent_both_samplers_give_its_variance():
    """Of data N(0, s^2) the best guess of the clean latent is known: sampling must give back the data's spread."""
    diffusion, spread = LatentDiffusion(), 0.5

    def best_guess(noised, timesteps):
        abar = diffusion.alphas_cumprod[timesteps[0]]
        return noised * abar.sqrt() * spread**2 / (abar * spread**2 + 1 - abar)

    for sampler in ("ddim", "ddpm"):
        found = diffusion.sample(best_guess, (1, 1, 24, 24, 24), 1, 200, sampler, torch.Generator().manual_seed(3))
        assert float(found.std()) == pytest.approx(spread, rel=0.05), sampler


def test_every_latent_of_a_batch_starts_from_the_same_noise():
    diffusion = LatentDiffusion()
    found = diffusion.sample(lambda x, t: 0.5 * x, (1, 2, 2, 2, 2), 3, 4, "ddpm", torch.Generator().manual_seed(0))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="choose one of sample, epsilon"):
        LatentDiffusion(prediction="x0")
    with pytest.raises(ValueError, match="unknown noise schedule"):
        LatentDiffusion("quadratic")
