"""Training in 3D. In: a model with ``loss(batch, generator)`` and patches. Out: the model with its best averaged weights.

One loop for TextDiffSeg and for the networks it is compared with: same patches, steps, schedule, averaging and choice of
the best weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from textdiff.data.volumes.patches import TrainingVolumes
from textdiff.training.fit import Trainee, last_is_best


class Average(nn.Module):
    """A moving average of a model's trained parameters, kept as buffers so that a checkpoint can hold it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        for i, value in enumerate(self._of(model)):
            self.register_buffer(f"mean{i}", value.detach().clone())

    def _of(self, model: nn.Module) -> list[Tensor]:
        trained = dict(model.named_parameters())
        return [trained[name] for name in self.names]

    @torch.no_grad()
    def follow(self, model: nn.Module, decay: float) -> None:
        """A step of the average towards the model's weights; ``decay`` 0 copies them."""
        for mean, value in zip(self.buffers(), self._of(model), strict=True):
            mean.lerp_(value, 1 - decay)

    @torch.no_grad()
    def exchange(self, model: nn.Module) -> None:
        """Swaps the model's weights and the average."""
        for mean, value in zip(self.buffers(), self._of(model), strict=True):
            kept = value.clone()
            value.copy_(mean)
            mean.copy_(kept)


@contextmanager
def averaged(model: nn.Module, average: Average) -> Iterator[nn.Module]:
    """Within this context the model has the averaged weights and is in eval mode."""
    average.exchange(model)
    model.eval()
    try:
        yield model
    finally:
        average.exchange(model)
        model.train()


def fit_volumes(
    model: nn.Module,
    volumes: TrainingVolumes,
    *,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    accumulate: int = 1,
    weight_decay: float = 1e-5,
    ema_decay: float = 0.99,
    validate: Callable[[nn.Module], float] | None = None,
    validate_every: int = 100,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Trains ``model`` in place and leaves in it the averaged weights that scored best.

    Args:
        model: its ``loss(batch, generator)`` gives scalars by name, of which "loss" is minimised.
        batch_size, accumulate: patches at once, and how many such batches make one step.
        ema_decay: memory of the weights' average, shorter at the beginning.
        validate: scores the averaged model (higher is better) every ``validate_every`` steps; None keeps the last.
        checkpoint: a file to continue from, to the step, and to write at every validation.

    Returns one row a validation: step, the mean of every loss since the last, score, seconds.
    """
    model.to(device).train()
    average, best = Average(model), Average(model)
    own = {"model": _Trained(model), "average": average, "best": best}
    run = Trainee(own, iterations, learning_rate, max(1, iterations // 20), weight_decay)
    settings = {
        "iterations": iterations,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "ema_decay": ema_decay,
        "seed": seed,
    }
    if checkpoint is not None and Path(checkpoint).is_file():
        run.load(Path(checkpoint), settings)
    started = time.monotonic() - (run.history[-1]["seconds"] if run.history else 0.0)
    recent: list[dict[str, float]] = []
    bar = tqdm(range(run.step, iterations), initial=run.step, total=iterations, desc="training", disable=not progress)
    for step in bar:

        def losses(step: int = step) -> Iterator[Tensor]:
            for part in range(step * accumulate, (step + 1) * accumulate):
                generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + part)
                parts = model.loss(volumes.batch(part, batch_size).to(device), generator)
                recent.append({name: float(value.detach()) for name, value in parts.items()})
                yield parts["loss"]

        run.update_from(losses(), accumulate)
        # a long memory only once there is something to remember
        average.follow(model, min(ema_decay, run.step / (run.step + 10)))
        if run.step % validate_every and run.step != iterations:
            continue
        with averaged(model, average):
            score = float("nan") if validate is None else validate(model)
        row = {name: sum(parts[name] for parts in recent) / len(recent) for name in recent[0]}
        run.history.append({"step": run.step, **row, "score": score, "seconds": time.monotonic() - started})
        bar.set_postfix(loss=f"{row['loss']:.3f}", score=f"{score:.4f}")
        recent.clear()
        if last_is_best(run.history):
            best.load_state_dict(average.state_dict())
        if checkpoint is not None:
            run.save(Path(checkpoint), settings)
    best.exchange(model)
    model.eval()
    return run.history


class _Trained(nn.Module):
    """The trained parameters of a model, and nothing of what is frozen in it (a text encoder)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        # a parameter's name may not hold a dot
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)
