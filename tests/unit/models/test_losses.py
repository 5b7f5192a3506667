"""The loss against the formula written out pixel by pixel and against MONAI."""

import pytest
import torch
import torch.nn.functional as F

from textdiff.models.losses import DiceCE, dice_loss, image_dice_loss

BATCH = DiceCE(dice_over="batch")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 8, 8, generator=generator) * 4
    return logits, torch.randint(0, 2, (3, 8, 8), generator=generator)


def written_out(scores, target):
    """One class after the other, over the whole batch, as TextDiff's public code counts."""
    total = 0.0
    for label in range(scores.shape[1]):
        score, truth = scores[:, label], (target == label).float()
        overlap = (score * truth).sum()
        total += 1 - (2 * overlap + 1e-5) / ((score * score).sum() + (truth * truth).sum() + 1e-5)
    return total / scores.shape[1]


def test_official_loss_is_on_raw_logits_with_weight_one_and_a_half(batch):
    logits, target = batch
    expected = F.cross_entropy(logits, target) + 1.5 * written_out(logits, target)
    torch.testing.assert_close(DiceCE(1.5, "logits", "batch")(logits, target), expected)


def test_default_is_on_the_softmax_with_weight_one(batch):
    logits, target = batch
    expected = F.cross_entropy(logits, target) + written_out(logits.softmax(1), target)
    torch.testing.assert_close(BATCH(logits, target), expected)
    assert not torch.isclose(BATCH(logits, target), DiceCE(dice_on="logits", dice_over="batch")(logits, target))


def test_dice_agrees_with_monai(batch):
    from monai.losses import DiceLoss

    logits, target = batch
    monai = DiceLoss(to_onehot_y=True, softmax=True, squared_pred=True, batch=True)
    torch.testing.assert_close(dice_loss(logits.softmax(1), target), monai(logits, target[:, None]))


def test_over_each_image_small_masks_count_as_much_as_large_ones():
    """A large mask found and a small one missed: half the Dice is lost over images, next to nothing over the batch."""
    target = torch.zeros(2, 16, 16, dtype=torch.int64)
    target[0, :12], target[1, 0, :2] = 1, 1
    logits = F.one_hot(target, 2).movedim(-1, 1) * 50.0
    logits[1] = torch.tensor([50.0, 0.0])[:, None, None]
    assert image_dice_loss(logits.softmax(1), target) == pytest.approx(
        (1 - 1 / 3) / 2
    )  # one pixel is added: 1 / (2 + 1)
    assert dice_loss(logits.softmax(1), target) < 0.02
    assert DiceCE()(logits, target) > BATCH(logits, target) + 0.3


def test_perfect_prediction_costs_nothing_and_volumes_work():
    target = (
        torch.randint(0, 3, (2, 4, 4, 4)) % torch.tensor([3, 2])[:, None, None, None]
    )  # one class absent from the second
    logits = F.one_hot(target, 3).movedim(-1, 1) * 50.0
    assert BATCH(logits, target) == pytest.approx(0, abs=1e-4)
    assert DiceCE()(logits, target) == pytest.approx(0, abs=1e-4)


def test_gradient_is_finite_in_half_precision(batch):
    logits, target = batch
    logits = logits.to(torch.bfloat16).requires_grad_()
    BATCH(logits, target).backward()
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [({"target": torch.zeros(3, 4, 4, dtype=torch.int64)}, "do not fit"), ({"target": torch.zeros(3, 8, 8)}, "int64")],
)
def test_wrong_arguments_are_refused(batch, change, says):
    arguments = {"logits": batch[0], "target": batch[1]} | change
    with pytest.raises(ValueError, match=says):
        BATCH(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dice_weight": -1.0}, "dice_weight=-1.0: 0 or more"),
        ({"dice_weight": float("nan")}, "dice_weight=nan"),
        ({"dice_on": "sigmoid"}, 'choose "softmax" or "logits"'),
        ({"dice_over": "pixel"}, 'choose "image" or "batch"'),
    ],
)
def test_wrong_settings_are_refused_when_built(options, message):
    with pytest.raises(ValueError, match=message):
        DiceCE(**options)


def test_rounded_logits_are_scored_in_float32(batch):
    logits, target = batch
    for loss in (BATCH, DiceCE(), DiceCE(1.5, "logits", "batch")):
        found = loss(logits.bfloat16(), target)
        assert found.dtype == torch.float32 and torch.equal(found, loss(logits.bfloat16().float(), target))
