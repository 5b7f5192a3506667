"""Noising and sampling of a latent: equation 3, what the network is to predict, few-step and ancestral sampling."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textdiff.models.diffusion import LatentDiffusion, Sampler, Sampling, Target


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", get_args(Target))
@settings(max_examples=10, deadline=None)
@given(t=st.integers(0, 900), seed=st.integers(0, 100))
def test_the_clean_latent_follows_from_a_perfect_prediction(schedule, prediction, t, seed):
    diffusion = LatentDiffusion(schedule, prediction)
    clean, noise = torch.randn(2, 2, 3, 2, 2, 2, generator=seeded(seed)).unbind()
    timesteps = torch.full((2,), t)
    noised = diffusion.add_noise(clean, noise, timesteps)
    again = diffusion.clean(diffusion.target(clean, noise, timesteps), noised, timesteps)
    assert torch.allclose(again, clean, atol=2e-2)


def test_equation_3_keeps_unit_variance_and_ends_in_noise():
    diffusion = LatentDiffusion()
    clean, noise = torch.randn(2, 1, 1, 40, 40, 40, generator=seeded()).unbind()
    for t in (0, 300, 999):
        assert diffusion.add_noise(clean, noise, torch.tensor([t])).var() == pytest.approx(1, abs=0.03)
    assert diffusion.alphas_cumprod[-1] < 1e-4 and diffusion.alphas_cumprod[0] > 0.999


@pytest.mark.parametrize("noise_schedule", ["linear", "cosine"])
@settings(max_examples=10, deadline=None)
@given(steps=st.integers(1, 1000), seed=st.integers(0, 100))
@example(steps=7, seed=0)
@example(steps=300, seed=0)
@example(steps=999, seed=0)
def test_any_number_of_steps_moves_by_the_steps_that_it_visits(noise_schedule, steps, seed):
    """A perfect network is shown, at every step, the clean latent under exactly that step's share of one noise."""
    diffusion, clean = LatentDiffusion(noise_schedule), torch.randn(1, 2, 2, 2, 2, generator=seeded(1))
    first, asked = torch.randn(1, 2, 2, 2, 2, generator=seeded(seed)), []
    abar = diffusion.alphas_cumprod[-1].float()
    noise = (first - abar.sqrt() * clean) / (1 - abar).sqrt()

    def perfect(noised, timesteps):
        expected = diffusion.add_noise(clean, noise, timesteps[:1])
        torch.testing.assert_close(noised, expected.expand_as(noised), rtol=0, atol=2e-4)
        asked.append(int(timesteps[0]))
        return clean.expand_as(noised)

    found = diffusion.sample(perfect, clean.shape[1:], 2, Sampling(steps), [seeded(seed)])
    torch.testing.assert_close(found, clean.expand_as(found), rtol=0, atol=1e-5)
    assert asked == diffusion.visited(steps) and len(asked) == steps and asked[0] == 999
    gaps = {before - after for before, after in zip(asked, [*asked[1:], -1], strict=True)}
    assert min(gaps) > 0 and max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("sampler", get_args(Sampler))
@pytest.mark.parametrize("prediction", get_args(Target))
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_where_the_number_divides_the_schedule_monai_takes_the_same_steps(steps, prediction, sampler):
    from monai.networks.schedulers import DDIMScheduler

    diffusion = LatentDiffusion(prediction=prediction)
    theirs = DDIMScheduler(1000, prediction_type=prediction, clip_sample=False, steps_offset=1000 // steps - 1)
    theirs.alphas_cumprod = diffusion.alphas_cumprod.float()
    theirs.set_timesteps(steps)
    generator = seeded(3)
    latent = torch.randn(1, 2, 3, 3, 3, generator=generator)
    for t in theirs.timesteps.tolist():
        latent = theirs.step(latent.tanh(), t, latent, eta=float(sampler == "ddpm"), generator=generator)[0]
    ours = diffusion.sample(lambda x, t: x.tanh(), (2, 3, 3, 3), 1, Sampling(steps, sampler), [seeded(3)])
    torch.testing.assert_close(ours, latent, rtol=1e-4, atol=1e-4)


def test_for_a_gaussian_latent_both_samplers_give_its_variance():
    """Of data N(0, s^2) the best guess of the clean latent is known: sampling must give back the data's spread."""
    diffusion, spread = LatentDiffusion(), 0.5

    def best_guess(noised, timesteps):
        abar = diffusion.alphas_cumprod[timesteps[0]].float()
        return noised * abar.sqrt() * spread**2 / (abar * spread**2 + 1 - abar)

    for sampler in ("ddim", "ddpm"):
        found = diffusion.sample(best_guess, (1, 24, 24, 24), 1, Sampling(200, sampler), [seeded(3)])
        assert float(found.std()) == pytest.approx(spread, rel=0.05), sampler


def test_every_latent_of_a_batch_starts_from_the_same_noise():
    diffusion = LatentDiffusion()
    found = diffusion.sample(lambda x, t: 0.5 * x, (2, 2, 2, 2), 3, Sampling(4, "ddpm"), [seeded()])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LatentDiffusion(prediction="x0"), "prediction='x0': choose one of sample, epsilon, v_prediction"),
        (lambda: LatentDiffusion("quadratic"), "noise_schedule='quadratic': choose one of linear, cosine"),
        (lambda: LatentDiffusion().visited(1001), "sampling_steps=1001: between 1 and 1000"),
        (lambda: Sampling(0), "sampling_steps=0: at least 1"),
        (lambda: Sampling(samples=0), "samples=0: at least 1"),
        (lambda: Sampling(seed=-1), "seed=-1: at least 0"),
        (lambda: Sampling(sampler="euler"), "sampler='euler': choose one of ddim, ddpm"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
