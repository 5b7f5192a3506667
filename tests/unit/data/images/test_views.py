"""Augmented views of training images: what is drawn, how often, and that the sentence stays true."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import cases

from textdiff.data.cases import Case
from textdiff.data.images import views
from textdiff.data.images.transforms import ImageSpec, dihedral, dihedral_caption, dihedral_places
from textdiff.data.images.views import TrainingImages

SMALL = ImageSpec(16)
LEFT = "The nuclei density in the upper left is high."
CHEST = "unilateral pulmonary infection, one infected area, upper left lung."
PLACES = {"upper left": (0, 0), "upper right": (0, 1), "lower left": (1, 0), "lower right": (1, 1)}


def corner(caption: str = LEFT, size: int = 16) -> Case:
    """Bright, and in the mask, in the upper left quarter only; the rest has no two pixels alike."""
    image = np.arange(size * size * 3, dtype=np.int64).reshape(size, size, 3) % 50
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[: size // 2, : size // 2] = 1
    image[mask == 1] += 200
    return Case("corner", caption, image_array=image.astype(np.uint8), mask_array=mask)


def drawn(images: TrainingImages, count: int) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
    return [images.sample(number) for number in range(count)]


def different(samples) -> int:
    return len({image.numpy().tobytes() for image, *_ in samples})


@pytest.mark.parametrize("augmentation", ["none", "follow", "official"])
def test_every_image_comes_once_an_epoch(augmentation):
    named = [Case(f"{i}", f"case {i}", image_array=c.image(), mask_array=c.mask()) for i, c in enumerate(cases(5))]
    images = TrainingImages(named, SMALL, augmentation)
    met = [caption for *_, caption in drawn(images, 20)]
    epochs = [met[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [f"case {i}" for i in range(5)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_a_number_always_draws_the_same_sample_and_the_seed_decides():
    first, again = (TrainingImages(cases(4), SMALL, seed=3) for _ in range(2))
    again.sample(2)
    a, b = first.sample(9), again.sample(9)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2]
    # the same picture four numbers on, or under another seed, is turned otherwise sooner or later
    one = TrainingImages([corner()], SMALL, seed=3)
    assert different(drawn(one, 12)) > 1
    other = TrainingImages([corner()], SMALL, seed=4)
    assert any(not torch.equal(x[0], y[0]) for x, y in zip(drawn(one, 12), drawn(other, 12), strict=True))


def test_shapes_types_and_ranges():
    images = TrainingImages(cases(3, size=20), SMALL)
    batch = images.batch(range(5)).to("cpu")
    assert (
        batch.images.shape == (5, 3, 16, 16) and batch.images.dtype == torch.float32 and batch.images.abs().max() <= 1
    )
    assert batch.masks.shape == (5, 16, 16) and batch.masks.dtype == torch.int64 and len(batch.captions) == 5
    moved = batch.to("meta")
    assert {moved.images.device.type, moved.masks.device.type} == {"meta"} and moved.captions == batch.captions


KINDS = ["follow", "affine", "stain", "official", "contradict", "none"]


@pytest.mark.parametrize("views", [0, 2])
@pytest.mark.parametrize("augmentation", KINDS)
def test_a_batch_is_its_samples_to_the_bit(augmentation, views):
    """However they are put together: a cache finds a view by its pixels."""
    images = TrainingImages([corner(), corner(CHEST), *cases(3)], SMALL, augmentation, seed=3, views=views)
    numbers = [5, 0, 17, 3, 8, 21]
    batch = images.batch(numbers)
    for k, number in enumerate(numbers):
        image, mask, caption = images.sample(number)
        assert torch.equal(image, batch.images[k]) and torch.equal(mask, batch.masks[k])
        assert caption == batch.captions[k]
    assert images.batch(numbers, "meta").images.device.type == "meta"


@pytest.mark.parametrize("augmentation", KINDS)
def test_a_card_is_asked_for_the_same_pixels_as_a_processor(augmentation, monkeypatch):
    """What gathers on a card, tried on the processor by turning all copies into gatherings."""
    images = TrainingImages([corner(), corner(CHEST), *cases(3)], SMALL, augmentation, seed=3)
    expected = images.batch(range(12))

    def taken(pixels, numbers, turns, places):
        return views._gathered(pixels[torch.tensor(numbers)], places[torch.tensor(turns)])

    monkeypatch.setattr(views, "_taken", taken)
    found = images.batch(range(12))
    assert torch.equal(found.images, expected.images) and torch.equal(found.masks, expected.masks)


@pytest.mark.parametrize("k", range(8))
def test_places_say_where_turned_pixels_come_from(k):
    square = torch.randn(2, 5, 5)
    places = dihedral_places(5)
    assert torch.equal(square.flatten(-2)[:, places[k]], dihedral(square, k).flatten(-2))


def test_the_picture_is_moved_as_it_says_it_is():
    """One sample of "affine" and one rotated one against torch's own operations on that picture alone."""
    images = TrainingImages([corner()], SMALL, "affine", seed=1)
    view = images._view(4)
    scale, angle, right, down, contrast, brightness = view.jitter.tolist()
    factor, angle = 1.25**scale, math.radians(15 * angle)
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    expected = moved(images.images[:1], [[cos, -sin, 0.2 * right], [sin, cos, 0.2 * down]], "bilinear", "reflection")
    expected = (expected * (1 + 0.2 * contrast) + 0.2 * brightness).clamp(-1, 1)
    image, *_ = images.sample(4)
    assert torch.allclose(image, dihedral(expected[0], view.turn), atol=1e-6)
    images = TrainingImages([corner()], SMALL, "official", seed=1)
    number, view = next((n, v) for n, v in ((n, images._view(n)) for n in range(100)) if v.degrees is not None)
    angle = math.radians(view.degrees)
    rotation = [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]]
    expected = moved(images.images[:1] + 1, rotation, "nearest", "zeros") - 1
    assert abs(view.degrees) <= 20 and torch.allclose(images.sample(number)[0], expected[0], atol=1e-6)


