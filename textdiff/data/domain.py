"""What the inputs of a training were like: its cases in, ranges out; and, of a new input, in words how it differs.

A network answers whatever it is shown. These ranges are kept with a model, so that a CT whose numbers are not HU, a
film that is inverted, a head where a crop was meant or a sentence in another language is noticed before its mask is
believed.
"""

from __future__ import annotations

import re
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
LAYOUT = 0.3  # correlation: pictures lie alike above it, and one that falls short by as much lies otherwise
COLOURED, TINTED = 25, 10  # grey levels by which colours may go beyond those of the training
AMOUNT = 1.5  # a structure smaller or larger by this factor than any of the training is mentioned
UNSEEN = 0.25  # share of a sentence's words above which it is mentioned that no sentence of the training has them
LENGTH = 1.5  # a sentence shorter or longer by this factor than any of the training is mentioned
NAMED = 8  # words of a sentence, at most, that a remark repeats
Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """Ranges over the cases of a training, each (lowest, highest).

    quantiles: of what the network sees (volumes: after the window or standardisation; pictures: grey 0..255), one range for
    each of `SHARES`. stored: middle of the lowest and of the highest stored numbers. colour: of pictures, mean difference of
    their largest and smallest channel, of red and grey, of blue and grey; layout: the mean of all, in eight fields along each
    axis, of mean 0 and deviation 1, row by row, and alike: how each correlates with that of the others. spacing, extent: of volumes, mm per voxel and of the whole along right, front, head.
    volumes_ml: of every structure, where it is there. words: of pictures, all words of their sentences, in lower case; length:
    how many a sentence has; None where no sentence was kept.
    """

    quantiles: tuple[Range, ...]
    stored: Range
    colour: tuple[Range, ...] = ()
    layout: tuple[float, ...] = ()
    alike: Range | None = None
    spacing: tuple[Range, ...] = ()
    extent: tuple[Range, ...] = ()
    volumes_ml: Mapping[str, Range] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    length: Range | None = None

    def __post_init__(self) -> None:
        if len(self.quantiles) != len(SHARES):
            raise ValueError(f"a domain has one range for each of {SHARES}, got {len(self.quantiles)}")

    @classmethod
    def from_json(cls, about: Mapping[str, Any]) -> Domain:
        """What :meth:`as_json` gave."""
        values: dict[str, Any] = dict(about)
        for key in ("quantiles", "colour", "spacing", "extent"):
            values[key] = tuple(map(tuple, about.get(key, ())))
        for key in ("layout", "words"):
            values[key] = tuple(about.get(key, ()))
        for key in ("stored", "alike", "length"):
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
            if not self._laid_out(_blocks(prepared)):
                yield "light and dark lie otherwise than in the training: " + self._turn(prepared)
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

    def _turn(self, prepared: np.ndarray) -> str:
        """The reversal of axes that would make a volume lie as those of the training, in words."""
        axes = {
            (2,): "head and foot",
            (1,): "front and back",
            (0,): "left and right",
            (1, 2): "head and foot, and front and back",
        }
        for turned, said in (axes | {(0, 1): "left and right, and front and back"}).items():
            if self._laid_out(_blocks(np.flip(prepared, turned))):
                return f"it looks as if {said} were exchanged"
        return "turned, mirrored, or of another part of the body"

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
        if low / AMOUNT <= ml <= high * AMOUNT:
            return ""
        return f"{ml:.3g} ml of {name} were found; in the training it had {low:.3g} to {high:.3g} ml"

    def remarks_on_picture(self, picture: np.ndarray) -> list[str]:
        """In what a picture, uint8 [H, W, 3], differs from those of the training, one sentence each."""
        grey, said = picture.mean(axis=-1), []
        other_values, other_layout = self.outside(_quantiles(grey)) > SLACK, not self._laid_out(_fields(grey))
        inverted = self.outside(_quantiles(255 - grey)) <= SLACK and self._laid_out(_fields(255 - grey))
        if inverted and (other_values or other_layout):
            said.append("the picture looks inverted: exchange black and white")
        elif other_values:
            said.append(
                "the picture is much darker, brighter or flatter than those of the training; the answer may be worthless"
            )
        elif other_layout:
            said.append(
                "the picture is not laid out as those of the training: turned, mirrored, or of another part or kind"
            )
        away = [max(low - own, own - high, 0) for own, (low, high) in zip(_colour(picture), self.colour, strict=True)]
        if away and away[0] > COLOURED:
            more = _colour(picture)[0] > self.colour[0][1]
            kinds = ("a colour picture", "a grey one") if more else ("a grey picture", "a coloured one")
            said.append(f"this is {kinds[0]}, and the training showed {kinds[1]}: the answer may be worthless")
        elif max(away, default=0) > TINTED:
            said.append(
                "its colours are unlike those of the training: inverted, red and blue exchanged, or another stain"
            )
        return said

    def remarks_on_sentence(self, sentence: str) -> list[str]:
        """In what a sentence differs from those of the training, one sentence each; none where those were not kept.

        Words and their number are compared, not what is said: a false sentence in known words is not noticed.
        """
        if self.length is None:
            return []
        words, said = _words(sentence), []
        low, high = self.length
        unseen = [word for word in words if word not in self.words]
        if len(unseen) > UNSEEN * len(words):
            named = [*dict.fromkeys(unseen)]
            said.append(
                f"words of the sentence that no sentence of the training has, {len(unseen)} of {len(words)}: "
                f"{', '.join(named[:NAMED])}{', ...' if len(named) > NAMED else ''}; what they mean was not learned"
            )
        if not low / LENGTH <= len(words) <= high * LENGTH:
            said.append(f"the sentence has {len(words)} words, those of the training {low:.0f} to {high:.0f}")
        return said

    def _laid_out(self, fields: np.ndarray) -> bool:
        """Whether light and dark lie as in the training, where its inputs lie alike (films and bodies do, tissue does not)."""
        if self.alike is None or sum(self.alike) / 2 < LAYOUT:
            return True
        return _alike(fields, np.array(self.layout)) >= self.alike[0] - min(LAYOUT, 2 * (1 - self.alike[0]) + 0.02)


