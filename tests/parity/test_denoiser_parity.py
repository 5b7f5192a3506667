"""TextDiffSeg's own networks against MONAI's: same names, same first weights, same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from textdiff.models.denoiser import ConvBlock, Denoiser


def told(module: nn.Module) -> nn.Module:
    """Layers that begin as zeros are given something to say."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module.eval()


@pytest.mark.parametrize("widths", [(64, 96), (16, 32), (32, 48)])
def test_the_denoiser_is_monais(widths):
    from monai.networks.nets import DiffusionModelUNet

    torch.manual_seed(0)
    theirs = DiffusionModelUNet(
        3, 24, 8, num_res_blocks=1, channels=widths, attention_levels=(False, True), norm_num_groups=16,
        num_head_channels=(0, 32), with_conditioning=True, cross_attention_dim=20,
    )  # fmt: skip
    torch.manual_seed(0)
    ours = Denoiser(24, 8, widths, 20)
    expected, state = theirs.state_dict(), ours.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)
    ours.load_state_dict(told(theirs).state_dict())
    x, context, times = torch.randn(2, 24, 6, 4, 8), torch.randn(2, 7, 20), torch.tensor([999, 3])
    with torch.no_grad():
        found, wanted = ours(x, times, context=context), theirs(x, times, context=context)
    assert wanted.std() > 0.1 and torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(("channels", "out", "stride"), [(4, 8, 1), (8, 8, 1), (8, 8, 2), (4, 6, 2)])
def test_the_block_is_monais(channels, out, stride):
    from monai.networks.blocks.dynunet_block import UnetResBlock

    torch.manual_seed(0)
    theirs = UnetResBlock(3, channels, out, 3, stride, "instance")
    torch.manual_seed(0)
    ours, x = ConvBlock(channels, out, stride), torch.randn(2, channels, 8, 6, 4)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