def moved(pixels, matrix, mode, padding):
    grid = F.affine_grid(torch.tensor([matrix]), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode, padding, align_corners=False)


def test_words_follow_the_picture():
    images = TrainingImages([corner()], SMALL, "follow")
    seen = set()
    for image, mask, caption in drawn(images, 40):
        (place,) = (place for place in PLACES if place in caption)
        row, column = (8 * k for k in PLACES[place])
        assert mask[row : row + 8, column : column + 8].all() and mask.sum() == 64
        assert torch.equal(image[0] > 0, mask == 1)
        seen.add((place, image.numpy().tobytes()))
    assert {place for place, _ in seen} == set(PLACES) and len(seen) == 8 == images.distinct_views


def test_chest_sentences_are_only_flipped():
    images = TrainingImages([corner(CHEST)], SMALL, "follow")
    samples = drawn(images, 12)
    assert {caption for *_, caption in samples} == {CHEST, CHEST.replace("left", "right")}
    for image, _, caption in samples:
        assert torch.equal(image, images.images[0] if caption == CHEST else images.images[0].flip(-1))
    assert images.distinct_views == 2


@pytest.mark.parametrize("augmentation", ["follow", "affine", "contradict"])
def test_where_classes_tell_sides_nothing_is_turned(augmentation):
    """The label "left lung" would lie on the right otherwise, whatever the sentence says."""
    images = TrainingImages([corner()], SMALL, augmentation, sided=True)
    for _, mask, caption in drawn(images, 30):
        rows, columns = (mask == 1).nonzero(as_tuple=True)
        assert caption == LEFT and rows.float().mean() < 8 and columns.float().mean() < 8
    assert images.settings["sided"] is True and "sided" not in TrainingImages([corner()], SMALL).settings


@pytest.mark.parametrize("sentence", ["Infiltrat im linken oberen Lungenfeld.", "opacité à gauche", "左肺上叶感染"])
def test_sentences_of_other_languages_follow_nothing(sentence):
    assert {dihedral_caption(sentence, k) for k in range(1, 8)} == {None} and dihedral_caption(sentence, 0) == sentence


def test_a_pneumothorax_is_in_a_body():
    turned = [dihedral_caption("Left-sided pneumothorax", k) for k in range(1, 8)]
    assert turned == [None, None, None, "Right-sided pneumothorax", None, None, None]


