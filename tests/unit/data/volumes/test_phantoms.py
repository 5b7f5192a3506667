from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from volume_layouts import write_layout

from textdiff.data.registry import DATASETS
from textdiff.data.volumes import phantoms as synthetic3d
from textdiff.data.volumes.layouts import load_volumes
from textdiff.data.volumes.phantoms import ABDOMEN, abdomen, abdomen_phantoms
from textdiff.data.volumes.prompts import named_structures
from textdiff.data.volumes.volume import turned

COARSE = {"shape": (28, 28, 24), "spacing": (10.0, 10.0, 10.0)}


@pytest.fixture(scope="module")
def abdomens():
    return abdomen_phantoms(24, seed=1)


def of(case, name: str) -> np.ndarray:
    """Where a structure lies in a case [X, Y, Z]."""
    return case.labels().array == ABDOMEN.index(name) + 1


def present(case) -> tuple[str, ...]:
    return tuple(name for name in ABDOMEN if name.endswith("tumour") and of(case, name).any())


def test_the_same_seed_gives_the_same_case_whatever_the_number():
    first, second = abdomen_phantoms(3, seed=4, **COARSE), abdomen_phantoms(1, seed=4, start=2, **COARSE)
    assert first[2].name == second[0].name and first[2].report == second[0].report
    assert np.array_equal(first[2].image().array, second[0].image().array)
    assert np.array_equal(first[2].labels().array, second[0].labels().array)
    assert not np.array_equal(first[0].image().array, first[1].image().array)
    other = abdomen_phantoms(1, seed=5, **COARSE)[0]
    assert not np.array_equal(first[0].image().array, other.image().array)


def test_volumes_are_hu_on_a_ras_grid(abdomens):
    image, labels = abdomens[0].pair()
    assert image.shape == (48, 48, 40) and image.axes == "RAS" and image.spacing == (6.0, 6.0, 6.0)
    assert (image.array.dtype, labels.array.dtype) == (np.float32, np.uint8)
    assert image.array.min() < -950 and 200 < image.array.max() < 1500
    assert np.array_equal(image.array, np.rint(image.array))
    assert labels.array.max() <= len(ABDOMEN)


def test_organs_have_their_grey_values_and_sizes(abdomens):
    ranges = {"liver": (75, 115), "pancreas": (55, 105), "left kidney": (90, 180), "right kidney": (90, 180)}
    millilitres = {"liver": (550, 2000), "pancreas": (35, 150), "left kidney": (70, 280), "right kidney": (70, 280)}
    for case in abdomens:
        image, labels = case.pair()
        for name, (low, high) in ranges.items():
            assert low < np.median(image.array[of(case, name)]) < high, (case.name, name)
            assert millilitres[name][0] < of(case, name).sum() * labels.voxel_ml < millilitres[name][1], name
        fat = np.logical_and(image.array > -140, image.array < -60).mean()
        assert fat > 0.05, case.name


def test_left_and_right_are_the_patients(abdomens):
    for case in abdomens:
        middle = {name: np.argwhere(of(case, name))[:, 0].mean() for name in ABDOMEN[:4]}
        assert middle["left kidney"] < 20 and middle["right kidney"] > 27 and middle["liver"] > 24


def test_tumours_lie_within_their_organ_and_are_darker(abdomens, monkeypatch):
    monkeypatch.setattr(synthetic3d, "_tumours", lambda scene, rng: None)
    cysts = 0
    for case, healthy in zip(abdomens, abdomen_phantoms(24, seed=1), strict=True):
        assert present(healthy) == ()
        for side in ("left", "right"):  # some kidneys hold a cyst, which is no tumour
            water = binary_erosion(of(healthy, f"{side} kidney")) & (abs(healthy.image().array - 8) < 30)
            cysts += water.sum() > 2
        for name in present(case):
            organ = name.removesuffix(" tumour")
            tumour = of(case, name)
            assert tumour.sum() >= 4, (case.name, name)
            if organ in ABDOMEN:
                assert of(healthy, organ)[tumour].all(), (case.name, name)
                image = case.image().array
                inner = binary_erosion(of(case, organ) | tumour) & of(case, organ)
                assert np.median(image[tumour]) < np.median(image[inner]) - 5, (case.name, name)
    assert 3 < cysts < 24


def test_side_size_and_place_of_tumours_are_drawn_by_chance():
    kidneys, places, sizes = Counter(), Counter(), {"left": [], "right": []}
    grey = {"left": [], "right": []}
    for case in abdomen_phantoms(120, seed=2, **COARSE):
        sides = tuple(name.split()[0] for name in present(case) if "kidney" in name)
        kidneys[sides] += 1
        places.update(place for place in ("upper pole", "middle third", "lower pole") if place in case.report)
        for side in sides:
            sizes[side].append(of(case, f"{side} kidney tumour").sum())
            grey[side].append(np.median(case.image().array[of(case, f"{side} kidney tumour")]))
    assert set(kidneys) == {(), ("left",), ("right",), ("left", "right")}
    assert 30 < kidneys["left", "right"] < 66 and min(kidneys.values()) > 10
    assert min(places[place] for place in ("upper pole", "middle third", "lower pole")) > 10
    assert max(sizes["left"] + sizes["right"]) > 4 * min(sizes["left"] + sizes["right"])
    assert 0.7 < np.mean(sizes["left"]) / np.mean(sizes["right"]) < 1.4  # one rule for both sides
    assert abs(np.mean(grey["left"]) - np.mean(grey["right"])) < 12


def test_the_sentence_names_the_tumours_that_are_there(abdomens):
    for case in abdomens:
        assert named_structures(case.report, ABDOMEN) == present(case), case.report
        assert ("mm" in case.report) == bool(present(case))


def test_an_abdomen_of_another_size_and_grid():
    case = abdomen_phantoms(1, seed=0, shape=(64, 56, 30), spacing=(2.0, 2.0, 4.0))[0]
    image, labels = case.pair()
    assert image.shape == (64, 56, 30) and image.spacing == (2.0, 2.0, 4.0)
    assert set(range(1, 5)) <= set(np.unique(labels.array))


@pytest.mark.parametrize("task", ["liver_tumour", "kits21"])
def test_phantoms_written_as_files_are_read_back(task, tmp_path):
    data = load_volumes(task, write_layout(tmp_path, task, n=3, **COARSE))
    for index, (case,) in enumerate((data.train, data.val, data.test)):
        written = abdomen(index, 0, *COARSE.values(), DATASETS[task].structures)
        image, labels = (turned(one) for one in case.pair())
        assert np.array_equal(labels.array, written[1].array) and np.array_equal(image.array, written[0].array)
        assert case.image().axes == "IPL" and np.allclose(image.affine, written[0].affine, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n=-1"),
        ({"start": -2}, "start=-2"),
        ({"shape": (48, 48, 19)}, "19"),
        ({"shape": (48, 48)}, "three sides"),
        ({"spacing": (1.0, 0.0, 1.0)}, "0.0"),
    ],
)
def test_impossible_phantoms_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        abdomen_phantoms(**{"n": 1, "seed": 0, **arguments})
