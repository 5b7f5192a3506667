"""Learning from sentences without masks: what a teacher marks, which cases it keeps, and how they are mixed in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textdiff.data import load_dataset
from textdiff.data.images.transforms import ImageSpec
from textdiff.data.images.views import MixedImages, TrainingImages
from textdiff.training.teaching import agreement, marked_cases

SPEC = ImageSpec(32)


@pytest.fixture(scope="module")
def cases():
    return load_dataset("chest_phantoms", sizes=(6, 1, 1), image_size=48).train


def teacher_of_thresholds(cases, doubtful: set[int]) -> SimpleNamespace:
    """Marks what is bright; of the doubtful cases it marks the left half only, and so disagrees with its mirrored self."""
    known = {SPEC.input(case.image()).abs().sum().item(): i for i, case in enumerate(cases)}

    def once(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
        found = 50 * images.mean(dim=1, keepdim=True)
        for one, image in zip(found, images, strict=True):
            nearest = min(known, key=lambda total: abs(total - image.abs().sum().item()))
            if known[nearest] in doubtful:
                one[..., 16:] = -50
        return torch.cat([torch.zeros_like(found), found], dim=1)

    return SimpleNamespace(once=once)


def test_what_the_teacher_is_unsure_of_is_left_out(cases):
    marked = marked_cases(teacher_of_thresholds(cases, {1, 4}), cases, SPEC, kept=4 / 6, progress=False)
    assert [case.name for case in marked] == [case.name for i, case in enumerate(cases) if i not in (1, 4)]
    for case in marked:
        assert case.mask_path is None and case.mask().shape == case.image().shape[:2]
    bright = (cases[0].image().mean(axis=2) > 127.5).astype(np.uint8)
    assert (marked[0].mask() == bright).mean() > 0.9


def test_the_masks_of_the_cases_are_never_read(cases):
    bare = [case.without_mask() for case in cases]
    teacher = teacher_of_thresholds(cases, set())
    ours, theirs = (marked_cases(teacher, some, SPEC, kept=1.0, progress=False) for some in (bare, cases))
    assert all(np.array_equal(one.mask(), other.mask()) for one, other in zip(ours, theirs, strict=True))


def test_what_it_finds_nothing_on_is_never_kept_and_what_it_cannot_be_asked_twice_comes_last(cases):
    blind = teacher_of_thresholds(cases, set()).once

    def once(images: torch.Tensor, captions: list[str]) -> torch.Tensor:
        logits = blind(images, captions)
        for one, caption in zip(logits, captions, strict=True):
            if caption == "nothing":
                one[1] = -50
        return logits

    said = [replace(cases[0], caption="nothing"), replace(cases[1], caption="bright at the top"), *cases[2:]]
    teacher = SimpleNamespace(once=once)
    assert [one.name for one in marked_cases(teacher, said, SPEC, kept=1.0, progress=False)] == [
        c.name for c in cases[1:]
    ]
    names = [one.name for one in marked_cases(teacher, said, SPEC, kept=4 / 6, progress=False)]
    assert names == [case.name for case in cases[2:]]
    with pytest.raises(ValueError, match="marks nothing on any of 1 cases"):
        marked_cases(teacher, said[:1], SPEC, progress=False)


def test_nothing_to_mark_is_refused(cases):
    with pytest.raises(ValueError, match="0 cases"):
        marked_cases(teacher_of_thresholds(cases, set()), [], SPEC)
    with pytest.raises(ValueError, match="kept=0"):
        marked_cases(teacher_of_thresholds(cases, set()), cases, SPEC, kept=0)


def test_agreement_is_the_dice_of_two_masks():
    one, other = torch.zeros(3, 4, 4, dtype=torch.int64), torch.zeros(3, 4, 4, dtype=torch.int64)
    one[0, :2], other[0, 1:3] = 1, 1
    one[1, :2] = 1
    assert agreement(one, other, 2).tolist() == pytest.approx([9 / 17, 1 / 9, 1.0])


def test_labelled_and_marked_images_come_in_turn(cases):
    first, second = (TrainingImages(some, SPEC, "follow", seed) for seed, some in enumerate((cases[:2], cases[2:])))
    mixed = MixedImages(first, second)
    whole = mixed.batch(range(8))
    assert whole.images.shape == (8, 3, 32, 32) and len(whole.captions) == 8
    expected = [first.sample(k) for k in range(4)] + [second.sample(k) for k in range(4)]
    for image, mask, caption, sample in zip(whole.images, whole.masks, whole.captions, expected, strict=True):
        assert torch.equal(image, sample[0]) and torch.equal(mask, sample[1]) and caption == sample[2]
    assert len(mixed.batch([4]).images) == 1 and mixed.come_again
    assert mixed.settings == {"mixed": [first.settings, second.settings]}


def test_the_masks_are_those_of_the_mean_of_both_answers(cases):
    def once(images, captions):
        found = torch.full((len(images), 1, 32, 32), -1.0)
        found[..., :16] = 4.0  # the mean of both is 0.63 everywhere
        return torch.cat([torch.zeros_like(found), found], dim=1)

    (marked,) = marked_cases(SimpleNamespace(once=once), cases[:1], SPEC, kept=1.0, progress=False)
    assert marked.mask().all()
