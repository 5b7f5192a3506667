"""Training: batches that are the same every time, runs that continue to the bit, the best weights kept."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import cases, tiny_features, tiny_textdiff, tiny_unet
from torch import nn

from textdiff.base.cache import FeatureCache
from textdiff.base.checkpoints import read_checkpoint
from textdiff.data.cases import Case
from textdiff.data.images.transforms import dihedral
from textdiff.models.baselines import build_baseline
from textdiff.models.features import DiffusionFeatures
from textdiff.models.text import TextEncoder
from textdiff.training.fit import Trainee, TrainingImages, fit

LEFT = "The nuclei density in the upper left is high."
CHEST = "unilateral pulmonary infection, one infected area, upper left lung."
PLACES = {"upper left": (0, 0), "upper right": (0, 1), "lower left": (1, 0), "lower right": (1, 1)}


class Stop(Exception):
    pass


class Pixelwise(nn.Module):
    """The smallest model that can be trained: one convolution, one normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, images, captions):
        return self.layers(images)


def made(factory=Pixelwise):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory()


def corner(caption: str = LEFT, size: int = 16) -> Case:
    """Bright, and in the mask, in the upper left quarter only; the rest has no two pixels alike."""
    image = np.arange(size * size * 3, dtype=np.int64).reshape(size, size, 3) % 50
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[: size // 2, : size // 2] = 1
    image[mask == 1] += 200
    return Case("corner", caption, image_array=image.astype(np.uint8), mask_array=mask)


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    theirs = b.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


# --- batches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["none", "follow", "official"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_image_comes_once_an_epoch(augmentation, size):
    images = TrainingImages(cases(5), 16, augmentation=augmentation)
    drawn = [images._at(position) for position in range(5 * 4)]
    epochs = [drawn[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs) and len(set(map(tuple, epochs))) > 1
    # what batch() gives follows that order, whatever the batch size
    plain = TrainingImages(cases(5), 16, augmentation="none")
    for step in range(3):
        batch = plain.batch(step, size)[0]
        for i in range(size):
            assert torch.equal(batch[i], plain.images[plain._at(step * size + i)])


def test_a_step_always_draws_the_same_batch_and_the_seed_decides():
    first, again = (TrainingImages(cases(4), 16, seed=3).batch(9, 3) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1]) and first[2] == again[2]
    others = [TrainingImages(cases(4), 16, seed=seed).batch(step, 3)[0] for seed, step in ((4, 9), (3, 10))]
    assert not any(torch.equal(first[0], other) for other in others)


def test_shapes_types_and_ranges():
    images, masks, captions = TrainingImages(cases(3, size=20), 16).batch(0, 5)
    assert images.shape == (5, 3, 16, 16) and images.dtype == torch.float32 and images.abs().max() <= 1
    assert masks.shape == (5, 16, 16) and masks.dtype == torch.int64 and len(captions) == 5


def test_words_follow_the_picture():
    images = TrainingImages([corner()], 16, augmentation="follow")
    seen = set()
    for step in range(30):
        image, mask, (caption,) = images.batch(step, 1)
        (place,) = (place for place in PLACES if place in caption)
        row, column = (8 * k for k in PLACES[place])
        assert mask[0, row : row + 8, column : column + 8].all() and mask.sum() == 64
        assert torch.equal(image[0, 0] > 0, mask[0] == 1)
        seen.add((place, image.numpy().tobytes()))
    assert {place for place, _ in seen} == set(PLACES) and len(seen) == 8 == images.views


def test_chest_sentences_are_only_flipped():
    images = TrainingImages([corner(CHEST)], 16, augmentation="follow")
    drawn = [images.batch(step, 1) for step in range(12)]
    assert {captions[0] for _, _, captions in drawn} == {CHEST, CHEST.replace("left", "right")}
    for image, _, (caption,) in drawn:
        assert torch.equal(image[0], images.images[0] if caption == CHEST else images.images[0].flip(-1))
    assert images.views == 2


def test_contradict_leaves_the_words():
    images = TrainingImages([corner(CHEST)], 16, augmentation="contradict")
    drawn = [images.batch(step, 1) for step in range(60)]
    assert {captions[0] for *_, captions in drawn} == {CHEST} and images.views == 8
    assert len({image.numpy().tobytes() for image, *_ in drawn}) == 8


def test_none_changes_nothing():
    images = TrainingImages([corner()], 16, augmentation="none")
    assert all(torch.equal(images.batch(step, 1)[0][0], images.images[0]) for step in range(5)) and images.views == 1


def test_the_official_mixture():
    """Half turned and flipped, a quarter rotated by up to 20 degrees with black outside, a quarter as it is."""
    images = TrainingImages([corner()], 16, augmentation="official")
    symmetric = {dihedral(images.images[0], k).numpy().tobytes() for k in range(8)}
    drawn = [images.batch(step, 1) for step in range(400)]
    assert {captions[0] for *_, captions in drawn} == {LEFT} and images.views == 0
    rotated = [(image[0], mask[0]) for image, mask, _ in drawn if image[0].numpy().tobytes() not in symmetric]
    unchanged = sum(torch.equal(image[0], images.images[0]) for image, *_ in drawn)
    assert 0.17 < len(rotated) / 400 < 0.33
    assert 0.23 < unchanged / 400 < 0.40  # a quarter, and an eighth of a half
    values = set(images.images[0].unique().tolist()) | {-1.0}
    for image, mask in rotated:
        assert all(min(abs(v - w) for w in values) < 1e-6 for v in image.unique().tolist())  # nearest neighbour
        assert torch.equal(image[0] > 0, mask == 1)  # picture and mask together
    assert any((image[:, 0, -1] == -1).all() for image, _ in rotated)
    assert all(images.images[0][:, 8, 8].sub(image[:, 7:10, 7:10]).abs().min() < 0.5 for image, _ in rotated)


def test_affine_moves_picture_and_mask_together():
    images = TrainingImages(cases(1, size=32), 32, augmentation="affine")
    drawn = [images.batch(step, 1) for step in range(20)]
    assert len({image.numpy().tobytes() for image, *_ in drawn}) == 20 and images.views == 0
    for image, mask, _ in drawn:
        assert image.abs().max() <= 1 and set(mask.unique().tolist()) <= {0, 1}
        grey = image[0].mean(dim=0)
        assert grey[mask[0] == 1].mean() > grey[mask[0] == 0].mean() + 0.3


def test_stain_changes_every_colour_for_itself_and_affine_all_alike():
    film = corner(CHEST)
    grey = Case("grey", CHEST, image_array=film.image()[..., :1].repeat(3, axis=2), mask_array=film.mask())

    def spread(kind):
        images = TrainingImages([grey], 16, augmentation=kind)
        return max(float((image[0] - image[2]).abs().max()) for image in images.batch(0, 8)[0])

    assert spread("affine") < 1e-5 < 0.01 < spread("stain")


def test_a_bound_on_the_views_makes_them_come_again():
    images = TrainingImages([corner(CHEST)] * 2, 16, augmentation="affine", bound=3)
    drawn = [images.batch(step, 2) for step in range(40)]
    seen = {image.numpy().tobytes() for batch, *_ in drawn for image in batch}
    assert len(seen) == 6 == images.views
    with pytest.raises(ValueError, match="bound=-1"):
        TrainingImages([corner(CHEST)], 16, bound=-1)


def test_the_cache_holds_every_view_of_follow(tmp_path):
    images = TrainingImages([corner(), corner(CHEST)], 16, augmentation="follow")
    features = DiffusionFeatures(tiny_unet(), (0,), (50,), cache=FeatureCache(tmp_path))
    for step in range(40):
        features(images.batch(step, 2)[0])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 8 == images.views - 2  # the flip is a view of both


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no labelled images"),
        (cases(1), {"augmentation": "mixup"}, "augmentation='mixup': choose one of follow, "),
        ([cases(1)[0].without_mask()], {}, "case 'case0' has no mask"),
    ],
)
def test_wrong_images_are_refused(given, options, message):
    with pytest.raises(ValueError, match=message):
        TrainingImages(given, 16, **options)


