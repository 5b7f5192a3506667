"""Synthetic volumes for demo mode and tests: a number and a seed in, a list of `VolumeCase` out.

CT of the abdomen in HU with organs, vessels, bones and bowel, and tumours whose side, size and place are drawn by chance; in
some cases both kidneys hold one, so that "left kidney tumour" is a question which only the sentence answers. Geometry and
numbers are ours: likenesses for programs, not for physicians.

World axes as everywhere here (RAS+, mm): x grows to the patient's right, so the left kidney has the smaller x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from textdiff.data.registry import DATASETS
from textdiff.data.volumes.cases import VolumeCase
from textdiff.data.volumes.prompts import prompt
from textdiff.data.volumes.volume import Volume

ABDOMEN = DATASETS["abdomen_phantoms"].structures
# Everything that is drawn with a label of its own; what a task does not ask for is background, except for parts.
DRAWN = (
    *ABDOMEN,
    *("left kidney cyst", "right kidney cyst", "spleen", "gallbladder", "stomach", "duodenum", "small bowel", "colon"),
    *("aorta", "inferior vena cava", "portal and splenic vein", "oesophagus"),
    *("left adrenal gland", "right adrenal gland", "bladder", "prostate or uterus"),
)
ABDOMEN_STREAM = 11
Numbers = Sequence[float] | np.ndarray
NOMINAL = (288.0, 288.0, 240.0)  # mm that the body is laid out in; other fields of view scale it
MIN_SIDE = 20  # voxels


def _smooth_noise(rng: np.random.Generator, shape: Sequence[int], cells: int) -> np.ndarray:
    """Noise [X, Y, Z] float32 of about unit variance that varies over 1/cells of the volume."""
    from scipy.ndimage import zoom

    knots = rng.standard_normal((cells + 1,) * 3).astype(np.float32)
    return 1.6 * zoom(knots, np.array(shape) / (cells + 1), order=1, grid_mode=False)


@dataclass
class _Scene:
    """A picture in the making. Distances in nominal mm, negative inside; what is painted first keeps its place."""

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]  # x [X, 1, 1], y [1, Y, 1], z [1, 1, Z]
    edge: float  # width of soft edges: one voxel
    hu: np.ndarray
    labels: np.ndarray
    taken: np.ndarray  # distance to what is painted already
    organs: dict[str, np.ndarray] = field(default_factory=dict)  # distance to organs that may hold tumours

    def ball(self, centre: Numbers, semi: Numbers) -> np.ndarray:
        """About the distance to an ellipsoid."""
        x, y, z = (((axis - c) / s) ** 2 for axis, c, s in zip(self.axes, centre, semi, strict=True))
        return (np.sqrt(x + y + z) - 1) * np.float32(min(semi))

    def tube(self, points: Sequence[Numbers] | np.ndarray, radii: Sequence[float]) -> np.ndarray:
        """Distance to a chain of rods through points, its radius going from the first to the last of `radii`."""
        path = np.asarray(points, dtype=np.float32)
        radius = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(radii)), radii).astype(np.float32)
        best = np.full((), np.inf, np.float32)
        for k, (start, step) in enumerate(zip(path[:-1], np.diff(path, axis=0), strict=True)):
            offset = [axis - c for axis, c in zip(self.axes, start, strict=True)]
            along = sum(o * s for o, s in zip(offset, step / (step @ step), strict=True)).clip(0, 1)
            square = sum((o - along * s) ** 2 for o, s in zip(offset, step, strict=True))
            distance = np.sqrt(square) - (radius[k] + along * (radius[k + 1] - radius[k]))
            best = np.minimum(best, distance)
        return best

    def tint(self, distance: np.ndarray, value: float | np.ndarray) -> None:
        """Mix `value` HU into the picture where distance < 0, with a soft edge."""
        self.hu += np.clip(0.5 - distance / self.edge, 0, 1) * (value - self.hu)

    def paint(self, distance: np.ndarray, value: float | np.ndarray, name: str = "", gap: float = 2.0) -> np.ndarray:
        """Tint what is still free, label it, and return the distance to what was painted."""
        distance = np.maximum(distance, gap - self.taken)
        self.taken = np.minimum(self.taken, distance)
        self.tint(distance, value)
        if name:
            self.labels[distance < 0] = DRAWN.index(name) + 1
            self.organs[name] = distance
        return distance


def _empty_scene(shape: Sequence[int], spacing: Sequence[float], scale: float) -> _Scene:
    """Air; `scale` mm of the volume are one nominal mm."""
    axes = [
        ((np.arange(size) - (size - 1) / 2) * step / scale).astype(np.float32)
        for size, step in zip(shape, spacing, strict=True)
    ]
    x, y, z = np.ix_(*axes)
    return _Scene(
        axes=(x, y, z),
        edge=float(np.mean(spacing)) / scale,
        hu=np.full(shape, -1000, np.float32),
        labels=np.zeros(shape, np.uint8),
        taken=np.full(shape, 1e3, np.float32),
    )


# --- the abdomen ---------------------------------------------------------------------------------------


def _trunk(scene: _Scene, rng: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    """Skin, fat, muscle, ribs, spine and lung bases; returns the distance to the wall's inner side."""
    x, y, z = scene.axes
    width, depth = rng.uniform(126, 138), rng.uniform(92, 102)
    fat, wall = rng.uniform(8, 16), 9
    body = (np.hypot(x / width, y / depth) - 1) * depth + 0 * z
    inner = body + fat + wall
    scene.tint(body, 20)
    scene.tint(body + 3, -100 + 6 * texture)
    scene.tint(body + fat, 55)
    scene.tint(inner, -100 + 6 * texture)
    ring = np.abs(body + fat + wall / 2) - 5
    slope = z - 0.35 * y + rng.uniform(0, 30)  # ribs run down towards the front
    ribs = np.maximum(ring, np.abs(slope % 30 - 15) - 5.5)
    scene.tint(np.maximum(ribs, 15 - z + 0.4 * np.abs(y)), 320)
    for side in (-1, 1):
        scene.paint(scene.ball((side * 38, -60, -30), (17, 14, 140)), 55)
        scene.paint(scene.ball((side * 30, -80, 0), (24, 10, 400)), 50)
    disc = np.abs((z + rng.uniform(0, 36)) % 36 - 18) - 4
    spine = np.hypot(x, y + 50) - 21 + 0 * z
    scene.paint(spine, np.where(disc < 0, 90, 190 + 130 * np.clip((spine + 6) / 6, 0, 1)))
    canal = np.hypot(x, y + 73) - 12 + 0 * z
    scene.paint(canal, np.where(canal < -4, 20, 330), gap=0)
    scene.paint(scene.ball((0, -86, 0), (5, 9, 400)), 260, gap=0)
    lungs = np.maximum(inner + 2, 84 + 0.004 * (y + 40) ** 2 - z)
    scene.organs["lungs"] = np.maximum(lungs, 16 - np.hypot(x, y + 15))
    return inner