def test_contradict_leaves_the_words():
    images = TrainingImages([corner(CHEST)], SMALL, "contradict")
    samples = drawn(images, 60)
    assert {caption for *_, caption in samples} == {CHEST} and different(samples) == 8 == images.distinct_views


def test_none_changes_nothing():
    images = TrainingImages([corner()], SMALL, "none")
    assert all(torch.equal(image, images.images[0]) for image, *_ in drawn(images, 5)) and images.distinct_views == 1


def test_the_official_mixture():
    """Half turned and flipped, a quarter rotated by up to 20 degrees with black outside, a quarter as it is."""
    images = TrainingImages([corner()], SMALL, "official")
    symmetric = {dihedral(images.images[0], k).numpy().tobytes() for k in range(8)}
    samples = drawn(images, 400)
    assert {caption for *_, caption in samples} == {LEFT} and images.distinct_views == 0
    rotated = [(image, mask) for image, mask, _ in samples if image.numpy().tobytes() not in symmetric]
    unchanged = sum(torch.equal(image, images.images[0]) for image, *_ in samples)
    assert 0.17 < len(rotated) / 400 < 0.33
    assert 0.23 < unchanged / 400 < 0.40  # a quarter, and an eighth of a half
    values = set(images.images[0].unique().tolist()) | {-1.0}
    for image, mask in rotated:
        assert all(min(abs(v - w) for w in values) < 1e-6 for v in image.unique().tolist())  # nearest neighbour
        assert torch.equal(image[0] > 0, mask == 1)  # picture and mask together
    assert any((image[:, 0, -1] == -1).all() for image, _ in rotated)
    assert all(images.images[0][:, 8, 8].sub(image[:, 7:10, 7:10]).abs().min() < 0.5 for image, _ in rotated)


def test_of_the_authors_mixture_most_views_come_again():
    """Three quarters are among the eight turns of an image, so that their features are worth keeping."""
    images = TrainingImages(cases(1, size=32), ImageSpec(32), "official")
    assert images.come_again and images.distinct_views == 0
    assert 8 + 40 * 0.25 * 0.4 < different(drawn(images, 40)) < 8 + 40 * 0.25 * 1.6


def test_affine_moves_picture_and_mask_together():
    images = TrainingImages(cases(1, size=32), ImageSpec(32), "affine")
    samples = drawn(images, 20)
    assert different(samples) == 20 and images.distinct_views == 0 and not images.come_again
    for image, mask, _ in samples:
        assert image.abs().max() <= 1 and set(mask.unique().tolist()) <= {0, 1}
        grey = image.mean(dim=0)
        assert grey[mask == 1].mean() > grey[mask == 0].mean() + 0.3


def test_stain_changes_every_colour_for_itself_and_affine_all_alike():
    film = corner(CHEST)
    grey = Case("grey", CHEST, image_array=film.image()[..., :1].repeat(3, axis=2), mask_array=film.mask())

    def spread(kind):
        return max(
            float((image[0] - image[2]).abs().max()) for image, *_ in drawn(TrainingImages([grey], SMALL, kind), 8)
        )

    assert spread("affine") < 1e-5 < 0.01 < spread("stain")


@pytest.mark.parametrize(
    ("augmentation", "views", "expected"), [("affine", 3, 6), ("official", 2, 4), ("follow", 1, 2)]
)
def test_a_bound_on_the_views_makes_them_come_again(augmentation, views, expected):
    images = TrainingImages([corner(), corner(CHEST)], SMALL, augmentation, views=views)
    assert different(drawn(images, 80)) <= expected == images.distinct_views
    if augmentation == "affine":
        assert different(drawn(images, 80)) == expected


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no labelled images"),
        (cases(1), {"augmentation": "mixup"}, "augmentation='mixup': choose one of follow, "),
        (cases(1), {"views": -1}, "views=-1: a number of views per image"),
        ([cases(1)[0].without_mask()], {}, "case 'case0' has no mask"),
    ],
)
def test_wrong_images_are_refused(given, options, message):
    with pytest.raises(ValueError, match=message):
        TrainingImages(given, SMALL, **options)
