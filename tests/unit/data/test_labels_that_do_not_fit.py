"""Labels that a label map cannot hold are refused with their values, wherever they come in or go out; none wraps or is rounded."""

from __future__ import annotations

import numpy as np
import pytest

from textdiff.data.cases import Case
from textdiff.data.images.lvit import write_split
from textdiff.data.images.masks import read_mask, write_mask
from textdiff.data.images.transforms import ImageSpec, mask_at
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.volume import Volume, write_labels
from textdiff.evaluation.metrics import check_class_order

PICTURE = np.zeros((4, 5, 3), np.uint8)
WRONG = {
    "above": (np.full((4, 5), 256), "256"),
    "far above": (np.full((4, 5), 70000), "70000"),
    "below": (np.full((4, 5), -1), "-1"),
    "half": (np.full((4, 5), 0.5), "0.5"),
    "nan": (np.full((4, 5), np.nan), "nan"),
}


@pytest.mark.parametrize(("mask", "said"), WRONG.values(), ids=WRONG.keys())
def test_masks_of_pictures(tmp_path, mask, said):
    case = Case("a", "text", image_array=PICTURE, mask_array=mask)
    for use in (
        case.mask,
        lambda: case.mask(2),
        case.pair,
        lambda: mask_at(mask, 4, num_classes=3),
        lambda: write_mask(mask, tmp_path / "a.png"),
        lambda: write_split(tmp_path / "mine", [case]),
    ):
        with pytest.raises(ValueError, match=rf"labels.* {said}|values {said}"):
            use()
    assert not (tmp_path / "a.png").exists()


def test_whole_numbers_of_any_type_are_labels(tmp_path):
    for dtype in (bool, np.int64, np.float32, np.uint16):
        case = Case("a", "text", image_array=PICTURE, mask_array=np.eye(4, 5).astype(dtype))
        assert case.mask(2).dtype == np.uint8 and np.array_equal(case.mask(2), np.eye(4, 5))
        write_mask(case.mask_array, tmp_path / "a.png")
        assert np.array_equal(read_mask(tmp_path / "a.png"), np.eye(4, 5))


@pytest.mark.parametrize(("mask", "said"), WRONG.values(), ids=WRONG.keys())
def test_labels_of_volumes(tmp_path, mask, said):
    volume = Volume(np.stack([mask] * 3, -1), np.eye(4), "v")
    image = Volume(np.zeros(volume.shape, np.float32), np.eye(4), "i")
    for values in (None, {1: 1}):
        with pytest.raises(ValueError, match=rf"case 'a'.*{said}"):
            VolumeCase("a", image_volume=image, label_volume=volume, values=values).labels()
    if said not in ("256",):  # which uint16 holds
        with pytest.raises(ValueError, match=rf"a.nii.gz: labels must .*{said}"):
            write_labels(tmp_path / "a.nii.gz", volume)


@pytest.mark.parametrize("more", [{"masks": {256: "x"}}, {"values": {1: 300}}, {"structures": ("s",) * 256}])
def test_more_structures_than_labels_hold(more):
    with pytest.raises(ValueError, match="case 'a': its labels are numbered .* from 0 to 255"):
        VolumeCase("a", image_volume=Volume(np.zeros((2, 2, 2), np.float32), np.eye(4), "i"), **more)


def test_more_classes_than_labels_hold():
    with pytest.raises(ValueError, match="num_classes=257"):
        ImageSpec(num_classes=257)


def test_classes_in_another_order_are_refused():
    check_class_order(("background", "liver", "spleen"), ("background", "liver", "spleen"))
    check_class_order(
        ("background", "class 1"), ("background", "nuclei")
    )  # of other names one knows that they are others
    with pytest.raises(
        ValueError, match="in the order background, liver, spleen, and the data .* background, spleen, liver"
    ):
        check_class_order(("background", "liver", "spleen"), ("background", "spleen", "liver"))