def _vessels(scene: _Scene, rng: np.random.Generator) -> None:
    aorta, cava, portal = rng.uniform(140, 185), rng.uniform(105, 140), rng.uniform(130, 165)
    scene.paint(scene.tube([(-9, -18, -400), (-11, -17, 400)], [11]), aorta, "aorta")
    scene.paint(
        scene.tube([(19, -17, -400), (20, -14, 60), (22, 2, 110), (20, 5, 400)], [12]), cava, "inferior vena cava"
    )
    splenic = [(-70, -22, 44), (-30, -2, 26), (10, 4, 8), (24, 6, 24), (42, 12, 46)]
    scene.paint(scene.tube(splenic, [4, 6, 8]), portal, "portal and splenic vein")


def _kidneys(scene: _Scene, rng: np.random.Generator, inner: np.ndarray) -> None:
    """Beans with a fatty hilum towards the spine, and at times a cyst: a look-alike that is no tumour."""
    value = rng.uniform(130, 180)
    for name, side, height in (("left kidney", -1, 8), ("right kidney", 1, -8)):
        centre = np.array([side * 62, -30, height]) + rng.uniform(-4, 4, 3)
        semi = np.array([27, 25, 54]) * rng.uniform(0.92, 1.08)
        hilum = scene.ball(centre - (side * 24, -4, 0), (15, 12, 18))
        bean = np.maximum(np.maximum(scene.ball(centre, semi), -hilum), inner + 4)
        medulla = np.clip((scene.ball(centre, semi * 0.62) + 4) / 8, 0, 1)
        kidney = scene.paint(bean, value - 15 * (1 - medulla), name)
        scene.tint(np.maximum(hilum + 5, scene.ball(centre, semi)), -60)
        above = centre + (-side * 14, 6, semi[2] + 6)
        scene.paint(scene.ball(above, (9, 5, 8)), 60, name.replace("kidney", "adrenal gland"))
        if rng.random() < 0.25:
            cyst = scene.ball(_point_inside(scene, kidney, 4, rng), [rng.uniform(7, 11)] * 3)
            cyst = np.maximum(cyst, kidney)
            scene.tint(cyst, rng.uniform(0, 15))
            scene.labels[cyst < 0] = DRAWN.index(f"{name} cyst") + 1
            scene.organs[name] = np.maximum(kidney, -cyst)


