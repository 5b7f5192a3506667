"""Our UNet and diffusion beside OpenAI's guided-diffusion itself, where it is installed (extra ``reference``).

Without it the same comparison is made with stored numbers (``test_unet_parity.py``, ``test_diffusion_parity.py``).
"""

from __future__ import annotations

import golden
import numpy as np
import pytest
import torch

from textdiff.models.diffusion import Diffusion, respaced_timesteps
from textdiff.models.unet import UNet

REASON = "guided-diffusion is not installed: pip install 'textdiff[reference]'"
reference_unet = pytest.importorskip("guided_diffusion.unet", reason=REASON)
reference_diffusion = pytest.importorskip("guided_diffusion.gaussian_diffusion", reason=REASON)
reference_respace = pytest.importorskip("guided_diffusion.respace", reason=REASON)

BASE = dict(
    image_size=32,
    in_channels=3,
    model_channels=32,
    out_channels=6,
    num_res_blocks=2,
    attention_resolutions=(2, 4),
    channel_mult=(1, 2, 3),
    num_head_channels=32,
)
VARIANTS = {
    "published": dict(use_scale_shift_norm=True, resblock_updown=True),
    "plain": dict(num_head_channels=-1, num_heads=4),
    "pooled": dict(conv_resample=False),
    "new attention order": dict(use_new_attention_order=True),
    "labels": dict(num_classes=5, use_scale_shift_norm=True),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_unet_agrees_block_by_block(name: str) -> None:
    config = {**BASE, **VARIANTS[name]}
    theirs, ours = reference_unet.UNetModel(**config).eval(), UNet(**config).eval()
    state = golden.state({key: list(value.shape) for key, value in theirs.state_dict().items()})
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    outputs: list[torch.Tensor] = []
    for block in theirs.output_blocks:
        block.register_forward_hook(lambda module, args, out: outputs.append(out))
    x, timesteps = golden.data("reference/x", (2, 3, 32, 32)), torch.tensor([7, 640])
    labels = torch.tensor([1, 4]) if "num_classes" in config else None
    with torch.no_grad():
        golden.assert_close(ours(x, timesteps, labels), theirs(x, timesteps, labels).numpy())
        decoded = ours.decode(x, timesteps, range(len(ours.output_blocks)), labels)
    assert len(decoded) == len(outputs)
    for mine, expected in zip(decoded, outputs, strict=True):
        golden.assert_close(mine, expected.numpy())


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_noising_posterior_and_ddim_agree(schedule: str) -> None:
    betas = reference_diffusion.get_named_beta_schedule(schedule, 1000)
    theirs = reference_diffusion.GaussianDiffusion(
        betas=betas,
        model_mean_type=reference_diffusion.ModelMeanType.EPSILON,
        model_var_type=reference_diffusion.ModelVarType.LEARNED_RANGE,
        loss_type=reference_diffusion.LossType.MSE,
    )
    ours = Diffusion(schedule)
    np.testing.assert_allclose(ours.betas, betas, rtol=1e-12)
    x0, noise = golden.data("reference/x0", (1, 3, 8, 8)).clamp(-1, 1), golden.data("reference/noise", (1, 3, 8, 8))
    output = 0.5 * golden.data("reference/output", (1, 6, 8, 8))
    for t in (0, 1, 500, 999):
        step = torch.tensor([t])
        x_t = theirs.q_sample(x0, step, noise)
        golden.assert_close(ours.add_noise(x0, noise, step), x_t.numpy(), 1e-5)
        expected = theirs.p_mean_variance(lambda x, t: output, x_t, step, clip_denoised=True)
        mean, log_variance, clean = ours.posterior(output, x_t, t)
        golden.assert_close(mean, expected["mean"].numpy())
        golden.assert_close(log_variance, expected["log_variance"].numpy())
        golden.assert_close(clean, expected["pred_xstart"].numpy())
        theirs_next = theirs.ddim_sample(lambda x, t: output, x_t, step, eta=0.0)["sample"]
        golden.assert_close(ours.ddim_step(output, x_t, t), theirs_next.numpy())


@pytest.mark.parametrize("respacing", ["10", "250", "ddim25", "ddim50"])
def test_respacing_agrees(respacing: str) -> None:
    assert respaced_timesteps(respacing) == sorted(reference_respace.space_timesteps(1000, respacing))
