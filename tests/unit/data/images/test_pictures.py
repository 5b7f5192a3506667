"""Picture files: read as every viewer shows them, or refused with the file's name and what to do."""

from __future__ import annotations

import gc
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from little_pictures import UPRIGHT, chunk, deep_png, save, tiff
from PIL import EpsImagePlugin, Image

from textdiff.base.limits import TooLargeError
from textdiff.data.cases import Case
from textdiff.data.images.pictures import picture_frame, picture_size, read_picture, rgb_array

DRAW = np.random.default_rng(0)
COLOURS = DRAW.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = DRAW.integers(0, 256, (6, 9), dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_warnings():
    """A picture that is read as it is gives none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- upright ---------------------------------------------------------------------------------------------


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    """Where exiftool used to write it."""
    path = save(tmp_path / "a.png", COLOURS, 6)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    exif = content[start : content.index(b"IDAT") - 4]
    path.write_bytes(content[:start] + content[start + len(exif) : -12] + exif + content[-12:])
    assert picture_frame(path) == ((9, 6), 6)
    assert np.array_equal(read_picture(path), UPRIGHT[6](COLOURS))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientations_that_are_none_turn_nothing(tmp_path, value):
    for name in ("a.png", "a.tif"):
        path = save(tmp_path / name, COLOURS, value)
        assert picture_frame(path) == ((6, 9), 1) and np.array_equal(read_picture(path), COLOURS)


def test_a_broken_exif_is_no_orientation(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=b"Exif\0\0neither end of it")
    assert np.array_equal(read_picture(tmp_path / "a.png"), COLOURS)


# --- more bits -------------------------------------------------------------------------------------------


@pytest.mark.takes("Pictures", "grey of 16 bits", "taken, and said")
@pytest.mark.parametrize(("high", "top"), [(200, 255), (256, 1023), (4095, 4095), (4096, 16383), (65535, 65535)])
def test_grey_of_16_bits_is_scaled_by_the_bits_that_it_fills_and_that_is_said(tmp_path, high, top):
    values = np.linspace(0, high, 54).round().astype(np.uint16).reshape(6, 9)
    for path in (deep_png(tmp_path / "a.png", values[..., None]), save(tmp_path / "a.tif", values)):
        with pytest.warns(
            UserWarning, match=rf"{path.name}: grey of 16 bits, values 0 to {high}; 0..{top} becomes 0..255"
        ):
            image = Case("a", "text", image_path=path).image()
        assert np.array_equal(image[..., 1], np.round(values * (255 / top)))


def test_eight_bits_that_were_stretched_to_16_come_back(tmp_path):
    with pytest.warns(UserWarning, match="0..65535"):
        assert np.array_equal(read_picture(deep_png(tmp_path / "a.png", GREY[..., None] * np.uint16(257)), "L"), GREY)


def test_white_is_zero_in_16_bits_too(tmp_path):
    path = tiff(tmp_path / "a.tif", GREY.astype(np.uint16) * 16, {262: (0,)})
    with pytest.warns(UserWarning, match="0..4095 becomes 255..0"):
        image = read_picture(path, "L")
    assert image.argmax() == GREY.argmin()
    assert np.array_equal(read_picture(tiff(path, GREY, {262: (0,)}), "L"), 255 - GREY)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bmp_of_a_usual_size_is_no_picture_of_16_bits(tmp_path, mode):
    """What stands in the place of PNM's largest value is the number of bytes in a row."""
    grey = Image.fromarray(np.tile(np.arange(300, dtype=np.uint8), (40, 1)))
    grey.convert(mode).resize((3000, 40)).save(tmp_path / "a.bmp")
    assert read_picture(tmp_path / "a.bmp", "RGB").shape == (40, 3000, 3)


def test_bmp_with_565_bits_is_no_picture_of_16(tmp_path):
    pixels = np.zeros((2, 2), "<u2") + 0xF800
    head = (40).to_bytes(4, "little") + b"\2\0\0\0\2\0\0\0\1\0\x10\0\3\0\0\0" + bytes(20)
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x07E0, 0x001F))
    body = head + masks + pixels.tobytes()
    (tmp_path / "a.bmp").write_bytes(b"BM" + (14 + len(body)).to_bytes(4, "little") + bytes(4) + b"\x42\0\0\0" + body)
    assert (read_picture(tmp_path / "a.bmp") == [255, 0, 0]).all()