def _solid_organs(scene: _Scene, rng: np.random.Generator, inner: np.ndarray, texture: np.ndarray) -> None:
    cut, shift = inner + 3, rng.uniform(-4, 4, 3)
    right = scene.ball(np.array([60, 6, 54]) + shift, np.array([64, 78, 58]) * rng.uniform(0.93, 1.05))
    left = scene.ball(np.array([0, 42, 72]) + shift, np.array([62, 30, 28]) * rng.uniform(0.9, 1.1))
    scene.paint(scene.ball((44, 44, 8), (13, 16, 20)), 12, "gallbladder")
    scene.paint(np.maximum(np.minimum(right, left), cut), rng.uniform(85, 110) + 3 * texture, "liver")
    spleen = scene.ball(np.array([-88, -26, 60]) + shift, np.array([30, 44, 42]) * rng.uniform(0.85, 1.1))
    scene.paint(np.maximum(spleen, cut), rng.uniform(105, 125), "spleen")
    tail = rng.uniform(24, 40)
    middle = [(30, 6, -12), (26, 12, 2), (4, 20, 8), (-24, 18, 16), (-48, 10, 26), (-62, 2, tail)]
    pancreas = scene.tube(np.array(middle) + shift * (1, 0.5, 1), [17, 16, 11, 12, 11, 9]) + 1.5 * texture
    scene.paint(pancreas, rng.uniform(80, 100) + 6 * texture, "pancreas")


