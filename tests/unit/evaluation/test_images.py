"""Scores of models whose answers are known."""

import numpy as np
import pytest
import torch
from torch import nn

from textdiff.data.cases import Case
from textdiff.data.images.transforms import ImageSpec
from textdiff.evaluation.images import _labels_at, score_cases
from textdiff.evaluation.metrics import summarise


def square(name, top, size=32, caption="a square", label=1):
    """A white square on black, its mask the square."""
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + 8, 4:20] = label
    image = np.repeat((mask[..., None] > 0) * np.uint8(255), 3, axis=-1)
    return Case(name=name, caption=caption, image_array=image, mask_array=mask)


class Bright(nn.Module):
    """Marks what is brighter than grey; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.dropout, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()
        self.captions, self.sizes, self.was_training = [], [], []

    def forward(self, images, captions):
        self.captions += captions
        self.sizes.append(tuple(images.shape))
        self.was_training.append(self.training)
        self.kept = images.mean()
        return torch.stack([-images[:, 0], images[:, 0]], dim=1)


@pytest.fixture
def cases():
    return [square(f"case{top}", top) for top in (2, 8, 16)]


SPEC = ImageSpec(32)


def run(model, cases, spec=SPEC, eval_size=32, **options):
    return score_cases(model, cases, spec, eval_size=eval_size, progress=False, **options)


def test_a_batch_that_is_too_much_is_scored_in_parts(cases, caplog):
    class Narrow(Bright):
        def forward(self, images, captions):
            if len(images) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images, captions)

    narrow, whole = run(Narrow(), cases, batch_size=3), run(Bright(), cases, batch_size=3)
    assert narrow.equals(whole)
    assert [r.getMessage() for r in caplog.records] == ["out of memory with 3 images at once, going on with 1"]


def test_a_perfect_model_scores_one_at_both_sizes(cases):
    model = Bright()
    table = run(model, cases, batch_size=2)
    assert table["case"].tolist() == ["case2", "case8", "case16"]
    assert table["dice"].tolist() == table["dice_native"].tolist() == [1, 1, 1]
    assert summarise(table)["dice_native_pooled"] == 1
    assert not any(name.startswith("dice_1") for name in table.columns)
    table = run(model, cases, ImageSpec(16), eval_size=64, batch_size=2)
    assert model.sizes[2:] == [(2, 3, 16, 16), (1, 3, 16, 16)]
    assert table["actual"].tolist() == [4 * 128] * 3 and table["actual_native"].tolist() == [128] * 3


def test_the_dilated_rule_changes_the_truth_at_eval_size_only():
    case = square("odd", top=3, size=31)
    area, dilated = (run(Bright(), [case], ImageSpec(32, mask_rule=rule), 16) for rule in ("area", "dilated"))
    assert dilated["actual"][0] > area["actual"][0]
    assert dilated["actual_native"][0] == area["actual_native"][0] == 128


def test_captions_can_be_replaced(cases):
    model = Bright()
    table = run(model, cases, captions=["x", "", "z"], batch_size=2)
    assert model.captions == table["caption"].tolist() == ["x", "", "z"]
    assert run(model, cases)["caption"].tolist() == ["a square"] * 3


def test_the_models_modes_are_left_as_they_were_and_its_caches_serve_training(cases):
    model = Bright().train()
    model.frozen.eval()
    run(model, cases)
    assert model.was_training == [False]
    assert model.training and model.dropout.training and not model.frozen.training
    weight = torch.ones(1, requires_grad=True)
    (model.kept * weight).sum().backward()
    assert weight.grad is not None


def test_channel_order_reaches_the_model(cases):
    blue = np.zeros((32, 32, 3), np.uint8)
    blue[..., 2] = 255
    case = Case(name="blue", caption="x", image_array=blue, mask_array=np.ones((32, 32), np.uint8))
    assert run(Bright(), [case], ImageSpec(32, channel_order="BGR"))["dice"][0] == 1
    assert run(Bright(), [case])["dice"][0] < 0.01


def test_several_classes_get_columns_by_name():
    class Three(Bright):
        def forward(self, images, captions):
            two = super().forward(images, captions)
            return torch.cat([two, torch.full_like(two[:, :1], -9)], dim=1)

    names = ("background", "organ", "tumour")
    table = run(Three(), [square("a", 2), square("b", 2, label=2)], ImageSpec(32, num_classes=3), class_names=names)
    assert table["dice_organ"].tolist() == pytest.approx([1, 0], abs=1e-4)
    # No tumour in truth or prediction counts as right; a missed one as wrong.
    assert table["dice_native_tumour"].tolist() == pytest.approx([1, 0], abs=1e-4)
    assert table["dice"].tolist() == pytest.approx([1, 0], abs=1e-4)


def test_images_are_read_batch_by_batch(cases, monkeypatch):
    read, seen = [], []
    pair = Case.pair
    monkeypatch.setattr(Case, "pair", lambda case, classes: read.append(case.name) or pair(case, classes))
    model = Bright()
    model.register_forward_hook(lambda *_: seen.append(len(read)))
    run(model, cases, batch_size=1)
    assert seen == [1, 2, 3]


class Diverged(nn.Module):
    def forward(self, images, captions):
        return torch.full((len(images), 2, 4, 4), float("nan"))


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (Bright, {"cases": []}, ValueError, "no cases"),
        (Bright, {"captions": ["a", "b"]}, ValueError, "2 captions for 3 cases"),
        (Bright, {"batch_size": 0}, ValueError, "batch_size=0"),
        (Bright, {"cases": [square("strange", 2, label=3)]}, ValueError, "'strange'"),
        (Bright, {"spec": ImageSpec(32, num_classes=3)}, ValueError, "gives 2 classes, but the images have 3"),
        (Diverged, {}, FloatingPointError, "case2"),
    ],
)
def test_errors_say_what_and_where(cases, model, options, error, message):
    with pytest.raises(error, match=message):
        run(model(), **({"cases": cases} | options))


def test_logits_are_enlarged_as_areas_not_as_points():
    logits = torch.zeros(2, 2, 2)
    logits[1] = torch.tensor([-1.0, 2.5])  # a quarter of the way from pixel to pixel it is still below 0, a third above
    assert _labels_at(logits, (4, 4)).tolist() == [[0, 0, 1, 1]] * 4
