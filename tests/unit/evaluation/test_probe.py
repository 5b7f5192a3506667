"""The linear probe: finds what is linearly there, nothing where nothing is, and refuses what it cannot measure."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_models import pictures, tiny_features
from textdiff.evaluation.metrics import case_scores
from textdiff.evaluation.probe import (
    Plane,
    Tap,
    by_block_and_step,
    dice_by_block_and_step,
    drawn_pixels,
    fit_plane,
    parse_taps,
    probe,
    single_taps,
)
from textdiff.models.features import DiffusionFeatures


@pytest.fixture
def masks() -> torch.Tensor:
    """Four masks [16, 16], each with a square of its own."""
    masks = torch.zeros(4, 16, 16, dtype=torch.int64)
    for i, mask in enumerate(masks):
        mask[2 + i : 8 + i, 3 : 9 + i] = 1
    return masks


@pytest.fixture
def pairs(masks) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Four pictures with these masks."""
    return list(zip(pictures(4), masks, strict=True))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def fitted(maps: list[torch.Tensor], masks: torch.Tensor) -> Plane:
    """The plane through every pixel of two images."""
    everywhere = torch.arange(masks[0].numel())
    drawn = [drawn_pixels([one[i : i + 1] for one in maps], masks[i] > 0, everywhere) for i in range(2)]
    x, y = zip(*drawn, strict=True)
    return fit_plane([torch.cat(parts) for parts in zip(*x, strict=True)], torch.cat(y))


def measured(maps: list[torch.Tensor], masks: torch.Tensor) -> float:
    """Mean Dice on the last two images of the plane fitted on the first two."""
    marked = fitted(maps, masks).mark([one[2:] for one in maps], masks.shape[1:])
    return sum(case_scores(m, t > 0)["dice"] for m, t in zip(marked, masks[2:], strict=True)) / 2


def test_a_linear_feature_is_found_and_noise_gives_no_better_than_marking_everything(masks):
    maps = 0.1 * noise(4, 5, 16, 16)
    maps[:, 3] += 7 - 3 * masks
    assert measured([maps], masks) > 0.99
    share = masks[2:].float().mean(dim=(1, 2))
    assert measured([noise(4, 5, 16, 16)], masks) < (share * 2 / (1 + share)).mean() + 0.1
    # Two maps, each of which is noise, whose difference is the mask
    first = noise(4, 1, 16, 16)
    second = first + 0.5 * masks[:, None]
    assert measured([first, second], masks) > 0.99
    assert max(measured([first], masks), measured([second], masks)) < 0.8


def test_scores_are_enlarged_like_features(masks):
    """Probing coarse maps is probing the enlarged maps."""
    coarse = noise(4, 3, 8, 8) + 4 * masks[:, None, ::2, ::2]
    fine = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
    assert measured([coarse], masks) == pytest.approx(measured([fine], masks), abs=1e-6)


def test_probe_of_features_is_the_plane_through_their_maps(pairs, masks):
    """Set, single block and step order are read from the right maps, each draw is fitted on its own images."""
    taps = [Tap((0, 2), (50, 900)), Tap((2,), (900,))]
    features = tiny_features()
    table = probe(features, taps, [pairs[:2], pairs[1:3]], pairs[3:], pixels=64, seed=5)
    asked = [(*str(tap).split("@"), draw) for tap in taps for draw in (0, 1)]
    assert list(table[["blocks", "noise_steps", "draw"]].itertuples(index=False, name=None)) == asked
    generator, drawn = torch.Generator().manual_seed(6), []
    both = DiffusionFeatures(features.unet, (0, 2), (50, 900))
    for image, mask in pairs[1:3]:
        place = torch.randint(256, (32,), generator=generator)
        drawn.append(drawn_pixels([both(image[None])[1].chunk(2, dim=1)[1]], mask > 0, place))
    plane = fit_plane([torch.cat([x[0] for x, _ in drawn])], torch.cat([y for _, y in drawn]))
    marked = plane.mark([both(pairs[3][0][None])[1].chunk(2, dim=1)[1]], (16, 16))[0]
    assert table["dice"].iloc[3] == pytest.approx(case_scores(marked, masks[3])["dice"], abs=1e-6)


def test_the_seed_decides_the_pixels_and_taps_do_not_disturb_each_other(pairs):
    alone, again, other = (
        probe(tiny_features(), [Tap((0,), (50,))], [pairs[:2]], pairs[2:], pixels=40, seed=seed)["dice"][0]
        for seed in (0, 0, 1)
    )
    doubled = [(image, 2 * mask) for image, mask in pairs]  # classes above one count as foreground
    assert alone == probe(tiny_features(), [Tap((0,), (50,))], [doubled[:2]], doubled[2:], pixels=40, seed=0)["dice"][0]
    among = probe(tiny_features(), single_taps((0, 2), (50, 900)), [pairs[:2]], pairs[2:], pixels=40, seed=0)
    assert alone == again == by_block_and_step(among).loc[0, 50] != other


def test_table_has_blocks_as_rows_and_steps_as_columns(pairs, masks):
    features = DiffusionFeatures(tiny_features().unet, blocks=(0, 2), steps=(50, 900))
    table = dice_by_block_and_step(features, pictures(4), masks, n_fit=2, pixels=100)
    assert list(table.index) == [0, 2] and list(table.columns) == [50, 900]
    assert table.index.name == "decoder block" and table.columns.name == "noise step"
    with pytest.raises(ValueError, match="4 images but 3 masks"):
        dice_by_block_and_step(features, pictures(4), masks[:3], n_fit=2)
    single = probe(features, [Tap((2,), (900,))], [pairs[:2]], pairs[2:], pixels=100)
    assert table.loc[2, 900] == single["dice"][0]


def test_spread_is_that_of_the_draws_and_sets_are_left_out(pairs):
    taps = [*single_taps((2,), (50,)), Tap((0, 2), (50,)), Tap((2,), (50, 900))]
    table = probe(tiny_features(), taps, [pairs[:2], pairs[1:3]], pairs[3:], pixels=64)
    first, second = table["dice"][:2]
    assert by_block_and_step(table).to_numpy().tolist() == [[pytest.approx((first + second) / 2)]]
    assert by_block_and_step(table, "std").loc[2, 50] == pytest.approx(abs(first - second) / 2**0.5)


def test_taps_are_read_and_written_alike():
    text = "1,4,7@50,150,250;1@0"
    assert parse_taps(text + "; ") == [Tap((1, 4, 7), (50, 150, 250)), Tap((1,), (0,))]
    assert ";".join(map(str, parse_taps(text))) == text
    assert parse_taps("") == []
    for text in ("1,4", "@50", "1@", "1@x"):
        with pytest.raises(ValueError, match=text.split("@")[-1] or text):
            parse_taps(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": []}, "by draw: \\[\\]"),
        ({"draws": [[]]}, "by draw: \\[0\\]"),
        ({"test": []}, "to measure on: 0"),
        ({"pixels": 1}, "fewer than the 2 images"),
        ({"draws": [[(pictures(1)[0], torch.zeros(16, 16))]]}, "all foreground or all background"),
        ({"taps": [Tap((9,), (50,))]}, "block"),
    ],
)
def test_refusals_say_what_is_wrong(pairs, change, message):
    arguments = {"taps": [Tap((2,), (50,))], "draws": [pairs[:2]], "test": pairs[2:]} | change
    with pytest.raises(ValueError, match=message):
        probe(tiny_features(), **arguments)
