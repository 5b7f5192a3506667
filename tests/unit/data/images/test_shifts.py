"""Pictures changed as another hospital's would be: what each change does, that it is the same every time, what goes with which kind."""

from __future__ import annotations

import numpy as np
import pytest

from textdiff.data import load_dataset
from textdiff.data.images import shifts
from textdiff.data.images.shifts import SHIFTS, shifted, shifts_for

FILM, TISSUE = (load_dataset(name, sizes=(1, 0, 2), image_size=48) for name in ("chest_phantoms", "nuclei_phantoms"))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shifted_case_has_another_picture_and_the_same_truth(name):
    case = TISSUE.test[0]
    before = case.image().copy()
    (changed,) = shifted([case], name)
    picture = changed.image()
    assert picture.shape == before.shape and picture.dtype == np.uint8 and picture.flags.writeable
    assert not np.array_equal(picture, before) and np.array_equal(picture, changed.image())
    assert np.array_equal(case.image(), before), "the own picture stays"
    assert (changed.name, changed.caption) == (case.name, case.caption) and np.array_equal(changed.mask(), case.mask())
    assert changed.pair(2)[1].shape == picture.shape[:2] and changed.fingerprint() != case.fingerprint()


def test_grey_values_go_where_they_should():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    dark, bright = shifts.darker(ramp), shifts.brighter(ramp)
    assert (dark <= ramp).all() and (bright >= ramp).all()
    assert dark.ravel()[[0, -1]].tolist() == bright.ravel()[[0, -1]].tolist() == [0, 255]
    assert dark.reshape(-1, 3)[128, 0] == round(255 * (128 / 255) ** shifts.GAMMA)
    assert np.array_equal(shifts.inverted(shifts.inverted(ramp)), ramp) and shifts.inverted(ramp)[0, 0, 0] == 255


def test_half_the_resolution_leaves_the_mean_and_takes_the_detail():
    checks = np.repeat((np.indices((32, 32)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None], 3, axis=2)
    assert (shifts.coarser(checks) == 100).all()
    assert shifts.coarser(checks[:31, :17]).shape == (31, 17, 3)


def test_noise_has_its_strength_and_is_a_case_s_own():
    flat = np.full((100, 100, 3), 128, np.uint8)
    one, other = shifts.noisy(flat, "one"), shifts.noisy(flat, "other")
    assert np.array_equal(one[..., 0], one[..., 2]) and not np.array_equal(one, other)
    assert one.std() == pytest.approx(shifts.NOISE, rel=0.05)


def test_a_stain_turns_hues_and_leaves_grey():
    assert np.array_equal(shifts.restained(FILM.test[0].image()), FILM.test[0].image())
    red = np.zeros((4, 4, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    turned = shifts.restained(red)[0, 0]
    assert turned[0] == 200 and 0 < turned[1] < 200 and turned[2] == 0


def test_films_are_inverted_and_tissue_is_restained():
    film, tissue = (shifts_for(data.test[0].image()) for data in (FILM, TISSUE))
    assert "inverted" in film and "stain" not in film
    assert "stain" in tissue and "inverted" not in tissue and len(film) == len(tissue) == len(SHIFTS) - 1
    with pytest.raises(ValueError, match="shift='older'"):
        shifted(FILM.test, "older")