# --- transparency ----------------------------------------------------------------------------------------


@pytest.mark.takes("Pictures", "transparent pixels: laid on white", "taken, and said")
def test_transparent_pixels_are_white_and_that_is_said(tmp_path):
    pixels = np.dstack([COLOURS, np.full((6, 9), 255, np.uint8)])
    assert np.array_equal(read_picture(save(tmp_path / "opaque.png", pixels)), COLOURS)
    pixels[:3, :, 3] = 0
    for path in (save(tmp_path / "a.png", pixels), save(tmp_path / "a.tif", pixels)):
        with pytest.warns(UserWarning, match=rf"{path.name}: 50.0% of it is transparent, and laid on white"):
            image = read_picture(path)
        assert (image[:3] == 255).all() and np.array_equal(image[3:], COLOURS[3:])


def test_a_transparent_index_and_grey_with_alpha(tmp_path):
    indexed = Image.fromarray((GREY > 99).astype(np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray((GREY > 99) * np.uint8(255))])
    indexed.save(tmp_path / "p.png", transparency=0)
    grey.save(tmp_path / "la.png")
    with pytest.warns(UserWarning, match="transparent"):
        assert (read_picture(tmp_path / "p.png")[GREY <= 99] == 255).all()
        assert (read_picture(tmp_path / "la.png", "L") == np.where(GREY > 99, GREY, 255)).all()


# --- pages -----------------------------------------------------------------------------------------------


@pytest.mark.takes("Pictures", "a TIFF with one picture in several sizes: the largest is read", "taken, and said")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_a_pyramid_the_largest_page_is_read_and_that_is_said(tmp_path, order):
    big = DRAW.integers(0, 256, (60, 91, 3), dtype=np.uint8)
    levels = [Image.fromarray(big).resize(size) for size in ((91, 60), (46, 30), (9, 6))]
    first, *others = (levels[i] for i in order)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert picture_size(tmp_path / "a.tif") == (60, 91)
    with pytest.warns(UserWarning, match=rf"3 pages .*91x60.*: page {order.index(0) + 1} is read"):
        assert np.array_equal(read_picture(tmp_path / "a.tif"), big)


@pytest.mark.takes("Pictures", "a TIFF with several pictures", "refused")
@pytest.mark.parametrize("size", [(9, 6), (5, 6), (9, 3), (4, 1)])
def test_pages_that_are_no_levels_are_listed(tmp_path, size):
    Image.fromarray(COLOURS).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", size)])
    for read in (read_picture, picture_size):
        with pytest.raises(ValueError, match=rf"a.tif has 2 pages .*1: 9x6, 2: {size[0]}x{size[1]}"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webp"])
def test_moving_pictures_are_refused(tmp_path, name):
    Image.fromarray(COLOURS).save(tmp_path / name, save_all=True, append_images=[Image.fromarray(255 - COLOURS)])
    with pytest.raises(ValueError, match=f"{name} has 2 frames"):
        read_picture(tmp_path / name)


def test_of_a_picture_for_two_eyes_the_first_is_read(tmp_path):
    options = {"save_all": True, "append_images": [Image.new("RGB", (9, 6))], "quality": 100}
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", format="MPO", **options)
    Image.fromarray(COLOURS).save(tmp_path / "b.jpg", quality=100)
    assert np.array_equal(read_picture(tmp_path / "a.jpg"), read_picture(tmp_path / "b.jpg"))


@pytest.mark.takes("Pictures", "a small page that hides a larger picture behind it", "refused")
@pytest.mark.parametrize(("size", "refused"), [((18, 12), True), ((4, 3), False)])
def test_a_larger_picture_behind_a_page_is_not_passed_over(tmp_path, size, refused):
    path = tiff(tmp_path / "a.tif", GREY, {330: (400,)})
    inner = b"".join(struct.pack("<HHII", tag, 3, 1, side) for tag, side in zip((256, 257), size, strict=True))
    path.write_bytes(path.read_bytes().ljust(400, b"\0") + b"\2\0" + inner + bytes(4))
    if refused:
        with pytest.raises(ValueError, match=r"behind its page of 9x6 lies another picture of 18x12"):
            read_picture(path)
    else:
        assert np.array_equal(read_picture(path, "L"), GREY)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_pyramids_as_microscopes_write_them(tmp_path, bigtiff):
    """OME-TIFF: the levels hang on the page, the full one in front; the other way round it is a thumbnail."""
    tifffile = pytest.importorskip("tifffile", reason="writes the file")
    levels = [np.ascontiguousarray(COLOURS[::step, ::step]) for step in (1, 2, 3)]
    for name, order in (("a.tif", (0, 1)), ("b.tif", (0, 1, 2)), ("c.tif", (1, 0)), ("d.tif", (1, 2, 0))):
        with tifffile.TiffWriter(tmp_path / name, bigtiff=bigtiff) as writer:
            for place, level in enumerate(order):
                options = {"subfiletype": 1} if place else {"subifds": len(order) - 1}
                writer.write(levels[level], photometric="rgb", **options)
    for name in ("a.tif", "b.tif"):
        assert np.array_equal(read_picture(tmp_path / name), COLOURS)
    for name in ("c.tif", "d.tif"):
        with pytest.raises(ValueError, match=f"{name}: behind its page of 5x3 lies another picture of 9x6"):
            read_picture(tmp_path / name)


# --- what is refused -------------------------------------------------------------------------------------

BIG = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\x40\0\0\0\x40\0\x08\0\0\0\0") + chunk(b"IDAT", b"")
CONTENTS = {
    "empty.png": (b"", r"is empty \(0 bytes\)"),
    "text.png": (b"no picture at all", "save it as PNG, JPEG"),
    "scan.png": (bytes(128) + b"DICM" + bytes(300), "is DICOM.* volume"),
    "scan.jpg": (b"\x1f\x8b\x08" + bytes(300), "NIfTI.* volume"),
    "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(300), "HEIC"),
    "none.png": (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(8) + b"\x08\0\0\0\0"), "damaged"),
    "big.png": (BIG, "larger than the 178,956,970 pixels"),
}


