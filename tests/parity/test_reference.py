"""Our UNet beside OpenAI's guided-diffusion itself, where it is installed (extra ``reference``).

Without it two of these variants, and the diffusion, are compared with stored numbers (the other files here).
"""

from __future__ import annotations

import golden
import pytest
import torch

from textdiff.models.unet import UNet

REASON = "guided-diffusion is not installed: pip install 'textdiff[reference]'"
reference_unet = pytest.importorskip("guided_diffusion.unet", reason=REASON)

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