# --- one step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(value):
    model = made()
    run = Trainee({"model": model}, 10, learning_rate=0.5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match=f"loss became {value} at step 0; a smaller learning rate than 0.5"):
        run.update(next(model.parameters()).sum() * 0 + value)
    assert run.step == 0 and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_gradient_that_is_no_number_stops_the_run():
    model = made()
    run = Trainee({"model": model}, 10, learning_rate=0.5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    weight = next(model.parameters()).flatten()[0]
    with pytest.raises(FloatingPointError, match="norm of the gradient became nan at step 0; a smaller"):
        run.update(torch.where(weight == weight, 1.0, (weight - weight.detach()).sqrt() / 0))
    assert run.step == 0 and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_schedules():
    rates = {}
    for schedule in ("cosine", "constant"):
        run = Trainee({"model": made()}, 20, 1e-2, warmup=4, schedule=schedule)
        rates[schedule] = []
        for _ in range(20):
            run.update(sum(p.square().sum() for p in run.parameters))
            rates[schedule].append(run.optimizer.param_groups[0]["lr"])
    assert rates["constant"] == [1e-2] * 20
    assert rates["cosine"][0] == pytest.approx(1e-2 / 4) and rates["cosine"][:4] == sorted(rates["cosine"][:4])
    assert rates["cosine"][4:] == sorted(rates["cosine"][4:], reverse=True) and rates["cosine"][-1] < 1e-4
    with pytest.raises(ValueError, match="schedule='linear': choose one of cosine, constant"):
        Trainee({"model": made()}, 20, 1e-2, schedule="linear")


def test_only_what_asks_for_gradients_is_trained():
    model = made()
    model.layers[0].requires_grad_(False)
    frozen = model.layers[0].weight.clone()
    fit(model, TrainingImages(cases(2), 16), F.cross_entropy, 3, 2, 1e-2, progress=False)
    assert torch.equal(model.layers[0].weight, frozen) and not torch.equal(
        model.layers[3].weight, made().layers[3].weight
    )


# --- a run ----------------------------------------------------------------------------------------------


def test_the_loss_goes_down_and_the_history_says_so():
    history = fit(made(), TrainingImages(cases(3), 16), F.cross_entropy, 60, 3, 2e-2, validate_every=20, progress=False)
    assert [row["step"] for row in history] == [20, 40, 60]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and history[-1]["loss"] < 0.3
    assert [row["seconds"] for row in history] == sorted(row["seconds"] for row in history)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.2, 0.9, 0.5], 1),
        ([0.2, 0.3, 0.5], 2),
        ([0.9, 0.9, 0.1], 1),  # of equals the later, which has seen more
        ([float("nan"), 0.1, float("nan")], 1),
        ([float("nan")] * 3, 2),
    ],
)
def test_the_best_weights_by_validation_stay(scores, best):
    model, states, given = made(), [], iter(scores)

    def validate(trained):
        trained.eval()  # as an evaluation does
        states.append({k: v.clone() for k, v in trained.state_dict().items()})
        return next(given)

    images = TrainingImages(cases(3), 16)
    history = fit(model, images, F.cross_entropy, 6, 2, 1e-2, validate=validate, validate_every=2, progress=False)
    np.testing.assert_equal([row["score"] for row in history], scores)
    assert not model.training
    assert all(torch.equal(value, states[best][key]) for key, value in model.state_dict().items())
    assert not all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_without_validation_the_last_weights_stay():
    images, a, b = TrainingImages(cases(3), 16), made(), made()
    fit(a, images, F.cross_entropy, 5, 2, 1e-2, validate_every=2, progress=False)
    fit(b, images, F.cross_entropy, 5, 2, 1e-2, validate_every=5, progress=False)
    assert_same_state(a, b)


