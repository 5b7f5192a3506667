"""Training patches of volumes: cases in; patches, label maps and prompts out, numbered and always the same.

A patch is one resampling of the prepared volume: crop, rotation, scaling and bending happen at once. Beside the
intensity every patch carries three place channels, so that a network that sees a part of the body knows which part: without
them no patch could tell a left kidney from a right one. Ours; TextDiffSeg's paper does not say how patches are made.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from tqdm.auto import tqdm

from textdiff.base.files import may_be_left_out, remove_unfinished, write_atomically
from textdiff.base.spilling import Pile
from textdiff.data.batch import Batch
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.listings import bytes_of
from textdiff.data.volumes.prompts import KINDS, prompt, request
from textdiff.data.volumes.volume import Volume, normalised, to_grid

IMAGE_CHANNELS = 4  # intensity and three place channels
DIVISOR = 8  # sides of a window: stride 4 of the label latent, halved once in the denoiser
PromptKind = Literal["class", "anatomy", "report", "mixed", "request"]
PROMPT_KINDS = get_args(PromptKind)
WARPED = 0.4  # share of the patches that are turned and zoomed; the others keep the very voxels of the volume
TURN = 0.26  # radians, 15 degrees
ZOOM = 0.15
NOTHING = 0.05  # share of the requests that ask for nothing the model knows
BEND = 0.03  # of half the patch's side, standard deviation of the displacements of a 4 x 4 x 4 grid


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a volume before the network, and the side of the windows it is segmented in.

    ``spacing``: voxel sides in mm, None to keep the volume's own; ``window``: (low, high) in HU, None for other modalities;
    ``patch``: voxels along right, anterior and superior.

    Raises ValueError for values that are not possible.
    """

    spacing: tuple[float, float, float] | None
    window: tuple[float, float] | None
    patch: tuple[int, int, int]

    def __post_init__(self) -> None:
        for name, count, least in (("spacing", 3, 0.0), ("window", 2, -math.inf), ("patch", 3, 0.0)):
            values = getattr(self, name)
            numbers = isinstance(values, tuple) and all(isinstance(one, (int, float)) for one in values)
            if values is None and name != "patch":
                continue
            if not (numbers and len(values) == count and all(least < one < math.inf for one in values)):
                raise ValueError(f"{name}={values!r}: {count} numbers{', all positive' if least == 0 else ''}")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window={self.window!r}: two numbers, the lower one first")

    def check_cells(self) -> None:
        """Raises ValueError for a patch that is not of whole cells of a latent."""
        if any(side % DIVISOR or not isinstance(side, int) for side in self.patch):
            raise ValueError(f"preprocessing.patch={self.patch}: voxels, multiples of {DIVISOR} along each axis")

    def image(self, volume: Volume) -> Volume:
        """The volume on the network's grid (RAS axes), intensities normalised."""
        grid = to_grid(volume, self.spacing, "image")
        return Volume(normalised(grid.array, self.window), grid.affine, grid.name)

    def frame(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Voxels of the windows that a volume of this shape is segmented in.

        An axis up to a quarter longer than the patch is taken whole, rounded up to whole cells of the latent, instead of
        being cut into two windows. No window is larger than it must be: the more of it is padding, the further the
        networks' norms are from what they were in training (0.05 of Dice after 100 steps, in trials on validation volumes).
        """
        fits = [-(-side // DIVISOR) * DIVISOR for side in shape]
        x, y, z = (fit if p < fit <= 1.25 * p else p for fit, p in zip(fits, self.patch, strict=True))
        return x, y, z

    def labels(self, volume: Volume) -> Volume:
        """A label map on the same grid."""
        return to_grid(volume, self.spacing, "labels")


def place_channels(shape: Sequence[int]) -> Tensor:
    """Where every voxel lies in its volume, float32 ``[3, X, Y, Z]``: -1 to 1 from left to right, back to front, foot to head."""
    axes = [(torch.arange(size) + 0.5) / size * 2 - 1 for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def signed_distances(labels: np.ndarray, num_classes: int, spacing: Sequence[float], limit: float = 10.0) -> np.ndarray:
    """How far every voxel is from the surface of every structure, float32 ``[num_classes - 1, X, Y, Z]``.

    Positive inside; in units of ``limit`` mm and cut at -1 and 1, so that far away says only "far". A structure that is
    not there is -1 everywhere, one that fills the volume 1. ``labels`` integers ``[X, Y, Z]``; ``spacing`` in mm.
    """
    from scipy.ndimage import find_objects

    reach = [math.floor(limit / side) for side in spacing]
    found = np.full((num_classes - 1, *labels.shape), -1, np.float32)
    for distances, label, box in zip(found, range(1, num_classes), find_objects(labels, num_classes - 1), strict=True):
        if box is None:
            continue
        # One voxel of background at least: beyond it no background can be nearer
        wider = tuple(slice(max(0, s.start - max(1, r)), s.stop + max(1, r)) for s, r in zip(box, reach, strict=True))
        inside = torch.from_numpy(labels[wider] == label)
        squared = torch.stack([~inside, inside]).float() * limit**2
        outward, inward = _nearest(squared, spacing, reach).sqrt()
        distances[wider] = (inward - outward) / limit
    return found


def _nearest(squared: Tensor, spacing: Sequence[float], reach: Sequence[int]) -> Tensor:
    """Squared distances ``[B, X, Y, Z]`` to the nearest voxel that is 0; voxels beyond ``reach`` keep what they have.

    Exact, one axis after the other (Felzenszwalb and Huttenlocher 2012, as a search in a window).
    """
    for axis, (side, far) in enumerate(zip(spacing, reach, strict=True), start=1):
        before, squared = squared, squared.clone()
        for offset in range(1, min(far, squared.shape[axis] - 1) + 1):
            moved, count = before + (offset * side) ** 2, squared.shape[axis] - offset
            for start, source in ((offset, 0), (0, offset)):
                target = squared.narrow(axis, start, count)
                torch.minimum(target, moved.narrow(axis, source, count), out=target)
    return squared


@dataclass(frozen=True)
class VolumeBatch(Batch):
    """``images`` float32 ``[B, 4, X, Y, Z]``, ``labels`` int64 ``[B, X, Y, Z]`` of what ``prompts`` name (else 0),
    ``distances`` float32 ``[B, K, X, Y, Z]`` (:func:`signed_distances`) or None where nobody asked for them."""

    images: Tensor
    labels: Tensor
    distances: Tensor | None
    prompts: list[str]


Sample = tuple[Tensor, Tensor, Tensor | None, str]


@dataclass(frozen=True)
class _Prepared:
    """A volume on the network's grid; its voxels are the slice from ``start`` of those of all volumes."""

    start: int
    shape: tuple[int, int, int]
    lowest: float
    foreground: np.ndarray  # [N, 3] voxels, at most 2000 of every structure
    affine: np.ndarray


class TrainingVolumes:
    """Random patches; sample ``number`` is the same whenever and in whatever order it is asked for.

    Args:
        cases: labelled cases; read once, kept in memory or a file (:class:`textdiff.base.spilling.Pile`), and prepared in
            ``cache`` if given.
        class_names: background first.
        patch: voxels; smaller volumes are surrounded by their own minimum.
        prompts: kind of sentence ("class", "anatomy", "report", "mixed" of these three, "request"), or "" for none.
        single: share of the patches whose sentence names only some of the structures; the others are background there.
        augment: turn, zoom, bend and change intensities.
        mirror: also exchange left and right: only where no structure and no sentence has a side. The channel of places from
            left to right is exchanged with the image (all published models were trained so).
        foreground: share of the patches centred on a voxel of a structure.
        distances: also give the signed distances, for networks with a label latent.

    Raises:
        ValueError: no cases, an unknown kind, a label without a name, or what :class:`VolumeCase` raises.
    """

    def __init__(
        self,
        cases: Sequence[VolumeCase],
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        *,
        patch: Sequence[int],
        prompts: PromptKind | Literal[""] = "class",
        single: float = 0.5,
        augment: bool = True,
        mirror: bool = False,
        foreground: float = 0.5,
        distances: bool = False,
        seed: int = 0,
        cache: Path | None = None,
        progress: bool = True,
    ) -> None:
        if not cases:
            raise ValueError("there are no labelled volumes to train on")
        if prompts and prompts not in PROMPT_KINDS:
            raise ValueError(f"prompts={prompts!r}: choose one of {', '.join(PROMPT_KINDS)}, or '' for none")
        self.class_names, self.patch, self.prompts = tuple(class_names), tuple(patch), prompts
        self.preprocessing = preprocessing
        self.single, self.augment, self.mirror, self.foreground = single, augment, mirror, foreground
        self.distances, self.seed = distances, seed
        self.volumes: list[_Prepared] = []
        self._intensities, self._labels, start = Pile(), Pile(), 0
        for case in tqdm(cases, desc="reading volumes", disable=not progress, leave=False):
            image, label_map = _on_grid(case, preprocessing, cache)
            if label_map.array.max() >= len(self.class_names):
                largest, known = int(label_map.array.max()), len(self.class_names) - 1
                raise ValueError(f"{label_map.name} has label {largest}, but class_names name labels up to {known}")
            voxels = torch.from_numpy(image.array).float().flatten()
            lowest = voxels.min()
            self._intensities.put(voxels - lowest)
            self._labels.put(torch.from_numpy(label_map.array.astype(np.uint8)))
            structures = _some_voxels(label_map.array)
            self.volumes.append(_Prepared(start, image.shape, float(lowest), structures, image.affine))
            start += len(voxels)

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def settings(self) -> dict[str, object]:
        """What decides the samples, apart from the voxels."""
        names = ("class_names", "patch", "prompts", "single", "augment", "mirror", "foreground", "distances", "seed")
        about = {"volumes": len(self), "preprocessing": asdict(self.preprocessing)}
        return about | {name: getattr(self, name) for name in names}

    def sample(self, number: int) -> Sample:
        """Image ``[4, X, Y, Z]``, labels, distances or None, and sentence of one patch.

        All volumes are met once before any is met again.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        draw = np.random.default_rng([self.seed, number])
        turn, place = divmod(number, len(self.volumes))
        volume = self.volumes[np.random.default_rng([self.seed, turn]).permutation(len(self.volumes))[place]]
        grid = self._grid(volume, draw, generator)
        image = _sampled(self._of(volume, self._intensities), grid) + volume.lowest
        found = sampled_labels(self._of(volume, self._labels), grid, len(self.class_names))
        if self.augment:
            image = _other_intensities(image, draw, generator)
        names = self._named(found, draw)
        sentence = self._sentence(names, volume, draw)
        wanted = [self.class_names.index(name) for name in names]
        labels = np.where(np.isin(found, wanted), found, 0)
        distances = None
        if self.distances:
            spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
            distances = torch.from_numpy(signed_distances(labels, len(self.class_names), spacing))
        places = grid[0].flip(-1).movedim(-1, 0)
        return torch.cat([image[None], places]), torch.from_numpy(labels).long(), distances, sentence

    def collate(self, samples: Sequence[Sample]) -> VolumeBatch:
        """Samples as one batch."""
        images, labels, distances, prompts = zip(*samples, strict=True)
        measured = torch.stack(distances) if self.distances else None
        return VolumeBatch(torch.stack(images), torch.stack(labels), measured, list(prompts))

    def _of(self, volume: _Prepared, voxels: Pile) -> Tensor:
        return voxels.whole()[volume.start : volume.start + math.prod(volume.shape)].view(volume.shape)

    def _grid(self, volume: _Prepared, draw: np.random.Generator, generator: torch.Generator) -> Tensor:
        """Sampling positions ``[1, *patch, 3]`` in grid_sample's own coordinates and order (last axis first)."""
        warp = self.augment and draw.random() < WARPED
        centre = self._centre(volume, draw)
        if not warp:  # on whole voxels: half a voxel off would blur the image and shift its labels
            half = (np.array(self.patch) - 1) / 2
            centre = np.round(centre - half) + half
        matrix = _turned(draw) if warp else np.eye(3)
        if self.mirror and draw.random() < 0.5:
            matrix = np.diag([-1.0, 1.0, 1.0]) @ matrix
        offsets = [torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in self.patch]
        voxels = torch.stack(torch.meshgrid(*offsets, indexing="ij"), dim=-1)
        if warp and draw.random() < 0.5:
            voxels = voxels + _bent(self.patch, generator)
        voxels = voxels @ torch.from_numpy(matrix.T).float() + torch.from_numpy(centre).float()
        positions = (voxels + 0.5) / torch.tensor(volume.shape).float() * 2 - 1
        return positions.flip(-1)[None]

    def _centre(self, volume: _Prepared, draw: np.random.Generator) -> np.ndarray:
        """In voxels. Along an axis where the volume fits into the patch, its middle, give or take a few voxels."""
        shape = np.array(volume.shape)
        slack = np.maximum(shape - np.array(self.patch), 0) / 2
        middle = (shape - 1) / 2
        if len(volume.foreground) and draw.random() < self.foreground:
            target = volume.foreground[draw.integers(len(volume.foreground))]
            wanted = np.clip(target, middle - slack, middle + slack)
        else:
            wanted = middle + draw.uniform(-1, 1, 3) * slack
        return wanted + (draw.uniform(-3, 3, 3) if self.augment else 0)

    def _named(self, labels: np.ndarray, draw: np.random.Generator) -> list[str]:
        """What the sentence names: everything, or a part of it that is there (if anything is); a request at times nothing."""
        names = list(self.class_names[1:])
        if self.prompts == "request" and draw.random() < NOTHING:
            return []
        if not self.prompts or draw.random() >= self.single or len(names) == 1:
            return names
        there = np.bincount(labels.ravel(), minlength=len(self.class_names)) > 0
        present = [name for k, name in enumerate(names, start=1) if there[k]] or names
        some = set(draw.permutation(present)[: draw.integers(1, max(2, len(present)))])
        return [name for name in names if name in some]

    def _sentence(self, names: list[str], volume: _Prepared, draw: np.random.Generator) -> str:
        """Findings are those of the whole volume: a patch does not know which side of the patient it is on."""
        if not self.prompts:
            return ""
        if self.prompts == "request":
            return request(names, self.class_names[1:], draw)
        kind = str(draw.choice(KINDS)) if self.prompts == "mixed" else self.prompts
        findings = Volume(self._of(volume, self._labels).numpy(), volume.affine)
        return prompt(kind, names, findings, self.class_names, variant=int(draw.integers(1_000)))


def _some_voxels(labels: np.ndarray) -> np.ndarray:
    """Places ``[N, 3]`` of at most 2000 voxels of every structure or so, evenly spread."""
    found = [np.argwhere(labels == k) for k in np.unique(labels) if k]
    some = [voxels[:: max(1, len(voxels) // 2000)] for voxels in found]
    return np.concatenate(some) if some else np.zeros((0, 3), int)


def _on_grid(case: VolumeCase, preprocessing: Preprocessing, cache: Path | None) -> tuple[Volume, Volume]:
    """Image and labels on the network's grid; kept in ``cache``, if given, under a name that follows files and settings."""
    path = None
    if cache and case.files:
        # Other structures of the same files are other labels
        numbering = str((case.values, sorted(case.masks.items()), case.structures))
        read = [file for one in case.files for file in bytes_of(one)]
        files = [f"{file}{file.stat().st_size}{file.stat().st_mtime_ns}" for file in read]
        about = "|".join([str(preprocessing), case.name, numbering, *files])
        path = cache / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.npz"
    if path and (kept := _kept(path, case.name)):
        return kept
    image, labels = case.pair()
    image, labels = preprocessing.image(image), preprocessing.labels(labels)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, image=image.array, labels=labels.array, affine=image.affine)

    if path:
        with may_be_left_out("the cache of volumes", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / ".lock"):
                remove_unfinished(path.parent)
                write_atomically(path, write)
    return image, labels


def _kept(path: Path, name: str) -> tuple[Volume, Volume] | None:
    """Image and labels in an entry of the cache; None where there is none, or a damaged one (its checksums tell)."""
    try:
        with np.load(path) as kept:
            image, labels = (Volume(kept[kind], kept["affine"], name) for kind in ("image", "labels"))
            return image, labels
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy, zipfile and zlib raise many kinds, all meaning the same here
        warnings.warn(f"a damaged entry of the cache of volumes is made again: {path} ({error})", stacklevel=2)
        return None


def _turned(draw: np.random.Generator) -> np.ndarray:
    """A random rotation about the three axes and a zoom, as a matrix."""
    matrix = np.eye(3) * (1 + draw.uniform(-ZOOM, ZOOM))
    for axis in range(3):
        angle = draw.uniform(-TURN, TURN)
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _bent(patch: Sequence[int], generator: torch.Generator) -> Tensor:
    """Smooth random displacements in voxels, ``[*patch, 3]``."""
    knots = torch.randn(1, 3, 4, 4, 4, generator=generator) * BEND
    bent = F.interpolate(knots, size=tuple(patch), mode="trilinear", align_corners=True)[0]
    return bent.movedim(0, -1) * torch.tensor(patch) / 2


def _sampled(volume: Tensor, grid: Tensor) -> Tensor:
    """``volume [X, Y, Z]`` at ``grid``, trilinear; 0 outside."""
    return F.grid_sample(volume[None, None], grid, mode="bilinear", align_corners=False)[0, 0]


def sampled_labels(labels: Tensor, grid: Tensor, num_classes: int) -> np.ndarray:
    """The class with the largest trilinear share at every position of ``grid``, uint8 ``[*patch]``; background outside.

    Equal to resampling one map per class and taking the largest, but only the eight voxels around a position vote.
    ``labels`` uint8 ``[X, Y, Z]``; ``grid`` ``[1, *patch, 3]`` as torch's grid_sample takes it.
    """
    size, padded = torch.tensor(labels.shape), F.pad(labels, [1] * 6)
    # As grid_sample counts: from the edges of the volume, last axis first
    at = ((grid[0].flatten(0, 2).flip(-1) + 1) * size - 1) / 2
    low = at.floor()
    share = torch.stack([low + 1 - at, at - low])  # of the lower and the upper neighbour along each axis, [2, N, 3]
    cells = torch.stack([(low + 1 + upper).clamp_min(0).minimum(size + 1).long() for upper in (0, 1)])
    x, y, z = (cells * torch.tensor(padded.stride())).unbind(-1)
    corners = list(itertools.product((0, 1), repeat=3))
    votes = torch.stack([padded.flatten()[x[i] + y[j] + z[k]] for i, j, k in corners])
    result = votes[0].clone()
    (disputed,) = (votes != votes[0]).any(dim=0).nonzero(as_tuple=True)
    x, y, z = share[:, disputed].unbind(-1)
    shares = torch.zeros(num_classes, len(disputed))
    for vote, (i, j, k) in zip(votes[:, disputed].long(), corners, strict=True):
        shares.scatter_add_(0, vote[None], (z[k] * y[j] * x[i])[None])
    shares[0] = 1 - shares[1:].sum(dim=0)
    result[disputed] = shares.argmax(dim=0).to(result.dtype)
    return result.view(grid.shape[1:4]).numpy()


def _other_intensities(image: Tensor, draw: np.random.Generator, generator: torch.Generator) -> Tensor:
    """Contrast, brightness, gamma, blur and noise, each sometimes."""
    if draw.random() < 0.4:
        image = image * draw.uniform(0.75, 1.25) + draw.uniform(-0.2, 0.2)
    if draw.random() < 0.2:
        low, span = image.min(), (image.max() - image.min()).clamp_min(1e-6)
        image = ((image - low) / span) ** draw.uniform(0.7, 1.5) * span + low
    if draw.random() < 0.1:
        image = F.avg_pool3d(image[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    if draw.random() < 0.2:
        image = image + draw.uniform(0, 0.15) * torch.randn(image.shape, generator=generator)
    return image
