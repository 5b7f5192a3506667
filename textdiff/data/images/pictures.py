"""Picture files in; pixels as every viewer shows them out: upright, whole, RGB, 8 bits. Or what is wrong with the file.

PNG, and TIFF with deflate, carry checksums, which are verified to the end. JPEG, WebP, GIF, BMP and other kinds of TIFF carry
none: a changed bit that still decodes cannot be seen there.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from textdiff.base.limits import need_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
PICTURE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff"),
    *(".bmp", ".dib", ".gif", ".webp", ".pbm", ".pgm", ".ppm", ".pnm"),
}
# Tags of TIFF, and of EXIF, which is one
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, BIT_ORDER = 256, 257, 258, 259, 262, 266
ORIENTATION, SAMPLES, SUB_IFDS, FORMAT = 274, 277, 330, 339
COPIES = 16  # bytes of memory for one pixel: it is decoded, turned, converted, and copied, with up to 4 bytes each time
DEFLATE = (8, 32946)  # values of COMPRESSION
PARTS = ((273, 324), (279, 325))  # places and sizes of strips, or of tiles
# How a stored picture is turned to stand upright, by its EXIF orientation: names of PIL's transpositions
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
BACK = TURNS | {6: TURNS[8], 8: TURNS[6]}
NOT_RGB = {
    "CMYK": "CMYK, colours for print",
    "YCbCr": "YCbCr, a film's colours",
    "LAB": "CIE Lab",
    "HSV": "HSV",
    "F": "32-bit numbers with fractions",
}


@dataclass(frozen=True)
class Decoded:
    """All that is needed of a file: its pixels, upright, in PIL's mode; and what its header says.

    bits: of one channel. inverted: TIFF's "white is zero", which PIL undoes for up to 8 bits. lossy: JPEG or WebP.
    scaled: the decoder has stretched the file's values to the whole range of the mode.
    """

    pixels: Image
    bits: int
    inverted: bool
    lossy: bool
    scaled: bool


def read_picture(path: str | Path, mode: Literal["RGB", "L"] = "RGB") -> np.ndarray:
    """The picture in a file as uint8, `mode` "RGB" -> [H, W, 3] or "L" (grey) -> [H, W].

    It is upright, as its EXIF orientation says, in every format. Transparent pixels are laid on white; grey of 16 bits is
    brought to 8 from the smallest of the ranges of 8, 10, 12, 14 and 16 bits that holds its values (0..4095 for a 12-bit
    camera); of a TIFF pyramid the largest page is taken. Each of these is said in a warning.

    Raises FileNotFoundError; ValueError that names the file and what would be right: no picture, damaged, too large,
    several pages or frames, colours of 16 bits, CMYK, Lab or fractions.
    """
    from PIL import Image as images

    decoded = decode(path)
    picture = decoded.pixels
    _check_colours(path, decoded)
    if picture.mode.startswith("I"):
        picture = images.fromarray(_to_8_bits(path, decoded))
    elif picture.has_transparency_data:
        picture = _on_white(path, picture.convert("RGBA"))
    return np.array(picture.convert("RGB").convert(mode), dtype=np.uint8)


def picture_frame(path: str | Path) -> tuple[tuple[int, int], int]:
    """((height, width) of the upright picture, EXIF orientation 1 to 8) from a file's header. Errors name the file."""
    with _opened(Path(path).expanduser()) as picture:
        _choose_page(path, picture)
        (width, height), turn = _stored_size(picture), _orientation(path, picture)
        return ((width, height) if turn > 4 else (height, width)), turn


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the upright picture, from the file's header. Errors name the file."""
    return picture_frame(path)[0]


def decode(path: str | Path) -> Decoded:
    """The whole picture in a file, in its own mode. Raises what `read_picture` raises, apart from its colours."""
    path = Path(path).expanduser()
    with _opened(path) as picture:
        if said := _choose_page(path, picture):
            warnings.warn(said, stacklevel=3)
        about = _about(path, picture)
        width, height = picture.size
        need_bytes(COPIES * width * height, path, f"its {width} x {height} pixels")
        _verify(path, picture)
        picture.load()  # turns a TIFF upright
        upright = picture if picture.format == "TIFF" else turned(picture, TURNS.get(_orientation(path, picture)))
        return Decoded(upright.convert("LA") if upright.mode == "La" else upright.copy(), **about)


def turned(picture: Image, turn: str | None) -> Image:
    """The picture after one of PIL's transpositions, by name; None leaves it."""
    from PIL.Image import Transpose

    return picture.transpose(Transpose[turn]) if turn else picture


