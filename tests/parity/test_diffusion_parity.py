"""Schedules, noising, posterior, DDIM and respacing against guided-diffusion's numbers."""

from __future__ import annotations

import golden
import numpy as np
import pytest
import torch

from textdiff.models.diffusion import Diffusion

STEPS = [0, 150, 999]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
class TestSchedule:
    @pytest.fixture
    def reference(self, schedule: str) -> dict[str, np.ndarray]:
        prefix = f"{schedule}/"
        return {k.removeprefix(prefix): v for k, v in golden.arrays("gaussian_diffusion.npz").items() if prefix in k}

    def test_betas_and_noising(self, schedule: str, reference: dict[str, np.ndarray]) -> None:
        diffusion = Diffusion(schedule)
        np.testing.assert_allclose(diffusion.betas, reference["betas"], rtol=1e-9, atol=1e-12)
        x0, noise = self.inputs()
        golden.assert_close(diffusion.add_noise(x0, noise, torch.tensor(STEPS)), reference["q_sample"], 1e-6)

    def test_posterior_and_ddim(self, schedule: str, reference: dict[str, np.ndarray]) -> None:
        diffusion = Diffusion(schedule)
        x0, noise = self.inputs()
        x_t = diffusion.add_noise(x0, noise, torch.tensor(STEPS))
        output = 0.5 * golden.data("diff/model_out", (3, 6, 16, 16))
        for i, t in enumerate(STEPS):
            one = slice(i, i + 1)
            mean, log_variance, clean = diffusion.posterior(output[one], x_t[one], t)
            golden.assert_close(mean, reference["p_mean"][one])
            golden.assert_close(log_variance, reference["p_log_variance"][one])
            # Of themselves: at step 999 they differ by less than a last digit, which processors round each its own way
            np.testing.assert_allclose(log_variance.exp(), reference["p_variance"][one], rtol=5e-7)
            golden.assert_close(clean, reference["p_pred_xstart"][one])
            golden.assert_close(diffusion.ddim_step(output[one], x_t[one], t), reference["ddim_eta0"][one])

    @pytest.mark.parametrize("respacing", ["10", "ddim25", "250"])
    def test_respacing(self, schedule: str, reference: dict[str, np.ndarray], respacing: str) -> None:
        diffusion = Diffusion(schedule, respacing=respacing)
        assert diffusion.timesteps == reference[f"respace_{respacing}_timesteps"].tolist()
        np.testing.assert_allclose(diffusion.betas, reference[f"respace_{respacing}_betas"], rtol=1e-7)

    @staticmethod
    def inputs() -> tuple[torch.Tensor, torch.Tensor]:
        return golden.data("diff/x", (3, 3, 16, 16)).clamp(-1, 1), golden.data("diff/noise", (3, 3, 16, 16))
