"""The linear probe: finds what is linearly there, nothing where nothing is, and refuses what it cannot measure."""

from __future__ import annotations

import pytest
import torch

from textdiff.features import DiffusionFeatures
from textdiff.probe import dice_by_block_and_step, linear_probe
from textdiff.unet import UNet


@pytest.fixture
def masks() -> torch.Tensor:
    """Four masks [16, 16], each with a square of its own."""
    masks = torch.zeros(4, 16, 16, dtype=torch.int64)
    for i, mask in enumerate(masks):
        mask[2 + i : 8 + i, 3 : 9 + i] = 1
    return masks


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_linear_feature_is_found_among_noise(masks):
    maps = 0.1 * noise(4, 5, 16, 16)
    maps[:, 3] += 7 - 3 * masks
    assert linear_probe(maps, masks, n_fit=2) > 0.99


def test_noise_gives_no_better_than_marking_everything(masks):
    share = (masks[2:].float().mean(dim=(1, 2)) * 2 / (1 + masks[2:].float().mean(dim=(1, 2)))).mean()
    assert linear_probe(noise(4, 5, 16, 16), masks, n_fit=2) < share + 0.1


def test_scores_are_enlarged_like_features(masks):
    """Probing coarse maps is probing the enlarged maps."""
    coarse = noise(4, 3, 8, 8) + 4 * masks[:, None, ::2, ::2]
    fine = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
    assert linear_probe(coarse, masks, 2) == pytest.approx(linear_probe(fine, masks, 2), abs=1e-6)


def test_the_seed_decides_the_pixels(masks):
    maps = noise(4, 5, 16, 16) + masks[:, None]
    same = [linear_probe(maps, masks, 2, pixels=40, seed=s) for s in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


def test_classes_above_one_count_as_foreground(masks):
    maps = masks[:, None].float()
    assert linear_probe(maps, 2 * masks, 2) == linear_probe(maps, masks, 2)


def test_table_has_blocks_as_rows_and_steps_as_columns(masks):
    torch.manual_seed(0)
    unet = UNet(
        image_size=16,
        in_channels=3,
        model_channels=32,
        out_channels=3,
        num_res_blocks=1,
        attention_resolutions=(),
        channel_mult=(1, 2),
        num_head_channels=8,
    )
    features = DiffusionFeatures(unet, blocks=(0, 2), steps=(50, 900))
    table = dice_by_block_and_step(features, noise(4, 3, 16, 16), masks, n_fit=2, pixels=100)
    assert list(table.index) == [0, 2] and list(table.columns) == [50, 900]
    assert table.index.name == "decoder block" and table.columns.name == "noise step"
    both = features(noise(4, 3, 16, 16))
    assert table.loc[2, 900] == linear_probe(both[1].chunk(2, dim=1)[1], masks, 2, 100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_fit": 0}, "n_fit=0 of 4 images"),
        ({"n_fit": 4}, "n_fit=4 of 4 images"),
        ({"pixels": 1}, "fewer than the 2 images"),
        ({"masks": torch.zeros(3, 16, 16)}, "4 maps but 3 masks"),
        ({"masks": torch.zeros(4, 16, 16)}, "all foreground or all background"),
    ],
)
def test_refusals_say_what_is_wrong(masks, change, message):
    arguments = {"maps": noise(4, 2, 16, 16), "masks": masks, "n_fit": 2} | change
    with pytest.raises(ValueError, match=message):
        linear_probe(**arguments)
