"""Mask files in, label maps out, and back: a mask is decoded as what it is, or refused with its values.

A label map is uint8 [H, W] with values 0..K-1, 0 for background, upright as the picture is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textdiff.data.images.pictures import BACK, ORIENTATION, TURNS, Decoded, decode, picture_frame, turned

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

PLAIN = "save it as a grey PNG whose values are the labels"


def read_mask(path: str | Path, num_classes: int | None = None) -> np.ndarray:
    """The mask in a file as a label map.

    Read are grey masks of labels 0..K-1, or of 0 and 255 (65535), be they stored as grey of 1 to 16 bits, as whole numbers in
    float32 or as three equal channels; palettes, where the index is the label (as in Pascal VOC); ids in the red channel
    alone (as in COCO's panoptic masks); and one colour drawn in the transparency (alpha).

    Raises FileNotFoundError; ValueError that names the file and what is in it: JPEG or WebP, which change values;
    colours; values between 0 and 255; labels that are not of `num_classes` classes (None: any up to 254); colour and
    transparency that say different things; a file that is damaged or no picture.
    """
    decoded = decode(path)
    if decoded.lossy:
        raise ValueError(f"{path}: a mask in JPEG or WebP has lost its exact values: {PLAIN}, from where it was drawn")
    if decoded.scaled or decoded.inverted and decoded.pixels.mode != "1":
        what = "counts to another maximum than 255" if decoded.scaled else 'says "white is zero"'
        raise ValueError(f"{path}: the mask {what}, so that its labels cannot be told: {PLAIN}")
    labels = _labels(path, decoded)
    if num_classes is not None:
        check_labels(labels, num_classes, path)
    return labels


def labels_from_grey(grey: np.ndarray, where: object) -> np.ndarray:
    """Turn stored mask values (whole, 0 or more) into labels 0..K-1: {0, 255} becomes {0, 1}, as does {0, 65535}; other labels
    up to 254 stay.

    Raises ValueError when 255 stands beside other non-zero values (such a mask was blurred or compressed with loss), or for
    values above 255.
    """
    top = int(grey.max(initial=0))
    if top < 255:
        return grey.astype(np.uint8)
    if top not in (255, 65535):
        raise ValueError(f"{where}: mask has {counted(grey)}; expected labels 0..K-1, or only 0 and 255")
    drawn = grey == top
    if np.any(grey[~drawn]):
        raise ValueError(
            f"{where}: mask has values between 0 and {top}: {counted(grey)}; expected only 0 and {top}, or labels 0..K-1. "
            "Was it resized or saved as JPEG, or does 255 mean 'ignore'?"
        )
    return drawn.astype(np.uint8)


def check_labels(labels: np.ndarray, num_classes: int, where: object) -> None:
    """Raises ValueError that lists the values of a mask with a label outside 0..num_classes-1."""
    if int(labels.max(initial=0)) >= num_classes:
        two = ", or 0 and 255" if num_classes == 2 else ""
        raise ValueError(f"{where}: mask has {counted(labels)}; expected labels 0..{num_classes - 1}{two}: {PLAIN}")


def label_map(values: np.ndarray, where: object) -> np.ndarray:
    """An array given as labels, as uint8 of its shape. Raises ValueError that lists what is no whole number of 0 to 255."""
    wrong = np.asarray(~np.isin(values, np.arange(256)))
    if wrong.any():
        raise ValueError(f"{where}: labels are whole numbers 0 to 255, and there are {counted(values[wrong])}")
    return values.astype(np.uint8, copy=False)


def counted(grey: np.ndarray) -> str:
    """The values of a mask and how many pixels each has: "0 (3200 pixels), 128 (400)"."""
    values, counts = np.unique(grey, return_counts=True)
    shown = [f"{value:g} ({count})" for value, count in zip(values[:6].tolist(), counts.tolist(), strict=False)]
    shown[0] = shown[0].replace(")", " pixels)")
    return f"the values {', '.join(shown)}" + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def write_mask(labels: np.ndarray | Tensor, out: str | Path, like: str | Path | None = None) -> None:
    """Write a label map as an 8-bit PNG whose values are the labels, in one step.

    `like`: the picture that it belongs to. The mask is then stored as that file's pixels are and carries the same EXIF
    orientation: it lies on the picture in a viewer, and on the stored pixels for a program that knows no orientation.

    Raises ValueError for more labels than 8 bits hold or a wrong shape.
    """
    from PIL import Image as images

    from textdiff.base.checkpoints import write_atomically

    array = np.asarray(labels)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{out}: a label map has two dimensions, not shape {array.shape}")
    array = label_map(array, out)
    turn = 1 if like is None else picture_frame(like)[1]
    picture = turned(images.fromarray(array), BACK.get(turn))
    exif = images.Exif()
    if turn in TURNS:
        exif[ORIENTATION] = turn
    write_atomically(out, lambda temporary: picture.save(temporary, format="PNG", exif=exif))


# --- what a mask is --------------------------------------------------------------------------------------


def _labels(path: str | Path, decoded: Decoded) -> np.ndarray:
    picture = decoded.pixels
    if picture.mode in ("P", "PA"):
        return _from_palette(path, picture)
    if picture.mode in ("1", "L", "F") or picture.mode.startswith("I"):
        return labels_from_grey(_grey(path, picture), path)
    if decoded.bits > 8 or picture.mode not in ("LA", "RGB", "RGBA"):
        raise ValueError(f"{path}: the mask has the pixel mode {picture.mode} of {decoded.bits} bits: {PLAIN}")
    if not picture.has_transparency_data:
        return _from_colours(path, np.asarray(picture.convert("RGB")))
    rgba = np.asarray(picture.convert("RGBA"))
    return _from_transparency(path, rgba[..., :3], rgba[..., 3])


def _grey(path: str | Path, picture: Image) -> np.ndarray:
    values = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    if values.dtype.kind == "f" and not (values == np.round(values)).all():  # nan is not whole either
        raise ValueError(f"{path}: mask has {counted(values)}, which are not whole: {PLAIN}")
    if values.min() < 0:
        raise ValueError(f"{path}: mask has {counted(values)}: {PLAIN}")
    return values.astype(np.int64) if values.dtype != np.uint8 else values


def _from_palette(path: str | Path, picture: Image) -> np.ndarray:
    """The index is the label, unless what looks like background (black, transparent) has another index than 0."""
    index = np.asarray(picture)
    index = index[..., 0] if picture.mode == "PA" else index
    colours, alpha = np.zeros((256, 3), np.uint8), np.full(256, 255)
    palette = np.array(picture.getpalette() or [], dtype=np.uint8).reshape(-1, 3)
    colours[: len(palette)] = palette
    clear = picture.info.get("transparency")  # the transparent index, or how opaque each is
    if isinstance(clear, bytes):
        alpha[: len(clear)] = list(clear)
    elif clear is not None:
        alpha[clear] = 0
    labels = labels_from_grey(index, path)
    used = np.unique(index)
    for empty in np.stack([~colours.any(axis=1), alpha == 0]):
        if empty[used].any() and not empty[0]:
            entries = ", ".join(f"{value}: {(*colours[value].tolist(), int(alpha[value]))}" for value in used[:6])
            raise ValueError(
                f"{path}: which index of the mask's palette is background cannot be told, as black or transparent is not at 0 "
                f"(index: colour, {entries}): {PLAIN}"
            )
    return labels


def _from_colours(path: str | Path, colours: np.ndarray) -> np.ndarray:
    red = colours[..., 0]
    if (colours == red[..., None]).all():
        return labels_from_grey(red, path)
    if not colours[..., 1:].any() and red.max() < 255:
        return red.copy()
    raise ValueError(
        f"{path}: the mask is in colours, {_colours_of(colours)}; which are which labels is not known: {PLAIN}"
    )


def _from_transparency(path: str | Path, colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    one_colour = (colours == colours[0, 0]).all()
    if alpha.min() == alpha.max() and (alpha.max() > 0 or one_colour):
        return _from_colours(path, colours)
    if one_colour:
        return labels_from_grey(alpha, path)
    labels = _from_colours(path, colours)
    if alpha.any() and ((labels > 0) == (alpha > 0)).all():
        return labels
    both = np.concatenate([colours, alpha[..., None]], axis=-1)
    raise ValueError(
        f"{path}: colours and transparency (alpha) of the mask say different things, {_colours_of(both)}: {PLAIN}"
    )


def _colours_of(colours: np.ndarray) -> str:
    flat, counts = np.unique(colours.reshape(-1, colours.shape[-1]), axis=0, return_counts=True)
    most = np.argsort(-counts)[:5]
    shown = ", ".join(f"{tuple(flat[i].tolist())} ({counts[i]} pixels)" for i in most)
    return shown + (f" and {len(flat) - 5} more" if len(flat) > 5 else "")
