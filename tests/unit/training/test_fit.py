"""The training loop: one for all models. Runs continue to the bit, the best weights stay, nothing frozen is stored."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import cases, tiny_features, tiny_textdiff, tiny_unet
from tiny_volumes import training_volumes, volume_case
from torch import nn

from textdiff.base.checkpoints import read_checkpoint, write_checkpoint
from textdiff.data.images.transforms import ImageSpec
from textdiff.data.images.views import TrainingImages
from textdiff.models.baselines import build_baseline
from textdiff.models.features import FeatureCache
from textdiff.models.losses import DiceCE
from textdiff.models.text import TextEncoder
from textdiff.training import fit as fit_module
from textdiff.training.fit import Optimisation, best_row, fit
from textdiff.training.pretraining import CropPool, Denoising
from textdiff.training.weights import Weights, trained_state

NAN = math.nan


class Stop(Exception):
    pass


class Line(nn.Module):
    """A model with one frozen and three trained numbers."""

    noise = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.0]))
        self.inner = nn.Linear(1, 1)
        self.frozen = nn.Parameter(torch.tensor([7.0]), requires_grad=False)
        nn.init.constant_(self.inner.weight, 0.5)
        nn.init.zeros_(self.inner.bias)

    def loss(self, batch, generator):
        noise = self.noise * torch.randn(batch.shape, generator=generator)
        error = (self.inner(batch) + self.slope * batch - 3 * batch + noise).square().mean()
        return {"loss": error, "part": error / 2}


class Numbers:
    """Samples that follow from their number."""

    def __init__(self, seed: int = 0) -> None:
        self.settings = {"seed": seed}

    def sample(self, number):
        return torch.randn(1, generator=torch.Generator().manual_seed(number))

    def collate(self, samples):
        return torch.stack(samples)


class Supervised(nn.Module):
    """Any model of images and captions, with the loss of every pixel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, batch, generator=None):
        return {"loss": F.cross_entropy(self.model(batch.images, batch.captions), batch.masks)}