def _gut(scene: _Scene, rng: np.random.Generator, inner: np.ndarray, texture: np.ndarray) -> None:
    """Hollow organs: a wall, content, and gas above it (the patient lies on the back, so gas is in front)."""
    _, y, z = scene.axes
    cut = inner + 3

    def hollow(name: str, shape: np.ndarray, content: float | np.ndarray, gas_from: float, wall: float = 5.0) -> None:
        distance = scene.paint(np.maximum(shape, cut), 50, name)
        scene.tint(distance + wall, content)
        scene.tint(np.maximum(distance + wall, gas_from - y), -900)

    scene.paint(scene.tube([(-4, -2, 90), (-6, -2, 400)], [8]), 45, "oesophagus")
    stomach = np.minimum(
        scene.ball((-52, 34, 56), (34, 34, 34)), scene.tube([(-50, 46, 40), (-10, 50, 22), (20, 44, 16)], [22, 13])
    )
    hollow("stomach", stomach, 25, rng.uniform(42, 60))
    around = [(24, 40, 14), (54, 18, 0), (54, 2, -30), (26, 0, -40), (-14, 4, -34)]
    scene.paint(scene.tube(around, [11, 10]), 38, "duodenum")
    hollow("bladder", scene.ball((0, 40, -112), (34, 26, 20)), 5, 999)
    scene.paint(scene.ball((0, 4, -114), (20, 15, 15)), 60, "prostate or uterus")
    sag = rng.uniform(-50, -20)
    frame = [(88, 0, -400), (92, 2, -50), (90, 16, -12), (60, 56, -18), (0, 66, sag)]
    frame += [(-55, 56, -6), (-88, 14, 16), (-94, -4, -20), (-92, -6, -400)]
    haustra = 2.5 * np.sin(z / 7) + 1.5 * texture
    stool = 40 + np.clip(60 * texture, -160, 60)
    hollow("colon", scene.tube(frame, [21, 19, 17, 15, 15]) + haustra, stool, rng.uniform(8, 22), wall=4.0)
    loops = np.abs(_smooth_noise(rng, scene.hu.shape, 9)) * 14 - 9
    region = np.maximum(scene.ball((0, 22, -62), (78, 48, 62)), cut)
    scene.paint(np.maximum(loops, region), 40 + 20 * texture, "small bowel", gap=4.0)
    scene.paint(scene.organs["lungs"], -840 + 30 * texture)


# --- tumours -------------------------------------------------------------------------------------------


def _point_inside(scene: _Scene, distance: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """A random point at least `depth` inside, or the deepest there is."""
    inside = np.argwhere(distance <= max(-depth, float(distance.min()) * 0.8))
    index = inside[rng.integers(len(inside))]
    return np.array([axis.ravel()[k] for axis, k in zip(scene.axes, index, strict=True)])


def _tumour(
    scene: _Scene, organ: str, radii: tuple[float, float], value: float | None, rng: np.random.Generator
) -> None:
    """Draw one tumour within its organ, 20 to 60 HU darker than it (or of `value` HU)."""
    home = scene.organs[organ]
    radius = rng.uniform(*radii)
    semi = radius * rng.uniform(0.8, 1.2, 3)
    distance = np.maximum(scene.ball(_point_inside(scene, home, 0.5 * radius, rng), semi), home)
    inside = distance < 0
    darker = float(np.median(scene.hu[home < -2])) - rng.uniform(20, 60) if value is None else value
    scene.tint(distance, darker)
    scene.labels[inside] = DRAWN.index(f"{organ} tumour") + 1
    scene.organs[organ] = np.maximum(home, 4 - distance)  # the next one keeps away


def _tumours(scene: _Scene, rng: np.random.Generator) -> None:
    """Which organs hold tumours. Kidneys: none 20 %, one side 40 %, both sides, drawn alike, 40 %."""
    for _ in range(rng.choice([0, 1, 2], p=[0.4, 0.4, 0.2])):
        _tumour(scene, "liver", (9, 20), None, rng)
    if rng.random() < 0.4:
        _tumour(scene, "pancreas", (8, 13), None, rng)
    if rng.random() < 0.4:
        _tumour(scene, "colon", (12, 18), rng.uniform(55, 75), rng)
    sides = [["left kidney"], ["right kidney"], ["left kidney", "right kidney"], []]
    for organ in sides[rng.choice(4, p=[0.2, 0.2, 0.4, 0.2])]:
        _tumour(scene, organ, (9, 17), None, rng)


def _abdomen(shape: tuple[int, ...], spacing: tuple[float, ...], rng: np.random.Generator) -> _Scene:
    scale = min(size * step / whole for size, step, whole in zip(shape, spacing, NOMINAL, strict=True))
    scene = _empty_scene(shape, spacing, scale)
    texture = _smooth_noise(rng, shape, 10)
    inner = _trunk(scene, rng, texture)
    _vessels(scene, rng)
    _kidneys(scene, rng, inner)
    _solid_organs(scene, rng, inner, texture)
    _gut(scene, rng, inner, texture)
    _tumours(scene, rng)
    scene.hu += rng.uniform(8, 16) * rng.standard_normal(shape, dtype=np.float32)
    return scene


def _stands_for(drawn: str, structures: Sequence[str]) -> int:
    """The label of something drawn among `structures`: its own, else that of what it is a part of, else 0."""
    unsided = drawn.removeprefix("left ").removeprefix("right ")
    organs = [name.removesuffix(" tumour").removesuffix(" cyst") for name in (drawn, unsided)]
    return next((structures.index(name) + 1 for name in (drawn, unsided, *organs) if name in structures), 0)


def abdomen(
    index: int, seed: int, shape: tuple[int, ...], spacing: tuple[float, ...], structures: Sequence[str]
) -> tuple[Volume, Volume]:
    """Abdomen number `index`: HU, float32, and labels 1..K of `structures`, uint8; RAS, the origin at the middle of the volume."""
    scene = _abdomen(shape, spacing, np.random.default_rng([ABDOMEN_STREAM, seed, index]))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(size - 1) / 2 * step for size, step in zip(shape, spacing, strict=True)]
    table = np.array([0, *(_stands_for(name, structures) for name in DRAWN)], np.uint8)
    hu = np.clip(np.rint(scene.hu), -1024, 1500).astype(np.float32)
    return Volume(hu, affine), Volume(table[scene.labels], affine)


