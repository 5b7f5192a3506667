"""Surface distances of shapes whose distances are known."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from textdiff.evaluation.surfaces import foreground_box, surface_distances


def block(start, stop=None, shape=(20, 20, 20), label=1):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(a, b) for a, b in zip(start, stop or [s + 6 for s in start], strict=True))] = label
    return labels


def distances(pred, target, spacing=(1, 1, 1), num_classes=2):
    found = surface_distances(pred, target, spacing, num_classes)
    return found["hd95_mm"].tolist(), found["assd_mm"].tolist()


def by_hand(pred, target, spacing):
    """HD95 and ASSD from all pairs of surface voxels."""
    edges = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (pred > 0, target > 0)]
    pairs = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
    there, back = pairs.min(axis=1), pairs.min(axis=0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()


def test_distances_are_the_millimetres_between_the_surfaces():
    one, other = block((5, 5, 5), (6, 6, 6)), block((5, 5, 9), (6, 6, 10))
    assert distances(one, one) == ([0.0], [0.0])
    assert distances(one, other, (1, 1, 2.5)) == ([10.0], [10.0])
    assert distances(one, other, (3, 3, 0.5)) == ([2.0], [2.0])
    target = block((2, 2, 2), (10, 10, 10))
    far = target.copy()
    far[19, 19, 19] = 1  # moves HD95 less than the farthest distance
    assert distances(far, target)[0][0] < 1


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.5, 3)])
def test_they_agree_with_all_pairs_of_surface_voxels(spacing):
    pred, target = block((3, 4, 5), (10, 11, 12)), block((4, 4, 7), (13, 10, 17))
    target[10:12, 10:12, 2:6] = 1
    hd95, assd = distances(pred, target, spacing)
    assert (hd95[0], assd[0]) == pytest.approx(by_hand(pred, target, np.array(spacing)), rel=1e-5)
    assert distances(target, pred, spacing) == (pytest.approx(hd95), pytest.approx(assd))


def test_the_edge_of_the_volume_is_a_surface_and_empty_room_changes_nothing():
    pred, target = block((0, 0, 0), (6, 6, 6), (8, 8, 8)), block((0, 0, 0), (8, 6, 6), (8, 8, 8))
    room = [(0, 30), (5, 5), (2, 0)]
    assert distances(pred, target) == distances(np.pad(pred, room), np.pad(target, room))
    assert (distances(pred, target)[0][0], distances(pred, target)[1][0]) == pytest.approx(by_hand(pred, target, 1))


def test_structures_are_told_apart():
    pred = block((2, 2, 2)) + block((10, 10, 10), label=2)
    target = block((2, 2, 2)) + block((10, 10, 12), label=2)
    hd95, assd = distances(pred, target, num_classes=3)
    assert hd95[0] == assd[0] == 0
    assert hd95[1] == 2 and 0 < assd[1] < 2


def test_a_structure_in_neither_map_has_no_distance_and_one_in_one_map_the_diagonal():
    empty, full = block((2, 2, 2)) * 0, block((2, 2, 2))
    assert np.isnan(distances(empty, empty)).all()
    diagonal = pytest.approx([np.sqrt(20**2 + 40**2 + 60**2)])
    for pair in ((full, empty), (empty, full)):
        hd95, assd = distances(*pair, spacing=(1, 2, 3))
        assert hd95 == diagonal and assd == diagonal


def test_the_box_holds_all_that_either_map_marks():
    assert foreground_box(block((2, 3, 4), (5, 6, 7)), block((1, 4, 5), (2, 9, 6))) == np.s_[1:5, 3:9, 4:7]
    assert foreground_box(block((2, 2, 2)) * 0, block((2, 2, 2)) * 0) == np.s_[0:1, 0:1, 0:1]


@pytest.mark.parametrize(
    ("pred", "target", "spacing", "message"),
    [
        (block((2, 2, 2)), block((2, 2, 2)), (1, 1), "give 3 positive numbers"),
        (block((2, 2, 2)), block((2, 2, 2)), (1, 0, 1), "give 3 positive numbers"),
        (block((2, 2, 2)), block((2, 2, 2))[1:], (1, 1, 1), "must be equal"),
        (block((2, 2, 2)) * 2, block((2, 2, 2)), (1, 1, 1), "only 0..1 are possible"),
        (block((2, 2, 2)) * 0.5, block((2, 2, 2)), (1, 1, 1), "whole numbers"),
    ],
)
def test_wrong_arguments_are_refused(pred, target, spacing, message):
    with pytest.raises(ValueError, match=message):
        surface_distances(pred, target, spacing, 2)
