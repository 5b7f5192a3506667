"""Prompts for volumes: names of structures (and a label map) in, a sentence out; the way back is `requests`.

Three kinds, always reported apart: "class" (a name), "anatomy" (a description true of anybody) and "report" (findings of
this patient, made from the label, which therefore leak it); and `request`, names as people ask for them. All wordings are ours.
Left and right are the patient's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from textdiff.data.volumes import wordings
from textdiff.data.volumes.requests import named_structures as named_structures
from textdiff.data.volumes.requests import read_request
from textdiff.data.volumes.requests import swap_structures as swap_structures
from textdiff.data.volumes.wordings import WORDINGS, organ_and_lesion, plain, wording_of

if TYPE_CHECKING:
    from textdiff.data.volumes.cases import VolumeCase
    from textdiff.data.volumes.volume import Volume

KINDS = ("class", "anatomy", "report")
FRAMES = ("{}", "segment the {}.", "the {} in the scan.")  # of class prompts
VARIANTS = {"class": 9, "anatomy": 2, "report": 2}  # wordings (times frames); a higher `variant` starts again

# --- sentences out -------------------------------------------------------------------------------------


def prompt(
    kind: str, names: Sequence[str], labels: Volume | None = None, class_names: Sequence[str] = (), variant: int = 0
) -> str:
    """A sentence that asks for some structures.

    Args:
        kind: "class", their names (works for any name); "anatomy", a description of each that is true of anybody; "report",
            findings of this patient MADE FROM THE LABEL: volume (ml) of organs, number, size (mm: the largest extent along
            an axis of the volume), side and place of tumours. Side: the middle of the volume is taken for the middle of the
            patient. A report leaks the label: what is scored with it must say so and be kept apart.
        names: one structure or more, for example ("left kidney", "left kidney tumour").
        labels, class_names: for "report" only: the label map, whose value i means class_names[i] ("background" first).
        variant: which of several wordings (`VARIANTS`; a higher one starts again); 0 is the canonical one.

    Raises ValueError for an unknown kind, no name, a negative variant, an anatomy prompt of a structure that has no
    description, or a report without label map or of a structure that class_names lacks.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    if isinstance(names, str) or not names:
        raise ValueError(f"expected a sequence of one or more structures, got {names!r}")
    if variant < 0:
        raise ValueError(f"variant must not be negative, got {variant}")
    if kind == "class":
        *others, last = [_name(name, variant % 3) for name in names]
        return FRAMES[variant // 3 % len(FRAMES)].format(f"{', '.join(others)} and {last}" if others else last)
    if kind == "anatomy":
        return "; ".join(_description(name, variant % VARIANTS["anatomy"]) for name in names)
    if labels is None:
        raise ValueError("a report is made from the label map; give labels and class_names")
    return "; ".join(_finding(name, labels, list(class_names), variant % VARIANTS["report"]) for name in names)


def prompts_for(
    cases: Sequence[VolumeCase], class_names: Sequence[str], kind: str = "class", names: Sequence[str] = ()
) -> list[str]:
    """The sentence of every case that asks for `names` (all structures of class_names if empty); see `prompt`."""
    wanted = list(names or class_names[1:])
    if kind != "report":
        return [prompt(kind, wanted)] * len(cases)
    return [prompt(kind, wanted, case.pair()[1], class_names) for case in cases]


def request(names: Sequence[str], known: Sequence[str], draw: np.random.Generator) -> str:
    """A sentence as people write them that asks a model which knows `known` for `names`, and for nothing else.

    Drawn by chance: wording, order, sides by letter or before or behind the organ, pairs and wholes, what is not wanted,
    capitals, spelling. No names: a sentence that asks for nothing the model knows. What is drawn is read back
    (:func:`textdiff.data.volumes.requests.read_request`); a name that no rule understands is asked for by itself.

    Raises ValueError for a name that is not among `known`.
    """
    if wrong := [name for name in names if name not in known]:
        raise ValueError(f"cannot ask for {', '.join(wrong)}: the model knows {', '.join(known)}")
    wanted = tuple(name for name in known if name in names)
    for _ in range(20):
        text = _asked(wanted, tuple(known), draw)
        if read_request(text, known).asked == wanted:
            return text
    return prompt("class", wanted) if wanted else "nothing"


def _asked(names: tuple[str, ...], known: tuple[str, ...], draw: np.random.Generator) -> str:
    others = tuple(name for name in known if name not in names)

    def some(words: Sequence[str]) -> str:
        return words[int(draw.integers(len(words)))]

    def said(name: Sequence[str]) -> str:
        return _listed((some(name),), draw)

    unknown = some([name for name in (*WORDINGS, *wordings.OTHER_ANATOMY) if name not in known])
    if names:
        text = _wanted(names, others, some, said, draw)
        if draw.random() < 0.12:
            text = some(wordings.BESIDES).format(text.rstrip("."), unknown)
    elif draw.random() < 0.4:
        text = some(wordings.REQUESTS).format(unknown)
    else:
        text = some(wordings.NOTHING).format(said(others or known))
    if draw.random() < 0.1:
        text = text.replace("tumour", "tumor").replace("oesoph", "esoph")
    if draw.random() < 0.08:
        text = _slip(text, draw)
    return some((text,) * 6 + (text.upper(), text.title(), text.capitalize()))


def _wanted(
    names: tuple[str, ...],
    others: tuple[str, ...],
    some: Callable[[Sequence[str]], str],
    said: Callable[[Sequence[str]], str],
    draw: np.random.Generator,
) -> str:
    """A request for names, at times with what is ruled out, before or behind, or with a landmark."""
    if not others and len(names) > 1 and draw.random() < 0.15:
        return (
            some(wordings.REQUESTS)
            .format(some(wordings.EVERYTHING))
            .replace("the every", "every")
            .replace("the all", "all")
        )
    if len(others) == 1 and draw.random() < 0.15:
        return some(wordings.ALL_BUT).format(said(others))
    framed = some(wordings.REQUESTS).format(_listed(names, draw))
    if not others or draw.random() < 0.4:
        return framed
    if draw.random() < 0.15:
        return some(wordings.LANDMARKS).format(framed.rstrip("."), said(others))
    if draw.random() < 0.5:
        return some(wordings.RULED_OUT).format(framed.rstrip(".?"), said(others))
    return some(wordings.RULED_OUT_FIRST).format(said(others), _listed(names, draw))


def _listed(names: tuple[str, ...], draw: np.random.Generator) -> str:
    """Names in any order, pairs and wholes at times as one."""
    left, words = list(names), []
    for whole, texts in wordings.TOGETHER.items():
        if set(whole) <= set(left) and draw.random() < 0.6:
            left = [name for name in left if name not in whole]
            words.append(texts[draw.integers(len(texts))])
    words += [_said(name, draw) for name in left]
    draw.shuffle(words)
    *first, last = words
    joint = (" and ", ", ", " and the ", " as well as the ", " & ", " + ", "; ")[draw.integers(7)]
    return f"{', '.join(first)}{joint}{last}" if first else last


def _said(name: str, draw: np.random.Generator) -> str:
    """One structure under any of its names."""
    wording = wording_of(name)
    texts = [plain(name)] if wording is None else [wording.names[0]] * 2 + [*wording.names[1:], *wording.whole]
    text = texts[draw.integers(len(texts))]
    side, _, organ = text.partition(" ")
    if side not in wordings.SIDES or draw.random() < 0.4:
        return text
    letter, short = side[0].upper(), f"{side[0]}{side[-1]}"
    ways = (f"{letter} {organ}", f"{short} {organ}", f"{short}. {organ}", f"{side}-sided {organ}", f"{organ} ({side})")
    return (*ways, f"{organ}, {side}", f"{organ} on the {side}", f"{organ} {letter}", f"{organ}_{side}")[
        draw.integers(9)
    ]


def _slip(text: str, draw: np.random.Generator) -> str:
    """One long word with a letter left out, doubled or exchanged with its neighbour."""
    words = [word for word in text.split() if len(word) > 5 and word.isalpha()]
    if not words:
        return text
    word = words[draw.integers(len(words))]
    at = int(draw.integers(2, len(word) - 1))
    slips = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
    )
    return text.replace(word, slips[draw.integers(3)], 1)