def rgb_array(image: object) -> np.ndarray:
    """A picture given as an array, as uint8 [H, W, 3]; grey [H, W] is repeated.

    Raises ValueError that says what would be right for any other type, shape or range.
    """
    if not isinstance(image, np.ndarray):
        how = "np.asarray(image.convert('RGB'))" if hasattr(image, "getbands") else "np.asarray(image), channels last"
        raise ValueError(f"an image is a file or a numpy array, not a {type(image).__name__}: give {how}")
    if image.dtype == np.uint8 and image.size and (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    raise ValueError(
        f"an image is uint8 [H, W, 3] or [H, W], values 0..255; got {image.dtype} {image.shape}{_what_to_do(image)}"
    )


def _what_to_do(image: np.ndarray) -> str:
    shape = image.shape
    if not image.size or image.ndim not in (2, 3):
        return ": give one picture, without further axes" if image.size else ": it is empty"
    if image.ndim == 3 and shape[2] != 3:
        if shape[0] in (1, 3, 4):
            return ": channels come last, np.moveaxis(image, 0, -1)"
        return ": leave out what is no colour, image[..., 0] or image[..., :3]"
    if image.dtype == bool:
        return ": image * np.uint8(255)"
    low, high = image.min(), image.max()
    said = f", values {low} to {high}"
    if image.dtype.kind == "f" and 0 <= low and high <= 1:
        return f"{said}: (image * 255).round().astype(np.uint8)"
    if 0 <= low and high <= 255:
        return f"{said}: image.round().astype(np.uint8)"
    return f"{said}: bring the range that matters to 0..255 and round"


# --- the file --------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """A picture file whose pixels are not read yet; what goes wrong with it names the file."""
    from PIL import Image as images

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        try:
            # By name, PIL would map a plain TIFF into memory, and mistake its sides where it is to be turned
            with open(path, "rb") as file, images.open(file, formats=FORMATS) as picture:
                try:
                    yield picture
                except Exception as error:  # whose frames would keep the pixels until the next collection of garbage
                    clear_frames(error.__traceback__)
                    raise
                finally:
                    picture.close()
        except FileNotFoundError:
            raise FileNotFoundError(f"no such picture: {path}") from None
        except images.UnidentifiedImageError:
            raise ValueError(f"cannot read {path}: it {_kind_of(path)}") from None
        except images.DecompressionBombError:
            raise ValueError(
                f"{path} is larger than the {2 * (images.MAX_IMAGE_PIXELS or 0):,} pixels that are read at once: cut out the "
                "part that matters, or save it smaller"
            ) from None
        except ValueError as error:  # PIL's do not name the file
            raise error if str(path) in str(error) else ValueError(f"cannot read {path}: {error}") from error
        except MemoryError:
            raise
        except Exception as error:  # decoders of damaged files raise many kinds
            if isinstance(error, OSError) and error.strerror:
                raise ValueError(f"cannot read {path}: {error.strerror}") from None
            said = error if isinstance(error, (OSError, SyntaxError)) else f"it is damaged ({error!r})"
            raise ValueError(f"cannot read {path}: {said}. Copy it anew, or save it anew as PNG") from error


def _kind_of(path: Path) -> str:
    """What a file is that PIL does not know, and what to do."""
    with open(path, "rb") as file:
        head = file.read(352)
    known = "PNG, JPEG, TIFF, BMP, GIF, WebP or PNM"
    if not head:
        return "is empty (0 bytes)"
    if head[128:132] == b"DICM":
        return "is DICOM: save the picture as PNG, or give a scan as a volume"
    if head[:2] == b"\x1f\x8b" or head[344:347] in (b"n+1", b"ni1"):
        return "is no picture; a scan (NIfTI) is given as a volume"
    if head[4:8] == b"ftyp":
        return "is HEIC or AVIF, which is not read: save it as PNG or JPEG"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8")):
        return "is damaged, or of a kind that is not read (such as 64-bit numbers): save it anew as PNG"
    return f"is no picture of a kind that is read here: save it as {known}"


def _stored_size(picture: Image) -> tuple[int, int]:
    """(width, height) as the pixels lie in the file; some releases of PIL have swapped them already for TIFF."""
    tags = getattr(picture, "tag_v2", None)
    return (int(tags[WIDTH]), int(tags[HEIGHT])) if tags else picture.size


def _about(path: str | Path, picture: Image) -> dict[str, Any]:
    """What the header says: fields of `Decoded`."""
    tags = getattr(picture, "tag_v2", {})
    how = getattr(picture, "tile", None) or [("", (), 0, "")]  # decoder, place, and how the pixels are packed
    bits = max(tags.get(BITS, (1,))) if tags else 16 if _is_deep(how[0][0], how[0][3]) else 8
    if tags.get(SAMPLES, 1) > len(picture.getbands()):
        raise ValueError(f"{path} has {tags[SAMPLES]} channels: save it as grey, RGB or RGBA")
    if bits == 8 and set(tags.get(FORMAT, (1,))) == {2}:
        raise ValueError(f"{path} holds signed numbers of 8 bits: save it with values 0 to 255")
    compression = str(picture.info.get("compression", ""))
    lossy = picture.format in ("JPEG", "MPO", "WEBP") or "jpeg" in compression or "webp" in compression
    return {"bits": bits, "inverted": tags.get(PHOTOMETRIC) == 0, "lossy": lossy, "scaled": how[0][0] == "ppm"}


def _is_deep(decoder: str, packed: Any) -> bool:
    """Whether PIL unpacks 16 bits a channel: "RGB;16B" of PNG, ("RGB", 65535) of PNM. Of BMP the number is a row's bytes."""
    largest = packed[1] if decoder.startswith("ppm") and isinstance(packed, tuple) else 0
    return ";16B" in str(packed) or isinstance(largest, int) and largest > 255


def _orientation(path: str | Path, picture: Image) -> int:
    from PIL.Image import Image

    if picture.format == "TIFF":
        value = picture.tag_v2.get(ORIENTATION, 1)  # type: ignore[attr-defined]
    elif picture.format == "PNG" and "exif" not in picture.info and not _has_exif(path):
        value = Image.getexif(picture).get(ORIENTATION)  # PNG's own would decode the pixels to look behind them
    else:
        try:
            value = picture.getexif().get(ORIENTATION)
        except SyntaxError:  # no EXIF, though it is called so; viewers pass over it
            value = 1
    return value if value in TURNS else 1


def _has_exif(path: str | Path) -> bool:
    """Whether a PNG has an eXIf chunk, be it behind the pixels."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return True
            file.seek(length + 4, 1)
    return False


def _verify(path: Path, picture: Image) -> None:
    """Raises OSError where a checksum of the file is wrong; the decoders of PNG and TIFF stop before they come to it."""
    if picture.format == "PNG":
        from PIL import Image as images

        with images.open(path, formats=("PNG",)) as other:  # verify() leaves a picture that cannot be decoded
            other.verify()
    if picture.format != "TIFF":
        return
    tags, file = picture.tag_v2, picture.fp  # type: ignore[attr-defined]
    checked = tags.get(COMPRESSION) in DEFLATE and tags.get(BIT_ORDER, 1) == 1
    places, sizes = (tags[strips] if strips in tags else tags.get(tiles, ()) for strips, tiles in PARTS)
    for place, size in zip(places, sizes, strict=False):  # some writers give no sizes of plain pixels
        if place + size > path.stat().st_size:
            raise OSError("image file is truncated")
        if not checked:
            continue
        file.seek(place)
        stream = zlib.decompressobj()
        try:
            stream.decompress(file.read(size), COPIES * picture.size[0] * picture.size[1] + 2**20)
        except zlib.error as error:
            raise OSError(f"its checksum is wrong ({error})") from error
        if not stream.eof:
            raise OSError("it is damaged (the compressed pixels end too early, or go on without end)")


# --- pages -----------------------------------------------------------------------------------------------


def _choose_page(path: str | Path, picture: Image) -> str:
    """Go to the page that is the picture; what is to be said of it. A JPEG's further ones (MPO) are previews or for the other eye."""
    frames = getattr(picture, "n_frames", 1)
    if picture.format == "TIFF":
        return _choose_level(path, picture, frames)
    if frames > 1 and picture.format != "MPO":
        raise ValueError(f"{path} has {frames} frames: save the one that is meant as a picture of its own")
    return ""


def _choose_level(path: str | Path, picture: Image, frames: int) -> str:
    """Of a pyramid the largest level: all others have its shape and are smaller."""
    sizes = []
    for page in range(frames):
        picture.seek(page)
        sizes.append(_stored_size(picture))
    largest = max(range(frames), key=lambda page: sizes[page][0] * sizes[page][1])
    width, height = sizes[largest]
    others = [size for page, size in enumerate(sizes) if page != largest]
    pages = ", ".join(f"{i}: {w}x{h}" for i, (w, h) in enumerate(sizes[:12], start=1))
    pages += ", ..." if frames > 12 else ""
    for w, h in others:
        # a level's sides are whole numbers: they may be off by one
        if w >= width or h >= height or abs(w * height - h * width) > max(width, height):
            raise ValueError(
                f"{path} has {frames} pages (width x height, {pages}), and which is meant cannot be told: save it as a picture "
                "of its own"
            )
    picture.seek(largest)
    for w, h in _inner_sizes(picture):
        if w >= width or h >= height:
            raise ValueError(
                f"{path}: behind its page of {width}x{height} lies another picture of {w}x{h} (width x height): save the one "
                "that is meant as a picture of its own"
            )
    return f"{path} has {frames} pages (width x height, {pages}): page {largest + 1} is read" if others else ""


def _inner_sizes(picture: Image) -> list[tuple[int, int]]:
    """Sizes (width, height) of the pictures that hang on a TIFF page (SubIFDs): levels, or the raw picture of a camera."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file: Any = picture.fp  # type: ignore[attr-defined]
    offsets = picture.tag_v2.get(SUB_IFDS, ())  # type: ignore[attr-defined]
    file.seek(0)
    head = file.read(8)
    if head[2] == 43:
        head += file.read(8)
        offsets = offsets or _inner_of_big(file, picture.tell())
    sizes = []
    for offset in offsets if isinstance(offsets, tuple) else (offsets,):
        inner = ImageFileDirectory_v2(head)
        file.seek(offset)
        inner.load(file)
        sizes.append((int(inner.get(WIDTH, 0)), int(inner.get(HEIGHT, 0))))
    return sizes


def _inner_of_big(file: Any, page: int) -> tuple[int, ...]:
    """Where the inner pictures of a page of a BigTIFF are: PIL passes over tags whose values are places of 8 bytes (IFD8)."""
    file.seek(8)
    for _ in range(page + 1):
        file.seek(*struct.unpack("<Q", file.read(8)))
        (count,) = struct.unpack("<Q", file.read(8))
        entries = file.read(20 * count)
    for tag, _, number, value in struct.iter_unpack("<HHQQ", entries):
        if tag == SUB_IFDS and number == 1:
            return (value,)
        if tag == SUB_IFDS:
            file.seek(value)
            return struct.unpack(f"<{number}Q", file.read(8 * number))
    return ()


# --- colours ---------------------------------------------------------------------------------------------


def _check_colours(path: str | Path, decoded: Decoded) -> None:
    mode = decoded.pixels.mode
    if mode in NOT_RGB:
        raise ValueError(f"{path}: its colours are {NOT_RGB[mode]}: convert it to RGB of 8 bits, for example as PNG")
    if decoded.bits > 8 and not mode.startswith("I"):
        raise ValueError(
            f"{path} has colours of {decoded.bits} bits, which are not read: bring the range that matters to 8 bits"
        )


def _to_8_bits(path: str | Path, decoded: Decoded) -> np.ndarray:
    values = np.asarray(decoded.pixels).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or "transparency" in decoded.pixels.info:
        what = "a transparent grey" if 0 <= low and high <= 65535 else f"values {low} to {high}"
        raise ValueError(f"{path} has grey of more than 8 bits and {what}: bring the range that matters to 0..255")
    top = 65535 if decoded.scaled else next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    said = f"{path}: grey of 16 bits, values {low} to {high}; 0..{top} becomes {'255..0' if decoded.inverted else '0..255'}"
    warnings.warn(f"{said}. For another range save it with 8 bits", stacklevel=3)
    grey = np.round(values * (255 / top)).astype(np.uint8)
    return 255 - grey if decoded.inverted else grey


def _on_white(path: str | Path, rgba: Image) -> Image:
    from PIL import Image as images

    alpha = np.asarray(rgba)[..., 3]
    if alpha.min() == 255:
        return rgba.convert("RGB")
    colours = np.asarray(rgba)[..., :3]
    if alpha.max() == 0 and (colours != colours[0, 0]).any():
        raise ValueError(f"{path} is wholly transparent, and yet a picture: save it without transparency (alpha)")
    warnings.warn(f"{path}: {(alpha < 255).mean():.1%} of it is transparent, and laid on white", stacklevel=3)
    return images.alpha_composite(images.new("RGBA", rgba.size, "white"), rgba)
