"""Our UNet against guided-diffusion's numbers, block by block, and against the keys of its published checkpoint."""

from __future__ import annotations

import golden
import pytest
import torch

from textdiff.models.unet import UNet


@pytest.mark.parametrize("name", ["small_updown", "small_conv_resample"])
def test_every_decoder_block_agrees(name: str) -> None:
    reference = golden.arrays(f"unet_{name}.npz")
    description = golden.description(f"unet_{name}.json")
    config = description["config"]
    unet = UNet(**config).eval()
    unet.load_state_dict(golden.state(description["state_dict"]))
    x = golden.data(f"{name}/x", (2, config["in_channels"], config["image_size"], config["image_size"]))
    timesteps = torch.tensor(description["timesteps"])
    labels = None if description["labels"] is None else torch.tensor(description["labels"])

    with torch.inference_mode():
        golden.assert_close(unet(x, timesteps, labels), reference["output"])
        blocks = range(len(unet.output_blocks))
        for k, h in enumerate(unet.decode(x, timesteps, blocks, labels)):
            golden.assert_close(h[:, :8], reference[f"output_block_{k}"])


def test_published_checkpoint_would_load_strictly() -> None:
    description = golden.description("unet_256x256_diffusion_uncond.keys.json")
    with torch.device("meta"):
        unet = UNet(**description["config"])
    shapes = {key: list(value.shape) for key, value in unet.state_dict().items()}
    assert shapes == description["state_dict"]
    assert len(shapes) == 566
    assert sum(p.numel() for p in unet.parameters()) == 552_814_086