def _name(name: str, index: int) -> str:
    wording = wording_of(name)
    return plain(name) if wording is None or index == 0 else wording.names[index]


def _description(name: str, index: int) -> str:
    wording = wording_of(name)
    if wording is None:
        raise ValueError(f"no anatomy prompt for {name!r}; there is one for: {', '.join(WORDINGS)}")
    return wording.anatomy[index]


def _finding(name: str, labels: Volume, class_names: list[str], variant: int) -> str:
    """What the label map shows of one structure, in words."""
    if class_names[:1] != ["background"] or name not in class_names[1:]:
        raise ValueError(f"{name!r} is not among the structures of class_names {class_names} (background first)")
    words = plain(name)
    organ, lesion = organ_and_lesion(words)
    own = labels.array == class_names.index(name)
    if not own.any():
        return f"{words}: none seen"
    ml = own.sum() * labels.voxel_ml
    volume = f"{ml:.0f} ml" if ml >= 10 else f"{ml:.1f} ml"
    if not lesion:
        return f"{words} of {volume}" if variant == 0 else f"{words}, volume {volume}"
    count, largest = _largest_part(own)
    size = f"{((np.ptp(largest, axis=0) + 1) * labels.spacing).max():.0f} mm"
    side = _side(largest, labels) if organ in wordings.UNSIDED else ""
    place = _place(organ, side, largest, labels, class_names)
    some, plural, which = ("", "", "") if count == 1 else (f"{count} ", "s", "the largest ")
    if variant == 0:
        where = (f", on the {side} side" if side else "") + (f", in the {place}" if place else "")
        return f"{some}{words}{plural}, {which}{size}{where}"
    where = f"in the {place} of the" if place else "of the"
    sided = f"{side} {organ}" if organ == "kidney" else f"{organ} on the {side} side" if side else organ
    return f"{some}{lesion}{plural} {where} {sided}, {which}{size} across, {volume}"


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a mask with something in it."""
    from scipy.ndimage import find_objects

    return find_objects(mask.astype(np.uint8))[0]


def _largest_part(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """How many connected parts (sharing a corner is enough) a mask has, and the voxels [N, 3] of the largest."""
    from scipy.ndimage import label

    box = _box(mask)
    parts, count = label(mask[box], structure=np.ones((3, 3, 3)))
    largest = np.argwhere(parts == np.bincount(parts.ravel())[1:].argmax() + 1)
    return count, largest + [along.start for along in box]


def _world(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxel indices [N, 3] -> mm, RAS+ [N, 3]."""
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def _side(voxels: np.ndarray, labels: Volume) -> str:
    """The patient's side on which voxels lie; the middle of the volume is taken for the middle of the patient."""
    middle = _world((np.array([labels.array.shape]) - 1) / 2, labels.affine)[0, 0]
    return "right" if _world(voxels, labels.affine)[:, 0].mean() > middle else "left"


