"""Pictures as another hospital's would be. In: cases. Out: the same cases with changed pictures; masks and sentences stay true.

Each change is made in one strength, written down here before anything was measured. All are ours, and stand in for a second
source of pictures: a scanner or a stain differs in several of them at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from PIL import Image

from textdiff.data.cases import Case

GAMMA = 1.5  # exponent of the grey values brought to 0..1; one by it for brighter
NOISE = 10  # standard deviation in grey levels of 255, alike in all channels
HUE = 15  # of the 256 parts of the colour circle; the violet of a stain goes towards red


def darker(image: np.ndarray, name: str = "") -> np.ndarray:
    """Grey values to the power of `GAMMA`."""
    return _powered(image, GAMMA)


def brighter(image: np.ndarray, name: str = "") -> np.ndarray:
    """Grey values to the power of 1 / `GAMMA`."""
    return _powered(image, 1 / GAMMA)


def coarser(image: np.ndarray, name: str = "") -> np.ndarray:
    """Half the height and width, by mean, and back, between neighbours."""
    height, width = image.shape[:2]
    half = Image.fromarray(image).resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BOX)
    return np.array(half.resize((width, height), Image.Resampling.BILINEAR))


def noisy(image: np.ndarray, name: str = "") -> np.ndarray:
    """Normal noise of `NOISE` grey levels, the same for a case of the same name."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal((*image.shape[:2], 1))
    return np.clip(np.rint(image + NOISE * drawn), 0, 255).astype(np.uint8)


def restained(image: np.ndarray, name: str = "") -> np.ndarray:
    """Hues turned by `HUE`; grey stays as it is."""
    hue, *others = Image.fromarray(image).convert("HSV").split()
    turned = Image.fromarray((np.asarray(hue).astype(int) + HUE).astype(np.uint8))  # after 255 comes 0
    return np.array(Image.merge("HSV", (turned, *others)).convert("RGB"))


def inverted(image: np.ndarray, name: str = "") -> np.ndarray:
    """Black for white, as where a file's photometric interpretation is not heeded."""
    return 255 - image


Change = Callable[[np.ndarray, str], np.ndarray]
SHIFTS: dict[str, Change] = {
    "darker": darker,
    "brighter": brighter,
    "half resolution": coarser,
    "noise": noisy,
    "stain": restained,
    "inverted": inverted,
}


@dataclass(frozen=True)
class ShiftedCase(Case):
    """A case whose picture is changed whenever it is read; `shift`: a name in `SHIFTS`."""

    shift: str = ""

    def image(self) -> np.ndarray:
        """The changed picture, uint8 [H, W, 3]."""
        return SHIFTS[self.shift](super().image(), self.name)


def shifted(cases: Sequence[Case], shift: str) -> list[Case]:
    """The cases with their pictures changed. Raises ValueError for a shift that is not in `SHIFTS`."""
    if shift not in SHIFTS:
        raise ValueError(f"shift={shift!r}: there are {', '.join(SHIFTS)}")
    return [ShiftedCase(**{one.name: getattr(case, one.name) for one in fields(Case)}, shift=shift) for case in cases]


def shifts_for(image: np.ndarray) -> tuple[str, ...]:
    """The shifts that can happen to a picture of its kind: in colour a stain can differ, in grey black and white can be exchanged."""
    grey = bool((image == image[..., :1]).all())
    return tuple(name for name in SHIFTS if name != ("stain" if grey else "inverted"))


def strengths() -> str:
    """How strong the changes are, in words."""
    return (
        f"darker and brighter: gamma {GAMMA:g} and 1/{GAMMA:g}; half resolution: half the height and width; noise: standard "
        f"deviation {NOISE} of 255 grey levels; stain: hues turned by {360 * HUE / 256:.0f} degrees"
    )


def _powered(image: np.ndarray, exponent: float) -> np.ndarray:
    return np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)[image]
