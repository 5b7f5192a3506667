"""What a model says of its own masks, against values by hand; and how well that tells the truth."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from textdiff.data import load_dataset
from textdiff.data.images.transforms import ImageSpec
from textdiff.evaluation.doubt import by_coverage, expected_dice, measure_doubt, told_by
from textdiff.evaluation.images import score_cases
from textdiff.models.mirroring import Mirrored

SPEC = ImageSpec(32)


def of_two(*chances: float) -> torch.Tensor:
    """Probabilities of one image with these foreground probabilities: [1, 2, 1, n]."""
    p = torch.tensor([[list(chances)]])
    return torch.stack([1 - p, p], dim=1)


@pytest.fixture(scope="module")
def cases():
    return load_dataset("chest_phantoms", sizes=(1, 1, 5), image_size=48).test


def brightness(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
    """Marks what is bright, and on the left half more; a sentence without words moves the threshold."""
    grey = images.mean(dim=1, keepdim=True)
    left = (torch.arange(images.shape[-1]) < images.shape[-1] // 2).float()
    said = torch.tensor([float(bool(one)) for one in captions]).view(-1, 1, 1, 1)
    found = 5 * grey + left + 2 * said - 1
    return torch.cat([torch.zeros_like(found), found], dim=1)


class Net(torch.nn.Module):
    def forward(self, images, captions):
        return brightness(images, captions)


def test_the_expected_dice_is_twice_the_mask_s_probability_by_both_sizes():
    assert expected_dice(of_two(0.9, 0.6, 0.3, 0.0)).item() == pytest.approx(2 * 1.5 / (2 + 1.8), abs=1e-4)
    assert expected_dice(of_two(1.0, 1.0, 0.0)).item() == pytest.approx(1)
    assert expected_dice(of_two(0.0, 0.0)).item() == pytest.approx(1), "nothing anywhere, and sure of it"
    assert expected_dice(of_two(0.4, 0.3)).item() == pytest.approx(0, abs=1e-4), "no mask, yet something expected"


def test_the_expected_dice_is_the_mean_one_of_truths_drawn_from_the_probabilities():
    p = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truths = np.random.default_rng(0).random((400, 64, 64)) < p[0, 0].numpy()
    mask = p[0, 0].numpy() >= 0.5
    dice = [2 * (truth & mask).sum() / (truth.sum() + mask.sum()) for truth in truths]
    assert expected_dice(torch.cat([1 - p, p], dim=1)).item() == pytest.approx(np.mean(dice), abs=0.003)


def test_the_expected_dice_knows_no_order_of_pixels_or_images_and_is_a_mean_over_classes():
    p = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    whole = expected_dice(p)
    assert torch.allclose(expected_dice(p.flip(-1).transpose(-1, -2)), whole)
    assert torch.allclose(expected_dice(p.flip(0)), whole.flip(0)) and torch.allclose(
        expected_dice(p[:, [0, 2, 1]]), whole
    )
    sure = torch.eye(3)[torch.tensor([[1, 0, 0, 0]])].movedim(-1, 1)[:, :, None]
    assert expected_dice(sure).item() == pytest.approx(1), "a class that is nowhere counts as found"
    with pytest.raises(ValueError, match="two classes or more"):
        expected_dice(p[:, :1])


def test_the_dice_is_that_of_the_tables(cases):
    for model in (Net(), Mirrored(Net()).eval()):
        for size in (32, 48):
            table = measure_doubt(model, cases, SPEC, eval_size=size, batch_size=2, progress=False)
            scored = score_cases(model, cases, SPEC, eval_size=size, progress=False)
            assert table["dice"].tolist() == pytest.approx(scored["dice"].tolist())
            assert table["case"].tolist() == [case.name for case in cases]


def test_neither_the_batch_nor_the_order_of_cases_matters(cases):
    ways = ({"batch_size": 1}, {"batch_size": 4})
    one, other = (measure_doubt(Net(), cases, SPEC, eval_size=32, reading=True, progress=False, **way) for way in ways)
    turned = measure_doubt(Net(), cases[::-1], SPEC, eval_size=32, reading=True, progress=False)[::-1]
    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(one, turned.reset_index(drop=True))


def test_agreement_is_whole_where_both_answers_are_the_same_and_unknown_where_words_cannot_follow(cases):
    def alike(images, captions):
        found = 5 * images.mean(dim=1, keepdim=True)
        return torch.cat([torch.zeros_like(found), found], dim=1)

    stuck = SimpleNamespace(name="stuck", caption="The nuclei lie at the top.", pair=cases[0].pair)
    table = measure_doubt(alike, [*cases, stuck], SPEC, eval_size=32, progress=False)
    assert table["agreement"][:-1].tolist() == [1.0] * len(cases) and np.isnan(table["agreement"].iloc[-1])
    assert (measure_doubt(Net(), cases, SPEC, eval_size=32, progress=False)["agreement"] < 1).all()


def test_a_model_that_does_not_read_answers_the_same_without_words(cases):
    def deaf(images, captions):
        return brightness(images, ["x"] * len(captions))

    heard, unheard = (
        measure_doubt(one, cases, SPEC, eval_size=32, reading=True, progress=False) for one in (Net(), deaf)
    )
    assert (unheard["unread"] == 1).all() and (heard["unread"] < 1).all()
    assert "unread" not in measure_doubt(Net(), cases, SPEC, eval_size=32, progress=False)


def test_what_cannot_be_asked_is_refused(cases):
    with pytest.raises(ValueError, match="no cases"):
        measure_doubt(Net(), [], SPEC)
    with pytest.raises(FloatingPointError, match=cases[0].name):
        measure_doubt(lambda images, captions: brightness(images, captions) * torch.nan, cases, SPEC, progress=False)


def little(sure: list[float], dice: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"case": [f"{k:03}" for k in range(len(sure))], "sure": sure, "dice": dice})


def test_ranks_and_pairs_by_hand():
    table = little([0.9, 0.8, 0.7, 0.6], [0.9, 0.4, 0.8, 0.1])
    found = told_by(table, "sure")
    # Ranks 4 3 2 1 and 4 2 3 1: squared differences 0 1 1 0
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    # Failures 0.8 and 0.6, others 0.9 and 0.7: three of four pairs in order
    assert found["auroc"] == pytest.approx(3 / 4) and found["failed_share"] == 0.5
    assert told_by(table, "sure", failed=0.2)["auroc"] == 1
    assert told_by(little([0.5] * 4, [0.9, 0.4, 0.8, 0.1]), "sure")["auroc"] == 0.5


def test_only_the_order_of_a_doubt_counts_and_an_unknown_one_does_not():
    table = little([0.9, 0.8, 0.7, 0.6], [0.9, 0.4, 0.8, 0.1])
    squared = table.assign(sure=table["sure"] ** 3)
    gap = pd.concat([table, little([np.nan], [0.3]).assign(case="zzz")], ignore_index=True)
    assert told_by(squared, "sure") == told_by(gap, "sure") == told_by(table[::-1], "sure") == told_by(table, "sure")
    for one in (squared, gap, table[::-1]):
        pd.testing.assert_frame_equal(by_coverage(one, "sure"), by_coverage(table, "sure"))


def test_nothing_to_tell_apart_is_no_number():
    found = told_by(little([0.9, 0.8], [0.9, 0.8]), "sure")
    assert np.isnan(found["auroc"]) and np.isnan(found["spearman"]) and found["failed_share"] == 0
    nothing = little([np.nan] * 2, [0.9, 0.8])
    assert np.isnan(told_by(nothing, "sure")["failed_share"]) and by_coverage(nothing, "sure").empty


def test_the_surest_share_of_the_cases():
    table = little([0.2, 0.9, 0.9, 0.4, 0.1], [0.3, 0.8, 0.6, 0.5, 0.0])
    found = by_coverage(table, "sure", (0.2, 0.4, 0.6, 1.0)).set_index("share")
    assert found["n"].tolist() == [1, 2, 3, 5], "0.6 of 5 is 3, whatever its binary digits"
    assert found["dice"].tolist() == pytest.approx([0.8, 0.7, 1.9 / 3, 2.2 / 5])
    assert found.loc[1.0, "low"] <= 0.44 <= found.loc[1.0, "high"] and np.isnan(found.loc[0.2, "low"])
    with pytest.raises(ValueError, match=r"shares=\[0\]"):
        by_coverage(table, "sure", [0])


def test_the_interval_of_the_surest_takes_images_of_a_patient_together():
    names = [f"sub-{patient}_run-{image}" for patient in "ab" for image in range(20)]
    whole = by_coverage(pd.DataFrame({"case": names, "dice": [0.2] * 20 + [0.8] * 20, "sure": 0.5}), "sure", (1.0,))
    assert (whole["low"].item(), whole["high"].item()) == pytest.approx((0.2, 0.8))


def test_a_mirrored_model_that_does_not_read_answers_the_same_without_words(cases):
    class Deaf(torch.nn.Module):
        def forward(self, images, captions):
            return brightness(images, ["x"] * len(captions))

    table = measure_doubt(Mirrored(Deaf()).eval(), cases, SPEC, eval_size=48, reading=True, progress=False)
    assert (table["unread"] == 1).all()
