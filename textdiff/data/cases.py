"""A picture with mask and sentence (`Case`), a whole data set (`Dataset`): paths or arrays in, arrays out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from textdiff.data.entries import DatasetEntry
from textdiff.data.images.masks import check_labels, label_map, labels_from_grey, read_mask
from textdiff.data.images.pictures import picture_size, read_picture

__all__ = ["Case", "Dataset", "Splits", "labels_from_grey", "picture_size", "read_picture"]


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

    def mask(self, num_classes: int | None = None) -> np.ndarray:
        """The mask as uint8 [H, W], values 0..K-1, upright as the picture is.

        Raises ValueError when there is none, or a label is not of `num_classes` classes (if told); errors name the file.
        """
        if self.mask_array is not None:
            labels = label_map(self.mask_array, f"case {self.name!r}")
            if num_classes is not None:
                check_labels(labels, num_classes, f"case {self.name!r}")
            return labels
        if self.mask_path is None:
            raise ValueError(f"case {self.name!r} has no mask (it is an unlabelled image)")
        return read_mask(self.mask_path, num_classes)

    def pair(self, num_classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Picture and mask together; raises ValueError when their sizes differ, and what `mask` raises."""
        image, mask = self.image(), self.mask(num_classes)
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
