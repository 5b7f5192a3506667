"""Prompts for volumes: names of structures (and a label map) in, a sentence out; and back, which structures a sentence names.

Three kinds, always reported apart: "class" (a name), "anatomy" (a description true of anybody) and "report" (findings of
this patient, made from the label, which therefore leak it). All wordings are ours. Left and right are the patient's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from textdiff.data.volumes import wordings
from textdiff.data.volumes.wordings import LESIONS, SHORT_NAMES, SIDES, WORDINGS, plain, wording_of

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
    organ, lesion = _organ_and_lesion(words)
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


def _organ_and_lesion(name: str) -> tuple[str, str]:
    """("liver", "tumour") for "liver tumour", (name, "") for anything else."""
    organ, _, last = name.rpartition(" ")
    return (organ, last) if organ and last in LESIONS else (name, "")


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


# --- sentences in --------------------------------------------------------------------------------------

QUALIFIERS = (
    r"(?:\s|cell|ductal|cystic|solid|hypodense|hyperdense|enhancing|malignant|benign|primary|suspicious|small|large)*"
)
# Places beside which something lies, and what is not meant: the structure that follows is not asked for.
NOT_MEANT = re.compile(
    r"(?:\b(?:below|under|underneath|beneath|above|behind|beside|near|around|outside|between|against|along)"
    r"|\b(?:next|adjacent|close|opposite) to|\bin front of|\bbetween\b[^.;]*\band"
    r"|\b(?:no|not|without|except|excluding|except for|other than))(?:\s+(?:the|a|an|any|its))*\s+$",
    re.IGNORECASE,
)
PLACED = re.compile(r"\b(?:in|of|within|inside|at|from|on)(?:\s+(?:the|a|an|both))*\s+$", re.IGNORECASE)
SENTENCE_END = re.compile(r"[;\n]|\.(?:\s|$)")


@dataclass(frozen=True)
class _Mention:
    """One place in a text: where, the structures meant (`names`), by which wording `slot`, and what kind of word it is."""

    start: int
    end: int
    names: tuple[str, ...]
    slot: int = 0
    lesion: str = ""  # "tumour" or "cyst" for a word that has to be bound to an organ
    adjective: bool = False
    organ: _Mention | None = None  # of a lesion bound to an organ that is named in its own words


def named_structures(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Which of the `known` structures a sentence asks for, in the order of `known`; () if none.

    Understands the wordings of all three kinds of prompts, US and UK spelling, plurals and capitals. "Liver tumour" and "a
    mass in the right lobe of the liver" name the tumour, not the liver; "liver with a tumour" names both. "Left kidney"
    names "kidney" where sides are not told apart; "kidneys" both sides where they are; "tumour" alone every known tumour.
    What is only a landmark ("below the liver") or is excluded ("without the spleen") is not named.
    """
    named = {name for mention in _mentions(text, tuple(known)) for name in mention.names}
    return tuple(name for name in known if name in named)


def swap_structures(text: str, a: str, b: str) -> str:
    """The sentence with the structures `a` and `b` exchanged, findings left where they are; all else stays as it is.

    Wording i of one becomes wording i of the other: swapping twice gives a prompt of `prompt` back. A mention of a and b
    together ("kidneys") stays.
    """
    other = {a: b, b: a}
    for mention in reversed(_mentions(text, (a, b), landmarks=True)):
        if len(mention.names) != 1:
            continue
        target = other[mention.names[0]]
        organ, lesion = _organ_and_lesion(target)
        if mention.organ is not None and lesion:
            mention, target = mention.organ, organ
        words = _in_wording(target, mention.slot)
        words = words.capitalize() if text[mention.start].isupper() else words
        text = text[: mention.start] + words + text[mention.end :]
    return text


def _in_wording(name: str, slot: int) -> str:
    wording = wording_of(name)
    texts = () if wording is None else wording.texts
    return texts[slot] if 0 < slot < len(texts) else plain(name)