def domain_of_volumes(cases: Sequence[VolumeCase], preprocessing: Preprocessing, class_names: Sequence[str]) -> Domain:
    """The ranges over labelled volumes. Each is read once more."""
    from textdiff.data.volumes.volume import turned

    quantiles, stored, spacing, extent, fields = [], [], [], [], []
    amounts: dict[str, list[float]] = {name: [] for name in class_names[1:]}
    for case in cases:
        image, labels = case.pair()
        prepared = preprocessing.image(image).array
        quantiles.append(_quantiles(prepared))
        fields.append(_blocks(prepared))
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
        **_layout(fields),
        spacing=_ranges(spacing),
        extent=_ranges(extent),
        volumes_ml={name: (min(ml), max(ml)) for name, ml in amounts.items() if ml},
    )


def domain_of_pictures(cases: Sequence[Case]) -> Domain:
    """The ranges over pictures and their sentences."""
    colours, stored, quantiles, fields = [], [], [], []
    for picture in (case.image() for case in cases):  # one at a time: together they may not fit into memory
        grey = picture.mean(axis=-1)
        colours.append(_colour(picture))
        stored.append((picture.min(), picture.max()))
        quantiles.append(_quantiles(grey))
        fields.append(_fields(grey))
    sentences = [_words(case.caption) for case in cases if case.caption.strip()]
    return Domain(_ranges(quantiles), _middle(stored), _ranges(colours), **_layout(fields), **_wording(sentences))


def _layout(fields: Sequence[np.ndarray]) -> dict[str, Any]:
    """The mean of fields and how alike they are; nothing of fewer than three."""
    if len(fields) < 3:
        return {}
    every = np.stack(fields)
    others = (every.sum(axis=0) - every) / (len(every) - 1)
    alike = [_alike(one, other) for one, other in zip(every, others, strict=True)]
    return {"layout": tuple(every.mean(axis=0).tolist()), "alike": (min(alike), max(alike))}


def _words(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence.lower())


def _wording(sentences: Sequence[Sequence[str]]) -> dict[str, Any]:
    """All words of sentences, each given as its words, and how many one has; nothing where there is no sentence."""
    if not sentences:
        return {}
    counts = [float(len(words)) for words in sentences]
    return {"words": tuple(sorted(set().union(*sentences))), "length": (min(counts), max(counts))}


def _quantiles(values: np.ndarray) -> np.ndarray:
    some = values.ravel()
    return np.quantile(some[:: max(1, some.size // 200_000)], SHARES)


def _colour(picture: np.ndarray) -> tuple[float, float, float]:
    some = picture.reshape(-1, 3)[:: max(1, picture.size // 600_000)].astype(int)
    grey = some.mean()
    spread = (some.max(axis=1) - some.min(axis=1)).mean()
    return float(spread), float(some[:, 0].mean() - grey), float(some[:, 2].mean() - grey)


def _fields(grey: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 fields of a picture [H, W], mean 0 and deviation 1, [64]."""
    from PIL import Image

    small = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize((8, 8), Image.Resampling.BOX), float).ravel()
    return (small - small.mean()) / max(float(small.std()), 1e-6)


def _blocks(volume: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 x 8 fields of a volume [X, Y, Z], mean 0 and deviation 1, [512]."""
    parts = volume
    for axis, size in enumerate(volume.shape):
        starts = (np.arange(8) * size // 8).clip(max=size - 1)
        sums = np.add.reduceat(parts, starts, axis=axis)
        counts = np.maximum(np.diff([*starts, size]), 1)
        parts = sums / counts.reshape([-1 if k == axis else 1 for k in range(3)])
    means = parts.astype(float).ravel()
    return (means - means.mean()) / max(float(means.std()), 1e-6)


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two sets of fields, each of mean 0."""
    return float((one @ other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-6))


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
