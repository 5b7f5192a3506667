"""A picture with mask and sentence (`Case`), a whole data set (`Dataset`): paths or arrays in, arrays out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from textdiff.data.entries import DatasetEntry

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """A picture file whose pixels are not read yet; what goes wrong with it names the file."""
    from PIL import Image as images

    try:
        with images.open(path) as picture:
            yield picture
    except FileNotFoundError:
        raise FileNotFoundError(f"no such picture: {path}") from None
    except (OSError, SyntaxError, images.DecompressionBombError) as error:  # PIL reports broken PNGs as SyntaxError
        raise ValueError(f"cannot read {path}: {error}") from error


def read_picture(path: Path, mode: str) -> np.ndarray:
    """Decode a whole 8-bit picture file as uint8, `mode` "RGB" -> [H, W, 3] or "L" -> [H, W].

    Raises ValueError that names a file which cannot be decoded or is not 8-bit; FileNotFoundError.
    """
    with _opened(path) as picture:
        if picture.mode not in IMAGE_MODES:
            raise ValueError(f"{path}: pixel mode {picture.mode} is not 8-bit; expected one of {IMAGE_MODES}")
        return np.array(picture.convert(mode), dtype=np.uint8)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding the pixels. Errors name the file."""
    with _opened(path) as picture:
        return picture.height, picture.width


def labels_from_grey(grey: np.ndarray, where: object) -> np.ndarray:
    """Turn stored mask values into labels 0..K-1: {0, 255} becomes {0, 1}, other labels stay as they are.

    Raises ValueError when 255 stands beside other non-zero values: such a mask was blurred or compressed with loss.
    """
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    if 255 not in values:
        return grey
    between = [int(value) for value in values if 0 < value < 255]
    if between:
        raise ValueError(
            f"{where}: mask has values between 0 and 255 (for example {between[:3]}); "
            "expected only 0 and 255, or labels 0..K-1. Was it resized or saved as JPEG?"
        )
    return (grey == 255).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """A picture, its mask (if any) and its sentence, either as files or as arrays (synthetic cases)."""

    name: str
    caption: str
    image_path: Path | None = None
    mask_path: Path | None = None
    image_array: np.ndarray | None = field(default=None, repr=False, compare=False)
    mask_array: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a case needs a name")
        if self.image_path is None and self.image_array is None:
            raise ValueError(f"case {self.name!r} has neither image_path nor image_array")

    def image(self) -> np.ndarray:
        """The picture as uint8 [H, W, 3], RGB, 0..255 (grey is repeated). Errors name the file."""
        if self.image_array is not None:
            return self.image_array
        assert self.image_path is not None
        return read_picture(self.image_path, "RGB")

    @property
    def labelled(self) -> bool:
        """Whether the case has a mask."""
        return self.mask_path is not None or self.mask_array is not None

    def mask(self) -> np.ndarray:
        """The mask as uint8 [H, W], values 0..K-1. ValueError when there is none; errors name the file."""
        if self.mask_array is not None:
            return self.mask_array
        if self.mask_path is None:
            raise ValueError(f"case {self.name!r} has no mask (it is an unlabelled image)")
        return labels_from_grey(read_picture(self.mask_path, "L"), self.mask_path)

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Picture and mask together; raises ValueError when their sizes differ."""
        image, mask = self.image(), self.mask()
        if image.shape[:2] != mask.shape:
            raise ValueError(
                f"case {self.name!r}: image {self.image_path or ''} is {image.shape[0]}x{image.shape[1]} "
                f"but mask {self.mask_path or 'array'} is {mask.shape[0]}x{mask.shape[1]} (height x width); "
                "they must be equal"
            )
        return image, mask

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the pixels of the picture, whatever file format holds them."""
        image = np.ascontiguousarray(self.image(), dtype=np.uint8)
        return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()[:16]

    def without_mask(self) -> Case:
        """The same case as an unlabelled one."""
        return replace(self, mask_path=None, mask_array=None)


Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Splits(Generic[Kept]):
    """The cases of a data set. task: its entry in the registry (of volumes: narrowed to the structures asked for)."""

    task: DatasetEntry
    train: list[Kept]
    val: list[Kept]
    test: list[Kept]

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self.task.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Background first."""
        return self.task.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_names)

    @property
    def synthetic(self) -> bool:
        """Whether the cases are drawn by this package."""
        return self.task.synthetic

    @property
    def licence(self) -> str:
        """Under what terms the data may be used."""
        return self.task.licence


@dataclass(frozen=True)
class Dataset(Splits[Case]):
    """A data set of pictures. `unlabelled`: training images only, never validation or test images."""

    unlabelled: list[Case]
