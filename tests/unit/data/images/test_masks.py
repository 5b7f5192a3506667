"""Mask files: decoded as what they are, or refused with the file's name and its values; and written to lie on their picture."""

from __future__ import annotations

import numpy as np
import pytest
from little_pictures import deep_png, save, tiff
from PIL import Image

from textdiff.data.cases import Case
from textdiff.data.images.masks import labels_from_grey, read_mask, write_mask

LABELS = np.zeros((6, 9), np.uint8)
LABELS[1:4, 2:6], LABELS[4:, 7:] = 1, 2
TWO = (LABELS > 0).astype(np.uint8)
WHITE = TWO * np.uint8(255)
BLACK = np.zeros((6, 9, 3), np.uint8)


def palette(labels: np.ndarray, *colours: int) -> Image.Image:
    picture = Image.fromarray(labels, "P")
    picture.putpalette(list(colours))
    return picture


def coloured(labels: np.ndarray, *colours: tuple[int, ...]) -> np.ndarray:
    return np.array(colours, np.uint8)[labels]


GREYS = [level for index in range(256) for level in [index] * 3]
VOC = (0, 0, 0, 128, 0, 0, 0, 128, 0)


@pytest.mark.takes("Masks of pictures", "labels, 0 and 255, palettes, 1 bit, 16 bits, with transparency", "taken")
@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("a.png", LABELS, LABELS),
        ("a.png", WHITE, TWO),
        ("a.png", Image.fromarray(WHITE).convert("1"), TWO),
        ("a.tif", Image.fromarray(WHITE).convert("1"), TWO),
        ("a.bmp", WHITE, TWO),
        ("a.gif", LABELS, LABELS),
        ("a.pgm", WHITE, TWO),
        ("a.png", LABELS.astype(np.uint16), LABELS),
        ("a.png", TWO * np.uint16(65535), TWO),
        ("a.tif", LABELS.astype(np.int32), LABELS),
        ("a.tif", LABELS.astype(np.float32), LABELS),
        ("a.tif", WHITE.astype(np.float32), TWO),
        ("a.png", coloured(TWO, (0, 0, 0), (255, 255, 255)), TWO),
        ("a.png", coloured(LABELS, (0, 0, 0), (1, 0, 0), (2, 0, 0)), LABELS),
        ("a.png", palette(LABELS, *VOC), LABELS),
        ("a.png", palette(LABELS, *[0] * 768), LABELS),
        ("a.tif", palette(LABELS, *GREYS), LABELS),
        ("a.bmp", palette(LABELS, *VOC), LABELS),
        ("a.png", Image.fromarray(WHITE).convert("LA"), TWO),
        ("a.png", coloured(TWO, (0, 0, 0, 0), (0, 0, 0, 255)), TWO),
        ("a.png", coloured(TWO, (255, 255, 255, 0), (255, 255, 255, 255)), TWO),
        ("a.png", coloured(TWO, (0, 0, 0, 0), (255, 255, 255, 255)), TWO),
        ("a.tif", coloured(TWO, (0, 0, 0, 0), (255, 255, 255, 255)), TWO),
        ("a.png", coloured(TWO, (0, 0, 0, 90), (255, 255, 255, 90)), TWO),
        ("a.png", TWO * 0, TWO * 0),
    ],
)
def test_masks_are_decoded_as_what_they_are(tmp_path, name, stored, expected):
    mask = Case("a", "text", image_array=BLACK, mask_path=save(tmp_path / name, stored)).mask(3)
    assert mask.dtype == np.uint8 and np.array_equal(mask, expected)


