"""Synthetic phantoms for demo mode: a number, a seed and a size in, a list of `Case` out. Ours, not the
paper's.

Nuclei: stained tissue with elliptical nuclei and sentences of MoNuSeg's kind that are true of the picture.
Chest: films with opacities in some of the six lung areas, all drawn by the same rule; the sentence, of QaTa-COV19's
kind, says which of them count, and the mask holds only those. The film is drawn before and without the choice, so
nothing but the sentence tells target and look-alike apart, and the effect of text can be measured.
"""

from __future__ import annotations

import numpy as np

from textdiff.data.cases import Case
from textdiff.data.images.captions import AREAS, LEVELS, NUCLEI_PATTERNS, Area, chest_caption, nuclei_caption

NUCLEI_STREAM, CHEST_STREAM, CHOICE_STREAM = 1, 2, 3
# As in QaTa-COV19's captions, whose "left lung" is the viewer's left (measured: the masks of 96 % of the one-sided
# "left" test cases lie in the picture's left half), although films show the patient's left lung on the right.
LEFT_LUNG_ON_PICTURE_RIGHT = False
# Shares of the sentences, near those of MoNuSeg's training split.
PATTERN_WEIGHTS = {"evenly": 4, "sparsely": 3, "irregularly": 1, "around": 1}
MAX_TARGETS = 3


def _indices(n: int, size: int, start: int) -> range:
    if n < 0 or start < 0:
        raise ValueError(f"n and start must not be negative, got n={n}, start={start}")
    if size < 32:
        raise ValueError(f"phantoms need a size of at least 32 pixels, got {size}")
    return range(start, start + n)


