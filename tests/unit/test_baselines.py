"""The baseline network: called like TextDiff, blind to captions, able to learn."""

import pytest
import torch

from textdiff.baselines import build_baseline
from textdiff.losses import dice_ce_loss


def test_logits_have_the_images_size_and_ignore_captions():
    model = build_baseline("unet", num_classes=3).eval()
    images = torch.randn(2, 3, 48, 40)
    with torch.no_grad():
        logits = model(images, ["one", "two"])
        assert logits.shape == (2, 3, 48, 40)
        torch.testing.assert_close(model(images, ["other", ""]), logits)


def test_an_images_logits_do_not_depend_on_its_batch():
    torch.manual_seed(0)
    model = build_baseline("unet", num_classes=2).train()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        alone = model(images[:1], ["x"])
        torch.testing.assert_close(model(images, ["x"] * 3)[:1], alone, atol=1e-5, rtol=1e-4)


def test_it_is_of_moderate_size():
    weights = sum(p.numel() for p in build_baseline("unet", num_classes=2).parameters())
    assert 1e6 < weights < 4e6


def test_it_learns_one_image():
    torch.manual_seed(0)
    model = build_baseline("unet", num_classes=2)
    target = torch.zeros(1, 32, 32, dtype=torch.int64)
    target[:, 8:20, 4:28] = 1
    images = target[:, None].float().repeat(1, 3, 1, 1) * 2 - 1
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(dice_ce_loss(model(images, ["x"]), target))
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="there are: unet"):
        build_baseline("resnet", num_classes=2)
    with pytest.raises(ValueError, match="num_classes=1"):
        build_baseline("unet", num_classes=1)
    with pytest.raises(ValueError, match="32 px"):
        build_baseline("unet", num_classes=2)(torch.zeros(1, 3, 16, 64), ["x"])
