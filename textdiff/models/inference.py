"""A model at work: a picture or a whole volume and a sentence in, a label map on its own grid out.

A picture is brought to the model's size, and the logits to the picture's. A volume is brought to the model's grid and cut
into overlapping windows, a few of which are segmented at a time, with all sentences that are to be asked; windows are blended
from foot to head. Where no later window reaches, the probabilities are read off at the volume's own voxels and reduced to
labels at once: memory is that of a few layers of probabilities, however many slices there are, and borders are as smooth
as the volume's voxels allow.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.base.memory import Fitting
from textdiff.base.progress import Progress
from textdiff.data.images.pictures import read_picture, rgb_array
from textdiff.data.volumes.prompts import prompt
from textdiff.data.volumes.requests import Request, read_request
from textdiff.data.volumes.volume import Volume, read_image
from textdiff.models.diffusion import Sampling

if TYPE_CHECKING:
    from textdiff.data.domain import Domain
    from textdiff.data.volumes.patches import Preprocessing

logger = logging.getLogger(__name__)

NO_DOMAIN = "the model does not say what its training was like: values, voxel sizes and amounts are not compared"
AGREED = 0.8  # Dice of two outlines of one structure that count as the same
PREDICTING = Sampling(sampling_steps=2)  # as validation draws; more steps have not made better masks of trained models
TOGETHER = 400_000  # voxels of the windows that are segmented at a time: more make nothing faster, and need more memory


# --- pictures --------------------------------------------------------------------------------------------


@torch.no_grad()
def predict_image(
    model: Any, image: str | Path | np.ndarray, text: str, probabilities: bool = False, strict: bool = False
) -> np.ndarray:
    """Labels uint8 ``[H, W]`` of one picture at its own size; or its ``probabilities``, float32 ``[num_classes, H, W]``.

    Args:
        model: a TextDiff.
        image: a file, or a uint8 array ``[H, W, 3]`` (RGB) or ``[H, W]`` (grey).
        text: the sentence that describes it.
        strict: refuse what would be warned of.

    A file is read upright, as its EXIF orientation says, and so are the labels
    (:func:`textdiff.data.images.masks.write_mask` lays them on the file). Warns of a picture and of a sentence unlike those of
    the training (:mod:`textdiff.data.domain`), and of a sentence that is not read to its end.

    Raises FileNotFoundError: no such file; ValueError: a file that is no picture, another kind of array, no words, or with
    ``strict`` what is warned of; FloatingPointError: the model gives nan or infinity.
    """
    if model.text is not None and not (model.text.allow_empty or text.strip()):
        raise ValueError("the text is empty: give a sentence that describes the image")
    pixels = _as_rgb(image)
    where = f"{image}: " if isinstance(image, (str, Path)) else ""
    if model.domain is None:
        logger.info(NO_DOMAIN)
        doubts = []
    else:
        doubts = [where + remark for remark in model.domain.remarks_on_picture(pixels)]
        doubts += model.domain.remarks_on_sentence(text) if model.text is not None else []
    doubts += model.text.remarks_on_length(text) if model.text is not None else []
    if strict and doubts:
        raise ValueError("; ".join(doubts))
    _warn(doubts, str(image) if isinstance(image, (str, Path)) else "")
    with _asking(model):
        logits = model(model.image.input(pixels)[None].to(model.device), [text])
    if not torch.isfinite(logits).all():
        raise FloatingPointError("the model gives nan or infinity for this image")
    logits = F.interpolate(logits, size=pixels.shape[:2], mode="bilinear", align_corners=False)[0]
    if probabilities:
        return logits.softmax(dim=0).cpu().numpy()
    return logits.argmax(dim=0).to(torch.uint8).cpu().numpy()


def look(model: Any, image: str | Path | np.ndarray, text: str) -> tuple[list[str], np.ndarray]:
    """Which word looked where in a TextDiff: the caption's word pieces and their attention, float32 ``[L, H, W]`` in 0..1.

    Raises FileNotFoundError: no such file; ValueError: a file that is no picture, another kind of array, or a model that has no
    attention to show.
    """
    pixels = _as_rgb(image)
    with _asking(model):
        weights = model.attention(model.image.input(pixels)[None].to(model.device), [text], pixels.shape[:2])[0]
    words = model.text.words(text)
    return words, weights[: len(words)].cpu().numpy()


@contextmanager
def _asking(model: Any) -> Iterator[None]:
    """Within this context a model answers as one that is not trained any more, and keeps no features on the disk."""
    was_training = model.training
    model.train(False)
    try:
        with model.features.caching(None):
            yield
    finally:
        model.train(was_training)


def _as_rgb(image: str | Path | np.ndarray) -> np.ndarray:
    if isinstance(image, (str, Path)):
        return read_picture(image, "RGB")
    return rgb_array(image)


# --- volumes ---------------------------------------------------------------------------------------------


class Segmenter(Protocol):
    """What is run over a volume: TextDiffSeg, or a 3D baseline.

    Only a model that draws has also ``draws``, which gives one after another the probabilities of each sample; only one that
    answers several sentences about several windows at once has ``ask`` (:meth:`textdiff.models.textdiffseg.TextDiffSeg.ask`).
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def device(self) -> torch.device: ...

    def segment(self, images: Tensor, prompts: Sequence[str], sampling: Sampling) -> Tensor:
        """Images ``[B, 4, X, Y, Z]`` (intensity, three place channels) -> probabilities ``[B, K+1, X, Y, Z]``."""
        ...


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one volume. All maps have the shape and the affine of the image file.

    ``labels``: values are the places in ``class_names`` (0 background); the most probable class by the samples' mean.
    ``volumes_ml``: of every structure, one number per sample.
    ``uncertainty`` (if asked for): entropy of the mean probabilities by the logarithm of the number of classes,
    float32, 0 (sure) to 1 (all classes alike).
    ``probabilities`` (if asked for): mean of the samples, float32 ``[K+1, X, Y, Z]``.
    ``prompt``: the words that the labels follow. ``asked``: the structures that the sentence asks for, as its words were read. ``dropped``: ml of those that were found, not
    asked for and left out of ``labels`` (uncertainty and probabilities are the network's own). ``remarks``: all that was said.
    """

    labels: Volume
    class_names: tuple[str, ...]
    volumes_ml: dict[str, tuple[float, ...]]
    uncertainty: Volume | None = None
    probabilities: np.ndarray | None = field(default=None, repr=False)
    prompt: str = ""
    asked: tuple[str, ...] = ()
    dropped: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def predict_volume(
    model: Segmenter,
    volume: Volume | str | Path,
    text: str,
    sampling: Sampling = PREDICTING,
    *,
    overlap: float = 0.5,
    uncertainty: bool = False,
    probabilities: bool = False,
    progress: bool = True,
    only_named: bool = True,
    ask_again: bool = True,
    strict: bool = False,
) -> Prediction:
    """Segment a volume, or the file or DICOM folder of one, with one sentence, and say where the answer may not be what was asked.

    Args:
        sampling: of the denoising. The labels come from the mean of the samples' probabilities; the noise of a window
            follows from the seed, the window's place and the sample's number, from nothing else.
        overlap: share of a window that the next one covers, from 0 to less than 1.
        uncertainty: also make the map of uncertainty.
        probabilities: also keep those of all classes, which needs 4 bytes per class and voxel.
        only_named: structures that the sentence does not ask for become background (and are reported); where it names
            nothing that is known, all that was found stays.
        ask_again: ask the model a second time, in the plain names of what was asked for; where the two outlines of a structure
            differ (Dice below 0.8), the mask follows the plain names, and that is said. The image encoder runs once for both.
        strict: refuse what would be warned of before the work begins.

    Warns, before: of words that name nothing the model knows, a part of a structure or a slip of the pen, of more words than
    it reads, and of a volume unlike those of the training (:mod:`textdiff.data.domain`); after: of structures asked for and
    not found, found and not asked for, and of amounts beyond those of the training. All of it is also in
    ``Prediction.remarks``. A volume smaller than one window is surrounded by its own minimum, as in training.

    Raises ValueError: a setting out of range, several samples of a model that always says the same, a file that is no
    volume (:func:`textdiff.data.volumes.volume.read_image`), or with ``strict`` what is warned of; FileNotFoundError: no such
    file or folder; FloatingPointError: the model gives nan or infinity.
    """
    _check_options(model, sampling, overlap)
    request = read_request(text, model.class_names[1:])
    encoder = getattr(model, "text", None)
    doubts = [
        *_on_request(text, request, model.class_names[1:]),
        *(encoder.remarks_on_length(text) if encoder is not None else []),
    ]
    if strict and doubts:
        raise ValueError("; ".join(doubts))
    if not isinstance(volume, Volume):
        volume = read_image(volume)
    grid = model.preprocessing.image(volume)
    domain = getattr(model, "domain", None)
    if domain is None:
        logger.info(NO_DOMAIN)
    else:
        unusual = domain.remarks_on_volume(volume, grid.array, model.preprocessing)
        doubts += [f"{volume.name or 'the volume'}: {remark}" for remark in unusual]
        if strict and unusual:
            raise ValueError("; ".join(doubts))
    if request.understood:
        ruled_out = f"; ruled out: {', '.join(request.excluded)}" if request.excluded else ""
        logger.info("asked for: %s%s", ", ".join(request.asked) or "nothing", ruled_out)
    _warn(doubts, volume.name)
    ready = _ready(model, volume, grid)
    del volume, grid
    plainly = prompt("class", request.asked) if request.asked else text
    texts = [text, plainly] if ask_again and plainly != text else [text]
    found, *again = _segmented(model, ready, texts, sampling, overlap, uncertainty, probabilities, progress)
    for plain in again:
        said, found = _second_opinion(found, plain, request, plainly)
        _warn(said, ready.frame.name)
        doubts += said
    answer = _answered(found, request, domain, only_named)
    _warn(answer.remarks, ready.frame.name)
    return replace(answer, prompt=answer.prompt or text, remarks=(*doubts, *answer.remarks))


def _warn(remarks: Iterable[str], name: str) -> None:
    """Warns whoever called the function that calls this. With the name, for Python tells only the first of equal warnings."""
    for remark in remarks:
        warnings.warn(f"{name}: {remark}" if name and not remark.startswith(name) else remark, stacklevel=3)


def segment_volume(
    model: Segmenter,
    volume: Volume,
    text: str,
    sampling: Sampling = Sampling(),
    *,
    overlap: float = 0.5,
    uncertainty: bool = False,
    probabilities: bool = False,
    progress: bool = True,
) -> Prediction:
    """What the model itself makes of a volume and a sentence, with nothing said and nothing left out: for measuring it.

    Arguments and errors are those of :func:`predict_volume`.
    """
    _check_options(model, sampling, overlap)
    ready = _ready(model, volume, model.preprocessing.image(volume))
    return _segmented(model, ready, [text], sampling, overlap, uncertainty, probabilities, progress)[0]


def _check_options(model: Segmenter, sampling: Sampling, overlap: float) -> None:
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap={overlap}: from 0 to less than 1")
    if sampling.samples > 1 and not hasattr(model, "draws"):
        raise ValueError(
            f"samples={sampling.samples}: a {type(model).__name__} always says the same; leave samples at 1"
        )


@dataclass(frozen=True)
class _Ready:
    """A volume as the windows are cut from it, without a second copy of its voxels.

    ``frame`` and ``grid`` are the places of the image and of the model's grid; ``padded`` is the image on that grid, at least as
    large as a ``window``, with ``before`` voxels added in front of each axis.
    """

    frame: Volume
    grid: Volume
    padded: Tensor
    before: list[int]
    window: tuple[int, int, int]


def _ready(model: Segmenter, volume: Volume, grid: Volume) -> _Ready:
    def place(one: Volume) -> Volume:
        return replace(one, array=np.broadcast_to(np.uint8(0), one.shape))

    window = model.preprocessing.frame(grid.shape)
    return _Ready(place(volume), place(grid), *_padded(grid, window), window)


def _segmented(
    model: Segmenter,
    ready: _Ready,
    texts: Sequence[str],
    sampling: Sampling,
    overlap: float,
    uncertainty: bool,
    probabilities: bool,
    progress: bool,
) -> list[Prediction]:
    """Windows of the model's grid, blended and read off at the voxels of the image: one prediction for each of the texts."""
    grid, before = ready.grid, ready.before
    how = (len(model.class_names), sampling.samples, uncertainty, probabilities)
    results = [_Result(ready.frame, grid, *how) for _ in texts]
    starts = [_starts(*sizes, overlap) for sizes in zip(ready.padded.shape, ready.window, strict=True)]
    windows = math.prod(map(len, starts))
    unit = "windows" if sampling.samples == 1 else "samples of windows"
    about = _about(grid, ready.window, windows, sampling)
    with torch.no_grad(), Progress(windows * sampling.samples, unit, about, shown=progress) as told:
        drawing = _Drawing(model, texts, sampling, ready, told.step)
        for first, drawn in _layers(ready.padded, starts, ready.window, drawing):
            for result, planes in zip(results, drawn, strict=True):
                result.add(planes, first, before)
    return [result.prediction(model.class_names) for result in results]


def _on_request(text: str, request: Request, known: Sequence[str]) -> Iterator[str]:
    """What a person should know of how a sentence was read, before the work begins."""
    for word, read in request.spelled:
        yield f"{word!r} was read as {read!r}; the network sees it as it stands"
    if not request.understood:
        yield f"the text {text!r} names nothing that this model knows; it knows {', '.join(known)}"
    if request.unknown:
        empty = "" if request.asked else ", and is asked for nothing that it knows"
        yield f"this model does not know {', '.join(map(repr, request.unknown))}{empty}; it knows {', '.join(known)}"
    elif request.understood and not request.asked:
        ruled_out = ", ".join((*request.excluded, *request.denied))
        yield f"the text {text!r} asks for nothing; it only rules out {ruled_out}"
    if request.understood and request.unread:
        yield f"not understood, and left out of account: {', '.join(map(repr, request.unread))}"
    for part in request.parts:
        yield f"{part!r} is a part of a structure, or one of a pair, which this model can only mark whole"


def _second_opinion(
    found: Prediction, plain: Prediction, request: Request, plainly: str
) -> tuple[list[str], Prediction]:
    """What was found for a sentence, or where it differs from what was found for plain names, the latter, and what to say of it."""
    agreement = {name: _alike(found, plain, name) for name in request.asked}
    apart = [f"{name} (Dice {dice:.2f})" for name, dice in agreement.items() if dice < AGREED]
    if not apart:
        return [], found
    said = f"the sentence as it stands and {plainly!r} give other outlines of {', '.join(apart)}; the mask follows the latter"
    return [said], replace(plain, prompt=plainly)


def _alike(one: Prediction, other: Prediction, name: str) -> float:
    """Dice of a structure in two predictions of one volume; 1 where neither has it."""
    number = one.class_names.index(name)
    first, second = one.labels.array == number, other.labels.array == number
    both = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / both if both else 1.0


def _answered(found: Prediction, request: Request, domain: Domain | None, only_named: bool) -> Prediction:
    """The prediction compared with the request: what is missing and what is too much, said and (``only_named``) left out."""
    # Of the labels, which the mean of the samples decides: a structure of one sample alone need not be among them
    marked, names = found.labels.array, found.class_names[1:]
    voxel = found.labels.voxel_ml
    amounts = {name: float(np.count_nonzero(marked == k) * voxel) for k, name in enumerate(names, start=1)}
    said = [f"{name} was asked for, and none was found" for name in request.asked if not amounts[name]]
    if domain is not None:
        said += filter(None, (domain.remark_on_amount(name, amounts[name]) for name in request.asked))
    unasked = [name for name in names if request.understood and name not in request.asked]
    extra = [name for name in unasked if amounts[name]]
    listed = ", ".join(f"{name} ({amounts[name]:.3g} ml)" for name in extra)
    if not only_named:
        said += [f"marked although not asked for: {listed}"] if extra else []
        return replace(found, asked=request.asked, remarks=tuple(said))
    said += [f"found but not asked for, and left out: {listed}"] if extra else []
    table = np.arange(len(found.class_names), dtype=found.labels.array.dtype)
    table[[found.class_names.index(name) for name in extra]] = 0
    dropped = {name: found.volumes_ml[name] for name in unasked if any(found.volumes_ml[name])}
    return replace(
        found,
        labels=replace(found.labels, array=table[found.labels.array]) if extra else found.labels,
        volumes_ml=found.volumes_ml | {name: (0.0,) * len(drawn) for name, drawn in dropped.items()},
        asked=request.asked,
        dropped=dropped,
        remarks=tuple(said),
    )


def window_seed(seed: int, corner: Sequence[int]) -> int:
    """The seed of the window at ``corner``, 0 to 2**32 - 1: no matter which windows come before it or with it."""
    return int(np.random.SeedSequence([seed, *corner]).generate_state(1)[0])


def _about(grid: Volume, window: Sequence[int], windows: int, sampling: Sampling) -> str:
    """What is about to be done, in words."""
    shape, side = (" x ".join(map(str, sizes)) for sizes in (grid.shape, window))
    spacing = " x ".join(f"{size:.3g}" for size in grid.spacing)
    return (
        f"{grid.name or 'the volume'}: {shape} voxels of {spacing} mm in {windows} window{'s' * (windows > 1)} of {side}, "
        f"sampling_steps={sampling.sampling_steps}, samples={sampling.samples}"
    )


def _padded(grid: Volume, patch: Sequence[int]) -> tuple[Tensor, list[int]]:
    """The image, at least as large as the patch, and how many voxels stand before it on every axis."""
    image, missing = torch.from_numpy(grid.array), [max(0, p - n) for p, n in zip(patch, grid.shape, strict=True)]
    before = [more // 2 for more in missing]
    if any(missing):
        sizes = (" x ".join(map(str, shape)) for shape in (grid.shape, patch))
        said = "%s is %s voxels, smaller than the model's window of %s: it is surrounded by its minimum"
        logger.info(said, grid.name or "the volume", *sizes)
    margins = [part for more in reversed(missing) for part in (more // 2, more - more // 2)]
    return F.pad(image, margins, value=float(image.min())), before


Ask = Callable[[Tensor, Sequence[tuple[int, int, int]]], Tensor]


def _layers(
    image: Tensor, starts: Sequence[Sequence[int]], window: Sequence[int], ask: Ask
) -> Iterator[tuple[int, Tensor]]:
    """Finished planes from foot to head: number of the first, and probabilities ``[T, S, K+1, X, Y, planes]`` of T texts' S samples.

    ``ask(windows [B, x, y, z], corners)`` gives those of a few windows, ``[T, S, B, K+1, x, y, z]``. They are averaged with
    weights that fall off from a window's middle as a Gaussian of an eighth of its side does.
    """
    x, y, depth = window
    lines = [_fading(side) for side in window]
    weight = lines[0][:, None, None] * lines[1][:, None] * lines[2]
    total, weights = torch.zeros(0), torch.zeros(*image.shape[:2], depth)
    at_once, fitting = max(1, TOGETHER // math.prod(window)), Fitting("windows")

    def asked(some: Sequence[tuple[int, int, int]]) -> Tensor:
        windows = torch.stack([image[a : a + x, b : b + y, c : c + depth] for a, b, c in some])
        return fitting.run(lambda parts: torch.cat([ask(windows[p], some[p]) for p in parts], dim=2), len(some))

    for start, following in zip(starts[2], [*starts[2][1:], image.shape[2]], strict=True):
        corners = [(a, b, start) for a, b in product(*starts[:2])]
        for some in (corners[k : k + at_once] for k in range(0, len(corners), at_once)):
            drawn = asked(some)
            if not total.numel():
                total = torch.zeros(*drawn.shape[:2], drawn.shape[3], *weights.shape)
            for k, (a, b, _) in enumerate(some):
                total[..., a : a + x, b : b + y, :].addcmul_(drawn[:, :, k], weight)
                weights[a : a + x, b : b + y] += weight
        done = following - start
        yield start, total[..., :done] / weights[..., :done]
        # the finished planes leave, as many of zeros come in behind
        total, weights = (F.pad(part[..., done:], (0, done)) for part in (total, weights))


def _fading(side: int) -> Tensor:
    """Weights along one axis of a window, as MONAI's sliding windows have them."""
    away = torch.arange(side) - (side - 1) / 2
    return torch.exp(away**2 / (-2 * (side / 8) ** 2)).clamp_min(1e-3)


def _starts(size: int, window: int, overlap: float) -> list[int]:
    """Where the windows along one axis start: at even steps, the last moved back so that it ends with the axis."""
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, size - window, step), size - window]


@dataclass(frozen=True)
class _Drawing:
    """All samples of a few windows, for all texts; ``drawn`` is called after each."""

    model: Segmenter
    texts: Sequence[str]
    sampling: Sampling
    ready: _Ready
    drawn: Callable[[], None]

    def __call__(self, windows: Tensor, corners: Sequence[tuple[int, int, int]]) -> Tensor:
        """``windows [B, x, y, z]`` -> ``[texts, samples, B, K+1, x, y, z]``, on the CPU."""
        images = torch.stack([torch.stack([one, *self._places(at)]) for one, at in zip(windows, corners, strict=True)])
        seeds = [window_seed(self.sampling.seed, corner) for corner in corners]
        samples = []
        for sample in self._asked(images.to(self.model.device), seeds):
            samples.append(sample.float().cpu())
            for _ in corners:
                self.drawn()
        drawn = torch.stack(samples, dim=1)
        if not torch.isfinite(drawn).all():
            broken = next(
                corner for corner, one in zip(corners, drawn.unbind(2), strict=True) if not one.isfinite().all()
            )
            raise FloatingPointError(f"the model gives nan or infinity at voxel {broken} of its grid")
        return drawn

    def _places(self, corner: tuple[int, int, int]) -> Sequence[Tensor]:
        """The three channels of data.volumes.patches.place_channels, going on evenly over the padding."""
        ready, lines = self.ready, []
        for first, side, size, margin in zip(corner, ready.window, ready.grid.shape, ready.before, strict=True):
            lines.append((torch.arange(first, first + side) - margin + 0.5) / size * 2 - 1)
        return torch.meshgrid(*lines, indexing="ij")

    def _asked(self, images: Tensor, seeds: Sequence[int]) -> Iterable[Tensor]:
        """Sample after sample, ``[texts, B, K+1, x, y, z]``."""
        if hasattr(self.model, "ask"):
            return self.model.ask(images, self.texts, self.sampling, seeds)
        return map(torch.stack, zip(*(self._told(images, text, seeds) for text in self.texts), strict=True))

    def _told(self, images: Tensor, text: str, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Sample after sample, ``[B, K+1, x, y, z]``, of a model that is asked one thing about one window at a time."""
        draws = getattr(self.model, "draws", lambda *given: [self.model.segment(*given)])
        every = [
            draws(one[None], [text], replace(self.sampling, seed=seed)) for one, seed in zip(images, seeds, strict=True)
        ]
        return map(torch.cat, zip(*every, strict=True))


class _Result:
    """The maps, filled plane by plane: probabilities are read off linearly at the image's own voxels, then reduced.

    ``frame`` is the place of the image, ``grid`` the model's. Arrays here have RAS axes, foot to head first, and the image's voxels.
    """

    def __init__(self, frame: Volume, grid: Volume, classes: int, samples: int, uncertainty: bool, probabilities: bool):
        from nibabel.orientations import inv_ornt_aff, io_orientation

        self.frame, self.grid_shape, self.classes = frame, grid.shape, classes
        self.turn = io_orientation(frame.affine)
        shape = tuple(int(frame.shape[axis]) for axis in np.argsort(self.turn[:, 0]))
        to_grid = np.linalg.inv(grid.affine) @ frame.affine @ inv_ornt_aff(self.turn, frame.shape)
        places = [torch.arange(n) * to_grid[k, k] + to_grid[k, 3] for k, n in enumerate(shape)]
        self.positions = [place.clamp(0, n - 1) for place, n in zip(places, grid.shape, strict=True)]
        self.counts = torch.zeros(samples, classes, dtype=torch.long)
        self.held: Tensor | None = None  # the last plane of the layer before
        self.done = 0  # planes
        self.maps: dict[str, np.ndarray] = {"labels": np.zeros(shape[::-1], np.min_scalar_type(classes - 1))}
        if uncertainty:
            self.maps["uncertainty"] = np.zeros(shape[::-1], np.float32)
        if probabilities:
            self.maps["probabilities"] = np.zeros((classes, *shape[::-1]), np.float32)

    def add(self, drawn: Tensor, first: int, before: Sequence[int]) -> None:
        """Take in ``drawn [S, K+1, X, Y, planes]`` of the padded grid, planes from ``first`` on."""
        first -= before[2]
        inside = [slice(b, b + n) for b, n in zip(before, self.grid_shape, strict=True)]
        drawn = drawn[:, :, inside[0], inside[1], max(0, -first) : self.grid_shape[2] - first].permute(4, 0, 1, 3, 2)
        start = max(0, first)
        if self.held is not None:
            drawn, start = torch.cat([self.held, drawn]), start - 1
        stop, heights = start + len(drawn), self.positions[2]
        self.held = drawn[-1:].clone()
        ready = len(heights) if stop == self.grid_shape[2] else int((heights <= stop - 1).sum())
        drawn = drawn.contiguous()
        for number in range(self.done, ready):
            self._fill(_read_off(drawn, 0, heights[number : number + 1] - start)[0], number)
        self.done = ready

    def _fill(self, plane: Tensor, number: int) -> None:
        """Reduce ``plane [S, K+1, Y, X]`` of the model's grid to that plane of the maps."""
        ys, xs = self._where(plane) if len(self.maps) == 1 else (slice(None), slice(None))
        # columns first: there are fewer rows as yet, and whole rows are quickly copied
        drawn = _read_off(_read_off(plane, 3, self.positions[0][xs]), 2, self.positions[1][ys])
        if not drawn.numel():
            return
        single = len(drawn) == 1  # most often: nothing to average then
        chosen, mean = _most(drawn, 1), drawn[0] if single else drawn.mean(dim=0)
        self.counts += torch.stack([torch.bincount(labels.flatten(), minlength=self.classes) for labels in chosen])
        found = {"labels": chosen[0] if single else _most(mean, 0), "probabilities": mean}
        if "uncertainty" in self.maps:
            found["uncertainty"] = torch.special.entr(mean).sum(dim=0).div_(np.log(self.classes)).clamp_(0, 1)
        for name in self.maps:
            self.maps[name][..., number, ys, xs] = found[name].numpy()

    def _where(self, plane: Tensor) -> tuple[slice, slice]:
        """Rows and columns of the image between which a label other than background can be.

        What lies between four cells of which background is the most probable class is background: there, the mean of its
        probabilities is above the mean of any other's.
        """
        there = (_most(plane, 1) > 0).any(dim=0) | (_most(plane.mean(dim=0), 0) > 0)
        if not there.any():
            return slice(0), slice(0)
        found = []
        for axis, positions in ((1, self.positions[1]), (0, self.positions[0])):
            (cells,) = there.any(dim=axis).nonzero(as_tuple=True)
            near = (positions > cells[0] - 1) & (positions < cells[-1] + 1)
            (voxels,) = near.nonzero(as_tuple=True)
            found.append(slice(int(voxels[0]), int(voxels[-1]) + 1) if len(voxels) else slice(0))
        return found[0], found[1]

    def prediction(self, class_names: Sequence[str]) -> Prediction:
        amounts = (self.counts.double() * self.frame.voxel_ml).T.tolist()
        volumes = {name: tuple(amount) for name, amount in zip(class_names, amounts, strict=True)}
        del volumes[class_names[0]]
        maps: dict[str, Any] = {name: self._in_file_order(name) for name in list(self.maps)}
        return Prediction(class_names=tuple(class_names), volumes_ml=volumes, **maps)

    def _in_file_order(self, name: str) -> Volume | np.ndarray:
        from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

        back = ornt_transform(io_orientation(np.eye(4)), self.turn)
        values = self.maps.pop(name)
        if name == "probabilities":
            return np.stack([apply_orientation(channel.T, back) for channel in values])
        return replace(self.frame, array=apply_orientation(values.T, back))


def _most(values: Tensor, dim: int) -> Tensor:
    """argmax; on a processor, max() finds it several times as fast."""
    return values.max(dim=dim).indices


def _read_off(values: Tensor, dim: int, positions: Tensor) -> Tensor:
    """``values`` at fractional indices within one dimension, linearly."""
    low = positions.floor().long().clamp(max=max(0, values.shape[dim] - 2))
    share = (positions - low).to(values.dtype)
    if not share.any():  # on the voxels themselves
        return values.index_select(dim, low)
    high = (low + 1).clamp(max=values.shape[dim] - 1)
    share = share.reshape([-1 if axis == dim else 1 for axis in range(values.ndim)])
    return values.index_select(dim, low).lerp_(values.index_select(dim, high), share)
