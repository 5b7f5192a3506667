"""Pictures and masks to network tensors; the eight turns and flips of a square, for tensors and sentences.

In: uint8 arrays as `Case` gives them, or tensors. Out: float32 inputs in [-1, 1], int64 label maps,
transformed tensors and sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from textdiff.data.images.captions import swap_left_right

# Of a body that stands upright in the picture: its left side lies nowhere else after a quarter turn
BODY_WORDS = re.compile(
    r"\b(lungs?|lobes?|pulmonary|chest|\w*thora(?:x|ces|cic)|pleura\w*|effusions?|costophrenic|hil(?:um|ar)|perihilar|heart|cardiac"
    r"|infiltrates?|consolidations?|pneumonias?|atelectas[ei]s|ribs?|clavicles?|spine|kidneys?|breasts?)\b",
    re.IGNORECASE,
)
MOST_CLASSES = 256  # of a label map of 8 bits
PLACES = {"upper": 1j, "lower": -1j, "left": -1, "right": 1}  # in the complex plane, where 1j turns by a quarter
PLACE_OF = {place: word for word, place in PLACES.items()}
PLACE_PHRASE = re.compile(r"\b(upper|lower|left|right)(?:([\s-]+)(upper|lower|left|right))?\b", re.IGNORECASE)
# Of places, in words that are not exchanged below
UNTURNABLE = re.compile(
    r"\b(?:top|bottom|above|below|horizontal(?:ly)?|vertical(?:ly)?|lower than|(?:upper|lower)(?:most|wards?))\b"
    r"|\b(?:superior|inferior|anterior|posterior|cranial|caudal|medial|lateral|proximal|distal)(?:ly)?\b"
    r"|\b(?:upper|lower) and (?:upper|lower) (?:left|right)\b|\b(?:upper|lower) (?:left|right) and (?:left|right)\b",
    re.IGNORECASE,
)
# Of sides, in words that are not exchanged either: RLL, L lung, leftmost, rightwards, o'clock
UNSWAPPED = re.compile(
    r"\b(?:[lr][uml]l|[lr]t|[lr])\b(?!['’])|\b(?:left|right)(?:most|wards?)\b|o['’]clock\b", re.IGNORECASE
)

# Of places in other languages, which are not exchanged at all: words of a few, and any script of other letters
FOREIGN = re.compile(
    r"[^\W\d_a-z]{2}|\b(?:link(?:s|e[nrsm]?)|rechts?|rechte[nrsm]?|oben|unten|(?:ober|unter)(?:e[nrsm]?|lappen|feld|halb)"
    r"|gauches?|droite?s?|haut|izquierd[oa]s?|derech[oa]s?|sinistr[aoie]|destr[aoie]|esquerd[oa]s?|direit[oa]s?"
    r"|boven\w*|onder(?:ste|kwab)?|venstre|hoyre)\b",
    re.IGNORECASE,
)


def _check_size(size: int) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a positive whole number of pixels, got {size!r}")


def to_input(image: np.ndarray, size: int, channel_order: str = "RGB", resize: str = "area") -> torch.Tensor:
    """Turn a uint8 [H, W, 3] RGB picture into a float32 [3, size, size] tensor in [-1, 1].

    Args:
        size: side of the square output; the aspect ratio is not kept (nor is it in the official code).
        channel_order: "RGB", or "BGR" as the official code feeds the channels.
        resize: "area" averages over the pixels that fall together (antialiased); "bilinear" samples four neighbours
            without antialiasing and rounds to whole grey levels, as cv2.resize in the official code.

    Raises ValueError for a wrong shape, type, order or rule.
    """
    _check_size(size)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 array [H, W, 3], got {image.dtype} {image.shape}")
    if channel_order not in ("RGB", "BGR"):
        raise ValueError(f"channel_order must be 'RGB' or 'BGR', got {channel_order!r}")
    if resize not in ("area", "bilinear"):
        raise ValueError(f"resize must be 'area' or 'bilinear', got {resize!r}")
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    if tuple(pixels.shape[-2:]) != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=resize == "area")
        pixels = pixels.round().clamp(0, 255) if resize == "bilinear" else pixels.clamp(0, 255)
    if channel_order == "BGR":
        pixels = pixels.flip(1)
    return (pixels[0] / 127.5 - 1).contiguous()


def _overlap(out: int, source: int) -> torch.Tensor:
    """[out, source] share of each output pixel covered by each source pixel on one axis; rows sum to 1."""
    edges = torch.arange(out + 1, dtype=torch.float64) * source / out
    pixel = torch.arange(source, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    return covered.clamp_min(0) * out / source


def mask_at(mask: np.ndarray, size: int, rule: str = "area", num_classes: int = 2) -> torch.Tensor:
    """Bring a label mask to [size, size] int64.

    Args:
        mask: uint8 [H, W], values 0..num_classes-1 (background included).
        rule: "area" gives an output pixel the class that covers at least half of it (two classes) or most of it (more
            classes); "dilated", for two classes only, is the official code's rule: bilinear sampling without antialiasing
            of a 0/255 mask, then every value above 0 is foreground, which makes masks larger.

    Raises ValueError for a wrong shape, rule or a label outside 0..num_classes-1.
    """
    _check_size(size)
    if mask.ndim != 2:
        raise ValueError(f"expected a mask [H, W], got shape {mask.shape}")
    if mask.dtype.kind not in "biu" or mask.min(initial=0) < 0 or mask.max(initial=0) >= num_classes:
        raise ValueError(
            f"mask holds {mask.dtype} values {mask.min()} to {mask.max()}, expected whole labels 0..{num_classes - 1}"
        )
    labels = torch.from_numpy(np.ascontiguousarray(mask)).long()
    if rule == "dilated":
        if num_classes != 2:
            raise ValueError("rule 'dilated' is defined for two classes only; use 'area'")
        grey = F.interpolate(labels[None, None].float() * 255, (size, size), mode="bilinear")
        return (grey[0, 0].round() > 0).long()
    if rule != "area":
        raise ValueError(f"rule must be 'area' or 'dilated', got {rule!r}")
    if tuple(labels.shape) == (size, size):
        return labels
    rows, columns = _overlap(size, labels.shape[0]), _overlap(size, labels.shape[1])
    if num_classes == 2:
        return (rows @ labels.double() @ columns.T >= 0.5 - 1e-9).long()
    shares = torch.stack([rows @ (labels == k).double() @ columns.T for k in range(num_classes)])
    return shares.argmax(dim=0)


@dataclass(frozen=True)
class ImageSpec:
    """How a picture and its mask become tensors; the arguments of :func:`to_input` and :func:`mask_at` in one object.

    image_size: side in pixels of the square that a network sees. num_classes: background included.

    Raises ValueError for values that are not possible.
    """

    image_size: int = 256
    channel_order: str = "RGB"
    resize: str = "area"
    mask_rule: str = "area"
    num_classes: int = 2

    def __post_init__(self) -> None:
        for name, known in (
            ("channel_order", ("RGB", "BGR")),
            ("resize", ("area", "bilinear")),
            ("mask_rule", ("area", "dilated")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: known are {', '.join(known)}")
        for name, least in (("image_size", 1), ("num_classes", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: a whole number, at least {least}")
        if self.num_classes > MOST_CLASSES:
            raise ValueError(f"num_classes={self.num_classes}: label maps have 8 bits, for at most {MOST_CLASSES}")

    def input(self, image: np.ndarray) -> torch.Tensor:
        """uint8 [H, W, 3] -> float32 [3, image_size, image_size] in [-1, 1]."""
        return to_input(image, self.image_size, self.channel_order, self.resize)

    def target(self, mask: np.ndarray, size: int | None = None) -> torch.Tensor:
        """uint8 [H, W] -> int64 [size, size] (default: image_size)."""
        return mask_at(mask, size or self.image_size, self.mask_rule, self.num_classes)


def _check_turn(k: int) -> None:
    if k not in range(8):
        raise ValueError(f"k must be 0..7, got {k!r}")


def dihedral(tensor: torch.Tensor, k: int) -> torch.Tensor:
    """Apply one of the eight symmetries of a square to the last two dimensions.

    k = 0..3: k quarter turns counter-clockwise; k = 4..7: left-right flip first, then k-4 quarter turns.
    """
    _check_turn(k)
    if k >= 4:
        tensor = tensor.flip(-1)
    return torch.rot90(tensor, k % 4, dims=(-2, -1)) if k % 4 else tensor


def dihedral_places(side: int) -> torch.Tensor:
    """Where the pixels of turned squares come from, int64 ``[8, side * side]``, rows of the square after each other.

    ``dihedral(x, k).flatten(-2)`` is ``x.flatten(-2)[..., dihedral_places(side)[k]]``: all turns of a batch are one gathering.
    """
    numbered = torch.arange(side * side).view(side, side)
    return torch.stack([dihedral(numbered, k).flatten() for k in range(8)])


def dihedral_caption(caption: str, k: int) -> str | None:
    """The sentence that is true of the picture after `dihedral(picture, k)`, or None where its words cannot follow.

    "upper", "lower", "left", "right" and pairs such as "upper left" are replaced. A sentence about lungs and other parts of a
    body follows only the left-right flip (k = 4): a chest film lying on its side or head has no upper left lung any more.
    Other words for sides ("RLL", "leftmost") follow nothing, nor do sentences that are not English (told by their letters and by
    common words for sides), and others for places ("superior") no turn. Ours; the official code turns the picture and leaves the sentence.
    """
    _check_turn(k)
    if k == 0:
        return caption
    if UNSWAPPED.search(caption) or FOREIGN.search(caption):
        return None
    if BODY_WORDS.search(caption):
        return swap_left_right(caption) if k == 4 else None
    if UNTURNABLE.search(caption):
        return None

    def turned(match: re.Match[str]) -> str:
        words = [word.lower() for word in (match[1], match[3]) if word]
        places = [-PLACES[word].conjugate() if k >= 4 else PLACES[word] for word in words]  # flipped left-right
        moved = [PLACE_OF[place * 1j ** (k % 4)] for place in places]
        if len(moved) == 2 and moved[0] in ("left", "right") and moved[1] in ("upper", "lower"):
            moved.reverse()
        text = (match[2] or "").join(moved)
        return text.capitalize() if match[0][0].isupper() else text

    return PLACE_PHRASE.sub(turned, caption)