@pytest.mark.takes("Pictures", "DICOM, NIfTI or HEIC with the suffix of a picture", "refused")
@pytest.mark.parametrize("name", CONTENTS)
def test_files_that_are_no_picture_say_what_they_are(tmp_path, name):
    content, said = CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    for read in (read_picture, picture_size):
        with pytest.raises(ValueError, match=rf"{name}.*{said}") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value) and "DOS" not in str(error.value)


def test_no_file_or_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such picture: .*x.png"):
        read_picture(tmp_path / "x.png")
    with pytest.raises(ValueError, match="cannot read .*: Is a directory"):
        read_picture(tmp_path)


@pytest.mark.parametrize(
    ("mode", "name", "said"),
    [
        ("CMYK", "a.jpg", "CMYK"),
        ("CMYK", "a.tif", "CMYK"),
        ("YCbCr", "a.tif", "YCbCr"),
        ("LAB", "a.tif", "CIE Lab"),
        ("F", "a.tif", "fractions"),
    ],
)
def test_colours_that_are_not_rgb(tmp_path, mode, name, said):
    Image.new(mode, (9, 6)).save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: its colours are .*{said}.*: convert it to RGB"):
        read_picture(tmp_path / name)


@pytest.mark.takes("Pictures", "colours of 16 bits", "refused")
def test_colours_of_16_bits_and_other_channels(tmp_path):
    for channels in (2, 3, 4):
        path = deep_png(tmp_path / "a.png", np.zeros((2, 3, channels), np.uint16))
        with pytest.raises(ValueError, match="colours of 16 bits"):
            read_picture(path)
    for tags, said in (
        ({262: (2,), 277: (3,), 258: (16, 16, 16)}, "colours of 16 bits"),
        ({262: (2,), 277: (4,), 258: (8,) * 4, 338: (0,)}, "4 channels"),
        ({339: (2,)}, "signed"),
    ):
        channels = tags.get(277, (1,))[0]
        kind = np.uint16 if "16 bits" in said else np.uint8
        pixels = np.zeros((2, 3, channels) if channels > 1 else (2, 3), kind)
        with pytest.raises(ValueError, match=f"a.tif .*{said}"):
            read_picture(tiff(tmp_path / "a.tif", pixels, tags))
    with pytest.raises(ValueError, match="values -5 to 70000"):
        read_picture(save(tmp_path / "i.tif", np.array([[-5, 70000]], np.int32)))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4, 3)), r"float64 .*\(image \* 255\)"),
        (np.full((4, 4), 200.0), r"values 200.0 to 200.0: image.round\(\)"),
        (np.full((4, 4), 900, np.uint16), "uint16 .*values 900 to 900: bring the range"),
        (np.zeros((3, 9, 9), np.uint8), "channels come last"),
        (np.zeros((9, 9, 4), np.uint8), r"image\[\.\.\., :3\]"),
        (np.zeros((1, 9, 9, 3), np.uint8), "one picture"),
        (np.zeros((0, 9, 3), np.uint8), "empty"),
        (np.zeros((9, 9), bool), r"image \* np.uint8\(255\)"),
        (Image.new("RGB", (2, 2)), "not a Image: give np.asarray"),
        ([[0]], "not a list"),
    ],
)
def test_arrays_that_are_no_picture_say_what_would_be_right(image, said):
    with pytest.raises(ValueError, match=said):
        rgb_array(image)


