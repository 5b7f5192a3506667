"""The 3D training loop: averages, accumulation, the best weights, and going on after an interruption, to the step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from textdiff.data.volumes.patches import Batch
from textdiff.training.fit3d import Average, averaged, fit_volumes


class Line(nn.Module):
    """A model with one frozen and two trained numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.0]))
        self.inner = nn.Linear(1, 1)
        self.frozen = nn.Parameter(torch.tensor([7.0]), requires_grad=False)
        nn.init.constant_(self.inner.weight, 0.5)
        nn.init.zeros_(self.inner.bias)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        x = batch.images.flatten(1)[:, :1]
        noise = 0.01 * torch.randn(x.shape, generator=generator)
        error = (self.inner(x) + self.slope * x - 3 * x + noise).square().mean()
        return {"loss": error, "part": error / 2}


class Patches:
    """Batches of numbers that follow from the batch's index."""

    def batch(self, index: int, size: int) -> Batch:
        images = torch.randn(size, 1, generator=torch.Generator().manual_seed(index))
        return Batch(images, torch.zeros(size), torch.zeros(size), [""] * size)


def fit(model: nn.Module, iterations: int = 12, **options) -> list[dict[str, float]]:
    settings = {"batch_size": 2, "learning_rate": 0.1, "validate_every": 4, "progress": False} | options
    return fit_volumes(model, Patches(), iterations=iterations, **settings)


def test_history_has_the_mean_of_every_part_of_the_loss():
    history = fit(Line(), validate=lambda model: 1.0)
    assert [row["step"] for row in history] == [4, 8, 12]
    assert all(row["part"] == pytest.approx(row["loss"] / 2) for row in history)
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_averaged_weights_with_the_best_score_stay():
    seen, scores = [], iter((0.1, 0.9, 0.3))

    def validate(model: nn.Module) -> float:
        seen.append(float(model.slope.detach()))
        assert not model.training
        return next(scores)

    model = Line()
    fit(model, validate=validate)
    assert float(model.slope.detach()) == seen[1] and not model.training
    assert float(model.frozen) == 7.0


def test_validation_leaves_the_training_as_it_would_have_been():
    with_scores, without = Line(), Line()
    fit(with_scores, validate=lambda model: 0.0 if len(list(model.parameters())) else 1.0)
    fit(without)
    assert torch.equal(with_scores.slope, without.slope)


def test_an_average_follows_and_is_exchanged():
    model = Line()
    average = Average(model)
    with torch.no_grad():
        model.slope.fill_(1.0)
    average.follow(model, 0.75)
    with averaged(model, average) as shown:
        assert float(shown.slope) == 0.25 and float(shown.frozen) == 7.0
    assert float(model.slope) == 1.0 and model.training


def test_two_halves_accumulated_are_one_whole_batch():
    whole, halves = Line(), Line()

    class Quiet(Patches):
        def batch(self, index: int, size: int) -> Batch:
            numbers = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
            part = numbers if size == 4 else numbers[2 * (index % 2) : 2 * (index % 2) + 2]
            return Batch(part, torch.zeros(size), torch.zeros(size), [""] * size)

    for model, size, parts in ((whole, 4, 1), (halves, 2, 2)):
        model.loss = lambda batch, generator, model=model: {
            "loss": (model.inner(batch.images) + model.slope * batch.images - 3).square().mean()
        }
        fit_volumes(model, Quiet(), iterations=5, batch_size=size, accumulate=parts, learning_rate=0.1, progress=False)
    assert torch.allclose(whole.slope, halves.slope, atol=1e-5)


def test_an_interrupted_training_goes_on_to_the_step(tmp_path):
    whole, cut = Line(), Line()
    scores = {4: 0.5, 8: 0.2, 12: 0.1}
    expected = fit(whole, validate=lambda model: scores[4])

    class Stop(Exception):
        pass

    def stop_at_second(model: nn.Module) -> float:
        stop_at_second.calls += 1
        if stop_at_second.calls == 3:
            raise Stop
        return scores[4]

    stop_at_second.calls = 0
    file = tmp_path / "run" / "checkpoint.safetensors"
    with pytest.raises(Stop):
        fit(cut, validate=stop_at_second, checkpoint=file)
    assert file.is_file()
    again = Line()
    history = fit(again, validate=lambda model: scores[4], checkpoint=file)
    assert [row["step"] for row in history] == [row["step"] for row in expected]
    assert torch.equal(again.slope, whole.slope) and torch.equal(again.inner.weight, whole.inner.weight)
    with pytest.raises(ValueError, match="other settings"):
        fit(Line(), checkpoint=file, learning_rate=0.2)


def test_a_loss_that_is_no_number_stops_the_training():
    model = Line()
    model.loss = lambda batch, generator: {"loss": model.slope.sum() * float("nan")}
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(model)