def test_it_ends_with_a_validation_whatever_the_interval():
    history = fit(made(), TrainingImages(cases(2), 16), F.cross_entropy, 5, 2, 1e-2, validate_every=3, progress=False)
    assert [row["step"] for row in history] == [3, 5]


def _textdiff(folder) -> nn.Module:
    text = TextEncoder.from_pretrained("tiny")
    return tiny_textdiff(text, features=tiny_features(cache=FeatureCache(folder)), positions=True)


@pytest.mark.parametrize(
    ("kind", "schedule", "stop"),
    [
        ("pixelwise", "cosine", 3),
        ("pixelwise", "constant", 7),
        ("textdiff", "cosine", 7),
        ("unet", "cosine", 5),
    ],
)
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(tmp_path, kind, schedule, stop):
    factories = {
        "pixelwise": Pixelwise,
        "textdiff": partial(_textdiff, tmp_path / "cache"),
        "unet": partial(build_baseline, "unet", 2),
    }
    size = 32 if kind == "unet" else 16
    images = TrainingImages(cases(3, size), size)

    def run(model, checkpoint, limit=10):
        steps = []
        scores = [0.5, 0.1, 0.2, 0.3, 0.4]
        if checkpoint.exists():
            scores = scores[stop // 2 :]

        def loss(logits, masks):
            steps.append(1)
            if len(steps) > limit:
                raise Stop
            return F.cross_entropy(logits, masks)

        def validate(_):
            return scores.pop(0)

        return fit(model, images, loss, 10, 2, 1e-2, 1e-2, schedule, validate, 2, "cpu", checkpoint, progress=False)

    whole, interrupted, continued = (made(factories[kind]) for _ in range(3))
    files = {name: tmp_path / f"{name}.safetensors" for name in ("straight", "stopped")}
    run(whole, files["straight"])
    with pytest.raises(Stop):
        run(interrupted, files["stopped"], limit=stop)
    history = run(continued, files["stopped"])
    assert [(row["step"], row["score"]) for row in history] == [(2, 0.5), (4, 0.1), (6, 0.2), (8, 0.3), (10, 0.4)]
    assert_same_state(whole, continued)  # the best weights, of before the interruption
    a, b = (read_checkpoint(path) for path in files.values())  # which also hold the last weights and the moments
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    latest, best = ([value for key, value in a.items() if key.startswith(part)] for part in ("model/", "best/"))
    assert len(latest) == len(best) and sum(x.sum() for x in latest) != sum(x.sum() for x in best)


def test_a_finished_checkpoint_is_not_trained_again(tmp_path):
    images, path = TrainingImages(cases(2), 16), tmp_path / "c.safetensors"
    first, second = made(), made()
    options = dict(checkpoint=path, progress=False)
    history = fit(first, images, F.cross_entropy, 4, 2, 1e-2, **options)

    def never(*_):
        raise AssertionError

    np.testing.assert_equal(fit(second, images, never, 4, 2, 1e-2, **options), history)
    assert_same_state(first, second)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    fit(made(), TrainingImages(cases(2), 16), F.cross_entropy, 2, 2, 1e-2, checkpoint=path, progress=False)
    for images, rate in ((TrainingImages(cases(2), 16, seed=1), 1e-2), (TrainingImages(cases(2), 16), 1e-3)):
        with pytest.raises(ValueError, match="c.safetensors belongs to a run with other settings"):
            fit(made(), images, F.cross_entropy, 2, 2, rate, checkpoint=path, progress=False)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="c.safetensors.*truncated"):
        fit(made(), TrainingImages(cases(2), 16), F.cross_entropy, 2, 2, 1e-2, checkpoint=path, progress=False)


def test_the_features_are_not_computed_again_after_the_first_epoch(tmp_path):
    model = made(partial(_textdiff, tmp_path))
    images = TrainingImages([corner(CHEST)], 16)  # two views
    passes, decode = [], model.features.unet.decode
    model.features.unet.decode = lambda x, *rest: passes.append(len(x)) or decode(x, *rest)
    fit(model, images, F.cross_entropy, 20, 1, 1e-3, progress=False)
    assert sum(passes) == 2 * len(model.features.steps)
