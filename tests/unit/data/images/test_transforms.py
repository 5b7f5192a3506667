from __future__ import annotations

import numpy as np
import pytest
import torch

from textdiff.data.images.transforms import ImageSpec, dihedral, dihedral_caption, mask_at, to_input


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_input_without_resizing_is_exact():
    image = picture(16, 16)
    tensor = to_input(image, 16)
    assert tensor.dtype == torch.float32 and tensor.shape == (3, 16, 16)
    assert torch.equal(((tensor + 1) * 127.5).round().byte(), torch.from_numpy(image).permute(2, 0, 1))


def test_black_and_white_are_the_ends_of_the_range():
    assert torch.allclose(to_input(np.zeros((9, 7, 3), np.uint8), 4), torch.tensor(-1.0))
    white = to_input(np.full((9, 7, 3), 255, np.uint8), 4)
    assert torch.allclose(white, torch.tensor(1.0)) and white.max() <= 1


def test_bgr_reverses_the_channels():
    image = picture(8, 8)
    assert torch.equal(to_input(image, 8, channel_order="BGR"), to_input(image, 8).flip(0))


def test_bilinear_samples_as_opencv_does_and_area_averages():
    # One row 0 0 0 255 brought to half: cv2's INTER_LINEAR looks at the two middle pixels of each pair's
    # centre.
    row = np.zeros((4, 8, 3), np.uint8)
    row[:, 7] = 255
    bilinear = (to_input(row, 2, resize="bilinear")[0, 0] + 1) * 127.5
    assert bilinear.tolist() == [0.0, 0.0]  # samples at 1.5 and 5.5: the bright column is never seen
    area = (to_input(row, 2, resize="area")[0, 0] + 1) * 127.5
    assert area[1] > 10


def test_bilinear_gives_whole_grey_levels():
    grey = (to_input(picture(31, 31), 17, resize="bilinear") + 1) * 127.5
    assert torch.allclose(grey, grey.round(), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, r"\[H, W, 3\]"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "float32"),
        ({"size": 0}, "positive"),
        ({"channel_order": "GBR"}, "GBR"),
        ({"resize": "nearest"}, "nearest"),
    ],
)
def test_bad_input_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        to_input(**{"image": picture(4, 4), "size": 4, **arguments})


def test_area_rule_is_half_the_pixel():
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :1] = 1  # exactly half of the upper left output pixel
    mask[2, 2] = 1  # a quarter of the lower right one
    assert mask_at(mask, 2).tolist() == [[1, 0], [0, 0]]


def test_area_rule_with_a_size_that_does_not_divide():
    mask = np.zeros((3, 3), np.uint8)
    mask[:, 0] = 1  # covers 1/1.5 of the first output column
    assert mask_at(mask, 2).tolist() == [[1, 0], [1, 0]]
    assert mask_at(np.eye(5, dtype=np.uint8), 5).tolist() == np.eye(5).tolist()


def test_area_rule_with_more_classes_takes_the_largest_share():
    mask = np.array([[0, 2], [2, 1]], np.uint8)
    assert mask_at(mask, 1, num_classes=3).tolist() == [[2]]


def test_dilated_rule_marks_every_touched_pixel():
    mask = np.zeros((8, 8), np.uint8)
    mask[1, 1] = 1
    assert mask_at(mask, 4, rule="dilated").sum() == 1
    assert mask_at(mask, 4, rule="area").sum() == 0


def test_dilated_masks_are_larger_on_monuseg_as_measured(monuseg_root):
    from textdiff.data.images.lvit import read_split

    masks = [case.mask() for case in read_split(monuseg_root / "Test_Folder")]
    dilated = sum(int(mask_at(mask, 256, "dilated").sum()) for mask in masks)
    area = sum(int(mask_at(mask, 256, "area").sum()) for mask in masks)
    assert dilated / area == pytest.approx(1.133, abs=0.004)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.full((4, 4), 255, np.uint8)}, "255"),
        ({"mask": np.zeros((4, 4, 1), np.uint8)}, r"\[H, W\]"),
        ({"rule": "nearest"}, "nearest"),
        ({"rule": "dilated", "num_classes": 3}, "two classes"),
    ],
)
def test_bad_mask_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        mask_at(**{"mask": np.zeros((4, 4), np.uint8), "size": 2, **arguments})