def test_arrays_of_colour_and_grey():
    assert rgb_array(COLOURS) is COLOURS
    assert np.array_equal(rgb_array(GREY)[..., 2], GREY)


# --- damage ----------------------------------------------------------------------------------------------


@pytest.mark.takes("Pictures", "half a file, in any format", "refused")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "lzw.tif", "packbits.tif", "a.bmp", "a.gif", "a.webp"])
def test_half_a_file_is_never_half_a_picture(tmp_path, name, capfd):
    compression = (
        {} if name.startswith("a.") else {"compression": f"tiff_{name[:-4]}".replace("tiff_packbits", "packbits")}
    )
    path = save(tmp_path / name, DRAW.integers(0, 256, (40, 60, 3), dtype=np.uint8), **compression)
    content = path.read_bytes()
    half = len(content) // 2
    # PIL writes a TIFF's directory behind the pixels: here they end too early, and it is read
    path.write_bytes(content[:half] + (content[half : half + 9] if name == "a.tif" else b""))
    with pytest.raises(ValueError, match=f"cannot read .*{name}"):
        read_picture(path)
    assert not capfd.readouterr().err  # libraries say nothing beside


@pytest.mark.takes("Pictures", "a flipped bit in a PNG that would change pixels", "refused")
@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.tif", {"compression": "tiff_adobe_deflate"})])
def test_one_wrong_bit_is_seen_wherever_it_is(tmp_path, name, options):
    y, x = np.mgrid[:60, :60]
    pixels = ((x - 30) ** 2 + (y - 30) ** 2 < 400) * np.uint8(255)
    path = save(tmp_path / name, pixels, **options)
    content = path.read_bytes()
    passed = []
    for place in range(8, len(content) - 12 if name == "a.png" else content.rindex(b"x\x9c", 0, 40) + 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            passed.append(np.array_equal(read_picture(path, "L"), pixels))
        except ValueError as error:
            assert str(path) in str(error)
    assert all(passed)


# --- from strangers --------------------------------------------------------------------------------------


@pytest.mark.takes("Pictures", "another format than its name says, such as PostScript in a .png", "refused")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.eps"])
def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch, name):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n%%EOF\n")
    for read in (read_picture, picture_frame):
        with pytest.raises(ValueError, match=rf"cannot read .*{name}: it is no picture of a kind that is read here"):
            read(tmp_path / name)


@pytest.mark.takes("Pictures", "more pixels than memory holds", "refused")
def test_pixels_are_counted_before_they_are_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(TooLargeError, match="a.png: its 12000 x 12000 pixels would take 2.3 GB of memory"):
        read_picture(tmp_path / "a.png")
    assert picture_size(tmp_path / "a.png") == (12_000, 12_000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process holds is told by Linux")
def test_a_picture_that_failed_holds_no_memory(tmp_path):
    """Its pixels do not wait for the next collection of garbage: a folder of such files would fill the machine."""
    tall = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 60, 0, 0, 54, 40, 1, 1 << 24, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(tall + bytes(6))

    def held() -> float:
        return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1e3

    gc.disable()
    try:
        before = held()
        for _ in range(4):  # each takes 130 MB for a moment
            with pytest.raises(ValueError, match="a.bmp: image file is truncated"):
                read_picture(tmp_path / "a.bmp")
        assert held() < before + 200
    finally:
        gc.enable()


def test_a_strip_that_unpacks_without_end(tmp_path):
    packed = np.frombuffer(zlib.compress(bytes(10**8)), np.uint8)
    path = tiff(tmp_path / "a.tif", packed[None], {256: (9,), 257: (6,), 278: (6,), 259: (8,)})
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a.tif: .*go on without end"):
        read_picture(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7
