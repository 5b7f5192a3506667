"""Sentences of the data sets' kind: places and counts in, sentences out; and changes of them for experiments.

The nuclei sentences are the eleven of LViT's text for MoNuSeg and a twelfth of the same form ("upper"); the
chest sentences follow the cleaned captions of QaTa-COV19 (SGSeg): side, count of infected areas, and the
areas of the left lung before those of the right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from textdiff.data.cases import Case

LEVELS = ("upper", "middle", "lower")
SIDES = ("left", "right")
BOTH_SIDES = ("left", "Left", "LEFT", "right", "Right", "RIGHT")
COUNTS = ("zero", "one", "two", "three", "four", "five", "six")
Area = tuple[str, str]  # (level, side), for example ("upper", "left")
AREAS: tuple[Area, ...] = tuple((level, side) for side in SIDES for level in LEVELS)

NUCLEI_PLACES = ("upper left", "upper right", "lower left", "lower right", "upper", "lower", "left", "right")
NUCLEI_PATTERNS = {
    "evenly": "The nuclei are evenly distributed.",
    "sparsely": "The nuclei are sparsely distributed.",
    "irregularly": "The nuclei are irregularly distributed.",
    "around": "The nuclei density is higher around.",
    **{place: f"The nuclei density in the {place} is high." for place in NUCLEI_PLACES},
}

CHEST_SENTENCE = re.compile(
    r"^(?:uni|bi)lateral pulmonary infection, \w+ infected areas?, "
    r"(?:(?P<left>(?:(?:upper|middle|lower) )+)left lung)?(?: and )?"
    r"(?:(?P<right>(?:(?:upper|middle|lower) )+)right lung)?\.$"
)


def chest_caption(areas: Iterable[Area]) -> str:
    """The sentence for a set of infected areas, each (level, side).

    {("upper", "left")} gives "unilateral pulmonary infection, one infected area, upper left lung."
    Raises ValueError for no area or an unknown one.
    """
    chosen = set(areas)
    if not chosen or not chosen <= set(AREAS):
        raise ValueError(f"expected one or more of {AREAS}, got {sorted(chosen)}")
    by_side = {side: [level for level in LEVELS if (level, side) in chosen] for side in SIDES}
    lungs = [f"{' '.join(levels)} {side} lung" for side, levels in by_side.items() if levels]
    kind = "bilateral" if len(lungs) == 2 else "unilateral"
    noun = "area" if len(chosen) == 1 else "areas"
    return f"{kind} pulmonary infection, {COUNTS[len(chosen)]} infected {noun}, {' and '.join(lungs)}."


def parse_chest_caption(caption: str) -> frozenset[Area] | None:
    """The infected areas of a sentence in the form of `chest_caption`, or None for any other sentence."""
    match = CHEST_SENTENCE.match(caption)
    if match is None:
        return None
    areas = frozenset((level, side) for side in SIDES for level in (match[side] or "").split())
    return areas if areas and chest_caption(areas) == caption else None


def nuclei_caption(pattern: str) -> str:
    """The sentence for "evenly", "sparsely", "irregularly", "around" or a place such as "upper left"."""
    if pattern not in NUCLEI_PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}; known: {', '.join(NUCLEI_PATTERNS)}")
    return NUCLEI_PATTERNS[pattern]


def all_captions() -> list[str]:
    """Every sentence the two grammars can make: 12 about nuclei and 63 about lungs."""
    chosen = [{area for area, on in zip(AREAS, bits, strict=True) if on} for bits in product((0, 1), repeat=6)]
    return [*NUCLEI_PATTERNS.values(), *(chest_caption(areas) for areas in chosen if areas)]


def vocabulary() -> list[str]:
    """Words and punctuation of `all_captions()`, lower case, sorted: what a tiny tokenizer has to know."""
    return sorted({word.lower() for caption in all_captions() for word in re.findall(r"\w+|[^\w\s]", caption)})


def swap_left_right(caption: str) -> str:
    """Exchange left and right; a sentence of the chest grammar keeps its order (left lung first)."""
    areas = parse_chest_caption(caption)
    if areas is not None:
        return chest_caption((level, "left" if side == "right" else "right") for level, side in areas)
    other = dict(zip(BOTH_SIDES, (*BOTH_SIDES[3:], *BOTH_SIDES[:3]), strict=True))
    return re.sub(rf"\b({'|'.join(other)})\b", lambda match: other[match[0]], caption)


def named_side(caption: str) -> str | None:
    """ "left" or "right" where a sentence names one side only, else None."""
    sides = set(re.findall(r"\b(left|right)\b", caption.lower()))
    return sides.pop() if len(sides) == 1 else None


def shuffled(captions: Sequence[str], seed: int) -> list[str]:
    """The same sentences in another order: as many places as possible get one that differs from their own (all of them
    unless one sentence makes up more than half). The same list and seed give the same order.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, caption in enumerate(captions):
        groups[caption].append(index)
    rng = np.random.default_rng(seed)
    names = sorted(groups)
    order = [int(i) for g in rng.permutation(len(names)) for i in rng.permutation(groups[names[g]])]
    # Equal sentences stand together in `order`; a shift by the longest such stretch moves each out of its own
    shift = max(map(len, groups.values()), default=0)
    other = dict(zip(order, order[shift:] + order[:shift], strict=True))
    return [captions[other[index]] for index in range(len(captions))]


def kind(caption: str) -> str:
    """What a sentence is about, apart from which place: "areas: two", "density somewhere", "even spread" or "other"."""
    if count := re.search(r"\b(\w+) infected areas?\b", caption, re.IGNORECASE):
        return f"areas: {count[1].lower()}"
    if re.search(r"\bnuclei density\b", caption, re.IGNORECASE):
        return "density somewhere"
    return "even spread" if re.search(r"\bnuclei are \w+ distributed\b", caption, re.IGNORECASE) else "other"


def same_count(captions: Sequence[str], seed: int) -> list[str]:
    """Give each case another case's sentence of the same `kind`: as many areas, but other ones.

    A model that has learnt from "two infected areas" only how much to mark loses nothing by such an exchange. Drawn with
    replacement among the cases of the kind whose sentence differs; where there is none, the own sentence stays. Seeded.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for caption in captions:
        groups[kind(caption)].append(caption)
    rng = np.random.default_rng(seed)
    result = []
    for caption in captions:
        others = [other for other in groups[kind(caption)] if other != caption]
        result.append(others[rng.integers(len(others))] if others else caption)
    return result


def other_sentences(cases: Sequence[Case], seed: int) -> dict[str, list[str]]:
    """What a reading test puts in the place of the cases' sentences, by name.

    "shuffled": another image's; "same_count": another image's that names as many areas (or is of the same kind); "empty";
    "swapped": the image's own with left and right swapped.
    """
    own = [case.caption for case in cases]
    return {
        "shuffled": shuffled(own, seed),
        "same_count": same_count(own, seed),
        "empty": [""] * len(own),
        "swapped": [swap_left_right(caption) for caption in own],
    }


def other_areas(caption: str) -> str:
    """A sentence about other places: of the chest grammar one that names all areas that are not named, else left and right swapped."""
    areas = parse_chest_caption(caption)
    others = set(AREAS) - areas if areas else set()
    return chest_caption(others) if others else swap_left_right(caption)