class Pixelwise(nn.Module):
    """Two convolutions, a normalisation, and a dropout that draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 2, 1)
        )

    def forward(self, images, captions):
        return self.layers(images)


def made(factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return factory()


def pixelwise() -> nn.Module:
    return Supervised(made(Pixelwise))


def images(**options) -> TrainingImages:
    return TrainingImages(cases(3), ImageSpec(16), **options)


def how(iterations: int = 12, **changes) -> Optimisation:
    settings = {"batch_size": 2, "learning_rate": 0.1, "validate_every": 4} | changes
    return Optimisation(iterations, **settings)


quiet = partial(fit, progress=False)


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    theirs = b.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items())


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("validate_every", 0),
        ("checkpoint_every", 0),
        ("learning_rate", NAN),
        ("learning_rate", 0.0),
        ("weight_decay", -1e-3),
        ("ema_decay", 1.0),
        ("lr_schedule", "linear"),
    ],
)
def test_settings_out_of_their_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        how(**{name: value})


def test_validation_leaves_the_training_as_it_would_have_been_and_halves_accumulate():
    scored, unscored, whole, halves = pixelwise(), pixelwise(), Line(), Line()
    rising = iter(range(3))

    def validate(model):
        torch.rand(1)  # draws, as an evaluation may
        return next(rising)

    quiet(scored, images(), how(6, validate_every=2, ema_decay=0.9), validate=validate)
    quiet(unscored, images(), how(6, ema_decay=0.9))
    assert_same_state(scored, unscored)
    whole.noise = halves.noise = 0.0
    quiet(whole, Numbers(), how(5, batch_size=4))
    quiet(halves, Numbers(), how(5, batch_size=2, accumulate=2))
    assert torch.allclose(whole.slope, halves.slope, atol=1e-5)


def test_learning_rates():
    constant = [how(20, lr_schedule="constant").rate(step) for step in range(20)]
    cosine = [how(20, warmup=4).rate(step) for step in range(20)]
    assert constant == [0.1] * 20
    assert cosine[0] == pytest.approx(0.1 / 4) and cosine[:4] == sorted(cosine[:4])
    assert cosine[4:] == sorted(cosine[4:], reverse=True) and cosine[-1] < 1e-3
    assert how(200).rate(0) == pytest.approx(0.1 / 10)  # a twentieth of the steps


@pytest.mark.parametrize(("schedule", "length"), [("cosine", 1.0), ("constant", 100.0)])
def test_only_the_cosine_clips_gradients(schedule, length, monkeypatch):
    seen = []

    class Steep(Line):
        def loss(self, batch, generator):
            return {"loss": 100 * self.slope.sum() + 0 * self.inner(batch).sum()}

    model = Steep()
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: seen.append(float(model.slope.grad)) or step(self))
    quiet(model, Numbers(), how(1, lr_schedule=schedule))
    assert seen == [pytest.approx(length, rel=1e-4)]


# --- which weights stay ---------------------------------------------------------------------------------

SCORES = [
    ([0.2, 0.9, 0.5], 1),
    ([0.2, 0.3, 0.5], 2),
    ([0.9, 0.9, 0.1], 0),  # the first of equals
    ([0.1, 0.9, 0.9], 1),
]


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize(("scores", "best"), SCORES)
def test_the_weights_of_the_best_row_stay(scores, best, ema_decay):
    model, states, given = pixelwise(), [], iter(scores)

    def validate(shown):
        assert not shown.training
        states.append({k: v.clone() for k, v in shown.state_dict().items()})
        return next(given)

    history = quiet(model, images(), how(6, validate_every=2, ema_decay=ema_decay), validate=validate)
    np.testing.assert_equal([row["score"] for row in history], scores)
    assert best_row(history) is history[best] and not model.training
    assert all(torch.equal(value, states[best][key]) for key, value in model.state_dict().items())
    assert not all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_without_scores_the_last_row_counts():
    assert best_row([{"score": NAN, "step": step} for step in (1, 2)])["step"] == 2


def test_an_average_follows_the_weights_and_a_batch_norms_statistics_are_copied():
    latest, averaged = pixelwise(), pixelwise()
    quiet(latest, images(), how(6, ema_decay=0.0))
    quiet(averaged, images(), how(6, ema_decay=0.999))
    start = pixelwise()
    apart = [
        sum((a - b).square().sum() for a, b in zip(one.parameters(), two.parameters(), strict=True))
        for one, two in ((averaged, start), (averaged, latest), (latest, start))
    ]
    assert 0 < apart[0] < apart[2] and 0 < apart[1] < apart[2]  # on the way
    for (name, a), b in zip(averaged.named_buffers(), latest.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_only_what_asks_for_gradients_is_trained_and_stored(tmp_path):
    model, path = made(partial(_textdiff, tmp_path)), tmp_path / "c.safetensors"
    frozen = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("model.head.")}
    quiet(model, images(), how(2, ema_decay=0.9), validate=lambda model: 1.0, checkpoint=path)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in frozen.items())
    stored = read_checkpoint(path)
    assert {key.split("/")[0] for key in stored} == {"model", "average", "best", "adam"}
    assert all(key.split("/")[1].startswith("model.head.") for key in stored)
    statistics = [key for key in stored if key.endswith("running_var")]
    assert len(statistics) == 3 * 2  # of two batch norms: latest, average, best


def test_the_trained_state_of_a_model():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.BatchNorm2d(1, affine=False), nn.BatchNorm2d(1))
    model[3].requires_grad_(False)
    model[0].bias.requires_grad_(False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected = {"0.weight", "1.weight", "1.bias", *(f"{k}.{name}" for k in (1, 2) for name in statistics)}
    assert set(trained_state(model)) == expected
    with pytest.raises(ValueError, match="no parameter of this Sequential asks for gradients"):
        quiet(model.requires_grad_(False), images(), how())


# --- steps ----------------------------------------------------------------------------------------------


def test_the_loss_goes_down_and_the_history_has_the_mean_of_every_part():
    history = quiet(Line(), Numbers(), how(10), validate=lambda model: 1.0)
    assert [row["step"] for row in history] == [4, 8, 10]
    assert all(row["part"] == pytest.approx(row["loss"] / 2) for row in history)
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["seconds"] for row in history] == sorted(row["seconds"] for row in history)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("what", ["loss", "norm of the gradient"])
def test_what_is_no_number_stops_the_run_before_it_spoils_the_weights(schedule, what):
    class Broken(Line):
        def loss(self, batch, generator):
            error = super().loss(batch, generator)["loss"]
            if len(calls) == 2:
                zero = self.slope.sum() - self.slope.detach().sum()
                error = error * NAN if what == "loss" else error + torch.where(zero == 0, 0.0, 1.0) + zero.abs().sqrt()
            calls.append({k: v.clone() for k, v in self.state_dict().items()})
            return {"loss": error}

    calls: list = []
    model = Broken()
    with pytest.raises(
        FloatingPointError, match=f"the {what} became (nan|inf) at step 2; a smaller learning rate than 0.1"
    ):
        quiet(model, Numbers(), how(lr_schedule=schedule))
    assert all(torch.equal(value, calls[-1][key]) for key, value in model.state_dict().items())


@pytest.fixture
def late(monkeypatch):
    """The processor takes itself for a card: figures are read three steps at once, poisoned steps left out until then."""
    monkeypatch.setattr(fit_module, "LATE", ("cpu",))
    monkeypatch.setattr(fit_module, "READ_TOGETHER", 3)


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("what", ["loss", "norm of the gradient"])
def test_a_device_that_is_read_late_takes_no_poisoned_step_either(tmp_path, late, what, step):
    """It trains on for a while; then the right step is named, and weights, moments, history and checkpoint are clean."""

    class Broken(Line):
        def loss(self, batch, generator):
            losses = super().loss(batch, generator)
            if len(seen) == step:
                zero = self.slope.sum() - self.slope.detach().sum()
                losses["loss"] = losses["loss"] * NAN if what == "loss" else losses["loss"] + zero.abs().sqrt()
            seen.append({k: v.clone() for k, v in self.state_dict().items()})
            return losses

    def validate(model):
        assert all(value.isfinite().all() for value in model.state_dict().values())
        return 0.5

    seen: list = []
    model, path = Broken(), tmp_path / "c.safetensors"
    settings = how(12, validate_every=4, checkpoint_every=2, ema_decay=0.9)
    with pytest.raises(FloatingPointError, match=f"the {what} became nan at step {step}; a smaller"):
        quiet(model, Numbers(), settings, validate=validate, checkpoint=path)
    assert all(torch.equal(value, seen[step][key]) for key, value in model.state_dict().items())
    if path.exists():
        assert step >= 2 and all(value.isfinite().all() for value in read_checkpoint(path).values())
    assert path.exists() == (step >= 2)


@pytest.mark.parametrize("devices", [(), ("cpu",)], ids=["read at once", "read late"])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("what", ["weights", "statistics", "score"])
def test_weights_and_scores_that_are_no_numbers_leave_the_checkpoint_of_before(
    tmp_path, monkeypatch, devices, schedule, what
):
    """They break in the last step before a checkpoint, where no later loss would tell of it."""
    monkeypatch.setattr(fit_module, "LATE", devices)
    path, kept = tmp_path / "c.safetensors", []
    step = torch.optim.AdamW.step
    model = pixelwise()

    def stepped(optimizer):
        step(optimizer)
        taken.append(1)
        if len(taken) == 8:
            kept.append(path.read_bytes())
            broken = {"weights": model.model.layers[4].bias, "statistics": model.model.layers[1].running_var}
            if what in broken:
                broken[what].data[0] = math.inf

    taken: list = []
    monkeypatch.setattr(torch.optim.AdamW, "step", stepped)
    scores = iter([0.5, NAN if what == "score" else 0.6])
    said = {
        "weights": r"the weights model.layers.4.bias hold nan or infinity after step 7; a smaller learning rate than 0.1",
        "statistics": r"the weights model.layers.1.running_var hold nan or infinity after step 7",
        "score": "the validation score became nan after step 7",
    }
    with pytest.raises(FloatingPointError, match=said[what]):
        quiet(model, images(), how(lr_schedule=schedule), validate=lambda _: next(scores, 0.7), checkpoint=path)
    assert [path.read_bytes()] == kept and all(value.isfinite().all() for value in read_checkpoint(path).values())


@pytest.mark.parametrize("use", ["numbers", "dropout", "pre-training"])
def test_reading_late_changes_nothing(tmp_path, monkeypatch, use):
    build, samples = USES[use]
    settings = how(10, learning_rate=1e-2, validate_every=5, checkpoint_every=3, ema_decay=0.9, accumulate=2)
    ends = []
    for devices in ((), ("cpu",)):
        monkeypatch.setattr(fit_module, "LATE", devices)
        model = made(partial(build, tmp_path))
        rows = quiet(model, samples(), settings, checkpoint=tmp_path / f"{len(devices)}.safetensors")
        ends.append((model, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]))
    assert_same_state(ends[0][0], ends[1][0])
    np.testing.assert_equal(ends[0][1], ends[1][1])
    a, b = (read_checkpoint(tmp_path / f"{k}.safetensors") for k in (0, 1))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_device_is_asked_for_numbers_once_in_many_steps(monkeypatch, late):
    asked = []
    monkeypatch.setattr(fit_module, "READ_TOGETHER", 99)
    numbers = fit_module._Figures.numbers
    monkeypatch.setattr(fit_module._Figures, "numbers", lambda self: asked.append(self.step) or numbers(self))
    model, counts = Line(), []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: counts.append(len(asked)) or step(self))
    quiet(model, Numbers(), how(8, validate_every=4))
    assert counts == [0] * 4 + [5] * 4  # for the figures of four steps, and once whether the weights are numbers
    assert asked == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]


# --- memory ---------------------------------------------------------------------------------------------


class Narrow(Line):
    """A model on a card that takes only so many samples at once."""

    def __init__(self, most: int, late: bool = False) -> None:
        super().__init__()
        self.most, self.late, self.sizes, self.noise = most, late, [], 0.0

    def loss(self, batch, generator):
        self.sizes.append(len(batch))
        losses = super().loss(batch, generator)
        if len(batch) <= self.most:
            return losses
        if not self.late:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        def fail(_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        held = self.slope * 1.0  # its gradient comes after some of the others
        held.register_hook(fail)
        return {name: value + 0 * held.sum() for name, value in losses.items()}


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_is_too_much_goes_through_in_parts_with_the_same_mean_loss(caplog, backward, accumulate):
    whole, parts = Narrow(8), Narrow(3, backward)
    expected, found = (
        quiet(m, Numbers(), how(4, batch_size=8, validate_every=2, accumulate=accumulate)) for m in (whole, parts)
    )
    assert [r.getMessage() for r in caplog.records] == [
        "out of memory with 8 samples at once, going on with 4",
        "out of memory with 4 samples at once, going on with 2",
    ]
    assert parts.sizes[:2] == [8, 4] and set(parts.sizes[2:]) == {2} and len(parts.sizes) == 2 + 4 * 4 * accumulate
    for a, b in zip(expected, found, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["part"] == pytest.approx(b["part"], rel=1e-5)
    assert torch.allclose(whole.slope, parts.slope, atol=1e-6) and torch.allclose(
        whole.inner.weight, parts.inner.weight
    )


def test_a_batch_that_cannot_be_split_and_a_sample_that_is_too_much():
    with pytest.raises(MemoryError, match="a single one of the samples: choose a smaller size"):
        quiet(Narrow(0), Numbers(), how(4, batch_size=4))
    together = Narrow(2)
    together.criterion = DiceCE(dice_over="batch")
    with pytest.raises(MemoryError, match="4 samples at once, which cannot be split: the Dice .* or dice_over='image'"):
        quiet(together, Numbers(), how(4, batch_size=4))
    together.criterion, together.norm = DiceCE(), nn.BatchNorm1d(1)
    with pytest.raises(MemoryError, match="cannot be split: batch normalisation sees the whole batch"):
        quiet(together, Numbers(), how(4, batch_size=4))


# --- compiling ------------------------------------------------------------------------------------------


def test_a_compiled_training_that_fails_to_compile_is_the_training_that_it_was(monkeypatch, caplog):
    def cannot(forward, **_):
        def fails(*args, **kwargs):
            torch.rand(3)
            raise RuntimeError("no compiler here")

        return fails

    plain, tried = pixelwise(), pixelwise()
    quiet(plain, images(), how(4))
    monkeypatch.setenv("TEXTDIFF_COMPILE", "on")
    monkeypatch.setattr(torch, "compile", cannot)
    quiet(tried, images(), how(4), compiling=tried.model)
    assert_same_state(plain, tried)
    assert [r.getMessage() for r in caplog.records] == [
        "Pixelwise is not compiled (no compiler here); it goes on as it is"
    ]


def test_what_the_loss_draws_follows_from_seed_and_step():
    class Drawing(Line):
        def loss(self, batch, generator):
            seen.append((float(torch.rand((), generator=generator)), float(torch.rand(()))))
            return super().loss(batch, generator)

    draws = []
    for seed in (0, 0, 1):
        seen: list = []
        model, state = Drawing(), torch.get_rng_state()
        quiet(model, Numbers(), how(3, accumulate=2, seed=seed))
        assert torch.equal(state, torch.get_rng_state())
        draws.append(seen)
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) == 6


def test_the_loop_keeps_model_and_batch_on_one_device(monkeypatch):
    """A device without numbers stands for a GPU: torch refuses there what it refuses on one, mixed devices."""

    class Watched(Supervised):
        def loss(self, batch, generator):
            assert {batch.images.device.type, batch.masks.device.type} == {"meta"}
            return {"loss": (self.model(batch.images, batch.captions) - batch.masks[:, None]).square().mean()}

    def numbers(figures):
        assert figures.values.device.type == "meta"
        return [1.0] * len(figures.values)

    monkeypatch.setattr(fit_module._Figures, "numbers", numbers)
    model = Watched(made(Pixelwise))
    history = quiet(model, images(), how(4, validate_every=2, ema_decay=0.9), validate=lambda m: 1.0, device="meta")
    assert len(history) == 2 and {value.device.type for value in model.state_dict().values()} == {"meta"}


# --- interruption ---------------------------------------------------------------------------------------


def _textdiff(folder) -> nn.Module:
    text = TextEncoder.from_pretrained("tiny")
    return Supervised(tiny_textdiff(text, features=tiny_features(cache=FeatureCache(folder)), positions=True))


class Voxelwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 1))

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(batch.images.shape, generator=generator)
        return {"loss": F.cross_entropy(self.layers(batch.images + noise), batch.labels)}


USES = {
    "numbers": (lambda _: Line(), Numbers),
    "frozen features": (_textdiff, images),
    "from scratch": (lambda _: build_baseline("unet", 2), lambda: TrainingImages(cases(3, 32), ImageSpec(32))),
    "dropout": (lambda _: Supervised(Pixelwise()), images),
    "volumes": (lambda _: Voxelwise(), lambda: training_volumes([volume_case("a"), volume_case("b", 1)], augment=True)),
    "pre-training": (lambda _: Denoising(tiny_unet(), "bfloat16"), lambda: CropPool(cases(3), 16, 8)),
}


@pytest.mark.parametrize(
    ("use", "stop", "settings"),
    [
        ("frozen features", 7, {"validate_every": 2}),
        ("frozen features", 1, {"validate_every": 1, "ema_decay": 0.9, "lr_schedule": "constant"}),
        ("from scratch", 5, {"validate_every": 2, "weight_decay": 1e-2}),
        ("volumes", 5, {"validate_every": 2, "ema_decay": 0.9, "accumulate": 2}),
        ("dropout", 7, {"validate_every": 2, "ema_decay": 0.9, "weight_decay": 1e-2, "accumulate": 2}),
        ("pre-training", 8, {"validate_every": 5, "checkpoint_every": 3, "ema_decay": 0.99}),
        *[("numbers", k, {"validate_every": 3, "checkpoint_every": 2, "accumulate": 2}) for k in (1, 5, 6, 9, 10)],
    ],
)
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(tmp_path, use, stop, settings):
    build, samples = USES[use]
    optimisation = how(10, **{"learning_rate": 1e-2} | settings)
    scores = {1: 0.5, 2: 0.4, 4: 0.1, 6: 0.2, 8: 0.3}

    def run(name: str, limit: int = 99):
        model = made(partial(build, tmp_path / "cache"))
        loss, calls = model.loss, []

        def interrupted(batch, generator):
            calls.append(1)
            if len(calls) > limit * optimisation.accumulate + optimisation.accumulate - 1:  # amid a step
                raise Stop
            return loss(batch, generator)

        def validate(_):
            step = len(calls) // optimisation.accumulate + done
            return scores.get(step, 0.0)

        path = tmp_path / f"{name}.safetensors"
        every = optimisation.checkpoint_every or optimisation.validate_every
        done = stop // every * every if path.exists() else 0
        model.loss = interrupted
        validate = None if use == "pre-training" else validate
        history = quiet(model, samples(), optimisation, validate=validate, checkpoint=path)
        return model, [{k: v for k, v in row.items() if k != "seconds"} for row in history]

    whole, expected = run("straight")
    with pytest.raises(Stop) if stop < 10 else nullcontext():  # a finished run is not trained again
        run("stopped", limit=stop)
    continued, history = run("stopped")
    np.testing.assert_equal(history, expected)
    assert_same_state(whole, continued)
    a, b = (read_checkpoint(tmp_path / f"{name}.safetensors") for name in ("straight", "stopped"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("changes", "samples", "model", "message"),
    [
        ({"learning_rate": 0.2}, Numbers(), Line, r"with other settings \(learning_rate 0.1 instead of 0.2\)"),
        ({}, Numbers(seed=1), Line, r"with other settings \(samples \{'seed': 0\} instead of \{'seed': 1\}\)"),
        ({}, Numbers(), pixelwise, "holds the weights of another network than this Supervised"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, samples, model, message):
    path = tmp_path / "c.safetensors"
    quiet(Line(), Numbers(), how(2), checkpoint=path)
    with pytest.raises(ValueError, match=f"c.safetensors.*{message}"):
        quiet(model(), samples, how(2, **changes), checkpoint=path)


def test_a_damaged_checkpoint_and_one_of_another_format_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    quiet(Line(), Numbers(), how(2), checkpoint=path)
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "FORMAT", 99)
        with pytest.raises(ValueError, match=r"\(format \d+ instead of 99\)"):
            quiet(Line(), Numbers(), how(2), checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[:200])
    with pytest.raises(ValueError, match="c.safetensors.*truncated"):
        quiet(Line(), Numbers(), how(2), checkpoint=path)
    write_checkpoint(path, {"slope": torch.zeros(1)})  # somebody's weights, not a run's
    with pytest.raises(ValueError, match=r"c.safetensors.*format None"):
        quiet(Line(), Numbers(), how(2), checkpoint=path)


def test_a_young_average_soon_forgets_where_it_began():
    weight = nn.Parameter(torch.ones(1))
    weights = Weights({"weight": weight}, ema_decay=0.999)
    with torch.no_grad():
        weight.zero_()
    weights.follow(1)
    assert weights.average["weight"].item() == pytest.approx(1 / 11), "its memory is 1/11 after the first step"
    weights.follow(10**6)
    assert weights.average["weight"].item() == pytest.approx(0.999 / 11), "and never longer than asked for"