@lru_cache(maxsize=64)
def _phrases(known: tuple[str, ...]) -> tuple[re.Pattern[str], tuple[_Mention, ...]]:
    """A pattern whose group i is the i-th phrase, longest first, and what each phrase means."""
    phrases: dict[str, _Mention] = {}

    def add(text: str, *names: str, slot: int = -1, adjective: bool = False) -> None:
        phrases.setdefault(text, _Mention(0, 0, names, slot, adjective=adjective))

    for name in known:
        if wording_of(name) is None:
            organ, _ = _organ_and_lesion(plain(name))
            for words in dict.fromkeys((plain(name), organ)):
                add(words, words, slot=0)
                if words.split()[0] in SIDES:
                    add(words.split(maxsplit=1)[-1], words.split(maxsplit=1)[-1])
    for name, wording in WORDINGS.items():
        for slot, words in enumerate(wording.texts):
            add(words, name, slot=slot)
        if wording.adjective:
            add(wording.adjective, name, adjective=True)
        if f"left {name}" in WORDINGS:
            both = tuple(f"{side} {name}" for side in SIDES)
            for side, sided in zip(SIDES, both, strict=True):
                for words in (f"{side} sided {name}", f"{name} on the {side}"):
                    add(words, sided)
            for first, second in (SIDES, SIDES[::-1]):
                add(f"{first} and {second} {name}", *both)
                add(f"{first} and the {second} {name}", *both)
    for words in wordings.WHOLE_HIPPOCAMPUS:
        add(words, *SHORT_NAMES)
    if set(known) <= set(SHORT_NAMES):
        for name in known:
            for words in SHORT_NAMES[name]:
                add(words, name)
    order = sorted(phrases, key=len, reverse=True)
    groups = [f"({_flexible(words)})" for words in order] + [f"({words})" for words in LESIONS.values()]
    meanings = [phrases[words] for words in order] + [_Mention(0, 0, (), -1, lesion=lesion) for lesion in LESIONS]
    return re.compile(rf"\b(?:{'|'.join(groups)})\b", re.IGNORECASE), tuple(meanings)


def _flexible(words: str) -> str:
    """A pattern for a phrase in US or UK spelling, singular or plural, with any punctuation between its words."""
    british = " ".join(re.findall(r"\w+", words))
    spelled = british.replace("tumour", "tumou?rs?").replace("oesoph", "o?esoph").split()
    if not spelled[-1].endswith("s?"):
        spelled[-1] += "(?:es)?" if spelled[-1].endswith("s") else "s?"
    return r"[\s,/()-]+".join(spelled)


def _resolved(name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The known structures that a name stands for: itself, or its sides, or the pair where sides are not told apart."""
    own = {(wording.names[0] if (wording := wording_of(other)) else plain(other)): other for other in known}
    candidates = ([name], [f"{side} {name}" for side in SIDES], [name.removeprefix("left ").removeprefix("right ")])
    for tried in candidates:
        if found := tuple(own[candidate] for candidate in tried if candidate in own):
            return found
    return ()


def _mentions(text: str, known: tuple[str, ...], landmarks: bool = False) -> list[_Mention]:
    """What a text names, in its order, with names of `known`; landmarks and exclusions only if asked for."""
    text = text.replace("_", " ")
    pattern, meanings = _phrases(known)
    found = [
        replace(meanings[(match.lastindex or 1) - 1], start=match.start(), end=match.end())
        for match in pattern.finditer(text)
    ]
    mentions = []
    for mention in _bound(text, found, known):
        if landmarks or not NOT_MEANT.search(text[: mention.start]):
            names = tuple(dict.fromkeys(own for name in mention.names for own in _resolved(name, known)))
            mentions.append(replace(mention, names=names))
    return [mention for mention in mentions if mention.names]


def _bound(text: str, found: list[_Mention], known: tuple[str, ...]) -> Iterator[_Mention]:
    """The mentions with every lesion bound to its organ: "renal mass", "a mass in the kidney", "the kidney holds a mass"."""
    taken: set[int] = set()
    for index, mention in enumerate(found):
        if index in taken:
            continue
        after = found[index + 1] if index + 1 < len(found) else None
        between = text[mention.end : after.start] if after else "."
        if not mention.lesion:
            if after and after.lesion and re.fullmatch(QUALIFIERS, between, re.IGNORECASE):
                taken.add(index + 1)
                yield _Mention(mention.start, after.end, _with(after.lesion, mention), organ=mention)
            elif not mention.adjective:
                yield mention
            continue
        same_sentence = not SENTENCE_END.search(between)
        if after and not after.lesion and not after.adjective and same_sentence and PLACED.search(between):
            taken.add(index + 1)
            yield _Mention(mention.start, after.end, _with(mention.lesion, after), organ=after)
            continue
        names = tuple(name for name in map(plain, known) if _organ_and_lesion(name)[1] == mention.lesion)
        if index and not found[index - 1].lesion:
            before = found[index - 1]
            apart = SENTENCE_END.search(text[before.end : mention.start]) or NOT_MEANT.search(text[: before.start])
            names = names if apart else _with(mention.lesion, before)
        yield replace(mention, names=names)


def _with(lesion: str, organ: _Mention) -> tuple[str, ...]:
    return tuple(f"{name} {lesion}" for name in organ.names)
