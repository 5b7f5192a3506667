from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.cases import Case
from textdiff.data.images.captions import (
    AREAS,
    NUCLEI_PATTERNS,
    all_captions,
    chest_caption,
    kind,
    nuclei_caption,
    other_sentences,
    parse_chest_caption,
    same_count,
    shuffled,
    swap_left_right,
    vocabulary,
)


@pytest.mark.parametrize(
    ("areas", "sentence"),
    [
        (
            {("upper", "left"), ("upper", "right")},
            "bilateral pulmonary infection, two infected areas, upper left lung and upper right lung.",
        ),
        (
            {("lower", "right")},
            "unilateral pulmonary infection, one infected area, lower right lung.",
        ),
        (
            set(AREAS),
            "bilateral pulmonary infection, six infected areas, "
            "upper middle lower left lung and upper middle lower right lung.",
        ),
    ],
)
def test_chest_sentences_are_those_of_qata(areas, sentence):
    assert chest_caption(areas) == sentence
    assert parse_chest_caption(sentence) == areas


def test_all_63_chest_sentences_are_different_and_can_be_read_back():
    chest = [caption for caption in all_captions() if "lung" in caption]
    assert len(chest) == len(set(chest)) == 63
    assert all(chest_caption(parse_chest_caption(caption)) == caption for caption in chest)


def test_real_qata_captions_are_the_same_63(qata_root):
    from textdiff.data.images.lvit import read_text

    real = set(read_text(qata_root / "Train_Extra_Folder").values())
    assert len(real) > 50
    assert real <= set(all_captions())


def test_real_monuseg_captions_are_in_the_grammar(monuseg_root):
    from textdiff.data.images.lvit import read_text

    for split in ("Train", "Val", "Test"):
        assert set(read_text(monuseg_root / f"{split}_Folder").values()) <= set(NUCLEI_PATTERNS.values())


@pytest.mark.parametrize(
    "sentence", ["", "all left lung.", "unilateral pulmonary infection, two infected areas, lower left lung."]
)
def test_other_sentences_are_not_parsed(sentence):
    assert parse_chest_caption(sentence) is None


@pytest.mark.parametrize("areas", [set(), {("top", "left")}])
def test_impossible_areas_are_refused(areas):
    with pytest.raises(ValueError, match="expected one or more"):
        chest_caption(areas)


def test_unknown_nuclei_pattern_is_refused():
    with pytest.raises(ValueError, match="evenly"):
        nuclei_caption("in a ring")


def test_swap_keeps_the_grammar_and_undoes_itself():
    sentence = chest_caption({("upper", "left"), ("middle", "left"), ("lower", "right")})
    swapped = swap_left_right(sentence)
    assert swapped == chest_caption({("upper", "right"), ("middle", "right"), ("lower", "left")})
    assert all(swap_left_right(swap_left_right(caption)) == caption for caption in all_captions())
    assert swap_left_right("Left of the midlle right lung") == "Right of the midlle left lung"


def test_shuffled_moves_every_sentence_that_can_move():
    captions = ["a", "a", "a", "b", "b", "c", "d"]
    for seed in range(20):
        moved = shuffled(captions, seed)
        assert Counter(moved) == Counter(captions)
        assert all(new != old for new, old in zip(moved, captions, strict=True))
    assert shuffled(captions, 1) == shuffled(captions, 1)
    assert len({tuple(shuffled(captions, seed)) for seed in range(20)}) > 5


def test_vocabulary_covers_every_sentence():
    words = set(vocabulary())
    for caption in all_captions():
        assert set(re.findall(r"\w+|[^\w\s]", caption.lower())) <= words


@pytest.mark.parametrize(
    ("caption", "what"),
    [
        ("bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.", "areas: two"),
        ("Unilateral pulmonary infection, one infected area, all left lung.", "areas: one"),
        ("The nuclei density in the upper left is high.", "density somewhere"),
        ("The nuclei density is higher around.", "density somewhere"),
        ("The nuclei are sparsely distributed.", "even spread"),
        ("A sentence of another data set.", "other"),
        ("", "other"),
    ],
)
def test_kinds_of_sentences(caption, what):
    assert kind(caption) == what


def test_every_sentence_of_the_grammars_has_a_kind():
    assert "other" not in map(kind, all_captions())
    areas = {caption: parse_chest_caption(caption) for caption in all_captions()}
    by_count = {(kind(caption), len(named)) for caption, named in areas.items() if named}
    assert len(by_count) == 6


@given(st.lists(st.sampled_from([*all_captions(), "", "Nothing to see."]), max_size=30), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_same_count_names_as_many_areas_elsewhere(captions, seed):
    exchanged = same_count(captions, seed)
    assert exchanged == same_count(captions, seed) and len(exchanged) == len(captions)
    for own, other in zip(captions, exchanged, strict=True):
        assert other in captions and kind(other) == kind(own)
        could_differ = any(kind(caption) == kind(own) and caption != own for caption in captions)
        assert (other != own) == could_differ


def test_a_reading_test_exchanges_sentences_in_four_ways():
    captions = [chest_caption({("upper", side)}) for side in ("left", "right", "left", "right")]
    cases = [Case(str(k), caption, image_array=np.zeros((1, 1, 3), np.uint8)) for k, caption in enumerate(captions)]
    others = other_sentences(cases, seed=0)
    assert list(others) == ["shuffled", "same_count", "empty", "swapped"]
    assert others["swapped"] == others["same_count"] == others["shuffled"] == captions[1:] + captions[:1]
    assert others["empty"] == [""] * 4