def _rng(stream: int, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([stream, seed, index])


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    centres = (np.arange(size, dtype=np.float32) + 0.5) / size
    return centres[:, None], centres[None, :]


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """[size, size] float32 noise of unit variance at the knots, varying over 1/cells of the picture."""
    knots = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    position = np.linspace(0, cells, size, dtype=np.float32)
    low = np.minimum(position.astype(int), cells - 1)
    part = position - low
    part = part * part * (3 - 2 * part)
    rows = knots[low] * (1 - part[:, None]) + knots[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside (distance < 0), 0 outside, with a soft edge `width` wide."""
    return np.clip(0.5 - distance / width, 0, 1)


# --- nuclei --------------------------------------------------------------------------------------------


def _density(pattern: str, y: np.ndarray, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Relative density of nuclei, 0..1, at points (y, x) in [0, 1]."""
    low = 0.12
    if pattern in ("evenly", "sparsely"):
        return np.ones_like(y)
    if pattern == "irregularly":
        centres = rng.uniform(0.1, 0.9, (4, 2))
        nearest = np.min([np.hypot(y - cy, x - cx) for cy, cx in centres], axis=0)
        return np.where(nearest < 0.17, 1.0, low / 2)
    if pattern == "around":
        return np.where(np.maximum(abs(y - 0.5), abs(x - 0.5)) > 0.3, 1.0, low)
    inside = np.ones_like(y, dtype=bool)
    for word in pattern.split():
        inside &= {"upper": y < 0.5, "lower": y >= 0.5, "left": x < 0.5, "right": x >= 0.5}[word]
    return np.where(inside, 1.0, low)


def _nucleus_centres(pattern: str, rng: np.random.Generator) -> np.ndarray:
    """[N, 2] centres (y, x) in [0, 1]: a jittered grid of candidates, kept with the pattern's density."""
    cells = int(rng.integers(7, 9)) if pattern == "sparsely" else int(rng.integers(11, 14))
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = (grid + 0.5 + rng.uniform(-0.35, 0.35, grid.shape)) / cells
    keep = {"evenly": 0.9, "sparsely": 0.6}.get(pattern, 0.95)
    return centres[rng.random(len(centres)) < keep * _density(pattern, centres[:, 0], centres[:, 1], rng)]


def _draw_nucleus(
    picture: np.ndarray, mask: np.ndarray, centre: np.ndarray, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """Paint one elliptical nucleus into picture [S, S, 3] float and mask [S, S], in place."""
    size = mask.shape[0]
    long, ratio, angle = rng.uniform(0.024, 0.036), rng.uniform(0.6, 0.95), rng.uniform(0, np.pi)
    cy, cx = centre * size
    reach = int(np.ceil(long * size)) + 1
    top, left = max(int(cy) - reach, 0), max(int(cx) - reach, 0)
    patch = np.s_[top : min(int(cy) + reach + 1, size), left : min(int(cx) + reach + 1, size)]
    height, width = mask[patch].shape
    dy = np.arange(top, top + height)[:, None] + 0.5 - cy
    dx = np.arange(left, left + width)[None, :] + 0.5 - cx
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    radius = np.hypot(along / (long * size), across / (long * ratio * size))
    cover = _step((radius - 1) * long * ratio * size, 1.5)
    shade = rng.uniform(0.8, 1.2) * (1.0 - 0.25 * np.clip(radius, 0, 1) ** 2)
    ink = colour * shade[..., None]
    picture[patch] += cover[..., None] * (ink - picture[patch])
    mask[patch][radius < 1] = 1


def _nuclei_phantom(pattern: str, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    pink = np.array([205, 155, 190]) + rng.uniform(-20, 20) + rng.uniform(-12, 12, 3)
    violet = np.array([88, 56, 122]) + rng.uniform(-22, 22) + rng.uniform(-8, 8, 3)
    texture = 0.6 * _smooth_noise(rng, size, 5) + 0.4 * _smooth_noise(rng, size, min(24, size // 2))
    picture = pink + 14 * texture[..., None] * np.array([0.6, 1.0, 0.7])
    gaps = _step(1.6 - _smooth_noise(rng, size, 7), 0.4)[..., None]
    picture += gaps * (np.array([240, 234, 240]) - picture)
    mask = np.zeros((size, size), np.uint8)
    for centre in _nucleus_centres(pattern, rng):
        _draw_nucleus(picture, mask, centre, violet, rng)
    picture += 6 * rng.standard_normal((size, size, 1))
    return np.clip(picture, 0, 255).astype(np.uint8), mask


def nuclei_phantoms(n: int, seed: int, size: int = 256, start: int = 0) -> list[Case]:
    """Make `n` pictures of stained nuclei with masks {0, 1} and true sentences of MoNuSeg's kind.

    The same seed gives the same pictures, and case i does not depend on n. size: side in pixels, at least 32. start: index
    of the first case (splits use ranges that never overlap). Raises ValueError for a negative number or too small a size.
    """
    patterns = list(NUCLEI_PATTERNS)
    weights = np.array([PATTERN_WEIGHTS.get(pattern, 1) for pattern in patterns], float)
    cases = []
    for index in _indices(n, size, start):
        rng = _rng(NUCLEI_STREAM, seed, index)
        pattern = patterns[rng.choice(len(patterns), p=weights / weights.sum())]
        image, mask = _nuclei_phantom(pattern, size, rng)
        name = f"nuclei-{seed}-{index:08d}"
        cases.append(Case(name, nuclei_caption(pattern), image_array=image, mask_array=mask))
    return cases


# --- chest ---------------------------------------------------------------------------------------------


def _lung(y: np.ndarray, x: np.ndarray, outward: int, frame: dict[str, float]) -> np.ndarray:
    """Negative inside one lung; `outward` is -1 for the lung on the picture's left, 1 on its right."""
    across = outward * (x - frame["middle"])  # 0 at the spine, grows towards the ribs
    along = (y - frame["top"]) / (frame["bottom"] - frame["top"])  # 0 apex, 1 base
    outer = frame["width"] * (0.55 + 0.45 * np.sin(np.pi * np.clip(along, 0, 1) ** 0.8 * 0.62))
    inner = frame["gap"]
    centre, half = (outer + inner) / 2, (outer - inner) / 2
    sideways = abs(across - centre) - half
    dome = frame["bottom"] - 0.05 * np.cos(np.clip((across - centre) / 0.12, -1.4, 1.4))
    apex = frame["top"] + 0.9 * ((across - centre * 0.85) ** 2) / 0.12
    return np.maximum(np.maximum(sideways, y - dome), apex - y)


def _frame(rng: np.random.Generator) -> dict[str, float]:
    return {
        "middle": 0.5 + rng.uniform(-0.03, 0.03),
        "top": rng.uniform(0.1, 0.15),
        "bottom": rng.uniform(0.8, 0.86),
        "width": rng.uniform(0.36, 0.4),
        "gap": rng.uniform(0.06, 0.08),
    }


def _film(size: int, frame: dict[str, float], rng: np.random.Generator) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """A clear film, float [S, S] in about 0..1, and the lung fields (without the heart) by `outward`."""
    y, x = _grid(size)
    from_middle = abs(x - frame["middle"])
    body = _step(from_middle - (0.44 + 0.04 * y), 0.06) * _step(0.06 + 0.5 * from_middle**2 - y, 0.06)
    heart = np.hypot((x - frame["middle"] - 0.05) / 0.13, (y - frame["bottom"] + 0.13) / 0.17) - 1
    lungs = {outward: np.maximum(_lung(y, x, outward, frame), -0.13 * heart) for outward in (-1, 1)}
    air = np.maximum(_step(lungs[-1], 0.025), _step(lungs[1], 0.025))
    film = 0.05 + 0.6 * body - 0.4 * air
    ribs = np.sin(
        2 * np.pi * (rng.uniform(8, 10) * (y - 0.35 * from_middle + 1.1 * from_middle**2) + rng.uniform(0, 1))
    )
    film += 0.09 * np.clip(ribs - 0.2, 0, 1) * body * _step(0.07 - from_middle, 0.04)
    film += 0.12 * _step(from_middle - 0.045, 0.04) * body
    film += 0.02 * _smooth_noise(rng, size, 6) + 0.03 * air * _smooth_noise(rng, size, min(20, size // 2))
    return film, lungs


def _outward(side: str) -> int:
    return 1 if (side == "left") == LEFT_LUNG_ON_PICTURE_RIGHT else -1


def _opacity(area: Area, lung: np.ndarray, frame: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """One soft opacity, [S, S] in 0..1, that stays within its area of the lung."""
    y, x = _grid(lung.shape[0])
    height = (frame["bottom"] - 0.04 - frame["top"]) / len(LEVELS)  # an area is a third of its lung
    top = frame["top"] + height * LEVELS.index(area[0])
    bottom = top + height
    radius_y, radius_x = rng.uniform(0.06, 0.09), rng.uniform(0.06, 0.1)
    rows = (y > top + 0.8 * radius_y) & (y < bottom - 0.8 * radius_y)
    candidates = np.flatnonzero((lung < -0.02) & rows)
    row, column = np.unravel_index(rng.choice(candidates), lung.shape)
    angle = np.arctan2(y - y[row, 0], x - x[0, column])
    wobble = 1 + 0.14 * np.sin(2 * angle + rng.uniform(0, 6.28)) + 0.1 * np.sin(3 * angle + rng.uniform(0, 6.28))
    radius = np.hypot((y - y[row, 0]) / radius_y, (x - x[0, column]) / radius_x) / wobble
    inside = _step(lung, 0.02) * _step(top - y, 0.02) * _step(y - bottom, 0.02)
    return _step(radius - 1, 0.5) * inside


def _film_with_opacities(size: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[Area, np.ndarray]]:
    """A film, uint8 [S, S], with two to six opacities, and each opacity, [S, S] in 0..1, by its area."""
    frame = _frame(rng)
    film, lungs = _film(size, frame, rng)
    number = int(rng.integers(1, MAX_TARGETS + 1, size=2).sum())
    areas = [AREAS[i] for i in sorted(rng.permutation(len(AREAS))[:number])]
    shadows = {area: _opacity(area, lungs[_outward(area[1])], frame, rng) for area in areas}
    for shadow in shadows.values():
        grain = 1 + 0.15 * _smooth_noise(rng, size, min(16, size // 2))
        film = film + rng.uniform(0.24, 0.34) * shadow * grain
    film = film * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0.03) + 0.015 * rng.standard_normal(film.shape)
    return np.clip(film * 255, 0, 255).astype(np.uint8), shadows


def _choose(areas: list[Area], rng: np.random.Generator) -> list[Area]:
    """Which opacities count: one to three of them, and at most three stay look-alikes."""
    fewest, most = max(1, len(areas) - MAX_TARGETS), min(MAX_TARGETS, len(areas) - 1)
    number = int(rng.integers(fewest, most + 1))
    return [areas[i] for i in rng.permutation(len(areas))[:number]]


def chest_phantoms(n: int, seed: int, size: int = 128, start: int = 0) -> list[Case]:
    """Make `n` chest films with lung opacities; the mask {0, 1} holds only those the sentence names.

    One to three of the six lung areas count ("targets"), one to three others hold a look-alike. Sides are the picture's,
    as in QaTa-COV19's sentences. Arguments and errors as of `nuclei_phantoms`.
    """
    cases = []
    for index in _indices(n, size, start):
        grey, shadows = _film_with_opacities(size, _rng(CHEST_STREAM, seed, index))
        counted = _choose(list(shadows), _rng(CHOICE_STREAM, seed, index))
        mask = (np.max([shadows[area] for area in counted], axis=0) >= 0.5).astype(np.uint8)
        image = np.repeat(grey[..., None], 3, axis=2)
        name = f"chest-{seed}-{index:08d}"
        cases.append(Case(name, chest_caption(counted), image_array=image, mask_array=mask))
    return cases
