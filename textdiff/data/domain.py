"""What the inputs of a training were like: its cases in, ranges out; and, of a new input, in words how it differs.

A network answers whatever it is shown. These ranges are kept with a model, so that a CT whose numbers are not HU, a
film that is inverted or a head where a crop was meant is noticed before its mask is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from textdiff.data.cases import Case
    from textdiff.data.volumes.cases import VolumeCase
    from textdiff.data.volumes.patches import Preprocessing
    from textdiff.data.volumes.volume import Volume

SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)  # of the voxels or pixels that are darker than a quantile
SLACK = 0.2  # how far a quantile may lie outside, in units of the widest span of the training's quantiles
FLOOR_ML = 4.0  # a structure smaller or larger by this factor than any of the training is mentioned
Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """Ranges over the cases of a training, each (lowest, highest).

    quantiles: of what the network sees (volumes: after the window or standardisation; pictures: grey 0..255), one range for
    each of `SHARES`. stored: middle of the lowest and of the highest stored numbers. colour: of pictures, mean difference of
    their largest and smallest channel. spacing, extent: of volumes, mm per voxel and of the whole along right, front, head.
    volumes_ml: of every structure, where it is there.
    """

    quantiles: tuple[Range, ...]
    stored: Range
    colour: Range | None = None
    spacing: tuple[Range, ...] = ()
    extent: tuple[Range, ...] = ()
    volumes_ml: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.quantiles) != len(SHARES):
            raise ValueError(f"a domain has one range for each of {SHARES}, got {len(self.quantiles)}")

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Domain:
        """What :meth:`as_json` gave."""
        values: dict[str, Any] = dict(about)
        for key in ("quantiles", "spacing", "extent"):
            values[key] = tuple(map(tuple, about.get(key, ())))
        for key in ("stored", "colour"):
            values[key] = None if about.get(key) is None else tuple(about[key])
        values["volumes_ml"] = {name: tuple(ml) for name, ml in about.get("volumes_ml", {}).items()}
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """For config.json; numbers rounded to four digits after the point."""
        return _rounded(asdict(self))

    def outside(self, quantiles: np.ndarray) -> float:
        """How far quantiles lie outside those of the training, in units of their widest span; 0 within."""
        low, high = np.array(self.quantiles).T
        return float(np.maximum(low - quantiles, quantiles - high).clip(0).max() / max(high.max() - low.min(), 1e-6))

    def remarks_on_volume(self, volume: Volume, prepared: np.ndarray, preprocessing: Preprocessing) -> list[str]:
        """In what a volume differs from those of the training, one sentence each; `prepared` is what the network sees of it."""
        return [
            *self._on_values(volume.array, prepared, preprocessing.window),
            *self._on_size(volume),
        ]

    def _on_values(self, stored: np.ndarray, prepared: np.ndarray, window: Range | None) -> Iterator[str]:
        if self.outside(_quantiles(prepared)) <= SLACK:
            return
        unit = "HU" if window else "grey values"
        cause = self._cause(stored, window) if window else ""
        yield (
            f"the values are unlike those of the training: {stored.min():g} to {stored.max():g}, expected {unit} of about "
            f"{self.stored[0]:g} to {self.stored[1]:g}"
            + (f"; they look like {cause}" if cause else "; the answer may be worthless")
        )

    def _cause(self, stored: np.ndarray, window: Range | None) -> str:
        """The first usual mistake that, undone, makes the values those of the training."""
        from textdiff.data.volumes.volume import normalised

        low, high = float(stored.min()), float(stored.max())
        first, last = self.stored
        spread = (stored - low) / max(high - low, 1e-6) * (last - first) + first
        tries = {
            "unsigned HU, shifted by 1024: subtract 1024": stored - 1024,
            "unsigned HU, shifted by 1000: subtract 1000": stored - 1000,
            "HU to which 1024 was already subtracted once too often: add 1024": stored + 1024,
            f"HU scaled to {low:g}..{high:g}: give the file with its HU": spread,
            "HU with the sign turned: take the negative": -stored,
        }
        if window is not None and high > low:
            inside = (stored - low) / (high - low) * (window[1] - window[0]) + window[0]
            tries[f"HU already windowed to {window[0]:g}..{window[1]:g} and scaled to {low:g}..{high:g}"] = inside
        for cause, undone in tries.items():
            if self.outside(_quantiles(normalised(undone, window))) <= SLACK:
                return cause
        return ""

    def _on_size(self, volume: Volume) -> Iterator[str]:
        from textdiff.data.volumes.volume import turned

        own = turned(volume)
        if not self.spacing:
            return
        coarse = [k for k, (_, widest) in enumerate(self.spacing) if own.spacing[k] > 1.5 * widest]
        if coarse:
            sides = " x ".join(f"{side:.3g}" for side in own.spacing)
            widest = " x ".join(f"{high:.3g}" for _, high in self.spacing)
            yield f"its voxels of {sides} mm are coarser than those of the training (at most {widest} mm): borders are blurred"
        extent = np.multiply(own.shape, own.spacing)
        if any(not low / 1.6 <= size <= 1.6 * high for size, (low, high) in zip(extent, self.extent, strict=True)):
            ranges = " x ".join(f"{low:.0f}..{high:.0f}" for low, high in self.extent)
            sides = " x ".join(f"{size:.0f}" for size in extent)
            yield (
                f"it shows {sides} mm (right, front, head), volumes of the training {ranges} mm: another part of the body, or a "
                "larger or smaller piece of it, may be marked wrongly"
            )

    def remark_on_amount(self, name: str, ml: float) -> str:
        """What is odd about the amount found of a structure, or ""."""
        if name not in self.volumes_ml or ml <= 0:
            return ""
        low, high = self.volumes_ml[name]
        if low / FLOOR_ML <= ml <= high * FLOOR_ML:
            return ""
        return f"{ml:.3g} ml of {name} were found; in the training it had {low:.3g} to {high:.3g} ml"

    def remarks_on_picture(self, picture: np.ndarray) -> list[str]:
        """In what a picture, uint8 [H, W, 3], differs from those of the training, one sentence each."""
        grey, said = picture.mean(axis=-1), []
        if self.outside(_quantiles(grey)) > SLACK:
            inverted = self.outside(_quantiles(255 - grey)) <= SLACK
            likely = "it looks inverted: exchange black and white" if inverted else "the answer may be worthless"
            said.append(f"the picture is much darker, brighter or flatter than those of the training; {likely}")
        if self.colour is not None:
            colour = _colour(picture)
            if colour > self.colour[1] + 25 or colour < self.colour[0] - 25:
                kinds = (
                    ("a colour picture", "a grey one")
                    if colour > self.colour[1]
                    else ("a grey picture", "a coloured one")
                )
                said.append(f"this is {kinds[0]}, and the training showed {kinds[1]}: the answer may be worthless")
        return said


def domain_of_volumes(cases: Sequence[VolumeCase], preprocessing: Preprocessing, class_names: Sequence[str]) -> Domain:
    """The ranges over labelled volumes. Each is read once more."""
    from textdiff.data.volumes.volume import turned

    quantiles, stored, spacing, extent = [], [], [], []
    amounts: dict[str, list[float]] = {name: [] for name in class_names[1:]}
    for case in cases:
        image, labels = case.pair()
        prepared = preprocessing.image(image).array
        quantiles.append(_quantiles(prepared))
        stored.append((image.array.min(), image.array.max()))
        own = turned(image)
        spacing.append(own.spacing)
        extent.append(np.multiply(own.shape, own.spacing))
        counts = np.bincount(labels.array.ravel(), minlength=len(class_names))
        for name, count in zip(amounts, counts[1:], strict=True):
            amounts[name] += [float(count * labels.voxel_ml)] if count else []
    return Domain(
        _ranges(quantiles),
        _middle(stored),
        spacing=_ranges(spacing),
        extent=_ranges(extent),
        volumes_ml={name: (min(ml), max(ml)) for name, ml in amounts.items() if ml},
    )


def domain_of_pictures(cases: Sequence[Case]) -> Domain:
    """The ranges over pictures."""
    pictures = [case.image() for case in cases]
    colours = [_colour(picture) for picture in pictures]
    stored = _middle([(picture.min(), picture.max()) for picture in pictures])
    quantiles = [_quantiles(picture.mean(axis=-1)) for picture in pictures]
    return Domain(_ranges(quantiles), stored, colour=(min(colours), max(colours)))


def _quantiles(values: np.ndarray) -> np.ndarray:
    some = values.ravel()
    return np.quantile(some[:: max(1, some.size // 200_000)], SHARES)


def _colour(picture: np.ndarray) -> float:
    some = picture.reshape(-1, 3)[:: max(1, picture.size // 600_000)].astype(int)
    return float((some.max(axis=1) - some.min(axis=1)).mean())


def _ranges(rows: Sequence[Sequence[float] | np.ndarray]) -> tuple[Range, ...]:
    table = np.array(rows, float)
    return tuple((float(low), float(high)) for low, high in zip(table.min(axis=0), table.max(axis=0), strict=True))


def _middle(stored: Sequence[tuple[Any, Any]]) -> Range:
    low, high = np.median(np.array(stored, float), axis=0)
    return float(low), float(high)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