def abdomen_phantoms(
    n: int,
    seed: int,
    shape: tuple[int, ...] = (48, 48, 40),
    spacing: tuple[float, ...] = (6.0, 6.0, 6.0),
    start: int = 0,
) -> list[VolumeCase]:
    """Make `n` CT volumes of an abdomen with labels of `ABDOMEN` and a sentence on the tumours.

    HU, float32: air -1000, fat about -100, muscle 50, liver 85..110, pancreas 80..100, kidneys 130..180, tumours 20 to 60 below
    their organ (in the colon 55..75), noise of 8..16. Structures never overlap; every tumour lies within its organ. Two
    fifths of the cases have tumours in both kidneys, drawn by one rule. Some kidneys hold a cyst of water, labelled kidney.
    `report` is `prompt("report", ...)` of the tumours present, so it is made from the label; "no tumour." without any.

    The same seed gives the same volumes, and case i does not depend on n. shape: voxels to the patient's right, front and
    head; at least 20 each. spacing: mm. The body is laid out for 288 x 288 x 240 mm and scaled to another field of view,
    sizes of tumours too. start: index of the first case (splits use ranges that never overlap).

    Raises ValueError for a negative number, too small a shape or a spacing that is not positive.
    """
    if n < 0 or start < 0:
        raise ValueError(f"n and start must not be negative, got n={n}, start={start}")
    if len(shape) != 3 or min(shape) < MIN_SIDE:
        raise ValueError(f"phantoms need three sides of at least {MIN_SIDE} voxels, got {shape}")
    if len(spacing) != 3 or min(spacing) <= 0:
        raise ValueError(f"spacing must be three positive numbers (mm), got {spacing}")
    cases = []
    for index in range(start, start + n):
        image, labels = abdomen(index, seed, tuple(shape), tuple(spacing), ABDOMEN)
        present = [name for k, name in enumerate(ABDOMEN, 1) if name.endswith("tumour") and (labels.array == k).any()]
        report = prompt("report", present, labels, ("background", *ABDOMEN)) if present else "no tumour"
        name = f"abdomen-{seed}-{index:08d}"
        cases.append(VolumeCase(name, image_volume=image, label_volume=labels, report=f"{report}."))
    return cases