def _half(labels: Volume, side: str) -> np.ndarray:
    """Which voxels [X, Y, Z] lie on one side of the patient."""
    steps = [
        labels.affine[0, axis] * (np.arange(size) - (size - 1) / 2) for axis, size in enumerate(labels.array.shape)
    ]
    rightwards = steps[0][:, None, None] + steps[1][None, :, None] + steps[2][None, None, :]
    return rightwards > 0 if side == "right" else rightwards <= 0


def _place(organ: str, side: str, lesion: np.ndarray, labels: Volume, class_names: list[str]) -> str:
    """The part of its organ in which a lesion (voxels [N, 3]) lies, or "" where there is no organ to go by."""
    base = organ.removeprefix("left ").removeprefix("right ")
    if organ not in class_names or base not in wordings.PARTS:
        return ""
    whole = labels.array == class_names.index(organ)
    whole[tuple(lesion.T)] = True
    if base == "kidney" and side:  # one label for both kidneys: keep the one that holds the lesion
        whole &= _half(labels, side)
    corners = np.array([[along.start, along.stop - 1] for along in _box(whole)])
    ends = _world(np.stack(np.meshgrid(*corners), axis=-1).reshape(-1, 3), labels.affine)
    axis, bounds, parts = wordings.PARTS[base]
    low, high = ends[:, axis].min(), ends[:, axis].max()
    share = (_world(lesion, labels.affine)[:, axis].mean() - low) / max(high - low, 1e-6)
    return parts[int(np.searchsorted(bounds, share))]
