"""A volume with its labels (`VolumeCase`), a whole data set (`VolumeDataset`): files or arrays in, volumes out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from textdiff.data.cases import Splits
from textdiff.data.faults import counted
from textdiff.data.volumes.volume import Volume, check_pair, check_whole, read_image, read_labels, turned

MOST = 255  # the highest label


@dataclass(frozen=True)
class VolumeCase:
    """A volume and its labels, as files or (synthetic cases) in memory.

    label_path: one label map. masks: our label -> file with that structure alone, instead. values: value in
    the label map -> our label (None: it is numbered our way). structures: names of our labels 1..K, by which those of an RT
    structure set or a DICOM SEG as label_path are found. report: a sentence about this patient, if any.
    """

    name: str
    image_path: Path | None = None
    label_path: Path | None = None
    masks: Mapping[int, Path] = field(default_factory=dict, compare=False)
    values: Mapping[int, int] | None = field(default=None, compare=False)
    structures: tuple[str, ...] = field(default=(), compare=False)
    image_volume: Volume | None = field(default=None, repr=False, compare=False)
    label_volume: Volume | None = field(default=None, repr=False, compare=False)
    report: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a case needs a name")
        if self.image_path is None and self.image_volume is None:
            raise ValueError(f"case {self.name!r} has neither image_path nor image_volume")
        ours = [len(self.structures), *self.masks, *(self.values or {}).values()]
        if min(ours) < 0 or max(ours) > MOST:
            raise ValueError(
                f"case {self.name!r}: its labels are numbered {min(ours)} to {max(ours)}; they go from 0 to {MOST}"
            )

    @property
    def labelled(self) -> bool:
        """Whether the case has labels."""
        return self.label_path is not None or bool(self.masks) or self.label_volume is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files behind the case; none for a case in memory."""
        return tuple(path for path in (self.image_path, self.label_path, *self.masks.values()) if path is not None)

    def image(self) -> Volume:
        """Grey values, float32, in the file's own voxel order. Errors name the file."""
        if self.image_volume is not None:
            return self.image_volume
        assert self.image_path is not None
        return read_image(self.image_path)

    def labels(self) -> Volume:
        """Label map, uint8, 0..K in our numbering, in the file's own voxel order.

        Raises ValueError without labels, for a file that cannot be read, and for values that the task does
        not know (it lists them).
        """
        if self.label_volume is not None:
            return self._numbered(self.label_volume)
        if self.label_path is not None and self.label_path.suffix.lower() == ".dcm":
            return self._named()
        if self.label_path is not None:
            return self._numbered(read_labels(self.label_path))
        if not self.masks:
            raise ValueError(f"case {self.name!r} has no labels")
        return self._gathered()

    def pair(self) -> tuple[Volume, Volume]:
        """Image and labels, voxel on voxel; labels stored in another axis order are turned to the image's.

        Raises ValueError, naming the case, when they differ in shape or place.
        """
        image, labels = self.image(), self.labels()
        if labels.axes != image.axes:
            labels = turned(labels, image.axes)
        check_pair(image, labels, f"case {self.name!r}")
        return image, labels

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the voxels of the image.

        Neither file format nor compression, number type or order of the axes in the file changes them.
        """
        array = np.ascontiguousarray(turned(self.image()).array, dtype="<f4") + np.float32(0)  # -0 counts as 0
        return hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()[:16]

    def _named(self) -> Volume:
        """The labels of a DICOM object, whose structures are found by their names; those that are not ours are as if not there."""
        from textdiff.data.volumes.dicom_labels import read_dicom_labels
        from textdiff.data.volumes.numbering import structure_of

        assert self.label_path is not None and self.image_path is not None
        there: list[str] = []

        def ours(name: str) -> bool:
            there.append(name)
            return bool(structure_of(name, self.structures))

        labels, names = read_dicom_labels(self.label_path, self.image_path, names=ours)
        meant = ["", *(structure_of(name, self.structures) for name in names[1:])]
        if absent := [name for name in self.structures if name not in meant]:
            raise ValueError(
                f"{self.label_path}: no structure {', '.join(absent)}; there are {', '.join(there) or 'none'}"
            )
        table = np.array([self.structures.index(name) + 1 if name else 0 for name in meant], np.uint8)
        return replace(labels, array=table[labels.array])

    def _numbered(self, labels: Volume) -> Volume:
        check_whole(labels.array, np.iinfo(np.int16).max, f"case {self.name!r}")
        if self.values is None:
            if (highest := int(labels.array.max())) > MOST:
                raise ValueError(
                    f"case {self.name!r}: {self.label_path or 'labels'} holds {highest}; labels go up to {MOST}"
                )
            return replace(labels, array=labels.array.astype(np.uint8, copy=False))
        stored = labels.array.astype(np.int16, copy=False)
        counts = np.bincount(stored.ravel())
        found = [int(value) for value in np.flatnonzero(counts)]
        if unknown := [f"{value} ({counts[value]} voxels)" for value in found if value and value not in self.values]:
            known = ", ".join(str(value) for value in sorted(self.values))
            raise ValueError(
                f"case {self.name!r}: {self.label_path or 'labels'} holds values that the task does not know: "
                f"{', '.join(unknown)}; known: 0, {known}"
            )
        table = np.array([self.values.get(value, 0) for value in range(len(counts))], np.uint8)
        return replace(labels, array=table[stored])

    def _gathered(self) -> Volume:
        """One label map out of single masks; where two overlap the later structure stays, with a warning that counts."""
        first = read_labels(next(iter(self.masks.values())))
        whole, twice = replace(first, array=np.zeros(first.shape, np.uint8)), 0
        for label, path in self.masks.items():
            mask = read_labels(path)
            check_pair(whole, mask, f"case {self.name!r}, {path.name}")
            inside = mask.array > 0
            if inside.any() and mask.array[inside].min() != mask.array.max():
                values = ", ".join(map(str, np.unique(mask.array)))
                raise ValueError(f"case {self.name!r}: {path} holds {values}, where 0 and one other value make a mask")
            twice += int((whole.array[inside] > 0).sum())
            whole.array[inside] = label
        if twice:
            said = f"case {self.name!r}: {counted(twice, 'voxel')} belonging to several masks got the structure that comes last"
            warnings.warn(said, stacklevel=3)
        return whole


@dataclass(frozen=True)
class VolumeDataset(Splits[VolumeCase]):
    """A data set of volumes. absent: cases of the shipped split that this copy of the data lacks."""

    absent: tuple[str, ...] = ()
