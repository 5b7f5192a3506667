"""What `textdiff predict` does: files, a sentence and settings in; files of labels out.

Everything that can be said of the input without a model is said first: a mask that could not be written is not made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from textdiff.base import paths
from textdiff.base.allocator import keep_freed_memory
from textdiff.base.files import read_json
from textdiff.base.outputs import LEAST_ROOM, as_private_as, check_output
from textdiff.data.images.pictures import PICTURE_SUFFIXES
from textdiff.messages import during

if TYPE_CHECKING:
    from textdiff import TextDiff, TextDiffSeg
    from textdiff.data.volumes.volume import Volume
    from textdiff.models.inference import Sampling

PICTURES = tuple(sorted(PICTURE_SUFFIXES))
VOLUMES = (".nii", ".nii.gz", ".dcm", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc", ".img", ".hdr")
NIFTI, DICOM = (".nii", ".nii.gz"), (".dcm",)
PICTURE_AS = "of DICOM save the picture as PNG"
OPTIONS = {"TextDiff": "--image", "TextDiffSeg": "--volume"}
# Bytes of a map by those of the volume's files, roughly: labels and uncertainty, packed or not
SHARE = {("--out", True): 0.1, ("--out", False): 1.0, ("--uncertainty", True): 1.0, ("--uncertainty", False): 4.0}


@dataclass(frozen=True)
class Pictures:
    """Pictures under sentences: one model, which is read when the first is segmented, and what holds for all of them."""

    model: str
    device: str = "auto"
    strict: bool = False
    option: ClassVar[str] = "--image"
    kind: ClassVar[str] = "TextDiff"
    suffix: ClassVar[str] = ".png"

    def check(self, image: Path, text: str, out: Path, uncertainty: Path | None = None, force: bool = False) -> None:
        """What can be said of one case before anything is loaded. Raises ValueError, OSError."""
        check_text(text)
        _check_source(image, "image file", self.option)
        _check_suffix(out, "--out", (".png",))
        check_output(out, "--out", inputs=[image], force=force)
        check_kind(self.model, self.kind)

    @cached_property
    def trained(self) -> TextDiff:
        from textdiff import TextDiff
        from textdiff.base.precision import resolve_device

        with during(f"reading the model {self.model}"):
            return TextDiff.from_pretrained(self.model, device=resolve_device(self.device))

    def segment(self, image: Path, text: str, out: Path, uncertainty: Path | None = None) -> dict[str, list[float]]:
        """Writes the labels of one picture; returns what was found: pixels of each class."""
        from textdiff.data.images.masks import write_mask

        trained = self.trained
        with during(f"segmenting {image}"):
            labels = trained.predict(image, text, strict=self.strict)
        with as_private_as(image):
            write_mask(labels, out, like=image)
        return {name: [float((labels == number).sum())] for number, name in enumerate(trained.class_names) if number}


@dataclass(frozen=True)
class Solids:
    """Volumes under sentences, as :class:`Pictures`.

    ``sampling``: settings of the denoising; ``reading``: of :func:`~textdiff.data.volumes.volume.read_image`; ``options``: of
    :func:`~textdiff.models.inference.predict_volume`.
    """

    model: str
    device: str = "auto"
    sampling: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    option: ClassVar[str] = "--volume"
    kind: ClassVar[str] = "TextDiffSeg"
    suffix: ClassVar[str] = ".nii.gz"

    def check(self, volume: Path, text: str, out: Path, uncertainty: Path | None = None, force: bool = False) -> None:
        """What can be said of one case before anything is loaded. Raises ValueError, OSError, ImportError."""
        check_text(text)
        check_volume_files(volume, out, uncertainty, force)
        check_kind(self.model, self.kind)
        _ = self.settings

    @cached_property
    def settings(self) -> Sampling:
        from textdiff.models.inference import PREDICTING

        return replace(PREDICTING, **self.sampling)

    @cached_property
    def trained(self) -> TextDiffSeg:
        from textdiff import TextDiffSeg
        from textdiff.base.precision import resolve_device

        keep_freed_memory()
        with during(f"reading the model {self.model}"):
            return TextDiffSeg.from_pretrained(self.model, device=resolve_device(self.device))

    def segment(self, volume: Path, text: str, out: Path, uncertainty: Path | None = None) -> dict[str, list[float]]:
        """Writes the maps of one volume, the labels last: where they are, everything is. Returns ml of each class by sample."""
        from textdiff.data.volumes import volume as volumes

        trained = self.trained
        with during(f"segmenting {volume}"):
            image = volumes.read_image(volume, **self.reading) if self.reading else volume
            asked = {"progress": True, "uncertainty": uncertainty is not None} | self.options
            found = trained.predict(image, text, self.settings, **asked)
        with as_private_as(volume), during(f"writing {out}"):
            if uncertainty is not None and found.uncertainty is not None:
                volumes.write_image(uncertainty, _rounded(found.uncertainty))
            _write_volume_labels(out, found.labels, found.class_names, volume, self.reading)
        return {name: list(found.volumes_ml[name]) for name in found.class_names[1:]}


def predict_one(
    task: Pictures | Solids, source: Path, text: str, out: Path, uncertainty: Path | None = None, force: bool = False
) -> None:
    """Segment one picture or volume with one sentence, write its maps and list what was found of a volume."""
    task.check(source, text, out, uncertainty, force)
    found = task.segment(source, text, out, uncertainty)
    if isinstance(task, Solids):
        for number, (name, samples) in enumerate(found.items(), start=1):
            typer.echo(f"{number} {name}: {_amounts(samples)}", err=True)


def check_text(text: str) -> None:
    """Raises ValueError for a text without a single word."""
    if not any(letter.isalnum() for letter in text):
        said = "is empty" if not text.strip() else f"{text!r} has no words"
        raise ValueError(f'--text {said}: give a sentence, such as --text "the left kidney"')


def check_volume_files(volume: Path, out: Path, uncertainty: Path | None, force: bool) -> None:
    """What can be said of the files before anything is loaded. Raises ValueError, OSError, ImportError."""
    _check_source(volume, "volume", "--volume")
    size = _size(volume)
    for option, path, suffixes in (("--out", out, NIFTI + DICOM), ("--uncertainty", uncertainty, NIFTI)):
        if path is not None:
            _check_suffix(path, option, suffixes)
            packed = path.suffix.lower() == ".gz"
            room = LEAST_ROOM + int(size * SHARE[option, packed])
            check_output(path, option, inputs=[volume], force=force, room=room)
    if uncertainty is not None and uncertainty.resolve() == out.resolve():
        raise ValueError(f"--out and --uncertainty are the same file {out}")
    if out.name.lower().endswith(DICOM):
        _check_dicom(volume, out)


def _check_dicom(volume: Path, out: Path) -> None:
    from textdiff.data.volumes.dicom import is_dicom
    from textdiff.data.volumes.dicom_seg import need_highdicom

    if not is_dicom(volume):
        raise ValueError(f"--out {out}: DICOM labels belong to a DICOM series, and {volume} is none; write .nii.gz")
    folder = volume if volume.is_dir() else volume.parent
    # One slice stands for its series; a file of many frames is alone
    alone = volume.is_file() and not any(one != volume and one.name.lower().endswith(DICOM) for one in folder.iterdir())
    if folder.resolve() in out.resolve().parents and not alone:
        raise ValueError(f"--out {out} would lie among the slices of {folder}: choose another folder")
    need_highdicom(out)


def _rounded(uncertainty: Volume) -> Volume:
    """To whole 4096ths, float32: the further digits say nothing, and make the file seven times as large and as long to write."""
    array = uncertainty.array * 4096
    return replace(uncertainty, array=array.round(out=array) / 4096)


def _write_volume_labels(
    out: Path, labels: Volume, class_names: Sequence[str], source: Path, reading: dict[str, Any]
) -> None:
    if out.name.lower().endswith(DICOM):
        from textdiff.data.volumes.dicom_seg import write_dicom_seg

        write_dicom_seg(out, labels, class_names, source, reading.get("series", ""))
        return
    from textdiff.data.volumes.volume import write_labels as write_nifti

    write_nifti(out, labels)


def _check_source(source: Path, what: str, option: str) -> None:
    """A file of the other kind is sent to the other option."""
    if not (source.is_file() or (what == "volume" and source.is_dir())):
        hint = " (it is a folder: of a volume's slices? use --volume)" if source.is_dir() else ""
        raise FileNotFoundError(f"no {what} {source}{hint}")
    name = source.name.lower()
    if option == "--image" and name.endswith(VOLUMES):
        way = f"; {PICTURE_AS}" if name.endswith(DICOM) else ""
        raise ValueError(f"{source} is a volume: use --volume, and a model for volumes{way}")
    if option == "--volume" and name.endswith(PICTURES):
        raise ValueError(f"{source} is a picture: use --image")


def _check_suffix(out: Path, option: str, suffixes: tuple[str, ...]) -> None:
    if not out.name.lower().endswith(suffixes):
        *others, last = suffixes
        lossy = ", because labels survive no lossy format" if last == ".png" else ""
        named = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{option} must end in {named}{lossy}; got {out}")


def check_kind(model: str, kind: str) -> None:
    """Raises ValueError for a model of the other kind of input, by its name or its folder on this machine."""
    from textdiff.data import registry

    known = registry.MODELS.get(model)
    found = known.kind if known else None
    for folder in (Path(model), paths.weights_dir() / model):
        if found is None and (folder / "config.json").is_file():
            found = read_json(folder / "config.json").get("kind")
    if found != kind and found in OPTIONS:
        raise ValueError(f"{model} is a {found}, a model of another kind of input: use {OPTIONS[found]}")


def _size(source: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = source.rglob("*") if source.is_dir() else [source]
    return sum(file.stat().st_size for file in files if file.is_file())


def _amounts(samples: Sequence[float]) -> str:
    """Such as "12.34 ml", or "12.34 ml (11.02 to 14.15 in 5 samples)"."""
    mean = f"{sum(samples) / len(samples):.2f} ml"
    if len(samples) == 1:
        return mean
    return f"{mean} ({min(samples):.2f} to {max(samples):.2f} in {len(samples)} samples)"