def test_turns_and_flips_by_hand():
    square = torch.tensor([[1, 2], [3, 4]])
    assert dihedral(square, 0).tolist() == [[1, 2], [3, 4]]
    assert dihedral(square, 1).tolist() == [[2, 4], [1, 3]]  # counter-clockwise
    assert dihedral(square, 4).tolist() == [[2, 1], [4, 3]]  # left-right
    assert dihedral(square, 6).tolist() == [[3, 4], [1, 2]]  # upside down


@pytest.mark.parametrize("k", [-1, 8, 1.5])
def test_unknown_turns_are_refused(k):
    for function, argument in ((dihedral, torch.zeros(2, 2)), (dihedral_caption, "a")):
        with pytest.raises(ValueError, match="0..7"):
            function(argument, k)


def test_single_places_and_placeless_sentences():
    assert dihedral_caption("The nuclei density in the left is high.", 1) == "The nuclei density in the lower is high."
    assert dihedral_caption("Lower is denser.", 3) == "Left is denser."
    for k in range(8):
        assert dihedral_caption("The nuclei are evenly distributed.", k) == "The nuclei are evenly distributed."


def test_chest_sentences_follow_only_the_left_right_flip():
    sentence = "bilateral pulmonary infection, three infected areas, upper middle left lung and lower right lung."
    assert dihedral_caption(sentence, 0) == sentence
    assert [k for k in range(8) if dihedral_caption(sentence, k) is None] == [1, 2, 3, 5, 6, 7]


def test_words_that_cannot_follow_give_none():
    assert [dihedral_caption("Dense at the top.", k) for k in (0, 1)] == ["Dense at the top.", None]
    beside = "The nuclei density in the {} is high."
    for places in ("upper and lower left", "lower left and right"):
        assert dihedral_caption(beside.format(places), 1) is None, "two places that share a word"
    for sided in ("RLL consolidation", "L lung opacity", "in the leftmost third", "growing rightwards", "at 3 o'clock"):
        assert {dihedral_caption(sided, k) for k in range(1, 8)} == {None}
    assert dihedral_caption("polyp in the superior quadrant", 1) is None
    assert dihedral_caption("the patient's left lung", 4) == "the patient's right lung", "a possessive is no side"


@pytest.mark.parametrize("organ", ["kidney", "lower lobe consolidation", "breast"])
def test_the_left_of_a_body_is_nowhere_else_after_a_turn(organ):
    turned = [dihedral_caption(f"the left {organ}", k) for k in range(1, 8)]
    assert turned == [None, None, None, f"the right {organ}", None, None, None]


@pytest.mark.parametrize(
    "changed",
    [{}, {"channel_order": "BGR"}, {"resize": "bilinear"}, {"mask_rule": "dilated"}, {"image_size": 5}],
    ids=str,
)
def test_each_setting_of_a_spec_is_that_of_its_tensors(changed):
    settings = {"image_size": 7, "channel_order": "RGB", "resize": "area", "mask_rule": "area"} | changed
    size, order, resize, rule = settings.values()
    image, mask = picture(20, 30), (np.arange(600).reshape(20, 30) % 7 == 0).astype(np.uint8)
    spec, usual = ImageSpec(**settings), ImageSpec(7)
    assert torch.equal(spec.input(image), to_input(image, size, order, resize))
    assert torch.equal(spec.target(mask), mask_at(mask, size, rule))
    assert torch.equal(spec.target(mask, 9), mask_at(mask, 9, rule))
    same = (
        spec.input(image).shape == usual.input(image).shape and torch.equal(spec.input(image), usual.input(image)),
        spec.target(mask).shape == usual.target(mask).shape and torch.equal(spec.target(mask), usual.target(mask)),
    )
    assert same == (not changed or rule == "dilated", not changed or "channel_order" in changed or "resize" in changed)


def test_of_three_classes_the_one_with_the_largest_share_of_a_cell_counts():
    mask = np.repeat([0, 1, 2], (4, 3, 3)).astype(np.uint8)[None].repeat(10, axis=0)
    assert mask_at(mask, 1, num_classes=3).item() == 0  # most of the cell is background, though less than half
    assert mask_at(mask[:, 3:], 1, num_classes=3).item() == 1  # of equal shares the first
    assert mask_at(mask[:, 4:], 2, num_classes=3).tolist() == [[1, 2], [1, 2]]


def test_dilated_masks_are_rounded_as_pictures_of_8_bits_are():
    mask = np.zeros((257, 257), np.uint8)
    mask[:, 1] = 1
    found = mask_at(mask, 256, "dilated")
    assert found[:, 1].all() and not found[:, 0].any()  # 0.498 of 255 is nothing, and 0.6 something