@pytest.mark.takes("Masks of pictures", "grey values that are no labels, such as 0 and 128", "refused")
@pytest.mark.takes("Masks of pictures", "a mask that was smoothed when it was resized", "refused")
@pytest.mark.takes("Masks of pictures", "a JPEG or lossy WebP", "refused")
@pytest.mark.takes("Masks of pictures", "a mask in colours", "refused")
@pytest.mark.parametrize(
    ("name", "stored", "said"),
    [
        ("a.png", TWO * np.uint8(128), r"the values 0 \(38 pixels\), 128 \(16\); expected labels 0..2"),
        ("a.png", TWO * np.uint8(254), r"254 \(16\)"),
        ("a.png", LABELS * np.uint8(2), r"2 \(12\), 4 \(4\)"),
        ("a.png", TWO + (LABELS == 2) * np.uint8(254), r"values between 0 and 255: .*1 \(12\), 255 \(4\)"),
        ("a.png", Image.fromarray(WHITE).resize((18, 12), Image.Resampling.BILINEAR), "values between 0 and 255"),
        ("a.png", TWO * np.uint16(300), r"300 \(16\)"),
        ("a.tif", TWO * np.float32(0.5), r"0.5 \(16\), which are not whole"),
        ("a.tif", np.where(TWO, np.float32("nan"), 0).astype(np.float32), "nan .*not whole"),
        ("a.tif", TWO * np.int32(-1), r"-1 \(16 pixels\)"),
        ("a.jpg", TWO * 0, "JPEG or WebP has lost"),
        ("a.webp", Image.fromarray(WHITE), "JPEG or WebP has lost"),
        ("a.png", coloured(TWO, (0, 0, 0), (255, 0, 0)), r"in colours, \(0, 0, 0\) \(38 pixels\), \(255, 0, 0\) \(16"),
        ("a.png", coloured(TWO, (0, 0, 0), (0, 1, 0)), r"in colours, .*\(0, 1, 0\) \(16 pixels\)"),
        ("a.png", coloured(TWO, (0, 0, 0), (128, 0, 0)), r"128 \(16\); expected labels"),
        (
            "a.png",
            palette(TWO, 255, 255, 255, 0, 0, 0),
            r"which index .* 0: \(255, 255, 255, 255\), 1: \(0, 0, 0, 255\)",
        ),
        ("a.png", coloured(TWO, (255, 255, 255, 0), (0, 0, 0, 255)), "say different things"),
        ("a.png", coloured(TWO, (0, 0, 0, 0), (255, 255, 255, 0)), "say different things"),
        ("a.png", coloured(LABELS, (0, 0, 0, 0), *[(255, 255, 255, a) for a in (255, 0)]), "say different things"),
        ("a.png", coloured(TWO, (0, 0, 0, 0), (0, 0, 0, 90)), r"90 \(16\)"),
    ],
)
def test_masks_that_are_not_labels_are_refused_with_their_values(tmp_path, name, stored, said):
    path = save(tmp_path / name, stored)
    with pytest.raises(ValueError, match=rf"{name}.*{said}") as error:
        read_mask(path, 3)
    assert "\n" not in str(error.value)


@pytest.mark.takes("Masks of pictures", "a mask in which white is zero", "refused")
def test_what_a_header_says_of_the_values(tmp_path):
    with pytest.raises(ValueError, match='a.tif: the mask says "white is zero"'):
        read_mask(tiff(tmp_path / "a.tif", WHITE, {262: (0,)}))
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 9\n\0\1")
    with pytest.raises(ValueError, match="a.pgm: the mask counts to another maximum"):
        read_mask(tmp_path / "a.pgm")
    with pytest.raises(ValueError, match="a.png: .*RGB of 16 bits"):
        read_mask(deep_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint16)))
    save(tmp_path / "jpeg.tif", WHITE, compression="jpeg")
    with pytest.raises(ValueError, match="jpeg.tif: .*has lost"):
        read_mask(tmp_path / "jpeg.tif")


@pytest.mark.parametrize("options", [{"transparency": 1}, {"transparency": b"\xff\0"}, {"transparency": b"\xfe\0"}])
def test_a_palette_whose_second_entry_is_the_transparent_one(tmp_path, options):
    with pytest.raises(ValueError, match="which index of the mask's palette is background"):
        read_mask(save(tmp_path / "a.png", palette(TWO, 9, 9, 9, 8, 8, 8), **options))


def test_classes_of_arrays_are_checked_where_they_are_told():
    case = Case("a", "text", image_array=BLACK, mask_array=LABELS)
    assert case.mask() is LABELS and case.pair(3)[1] is LABELS
    with pytest.raises(ValueError, match=r"case 'a': mask has the values 0 \(38 pixels\), 1 \(12\), 2 \(4\); expected"):
        case.pair(2)


def test_labels_from_grey_by_hand():
    assert labels_from_grey(np.array([[0, 255]], np.uint8), "here").tolist() == [[0, 1]]
    assert labels_from_grey(np.array([[255, 255]], np.uint8), "here").tolist() == [[1, 1]]
    assert labels_from_grey(np.array([[0, 254]], np.uint8), "here").tolist() == [[0, 254]]
    with pytest.raises(ValueError, match="here: mask has values between"):
        labels_from_grey(np.array([[255, 254]], np.uint8), "here")


# --- written ---------------------------------------------------------------------------------------------


def test_labels_that_are_no_label_map_are_refused(tmp_path):
    for array, said in (
        (np.zeros((1, 3, 4)), "two dimensions"),
        (np.full((3, 4), 256), "0 to 255"),
        (np.zeros((0, 4)), "two dimensions"),
    ):
        with pytest.raises(ValueError, match=said):
            write_mask(array, tmp_path / "o.png")
    assert not list(tmp_path.iterdir())


def test_a_mask_of_an_upright_picture_carries_no_exif(tmp_path):
    write_mask(LABELS, tmp_path / "o.png", like=save(tmp_path / "a.jpg", BLACK))
    assert b"eXIf" not in (tmp_path / "o.png").read_bytes()
    with Image.open(tmp_path / "o.png") as written:
        assert written.mode == "L" and np.array_equal(np.asarray(written), LABELS)
