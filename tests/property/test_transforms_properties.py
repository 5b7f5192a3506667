from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textdiff.data.images.captions import AREAS, NUCLEI_PLACES, chest_caption, nuclei_caption, shuffled
from textdiff.data.images.transforms import dihedral, dihedral_caption, mask_at

turns = st.integers(0, 7)


def square(seed: int, side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 99), side=st.integers(1, 7), k=turns)
def test_one_of_the_eight_undoes_the_turn(seed, side, k):
    tensor = square(seed, side)
    undo = -k % 4 if k < 4 else k
    assert torch.equal(dihedral(dihedral(tensor, k), undo), tensor)


@given(first=turns, second=turns)
def test_two_turns_are_one_of_the_eight(first, second):
    tensor = square(0, 5)
    both = dihedral(dihedral(tensor, first), second)
    assert sum(torch.equal(both, dihedral(tensor, k)) for k in range(8)) == 1


def region(place: str) -> torch.Tensor:
    """[4, 4] picture that is 1 where the words say."""
    picture = torch.ones(4, 4)
    for word in place.split():
        half = {"upper": np.s_[2:, :], "lower": np.s_[:2, :], "left": np.s_[:, 2:], "right": np.s_[:, :2]}[word]
        picture[half] = 0
    return picture


@given(place=st.sampled_from(NUCLEI_PLACES), k=turns)
def test_the_turned_sentence_is_true_of_the_turned_picture(place, k):
    turned = dihedral_caption(nuclei_caption(place), k)
    named = next(other for other in NUCLEI_PLACES if nuclei_caption(other) == turned)
    assert torch.equal(dihedral(region(place), k), region(named))


@given(areas=st.sets(st.sampled_from(AREAS), min_size=1))
def test_the_flipped_chest_sentence_names_the_mirrored_areas(areas):
    mirrored = {(level, "left" if side == "right" else "right") for level, side in areas}
    assert dihedral_caption(chest_caption(areas), 4) == chest_caption(mirrored)


@settings(max_examples=30)
@given(seed=st.integers(0, 99), height=st.integers(2, 20), width=st.integers(2, 20), size=st.integers(1, 24))
def test_area_rule_is_symmetric_under_complement_but_for_ties(seed, height, width, size):
    mask = (np.random.default_rng(seed).random((height, width)) < 0.5).astype(np.uint8)
    both = mask_at(mask, size) + mask_at(1 - mask, size)
    assert int(both.min()) >= 1  # a tie goes to the foreground in both


@settings(max_examples=30)
@given(seed=st.integers(0, 99), source=st.integers(4, 20), size=st.integers(2, 20), k=turns)
def test_mask_rules_turn_with_the_mask(seed, source, size, k):
    mask = (np.random.default_rng(seed).random((source, source)) < 0.3).astype(np.uint8)
    turned = dihedral(torch.from_numpy(mask), k).contiguous().numpy()
    assert torch.equal(mask_at(turned, size), dihedral(mask_at(mask, size), k))


@given(captions=st.lists(st.sampled_from("abcd"), max_size=12), seed=st.integers(0, 9))
def test_shuffled_keeps_the_sentences_and_moves_what_can_move(captions, seed):
    moved = shuffled(captions, seed)
    assert sorted(moved) == sorted(captions)
    longest = max((captions.count(c) for c in captions), default=0)
    stay = sum(new == old for new, old in zip(moved, captions, strict=True))
    assert stay == max(0, 2 * longest - len(captions))
