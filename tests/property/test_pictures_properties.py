"""Whatever the format and orientation, pictures and masks are read as a viewer shows them, and masks go back to their files."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from little_pictures import UPRIGHT, save
from PIL import Image

from textdiff.data.images.lvit import match_key
from textdiff.data.images.masks import read_mask, write_mask
from textdiff.data.images.pictures import picture_frame, picture_size, read_picture
from textdiff.data.images.tables import plain

TEMPORARY = Path(tempfile.mkdtemp())
FORMATS = {"png": {}, "tif": {}, "webp": {"lossless": True, "exact": True}, "jpg": {"quality": 100}}
orientations = st.integers(1, 8)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))
greys = shapes.flatmap(lambda shape: arrays(np.uint8, shape))


def stored_as(mode: str, grey: np.ndarray) -> Image.Image:
    if mode == "P":
        picture = Image.fromarray(grey, "P")
        picture.putpalette([255 - level for level in range(256) for _ in range(3)])
        return picture
    return Image.fromarray(grey).convert(mode)


@pytest.mark.takes("Pictures", "PNG, TIFF, WebP, JPEG with any EXIF orientation", "taken")
@settings(max_examples=60, deadline=None)
@given(greys, orientations, st.sampled_from(sorted(FORMATS)), st.sampled_from(["L", "RGB", "P", "1", "RGBA", "LA"]))
def test_pictures_are_upright_in_every_format_and_mode(grey, orientation, suffix, mode):
    if suffix == "jpg" and mode not in ("L", "RGB"):
        mode = "RGB"
    if suffix == "webp":
        mode = "RGBA" if mode == "LA" else "RGB" if mode in ("L", "1", "P") else mode
    picture = stored_as(mode, grey)
    path = save(TEMPORARY / f"a.{suffix}", picture, orientation, **FORMATS[suffix])
    expected = UPRIGHT[orientation](np.asarray(picture.convert("RGB")))
    found = read_picture(path)
    assert found.shape == expected.shape and found.shape[:2] == picture_size(path)
    assert np.abs(found.astype(int) - expected).max() <= (3 if suffix == "jpg" else 0)


@settings(max_examples=60, deadline=None)
@given(
    shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3))),
    orientations,
    st.sampled_from(["png", "tif"]),
    st.sampled_from(["L", "P", "I;16", "F", "ids"]),
)
def test_masks_are_upright_in_every_format_and_mode(labels, orientation, suffix, mode):
    if mode == "P":
        stored = Image.fromarray(labels, "P")
        stored.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 9, 9, 9])
    elif mode == "ids":
        stored = np.dstack([labels, labels * 0, labels * 0])
    else:
        as_float = mode == "F" and suffix == "tif"
        stored = labels.astype(np.float32 if as_float else np.uint16 if mode == "I;16" else np.uint8)
    found = read_mask(save(TEMPORARY / f"m.{suffix}", stored, orientation), 4)
    assert np.array_equal(found, UPRIGHT[orientation](labels))


@pytest.mark.takes("Output files", "the mask of a turned picture (EXIF): it is turned as the picture is", "taken")
@settings(max_examples=40, deadline=None)
@given(greys, orientations, st.sampled_from(sorted(FORMATS)))
def test_a_written_mask_lies_on_its_picture_upright_and_as_stored(labels, orientation, suffix):
    labels = labels // 2  # 0 to 127
    image = save(TEMPORARY / f"i.{suffix}", np.dstack([labels] * 3), orientation, **FORMATS[suffix])
    write_mask(UPRIGHT[orientation](labels), TEMPORARY / "o.png", like=image)
    with Image.open(TEMPORARY / "o.png") as written:
        assert np.array_equal(np.asarray(written), labels)
    assert picture_frame(TEMPORARY / "o.png") == picture_frame(image)
    assert np.array_equal(read_mask(TEMPORARY / "o.png"), UPRIGHT[orientation](labels))


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 64, 128, 254, 255])), st.sampled_from(["L", "RGB", "P"])
)
def test_no_drawn_mask_is_read_as_an_empty_one(grey, mode):
    path = save(TEMPORARY / "d.png", Image.fromarray(grey, "P") if mode == "P" else Image.fromarray(grey).convert(mode))
    try:
        assert np.array_equal(read_mask(path, 3) > 0, grey > 0)
    except ValueError as error:
        assert "d.png: mask has" in str(error) and set(np.unique(grey)) - {0, 1, 2} and grey.max() != 0


HIDDEN = st.sampled_from(["", "\u200b", "\ufeff", "\u00ad"])


@settings(max_examples=60, deadline=None)
@given(st.text("aéÅß 1-'_.", min_size=1, max_size=8), st.sampled_from(["NFC", "NFD"]), HIDDEN, st.data())
def test_names_that_look_alike_have_one_key(name, form, hidden, data):
    place = data.draw(st.integers(0, len(name)))
    other = f"{name[:place]}{hidden}{name[place:]}".replace(" ", "\u00a0").replace("'", "\u2019").replace("-", "\u2013")
    assert match_key(f"mask_{unicodedata.normalize(form, other)}.PNG") == match_key(f"{name}.tif")
    assert plain(plain(other)) == plain(other) == plain(name)
