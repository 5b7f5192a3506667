from __future__ import annotations

import hashlib

import numpy as np
import pytest

from textdiff.data import load_dataset
from textdiff.data.images import phantoms as synthetic
from textdiff.data.images.captions import AREAS, NUCLEI_PATTERNS, parse_chest_caption
from textdiff.data.images.phantoms import LEFT_LUNG_ON_PICTURE_RIGHT, MAX_TARGETS, chest_phantoms, nuclei_phantoms

MAKERS = [nuclei_phantoms, chest_phantoms]


@pytest.fixture(scope="module")
def nuclei():
    return nuclei_phantoms(150, seed=5, size=64)


@pytest.fixture(scope="module")
def chest():
    return chest_phantoms(150, seed=5, size=64)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [32, 65, 128])
def test_arrays_are_as_a_case_promises(make, size):
    for case in make(6, seed=1, size=size):
        image, mask = case.pair()
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        assert image.std() > 10


@pytest.mark.parametrize("make", MAKERS)
def test_same_seed_same_pictures_whatever_the_number(make):
    def digest(cases):
        return [
            hashlib.sha256(c.image().tobytes() + c.mask().tobytes() + c.caption.encode()).hexdigest() for c in cases
        ]

    few, many = digest(make(3, seed=2, size=48)), digest(make(5, seed=2, size=48))
    assert few == many[:3] and len(set(many)) == 5
    assert digest(make(2, seed=2, size=48, start=3)) == many[3:]
    assert not set(digest(make(3, seed=3, size=48))) & set(many)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("arguments", [{"n": -1}, {"start": -1}, {"size": 31}])
def test_impossible_arguments_are_refused(make, arguments):
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        make(**{"n": 1, "seed": 0, **arguments})


def place_shares(mask: np.ndarray, place: str) -> tuple[float, float]:
    """Foreground share inside and outside the named half or quarter."""
    half = mask.shape[0] // 2
    inside = np.ones(mask.shape, bool)
    for word in place.split():
        cuts = {"upper": np.s_[half:], "lower": np.s_[:half], "left": np.s_[:, half:], "right": np.s_[:, :half]}
        inside[cuts[word]] = False
    return mask[inside].mean(), mask[~inside].mean()


def test_nuclei_sentences_are_true_of_the_masks(nuclei):
    pattern_of = {sentence: pattern for pattern, sentence in NUCLEI_PATTERNS.items()}
    share = {"evenly": [], "sparsely": []}
    seen = set()
    for case in nuclei:
        pattern, mask = pattern_of[case.caption], case.mask()
        seen.add(pattern)
        if pattern in share:
            share[pattern].append(mask.mean())
        elif pattern == "around":
            assert mask[20:44, 20:44].mean() < mask.mean()
        elif pattern != "irregularly":
            inside, outside = place_shares(mask, pattern)
            assert inside > 2 * outside, case.name
    assert seen == set(NUCLEI_PATTERNS)
    assert max(share["sparsely"]) < min(share["evenly"])


def test_nuclei_are_darker_than_the_tissue(nuclei):
    for case in nuclei[:20]:
        image, mask = case.pair()
        assert image[mask == 1].mean() < image[mask == 0].mean() - 30


def test_chest_sentences_name_side_count_and_place(chest):
    counts, places = set(), {area: [] for area in AREAS}
    for case in chest:
        areas = parse_chest_caption(case.caption)
        assert areas and len(areas) <= MAX_TARGETS
        counts.add(len(areas))
        if len(areas) == 1:
            places[next(iter(areas))].append(np.mean(np.nonzero(case.mask()), axis=1) / 64)
    assert counts == {1, 2, 3}
    for (level, side), centres in places.items():
        for row, column in centres:
            assert (column > 0.5) == ((side == "left") == LEFT_LUNG_ON_PICTURE_RIGHT)
            low, high = {"upper": (0.1, 0.38), "middle": (0.33, 0.6), "lower": (0.55, 0.85)}[level]
            assert low < row < high, (level, row)
    assert sum(map(len, places.values())) > 20


def test_only_the_sentence_tells_target_from_look_alike(monkeypatch):
    """Another choice of what counts leaves every film as it is, to the bit, and changes mask and sentence
    together.
    """
    first = chest_phantoms(60, seed=9, size=48)
    monkeypatch.setattr(synthetic, "CHOICE_STREAM", 77)
    second = chest_phantoms(60, seed=9, size=48)
    assert all(np.array_equal(a.image(), b.image()) for a, b in zip(first, second, strict=True))
    same_mask = [np.array_equal(a.mask(), b.mask()) for a, b in zip(first, second, strict=True)]
    same_text = [a.caption == b.caption for a, b in zip(first, second, strict=True)]
    assert same_mask == same_text and sum(same_text) < 30


def test_every_film_has_look_alikes_of_about_the_targets_size():
    counted, others, often = [], [], dict.fromkeys(AREAS, 0)
    for case in chest_phantoms(200, seed=3, size=48):
        _, shadows = synthetic._film_with_opacities(48, synthetic._rng(synthetic.CHEST_STREAM, 3, int(case.name[-8:])))
        areas = parse_chest_caption(case.caption)
        assert areas < set(shadows) and len(shadows) - len(areas) <= MAX_TARGETS
        for area, shadow in shadows.items():
            (counted if area in areas else others).append(int((shadow >= 0.5).sum()))
            often[area] += area in areas
    assert max(often.values()) < 1.5 * min(often.values())
    assert 0.8 < len(counted) / len(others) < 1.25
    assert 0.9 < np.mean(counted) / np.mean(others) < 1.1
    assert min(counted + others) >= 4


def test_load_dataset_gives_splits_that_do_not_overlap():
    data = load_dataset("chest_phantoms", seed=4, sizes=(4, 3, 2), image_size=40)
    assert [len(split) for split in (data.train, data.val, data.test, data.unlabelled)] == [4, 3, 2, 4]
    cases = data.train + data.val + data.test
    assert len({case.image().tobytes() for case in cases}) == 9 == len({case.name for case in cases})
    assert not any(case.labelled for case in data.unlabelled)
    assert data.synthetic and data.num_classes == 2 and cases[0].image().shape == (40, 40, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "chest_phantoms"),
        ({"name": "monuseg", "sizes": (1, 1, 1)}, "real"),
        ({"name": "chest_phantoms", "sizes": (1, 1)}, "three"),
    ],
)
def test_load_dataset_refuses_what_does_not_apply(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(**arguments)
